"""The public data sets: where they come from, and how many images are published."""

from __future__ import annotations

from collections.abc import Mapping
from typing import NamedTuple

COOP = "https://github.com/KaiyangZhou/CoOp/blob/main/DATASETS.md"
OXFORD = "https://www.robots.ox.ac.uk/~vgg/data"


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
