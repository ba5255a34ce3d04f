"""The numbers that the CDC paper prints, and the data sets in its order. Both are in `published.yaml`."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import Path, PurePath
from typing import Any

from tools.common.facts import key_errors, read_facts

FILE = Path(__file__).with_name("published.yaml")
AVERAGE = "average"  # in a table, beside the data sets
METRICS = {"base2new": ("Base", "New", "HM"), "xd": ("Accuracy",), "dg": ("Accuracy",)}  # columns of the tables


def read_published(path: Path = FILE) -> dict[str, Any]:
    """Read the file of published numbers.

    Raises:
        ValueError: the file is not as its head describes it; names every error.
    """
    return read_facts(path, _errors)


def _errors(content: Any) -> list[str]:
    keys = ("source", "other_sources", "backbone", "backbone_file", "shots", "datasets", "trainers", "tables")
    errors = key_errors(content, "it", keys)
    if errors:
        return errors
    for key in ("source", "backbone", "backbone_file"):
        if not (isinstance(content[key], str) and content[key]):
            errors.append(f"{key} must be text, got {content[key]!r}")
    if type(content["shots"]) is not int or content["shots"] < 1:
        errors.append(f"shots must be a number from 1 on, got {content['shots']!r}")
    datasets, trainers = content["datasets"], content["trainers"]
    if not isinstance(datasets, dict) or not all(isinstance(text, str) for pair in datasets.items() for text in pair):
        errors.append(f"datasets must map config files to names, got {datasets!r}")
    if not isinstance(trainers, list) or not all(isinstance(trainer, str) for trainer in trainers):
        errors.append(f"trainers must be a list of names, got {trainers!r}")
    others = content["other_sources"]
    if not isinstance(others, dict) or not all(isinstance(text, str) for pair in others.items() for text in pair):
        errors.append(f"other_sources must map trainers to texts, got {others!r}")
    errors += key_errors(content["tables"], "tables", tuple(METRICS))
    if errors:
        return errors
    for protocol, table in content["tables"].items():
        errors += _table_errors(protocol, table, list(datasets), trainers, others)
    return errors


def _table_errors(
    protocol: str, table: Any, datasets: list[str], trainers: list[str], others: Collection[str]
) -> list[str]:
    errors = key_errors(table, protocol, (), trainers)
    if errors:
        return errors
    rows: list[str] = []  # of the first trainer
    for trainer, numbers in table.items():
        where = f"{protocol}: {trainer}"
        average_alone = trainer in others and isinstance(numbers, dict) and list(numbers) == [AVERAGE]
        if isinstance(numbers, dict) and not rows and not average_alone:
            rows = [name for name in (*datasets, AVERAGE) if name in numbers]
        if not average_alone and (not isinstance(numbers, dict) or list(numbers) != rows or AVERAGE not in rows):
            errors.append(
                f"{where} must map data sets, in the order of datasets and the same for each trainer, and {AVERAGE} "
                f"last, to numbers, got {numbers!r}"
            )
            continue
        count = len(METRICS[protocol])
        for row, values in numbers.items():
            percentages = isinstance(values, list) and all(type(n) is float and 0 <= n <= 100 for n in values)
            if not percentages or len(values) != count:
                errors.append(f"{where}: {row} must have so many percentages: {count}, got {values!r}")
    return errors


_PUBLISHED = read_published()
SOURCE: str = _PUBLISHED["source"]
OTHER_SOURCES: dict[str, str] = _PUBLISHED["other_sources"]  # of the numbers of trainers that the paper does not have
BACKBONE: str = _PUBLISHED["backbone"]
BACKBONE_FILE: str = _PUBLISHED["backbone_file"]
SHOTS: int = _PUBLISHED["shots"]
DATASETS: dict[str, str] = _PUBLISHED["datasets"]  # config file -> name, in the paper's order
TRAINERS: tuple[str, ...] = tuple(_PUBLISHED["trainers"])  # in its order, too


def numbers(protocol: str) -> dict[str, dict[str, dict[str, float]]]:
    """The paper's numbers of a protocol.

    Args:
        protocol: base2new, xd or dg.

    Returns:
        By trainer and data set ("average" for the paper's own average, which in xd and dg leaves the source out) the
        metrics: Base, New and HM, or Accuracy. Of a trainer in `OTHER_SOURCES` there may be the average alone.

    Raises:
        ValueError: the paper prints no table of this protocol.
    """
    if protocol not in METRICS:
        raise ValueError(f"the paper prints tables of base2new, xd and dg, none of {protocol}")
    return {
        trainer: {row: dict(zip(METRICS[protocol], values)) for row, values in rows.items()}
        for trainer, rows in _PUBLISHED["tables"][protocol].items()
    }


def averaged(protocol: str) -> set[str]:
    """The data sets that the paper's averages of a protocol are over."""
    rows = {row for table in numbers(protocol).values() for row in table}
    return rows - {AVERAGE} - ({"imagenet"} if protocol != "base2new" else set())


def is_backbone(name: str) -> bool:
    """Whether a run's backbone, a name or a path, is the paper's: by OpenAI's name, or by that of OpenAI's file.

    open_clip's models are not: with the weights in OpenAI's file most of them compute another activation.
    """
    if name.startswith(("open_clip:", "local-dir:", "hf-hub:")):
        return False
    return name == BACKBONE or PurePath(name).name == BACKBONE_FILE


def display_name(dataset: str) -> str:
    """A data set's name in the paper; of others that of the config file. Of two, joined by "/", both names."""
    return " / ".join(DATASETS.get(name, name) for name in dataset.split("/"))


def in_order(datasets: Iterable[str]) -> list[str]:
    """Data sets in the paper's order, then those that it does not have, by name."""
    order = {name: index for index, name in enumerate(DATASETS)}
    return sorted(datasets, key=lambda names: [(order.get(name, len(order)), name) for name in names.split("/")])
