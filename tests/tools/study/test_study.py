"""The study: runs in this process do what train.py does, its page says what the results say."""

from __future__ import annotations

import argparse
import importlib.util
import json
import re
import shutil
from dataclasses import replace
from pathlib import Path

import pytest

from tools.common.blocks import contents
from tools.common.paths import ROOT
from tools.study import methods
from tools.study.__main__ import main
from tools.study.page import PAGE, TRIAL, write_page
from tools.study.plan import CALIBRATED, full, quick
from tools.study.results import AFTER, TWICE, read_figures, read_kept, write_kept
from tools.study.run import run_all, write_data_sets
from tools.study.searches import GRIDS, SEARCHES, grids, searches, taken
from tools.sweep.experiment import Experiment, execute
from trainers.modules.figures import RECEIVERS


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
    execute(replace(run, settings={**run.settings, "TRAIN.PRINT_FREQ": 3}), digits)  # which changes no result
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


def test_runs_are_calibrated_and_then_tested(tmp_path, digits):
    """Once, on validation images of base classes; a test has the figures of the run's own before, and others after."""
    plan = replace(quick(tmp_path), sets=("digits",), calibrated_sets=("digits",), far=(), shots=1)
    plan = replace(plan, calibrated_methods=(methods.ZERO_SHOT, methods.COOP), overrides={"OPTIM.MAX_EPOCH": 1})
    runs = plan.experiments(["calibration"])[:6]
    assert run_all(runs, tmp_path, digits, OPTIONS) == []
    fitted = []
    for run, open_set, new in (runs[:3], runs[3:]):
        assert (open_set.calibrated, new.calibrated) == (run.folder, run.folder)
        fitted.append((run.folder / "calibration.json", (run.folder / "calibration.json").stat().st_mtime_ns))
        content = json.loads(fitted[-1][0].read_text())
        about = {"what": "validation", "dataset": "Digits", "classes": "base", "images": 5}
        assert about.items() <= content["fitted_on"].items()
        found, own = open_set.metrics(), run.metrics()
        assert {name: found[name] for name in own} == pytest.approx(own)
        assert {"near/auroc_open_confidence", "near/auroc_open_confidence_calibrated"} <= found.keys()
        assert new.metrics()["nll_calibrated"] != new.metrics()["nll"]
        assert json.loads((new.folder / "results.json").read_text())["calibration"]["values"] == content["values"]

    path = open_set.folder / "results.json"
    edited = json.loads(path.read_text())
    edited["config"]["TEST"]["FAR_SETS"] = ["/gone/configs/datasets/symbols.yaml"]  # of another checkout
    path.write_text(json.dumps(edited))
    execute(
        replace(open_set, settings={**open_set.settings, "TEST.FAR_SETS": ["configs/datasets/symbols.yaml"]}), digits
    )
    with pytest.raises(ValueError, match=r"another TEST\.FAR_SETS: delete it"):
        execute(open_set, digits)
    path.unlink()
    (new.folder / "results.json").unlink()
    assert run_all(runs, tmp_path, digits, OPTIONS) == []
    assert open_set.finished
    assert new.finished
    assert [(file, file.stat().st_mtime_ns) for file, _ in fitted] == fitted


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
    """The quick plan with made-up results of two seeds: 50%, 60% for new classes, and there 81% and 82% of CDC."""
    plan = replace(quick(tmp_path / "runs"), seeds=(1, 2), more_seeds=(), parts_seeds=())
    for run in plan.experiments():
        for folder in run.folders:
            accuracy = 50.0 if run.classes != "new" else 60.0
            if run.classes == "new" and folder.parts[-3:-1] == ("CDC", "tiny"):
                accuracy = 80.0 + run.seed
            figures = {"accuracy": accuracy, "ece": 5.0, "auroc_error_confidence": 90.0, "aurc_confidence": 3.0}
            if run.trainer == "CDC":
                figures.update({"auroc_error_uncertainty": 70.0, "aurc_uncertainty": 4.0, "uncertainty": 0.1})
                figures.update({f"template{m}_accuracy": accuracy - m for m in range(1, 5)}, template_similarity=0.5)
            if run.dataset in plan.confounded:
                figures.update({f"{name}_accuracy": 40.0 for name in ("aligned", "conflicting", "worst_group")})
            if CALIBRATED in folder.parts:
                names = [f"{name}{after}" for after in ("", AFTER) for name in TWICE]
                figures = {**dict.fromkeys(names, 5.0), **figures}
            folder.mkdir(parents=True)
            results = {"figures": figures, "train_seconds": 6.0 if folder.parts[-2] == "tiny" else 3.0}
            (folder / "results.json").write_text(json.dumps(results))
    return plan


