"""How large the report of the full study is, and how fast it is made and opened.

    python -m tools.study.report_size [--folder DIR]

This writes made-up result files of all runs of `python -m tools.study`, makes the report of them and opens it in
Chromium, which it finds as chromium or google-chrome. It needs playwright.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
import tempfile
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any, NamedTuple

from storage.safe_text import escaped
from tools.common.commands import argument_parser

NEEDED = ("jinja2", "plotly", "playwright")
OPENING_SECONDS = 120  # after which a page without a chart is given up
IMAGES, CLASSES, TEMPLATES, EPOCHS, SIDE = 500, 20, 4, 10, 64  # of each test, training, and picture


class Opening(NamedTuple):
    """How fast a page opens.

    Attributes:
        elapsed: seconds until a chart is drawn.
        busy: seconds of these that the page's main thread computed, whatever else the machine does.
    """

    elapsed: float
    busy: float


def write_runs(output: Path, data: Path) -> int:
    """Write made-up results, records and logs of all runs of the study, and their images; returns how many runs."""
    import numpy as np
    from PIL import Image

    from tools.study.plan import full
    from trainers.modules.predictions import write_predictions

    rng = np.random.default_rng(0)
    (data / "images").mkdir(parents=True)
    paths = [f"images/{index}.png" for index in range(IMAGES)]
    for path in paths:
        Image.fromarray(rng.integers(0, 255, (SIDE, SIDE, 3), dtype=np.uint8)).save(data / path)
    label = (np.arange(IMAGES) % CLASSES).astype(np.int32)
    number = 0
    for experiment in full(output).experiments():
        for folder in experiment.folders:
            number += 1
            folder.mkdir(parents=True, exist_ok=True)
            right = rng.random(IMAGES) < 0.8
            confidence = rng.beta(8, 2, IMAGES)
            records: dict[str, Any] = {
                "path": np.array(paths, dtype=np.str_),
                "label": label,
                "prediction": np.where(right, label, rng.integers(0, CLASSES, IMAGES)).astype(np.int32),
                "confidence": confidence,
                "label_log_prob": np.log(confidence).astype(np.float32),
                "entropy": (1 - confidence).astype(np.float32),
                "sum_of_squares": (confidence**2).astype(np.float32),
            }
            if experiment.trainer == "CDC":
                shape = (IMAGES, TEMPLATES)
                records["template_prediction"] = np.where(
                    rng.random(shape) < 0.7, label[:, None], rng.integers(0, CLASSES, shape)
                ).astype(np.int32)
                records["template_confidence"] = rng.random(shape, dtype=np.float32)
                records["template_uncertainty"] = rng.random(shape, dtype=np.float32)
                records["uncertainty"] = rng.random(IMAGES, dtype=np.float32)
                records["conflict"] = rng.random(IMAGES, dtype=np.float32)
            write_predictions(folder / "predictions.npz", records)
            (folder / "results.json").write_text(json.dumps(_results(experiment, records, data)), encoding="utf-8")
            if experiment.train and experiment.tested is None:
                lines = (
                    f"epoch [{epoch}/{EPOCHS}] batch [10/10] time 0.1 (0.1) data 0.0 (0.0) loss {2 / epoch:.4f} "
                    f"({2 / epoch:.4f}) acc 90.0 (90.0) lr 1.0e-05 eta 0:00:01\n"
                    for epoch in range(1, EPOCHS + 1)
                )
                (folder / "log.txt").write_text("".join(lines), encoding="utf-8")
    return number


def _results(experiment: Any, records: Mapping[str, Any], data: Path) -> dict[str, Any]:
    """A `results.json` as a test writes it."""
    figures = {"accuracy": 100.0 * float((records["prediction"] == records["label"]).mean())}
    figures.update({f"figure{index}": 50.0 for index in range(20)})
    return {
        "trainer": experiment.trainer,
        "dataset": experiment.dataset,
        "backbone": "weights/tiny_clip.pt.gz",
        "backbone_sha256": "0" * 64,
        "seed": experiment.seed,
        "classes": experiment.classes,
        "class_names": [f"class {index}" for index in range(CLASSES)],
        "model_dir": str(experiment.tested or ""),
        "split": "test",
        "images": IMAGES,
        "figures": figures,
        "test_seconds": 2.0,
        "train_seconds": 60.0,
        "trained_values": 8192,
        "peak_memory_bytes": 2**30,
        "versions": {"torch": "2"},
        "device": "cpu",
        "config": {"DATASET": {"ROOT": str(data)}, "SETTINGS": {k: str(v) for k, v in experiment.settings.items()}},
    }


def open_in_browser(page: Path, chromium: str) -> Opening:
    """Open a page in a browser that has opened none before, until a chart is drawn.

    Raises:
        ValueError: the page has drawn none after `OPENING_SECONDS`.
    """
    from playwright.sync_api import sync_playwright

    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": 1600, "height": 900})
        view.set_default_timeout(1000 * OPENING_SECONDS)
        meter = view.context.new_cdp_session(view)
        meter.send("Performance.enable", {"timeDomain": "threadTicks"})
        before = time.perf_counter()
        view.goto(page.absolute().as_uri(), timeout=0)  # the limit is that of the chart, below
        charts = view.locator("[data-chart]")  # drawn as they come into view, below tables of whatever height
        if charts.count():
            charts.first.evaluate("node => node.scrollIntoView()")
        while not view.locator("[data-chart] .main-svg").count():
            if time.perf_counter() - before > OPENING_SECONDS:
                raise ValueError(f"{page} has drawn no chart in {OPENING_SECONDS} seconds")
            time.sleep(0.01)
        elapsed = time.perf_counter() - before
        found = {own["name"]: own["value"] for own in meter.send("Performance.getMetrics")["metrics"]}
        browser.close()
    return Opening(elapsed, found["TaskDuration"])


def main(arguments: list[str] | None = None) -> None:
    parser = argument_parser("tools.study.report_size", __doc__)
    parser.add_argument("--folder", type=Path, help="where the files stay; without it they are removed in the end")
    args = parser.parse_args(arguments)
    missing = [name for name in NEEDED if importlib.util.find_spec(name) is None]
    if missing:
        parser.exit(2, f"tools.study.report_size: it needs {' and '.join(missing)}: pip install -e '.[test]'\n")
    import compat  # noqa: F401  makes `import dassl` work

    from tools.report.gather import gather
    from tools.report.page import write_page

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    if not chromium:
        parser.exit(2, "tools.study.report_size: there is no chromium or google-chrome on the path\n")
    with tempfile.TemporaryDirectory() as temporary:
        folder = args.folder or Path(temporary)
        try:
            runs = write_runs(folder / "output", folder / "data")
            started, busy = time.perf_counter(), time.process_time()
            write_page(gather([folder / "output"]), "The study, with made-up figures", folder / "report.html")
            seconds, busy = time.perf_counter() - started, time.process_time() - busy
            page = folder / "report.html"
            print(f"{runs} runs: made in {seconds:.1f} s ({busy:.1f} s of them computing)", flush=True)
            opening = open_in_browser(page, chromium)
        except (OSError, ValueError) as error:
            parser.exit(2, f"tools.study.report_size: {escaped(str(error))}\n")
        size = page.stat().st_size / 1e6
        print(f"{size:.1f} MB, open after {opening.elapsed:.1f} s ({opening.busy:.1f} s of them computing)")


if __name__ == "__main__":
    main()
