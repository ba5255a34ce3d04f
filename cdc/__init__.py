"""What a checkout of this project gives to programs elsewhere: after `pip install -e .`, in any folder,

    from cdc import Predictor

The checkout's own folders have names that other packages have, too (`datasets` is Hugging Face's, `tools` anybody's).
They are importable only while this package works, so that `import datasets` in a program means what it meant before.
"""

from __future__ import annotations

import functools
import importlib.util
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType
from typing import Any, Callable

__all__ = ["Predictor"]

CHECKOUT = Path(__file__).resolve().parent.parent
NAMES = ("compat", "datasets", "settings", "storage", "tools", "train", "trainers")

if not (CHECKOUT / "trainers").is_dir():
    raise ImportError(f"cdc works from a checkout, which {CHECKOUT} is not: install it by `pip install -e CHECKOUT`")

_own: dict[str, ModuleType] = {}
_lock = threading.RLock()
_depth = 0


@contextmanager
def _checkout() -> Iterator[None]:
    """The context in which the names above are this checkout's modules; afterwards they are what they were before.

    One thread at a time is in it. Where this checkout's modules have their names already, as in a program that was
    started in it, nothing changes.
    """
    global _depth
    with _lock:
        if _depth or (not _own and _at_home()):
            yield
            return
        _depth = 1
        others = _taken_out()
        sys.modules.update(_own)
        sys.path.insert(0, str(CHECKOUT))
        try:
            yield
        finally:
            sys.path.remove(str(CHECKOUT))
            _own.update(_taken_out())
            sys.modules.update(others)
            _depth = 0


def _at_home() -> bool:
    """Whether the names are this checkout's outside, too."""
    module = sys.modules.get("tools")
    spec = importlib.util.find_spec("tools") if module is None else None
    places = spec.submodule_search_locations if spec else getattr(module, "__path__", None)
    return any(Path(place).resolve() == CHECKOUT / "tools" for place in places or ())


def _taken_out() -> dict[str, ModuleType]:
    """The modules of these names, which are then no longer imported."""
    return {name: sys.modules.pop(name) for name in list(sys.modules) if name.partition(".")[0] in NAMES}


def _inside(function: Callable[..., Any]) -> Callable[..., Any]:
    """A function that is called in the context of the checkout."""

    @functools.wraps(function)
    def call(*arguments: Any, **options: Any) -> Any:
        with _checkout():
            return function(*arguments, **options)

    return call


def __getattr__(name: str) -> Any:
    """`Predictor`, for which PyTorch is imported when it is asked for."""
    if name != "Predictor":
        raise AttributeError(f"module 'cdc' has no attribute {name!r}")
    with _checkout():
        from tools.predict.predictor import Predictor

        def predict(self: Predictor, *given: Any, **options: Any) -> Iterator[Any]:
            """As in the checkout, but that all images are classified before the first prediction comes."""
            return iter(list(Predictor.predict(self, *given, **options)))

        methods = {
            "__init__": _inside(Predictor.__init__),
            "__call__": _inside(Predictor.__call__),
            "predict": _inside(predict),
            "__doc__": Predictor.__doc__,
            "__module__": __name__,
        }
        found = type("Predictor", (Predictor,), methods)
    globals()["Predictor"] = found
    return found
