"""The report in a real browser. It needs Chromium, by the name CHROMIUM or as chromium or google-chrome on the path.

Screenshots are kept in the folder that SCREENSHOTS names, if it is set.
"""

from __future__ import annotations

import itertools
import os
import shutil
from pathlib import Path

import numpy as np
import pytest

from made_runs import EPOCHS, arrays, base_to_new, two_systems, write_run
from tools.common.colours import TRAINERS
from tools.report.__main__ import main

pytest.importorskip("jinja2", reason="the report needs jinja2: pip install -e '.[report]'")
pytest.importorskip("plotly", reason="the report needs plotly: pip install -e '.[report]'")
playwright = pytest.importorskip("playwright.sync_api", reason="needs playwright: pip install -e '.[test]'")

CHROMIUM = next(filter(None, map(shutil.which, (os.environ.get("CHROMIUM", ""), "chromium", "google-chrome"))), None)
pytestmark = pytest.mark.skipif(not CHROMIUM, reason="there is no chromium or google-chrome (CHROMIUM names another)")

PATIENCE = 120  # seconds, on a busy machine
OPENED = "document.documentElement.classList.contains('opened')"  # all is laid out
HOSTILE = "</script><img src=x onerror=\"document.title='hit'\"><a href='javascript:1'>name</a>"


@pytest.fixture(scope="module")
def browser():
    with playwright.sync_playwright() as started:
        # As root, as in a container, Chromium has no sandbox; it opens nothing but the pages of these tests.
        # Containers often have little shared memory, and without it Chromium stops drawing.
        own = started.chromium.launch(executable_path=CHROMIUM, args=["--no-sandbox", "--disable-dev-shm-usage"])
        yield own
        own.close()


PUBLISHED_LOG = """\
** Config **
  SUBSAMPLE_CLASSES: {part}
SEED: 1
{epochs}Finish training
Do evaluation on test set
=> result
* total: 1,000
* correct: 800
* accuracy: 80.00%
* error: 20.00%
* macro_f1: 79.10%
"""


@pytest.fixture(scope="module")
def report(tmp_path_factory):
    folder = tmp_path_factory.mktemp("browser")
    two_systems(folder / "output", folder / "data")
    for dataset, part in itertools.product(
        ("dtd", "eurosat", "svhn<b>"), ("base", "new")
    ):  # as MaPLe's code leaves runs
        kind = "train_base" if part == "base" else "test_new"
        run = folder / f"output/base2new/{kind}/{dataset}/shots_16/MaPLe/vit_b16/seed1"
        run.mkdir(parents=True)
        (run / "log.txt").write_text(PUBLISHED_LOG.format(part=part, epochs=EPOCHS if part == "base" else ""))
    names = [HOSTILE, "\u202eright to left", "long " * 60]
    records = arrays([1, 1, 1, 2], [0, 0, 1, 2], templates=[[1, 1], [0, 1], [1, 1], [2, 2]])
    base_to_new(folder / "output", "svhn<b>", "CDC", "vit_b16", 1, records, records, names=names)
    base_to_new(folder / "output", "svhn<b>", "CoOp", "vit_b16", 1, records, records, names=names)
    main([str(folder / "output"), "--output", str(folder / "report.html")])
    return folder / "report.html"


class Page:
    """An open report, and all that it asked for and complained of."""

    def __init__(self, browser, report, width, scheme="light", link=""):
        self.requests, self.errors = [], []
        self.view = browser.new_page(viewport={"width": width, "height": 900}, color_scheme=scheme)
        self.view.set_default_timeout(1000 * PATIENCE)
        self.view.on("console", lambda message: self.errors.append(message.text) if message.type == "error" else None)
        self.view.on("pageerror", lambda error: self.errors.append(str(error)))
        self.view.on("request", lambda request: self.requests.append(request.url))
        self.view.goto(f"{report.as_uri()}{link}")

    def wait(self, condition):
        """Until a condition holds. Playwright's own waiting evaluates text in the page, which the page forbids."""
        for _ in range(10 * PATIENCE):
            if self.view.evaluate(f"Boolean({condition})"):
                return
            self.view.wait_for_timeout(100)
        raise TimeoutError(condition)

    def show(self, name):
        """Scroll to a chart. Playwright's own scrolling waits for two frames alike, which may never come."""
        chart = f"document.querySelector('[data-chart={name}]')"
        self.view.evaluate(f"{chart}.scrollIntoView()")
        self.wait(f"{chart}.data || {chart}.querySelector('.empty')")

    def show_all(self):
        """Scroll through the page, as charts are drawn when they come into sight, until all of it is laid out."""
        names = self.view.evaluate("[...document.querySelectorAll('[data-chart]')].map((node) => node.dataset.chart)")
        for name in names:
            self.show(name)
        self.wait(OPENED)


