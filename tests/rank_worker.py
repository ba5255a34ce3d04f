"""What tests/trainers/test_ranks.py runs on several processes, and on one: short trainings by all trainers.

    python rank_worker.py DATA CLIP FOLDER [--resumed]                         one process; the case RESUMED alone
    torchrun --nproc_per_node N rank_worker.py DATA CLIP FOLDER [--fail | --differ]

PYTHONPATH is the checkout and its tests. The first process writes FOLDER/<number of processes>.pt: of each case the
trained state and the metrics.
"""

from __future__ import annotations

import io
import os
import sys
from contextlib import redirect_stdout, suppress
from pathlib import Path
from tempfile import mkdtemp

import compat  # noqa: F401  makes `import dassl` work

import torch
import torch.distributed as dist
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

import train
from helpers import ROOT, SIZE, results_of
from trainers.modules import ranks

CDC = "TRAINER.CDC."
TWO_VIEWS = (CDC + "AUGMENTATIONS", "[['random_resized_crop', 'normalize'], ['normalize']]", CDC + "N_TEMPLATES", "2")
TEXT = (*TWO_VIEWS, CDC + "CTX_INIT", "['a photo of a', 'one picture of a']")
DEEP = (*TWO_VIEWS, CDC + "PROMPT_DEPTH", "2")
# trainer, config, options
CASES = {
    "CDC": ("CDC", "tiny", DEEP),
    "CDC in one pass": ("CDC", "tiny", (*DEEP, CDC + "FUSED_LOSS", "True")),
    "CDC independent": ("CDC", "tiny", (*DEEP, CDC + "PROMPT", "independent")),
    "CDC self-regulated": ("CDC", "tiny", (*DEEP, CDC + "SELF_REGULATION.ENABLED", "True")),
    "CDC text": ("CDC", "tiny_text", TEXT),
    "CDC invariant": ("CDC", "tiny_text", (*TEXT, CDC + "INVARIANT_MAP.ENABLED", "True")),
    "CDC bank": ("CDC", "tiny_text", (*TEXT, CDC + "FEATURE_BANK", "2")),
    "CoOp": ("CoOp", "tiny", ()),
    "CoOp CSC": ("CoOp", "tiny", ("TRAINER.COOP.CSC", "True", "TRAINER.COOP.CTX_INIT", "")),
    "CoCoOp": ("CoCoOp", "tiny", ("DATALOADER.TRAIN_X.BATCH_SIZE", "1")),
    "KgCoOp": ("KgCoOp", "tiny", ()),
    "MaPLe": ("MaPLe", "tiny", ("TRAINER.MAPLE.PROMPT_DEPTH", "2")),
    "TCP": ("TCP", "tiny", ("TRAINER.TCP.LAYER", "2")),
    "PromptSRC": ("PromptSRC", "tiny", ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", "2")),
    # Its own AdamW takes the same step for a gradient of any length.
    "MMRL": ("MMRL", "tiny", ("TRAINER.MMRL.REP_LAYERS", "[2]", "OPTIM.NAME", "sgd")),
    "CLIPICM": ("CLIPICM", "tiny", ()),
    "CLIPICM probe": ("CLIPICM", "tiny", ("TRAINER.CLIPICM.PREDICTION", "probe")),
    "ZeroshotCLIP": ("ZeroshotCLIP", "tiny", ()),
    "ZeroshotCLIP2": ("ZeroshotCLIP2", "tiny", ()),
    "no seed": ("CoOp", "tiny", ("SEED", "-1", "TRAINER.COOP.CTX_INIT", "")),
}
# What two processes run, besides three and one
AGAIN = ("CDC", "CDC bank", "CoOp", "CoCoOp", "MMRL", "no seed")
RESUMED = ("MaPLe", "tiny", ("TRAINER.MAPLE.PROMPT_DEPTH", "2", "OPTIM.MAX_EPOCH", "3"))
# The small CLIP of the tests makes much of a rounding: at the usual learning rates, 1e-7 in a step is 1e-5 after forty.
OPTIONS = ("OPTIM.MAX_EPOCH", "2", "OPTIM.LR", "0.001", "DATASET.NUM_SHOTS", "4", "DATASET.SUBSAMPLE_CLASSES", "all")
OPTIONS += ("DATALOADER.NUM_WORKERS", "0", "DATALOADER.TRAIN_X.BATCH_SIZE", "7", "INPUT.SIZE", f"({SIZE}, {SIZE})")


class Cut(Exception):
    """The training ends here."""


def build(case, data: str, clip: str, output: Path):
    name, config, options = case
    arguments = ["--root", data, "--backbone", clip, "--trainer", name, "--output-dir", str(output), "--seed", "1"]
    arguments += ["--dataset-config-file", str(ROOT / "configs/datasets/dtd.yaml")]
    arguments += ["--config-file", str(ROOT / f"configs/trainers/{name}/{config}.yaml"), *OPTIONS]
    given = dict(zip(options[::2], options[1::2]))
    kept = {key: value for key, value in zip(OPTIONS[::2], OPTIONS[1::2]) if key not in given}
    arguments = arguments[: -len(OPTIONS)] + [text for pair in {**kept, **given}.items() for text in pair]
    cfg = train.setup_cfg(train.parse_arguments(arguments))
    # What a run without a seed draws is the same in all processes, and another each time.
    set_random_seed(cfg.SEED if cfg.SEED >= 0 else ranks.agree(torch.seed() % 2**32))
    return build_trainer(cfg)


def train_one(case, data: str, clip: str, output: Path) -> dict:
    trainer = build(case, data, clip, output)
    trainer.train()
    state = {name: value.clone() for name, value in trainer.trained_state().items()}
    if ranks.size() > 1:  # each process has the same, bit by bit
        everywhere: list = [None] * ranks.size()
        dist.all_gather_object(everywhere, {name: value.numpy().tobytes() for name, value in state.items()})
        if any(other != everywhere[0] for other in everywhere):
            raise RuntimeError("the processes have different parameters")
    return {"state": state, "figures": results_of(output)["figures"]}


def main(data: str, clip: str, folder: str, *flags: str) -> None:
    first = ranks.number() == 0
    top = Path(folder) if first else Path(mkdtemp())  # others write where nobody looks, as train.py has it
    many = ranks.size()
    # A run that three processes begin, two go on with and one ends.
    trainer = build(RESUMED, data, clip, top / "resumed")
    if many > 1:
        after_epoch = trainer.after_epoch

        def cut() -> None:
            after_epoch()
            raise Cut

        trainer.after_epoch = cut
    if "--fail" in flags and not first:
        trainer.after_epoch = lambda: os._exit(7)
    if "--differ" in flags and not first:
        torch.rand(1)
    with suppress(Cut):
        trainer.train()
    names = AGAIN if many == 2 else () if "--resumed" in flags else CASES
    found = {name: train_one(CASES[name], data, clip, top / f"{many}" / name) for name in names}
    if first:
        found["resumed"] = {"state": dict(trainer.trained_state()), "start": trainer.start_epoch}
        torch.save(found, top / f"{many}.pt")


if __name__ == "__main__":
    with ranks.joined(on_gpu=False), redirect_stdout(io.StringIO()):
        main(*sys.argv[1:])
