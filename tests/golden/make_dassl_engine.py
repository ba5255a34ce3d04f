"""Records what Dassl's engine, optimisers, schedules, evaluator and meters do, as golden numbers.

    python tests/golden/make_dassl_engine.py DASSL_CHECKOUT

writes ``dassl_engine.json`` beside this file. The checkout is imported from where it lies. The file in git was made
with PyTorch 2.0.1, which runs Dassl as it is; PyTorch 2.15, where ``compat`` mends it, gives the same numbers. The test
runs :func:`collect` on the embedded Dassl and compares.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import os
import random
import re
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import nn
from torch.nn import functional as F
from torch.utils.data import DataLoader, Dataset

SCHEDULES = {
    "single_step": {"LR_SCHEDULER": "single_step", "STEPSIZE": (5,)},
    "single_step over all epochs": {"LR_SCHEDULER": "single_step", "STEPSIZE": (-1,)},
    "multi_step": {"LR_SCHEDULER": "multi_step", "STEPSIZE": (4, 8)},
    "cosine": {"LR_SCHEDULER": "cosine"},
}
OPTIMISERS = {
    "adam": {"NAME": "adam"},
    "amsgrad": {"NAME": "amsgrad"},
    "sgd": {"NAME": "sgd"},
    "sgd with nesterov": {"NAME": "sgd", "SGD_NESTEROV": True},
    "sgd with dampening": {"NAME": "sgd", "SGD_DAMPNING": 0.5},
    "rmsprop": {"NAME": "rmsprop"},
    "radam": {"NAME": "radam"},
    "adamw": {"NAME": "adamw"},
}


def default_cfg(**changes: Any) -> Any:
    """Return Dassl's default configuration with keys such as ``OPTIM__LR`` changed."""
    from dassl.config import get_cfg_default

    cfg = get_cfg_default()
    cfg.USE_CUDA = False
    for key, value in changes.items():
        *path, last = key.split("__")
        node = cfg
        for part in path:
            node = node[part]
        node[last] = value
    return cfg


@contextlib.contextmanager
def printed(folder: str = "<none>") -> Any:
    """Give what is printed, the run's folder and everything measured by a clock masked, as a list of lines."""
    lines: list[str] = []
    text = io.StringIO()
    with contextlib.redirect_stdout(text), contextlib.redirect_stderr(io.StringIO()):
        yield lines
    masked = text.getvalue().replace(folder, "<out>")
    masked = re.sub(r"(time|data) \d+\.\d{3} \(\d+\.\d{3}\)", r"\1 <s> (<s>)", masked)
    masked = re.sub(r"(eta|Elapsed:) \d+:\d\d:\d\d", r"\1 <h:mm:ss>", masked)
    lines.extend(masked.split("\n"))


def learning_rates() -> dict[str, list[list[float]]]:
    """Return the learning rates of two parameter groups in 14 epochs (``MAX_EPOCH`` and two more) of every schedule."""
    from dassl.optim import build_lr_scheduler

    found = {}
    warmups = [("none", 0, True), *itertools.product(("constant", "linear"), (1, 3), (True, False))]
    for (name, keys), (kind, epochs, recount) in itertools.product(SCHEDULES.items(), warmups):
        cfg = default_cfg(OPTIM__MAX_EPOCH=12, OPTIM__WARMUP_EPOCH=epochs, OPTIM__WARMUP_RECOUNT=recount)
        cfg.OPTIM.WARMUP_TYPE = kind if epochs else "linear"
        for key, value in keys.items():
            cfg.OPTIM[key] = value
        weights = [nn.Parameter(torch.zeros(1)) for _ in range(2)]
        optimiser = torch.optim.SGD([{"params": weights[:1], "lr": 0.002}, {"params": weights[1:], "lr": 0.05}], lr=1.0)
        schedule = build_lr_scheduler(optimiser, cfg.OPTIM)
        rates = []
        for _ in range(14):
            rates.append([group["lr"] for group in optimiser.param_groups])
            optimiser.step()
            schedule.step()
        found[f"{name}, warm-up {kind} {epochs}, recount {recount}"] = rates
    return found