@pytest.fixture
def opened(browser, report):
    pages = []

    def _open(width=1600, **options):
        pages.append(Page(browser, report, width, **options))
        return pages[-1]

    yield _open
    for page in pages:
        page.view.close()
        assert page.errors == []
        assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [report.as_uri()]


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_it_opens_without_errors_and_fits_the_width(opened, width, scheme):
    page = opened(width, scheme=scheme)
    page.show_all()
    assert page.view.evaluate("document.documentElement.scrollWidth") <= width
    assert page.view.evaluate("document.documentElement.dataset.theme") == scheme
    assert page.view.locator("[data-chart] .main-svg").count() >= 2 * 9
    heights = page.view.evaluate("[...document.querySelectorAll('#table-base2new tr')].map((row) => row.offsetHeight)")
    assert max(heights) <= 60  # two lines of text
    if os.environ.get("SCREENSHOTS"):
        folder = Path(os.environ["SCREENSHOTS"])
        folder.mkdir(parents=True, exist_ok=True)
        page.view.screenshot(path=folder / f"report_{width}_{scheme}.png", full_page=True)


def test_runs_of_published_code_stand_in_tables_and_curves(opened):
    page = opened()
    page.show_all()
    head = page.view.locator("#table-base2new thead tr").first.locator("th").all_text_contents()
    row = page.view.locator("#table-base2new tr[data-dataset=dtd] td").all_text_contents()
    place = 1 + 3 * (head.index("MaPLe") - 1)
    assert [text.split()[0] for text in row[place : place + 3]] == ["80.00"] * 3
    names = page.view.evaluate("document.querySelector('[data-chart=epochs]').data.map((trace) => trace.name)")
    assert "MaPLe" in names


@pytest.mark.skipif(not os.environ.get("REPORT"), reason="REPORT names no page")
@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", [360, 1600])
def test_the_page_that_is_named_opens_without_errors(browser, width, scheme):
    """As .ci/run does it with the report of the quick study."""
    path = Path(os.environ["REPORT"]).absolute()
    page = Page(browser, path, width, scheme)
    page.show_all()
    assert page.errors == []
    assert [url for url in page.requests if not url.startswith(("data:", "blob:"))] == [path.as_uri()]
    assert page.view.evaluate("document.documentElement.scrollWidth") <= width
    if os.environ.get("SCREENSHOTS"):
        page.view.screenshot(path=Path(os.environ["SCREENSHOTS"]) / f"named_{width}_{scheme}.png", full_page=True)
    page.view.close()


def test_text_from_outside_is_shown_as_text(opened):
    page = opened()
    page.view.select_option("#dataset", "svhn<b>")
    page.show_all()
    assert page.view.title() == "CDC and its peers"
    assert page.view.locator("img[src=x]").count() == 0
    assert page.view.locator("a[href^=javascript]").count() == 0
    confused = page.view.locator("[data-list=confusions] li").first.inner_text()
    assert HOSTILE in confused
    ticks = page.view.locator("[data-chart=classes] .ytick text").all_text_contents()
    assert any(text.startswith("</script><img src=x") for text in ticks)


def rows(page):
    return page.view.locator("#table-base2new tbody tr td:first-child").all_inner_texts()


