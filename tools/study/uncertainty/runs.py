"""Which runs the study is made of, their features, and the figures of all of them.

Legend: M templates, N images, C classes, D width of the features.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import compat  # noqa: F401  makes `import dassl` work; stands before it

import numpy as np
import torch
from numpy.typing import NDArray

from tools.common.layout import Place, config_folder
from tools.common.paths import ROOT
from tools.predict import feature_file, features
from tools.search.smaller import make_pseudo_set
from tools.study import methods
from tools.study.methods import Method, banked
from tools.study.run import write_data_sets
from tools.study.uncertainty.figures import Row
from tools.study.uncertainty.logits import measure_logits, write_logits
from tools.study.uncertainty.measure import Cosines, Part, measure
from tools.study.uncertainty.ways import WAYS
from tools.sweep.experiment import Experiment, execute
from trainers.modules.evidence import EvidenceFunction
from trainers.modules.progress import progress

SHOTS = 16
CHOICE_SETS = ("shapes", "textures", "letters", "symbols", "backgrounds")  # digits are scans: there are no further ones
TRAINED_SETS = ("shapes", "textures", "letters")
FOR_VALIDATION = 5  # images per class of a smaller set, which has no validation images
MAPLE = Method("MaPLe", "MaPLe")
PEERS = (methods.ZERO_SHOT, methods.COOP, MAPLE)
# Methods that are measured by their logits alone
FURTHER = (
    *(Method(name, name) for name in ("CoCoOp", "KgCoOp", "PromptSRC", "TCP", "MMRL")),
    Method("CLIP-ICM", "CLIPICM"),
)


def _other(title: str, tag: str, **options: object) -> Method:
    return Method(title, "CDC", tag=tag, settings={f"TRAINER.CDC.{key}": value for key, value in options.items()})


OTHER_TRAININGS = (
    _other("(7) and (7) on the fused opinion", "fused", FUSED_LOSS=True),
    _other("(7) and the annealed KL term, weight 1", "kl1", KL_WEIGHT=1.0, KL_EPOCHS=5),
    _other("(7) and the annealed KL term, weight 0.1", "kl01", KL_WEIGHT=0.1, KL_EPOCHS=5),
    _other("trained with EVIDENCE_SHIFT 0.3", "shift03", EVIDENCE_SHIFT=0.3),
    _other("trained with EVIDENCE_SCALE 20", "scale20", EVIDENCE_SCALE=20.0),
)


@dataclass(frozen=True)
class Run:
    """One trained model that is measured.

    Attributes:
        choice: whether it is on a smaller set, to choose by.
        method: the trainer and its settings.
        dataset, seed: what it is trained on.
    """

    choice: bool
    method: Method
    dataset: str
    seed: int

    def experiment(self, output: Path) -> Experiment:
        """How it is trained; what needs no training is tested in its place."""
        method = self.method
        settings = {"TRAIN.CHECKPOINT_FREQ": 0, **method.settings, **banked(method)}
        kind = "train_base" if method.train else "test_base"
        config = config_folder(method.config, method.tag)
        place = Place(kind, self.dataset, SHOTS, method.trainer, config, self.seed)
        folder = (output / "choice" if self.choice else output) / place.folder
        return Experiment(
            method.trainer, method.config, self.dataset, self.seed, "base", folder, settings, train=method.train
        )


def plan(seeds: Sequence[int]) -> Iterator[Run]:
    """All runs, seed by seed; what does not depend on the seed is there for the first."""
    for seed in seeds:
        for method in (*PEERS, methods.TEXT_ONLY, methods.CDC):
            if method.train or seed == seeds[0]:
                yield from (Run(False, method, dataset, seed) for dataset in methods.SETS)
                yield from (Run(True, method, dataset, seed) for dataset in CHOICE_SETS)
        for method in OTHER_TRAININGS:
            yield from (Run(True, method, dataset, seed) for dataset in TRAINED_SETS)
        for method in FURTHER:
            yield from (Run(False, method, dataset, seed) for dataset in methods.SETS)


def far_sets(run: Run) -> list[str]:
    """The other data sets whose images a run is shown; a smaller set, to choose by, has none."""
    return [] if run.choice else [dataset for dataset in methods.FAR_SETS if dataset != run.dataset]


def arguments_of(run: Run, folder: Path, data: Path, path: Path, classes: str, dataset: str = "") -> list[str]:
    """The command line of `tools.predict.features` for a run's images.

    Args:
        run: whose model it is.
        folder: of the run.
        data: folder of the data sets.
        path: to write.
        classes: base or new, or all of another data set.
        dataset: that one.
    """
    split = "test" if run.choice or classes != "base" else "all"
    arguments = ["--output", str(path), "--root", str(data), "--classes", classes, "--split", split, "--workers", "0"]
    if run.method.train:
        arguments += ["--model-dir", str(folder)]
    else:
        config = ROOT / f"configs/trainers/{run.method.trainer}/{run.method.config}.yaml"
        arguments += ["--config-file", str(config), "--trainer", run.method.trainer, "--seed", str(run.seed)]
    if dataset or not run.method.train:
        arguments += ["--dataset-config-file", str(ROOT / f"configs/datasets/{dataset or run.dataset}.yaml")]
    # As many validation images as the others have
    return arguments if run.method.train else [*arguments, "DATASET.NUM_SHOTS", str(SHOTS)]


def encode(run: Run, experiment: Experiment, data: Path, classes: str, dataset: str = "") -> dict[str, NDArray]:
    """Features of a run's images, see `arguments_of`, from a file beside its results or into it."""
    path = experiment.folder / f"features_{dataset or classes}.npz"
    if not path.is_file():
        arguments = arguments_of(run, experiment.folder, data, path, classes, dataset)
        feature_file.write_features(features.parse_arguments(arguments))
    return read_arrays(path)


