"""A run of the whole suite writes a row for docs/compatibility.md: in which environment the tests passed.

    make test COMPATIBILITY_ROWS=docs/compatibility.jsonl

The row is added to the file that COMPATIBILITY_ROWS names where nothing failed and no tests were picked. The Makefile
says by SUITE_VERSIONS what the environment was made of: lock, lowest or newest.
"""

from __future__ import annotations

import json
import os
import platform
from datetime import date
from pathlib import Path
from typing import Any

import numpy as np
import PIL
import torch
import torchvision


def is_whole(config: Any) -> bool:
    """Whether pytest's command line picks no tests: the default suite runs."""
    options = config.option
    picked = options.file_or_dir or options.keyword or options.deselect or getattr(options, "lf", False)
    return not picked and options.markexpr in config.getini("addopts")


def suite_row(outcomes: dict[str, list]) -> dict[str, str]:
    """The row of this environment, from the lists of reports by outcome."""
    return {
        "versions": os.environ["SUITE_VERSIONS"],
        "python": platform.python_version(),
        "torch": torch.__version__,
        "torchvision": torchvision.__version__,
        "numpy": np.__version__,
        "pillow": PIL.__version__,
        "date": date.today().isoformat(),
        "device": "GPU" if torch.cuda.is_available() else "CPU",
        **{outcome: str(len(outcomes.get(outcome, []))) for outcome in ("passed", "skipped")},
    }


def pytest_terminal_summary(terminalreporter: Any, exitstatus: int, config: Any) -> None:
    is_named = {"COMPATIBILITY_ROWS", "SUITE_VERSIONS"} <= os.environ.keys()
    if is_named and exitstatus == 0 and is_whole(config):
        with Path(os.environ["COMPATIBILITY_ROWS"]).open("a", encoding="utf-8") as file:
            file.write(json.dumps(suite_row(terminalreporter.stats)) + "\n")
