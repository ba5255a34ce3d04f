"""Put CDC into a CoOp- or MaPLe-type checkout as one more trainer, and take it out again.

    python tools/dropin.py /path/to/checkout              show what is done, and do it
    python tools/dropin.py /path/to/checkout --dry-run    show it only
    python tools/dropin.py /path/to/checkout --remove     undo it

What is written: `trainers/cdc.py` with the files beside it that it is built on (`base.py`, ...), `trainers/modules/`,
`storage/`, `configs/trainers/CDC/`, `scripts/cdc/`, and one line in `train.py`, `import trainers.cdc`. The checkout's
own `clip` package, data sets and Dassl are used, and none of its other files changes. `.cdc_dropin/` in the checkout
says what was put there: so a file that the checkout's owners have changed, or had before, is told from one of ours.
Such a file stops everything before anything is done; `--force` overwrites it (`--remove` brings back what was there
before the first time) or, with `--remove`, deletes it. A checkout whose code stops at trainers that it does not name,
as MMRL's, takes `--force`, too: CDC cannot run there until that place names it.

Called again, it brings the files up to date with this project, and does nothing where they are.

Nothing outside the checkout is read for it, written or deleted: a checkout in which `trainers/`, one of these files or
`.cdc_dropin/` is a link that leads outside is refused, and so is a manifest that this program does not write.
"""

from __future__ import annotations

import argparse
import ast
import hashlib
import json
import re
import shutil
import sys
from collections.abc import Iterable
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

ROOT = Path(__file__).resolve().parent.parent
PATTERNS = ("trainers/modules/*.py", "storage/*.py", "configs/trainers/CDC/*.yaml", "scripts/cdc/*.sh")
MODULE = "trainers.cdc"
CDC_FILE = "trainers/cdc.py"
KEPT = Path(".cdc_dropin")  # in the checkout
MANIFEST = KEPT / "manifest.json"
MANIFEST_BYTES = 1 << 20  # ours has some 10,000
PLACES = ("trainers/*.py", *PATTERNS)  # where files of this project go
FOLDERS = [parent.as_posix() for place in PLACES for parent in PurePosixPath(place).parents if parent.name]


class Step(NamedTuple):
    """One thing to do to a file of the checkout.

    Attributes:
        action: copy, update (a file of ours, as we left it), overwrite (any other), delete, restore (what an overwrite
            replaced) or forget (a file of ours that is gone).
        path: the file, seen from the checkout.
        problem: why this takes `--force`, as an error without its subject; "" where it does not.
    """

    action: str
    path: str
    problem: str = ""


class Checkout:
    """A checkout, and what was put into it.

    Args:
        folder: the checkout.

    Attributes:
        files: path -> digests of the file of ours there; two while it is being brought up to date.
        folders: those that were made for them, outermost first.
        has_line: whether the import in `train.py` is ours.

    Raises:
        FileNotFoundError: the folder is no CoOp-type checkout.
        ValueError: it is this project, what was kept of a drop-in is not what this program writes, or links lead out.
    """

    def __init__(self, folder: Path):
        self.folder = folder
        if not folder.is_dir():
            raise FileNotFoundError(f"there is no folder {folder}")
        if folder.resolve() == ROOT:
            raise ValueError(f"{folder} is this project, which has CDC already")
        for name in ("train.py", "trainers", "datasets", "configs"):
            path = folder / name
            if not (path.is_file() if name == "train.py" else path.is_dir()):
                raise FileNotFoundError(f"{folder} is no CoOp-type checkout: it has no {name}")
        self.files: dict[str, list[str]] = {}
        self.folders: list[str] = []
        self.has_line = False
        self.stay_inside([KEPT, MANIFEST])
        if (folder / MANIFEST).exists():
            kept = read_manifest(folder / MANIFEST)
            self.files, self.folders, self.has_line = kept["files"], kept["folders"], kept["line"]
        paths = dict.fromkeys([*self.files, *sources()])
        self.stay_inside(["train.py", *self.folders, *paths, *(KEPT / "replaced" / path for path in paths)])

    def stay_inside(self, paths: Iterable[str | Path]) -> None:
        """Raise ValueError if a link makes any of these paths, seen from the checkout, lead out of it."""
        inside = self.folder.resolve()
        outside = []
        for path in paths:
            try:
                real = (self.folder / path).resolve()
            except (OSError, RuntimeError):  # a link to itself
                outside.append(str(path))
                continue
            if inside not in real.parents:
                outside.append(f"{path} (to {real})")
        if outside:
            more = f" and {len(outside) - 3} more" if len(outside) > 3 else ""
            raise ValueError(f"links lead out of {self.folder}, which nothing follows: {', '.join(outside[:3])}{more}")

    def save(self) -> None:
        """Write down what is in the checkout; nothing is kept once nothing is."""
        path = self.folder / MANIFEST
        if not (self.files or self.has_line):
            shutil.rmtree(self.folder / KEPT, ignore_errors=True)
            return
        path.parent.mkdir(exist_ok=True)
        kept = {"files": self.files, "folders": self.folders, "line": self.has_line}
        path.write_text(json.dumps(kept, indent=1) + "\n", encoding="utf-8")

    def is_ours(self, path: str) -> bool:
        """Whether a file is there as it was put there."""
        file = self.folder / path
        return path in self.files and file.is_file() and digest(file) in self.files[path]


def read_manifest(path: Path) -> dict[str, Any]:
    """The content of a manifest, which may be of any origin.

    Raises:
        ValueError: it is not one that this program writes; with what is wrong in it.
    """
    try:
        if not path.is_file() or path.stat().st_size > MANIFEST_BYTES:
            raise ValueError(f"it is no file, or larger than {MANIFEST_BYTES:,} bytes")
        content = json.loads(path.read_text(encoding="utf-8"))
        if not isinstance(content, dict) or set(content) != {"files", "folders", "line"}:
            raise ValueError("it must hold files, folders and line")
        files, folders = content["files"], content["folders"]
        if not isinstance(files, dict) or not isinstance(folders, list) or type(content["line"]) is not bool:
            raise ValueError("files must be an object, folders a list, and line true or false")
        for name, digests in files.items():
            if not is_place(name):
                raise ValueError(f"nothing of this project goes to {name[:80]!r}")
            if not isinstance(digests, list) or not digests or not all(map(_is_digest, digests)):
                raise ValueError(f"{name} must have a list of digests")
        for name in folders:
            if name not in FOLDERS:
                raise ValueError(f"this program makes no folder {str(name)[:80]!r}")
    except (OSError, ValueError, RecursionError) as error:
        raise ValueError(
            f"{path} is not what this program wrote: {error}; remove it to forget what was put there"
        ) from error
    return content


def is_place(path: str) -> bool:
    """Whether a path seen from a checkout is one that files of this project may have."""
    if not re.fullmatch(r"\w[\w.-]*(/\w[\w.-]*)*", path, flags=re.ASCII):
        return False
    parts = PurePosixPath(path)
    return any(len(parts.parts) == pattern.count("/") + 1 and parts.match(pattern) for pattern in PLACES)


def _is_digest(value: object) -> bool:
    return isinstance(value, str) and re.fullmatch("[0-9a-f]{64}", value) is not None


def digest(path: Path) -> str:
    """The SHA-256 of a file's content."""
    return hashlib.sha256(path.read_bytes()).hexdigest()


def sources() -> list[str]:
    """The files to put into a checkout, seen from this project: the trainer, its neighbours that it needs, the rest."""
    names = ["cdc"]
    for name in names:
        tree = ast.parse((ROOT / f"trainers/{name}.py").read_bytes())
        beside = [node.module for node in tree.body if isinstance(node, ast.ImportFrom) and node.level == 1]
        # `from .modules import ...` is of the folder, which goes whole
        files = [module for module in beside if module and "." not in module and module != "modules"]
        names += [module for module in files if module not in names]
    paths = [path for pattern in PATTERNS for path in sorted(ROOT.glob(pattern))]
    return [f"trainers/{name}.py" for name in names] + [path.relative_to(ROOT).as_posix() for path in paths]


# The line in train.py


def imported(tree: ast.Module) -> dict[str, int]:
    """The modules that a file imports at its top level -> the line in which the import ends."""
    found = {}
    for node in tree.body:
        end = node.end_lineno or node.lineno
        if isinstance(node, ast.Import):
            found.update({alias.name: end for alias in node.names})
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            found[node.module] = end
            found.update({f"{node.module}.{alias.name}": end for alias in node.names})
    return found


def parse(text: bytes, path: Path) -> dict[str, int]:
    """`imported` of a file's content.

    Raises:
        ValueError: it is not Python.
    """
    try:
        return imported(ast.parse(text))
    except (SyntaxError, ValueError) as error:
        raise ValueError(f"{path} cannot be read as Python: {error}") from error


def with_line(text: bytes, path: Path) -> bytes:
    """`train.py` with our import after those of the other trainers; itself where it has one.

    Raises:
        ValueError: no trainers are imported there.
    """
    modules = parse(text, path)
    if MODULE in modules:
        return text
    places = [line for name, line in modules.items() if name.split(".")[0] == "trainers"]
    if not places:
        raise ValueError(f"{path} imports no trainers, as CoOp's does: add the line `import {MODULE}` to it yourself")
    lines = text.splitlines(keepends=True)
    before = lines[: max(places)]
    end = b"\r\n" if before[-1].endswith(b"\r\n") else b"\n"
    if not before[-1].endswith(b"\n"):
        before[-1] += end
    return b"".join([*before, f"import {MODULE}".encode() + end, *lines[max(places) :]])


def without_line(text: bytes, path: Path) -> bytes:
    """`train.py` without our import; itself where it has none.

    Raises:
        ValueError: it has another one.
    """
    lines = text.splitlines(keepends=True)
    ours = [index for index, line in enumerate(lines) if line.rstrip(b"\r\n") == f"import {MODULE}".encode()]
    if ours:
        del lines[ours[0]]
    text = b"".join(lines)
    if MODULE in parse(text, path):
        raise ValueError(f"{path} imports {MODULE} by other lines than the one that was added: take those out first")
    return text


# Checkouts that admit certain trainers alone


def admission_problems(folder: Path) -> list[str]:
    """Where a checkout's `train.py`, or what it imports from `trainers/`, would stop at a trainer of another name.

    Such a place is an `assert trainer in [...]`, an `if trainer not in [...]:` that raises, or choices of `--trainer`.

    Returns:
        An error each.
    """
    train = folder / "train.py"
    modules = parse(train.read_bytes(), train)
    paths = [Path("train.py")]
    for name in modules:
        path = Path(*name.split(".")).with_suffix(".py")
        if name.split(".")[0] == "trainers" and name != MODULE and (folder / path).is_file():
            paths.append(path)
    problems = []
    for path in dict.fromkeys(paths):
        tree = ast.parse((folder / path).read_bytes())
        for line, names in sorted(_admitted(tree).items()):
            if "CDC" not in names:
                problems.append(f"{path} admits the trainers {', '.join(names)} alone (line {line}) and stops at CDC")
    return problems


def _admitted(tree: ast.Module) -> dict[int, list[str]]:
    """Lines that admit certain trainers alone -> their names."""
    lists = {
        target.id: node.value
        for node in tree.body
        if isinstance(node, ast.Assign)
        for target in node.targets
        if isinstance(target, ast.Name)
    }
    found: dict[int, list[str]] = {}
    for node in ast.walk(tree):
        tests: list[tuple[ast.expr, type[ast.cmpop]]] = []
        if isinstance(node, ast.Assert):
            tests.append((node.test, ast.In))
        elif isinstance(node, ast.If) and any(isinstance(step, ast.Raise) for step in node.body):
            tests.append((node.test, ast.NotIn))
        for test, operator in tests:
            if isinstance(test, ast.Compare) and isinstance(test.ops[0], operator) and _is_trainer(test.left):
                found.setdefault(test.lineno, []).extend(_texts(test.comparators[0], lists))
        if isinstance(node, ast.Call) and any(_texts(part, {}) == ["--trainer"] for part in node.args):
            choices = [option.value for option in node.keywords if option.arg == "choices"]
            found.setdefault(node.lineno, []).extend(name for part in choices for name in _texts(part, lists))
    return {line: names for line, names in found.items() if names}


def _is_trainer(node: ast.expr) -> bool:
    """Whether an expression is the name of a trainer, as `args.trainer` and `cfg.TRAINER.NAME`."""
    if isinstance(node, ast.Attribute):
        owner = node.value.attr if isinstance(node.value, ast.Attribute) else ""
        return "trainer" in node.attr.lower() or (owner, node.attr) == ("TRAINER", "NAME")
    return isinstance(node, ast.Name) and "trainer" in node.id.lower()


def _texts(node: ast.expr, lists: dict[str, ast.expr]) -> list[str]:
    """The texts of a constant, a list of these, or the name of one; none of anything else."""
    if isinstance(node, ast.Name):
        node = lists.get(node.id, node)
    parts = node.elts if isinstance(node, (ast.List, ast.Tuple, ast.Set)) else [node]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


# Plans


def plan_install(checkout: Checkout) -> list[Step]:
    """What it takes to bring the files of this project into a checkout."""
    steps = []
    for path in sources():
        file = checkout.folder / path
        if not file.exists():
            steps.append(Step("copy", path))
        elif not file.is_file():
            steps.append(Step("overwrite", path, "is not a file"))
        elif digest(file) != digest(ROOT / path):
            if checkout.is_ours(path):
                steps.append(Step("update", path))
            else:
                problem = "was changed after it was put there" if path in checkout.files else "is not of this project"
                steps.append(Step("overwrite", path, problem))
    gone = [path for path in checkout.files if path not in sources()]
    return steps + [_plan_deletion(checkout, path) for path in gone]


def plan_removal(checkout: Checkout) -> list[Step]:
    """What it takes to undo all that was done to a checkout."""
    return [_plan_deletion(checkout, path) for path in checkout.files]


