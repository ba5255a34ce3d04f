"""What `python -m tools.calibrate` does: find runs, judge their validation images, fit, and write the file.

Legend: N images.
"""

from __future__ import annotations

import argparse
import os
import random
from collections import Counter
from collections.abc import Iterable
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

import torch
from dassl.data.datasets import DatasetBase, Datum, build_dataset
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed
from torch import Tensor
from yacs.config import CfgNode

from datasets.fewshot import draw_per_class
from tools.predict.trained import fit_to_machine, load_images, load_trained, read_run, restore_cfg, test_views
from trainers.base import ClipTrainer, check_scores
from trainers.invariance import held_out
from trainers.modules.calibration import Calibration
from trainers.modules.calibration_file import STATES, write_calibration
from trainers.modules.predictions import Arrays, Predictions
from trainers.modules.progress import progress
from trainers.modules.rejection import best_score
from trainers.modules.uncertainty import calibration_metrics, error_detection_metrics, uncertainty_scores
from trainers.prompt_trainer import PromptTrainer


def find_runs(places: Iterable[str]) -> list[Path]:
    """The runs that can be calibrated: trainings, and tests on base or all classes where nothing is trained.

    Args:
        places: folders of a run, which is taken as it is, or with runs somewhere below them.

    Raises:
        FileNotFoundError: there is no such folder, or no such run in one.
    """
    runs: list[Path] = []
    for place in map(Path, places):
        if not place.is_dir():
            raise FileNotFoundError(f"there is no folder {place}")
        if (place / "results.json").is_file():
            runs.append(place)
            continue
        tops = sorted(Path(folder) for folder, _, files in os.walk(place) if "results.json" in files)
        found = [folder for folder in tops if _can_be_calibrated(folder)]
        if not found:
            tests = f"; the {len(tests)} there are tests" if (tests := tops) else ""
            raise FileNotFoundError(f"there is no finished training below {place}{tests}")
        runs += found
    return list(dict.fromkeys(runs))


def _can_be_calibrated(folder: Path) -> bool:
    """Whether a folder is of a training, or of a test on known classes alone where nothing is trained.

    What cannot be read is told later.
    """
    try:
        results = read_run(folder)
        method = TRAINER_REGISTRY.get(results["config"]["TRAINER"]["NAME"])
    except (ValueError, KeyError, TypeError):
        return True
    if issubclass(method, PromptTrainer):
        return (folder / method.checkpoint_folder).is_dir()
    return results.get("classes") != "new" and not results["config"].get("TEST", {}).get("OPEN_SET")


def calibrate(run: Path, args: argparse.Namespace) -> tuple[dict[str, Any], Calibration]:
    """Fit a run's calibration and write it into its folder.

    Args:
        run: its folder.
        args: of the command line.

    Returns:
        What was written, and what was fitted.

    Raises:
        FileNotFoundError, ValueError: the run, its data or its CLIP is not there or wrong, there are no images to fit
            on, or it is a test on new classes.
        FloatingPointError: the model's scores are infinite or not a number.
        OSError: an image cannot be read, or the file cannot be written.
    """
    results = read_run(run)
    cfg = restore_cfg(results, [text for pair in args.set for text in pair])
    if cfg.DATASET.SUBSAMPLE_CLASSES == "new":
        raise ValueError("it is a test on new classes, and a calibration is fitted on those that are trained: base")
    if args.root:
        cfg.DATASET.ROOT = args.root
    fit_to_machine(cfg, args.device, args.backbone, args.precision)
    with redirect_stdout(StringIO()):  # trainers, readers and Dassl tell what they build
        items, fitted_on = find_images(cfg, args.hold_out)
        trainer = load_trained(run, results, cfg, results["class_names"], args.load_epoch)
        views = test_views(trainer)
    if fitted_on.pop("class_names") != trainer.class_names:
        raise ValueError(f"the classes of {cfg.DATASET.NAME} are no longer those that the run was trained on")
    outputs = compute_outputs(trainer, [item.impath for item in items], views, args.batch_size, args.workers)
    label = torch.tensor([item.label for item in items])
    found = trainer.fit_calibration(outputs, label)
    records = {
        "before": judge(trainer, outputs, label, None),
        "after": judge(trainer, outputs, label, found.values),
    }
    content = {
        **trainer.model_identity(),
        "values": found.values,
        "values_before": found.before,
        "at_bound": list(found.at_bound),
        "fitted_on": fitted_on,
        "figures": {state: figures_of(records[state]) for state in STATES},
        "best_score": {},
        "images": {state: scores_of(records[state]) for state in STATES},
    }
    for state, images in content["images"].items():
        content["best_score"][state] = best_score(images["scores"], images["wrong"])
    write_calibration(run, content)
    return content, found


