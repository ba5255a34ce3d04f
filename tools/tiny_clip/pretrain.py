"""What `python -m tools.tiny_clip` does: the steps, the checkpoints on the way, the weights and their record."""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

import numpy as np
import torch
from tqdm import tqdm

from datasets import world
from tools.tiny_clip.evaluation import Probe, probes, zero_shot_metrics
from tools.tiny_clip.model import ARCHITECTURE, whiten_
from tools.tiny_clip.pairs import Batches
from tools.tiny_clip.pictures import render_pictures, to_input
from tools.tiny_clip.schedule import fall_begins, steps_in_time
from tools.tiny_clip.training import Recipe, Training
from tools.tiny_clip.weights import full_state, write_weights


def pretrain(args: argparse.Namespace) -> None:
    """Train from the last checkpoint, or from the start, and write the weights.

    Args:
        args: of the command line.

    Raises:
        ValueError: the checkpoint is one of another run.
    """
    training = Training(Recipe(**{name: getattr(args, name) for name in Recipe._fields}), args.steps)
    if args.checkpoint.exists():
        training.resume(args.checkpoint, by_the_clock=args.minutes is not None)
    tasks = probes()
    if training.done == training.steps:
        write_result(args.out, training, tasks)
    else:
        train(training, args, tasks)


def train(training: Training, args: argparse.Namespace, tasks: Mapping[str, Probe]) -> None:
    """Take the steps that are left."""
    recipe = training.recipe
    pictures, scenes = render_pictures(recipe.seed, recipe.pictures, args.workers)
    batches = Batches(pictures, scenes, training.vocabulary, recipe.batch, recipe.seed, recipe.alone)
    if training.done == 0:
        whiten_(training.model, to_input(pictures[:1000]))

    torch.set_num_threads(1)  # in each of the two threads of a step
    first, resumed = training.done, time.perf_counter()
    progress = tqdm(initial=first, total=training.steps, desc="training", unit="step")
    with ThreadPoolExecutor(2) as pool, progress:
        while training.done < training.steps:
            done = training.done
            if args.minutes is not None and done - first >= 200 and done <= fall_begins(training.steps):
                pace = (time.perf_counter() - resumed) / (done - first)
                training.steps = steps_in_time(training.steps, done, training.seconds, pace, 60 * args.minutes)
                progress.total = training.steps
            training.step(batches(done), pool)
            progress.set_postfix(loss=f"{np.mean(training.losses[-50:]):.3f}", refresh=False)
            progress.update()
            is_last = training.done == training.steps
            if is_last or training.done % args.save_every == 0:
                training.save(args.checkpoint)
            if is_last or training.done % args.look_every == 0:
                write_result(args.out, training, tasks)


def write_result(folder: Path, training: Training, tasks: Mapping[str, Probe]) -> None:
    """Write the weights as they are now and what they can do, which is printed, too."""
    recipe = training.recipe._asdict()
    record = {
        "made by": f"python -m tools.tiny_clip --steps {training.steps} "
        + " ".join(f"--{name} {value}" for name, value in recipe.items()),
        "steps done": training.done,
        "seconds": round(training.seconds),
        "cores": os.cpu_count(),
        "torch": torch.__version__,
        "architecture": ARCHITECTURE,
        "tokens in use": len(training.vocabulary),
        "held-out combinations": len(world.HELD_OUT_COLOURS) + len(world.HELD_OUT_TEXTURES),
        "loss, mean of the last 50 steps": round(float(np.mean(training.losses[-50:])), 4),
        "zero-shot": zero_shot_metrics(training.model, training.vocabulary, tasks),
    }
    write_weights(folder, full_state(training.model, training.vocabulary), record)
    print(json.dumps(record["zero-shot"]), flush=True)
