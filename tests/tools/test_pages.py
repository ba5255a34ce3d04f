"""README and the pages under docs/: links lead somewhere, commands can be called, and no output is out of date."""

from __future__ import annotations

import argparse
import functools
import html
import re
import runpy
import shlex
import sys

import pytest
import torch
from dassl.config import get_cfg_default

import trainers  # noqa: F401  adds CDC's keys to the config
from docs.figures import method
from helpers import ROOT
from tools import pages

PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {str(page.relative_to(ROOT)): page.read_text(encoding="utf-8") for page in PAGES}
SHELLS = ("", "bash", "console")


# ---- links


def anchors(text: str) -> set[str]:
    """What GitHub makes of a page's headings."""
    text = re.sub(r"^```.*?^```$", "", text, flags=re.MULTILINE | re.DOTALL)
    titles = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", title.lower()).replace(" ", "-") for title in titles}


@pytest.mark.parametrize("name", TEXTS)
def test_links_lead_somewhere(name):
    for target in re.findall(r"\]\(([^)\s]+)\)", TEXTS[name]):
        if re.match(r"https?://", target):
            continue
        path, _, anchor = target.partition("#")
        page = (ROOT / name).parent / path if path else ROOT / name
        assert page.exists(), target
        assert page.resolve().is_relative_to(ROOT), target
        assert not anchor or anchor in anchors(page.read_text(encoding="utf-8")), target


@pytest.mark.parametrize("name", TEXTS)
def test_files_that_are_named_are_there(name):
    found = re.findall(
        r"`((?:configs|docs|scripts|tests|tools|trainers|weights|compat|datasets)/[\w./]+)`", TEXTS[name]
    )
    made = {"trainers/held.py", "trainers/linear.py", "configs/trainers/HeldCoOp/vit_b16.yaml"}  # by the reader
    made |= {"configs/datasets/my_birds.yaml", "configs/trainers/CDC/vit_b16_dtd.yaml"}
    assert [path for path in found if path not in made and not (ROOT / path).exists()] == []


def test_index_has_every_page():
    linked = set(re.findall(r"^\| \[.*?\]\((\w+\.md)\) \|", TEXTS["docs/README.md"], re.MULTILINE))
    assert linked == {page.name for page in PAGES if page.parent != ROOT} - {"README.md"}


def test_readme_fits_on_a_few_screens():
    assert len(TEXTS["README.md"].splitlines()) <= 132


def test_readme_has_the_figures_of_the_study():
    def rows(text):
        found = re.findall(r"^\| ([^|]+?) +\| ([\d.± ]+?) +\| ([\d.± ]+?) +\| ([\d.]+) +\|", text, re.MULTILINE)
        return [tuple(cell.strip() for cell in row) for row in found]

    table = re.search(r"<!-- made: base to new -->(.*?)<!-- end -->", TEXTS["docs/study.md"], re.DOTALL)[1]
    left_out = ("Zero-shot ensemble", "CLIP-ICM", "CDC, independent", "CDC, self-regulated")
    assert rows(TEXTS["README.md"]) == [row for row in rows(table) if row[0] not in left_out]
    assert len(rows(table)) == 14


@pytest.mark.parametrize("page", ["README.md", "docs/study.md"])
def test_intervals_in_the_text_are_those_of_a_table(page):
    written = " ".join(re.sub(r"<!-- made: .*?<!-- end -->", "", TEXTS[page], flags=re.DOTALL).split())
    found = re.findall(r"[-+][\d.]+ \[[-+][\d.]+, [-+][\d.]+\]", written)
    tables = "".join(re.findall(r"<!-- made: .*?<!-- end -->", TEXTS["docs/study.md"], flags=re.DOTALL))
    assert found
    assert [each for each in found if each not in tables] == []


def test_readme_has_the_figures_of_the_page_on_tables():
    """The runs are the same: those of the demo."""
    readme, tables = (re.search(r"^shapes  .*$", TEXTS[name], re.M)[0] for name in ("README.md", "docs/tables.md"))
    assert readme.split() == tables.split()


def test_readme_has_the_figures_of_the_page_on_uncertainty():
    printed = TEXTS["docs/uncertainty.md"].split("$ python figures.py")[1]
    readme = TEXTS["README.md"].split("## Uncertainty")[1].split("\n## ")[0]
    accuracy, mean, probability, uncertainty = re.search(
        r"accuracy (\S+), .* uncertainty (\S+)\nconfidence +error AUROC (\S+),.*\n.*\nuncertainty +error AUROC (\S+),",
        printed,
    ).groups()
    assert all(figure in readme for figure in (accuracy, mean, probability, uncertainty))


# ---- commands


class Parsed(Exception):
    """A command line was understood."""


def commands() -> list[tuple[str, str]]:
    """Every command in a code block, with its page."""
    return [
        (name, command)
        for name, text in TEXTS.items()
        for block in pages.blocks(text)
        if block.kind in SHELLS
        for command in block.commands
    ]


