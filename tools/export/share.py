"""What `python -m tools.export` does: a run's checkpoint and results become one file, which may go to the Hub."""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import redirect_stdout
from io import StringIO
from pathlib import Path
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

from dassl.config import clean_cfg
from dassl.engine import TRAINER_REGISTRY
from torch import Tensor
from yacs.config import CfgNode

from storage.safe_text import escaped
from tools.common.paths import ROOT
from tools.predict.trained import fit_to_machine, load_trained, read_run, restore_cfg
from trainers.modules.calibration_file import calibration_path, read_calibration
from trainers.modules.checkpoints import read_checkpoint
from trainers.modules.hub import import_client, split_name
from trainers.modules.loading import published_name
from trainers.modules.open_clip_models import split_path
from trainers.modules.plain_content import is_number
from trainers.modules.sharing import FILE, write_shared
from trainers.modules.tensor_file import SUFFIX
from trainers.prompt_trainer import PromptTrainer

FACTS = ("dataset", "shots", "seed", "classes", "split", "images", "versions")  # of results.json, beside what is needed


def export(run: str, output: str = "", epoch: int | None = None, repository: str = "", public: bool = False) -> None:
    """Write the file and tell of it; see `tools.export`.

    Args:
        run: folder of the training.
        output: the file; "" for `model.safetensors` in `run`.
        epoch: of the checkpoint; None for the one that the run has tested.
        repository: `hf-hub:OWNER/NAME` to put it into; "" for none.
        public: whether a new repository can be seen by everyone.

    Raises:
        FileNotFoundError, ValueError: as `collect`; or a name is none of a file or repository. Then nothing is written.
        OSError: the file cannot be written, or the Hub does not take it.
    """
    path = Path(output) if output else Path(run, FILE)
    if path.suffix != SUFFIX or path.is_dir():
        raise ValueError(f"--output must be a file that ends in {SUFFIX}, got {path}")
    if repository:
        split_name(repository)
        import_client(repository)
    state_dict, about = collect(run, epoch)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_shared(path, state_dict, about)
    n_values = sum(value.numel() for value in state_dict.values())
    print(f"{about['trainer']} of epoch {about['epoch']}, {len(about['class_names'])} classes, {n_values:,} values")
    if "calibration" in about:
        print(f"With the calibration of the run: {describe_values(about['calibration']['values'])}")
    print(f"Written to {path}, {path.stat().st_size:,} bytes")
    if repository:
        push(path, repository, public)
        print(f"Pushed to {repository}")


