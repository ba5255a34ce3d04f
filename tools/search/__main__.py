"""The best settings of a method for given data sets, chosen without a look at new classes or test images.

    python -m tools.search --dataset dtd --trainer CDC --trials 40
    python -m tools.search --dataset folder --set DATASET.FOLDER my_birds --trainer CoOp --trials 20
    python -m tools.search --dataset shapes textures --vary OPTIM.LR 0.002 0.01 --vary TRAINER.CDC.BETA 0.0 0.1

From each data set, public, generated or a folder of one's own (DATA is the folder of them all), a smaller one is made:
the few-shot images of its base classes, and as test images further training or validation images of these classes. On
it base-to-new has pseudo-new classes, the second half of the base classes. What is varied stands in
configs/search/<trainer>.yaml. Optuna (pip install -e '.[search]') chooses the values. Each trial is done on all data
sets and seeds, and pruned where it does worse than the median after the same share of its epochs. In the end there are
a table, a picture, and a config file in configs/trainers/<trainer>/, which CFG=<name> takes. After Ctrl-C or a crash
the same command goes on. It may run at once on several machines that share the folder of --output.

With --vary every combination of the given values is run, without Optuna, and the table is all there is.

Where Ray is installed trials go side by side, as with `python -m tools.sweep`. docs/search.md has more.
"""

from __future__ import annotations

import argparse
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from tools.common.commands import argument_parser, told_in_one_line
from tools.common.paths import ROOT
from tools.common.pipes import ending_quietly

# Options that change no result
WHERE = ("--output", "--save", "--address", "--gpus-per-run", "--cpus-per-run", "--report-to")
FLAGS = ("--one-by-one", "--force")


def without(options: tuple[str, ...], arguments: list[str]) -> list[str]:
    """Command-line arguments without some options and their values."""
    kept, skip = [], False
    for argument in arguments:
        if not skip and argument.split("=")[0] not in options:
            kept.append(argument)
        skip = not skip and argument in options
    return kept


def parser_of_arguments() -> argparse.ArgumentParser:
    """The command line."""
    from tools.sweep.engine import add_options, add_report_to

    parser = argument_parser("tools.search", __doc__ or "", allow_abbrev=False)
    parser.add_argument("--dataset", nargs="+", default=["shapes"], metavar="DATASET", help="(default: shapes)")
    parser.add_argument("--trainer", default="CDC", help="(default: CDC)")
    parser.add_argument("--config", metavar="NAME", help="that trials start from (default: as for the scripts)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2], metavar="SEED", help="(default: 1 2)")
    parser.add_argument("--shots", type=int, default=16, help="training images per class, -1 for all (default: 16)")
    parser.add_argument("--images", type=int, default=25, help="to choose by, per class, at most (default: 25)")
    parser.add_argument("--set", nargs=2, action="append", default=[], metavar=("KEY", "VALUE"), help="for all runs")
    parser.add_argument("--output", type=Path, default=ROOT / "output" / "search", help="(default: output/search)")
    group = parser.add_argument_group("a search")
    group.add_argument("--trials", type=int, default=40, metavar="N", help="in all (default: 40)")
    group.add_argument("--space", type=Path, metavar="FILE.yaml", help="(default: configs/search/<trainer>.yaml)")
    group.add_argument("--rungs", type=int, default=3, metavar="N", help="1: nothing is pruned (default: 3)")
    group.add_argument("--sampler-seed", type=int, default=1, metavar="N", help="of Optuna's sampler (default: 1)")
    group.add_argument("--name", help="of the config that is written (default: <config>_<dataset>)")
    group.add_argument("--force", action="store_true", help="replace a config of that name")
    group = parser.add_argument_group("a grid")
    group.add_argument("--vary", nargs="+", action="append", default=[], metavar=("KEY", "VALUE"))
    group.add_argument("--save", type=Path, metavar="FILE.json", help="keep the table and how it was made")
    add_report_to(parser)
    add_options(parser)
    return parser


@ending_quietly()
def main() -> None:
    parser = parser_of_arguments()
    args = parser.parse_args()
    args.output = args.output.absolute()
    given = without(WHERE, [given for given in sys.argv[1:] if given not in FLAGS])
    command = shlex.join(["python", "-m", "tools.search", *given])
    if args.save and not args.vary:
        parser.error("--save keeps the table of a grid, --vary; a search keeps its own in --output")
    with told_in_one_line("tools.search"):
        status = run(args, command)
    if status:
        sys.exit(status)


def run(args: argparse.Namespace, command: str) -> int:
    """Do what the command line asks for, and return the exit status.

    Raises:
        OSError, ValueError: it cannot be done, or runs of a grid failed.
    """
    if not args.vary:
        from tools.search import storage  # noqa: F401  says at once where there is no Optuna
    from tools.search.smaller import check_keys, find_smaller

    settings: Mapping[str, Any] = dict(args.set)
    check_keys([*settings, *(key for key, *_ in args.vary)])
    config, data = find_config(args)
    smaller = {
        name: find_smaller(name, data, args.output / "data", args.images, processes_of(args.trainer, config))
        for name in args.dataset
    }
    if args.vary:
        from tools.search.grid import search_grid

        search_grid(args, config, smaller, command)
        return 0

    from tools.search.plan import Search, space_for, start_config
    from tools.search.search import search_settings

    first = args.dataset[0]
    cfg = start_config(args.trainer, config, first, smaller[first], settings)
    path = args.space or ROOT / f"configs/search/{args.trainer}.yaml"
    name = args.name or "_".join([config, *(folder_name(cfg) if name == "folder" else name for name in args.dataset)])
    search = Search(
        args.trainer,
        config,
        smaller,
        tuple(args.seeds),
        args.output / "studies" / args.trainer / name,
        space_for(path, cfg),
        args.shots,
        settings,
        args.rungs,
        args.sampler_seed,
        args.report_to,
    )
    return search_settings(search, args.trials, name, command, args)


def find_config(args: argparse.Namespace) -> tuple[str, Path]:
    """The config that trials start from, and the folder of the data sets, by the rules of the scripts.

    Raises:
        ValueError: as `plan_steps`, or the data sets have several default configs.
    """
    from tools.sweep.protocols import Wanted, plan_steps

    environment = {key: value for key, value in os.environ.items() if key not in ("CFG", "TAG", "SHOTS")}
    if args.config:
        environment["CFG"] = args.config
    wanted = Wanted([args.trainer], args.dataset, [max(args.seeds[0], 0)], environment=environment)
    _, answers = plan_steps("base2new", wanted)
    configs = {answers.configs[args.trainer, dataset] for dataset in args.dataset}
    if len(configs) > 1:
        raise ValueError(f"these data sets have several default configs, {', '.join(sorted(configs))}: give --config")
    return configs.pop(), answers.data


def processes_of(trainer: str, config: str) -> int:
    """How many processes read images by a config."""
    import yaml

    content = yaml.safe_load((ROOT / f"configs/trainers/{trainer}/{config}.yaml").read_text(encoding="utf-8")) or {}
    return int((content.get("DATALOADER") or {}).get("NUM_WORKERS", 4))  # Dassl's default


def folder_name(cfg: Any) -> str:
    """The name of one's own folder, in letters that a config's name may have."""
    name = "".join(c if c.isascii() and (c.isalnum() or c in "._-") else "_" for c in Path(cfg.DATASET.FOLDER).name)
    return name.strip(".") or "folder"


if __name__ == "__main__":
    main()