def test_tables_sort_and_filter_and_the_average_stays_last(opened):
    page = opened()
    heads = page.view.locator("#table-base2new thead tr:last-child button")
    heads.nth(0).click()
    names = rows(page)
    assert names[:-1] == sorted(names[:-1])
    assert names[-1].startswith("average")
    heads.nth(4).click()
    values = page.view.locator("#table-base2new tbody tr:not(.average) td:nth-child(5)").all_inner_texts()
    numbers = [float(text.split()[0]) for text in values]
    assert numbers == sorted(numbers, reverse=True)
    assert page.view.locator("#table-base2new th[aria-sort=descending]").count() == 1
    page.view.fill("[data-filters=table-base2new]", "euro")
    assert list(page.view.locator("#table-base2new tbody tr:visible td:first-child").all_inner_texts()) == ["EuroSAT"]


def test_sections_fold_and_charts_of_opened_ones_are_drawn(opened):
    page = opened()
    page.view.click("#fold")
    assert page.view.locator("section > details[open]").count() == 0
    page.view.locator("#uncertainty > summary").click()
    page.show("risk")
    page.wait("document.querySelector('[data-chart=risk]').data")


def test_hovering_over_a_point_shows_its_numbers(opened):
    page = opened()
    chart = page.view.locator("[data-chart=scatter]")
    page.show("scatter")
    chart.locator(".point").first.hover(force=True)
    page.view.wait_for_selector("[data-chart=scatter] .hovertext")
    assert "HM" in chart.locator(".hovertext").first.text_content()


def test_a_link_opens_the_place_of_a_systems_runs(opened):
    page = opened(link="#eurosat/cdc")
    assert page.view.evaluate("document.getElementById('eurosat/cdc').open")
    assert page.view.input_value("#dataset") == "eurosat"
    page.view.evaluate("location.hash = '#dtd/coop'")
    page.wait("document.getElementById('dtd/coop').open")
    assert page.view.input_value("#dataset") == "dtd"


def test_another_data_set_and_base_change_the_charts(opened):
    page = opened()
    page.show_all()
    before = page.view.evaluate("JSON.stringify(document.querySelector('[data-chart=gain]').data)")
    page.view.select_option("#base", "CDC")
    assert page.view.evaluate("JSON.stringify(document.querySelector('[data-chart=gain]').data)") != before
    assert page.view.locator("[data-shows=base]").text_content() == "CDC"


def test_it_is_readable_by_keyboard(opened):
    page = opened()
    page.view.locator("#table-base2new thead tr:last-child button").first.focus()
    page.view.keyboard.press("Enter")
    assert page.view.locator("#table-base2new th[aria-sort]").count() == 1


@pytest.fixture(scope="module")
def mixed(tmp_path_factory):
    """Runs of several protocols on one data set, which has the name of an element of the page."""
    folder = tmp_path_factory.mktemp("mixed")
    label = [0, 0, 1, 2]
    half, whole = arrays([1, 1, 1, 2], label, [0.5] * 4), arrays(label, label, [0.9] * 4)
    base_to_new(folder / "output", "data", "ZeroshotCLIP", "vit_b16", 1, half, half)
    base_to_new(folder / "output", "data", "CoOp", "vit_b16", 1, half, half)
    base_to_new(folder / "output", "data", "CoOp", "vit_b16", 2, whole, whole)
    opened = {
        **arrays([0, -1], [0, -1], [0.1, 0.9]),
        "out": np.array([False, True]),
        "origin": np.array(["base", "near"]),
    }
    opened["prediction"][1] = 0
    figures = {"accuracy": 100.0, "near/auroc_open_confidence": 0.0}
    write_run(folder / "output/open_set/data/shots_16/CoOp/vit_b16/seed1", opened, figures=figures)
    for shots, records in ((1, half), (4, whole)):
        write_run(folder / f"output/data/CoOp/vit_b16_{shots}shots/seed1", records, classes="all")
    main([str(folder / "output"), "--output", str(folder / "report.html")])
    return folder / "report.html"


@pytest.fixture
def page(browser, mixed):
    own = Page(browser, mixed, 1600)
    own.show_all()
    yield own
    own.view.close()
    assert own.errors == []


