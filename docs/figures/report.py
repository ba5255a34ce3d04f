"""The picture of a report in README: the top of the page as Chromium shows it.

    python -m tools.study --only base2new
    python -m tools.report output/study --title "The study: base to new classes" --output report.html
    python -m docs.figures.report report.html       # writes docs/report.png

It needs playwright, and Chromium as chromium or google-chrome on the path.
"""

from __future__ import annotations

import io
import shutil
import sys
from pathlib import Path

from PIL import Image

PICTURE = Path(__file__).resolve().parents[1] / "report.png"
WIDTH, HEIGHT = 960, 1410


def main() -> None:
    from playwright.sync_api import sync_playwright

    chromium = shutil.which("chromium") or shutil.which("google-chrome")
    with sync_playwright() as started:
        browser = started.chromium.launch(executable_path=chromium, args=["--no-sandbox"])
        view = browser.new_page(viewport={"width": WIDTH, "height": HEIGHT}, color_scheme="light")
        view.goto(Path(sys.argv[1]).absolute().as_uri())
        while not view.locator("[data-chart=scatter] .main-svg").count():
            view.wait_for_timeout(100)
        view.wait_for_timeout(1000)
        content = view.screenshot()
        browser.close()
    Image.open(io.BytesIO(content)).convert("RGB").save(PICTURE, optimize=True)


if __name__ == "__main__":
    main()
