"""How far the probabilities and scores of runs can be trusted: figures, and pictures of them.

    python -m tools.uncertainty output/open_set/shapes/shots_16/CDC/tiny/seed1 --picture shapes.png

A run is the folder of a test, which holds `predictions.npz`, or a file of that kind, as `predictions_calibrated.npz`.
It need not be a test on an open set. For each run a row of pictures is drawn: a reliability diagram with the histogram
of the confidence, the curves of risk and coverage, and histograms of a score for images predicted rightly and wrongly
and for images of unknown classes. How to read them: docs/uncertainty.md.
"""

from __future__ import annotations

import json
from pathlib import Path

from storage.safe_text import escaped
from tools.common.commands import argument_parser
from tools.common.pipes import ending_quietly


@ending_quietly()
def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.uncertainty", __doc__)
    parser.add_argument("run", nargs="+", type=Path, help="folder of a test (several: a row of pictures for each)")
    parser.add_argument("--picture", metavar="FILE.png", help="draw the pictures; also .pdf, .svg")
    parser.add_argument(
        "--score", default="", help="of the histograms (default: uncertainty where a run has it, else confidence)"
    )
    parser.add_argument("--bins", type=int, default=15, help="bins of confidence of ECE and its diagram (15)")
    args = parser.parse_args(arguments)

    from tools.uncertainty.figures import text_of  # these take seconds to load
    from trainers.modules.predictions import read_predictions

    try:
        runs = {folder: read_predictions(folder) for folder in args.run}
        titles = [title(folder) for folder in runs]
        if len(set(titles)) < len(titles):
            titles = [str(folder) for folder in runs]
        named = dict(zip(titles, runs.values()))
        texts = [f"{escaped(name)}\n{text_of(records, args.bins)}" for name, records in named.items()]
        if args.picture:
            from tools.uncertainty.pictures import draw_runs

            draw_runs(named, args.picture, args.score, args.bins)
    except (OSError, ValueError) as error:
        parser.exit(2, f"tools.uncertainty: {escaped(str(error))}\n")
    print("\n\n".join(texts))


def title(run: Path) -> str:
    """What the `results.json` of a run says that it is; its path where there is none, or one that does not say.

    Args:
        run: the folder, or a file in it, whose name is then part of the title.
    """
    try:
        content = json.loads(((run if run.is_dir() else run.parent) / "results.json").read_text(encoding="utf-8"))
        trainer, dataset, classes = (str(content[name]) for name in ("trainer", "dataset", "classes"))
        return f"{trainer}, {dataset}, {classes} classes, seed {content['seed']}" + f", {run.stem}" * run.is_file()
    except (OSError, ValueError, KeyError, TypeError):
        return str(run)


if __name__ == "__main__":
    main()
