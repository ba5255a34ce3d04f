"""Checking and preparing data sets: what is told, what is written, and what is not."""

from __future__ import annotations

import json
import os
import re
import threading
from pathlib import Path

import pytest
import torchvision
from PIL import Image
from torchvision.datasets import Flowers102

import trees
from helpers import ROOT
from server import Server
from tools.data import names as module
from tools.data.__main__ import main
from tools.data.check import check, config_of, public_names, reader_of
from tools.data.prepare import held, prepare
from tools.data.sources import FILE, SOURCES, Counts, read_sources
from trees import tree, write_archive

SPLIT_FILE = "split_zhou_DescribableTextures.json"
names_of_flowers = pytest.mark.skipif(
    not hasattr(Flowers102, "classes"), reason="this torchvision lacks the flowers' names"
)


@pytest.fixture
def without_checksums(monkeypatch):
    """The small archives of these tests are not the published ones; checksums are tested with the downloads."""
    for name, source in SOURCES.items():
        archives = tuple(
            archive._replace(md5="", holder=archive.holder and archive.holder._replace(md5=""))
            for archive in source.archives
        )
        monkeypatch.setitem(SOURCES, name, source._replace(archives=archives))


def write_dtd(root, count=10, names=("banded", "woven")):
    for name in names:
        (root / "dtd" / "images" / name).mkdir(parents=True)
        for index in range(count):
            Image.new("RGB", (4, 4)).save(root / "dtd" / "images" / name / f"{index}.jpg")
    return root


def write_split(root, train=2, names=("banded", "woven")):
    split = {
        part: [[f"{name}/{index}.jpg", label, name] for label, name in enumerate(names) for index in indices]
        for part, indices in {"train": range(train), "val": [2], "test": [3, 4]}.items()
    }
    (root / "dtd" / SPLIT_FILE).write_text(json.dumps(split))


def told(report):
    return "\n".join(report.lines)


def status(*arguments):
    with pytest.raises(SystemExit) as stopped:
        main([str(argument) for argument in arguments])
    return stopped.value.code


# ---- the file of sources


def test_every_public_set_has_a_source():
    assert set(public_names()) == set(SOURCES)
    assert read_sources() == SOURCES


@pytest.mark.parametrize(
    ("old", "new", "error"),
    [
        ("  section: dtd\n", "", "dtd must have section"),
        ("  section: dtd\n", "  section:\n", "dtd: section must be text, got None"),
        ("section: dtd", "section: dtd\n  licence: none", "dtd has the unknown key 'licence'"),
        ("train: 2820", "train: many", "dtd: published must hold numbers from 1 on, got 'many'"),
        ("train: 2820", "trian: 2820", "dtd: published has the unknown key 'trian'"),
        ("{classes: 47, train: 2820, val: 1128, test: 1692}", "47", "dtd: published must be a mapping"),
        ("fff73e5086", "xff73e5086", "dtd: dtd-r1.0.1.tar.gz: md5 must be 32 hexadecimal digits"),
        ("md5: fff73e5086ae6bdbea199a49dfb8a4c1", "md5: 12", "dtd-r1.0.1.tar.gz: md5 must be text, got 12"),
        ("https://www.robots.ox.ac.uk/~vgg/data/dtd", "/data/dtd", "url must be a whole http"),
        ("{dtd/images: images}", "{dtd/../images: images}", "parts must map paths"),
        ("{dtd/images: images}", "{dtd/images: /images}", "parts must map paths"),
        ("{dtd/images: images}", "{dtd/images: 1}", "parts must map paths"),
        ("file: dtd-r1.0.1.tar.gz", "file: ../dtd-r1.0.1.tar.gz", "file must be the name of a file"),
        ("    - file: dtd-r1.0.1.tar.gz\n      url", "    - url", "dtd: an archive must have file"),
        ("      by_hand: see https://github.com/Haohan", "      # ", "must have one of url, by_hand and holder"),
        ("      member: caltech", "      # ", "101_ObjectCategories.tar.gz must have holder and member, or neither"),
        ("        file: caltech-101.zip\n", "", "caltech101: an archive must have file"),
        ("dtd:\n", "dtd: {}\n\nother:\n", "dtd must have section"),
        ("eurosat:\n", "dtd:\n", "a key stands here twice"),
        ("dtd:\n", "dtd: [\n", "is not readable as YAML"),
    ],
)
def test_file_of_sources_is_checked(tmp_path, old, new, error):
    text = FILE.read_text()
    assert old in text
    (tmp_path / "sources.yaml").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=re.escape(error)) as caught:
        read_sources(tmp_path / "sources.yaml")
    assert str(tmp_path / "sources.yaml") in str(caught.value)


