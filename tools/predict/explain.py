"""One image on one HTML page: as each template sees it in training, and what each template believes of it.

Legend: M templates, C classes, S image size in pixels.
"""

from __future__ import annotations

import base64
import io
from contextlib import redirect_stdout
from pathlib import Path
from typing import Any, NamedTuple

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.data.transforms.transforms import build_transform
from jinja2 import Environment, FileSystemLoader, StrictUndefined
from PIL import Image
from torch import Tensor
from torchvision.transforms import Normalize

from storage.files import atomic_write
from storage.safe_text import escaped
from tools.predict.predictor import Predictor
from tools.predict.trained import ImageFiles
from trainers.base import check_scores
from trainers.modules.evidence import Opinion

ASSETS = Path(__file__).with_name("assets")
CLASSES = 5  # of which beliefs are shown, before each template's own first class
LONGEST_SIDE = 320  # pixels of the whole image on the page


class Share(NamedTuple):
    """A class, and how much belief or probability it has, in [0, 1]."""

    label: str
    share: float


class Judgement(NamedTuple):
    """What one template, or all of them together, say of an image.

    Attributes:
        shares: belief of each shown class; of a method without opinions its probability.
        uncertainty: in [0, 1]; None for a method without opinions.
    """

    shares: list[Share]
    uncertainty: float | None


class Explanation(NamedTuple):
    """What a run says of one image.

    Attributes:
        path: the image.
        label, probability: the prediction.
        fused: the decision.
        conflict: in [0, 1]; None for a method without opinions.
        templates: what each template says by itself; empty for a method without opinions.
        views: RGB images `(S, S)` as each template, or the method, sees them in training.
        seen: the same as the test sees them, one for all templates or one for each.
    """

    path: str
    label: str
    probability: float
    fused: Judgement
    conflict: float | None
    templates: list[Judgement]
    views: list[Image.Image]
    seen: list[Image.Image]


@torch.no_grad()
def explain(predictor: Predictor, path: str, classes: int = CLASSES) -> Explanation:
    """What a run says of one image, template by template.

    Random views follow from the run's seed and the picture, so every call gives the same.

    Args:
        predictor: the run.
        path: of the image.
        classes: how many of the decision's first classes to show.

    Raises:
        OSError: the image cannot be read.
        ValueError: the run gives scores that are not numbers.
    """
    trainer, names = predictor.trainer, predictor.class_names
    seed = trainer.cfg.SEED
    with redirect_stdout(io.StringIO()):  # Dassl tells what it builds
        training = trainer.transforms()[0] or build_transform(trainer.cfg, is_train=True)
    training = training if isinstance(training, list) else [training]
    _, reason, views = ImageFiles([path], training, seed)[0]
    if reason:
        raise OSError(f"{path}: {reason}")
    seen = ImageFiles([path], predictor.views, seed)[0][2]
    batch = {f"img{n}" if n > 1 else "img": view[None] for n, view in enumerate(seen, 1)}
    trainer.set_model_mode("eval")
    images, _ = trainer.parse_batch_test({**batch, "label": torch.zeros(1, dtype=torch.long)})
    outputs = trainer.outputs(images)
    scores, _ = trainer.judge(outputs, predictor.calibration)
    try:
        check_scores(scores, trainer.options.PREC)
    except FloatingPointError as error:
        raise ValueError(str(error)) from error
    fused, own = trainer.opinions(outputs, predictor.calibration) or (None, [])
    probability = scores[0].softmax(dim=0)  # (C,)
    order = scores[0].sort(descending=True, stable=True).indices.tolist()
    shown = list(dict.fromkeys(order[:classes] + [int(opinion.log_prob[0].argmax()) for opinion in own]))

    def judged(opinion: Opinion) -> Judgement:
        shares = [Share(names[label], opinion.belief[0, label].item()) for label in shown]
        return Judgement(shares, opinion.uncertainty[0].item())

    plain = Judgement([Share(names[label], probability[label].item()) for label in shown], None)
    return Explanation(
        path,
        names[order[0]],
        probability[order[0]].item(),
        judged(fused) if fused else plain,
        fused.conflict[0].item() if fused else None,
        [judged(opinion) for opinion in own],
        [_picture(view, transform) for view, transform in zip(views, training)],
        [_picture(view, transform) for view, transform in zip(seen, predictor.views)],
    )


def write_page(explanation: Explanation, path: str | Path) -> None:
    """One HTML file that needs no other.

    Raises:
        OSError: it cannot be written, or the image cannot be read again.
    """
    environment = Environment(loader=FileSystemLoader(ASSETS), autoescape=True, undefined=StrictUndefined)
    with Image.open(explanation.path) as image:
        whole = image.convert("RGB")
    whole.thumbnail((LONGEST_SIDE, LONGEST_SIDE))
    several = len(explanation.views) > 1
    rows = []
    for m, view in enumerate(explanation.views, 1):
        judgement = explanation.templates[m - 1] if m <= len(explanation.templates) else None
        title = f"Template {m}" if several or explanation.templates else "In training"
        rows.append({"title": title, "view": _url(view), "judgement": judgement and _safe(judgement)})
    page = environment.get_template("explain.html.j2").render(
        path=escaped(explanation.path),
        label=escaped(explanation.label),
        probability=explanation.probability,
        conflict=explanation.conflict,
        whole=_url(whole),
        seen=[_url(view) for view in explanation.seen],
        fused=_safe(explanation.fused),
        rows=rows,
    )
    with atomic_write(path) as part:
        part.write_text(page, encoding="utf-8")


def _safe(judgement: Judgement) -> dict[str, Any]:
    return {
        "shares": [Share(escaped(label), share) for label, share in judgement.shares],
        "uncertainty": judgement.uncertainty,
    }


def _picture(view: Tensor, transform: Any) -> Image.Image:
    """A transformed image `(3, S, S)` as one to look at, without the normalisation that its transform ends with."""
    for step in reversed(getattr(transform, "transforms", ())):
        if isinstance(step, Normalize):
            mean, std = (torch.as_tensor(values)[:, None, None] for values in (step.mean, step.std))
            view = view * std + mean
    pixels = (255 * view).round().clamp(0, 255).byte().permute(1, 2, 0)
    return Image.fromarray(pixels.numpy())


def _url(image: Image.Image) -> str:
    """A picture as a data URL."""
    file = io.BytesIO()
    image.save(file, "PNG")
    return "data:image/png;base64," + base64.b64encode(file.getvalue()).decode()