def read_arrays(path: Path) -> dict[str, NDArray]:
    """What an .npz file holds."""
    with np.load(path) as file:
        return {name: file[name] for name in file.files}


def cosines_of(
    base: Mapping[str, NDArray], new: Mapping[str, NDArray], far: Sequence[Mapping[str, NDArray]] = ()
) -> Cosines:
    """Cosines from a run's features of both halves, and of other data sets.

    Validation images are those of the split val, or where there are none the first test images of each class, which
    are then no test images.
    """
    label = torch.from_numpy(base["labels"]).long()
    val = torch.from_numpy(base["splits"] == "val")
    test = torch.from_numpy(base["splits"] == "test")
    if not val.any():
        order = [(label[: i + 1] == label[i]).sum().item() for i in range(len(label))]
        val = torch.tensor(order) <= FOR_VALIDATION
        test = ~val
    text, other_text = (torch.from_numpy(half["text_features"]).double() for half in (base, new))
    images, others = (torch.from_numpy(half["image_features"]).double() for half in (base, new))
    known = images @ text.transpose(1, 2)  # (M, N, C)

    def unlabelled(features: torch.Tensor) -> Part:
        return Part(features @ text.transpose(1, 2), torch.zeros(features.shape[-2], dtype=torch.long))

    return Cosines(
        Part(known[:, val], label[val]),
        Part(known[:, test], label[test]),
        Part(others @ other_text.transpose(1, 2), torch.from_numpy(new["labels"]).long()),
        unlabelled(others),
        tuple(unlabelled(torch.from_numpy(each["image_features"]).double()) for each in far),
    )


def evidence_of(about: Mapping) -> EvidenceFunction:
    """h of a run; of other methods than CDC what CDC would have by default."""
    options = about["config"]["TRAINER"]["CDC"] if about["trainer"] == "CDC" else {}
    return EvidenceFunction(
        options.get("EVIDENCE", "exp"),
        options.get("EVIDENCE_SCALE") or about["scale"],
        options.get("EVIDENCE_SHIFT", 0.2),
    )


def measure_run(run: Run, output: Path, data: Path) -> Iterator[Row]:
    """A run's figures, one row for each way to fuse its templates.

    Of methods with one prompt there is nothing to fuse: the paper's way has their softmax as eq. (6), and fitted it
    has a temperature.
    """
    experiment = run.experiment(output)
    key = (run.choice, run.method.title, run.dataset, run.seed)
    if run.method in FURTHER:
        path = experiment.folder / "logits.npz"
        if not path.is_file():
            write_logits(
                path,
                arguments_of(run, experiment.folder, data, path, "base"),
                arguments_of(run, experiment.folder, data, path, "new"),
                [arguments_of(run, experiment.folder, data, path, "all", dataset) for dataset in far_sets(run)],
            )
        for name, figures in zip(("paper", "fitted"), measure_logits(read_arrays(path))):
            yield Row(*key, name, figures)
        return
    base, new = (encode(run, experiment, data, classes) for classes in ("base", "new"))
    far = [encode(run, experiment, data, "all", dataset) for dataset in far_sets(run)]
    cosines, evidence = cosines_of(base, new, far), evidence_of(json.loads(str(base["about"])))
    for name, way in WAYS.items():
        if run.method.trainer == "CDC" or name in ("paper", "fitted"):
            yield Row(*key, name, measure(cosines, way, evidence))


def measure_all(output: Path, data: Path, seeds: Sequence[int], train: bool) -> list[Row]:
    """Train what is missing, or leave it out, and measure all runs.

    Args:
        output: folder of the runs.
        data: folder of the data sets.
        seeds: of the training runs.
        train: whether to train.

    Raises:
        OSError, ValueError: as training and encoding do; or there is no run.
    """
    runs = list(plan(seeds))
    if train:
        write_data_sets(methods.SETS, data)
        for dataset in CHOICE_SETS:
            make_pseudo_set(dataset, output / "choice" / "data")
    rows: list[Row] = []
    for run in progress(runs, "measure", "runs"):
        own_data = output / "choice" / "data" if run.choice else data
        experiment = run.experiment(output)
        if train and run.method.train:
            execute(experiment, own_data)
        if experiment.finished or not run.method.train:
            rows += measure_run(run, output, own_data)
    if not rows:
        raise ValueError(f"there is no finished run in {output}")
    return rows
