"""Records what the published CoOp, CoCoOp and zero-shot trainers compute on a small CLIP, as golden numbers.

    python tests/golden/make_coop.py COOP_CHECKOUT [DASSL_CHECKOUT]

writes `coop.npz` beside this file: for each of `CASES` the parameters that a seed gives, logits, the gradients of the
first step, losses and accuracies of four steps, parameters and logits behind them. The published trainers are built
by their own constructors, on the given Dassl or the embedded one, and are only told where CLIP's file lies and that
zero-shot CLIP is to run in float32 too. The file in git was made with PyTorch 2.0.1, which runs both checkouts as they
are. The tests run `collect` on this project's trainers, and compare.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib.util
import io
import math
import sys
import tempfile
from pathlib import Path

import numpy as np
import torch

SIZE = 32  # pixels
NAMES = ["dog", "striped_texture", "a class name of (many) words", "747-200 (old)"]  # one ends in punctuation
STEPS_AN_EPOCH = 2
WORDS = "this is a"
MANY_TOKENS = "a close-up photograph_of some"  # 5 words, 7 tokens

CASES = {
    f"{kind} {position}{start}": {
        "TRAINER": "CoOp",
        "TRAINER.COOP.N_CTX": 3,
        "TRAINER.COOP.CSC": kind == "specific",
        "TRAINER.COOP.CTX_INIT": WORDS if start else "",
        "TRAINER.COOP.CLASS_TOKEN_POSITION": position,
    }
    for kind in ("generic", "specific")
    for position in ("end", "middle", "front")
    for start in ("", " words")
}
CASES["generic 16 tokens"] = {"TRAINER": "CoOp"}
CASES["generic words of many tokens"] = {"TRAINER": "CoOp", "TRAINER.COOP.CTX_INIT": MANY_TOKENS}
CASES["generic resnet"] = {"TRAINER": "CoOp", "TRAINER.COOP.CTX_INIT": WORDS, "resnet": True}
CASES["conditional"] = {"TRAINER": "CoCoOp", "TRAINER.COCOOP.N_CTX": 4}
CASES["conditional words"] = {"TRAINER": "CoCoOp", "TRAINER.COCOOP.CTX_INIT": WORDS}
CASES["conditional words of many tokens"] = {"TRAINER": "CoCoOp", "TRAINER.COCOOP.CTX_INIT": MANY_TOKENS}
CASES["conditional resnet"] = {"TRAINER": "CoCoOp", "TRAINER.COCOOP.CTX_INIT": WORDS, "resnet": True}
CASES["zero-shot"] = {"TRAINER": "ZeroshotCLIP"}
CASES["zero-shot ensemble"] = {"TRAINER": "ZeroshotCLIP2"}


def clip_state(resnet: bool = False) -> dict[str, torch.Tensor]:
    """Parameters of a small CLIP, from NumPy's legacy generator, whose numbers are the same everywhere.

    They are in half precision, as OpenAI's, to which the published code rounds all others.
    """
    from clip.model import CLIP

    image_side = {"vision_layers": (1, 1, 1, 1), "vision_width": 2} if resnet else {"vision_layers": 2}
    model = CLIP(
        **{"vision_width": 64, **image_side},
        embed_dim=48,
        image_resolution=SIZE,
        vision_patch_size=None if resnet else 8,
        context_length=77,
        vocab_size=49408,
        transformer_width=64,
        transformer_heads=1,
        transformer_layers=3,
    )
    random = np.random.RandomState(0)
    state = {}
    for name, like in sorted(model.state_dict().items()):
        numbers = random.standard_normal(like.shape)
        if "embedding" in name:
            numbers *= 0.05
        elif like.ndim >= 2:
            numbers /= math.sqrt(like[0].numel())
        else:
            numbers *= 0.3
        if name.endswith("running_var"):
            numbers = 1 + numbers**2
        elif name.endswith("weight") and like.ndim == 1:
            numbers += 1
        state[name] = torch.from_numpy(np.asarray(numbers)).to(torch.half if like.is_floating_point() else like.dtype)
    state["logit_scale"] = torch.tensor(math.log(1 / 0.07)).half()
    return state


def batches(count: int) -> list[dict[str, torch.Tensor]]:
    """Batches of three images, as Dassl gives them."""
    random = np.random.RandomState(1)
    found = []
    for _ in range(count):
        images = torch.from_numpy(random.standard_normal((3, 3, SIZE, SIZE)).astype("float32"))
        found.append({"img": images, "label": torch.from_numpy(random.randint(len(NAMES), size=3))})
    return found


def build(case: dict, clip_file: str, seed: int = 1):
    """Build the trainer of a case, with all that Dassl gives it, over a data set of `NAMES`.

    Args:
        case: its settings: `TRAINER`, config keys, and `resnet`, which says what `clip_file` is.
        clip_file: name of CLIP's file for the trainer.
        seed: as in CoOp's train.py.
    """
    from dassl.config import get_cfg_default
    from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed

    class SmallNames(DatasetBase):
        def __init__(self, cfg):
            items = [Datum(__file__, label, classname=name) for label, name in enumerate(NAMES)]  # no image is read
            super().__init__(train_x=items, test=items)

    if "SmallNames" not in DATASET_REGISTRY.registered_names():
        DATASET_REGISTRY.register(SmallNames)
    cfg = get_cfg_default()
    settings = {
        "DATASET.NAME": "SmallNames",
        "DATALOADER.NUM_WORKERS": 0,
        "DATALOADER.TRAIN_X.BATCH_SIZE": 1,
        "INPUT.SIZE": (SIZE, SIZE),
        "INPUT.TRANSFORMS": ["normalize"],
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.005,
        "OPTIM.LR_SCHEDULER": "cosine",
        "OPTIM.MAX_EPOCH": 3,
        "OPTIM.WARMUP_EPOCH": 1,
        "OPTIM.WARMUP_TYPE": "constant",
        "OPTIM.WARMUP_CONS_LR": 0.002,
        "MODEL.BACKBONE.NAME": clip_file,
        "TRAINER.NAME": case["TRAINER"],
        "USE_CUDA": False,
    }
    options = f"TRAINER.{case['TRAINER'].upper()}"
    if case["TRAINER"].upper() in cfg.TRAINER:
        settings[f"{options}.PREC"] = "fp32"
    settings.update({key: value for key, value in case.items() if "." in key})
    cfg.merge_from_list([part for pair in settings.items() for part in pair])
    set_random_seed(seed)
    return build_trainer(cfg)


def drive(trainer, n_steps: int = 4) -> dict[str, np.ndarray]:
    """Classify, train for some steps, and classify again; a zero-shot trainer only classifies.

    Returns:
        `start.<parameter>`, `grad.<parameter>` (first step), `end.<parameter>`, `logits`, `end_logits`, and what is
        logged, by name.
    """
    *steps, test = batches(n_steps + 1)
    found = {}

    def classify(name: str) -> None:
        trainer.set_model_mode("eval")
        with torch.no_grad():
            found[name] = trainer.model_inference(test["img"])

    def parameters(name: str) -> None:
        found.update({f"{name}.{key}": p.detach().clone() for key, p in learned.items()})

    classify("logits")
    if trainer.get_model_names():
        learned = {key: p for key, p in trainer.model.prompt_learner.named_parameters() if p.requires_grad}
        parameters("start")
        trainer.set_model_mode("train")
        trainer.num_batches = STEPS_AN_EPOCH
        logged = []
        for number, batch in enumerate(steps):
            trainer.batch_idx = number % STEPS_AN_EPOCH
            logged.append(trainer.forward_backward(batch))
            if number == 0:
                found.update({f"grad.{key}": p.grad.clone() for key, p in learned.items()})
        for name in logged[0]:
            found[name] = torch.stack([torch.as_tensor(values[name]).detach().reshape(()) for values in logged])
        parameters("end")
        classify("end_logits")
    return {name: value.detach().numpy() for name, value in found.items()}


@contextlib.contextmanager
def clip_files():
    """The files of `clip_state`, by whether it is a ResNet."""
    with tempfile.TemporaryDirectory() as folder:
        files = {resnet: str(Path(folder, f"clip{resnet:d}.pt")) for resnet in (False, True)}
        for resnet, path in files.items():
            torch.save(clip_state(resnet), path)
        yield files


def collect(checkpoints: str | None = None) -> dict[str, np.ndarray]:
    """Run all cases on the trainers that are registered; `<case>/<what>` to numbers.

    Args:
        checkpoints: folder in which every trained case leaves its checkpoint, in `<case>/`.
    """
    found = {}
    with clip_files() as files:
        for name, case in CASES.items():
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = build(case, files[case.get("resnet", False)])
                numbers = drive(trainer)
                if checkpoints and trainer.get_model_names():
                    trainer.save_model(1, str(Path(checkpoints, name)))
            found.update({f"{name}/{what}": value for what, value in numbers.items()})
    return found


def register_published(coop: str, dassl: str | None) -> None:
    """Register the published trainers of a checkout, told to take a backbone's name as the path of CLIP's file."""
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:0] = [coop] + [dassl] * bool(dassl)
    sys.path.append(root)  # behind the checkout: both have a folder named trainers
    importlib.import_module("compat")

    from clip import clip
    from dassl.config import cfg_default

    class Paths(dict):
        def __missing__(self, name):
            return name

    clip._MODELS = Paths()
    clip._download = lambda path: path
    importlib.import_module("train").extend_cfg(cfg_default)
    if importlib.util.find_spec("trainers.zsclip"):
        zsclip = importlib.import_module("trainers.zsclip")
        zsclip.CUSTOM_TEMPLATES["SmallNames"] = "a photo of a {}."
        load = zsclip.load_clip_to_cpu
        zsclip.load_clip_to_cpu = lambda cfg: load(cfg).float()


def main(coop: str, dassl: str | None, output: str, checkpoints: str | None) -> None:
    """Write the published trainers' numbers to `output`, and if asked for their checkpoints."""
    register_published(coop, dassl)
    np.savez_compressed(output, **collect(checkpoints))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("coop", metavar="COOP_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("coop.npz")))
    parser.add_argument("--checkpoints", metavar="FOLDER", help="where the trained cases leave their checkpoints")
    arguments = parser.parse_args()
    main(arguments.coop, arguments.dassl, arguments.output, arguments.checkpoints)
