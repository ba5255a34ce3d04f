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
import time
from collections import Counter, defaultdict, deque
from collections.abc import Iterable
from pathlib import Path
from statistics import mean

from tqdm import tqdm

from tools.common.commands import argument_parser
from tools.common.parts import load_part
from tools.common.paths import ROOT
from tools.common.scripts import SCRIPT_VARIABLES
from tools.results import text_table
from tools.results.render import terminal_width

interrupts_put_off = load_part("interrupts").interrupts_put_off

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
EARLY = 0.05  # share of a training before which it says nothing of how long it takes
STOPPED = re.compile(r"train\.py: (?:stopped|terminated)([^;\n]*)")
EPOCH = re.compile(r"epoch \[(\d+)/(\d+)\] batch \[(\d+)/(\d+)\]")


def script_of(method: str, half: str) -> Path:
    """The script that tests a method on one half of the classes; a training tests the base classes, too."""
    training = ROOT / "scripts" / METHODS[method][0] / "base2new_train.sh"
    return training if half == "base" and training.exists() else training.with_name("base2new_test.sh")


def progress_of(line: str) -> float | None:
    """How much of a training run is done, in [0, 1], by a line of its log; None if the line does not say."""
    found = EPOCH.search(line)
    if found is None:
        return None
    epoch, epochs, batch, batches = map(int, found.groups())
    return (epoch - 1 + batch / batches) / epochs


class Estimate:
    """How long the runs that are left will take, by those that have run so far.

    A kind of run takes what its runs took on the average. Before one of a kind has run, it takes as many times as long
    as the others as its weight says.

    Args:
        kinds: of all runs.
        weights: by kind, how long a run takes beside others.
    """

    def __init__(self, kinds: Iterable[str], weights: dict[str, float]) -> None:
        self.left, self.weights = Counter(kinds), weights
        self.seconds: dict[str, list[float]] = defaultdict(list)

    def done(self, kind: str, seconds: float | None) -> None:
        """Note that a run is done; `seconds` is None where it was finished before."""
        self.left[kind] -= 1
        if seconds is not None:
            self.seconds[kind].append(seconds)

    def remaining(self, kind: str, seconds: float, to_come: float | None) -> float | None:
        """Seconds that are left while a run is under way; None if it is too early to say.

        Args:
            kind: of the run.
            seconds: since it started.
            to_come: that it will still take, by its own pace; None if that is not known.
        """
        seen = {name: mean(values) for name, values in self.seconds.items()}
        if kind not in seen and to_come is not None:
            seen[kind] = seconds + to_come
        if not seen:
            return None
        pace = sum(seen.values()) / sum(self.weights[name] for name in seen)
        whole = {name: seen.get(name, pace * self.weights[name]) for name in self.left}
        if to_come is None:
            to_come = max(whole[kind] - seconds, 0.0)
        return sum(n * whole[name] for name, n in self.left.items()) - whole[kind] + to_come


def in_words(seconds: float | None) -> str:
    """About so long, as the bar shows it."""
    if seconds is None:
        return ""
    minutes = round(seconds / 60)
    if minutes >= 60:
        return f"about {minutes // 60} h {minutes % 60:02} min left, "
    return f"about {minutes} min left, " if minutes else "less than a minute left, "


class Progress:
    """A bar of all runs, with an estimate of what is left.

    Args:
        kinds: of all runs, in order.
        weights: as of `Estimate`.
    """

    def __init__(self, kinds: list[str], weights: dict[str, float]) -> None:
        self.estimate = Estimate(kinds, weights)
        self.weights, self.past = weights, 0.0
        self.total = sum(weights[kind] for kind in kinds)
        self.bar = tqdm(total=self.total, bar_format="{l_bar}{bar}| {elapsed}{postfix}")

    def start(self, kind: str, name: str) -> None:
        """A run starts."""
        self.kind, self.name, self.started = kind, name, time.monotonic()
        self.first: tuple[float, float] | None = None  # share and seconds of the run's first news
        self.show(0.0)

    def show(self, share: float) -> None:
        """Of the run a share is done, in [0, 1]."""
        seconds = time.monotonic() - self.started
        if self.first is None and share:
            self.first = share, seconds  # what came before was no training
        before, since = self.first or (0.0, 0.0)
        to_come = (1 - share) * (seconds - since) / (share - before) if share - before >= EARLY else None
        left = self.estimate.remaining(self.kind, seconds, to_come)
        self.bar.n = min(self.past + share * self.weights[self.kind], self.total)
        self.bar.set_postfix_str(in_words(left) + self.name)

    def end(self, ran: bool) -> None:
        """The run is done, unless it was before."""
        self.estimate.done(self.kind, time.monotonic() - self.started if ran else None)
        self.past += self.weights[self.kind]
        self.bar.n = min(self.past, self.total)


def run(command: list[str], environment: dict[str, str], progress: Progress) -> None:
    """Run one script, and show how far it is.

    Raises:
        RuntimeError: it failed; with the end of what it printed.
        KeyboardInterrupt: Ctrl-C came, and the script has ended; with what it said of that. A second one does not wait.
    """
    last_lines: deque[str] = deque(maxlen=15)
    ran = True
    with (
        subprocess.Popen(
            command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, errors="replace"
        ) as process,
        interrupts_put_off() as interrupts,
    ):  # the script is interrupted, too, and says how far it came
        for line in process.stdout or ():
            last_lines.append(line.rstrip())
            share = progress_of(line)
            if share is not None:
                progress.show(share)
            ran = ran and not line.startswith("Finished already")
        try:
            interrupts.check()
        except KeyboardInterrupt as interrupt:
            told = STOPPED.search("\n".join(last_lines))
            interrupt.args = (f"stopped{told[1] if told else ''}",)
            raise
    if process.returncode:
        raise RuntimeError(f"{' '.join(command)} failed:\n" + "\n".join(last_lines))
    progress.end(ran)


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
    steps = [(seed, method, half) for seed in args.seeds for method in methods for half in ("base", "new")]
    scripts = [script_of(method, half) for _, method, half in steps]
    kinds = [f"{method} {script.name}" for (_, method, _), script in zip(steps, scripts)]
    weights = {kind: 6.0 if "train" in kind else 1.0 for kind in kinds}  # as with CDC on two cores
    progress = Progress(kinds, weights)
    with progress.bar:
        for (seed, method, half), script, kind in zip(steps, scripts, kinds):
            name = f"{script.parent.name}/{script.name} {args.dataset} {seed}"
            progress.start(kind, f"{name} ({half})")
            command = ["bash", str(script), args.dataset, str(seed)]
            try:
                run(command, {**environment, "SUB": half, "CFG": METHODS[method][1]}, progress)
            except RuntimeError as error:
                progress.bar.close()
                sys.exit(f"tools.demo: {error}")
            except KeyboardInterrupt as interrupt:
                interrupt.args = (f"{name}: {str(interrupt) or 'stopped'}; the same command of the demo goes on",)
                raise
        progress.bar.set_postfix_str("")
    print(text_table(args.output, datasets=[args.dataset], width=terminal_width()))
    print(f"Logs, checkpoints and every figure lie below {args.output}/base2new.")


if __name__ == "__main__":
    main()
