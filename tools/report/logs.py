"""What a training's log says of its epochs, as all published versions of Dassl print it."""

from __future__ import annotations

import re
from collections import defaultdict
from pathlib import Path

# "epoch [2/50] batch [5/8]" of newer versions of Dassl, "epoch [2/50][5/8]" of older ones
_LINE = re.compile(r"^epoch \[(\d+)/\d+\](?: batch )?\s*\[\d+/\d+\](.*)$", re.MULTILINE)
_METER = re.compile(r"\b([A-Za-z]\w*) (-?[\d.]+(?:e[+-]?\d+)?) \((-?[\d.]+(?:e[+-]?\d+)?)\)")
_TIMES = ("time", "data")
# Bytes that are read of a longer log, from its end
LONGEST = 64 * 2**20


def read_epochs(folder: Path) -> dict[str, dict[int, float]]:
    """The averages over each epoch that a run's logs print: losses, accuracy, uncertainty.

    Args:
        folder: the run's folder, with `log.txt` and, after a resumption, `log.txt-<time>`.

    Returns:
        Name of a meter -> epoch, from 1 on, -> its average when the epoch's last line was printed. A later log replaces
        all earlier values from its own first epoch on.
    """
    meters: dict[str, dict[int, float]] = defaultdict(dict)
    for path in sorted(folder.glob("log.txt*"), key=lambda path: path.stat().st_mtime):
        with path.open("rb") as file:
            file.seek(max(0, path.stat().st_size - LONGEST))
            text = file.read().decode(errors="replace")
        lines = _LINE.findall(text)
        for values in meters.values() if lines else ():
            for epoch in [epoch for epoch in values if epoch >= int(lines[0][0])]:
                del values[epoch]  # this log starts the training again, or resumes it from there
        for epoch, rest in lines:
            for name, _, average in _METER.findall(rest):
                if name not in _TIMES:
                    meters[name][int(epoch)] = float(average)
    return {name: values for name, values in meters.items() if values}
