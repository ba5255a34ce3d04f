"""What a run's log begins with, and where the log of an earlier try goes."""

from __future__ import annotations

import argparse
import time
from pathlib import Path

from storage.safe_text import escaped


def escaped_setting(value):
    """A setting with `escaped` texts; in lists Python escapes them itself."""
    if isinstance(value, dict):
        return type(value)({key: escaped_setting(entry) for key, entry in value.items()})
    return escaped(value) if isinstance(value, str) else value


def print_settings(args: argparse.Namespace, cfg) -> None:
    """The arguments, the config and the machine, in the words of CoOp's logs."""
    import compat

    from dassl.utils import collect_env_info

    stars = "***************"
    print(f"{stars}\n** Arguments **\n{stars}")
    for key, value in sorted(vars(args).items()):
        print(f"{key}: {escaped_setting(value)}")
    stars = "************"
    print(f"{stars}\n** Config **\n{stars}")
    print(escaped_setting(cfg))
    print("Collecting env info ...")
    print(f"** System info **\n{collect_env_info()}\n        Dassl: {compat.which()}\n")


def set_log_aside(folder: Path) -> None:
    """Rename the log of an interrupted run to `log.txt-<time>`, so that the log that ends it is `log.txt`.

    CoOp's `parse_test_res.py` reads only `log.txt`. Dassl would give the later log the other name, and that script
    would miss the seed in its mean.

    Args:
        folder: of the run. Where it is finished, its log stays.
    """
    log = folder / "log.txt"
    if not log.is_file() or (folder / "results.json").exists():
        return
    stamp = time.strftime("%Y-%m-%d-%H-%M-%S", time.localtime(log.stat().st_mtime))
    name, n = f"log.txt-{stamp}", 1
    while (folder / name).exists():
        name, n = f"log.txt-{stamp}-{n}", n + 1
    log.rename(folder / name)