def optimiser_paths() -> dict[str, list[list[float]]]:
    """Return three parameters after each of 12 steps down a quadratic, for every optimiser; RAdam also in float16."""
    from dassl.optim import build_optimizer

    found = {}
    cases = [(name, keys, torch.float32) for name, keys in OPTIMISERS.items()]
    for name, keys, dtype in [*cases, ("radam in float16", {"NAME": "radam"}, torch.float16)]:
        cfg = default_cfg(OPTIM__LR=0.01, OPTIM__WEIGHT_DECAY=0.02)
        for key, value in keys.items():
            cfg.OPTIM[key] = value
        weight = nn.Parameter(torch.tensor([1.0, -2.0, 0.5], dtype=dtype))
        optimiser = build_optimizer([weight], cfg.OPTIM)
        path = []
        for _ in range(12):
            weight.grad = (torch.tensor([1.0, 3.0, 10.0]) * (weight.detach().float() - 0.1)).to(dtype)
            optimiser.step()
            path.append(weight.tolist())
        found[name] = path
    return found


def staged_groups() -> list[list[float]]:
    """Return learning rate and number of weights of each parameter group under ``STAGED_LR``."""
    from dassl.optim import build_optimizer

    cfg = default_cfg(OPTIM__STAGED_LR=True, OPTIM__NEW_LAYERS=("head",), OPTIM__LR=0.1, OPTIM__BASE_LR_MULT=0.2)
    model = nn.Module()
    model.body, model.head = nn.Linear(3, 4), nn.Linear(4, 2)
    groups = build_optimizer(model, cfg.OPTIM).param_groups
    return [[group["lr"], sum(p.numel() for p in group["params"])] for group in groups]


def evaluation() -> dict[str, Any]:
    """Return what the evaluator prints and gives for 1,203 random predictions over four of six classes."""
    from dassl.evaluation import build_evaluator

    draw = np.random.RandomState(1)
    labels = torch.from_numpy(draw.choice([0, 1, 3, 4], 1203))
    scores = torch.from_numpy(draw.rand(1203, 6)) + 0.4 * F.one_hot(labels, 6)
    names = {label: f"class {label}" for label in range(6)}
    with tempfile.TemporaryDirectory() as folder, printed(folder) as lines:
        cfg = default_cfg(TEST__PER_CLASS_RESULT=True, TEST__COMPUTE_CMAT=True, OUTPUT_DIR=folder)
        evaluator = build_evaluator(cfg, lab2cname=names)
        for start in range(0, 1203, 100):
            evaluator.process(scores[start : start + 100], labels[start : start + 100])
        results = evaluator.evaluate()
        files = os.listdir(folder)
        evaluator.reset()
        evaluator.process(scores[:7], labels[:7])
        evaluator.evaluate()
    return {"printed": lines, "results": {key: float(value) for key, value in results.items()}, "files": files}


def meters() -> dict[str, Any]:
    """Return the text of a MetricMeter and the averages of an AverageMeter, plain and exponential."""
    from dassl.utils import AverageMeter, MetricMeter

    metric, plain, exponential = MetricMeter(), AverageMeter(), AverageMeter(ema=True)
    for step in range(5):
        metric.update({"loss": torch.tensor(1.0 / (step + 1)), "acc": 12.5 * step})
        plain.update(step**2, n=step + 1)
        exponential.update(torch.tensor(float(step)))
    metric.update(None)
    return {"text": str(metric), "plain": [plain.val, plain.avg, plain.sum, plain.count], "ema": exponential.avg}


