"""The report: what stands on the page, and that text from outside stays text."""

from __future__ import annotations

import json
import re
import shutil
import sys

import numpy as np
import pytest

pytest.importorskip("jinja2", reason="the report needs jinja2: pip install -e '.[report]'")
pytest.importorskip("plotly", reason="the report needs plotly: pip install -e '.[report]'")

from made_runs import NAMES, arrays, base_to_new, two_systems, write_run
from tools.report.__main__ import main
from tools.report.gather import gather
from tools.report.page import _braced, render_page
from tools.results import runs


def embedded(page: str) -> dict:
    """The data in a page."""
    return json.loads(re.search(r'<script type="application/json" id="data">(.*?)</script>', page, re.DOTALL)[1])


def without_scripts(page: str) -> str:
    return re.sub(r"<(script|style)\b.*?</\1>", "", page, flags=re.DOTALL)


@pytest.fixture(scope="module")
def output(tmp_path_factory):
    folder = tmp_path_factory.mktemp("report")
    two_systems(folder / "output", folder / "data")
    return folder / "output"


@pytest.fixture(scope="module")
def page(output):
    return render_page(gather([output]), "A title")


def test_the_table_has_means_deviations_the_best_and_the_papers(page):
    data, text = embedded(page), without_scripts(page)
    (coop, cdc) = data["tables"]["base2new"]["columns"]
    assert (coop["title"], cdc["title"]) == ("CoOp", "CDC")
    assert cdc["cells"]["dtd"]["Base"] == {"mean": 87.5, "std": 17.678, "seeds": {"1": 75, "2": 100}}
    assert cdc["cells"]["dtd"]["HM"]["mean"] == 87.5
    assert "87.50 ± 17.68" in text
    average = re.search(r'<tr class="average".*?</tr>', text, re.DOTALL)[0]
    assert "average of 2" in average
    assert average.count("87.50") == 3
    assert "paper 82.70 (+4.80)" in text  # of CDC on base classes of DTD
    row = re.search(r'<tr class="" data-dataset="dtd">.*?</tr>', text, re.DOTALL)[0]
    assert [("best" in cell) for cell in re.findall(r"<td[^>]*data-value[^>]*>", row)] == [False] * 3 + [True] * 3


def test_details_are_means_over_the_seeds(page):
    data = embedded(page)
    found = {(own["dataset"], own["part"], own["system"]): own for own in data["details"]}
    cdc = found["dtd", "new", "CDC"]
    assert cdc["runs"] == 2
    assert cdc["images"] == 4
    assert cdc["classes"] == [100.0, 100.0, 50.0]
    assert data["classes"][cdc["key"]] == list(NAMES)
    assert cdc["confusions"] == [["green cup", "blue fish", 0.5]]
    assert cdc["templates"]["accuracy"] == [75.0, 75.0]
    assert found["dtd", "new", "CoOp"]["templates"] == {}


def test_epochs_come_from_the_logs(page):
    (own,) = embedded(page)["epochs"]
    assert (own["dataset"], own["system"], own["meters"]["loss"]) == ("dtd", "CDC", [[1, 2], [2.0, 0.15]])


def test_images_are_small_embedded_pictures_with_each_templates_opinion(page):
    data = embedded(page)
    gallery = next(own for own in data["galleries"] if own["dataset"] == "dtd" and own["part"] == "new")
    rows = {row["title"]: row["cards"] for row in gallery["rows"]}
    assert set(rows) == {
        "CoOp: most certain mistakes",
        "CDC: most conflict",
        "CDC: most certain mistakes",
        "judged differently by CoOp and CDC",
    }
    (card,) = rows["judged differently by CoOp and CDC"]
    assert card["label"] == "red fish"
    assert data["pictures"][card["source"]].startswith("data:image/webp;base64,")
    assert len(set(data["pictures"])) == len(data["pictures"]) == 1 + 4  # no picture, and the images there are
    assert [(own["system"], own["right"]) for own in card["verdicts"]] == [("CoOp", False), ("CDC", True)]
    assert [own["prediction"] for own in card["templates"]] == ["red fish", "blue fish"]


