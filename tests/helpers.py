"""What tests share: paths, a small CLIP with random weights, archives of weights, and what a run wrote."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import warnings
from collections import namedtuple
from pathlib import Path
from typing import Tuple  # noqa: UP035

import pytest
import torch

from tools.common.waiting import wait_for

ROOT = Path(__file__).resolve().parent.parent
GOLDEN = ROOT / "tests" / "golden"  # what the published code computes
SIZE = 32  # pixels of the small CLIP's images
COLOURS = {"red": (200, 30, 30), "green": (30, 200, 30), "blue": (30, 30, 200), "yellow": (200, 200, 30)}


def _has_half_on_cpu() -> bool:
    ones = torch.ones(1, 1, 1, 1, dtype=torch.float16)
    try:
        torch.nn.functional.linear(torch.nn.functional.conv2d(ones, ones), ones[0, 0])
    except RuntimeError:
        return False
    return True


# The precision fp16, as a parameter of tests that run on the CPU.
HALF = pytest.param(
    "fp16", marks=pytest.mark.skipif(not _has_half_on_cpu(), reason="this PyTorch has no half precision on the CPU")
)

TEMPLATES = ("TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.EVIDENCE_SCALE", 10.0, "OPTIM.LR", 0.03)
AUGMENTED = (*TEMPLATES, "TRAINER.CDC.AUGMENTATIONS", [["random_resized_crop", "normalize"], ["normalize"]])
WORDS = ("TRAINER.CDC.CTX_INIT", ["a photo of a", "one picture of a"])
# Views that do not depend on chance, yet differ from the plain one, which is cropped and not squeezed
VIEWS = (
    "TRAINER.CDC.AUGMENTATIONS",
    [["normalize"], ["center_crop", "normalize"]],
    "TRAINER.CDC.TEST_VIEWS",
    True,
)
# One a method and kind of prediction: trainer, config, options
RUNS = {
    "CDC": ("CDC", "tiny_text", (*AUGMENTED, *WORDS)),
    "CDC coupled": ("CDC", "tiny", (*AUGMENTED, "TRAINER.CDC.PROMPT_DEPTH", 2)),
    "CDC views": ("CDC", "tiny_text", (*TEMPLATES, *WORDS, *VIEWS)),
    "CDC invariant": ("CDC", "tiny_text", (*AUGMENTED, *WORDS, "TRAINER.CDC.INVARIANT_MAP.ENABLED", True)),
    "CDC bank": ("CDC", "tiny_text", (*AUGMENTED, *WORDS, "TRAINER.CDC.FEATURE_BANK", 1)),
    "CoOp": ("CoOp", "tiny", ()),
    "CoOp CSC": ("CoOp", "tiny", ("TRAINER.COOP.CSC", True, "TRAINER.COOP.CTX_INIT", "")),
    "CoCoOp": ("CoCoOp", "tiny", ()),
    "KgCoOp": ("KgCoOp", "tiny", ()),
    "MaPLe": ("MaPLe", "tiny", ("TRAINER.MAPLE.PROMPT_DEPTH", 2)),
    "TCP": ("TCP", "tiny", ("TRAINER.TCP.LAYER", 2)),
    "PromptSRC": ("PromptSRC", "tiny", ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2)),
    "MMRL": ("MMRL", "tiny", ("TRAINER.MMRL.REP_LAYERS", [2])),
    "CLIPICM": ("CLIPICM", "tiny", ()),
    "CLIPICM probe": ("CLIPICM", "tiny", ("TRAINER.CLIPICM.PREDICTION", "probe")),
    "ZeroshotCLIP": ("ZeroshotCLIP", "tiny", ()),
    "ZeroshotCLIP2": ("ZeroshotCLIP2", "tiny", ()),
}

# A finished run, the images it tested, now elsewhere, and the scores (B, C) that its test had of them
Run = namedtuple("Run", "folder images scores")


def checkout_of(variable: str) -> str:
    """The checkout of published code that an environment variable names; without it the test is skipped."""
    if not os.environ.get(variable):
        pytest.skip(f"{variable} is not set to a checkout (CONTRIBUTING.md)")
    return os.environ[variable]


def relative(a, b) -> float:
    """How far two arrays are from each other, as a part of the second one's length."""
    a, b = (torch.as_tensor(x).double() for x in (a, b))
    return ((a - b).norm() / b.norm()).item()


