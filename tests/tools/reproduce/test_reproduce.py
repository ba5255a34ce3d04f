"""The paper's tables again: the plan, what is there, which results count, the numbers beside the paper's, the page."""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import re
import sys
from statistics import mean, stdev

import pytest
from dassl.config import get_cfg_default

import trees
from datasets.dtd import DescribableTextures
from helpers import ROOT
from tools.data.check import Report, check
from tools.data.sources import SOURCES
from tools.reproduce import __main__ as command
from tools.reproduce import reproduce as module
from tools.reproduce.numbers import Cell, trainer_table
from tools.reproduce.page import Found, render_page
from tools.reproduce.plan import plan_paper
from tools.reproduce.results import Reader, Result, expected_config
from tools.reproduce.there import Weights, look_at_weights, papers_digest
from tools.results import published
from tools.results.runs import VARIANTS
from tools.results.tables import harmonic_mean
from tools.sweep.protocols import SETS
from trainers.modules import loading

DIGEST = "d" * 64
PUBLISHED = {name: Report(name, True, ["split     as many as published"], True) for name in published.DATASETS}
PAPERS = Weights("ViT-B/16", ROOT / "ViT-B-16.pt", "ViT-B/16")


@pytest.fixture
def plan(tmp_path):
    """Plans with folders of their own, and no data but an empty folder."""
    (tmp_path / "data").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}

    def make(*trainers, seeds=(1, 2, 3), tables=("base2new", "xd", "dg"), settings=(), **variables):
        environment = {**kept, "DATA": f"{tmp_path}/data", "OUTPUT": f"{tmp_path}/output", **variables}
        return plan_paper(tables, trainers or ("CDC",), seeds, settings, environment)

    return make


def results_of(paper, accuracy=None, **more):
    """A result for each run, by default that which the paper has."""

    def of(step):
        return Result(
            accuracy=accuracy(step), images=images(step), digest=DIGEST, seconds=3600.0, device="A100", **more
        )

    return {step: of(step) for step in paper.every.values()}