@pytest.mark.parametrize("pair", [("CoOp", "CDC"), ("CDC", "CoOp")])
def test_opinions_beside_two_verdicts_are_of_the_system_that_has_them(output, pair):
    rows = gather([output], compare=pair).galleries[0]["rows"]
    (card,) = next(row["cards"] for row in rows if row["title"] == f"judged differently by {pair[0]} and {pair[1]}")
    assert [own["system"] for own in card["verdicts"]] == list(pair)
    assert card["opinions_of"] == "CDC"
    assert len(card["templates"]) == 2


def test_what_was_run_has_the_keys_in_which_systems_differ(page):
    text = without_scripts(page)
    row = re.search(r"<bdi>OPTIM\.LR</bdi>.*?</tr>", text, re.DOTALL)[0]
    assert re.findall(r'<td class="text">(.*?)</td>', row) == ["0.002", "0.0035"]
    assert "DATASET.ROOT" not in text
    assert "0" * 64 in text
    assert "torch: 2.14.1" in text


def test_runs_of_one_system_with_different_settings_are_told(tmp_path):
    for seed, rate in ((1, 0.1), (2, 0.2)):
        records = arrays([0], [0])
        base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", seed, records, records, optim={"LR": rate})
    assert "CoOp: OPTIM.LR is 0.1 and 0.2" in gather([tmp_path]).facts["within"]


HOSTILE = '<script>alert("x")</script>'
TURNED = "\u202egnp.exe"


def test_text_from_outside_stays_text(tmp_path):
    names = [HOSTILE, f"</script><b>{TURNED}", "x" * 300]
    records = arrays([0, 1, 1, 1], [0, 0, 1, 2], templates=[[0], [1], [1], [1]], paths=["a", "b", "<img src=x>", "d"])
    base_to_new(tmp_path, "dtd", "CDC", "v<b>1", 1, records, records, names=names, optim={"NAME": HOSTILE})
    base_to_new(tmp_path, "dtd", "CDC", "v2", 1, records, records, names=names)
    page = render_page(gather([tmp_path]), HOSTILE)
    assert page.count("<script") == 4
    assert page.count("</script>") == 4
    assert "alert(" not in re.sub(r"&lt;script&gt;alert|\\u003cscript>alert", "", without_scripts(page))
    assert "<img" not in without_scripts(page)
    assert "<b>" not in without_scripts(page)
    assert "\u202e" not in page
    assert names[0] in embedded(page)["classes"]["base2new/dtd/new"]


def test_the_page_asks_for_nothing_else(page):
    text = without_scripts(page)
    assert "default-src 'none'" in text
    assert not re.findall(r'(?:src|href)="(?!#|data:)', text)


def test_runs_of_older_versions_stand_in_the_table_alone(tmp_path):
    for part, classes in (("train_base", "base"), ("test_new", "new")):
        write_run(
            tmp_path / "base2new" / part / "dtd" / "shots_16" / "CoOp" / "vit_b16" / "seed1",
            None,
            accuracy=50.0,
            classes=classes,
        )
    report = gather([tmp_path])
    assert report.details == []
    assert "2 of 2 results have no predictions.npz" in report.notes[0]
    assert "50.00" in without_scripts(render_page(report, "t"))


def test_a_broken_file_of_records_is_told_and_left_out(output, tmp_path):
    shutil.copytree(output, tmp_path / "output")
    path = tmp_path / "output/base2new/test_new/dtd/shots_16/CDC/vit_b16/seed2/predictions.npz"
    path.write_bytes(path.read_bytes()[:100])
    report = gather([tmp_path / "output"])
    assert any(re.search("is not a whole file of predictions.*: left out$", note) for note in report.notes)
    (own,) = [own for own in report.details if (own["dataset"], own["part"], own["system"]) == ("dtd", "new", "CDC")]
    assert own["runs"] == 1


@pytest.mark.parametrize(
    ("records", "problem"),
    [
        (arrays([0, 7], [0, 0]), "class numbers beyond"),
        (arrays([0, 0], [0, 0], [0.5, float("nan")]), "finite confidence"),
        (
            {**arrays([0], [0], templates=[[0]]), "template_uncertainty": np.array([[np.nan]], dtype=np.float32)},
            "finite template_uncertainty",
        ),
        (arrays([0, 0], [0, 0], templates=[[0], [7]]), "class numbers beyond"),
        (arrays([0, 0], [0, 0], templates=[0, 0]), "each template's records"),
        ({**arrays([0, 0], [0, 0]), "path": np.array(["one"])}, "as many of each record"),
        ({**arrays([0, 0], [0, 0]), "label": np.array([0.0, 1.5])}, "whole numbers"),
        ({name: values for name, values in arrays([0, 0], [0, 0]).items() if name != "path"}, "has no path"),
    ],
)
def test_records_that_do_not_fit_are_left_out(tmp_path, records, problem):
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, arrays([0, 0], [0, 0]), records, accuracy=50.0)
    report = gather([tmp_path])
    assert any(problem in note and "test_new/dtd/shots_16/CoOp/vit_b16/seed1" in note for note in report.notes)
    assert [own["part"] for own in report.details] == ["base"]


