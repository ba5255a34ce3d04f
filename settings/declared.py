"""The whole config with its defaults without importing PyTorch, so that settings can be checked before it is."""

from __future__ import annotations

import ast
import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator
from pathlib import Path

from yacs.config import CfgNode

ROOT = Path(__file__).resolve().parent.parent
DECLARING = ("datasets", "trainers")  # folders whose modules add keys to Dassl's
# What they import beside Python's own library, and that adds none
HARMLESS = (
    *("PIL", "clip", "compat", "dassl", "datasets", "google", "huggingface_hub", "matplotlib", "numpy", "open_clip"),
    *("safetensors", "scipy", "settings", "sklearn", "storage", "tensorboard", "torch", "torchvision", "tqdm"),
    *("trainers", "yacs", "yaml"),
)
USUAL_IMPORT = re.compile(
    r"from dassl\.config import (cfg_default|get_cfg_default|clean_cfg)(, (get_cfg_default|clean_cfg))*$"
)


def declared_defaults() -> CfgNode | None:
    """The config that importing data sets and trainers would make of the embedded Dassl's, without importing them.

    Only what their modules say at the top of `cfg_default` is run, and constants before it.

    Returns:
        The config, a copy. None where only importing can tell all keys, because of a statement that needs more of its
        module, a function, another name for the config, or a module from elsewhere.
    """
    from dassl.config import get_cfg_default

    paths = sorted(path for folder in DECLARING for path in (ROOT / folder).rglob("*"))
    if any(path.is_symlink() and path.is_dir() for path in paths):  # `rglob` does not look there
        return None
    cfg = get_cfg_default()
    for path in (ROOT / "train.py", *paths):
        text = path.read_text(encoding="utf-8") if path.suffix == ".py" and path.is_file() else ""
        if not all(map(_declares_nothing, set(_imported(text)))):
            return None
        if path.parent != ROOT and ("cfg_default" in text or "dassl.config" in text) and not _declare(cfg, text, path):
            return None
    return cfg


def _declare(cfg: CfgNode, text: str, path: Path) -> bool:
    """Run what a module says at its top of `cfg_default`, and constants before it.

    Args:
        cfg: is changed.
        text: the module's.
        path: of the module.

    Returns:
        Whether that is all that the module adds.
    """
    if any(
        not USUAL_IMPORT.match(line) for line in re.findall(r"^.*\bimport\b.*$", text, re.M) if "dassl.config" in line
    ):
        return False
    names = {"cfg_default": cfg, "CfgNode": CfgNode}
    try:
        for statement in ast.parse(text).body:
            if isinstance(statement, ast.Assign) and isinstance(statement.value, ast.Constant):
                pass
            elif isinstance(statement, ast.ImportFrom) or not _is_named(statement):
                continue
            elif isinstance(statement, (ast.FunctionDef, ast.ClassDef)) or any(map(_renames, ast.walk(statement))):
                return False
            exec(compile(ast.Module([statement], []), str(path), "exec"), names)
    except Exception:  # a name of the module, or a group that an imported module declares
        return False
    return True


def _is_named(part: ast.AST) -> bool:
    """Whether `cfg_default` stands in a part of a module."""
    return any(isinstance(inner, ast.Name) and inner.id == "cfg_default" for inner in ast.walk(part))


def _renames(part: ast.AST) -> bool:
    """Whether an assignment gives `cfg_default`, or what is in it, a name of its own."""
    value = part.value if isinstance(part, (ast.Assign, ast.AnnAssign, ast.NamedExpr)) else None
    return value is not None and _is_named(value)


def _imported(text: str) -> Iterator[str]:
    """The packages that a module's text imports, but relative ones."""
    pattern = r"^[ \t]*(?:from[ \t]+(\w[\w.]*)[ \t]+import\b|import[ \t]+(\w[^#;\n]*))"
    for package, packages in re.findall(pattern, text, re.M):
        for name in (package and [package]) or packages.split(","):
            yield name.split()[0].partition(".")[0] if name.strip() else ""


@functools.cache
def _declares_nothing(package: str) -> bool:
    """Whether importing a package adds no keys to Dassl's config but those of `DECLARING`."""
    if package in HARMLESS or package in sys.builtin_module_names:
        return True
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return False
    places = Path(spec.origin).parents if spec and spec.origin else ()
    return spec is not None and (
        spec.origin == "frozen"
        or (
            any(place == Path(sysconfig.get_path(of)) for place in places for of in ("stdlib", "platstdlib"))
            and not any(place.name in ("site-packages", "dist-packages") for place in places)
        )
    )