@pytest.fixture
def no_pictures(monkeypatch):
    """They take longer than the tables."""
    for name in ("draw_differences", "draw_numbers", "draw_epochs"):
        monkeypatch.setattr(f"tools.study.pictures.{name}", lambda measured, path: False)


def figures_of(plan):
    folders = [folder for experiment in plan.experiments() for folder in experiment.folders]
    return read_figures(plan.output, folders)


def rows_of(page: Path, title: str) -> list[list[str]]:
    lines = [line for line in page.read_text().splitlines() if line.startswith("|")]
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in lines]
    return [row for row in rows if row[0] == title]


def test_page_says_what_the_results_say(finished, tmp_path):
    page = tmp_path / "docs" / "study.md"
    write_page(finished, figures_of(finished), page)
    text = page.read_text()
    # 81 and 82 against 60 and 60 on both sets; harmonic means with 50 of 61.98 and 54.55
    difference = rows_of(page, "MaPLe")[0]
    assert difference[1] == "+0.00 [+0.00, +0.00]"
    # Draws of two values reach both; the bounds are away by 0.5 sqrt(2) 4.303 / 1.960, of two degrees of freedom
    assert difference[2] == "**+21.50 [+19.95, +23.05]**"
    assert difference[3].startswith("**+7.43 [+6.9")
    assert difference[4:] == ["2", "New, HM"]
    own = [row for row in rows_of(page, "CDC") if len(row) == 6]
    assert own[0] == ["CDC", "50.00 ± 0.00", "81.50 ± 0.71", "61.98", "2", "6.0"]
    zero_shot = [row for row in rows_of(page, "Zero-shot CLIP") if len(row) == 6]
    assert ["Zero-shot CLIP", "50.00", "60.00", "54.55", "", ""] in zero_shot
    assert rows_of(page, "VSD beside DSTC")[0][2].startswith("**+21.50")
    assert rows_of(page, "0")[0][1:5] == ["0.500", "47.50", "49.00", "50.00"]  # templates have 49 to 46
    assert f"{CDC_LONG}: 2.0" in text  # 6 seconds against 3
    assert "Missing" not in text
    assert "`base2new`    | base-to-new of all methods" in text
    assert "112 of 112" not in text  # of two seeds, but those methods that do not depend on the seed
    for name in ("study_epochs.png", "study_templates.png", "study_differences.png"):
        assert (page.parent / name).read_bytes().startswith(b"\x89PNG")
        assert f"]({name})" in text


CDC_LONG = "CDC in place of one template, four times the epochs"


def test_page_keeps_what_was_written_by_hand(finished, no_pictures, tmp_path):
    page, figures = tmp_path / "study.md", figures_of(finished)
    write_page(finished, figures, page)
    page.write_text(page.read_text().replace("## Base to new\n", "## Base to new\n\nCDC wins.\n\nOr not.\n"))
    write_page(finished, figures, page)
    assert "## Base to new\n\nCDC wins.\n\nOr not.\n" in page.read_text()
    page.write_text(page.read_text().replace("<!-- made: parts -->", "<!-- made: pieces -->"))
    with pytest.raises(ValueError, match=r"must hold each of the blocks .*parts.* got .*pieces"):
        write_page(finished, figures, page)