@pytest.mark.parametrize("names", [None, [], "abc", [1, 2, 3], [{"a": 1}, "b", "c"]])
def test_records_without_names_of_classes_are_left_out(tmp_path, names):
    records = arrays([0, 1], [0, 0])
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, records, records, class_names=names)
    report = gather([tmp_path])
    assert (report.details, len(report.tables)) == ([], 1)
    assert any(note.endswith("is of a test without class names: left out") for note in report.notes)


def test_runs_on_other_classes_are_not_averaged_together(tmp_path):
    records = arrays([0, 0], [0, 0])
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, records, records)
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 2, records, records, names=["other", "names", "here"])
    report = gather([tmp_path])
    assert all(own["runs"] == 1 for own in report.details)
    assert any("is of other classes" in note for note in report.notes)


def test_images_outside_the_data_folder_are_not_embedded(tmp_path):
    two_systems(tmp_path / "made", tmp_path / "private")
    records = arrays([1, 1], [0, 0], paths=["../private/images/0.png", str(tmp_path / "private/images/1.png")])
    base_to_new(tmp_path / "output", "dtd", "CDC", "vit_b16", 1, records, records, data=tmp_path / "data")
    (tmp_path / "data").mkdir()
    report = gather([tmp_path / "output"])
    cards = [card for own in report.galleries for row in own["rows"] for card in row["cards"]]
    assert all(card["source"] == "" for card in cards)
    assert any("it lies outside the folder of the images" in note for note in report.notes)


def test_images_beyond_the_most_are_told_without_the_name_of_one(tmp_path, monkeypatch):
    two_systems(tmp_path / "output", tmp_path / "data")
    monkeypatch.setattr("tools.report.pictures.MOST", 2)
    notes = gather([tmp_path / "output"]).notes
    (note,) = [note for note in notes if "image" in note]
    assert re.fullmatch(r"\d+ cards have no image, as the page has 2 already; --dataset and --images take fewer", note)


def test_one_image_that_is_not_shown_is_told_of_one(tmp_path):
    two_systems(tmp_path / "output", tmp_path / "data")
    (tmp_path / "data/images/0.png").unlink()
    assert any(note.startswith("1 image is not shown, as") for note in gather([tmp_path / "output"]).notes)


def test_what_is_there_is_counted(page, output):
    assert "Base to new classes: 2 systems on 2 data sets, seeds 1, 2" in page
    one = render_page(gather([output], trainers=["CoOp"], datasets=["dtd"], seeds=[1]), "t")
    assert "Base to new classes: 1 system on 1 data set, seed 1<" in re.sub(r"\s+<", "<", one)


def test_systems_of_other_seeds_than_most_are_named(tmp_path):
    """Among those that learn; zero-shot CLIP is the same under every seed."""
    records = arrays([0, 1], [0, 0])
    for trainer, seeds in (("ZeroshotCLIP", (1,)), ("CoOp", (1, 2)), ("MaPLe", (2,)), ("CDC", (2,))):
        for seed in seeds:
            base_to_new(tmp_path, "dtd", trainer, "v", seed, records, records)
    assert "4 systems on 1 data set, most with seed 2; seeds 1, 2: CoOp" in render_page(gather([tmp_path]), "t")
    half = render_page(gather([tmp_path], trainers=["CoOp", "CDC"]), "t")
    assert "2 systems on 1 data set; seeds 1, 2: CoOp; seed 2: CDC" in half
    base_to_new(tmp_path, "dtd", "MaPLe", "v", 1, records, records)
    assert "4 systems on 1 data set, most with seeds 1, 2; seed 2: CDC" in render_page(gather([tmp_path]), "t")
    alone = render_page(gather([tmp_path], trainers=["ZeroshotCLIP"]), "t")
    assert "1 system on 1 data set, seed 1<" in re.sub(r"\s+<", "<", alone)


