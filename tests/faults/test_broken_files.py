"""Files that are broken, or made to do harm: each is told in a ValueError or OSError, soon, and nothing in it runs.

Good files of every kind are cut, overwritten, put out of order and changed in their values, and others take their
place: web pages, other formats, deep nesting, pickles that would make a file.
"""

from __future__ import annotations

import gzip
import io
import itertools
import json
import os
import pickle
import random
import re
import shutil
import signal
import zipfile
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
import torch
from dassl.utils import read_image
from PIL import Image
from torch.utils.tensorboard import SummaryWriter

import train
from datasets.pickles import read_pickled
from datasets.splits import read_split
from helpers import save_harmful_archive
from storage.ownership import own_folder
from tools.common.layout import Place
from tools.data.archives import unpack
from tools.dropin import read_manifest
from tools.predict.predictor import read_class_names
from tools.predict.trained import read_run, restore_cfg
from tools.report.gather import gather
from tools.results.runs import read_logs, read_results
from trainers.feature_bank import _read as read_bank
from trainers.modules.calibration_file import read_calibration, write_calibration
from trainers.modules.checkpoints import read_checkpoint
from trainers.modules.loading import load_clip
from trainers.modules.open_clip_models import _from_repository, config_problems
from trainers.modules.predictions import read_predictions
from trainers.modules.sharing import read_shared, write_shared
from trainers.modules.tensorboard_events import drop_events
from trees import write_archive

SECONDS = 30  # that reading a file may take, on a machine with much else to do
MANY = "1" + "0" * 400
VALUES = ("-1", "1e400", "NaN", MANY, '"x"', "null", "[]", "{}", "true", "-0.5", "1e-320", '"\\u0000"')
# What earlier campaigns found, tried each time
FOUND = {
    "log": [
        f"SEED: 1\nEvaluate on the *test* set\n=> result\n* total: 2\n* correct: {MANY}\n* accuracy: 5%\n".encode()
    ],
    "feature bank": [b"PK\x03\x04", b"\x93NUMPY\x01\x00\x10\x00{'descr': ('<f4',\n"],
    "config": [f"OPTIM:\n  LR: {MANY}\n".encode()],
}
BANK = (1, 8, 48)  # views, images, width


class TooLong(BaseException):
    """Reading a file takes too long."""


class Trap:
    """Makes a file as soon as it is unpickled."""

    def __init__(self, path):
        self.path = str(path)

    def __reduce__(self):
        return open, (self.path, "w")


@contextmanager
def time_limit(seconds):
    def stop(*_):
        raise TooLong

    before = signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)
        signal.signal(signal.SIGALRM, before)


def read_config(path):
    train.setup_cfg(train.parse_arguments(["--trainer", "CDC", "--config-file", str(path)]))


def read_run_of(path):
    """results.json as predict and the tables read it."""
    restore_cfg(read_run(path.parent))
    read_results(path)


def unpack_to(path):
    """Also sees that nothing is written outside."""
    folder = path.parent / "set"
    shutil.rmtree(folder, ignore_errors=True)
    around = sorted(path.parent.iterdir())
    try:
        unpack(str(path), {"dtd": "dtd"}, str(folder), images=100)
    finally:
        assert sorted(set(path.parent.iterdir()) - {folder}) == around


def own(path):
    with own_folder(path.parent):
        pass


def report(path):
    """results.json of a run as the report reads it, with its predictions.npz."""
    gather([path.parents[7]], pictures=0)


def read_open_clip(path):
    """The config of a folder with an open_clip model."""
    (path.parent / "open_clip_model.safetensors").touch()
    config, _, _ = _from_repository("local-dir:x", f"local-dir:{path.parent}")
    problems = config_problems(config)
    if problems:
        raise ValueError("; ".join(problems))


# What a calibration was fitted to
CALIBRATED = {
    "trainer": "CoOp",
    "epoch": 1,
    "trained_sha256": "0" * 64,
    "backbone_sha256": "1" * 64,
    "options": {"A": 1},
}
RUN = Place("train_base", "dtd", 16, "CDC", "x", 1).folder
# By kind of file: its name, and its reader
READERS = {
    "checkpoint": ("model.pth.tar-1", read_checkpoint),
    "CLIP": ("clip.pt", lambda path: load_clip(str(path))),
    "CLIP, compressed": ("clip.pt.gz", lambda path: load_clip(str(path))),
    "shared prompts": ("prompts.safetensors", read_shared),
    "open_clip config": ("open_clip_config.json", read_open_clip),
    "TorchScript": ("archive.pt", lambda path: load_clip(str(path))),
    "results.json": ("results.json", read_run_of),
    "results.json, for the report": (f"output/{RUN}/results.json", report),
    "calibration.json": ("calibration.json", lambda path: read_calibration(path, CALIBRATED)),
    "predictions.npz": ("predictions.npz", read_predictions),
    "TensorBoard's log": ("events.out.tfevents.1", lambda path: drop_events(path.parent, 3, 1)),
    "log": ("log.txt", lambda path: read_logs(path.parent)),
    "feature bank": ("bank.npy", lambda path: read_bank(path, BANK)),
    "split": ("split.json", lambda path: read_split(str(path))),
    "few-shot pickle": ("shot_2-seed_1.pkl", lambda path: read_pickled(str(path), "dtd/images")),
    "class names": ("names.txt", lambda path: read_class_names(str(path))),
    "config": ("config.yaml", read_config),
    "owner": (".owner", own),
    "manifest of the drop-in": ("manifest.json", read_manifest),
    "PNG": ("x.png", lambda path: read_image(str(path))),
    "JPEG": ("x.jpg", lambda path: read_image(str(path))),
    "tar": ("x.tar", unpack_to),
    "tar, compressed": ("x.tgz", unpack_to),
    "zip": ("x.zip", unpack_to),
}


