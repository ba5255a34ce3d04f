"""Every command answers `--help` and a wrong argument at once: before it imports what takes seconds."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest

from datasets.splits import SUBSAMPLES
from helpers import ROOT
from tools.common import choices

HEAVY = {"clip", "dassl", "matplotlib", "numpy", "PIL", "scipy", "sklearn", "tensorboard", "torch", "torchvision"}


def commands() -> list[str]:
    """train.py, and each module of compat and tools that can be called, but for the old names."""
    found = ["train.py"]
    for folder in ("compat", "tools"):
        for path in sorted((ROOT / folder).rglob("*.py")):
            parts = path.relative_to(ROOT).with_suffix("").parts
            called = 'if __name__ == "__main__":' in path.read_text(encoding="utf-8") or parts[-1] == "__main__"
            if called and parts[:2] != ("tools", "moved"):
                found.append(f"-m {'.'.join(parts).removesuffix('.__main__')}")
    return found


COMMANDS = commands()


def test_commands_are_found():
    assert {"train.py", "-m compat", "-m tools.dropin", "-m tools.predict", "-m tools.predict.features"} <= {*COMMANDS}
    assert len(COMMANDS) >= 14


def call(command: str, argument: str) -> tuple[subprocess.CompletedProcess, set[str]]:
    """How a command ends with this argument, and the packages it has imported by then."""
    arguments = [sys.executable, "-X", "importtime", *command.split(), argument]
    done = subprocess.run(arguments, cwd=ROOT, capture_output=True, text=True, check=False)
    imported = {name.split(".")[0] for name in re.findall(r"^import time: .*\| +(\S+)$", done.stderr, re.MULTILINE)}
    return done, imported


@pytest.mark.parametrize("command", COMMANDS)
def test_help_comes_at_once(command):
    done, imported = call(command, "--help")
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith("usage: ")
    assert "argparse" in imported or command == "-m compat"
    assert not imported & HEAVY


@pytest.mark.parametrize("command", [command for command in COMMANDS if command != "-m compat"])
def test_wrong_argument_is_refused_at_once(command):
    done, imported = call(command, "--no-such-option")
    assert done.returncode == 2
    assert "error: " in done.stderr
    assert not imported & HEAVY


def test_choices_are_those_of_the_modules_that_use_them():
    assert choices.SUBSAMPLES == SUBSAMPLES