def test_page_without_an_average_says_so(tmp_path):
    records = arrays([0, 0], [0, 0])
    base_to_new(tmp_path, "dtd", "CoOp", "v", 1, records, records)
    base_to_new(tmp_path, "eurosat", "CDC", "v", 1, records, records)
    sentence = "There is no average, as the trainers have fewer than two data sets in common."
    assert sentence in render_page(gather([tmp_path]), "A title")
    assert sentence not in render_page(gather([tmp_path], datasets=["dtd"]), "A title")


def test_page_says_which_systems_have_an_average(tmp_path):
    records = arrays([0, 0], [0, 0])
    for dataset, config in (("dtd", "v"), ("eurosat", "v"), ("eurosat", "part")):
        base_to_new(tmp_path, dataset, "CDC", config, 1, records, records)
    page = render_page(gather([tmp_path]), "A title")
    assert "over the 2 data sets that 1 of 2 systems have: DTD, EuroSAT. The other systems have none." in page
    base_to_new(tmp_path, "dtd", "CDC", "part", 1, records, records)
    assert "The average is over the 2 data sets that every system has." in render_page(gather([tmp_path]), "A title")


def test_a_system_has_one_title_in_all_tables(tmp_path):
    records = arrays([0, 1], [0, 0])
    for config in ("a", "b"):
        base_to_new(tmp_path, "dtd", "CoOp", config, 1, records, records)
    write_run(tmp_path / "evaluation/CoOp/a_16shots/dtd/seed1", records, classes="all")
    tables = gather([tmp_path]).tables
    assert [column.title for column in tables["base2new"].columns] == ["CoOp a", "CoOp b"]
    assert [column.title for column in tables["xd"].columns] == ["CoOp a"]
    joined = gather([tmp_path], datasets=["dtd"], configs=["a"], join_configs=True).tables
    assert [column.title for table in joined.values() for column in table.columns] == ["CoOp", "CoOp"]


def test_trainings_on_all_classes_stand_in_a_table_whatever_their_shots(tmp_path):
    records = arrays([0, 1], [0, 0])
    for dataset in ("dtd", "imagenet"):
        write_run(tmp_path / f"{dataset}/CoOp/v_16shots/seed1", records, classes="all")
    (table,) = gather([tmp_path]).tables.values()
    assert (table.protocol, table.datasets) == ("fewshot", ["imagenet", "dtd"])
    write_run(tmp_path / "evaluation/CoOp/v_16shots/eurosat/seed1", records, classes="all")
    for dataset in ("dtd", "eurosat"):
        write_run(tmp_path / f"evaluation/ZeroshotCLIP/v_16shots/{dataset}/seed1", records, classes="all")
    tables = gather([tmp_path]).tables
    assert tables["xd"].source == "imagenet"
    assert tables["fewshot"].datasets == ["dtd"]  # what was trained on ImageNet stands among tests elsewhere
    assert [column.title for column in tables["fewshot"].columns] == ["ZeroshotCLIP", "CoOp"]


def test_of_many_systems_the_first_and_those_with_the_most_results_are_drawn_at_first(tmp_path):
    records = arrays([0, 1], [0, 0])
    for index in range(12):
        for seed in (1, 2) if index > 8 else (1,):
            base_to_new(tmp_path, "dtd", "CoOp", f"v{index:02}", seed, records, records)
    page = render_page(gather([tmp_path]), "t")
    data = embedded(page)
    assert data["first"] == ["CoOp v00", "CoOp v09", "CoOp v10", "CoOp v11"]  # no two of one number are parted
    assert (data["runs"]["CoOp v00"], data["runs"]["CoOp v11"]) == (2, 4)
    assert len({data["styles"][title]["symbol"] for title in data["first"]}) == 4
    equal = embedded(render_page(gather([tmp_path], seeds=[1]), "t"))
    assert equal["first"] == [f"CoOp v{index:02}" for index in range(10)]
    assert len({equal["styles"][title]["symbol"] for title in equal["first"]}) == 10
    assert 'id="drawn-list"' in page
    assert 'id="drawn-list"' not in render_page(gather([tmp_path], configs=["v00", "v01"]), "t")