@pytest.fixture(scope="module")
def good(tmp_path_factory, clip_files):
    """The content of a good file of each kind."""
    folder = tmp_path_factory.mktemp("good")
    checkpoint = {
        "state_dict": {"ctx": torch.randn(2, 4, 64)},
        "epoch": 1,
        "class_names": ["red", "blue"],
        "optimizer": {"state": {0: {"momentum_buffer": torch.randn(2, 4, 64)}}, "param_groups": [{"lr": 0.1}]},
    }
    torch.save(checkpoint, folder / "model.pth.tar-1")
    np.save(folder / "bank.npy", np.eye(8, 48, dtype=np.float32)[None])
    arrays = {
        "impath": np.array(["a.png", "b.png"]),
        "label": np.array([0, 1]),
        "prediction": np.array([0, 0]),
        "confidence": np.array([0.5, 0.6]),
        "log_probability": np.array([-0.1, -2.0]),
        "entropy": np.array([0.1, 0.2]),
    }
    np.savez(folder / "predictions.npz", **arrays)
    config = json.loads(json.dumps(train.setup_cfg(train.parse_arguments(["--trainer", "CDC"]))))
    results = {"config": config, "class_names": ["red", "blue"], "epoch": 1, "figures": {"accuracy": 50.0}}
    results.update(trainer="CDC", dataset="DescribableTextures", seed=1, shots=2, classes="all", images=2)
    results.update(train_seconds=1.5, test_seconds=0.5, trained_values=512, peak_memory_bytes=1000)
    (folder / "results.json").write_text(json.dumps(results))
    judged = {"wrong": [0, 1], "scores": {"confidence": [0.1, 0.5]}}
    states = {"figures": {"nll": 1.5}, "best_score": "confidence", "images": judged}
    fitted = {"values": {"temperature": 1.5}, "at_bound": [], "fitted_on": {"what": "validation", "images": 2}}
    fitted.update({key: {"before": value, "after": value} for key, value in states.items()})
    write_calibration(folder, {**CALIBRATED, **fitted})
    (folder / "log.txt").write_text(
        "** Config **\nSEED: 1\nEvaluate on the *test* set\n=> result\n* total: 2\n* correct: 1\n* accuracy: 50.0%\n"
    )
    items = [[f"{name}/{n}.png", label, name] for label, name in enumerate(("red", "blue")) for n in range(4)]
    (folder / "split.json").write_text(json.dumps({"train": items, "val": items[:2], "test": items}))
    (folder / "shot_2-seed_1.pkl").write_bytes(pickle.dumps({"train": [], "val": []}))
    (folder / "names.txt").write_text("red\nblue\n")
    (folder / "config.yaml").write_text("OPTIM:\n  LR: 0.002\n  MAX_EPOCH: 5\nTRAINER:\n  CDC:\n    BETA: 0.5\n")
    about = {"trainer": "CDC", "config": config, "class_names": ["red", "blue"], "epoch": 1, "figures": {}}
    write_shared(folder / "prompts.safetensors", checkpoint["state_dict"], {**about, "backbone_sha256": "0" * 64})
    sizes = {"width": 64, "layers": 2}
    vision, text = {**sizes, "image_size": 32, "patch_size": 8}, {**sizes, "context_length": 77, "vocab_size": 49408}
    model = {"embed_dim": 48, "vision_cfg": vision, "text_cfg": {**text, "heads": 1}}
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": model}))
    ours = {"files": {"trainers/cdc.py": ["0" * 64]}, "folders": ["trainers/modules"], "line": True}
    (folder / "manifest.json").write_text(json.dumps(ours))
    with SummaryWriter(folder) as writer:
        for step in range(4):
            writer.add_scalar("train/loss", 0.5, step)
    (events,) = folder.glob("events*")
    events.rename(folder / "events.out.tfevents.1")
    for name in ("x.png", "x.jpg"):
        Image.effect_noise((40, 30), 50).convert("RGB").save(folder / name)
    with own_folder(folder):
        (folder / "owner").write_bytes((folder / ".owner").read_bytes())
    os.rename(folder / "owner", folder / ".owner")
    members = {f"dtd/{n}.png": random.Random(n).randbytes(1000) for n in range(4)}
    for name in ("x.tar", "x.tgz", "x.zip"):
        write_archive(folder / name, members)
    for name, key in (("clip.pt", "plain"), ("clip.pt.gz", "gzip"), ("archive.pt", "archive")):
        shutil.copy(clip_files[key], folder / name)
    return {kind: (folder / Path(name).name).read_bytes() for kind, (name, _) in READERS.items()}


