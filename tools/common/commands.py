"""What the command lines of the tools share."""

from __future__ import annotations

import argparse
from typing import Any


def argument_parser(module: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it stands, for a command that is called by its module's name.

    Args:
        module: what stands after `python -m`.
        description: the module's docstring.
        options: further arguments of `argparse.ArgumentParser`.
    """
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )
