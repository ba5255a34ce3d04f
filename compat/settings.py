"""Settings from files, command lines and results, merged into Dassl's config.

yacs stops at the first wrong setting, and refuses 0 where the default is 0.1. Here all that is wrong in one place is
told at once, with the key that may have been meant, and an integer is taken for a real number.

`declared_defaults` gives the whole config without PyTorch, so that settings can be checked before it is imported.
"""

from __future__ import annotations

import ast
import difflib
import functools
import importlib.util
import re
import sys
import sysconfig
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from yacs.config import CfgNode

__all__ = ["declared_defaults", "merge_pairs", "merge_tree", "setting_problems"]

# Real numbers that were published with whole ones as defaults
REAL_NUMBERS = (
    "OPTIM.SGD_DAMPNING",
    *(f"TRAINER.PROMPTSRC.{name}" for name in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT", "GPA_MEAN", "GPA_STD")),
)
KINDS = {
    bool: "True or False",
    int: "a whole number",
    float: "a number",
    str: "a text",
    tuple: "a list",
    list: "a list",
}
ROOT = Path(__file__).resolve().parent.parent
DECLARING = ("datasets", "trainers")  # folders whose modules add keys to Dassl's
# What they import beside Python's own library, and that adds none
HARMLESS = (
    *("PIL", "clip", "compat", "dassl", "datasets", "google", "huggingface_hub", "matplotlib", "numpy", "open_clip"),
    *(
        "safetensors",
        "scipy",
        "sklearn",
        "storage",
        "tensorboard",
        "torch",
        "torchvision",
        "tqdm",
        "trainers",
        "yacs",
        "yaml",
    ),
)
USUAL_IMPORT = re.compile(
    r"from dassl\.config import (cfg_default|get_cfg_default|clean_cfg)(, (get_cfg_default|clean_cfg))*$"
)


def merge_tree(cfg: CfgNode, given: Mapping[str, Any]) -> None:
    """Merge nested settings, as of a YAML file.

    Args:
        cfg: is changed, unless something is wrong.
        given: settings under today's names.

    Raises:
        ValueError: with all that is wrong.
    """
    _merge(cfg, list(_leaves(cfg, given)))


def merge_pairs(cfg: CfgNode, pairs: Sequence[Any]) -> None:
    """Merge `KEY VALUE KEY VALUE ...`, as of a command line; arguments and errors as of `merge_tree`."""
    if len(pairs) % 2:
        raise ValueError(f"options come as KEY VALUE pairs, got {' '.join(map(str, pairs))}")
    _merge(cfg, list(zip(pairs[::2], pairs[1::2])))


def _merge(cfg: CfgNode, settings: list[tuple[str, Any]]) -> None:
    problems = setting_problems(cfg, settings)
    if problems:
        raise ValueError("; ".join(problems))
    for key, value in settings:
        node, name = _node_of(cfg, key)
        if node is not None and name not in node and node.is_new_allowed():
            node[name] = value
        else:
            cfg.merge_from_list([key, _number(cfg, key, value)])


def setting_problems(cfg: CfgNode, settings: Sequence[tuple[str, Any]]) -> list[str]:
    """What is wrong with settings by their full keys, a sentence each."""
    problems = []
    scratch = cfg.clone()
    for key, value in settings:
        node, name = _node_of(scratch, key)
        if node is None or name not in node:
            if not (key in scratch.__dict__[CfgNode.DEPRECATED_KEYS] or (node is not None and node.is_new_allowed())):
                problems.append(f"there is no key {key}{_meant(scratch, key)}")
            continue
        try:
            scratch.merge_from_list([key, _number(scratch, key, value)])
        except (ValueError, TypeError, AttributeError, OverflowError):
            before = node[name]
            if isinstance(before, CfgNode):
                problems.append(f"{key} is a group of the keys {', '.join(before)}, and takes no value, got {value!r}")
            else:
                kind = KINDS.get(type(before), type(before).__name__)
                problems.append(f"{key} must be {kind}, as {before!r} is, got {value!r}")
    return problems


def _leaves(cfg: CfgNode, given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Full keys and values of nested settings; a group that `cfg` has not is one value."""
    for name, value in given.items():
        inner = cfg.get(name) if isinstance(cfg, Mapping) else None
        if isinstance(value, Mapping) and isinstance(inner, Mapping):
            yield from _leaves(inner, value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", value


def _node_of(cfg: CfgNode, key: str) -> tuple[CfgNode | None, str]:
    """The node that a full key is in, None where there is none, and its name there."""
    *parts, name = str(key).split(".")
    node: Any = cfg
    for part in parts:
        node = node.get(part) if isinstance(node, CfgNode) else None
    return node if isinstance(node, CfgNode) else None, name


def _number(cfg: CfgNode, key: str, value: Any) -> Any:
    """The value, as a real number where it is a whole one and the key's is real, or the other way round."""
    node, name = _node_of(cfg, key)
    before = None if node is None else node.get(name)
    decoded = CfgNode._decode_cfg_value(value)
    if isinstance(before, float) and type(decoded) is int:
        return float(decoded)
    if key in REAL_NUMBERS and type(before) is int and isinstance(decoded, float):
        node[name] = float(before)  # type: ignore[index]  # so that yacs takes it
    return value


def _meant(cfg: CfgNode, key: str) -> str:
    """A question for the key that may have been meant; "" where none is like it."""
    there = list(_keys(cfg))
    capitals = key.upper()
    found = difflib.get_close_matches(capitals, there, 1, 0.8) or [
        each for each in there if each.endswith(f".{capitals.rpartition('.')[2]}")
    ]
    return (
        f": did you mean {found[0]}?" if len(found) == 1 else f": did you mean one of {', '.join(found)}?" * bool(found)
    )


def _keys(cfg: CfgNode, prefix: str = "") -> Iterator[str]:
    for name, value in cfg.items():
        if isinstance(value, CfgNode):
            yield from _keys(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}"


def declared_defaults() -> CfgNode | None:
    """The config that importing data sets and trainers would make of the embedded Dassl's, without importing them.

    Only what their modules say at the top of `cfg_default` is run, and constants before it.

    Returns:
        The config, a copy; None where more may add keys, so that only importing tells: a statement that needs more of
        its module, a function, another name for the config, or a module from elsewhere.
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