def test_new_page_makes_no_claims(finished, no_pictures, tmp_path):
    """What is written by hand on the study's page is about the full study, and not about a trial of it."""
    page = tmp_path / "study.md"
    write_page(finished, figures_of(finished), page)
    text, now = page.read_text(), PAGE.read_text()
    assert [line for line in now.splitlines() if line.startswith("#")] == [
        line for line in text.splitlines() if line.startswith("#")
    ]
    assert "How to read it" in now
    assert "How to read it" not in text
    assert "- seeds 1, 2; 2 training images per class;" in text


def test_page_is_that_of_the_figures_which_are_kept(no_pictures, tmp_path):
    """Its tables, as the repository has them, follow from docs/study.csv."""
    page, kept = tmp_path / "study.md", PAGE.with_suffix(".csv")
    page.write_text(PAGE.read_text(), encoding="utf-8")
    write_page(full(ROOT / "output" / "study"), read_kept(kept), page)
    now, made = contents(PAGE.read_text()), contents(page.read_text())
    assert [name for name in now if now[name] != made[name] and not name.endswith("drawn")] == []


def test_searches_on_the_page_are_those_that_are_kept():
    text = PAGE.read_text()
    assert f"<!-- made: searches -->\n{searches()}\n<!-- end -->" in text
    assert f"<!-- made: grids -->\n{grids()}\n<!-- end -->" in text
    kept = [path.relative_to(ROOT) for folder in (SEARCHES, GRIDS) for path in folder.glob("*.json")]
    assert all(f"<code>{path.as_posix()}</code>" in text for path in kept)
    assert len(kept) == text.count("<code>docs/search/")


def test_page_names_searches_that_are_kept():
    """In its words, beside the tables of the searches."""
    found = re.findall(r"`(\w+\.json)`", (ROOT / "docs/study.md").read_text())
    assert len(found) >= 6
    assert [name for name in found if not ((SEARCHES / name).is_file() or (GRIDS / name).is_file())] == []


def test_page_says_what_the_searches_found_of_self_regulation():
    text = " ".join(PAGE.read_text().partition("## How the settings were chosen")[2].split())
    quoted = {
        "CDC_tiny": "for CDC,",
        "CDC_tiny_independent": "for CDC with independent templates",
        "PromptSRC_tiny": "for PromptSRC",
        "CDC_tiny_self_regulated": "for self-regulated CDC",
    }
    for name, words in quoted.items():
        found = taken(json.loads((SEARCHES / f"{name}.json").read_text()))
        assert f"{found['hm']:.2f} {words}" in text


def test_searched_configs_have_the_values_of_the_trial_taken():
    """Rounded, and by the same number of trials for each."""
    for path in SEARCHES.glob("*.json"):
        search = json.loads(path.read_text())
        assert len(search["trials"]) == 20
        settings = methods.settings_of(*path.stem.split("_", 1))
        for key, value in taken(search)["values"].items():
            if isinstance(value, float):
                assert settings[key] == float(f"{value:.4g}"), (path.name, key)
            elif isinstance(value, int):
                assert settings[key] == value, (path.name, key)


def test_page_of_an_unfinished_study_says_what_is_missing(finished, no_pictures, tmp_path):
    plan = finished
    for seed in plan.seeds:
        (plan.half(methods.MAPLE, "digits", seed, "new") / "results.json").unlink()
    (plan.half(methods.NO_CONSISTENCY, "digits", 2, "base") / "results.json").unlink()
    page = tmp_path / "study.md"
    write_page(plan, figures_of(plan), page)
    made = contents(page.read_text())
    assert rows_of(page, "MaPLe")[0] == ["MaPLe", "—", "—", "—", "—", "—"]
    assert "\n\nMissing: all seeds: MaPLe.\n" in made["differences"]
    assert made["base to new"].endswith("\n\nMissing: all seeds: MaPLe.")
    assert "Missing: all seeds: MaPLe; seed 2: CDC without (3)." in made["parts"]
    assert rows_of(page, "of VSD: consistency loss (3)")[0][1:] == [
        "+0.00",
        "+21.00",
        "+7.29",
        "1",
        "—",
    ]  # of seed 1, 50 and 81
    assert "Missing" not in made["uncertainty"].replace("Missing: all seeds: MaPLe", "")