def test_of_many_systems_each_trainer_has_one_that_is_drawn_at_first(tmp_path):
    """Though parts of another trainer have as many results, and some more than it."""
    records = arrays([0, 1], [0, 0])
    for trainer, configs in (("CDC", [f"v{index:02}" for index in range(12)]), ("CoOp", "ab"), ("ZeroshotCLIP", "v")):
        for config in configs:
            for seed in (1, 2) if config in ("v05", "v06", "b") else (1,):
                base_to_new(tmp_path, "dtd", trainer, config, seed, records, records)
    data = embedded(render_page(gather([tmp_path]), "t"))
    assert data["first"] == ["ZeroshotCLIP", "CoOp b", "CDC v05", "CDC v06"]


def test_every_trainer_has_a_system_that_is_drawn_at_first(tmp_path):
    """Also if there are more than ten; CDC is the last in tables."""
    records = arrays([0, 1], [0, 0])
    trainers = ["CDC", *(f"Own{index:02}" for index in range(10))]
    for trainer in trainers:
        base_to_new(tmp_path, "dtd", trainer, "v", 1, records, records)
    base_to_new(tmp_path, "dtd", "CDC", "z_part", 1, records, records)
    assert embedded(render_page(gather([tmp_path]), "t"))["first"] == [*trainers[1:], "CDC v"]


def test_folders_of_seeds_are_told_once(tmp_path):
    records = arrays([0, 1], [0, 0])
    for seed in (1, 2, 12):
        base_to_new(tmp_path, "dtd", "CoOp", "v", seed, records, records)
    base_to_new(tmp_path, "dtd", "CDC", "v", 3, records, records)
    page = render_page(gather([tmp_path]), "t")
    assert f"<code>{tmp_path}/base2new/test_new/dtd/shots_16/CoOp/v/seed{{1,2,12}}</code>" in page
    assert f"<code>{tmp_path}/base2new/test_new/dtd/shots_16/CDC/v/seed3</code>" in page


@pytest.mark.parametrize(
    ("folders", "told"),
    [
        (["a/seed1", "b/seed1", "a/seed2"], ["a/seed{1,2}", "b/seed1"]),
        (["logs/x", "logs/y"], ["logs/x", "logs/y"]),
        (["a/seedling", "a/seed1/b", "seed1", "a", "a/seed"], ["a/seedling", "a/seed1/b", "seed1", "a", "a/seed"]),
    ],
)
def test_only_folders_of_seeds_are_joined(folders, told):
    assert _braced(folders) == told


def test_no_star_where_all_are_equal(tmp_path):
    records = arrays([0, 0], [0, 0])
    for trainer in ("CoOp", "CDC"):
        base_to_new(tmp_path, "dtd", trainer, "v", 1, records, records)
    assert 'class="best"' not in without_scripts(render_page(gather([tmp_path]), "A title"))


def test_of_many_classes_those_stay_in_which_systems_differ_most(tmp_path):
    names = [f"class {index}" for index in range(21_000)]
    label = [5, 20_999]
    base_to_new(tmp_path, "dtd", "CoOp", "v", 1, *[arrays([5, 1], label)] * 2, names=names)
    base_to_new(tmp_path, "dtd", "CDC", "v", 1, *[arrays([5, 20_999], label)] * 2, names=names)
    report = gather([tmp_path])
    assert all(len(own) == 300 and "class 20999" in own for own in report.classes.values())
    cdc = [own for own in report.details if own["system"] == "CDC"]
    assert all(len(own["classes"]) == 300 and own["classes"][-1] == 100.0 for own in cdc)


def test_a_log_of_published_code_is_enough(tmp_path):
    folder = tmp_path / "base2new"
    for part in ("train_base", "test_new"):
        run = folder / part / "dtd" / "shots_16" / "CoOp" / "vit_b16" / "seed1"
        run.mkdir(parents=True)
        (run / "log.txt").write_text(EVALUATED.format("base" if part == "train_base" else "new"), encoding="utf-8")
    report = gather([tmp_path])
    assert report.tables["base2new"].columns[0].cells["dtd", "New"].mean == 75.0
    assert report.epochs[0]["meters"]["loss"] == [[1], [1.5]]
    render_page(report, "t")


