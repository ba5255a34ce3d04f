"""Names of data sets, which are those of their config files."""

from __future__ import annotations

from pathlib import Path

from tools.common.paths import ROOT

CONFIGS = ROOT / "configs" / "datasets"


def known_names() -> list[str]:
    """All data sets, in alphabetical order."""
    return sorted(path.stem for path in CONFIGS.glob("*.yaml"))


def config_file(name: str) -> Path:
    """The config file of a data set.

    Raises:
        ValueError: there is no data set of this name.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        raise ValueError(f"a data set must be one of {', '.join(known_names())}, got {name!r}")
    return path
