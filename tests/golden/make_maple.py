"""Records what MaPLe's published code computes in float32 on a small CLIP, as golden numbers.

    python tests/golden/make_maple.py MAPLE_CHECKOUT [DASSL_CHECKOUT]

writes `maple.npz` beside this file: for each of `CASES` what `drive` of make_coop.py says, of long vectors and matrices
a sample. The published trainer is built by its own constructor, on the given Dassl or the embedded one. It hard-codes a
text width of 512, a vision width of 768, and half precision of the visual prompts: so the small CLIP has these widths,
and `.half()` does nothing here, in numbers that half precision can hold. The tests run `collect` on this project's
trainer, and compare. With --checkpoint, the published trainer also writes its own checkpoint of the first case.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import tempfile
from pathlib import Path
from unittest import mock

import numpy as np
import torch
from make_coop import SIZE, build, drive, register_published

CASES = {
    "published": {"N_CTX": 2, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 3},
    "all words learn": {"N_CTX": 4, "CTX_INIT": "a_photo_of_a", "PROMPT_DEPTH": 2},
    "shallow": {"N_CTX": 1, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 1},
    "random": {"N_CTX": 3, "CTX_INIT": "", "PROMPT_DEPTH": 3},
    "too long for words": {"N_CTX": 5, "CTX_INIT": "a photo of a", "PROMPT_DEPTH": 2},
}


def clip_state(embed=32, text_width=512, vision_width=768, layers=3, patch=16) -> dict[str, torch.Tensor]:
    """A CLIP's state dict of random numbers, in half precision as OpenAI's; large enough that every part matters."""
    rng = np.random.default_rng(0)

    def draw(*shape: int, std: float, mean: float = 0.0) -> torch.Tensor:
        return torch.from_numpy(mean + std * rng.standard_normal(shape, dtype=np.float32))

    def blocks(prefix: str, width: int) -> dict[str, torch.Tensor]:
        state = {}
        for layer in range(layers):
            name = f"{prefix}transformer.resblocks.{layer}."
            for norm in ("ln_1", "ln_2"):
                state[f"{name}{norm}.weight"] = draw(width, std=0.2, mean=1.0)
                state[f"{name}{norm}.bias"] = draw(width, std=0.2)
            for linear, n_out, n_in in (
                ("attn.in_proj_", 3 * width, width),
                ("attn.out_proj.", width, width),
                ("mlp.c_fc.", 4 * width, width),
                ("mlp.c_proj.", width, 4 * width),
            ):
                state[f"{name}{linear}weight"] = draw(n_out, n_in, std=n_in**-0.5)
                state[f"{name}{linear}bias"] = draw(n_out, std=0.1)
        return state

    n_patches = (SIZE // patch) ** 2
    state = {
        "positional_embedding": draw(77, text_width, std=0.1),
        "text_projection": draw(text_width, embed, std=text_width**-0.5),
        "logit_scale": torch.tensor(2.0),
        "token_embedding.weight": draw(49408, text_width, std=0.1),
        "ln_final.weight": draw(text_width, std=0.2, mean=1.0),
        "ln_final.bias": draw(text_width, std=0.2),
        "visual.class_embedding": draw(vision_width, std=0.3),
        "visual.positional_embedding": draw(n_patches + 1, vision_width, std=0.3),
        "visual.proj": draw(vision_width, embed, std=vision_width**-0.5),
        "visual.conv1.weight": draw(vision_width, 3, patch, patch, std=0.3 / patch),
        "visual.ln_pre.weight": draw(vision_width, std=0.2, mean=1.0),
        "visual.ln_pre.bias": draw(vision_width, std=0.2),
        "visual.ln_post.weight": draw(vision_width, std=0.2, mean=1.0),
        "visual.ln_post.bias": draw(vision_width, std=0.2),
        **blocks("", text_width),
        **blocks("visual.", vision_width),
    }
    return {key: value.half() for key, value in state.items()}


def sample(numbers: np.ndarray) -> np.ndarray:
    """Some 64 numbers all over a parameter or gradient of more than 100, and the norm of them all."""
    if numbers.size <= 100:
        return numbers
    flat = numbers.ravel()
    return np.append(flat[:: flat.size // 61], np.linalg.norm(flat.astype(np.float64))).astype(np.float32)


def build_case(name: str, clip_file: str):
    """Build the registered MaPLe trainer for a case."""
    case = {f"TRAINER.MAPLE.{key}": value for key, value in CASES[name].items()}
    return build({"TRAINER": "MaPLe", **case}, clip_file)


def collect(clip_file: str, checkpoint: str | None = None) -> dict[str, np.ndarray]:
    """Run all cases on the MaPLe that is registered; `<case>/<what>` to numbers."""
    found = {}
    for name in CASES:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = build_case(name, clip_file)
            found.update({f"{name}/{what}": sample(numbers) for what, numbers in drive(trainer).items()})
            if checkpoint:
                trainer.save_model(4, checkpoint)
                checkpoint = None
    return found


def main(maple: str, dassl: str | None, output: str, checkpoint: str | None) -> None:
    """Write the published trainer's numbers to `output`."""
    register_published(maple, dassl)
    with tempfile.NamedTemporaryFile(suffix=".pt") as file, contextlib.ExitStack() as stack:
        torch.save(clip_state(), file.name)
        for kind in (torch.Tensor, torch.nn.Module):
            stack.enter_context(mock.patch.object(kind, "half", lambda self: self))
        np.savez_compressed(output, **collect(file.name, checkpoint))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("maple", metavar="MAPLE_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("maple.npz")))
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where the published trainer writes its checkpoint")
    arguments = parser.parse_args()
    main(arguments.maple, arguments.dassl, arguments.output, arguments.checkpoint)
