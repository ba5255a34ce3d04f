"""Which data sets are there, what they lack, and getting them.

    python -m tools.datasets check dtd oxford_pets          what is there, what is missing, where to get it
    python -m tools.datasets check all
    python -m tools.datasets check folder --folder my_birds --images
    python -m tools.datasets prepare dtd                    download, or take from --archives, and arrange

Data sets are named as in configs/datasets, and lie in --root, by default $DATA, else ./data. The exit status is 0 only
if every set that was asked for can be used. `prepare` may be called again at any time: what is done stays, what was
broken off goes on. See docs/data.md.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import os
import shutil
import sys
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import compat  # noqa: F401  makes `import dassl` work

from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY
from dassl.utils import read_image
from tqdm import tqdm

import datasets  # noqa: F401  registers the data sets
from datasets.base import GeneratedDataset, SplitDataset
from datasets.files import write_json
from datasets.folder import Folder
from datasets.splits import Split, check_images, check_split
from tools.download import check_md5, download, lock, unpack
from tools.pipes import ending_quietly

CONFIGS = Path(__file__).resolve().parent.parent / "configs" / "datasets"
COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"
READERS = 8  # threads that open images


class Counts(NamedTuple):
    """Images in the published split; None where the set has no such part."""

    classes: int
    train: int | None
    val: int | None
    test: int


class Archive(NamedTuple):
    """A file that a data set is made from."""

    file: str
    parts: Mapping[str, str]  # path in the archive -> path in the set's folder; empty: the file itself belongs there
    url: str = ""  # where it is fetched from; "" if it must be got by hand
    md5: str = ""  # "" where none is known
    by_hand: str = ""  # where to get it
    holder: Archive | None = None  # archive that holds this one
    member: str = ""  # path in the holder


class Source(NamedTuple):
    """What is known of a public data set besides its layout, which its reader knows."""

    section: str  # of CoOp's DATASETS.md
    published: Counts
    archives: tuple[Archive, ...] = ()
    by_hand: str = ""  # what to put where, for a set that cannot be prepared


# The counts are those of the papers of CoOp and CoCoOp (their tables of data sets); checksums as in torchvision, and of
# FGVC-Aircraft, ImageNet-A and ImageNet-R as many public repositories have them.
SOURCES = {
    "imagenet": Source(
        "imagenet",
        Counts(1000, 1_281_167, None, 50_000),
        by_hand="ImageNet is given out only to those who register at https://image-net.org: unpack its training images "
        "to images/train/<n........>/ and its validation images to images/val/<n........>/, 1,000 folders each, and "
        "get classnames.txt by the link in CoOp's DATASETS.md",
    ),
    "caltech101": Source(
        "caltech101",
        Counts(100, 4128, 1649, 2465),
        (
            Archive(
                "101_ObjectCategories.tar.gz",
                {"101_ObjectCategories": "101_ObjectCategories"},
                md5="b224c7392d521a49829488ab0f1120d9",
                holder=Archive(
                    "caltech-101.zip",
                    {},
                    url="https://data.caltech.edu/records/mzrjq-6wc02/files/caltech-101.zip",
                    md5="3138e1922a9193bfa496528edbbc45d0",
                ),
                member="caltech-101/101_ObjectCategories.tar.gz",
            ),
        ),
    ),
    "oxford_pets": Source(
        "oxfordpets",
        Counts(37, 2944, 736, 3669),
        (
            Archive(
                "images.tar.gz",
                {"images": "images"},
                url=f"{OXFORD}/pets/data/images.tar.gz",
                md5="5c4f3ee8e5d25df40f4fd59a7f44e54c",
            ),
            Archive(
                "annotations.tar.gz",
                {"annotations": "annotations"},
                url=f"{OXFORD}/pets/data/annotations.tar.gz",
                md5="95a8c909bbe2e81eed6a22bccdf3f68f",
            ),
        ),
    ),
    "stanford_cars": Source(
        "stanfordcars",
        Counts(196, 6509, 1635, 8041),
        tuple(
            Archive(file, parts, by_hand="its address at ai.stanford.edu is dead; copies go by this name")
            for file, parts in {
                "cars_train.tgz": {"cars_train": "cars_train"},
                "cars_test.tgz": {"cars_test": "cars_test"},
                "car_devkit.tgz": {"devkit": "devkit"},
                "cars_test_annos_withlabels.mat": {},
            }.items()
        ),
    ),
    "oxford_flowers": Source(
        "flowers102",
        Counts(102, 4093, 1633, 2463),
        (
            Archive(
                "102flowers.tgz",
                {"jpg": "jpg"},
                url=f"{OXFORD}/flowers/102/102flowers.tgz",
                md5="52808999861908f626f3c1f4e79d11fa",
            ),
            Archive(
                "imagelabels.mat",
                {},
                url=f"{OXFORD}/flowers/102/imagelabels.mat",
                md5="e0620be6f572b9609742df49c70aed4d",
            ),
        ),
    ),
    "food101": Source(
        "food101",
        Counts(101, 50_500, 20_200, 30_300),
        (
            Archive(
                "food-101.tar.gz",
                {"food-101/images": "images"},
                url="http://data.vision.ee.ethz.ch/cvl/food-101.tar.gz",
                md5="85eeb15f3717b99a5da872d97d918f87",
            ),
        ),
    ),
    "fgvc_aircraft": Source(
        "fgvcaircraft",
        Counts(100, 3334, 3333, 3333),
        (
            Archive(
                "fgvc-aircraft-2013b.tar.gz",
                {
                    f"fgvc-aircraft-2013b/data/{name}": name
                    for name in (
                        "images",
                        "variants.txt",
                        *(f"images_variant_{p}.txt" for p in ("train", "val", "test")),
                    )
                },
                url=f"{OXFORD}/fgvc-aircraft/archives/fgvc-aircraft-2013b.tar.gz",
                md5="d4acdd33327262359767eeaa97a4f732",
            ),
        ),
    ),
    "sun397": Source(
        "sun397",
        Counts(397, 15_880, 3970, 19_850),
        (
            Archive(
                "SUN397.tar.gz",
                {"SUN397": "SUN397"},
                md5="8ca2778205c41d23104230ba66911c7a",
                by_hand="its address at vision.princeton.edu, which torchvision has too, answers 404 since 2025; "
                "copies go by this name",
            ),
            Archive(
                "Partitions.zip",
                {name: name for name in ("ClassName.txt", "Training_01.txt", "Testing_01.txt")},
                by_hand="its address at vision.princeton.edu is dead as well; with CoOp's split file it is not needed",
            ),
        ),
    ),
    "dtd": Source(
        "dtd",
        Counts(47, 2820, 1128, 1692),
        (
            Archive(
                "dtd-r1.0.1.tar.gz",
                {"dtd/images": "images"},
                url=f"{OXFORD}/dtd/download/dtd-r1.0.1.tar.gz",
                md5="fff73e5086ae6bdbea199a49dfb8a4c1",
            ),
        ),
    ),
    "eurosat": Source(
        "eurosat",
        Counts(10, 13_500, 5400, 8100),
        (
            Archive(
                "EuroSAT.zip",
                {"2750": "2750"},
                url="https://huggingface.co/datasets/torchgeo/eurosat/resolve/"
                "c877bcd43f099cd0196738f714544e355477f3fd/EuroSAT.zip",
                md5="c8fa014336c82ac7804f0398fcb19387",
            ),
        ),
    ),
    "ucf101": Source(
        "ucf101",
        Counts(101, 7639, 1898, 3783),
        (
            Archive(
                "UCF-101-midframes.zip",
                {"UCF-101-midframes": "UCF-101-midframes"},
                by_hand="the middle frames of the videos, which CoOp's author made and links to",
            ),
            Archive(
                "UCF101TrainTestSplits-RecognitionTask.zip",
                {"ucfTrainTestlist": "ucfTrainTestlist"},
                url="https://www.crcv.ucf.edu/data/UCF101/UCF101TrainTestSplits-RecognitionTask.zip",
            ),
        ),
    ),
    "imagenetv2": Source(
        "imagenetv2",
        Counts(1000, None, None, 10_000),
        (
            Archive(
                "imagenetv2-matched-frequency.tar.gz",
                {"imagenetv2-matched-frequency-format-val": "imagenetv2-matched-frequency-format-val"},
                url="https://huggingface.co/datasets/vaishaal/ImageNetV2/resolve/main/"
                "imagenetv2-matched-frequency.tar.gz",
            ),
        ),
    ),
    "imagenet_sketch": Source(
        "imagenet-sketch",
        Counts(1000, None, None, 50_889),
        (
            Archive(
                "ImageNet-Sketch.zip", {"sketch": "images"}, by_hand="see https://github.com/HaohanWang/ImageNet-Sketch"
            ),
        ),
    ),
    "imagenet_a": Source(
        "imagenet-a",
        Counts(200, None, None, 7500),
        (
            Archive(
                "imagenet-a.tar",
                {"imagenet-a": "imagenet-a"},
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-a.tar",
                md5="c3e55429088dc681f30d81f4726b6595",
            ),
        ),
    ),
    "imagenet_r": Source(
        "imagenet-r",
        Counts(200, None, None, 30_000),
        (
            Archive(
                "imagenet-r.tar",
                {"imagenet-r": "imagenet-r"},
                url="https://people.eecs.berkeley.edu/~hendrycks/imagenet-r.tar",
                md5="a61312130a589d0ca1a8fca1f2bd3337",
            ),
        ),
    ),
}


class Report(NamedTuple):
    """What `check` found out about one data set."""

    name: str
    usable: bool
    lines: list[str]


# ---- check


def config_of(name: str, root: str, folder: str = ""):
    """Dassl's config for reading all images of a data set.

    Raises:
        ValueError: there is no config of this name.
    """
    path = CONFIGS / f"{name}.yaml"
    if not path.is_file():
        known = ", ".join(sorted(path.stem for path in CONFIGS.glob("*.yaml")))
        raise ValueError(f"a data set must be one of {known}, got {name!r}")
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
    names = sorted(path.stem for path in CONFIGS.glob("*.yaml"))
    return [name for name in names if not issubclass(reader_of(name), (GeneratedDataset, Folder))]


class WithoutSaving(SplitDataset):
    """Goes before a reader among the bases of a class: makes the split where none is saved, and saves none."""

    def load_split(self) -> Split:
        if self.split_file and not os.path.exists(self.split_path):
            split = self.make_split()
            check_split(split, self.dataset_dir, equal_names=self.equal_names)
            check_images(split, self.image_dir, self.dataset_dir)
            return split
        return super().load_split()


def check(name: str, root: str, folder: str = "", images: bool = False) -> Report:
    """Find out whether a data set can be used, by having its reader read it. Nothing is written.

    Args:
        name: as in configs/datasets.
        root: folder of the data sets.
        folder: DATASET.FOLDER, where `name` is "folder"; empty for its default.
        images: open every image, too.

    Raises:
        ValueError: there is no data set of this name.
    """
    cfg = config_of(name, root, folder)
    reader, source = reader_of(name), SOURCES.get(name)
    place = os.path.join(root, reader.dataset_dir)
    if issubclass(reader, GeneratedDataset) and not os.path.isdir(os.path.join(place, reader.image_dir)):
        return Report(name, True, ["images    are written on first use"])
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
    broken = broken_images(dataset, name) if images else []
    return Report(name, not broken, lines + [f"broken    {sentence}" for sentence in broken])


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
    counts = Counts(dataset.num_classes, len(dataset.train_x), len(dataset.val or ()), len(dataset.test or ()))
    told = [f"{count:,} {name}" for name, count in zip(Counts._fields, counts)]
    if source is None:
        return [f"split     {', '.join(told)}"]
    if dataset.split_file and not os.path.exists(dataset.split_path):
        return [
            f"split     {', '.join(told)}, of the reader's own making: {dataset.split_file} is not there",
            "          figures on it are not comparable with published ones; get that file by the link in",
            f"          {COOP}#{source.section}",
        ]
    unlike = [
        f"{count:,} {name} where {published:,} are published"
        for name, count, published in zip(Counts._fields, counts, source.published)
        if published is not None and count != published
    ]
    if unlike:
        return [f"split     {', '.join(told)}", f"differs   {', '.join(unlike)}: figures are not comparable"]
    return [f"split     {', '.join(told)}: as many as published"]


def broken_images(dataset: SplitDataset, name: str) -> list[str]:
    """Open every image as training does; sentences on those that cannot be read, the first twenty of them."""
    paths = sorted({item.impath for part in (dataset.train_x, dataset.val, dataset.test) for item in part or ()})

    def sentence(path: str) -> str:
        try:
            read_image(path)
        except Exception as error:  # an installed Dassl hands on whatever a decoder raises on a damaged file
            text = " ".join(str(error).split()) or type(error).__name__
            return text if path in text else f"{path}: {text}"
        return ""

    with ThreadPoolExecutor(READERS) as pool:
        found = [
            text
            for text in tqdm(pool.map(sentence, paths), total=len(paths), desc=name, unit=" images", disable=None)
            if text
        ]
    rest = [f"and {len(found) - 20:,} more"] if len(found) > 20 else []
    return found[:20] + rest


# ---- prepare


def prepare(name: str, root: str, archives: str) -> Report:
    """Get a public data set and arrange it as its reader expects it, as far as it is not there yet.

    Args:
        name: as in configs/datasets.
        root: folder of the data sets.
        archives: folder of the archives; those that are not there and can be downloaded are downloaded to it. The
            split file and `classnames.txt` are taken from it, too.

    Returns:
        What `check` then finds.

    Raises:
        ValueError: there is nothing to prepare by this name, or an archive is damaged.
        FileNotFoundError: something must be got by hand first; says all of it.
        OSError: a download fails, the disk is full, or another call prepares the same set.
    """
    reader = reader_of(name)
    if name not in SOURCES:
        raise ValueError(
            f"{name} needs no preparation: "
            + ("its folder is read as it is" if reader is Folder else "its images are written on first use")
        )
    place = os.path.join(root, reader.dataset_dir)
    with held(place):
        take_small_files(reader, name, root, place, archives)
        report = check(name, root)
        if report.usable:
            return report
        problems = []
        for archive in SOURCES[name].archives:
            try:
                arrange(archive, place, archives)
            except FileNotFoundError as error:
                problems.append(str(error))
        report = check(name, root)
        if not report.usable and (problems or SOURCES[name].by_hand):
            problems = problems or [f"{name} must be put into {place} by hand: {SOURCES[name].by_hand}"]
            raise FileNotFoundError(f"{'; '.join(problems)} ({COOP}#{SOURCES[name].section})")
        if not report.usable:
            report.lines.append(
                f"hint      folders that were there before are left as they are: move what is incomplete in {place} "
                "away, and call this again"
            )
        return report


@contextlib.contextmanager
def held(place: str) -> Iterator[None]:
    """Make a folder and keep other calls from preparing it.

    Raises:
        OSError: one does so already.
    """
    made = not os.path.isdir(place)
    os.makedirs(place, exist_ok=True)
    handle = os.open(place, os.O_RDONLY)
    try:
        lock(handle, f"another process is preparing {place}")
        yield
    finally:
        os.close(handle)
        if made and not os.listdir(place):
            os.rmdir(place)


def arrange(archive: Archive, place: str, archives: str) -> None:
    """Put what an archive holds into the set's folder, unless it is there.

    Raises:
        FileNotFoundError: the archive is not there and must be got by hand.
    """
    targets = list(archive.parts.values()) or [archive.file]
    if all(os.path.exists(os.path.join(place, target)) for target in targets):
        return
    path = obtain(archive, archives)
    if not archive.parts:
        take(path, os.path.join(place, archive.file))
        return
    done = unpack(path, archive.parts, place)
    print(f"Unpacked {', '.join(done)} into {place}; {path} ({os.path.getsize(path):,} bytes) is no longer needed")


def obtain(archive: Archive, archives: str) -> str:
    """Path of an archive, downloaded or taken out of its holder if it is not there.

    Raises:
        FileNotFoundError: it must be got by hand.
        ValueError: the one that is there has another checksum.
    """
    path = os.path.join(archives, archive.file)
    if os.path.isfile(path):
        check_md5(path, archive.md5)
    elif archive.holder:
        unpack(obtain(archive.holder, archives), {archive.member: archive.file}, archives)
        check_md5(path, archive.md5)
    elif archive.url:
        os.makedirs(archives, exist_ok=True)
        print(f"Downloading {archive.url} to {path}" + ("" if archive.md5 else "; no checksum of it is known"))
        download(archive.url, path, md5=archive.md5)
    else:
        raise FileNotFoundError(
            f"{archive.file} cannot be downloaded and must be put into {archives} ({archive.by_hand})"
        )
    return path


def take_small_files(reader: type[SplitDataset], name: str, root: str, place: str, archives: str) -> None:
    """Put the split file and files with class names into the set's folder, where they are needed and can be had."""
    wanted = [reader.split_file, "classnames.txt"] if "classnames.txt" in reader.required_files else [reader.split_file]
    for file in filter(None, wanted):
        for folder in (archives, os.path.join(root, "imagenet")):
            target = os.path.join(place, file)
            if os.path.isfile(os.path.join(folder, file)) and not os.path.exists(target):
                take(os.path.join(folder, file), target)
    if name == "oxford_flowers":
        write_flower_names(os.path.join(place, "cat_to_name.json"))


