"""Records what MMRL's published code computes in float32 on a small CLIP, as golden numbers.

    python tests/golden/make_mmrl.py MMRL_CHECKOUT [DASSL_CHECKOUT]

writes `mmrl.npz` beside this file: for each of `CASES` what `drive` of make_promptsrc.py says. The published trainer is
built by its own constructor, on the given Dassl or the embedded one. It sends tensors to CUDA, and here `.cuda()` does
nothing. It draws the second projection while it builds CLIP, so that a seed gives another start here: the tests put
the published start into this project's trainer, run `drive` on it, and compare. Of gradients and later parameters there
is a sample. With --checkpoint, the published trainer also writes its own checkpoint of the first case.
"""

from __future__ import annotations

import argparse
import contextlib
import importlib
import io
import math
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from make_coop import build, register_published
from make_maple import clip_state, sample
from make_promptsrc import drive, trained

CASES = {
    "published": {
        "OPTIM.NAME": "adamw",
        "TRAINER.MMRL.N_REP_TOKENS": 5,
        "TRAINER.MMRL.REP_LAYERS": [2, 3, 4],
        "TRAINER.MMRL.REP_DIM": 6,
        "TRAINER.MMRL.REG_WEIGHT": 1.0,
    },
    "two layers between others": {
        "OPTIM.NAME": "adamw",
        "TRAINER.MMRL.N_REP_TOKENS": 2,
        "TRAINER.MMRL.REP_LAYERS": [1, 3],
        "TRAINER.MMRL.REP_DIM": 10,
        "TRAINER.MMRL.REG_WEIGHT": 7.0,
        "TRAINER.MMRL.ALPHA": 0.4,
    },
    "sgd": {
        "TRAINER.MMRL.N_REP_TOKENS": 1,
        "TRAINER.MMRL.REP_LAYERS": [4],
        "TRAINER.MMRL.REP_DIM": 8,
        "TRAINER.MMRL.REG_WEIGHT": 0.01,
    },
}


def small_clip_state() -> dict[str, torch.Tensor]:
    """A CLIP whose tokens are few numbers, and whose factor on cosines is 100 as in the published code."""
    return {**clip_state(text_width=64, vision_width=128, layers=4), "logit_scale": torch.tensor(math.log(100))}


def build_case(name: str, clip_file: str):
    """Build the registered MMRL trainer for a case."""
    return build({"TRAINER": "MMRL", **CASES[name]}, clip_file)


def infer(trainer, images: torch.Tensor) -> dict[str, torch.Tensor]:
    """The published model's logits. It keeps class features from the first time on, also where it is trained on."""
    trainer.model.text_features_for_inference = None
    logits, logits_rep, logits_fused, image_features, text_features = trainer.model(images)
    return {
        "logits": logits,
        "logits_rep": logits_rep,
        "logits_fused": logits_fused,
        "image_features": image_features,
        "text_features": text_features,
    }


def sampled(numbers: dict[str, np.ndarray]) -> dict[str, np.ndarray]:
    """A sample of what is large and can be compared by one."""
    large = ("grad.", "five.", "six.")
    return {name: sample(values) if name.startswith(large) else values for name, values in numbers.items()}


def main(mmrl: str, dassl: str | None, output: str, checkpoint: str | None) -> None:
    """Write the published trainer's numbers to `output`."""
    register_published(mmrl, dassl)
    importlib.import_module("trainers.mmrl").CUSTOM_TEMPLATES["SmallNames"] = "a photo of a {}."
    with tempfile.NamedTemporaryFile(suffix=".pt") as file, contextlib.ExitStack() as stack:
        torch.save(small_clip_state(), file.name)
        for kind in (torch.Tensor, torch.nn.Module):
            stack.enter_context(mock.patch.object(kind, "cuda", lambda self, *_: self))
        numbers = {}
        for case in CASES:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = build_case(case, file.name)
                found = drive(
                    trainer,
                    lambda trainer=trainer: trained(trainer),
                    lambda images, trainer=trainer: infer(trainer, images),
                )
                numbers.update({f"{case}/{what}": values for what, values in sampled(found).items()})
                if checkpoint:
                    trainer.save_model(2, checkpoint)
                    checkpoint = None
        np.savez_compressed(output, **numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("mmrl", metavar="MMRL_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("mmrl.npz")))
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where the published trainer writes its checkpoint")
    arguments = parser.parse_args()
    main(arguments.mmrl, arguments.dassl, arguments.output, arguments.checkpoint)