def simple_commands(command: str) -> list[list[str]]:
    """A command line's programs with their arguments, without variables that are set for them and redirections."""
    lexer = shlex.shlex(command.replace("\\\n", " "), posix=True, punctuation_chars="|&;<>")
    lexer.whitespace_split = True
    found, words = [], []
    for token in [*lexer, ";"]:
        if set(token) <= set("|&;"):
            found.append(words)
            words = []
        else:
            words.append(token)
    for words in found:
        while words and re.match(r"\w+=", words[0]):
            del words[0]
        redirection = next((n for n, word in enumerate(words) if set(word) <= set("<>")), len(words))
        if redirection < len(words):
            del words[redirection - words[redirection - 1].isdigit() :]
    return [words for words in found if words]


PROGRAMS = [
    pytest.param(words, id=f"{name}: {' '.join(words)}"[:90])
    for name, command in commands()
    for words in simple_commands(command)
    if words[0] in ("python", ".venv/bin/python", "bash", "make") and "/path/to/this" not in words[1]
]


def test_commands_are_found():
    assert len(PROGRAMS) > 40
    assert simple_commands("A=1 bash x.sh 1 2> /dev/null | cut -d, -f1 || echo 'a; b' &") == [
        ["bash", "x.sh", "1"],
        ["cut", "-d,", "-f1"],
        ["echo", "a; b"],
    ]


@pytest.mark.filterwarnings("ignore:.* found in sys.modules after import:RuntimeWarning")  # by other tests
@pytest.mark.parametrize("words", PROGRAMS)
def test_command_can_be_called(words, monkeypatch):
    """The program is there and understands its arguments; it is not run."""
    program, *arguments = words
    if program == "make":
        targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(), re.MULTILINE)[1].split()
        assert arguments[0] in targets
    elif program == "bash":
        script = ROOT / arguments[0]
        assert script.is_file()
        needed = 0 if script.name == "base2new_all.sh" else 2
        assert len(arguments) - 1 >= needed
        assert (len(arguments) - 1 - needed) % 2 == 0  # KEY VALUE pairs
        if needed and not arguments[1].startswith("$"):
            assert arguments[1] == "my_birds" or (ROOT / f"configs/datasets/{arguments[1]}.yaml").is_file()
        for key in arguments[1 + needed :: 2]:
            assert key in keys(), key
    elif arguments[0] != "-m":
        assert (ROOT / arguments[0]).is_file() or arguments[0] in written_on_pages()
    elif arguments[1] not in ("venv", "pytest"):
        parse = argparse.ArgumentParser.parse_args

        def parse_only(parser, args=None, namespace=None):
            parse(parser, args, namespace)
            raise Parsed

        monkeypatch.setattr(argparse.ArgumentParser, "parse_args", parse_only)
        monkeypatch.setattr(sys, "argv", arguments[1:])
        with pytest.raises(Parsed):
            runpy.run_module(arguments[1], run_name="__main__")


def keys() -> set[str]:
    """The names of all settings."""

    def flat(node, prefix=""):
        for name, value in node.items():
            yield from flat(value, f"{prefix}{name}.") if hasattr(value, "items") else [f"{prefix}{name}"]

    return {*flat(get_cfg_default())}


def written_on_pages() -> set[str]:
    """Files that pages have the reader write."""
    return {name for text in TEXTS.values() for name in re.findall(r"^cat > (\S+) <<", text, re.MULTILINE)}


def test_options_on_the_page_of_the_method_have_their_defaults():
    rows = re.findall(r"^\| `([A-Z_]+(?:\.[A-Z_]+)*)` \| (.*?) \|", TEXTS["docs/method.md"], re.MULTILINE)
    assert len(rows) >= 15
    options = get_cfg_default().TRAINER.CDC
    for name, default in rows:
        if default == "four lists":
            assert len(options[name]) == 4
        else:
            value = functools.reduce(lambda node, key: node[key], name.split("."), options)
            assert str(value) == default.strip("`").strip('"'), name


# ---- pages that show what commands print


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_printed_pages_are_of_this_clip(page):
    assert pages.printed_with(page.read_text("utf-8")) == pages.weights_sha256(), "run `python -m tools.pages`"


@pytest.mark.parametrize("page", pages.pages(), ids=lambda page: page.name)
def test_every_printed_block_has_its_command(page):
    """And none stands on a page as if it were printed and would not be made again."""
    for block in pages.blocks(page.read_text("utf-8")):
        if block.kind == "console":
            assert block.body.startswith("$ ")
        else:
            assert not re.search(r"^\$ ", block.body, re.MULTILINE)


def test_there_are_printed_pages():
    assert {"prediction.md", "tables.md", "uncertainty.md"} <= {page.name for page in pages.pages()}


PAGE = """# Title

<!-- run first -->
```bash
echo kept > file
echo not shown
```

```bash
exit 1
```

```console
$ WHAT=kept
$ cat file; echo "$WHAT" \\
    too
what was there
$ true
$ echo last >&2
```

The end.
"""


