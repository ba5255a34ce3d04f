"""What all trainers share on Dassl's side: a frozen CLIP, its test, `predictions.npz` and `results.json`."""

from __future__ import annotations

import json
import math
import time
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from pathlib import Path

import torch
from dassl.config import cfg_default
from dassl.data import DataManager
from dassl.data.datasets import DATASET_REGISTRY
from dassl.engine import TRAINER_REGISTRY, TrainerX
from torch import Tensor

from storage.files import atomic_write, sweep
from storage.interrupts import Interrupts, interrupts_put_off
from storage.ownership import SILENT, own_folder
from storage.safe_text import escaped

from .config_checks import check_images, number_problems
from .metrics import LATER, batch_totals, calibrated_metrics, uncertainty_metrics
from .modules import ranks
from .modules.calibration import Calibration, fit_temperature
from .modules.calibration_file import read_calibration
from .modules.clip_types import CLIP
from .modules.evidence import Opinion
from .modules.figures import RECEIVERS, Figures, last_names, receiver_problem
from .modules.group_accuracy import GroupAccuracy
from .modules.loading import PRECISIONS, assumptions, load_clip, weights_digest
from .modules.memory import reset_peak
from .modules.predictions import (
    CALIBRATED_FILE_NAME,
    FILE_NAME,
    NO_CLASS,
    Arrays,
    Predictions,
    write_predictions,
)
from .modules.progress import progress
from .open_set import compare, open_set_problems, unknown_images
from .results_file import describe_run

# A run, or its calibration.json: a test then also says what its predictions are worth after that calibration
if "CALIBRATION" not in cfg_default.TEST:
    cfg_default.TEST.CALIBRATION = ""
cfg_default.REPORT_TO = ""  # where figures go besides TensorBoard, a key of `modules.figures.RECEIVERS`

# Options that change no prediction but by rounding
NOT_OF_PREDICTIONS = ("PREC", "FEATURE_BANK", "FEATURE_BANK_DIR")