def test_all_errors_in_the_file_of_sources_are_named_at_once(tmp_path):
    text = FILE.read_text().replace("  section: dtd\n", "").replace("test: 8100", "test: 0")
    (tmp_path / "sources.yaml").write_text(text)
    with pytest.raises(ValueError, match=r"(?s)dtd must have section\n  eurosat: published must hold numbers.*got 0$"):
        read_sources(tmp_path / "sources.yaml")
    (tmp_path / "sources.yaml").write_text("")
    with pytest.raises(ValueError, match="it must map data sets to their sources"):
        read_sources(tmp_path / "sources.yaml")


@pytest.mark.parametrize("name", [name for name in SOURCES if name != "imagenet"])
def test_archives_hold_what_the_reader_needs(name):
    reader = reader_of(name)
    targets = {target for a in SOURCES[name].archives for target in (list(a.parts.values()) or [a.file])}
    needed = {os.path.join(reader.image_dir, folder) for folder in reader.image_folders or ("",)}
    needed |= set(reader.required_files) - {"classnames.txt", "cat_to_name.json"}  # got in other ways
    uncovered = {path for path in needed if path.split("/")[0] not in targets}
    assert not uncovered


def test_addresses_and_checksums_are_torchvisions():
    sets = torchvision.datasets
    archives = {archive.file: archive for source in SOURCES.values() for archive in source.archives}
    facts = {(archive.url, archive.md5) for archive in archives.values()}
    for url, md5 in [
        *sets.OxfordIIITPet._RESOURCES,
        (sets.DTD._URL, sets.DTD._MD5),
        (sets.Food101._URL, sets.Food101._MD5),
        *((sets.Flowers102._download_url_prefix + f, md5) for f, md5 in list(sets.Flowers102._file_dict.values())[:2]),
    ]:
        assert (url, md5) in facts
    assert archives["fgvc-aircraft-2013b.tar.gz"].url == sets.FGVCAircraft._URL
    assert archives["SUN397.tar.gz"].md5 == sets.SUN397._DATASET_MD5


# ---- check


def test_nothing_is_there(tmp_path):
    report = check("dtd", str(tmp_path))
    assert not report.usable
    assert f"missing   {tmp_path}/dtd/images/" in report.lines
    assert f"get       python -m tools.datasets prepare dtd --root {tmp_path}" in report.lines
    assert "DATASETS.md#dtd" in told(report)
    assert list(tmp_path.iterdir()) == []


def test_all_that_is_missing_is_named_at_once(tmp_path):
    (tmp_path / "stanford_cars" / "cars_train").mkdir(parents=True)
    (tmp_path / "stanford_cars" / "cars_train" / "1.jpg").touch()
    missing = [line.split(f"{tmp_path}/stanford_cars/")[1] for line in check("stanford_cars", str(tmp_path)).lines[:4]]
    assert missing == [
        "cars_test/",
        "devkit/cars_train_annos.mat",
        "cars_test_annos_withlabels.mat",
        "devkit/cars_meta.mat",
    ]


