"""What is there: the data sets, whether they are the published ones, and the weights of CLIP."""

from __future__ import annotations

import os
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path

from tools.data.check import Report, check
from tools.results import published
from trainers.modules.loading import CACHE, find_file, is_published, published_address, published_model, weights_digest
from trainers.modules.open_clip_models import OPEN_CLIP_PREFIXES
from trainers.modules.weights import read_state_dict


@dataclass(frozen=True)
class Weights:
    """A CLIP that runs are to use.

    Attributes:
        name: by OpenAI's name, by path, or one of open_clip's.
        path: the file; None where it is not there yet, or is open_clip's.
        model: OpenAI's name of the model, where the file is OpenAI's by its SHA-256; else empty.
        problem: why it cannot be used, and how to get it; empty if it can.
        note: what else there is to say of it.
    """

    name: str
    path: Path | None = None
    model: str = ""
    problem: str = ""
    note: str = ""

    @property
    def is_the_papers(self) -> bool:
        return self.model == published.BACKBONE


def look_at_data(names: Iterable[str], root: Path) -> dict[str, Report]:
    """Have each public data set read, as a run does; what is wrong with it is in its report."""
    reports = {}
    for name in names:
        try:
            reports[name] = check(name, str(root))
        except (OSError, ValueError) as error:
            reports[name] = Report(name, False, [f"wrong     {error}"])
    return reports


def look_at_weights(name: str, download: bool, cache: str = CACHE) -> Weights:
    """Find the file of a CLIP.

    Args:
        name: as of `trainers.modules.loading.load_clip`.
        download: whether OpenAI's file is downloaded where it is not there.
        cache: folder of OpenAI's files.
    """
    if name.startswith(OPEN_CLIP_PREFIXES):
        return Weights(name, note="it is looked for by the runs")
    address = published_address(name)
    if address and not os.path.isfile(os.path.expanduser(name)):
        path = Path(cache).expanduser() / os.path.basename(address)
        get = f"download {address} to {path}"
        if path.is_file() and not is_published(path):
            return Weights(
                name, problem=f"{path} is not OpenAI's file, as its SHA-256 is another: remove it, and {get}"
            )
        if not path.is_file() and not download:
            return Weights(name, note=f"it is not in {path.parent}: it will be downloaded from {address}")
    try:
        found = find_file(name, cache)
    except FileNotFoundError as error:
        return Weights(name, problem=str(error) + (f" (to get it: {get})" if address else ""))
    return Weights(name, found, published_model(found) or "")


def papers_digest(weights: Iterable[Weights], cache: str = CACHE) -> str:
    """The digest by which results name OpenAI's ViT-B/16; empty where no file of it is at hand.

    It is that of the weights, so it is the same for every format of file.
    """
    for known in weights:
        if known.is_the_papers and known.path:
            return weights_digest(read_state_dict(known.path))
    path = Path(cache).expanduser() / published.BACKBONE_FILE
    return weights_digest(read_state_dict(path)) if path.is_file() and is_published(path) else ""
