"""The study: its plan fits together, runs in this process do what train.py does, its page says what the results say."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
from dataclasses import replace
from pathlib import Path

import pytest

from tools.common.layout import parse
from tools.common.paths import ROOT
from tools.study import methods
from tools.study.__main__ import main
from tools.study.page import PAGE, SEARCHES, TRIAL, searches, write_page
from tools.study.plan import full, quick
from tools.study.run import run_all, write_data_sets
from tools.sweep.experiment import Experiment, execute
from trainers.modules.figures import RECEIVERS

PLANS = [full, quick]


@pytest.mark.parametrize("plan", PLANS)
def test_what_is_tested_has_been_trained_before(plan, tmp_path):
    everything = []
    for group in plan(tmp_path).groups():
        done = set()
        for experiment in group:
            assert experiment.tested is None or experiment.tested in done
            done.update(experiment.folders)
            everything += experiment.folders
    assert len(set(everything)) == len(everything)


@pytest.mark.parametrize("plan", PLANS)
def test_runs_lie_where_tables_look_for_them(plan, tmp_path):
    for group in plan(tmp_path).groups():
        for run in group:
            for folder in run.folders:
                place = parse(folder.relative_to(tmp_path))
                assert place
                assert (place.dataset, place.trainer, place.seed) == (run.dataset, run.trainer, run.seed)
                assert (place.shots, place.classes) == (run.settings["DATASET.NUM_SHOTS"], run.classes)


def test_plan_keeps_settings_apart(tmp_path):
    """Runs of one config in different folders differ in their settings, and all templates of a run have a start."""
    by_settings = {}
    for group in full(tmp_path).groups():
        for run in group:
            if run.train and run.tested is None:
                key = (run.trainer, run.config, run.dataset, run.seed, run.classes, json.dumps(dict(run.settings)))
                by_settings.setdefault(key, []).append(run.folder)
            number = run.settings.get("TRAINER.CDC.N_TEMPLATES", 4)
            assert len(run.settings.get("TRAINER.CDC.CTX_INIT", [""] * number)) == number
    assert all(len(folders) == 1 for folders in by_settings.values())


def test_parts_differ_by_what_their_rows_say():
    def options(method):
        return {key.split(".")[-1] for key in method.settings}

    vsd, dstc = {"AUGMENTATIONS", "BETA", "GAMMA"}, {"DECISION"}
    one = {"N_TEMPLATES", "CTX_INIT"}
    pairs = [(title, options(a) ^ options(b)) for title, a, b in methods.PARTS if b != methods.COOP]
    expected = [one, dstc, vsd, dstc, vsd, {"BETA"}, {"GAMMA"}, {"AUGMENTATIONS"}, vsd | dstc, one | vsd | dstc]
    assert [keys for _, keys in pairs] == expected


def test_config_is_what_the_tables_call_it():
    text = (ROOT / "configs/trainers/CDC/tiny_text.yaml").read_text()
    assert "BETA" not in text.split("TRAINER:")[1]  # the default, 0.1
    for view in methods.VIEWS_OF:
        assert f"- [{', '.join(json.dumps(name) for name in view)}]" in text


def experiment(tmp_path, **changes):
    settings = {"DATASET.NUM_SHOTS": 1, "OPTIM.MAX_EPOCH": 2, "TRAINER.CDC.FEATURE_BANK": 1}
    run = Experiment("CDC", "tiny_text", "digits", 1, "base", tmp_path / "run", settings)
    return replace(run, **changes)


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    write_data_sets(["digits"], data)
    return data


def test_run_and_tests_of_its_epochs(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    run = experiment(tmp_path)
    execute(run, digits)
    assert run.finished
    assert "Finish training" in (run.folder / "log.txt").read_text()
    test = experiment(tmp_path, classes="new", folder=tmp_path / "epoch{}", tested=run.folder, epochs=(1, 2))
    execute(test, digits)
    results = [json.loads((folder / "results.json").read_text()) for folder in test.folders]
    assert [result["epoch"] for result in results] == [1, 2]
    assert {result["classes"] for result in results} == {"new"}
    assert run.metrics()["template1_accuracy"] >= 0

    before = (run.folder / "log.txt").read_text()
    execute(run, digits)
    assert (run.folder / "log.txt").read_text() == before
    monkeypatch.chdir(ROOT)  # where the path of CLIP is another, and the file is the same
    execute(run, digits)
    other = replace(run, settings={**run.settings, "OPTIM.LR": 0.5})
    with pytest.raises(ValueError, match=r"run holds results of another OPTIM.LR: delete it"):
        execute(other, digits)


def test_untrained_run_is_tested_alone(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(ROOT)
    run = experiment(tmp_path, train=False)
    execute(run, digits)
    results = json.loads((run.folder / "results.json").read_text())
    assert (results["epoch"], results["backbone"]) == (0, "weights/tiny_clip.pt.gz")
    assert not (run.folder / "prompt_learner").exists()
    monkeypatch.chdir(tmp_path)
    execute(run, digits)  # which its results do not stop, though the path of CLIP is another here

    options = results["config"]["TRAINER"]["CDC"]  # nor if they are of an older version
    found = options.pop("INVARIANT_MAP")
    del options["SELF_REGULATION"], results["config"]["TASK"], results["config"]["TEST"]["FAR_SETS"]
    options.update({{"ENABLED": "INVARIANT"}.get(name, name): value for name, value in found.items()})
    (run.folder / "results.json").write_text(json.dumps(results))
    execute(run, digits)
    options["INVARIANT"] = True
    (run.folder / "results.json").write_text(json.dumps(results))
    with pytest.raises(ValueError, match=r"another TRAINER\.CDC\.INVARIANT_MAP\.ENABLED: delete it"):
        execute(run, digits)


OPTIONS = argparse.Namespace(
    address=None, gpus_per_run=None, cpus_per_run=None, one_by_one=True, workers=None, report_to=""
)


def test_failed_run_is_named_and_others_go_on(tmp_path, digits, monkeypatch):
    monkeypatch.chdir(tmp_path)
    wrong = experiment(tmp_path, folder=tmp_path / "wrong", settings={"TRAINER.CDC.BETA": -1.0})
    test = experiment(tmp_path, folder=tmp_path / "test", tested=wrong.folder)
    right = experiment(tmp_path, train=False)
    failed, needed = run_all([wrong, test, right], tmp_path, digits, OPTIONS)
    assert str(failed).startswith("wrong: ValueError: ")
    assert "BETA must not be negative" in str(failed)
    assert str(failed).endswith(f"; log: {tmp_path}/sweep/wrong.log")
    assert str(needed) == "test: not run, as it needs wrong"
    assert right.finished

    other = replace(right, settings={**right.settings, "OPTIM.LR": 0.5})
    (failed,) = run_all([other], tmp_path, digits, OPTIONS)  # whose results are there, of other settings
    assert "holds results of another OPTIM.LR" in str(failed)
    assert run_all([right], tmp_path, digits, OPTIONS) == []


class Receiver:
    """Keeps figures, in place of a service."""

    def __init__(self):
        self.figures = {}

    def add_scalar(self, tag, value, step=None, /):
        self.figures[tag] = value

    def close(self, failed=False, /):
        self.figures["failed"] = failed


def test_runs_report_where_the_study_says(tmp_path, digits, monkeypatch):
    receiver = Receiver()
    monkeypatch.setitem(RECEIVERS, "json", lambda folder, name, settings: receiver)  # a package that is there
    run = experiment(tmp_path, train=False)
    options = argparse.Namespace(**{**vars(OPTIONS), "report_to": "json"})
    assert run_all([run], tmp_path, digits, options) == []
    assert receiver.figures["test/accuracy"] == pytest.approx(run.metrics()["accuracy"])
    assert receiver.figures["failed"] is False
    assert run_all([run], tmp_path, digits, OPTIONS) == []  # its results are those without a service

    options.report_to = "mlflow"
    with pytest.raises(ValueError, match=r"--report-to .* must be wandb or json, got 'mlflow'"):
        run_all([run], tmp_path, digits, options)


@pytest.fixture
def finished(tmp_path):
    """The quick plan with made-up results: 50% everywhere, 60% for new classes, and 80% there for text-only CDC."""
    plan = replace(quick(tmp_path / "runs"), seeds=(1, 2))
    for group in plan.groups():
        for run in group:
            for folder in run.folders:
                accuracy = 50.0 if run.classes != "new" else 60.0
                if run.classes == "new" and folder.parts[-2] == "tiny_text":
                    accuracy = 80.0 + run.seed
                figures = {"accuracy": accuracy, "template_similarity": 0.5, "uncertainty": 0.1}
                figures.update({f"template{m}_accuracy": accuracy - m for m in range(1, 5)})
                figures.update({f"{name}_accuracy": 40.0 for name in ("aligned", "conflicting", "worst_group")})
                folder.mkdir(parents=True)
                seconds = 2.0 if run.config in ("tiny", "tiny_text") else 3.0
                seconds *= 3 if folder.parts[-2] == "tiny_text" else 1
                results = {"figures": figures, "train_seconds": seconds}
                (folder / "results.json").write_text(json.dumps(results))
    return plan


def rows_of(page: Path, title: str) -> list[list[str]]:
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [row for row in rows if row[0] == title]


def test_page_says_what_the_results_say(finished, tmp_path):
    page = tmp_path / "docs" / "study.md"
    write_page(finished, page)
    # 81 and 82 on both sets; harmonic mean of 50 and 81.5
    assert rows_of(page, "CDC, text-only")[0] == ["CDC, text-only", "50.00 ± 0.00", "81.50 ± 0.71", "61.98", "6.0"]
    assert rows_of(page, "Zero-shot CLIP")[0] == ["Zero-shot CLIP", "50.00", "60.00", "54.55", ""]
    assert rows_of(page, "all: CDC")[-1][-1] == "40.00 ± 0.00"
    # 81 and 82 against 60 and 60; harmonic means with 50 of 61.83, 62.12 and 54.55
    assert rows_of(page, "VSD beside DSTC")[0][1:] == ["+0.00 ± 0.00", "+21.50 ± 0.71", "+7.43 ± 0.20", "3.0"]
    assert rows_of(page, "DSTC and VSD together, for four templates")[0][-1] == "3.0"
    assert rows_of(page, "CDC before training")[0][1] == "50.00"  # no spread, as it does not depend on the seed
    assert rows_of(page, "0")[0][1:5] == ["0.500", "47.50", "49.00", "50.00"]  # templates have 49 to 46
    for name in ("study_epochs.png", "study_templates.png"):
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in page.read_text()


def test_page_keeps_what_was_written_by_hand(finished, tmp_path):
    page = tmp_path / "study.md"
    write_page(finished, page)
    page.write_text(page.read_text().replace("## Base to new\n", "## Base to new\n\nCDC wins.\n\nOr not.\n"))
    write_page(finished, page)
    assert "## Base to new\n\nCDC wins.\n\nOr not.\n" in page.read_text()
    page.write_text(page.read_text().replace("<!-- made: parts -->", "<!-- made: pieces -->"))
    with pytest.raises(ValueError, match=r"must hold each of the blocks .*parts.* got .*pieces"):
        write_page(finished, page)


def test_new_page_makes_no_claims(finished, tmp_path):
    """What is written by hand on the study's page is about the full study, and not about a trial of it."""
    page = tmp_path / "study.md"
    write_page(finished, page)
    text = page.read_text()
    assert [line for line in PAGE.read_text().splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert "In short" in PAGE.read_text()
    assert "In short" not in text
    assert "- seeds 1, 2; 2 training images per class;" in text


def test_searches_on_the_page_are_those_that_are_kept():
    text = PAGE.read_text()
    assert f"<!-- made: searches -->\n{searches()}\n<!-- end -->" in text
    assert len(list(SEARCHES.glob("*.json"))) == text.count("<code>docs/search/") == 15


def test_page_names_searches_that_are_kept():
    """In its words, beside the tables of the searches."""
    found = re.findall(r"`(\w+\.json)`", (ROOT / "docs/study.md").read_text())
    assert len(found) >= 6
    assert [name for name in found if not (SEARCHES / name).is_file()] == []


def test_page_of_an_unfinished_study_is_refused(finished, tmp_path):
    next(iter(finished.output.glob("base2new/test_new/*/*/CDC/tiny_text+dstc/seed2/results.json"))).unlink()
    with pytest.raises(FileNotFoundError, match=r"dstc/seed2/results.json is missing: the study is not finished"):
        write_page(finished, tmp_path / "study.md")


def test_trial_says_so_on_the_page_and_in_its_pictures(finished, tmp_path):
    """Its gain of CDC over others reads as a result else."""
    page = tmp_path / "page.md"
    contents = {}
    for plan in (finished, replace(finished, overrides={}), finished, finished):
        write_page(plan, page)
        pictures = [(tmp_path / f"page_{name}.png").read_bytes() for name in ("epochs", "templates")]
        contents.setdefault(plan.is_trial, []).append((page.read_text(), *pictures))
    trial, result = contents[True][0], contents[False][0]
    assert contents[True] == [trial] * 3
    assert trial[0] == f"{TRIAL}\n\n{result[0]}"
    assert all(with_text != without for with_text, without in zip(trial[1:], result[1:]))
    assert [plan(tmp_path).is_trial for plan in PLANS] == [False, True]


def test_command_writes_the_page_of_finished_runs(finished, tmp_path, monkeypatch, capsys):
    arguments = [
        "--quick",
        "--seeds",
        "1",
        "2",
        "--output",
        str(tmp_path / "runs"),
        "--page",
        str(tmp_path / "page.md"),
    ]
    monkeypatch.setattr("sys.argv", ["study", *arguments, "--page-only"])
    main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{tmp_path / 'page.md'} is written")
    report = tmp_path / "runs/report.html"
    if importlib.util.find_spec("plotly") and importlib.util.find_spec("jinja2"):
        assert said[1].startswith(f"{report} shows all runs (")
        assert "<title>A trial of the study: its figures mean nothing</title>" in report.read_text(encoding="utf-8")
    else:
        assert said[1].startswith("there is no report, as ")
    write_page(finished, tmp_path / "expected.md")
    assert rows_of(tmp_path / "page.md", "CDC, text-only") == rows_of(tmp_path / "expected.md", "CDC, text-only") != []


def test_command_tells_what_is_missing_and_what_failed(tmp_path, monkeypatch, capsys):
    arguments = ["study", "--quick", "--output", str(tmp_path)]
    monkeypatch.setattr("sys.argv", [*arguments, "--page-only"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err.startswith("tools.study: ")

    monkeypatch.setattr("tools.study.run.write_data_sets", lambda names, data: None)
    monkeypatch.setattr("tools.study.run.run_all", lambda *arguments: ["seed1: OSError: disk is full"])
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "seed1: OSError: disk is full" in capsys.readouterr().err
    assert not (tmp_path / "study.md").exists()
