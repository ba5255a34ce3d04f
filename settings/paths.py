"""Paths in a config: in the working folder, or in the checkout."""

from __future__ import annotations

import os
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent  # the checkout


def find_paths(cfg) -> None:
    """Make relative paths absolute if they exist in the checkout and not in the working folder.

    These are the paths of CLIP, of the checkpoint to start from, of the run to go on with, and of feature banks. All
    others stay as they are written. So a run that is started in the checkout names CLIP as its config file does.

    Args:
        cfg: is changed.
    """
    from trainers.modules.open_clip_models import FOLDER_PREFIX, split_path

    backbone = cfg.MODEL.BACKBONE
    before, backbone.NAME = split_path(backbone.NAME or "")
    paths = [
        # a name of OpenAI's may be a folder's, too
        (backbone, "NAME", os.path.isdir if before.endswith(FOLDER_PREFIX) else os.path.isfile),
        (cfg.MODEL, "INIT_WEIGHTS", os.path.isfile),
        (cfg, "RESUME", os.path.isdir),
    ]
    for options in cfg.TRAINER.values():
        if isinstance(options, dict) and "FEATURE_BANK_DIR" in options:
            paths.append((options, "FEATURE_BANK_DIR", os.path.isdir))
    for node, key, is_there in paths:
        path = os.path.expanduser(node[key] or "")
        if path and not is_there(path) and is_there(ROOT / path):
            node[key] = str(ROOT / path)
    backbone.NAME = before + backbone.NAME