def random_clip(**arguments):
    """The clip package's own architecture, small, its weights far enough from their start that every part matters."""
    from clip.model import CLIP

    settings = {
        "embed_dim": 48,
        "image_resolution": SIZE,
        "vision_layers": 2,
        "vision_width": 64,
        "vision_patch_size": 8,
        "context_length": 77,
        "vocab_size": 49408,
        "transformer_width": 64,
        "transformer_heads": 1,
        "transformer_layers": 3,
    }
    generator = torch.Generator().manual_seed(0)
    model = CLIP(**{**settings, **arguments}).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            spread = 0.3 if parameter.ndim == 1 else 2.0 * parameter.std().item()
            mean = 1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_final.weight")) else 0.0
            parameter.copy_(mean + spread * torch.randn(parameter.shape, generator=generator))
    return model


class _Archive(torch.nn.Module):
    """What OpenAI's archives look like from outside: CLIP's parameters and three integers beside them."""

    def __init__(self, clip_model):
        super().__init__()
        for name, child in clip_model.named_children():
            self.add_module(name, child)
        for name, parameter in clip_model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, image):
        return self.visual(image)


def save_archive(clip_model, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = clip_model.visual.input_resolution
        torch.jit.trace(_Archive(clip_model).eval(), torch.zeros(1, 3, size, size)).save(str(path))


class _Harmful(torch.nn.Module):
    """Writes a file, or never ends, as soon as its archive is loaded by PyTorch."""

    def __init__(self, path: str, loops: bool):
        super().__init__()
        self.path, self.loops, self.written = path, loops, torch.zeros(4)

    def forward(self):
        return 0

    @torch.jit.export
    def __getstate__(self):
        return self.path, self.loops, self.training

    @torch.jit.export
    def __setstate__(self, state: Tuple[str, bool, bool]):  # noqa: UP006  TorchScript of PyTorch 2.0 knows no other
        self.path, self.loops, self.training = state
        self.written = torch.from_file(self.path, True, 4)
        while self.loops:
            pass


def save_harmful_archive(path, trap, loops: bool = False) -> None:
    """A TorchScript archive that writes the file `trap` when PyTorch loads it, and then ends or does not."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.script(_Harmful(str(trap), loops)).save(str(path))


def run_archive(path) -> None:
    """Load an archive as PyTorch does."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.jit.load(str(path))


def results_of(folder) -> dict:
    """What a run has written to results.json."""
    return json.loads((Path(folder) / "results.json").read_text())


def runs_still(process) -> bool:
    """Whether a process runs and is no zombie."""
    done = subprocess.run(["ps", "-o", "stat=", "-p", str(process)], capture_output=True, text=True, check=False)
    return done.stdout.strip()[:1] not in ("", "Z")


def kill_once(code: str, started) -> None:
    """Kill a process of Python code once it has started others, and wait until these are gone, too.

    Args:
        code: what it runs.
        started: gives the numbers of the processes that it has started, as far as there are any.
    """
    with subprocess.Popen([sys.executable, "-c", code], cwd=ROOT) as process:
        try:
            numbers = wait_for(started)
            assert all(map(runs_still, numbers))
        finally:
            process.kill()
    wait_for(lambda: not any(map(runs_still, numbers)))


def cut_after(trainer, epoch):
    """Train, and stop as a killed run does: in the middle of the epoch after `epoch`."""
    step = trainer.step

    def stop(batch):
        if trainer.epoch == epoch and trainer.batch_idx == 1:
            raise KeyboardInterrupt
        return step(batch)

    trainer.step = stop
    with pytest.raises(KeyboardInterrupt):
        trainer.train()