def drawn(page, chart):
    return page.view.evaluate(f"document.querySelector('[data-chart={chart}]').data")


def test_few_shot_tests_are_chosen_by_their_number_of_shots(page):
    assert page.view.locator("#part option").all_inner_texts() == ["base", "new", "all, 1 shot", "all, 4 shots"]
    for part, right in (("all/1", 50.0), ("all/4", 100.0)):
        page.view.select_option("#part", part)
        reliability = [trace for trace in drawn(page, "reliability") if trace.get("name") == "CoOp"]
        assert [trace["y"] for trace in reliability] == [[right]]


def test_images_of_unknown_classes_stand_beside_the_base_classes_alone(page):
    page.view.select_option("#system", "CoOp")
    page.view.select_option("#part", "base")
    assert [trace["name"] for trace in drawn(page, "hist-confidence")] == ["right", "of no known class"]
    page.view.select_option("#part", "new")
    assert [trace["name"] for trace in drawn(page, "hist-confidence")] == ["right", "wrong"]


def test_the_gain_over_what_trains_nothing_is_of_all_seeds(page):
    assert page.view.input_value("#base") == "ZeroshotCLIP"
    gains = {trace["name"]: trace["y"][0] for trace in drawn(page, "gain")}
    assert gains == {"CoOp, base": 25.0, "CoOp, new": 25.0}


def test_gains_stand_in_the_order_of_the_table(browser, tmp_path):
    records = arrays([0, 1, 1, 2], [0, 0, 1, 2])
    for dataset, trainer in (
        ("dtd", "MaPLe"),
        ("eurosat", "MaPLe"),
        ("eurosat", "CoOp"),
        ("dtd", "CDC"),
        ("eurosat", "CDC"),
    ):
        base_to_new(tmp_path / "output", dataset, trainer, "v", 1, records, records)
    main([str(tmp_path / "output"), "--output", str(tmp_path / "report.html")])
    own = Page(browser, tmp_path / "report.html", 1600)
    own.view.select_option("#base", "MaPLe")
    own.show_all()
    own.wait("document.querySelector('[data-chart=gain]').data[0].name === 'CoOp, base'")
    assert own.view.locator("[data-chart=gain] .xtick text").all_text_contents() == ["DTD", "EuroSAT"]
    assert own.errors == []
    own.view.close()


@pytest.fixture(scope="module")
def many(tmp_path_factory):
    """Twelve systems, of which the last two lack a data set; their names differ in the middle."""
    folder = tmp_path_factory.mktemp("many")
    label = [0, 0, 1, 2]
    for index in range(12):
        for dataset in ("dtd", "eurosat", "ucf101")[: 2 if index > 9 else 3]:
            right = arrays([0] * (index % 3) + [1] * (4 - index % 3), label, templates=[[0, 0]] * 4)
            base_to_new(
                folder / "output", dataset, "CDC", f"a_long_name_of_a_config_{index:02}_as_of_a_search", 1, right, right
            )
    for dataset in ("dtd", "eurosat", "ucf101"):
        base_to_new(folder / "output", dataset, "ZeroshotCLIP", "v", 1, arrays(label, label), arrays(label, label))
    main([str(folder / "output"), "--output", str(folder / "report.html")])
    return folder / "report.html"


@pytest.fixture(params=[1600, 360])
def page_of_many(browser, many, request):
    own = Page(browser, many, request.param)
    own.show_all()
    yield own
    assert own.view.evaluate("document.documentElement.scrollWidth") <= request.param
    own.view.close()
    assert own.errors == []


def systems_drawn(page, chart="scatter"):
    return {trace["legendgroup"] for trace in drawn(page, chart) if "legendgroup" in trace}


