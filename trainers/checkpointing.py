"""What a trainer with learnable prompts keeps of its training: checkpoints, tests of them, resuming."""

from __future__ import annotations

import os
import time
import warnings
from collections.abc import Mapping
from fnmatch import fnmatchcase
from pathlib import Path

import torch
from dassl.config import cfg_default
from torch import Tensor, nn

from storage.files import atomic_write
from storage.ownership import own_folder

from .base import ClipTrainer
from .modules import ranks
from .modules.checkpoints import read_checkpoint, state_problems, write_checkpoint
from .modules.prompted import PromptedCLIP
from .modules.random_state import get_random_state, set_random_state
from .modules.self_regulation import GaussianAverage
from .modules.sharing import explain, find_shared, other_options
from .resuming import (
    moments_problem,
    other_rates,
    other_training,
    seconds_before,
    training_settings,
    written_options,
)

if "UNTRAINED" not in cfg_default.TEST:
    cfg_default.TEST.UNTRAINED = False  # whether --eval-only without --model-dir tests the prompts as they start

# What published code calls CLIP's own parameters in its checkpoints, as shell patterns. They leave out what some
# methods put into the encoders and train.
ENCODER_KEYS = (
    "*_encoder.transformer.resblocks.*.attn.*",
    "*_encoder.transformer.resblocks.*.mlp.*",
    "*_encoder.transformer.resblocks.*.ln_*",
    "*_encoder.positional_embedding",
    "image_encoder.class_embedding",
    "image_encoder.conv1.weight",
    "image_encoder.ln_*",
    "image_encoder.proj",
    "text_encoder.ln_final.*",
    "text_encoder.text_projection",
    "logit_scale",
)