def collect(run: str | Path, epoch: int | None = None) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What a run has trained, and the header of its file.

    Args:
        run: folder of the training.
        epoch: of the checkpoint; None for the one that the run has tested.

    Raises:
        FileNotFoundError: the run or its checkpoint is not there.
        ValueError: one of them is broken, they do not belong together, or the method trains nothing.
    """
    if Path(run).is_file():
        raise ValueError(f"{run} is a file; give the folder of a training")
    results = read_run(run)
    name = results.get("trainer")
    known = TRAINER_REGISTRY.registered_names()
    trained = [each for each in known if issubclass(TRAINER_REGISTRY.get(each), PromptTrainer)]
    if name not in trained:
        raise ValueError(f"{run} is of {name}, and only what {', '.join(trained)} train can be exported")
    folder = Path(run, TRAINER_REGISTRY.get(name).checkpoint_folder)
    wanted = results["epoch"] if epoch is None else epoch
    # Where the best epoch was tested, it may be kept under that name alone.
    places = [folder / f"model.pth.tar-{wanted}"] + [folder / "model-best.pth.tar"] * (epoch is None)
    path = next((place for place in places if place.is_file()), None)
    if path is None:
        there = sorted(file.name for file in folder.glob("model*")) or "nothing"
        raise FileNotFoundError(f"no checkpoint of epoch {wanted} in {folder}, which holds {there}")
    checkpoint = read_checkpoint(path, "cpu", "epoch", "class_names", "backbone_sha256")
    for key, value in (("epoch", wanted), ("class_names", results["class_names"])):
        if checkpoint[key] != value:
            raise ValueError(f"{path} does not belong to {run}: its {key} is {checkpoint[key]}, not {value}")
    if checkpoint["backbone_sha256"] != results.get("backbone_sha256"):
        raise ValueError(f"{path} was made with other weights of CLIP than {Path(run, 'results.json')} tells of")
    cfg = restore_cfg(results)
    clean_cfg(cfg, name)  # other trainers' options
    config = without_paths(cfg)
    figures = results.get("figures") if wanted == results["epoch"] else {}
    calibration = own_calibration(run, results, wanted)
    return checkpoint["state_dict"], {
        "trainer": name,
        "config": config,
        "class_names": results["class_names"],
        "epoch": wanted,
        "trained_on": checkpoint.get("trained_on"),
        "backbone": config["MODEL"]["BACKBONE"]["NAME"],
        "backbone_sha256": checkpoint["backbone_sha256"],
        "figures": {key: value for key, value in figures.items() if is_number(value)}
        if isinstance(figures, dict)
        else {},
        **{key: results[key] for key in FACTS if key in results},
        **({"calibration": calibration} if calibration else {}),
    }


def own_calibration(run: str | Path, results: dict[str, Any], epoch: int) -> dict[str, Any] | None:
    """The run's calibration, if it has one that was fitted to this epoch of it, with whatever options.

    Why one that is there is left out is told. The model is built to compare digests, so its CLIP must be there.
    """
    if not calibration_path(run).is_file():
        return None
    cfg = restore_cfg(results)
    try:
        fit_to_machine(cfg)
        with redirect_stdout(StringIO()):  # trainers and Dassl tell what they build
            trainer = load_trained(run, results, cfg, results["class_names"], epoch)
        return read_calibration(run, {**trainer.model_identity(), "options": {}})
    except (OSError, ValueError) as error:
        print(f"Without a calibration: {escaped(str(error))}")
        return None


def describe_values(values: Mapping[str, float]) -> str:
    """What a calibration has fitted, in words."""
    return ", ".join(f"{escaped(name)} {value:.4g}" for name, value in values.items())


def without_paths(cfg: CfgNode) -> dict[str, Any]:
    """A run's config, for JSON, without what it knows of the machine: folders, and where CLIP's file is."""
    config: dict[str, Any] = json.loads(json.dumps(cfg))
    config.update(OUTPUT_DIR="", RESUME="")
    config["DATASET"]["ROOT"] = config["MODEL"]["INIT_WEIGHTS"] = config["TEST"]["CALIBRATION"] = ""
    for options in config["TRAINER"].values():
        if isinstance(options, dict):
            options.update({key: "" for key in options if key.endswith("_DIR")})
    config["MODEL"]["BACKBONE"]["NAME"] = portable(config["MODEL"]["BACKBONE"]["NAME"])
    return config


def portable(name: str) -> str:
    """A backbone's name as it can be read elsewhere.

    A path in this project is told from there. Of other absolute paths only the last part is told, or OpenAI's name for
    it.
    """
    before, name = split_path(name)
    path = Path(name).expanduser()
    if not path.is_absolute():
        return before + name
    if ROOT in path.parents:
        return before + path.relative_to(ROOT).as_posix()
    return before + ((not before and published_name(path.name)) or path.name)


def push(path: Path, name: str, public: bool = False) -> None:
    """Put a file into a repository of the Hub, which is made if it is not there.

    Args:
        path: of the file.
        name: `hf-hub:OWNER/NAME`, with `@BRANCH` or without.
        public: whether a new repository can be seen by everyone.

    Raises:
        ValueError: the name is none of a repository, or `huggingface_hub` is not installed.
        OSError: the Hub cannot be reached, or does not take the file.
    """
    repository, revision = split_name(name)
    api = import_client(name).HfApi()
    try:
        api.create_repo(repository, private=not public, exist_ok=True)
        api.upload_file(path_or_fileobj=str(path), path_in_repo=FILE, repo_id=repository, revision=revision)
    except Exception as error:  # of the HTTP library that the client happens to use, too
        reason = " ".join(str(error).split()) or type(error).__name__
        raise OSError(f"{path} is written, and {name} cannot be: {reason}") from error
