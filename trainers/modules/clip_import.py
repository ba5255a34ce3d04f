"""What the `clip` package needs in order to be imported beside today's setuptools."""

from __future__ import annotations

import contextlib
import importlib
import sys
import warnings
from collections.abc import Iterator
from types import ModuleType


@contextlib.contextmanager
def clip_importable() -> Iterator[None]:
    """The context in which to import `clip` for the first time.

    Copies of CLIP on PyPI take `packaging` from `pkg_resources`. That module warns of its own end, lacks the name in
    setuptools 70.0, and is gone since setuptools 81. Where the import fails for this reason, `packaging` is lent inside
    the context. Outside it all is as before, so that no other package takes a stand-in for `pkg_resources`.

    Raises:
        ImportError: there is no `clip`, or it lacks something else.
    """
    with contextlib.ExitStack() as stack:
        stack.enter_context(warnings.catch_warnings())
        warnings.filterwarnings("ignore", message="pkg_resources is deprecated")
        try:
            importlib.import_module("clip.clip")
        except ImportError as error:
            if error.name != "pkg_resources":
                raise
            stack.enter_context(_packaging_in_pkg_resources())
        yield


@contextlib.contextmanager
def _packaging_in_pkg_resources() -> Iterator[None]:
    # What clip imports beside it comes first, lest it meet the stand-in and take it for the real module.
    for name in ("ftfy", "packaging.version", "regex", "torchvision.transforms", "tqdm"):
        importlib.import_module(name)
    installed = sys.modules.get("pkg_resources")
    module = sys.modules["pkg_resources"] = installed or ModuleType("pkg_resources")
    vars(module)["packaging"] = sys.modules["packaging"]
    try:
        yield
    finally:
        del vars(module)["packaging"]
        if installed is None:
            del sys.modules["pkg_resources"]