class CheckpointedTrainer(ClipTrainer):
    """A frozen CLIP under a learner, whose parameters alone are trained and kept in checkpoints.

    A subclass's `build_clip` sets `self.model`, whose `prompt_learner` is the learner. A subclass also trains it.

    Attributes:
        scaler: of gradients, where PREC is amp and the device a GPU; None elsewhere.
        trained_epochs: how many epochs the learner has been trained.
        average: of the learner's parameters over the epochs, which replaces them after the last epoch; None for most
            methods.
        checkpoint_folder: a run's folder of checkpoints.
        key_prefix: what stands before the prompt learner's own names in them.
        untrained_keys: names, as shell patterns, that the method's published code keeps there too and that are no part
            of what was trained: embeddings of class names, or CLIP itself. They are ignored when read.
    """

    model: PromptedCLIP
    scaler: torch.amp.GradScaler | None
    trained_epochs: int
    average: GaussianAverage | None = None
    _seconds_before: float | None = 0.0  # of this training in earlier processes; None where a checkpoint does not say
    checkpoint_folder = "prompt_learner"
    key_prefix = ""
    untrained_keys: tuple[str, ...] = ()

    @property
    def learner(self) -> nn.Module:
        """What is trained and kept in checkpoints."""
        return self.model.prompt_learner

    def trained_state(self) -> Mapping[str, Tensor]:
        return self.learner.state_dict()

    def checkpoint_key(self, name: str) -> str:
        """What a parameter of the learner is called in checkpoints."""
        return self.key_prefix + name

    def training_state(self) -> dict:
        """What else of the method a resumed run needs, tensors and plain data."""
        return self.average.state_dict() if self.average else {}

    def load_training_state(self, state: dict) -> None:
        """Restore `training_state`; `state` is empty where a checkpoint has none.

        Raises:
            KeyError, TypeError, ValueError: it does not fit this run.
        """
        if self.average:
            self.average.load_state_dict(state)
        elif state:
            raise ValueError(f"it has {', '.join(state)}, which this run's settings do not take")

    def _set_checkpoints_aside(self) -> None:
        """Rename this run's checkpoints so that nothing resumes from them: another training may use their folder."""
        folder = Path(self.output_dir, self.checkpoint_folder)
        for path in folder.glob("model*"):
            path.replace(folder / f"diverged-{path.name}")
            print(f"Checkpoint of a training that diverged: {folder / f'diverged-{path.name}'}")
        (folder / "checkpoint").unlink(missing_ok=True)

    def _training_data(self) -> dict:
        """What this run trains on."""
        data = self.cfg.DATASET
        classes = data.get("SUBSAMPLE_CLASSES", "all")
        return {"dataset": data.NAME, "classes": classes, "shots": data.NUM_SHOTS, "seed": self.cfg.SEED}

    @property
    def tested_epoch(self) -> int:
        return self.trained_epochs

    def _seconds_until_now(self) -> float | None:
        """How long the training has taken in all processes; interrupted epochs do not count."""
        if self._seconds_before is None or not hasattr(self, "time_start"):
            return self._seconds_before
        return self._seconds_before + max(time.time() - self.time_start, 0.0)  # as clocks are set

    def save_model(self, epoch, directory, is_best=False, val_result=None, model_name="") -> None:
        """Write `<directory>/<checkpoint_folder>/model.pth.tar-<epoch + 1>` in Dassl's layout.

        Beside Dassl's keys stand the class names, what the run is trained on, its settings, the digest of CLIP's
        weights, and `resume`: the random states and what else a resumed run needs to end as if it had not been
        interrupted. An older checkpoint is replaced only once the new one is complete.
        """
        state = {
            "state_dict": {self.checkpoint_key(name): value for name, value in self.learner.state_dict().items()},
            "epoch": epoch + 1,
            "class_names": list(self.class_names),
            "trained_on": self._training_data(),
            "settings": training_settings(self.cfg, type(self).__name__),
            "backbone_sha256": self.backbone_sha256,
            "optimizer": self.optim.state_dict() if self.optim else None,
            "scheduler": {"last_epoch": epoch + 1},
            "val_result": None if val_result is None else float(val_result),
            "resume": {
                "random": get_random_state(),
                "scaler": self.scaler.state_dict() if self.scaler else None,
                "best_result": float(self.best_result),
                "train_seconds": self._seconds_until_now(),
                "method": self.training_state(),
            },
        }
        with own_folder(directory) as owned:
            owned.check()
            folder = Path(directory, self.checkpoint_folder)
            names = [model_name or f"model.pth.tar-{epoch + 1}"] + ["model-best.pth.tar"] * is_best
            for name in names:
                write_checkpoint(folder / name, state)
                print(f"Checkpoint saved to {folder / name}")
            with atomic_write(folder / "checkpoint") as path:
                path.write_text(f"{names[0]}\n")

    def load_model(self, directory: str, epoch: int | None = None) -> None:
        """Load the trained parameters for testing, under whatever class names this run has.

        Args:
            directory: folder of the run, or what `modules.sharing.find_shared` takes; "" where MODEL.INIT_WEIGHTS names
                the checkpoint, or TEST.UNTRAINED asks for none.
            epoch: of the checkpoint; None for the best one, or the one that was shared.

        Raises:
            FileNotFoundError: no such checkpoint, with those that there are.
            ValueError: it is broken, of another trainer, or was made with other weights of CLIP; or there is nothing to
                test.
        """
        directory = ranks.agree(directory)  # where the first process has written
        if not directory:
            self._take_start()
            return
        folder = Path(directory, self.checkpoint_folder)
        shared = None if folder.is_dir() else find_shared(directory)
        path = shared or folder / ("model-best.pth.tar" if epoch is None else f"model.pth.tar-{epoch}")
        if not path.is_file():
            there = sorted(file.name for file in folder.glob("model*")) or "nothing"
            raise FileNotFoundError(f"no checkpoint at {path}; that folder holds {there}")
        checkpoint = self.load_trained(path, "epoch", epoch=epoch if shared else None)
        self.trained_epochs = checkpoint["epoch"]
        self.model_dir = os.path.abspath(directory) if os.path.exists(directory) else directory  # one of the Hub
        self.trained_on = checkpoint.get("trained_on")
        print(f"Loaded {path} (epoch {self.trained_epochs})")

    def _take_start(self) -> None:
        """Test the parameters of MODEL.INIT_WEIGHTS or, with TEST.UNTRAINED, prompts as they start."""
        if self.cfg.MODEL.INIT_WEIGHTS:
            path = Path(self.cfg.MODEL.INIT_WEIGHTS)
            checkpoint = self.load_trained(path)
            self.trained_epochs, self.trained_on = checkpoint.get("epoch", 0), checkpoint.get("trained_on")
            self.model_dir = os.path.abspath(path)
        elif self.cfg.TEST.UNTRAINED:
            print("Note: no trained model is given, and prompts are tested as they start")
        else:
            raise ValueError(
                "there is no trained model to test: --model-dir names the folder of its run, or MODEL.INIT_WEIGHTS its "
                "checkpoint; TEST.UNTRAINED True tests the prompts as they start"
            )

    def resume_model_if_exist(self, directory: str) -> int:
        """Go on from the last checkpoint in `directory`, if there is one.

        Returns:
            The epoch to start with.

        Raises:
            FileNotFoundError: the checkpoint that `directory` names is not there, or `cfg.RESUME` holds none.
            ValueError: the checkpoint is broken, of another trainer, was made with other weights of CLIP, or in a
                training with other settings or classes, of which this run would be the end and not the whole.
        """
        directory = ranks.agree(directory)
        pointer = Path(directory, self.checkpoint_folder, "checkpoint")
        if not pointer.is_file() and not self.cfg.RESUME:
            print("No checkpoint found, train from scratch")
            return 0
        path = pointer.parent / pointer.read_text().strip() if pointer.is_file() else pointer
        if not path.is_file():
            raise FileNotFoundError(f"training cannot go on from {directory}: there is no checkpoint {path}")
        checkpoint = self.load_trained(path, "epoch", "optimizer")
        settings = training_settings(self.cfg, type(self).__name__)
        problem = other_training(checkpoint, settings, self.class_names)
        if problem:
            raise ValueError(
                f"training cannot go on from {path}, which {problem}: give the same settings, or another output folder "
                "(MODEL.INIT_WEIGHTS starts a new training from a checkpoint)"
            )
        epoch = self.trained_epochs = checkpoint["epoch"]
        self.trained_on = checkpoint.get("trained_on")
        try:
            self._resume_training(checkpoint)
        except (KeyError, TypeError, ValueError, AttributeError, IndexError, RuntimeError, OverflowError) as error:
            raise ValueError(
                f"training cannot go on from {path}, which can only be tested or be MODEL.INIT_WEIGHTS: {error}"
            ) from error
        print(f"Found {path}, training continues after epoch {epoch}")
        return epoch

    def _resume_training(self, checkpoint: dict) -> None:
        """Restore everything but the trained parameters as it was when the checkpoint was written."""
        if self.optim:
            with warnings.catch_warnings():
                # A scheduler is a function of how often it stepped; torch warns of steps without the optimizer's.
                warnings.filterwarnings("ignore", message="Detected call of `lr_scheduler.step")
                for _ in range(checkpoint["epoch"]):
                    self.sched.step()
            written = [group["lr"] for group in checkpoint["optimizer"]["param_groups"]]
            problem = other_rates(written, self.optim, checkpoint["epoch"])
            if problem:
                raise ValueError(f"it {problem}")
            self.optim.load_state_dict(checkpoint["optimizer"])
            problem = moments_problem(self.optim)
            if problem:
                raise ValueError(problem)
        resume = checkpoint.get("resume") or {}
        self.load_training_state(resume.get("method", {}))
        self._seconds_before = seconds_before(resume)
        if resume:
            self.best_result = resume["best_result"]
            if self.scaler and resume["scaler"]:
                self.scaler.load_state_dict(resume["scaler"])
            set_random_state(resume["random"])

    def load_trained(self, path: Path, *needed: str, epoch: int | None = None) -> dict:
        """Load what was trained from a checkpoint of this method, ours or of the published code.

        Nothing changes unless all of it is right.

        Args:
            path: the checkpoint.
            needed: keys that it must have beside its parameters.
            epoch: that it must be of; None for any.

        Returns:
            The checkpoint.

        Raises:
            FileNotFoundError: there is no such file.
            ValueError: it is broken, or of another trainer; with all that is missing, unknown, does not fit or is not
                finite. Or it was made with other weights of CLIP, which published checkpoints and older ones do not
                say.
        """
        if not path.is_file():
            raise FileNotFoundError(f"no checkpoint at {path}")
        checkpoint = read_checkpoint(path, self.device, *needed)
        problems = self.checkpoint_problems(checkpoint)
        if "about" in checkpoint:
            problems = explain(problems, checkpoint["about"], type(self).__name__, self.options)
        elif problems:
            problems = other_options(written_options(checkpoint, type(self).__name__), self.options) + problems
        if epoch not in (None, checkpoint.get("epoch")):
            problems.append(f"is of epoch {checkpoint.get('epoch')}, not {epoch}")
        if problems:
            raise ValueError(f"{path} is not a checkpoint of this {type(self).__name__}: it {'; it '.join(problems)}")
        problem = self.weights_problem(checkpoint.get("backbone_sha256"))
        if problem:
            raise ValueError(f"{path} {problem}")
        learner, state = self.learner, checkpoint["state_dict"]
        learner.load_state_dict({name: state[self.checkpoint_key(name)] for name in learner.state_dict()})
        return checkpoint

    def checkpoint_problems(self, checkpoint: dict) -> list[str]:
        """Why this run cannot take a checkpoint's parameters, an error each, without its subject."""
        state = {
            key: value
            for key, value in checkpoint["state_dict"].items()
            if not any(fnmatchcase(key, pattern) for pattern in self.untrained_keys)
        }
        own = {self.checkpoint_key(name): value for name, value in self.learner.state_dict().items()}
        return state_problems(state, own)
