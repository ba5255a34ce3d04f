"""How the settings were chosen: the searches at equal budget, and the earlier grids."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tools.common.paths import ROOT
from tools.study.tables import table

# Each the `trials.json` that `tools.search` wrote, named <trainer>_<config>.json. `discarded` has trials, by
# their numbers, and why the config does not have their values
SEARCHES = ROOT / "docs" / "search"
GRIDS = SEARCHES / "grids"  # as `tools.search --save` writes them


def searches() -> str:
    """A row for each search, and its trials folded away under its command."""
    rows, details = [], []
    for path in sorted(SEARCHES.glob("*.json")):
        search = json.loads(path.read_text(encoding="utf-8"))
        trials, discarded = search["trials"], search.get("discarded", {})
        trainer, _, config = path.stem.partition("_")
        (own,) = (trial for trial in trials if trial["own"])
        pruned = sum(trial["state"] == "pruned" for trial in trials)
        counts = [str(len(trials)), str(pruned)]
        best = taken(search)
        rows.append([f"{trainer} `{config}`", *counts, f"{own['hm']:.2f}", f"{best['hm']:.2f}"])
        keys = list(trials[0]["values"])
        header = ["", *(f"`{key}`" for key in keys), "pseudo-base", "pseudo-new", "HM"]
        cells = [
            [_state(trial, discarded), *(_value(trial["values"].get(key, "")) for key in keys), *_scores(trial)]
            for trial in trials
        ]
        details.append(_folded(path, search["command"], table(cells, header)))
    header = ["trainer and config", "trials", "pruned", "HM at the start", "HM of the trial taken"]
    return "\n\n".join([table(rows, header), *details])


def grids() -> str:
    """The grids, each folded away under its command."""
    text = []
    for path in sorted(GRIDS.glob("*.json")):
        grid = json.loads(path.read_text(encoding="utf-8"))
        rows = [[cell if isinstance(cell, str) else f"{cell:.2f}" for cell in row] for row in grid["rows"]]
        text.append(_folded(path, grid["command"], table(rows, grid["header"])))
    return "\n\n".join(text)


def _folded(path: Path, command: str, shown: str) -> str:
    name = path.relative_to(ROOT).as_posix()
    return f"<details><summary><code>{name}</code></summary>\n\n```\n{command}\n```\n\n{shown}\n\n</details>"


def taken(search: dict[str, Any]) -> dict[str, Any]:
    """The trial whose values the config has: the best one that is not discarded."""
    return next(trial for trial in search["trials"] if str(trial["number"]) not in search.get("discarded", {}))


def _state(trial: dict[str, Any], discarded: dict[str, str]) -> str:
    if str(trial["number"]) in discarded:
        return f"discarded: {discarded[str(trial['number'])]}"
    if trial["own"]:
        return "the start"
    return f"pruned, epoch {trial['epoch']}" if trial["state"] == "pruned" else str(trial["state"])


def _value(value: object) -> str:
    return f"{value:.4g}" if isinstance(value, float) else str(value)


def _scores(trial: dict[str, Any]) -> list[str]:
    score = trial["score"]
    return [f"{number:.2f}" for number in (score["base"], score["new"], trial["hm"])] if score else ["-"] * 3
