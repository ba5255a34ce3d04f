"""Which data sets are there, and what they lack."""

from __future__ import annotations

import contextlib
import io
import os
from concurrent.futures import ThreadPoolExecutor
from typing import NamedTuple

import compat  # noqa: F401  makes `import dassl` work

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import read_image
from tqdm import tqdm

import datasets  # noqa: F401  registers the data sets
from datasets.base import GeneratedDataset, SplitDataset
from datasets.folder import Folder
from datasets.splits import Split, check_split, is_own_making
from storage.safe_text import escaped
from tools.data.classes import class_lines
from tools.data.names import config_file, known_names
from tools.data.sources import COOP, SOURCES, Counts, Source

READERS = 8  # threads that open images


class Report(NamedTuple):
    """What `check` found out about one data set."""

    name: str
    usable: bool
    lines: list[str]
    as_published: bool = False  # whether its split is the published one, by its counts; not where `quick` was asked for


def config_of(name: str, root: str, folder: str = ""):
    """Dassl's config for reading all images of a data set.

    Raises:
        ValueError: there is no config of this name.
    """
    path = config_file(name)
    cfg = get_cfg_default()
    cfg.merge_from_file(str(path))
    cfg.merge_from_list(["DATASET.ROOT", root, "DATASET.NUM_SHOTS", -1, "DATASET.SUBSAMPLE_CLASSES", "all"])
    if folder:
        cfg.merge_from_list(["DATASET.FOLDER", folder])
    return cfg


def reader_of(name: str) -> type[SplitDataset]:
    """The class that reads a data set."""
    return DATASET_REGISTRY.get(config_of(name, "").DATASET.NAME)


def public_names() -> list[str]:
    """The data sets that somebody else publishes, in alphabetical order."""
    return [name for name in known_names() if not issubclass(reader_of(name), (GeneratedDataset, Folder))]


class WithoutSaving(SplitDataset):
    """Goes before a reader among the bases of a class: makes the split where none is saved, and changes no file."""

    def tidy(self) -> None:
        pass

    def load_split(self) -> Split:
        if self.split_file and not os.path.exists(self.split_path):
            split = self.make_split()
            check_split(split, self.dataset_dir, equal_names=self.equal_names)
            self.check_images(split, self.dataset_dir)
            return split
        return super().load_split()


def check(
    name: str, root: str, folder: str = "", images: bool = False, quick: bool = False, classes: bool = False
) -> Report:
    """Find out whether a data set can be used, by having its reader read it. Nothing is written.

    Args:
        name: as in configs/datasets.
        root: folder of the data sets.
        folder: DATASET.FOLDER, where `name` is "folder"; empty for its default.
        images: open every image, too.
        quick: of a public set, only look whether its folders and lists are there.
        classes: say of every class, also of a public set, whether it is base, and how CLIP reads its prompt.

    Raises:
        ValueError: there is no data set of this name.
    """
    cfg = config_of(name, root, folder)
    reader, source = reader_of(name), SOURCES.get(name)
    place = os.path.join(root, reader.dataset_dir)
    if issubclass(reader, GeneratedDataset) and not os.path.isdir(os.path.join(place, reader.image_dir)):
        return Report(name, True, ["images    are written on first use"])
    if quick and source:
        missing = [f"missing   {path}" for path in missing_paths(reader, place)]
        return Report(name, not missing, missing + where_to_get(name, root) if missing else ["folders   are there"])
    printed = io.StringIO()
    try:
        with contextlib.redirect_stdout(printed):
            dataset = type(reader.__name__, (WithoutSaving, reader), {})(cfg)
    except (OSError, ValueError) as error:
        missing = missing_paths(reader, place) if source else []
        lines = [f"missing   {path}" for path in missing] or [f"wrong     {error}"]
        return Report(name, False, lines + (where_to_get(name, root) if source else []))
    notes = [f"note      {line[6:]}" for line in printed.getvalue().splitlines() if line.startswith("Note: ")]
    lines = [f"images    {dataset.image_dir}", *split_lines(dataset, source), *notes]
    if classes or reader is Folder:
        lines += class_lines(dataset, cfg.DATASET.NAME)
    broken = broken_images(dataset, name) if images else []
    as_published = source is not None and not own_split(dataset) and not unlike_counts(dataset, source)
    return Report(name, not broken, lines + [f"broken    {problem}" for problem in broken], as_published)


