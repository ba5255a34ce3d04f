"""Fixtures: a small CLIP with random weights, and its file in OpenAI's two formats."""

from __future__ import annotations

import shutil
import signal
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work

import numpy as np
import pytest
import torch
from dassl.engine import build_trainer
from dassl.utils import set_random_seed
from PIL import Image

import train
from helpers import COLOURS, ROOT, RUNS, SIZE, Run, random_clip, save_archive
from suite import pytest_terminal_summary  # noqa: F401  a row for docs/compatibility.md
from trainers.modules import loading  # noqa: F401  imports clip without its warning

# Warnings of calls that others make in code of their own.
OTHERS_WARNINGS = (
    # Python 3.12 and newer, of the workers that PyTorch's data loaders fork
    "ignore:This process .* is multi-threaded, use of fork:DeprecationWarning:multiprocessing[.]popen_fork",
    # matplotlib 3.6 beside pyparsing 3.3
    "ignore::DeprecationWarning:matplotlib[.](_?fontconfig_pattern|_mathtext)",
    # matplotlib 3.9 beside pyparsing 3.3, which takes the call for one of its own
    "ignore:'parseAll' argument is deprecated:DeprecationWarning:pyparsing[.]util",
    # Ray for Python 3.9
    "ignore:Tip. In future versions of Ray:FutureWarning:ray[.]_private[.]worker",
    # PyTorch 2.0
    "ignore:distutils Version classes are deprecated:DeprecationWarning:torch[.]utils[.]tensorboard",
)


def pytest_configure(config):
    """For imports, while tests are collected."""
    for warning in OTHERS_WARNINGS:
        config.addinivalue_line("filterwarnings", warning)


def pytest_collection_modifyitems(items):
    """As marks, since `-W error` on the command line has precedence over the config."""
    for item in items:
        for warning in OTHERS_WARNINGS:
            item.add_marker(pytest.mark.filterwarnings(warning))


@pytest.fixture(autouse=True)
def interrupted_as_in_the_foreground():
    """Ctrl-C as Python has it; a shell that starts the tests in the background has it ignored."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    yield
    signal.signal(signal.SIGINT, before)


@pytest.fixture(autouse=True)
def seeded():
    """The same numbers in a test whatever tests ran before it."""
    torch.manual_seed(0)


@pytest.fixture(scope="session")
def small_clip():
    torch.manual_seed(0)
    return random_clip()


@pytest.fixture(scope="session")
def clip_files(small_clip, tmp_path_factory):
    """The small CLIP as a state dict, a gzip-compressed one, and a TorchScript archive."""
    import gzip

    folder = tmp_path_factory.mktemp("clip")
    files = {"plain": folder / "small.pt", "gzip": folder / "small.pt.gz", "archive": folder / "archive.pt"}
    torch.save(small_clip.state_dict(), files["plain"])
    files["gzip"].write_bytes(gzip.compress(files["plain"].read_bytes(), compresslevel=1))
    save_archive(small_clip, files["archive"])
    return files


@pytest.fixture(scope="session")
def other_clip(small_clip, tmp_path_factory):
    """A file with the small CLIP's shapes and other weights."""
    state = {name: tensor.clone() for name, tensor in small_clip.state_dict().items()}
    state["visual.proj"] += 1
    path = tmp_path_factory.mktemp("other") / "other.pt"
    torch.save(state, path)
    return path


@pytest.fixture(scope="session")
def data(tmp_path_factory):
    """Four classes of ten noisy pictures in DTD's layout."""
    root = tmp_path_factory.mktemp("data")
    rng = np.random.default_rng(0)
    for name, colour in COLOURS.items():
        folder = root / "dtd" / "images" / name
        folder.mkdir(parents=True)
        for n in range(10):
            pixels = np.clip(np.array(colour) + rng.normal(0, 20, (36, 40, 3)), 0, 255)
            Image.fromarray(pixels.astype(np.uint8)).save(folder / f"{name}_{n:04d}.jpg")
    return root


# What a cut run must see again; CDC's views are in its own options.
WITH_RANDOM_VIEWS = ("CoOp", "CoCoOp", "KgCoOp", "MaPLe", "TCP", "PromptSRC", "MMRL")
RANDOM_VIEWS = {"INPUT.TRANSFORMS": ["random_resized_crop", "normalize"], "INPUT.RRCROP_SCALE": (0.5, 1.0)}


@pytest.fixture
def build_run(data, clip_files):
    """A trainer as the command line makes it of a config file, without the log file that it makes of stdout.

    CDC has text-only templates unless its config is named. `root` is the folder of the configs.
    """

    def make(trainer, output, *opts, backbone=clip_files["plain"], config="", flags=(), root=ROOT):
        config = config or ("tiny_text" if trainer == "CDC" else "tiny")
        given = {
            "OPTIM.MAX_EPOCH": 3,
            "OPTIM.LR": 0.1,
            "DATASET.NUM_SHOTS": 4,
            "DATASET.SUBSAMPLE_CLASSES": "base",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
            "INPUT.SIZE": (SIZE, SIZE),
            "VERBOSE": False,
            **(RANDOM_VIEWS if trainer in WITH_RANDOM_VIEWS else {}),
            **dict(zip(opts[::2], opts[1::2])),
        }
        arguments = train.parse_arguments(
            ["--root", str(data), "--trainer", trainer, "--output-dir", str(output), "--seed", "1", *flags]
            + ["--backbone", str(backbone)]
            + ["--dataset-config-file", str(root / "configs/datasets/dtd.yaml")]
            + ["--config-file", str(root / f"configs/trainers/{trainer}/{config}.yaml")]
            + [str(x) for pair in given.items() for x in pair]
        )
        cfg = train.setup_cfg(arguments)
        set_random_seed(cfg.SEED)
        return build_trainer(cfg)

    return make


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    return tmp_path_factory.mktemp("runs"), {}


@pytest.fixture
def run_of(kept, data, build_run):
    """Trains and tests a run of `RUNS` once, on a data folder of its own that is gone afterwards."""
    top, runs = kept

    def make(name):
        if name not in runs:
            trainer_name, config, options = RUNS[name]
            folder, source, moved = (top / name / part for part in ("run", "data", "images"))
            shutil.copytree(data, source)
            options = ("DATASET.ROOT", source, "OPTIM.MAX_EPOCH", 2, *options)
            trainer = build_run(trainer_name, folder, *options, config=config)
            scores, process = [], trainer.evaluator.process
            trainer.evaluator.process = lambda mo, gt: (scores.append(mo.clone()), process(mo, gt))
            trainer.train()
            images = [item.impath for item in trainer.dm.dataset.test]
            source.rename(moved)
            images = [str(moved / Path(path).relative_to(source)) for path in images]
            runs[name] = Run(folder, images, torch.cat(scores))
        return runs[name]

    return make
