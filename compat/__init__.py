"""Makes ``import dassl`` work on this machine; import it before anything that imports Dassl.

Where Dassl is installed, that one is used, and :mod:`compat.mending` puts right at run time what today's PyTorch broke
in it. Where none is installed, this folder goes last on ``sys.path`` and ``dassl`` is the one embedded here. Worker
processes that are spawned, not forked, inherit that path; with an installed Dassl they import ``compat`` again with the
main module.
"""

from __future__ import annotations

import importlib.util
import os.path as osp
import sys

__all__ = ["which"]

_HERE = osp.dirname(osp.realpath(__file__))


def _is_here(path: str | None) -> bool:
    return path is not None and osp.realpath(path).startswith(osp.join(_HERE, ""))


def _installed_dassl() -> str | None:
    """Return the folder of an installed Dassl, None where there is none but the embedded one."""
    full_path = sys.path
    sys.path = [entry for entry in full_path if osp.realpath(entry) != _HERE]
    try:
        spec = importlib.util.find_spec("dassl")  # imports nothing
    finally:
        sys.path = full_path
    # A folder that is named dassl and holds no __init__.py has a spec, too, but no origin.
    return None if spec is None or spec.origin is None or _is_here(spec.origin) else osp.dirname(spec.origin)


def _prepare() -> str:
    """Make ``dassl`` importable and return what :func:`which` says."""
    installed = _installed_dassl()
    if installed is not None:
        from .mending import mend

        mended = mend()
        return f"installed at {installed}" + (f", mended: {', '.join(mended)}" if mended else "")
    if _HERE not in sys.path:
        sys.path.append(_HERE)
    return "embedded"


_WHICH = _prepare()


def which() -> str:
    """Return which Dassl is in use: "embedded", or "installed at <folder>" with what was mended in it."""
    return _WHICH