class ClipTrainer(TrainerX):
    """A frozen CLIP and its test.

    A subclass says in `build_clip` what it makes of CLIP, and in `model_inference` how it classifies images. Its own
    config is `cfg.TRAINER.<its name in capitals>`, with at least `PREC`.

    Attributes:
        class_names: C class names.
        backbone_sha256: digest of CLIP's weights (`modules.loading.weights_digest`).
        wanted_sha256: the digest that they must have; None for any.
        scale: what CLIP multiplies cosines by.
        model_dir: folder of the run whose checkpoint was loaded for testing; None where there is none.
        trained_on: what the tested parameters were trained on (dataset, classes, shots, seed); None where nothing is
            trained, or the checkpoint does not say.
        train_seconds: how long training took without its test, over all processes of a run that was resumed; None where
            there was none, or a checkpoint does not say.
        interrupts: whether Ctrl-C came in training, where it takes effect after a step or a test batch.
        report: what takes the run's figures besides TensorBoard, while it trains or tests; None for nothing.
    """

    interrupts = Interrupts()
    report: Figures | None = None

    wanted_sha256: str | None = None
    model_dir: str | None = None
    trained_on: dict | None = None
    train_seconds: float | None = None
    _clip_model: CLIP | None = None  # between the building of data and model
    peak_is_known = False  # whether the most memory taken is this process's own

    class_names: list[str]

    @property
    def options(self):
        """The method's own config node."""
        return self.cfg.TRAINER[type(self).__name__.upper()]

    def check_cfg(self, cfg) -> None:
        """Check the config once, at the start.

        Raises:
            ValueError: with all that is wrong in it.
        """
        # Methods compute with these numbers to find what else is wrong.
        problems = number_problems(cfg) or self.config_problems(cfg, cfg.TRAINER[type(self).__name__.upper()])
        if problems:
            raise ValueError("the config cannot run: " + "; ".join(problems))

    def config_problems(self, cfg, options) -> list[str]:
        """What is wrong in the config, an error each; a subclass adds its own."""
        problems = open_set_problems(cfg) + [problem for problem in [receiver_problem(cfg.REPORT_TO)] if problem]
        if cfg.TEST.CALIBRATION and cfg.TEST.SPLIT != "test":
            problems.append(
                "TEST.SPLIT must be test where TEST.CALIBRATION is given, which was fitted on validation images, got "
                f"{cfg.TEST.SPLIT!r}"
            )
        if options.PREC not in PRECISIONS:
            problems.append(f"PREC must be one of {', '.join(PRECISIONS)}, got {options.PREC!r}")
        return problems

    def transforms(self) -> tuple:
        """Transforms of training and of test images, each one or a list of views; None for the config's own."""
        return None, None

    def build_data_loader(self) -> None:
        self.peak_is_known = reset_peak(self.device)
        self._find_data()  # as CLIP may have to be downloaded
        # Before any data is read, which may be split for good then: a run without its CLIP is to leave nothing.
        self._clip_model = self._load_clip()
        self.dm = DataManager(self.cfg, *self.transforms())
        for name in ("train_loader_x", "train_loader_u", "val_loader", "test_loader", "lab2cname"):
            setattr(self, name, getattr(self.dm, name))
        self.num_source_domains, self.num_classes = self.dm.num_source_domains, self.dm.num_classes
        self.class_names = self.dm.dataset.classnames
        # Dassl prints these, and encodes none of them.
        self.lab2cname = {label: escaped(name) for label, name in self.lab2cname.items()}

    def _find_data(self) -> None:
        """Raise FileNotFoundError if the data set's images are not there; nothing is read or written yet."""
        name = self.cfg.DATASET.NAME
        reader = DATASET_REGISTRY.get(name) if name in DATASET_REGISTRY.registered_names() else None
        if reader is not None and hasattr(reader, "check_there"):  # readers of other projects look when they read
            reader.check_there(self.cfg)

    def _load_clip(self) -> CLIP:
        """The run's CLIP, on the CPU.

        Raises:
            FileNotFoundError: it is not there.
            ValueError: it is broken, or images of this config are none for it.
        """
        cfg = self.cfg
        print(f"Loading CLIP (backbone: {escaped(cfg.MODEL.BACKBONE.NAME)})")
        clip_model = load_clip(cfg.MODEL.BACKBONE.NAME, self.options.PREC, sha256=self.wanted_sha256)
        assumed = assumptions(cfg.MODEL.BACKBONE.NAME, clip_model)
        if assumed:
            print(f"Note: {escaped(assumed)}")
        check_images(cfg.INPUT, clip_model)
        return clip_model

    def build_model(self) -> None:
        clip_model, self._clip_model = self._clip_model or self._load_clip(), None
        self.scale = float(clip_model.logit_scale.exp())
        self.backbone_sha256 = clip_model.sha256
        if self.device.type == "cuda" and torch.cuda.device_count() > ranks.size() == 1:
            print(
                f"One of {torch.cuda.device_count()} GPUs is used: torchrun --nproc_per_node "
                f"{torch.cuda.device_count()} train.py ... uses all of them (docs/running.md)"
            )
        self.build_clip(clip_model)

    def build_clip(self, clip_model: CLIP) -> None:
        """Make the method's model of a frozen CLIP on the CPU, and move it to `self.device`."""
        raise NotImplementedError

    def weights_problem(self, sha256: str | None) -> str:
        """Why this run's CLIP is not the one that something was made with, an error without its subject.

        Args:
            sha256: the `backbone_sha256` that it was made with; None where that was not written down.

        Returns:
            The error, or "" if nothing is known to be wrong.
        """
        if sha256 in (None, self.backbone_sha256):
            return ""
        return (
            f"was made with other weights of CLIP (SHA-256 {str(sha256)[:12]}...) than those of this run "
            f"({self.backbone_sha256[:12]}..., {self.cfg.MODEL.BACKBONE.NAME})"
        )

    def autocast(self):
        """The context in which the encoders compute: mixed precision where `PREC` is amp."""
        return torch.autocast(self.device.type, dtype=self._mixed_dtype, enabled=self.options.PREC == "amp")

    @property
    def _mixed_dtype(self) -> torch.dtype:
        """What amp computes in besides float32."""
        return torch.float16 if self.device.type == "cuda" else torch.bfloat16

    @property
    def encoder_precision(self) -> str:
        """What the encoders compute in: `PREC` and, where it is amp, the other type beside float32."""
        precision = self.options.PREC
        return f"{precision} {self._mixed_dtype}" if precision == "amp" else precision

    def to_device(self, tensor: Tensor) -> Tensor:
        """A tensor of a batch on the trainer's device; a GPU gets it by pinned memory, while the host goes on."""
        if self.device.type == "cuda" and not tensor.is_cuda and not tensor.is_pinned():
            tensor = tensor.pin_memory()
        return tensor.to(self.device, non_blocking=True)

    def train(self) -> None:  # type: ignore[override]  # as in Dassl, whose base class takes epochs
        if self.cfg.TEST.CALIBRATION:
            raise ValueError(
                "TEST.CALIBRATION needs --eval-only, as a calibration is valid only for what it was fitted to"
            )
        with own_folder(self.output_dir), self._reported(), interrupts_put_off() as self.interrupts:
            sweep(self.output_dir, below=True, abandoned_after=SILENT)
            super().train()

    @contextmanager
    def _reported(self) -> Iterator[None]:
        """The context in which the run's figures go where `REPORT_TO` says.

        Raises:
            ValueError: they cannot.
        """
        wanted = self.cfg.REPORT_TO if ranks.number() == 0 else ""
        if not wanted or self.report:
            yield
            return
        data = self.cfg.DATASET
        name = [self.cfg.TRAINER.NAME, data.NAME, data.get("SUBSAMPLE_CLASSES", "all"), *last_names(self.output_dir)]
        report = RECEIVERS[wanted](self.output_dir, "/".join(name), json.loads(json.dumps(self.cfg)))
        self.report = report
        try:
            yield
        except BaseException:
            report.close(True)
            raise
        else:
            report.close()
        finally:
            self.report = None

    def write_scalar(self, tag: str, scalar_value: float, global_step: int | None = None) -> None:
        super().write_scalar(tag, scalar_value, global_step)  # to TensorBoard
        if self.report:
            self.report.add_scalar(tag, scalar_value, global_step)

    def parse_batch_test(self, batch: dict) -> tuple[Tensor, Tensor]:
        return self.to_device(batch["img"]), self.to_device(batch["label"])

    @torch.no_grad()
    def test(self, split: str | None = None, *others, **named_others) -> float:
        """Evaluate on `split`, by default `cfg.TEST.SPLIT`.

        Unless it is for choosing a model, write what was found on each image to `predictions.npz`, and then every
        metric to `results.json`. Where `TEST.OPEN_SET` is True, images of unknown classes are tested after the others.
        Where `TEST.CALIBRATION` names a calibration, the metrics after it are written, too, under names that end in
        `_calibrated`, and the images' records to `predictions_calibrated.npz`.

        Args:
            split: "val", for choosing a model, or "test"; None for `cfg.TEST.SPLIT`.
            others, named_others: further arguments that forks of Dassl pass, such as ATPrompt's `is_final`; ignored.

        Returns:
            Accuracy in percent, the evaluator's first metric.

        Raises:
            FloatingPointError: scores or a metric are infinite or not a number; `results.json` is not written.
            FileNotFoundError, ValueError: as `read_calibration`; or figures cannot go where `REPORT_TO` says.
        """
        with self._reported():
            return self._test(split)

    def _test(self, split: str | None) -> float:
        started = time.time()
        self.set_model_mode("eval")
        self.evaluator.reset()
        totals: dict[str, float] = defaultdict(float)
        choosing = split == "val"
        place = "" if choosing else self.cfg.TEST.CALIBRATION
        calibration = read_calibration(place, self.model_identity()) if place else None
        if calibration:
            self._check_fitted_on(place, calibration["fitted_on"])
        split = split or self.cfg.TEST.SPLIT
        loader = self.val_loader if split == "val" else None
        if loader is None:
            split, loader = "test", self.test_loader

        print(f"Evaluate on the *{split}* set")
        groups = GroupAccuracy(self.dm.dataset.own_domains) if hasattr(self.dm.dataset, "own_domains") else None
        predictions, calibrated = Predictions(), Predictions()
        n_images = 0
        for batch in progress(loader, "test"):
            images, label = self.parse_batch_test(batch)
            scores, records, *later = self._judge_batch(images, calibration)
            self.evaluator.process(scores, label)
            for name, total in batch_totals(records, label).items():
                totals[name] += total
            n_images += len(label)
            if not choosing:
                predictions.add(scores, label, batch["impath"], records)
            if later:
                calibrated.add(later[0], label, batch["impath"], later[1])
            if groups:
                groups.process(scores.argmax(dim=1) == label, label, batch["domain"])
        metrics = dict(self.evaluator.evaluate())
        metrics.update({name: total / n_images for name, total in totals.items()})
        metrics.update(groups.evaluate() if groups else {})
        metrics.update(self.model_metrics())
        found = {} if choosing else predictions.arrays(self.cfg.DATASET.ROOT)
        metrics.update(uncertainty_metrics(found) if found else {})
        found_after = calibrated.arrays(self.cfg.DATASET.ROOT) if calibration else {}
        metrics.update(calibrated_metrics(found_after) if found_after else {})
        if found and self.cfg.TEST.OPEN_SET:
            unknown, unknown_after = self._find_unknown(calibration)
            found, own = compare(found, unknown)
            metrics.update(own)
            if calibration:
                found_after, own = compare(found_after, unknown_after, LATER)
                metrics.update({f"{name}_calibrated": value for name, value in own.items() if "_open_" in name})
        for name, value in metrics.items():
            self.write_scalar(f"{split}/{name}", value, self.epoch)
        if not choosing:
            self.write_predictions(found, found_after)
            self.write_results(split, metrics, n_images, time.time() - started, calibration)
        return next(iter(metrics.values()))

    def _judge_batch(self, images: Tensor, calibration: Mapping | None) -> tuple:
        """Scores and records of a batch of test images, and the calibrated ones where there is a calibration."""
        outputs = self.outputs(images)
        judged = self.judge(outputs)
        check_scores(judged[0], self.options.PREC)
        self.interrupts.check()
        return (*judged, *self.judge(outputs, calibration["values"])) if calibration else judged

    def _check_fitted_on(self, place: str, fitted_on: Mapping) -> None:
        """Raise ValueError where the calibration of a model without training was fitted on classes tested as new ones.

        A trained model's was fitted on the classes that it was trained on, which are not new to it.
        """
        data = self.cfg.DATASET
        same = (fitted_on.get("dataset"), fitted_on.get("classes")) == (data.NAME, "all")
        tests_new = self.cfg.TEST.OPEN_SET or data.get("SUBSAMPLE_CLASSES", "all") == "new"
        if same and tests_new and not self.trained_state():
            raise ValueError(
                f"{place} was fitted on images of all classes of {data.NAME}, which include the new ones "
                "that are tested now; fit it on images of a test on the base classes"
            )

    def _find_unknown(self, calibration: Mapping | None) -> tuple[dict[str, Arrays], dict[str, Arrays]]:
        """What the model says of the images of each set of unknown classes, before and after calibration."""
        before, after = {}, {}
        for name, loader in unknown_images(self.cfg, self.class_names, self.transforms()[1]):
            print(f"Evaluate on images of unknown classes: {name}")
            predictions, calibrated = Predictions(), Predictions()
            for batch in progress(loader, f"test on {escaped(name)}"):
                images, label = self.parse_batch_test(batch)
                label = torch.full_like(label, NO_CLASS)
                scores, records, *later = self._judge_batch(images, calibration)
                predictions.add(scores, label, batch["impath"], records)
                if later:
                    calibrated.add(later[0], label, batch["impath"], later[1])
            before[name] = predictions.arrays(self.cfg.DATASET.ROOT)
            after[name] = calibrated.arrays(self.cfg.DATASET.ROOT) if calibration else {}
        return before, after

    def outputs(self, images: Tensor) -> Tensor:
        """What a method computes from images before any calibration: logits `(B, C)`.

        A method whose confidence does not come from logits overrides this, `judge` and `fit_calibration`. The images
        are the last dimension but one. `judge` may get the outputs on the CPU.
        """
        return self.model_inference(images)

    def judge(
        self, outputs: Tensor, calibration: Mapping[str, float] | None = None
    ) -> tuple[Tensor, dict[str, Tensor]]:
        """Scores `(B, C)` of one batch, and what else a method says of each image, by name.

        Records are `(B,)`, of which a test reports the mean, as `uncertainty`; or, as `template_prediction`, `(B, M)`.
        A test writes all of them to `predictions.npz`, and measures how well `uncertainty`, `conflict`, `doubt` and the
        templates' disagreement detect wrong predictions, where a method has these.

        Args:
            outputs: from `outputs`.
            calibration: the values of a `Calibration` from `fit_calibration`; None for none.
        """
        return (outputs / calibration["temperature"] if calibration else outputs), {}

    def fit_calibration(self, outputs: Tensor, label: Tensor) -> Calibration:
        """The calibration that fits the labels best: here one temperature.

        Args:
            outputs: from `outputs`, of N images that it was not trained on.
            label: `(N,)`.
        """
        return fit_temperature(outputs, label)

    def trained_state(self) -> Mapping[str, Tensor]:
        """What was trained, by name; nothing here."""
        return {}

    def model_identity(self) -> dict:
        """What identifies this model: method, epoch, digests, and the options that its predictions depend on."""
        options = json.loads(json.dumps(self.options))
        return {
            "trainer": self.cfg.TRAINER.NAME,
            "epoch": self.tested_epoch,
            "trained_sha256": weights_digest(self.trained_state()),
            "backbone_sha256": self.backbone_sha256,
            "options": {key: value for key, value in options.items() if key not in NOT_OF_PREDICTIONS},
        }

    def model_metrics(self) -> dict[str, float]:
        """Metrics of the model itself, which do not depend on the images tested; a subclass may have some."""
        return {}

    def opinions(
        self, outputs: Tensor, calibration: Mapping[str, float] | None = None
    ) -> tuple[Opinion, list[Opinion]] | None:
        """Where a method has opinions on images: the fused one and each template's own; else None. As `judge`."""
        return None

    def image_features(self, images: Tensor) -> Tensor:
        """L2-normalised features of images `(B, 3, S, S)`: `(B, D)`, or `(M, B, D)` where each template has its own."""
        raise NotImplementedError

    def class_features(self) -> Tensor | None:
        """L2-normalised class embeddings `(M, C, D)` under each template; None where each image has its own."""
        raise NotImplementedError

    def write_predictions(self, found: Arrays, calibrated: Arrays | None = None) -> None:
        """`predictions.npz` beside log.txt: what the test found on each image (`modules.predictions`).

        What it found after calibration goes to `predictions_calibrated.npz`, which is not there without one.
        """
        folder = Path(self.output_dir)
        with own_folder(self.output_dir) as owned:
            owned.check()
            write_predictions(folder / FILE_NAME, found)
            if calibrated:
                write_predictions(folder / CALIBRATED_FILE_NAME, calibrated)
            else:
                (folder / CALIBRATED_FILE_NAME).unlink(missing_ok=True)

    def write_results(
        self, split: str, metrics: dict, n_images: int, seconds: float, calibration: Mapping | None = None
    ) -> None:
        """`results.json` beside log.txt: what was run, on what, and every metric.

        Raises:
            FloatingPointError: a metric is infinite or not a number; nothing is written.
        """
        broken = [f"{name} is {float(value)}" for name, value in metrics.items() if not math.isfinite(value)]
        if broken:
            raise FloatingPointError(f"the test gives no result: {', '.join(broken)}")
        results = describe_run(self, split, metrics, n_images, seconds, calibration)
        with own_folder(self.output_dir) as owned:
            owned.check()
            with atomic_write(Path(self.output_dir, "results.json")) as path:
                path.write_text(json.dumps(results, indent=1, allow_nan=False) + "\n")

    @property
    def tested_epoch(self) -> int:
        """The epoch whose parameters are tested; 0 where nothing is trained."""
        return 0


