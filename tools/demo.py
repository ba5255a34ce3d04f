"""The main job in small: CDC and zero-shot CLIP, base-to-new, on an embedded data set over the embedded CLIP.

    python -m tools.demo [--dataset shapes] [--seeds 1 2 3] [--output output]

Runs the same scripts as on the public data sets, shows a progress bar, and ends with the table Base / New / HM. Runs
that are finished are not run again.
"""

from __future__ import annotations

import argparse
import os
import re
import subprocess
import sys
from collections import deque
from pathlib import Path

from tqdm import tqdm

from tools.results import text_table

ROOT = Path(__file__).resolve().parent.parent
# What is run for each seed: script, and the half of the classes that it tests
STEPS = (
    ("cdc/base2new_train.sh", "base"),
    ("cdc/base2new_test.sh", "new"),
    ("zsclip/base2new_test.sh", "base"),
    ("zsclip/base2new_test.sh", "new"),
)
# What would make the scripts run something else
SCRIPT_VARIABLES = ("CFG", "LOADEP", "SHOTS", "SUB", "TAG", "TRAINER")
EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\] batch \[(\d+)/(\d+)\]")


def progress_of(line: str) -> float | None:
    """How much of a training run is done, in [0, 1], by a line of its log; None if the line does not say."""
    found = EPOCH.search(line)
    if found is None:
        return None
    epoch, epochs, batch, batches = map(int, found.groups())
    return (epoch - 1 + batch / batches) / epochs


def run(command: list[str], environment: dict[str, str], bar: tqdm) -> None:
    """Run one script, moving the bar by 1 while it works.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
    """
    last_lines = deque(maxlen=15)
    done = 0.0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout:
            last_lines.append(line.rstrip())
            now = progress_of(line) or done
            bar.update(now - done)
            done = now
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join(last_lines))
    bar.update(1 - done)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--dataset", default="shapes", help="an embedded data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds")
    parser.add_argument("--output", default=str(ROOT / "output"), help="output folder")
    args = parser.parse_args()

    kept = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
    environment = {**kept, "PYTHON": sys.executable, "OUTPUT": os.path.abspath(args.output)}
    steps = [(seed, *step) for seed in args.seeds for step in STEPS]
    with tqdm(total=len(steps), bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}") as bar:
        for seed, script, half in steps:
            bar.set_postfix_str(f"{script} {args.dataset} {seed} ({half})")
            command = ["bash", str(ROOT / "scripts" / script), args.dataset, str(seed)]
            try:
                run(command, {**environment, "SUB": half}, bar)
            except RuntimeError as error:
                bar.close()
                sys.exit(f"tools.demo: {error}")
        bar.set_postfix_str("")
    print(text_table(args.output, datasets=[args.dataset]))
    print(f"Logs, checkpoints and every figure lie below {args.output}/base2new.")


if __name__ == "__main__":
    main()
