"""Records what TCP's published code computes in float32 on a small CLIP, as golden numbers.

    python tests/golden/make_tcp.py TCP_CHECKOUT [DASSL_CHECKOUT]

writes `tcp.npz` beside this file: for each of `CASES` what `drive` of make_coop.py says, with five steps, of long
vectors and matrices a sample; and for each data set of the published code the tokens of its template with the class
name "dog", as `hand_written/<data set>`, and of what stands after the context, as `prompts/<data set>`. The published
trainer is built by its own constructor, on the given Dassl or the embedded one. It hard-codes a text width of 512 and
puts the classes' tokens before the ninth layer: so the small CLIP has this width and ten layers. `.cuda()` and
`.half()` do nothing here, in numbers that half precision can hold, and Adam has the epsilon that the README asks for.
The tests run `collect` on this project's trainer, and compare. With --checkpoint, the published trainer also writes its
own checkpoint of the first case.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import importlib
import io
import sys
import tempfile
from pathlib import Path
from types import SimpleNamespace
from unittest import mock

import numpy as np
import torch
from make_coop import build, drive, register_published
from make_kgcoop import STEPS, settings, tokens, without_a_gpu
from make_maple import clip_state, sample

N_CTX = 4  # the published code has no other number
CASES = {
    "published": {"CTX_INIT": "", "OPTIM.NAME": "adam", "hand_written": "a photo of a {}.", "prompt": "{}."},
    "words": {
        "CTX_INIT": "a photo of a",
        "OPTIM.NAME": "sgd",
        "hand_written": "a photo of an aircraft {}.",
        "prompt": "{}, a type of car",
    },
}


def build_case(name: str, clip_file: str):
    """Build the registered TCP trainer for a case."""
    module = importlib.import_module("trainers.tcp")
    published = hasattr(module, "CUSTOM_TEMPLATES")
    case = CASES[name]
    options = settings("TCP", {"N_CTX": N_CTX, "CTX_INIT": case["CTX_INIT"]}, published)
    if published:
        hand_written, prompts, before = module.CUSTOM_TEMPLATES_ori, module.CUSTOM_TEMPLATES, "X " * N_CTX
    else:
        hand_written, prompts, before = module.HAND_WRITTEN, module.PROMPTS, ""
    texts = mock.patch.dict(hand_written, SmallNames=case["hand_written"])
    with texts, mock.patch.dict(prompts, SmallNames=before + case["prompt"]):
        return build({**options, "OPTIM.NAME": case["OPTIM.NAME"]}, clip_file)


def collect(clip_file: str, checkpoint: str | None = None) -> dict[str, np.ndarray]:
    """Run all cases on the TCP that is registered; `<case>/<what>` to numbers."""
    found = {}
    for name in CASES:
        with contextlib.redirect_stdout(io.StringIO()):
            trainer = build_case(name, clip_file)
            found.update({f"{name}/{what}": sample(numbers) for what, numbers in drive(trainer, STEPS).items()})
            if checkpoint:
                trainer.save_model(4, checkpoint)
                checkpoint = None
    return found


def save_clip(path: str) -> None:
    """A CLIP's file for the cases."""
    torch.save(clip_state(vision_width=64, layers=10), path)


def main(tcp: str, dassl: str | None, output: str, checkpoint: str | None) -> None:
    """Write the published trainer's numbers to `output`."""
    # The checkout's clip takes `packaging` from a module that newer setuptools do not have.
    sys.modules["pkg_resources"] = SimpleNamespace(packaging=importlib.import_module("packaging"))
    importlib.import_module("packaging.version")
    register_published(tcp, dassl)
    module, own_clip = (importlib.import_module(f"trainers.{name}") for name in ("tcp", "clip_text.clip"))
    shared_clip = importlib.import_module("clip.clip")
    own_clip._MODELS, own_clip._download = shared_clip._MODELS, shared_clip._download
    found = {
        f"hand_written/{name}": tokens(template.format("dog")) for name, template in module.CUSTOM_TEMPLATES_ori.items()
    }
    for name, template in module.CUSTOM_TEMPLATES.items():
        found[f"prompts/{name}"] = tokens(template.format("dog"))[1 + N_CTX :]
    adam = mock.patch.object(torch.optim, "Adam", functools.partial(torch.optim.Adam, eps=1e-3))
    with tempfile.NamedTemporaryFile(suffix=".pt") as file:
        save_clip(file.name)
        with without_a_gpu(), adam:
            np.savez_compressed(output, **found, **collect(file.name, checkpoint))


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("tcp", metavar="TCP_CHECKOUT")
    parser.add_argument("dassl", metavar="DASSL_CHECKOUT", nargs="?")
    parser.add_argument("--output", default=str(Path(__file__).with_name("tcp.npz")))
    parser.add_argument("--checkpoint", metavar="FOLDER", help="where the published trainer writes its checkpoint")
    arguments = parser.parse_args()
    main(arguments.tcp, arguments.dassl, arguments.output, arguments.checkpoint)
