"""Small made-up data sets in the layouts of CoOp's DATASETS.md, without split files.

Used by the tests and by the script that runs CoOp's published readers on the same trees. It imports nothing of this
project, whose packages have the names of CoOp's. Class folders are made in no particular order, numbers of images are
such that shares are rounded up and down, and numbers of classes are odd, so that the halves differ in size.
"""

from __future__ import annotations

import io
import json
import stat
import tarfile
import zipfile
from collections.abc import Iterable, Iterator
from pathlib import Path

import numpy as np
from PIL import Image
from scipy.io import savemat


def _pixel() -> bytes:
    buffer = io.BytesIO()
    Image.new("RGB", (1, 1), (90, 120, 30)).save(buffer, "JPEG")
    return buffer.getvalue()


PIXEL = _pixel()  # the readers never look into an image, but an empty file is an error

COUNTS = (17, 8, 12, 25, 9, 10, 11)  # images of the classes of a set, in turn
CALTECH = ("yin_yang", "Leopards", "BACKGROUND_Google", "airplanes", "Faces_easy", "Faces", "binocular", "Motorbikes")
CALTECH += ("ant", "crocodile_head")
EUROSAT = ("SeaLake", "River", "Residential", "PermanentCrop", "Pasture", "Industrial", "Highway")
EUROSAT += ("HerbaceousVegetation", "Forest", "AnnualCrop")
FOOD = ("waffles", "apple_pie", "beef_carpaccio", "tacos", "french_fries")
TEXTURES = ("zigzagged", "banded", "polka-dotted", "lacelike", "blotchy")
PETS = ("Abyssinian", "american_bulldog", "american_pit_bull_terrier", "Bengal", "english_cocker_spaniel")
CARS = (
    "AM General Hummer SUV 2000",
    "Audi TTS Coupe 2012",
    "Ram C/V Cargo Van Minivan 2012",
    "smart fortwo Convertible 2012",
    "Volvo 240 Sedan 1993",
)
FLOWERS = ("pink primrose", "hard-leaved pocket orchid", "bishop of llandaff", "sword lily", "colt's foot")
AIRCRAFT = ("707-320", "Boeing 717", "F/A-18", "A300B4", "Yak-42", "DC-10", "Cessna 172")
SUN = ("/a/abbey", "/a/apse/indoor", "/b/bow_window/outdoor", "/c/cathedral/indoor", "/y/youth_hostel")
ACTIONS = ("ApplyEyeMakeup", "HandstandPushups", "TaiChi", "YoYo", "Archery")
CLASS_NAMES = {
    "n01440764": "tench",
    "n01443537": "goldfish",
    "n01484850": "great white shark",
    "n02012849": "crane bird",
    "n03126707": "construction crane",
    "n03773504": "missile",
    "n04008634": "missile",
    "n04355933": "sunglasses",
    "n07871810": "meatloaf",
    "n15075141": "toilet paper",
}
HERE = ("n04008634", "n01443537", "n15075141", "n03773504", "n01440764", "n02012849", "n04355933")


def write_images(folder: Path, names: Iterable[str]) -> None:
    """Write images of one pixel; folders in the names are made."""
    for name in names:
        path = folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(PIXEL)


