"""A pre-training under way, which can be cut at any step and goes on as if it had not been."""

from __future__ import annotations

import io
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

import torch

from tools.tiny_clip.losses import Heads
from tools.tiny_clip.model import ARCHITECTURE, make_model
from tools.tiny_clip.optimisers import make_optimisers
from tools.tiny_clip.pairs import Batch, Factors
from tools.tiny_clip.schedule import fall_begins, rate_at
from tools.tiny_clip.step import train_step
from tools.tiny_clip.vocabulary import Vocabulary
from tools.tiny_clip.weights import write_beside
from trainers.modules.checkpoints import read_saved


class Recipe(NamedTuple):
    """What the weights follow from, besides the number of steps; see the command line."""

    alone: int
    batch: int
    pictures: int
    rate: float
    decay: float
    seed: int


class Training:
    """Model, heads and optimisers, and how far they are.

    Attributes:
        steps: of the whole run; it may still be changed until the learning rate falls.
        done: steps that were taken.
        losses: of each of them.
    """

    def __init__(self, recipe: Recipe, steps: int) -> None:
        self.recipe, self.steps = recipe, steps
        self.vocabulary = Vocabulary()
        self.model = make_model(self.vocabulary, recipe.seed)
        self.heads = Heads(ARCHITECTURE["embed_dim"], Factors())
        self.optimisers = make_optimisers(self.model, self.heads, recipe.decay)
        self.done = 0
        self.losses: list[float] = []
        self._started = time.perf_counter()

    @property
    def seconds(self) -> float:
        """How long the run has taken, with those before it that it goes on from."""
        return time.perf_counter() - self._started

    def step(self, batch: Batch, pool: ThreadPoolExecutor) -> None:
        """Take the next step."""
        rate = rate_at(self.done, self.steps, self.recipe.rate)
        self.losses.append(train_step(self.model, self.heads, self.optimisers, rate, batch, pool))
        self.done += 1

    def save(self, path: Path) -> None:
        """Write a checkpoint."""
        content = io.BytesIO()
        state = {
            "steps": self.steps,
            "recipe": self.recipe._asdict(),
            "model": self.model.state_dict(),
            "heads": self.heads.state_dict(),
            "optimisers": [optimiser.state_dict() for optimiser in self.optimisers],
            "done": self.done,
            "seconds": self.seconds,
            "losses": self.losses,
        }
        torch.save(state, content)
        path.parent.mkdir(parents=True, exist_ok=True)
        write_beside(path, content.getvalue())

    def resume(self, path: Path, by_the_clock: bool = False) -> None:
        """Go on from a checkpoint.

        Args:
            path: of the checkpoint.
            by_the_clock: the clock chooses the number of steps; where it has done so already, that one stays.

        Raises:
            ValueError: the checkpoint is one of another run, or of an older version.
        """
        saved = read_saved(path)
        if "decay" in saved["optimisers"][0]["param_groups"][0]:
            raise ValueError(
                f"{path} was written by an older version of this tool, which had a Muon of its own: give another "
                "--checkpoint, or delete the file"
            )
        if by_the_clock and saved["done"] > fall_begins(saved["steps"]):
            self.steps = saved["steps"]
        is_open = saved["done"] <= min(fall_begins(self.steps), fall_begins(saved["steps"]))
        recipe = self.recipe._asdict()
        if saved["recipe"] != recipe or (saved["steps"] != self.steps and not is_open):
            raise ValueError(
                f"{path} holds {saved['done']} steps of a run with steps {saved['steps']}, {saved['recipe']}, "
                f"but this run has steps {self.steps}, {recipe}: "
                "give the same arguments, or another --checkpoint, or delete the file"
            )
        self.model.load_state_dict(saved["model"])
        self.heads.load_state_dict(saved["heads"])
        for optimiser, state in zip(self.optimisers, saved["optimisers"]):
            optimiser.load_state_dict(state)
        self.done, self.losses = saved["done"], saved["losses"]
        self._started = time.perf_counter() - saved["seconds"]
