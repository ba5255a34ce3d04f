"""What the command lines of the tools share."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from types import TracebackType
from typing import Any

from storage.safe_text import escaped
from tools.common.choices import DEVICES


def argument_parser(module: str, description: str, **options: Any) -> argparse.ArgumentParser:
    """A parser whose help shows the description as it stands, for a command that is called by its module's name.

    From then on Ctrl-C ends the program with one line (`tell_interrupts`).

    Args:
        module: what stands after `python -m`.
        description: the module's docstring.
        options: further arguments of `argparse.ArgumentParser`.
    """
    tell_interrupts(module)
    return argparse.ArgumentParser(
        prog=f"python -m {module}",
        description=description,
        formatter_class=argparse.RawDescriptionHelpFormatter,
        **options,
    )


def tell_interrupts(name: str) -> None:
    """Have a KeyboardInterrupt that nobody catches told in one line, with its own words if it has some.

    The program then ends as Python ends it, by SIGINT, which a shell gives as the status 130.

    Args:
        name: of the program.
    """

    def tell(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
        if issubclass(kind, KeyboardInterrupt):
            print(f"\n{name}: {str(error) or 'stopped'}", file=sys.stderr)  # after a line of progress
        else:
            sys.__excepthook__(kind, error, trace)

    sys.excepthook = tell


@contextmanager
def told_in_one_line(name: str) -> Iterator[None]:
    """The context of a command's work, which the same command takes up again after Ctrl-C.

    What it cannot do, a ValueError or an OSError, ends the program with exit status 2, and Ctrl-C with 130; either is
    told in one line on stderr. A reader that closes stdout is left to `ending_quietly`.

    Args:
        name: of the program.
    """
    try:
        yield
    except BrokenPipeError:
        raise
    except (ValueError, OSError) as error:
        print(f"{name}: {escaped(str(error))}", file=sys.stderr)
        sys.exit(2)
    except KeyboardInterrupt:
        print(f"{name}: interrupted; the same command goes on", file=sys.stderr)
        sys.exit(130)


def add_model_options(parser: argparse.ArgumentParser, source: str = "run") -> None:
    """Add the options of commands that run a model on images: what may differ from the run or the config.

    Args:
        parser: of the command.
        source: what the defaults are taken from, "run" or "config".
    """
    parser.add_argument("--batch-size", type=int, help=f"images at once (default: as in the {source}'s test)")
    parser.add_argument("--workers", type=int, help=f"processes that read images (default: the {source}'s)")
    parser.add_argument("--device", choices=DEVICES, default="auto", help="auto: a GPU if there is one")
    parser.add_argument("--precision", default="", help=f"fp16, bf16, amp or fp32 in place of the {source}'s")
    parser.add_argument("--backbone", default="", help=f"CLIP by name or path in place of the {source}'s")
    parser.add_argument("--load-epoch", type=int, help="epoch of the checkpoint (default: the one that the run tested)")
    parser.add_argument("--debug", action="store_true", help="show the traceback of wrong input")


def add_method_options(parser: argparse.ArgumentParser) -> None:
    """Add `--set`, by which a trained model is tested with other options of its method."""
    parser.add_argument(
        "--set",
        nargs=2,
        action="append",
        default=[],
        metavar=("KEY", "VALUE"),
        help="an option of the method in place of the run's, as TRAINER.CDC.FUSION averaging",
    )