def images(step):
    """As many as are published, the odd one among the base classes."""
    whole = SOURCES[step.dataset].published.test
    return {"all": whole, "base": whole - whole // 2, "new": whole // 2}[step.place.classes]


def papers(step):
    """The paper's own accuracy of a run of CDC, a little off by the seed."""
    protocol = "base2new" if step.place.classes != "all" else "dg" if step.dataset in VARIANTS["imagenet"] else "xd"
    metric = {"base": "Base", "new": "New", "all": "Accuracy"}[step.place.classes]
    number = published.numbers(protocol)[step.place.trainer][step.dataset][metric]
    return number + {1: -0.1, 2: 0.0, 3: 0.1}[step.place.seed]


def page_of(paper, results, reports=PUBLISHED, weights=(PAPERS,), digest=DIGEST):
    reports = {step.dataset: reports[step.dataset] for step in paper.every.values()}
    return render_page(Found(paper, results, reports, weights, digest, {"date": "today", "command": "it"}))


def row(page, heading, name):
    """The cells of a row by its first one, in the first table below a heading."""
    below = page.split(heading, 1)[1]
    lines = [re.sub(" +", " ", line) for line in below.split("\n\n")[1].splitlines()]
    (line,) = [line for line in lines if line.startswith(f"| {name} |")]
    return [cell.strip() for cell in line.removeprefix(f"| {name} |").strip("|").split("|")]


# ---- the plan


def test_plan_holds_the_papers_tables_and_trains_on_imagenet_once(plan):
    paper = plan("CDC", "MaPLe")
    kinds = [
        (step.place.trainer, step.place.kind, step.place.dataset, step.place.seed) for step in paper.every.values()
    ]
    assert len(kinds) == len(set(kinds)) == 2 * 3 * (2 * 11 + 1 + 10 + 4)
    assert {dataset for _, kind, dataset, _ in kinds if kind == "all"} == {"imagenet"}
    assert {dataset for _, kind, dataset, _ in kinds if kind == "test_new"} == set(SETS)
    assert paper.trainers == ["MaPLe", "CDC"]
    assert {step.place.shots for step in paper.every.values()} == {16}
    runs = paper.possible([]).runs()
    training = next(run for run in runs if run.name.endswith("imagenet seed 1: train_all"))
    assert sum(training.name in run.needs for run in runs) == 14


def test_what_has_no_data_is_left_out_with_what_needs_it(plan):
    paper = plan(seeds=(1,))
    folders = {str(step.place.folder) for step in paper.possible({"dtd", "imagenet_a"}).steps}
    assert not any("/dtd/" in folder or "/imagenet_a/" in folder for folder in folders)
    assert len(folders) == 37 - 3 - 1
    kinds = {step.place.kind for step in paper.possible({"imagenet"}).steps}
    assert kinds == {"train_base", "test_new"}


def test_what_has_finished_needs_no_data(plan, tmp_path):
    paper = plan(seeds=(1,), tables=("base2new",))
    for step in paper.steps["base2new"]:
        if step.dataset == "dtd":
            (tmp_path / "output" / step.place.folder).mkdir(parents=True)
            (tmp_path / "output" / step.place.folder / "results.json").touch()
    paper = plan(seeds=(1,), tables=("base2new",))
    assert {step.dataset for step in paper.possible(SETS).steps} == {"dtd"}
    assert paper.possible(SETS).runs() == []


def test_environment_that_would_plan_other_runs_is_left_out(plan):
    paper = plan(SHOTS="4", TAG="mine", CALIBRATED="1", TRAINER="CoOp", tables=("base2new",), seeds=(1,))
    assert {(step.place.trainer, step.place.config, step.place.shots) for step in paper.every.values()} == {
        ("CDC", "vit_b16", 16)
    }
    assert {step.place.config for step in plan(CFG="tiny", seeds=(1,)).every.values()} == {"tiny"}


@pytest.mark.parametrize(
    ("trainers", "seeds", "words"),
    [
        (("CDC", "CDC/tiny"), (1,), "each trainer can be given once, got CDC more than once"),
        (("CDC",), (1, 1), "each seed can be given once, got 1 more than once"),
        (("Foo",), (1,), "configs/trainers has no Foo; it has CDC, "),
        (("CDC/foo",), (1,), "there is no configs/trainers/CDC/foo.yaml"),
    ],
)
def test_plan_refuses(plan, trainers, seeds, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        plan(*trainers, seeds=seeds)


# ---- numbers


def table_of(paper, results, protocol="base2new", trainer="CDC", **options):
    chosen = [(step, results[step]) for step in paper.steps[protocol] if step.place.trainer == trainer]
    return trainer_table(protocol, trainer, chosen, paper.seeds, **options)


def test_cells_by_hand(plan):
    paper = plan(tables=("base2new",))
    accuracies = {"base": {1: 80.0, 2: 82.0, 3: 84.0}, "new": {1: 60.0, 2: 66.0, 3: 60.0}}
    results = results_of(paper, lambda step: accuracies[step.place.classes][step.place.seed])
    table = table_of(paper, results)
    base, new, hm = (table.cells["dtd", metric] for metric in ("Base", "New", "HM"))
    assert (base.ours, base.std, base.paper, base.seeds) == (82.0, 2.0, 82.70, 3)
    assert base.difference == pytest.approx(-0.70)
    assert base.within  # 0.7 is less than 4
    assert (new.ours, new.paper) == (62.0, 64.10)
    assert hm.ours == pytest.approx(2 * 82 * 62 / (82 + 62))
    seeds = [2 * 80 * 60 / 140, 2 * 82 * 66 / 148, 2 * 84 * 60 / 144]
    assert hm.std == pytest.approx(stdev(seeds))
    assert table.cells["fgvc_aircraft", "New"].within is False  # 37.50 beside 62
    average = table.averages["Base"]
    assert (average.ours, average.std, average.paper) == (82.0, 2.0, 83.34)


@pytest.mark.parametrize(
    ("std", "paper", "within"),
    [(0.5, 51.0, True), (0.5, 51.005, True), (0.5, 51.006, False), (0.5, 48.994, False), (0.0, 50.004, True)],
)
def test_verdict_at_its_limits(std, paper, within):
    assert Cell(50.0, std, 3, paper).within is within


def test_no_verdict_where_there_is_none_to_give(plan):
    assert Cell(50.0, None, 1, 50.0).within is None
    assert Cell(None, None, 0, 50.0).within is None
    assert Cell(50.0, 0.5, 3, None).within is None
    assert Cell(50.0, 0.5, 3, 50.0, judged=False).within is None
    paper = plan("ZeroshotCLIP", tables=("dg",))  # the same with every seed, so its deviation says nothing
    table = table_of(paper, results_of(paper, lambda step: 60.0), "dg", "ZeroshotCLIP")
    assert [cell.within for cell in table.cells.values()] == [None] * 5
    assert table.cells["imagenetv2", "Accuracy"].difference == pytest.approx(60 - 60.83)


def test_averages_are_over_the_data_sets_that_have_every_seed(plan):
    paper = plan(tables=("base2new", "xd"))
    results = results_of(paper, papers)
    whole = table_of(paper, results)
    assert len(whole.averaged) == whole.full == 11
    assert whole.averages["HM"].paper == 80.25
    assert whole.averages["Base"].ours == pytest.approx(83.34, abs=0.01)
    for step in results:  # the third seed of one, all of another
        if (step.dataset, step.place.seed, step.place.classes) == ("dtd", 3, "new") or step.dataset == "eurosat":
            results[step] = Result(problem="not run")
    table = table_of(paper, results)
    left = [name for name in SETS if name not in ("dtd", "eurosat")]
    assert sorted(table.averaged) == sorted(left)
    rows = published.numbers("base2new")["CDC"]
    base, new = (mean(rows[name][metric] for name in left) for metric in ("Base", "New"))
    assert table.averages["Base"].paper == pytest.approx(base)
    assert table.averages["HM"].paper == pytest.approx(harmonic_mean(base, new))
    assert table.averages["Base"].ours == pytest.approx(base)
    assert table.cells["dtd", "Base"].seeds == 2  # those with both halves
    assert table.cells["eurosat", "Base"] == Cell(None, None, 0, 95.10)
    other = table_of(paper, results, "xd")
    assert (len(other.averaged), other.full) == (9, 10)
    assert "imagenet" not in other.averaged
    page = page_of(paper, results)
    assert row(page, "### CDC (vit_b16)", "average of 9 of 11 data sets")[1] == f"{base:.2f}"
    assert row(page, "### CDC (vit_b16)", "DTD")[0] == "82.65 ± 0.07 (2 of 3 seeds)"
    assert row(page, "### CDC (vit_b16)", "EuroSAT")[:4] == ["–", "95.10", "–", "–"]


def test_trainer_with_a_published_average_alone(plan):
    paper = plan("KgCoOp", tables=("base2new",))
    table = table_of(paper, results_of(paper, lambda step: 80.0), trainer="KgCoOp")
    assert table.cells["dtd", "Base"].paper is None
    assert table.averages["New"].paper == 73.60
    results = {
        step: result if step.dataset != "dtd" else Result()
        for step, result in results_of(paper, lambda _: 80.0).items()
    }
    assert table_of(paper, results, trainer="KgCoOp").averages["New"].paper is None  # not over these ten


# ---- the page


def test_page_of_the_papers_own_numbers(plan):
    paper = plan("CDC", "CoOp")
    page = page_of(paper, results_of(paper, papers))
    assert "no results" not in page
    assert "Not complete" not in page
    assert "Not comparable" not in page
    assert row(page, "### CDC (vit_b16)", "DTD") == [
        *("82.70 ± 0.10", "82.70", "+0.00", "yes"),
        *("64.10 ± 0.10", "64.10", "+0.00", "yes"),
        *("72.22 ± 0.10", "72.22", "+0.00", "yes"),
    ]
    assert row(page, "### CDC (vit_b16)", r"**average** of all 11")[9] == "80.25"
    assert row(page.split("## Table 3")[1], "### CoOp", "ImageNet (trained on)")[1] == "71.51"
    short = row(page, "## In short", "Table 2 | CDC")
    assert short[:2] == ["Accuracy, average of all 10", "66.73 ± 0.10"]
    assert short[-2:] == ["11 of 11", "11 of 11"]
    assert "## What is missing\n\nNothing.\n" in page


def test_cost_counts_each_run_once(plan):
    paper = plan(seeds=(1,))
    page = page_of(paper, results_of(paper, papers))
    assert row(page, "## Cost", r"CDC") == ["GPU hours, A100", "22.00", "15.00", "37.00"]
    results = results_of(paper, papers)
    for step in results:
        if step.place.classes == "new":
            results[step] = Result(accuracy=50.0, images=images(step), digest=DIGEST, seconds=36.0, device="cpu")
        elif step.place.classes == "base":
            results[step] = Result(accuracy=50.0, images=images(step), digest=DIGEST)
    cost = page_of(paper, results).split("## Cost")[1]
    assert "| CDC       | CPU hours       |      0.11 |" in cost
    assert "11 runs do not tell." in cost


def test_one_seed_cannot_be_judged(plan):
    paper = plan(seeds=(2,))
    page = page_of(paper, results_of(paper, papers))
    assert "**One seed**: there is no standard deviation, so no difference can be judged." in page
    assert row(page, "### CDC (vit_b16)", "DTD")[:4] == ["82.70", "82.70", "+0.00", "?"]
    assert row(page, "## In short", "Table 1")[-2] == "0 of 0"


def test_other_weights_make_no_results(plan):
    paper = plan(tables=("dg",))
    results = results_of(paper, papers)
    top = page_of(paper, results, digest="e" * 64).split("## In short")[0]
    assert "> **These are no results.**" in top
    assert "15 of 15 runs are of other weights of CLIP than OpenAI's ViT-B/16." in top
    other = Weights("tiny.pt", ROOT / "tiny.pt")
    top = page_of(paper, results, weights=(other,), digest="").split("## In short")[0]
    assert f"Their CLIP is `{ROOT}/tiny.pt`, which is not OpenAI's ViT-B/16 by its SHA-256." in top
    top = page_of(paper, results, weights=(Weights("ViT-B/16"),), digest="").split("## In short")[0]
    assert "> **It cannot be told whether these are results.**" in top
    # a copy of OpenAI's weights in another format: the digest of the results decides
    assert "no results" not in page_of(paper, results, weights=(other,))


def test_some_runs_of_other_weights_are_refused_and_the_others_count(plan):
    paper = plan(tables=("dg",))
    results = results_of(paper, papers)
    first = next(step for step in results if step.dataset == "imagenet_a")
    results[first] = Result(accuracy=90.0, images=images(first), digest="e" * 64)
    kept = module.without_other_weights(results, DIGEST)
    assert kept[first].refused
    assert {step: result for step, result in kept.items() if step != first} == {
        step: result for step, result in results.items() if step != first
    }
    page = page_of(paper, kept)
    assert "no results" not in page
    assert f"{first.place.folder} was made with other weights of CLIP than OpenAI's ViT-B/16" in page
    # none is of the paper's
    assert module.without_other_weights(results, "f" * 64) == module.without_other_weights(results, "") == results
    top = page_of(paper, results, weights=(Weights("ViT-B/16"),), digest="").split("## In short")[0]
    assert "**These are no results.**" in top
    assert "The runs are of 2 CLIPs with other weights each." in top


def test_other_images_make_no_results_or_incomparable_rows(plan):
    paper = plan(tables=("base2new",))
    results = results_of(paper, papers)
    fewer = dict(results)
    for step in results:
        if step.dataset == "dtd" and step.place.classes == "new":
            fewer[step] = Result(accuracy=90.0, images=20, digest=DIGEST)
    page = page_of(paper, fewer)
    top = page.split("## In short")[0]
    assert "> **Not comparable**, in no average and not judged, as the images are not the published ones: DTD." in top
    assert row(page, "### CDC", "DTD (not comparable)")[4:8] == ["90.00 ± 0.00", "64.10", "+25.90", "–"]
    assert row(page, "### CDC", "average of 10 of 11 data sets")
    assert "866 images were tested where 1,692 are published" in page

    own = Report("dtd", True, ["split     47 classes, of the reader's own making: a run has saved it"])
    page = page_of(paper, results, {**PUBLISHED, "dtd": own})
    assert row(page, "### CDC", "average of 10 of 11 data sets")
    page = page_of(paper, results, dict.fromkeys(PUBLISHED, own))
    assert "None of the 11 data sets has the published images, by their numbers." in page.split("## In short")[0]
    assert row(page, "### CDC", r"**average** of all 11")  # of the page that is a trial, what there is


def test_settings_are_told_at_the_top(plan):
    paper = plan("CDC/vit_b16", tables=("dg",), settings=("OPTIM.MAX_EPOCH", "1"))
    top = page_of(paper, results_of(paper, papers)).split("## In short")[0]
    assert "> **Other settings** than the default configs were asked for: `CDC/vit_b16, OPTIM.MAX_EPOCH 1`." in top


# ---- which results count


def write_result(output, step, settings=(), **changes):
    """What a run leaves, with changes; None takes a key away."""
    place = step.place
    config = expected_config(place.trainer, step.config, step.dataset, place.classes, tuple(settings))
    content = {
        "trainer": place.trainer,
        "seed": place.seed,
        "classes": place.classes,
        "images": 23,
        "backbone_sha256": DIGEST,
        "figures": {"accuracy": 50.0},
        "train_seconds": 50.0 if step.trains else None,
        "test_seconds": 22.0,
        "device": "cpu",
        "config": json.loads(json.dumps(config)),
        **changes,
    }
    folder = output / place.folder
    folder.mkdir(parents=True, exist_ok=True)
    content = {key: value for key, value in content.items() if value is not None or key == "train_seconds"}
    (folder / "results.json").write_text(json.dumps(content))
    return folder / "results.json"


@pytest.fixture
def step(plan):
    return next(step for step in plan(tables=("base2new",), seeds=(1,)).every.values() if step.dataset == "dtd")


def test_result_of_the_planned_run_counts(step, tmp_path):
    write_result(tmp_path, step)
    assert Reader(tmp_path).read(step) == Result(50.0, "", False, 23, DIGEST, 72.0, "cpu")


@pytest.mark.parametrize(
    ("changes", "words"),
    [
        ({"seed": 2}, "is of seed 2, not 1"),
        ({"classes": "new"}, "is of classes new, not base"),
        ({"trainer": "CoOp"}, "is of trainer CoOp, not CDC"),
        ({"split": "val"}, "is of the val split"),
        ({"config": None}, "does not say with which settings it was made"),
        ({"figures": {}}, "is not a whole results.json: KeyError"),
        ({"figures": {"accuracy": 500.0}}, "accuracy must lie in 0 to 100, got 500.0"),
    ],
)
def test_result_of_another_run_is_refused(step, tmp_path, changes, words):
    path = write_result(tmp_path, step, **changes)
    result = Reader(tmp_path).read(step)
    assert (result.accuracy, result.refused) == (None, True)
    assert words in result.problem
    assert result.problem.endswith(f"; remove {path.parent} to have it run again")


def test_result_with_other_settings_is_refused(step, tmp_path):
    write_result(tmp_path, step, ("OPTIM.MAX_EPOCH", "1"))
    assert "was made with OPTIM.MAX_EPOCH 1 in place of 5" in Reader(tmp_path).read(step).problem
    assert Reader(tmp_path, ("OPTIM.MAX_EPOCH", "1")).read(step).accuracy == 50.0


@pytest.mark.parametrize("text", ["", '{"figures": {"accu', "[]", "null"])
def test_half_written_result_is_refused(step, tmp_path, text):
    path = write_result(tmp_path, step)
    path.write_text(text)
    assert f"{path} is not a whole results.json" in Reader(tmp_path).read(step).problem


# ---- weights


def test_weights_that_cannot_be_got_are_told_with_where_they_are(tmp_path, monkeypatch):
    monkeypatch.setattr(loading.clip, "_download", lambda url, folder: (_ for _ in ()).throw(OSError("no network")))
    known = look_at_weights("ViT-B/16", download=True, cache=str(tmp_path))
    assert "no network" in known.problem
    assert f"/ViT-B-16.pt to {tmp_path}/ViT-B-16.pt" in known.problem
    told = look_at_weights("ViT-B/16", download=False, cache=str(tmp_path))
    assert (told.problem, told.path) == ("", None)
    assert "it will be downloaded from https://" in told.note
    (tmp_path / "ViT-B-16.pt").write_bytes(b"half")
    known = look_at_weights("ViT-B/16", download=True, cache=str(tmp_path))
    assert f"{tmp_path}/ViT-B-16.pt is not OpenAI's file, as its SHA-256 is another: remove it" in known.problem
    assert look_at_weights("no/such.pt", download=True).problem.startswith("CLIP 'no/such.pt' is neither a file")


def test_openais_file_is_known_by_its_content(tmp_path, monkeypatch, clip_files, small_clip):
    """Under whatever name; its digest is that of the weights."""
    sha256 = hashlib.sha256(clip_files["plain"].read_bytes()).hexdigest()
    monkeypatch.setitem(loading.PUBLISHED, "ViT-B/16", ("ViT-B-16.pt", sha256))
    mine = look_at_weights(str(clip_files["plain"]), download=False)
    assert (mine.model, mine.is_the_papers) == ("ViT-B/16", True)
    digest = loading.weights_digest(small_clip.state_dict())
    assert papers_digest([mine], cache=str(tmp_path)) == digest
    other = look_at_weights(str(clip_files["gzip"]), download=False)
    assert (other.model, other.is_the_papers) == ("", False)
    assert papers_digest([other], cache=str(tmp_path)) == ""
    (tmp_path / "ViT-B-16.pt").write_bytes(clip_files["plain"].read_bytes())
    assert papers_digest([other], cache=str(tmp_path)) == digest  # that of the cache


# ---- the command

# Does what `train.py` does for a plan: results, and a model where it trains; fails where it should.
TRAIN = """#!{python} -S
import json, os, sys
given = sys.argv[2:]
def of(name):
    return given[given.index(name) + 1]
if os.environ.get("FAILS", "?") in of("--output-dir"):
    sys.exit("train.py: no such thing")
os.makedirs(of("--output-dir") + "/prompt_learner", exist_ok=True)
if "--eval-only" not in given:
    open(of("--output-dir") + "/prompt_learner/model.pth.tar-5", "w").close()
results = {{"trainer": of("--trainer"), "seed": int(of("--seed")), "classes": of("DATASET.SUBSAMPLE_CLASSES")}}
results.update(figures={{"accuracy": 60.0}}, images=9, train_seconds=1.0, test_seconds=1.0, device="cpu", config={{}})
with open(of("--output-dir") + "/results.json", "w") as file:
    json.dump(results, file)
"""


@pytest.fixture
def call(tmp_path, monkeypatch, capsys):
    """The command, with a small program in the place of Python and the small CLIP that is included here."""
    python = tmp_path / "python"
    python.write_text(TRAIN.format(python=sys.executable))
    python.chmod(0o755)
    for name in ("TAG", "CALIBRATED", "SHOTS", "TRAINER", "RAY_ADDRESS"):
        monkeypatch.delenv(name, raising=False)
    for name, value in {"CFG": "tiny", "PYTHON": str(python), "OUTPUT": str(tmp_path / "output")}.items():
        monkeypatch.setenv(name, value)

    def run(*arguments, data=None):
        given = ["--one-by-one", "--data", str(data or tmp_path / "data"), *map(str, arguments)]
        monkeypatch.setattr(sys, "argv", ["reproduce", *given])
        with pytest.raises(SystemExit) as ended:
            command.main()
        return argparse.Namespace(status=ended.value.code or 0, **capsys.readouterr()._asdict())

    return run


@pytest.fixture
def dtd(tmp_path):
    trees.dtd(tmp_path / "data")
    return tmp_path / "data"


PART = ("--trainers", "CDC", "--tables", 1, "--seeds", 1)


def test_what_is_there_is_run_and_the_page_says_what_is_missing(call, dtd, tmp_path):
    done = call(*PART)
    assert done.status == 0, done.err
    assert "2 runs: 0 have finished, 0 will go on, 2 are new\n" in done.out
    assert "left out for lack of data: 20 runs\n" in done.out
    assert "eurosat: NOT USABLE\n  missing   " in done.out
    assert "prepare eurosat" in done.out
    page = (tmp_path / "output/reproduce.md").read_text()
    top = page.split("## In short")[0]
    assert "> **These are no results.**" in top
    assert "weights/tiny_clip.pt.gz`, which is not OpenAI's ViT-B/16" in top
    assert "None of its data sets has the published images" in top
    assert "**Not complete**: 2 of 22 runs have a result" in top
    assert row(page, "### CDC (tiny)", "DTD")[:4] == ["60.00", "82.70", "-22.70", "?"]
    assert "average" not in page.split("### CDC (tiny)")[1].split("##")[0]
    missing = page.split("## What is missing")[1].split("##")[0]
    assert missing.count("is not there or cannot be used") == missing.count("\n- ") == 10
    assert "python -m tools.datasets prepare eurosat --root" in missing

    again = call(*PART)
    assert "2 runs: 2 have finished" in again.out
    assert "nothing is left to run" in again.out


def test_dry_run_tells_and_writes_nothing(call, dtd, tmp_path):
    done = call(*PART, "--dry-run", "OPTIM.MAX_EPOCH", "1")
    assert done.status == 0, done.err
    assert "new: CDC/tiny+OPTIM.MAX_EPOCH=1 dtd: train_base of seed 1; test_new of seed 1\n" in done.out
    assert not (tmp_path / "output").exists()


def test_failed_and_broken_runs_are_named_and_nothing_else_is_lost(call, dtd, tmp_path, monkeypatch):
    trees.eurosat(dtd)
    monkeypatch.setenv("FAILS", "test_new/eurosat")
    done = call(*PART)
    assert done.status == 1
    assert "failed: CDC/tiny eurosat seed 1: test_new: train.py: no such thing (exit status 1); log: " in done.err
    page = (tmp_path / "output/reproduce.md").read_text()
    assert "- CDC/tiny, EuroSAT, new classes, seed 1: no result: train.py: no such thing (exit status 1)" in page
    assert row(page, "### CDC (tiny)", "DTD")[0] == "60.00"
    assert row(page, "### CDC (tiny)", "EuroSAT")[0] == "–"  # no base result without the new one

    monkeypatch.delenv("FAILS")
    broken = tmp_path / "output/base2new/test_new/dtd/shots_16/CDC/tiny/seed1/results.json"
    broken.write_text('{"figures": ')
    done = call(*PART)
    assert done.status == 1
    assert f"not counted: CDC/tiny dtd seed 1: test_new: {broken} is not a whole results.json" in done.err
    page = (tmp_path / "output/reproduce.md").read_text()
    assert f"- CDC/tiny, DTD, new classes, seed 1: not counted: {broken} is not a whole results.json" in page
    assert row(page, "### CDC (tiny)", "DTD")[0] == "–"
    assert row(page, "### CDC (tiny)", "EuroSAT")[0] == "60.00"


def test_page_tells_of_splits_as_runs_leave_them(call, dtd, tmp_path, monkeypatch):
    """A reader saves the split that it makes, where there is none."""

    def saves(runs, args):
        assert any("split_zhou_DescribableTextures.json is not there" in line for line in check("dtd", str(dtd)).lines)
        cfg = get_cfg_default()
        cfg.merge_from_list(["DATASET.ROOT", str(dtd), "DATASET.NUM_SHOTS", 16, "DATASET.SUBSAMPLE_CLASSES", "all"])
        DescribableTextures(cfg)
        return []

    monkeypatch.setattr(module, "do_runs", saves)
    done = call(*PART)
    assert done.status == 1, done.err  # nothing was run
    told = (tmp_path / "output/reproduce.md").read_text().split("## Data sets")[1]
    assert "making: a run has saved it as split_zhou_DescribableTextures.json" in told


def test_interrupt_leaves_a_page_of_what_has_finished(call, dtd, tmp_path, monkeypatch):
    def interrupted(runs, args):
        raise KeyboardInterrupt

    monkeypatch.setattr(module, "do_runs", interrupted)
    done = call(*PART)
    assert done.status == 130
    assert done.err == "tools.reproduce: interrupted; the same command goes on\n"
    assert "**Not complete**: 0 of 22 runs" in (tmp_path / "output/reproduce.md").read_text()


def test_all_that_is_missing_is_told_at_once(call, tmp_path, monkeypatch):
    (tmp_path / "data").mkdir()
    monkeypatch.setenv("CFG", "vit_b16")
    monkeypatch.setattr(loading.clip, "_download", lambda url, folder: (_ for _ in ()).throw(OSError("no network")))
    monkeypatch.setattr("tools.reproduce.there.CACHE", str(tmp_path))
    monkeypatch.setattr(module.look_at_weights, "__defaults__", (str(tmp_path),))
    done = call("--trainers", "CDC", "--seeds", 1)
    assert done.status == 2
    assert done.out.count(": NOT USABLE\n") == 15
    assert done.out.count("  see       https://github.com/KaiyangZhou/CoOp") == 15
    assert "CLIP ViT-B/16: NOT USABLE: " in done.out
    assert "nothing can be run: " in done.err
    assert not (tmp_path / "output").exists()

    trees.dtd(tmp_path / "data")
    done = call("--trainers", "CDC", "--seeds", 1)
    assert done.status == 2
    assert "nothing can be run without its weights, as told above" in done.err


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        (("--trainers", "Foo"), "tools.reproduce: configs/trainers has no Foo; it has CDC, "),
        (("--page", "/"), "--page must be a file that can be written, got /"),
        (("--seeds", "1", "1"), "each seed can be given once"),
        (("--tables", "4"), "invalid choice: 4"),
        (("OPTIM.FOO", "1"), "CDC/tiny: the command line: "),
        (("OPTIM.MAX_EPOCH",), "settings must come as pairs"),
        (("OPTIM.LR", "0.1", "--dry-run"), "options stand before KEY VALUE pairs"),
    ],
)
def test_wrong_call_is_one_error(call, tmp_path, arguments, words):
    (tmp_path / "data").mkdir()
    done = call("--trainers", "CDC", *arguments) if "--trainers" not in arguments else call(*arguments)
    assert done.status == 2
    assert words in done.err.splitlines()[-1]
    assert not (tmp_path / "output").exists()


def test_wrong_folder_is_told(call, tmp_path):
    done = call(data=tmp_path / "nowhere")
    assert done.status == 2
    assert done.err == (
        f"tools.reproduce: --data must be the folder of the data sets, and there is no folder {tmp_path}/nowhere\n"
    )
