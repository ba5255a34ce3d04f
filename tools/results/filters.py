"""The options of commands that choose runs."""

from __future__ import annotations

import argparse
from typing import Any


def add_filters(parser: argparse.ArgumentParser) -> None:
    """The options by which runs are chosen, as `find_runs` takes them."""
    parser.add_argument("--dataset", action="append", default=[], help="only this data set (repeatable)")
    parser.add_argument("--trainer", action="append", default=[], help="only this trainer (repeatable)")
    parser.add_argument("--config", action="append", default=[], help="only this config (repeatable)")
    parser.add_argument("--shots", action="append", default=[], type=int, help="only these shots (repeatable)")
    parser.add_argument("--seed", action="append", default=[], type=int, help="only this seed, missing if not there")
    parser.add_argument("--source", default="", help="xd, dg: the data set trained on (default: what the logs name)")
    parser.add_argument("--join-configs", action="store_true", help="all configs of a trainer as one system")


def chosen(args: argparse.Namespace) -> dict[str, Any]:
    """What these options were set to, as arguments of `table_of` and `gather`."""
    return {
        "datasets": args.dataset,
        "trainers": args.trainer,
        "configs": args.config,
        "shots": args.shots,
        "seeds": args.seed,
        "source": args.source,
        "join_configs": args.join_configs,
    }