def build_without_data(cfg, class_names: Sequence[str], sha256: str | None = None) -> ClipTrainer:
    """A trainer's model for given classes, without any data set.

    What comes back can load a checkpoint and classify, but neither train nor test.

    Args:
        cfg: the whole config; `TRAINER.NAME` is one of this project's trainers.
        class_names: C class names.
        sha256: the digest that CLIP's weights must have, checked before anything is computed with them; None for any.

    Raises:
        FileNotFoundError, ValueError: as building the trainer.
        OtherWeights: CLIP's weights have another digest.
    """
    method = TRAINER_REGISTRY.get(cfg.TRAINER.NAME)

    def take_classes(self) -> None:
        self.class_names = list(class_names)
        self.num_classes, self.lab2cname = len(class_names), dict(enumerate(class_names))

    return type(method.__name__, (method,), {"build_data_loader": take_classes, "wanted_sha256": sha256})(cfg)


def check_scores(scores: Tensor, precision: str) -> None:
    """Raise FloatingPointError unless scores `(B, C)` make probabilities.

    A score of -inf belongs to a class without any evidence and is no error. NaN would be taken for the first class.

    Args:
        scores: logits or log-probabilities.
        precision: of the encoders, for the error.
    """
    if not scores.float().softmax(dim=1).isfinite().all():
        narrow = "" if precision == "fp32" else f", or {precision} is too narrow for this CLIP (fp32 tells)"
        raise FloatingPointError(f"the model's scores are infinite or not a number: its training has diverged{narrow}")
