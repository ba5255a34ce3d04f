"""The main job in small: base-to-new on an embedded data set over the embedded CLIP.

    python -m tools.demo [--dataset shapes] [--seeds 1 2 3] [--output output]
    python -m tools.demo --methods all      # every method side by side; else CDC and zero-shot CLIP

Runs the same scripts as on the public data sets, shows a progress bar, and ends with the table Base / New / HM. Runs
that are finished are not run again.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from collections import deque

from tqdm import tqdm

from tools.common.commands import argument_parser
from tools.common.paths import ROOT
from tools.common.scripts import SCRIPT_VARIABLES
from tools.results import text_table

# The methods that can be shown: folder of their scripts, and config
METHODS = {
    "ZeroshotCLIP": ("zsclip", "tiny"),
    "ZeroshotCLIP2": ("zsclip2", "tiny"),
    "CLIPICM": ("clip_icm", "tiny"),
    "CoOp": ("coop", "tiny"),
    "CoCoOp": ("cocoop", "tiny"),
    "KgCoOp": ("kgcoop", "tiny"),
    "MaPLe": ("maple", "tiny"),
    "TCP": ("tcp", "tiny"),
    "PromptSRC": ("promptsrc", "tiny"),
    "MMRL": ("mmrl", "tiny"),
    "CDC-text": ("cdc", "tiny_text"),
    "CDC": ("cdc", "tiny"),
    "CDC-self-regulated": ("cdc", "tiny_self_regulated"),
}
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
    last_lines: deque[str] = deque(maxlen=15)
    done = 0.0
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
    ) as process:
        for line in process.stdout or ():
            last_lines.append(line.rstrip())
            now = progress_of(line) or done
            bar.update(now - done)
            done = now
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join(last_lines))
    bar.update(1 - done)


def main() -> None:
    parser = argument_parser("tools.demo", __doc__)
    parser.add_argument("--dataset", default="shapes", help="an embedded data set")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="seeds")
    parser.add_argument("--output", default=str(ROOT / "output"), help="output folder")
    parser.add_argument(
        "--methods",
        nargs="+",
        default=["CDC", "ZeroshotCLIP"],
        metavar="METHOD",
        choices=["all", *METHODS],
        help=f"all, or among {', '.join(METHODS)}",
    )
    args = parser.parse_args()

    kept = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
    environment = {**kept, "PYTHON": sys.executable, "OUTPUT": os.path.abspath(args.output)}
    methods = METHODS if "all" in args.methods else args.methods
    steps = [(seed, *METHODS[method], half) for seed in args.seeds for method in methods for half in ("base", "new")]
    with tqdm(total=len(steps), bar_format="{l_bar}{bar}| {elapsed}<{remaining}{postfix}") as bar:
        for seed, folder, config, half in steps:
            training = ROOT / "scripts" / folder / "base2new_train.sh"  # it tests the base classes, too
            script = training if half == "base" and training.exists() else training.with_name("base2new_test.sh")
            bar.set_postfix_str(f"{folder}/{script.name} {args.dataset} {seed} ({half})")
            command = ["bash", str(script), args.dataset, str(seed)]
            try:
                run(command, {**environment, "SUB": half, "CFG": config}, bar)
            except RuntimeError as error:
                bar.close()
                sys.exit(f"tools.demo: {error}")
        bar.set_postfix_str("")
    print(text_table(args.output, datasets=[args.dataset]))
    print(f"Logs, checkpoints and every figure lie below {args.output}/base2new.")


if __name__ == "__main__":
    main()
