"""Where runs lie below an output folder, as CoOp's and MaPLe's scripts put them, and which trainers train nothing.

The shell scripts say the same in `scripts/cdc/common.sh`; tests/test_scripts.py compares the two.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path, PurePath

# Where runs lie: trained or tested on a half of the classes; trained on all classes; trained on the base classes and
# tested on their images and others; tested on another data set than trained on, or on all classes where nothing is
# trained. <cfg> is one folder or several: below `<cfg>_<n>shots` CoOp's own scripts have one more, and the config of
# `rn50_16shots/nctx16_cscFalse_ctpend` is `rn50/nctx16_cscFalse_ctpend`.
BASE_TO_NEW = "base2new/{train_base,test_base,test_new}/<dataset>/shots_<n>/<trainer>/<cfg>/seed<k>"
ALL_CLASSES = "<dataset>/<trainer>/<cfg>_<n>shots/seed<k>"
OPEN_SET = "open_set/<dataset>/shots_<n>/<trainer>/<cfg>/seed<k>"
EVALUATION = "evaluation/<trainer>/<cfg>_<n>shots/<dataset>/seed<k>"

HALVES = ("train_base", "test_base", "test_new")
PATTERNS = {
    **{half: re.sub("{.*}", half, BASE_TO_NEW) for half in HALVES},
    "open_set": OPEN_SET,
    "evaluation": EVALUATION,
    "all": ALL_CLASSES,
}

# Where the runs of a protocol lie
PROTOCOLS = {
    "base2new": BASE_TO_NEW,
    "xd": f"{EVALUATION} and {ALL_CLASSES}",
    "dg": f"{EVALUATION} and {ALL_CLASSES}",
    "fewshot": ALL_CLASSES,
    "open_set": OPEN_SET,
}


# What stands for a placeholder
_EXPRESSIONS = {
    "<cfg>_<n>shots": r"(?P<name>[^/]+)_(?P<shots>-?\d+)shots(?P<mark>\+[^/]+)?(?P<below>(?:/[^/]+)*)",
    "<cfg>": r"(?P<config>.+)",
    "<dataset>": r"(?P<dataset>[^/]+)",
    "<n>": r"(?P<shots>-?\d+)",
    "<trainer>": r"(?P<trainer>[^/]+)",
    "<k>": r"(?P<seed>\d+)",
}
_PLACEHOLDER = re.compile("|".join(_EXPRESSIONS))
_MATCHERS = {
    kind: re.compile(_PLACEHOLDER.sub(lambda found: _EXPRESSIONS[found[0]], pattern))
    for kind, pattern in PATTERNS.items()
}
_TOP = {"base2new", "evaluation", "open_set"}  # no names of data sets


def trains_nothing(trainer: str) -> bool:
    """Whether a trainer is tested as it is, by its name."""
    return trainer.startswith("Zeroshot")


def config_folder(config: str, tag: str = "", epoch: int | str | None = None, source: str = "") -> str:
    """`<cfg>` of a run with other settings than the config's, or of a test of another model than the usual one.

    Args:
        config: name of the config.
        tag: name of the settings, as TAG is for the scripts.
        epoch: that is tested, where it is not the one that the training tested, as LOADEP.
        source: data set that was trained on, where it is not the protocol's usual one, as SOURCE.
    """
    marks = [tag, "" if epoch is None else f"epoch{epoch}", source and f"from_{source}"]
    return "+".join([config, *filter(None, marks)])


def split_source(config: str) -> tuple[str, str]:
    """`<cfg>` of a test on another data set: that of its training, and the SOURCE that it is marked with, or ""."""
    training, mark, source = config.rpartition("+from_")
    return (training, source) if mark else (config, "")


@dataclass(frozen=True)
class Place:
    """What a run's folder says of the run.

    Attributes:
        kind: a key of `PATTERNS`.
        dataset: that it is tested on, and, but for "evaluation", trained on.
        shots: training images per class; -1 for all; 0 where the folder names none.
        config: `<cfg>`, with "/" where it is several folders.
        seed: 0 where the folder names none.
    """

    kind: str
    dataset: str
    shots: int
    trainer: str
    config: str
    seed: int

    @property
    def classes(self) -> str:
        """The classes that it is tested on: base, new or all; on an open set those that it knows, base."""
        if self.kind in HALVES:
            return self.kind.split("_")[1]
        return "base" if self.kind == "open_set" else "all"

    @property
    def folder(self) -> Path:
        """The run's folder, relative to the output folder."""
        name, *below = self.config.split("/")
        values = {
            "<cfg>_<n>shots": "/".join([f"{name}_{self.shots}shots", *below]),
            "<cfg>": self.config,
            "<dataset>": self.dataset,
            "<n>": str(self.shots),
            "<trainer>": self.trainer,
            "<k>": str(self.seed),
        }
        return Path(_PLACEHOLDER.sub(lambda found: values[found[0]], PATTERNS[self.kind]))


def parse(folder: PurePath) -> Place | None:
    """What a run's folder says of the run; None if runs do not lie in such a folder.

    `<trainer>/<cfg>/<dataset>`, where CoOp's script puts zero-shot CLIP, without shots and seed, is an evaluation, too.

    Args:
        folder: relative to the output folder.
    """
    if len(folder.parts) == 3 and trains_nothing(folder.parts[0]):
        trainer, config, dataset = folder.parts
        return Place("evaluation", dataset, 0, trainer, config, 0)
    for kind, matcher in _MATCHERS.items():
        found = matcher.fullmatch(folder.as_posix())
        if found and (kind != "all" or found["dataset"] not in _TOP):
            parts = found.groupdict()
            config = parts.get("config") or f"{parts['name']}{parts['mark'] or ''}{parts['below']}"
            return Place(kind, parts["dataset"], int(parts["shots"]), parts["trainer"], config, int(parts["seed"]))
    return None


def training_set(folder: PurePath, trainer: str) -> str | None:
    """The data set in the path of a training on all classes, wherever its output folder lies; None in other paths."""
    for start in range(len(folder.parts) - 1, -1, -1):  # from the end, as a checkout may be called as the trainer is
        place = parse(PurePath(*folder.parts[start:]))
        if place and place.kind == "all" and place.trainer == trainer:
            return place.dataset
    return None
