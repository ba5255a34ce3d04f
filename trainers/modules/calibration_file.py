"""A run's `calibration.json`: numbers that were fitted, on what, for which parameters, and what they bring there.

A file of `sharing` can hold the same, as `calibration` in its header.

Legend: N images that it was fitted on.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from storage.files import atomic_write

from .inert_pickle import Unreadable
from .plain_content import content_problem, is_number
from .sharing import find_shared, read_shared

FILE_NAME = "calibration.json"
FORMAT = 1  # counts up when older versions cannot read the newer files
STATES = ("before", "after")
KEYS: dict[str, type] = {
    "trainer": str,
    "epoch": int,
    "trained_sha256": str,
    "backbone_sha256": str,
    "options": dict,
    "values": dict,
    "at_bound": list,
    "fitted_on": dict,
    "figures": dict,
    "best_score": dict,
    "images": dict,
}


def calibration_path(place: str | Path) -> Path:
    """The file itself, or the one in a run's folder."""
    path = Path(place).expanduser()
    return path / FILE_NAME if path.is_dir() else path


def write_calibration(run: str | Path, content: Mapping[str, Any]) -> Path:
    """Write the file into a run's folder, whole or not at all. One that holds the same is left as it is.

    Args:
        run: the folder.
        content: plain data under `KEYS`: trainer, epoch and options of the run; digests of what was trained and of
            CLIP; `values` by name, and the names of those that are at a bound; what they were fitted on; `figures` on
            these images, and the score that detects mistakes best, `before` and `after`; and of the `images` in the
            same way `wrong`, N of 0 and 1, and `scores`, N numbers by name.

    Raises:
        OSError: the folder cannot be written or the disk is full.
        ValueError: the content is none of such a file.
    """
    path = Path(run, FILE_NAME)
    whole = {"format": FORMAT, **content}
    problem = _problem(whole)
    if problem:
        raise ValueError(f"{path} would not be a whole calibration: {problem}")
    text = _pretty(whole)
    if not path.is_file() or path.read_bytes() != text.encode():
        with atomic_write(path) as part:
            part.write_text(text, encoding="utf-8")
    return path


def read_calibration(place: str | Path, model: Mapping[str, Any]) -> dict[str, Any]:
    """What the file holds, see `write_calibration`, if it was fitted to this model.

    Args:
        place: the file, the folder of the run, or what `find_shared` takes; there the file in the same folder is taken
            if the shared one holds none.
        model: trainer, epoch, trained_sha256, backbone_sha256 and options of the model that it is for.

    Raises:
        FileNotFoundError: there is none.
        ValueError: it is broken, of a newer version, or fitted to another model, as one that was trained further since.
    """
    path = calibration_path(place)
    again = f"`python -m tools.calibrate {path.parent if path.name == FILE_NAME else path}` makes"
    shared = None if path.name == FILE_NAME and path.is_file() else find_shared(place)
    if shared:
        path, beside = shared, shared.with_name(FILE_NAME)
        again = "`python -m tools.calibrate` and then `python -m tools.export` of the run that it is from make"
        content = _shared_content(shared)
        if content is None and beside.is_file():
            return read_calibration(beside, model)
        if content is None:
            raise FileNotFoundError(f"there is no calibration in {shared}; {again} a file with one")
    elif path.is_file():
        content = _content(path)
    else:
        raise FileNotFoundError(f"there is no calibration {path}; {again} one")
    problem = _problem(content)
    if problem:
        raise ValueError(f"{path} is not a whole calibration: {problem}")
    problem = _other_model(content, model)
    if problem:
        raise ValueError(f"{path} {problem}; {again} a new one")
    return dict(content)


def _content(path: Path) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (ValueError, RecursionError) as error:
        raise ValueError(f"{path} is not a whole calibration: {error}") from error


def _shared_content(path: Path) -> Any:
    """What a shared file holds of a calibration; None for nothing."""
    try:
        return read_shared(path)[1].get("calibration")
    except Unreadable as error:
        raise ValueError(f"{path} is not a whole file of trained prompts: {error}") from error


def _other_model(content: Mapping[str, Any], model: Mapping[str, Any]) -> str:
    """Why a file does not fit a model, an error without its subject; "" if it does."""
    if content["trainer"] != model["trainer"]:
        return f"was fitted to a model of {content['trainer']}, and this one is of {model['trainer']}"
    if content["backbone_sha256"] != model["backbone_sha256"]:
        return "was fitted with other weights of CLIP"
    if content["epoch"] != model["epoch"]:
        return f"was fitted to epoch {content['epoch']}, and this is epoch {model['epoch']}"
    if content["trained_sha256"] != model["trained_sha256"]:
        return "was fitted to another training than this one"
    fitted = content["options"]
    other = [
        f"{f'{key} {fitted[key]!r}' if key in fitted else f'no option {key}'}, where it is now {value!r}"
        for key, value in model["options"].items()
        if key not in fitted or fitted[key] != value
    ]
    return f"was fitted with {'; '.join(other)}" if other else ""


def _pretty(content: Mapping[str, Any]) -> str:
    """JSON with a line for each entry of the first two levels, so that numbers of many images take one line."""
    lines = []
    for key, value in content.items():
        if isinstance(value, dict) and value:
            inner = ",\n".join(f"  {json.dumps(name)}: {_compact(own)}" for name, own in value.items())
            lines.append(f" {json.dumps(key)}: {{\n{inner}\n }}")
        else:
            lines.append(f" {json.dumps(key)}: {_compact(value)}")
    return "{\n" + ",\n".join(lines) + "\n}\n"


def _compact(value: object) -> str:
    return json.dumps(value, allow_nan=False)


def _problem(content: object) -> str:
    """What is wrong with the content of a file; "" if nothing is."""
    problem = content_problem(content, FORMAT, KEYS)
    if problem or not isinstance(content, dict):
        return problem
    values = content["values"].values()
    if not values or not all(is_number(value) for value in values) or not content["values"].get("scale", 1) > 0:
        return f"its values must be finite numbers, got {content['values']!r:.200}"
    if not content["values"].get("temperature", 1) > 0:
        return f"its temperature must be above 0, got {content['values']['temperature']}"
    for state in STATES:
        problem = _images_problem(content["images"].get(state), content["best_score"].get(state))
        if problem or not isinstance(content["figures"].get(state), dict):
            return f"{problem or 'it has no figures'} {state} calibration"
    return ""


def _images_problem(images: object, best: object) -> str:
    """What is wrong with the records of the images."""
    if not isinstance(images, dict) or not isinstance(images.get("scores"), dict):
        return "it has no images"
    wrong, scores = images.get("wrong"), images["scores"]
    if not isinstance(wrong, list) or not wrong or any(type(flag) is not int or flag not in (0, 1) for flag in wrong):
        return "it does not say with 0 and 1 which images are wrong"
    for name, values in scores.items():
        if not isinstance(values, list) or len(values) != len(wrong) or not all(map(is_number, values)):
            return f"its score {name} must be {len(wrong)} finite numbers"
    return (
        ""
        if isinstance(best, str) and best in scores
        else f"its best score {best!r:.200} is none of {', '.join(scores) or 'none'}"
    )