def missing_paths(reader: type[SplitDataset], place: str) -> list[str]:
    """The files and folders that a reader needs and does not find in the set's folder."""
    folders = [os.path.join(place, reader.image_dir, folder) for folder in reader.image_folders or ("",)]
    missing = [f"{folder.rstrip('/')}/" for folder in folders if not (os.path.isdir(folder) and os.listdir(folder))]
    if not (reader.split_file and os.path.exists(os.path.join(place, reader.split_file))):
        paths = [os.path.join(place, path) for path in reader.required_files]
        missing += [path for path in paths if not os.path.exists(path)]
    return missing


def where_to_get(name: str, root: str) -> list[str]:
    """Lines that say how a public data set comes to be where it belongs."""
    source = SOURCES[name]
    lines = []
    if source.by_hand:
        lines.append(f"get       {source.by_hand}")
    if source.archives:
        lines.append(f"get       python -m tools.datasets prepare {name} --root {root}")
    by_hand = [f"          {archive.file} ({archive.by_hand})" for archive in source.archives if archive.by_hand]
    if by_hand:
        lines += ["          with --archives FOLDER, and in it what cannot be downloaded:", *by_hand]
    return [*lines, f"see       {COOP}#{source.section}"]


def split_lines(dataset: SplitDataset, source: Source | None) -> list[str]:
    """Lines on how many images and classes a set has, beside the published numbers."""
    numbers = [f"{count:,} {name}" for name, count in zip(Counts._fields, counts_of(dataset))]
    if source is None:
        return [f"split     {', '.join(numbers)}"]
    if own := own_split(dataset):
        return [
            f"split     {', '.join(numbers)}, of the reader's own making: {own}",
            "          figures on it are not comparable with published ones; get that file by the link in",
            f"          {COOP}#{source.section}",
        ]
    if unlike := unlike_counts(dataset, source):
        return [f"split     {', '.join(numbers)}", f"differs   {', '.join(unlike)}: figures are not comparable"]
    return [f"split     {', '.join(numbers)}: as many as published"]


def counts_of(dataset: SplitDataset) -> Counts:
    """How many classes and images a set has."""
    return Counts(dataset.num_classes, len(dataset.train_x), len(dataset.val or ()), len(dataset.test or ()))


def own_split(dataset: SplitDataset) -> str:
    """How one sees that the split of a public set is of its reader's own making; empty if it is not."""
    if not dataset.split_file:
        return ""
    if not os.path.exists(dataset.split_path):
        return f"{dataset.split_file} is not there"
    return f"a run has saved it as {dataset.split_file}" if is_own_making(dataset.split_path) else ""


def unlike_counts(dataset: SplitDataset, source: Source) -> list[str]:
    """The counts that are not the published ones."""
    return [
        f"{count:,} {name} where {published:,} are published"
        for name, count, published in zip(Counts._fields, counts_of(dataset), source.published)
        if published is not None and count != published
    ]


def broken_images(dataset: SplitDataset, name: str) -> list[str]:
    """Open every image as training does; errors of those that cannot be read, the first twenty of them."""
    paths = sorted({item.impath for part in (dataset.train_x, dataset.val, dataset.test) for item in part or ()})

    def problem(path: str) -> str:
        try:
            read_image(path)
        except Exception as error:  # an installed Dassl hands on whatever a decoder raises on a damaged file
            text = " ".join(str(error).split()) or type(error).__name__
            return text if path in text else f"{path}: {text}"
        return ""

    with ThreadPoolExecutor(READERS) as pool:
        found = [
            text
            for text in tqdm(pool.map(problem, paths), total=len(paths), desc=name, unit=" images", disable=None)
            if text
        ]
    rest = [f"and {len(found) - 20:,} more"] if len(found) > 20 else []
    return found[:20] + rest


def show(report: Report) -> None:
    """Print a report."""
    print(f"{report.name}: {'usable' if report.usable else 'NOT USABLE'}")
    for line in report.lines:
        print(f"  {escaped(line)}")