def test_of_many_systems_ten_are_drawn_at_first_and_the_rest_can_be_ticked(page_of_many):
    page = page_of_many
    assert page.view.locator("#drawn-number").inner_text() == "10 of 13"
    assert len(systems_drawn(page)) == 10
    names = [trace["name"] for trace in drawn(page, "reliability") if "name" in trace]
    assert len(set(names)) == 10
    assert all(len(name) <= 40 for name in names)
    assert page.view.locator("[data-chart=scatter] .annotation-text").all_text_contents() == ["average of 3", "DTD"]

    page.view.locator(".drawn > summary").click()
    page.view.fill("#drawn-filter", "_11_as")
    page.view.locator("#drawn-list li:visible input").check()
    assert page.view.locator("#drawn-number").inner_text() == "11 of 13"
    assert len(systems_drawn(page)) == 11
    assert page.view.locator("[data-chart=scatter] .annotation-text").first.text_content() == "average of 2"
    page.view.fill("#drawn-filter", "")
    page.view.click("#drawn-none")
    assert "of the systems that are drawn" in page.view.locator("[data-chart=scatter] .empty").inner_text()
    assert page.view.locator("[data-list=images] img").count() == 0
    page.view.click("#drawn-all")
    page.wait("document.querySelector('[data-chart=scatter]').data")
    assert len(systems_drawn(page)) == 13


def test_charts_have_the_averages_of_the_table(browser, tmp_path):
    """Where systems that are drawn have fewer than two data sets in common, and one of them has those of the table."""
    records = arrays([0, 1, 1], [0, 1, 0])
    for dataset, configs in (("dtd", ("v", "part")), ("eurosat", ("v",))):
        for config in configs:
            base_to_new(tmp_path, dataset, "CDC", config, 1, records, records)
        base_to_new(tmp_path, dataset, "CoOp", "v", 1, records, records)
    main([str(tmp_path), "--output", str(tmp_path / "report.html")])
    own = Page(browser, tmp_path / "report.html", 1600)
    own.show_all()
    assert own.view.locator("[data-chart=scatter] .annotation-text").all_text_contents() == ["average of 2", "DTD"]
    points = [trace for trace in drawn(own, "scatter") if "legendgroup" in trace]
    by_panel = {
        axis: {trace["legendgroup"] for trace in points if trace.get("xaxis", "x") == axis} for axis in ("x", "x2")
    }
    assert by_panel == {"x": {"CoOp", "CDC v"}, "x2": {"CoOp", "CDC v", "CDC part"}}
    own.view.close()
    assert own.errors == []


def test_classes_can_be_chosen_where_tests_have_records(browser, tmp_path):
    records = arrays([0, 1, 1], [0, 1, 0])
    for dataset in ("dtd", "eurosat"):
        base_to_new(tmp_path, dataset, "CDC", "v", 1, records, records)
    for path in tmp_path.glob("**/eurosat/**/predictions.npz"):
        path.unlink()
    main([str(tmp_path), "--output", str(tmp_path / "report.html")])
    own = Page(browser, tmp_path / "report.html", 1600)
    assert own.view.locator("#part").is_visible()
    own.view.select_option("#dataset", "eurosat")
    assert not own.view.locator("#part").is_visible()
    own.view.close()
    assert own.errors == []


def test_gains_of_many_systems_stand_in_rows(page_of_many):
    base, new = drawn(page_of_many, "gain")[:2]
    assert len(new["x"]) == len(base["x"]) == 9  # ZeroshotCLIP, which they are compared with, is the tenth
    assert new["x"] == sorted(new["x"])  # the best at the top
    ticks = page_of_many.view.locator("[data-chart=gain] .ytick text").all_text_contents()
    assert len(set(ticks)) == 9
    titles = page_of_many.view.locator("[data-chart=gain] .annotation-text").all_text_contents()
    assert titles == ["average of 3", "DTD"]
    assert all(len(text) <= 32 for text in ticks)


def test_an_average_in_a_chart_is_that_of_the_table(opened):
    page = opened()
    page.show_all()
    text = page.view.locator("#table-base2new tr.average td").all_text_contents()
    head = page.view.locator("#table-base2new thead tr").first.locator("th").all_text_contents()
    for trace in drawn(page, "scatter"):
        if trace.get("showlegend") and "legendgroup" in trace:
            place = 1 + 3 * (head.index(trace["legendgroup"]) - 1)
            base, new = (float(cell.split()[0]) for cell in text[place : place + 2])
            assert (round(trace["x"][0], 2), round(trace["y"][0], 2)) == (base, new)