def find_images(cfg: CfgNode, hold_out: int | None) -> tuple[list[Datum], dict[str, Any]]:
    """The images to fit on, and what the calibration file says of them.

    Args:
        cfg: of the run.
        hold_out: how many training images of each class that it was not trained on; None for its validation images.

    Raises:
        ValueError: there are none.
    """
    data = cfg.DATASET
    dataset = _build(cfg)
    about = {
        "what": "validation",
        "dataset": data.NAME,
        "classes": data.SUBSAMPLE_CLASSES,
        "shots": data.NUM_SHOTS,
        "seed": cfg.SEED,
        "class_names": list(dataset.classnames),
    }
    if hold_out is None:
        items = held_out(dataset)
        if not items:
            raise ValueError(
                f"{data.NAME} has no validation images of its own; --hold-out 4 takes 4 per class of the training "
                "images that the run was not trained on"
            )
        return items, {**about, "images": len(items)}
    if cfg.SEED < 0 and data.NUM_SHOTS > 0:
        raise ValueError("the run has no fixed seed, so that it is not known which images it was trained on")
    trained = {item.impath for item in dataset.train_x}
    everything = cfg.clone()
    everything.DATASET.NUM_SHOTS = -1
    left: Any = [item for item in _build(everything).train_x if item.impath not in trained]
    fewest = min(Counter(item.label for item in left).get(label, 0) for label in range(len(dataset.classnames)))
    if not fewest:
        raise ValueError(
            f"of some classes of {data.NAME} the run was trained on all training images, so that none can be held out: "
            "train it on fewer shots"
        )
    sample: Any = random.Random(cfg.SEED).sample
    drawn: Any = draw_per_class(left, hold_out, sample)
    return drawn, {**about, "what": "held-out training", "held_out": hold_out, "images": len(drawn)}


def _build(cfg: CfgNode) -> DatasetBase:
    if cfg.SEED >= 0:
        set_random_seed(cfg.SEED)  # which the few-shot images are drawn from
    return build_dataset(cfg)


@torch.no_grad()
def compute_outputs(
    trainer: ClipTrainer,
    paths: list[str],
    views: list[Any],
    batch_size: int | None = None,
    workers: int | None = None,
) -> Tensor:
    """What a trainer's `outputs` are of N image files, on the CPU.

    Args:
        trainer: with its model.
        paths: of the files.
        views: transforms of its test images.
        batch_size, workers: see `load_images`; None for those of the run's test.

    Raises:
        OSError: an image cannot be read; with its path.
        FloatingPointError: they are infinite or not a number.
    """
    cfg = trainer.cfg
    batch_size = cfg.DATALOADER.TEST.BATCH_SIZE if batch_size is None else batch_size
    workers = cfg.DATALOADER.NUM_WORKERS if workers is None else workers
    loader = load_images(paths, views, batch_size, workers, cfg.SEED)
    trainer.set_model_mode("eval")
    found = []
    for outcomes, batch in progress(loader, "calibration"):
        for path, reason in outcomes:
            if reason:
                raise OSError(f"{path} is an image of the data set, but {reason}")
        images, _ = trainer.parse_batch_test(batch)
        outputs = trainer.outputs(images)
        check_scores(trainer.judge(outputs)[0], trainer.options.PREC)
        found.append(outputs.cpu())  # where float64 gives the same numbers on every machine
    return torch.cat(found, dim=-2)


@torch.no_grad()
def judge(trainer: ClipTrainer, outputs: Tensor, label: Tensor, values: dict[str, float] | None) -> Arrays:
    """What a test would keep of N images, before (None) or after calibration."""
    scores, records = trainer.judge(outputs, values)
    predictions = Predictions()
    predictions.add(scores, label, [""] * len(label), records)
    return predictions.arrays()


def figures_of(records: Arrays) -> dict[str, float]:
    """The figures that a test would have of these images."""
    accuracy = 100.0 * float((records["prediction"] == records["label"]).mean())
    return {"accuracy": accuracy, **calibration_metrics(records), **error_detection_metrics(records)}


def scores_of(records: Arrays) -> dict[str, Any]:
    """Which images are wrong, and how uncertain each is by each score."""
    wrong = records["prediction"] != records["label"]
    scores = {name: values.tolist() for name, values in uncertainty_scores(records).items()}
    return {"wrong": wrong.astype(int).tolist(), "scores": scores}


def describe(run: Path, content: dict[str, Any], found: Calibration) -> str:
    """A run's calibration in a few lines."""
    fitted_on, figures = content["fitted_on"], content["figures"]
    changes = [f"{name} {found.before[name]:.4g} -> {value:.4g}" for name, value in found.values.items()]
    shown = {"accuracy": "accuracy {:.1f}%", "nll": "NLL {:.3f}", "ece": "ECE {:.1f}%"}
    bests = content["best_score"]
    lines = [
        f"{run}: {content['trainer']} of epoch {content['epoch']}, on {fitted_on['images']} {fitted_on['what']} images",
        ", ".join(changes),
        *(
            f"{state}: "
            + ", ".join(text.format(figures[state][name]) for name, text in shown.items() if name in figures[state])
            + f"; mistakes are best detected by {bests[state]}, AURC {figures[state]['aurc_' + bests[state]]:.1f}%"
            for state in STATES
        ),
    ]
    if found.at_bound:
        lines.append(f"the images do not determine {' and '.join(found.at_bound)}: the end of the range is taken")
    return "\n  ".join(lines)
