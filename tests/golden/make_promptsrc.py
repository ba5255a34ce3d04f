"""Records what PromptSRC's published code computes in float32 on a small CLIP, as golden numbers.

    python tests/golden/make_promptsrc.py PROMPTSRC_CHECKOUT [DASSL_CHECKOUT]

writes `promptsrc.npz` beside this file: for each of `CASES` what `drive` says. The published trainer is built by its
own constructor, on the given Dassl or the embedded one. It sends tensors to CUDA and rounds some of them to half
precision: here `.cuda()` and `.half()` do nothing, in numbers that half precision can hold. It draws the prompts while
it builds CLIP, so that a seed gives another start here: the tests put the published start into this project's trainer,
run `drive` on it, and compare. With --checkpoint, the published trainer also writes its own checkpoint of the first
case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from collections.abc import Callable
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from make_coop import batches, build, register_published
from make_maple import clip_state

# Each trains for three epochs of two steps. After six steps its parameters are the average of the epochs.
EPOCHS, STEPS_AN_EPOCH = 3, 2
CASES = {
    "published": {
        "CTX_INIT": "a photo of a",
        "N_CTX_TEXT": 4,
        "N_CTX_VISION": 4,
        "PROMPT_DEPTH_TEXT": 3,
        "PROMPT_DEPTH_VISION": 3,
        "GPA_MEAN": 2,
        "GPA_STD": 1,
    },
    "unequal": {
        "CTX_INIT": "a_photo_of_a",
        "N_CTX_TEXT": 2,
        "N_CTX_VISION": 3,
        "PROMPT_DEPTH_TEXT": 1,
        "PROMPT_DEPTH_VISION": 2,
        "TEXT_LOSS_WEIGHT": 3,
        "IMAGE_LOSS_WEIGHT": 40,
        "GPA_MEAN": 3,
        "GPA_STD": 10,
    },
    "random": {
        "CTX_INIT": "a photo of a",
        "N_CTX_TEXT": 5,
        "N_CTX_VISION": 1,
        "PROMPT_DEPTH_TEXT": 2,
        "PROMPT_DEPTH_VISION": 1,
        "GPA_MEAN": 1,
        "GPA_STD": 2,
    },
}


def small_clip_state() -> dict[str, torch.Tensor]:
    """A CLIP whose prompts are few numbers."""
    return clip_state(text_width=64, vision_width=128)


def build_case(name: str, clip_file: str):
    """Build the registered PromptSRC trainer for a case."""
    case = {f"TRAINER.PROMPTSRC.{key}": value for key, value in CASES[name].items()}
    return build({"TRAINER": "PromptSRC", **case}, clip_file)


def drive(
    trainer,
    parameters: Callable[[], dict[str, torch.Tensor]],
    infer: Callable[[torch.Tensor], dict[str, torch.Tensor]],
) -> dict[str, np.ndarray]:
    """Classify, train for six steps, and classify again.

    Args:
        trainer: a trainer that was just built.
        parameters: gives what is trained, by its names in the published code.
        infer: what is to be kept of the classification of a batch of images, by name.

    Returns:
        What `infer` gives before, and after the six steps with `end_` before its names; `start.<parameter>`,
        `grad.<parameter>` (first step), `five.<parameter>` and `six.<parameter>` (after so many steps); and what is
        logged, by name. PromptSRC's parameters after the sixth step are the average of the epochs.
    """
    *steps, test = batches(7)
    found = {}

    def classify(name: str) -> None:
        trainer.set_model_mode("eval")
        with torch.no_grad():
            found.update({f"{name}{key}": values for key, values in infer(test["img"]).items()})

    def keep(name: str) -> None:
        found.update({f"{name}.{key}": p.detach().clone() for key, p in parameters().items()})

    classify("")
    keep("start")
    trainer.set_model_mode("train")
    trainer.num_batches = STEPS_AN_EPOCH
    logged = []
    for number, batch in enumerate(steps):
        trainer.epoch, trainer.batch_idx = divmod(number, STEPS_AN_EPOCH)
        logged.append(trainer.forward_backward(batch))
        if number == 0:
            found.update({f"grad.{key}": p.grad.clone() for key, p in parameters().items()})
        if number == 4:
            keep("five")
    keep("six")
    found.update({key: torch.tensor([values[key] for values in logged]) for key in logged[0]})
    classify("end_")
    return {name: value.detach().numpy() for name, value in found.items()}


def trained(trainer) -> dict[str, torch.Tensor]:
    """What the published trainer trains."""
    return {name: p for name, p in trainer.model.named_parameters() if p.requires_grad}


def main(promptsrc: str, dassl: str | None, output: str, checkpoint: str | None) -> None:
    """Write the published trainer's numbers to `output`."""
    register_published(promptsrc, dassl)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file, contextlib.ExitStack() as stack:
        torch.save(small_clip_state(), file.name)
        for kind in (torch.Tensor, torch.nn.Module):
            for name in ("half", "cuda"):
                stack.enter_context(mock.patch.object(kind, name, lambda self, *_: self))
        numbers = {}
        for case in CASES:
            with contextlib.redirect_stdout(io.StringIO()):
                trainer = build_case(case, file.name)
                frozen = trainer.model.prompt_learner.fixed_embeddings
                numbers[f"{case}/frozen_texts"] = torch.nn.functional.normalize(frozen, dim=-1).numpy()
                found = drive(
                    trainer,
                    lambda trainer=trainer: trained(trainer),
                    lambda images, trainer=trainer: {"logits": trainer.model_inference(images)},
                )
                numbers.update({f"{case}/{what}": values for what, values in found.items()})
                if checkpoint:
                    trainer.epoch = EPOCHS - 1
                    trainer.save_model(EPOCHS - 1, checkpoint)
                    checkpoint = None
        np.savez_compressed(output, **numbers)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("promptsrc", metavar="PROMPTSRC_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("promptsrc.npz")))
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where the published trainer writes its checkpoint")
    arguments = parser.parse_args()
    main(arguments.promptsrc, arguments.dassl, arguments.output, arguments.checkpoint)