def test_a_section_whose_own_runs_are_missing_says_so(finished, no_pictures, tmp_path):
    """Though it needs runs of another section, which are there."""
    figures, page = figures_of(finished), tmp_path / "study.md"
    figures = {name: own for name, own in figures.items() if not name.startswith(f"{CALIBRATED}/")}
    write_page(finished, figures, page)
    made = contents(page.read_text())
    told = "No runs yet: `python -m tools.study --only calibration`."
    names = ["calibration", "open set", "calibration, shifted", "calibration, differences", "averaged, differences"]
    assert [name for name, text in made.items() if text == told] == names


def test_trial_says_so_on_the_page_and_in_its_pictures(finished, tmp_path):
    """Its gain of CDC over others reads as a result else."""
    page, figures = tmp_path / "page.md", figures_of(finished)
    contents = {}
    for plan in (finished, replace(finished, overrides={}), finished):
        write_page(plan, figures, page)
        pictures = [(tmp_path / f"page_{name}.png").read_bytes() for name in ("epochs", "templates", "differences")]
        contents.setdefault(plan.is_trial, []).append((page.read_text(), *pictures))
    trial, result = contents[True][0], contents[False][0]
    assert contents[True] == [trial] * 2
    assert trial[0] == f"{TRIAL}\n\n{result[0]}"
    assert all(with_text != without for with_text, without in zip(trial[1:], result[1:]))
    assert [plan(tmp_path).is_trial for plan in (full, quick)] == [False, True]


def test_command_writes_the_page_of_finished_runs(finished, no_pictures, tmp_path, monkeypatch, capsys):
    """And again, where the runs are gone, from the figures that it has kept."""
    runs, page = tmp_path / "runs", tmp_path / "page.md"
    arguments = ["--quick", "--seeds", "1", "2", "--output", str(runs), "--page", str(page)]
    monkeypatch.setattr("sys.argv", ["study", *arguments, "--page-only"])
    main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].startswith(f"{page} is written")
    report = runs / "report.html"
    if importlib.util.find_spec("plotly") and importlib.util.find_spec("jinja2"):
        assert said[1].startswith(f"{report} shows all runs that are here (")
        assert "<title>A trial of the study: its figures mean nothing</title>" in report.read_text(encoding="utf-8")
    else:
        assert said[1].startswith("there is no report, as ")
    write_page(finished, figures_of(finished), tmp_path / "expected.md")
    expected = (tmp_path / "expected.md").read_text().replace("(expected_", "(page_")
    assert page.read_text() == expected

    runs.rename(tmp_path / "gone")
    page.unlink()
    main()
    assert page.read_text() == expected
    assert f"its figures are those that {tmp_path / 'page.csv'} keeps" in capsys.readouterr().out


@pytest.fixture
def shared(finished, no_pictures, tmp_path, monkeypatch):
    """Its figures, its runs moved away, and a study that makes those it is to do from them again."""
    figures, asked = figures_of(finished), []
    finished.output.rename(tmp_path / "gone")

    def run(runs, output, *arguments):
        for each in runs:
            for folder in each.folders:
                shutil.copytree(tmp_path / "gone" / folder.relative_to(output), folder, dirs_exist_ok=True)
        asked.append([each.folder for each in runs])
        return []

    def study(*options):
        given = ["--quick", "--output", str(finished.output), "--page", str(tmp_path / "page.md"), *map(str, options)]
        monkeypatch.setattr("sys.argv", ["study", *given])
        main()

    monkeypatch.setattr("tools.study.run.write_data_sets", lambda names, data: None)
    monkeypatch.setattr("tools.study.run.run_all", run)
    return argparse.Namespace(figures=figures, asked=asked, study=study, name=tmp_path / "page.csv", folder=tmp_path)


SEEDS = ("--seeds", 1, 2)


