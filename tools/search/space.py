"""The space of a search: which config keys are varied, and within which limits, from a YAML file.

`configs/search/<trainer>.yaml` has an entry for each key:

    OPTIM.LR: {times: [0.1, 10]}                    multiples of the config's own value, on a logarithmic scale
    TRAINER.CDC.BETA: {low: 0.01, high: 10, log: true}
    TRAINER.CDC.PROMPT_DEPTH: {low: 1, high: layers}
    TRAINER.CDC.EVIDENCE: {choices: [exp, softplus]}
    INPUT.TRANSFORMS: {choices: {config: null, plain: [normalize]}}     by name; null: as the config has it

`step` of a range of numbers says in which steps. A number may also be `layers`, those of the CLIP's text encoder, or
`width`, that of its features, or one of these with `- N` or `/ N`. `when: {KEY: VALUE, ...}` in an entry leaves it out
where the config has another value there, or none of a list of values. An entry of one choice holds for all trials.
"""

from __future__ import annotations

import math
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from yacs.config import CfgNode

FIELDS = ("times", "low", "high", "log", "step", "choices", "when")
SIZE = re.compile(r"(layers|width)(?:\s*([-/])\s*(\d+))?")

ROUNDING = 1e-6  # of numbers of steps

Sizes = Callable[[], Mapping[str, int]]

Value = Any  # a parameter's value: a number, a truth value, a text, or the name of a choice


@dataclass(frozen=True)
class Parameter:
    """What is varied of one config key.

    Attributes:
        key: the config key.
        low, high: limits of a number, which are among its values; None for choices.
        log: whether its scale is logarithmic.
        step: between two values; None for any in between, or 1 where they are whole.
        whole: whether it is a whole number.
        choices: values in place of numbers.
        meaning: what choices that are names stand for in the config; None: what it has.
        own: the value that stands for the config's own; None where none does.
    """

    key: str
    low: float | None = None
    high: float | None = None
    log: bool = False
    step: float | None = None
    whole: bool = False
    choices: tuple[Value, ...] = ()
    meaning: Mapping[str, Any] = field(default_factory=dict, hash=False)
    own: Value | None = None

    @property
    def name(self) -> str:
        """The last part of the key, for tables."""
        return self.key.rpartition(".")[2]

    def settings(self, value: Value) -> dict[str, Any]:
        """What a value is in the config: nothing where it stands for what the config has."""
        if value in self.meaning:
            meant = self.meaning[value]
            return {} if meant is None else {self.key: meant}
        return {self.key: value}

    def edges(self) -> list[Value]:
        """Values by which it can be checked that the config takes all of them."""
        return list(self.choices) or [self.low, self.high]

    def as_data(self) -> dict[str, Any]:
        """Plain data, by which two spaces are compared."""
        return {"choices": list(self.choices), "meaning": dict(self.meaning)} if self.choices else self._range()

    def _range(self) -> dict[str, Any]:
        return {"low": self.low, "high": self.high, "log": self.log, "step": self.step, "whole": self.whole}


@dataclass(frozen=True)
class Space:
    """What a search varies.

    Attributes:
        parameters: in the order of the file.
        fixed: config keys and values that hold for all trials.
    """

    parameters: tuple[Parameter, ...]
    fixed: Mapping[str, Any] = field(default_factory=dict, hash=False)

    def settings(self, values: Mapping[str, Value]) -> dict[str, Any]:
        """Config keys and values of a trial.

        Args:
            values: of the parameters by their keys.
        """
        found = dict(self.fixed)
        for parameter in self.parameters:
            found.update(parameter.settings(values[parameter.key]))
        return found

    def own(self) -> dict[str, Value]:
        """The config's own values of the parameters that have them."""
        return {parameter.key: parameter.own for parameter in self.parameters if parameter.own is not None}

    def as_data(self) -> dict[str, Any]:
        """Plain data, by which two spaces are compared."""
        return {
            "parameters": {parameter.key: parameter.as_data() for parameter in self.parameters},
            "fixed": dict(self.fixed),
        }


