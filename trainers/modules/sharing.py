"""What a run has trained as one small safetensors file, to be handed on: parameters, and a header that says of what.

The header is JSON, in the file's texts under `HEADER`. It holds what is needed to build the model again: the method,
the whole config, the class names, and the digest of CLIP's weights. CLIP itself is not in the file.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from torch import Tensor

from .archives import printable
from .hub import PREFIX, hub_file
from .inert_pickle import Unreadable
from .plain_content import content_problem
from .tensor_file import SUFFIX, is_tensor_file, read_tensor_file, write_tensor_file

HEADER = "cdc"
FORMAT = 1  # counts up when older versions cannot read the newer files
FILE = "model.safetensors"  # in a repository of the Hub
MOST_CHARACTERS = 10_000_000  # of the header; a thousand classes take some 50,000
KINDS: dict[str, type] = {
    "trainer": str,
    "config": dict,
    "class_names": list,
    "epoch": int,
    "backbone_sha256": str,
    "figures": dict,
}


def write_shared(path: str | Path, state_dict: Mapping[str, Tensor], about: Mapping[str, Any]) -> None:
    """Write the file, whole or not at all.

    Args:
        path: of the file; its folder exists. It is replaced if it is there.
        state_dict: what was trained.
        about: the header, plain data with at least the keys of `KINDS`.

    Raises:
        ValueError: the header lacks something.
        OSError: the folder cannot be written or the disk is full.
    """
    header = {"format": FORMAT, **about}
    problem = _problem(header)
    if problem:
        raise ValueError(f"{path} would not be a whole file of trained prompts: {problem}")
    write_tensor_file(path, state_dict, {HEADER: json.dumps(header, ensure_ascii=False, allow_nan=False)})


def read_shared(path: str | Path) -> tuple[dict[str, Tensor], dict[str, Any]]:
    """What was trained, on the CPU, and the header.

    Raises:
        Unreadable: it is broken, was not written by `write_shared`, or by a newer version.
        ValueError: the package `safetensors` is not installed.
        OSError: the file cannot be opened.
    """
    state_dict, texts = read_tensor_file(path)
    if HEADER not in texts:
        raise Unreadable("it is a safetensors file without the header that tools.export writes")
    if len(texts[HEADER]) > MOST_CHARACTERS:
        raise Unreadable(f"its header has more than {MOST_CHARACTERS:,} characters")
    try:
        about = json.loads(texts[HEADER])
    except (ValueError, RecursionError) as error:
        raise Unreadable(f"its header is not JSON ({printable(str(error), 200)})") from error
    problem = _problem(about)
    if problem:
        raise Unreadable(problem)
    return state_dict, about


def _problem(about: object) -> str:
    """What is wrong with a header; "" if nothing is."""
    problem = content_problem(about, FORMAT, KINDS, "header")
    if problem or not isinstance(about, dict):
        return problem
    if not all(isinstance(name, str) and name.strip() for name in about["class_names"]):
        return "in its header class_names must be texts that are not empty"
    return ""


def find_shared(place: str | Path) -> Path | None:
    """The file that a name stands for, or None where it stands for none.

    Args:
        place: the file itself; a folder with one; or `hf-hub:OWNER/NAME`, with `@REVISION` or without, a repository of
            the Hugging Face Hub with `FILE`.

    Raises:
        FileNotFoundError: the repository has none, or cannot be reached.
        ValueError: the folder has several, or `huggingface_hub` is not installed.
    """
    if str(place).startswith(PREFIX):
        return hub_file(str(place), FILE)
    path = Path(place).expanduser()
    if path.is_file():
        return path if path.suffix == SUFFIX or is_tensor_file(path) else None
    there = sorted(path.glob(f"*{SUFFIX}"))
    if len(there) > 1:
        raise ValueError(f"{path} holds several files {', '.join(each.name for each in there)}: name one of them")
    return there[0] if there else None


def explain(problems: Sequence[str], about: Mapping[str, Any], trainer: str, options: Mapping[str, Any]) -> list[str]:
    """Why a run cannot take a file, an error each, without its subject; empty where it can.

    Args:
        problems: with the file's parameters, by names and shapes.
        about: the file's header.
        trainer: the run's method.
        options: of the run's method.
    """
    if about["trainer"] != trainer:
        return [f"is one of {printable(about['trainer'])}"]
    trainers = about["config"].get("TRAINER")
    given = trainers.get(trainer.upper()) if isinstance(trainers, dict) else None
    if not problems or not isinstance(given, dict):
        return list(problems)
    return other_options(_leaves(given), options) + list(problems)


def other_options(there: Mapping[str, Any], options: Mapping[str, Any]) -> list[str]:
    """How a training's options differ from a run's, an error each, without its subject.

    Where parameters do not fit, this says more than their names and shapes.

    Args:
        there: the training's, by key: `INVARIANT_MAP.K`.
        options: the run's. Lists, PREC and options that the training does not have are left out.
    """
    return [
        f"was trained with {key} {printable(str(there[key]))}, where this run has {value}"
        for key, value in _leaves(options).items()
        if key != "PREC" and key in there and there[key] != value
    ]


def _leaves(options: Mapping[str, Any], prefix: str = "") -> dict[str, str | float]:
    """Texts and numbers among options, also those in groups, by their keys: `INVARIANT_MAP.K`."""
    found: dict[str, str | float] = {}
    for key, value in options.items():
        if isinstance(value, Mapping):
            found.update(_leaves(value, f"{prefix}{key}."))
        elif isinstance(value, (str, int, float)):
            found[f"{prefix}{key}"] = value
    return found