def test_study_goes_on_from_the_figures_of_another_machine(finished, shared, capsys):
    """Their runs are not done again; what is done here counts before theirs, a training whose test is left, too."""
    halves = [finished.half(methods.CDC, "digits", 2, part) for part in ("base", "new")]
    trained, name = (folder.relative_to(finished.output).as_posix() for folder in halves)
    first, second = shared.folder / "first.csv", shared.folder / "second.csv"
    figures = {run: own for run, own in shared.figures.items() if run != name}
    write_kept(first, {**figures, trained: {"accuracy": 1.0}, "of/another/plan": {"accuracy": 2.0}})
    write_kept(second, {run: {**own, "train_seconds": 7.0} for run, own in figures.items() if run != trained})
    shared.study(*SEEDS, "--kept", first, second)
    assert shared.asked == [halves]
    assert read_kept(shared.name) == {**shared.figures, "of/another/plan": {"accuracy": 2.0}}
    page = (shared.folder / "page.md").read_text()
    shared.study(*SEEDS, "--page-only", "--kept", shared.name)  # which has the others' figures, too
    assert (shared.folder / "page.md").read_text() == page

    elsewhere = next(run for run in figures if not (finished.output / run).exists())
    write_kept(second, {elsewhere: {"accuracy": 1.5}})
    with pytest.raises(SystemExit):
        shared.study(*SEEDS, "--kept", first, second, "--page-only")
    assert f"second.csv has other figures of {elsewhere} than the files before" in capsys.readouterr().err


def test_figures_that_are_kept_are_not_lost(finished, shared, capsys):
    """Where the runs are not on this machine; those of other seeds and other plans stay in the file."""
    kept = {**shared.figures, "of/another/plan": {"accuracy": 2.0}}
    write_kept(shared.name, kept)
    before = shared.name.read_bytes()
    finished.output.mkdir()
    with pytest.raises(SystemExit) as stop:
        shared.study(*SEEDS, "--page-only")
    assert stop.value.code == 2
    assert f"--kept {shared.name} takes them over" in capsys.readouterr().err
    shared.study(*SEEDS, "--only", "harder")  # a part of it, without the page of the whole
    assert f"--kept {shared.name} takes them over" in capsys.readouterr().out
    assert not (shared.folder / "page.md").exists()
    assert shared.name.read_bytes() == before

    shared.study("--seeds", 1)
    assert read_kept(shared.name) == kept
    assert "- seeds 1;" in (shared.folder / "page.md").read_text()
    shared.study(*SEEDS)
    assert read_kept(shared.name) == kept
    assert "- seeds 1, 2;" in (shared.folder / "page.md").read_text()


def test_figures_of_other_machines_do_not_replace_others(finished, shared, capsys):
    run = sorted(shared.figures)[0]
    write_kept(shared.name, shared.figures)
    before, other = shared.name.read_bytes(), shared.folder / "other.csv"
    write_kept(other, {run: {**shared.figures[run], "accuracy": 1.0}})
    with pytest.raises(SystemExit):
        shared.study(*SEEDS, "--page-only", "--kept", other)
    assert f"page.csv has other figures of {run} than the files before it" in capsys.readouterr().err
    assert shared.name.read_bytes() == before
    with pytest.raises(SystemExit):
        shared.study(*SEEDS, "--kept", other)
    assert shared.asked == []  # it is told before the runs

    write_kept(shared.name, {**shared.figures, run: {**shared.figures[run], "accuracy": 1.0}})
    (shared.folder / "gone").rename(finished.output)
    shared.study(*SEEDS, "--page-only", "--kept", other)
    assert f"1 runs that are here have other figures than kept files have, such as {run}" in capsys.readouterr().err
    assert read_kept(shared.name) == shared.figures


def test_the_page_of_all_seeds_is_not_made_of_some(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.study.__main__.ROOT", tmp_path)
    folder = full(tmp_path / "runs").half(methods.CDC, "digits", 1, "base")
    folder.mkdir(parents=True)
    (folder / "results.json").write_text(json.dumps({"figures": {"accuracy": 50.0}}))
    arguments = ["study", "--output", str(tmp_path / "runs"), "--seeds", "1", "--page-only"]
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="2"):
        main()
    assert "study.md and its .csv are left as they are, of all seeds: --page FILE" in capsys.readouterr().out
    assert not (tmp_path / "docs").exists()


