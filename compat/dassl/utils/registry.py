"""Name to object tables: what ``cfg.TRAINER.NAME`` and its like are looked up in."""

from __future__ import annotations

from typing import Any

__all__ = ["Registry"]


class Registry:
    """A table of classes or functions under their own names.

    Use it as a decorator, ``@TRAINER_REGISTRY.register()``, or as a call, ``TRAINER_REGISTRY.register(CoOp)``.

    Args:
        name: what the table holds, for error messages ("TRAINER").
    """

    def __init__(self, name: str) -> None:
        self._name = name
        self._objects: dict[str, Any] = {}

    def register(self, obj: Any = None, force: bool = False) -> Any:
        """Enter ``obj`` under its ``__name__``.

        Args:
            obj: the class or function; None makes a decorator.
            force: replace what the name already stands for.

        Raises:
            KeyError: the name is taken and ``force`` is off.
        """
        if obj is None:
            return lambda decorated: self.register(decorated, force=force)
        name = obj.__name__
        if name in self._objects and not force:
            raise KeyError(f"{name!r} is already registered in the {self._name} registry, as {self._objects[name]!r}")
        self._objects[name] = obj
        return obj

    def get(self, name: str) -> Any:
        """Return what ``name`` stands for.

        Raises:
            KeyError: nothing is registered under that name.
        """
        if name not in self._objects:
            raise KeyError(f"{name!r} is not in the {self._name} registry, which holds {self.registered_names()}")
        return self._objects[name]

    def registered_names(self) -> list[str]:
        """Return the names in the order in which they were registered."""
        return list(self._objects)