class Points(Dataset):
    """Random points of three classes, as batches of Dassl's keys."""

    def __init__(self, count: int, seed: int) -> None:
        draw = np.random.RandomState(seed)
        self.labels = draw.randint(0, 3, count)
        self.points = (draw.randn(count, 4) + np.eye(3, 4)[self.labels]).astype(np.float32)

    def __len__(self) -> int:
        return len(self.labels)

    def __getitem__(self, index: int) -> dict[str, Any]:
        return {"img": self.points[index], "label": int(self.labels[index]), "domain": 0}


def make_trainers() -> dict[str, Any]:
    """Return a TrainerX and a TrainerXU that learn a linear classifier of :class:`Points` and note every hook."""
    from dassl.engine import TrainerX, TrainerXU
    from dassl.optim import build_lr_scheduler, build_optimizer

    class Common:
        def build_data_loader(self) -> None:
            self.losses: list[float] = []
            self.hooks: list[str] = []
            self.train_loader_x = DataLoader(Points(23, 1), batch_size=5, shuffle=True)
            self.train_loader_u = DataLoader(Points(41, 2), batch_size=5, shuffle=True, drop_last=True)
            self.val_loader = DataLoader(Points(30, 3), batch_size=8)
            self.test_loader = DataLoader(Points(300, 4), batch_size=64)
            self.num_classes, self.num_source_domains = 3, 1
            self.lab2cname = {0: "red", 1: "green", 2: "blue"}

        def build_model(self) -> None:
            self.model = nn.Linear(4, 3)
            self.optim = build_optimizer(self.model, self.cfg.OPTIM)
            self.sched = build_lr_scheduler(self.optim, self.cfg.OPTIM)
            self.register_model("classifier", self.model, self.optim, self.sched)

        def augment(self, images: torch.Tensor) -> torch.Tensor:
            return images + 0.1 * torch.rand_like(images) + 0.1 * random.random() + 0.1 * np.random.rand()

        def learn(self, loss: torch.Tensor) -> dict[str, float]:
            self.model_backward_and_update(loss)
            self.losses.append(loss.item())
            if (self.batch_idx + 1) == self.num_batches:
                self.update_lr()
            return {"loss": loss.item(), "twice": 2 * loss}

        def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
            super().write_scalar(tag, scalar_value, global_step)
            self.hooks.append(f"{tag} at {global_step}")

    for hook in ("before_train", "before_epoch", "run_epoch", "after_epoch", "after_train"):

        def noting(self: Any, hook: str = hook) -> None:
            self.hooks.append(hook)
            getattr(super(Common, self), hook)()

        setattr(Common, hook, noting)

    class Labelled(Common, TrainerX):
        def forward_backward(self, batch: Any) -> dict[str, float]:
            images, labels, _ = self.parse_batch_train(batch)
            return self.learn(F.cross_entropy(self.model(self.augment(images)), labels))

    class Paired(Common, TrainerXU):
        def forward_backward(self, batch_x: Any, batch_u: Any) -> dict[str, float]:
            images, labels, unlabelled = self.parse_batch_train(batch_x, batch_u)
            spread = self.model(unlabelled).softmax(1).var(0).sum()
            return self.learn(F.cross_entropy(self.model(self.augment(images)), labels) + spread)

    return {"TrainerX": Labelled, "TrainerXU": Paired}


def training(kind: str, **changes: Any) -> dict[str, Any]:
    """Return all that can be seen of a short training run: lines, losses, hooks, files, weights, next random draws."""
    from dassl.utils import set_random_seed

    with tempfile.TemporaryDirectory() as folder, printed(folder) as lines:
        cfg = default_cfg(OUTPUT_DIR=folder, OPTIM__NAME="sgd", OPTIM__LR=0.1, OPTIM__LR_SCHEDULER="cosine", **changes)
        set_random_seed(3)
        trainer = make_trainers()[kind](cfg)
        trainer.train()
        draws = [random.random(), float(np.random.rand()), torch.rand(1).item()]
        names = sorted(str(p.relative_to(folder)) for p in Path(folder).rglob("*") if "tensorboard" not in p.parts)
        last = Path(folder, "classifier", "checkpoint").read_text()
    return {
        "printed": lines,
        "losses": trainer.losses,
        "hooks": trainer.hooks,
        "files": names,
        "last": last,
        "draws": draws,
        "weights": [p.detach().flatten().tolist() for p in trainer.model.parameters()],
    }