def test_set_without_its_split_file_is_usable_and_says_so(tmp_path):
    write_dtd(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    report = check("dtd", str(tmp_path))
    assert report.usable
    assert "2 classes, 10 train, 4 val, 6 test, of the reader's own making" in told(report)
    assert "not comparable with published ones" in told(report)
    assert sorted(tmp_path.rglob("*")) == before


def test_counts_are_held_to_the_published_ones(tmp_path, monkeypatch):
    write_dtd(tmp_path)
    write_split(tmp_path)
    report = check("dtd", str(tmp_path))
    assert report.usable
    assert "differs   2 classes where 47 are published, 4 train where 2,820 are" in told(report)
    monkeypatch.setitem(SOURCES, "dtd", SOURCES["dtd"]._replace(published=Counts(2, 4, 2, 4)))
    assert not report.as_published
    report = check("dtd", str(tmp_path))
    assert report.as_published
    assert "split     2 classes, 4 train, 2 val, 4 test: as many as published" in report.lines


def test_split_that_a_run_has_saved_is_not_the_published_one(tmp_path, monkeypatch):
    """Its counts may be: the published ones were made by the same shares."""
    write_dtd(tmp_path)
    monkeypatch.setitem(SOURCES, "dtd", SOURCES["dtd"]._replace(published=Counts(2, 10, 4, 6)))
    reader_of("dtd")(config_of("dtd", str(tmp_path)))
    report = check("dtd", str(tmp_path))
    assert f"2 classes, 10 train, 4 val, 6 test, of the reader's own making: a run has saved it as {SPLIT_FILE}" in (
        told(report)
    )
    assert not report.as_published


def test_split_file_is_verified(tmp_path):
    write_dtd(tmp_path)
    write_split(tmp_path)
    (tmp_path / "dtd" / "images" / "woven" / "3.jpg").unlink()
    report = check("dtd", str(tmp_path))
    assert not report.usable
    assert "1 of the 10 images that" in told(report)
    assert "woven/3.jpg" in told(report)
    (tmp_path / "dtd" / SPLIT_FILE).write_text("{")
    assert "is not readable as JSON" in told(check("dtd", str(tmp_path)))


def test_broken_images_are_named_when_they_are_opened(tmp_path):
    write_dtd(tmp_path)
    write_split(tmp_path)
    victim = tmp_path / "dtd" / "images" / "woven" / "4.jpg"
    victim.write_bytes(victim.read_bytes()[:200])
    assert check("dtd", str(tmp_path)).usable
    report = check("dtd", str(tmp_path), images=True)
    assert not report.usable
    assert [str(victim) in line for line in report.lines if line.startswith("broken")] == [True]


def test_generated_sets_need_nothing(tmp_path):
    assert check("digits", str(tmp_path)).usable
    assert list(tmp_path.iterdir()) == []


def test_folder_of_ones_own_is_checked_and_nothing_written(tmp_path):
    write_dtd(tmp_path)
    before = sorted(tmp_path.rglob("*"))
    report = check("folder", str(tmp_path), folder="dtd/images")
    assert report.usable
    assert "split     2 classes, 10 train, 4 val, 6 test" in report.lines
    assert "no " + str(tmp_path / "folder") in told(check("folder", str(tmp_path)))
    assert sorted(tmp_path.rglob("*")) == before


@pytest.fixture
def birds(tmp_path):
    """Three classes of one's own."""
    for name in ("grey_owl", "kite", "Blue Tit"):
        (tmp_path / "birds" / name).mkdir(parents=True)
        for n in range(4):
            Image.new("RGB", (8, 8)).save(tmp_path / "birds" / name / f"{n}.png")
    return tmp_path


def test_classes_of_ones_own_folder_are_shown_as_clip_reads_them(birds):
    lines = check("folder", str(birds), folder="birds").lines
    at = next(n for n, line in enumerate(lines) if line.startswith("template"))
    assert lines[at].startswith("template  a photo of a {}., of methods")
    assert lines[at + 1 :] == [
        "base      Blue Tit  a photo of a blue tit . (7 tokens)",
        "base      grey owl  a photo of a grey owl . (7 tokens)",
        "new       kite      a photo of a kite . (6 tokens)",
    ]


def test_base_classes_are_chosen(birds, capsys):
    def call(*arguments):
        try:
            main(["choose", "--root", str(birds), "--folder", *arguments])
        except SystemExit as stopped:
            return stopped.code, capsys.readouterr().err
        return 0, capsys.readouterr().out

    assert call("birds", "--base", "kite,grey owl")[0] == 0
    lines = check("folder", str(birds), folder="birds").lines
    assert [line.split("  ")[0] + " " + line[10:18].strip() for line in lines[-3:]] == [
        "base kite",
        "base grey owl",
        "new Blue Tit",
    ]
    file = birds / "birds/classnames.txt"
    assert file.read_text() == "kite\tkite\ngrey_owl\tgrey owl\nBlue Tit\tBlue Tit\n"
    for arguments, message in (
        (("birds",), "is there already: edit it"),
        (("birds", "--base", "kite"), "must name 2 of the 3 classes"),
        (("birds", "--base", "kite,eagle"), "names 'eagle', which is none of"),
        (("nowhere",), "there is no folder"),
    ):
        code, told = call(*arguments)
        assert code == 2
        assert message in told
    (birds / "birds/split.json").write_text("{}")
    assert "remove it first" in call("birds", "--base", "kite,grey owl")[1]


def test_folder_under_a_name_of_its_own(tmp_path, monkeypatch):
    write_dtd(tmp_path)
    os.rename(tmp_path / "dtd" / "images", tmp_path / "birds")
    (tmp_path / "my_birds.yaml").write_text('DATASET:\n  NAME: "Folder"\n  FOLDER: "birds"\n')
    monkeypatch.setattr(module, "CONFIGS", tmp_path)
    assert check("my_birds", str(tmp_path)).usable
    assert public_names() == []


def test_page_on_data_has_the_numbers_and_names_of_the_table():
    page = ROOT.joinpath("docs", "data.md").read_text()
    for name, source in SOURCES.items():
        counts = [f"{count:,}" for count in source.published if count is not None]
        pattern = r"\| " + r" \|(?:.*\|)? ".join(map(re.escape, counts)) + r" \|"
        assert re.search(pattern, page), name
        assert f"`{name}`" in page
        assert reader_of(name).dataset_dir + "/" in page


def test_exit_status_and_root(tmp_path, capsys, monkeypatch):
    write_dtd(tmp_path)
    assert status("check", "dtd", "--root", tmp_path) == 0
    assert status("check", "dtd", "digits", "eurosat", "--root", tmp_path) == 1
    out = capsys.readouterr().out
    assert [line for line in out.splitlines() if not line.startswith(" ")][-3:] == [
        "dtd: usable",
        "digits: usable",
        "eurosat: NOT USABLE",
    ]
    assert status("check", "nosuch", "--root", tmp_path) == 2
    assert "a data set must be one of backgrounds, caltech101, " in capsys.readouterr().err
    monkeypatch.setenv("DATA", str(tmp_path))
    assert status("check", "dtd") == 0
    assert status("check", "all") == 1
    assert capsys.readouterr().out.count("USABLE") == len(SOURCES) - 1


# ---- prepare


DTD_ARCHIVE = {f"dtd/images/{name}/{index}.jpg": b"x" for name in ("banded", "woven") for index in range(10)}
DTD_ARCHIVE.update({"dtd/imdb/imdb.mat": b"x", "dtd/labels/train1.txt": b"x"})


@pytest.fixture
def archives(tmp_path, without_checksums):
    folder = tmp_path / "downloads"
    folder.mkdir()
    return folder


@pytest.fixture
def root(tmp_path):
    return tmp_path / "data"


@pytest.mark.parametrize(
    "name",
    [
        pytest.param(name, marks=names_of_flowers if name == "oxford_flowers" else ())
        for name in SOURCES
        if name != "imagenet"
    ],
)
def test_every_set_comes_out_of_its_archives_as_its_reader_wants_it(name, tmp_path, root, archives):
    getattr(trees, name)(tmp_path / "made")
    made, place = (folder / reader_of(name).dataset_dir for folder in (tmp_path / "made", root))
    content = tree(made)
    before = check(name, str(tmp_path / "made"))
    assert before.usable
    assert tree(made) == content  # a check writes nothing
    for archive in SOURCES[name].archives:
        members = {
            source + path[len(target) :]: data
            for source, target in archive.parts.items()
            for path, data in content.items()
            if path == target or path.startswith(f"{target}/")
        }
        if archive.holder:
            path = write_archive(tmp_path / archive.file, members)
            write_archive(archives / archive.holder.file, {archive.member: Path(path).read_bytes()})
        elif archive.parts:
            write_archive(archives / archive.file, {"other/README": b"x", **members})
        else:
            (archives / archive.file).write_bytes(content[archive.file])
    if "classnames.txt" in content:
        (archives / "classnames.txt").write_bytes(content["classnames.txt"])
    report = prepare(name, str(root), str(archives))
    assert report.usable
    assert told(report).replace(str(root), "") == told(before).replace(str(tmp_path / "made"), "")
    there = tree(place)
    there.pop("cat_to_name.json", None)
    assert there == {path: content[path] for path in there}
    assert prepare(name, str(root), str(tmp_path / "nothing")) == report


def test_imagenet_by_hand(tmp_path):
    trees.imagenet(tmp_path)
    report = prepare("imagenet", str(tmp_path), str(tmp_path / "archives"))
    assert report.usable
    assert "differs   7 classes where 1,000 are published" in told(report)


def test_prepare_from_an_archive_then_nothing_more_to_do(root, archives, capsys):
    archive = write_archive(archives / "dtd-r1.0.1.tar.gz", DTD_ARCHIVE)
    assert prepare("dtd", str(root), str(archives)).usable
    assert "Unpacked images into" in capsys.readouterr().out
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    assert sorted(path.name for path in (root / "dtd").iterdir()) == ["images"]
    os.remove(archive)
    assert prepare("dtd", str(root), str(archives)).usable
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_prepare_downloads_what_is_not_there(root, archives, monkeypatch):
    server = Server()
    threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True).start()
    with open(write_archive(archives / "source.tgz", DTD_ARCHIVE), "rb") as file:
        server.content = file.read()
    archive = SOURCES["dtd"].archives[0]._replace(url=server.url)
    monkeypatch.setitem(SOURCES, "dtd", SOURCES["dtd"]._replace(archives=(archive,)))
    try:
        assert prepare("dtd", str(root), str(root / "archives")).usable
    finally:
        server.shutdown()
        server.server_close()
    assert (root / "archives" / "dtd-r1.0.1.tar.gz").read_bytes() == server.content