def read_space(path: Path, cfg: CfgNode, sizes: Sizes) -> Space:
    """The space that a file describes for a config.

    Args:
        path: of the file.
        cfg: the config that the trials start from.
        sizes: says `layers` and `width` of its CLIP; called if the file asks for one.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: with all that is wrong in it.
    """
    if not path.is_file():
        raise FileNotFoundError(
            f"there is no {path}, which must say what is varied (--space takes another file; --vary tries a grid): "
            f"tools/search/space.py shows its form"
        )
    try:
        content = yaml.load(path.read_text(encoding="utf-8"), Loader=_UniqueKeys)
    except (yaml.YAMLError, ValueError, RecursionError) as error:
        raise ValueError(f"{path} is no YAML: {' '.join(str(error).split())}") from error
    if not isinstance(content, dict) or not content:
        raise ValueError(f"{path} must have a line for each key that is varied, as OPTIM.LR: {{times: [0.1, 10]}}")
    problems: list[str] = []
    parameters: list[Parameter] = []
    fixed: dict[str, Any] = {}
    for key, entry in content.items():
        try:
            parameter = _read(str(key), entry, cfg, sizes)
        except ValueError as error:
            problems.append(f"{key} {error}")
            continue
        if parameter is None:
            continue
        if len(parameter.choices) == 1:
            fixed.update(parameter.settings(parameter.choices[0]))
        else:
            parameters.append(parameter)
    if not problems and not parameters:
        problems.append("nothing in it is to be varied for this config")
    if problems:
        raise ValueError(f"{path}: {'; '.join(problems)}")
    return Space(tuple(parameters), fixed)


class _UniqueKeys(yaml.SafeLoader):
    """Safe YAML in which a key that stands twice is an error."""


def _mapping(loader: yaml.SafeLoader, node: yaml.MappingNode) -> dict:
    keys = [loader.construct_object(key, deep=True) for key, _ in node.value]
    twice = sorted({str(key) for key in keys if keys.count(key) > 1})
    if twice:
        raise ValueError(f"{', '.join(twice)} stands there twice")
    return loader.construct_mapping(node, deep=True)


_UniqueKeys.add_constructor(yaml.resolver.BaseResolver.DEFAULT_MAPPING_TAG, _mapping)


def _read(key: str, entry: Any, cfg: CfgNode, sizes: Sizes) -> Parameter | None:
    """A parameter; None where the config is not one for it. Errors lack the key, their subject."""
    current = value_of(cfg, key)
    if not isinstance(entry, dict):
        raise ValueError(f"must be {{times: ...}}, {{low: ..., high: ...}} or {{choices: ...}}, got {entry!r}")
    unknown = sorted(str(name) for name in entry.keys() - set(FIELDS))
    if unknown:
        raise ValueError(f"takes {', '.join(FIELDS)}, got {', '.join(unknown)}")
    kinds = [name for name in ("times", "low", "choices") if name in entry]
    if len(kinds) != 1 or ("high" in entry) != ("low" in entry):
        raise ValueError(f"must have times, or low and high, or choices, got {', '.join(entry) or 'nothing'}")
    conditions = entry.get("when", {})
    if not isinstance(conditions, dict):
        raise ValueError(f"must have keys and values as when, got {conditions!r}")
    for other, wanted in conditions.items():
        try:
            there = value_of(cfg, str(other))
        except ValueError as error:
            raise ValueError(f"has {other} in when, which {error}") from None
        if there not in (wanted if isinstance(wanted, list) else [wanted]):
            return None
    if kinds == ["choices"]:
        return _choices(key, entry, current, sizes)
    if isinstance(current, bool) or not isinstance(current, (int, float)):
        raise ValueError(f"is no number in the config, where it is {current!r}: it takes choices")
    return _numbers(key, entry, current, sizes)


def value_of(cfg: CfgNode, key: str) -> Any:
    """The value of a config key.

    Raises:
        ValueError: there is no such key; without its name.
    """
    node: Any = cfg
    for name in key.split("."):
        if not isinstance(node, dict) or name not in node:
            raise ValueError("is no key of this trainer's config")
        node = node[name]
    if isinstance(node, dict):
        raise ValueError(f"is a node of the config, with {', '.join(node)}")
    return node