def _plan_deletion(checkout: Checkout, path: str) -> Step:
    file = checkout.folder / path
    problem = "" if checkout.is_ours(path) or not file.exists() else "was changed after it was put there"
    if (checkout.folder / KEPT / "replaced" / path).exists():
        return Step("restore", path, problem)
    return Step("delete" if file.exists() else "forget", path, problem)


# Doing it


def carry_out(checkout: Checkout, steps: list[Step]) -> None:
    """Do what was planned. What is done can be undone, or done again, at whatever point it is cut."""
    folder = checkout.folder
    writes = [step.path for step in steps if step.action in ("copy", "update", "overwrite")]
    for path in writes:
        if (folder / path).exists() and path not in checkout.files:
            replaced = folder / KEPT / "replaced" / path
            replaced.parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(folder / path, replaced)
        checkout.files[path] = [*checkout.files.get(path, []), digest(ROOT / path)]
        parents = [parent.as_posix() for parent in reversed(Path(path).parents)]
        checkout.folders += [p for p in parents if not (folder / p).exists() and p not in checkout.folders]
    checkout.save()
    for path in writes:
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        shutil.copyfile(ROOT / path, folder / path)
        shutil.copymode(ROOT / path, folder / path)
        checkout.files[path] = [digest(ROOT / path)]

    for step in steps:
        if step.action in ("delete", "restore", "forget"):
            _take_out(checkout, step)
    for made in reversed(list(checkout.folders)):
        if _is_bare(folder / made):
            shutil.rmtree(folder / made, ignore_errors=True)
            checkout.folders.remove(made)
    checkout.save()


def _take_out(checkout: Checkout, step: Step) -> None:
    file, replaced = checkout.folder / step.path, checkout.folder / KEPT / "replaced" / step.path
    if step.action == "restore":
        shutil.move(str(replaced), str(file))
    else:
        file.unlink(missing_ok=True)
        if not (file.parent / "__pycache__").is_symlink():
            for compiled in file.parent.glob(f"__pycache__/{file.stem}.*.pyc"):
                compiled.unlink()
    del checkout.files[step.path]


def _is_bare(folder: Path) -> bool:
    """Whether a folder holds nothing, or compiled files alone."""
    return all(path.name == "__pycache__" and not any(path.iterdir()) for path in folder.glob("*"))


def change(folder: Path, remove: bool, force: bool, dry_run: bool) -> None:
    """Put CDC into a checkout or, with `remove`, take it out, after showing the steps.

    Args:
        folder: the checkout.
        remove: take out instead of in.
        force: go on over files that are not as they were put there.
        dry_run: show the steps, and what is in their way, alone.

    Raises:
        FileNotFoundError: the folder is no CoOp-type checkout.
        ValueError: something is in the way, with all of it; nothing has been changed.
    """
    checkout = Checkout(folder)
    steps = plan_removal(checkout) if remove else plan_install(checkout)
    train = folder / "train.py"
    text = train.read_bytes()
    new_text = text
    if not remove:
        new_text = with_line(text, train)
    elif steps and (checkout.has_line or ("restore", CDC_FILE) not in {(step.action, step.path) for step in steps}):
        new_text = without_line(text, train)  # else it is the import of a file that was there before

    for action, path, _ in steps:
        print(f"{action:<10}{path}")
    if new_text != text:
        print(f"{'change':<10}train.py, {'without' if remove else 'with'} the line `import {MODULE}`")
    if not steps and new_text == text:
        print(f"nothing to do: {folder} {'holds nothing of this project' if remove else 'is up to date'}")
    problems = [f"{path} {problem}" for _, path, problem in steps if problem]
    problems += [] if remove else admission_problems(folder)
    if problems and not force:
        raise ValueError(f"nothing was changed in {folder}: {'; '.join(problems)}. --force goes on all the same")
    if dry_run:
        return

    # The line goes in last and out first: train.py never imports what is not there.
    if remove and new_text != text:
        train.write_bytes(new_text)
    checkout.has_line = checkout.has_line and not remove
    carry_out(checkout, steps)
    if not remove and new_text != text:
        checkout.has_line = True
        checkout.save()
        train.write_bytes(new_text)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("checkout", type=Path, help="folder of the checkout, which holds train.py")
    parser.add_argument("--dry-run", action="store_true", help="show what would be done, and do nothing")
    parser.add_argument("--force", action="store_true", help="overwrite or delete files that were changed, too")
    parser.add_argument("--remove", action="store_true", help="undo what was done")
    args = parser.parse_args(arguments)
    try:
        change(args.checkout, args.remove, args.force, args.dry_run)
    except (OSError, ValueError) as error:
        print(f"dropin.py: {error}", file=sys.stderr)
        sys.exit(2)


if __name__ == "__main__":
    main()
