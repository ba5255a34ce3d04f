"""Records what KgCoOp's published code computes in float32 on a small CLIP, as golden numbers.

    python tests/golden/make_kgcoop.py KGCOOP_CHECKOUT [DASSL_CHECKOUT]

writes `kgcoop.npz` beside this file: for each of `CASES` what `drive` of make_coop.py says, with five steps; and for
each data set of the published code, as `hand_written/<data set>`, the tokens of its template with the class name "dog".
The checkout is the folder with `train.py`, on the given Dassl or the embedded one. The published code computes the
template's embeddings on a GPU and in half precision whatever `PREC` says: so `.cuda()` and `.half()` do nothing here.
The tests run `collect` on this project's trainer, and compare. With --checkpoint, the published trainer also writes its
own checkpoint of the first case.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import tempfile
from collections.abc import Iterator
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from make_coop import build, clip_state, drive, register_published

STEPS = 5
NODE = "COOP"  # of the published code's options
CASES = {
    "published": {"N_CTX": 4, "CTX_INIT": "a photo of a", "W": 8.0},
    "random": {"N_CTX": 3, "CTX_INIT": "", "W": 2.0},
    "class-specific": {"N_CTX": 2, "CTX_INIT": "", "CSC": True, "W": 0.5},
}


def is_published() -> bool:
    """Whether the trainers that are registered are those of a published checkout."""
    return hasattr(importlib.import_module("trainers.kgcoop"), "CUSTOM_TEMPLATES")


def settings(trainer: str, case: dict, published: bool) -> dict:
    """A case for `build`: its options under the names and with the values of the published code, or ours."""
    if not published:
        return {"TRAINER": trainer, **{f"TRAINER.{trainer.upper()}.{key}": value for key, value in case.items()}}
    options = {f"TRAINER.{NODE}.{key}": value for key, value in case.items()}
    options[f"TRAINER.{NODE}.CTX_INIT"] = bool(case["CTX_INIT"])
    return {"TRAINER": trainer, **options, f"TRAINER.{NODE}.PREC": "fp32", "TRAINER.COCOOP.PREC": "fp32"}


def build_case(name: str, clip_file: str):
    """Build the registered KgCoOp trainer for a case."""
    return build(settings("KgCoOp", CASES[name], is_published()), clip_file)


@contextlib.contextmanager
def without_a_gpu() -> Iterator[None]:
    """The context in which `.cuda()` and `.half()` do nothing."""
    with contextlib.ExitStack() as stack:
        for kind in (torch.Tensor, torch.nn.Module):
            for method in ("cuda", "half"):
                stack.enter_context(mock.patch.object(kind, method, lambda self: self))
        yield


def tokens(text: str) -> np.ndarray:
    """A text's tokens, with those of start and end."""
    from clip import clip

    found = clip.tokenize(text)[0]
    return found[: int(found.argmax()) + 1].numpy()


def collect(clip_file: str, checkpoint: str | None = None) -> dict[str, np.ndarray]:
    """Run all cases on the KgCoOp that is registered; `<case>/<what>` to numbers."""
    found = {}
    for name in CASES:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = build_case(name, clip_file)
            found.update({f"{name}/{what}": numbers for what, numbers in drive(trainer, STEPS).items()})
            if checkpoint:
                trainer.save_model(4, checkpoint)
                checkpoint = None
    return found


def main(kgcoop: str, dassl: str | None, output: str, checkpoint: str | None) -> None:
    """Write the published trainer's numbers to `output`."""
    register_published(kgcoop, dassl)
    templates = importlib.import_module("trainers.kgcoop").CUSTOM_TEMPLATES
    found = {f"hand_written/{name}": tokens(template.format("dog")) for name, template in templates.items()}
    templates["SmallNames"] = "a photo of a {}."
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        torch.save(clip_state(), file.name)
        with without_a_gpu():
            np.savez_compressed(output, **found, **collect(file.name, checkpoint))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("kgcoop", metavar="KGCOOP_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("kgcoop.npz")))
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where the published trainer writes its checkpoint")
    arguments = parser.parse_args()
    main(arguments.kgcoop, arguments.dassl, arguments.output, arguments.checkpoint)