def _choices(key: str, entry: Mapping[str, Any], current: Any, sizes: Sizes) -> Parameter:
    odd = [name for name in ("log", "step") if name in entry]
    choices = entry["choices"]
    if odd:
        raise ValueError(f"has choices, of which there is no {' and no '.join(odd)}")
    if not isinstance(choices, (list, dict)) or not choices:
        raise ValueError(f"must have a list of choices, or choices by their names, got {choices!r}")
    if isinstance(choices, dict):
        meaning = {str(name): value for name, value in choices.items()}
        same = [name for name, value in meaning.items() if value is None or _same(value, current)]
        same.sort(key=lambda name: meaning[name] is not None)
        for name in same[1:]:  # another name of the same
            del meaning[name]
        return Parameter(key, choices=tuple(meaning), meaning=meaning, own=same[0] if same else None)
    choices = [_size(choice, sizes) if isinstance(choice, str) else choice for choice in choices]
    if any(not isinstance(choice, (bool, int, float, str)) for choice in choices):
        raise ValueError("must have numbers, truth values or texts as choices, or names for others (name: value)")
    if len({(type(choice), choice) for choice in choices}) < len(choices):
        raise ValueError(f"has a choice twice: {choices}")
    same = [choice for choice in choices if _same(choice, current)]
    return Parameter(key, choices=tuple(choices), own=same[0] if same else None)


def _same(one: Any, other: Any) -> bool:
    if isinstance(one, (list, tuple)) and isinstance(other, (list, tuple)):
        return len(one) == len(other) and all(map(_same, one, other))
    return isinstance(one, bool) == isinstance(other, bool) and one == other


def _numbers(key: str, entry: Mapping[str, Any], current: float, sizes: Sizes) -> Parameter:
    whole = isinstance(current, int)
    log, step = entry.get("log", "times" in entry), entry.get("step")
    if not isinstance(log, bool):
        raise ValueError(f"must have true or false as log, got {log!r}")
    if "times" in entry:
        times = entry["times"]
        if not isinstance(times, list) or len(times) != 2 or current <= 0:
            raise ValueError(
                f"must have [least, most] as times, and a number above 0 in the config, got {times!r} and {current}"
            )
        low, high = (_number(value, sizes) * current for value in times)
        low, high = (max(round(low), 1), max(round(high), 1)) if whole else (low, high)
    else:
        low, high = (_number(entry[name], sizes) for name in ("low", "high"))
    if step is not None:
        step = _number(step, sizes)
    if whole and any(value is not None and value != int(value) for value in (low, high, step)):
        raise ValueError(f"is a whole number, and so must be low, high and step, got {low}, {high}, {step}")
    if low >= high:
        raise ValueError(f"must have a low below its high, got {low:g} and {high:g}")
    if log and (low <= 0 or step is not None):
        raise ValueError(f"must be above 0 and without step on a logarithmic scale, got {low:g} and step {step}")
    if step is not None and step <= 0:
        raise ValueError(f"must have a step above 0, got {step:g}")
    if whole:
        low, high, step = int(low), int(high), None if log else int(step or 1)
    inside = low <= current <= high
    if step is not None:
        high = low + math.floor((high - low) / step + ROUNDING) * step
        steps = (current - low) / step
        inside = inside and abs(steps - round(steps)) < ROUNDING
    return Parameter(key, low, high, log, step, whole, own=current if inside else None)


def _number(given: Any, sizes: Sizes) -> float:
    if isinstance(given, str):
        given = _size(given, sizes)
    if isinstance(given, str):
        try:
            given = float(given)  # YAML takes 1e-5 for a text
        except ValueError:
            raise ValueError(f"must have numbers, or layers or width, got {given!r}") from None
    if isinstance(given, bool) or not isinstance(given, (int, float)) or not math.isfinite(given):
        raise ValueError(f"must have numbers, or layers or width, got {given!r}")
    return given


def _size(text: str, sizes: Sizes) -> int | str:
    """The number that a text with `layers` or `width` means; other texts as they are."""
    found = SIZE.fullmatch(text.strip())
    if not found:
        return text
    size, number = sizes()[found[1]], int(found[3] or 0)
    return size - number if found[2] != "/" else size // max(number, 1)