def changed(content: bytes, chance: random.Random) -> bytes:
    """A file's content with one kind of damage at a random place."""
    place, end = sorted(chance.randrange(len(content) + 1) for _ in range(2))
    end = min(end, place + 4000)
    block = content[place:end]
    text = content.decode("latin-1")
    numbers = list(re.finditer(r"-?\d+(\.\d+)?|\"[^\"]*\"", text[:100_000])) if content[:1] in b"{[*OS" else []
    ways = ["cut", "flip", "noise", "zeros", "twice", "lost", "moved"] + ["value"] * (5 if numbers else 0)
    way = chance.choice(ways)
    if way == "value":
        found = chance.choice(numbers)
        return f"{text[: found.start()]}{chance.choice(VALUES)}{text[found.end() :]}".encode("latin-1")
    if way == "flip":
        flipped = bytearray(content)
        for _ in range(chance.randint(1, 8)):
            flipped[chance.randrange(len(content))] ^= 1 << chance.randrange(8)
        return bytes(flipped)
    return {
        "cut": content[:place],
        "noise": content[:place] + chance.randbytes(len(block)) + content[end:],
        "zeros": content[:place] + bytes(len(block)) + content[end:],
        "twice": content[:end] + block + content[end:],
        "lost": content[:place] + content[end:],
        "moved": content[end:] + content[:end],
    }[way]


@pytest.fixture(scope="module")
def strangers(tmp_path_factory):
    """Contents that are no file of any of these kinds, and the file that some of them would make."""
    folder = tmp_path_factory.mktemp("strangers")
    trap = folder / "trap"
    pickles = [pickle.dumps({"state_dict": Trap(trap)}, protocol) for protocol in range(5)]
    saved, archive, arrays, zipped = io.BytesIO(), folder / "harmful.pt", io.BytesIO(), io.BytesIO()
    torch.save({"state_dict": {"ctx": Trap(trap)}, "epoch": 1}, saved)
    save_harmful_archive(archive, trap)
    np.save(arrays, np.array([Trap(trap)], dtype=object), allow_pickle=True)
    with zipfile.ZipFile(zipped, "w") as file:
        for name in ("archive/data.pkl", "label.npy", "dtd/data.pkl"):
            file.writestr(name, pickles[2])
    deep = 100_000
    contents = [
        *pickles,
        *(saved.getvalue(), archive.read_bytes(), arrays.getvalue(), zipped.getvalue()),
        *(gzip.compress(pickles[2]), gzip.compress(bytes(1 << 28), 9)),
        *(b"", b"\x00", b"\x00" * 5000, b"\xff\xfe", b"<!DOCTYPE html><html></html>", b"PK\x03\x04", b"\x1f\x8b\x08"),
        *(b"[" * deep, b'{"a":' * deep, b"a: " * deep, b"[[" * deep + b"]]" * deep, b"- " * deep, b"(" * deep),
        *(
            b"null",
            b"1e400",
            b"-1",
            b'{"config": 1e400, "class_names": [], "epoch": -1}',
            b'"\\ud800"',
            b"{" + b"1" * deep,
        ),
        *(
            f"!!python/object/apply:builtins.open ['{trap}', w]".encode(),
            b"&a [*a, *a]",
            b"\xef\xbb\xbfred\n",
            b"%PDF-1.4",
        ),
        *(random.Random(n).randbytes(3000) for n in range(5)),
    ]
    return contents, trap


@pytest.mark.parametrize("kind", READERS)
def test_broken_files(kind, good, strangers, tally, full, in_time, tmp_path):
    name, read = READERS[kind]
    path = tmp_path / "there" / name
    path.parent.mkdir(parents=True)
    path.write_bytes(good[kind])
    if kind != "owner":
        read(path)  # a good one
    contents, trap = strangers
    chance = random.Random(kind)
    broken = (changed(good[kind], chance) for _ in range(200 if full else 5))
    refused = 0
    others = [*FOUND.get(kind, []), *(contents if full else chance.sample(contents, 4))]
    for content in in_time(itertools.chain(others, broken)):
        path.write_bytes(content)
        try:
            with time_limit(SECONDS):
                read(path)
        except (ValueError, OSError):
            refused += 1
        except (TooLong, Exception) as error:
            kept = os.environ.get("FAULTS_KEEP")
            if kept:
                Path(kept, name).write_bytes(content)
            pytest.fail(f"{kind}: {type(error).__name__}: {error!s:.200} for {content[:60]!r} ({len(content):,} bytes)")
        assert not trap.exists()
        tally["files"][kind] += 1
    # nearly all texts are some of these; and of TensorBoard's log whatever is whole is kept
    assert refused or kind in ("log", "class names", "TensorBoard's log")