def resumed_training(**changes: Any) -> dict[str, list]:
    """Return lines and losses of a run of four epochs that is cut after the second one and then started again."""
    from dassl.utils import set_random_seed

    class Cut(make_trainers()["TrainerX"]):
        def before_epoch(self) -> None:
            if self.epoch == 2:
                raise KeyboardInterrupt

    with tempfile.TemporaryDirectory() as folder, printed(folder) as lines:
        common = {"OUTPUT_DIR": folder, "OPTIM__NAME": "sgd", "OPTIM__LR": 0.1, "OPTIM__LR_SCHEDULER": "cosine"}
        cfg = default_cfg(OPTIM__MAX_EPOCH=4, TRAIN__CHECKPOINT_FREQ=1, TEST__NO_TEST=True, **common, **changes)
        set_random_seed(3)
        first = Cut(cfg)
        with contextlib.suppress(KeyboardInterrupt):
            first.train()
        set_random_seed(4)
        second = make_trainers()["TrainerX"](cfg)
        second.train()
    return {"printed": lines, "losses": first.losses + second.losses}


def trainings() -> dict[str, Any]:
    """Return :func:`training` for the last and the best model, few and many printed lines, and pairs of loaders."""
    return {
        "last step, warm-up": training(
            "TrainerX",
            OPTIM__MAX_EPOCH=3,
            OPTIM__WARMUP_EPOCH=1,
            OPTIM__WARMUP_TYPE="constant",
            TRAIN__CHECKPOINT_FREQ=2,
        ),
        "best by validation": training(
            "TrainerX",
            OPTIM__MAX_EPOCH=4,
            TEST__FINAL_MODEL="best_val",
            TRAIN__PRINT_FREQ=2,
            TEST__PER_CLASS_RESULT=True,
        ),
        "no test": training("TrainerX", OPTIM__MAX_EPOCH=1, TEST__NO_TEST=True, TEST__FINAL_MODEL="best_val"),
        "pairs, all labelled": training("TrainerXU", OPTIM__MAX_EPOCH=2, TRAIN__PRINT_FREQ=3),
        "pairs, all unlabelled": training("TrainerXU", OPTIM__MAX_EPOCH=2, TRAIN__COUNT_ITER="train_u"),
        "pairs, fewest": training("TrainerXU", OPTIM__MAX_EPOCH=1, TRAIN__COUNT_ITER="smaller_one"),
        "resumed": resumed_training(),
    }


def collect() -> dict[str, Any]:
    """Return all golden numbers of the Dassl that is importable."""
    return {
        "learning_rates": learning_rates(),
        "optimiser_paths": optimiser_paths(),
        "staged_groups": staged_groups(),
        "evaluation": evaluation(),
        "meters": meters(),
        "trainings": trainings(),
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", help="folder that holds the package dassl")
    parser.add_argument("--output", default=Path(__file__).with_name("dassl_engine.json"), type=Path)
    args = parser.parse_args()
    if not Path(args.checkout, "dassl", "__init__.py").is_file():
        parser.error(f"{args.checkout} holds no package dassl")
    root = str(Path(__file__).resolve().parents[2])
    sys.path[:0] = [args.checkout, root]
    import compat

    print(f"Dassl {compat.which()}, PyTorch {torch.__version__}")
    golden = {"torch": torch.__version__, **collect()}
    text = json.dumps(golden, indent=1)
    text = re.sub(
        r"\[\s+([^\[\]{}]*?)\s+\]", lambda found: f"[{' '.join(found[1].split())}]", text
    )  # short lists on one line
    args.output.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
