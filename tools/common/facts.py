"""Facts that stand in YAML files beside the code, checked when they are read."""

from __future__ import annotations

from collections.abc import Callable, Collection, Hashable
from pathlib import Path
from typing import Any

import yaml


class _Loader(yaml.SafeLoader):
    """Refuses a mapping that has a key twice, of which YAML's own loader takes the last."""

    def construct_mapping(self, node: yaml.MappingNode, deep: bool = False) -> dict[Hashable, Any]:
        content = super().construct_mapping(node, deep)
        if len(content) < len(node.value):
            raise yaml.constructor.ConstructorError(None, None, "a key stands here twice", node.start_mark)
        return content


def read_facts(path: Path, errors_in: Callable[[Any], list[str]]) -> Any:
    """Read a YAML file of facts.

    Args:
        path: of the file.
        errors_in: returns all that is wrong with the content, a line each.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is not YAML, has a key twice, or `errors_in` found errors; names all of them.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), _Loader)
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not readable as YAML ({error})") from error
    errors = errors_in(content)
    if errors:
        raise ValueError("\n  ".join([f"{path} is not as it must be:", *errors]))
    return content


def key_errors(content: Any, where: str, required: Collection[str], optional: Collection[str] = ()) -> list[str]:
    """What is wrong with the keys of a mapping, a line each.

    Args:
        content: what should be a mapping.
        where: its place in the file.
        required: keys that it must have.
        optional: keys that it may have.
    """
    allowed = (*required, *optional)
    if not isinstance(content, dict):
        return [f"{where} must be a mapping with keys of {', '.join(allowed)}, got {content!r}"]
    errors = [f"{where} must have {key}" for key in required if key not in content]
    return errors + [
        f"{where} has the unknown key {key!r}; known are {', '.join(allowed)}" for key in content if key not in allowed
    ]
