"""The page of the study and its pictures, from the figures of its runs alone.

docs/study.md is written by hand; its tables are generated blocks (`tools.common.blocks`), which are made again here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from pathlib import Path

from storage.files import atomic_write
from tools.common.blocks import fill, skeleton
from tools.common.paths import ROOT
from tools.study import pictures, tables, trust
from tools.study.measured import NOTHING, Measured
from tools.study.plan import Plan
from tools.study.results import Figures
from tools.study.searches import grids, searches
from tools.study.sections import SECTIONS

PAGE = ROOT / "docs" / "study.md"
TRIAL = (
    "> **A trial: the figures on this page mean nothing.** Each part of the study was run once and briefly, to show "
    "that it runs: few images, few epochs, few data sets."
)


def write_page(plan: Plan, figures: Figures, page: Path) -> None:
    """Write the page's blocks, and its pictures beside it. A page that is not there yet gets headings and blocks alone.

    Args:
        plan: which runs there are to be.
        figures: of those that are there.
        page: to write.

    Raises:
        ValueError: the page that is there lacks a block.
    """
    text = page.read_text(encoding="utf-8") if page.is_file() else new_page()
    page.parent.mkdir(parents=True, exist_ok=True)
    measured = Measured(plan, figures)
    harder, systems, parts = tables.on_harder_sets(measured)

    def picture(name: str, draw: pictures.Draw, title: str, of: Measured = measured) -> str:
        path = page.with_name(f"{page.stem}_{name}.png")
        return f"![{title}]({path.name})" if draw(of, path) else NOTHING

    makers: dict[str, dict[str, Callable[[], str]]] = {
        "base2new": {
            "differences": lambda: tables.differences(measured),
            "differences, drawn": lambda: picture(
                "differences", pictures.draw_differences, "CDC minus each other system, with intervals"
            ),
            "base to new": lambda: tables.base_to_new(measured),
            "base to new, each set": lambda: tables.each_set(measured),
            "uncertainty": lambda: trust.uncertainty(measured),
            "uncertainty, differences": lambda: trust.uncertainty_differences(measured),
        },
        "seeds": {
            "more seeds": lambda: tables.more_seeds(measured),
            "parts, more seeds": lambda: tables.more_parts(measured),
        },
        "ablation": {
            "parts": lambda: tables.parts(measured),
            "ablation": lambda: tables.ablation(measured),
            "templates": lambda: tables.numbers(measured),
            "templates, drawn": lambda: picture(
                "templates", pictures.draw_numbers, "Accuracy and training time by number of templates"
            ),
            "diversity": lambda: tables.diversity(measured),
        },
        "cost": {
            "cost": lambda: tables.cost(measured),
            "cost, differences": lambda: tables.cost_differences(measured),
        },
        "harder": {
            "harder sets": lambda: tables.base_to_new(harder, systems),
            "harder sets, each": lambda: tables.each_set(harder, systems),
            "harder sets, differences": lambda: tables.differences_by_set(harder, systems),
            "harder sets, CLIP-ICM": lambda: tables.subspace(harder, systems),
            "harder sets, drawn": lambda: picture(
                "harder", pictures.draw_differences, "CDC minus each other system on harder sets", harder
            ),
            "harder sets, parts": lambda: tables.parts(harder, parts),
        },
        "regimes": {"regimes": lambda: tables.regimes(measured)},
        "curves": {
            "epochs": lambda: tables.epochs(measured),
            "epochs, drawn": lambda: picture("epochs", pictures.draw_epochs, "Base and new accuracy over the epochs"),
        },
        "confounded": {
            "confounder": lambda: tables.confounder(measured),
            "confounder, differences": lambda: tables.confounder_differences(measured),
        },
        "transfer": {
            "uncertainty, shifted": lambda: trust.uncertainty_shifted(measured),
            "other sets": lambda: tables.other_sets(measured),
            "variants": lambda: tables.variants(measured),
            "transfer, differences": lambda: tables.transfer_differences(measured),
        },
        "calibration": {
            "calibration": lambda: trust.calibration(measured),
            "open set": lambda: trust.open_set(measured),
            "calibration, shifted": lambda: trust.calibration_shifted(measured),
            "calibration, differences": lambda: trust.calibration_differences(measured),
            "averaged, differences": lambda: trust.averaged_differences(measured),
        },
    }
    contents = {"runs": runs(measured), "searches": searches(), "grids": grids()}
    before: set[str] = set()  # folders of the sections before, which this one may need
    for section in SECTIONS:
        own = set(folders_of(plan, section)) - before
        before |= own
        there, blocks = not own.isdisjoint(figures), makers[section]
        missing = f"No runs yet: `python -m tools.study --only {section}`."
        contents.update({name: make() if there else missing for name, make in blocks.items()})
    text = fill(text, contents).replace(f"{TRIAL}\n\n", "")
    with atomic_write(page) as part:
        part.write_text(f"{TRIAL}\n\n{text}" if plan.is_trial else text, encoding="utf-8")


def new_page() -> str:
    """Headings and blocks of the study's page."""
    return skeleton(PAGE.read_text(encoding="utf-8"))


def folders_of(plan: Plan, section: str) -> list[str]:
    """Folders of a section's tests, below the output."""
    experiments = plan.experiments([section])
    return [folder.relative_to(plan.output).as_posix() for each in experiments for folder in each.folders]


def runs(measured: Measured) -> str:
    """What the figures are of, and how much of each section is there."""
    plan = measured.plan
    rows = []
    for section, title in SECTIONS.items():
        folders = folders_of(plan, section)
        rows.append(
            [f"`{section}`", title, f"{sum(folder in measured.figures for folder in folders)} of {len(folders)}"]
        )
    lines = [
        f"- seeds {_listed(plan.seeds)}; {plan.shots} training images per class;",
        *([f"- in `seeds` also {_listed(plan.more_seeds)};"] if plan.more_seeds else []),
        *([f"- of these, parts of CDC with {_listed(plan.parts_seeds)};"] if plan.parts_seeds else []),
        f"- base to new: {tables.names_of(plan.sets)}; harder sets: {tables.names_of(plan.harder)};",
        f"- parts of CDC, number of templates and equal cost: {tables.names_of(plan.ablated)};",
        f"- over the epochs: {tables.names_of(plan.curve_sets)}; confounder: {tables.names_of(plan.confounded)}.",
    ]
    return "\n".join([*lines, "", tables.table(rows, ["`--only`", "what is run", "tests that are there"])])


def _listed(seeds: Iterable[int]) -> str:
    return ", ".join(map(str, seeds))
