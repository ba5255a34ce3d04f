"""The measurement of the report, on the few runs of the quick study."""

from __future__ import annotations

import re
import shutil

import pytest

from tools.study.plan import quick
from tools.study.report_size import main, open_in_browser

pytest.importorskip("jinja2", reason="the report needs jinja2: pip install -e '.[report]'")
pytest.importorskip("plotly", reason="the report needs plotly: pip install -e '.[report]'")
pytest.importorskip("playwright", reason="needs playwright: pip install -e '.[test]'")


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="there is no chromium or google-chrome"
)
def test_it_makes_runs_a_page_and_opens_it(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("tools.study.plan.full", quick)
    monkeypatch.setattr("tools.study.report_size.IMAGES", 20)
    main(["--folder", str(tmp_path)])
    lines = capsys.readouterr().out.splitlines()
    assert re.fullmatch(r"230 runs: made in [\d.]+ s \([\d.]+ s of them computing\)", lines[0])
    assert re.fullmatch(r"[\d.]+ MB, open after [\d.]+ s \([\d.]+ s of them computing\)", lines[1])
    assert "Mean and standard deviation" in (tmp_path / "report.html").read_text(encoding="utf-8")


@pytest.mark.skipif(
    not (shutil.which("chromium") or shutil.which("google-chrome")), reason="there is no chromium or google-chrome"
)
def test_page_without_a_chart_is_told(tmp_path, monkeypatch):
    page = tmp_path / "page.html"
    page.write_text("<p>Nothing</p>", encoding="utf-8")
    monkeypatch.setattr("tools.study.report_size.OPENING_SECONDS", 0.1)
    with pytest.raises(ValueError, match=r"page\.html has drawn no chart in 0\.1 seconds"):
        open_in_browser(page, shutil.which("chromium") or shutil.which("google-chrome"))


def test_packages_that_are_missing_are_told_before_the_work(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("importlib.util.find_spec", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main(["--folder", str(tmp_path)])
    assert "it needs jinja2 and plotly and playwright: pip install" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_without_a_browser_it_says_so(tmp_path, monkeypatch, capsys):
    monkeypatch.setattr("shutil.which", lambda name: None)
    with pytest.raises(SystemExit, match="2"):
        main(["--folder", str(tmp_path)])
    assert "there is no chromium" in capsys.readouterr().err
