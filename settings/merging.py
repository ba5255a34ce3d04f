"""Settings from files, command lines and results, merged into Dassl's config.

yacs stops at the first wrong setting, and refuses 0 where the default is 0.1. Here all errors of one source are
reported at once, with the key that may have been meant, and an integer is accepted for a real number.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from yacs.config import CfgNode

__all__ = ["merge_pairs", "merge_tree", "setting_problems"]

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
    """What is wrong with settings by their full keys, an error each."""
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
                problems.append(
                    f"{key} is a group of the keys {', '.join(before)}, and takes no value, got {value!r:.200}"
                )
            else:
                kind = KINDS.get(type(before), type(before).__name__)
                problems.append(f"{key} must be {kind}, as {before!r} is, got {value!r:.200}")
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
