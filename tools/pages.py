"""Make the pages under docs/ again that show what commands print.

    python -m tools.pages                    # all of them
    python -m tools.pages docs/tables.md

In a page, a code block of the kind `console` holds commands, each after `$ `, and below each what it prints. The
commands are run, and what they print now replaces what stands there. A block of the kind `bash` below the line
`<!-- run first -->` is run as a whole, and stays as it is. Pictures that the page shows from its own folder, and that
the commands have drawn in theirs, are put beside it. Everything else in a page is left alone. The last line of the page
says with which CLIP it was made; a test compares that with the one in weights/.

Commands run in a folder below output/pages, named after the CLIP. It looks like a fresh checkout, and has data and runs
of its own. Runs that are finished are not run again: delete the folder to have all of them made again.
"""

from __future__ import annotations

import hashlib
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Callable, NamedTuple

from tools.common.commands import argument_parser
from tools.common.paths import ROOT
from tools.common.scripts import SCRIPT_VARIABLES

LINKED = ("compat", "configs", "datasets", "scripts", "settings", "storage", "tools", "trainers", "train.py", "weights")
WEIGHTS = ROOT / "weights" / "tiny_clip.pt.gz"
FENCE = re.compile(r"^(?P<before><!-- run first -->\n)?```(?P<kind>\w*)\n(?P<body>.*?)^```$", re.MULTILINE | re.DOTALL)
MADE = re.compile(r"\n*<!-- printed by tools\.pages with the CLIP of SHA-256 (\w+) -->\n*\Z")
PICTURE = re.compile(r"!\[[^\]]*\]\(([\w.-]+)\)")  # without a folder in its path
ASSIGNMENT = re.compile(r"[A-Z_]+=\S*")


class Block(NamedTuple):
    """A code block.

    Attributes:
        kind: what stands after its fence.
        body: its text.
        first: whether it is to be run before what follows.
    """

    kind: str
    body: str
    first: bool

    @property
    def commands(self) -> list[str]:
        """In a `console` the commands after `$ `, else all lines; lines that a backslash joins are one."""
        text = self.body.replace("\\\n", "\\\0")
        lines = (line.replace("\\\0", "\\\n") for line in text.splitlines() if line.strip())
        if self.kind != "console":
            return list(lines)
        return [line[2:] for line in lines if line.startswith("$ ")]


def blocks(page: str) -> Iterator[Block]:
    """The code blocks of a page's text, in order."""
    return (_block(found) for found in FENCE.finditer(page))


def _block(found: re.Match[str]) -> Block:
    return Block(found["kind"], found["body"], bool(found["before"]))


def printed_with(page: str) -> str:
    """The SHA-256 of the CLIP that a page was made with; "" where it does not say."""
    found = MADE.search(page)
    return found[1] if found else ""


def weights_sha256() -> str:
    """Of the file of the embedded CLIP."""
    return hashlib.sha256(WEIGHTS.read_bytes()).hexdigest()


def rewrite(page: str, run: Callable[[str], str]) -> str:
    """The text of a page with what its commands print now.

    Args:
        page: the text as it is.
        run: runs a command and returns what it prints.

    Raises:
        ValueError: a `console` does not begin with a command.
    """

    def fill(found: re.Match[str]) -> str:
        block = _block(found)
        if block.kind == "console":
            if not block.body.startswith("$ "):
                raise ValueError(f"a console must begin with a command after '$ ', got {block.body.splitlines()[:1]}")
            body = "".join(f"$ {command}\n{_whole_lines(run(command))}" for command in block.commands)
            return found[0].replace(f"console\n{block.body}", f"console\n{body}")
        if block.first:
            run(block.body)
        return found[0]

    text = MADE.sub("", FENCE.sub(fill, page)).rstrip("\n")
    return f"{text}\n\n<!-- printed by tools.pages with the CLIP of SHA-256 {weights_sha256()} -->\n"


def _whole_lines(printed: str) -> str:
    lines = [line.rstrip() for line in printed.splitlines()]
    return "".join(f"{line}\n" for line in lines)


class Shell:
    """Runs commands one after the other in a folder that looks like a checkout; `NAME=value` alone sets a variable.

    Args:
        folder: is made, with links to the checkout in it.
    """

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        for name in LINKED:
            if not (folder / name).exists():
                (folder / name).symlink_to(ROOT / name)
        self.folder = folder
        kept = {name: value for name, value in os.environ.items() if name not in SCRIPT_VARIABLES}
        path = f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}"
        own = {"PATH": path, "PYTHON": sys.executable, "DATA": str(folder / "data"), "OUTPUT": str(folder / "output")}
        self.environment = {**kept, **own}

    def __call__(self, command: str) -> str:
        """What a command prints, on stdout and stderr.

        Raises:
            RuntimeError: it fails; with what it printed.
        """
        if ASSIGNMENT.fullmatch(command):
            name, value = command.split("=", 1)
            self.environment[name] = value
            return ""
        print(f"$ {command.splitlines()[0]}", file=sys.stderr)
        done = subprocess.run(
            ["bash", "-euo", "pipefail", "-c", command],
            cwd=self.folder,
            env=self.environment,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            errors="replace",
            check=False,
        )
        if done.returncode:
            raise RuntimeError(f"{command.rstrip()} failed:\n{done.stdout}")
        return done.stdout


def pages() -> list[Path]:
    """The pages that show what commands print."""
    found = sorted((ROOT / "docs").glob("*.md"))
    return [page for page in found if any(block.kind == "console" for block in blocks(page.read_text("utf-8")))]


def main() -> None:
    parser = argument_parser("tools.pages", __doc__)
    parser.add_argument("pages", nargs="*", type=Path, help="pages (default: all under docs/ that show commands)")
    parser.add_argument("--folder", type=Path, help="folder to run the commands in (default: below output/pages)")
    args = parser.parse_args()
    folder = args.folder or ROOT / "output" / "pages" / weights_sha256()[:12]
    try:
        for page in args.pages or pages():
            text = rewrite(page.read_text("utf-8"), Shell(folder.absolute()))
            page.write_text(text, "utf-8")
            for name in PICTURE.findall(text):
                if (folder / name).is_file():
                    shutil.copyfile(folder / name, page.parent / name)
            print(f"{page} is written")
    except (OSError, RuntimeError, ValueError) as error:
        parser.exit(1, f"tools.pages: {error}\n")


if __name__ == "__main__":
    main()