def test_archive_with_another_checksum_is_not_unpacked(tmp_path, root):
    write_archive(tmp_path / "dtd-r1.0.1.tar.gz", DTD_ARCHIVE)
    with pytest.raises(ValueError, match=r"dtd-r1\.0\.1\.tar\.gz must have the MD5 checksum"):
        prepare("dtd", str(root), str(tmp_path))
    assert not root.joinpath("dtd").exists()


def test_split_file_is_taken_from_the_archives(root, archives):
    write_dtd(root)
    write_split(root)
    os.rename(root / "dtd" / SPLIT_FILE, archives / SPLIT_FILE)
    assert "differs" in told(prepare("dtd", str(root), str(archives)))
    assert (root / "dtd" / SPLIT_FILE).is_file()


def test_archive_in_an_archive(root, archives):
    inner = {f"101_ObjectCategories/{name}/{i}.jpg": b"x" for name in ("ant", "Faces_easy", "crab") for i in range(10)}
    path = write_archive(archives / "101_ObjectCategories.tar.gz", inner)
    with open(path, "rb") as file:
        content = {"caltech-101/101_ObjectCategories.tar.gz": file.read(), "caltech-101/Annotations.tar": b"x"}
    os.remove(path)
    write_archive(archives / "caltech-101.zip", content)
    report = prepare("caltech101", str(root), str(archives))
    assert report.usable
    assert "2 classes, 10 train" in told(report)
    assert sorted(p.name for p in (root / "caltech-101" / "101_ObjectCategories").iterdir()) == [
        "Faces_easy",
        "ant",
        "crab",
    ]