EVALUATED = """\
** Config **
SEED: 1
  SUBSAMPLE_CLASSES: {}
epoch [1/1][1/1]\ttime 0.1 (0.1)\tdata 0.1 (0.1)\teta 0:00:00\tloss 1.0 (1.5)\tacc 50.0 (60.0)\tlr 2e-3
Finished training
Do evaluation on test set
=> result
* total: 4
* correct: 3
* accuracy: 75.00%
* error: 25.00%
* macro_f1: 75.00%
"""


def test_the_command_writes_one_file(output, tmp_path, capsys):
    main([str(output), "--output", str(tmp_path / "report.html"), "--images", "0"])
    assert "1 table, 16 tests with records" in capsys.readouterr().out
    assert [path.name for path in tmp_path.iterdir()] == ["report.html"]


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["empty"], "there is no run below empty"),
        (["nowhere"], "there is no output folder nowhere"),
        (["output", "--compare", "CoOp", "MaPLe"], "no system is called MaPLe; there are CoOp, CDC"),
        (["output", "--output", "no/such/folder.html"], "No such file or directory"),
        (["output", "--images", "-1"], "--images must be a number from 0 on"),
    ],
)
def test_what_cannot_be_done_is_one_clear_error(output, tmp_path, monkeypatch, capsys, arguments, said):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "output").symlink_to(output)
    with pytest.raises(SystemExit) as ended:
        main(arguments)
    assert ended.value.code == 2
    assert said in capsys.readouterr().err


@pytest.mark.parametrize("package", ["jinja2", "plotly"])
def test_without_its_packages_the_command_names_the_extra(monkeypatch, capsys, package):
    monkeypatch.setitem(sys.modules, package, None)
    with pytest.raises(SystemExit) as ended:
        main(["."])
    assert ended.value.code == 2
    assert f"{package} is not installed: pip install -e '.[report]'" in capsys.readouterr().err


def test_an_open_set_has_a_table_of_scores_and_histograms_of_unknown_images(tmp_path):
    records = arrays([0, 1, 1, 1], [0, 0, -1, -1], [0.9, 0.9, 0.1, 0.1])
    records["out"], records["origin"] = np.array([False, False, True, True]), np.array(["base", "base", "near", "near"])
    known = arrays([0, 1], [0, 0], [0.9, 0.9])
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, known, known)
    folder = tmp_path / "open_set" / "dtd" / "shots_16" / "CoOp" / "vit_b16" / "seed1"
    metrics = {"accuracy": 50.0, "near/auroc_open_confidence": 100.0, "near/auroc_open_entropy": 75.0}
    write_run(folder, records, figures=metrics)
    report = gather([tmp_path])
    (column,) = report.tables["open_set"].columns
    assert column.cells["dtd", "confidence"].mean == 100.0
    (own,) = report.open_sets
    assert own["histograms"]["confidence"]["out"][2] == 100.0
    assert own["histograms"]["confidence"]["right"][-3] == 100.0
    assert "AUROC of each score" in render_page(report, "t")


def test_the_images_of_a_system_are_those_of_the_seed_whose_records_are_there(output, tmp_path):
    shutil.copytree(output, tmp_path / "output")
    path = tmp_path / "output/base2new/test_new/dtd/shots_16/CDC/vit_b16/seed1/predictions.npz"
    path.write_bytes(path.read_bytes()[:100])
    report = gather([tmp_path / "output"])
    (own,) = [own for own in report.galleries if (own["dataset"], own["part"]) == ("dtd", "new")]
    seeds = {row["title"]: row["seed"] for row in own["rows"]}
    # CDC's first seed is broken, so there is no pair of tests of one seed.
    assert seeds == {"CoOp: most certain mistakes": 1, "CDC: most conflict": 2}


def test_an_unfinished_test_on_an_open_set_does_not_keep_the_rest_from_the_page(tmp_path):
    records = arrays([0, 1], [0, 0])
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, records, records)
    folder = tmp_path / "open_set" / "dtd" / "shots_16" / "CoOp" / "vit_b16" / "seed1"
    folder.mkdir(parents=True)
    (folder / "log.txt").write_text("Evaluate on the *test* set\n")
    report = gather([tmp_path])
    assert list(report.tables) == ["base2new"]
    assert any("no run has a result" in note for note in report.notes)