def test_seeds_without_a_run_are_told(tmp_path, monkeypatch, capsys):
    page = str(tmp_path / "page.md")
    monkeypatch.setattr("sys.argv", ["study", "--page", page, "--only", "seeds", "--seeds", "1", "2"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == "tools.study: seeds has no runs with the seeds 1, 2\n"


@pytest.mark.parametrize(
    ("changes", "problem"),
    [
        ({"split": "val"}, "is of the val split"),
        ({"train_seconds": [1]}, "train_seconds"),
        ({"train_seconds": float("nan")}, "train_seconds"),
    ],
)
def test_results_that_the_kept_file_cannot_hold_are_refused(finished, shared, changes, problem, capsys):
    (shared.folder / "gone").rename(finished.output)
    path = next(finished.output.rglob("results.json"))
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
    with pytest.raises(SystemExit):
        shared.study(*SEEDS, "--page-only")
    error = capsys.readouterr().err
    assert str(path) in error
    assert problem in error
    assert not shared.name.exists()


def test_no_file_is_written_where_nothing_is_there(shared, finished, capsys):
    finished.output.mkdir()
    with pytest.raises(SystemExit) as stop:
        shared.study("--page-only")
    assert stop.value.code == 2
    assert "there are no runs in" in capsys.readouterr().err
    assert not shared.name.exists()


def test_a_broken_file_of_the_page_is_told_before_the_runs(shared, capsys):
    shared.name.write_text("<<<<<<< HEAD\n")
    with pytest.raises(SystemExit) as stop:
        shared.study()
    assert stop.value.code == 2
    assert "page.csv is not whole in line" in capsys.readouterr().err
    assert shared.asked == []


@pytest.mark.parametrize("content", [None, "", "run,accuracy\nx,1.0,2.0\n", "a,b\n" + "x" * 200_000])
def test_kept_file_that_is_missing_or_of_something_else_is_told(shared, content, capsys):
    path = shared.folder / "other.csv"
    if content is not None:
        path.write_text(content)
    with pytest.raises(SystemExit) as stop:
        shared.study("--kept", path)
    assert stop.value.code == 2
    (line,) = capsys.readouterr().err.splitlines()
    assert "other.csv" in line
    assert shared.asked == []


def test_command_runs_the_sections_that_it_is_told(tmp_path, monkeypatch):
    asked = []
    monkeypatch.setattr("tools.study.run.write_data_sets", lambda names, data: None)
    monkeypatch.setattr("tools.study.run.run_all", lambda runs, *arguments: asked.extend(runs) or ["none was run"])
    arguments = ["--output", str(tmp_path), "--only", "cost", "--seeds", "4"]
    monkeypatch.setattr("sys.argv", ["study", *arguments])
    with pytest.raises(SystemExit, match="1"):
        main()
    assert asked == replace(full(tmp_path), seeds=(4,)).experiments(["cost"])


def test_command_tells_what_is_missing_and_what_failed(tmp_path, monkeypatch, capsys):
    output = tmp_path / "runs"
    arguments = ["study", "--quick", "--output", str(output)]
    monkeypatch.setattr("sys.argv", [*arguments, "--page-only"])
    with pytest.raises(SystemExit, match="2"):
        main()
    assert capsys.readouterr().err == f"tools.study: there are no runs in {output}, and no {output / 'study.csv'}\n"

    monkeypatch.setattr("tools.study.run.write_data_sets", lambda names, data: None)
    monkeypatch.setattr("tools.study.run.run_all", lambda *arguments: ["seed1: OSError: disk is full"])
    monkeypatch.setattr("sys.argv", arguments)
    with pytest.raises(SystemExit, match="1"):
        main()
    assert "seed1: OSError: disk is full" in capsys.readouterr().err
    assert not (output / "study.md").exists()