@pytest.mark.parametrize("width", [700, 1600])
def test_what_a_link_goes_to_stands_below_the_bar(opened, width):
    page = opened(width)
    page.show_all()  # charts that are drawn later would move it
    page.view.evaluate("location.hash = '#classes'")
    page.wait("Math.abs(document.getElementById('classes').getBoundingClientRect().top) < 300")
    top = page.view.evaluate("document.getElementById('classes').getBoundingClientRect().top")
    bar = page.view.locator(".bar").bounding_box()
    assert (bar["y"], top >= bar["height"]) == (0, True)


def test_deviations_are_whole(opened):
    page = opened()
    page.show("scatter")
    layout = page.view.evaluate("document.querySelector('[data-chart=scatter]').layout")
    bars = 0
    for trace in drawn(page, "scatter"):
        for name in "xy":
            low, high = layout[trace.get(f"{name}axis", name).replace(name, f"{name}axis")]["range"]
            error = trace.get(f"error_{name}", {"array": [0.0]})["array"][0]
            if "legendgroup" in trace:
                assert low < trace[name][0] - error <= trace[name][0] + error < high
                bars += error > 0
    assert bars


def test_bars_have_an_edge_of_their_trainers_colour(opened):
    """A fainter fill alone has too little contrast."""
    page = opened()
    page.show_all()
    for chart in ("gain", "templates"):
        for trace in drawn(page, chart):
            fills = trace["marker"]["color"]
            fills = fills if isinstance(fills, list) else [fills]
            assert {fill[:7] for fill in fills} == {trace["marker"]["line"]["color"]} <= set(TRAINERS.values())


def test_systems_of_odd_names_that_are_never_right_are_drawn(browser, tmp_path):
    """Of the kinds right and wrong a histogram has but one; a name is no place for a number."""
    records = arrays([1, 1, 0, 0], [0, 0, 1, 2])
    for name in ("My\"%{x}'<b>", "constructor"):
        base_to_new(tmp_path / "output", "dtd", name, "v", 1, records, records)
    main([str(tmp_path / "output"), "--output", str(tmp_path / "report.html")])
    page = Page(browser, tmp_path / "report.html", 1600)
    page.show_all()
    assert [trace["name"] for trace in drawn(page, "hist-confidence")] == ["wrong"]
    points = [trace for trace in drawn(page, "scatter") if "legendgroup" in trace]
    assert {trace["meta"] for trace in points} == {"My\"%{x}'&lt;b&gt;", "constructor"}
    assert not any("%{x}" in trace["hovertemplate"] for trace in points)
    page.view.close()
    assert page.errors == []


def test_all_charts_are_there_for_the_printer(browser, mixed):
    page = Page(browser, mixed, 1600)
    page.view.evaluate("window.dispatchEvent(new Event('beforeprint'))")
    assert page.view.evaluate(
        "[...document.querySelectorAll('[data-chart]')].every((node) => node.data || node.querySelector('.empty'))"
    )
    fits = "node.querySelector('.main-svg').getBoundingClientRect().width === node.clientWidth"
    assert page.view.evaluate(f"[...document.querySelectorAll('[data-chart]')].every((node) => !node.data || {fits})")
    page.view.close()


def test_what_is_not_in_sight_is_laid_out_in_the_end(opened):
    """Else a picture of the whole page would have gaps."""
    page = opened()
    styles = "[...document.querySelectorAll('section')].map((node) => getComputedStyle(node).contentVisibility)"
    page.wait(OPENED)
    assert set(page.view.evaluate(styles)) == {"visible"}
    assert "Where the runs lie" in page.view.locator("body").inner_text()
    for then in ("window.dispatchEvent(new Event('beforeprint'))", "location.hash = '#cost'"):
        page.view.evaluate("document.documentElement.classList.remove('opened')")
        assert set(page.view.evaluate(styles)) == {"auto"}
        page.view.evaluate(then)
        page.wait(OPENED)
    assert page.view.evaluate("Error.stackTraceLimit") == 10  # as a browser has it