def test_strange_values_in_a_result_are_no_costs_and_no_settings(tmp_path):
    records = arrays([0, 1], [0, 0])
    strange = {"test_seconds": float("nan"), "train_seconds": "long", "versions": ["2.0"], "config": [1]}
    strange["peak_memory_bytes"] = 10**400
    for part, classes in (("train_base", "base"), ("test_new", "new")):
        folder = tmp_path / "base2new" / part / "dtd" / "shots_16" / "CoOp" / "vit_b16" / "seed1"
        write_run(folder, records, classes=classes, **strange)
    report = gather([tmp_path])
    assert [report.costs[0][key] for key in ("test_seconds", "train_seconds", "peak_memory_bytes")] == [None] * 3
    assert report.facts["versions"] == {}
    render_page(report, "t")


def test_no_data_set_takes_the_name_of_another_element(tmp_path):
    records = arrays([0, 1], [0, 0])
    for dataset in ("data", "base", "cost", "table-cost", "a b", "a-b"):
        for config in ("v 1", "v-1"):
            base_to_new(tmp_path, dataset, "CoOp", config, 1, records, records)
    page = render_page(gather([tmp_path]), "t")
    names = re.findall(r'\bid="([^"]+)"', re.sub(r"<script>.*?</script>", "", page, flags=re.DOTALL))
    assert len(names) == len(set(names))
    links = embedded(page)["links"]
    assert sorted(links.values()) == ["a b", "a-b", "base", "cost", "data", "table-cost"]
    assert all(f'id="{link}/coop-v-1"' in page and f'id="{link}/coop-v-1-"' in page for link in links)


def test_a_mean_over_fewer_seeds_than_others_says_so(output, tmp_path):
    shutil.copytree(output, tmp_path / "output")
    shutil.rmtree(tmp_path / "output/base2new/test_new/dtd/shots_16/CDC/vit_b16/seed2")
    text = without_scripts(render_page(gather([tmp_path / "output"]), "t"))
    row = re.search(r'<tr class="" data-dataset="dtd">.*?</tr>', text, re.DOTALL)[0]
    assert row.count("75.00 (n=1)") == 3


def test_images_of_unknown_classes_are_no_mistakes_of_a_test_in_another_protocol(tmp_path):
    records = arrays([0, 1], [0, -1])
    records["out"], records["origin"] = np.array([False, True]), np.array(["base", "near"])
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, records, records, accuracy=100.0)
    assert [own["classes"][0] for own in gather([tmp_path]).details] == [100.0, 100.0]


def test_cost_has_what_results_tell_of_memory_and_of_what_is_trained(tmp_path):
    records = arrays([0, 1], [0, 0])
    costs = {"train_seconds": 3.0, "trained_values": 8192, "peak_memory_bytes": 3 * 2**20}
    base_to_new(tmp_path, "dtd", "CoOp", "vit_b16", 1, records, records, **costs)
    base_to_new(tmp_path, "dtd", "CDC", "vit_b16", 1, records, records)  # of an older version
    report = gather([tmp_path])
    assert [own["trained_values"] for own in report.costs] == [8192, None]
    table = without_scripts(render_page(report, "t")).split('id="table-cost"')[1].split("</table>")[0]
    first, second = re.findall("<tr .*?</tr>", table, re.DOTALL)
    assert re.findall(">([^<>]+)</td>", first)[-6:] == ["3", "2", "2", "8,192", "3", "cpu"]
    assert re.findall(">([^<>]+)</td>", second)[-6:] == ["–", "2", "2", "–", "–", "cpu"]


def test_each_results_file_is_read_once(output, monkeypatch):
    read = []
    honest = runs._read_content
    monkeypatch.setattr(runs, "_read_content", lambda path: read.append(path) or honest(path))
    gather([output])
    assert len(set(read)) == len(read) == len([*output.rglob("results.json")])
    runs.find_runs(output, "base2new")
    assert len(read) == 2 * len(set(read))  # later calls look again


def test_it_chooses_runs_as_the_tables_do(output, tmp_path, capsys):
    page = tmp_path / "page.html"
    main([str(output), "--output", str(page), "--dataset", "dtd", "--shots", "16", "--seed", "1", "--trainer", "CoOp"])
    found = embedded(page.read_text(encoding="utf-8"))
    assert found["datasets"] == ["dtd"]
    assert [column["title"] for column in found["tables"]["base2new"]["columns"]] == ["CoOp"]
    with pytest.raises(SystemExit):
        main([str(output), "--output", str(page), "--shots", "4"])
    assert "there is no run below" in capsys.readouterr().err