def test_images_and_annotations_come_from_two_archives(root, archives):
    names = [f"{breed}_{i}" for breed in ("Bengal", "beagle") for i in range(10)]
    write_archive(archives / "images.tar.gz", {f"images/{name}.jpg": b"x" for name in names})
    lists = {
        part: "".join(
            f"{name} {1 if name[0] == 'B' else 2} 1 1\n" for name in names if (name[-1] < "5") == (part == "test")
        )
        for part in ("test", "trainval")
    }
    write_archive(
        archives / "annotations.tar.gz",
        {**{f"annotations/{part}.txt": text.encode() for part, text in lists.items()}, "annotations/._test.txt": b"x"},
    )
    report = prepare("oxford_pets", str(root), str(archives))
    assert report.usable
    assert "2 classes, 8 train, 2 val, 10 test" in told(report)
    assert "annotations/._test.txt" not in tree(root / "oxford_pets")


@names_of_flowers
def test_names_of_the_flowers_are_written(root, archives):
    write_archive(archives / "102flowers.tgz", {"jpg/image_00001.jpg": b"x"})
    (archives / "imagelabels.mat").write_bytes(b"not a MATLAB file")
    report = prepare("oxford_flowers", str(root), str(archives))
    assert "cannot be read as a MATLAB file" in told(report)
    assert "move what is incomplete in" in told(report)
    names = json.loads((root / "oxford_flowers" / "cat_to_name.json").read_text())
    assert (len(names), names["1"], names["21"]) == (102, "pink primrose", "fire lily")


