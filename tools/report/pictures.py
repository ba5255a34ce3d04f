"""Small embedded pictures of test images: those with the most conflict, certain mistakes, those judged differently."""

from __future__ import annotations

import base64
import io
import os
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from PIL import Image

from tools.report import records as figures
from tools.results.runs import Run

SIDE = 96  # pixels of a picture's longer side
MOST = 400  # pictures on a page


class Gallery:
    """Rows of pictures, at most `MOST` of them.

    Args:
        data: folder of the data sets' images; None for the one that each run names in its config.
        number: how many images are in a row; 0 for none.
    """

    def __init__(self, data: str | Path | None, number: int) -> None:
        self.data, self.number = data, number
        self.notes: list[str] = []
        self._embedded: dict[str, str] = {}
        self._left_out: list[str] = []
        self._too_many = 0
        self._pairs_apart: list[str] = []

    def add(
        self,
        report: Any,
        where: Mapping[str, Any],
        names: Sequence[str],
        tests: Mapping[str, figures.Records],
        pair: Sequence[str],
        runs: Mapping[str, Run],
        contents: Mapping[Path, Mapping[str, Any]],
    ) -> None:
        """Add the rows of a data set's part to the report's galleries.

        Args:
            report: to whose `galleries` the rows go.
            where: protocol, data set, part and key.
            names: the class names.
            tests: the records of the test of each system's first seed, by system.
            pair: two systems to compare, or none.
            runs: the run of these records, by system.
            contents: contents of the `results.json` files, by path.
        """
        if not self.number:
            return
        rows = []
        for title, records in tests.items():
            folder = self._folder(contents.get(runs[title].path, {}))
            chosen = [("most conflict", figures.most_conflict(records, self.number))]
            if "conflict" in records or title in pair or len(tests) == 1:
                chosen.append(("most certain mistakes", figures.certain_mistakes(records, self.number)))
            for what, indices in chosen:
                cards = [self._card(records, index, names, folder) for index in indices]
                if cards:
                    rows.append(_row(f"{title}: {what}", [title], runs[title].seed, cards))
        if len(pair) == 2 and len({runs[title].seed for title in pair}) == 1:
            one, other = (tests[title] for title in pair)
            if one["path"].shape == other["path"].shape and (one["path"] == other["path"]).all():
                folder = self._folder(contents.get(runs[pair[0]].path, {}))
                cards = []
                with_templates = [title for title in reversed(pair) if "template_prediction" in tests[title]]
                shown = with_templates[0] if with_templates else pair[1]
                for index in figures.judged_differently(one, other, self.number):
                    card = self._card(tests[shown], index, names, folder)
                    card["opinions_of"] = shown
                    card["verdicts"] = [
                        {"system": title, **_verdict(records, index, names)}
                        for title, records in zip(pair, (one, other))
                    ]
                    cards.append(card)
                if cards:
                    title = f"judged differently by {pair[0]} and {pair[1]}"
                    rows.append(_row(title, list(pair), runs[pair[0]].seed, cards))
            else:
                self._pairs_apart.append(where["key"])
        if rows:
            report.galleries.append({**where, "rows": rows})
        self.notes = self._told()

    def _told(self) -> list[str]:
        notes = []
        if self._left_out:
            number = len(self._left_out)
            notes.append(f"{number} image{' is' if number == 1 else 's are'} not shown, as {self._left_out[0]}")
        if self._too_many:
            cards = "1 card has" if self._too_many == 1 else f"{self._too_many} cards have"
            notes.append(f"{cards} no image, as the page has {MOST} already; --dataset and --images take fewer")
        if self._pairs_apart:
            notes.append(f"the two systems' tests are of different images: {', '.join(self._pairs_apart)}")
        return notes

    def _folder(self, content: Mapping[str, Any]) -> str:
        if self.data is not None:
            return os.fspath(self.data)
        config = content.get("config")
        dataset = config.get("DATASET") if isinstance(config, dict) else None
        root = dataset.get("ROOT") if isinstance(dataset, dict) else None
        return os.path.expanduser(root) if isinstance(root, str) else ""

    def _card(self, records: figures.Records, index: int, names: Sequence[str], folder: str) -> dict[str, Any]:
        path = str(records["path"][index])
        card = {"path": path, "label": names[records["label"][index]], "source": self._picture(path, folder)}
        card["verdicts"] = [{"system": "", **_verdict(records, index, names)}]
        if "template_prediction" in records:
            card["templates"] = [
                {"prediction": names[prediction], "confidence": float(confidence), "uncertainty": float(uncertainty)}
                for prediction, confidence, uncertainty in zip(
                    records["template_prediction"][index],
                    records["template_confidence"][index],
                    records["template_uncertainty"][index],
                )
            ]
        return card

    def _picture(self, path: str, folder: str) -> str:
        """A picture as a data URL, or "" if it cannot be read."""
        whole = os.path.join(folder, path)
        if whole not in self._embedded:
            if sum(map(bool, self._embedded.values())) >= MOST:
                self._too_many += 1
                return ""
            try:
                self._embedded[whole] = _thumbnail(folder, path)
            except (OSError, ValueError, SyntaxError, Image.DecompressionBombError) as error:
                self._left_out.append(f"{whole}: {error}")
                self._embedded[whole] = ""
        return self._embedded[whole]


def _row(title: str, systems: list[str], seed: int, cards: list[dict[str, Any]]) -> dict[str, Any]:
    return {"title": title, "systems": systems, "seed": seed, "cards": cards}


def _thumbnail(folder: str, path: str) -> str:
    """A small picture of an image as a data URL.

    Only images below the folder are read, so that a page, which is passed on, shows no others.
    """
    whole = os.path.realpath(os.path.join(folder, path))
    if os.path.commonpath([whole, os.path.realpath(folder)]) != os.path.realpath(folder):
        raise OSError("it lies outside the folder of the images")
    if not os.path.isfile(whole):
        raise OSError("there is no such file (--data names the folder of the images)")
    with Image.open(whole) as image:
        image.draft("RGB", (2 * SIDE, 2 * SIDE))
        small = image.convert("RGB")
    small.thumbnail((SIDE, SIDE))
    file = io.BytesIO()
    small.save(file, "WEBP", quality=80)
    return "data:image/webp;base64," + base64.b64encode(file.getvalue()).decode()


def _verdict(records: figures.Records, index: int, names: Sequence[str]) -> dict[str, Any]:
    verdict = {
        "prediction": names[records["prediction"][index]],
        "right": bool(records["prediction"][index] == records["label"][index]),
        "confidence": float(records["confidence"][index]),
    }
    for name in ("uncertainty", "conflict"):
        if name in records:
            verdict[name] = float(records[name][index])
    return verdict