def take(path: str, target: str) -> None:
    """Copy a small file, whole or not at all."""
    shutil.copyfile(path, f"{target}.part")
    os.replace(f"{target}.part", target)
    print(f"Copied {path} to {target}")


def write_flower_names(path: str) -> None:
    """Write the flowers' names, which CoOp has on Google Drive only, as torchvision has them; older ones lack them."""
    from torchvision.datasets import Flowers102  # slow to import

    names = getattr(Flowers102, "classes", None)
    if names and not os.path.exists(path):
        write_json({str(number): name for number, name in enumerate(names, start=1)}, path, indent=4)
        print(f"Wrote {path} from torchvision's names of the flowers")


# ---- command line


def show(report: Report) -> None:
    """Print a report."""
    print(f"{report.name}: {'usable' if report.usable else 'NOT USABLE'}")
    for line in report.lines:
        print(f"  {line}")


@ending_quietly()
def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(
        prog="tools.datasets", description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    commands = parser.add_subparsers(dest="command", required=True)
    checking = commands.add_parser("check", help="say what is there, what is missing and where to get it")
    checking.add_argument("datasets", nargs="+", help="names as in configs/datasets, or all")
    checking.add_argument("--folder", default="", help="for `folder`: DATASET.FOLDER, its name below the root or path")
    checking.add_argument("--images", action="store_true", help="open every image, too")
    preparing = commands.add_parser("prepare", help="download, or take from --archives, and arrange")
    preparing.add_argument("datasets", nargs="+", help="names as in configs/datasets, or all")
    preparing.add_argument("--archives", default="", help="folder of the archives (default: archives in the root)")
    for command in (checking, preparing):
        command.add_argument("--root", default=os.environ.get("DATA") or "data", help="folder of the data sets")
    args = parser.parse_args(arguments)

    root = os.path.abspath(os.path.expanduser(args.root))
    archives = os.path.abspath(os.path.expanduser(getattr(args, "archives", "") or os.path.join(root, "archives")))
    try:
        names = [one for name in args.datasets for one in (public_names() if name == "all" else [name])]
        for name in names:
            reader_of(name)
    except ValueError as error:
        parser.exit(2, f"tools.datasets: {error}\n")
    usable = True
    for name in names:
        try:
            if args.command == "check":
                report = check(name, root, args.folder, args.images)
            else:
                report = prepare(name, root, archives)
        except (OSError, ValueError) as error:
            report = Report(name, False, [f"wrong     {error}"])
        show(report)
        usable = usable and report.usable
    sys.exit(0 if usable else 1)


if __name__ == "__main__":
    main()