def test_variant_takes_imagenets_class_names(root, archives):
    (root / "imagenet").mkdir(parents=True)
    (root / "imagenet" / "classnames.txt").write_text("n01 tench\nn02 shark\n")
    write_archive(archives / "ImageNet-Sketch.zip", {"sketch/n01/a.JPEG": b"x", "sketch/n02/b.JPEG": b"x"})
    report = prepare("imagenet_sketch", str(root), str(archives))
    assert report.usable
    assert sorted(tree(root / "imagenet-sketch")) == ["classnames.txt", "images/n01/a.JPEG", "images/n02/b.JPEG"]


def test_official_lists_come_from_inside_the_archive(root, archives):
    data = {"variants.txt": "707-320\nA380\n"}
    for number, part in enumerate(("train", "val", "test")):
        data[f"images_variant_{part}.txt"] = f"{number}0 707-320\n{number}1 A380\n"
    members = {f"fgvc-aircraft-2013b/data/{name}": text.encode() for name, text in data.items()}
    members.update({f"fgvc-aircraft-2013b/data/images/{n}{k}.jpg": b"x" for n in range(3) for k in range(2)})
    write_archive(archives / "fgvc-aircraft-2013b.tar.gz", {**members, "fgvc-aircraft-2013b/README": b"x"})
    report = prepare("fgvc_aircraft", str(root), str(archives))
    assert report.usable
    assert "2 classes, 2 train, 2 val, 2 test" in told(report)
    assert sorted(p.name for p in (root / "fgvc_aircraft").iterdir()) == ["images", *sorted(set(data))]


def test_what_must_be_got_by_hand_is_named_at_once(root, archives):
    (archives / "car_devkit.tgz").touch()
    write_archive(archives / "car_devkit.tgz", {"devkit/cars_meta.mat": b"x"})
    with pytest.raises(
        FileNotFoundError, match=r"cars_train\.tgz .* cars_test\.tgz .* cars_test_annos_withlabels"
    ) as raised:
        prepare("stanford_cars", str(root), str(archives))
    assert "car_devkit" not in str(raised.value)
    assert (root / "stanford_cars" / "devkit" / "cars_meta.mat").exists()
    with pytest.raises(FileNotFoundError, match=r"imagenet must be put into .* by hand: .* https://image-net\.org"):
        prepare("imagenet", str(root), str(archives))
    assert not (root / "imagenet").exists()


def test_set_with_its_split_file_needs_no_annotations(root, archives):
    write_dtd(root)
    os.rename(root / "dtd", root / "oxford_pets")
    split = {
        part: [[f"{n}/{i}.jpg", k, n] for k, n in enumerate(("banded", "woven"))]
        for i, part in enumerate(("train", "val", "test"))
    }
    (archives / "split_zhou_OxfordPets.json").write_text(json.dumps(split))
    assert prepare("oxford_pets", str(root), str(archives)).usable


def test_only_public_sets_are_prepared(root, archives):
    with pytest.raises(ValueError, match="folder is read as it is"):
        prepare("folder", str(root), str(archives))
    with pytest.raises(ValueError, match="written on first use"):
        prepare("digits", str(root), str(archives))


def test_two_calls_do_not_prepare_one_set(root, archives):
    with held(str(root / "dtd")), pytest.raises(OSError, match="another process is preparing"):
        prepare("dtd", str(root), str(archives))
    assert not (root / "dtd").exists()


def test_sets_are_prepared_one_after_the_other_whatever_happens(root, archives, capsys):
    write_archive(archives / "dtd-r1.0.1.tar.gz", DTD_ARCHIVE)
    assert status("prepare", "imagenet", "dtd", "--root", root, "--archives", archives) == 1
    out = capsys.readouterr().out
    assert "imagenet: NOT USABLE\n  wrong     imagenet must be put into" in out
    assert "dtd: usable" in out
    assert status("prepare", "dtd", "--root", root, "--archives", archives) == 0