def test_page_is_made_again(tmp_path):
    shell = pages.Shell(tmp_path / "folder")
    made = pages.rewrite(PAGE, shell)
    assert (
        '$ WHAT=kept\n$ cat file; echo "$WHAT" \\\n    too\nkept\nkept too\n$ true\n$ echo last >&2\nlast\n```' in made
    )
    assert made.startswith(PAGE.split("$ WHAT")[0])
    assert made.endswith(
        f"The end.\n\n<!-- printed by tools.pages with the CLIP of SHA-256 {pages.weights_sha256()} -->\n"
    )
    assert pages.rewrite(made, shell) == made
    assert pages.printed_with(made) == pages.weights_sha256()
    assert pages.printed_with(PAGE) == ""
    with pytest.raises(RuntimeError, match=r"^echo before; false failed:\nbefore\n$"):
        pages.rewrite("```console\n$ echo before; false\n```\n", shell)
    with pytest.raises(ValueError, match="must begin with a command"):
        pages.rewrite("```console\nsomething\n```\n", shell)


def test_shell_looks_like_a_checkout(tmp_path, monkeypatch):
    monkeypatch.setenv("SHOTS", "4")
    shell = pages.Shell(tmp_path / "folder")
    assert "--protocol" in shell("python -m tools.results --help")
    assert shell("echo $DATA $OUTPUT; ls scripts/cdc/common.sh") == (
        f"{tmp_path}/folder/data {tmp_path}/folder/output\nscripts/cdc/common.sh\n"
    )
    assert not {"TAG", "SHOTS"} & shell.environment.keys()


def test_command_writes_pages(tmp_path, monkeypatch, capsys):
    page = tmp_path / "page.md"
    page.write_text("```console\n$ echo 1\n```\n")
    monkeypatch.setattr(sys, "argv", ["tools.pages", str(page), "--folder", str(tmp_path / "work")])
    pages.main()
    assert page.read_text().startswith("```console\n$ echo 1\n1\n```\n\n<!-- printed by")
    page.write_text("```console\n$ echo 1; exit 3\n```\n")
    with pytest.raises(SystemExit):
        pages.main()
    assert "tools.pages: echo 1; exit 3 failed:\n1\n" in capsys.readouterr().err
    assert page.read_text() == "```console\n$ echo 1; exit 3\n```\n"


def test_pictures_that_commands_draw_are_put_beside_the_page(tmp_path, monkeypatch):
    page = tmp_path / "page.md"
    shown = "![Two\nlines](drawn.png) ![made elsewhere](old.png) ![in a folder](sub/other.png)\n"
    page.write_text(
        f"```console\n$ echo new > drawn.png; echo x > hidden.png; mkdir -p sub; echo y > sub/other.png\n```\n{shown}"
    )
    (tmp_path / "drawn.png").write_text("before")
    (tmp_path / "old.png").write_text("old")
    monkeypatch.setattr(sys, "argv", ["tools.pages", str(page), "--folder", str(tmp_path / "work")])
    pages.main()
    found = {path.name: path.read_text() for path in tmp_path.glob("**/*.png") if "work" not in path.parts}
    assert found == {"drawn.png": "new\n", "old.png": "old"}


# ---- the picture


def test_picture_has_the_numbers_of_the_code():
    told = html.escape(method.worked_example().told(), quote=False)
    assert told in method.PICTURE.read_text("utf-8"), "run `python -m docs.figures.method`"
    assert method.PICTURE.stat().st_size < 300_000


def test_pictures_numbers_are_dempsters_rule():
    """As printed in the paper, one template after the other; and as worked out by hand in docs/method.md."""
    example = method.worked_example()
    n_classes = len(method.LABELS)
    belief, uncertainty = torch.zeros(n_classes), 1.0
    for evidence, own, doubt in zip(example.evidence, example.beliefs, example.uncertainties):
        strength = sum(evidence) + n_classes
        assert own == pytest.approx([value / strength for value in evidence])
        assert doubt == pytest.approx(n_classes / strength)
        b = torch.tensor(own)
        conflict = belief.sum() * b.sum() - (belief * b).sum()
        belief = (belief * b + belief * doubt + b * uncertainty) / (1 - conflict)
        uncertainty = uncertainty * doubt / (1 - conflict)
    assert example.belief == pytest.approx(belief.tolist())
    assert example.uncertainty == pytest.approx(float(uncertainty))
    assert example.probability == pytest.approx((belief / belief.sum()).tolist())

    page = TEXTS["docs/method.md"]
    row = re.search(r"^\| fused opinion.*$", page, re.MULTILINE)[0]
    assert row.endswith("| " + " | ".join(f"{value:.3f}" for value in (*example.belief, example.uncertainty)) + " |")
    row = re.search(r"^\| prediction: .*$", page, re.MULTILINE)[0]
    assert row.endswith("| " + " | ".join(f"{value:.3f}" for value in example.probability) + " | |")
    for number, (evidence, own, doubt) in enumerate(zip(example.evidence, example.beliefs, example.uncertainties), 1):
        assert f"| evidence of template {number} | " + " | ".join(f"{value:g}" for value in evidence) in page
        assert " | ".join(f"{value:.3f}" for value in (*own, doubt)) in page


def test_views_are_the_configs_own():
    views = method.make_views()
    assert [view.shape for view in views.values()] == [(48, 48, 3)] * 3
    assert all(((view >= 0) & (view <= 1)).all() for view in views.values())
