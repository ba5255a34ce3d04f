"""What the tests share that hold a trainer to its published code: golden numbers, checkouts, comparisons."""

from __future__ import annotations

import json
import os
import platform
import subprocess
import sys
from pathlib import Path

import numpy as np
import torch

from helpers import GOLDEN, checkout_of, relative


def read_numbers(path: Path) -> dict[str, np.ndarray]:
    with np.load(path) as file:
        return dict(file)


def checkouts(variable: str) -> list[str]:
    """The checkouts to compare with: the one that `variable` names, and Dassl's if it is not to be the one in use here.

    Without the first the test is skipped.
    """
    dassl = os.environ.get("DASSL_CHECKOUT")
    return [checkout_of(variable), *([dassl] if dassl else [])]


def live_numbers(script: str, variable: str, folder: Path) -> dict[str, np.ndarray]:
    """What a golden script computes now with the published code, whose checkpoint it writes to `folder`."""
    output = folder / "live.npz"
    command = [sys.executable, str(GOLDEN / script), *checkouts(variable), "--output", str(output)]
    subprocess.run([*command, "--checkpoint", str(folder)], check=True, cwd=folder)
    return read_numbers(output)


def assert_same_training(ours: dict, published: dict) -> None:
    """Start, logits, losses, gradients, and the parameters after five steps, as well as the way there."""
    assert ours.keys() == published.keys()
    for key, expected in published.items():
        assert np.linalg.norm(expected) > 0, key
        assert relative(ours[key], expected) < 1e-5, key
        if "/end." in key:
            start = key.replace("/end.", "/start.")
            assert relative(ours[key] - ours[start], expected - published[start]) < 1e-4, key
        if "/start." in key:
            assert np.array_equal(ours[key], expected), key


def named(trainer) -> dict[str, torch.Tensor]:
    """What is trained, by its names in the published code."""
    return {trainer.checkpoint_key(name): p for name, p in trainer.learner.named_parameters()}


def start_as_published(trainer, case: str, published: dict) -> None:
    """Bring the parameters where the published code's were before the first step."""
    with torch.no_grad():
        for name, parameter in named(trainer).items():
            parameter.copy_(torch.from_numpy(published[f"{case}/start.{name}"]))


def assert_same_from_start(case: str, ours: dict, published: dict, logged: set[str], sample=lambda x: x) -> None:
    """All numbers of a case that began with the published start, and how far the parameters went.

    Args:
        case: what the keys of `published` begin with.
        ours: the numbers of this project's trainer.
        published: those of the published code.
        logged: of ours, what the published code does not log.
        sample: what `ours` and `published` hold of a parameter, of the whole one.
    """
    assert {f"{case}/{what}" for what in ours.keys() - logged} == {x for x in published if x.startswith(f"{case}/")}
    for what in ours.keys() - logged:
        numbers, expected = ours[what], published[f"{case}/{what}"]
        assert numbers.shape == expected.shape, what
        assert np.linalg.norm(expected) > 0, what
        assert relative(numbers, expected) < 1e-5, what
        if what.startswith(("five.", "six.")):  # how far they went is a small part of what they are
            start = sample(published[f"{case}/start.{what.split('.', 1)[1]}"])
            assert relative(numbers - start, expected - start) < 1e-4, what


def newest_commit(checkout: str | Path) -> str:
    done = subprocess.run(
        ["git", "-C", checkout, "log", "-1", "--format=%h"], capture_output=True, text=True, check=False
    )
    return done.stdout.strip() or "?"


def note_row(what: str, checkout: str, dassl: str, result: str) -> None:
    """Add a row to the compatibility page's, if COMPATIBILITY_ROWS is set.

    Args:
        what, result: what was run, and what came out.
        checkout: name and commit of the published code, whose CLIP it is too.
        dassl: embedded, or upstream for that of DASSL_CHECKOUT.
    """
    if "COMPATIBILITY_ROWS" not in os.environ:
        return
    row = {
        "what": what,
        "clip": f"{checkout.split()[0]}'s",
        "checkout": checkout,
        "dassl": dassl if dassl == "embedded" else f"upstream ({newest_commit(os.environ['DASSL_CHECKOUT'])})",
        "torch": torch.__version__,
        "python": platform.python_version(),
        "device": "GPU" if torch.cuda.is_available() else "CPU",
        "result": result,
    }
    with Path(os.environ["COMPATIBILITY_ROWS"]).open("a") as file:
        file.write(json.dumps(row) + "\n")


def note_parity(trainer: str, variable: str, repository: str = "") -> None:
    """A row for a live test that held a trainer of this project to its published code, once that has passed.

    Args:
        trainer: its name.
        variable: the environment variable of the checkout.
        repository: the published code's name, if that is not the trainer's.
    """
    checkout, *others = checkouts(variable)
    note_row(
        f"its own `{trainer}` beside this project's",
        f"{repository or trainer} ({newest_commit(checkout)})",
        "upstream" if others else "embedded",
        "numbers equal to 1e-5; its checkpoint loads",
    )
