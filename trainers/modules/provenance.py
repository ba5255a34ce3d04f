"""Where a result comes from: the version of the code, the command and the time."""

from __future__ import annotations

import datetime
import functools
import shlex
import subprocess
import sys
from pathlib import Path

CHECKOUT = Path(__file__).resolve().parents[2]
SECONDS = 10  # that Git is waited for, as on a slow file system


@functools.cache
def commit_of(folder: Path = CHECKOUT) -> str | None:
    """The commit that a checkout is at, with "-dirty" where tracked files differ from it.

    Args:
        folder: the checkout's own.

    Returns:
        The commit's 40 digits; None where Git, or a repository at this very folder, is not there.
    """
    try:
        answers = [
            subprocess.run(
                ["git", "-C", str(folder), *command], capture_output=True, text=True, timeout=SECONDS, check=True
            ).stdout.strip()
            for command in (
                ["rev-parse", "--show-toplevel"],
                ["describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"],
            )
        ]
    except (OSError, subprocess.SubprocessError):
        return None
    return answers[1] if Path(answers[0]).resolve() == folder.resolve() else None


def origin() -> dict[str, str | None]:
    """`commit` of this checkout, `command` of this process as a shell takes it, and `date`, the time in UTC."""
    return {
        "commit": commit_of(),
        "command": shlex.join(["python", *sys.argv]),
        "date": datetime.datetime.now(datetime.timezone.utc).isoformat(timespec="seconds"),
    }