def write_text(path: Path, text: str) -> None:
    """Write a text file and its folder."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text, encoding="utf-8")


def numbered(names: Iterable[str]) -> Iterator[tuple[int, str, int]]:
    """Yield (label from 0, class, number of its images)."""
    for label, name in enumerate(names):
        yield label, name, COUNTS[label % len(COUNTS)]


def mixed(entries: list) -> list:
    """Reorder a list so that its classes are not in the order of their labels, always the same way."""
    return [entries[index] for index in np.random.RandomState(3).permutation(len(entries))]


def write_folders(images: Path, classes: Iterable[str]) -> None:
    """Write one folder a class; file numbers are unpadded, so that their order is not that of the numbers."""
    for _, name, count in numbered(classes):
        write_images(images / name, (f"image_{index}.jpg" for index in range(count)))


def caltech101(root: Path) -> None:
    """One folder a class, two of them ignored, four renamed."""
    write_folders(root / "caltech-101" / "101_ObjectCategories", CALTECH)


def dtd(root: Path) -> None:
    """One folder a class."""
    write_folders(root / "dtd" / "images", TEXTURES)


def eurosat(root: Path) -> None:
    """One folder a class, all renamed."""
    write_folders(root / "eurosat" / "2750", EUROSAT)


def food101(root: Path) -> None:
    """One folder a class."""
    write_folders(root / "food-101" / "images", FOOD)


def oxford_pets(root: Path) -> None:
    """Images in one folder, two lists."""
    lines = [
        (f"{breed}_{number}", f"{label + 1} {1 + label % 2} {label // 2 + 1}")
        for label, breed, count in numbered(PETS)
        for number in range(1, count + 6)
    ]
    write_images(root / "oxford_pets" / "images", (f"{image}.jpg" for image, _ in lines))
    for name, part in (("trainval", mixed(lines[::2] + lines[1::4])), ("test", lines[3::4])):
        text = "".join(f"{image} {numbers}\n" for image, numbers in part)
        write_text(root / "oxford_pets" / "annotations" / f"{name}.txt", text)


def stanford_cars(root: Path) -> None:
    """Two folders of images, labels in MATLAB's format as the devkit has them."""
    folder = root / "stanford_cars"
    (folder / "devkit").mkdir(parents=True)
    names = np.empty((1, len(CARS)), dtype=object)
    names[0] = CARS
    savemat(folder / "devkit" / "cars_meta.mat", {"class_names": names})
    labels = mixed([label for label, _, count in numbered(CARS) for _ in range(count)])
    for images, file, part in (
        ("cars_train", "devkit/cars_train_annos.mat", labels),
        ("cars_test", "cars_test_annos_withlabels.mat", labels[::3]),
    ):
        fields = ("bbox_x1", "bbox_y1", "bbox_x2", "bbox_y2", "class", "fname")
        annotations = np.empty((1, len(part)), dtype=[(field, object) for field in fields])
        for index, label in enumerate(part):
            annotations[0, index] = (1, 1, 1, 1, np.uint8(label + 1), f"{index + 1:05d}.jpg")
        savemat(folder / file, {"annotations": annotations})
        write_images(folder / images, (f"{index + 1:05d}.jpg" for index in range(len(part))))


def oxford_flowers(root: Path) -> None:
    """Images in one folder, labels in MATLAB's format, class names in JSON."""
    folder = root / "oxford_flowers"
    labels = mixed([label + 1 for label, _, count in numbered(FLOWERS) for _ in range(count)])
    write_images(folder / "jpg", (f"image_{index + 1:05d}.jpg" for index in range(len(labels))))
    savemat(folder / "imagelabels.mat", {"labels": np.array([labels], dtype=np.uint8)})
    names = {str(label + 1): name for label, name in reversed(list(enumerate(FLOWERS)))}
    write_text(folder / "cat_to_name.json", json.dumps(names))


def fgvc_aircraft(root: Path) -> None:
    """Images in one folder, three lists; names with blanks and a slash."""
    folder = root / "fgvc_aircraft"
    lines = [(f"{label}{index:06d}", name) for label, name, count in numbered(AIRCRAFT) for index in range(count)]
    write_images(folder / "images", (f"{image}.jpg" for image, _ in lines))
    write_text(folder / "variants.txt", "".join(f"{name}\n" for name in AIRCRAFT))
    for part, name in enumerate(("train", "val", "test")):
        text = "".join(f"{image} {variant}\n" for image, variant in mixed(lines[part::3]))
        write_text(folder / f"images_variant_{name}.txt", text)


def sun397(root: Path) -> None:
    """Folders of two and three levels, two lists of a partition."""
    folder = root / "sun397"
    paths = [f"{scene}/sun_a{index}.jpg" for _, scene, count in numbered(SUN) for index in range(count)]
    write_images(folder / "SUN397", (path[1:] for path in paths))
    write_text(folder / "ClassName.txt", "".join(f"{scene}\n" for scene in SUN))
    write_text(folder / "Training_01.txt", "".join(f"{path}\n" for path in mixed(paths[::2] + paths[1::4])))
    write_text(folder / "Testing_01.txt", "".join(f"{path}\n" for path in paths[3::4]))


def ucf101(root: Path) -> None:
    """Folders whose names are made of the actions' words, two lists of videos; Windows' line ends, as published."""
    folder = root / "ucf101"
    words = dict(zip(ACTIONS, ("Apply_Eye_Makeup", "Handstand_Pushups", "Tai_Chi", "Yo_Yo", "Archery")))
    videos = [
        (action, label + 1, f"v_{'HandStandPushups' if label == 1 else action}_g{index:02d}_c01")
        for label, action, count in numbered(ACTIONS)
        for index in range(count)
    ]
    write_images(folder / "UCF-101-midframes", (f"{words[action]}/{video}.jpg" for action, _, video in videos))
    lists = folder / "ucfTrainTestlist"
    write_text(lists / "classInd.txt", "".join(f"{label + 1} {name}\r\n" for label, name in enumerate(ACTIONS)))
    train = mixed(videos[::2] + videos[1::4])
    write_text(
        lists / "trainlist01.txt", "".join(f"{action}/{video}.avi {label}\r\n" for action, label, video in train)
    )
    write_text(lists / "testlist01.txt", "".join(f"{action}/{video}.avi\r\n" for action, _, video in videos[3::4]))


def write_classnames(folder: Path, names: dict[str, str]) -> None:
    """Write ImageNet's `classnames.txt`."""
    write_text(folder / "classnames.txt", "".join(f"{wnid} {name}\n" for wnid, name in names.items()))


def imagenet(root: Path) -> None:
    """Folders for training and validation, of seven of the ten classes that have names, two of them of one name."""
    folder = root / "imagenet"
    write_classnames(folder, CLASS_NAMES)
    for _, wnid, count in numbered(HERE):
        write_images(folder / "images" / "train" / wnid, (f"{wnid}_{index}.JPEG" for index in range(count)))
        write_images(folder / "images" / "val" / wnid, (f"ILSVRC2012_val_{index}.JPEG" for index in range(3)))


def _imagenet_variant(folder: Path, images: str, wnids: Iterable[str]) -> None:
    write_classnames(folder, CLASS_NAMES)
    for _, wnid, count in numbered(wnids):
        write_images(folder / images / wnid, (f"{index}_x.jpg" for index in range(count)))


def imagenet_a(root: Path) -> None:
    """Folders of some of the classes, and the archive's README.txt beside them."""
    _imagenet_variant(root / "imagenet-adversarial", "imagenet-a", HERE[:5])
    write_text(root / "imagenet-adversarial" / "imagenet-a" / "README.txt", "a text\n")


def imagenet_r(root: Path) -> None:
    """Folders of some of the classes, and the archive's README.txt beside them."""
    _imagenet_variant(root / "imagenet-rendition", "imagenet-r", HERE[2:])
    write_text(root / "imagenet-rendition" / "imagenet-r" / "README.txt", "a text\n")


def imagenet_sketch(root: Path) -> None:
    """Folders of all classes."""
    _imagenet_variant(root / "imagenet-sketch", "images", CLASS_NAMES)


def imagenetv2(root: Path) -> None:
    """Folders 0 to 999, the number that CoOp's reader has in its code, of one or two images."""
    folder = root / "imagenetv2"
    write_classnames(folder, {f"n{index:08d}": f"class {index // 2 * 2}" for index in range(1000)})
    for label in range(1000):
        images = folder / "imagenetv2-matched-frequency-format-val" / str(label)
        write_images(images, (f"{index}.jpeg" for index in range(1 + label % 2)))


WRITERS = {
    "Caltech101": caltech101,
    "DescribableTextures": dtd,
    "EuroSAT": eurosat,
    "FGVCAircraft": fgvc_aircraft,
    "Food101": food101,
    "ImageNet": imagenet,
    "ImageNetA": imagenet_a,
    "ImageNetR": imagenet_r,
    "ImageNetSketch": imagenet_sketch,
    "ImageNetV2": imagenetv2,
    "OxfordFlowers": oxford_flowers,
    "OxfordPets": oxford_pets,
    "StanfordCars": stanford_cars,
    "SUN397": sun397,
    "UCF101": ucf101,
}
MODULES = {name: writer.__name__ for name, writer in WRITERS.items()}  # CoOp's modules and configs have one name
TEST_ONLY = ("ImageNetA", "ImageNetR", "ImageNetSketch", "ImageNetV2")


def write_archive(path, members):
    """A tar or zip file of name -> content; a tuple as content is a link (kind, target)."""
    if path.suffix == ".zip":
        with zipfile.ZipFile(path, "w") as archive:
            for name, content in members.items():
                entry = zipfile.ZipInfo(name)
                if isinstance(content, tuple):
                    entry.external_attr = (stat.S_IFLNK | 0o777) << 16
                    content = content[1].encode()
                archive.writestr(entry, content)
    else:
        with tarfile.open(path, "w:gz" if path.suffix in (".gz", ".tgz") else "w") as archive:
            for name, content in members.items():
                entry = tarfile.TarInfo(name)
                if isinstance(content, tuple):
                    entry.type, entry.linkname = content
                    archive.addfile(entry)
                elif name.endswith("/"):
                    entry.type = tarfile.DIRTYPE
                    archive.addfile(entry)
                else:
                    entry.size = len(content)
                    archive.addfile(entry, io.BytesIO(content))
    return str(path)


def tree(folder):
    return {str(p.relative_to(folder)): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}
