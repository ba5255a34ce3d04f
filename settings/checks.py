"""Errors of a config whose single settings are all valid."""

from __future__ import annotations

import os
from pathlib import Path

import yaml

EXAMPLE = (
    "python train.py --root data --trainer CDC --dataset-config-file configs/datasets/digits.yaml "
    "--config-file configs/trainers/CDC/tiny.yaml --output-dir output/digits"
)


def check_given(cfg) -> None:
    """Raise ValueError unless a config names a trainer, a data set, and folders that can be used."""
    needed = {"--trainer": cfg.TRAINER.NAME, "--dataset-config-file": cfg.DATASET.NAME}
    lacking = [option for option, name in needed.items() if not name]
    problems = [f"{' and '.join(lacking)} must be given, as in: {EXAMPLE}"] if lacking else []
    for option, folder in {"--root": cfg.DATASET.ROOT, "--output-dir": cfg.OUTPUT_DIR}.items():
        path = Path(folder).expanduser().absolute()
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir():
            problems.append(f"{option} must be a folder, got {folder}, but {there} is a file")
        elif option == "--output-dir" and not os.access(there, os.W_OK | os.X_OK):
            problems.append(
                f"{option} must be a folder that can be written, got {folder}, but there is no right to "
                f"write into {there}"
            )
    if problems:
        raise ValueError("; ".join(problems))


def check_owner(cfg, keys: list[str]) -> None:
    """Raise ValueError if keys of a command line belong to another trainer than the one that runs: without effect."""
    own = cfg.TRAINER.NAME.upper()
    if own not in cfg.TRAINER:  # a trainer that does not exist, or has no options
        return
    others = [key for key in keys if key.startswith("TRAINER.") and key.split(".")[1] not in ("NAME", own)]
    if others:
        raise ValueError(
            f"{', '.join(others)} would have no effect: {cfg.TRAINER.NAME} takes OPTIM, INPUT and the like, and "
            f"TRAINER.{own}, which has {', '.join(cfg.TRAINER[own])}"
        )


def note_other_owners(cfg, files: list[str]) -> None:
    """Print which options of other trainers config files have: a file may be one for several trainers."""
    own = cfg.TRAINER.NAME.upper()
    for path in files if own in cfg.TRAINER else ():
        nodes = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("TRAINER") or {}
        unused = [name for name in nodes if name not in ("NAME", own)]
        if unused:
            print(f"Note: {path} sets options of {', '.join(unused)}, which {cfg.TRAINER.NAME} does not take")
