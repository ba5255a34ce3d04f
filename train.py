"""Train and test one trainer on one data set, with CoOp's command line.

    python train.py --root data --trainer CDC --dataset-config-file configs/datasets/digits.yaml \\
        --config-file configs/trainers/CDC/tiny.yaml --output-dir output/digits --seed 1 [KEY VALUE ...]

What is wrong with the input (config, data, weights, checkpoint), and training that diverges, is told in one line with
exit status 2, and leaves no output folder behind but that of finished epochs; `--debug` shows the traceback instead.
So does an output folder that another process runs in (`trainers.modules.ownership`), where nothing is changed.

PyTorch, Dassl, the data sets and the trainers are imported after the arguments are read: `--help` and the message
about a wrong argument come at once.
"""

from __future__ import annotations

import argparse
import functools
import os
import runpy
import signal
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType

import yaml

ROOT = Path(__file__).resolve().parent  # the checkout
EXAMPLE = (
    "python train.py --root data --trainer CDC --dataset-config-file configs/datasets/digits.yaml "
    "--config-file configs/trainers/CDC/tiny.yaml --output-dir output/digits"
)
CONFIG_SUFFIXES = (".yaml", ".yml", "")


def parse_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--root", default="", help="folder of the data sets")
    parser.add_argument("--output-dir", default="", help="folder of this run's log, checkpoints and results.json")
    parser.add_argument("--resume", default="", help="folder of the run to go on with, if not the output folder")
    parser.add_argument("--seed", type=int, help="random seed; negative or none: not fixed")
    parser.add_argument("--source-domains", nargs="+", help="source domains (domain generalisation)")
    parser.add_argument("--target-domains", nargs="+", help="target domains (domain generalisation)")
    parser.add_argument("--transforms", nargs="+", help="names of the training transforms")
    parser.add_argument("--config-file", default="", help="YAML file of the method")
    parser.add_argument("--dataset-config-file", default="", help="YAML file of the data set")
    parser.add_argument("--trainer", default="", help="name of the trainer")
    parser.add_argument("--backbone", default="", help="CLIP by OpenAI's name, by path, or as open_clip:MODEL/WEIGHTS")
    parser.add_argument("--head", default="", help="name of the head (not used by CLIP's trainers)")
    parser.add_argument("--eval-only", action="store_true", help="test without training")
    parser.add_argument("--model-dir", default="", help="folder of the run to test, or file of tools.export")
    parser.add_argument("--load-epoch", type=int, help="epoch of the checkpoint to test; none: the best")
    parser.add_argument("--no-train", action="store_true", help="build everything, then stop")
    parser.add_argument("--report-to", default="", metavar="wandb", help="where figures go besides TensorBoard")
    parser.add_argument("--quiet", action="store_true", help="show the metrics alone; log.txt has all the rest")
    parser.add_argument("--debug", action="store_true", help="show the traceback of wrong input")
    parser.add_argument("opts", nargs=argparse.REMAINDER, help="KEY VALUE pairs that override the config")
    return parser.parse_args(arguments)


def setup_cfg(args: argparse.Namespace, to_run: bool = False):
    """Dassl's defaults, then the data set's file, the method's file, the options, and the KEY VALUE pairs.

    Relative paths start in the working folder. Those in config files are also looked for in the checkout, so that its
    configs work in any folder (`find_paths`); those of the command line are not.

    Args:
        args: the command line.
        to_run: whether trainer and data set must be named.

    Raises:
        FileNotFoundError: a config file is missing.
        ValueError: with all that is wrong: unknown keys, values of the wrong type, a key without a value, no trainer.
    """
    files = [_renamed_file(path) for path in (args.dataset_config_file, args.config_file) if path]
    missing = [path for path in files if not Path(path).is_file()]
    if missing:
        raise FileNotFoundError(f"no config file {', '.join(missing)}")

    import compat
    from compat.settings import declared_defaults

    from dassl.config import clean_cfg, get_cfg_default

    # An installed Dassl has brought PyTorch already.
    early = declared_defaults() if compat.which() == "embedded" and not sys.modules.get("torch") else None
    if early is not None:
        _merge_given(early, args, files, with_paths=False)
        if to_run:
            check_given(early)

    import datasets  # noqa: F401  registers the data sets
    import trainers

    trainers.register()  # the trainers and their config keys
    cfg = get_cfg_default()
    _merge_given(cfg, args, files)
    if to_run:
        check_given(cfg)
    note_other_owners(cfg, files)
    if cfg.TRAINER.NAME.upper() in cfg.TRAINER:  # one of one's own may take another one's
        clean_cfg(cfg, cfg.TRAINER.NAME)  # other trainers' options would only fill the log
    cfg.freeze()
    return cfg


def _merge_given(cfg, args: argparse.Namespace, files: list[str], with_paths: bool = True) -> None:
    """Merge into the defaults what the user gave; errors as of `setup_cfg`.

    Args:
        cfg: is changed.
        args: the command line.
        files: its config files, the later winning.
        with_paths: whether to look for the files' paths, which takes PyTorch.
    """
    problems = []
    for path in files:
        try:
            merge_checked(path, merge_file, cfg, path)
        except ValueError as error:
            problems.append(str(error))
    if with_paths and not problems:
        find_paths(cfg)
    given = {
        "DATASET.ROOT": args.root,
        "OUTPUT_DIR": args.output_dir,
        "RESUME": args.resume,
        "SEED": args.seed,
        "DATASET.SOURCE_DOMAINS": args.source_domains,
        "DATASET.TARGET_DOMAINS": args.target_domains,
        "INPUT.TRANSFORMS": args.transforms,
        "TRAINER.NAME": args.trainer,
        "MODEL.BACKBONE.NAME": args.backbone,
        "MODEL.HEAD.NAME": args.head,
        "REPORT_TO": args.report_to,
    }
    for key, value in given.items():
        if value not in ("", None):
            node, _, name = key.rpartition(".")
            target = cfg
            for part in node.split(".") if node else ():
                target = target[part]
            target[name] = value
    try:
        merge_checked("the command line", merge_options, cfg, args.opts)
    except ValueError as error:
        problems.append(str(error))
    if problems:
        raise ValueError("; ".join(problems))
    check_owner(cfg, args.opts[::2])


def check_given(cfg) -> None:
    """Raise ValueError unless a config names a trainer, a data set, and folders that can be used."""
    needed = {"--trainer": cfg.TRAINER.NAME, "--dataset-config-file": cfg.DATASET.NAME}
    lacking = [option for option, name in needed.items() if not name]
    problems = [f"{' and '.join(lacking)} must be given, as in: {EXAMPLE}"] if lacking else []
    for option, folder in {"--root": cfg.DATASET.ROOT, "--output-dir": cfg.OUTPUT_DIR}.items():
        path = Path(folder).expanduser().absolute()
        there = next(each for each in (path, *path.parents) if each.exists())
        if not there.is_dir():
            problems.append(f"{option} must be a folder, got {folder}, but {there} is a file")
        elif option == "--output-dir" and not os.access(there, os.W_OK | os.X_OK):
            problems.append(
                f"{option} must be a folder that can be written, got {folder}, but there is no right to "
                f"write into {there}"
            )
    if problems:
        raise ValueError("; ".join(problems))


def check_owner(cfg, keys: list[str]) -> None:
    """Raise ValueError if keys of a command line belong to another trainer than the one that runs: without effect."""
    own = cfg.TRAINER.NAME.upper()
    if own not in cfg.TRAINER:  # a trainer that does not exist, or has no options
        return
    others = [key for key in keys if key.startswith("TRAINER.") and key.split(".")[1] not in ("NAME", own)]
    if others:
        raise ValueError(
            f"{', '.join(others)} would have no effect: {cfg.TRAINER.NAME} takes OPTIM, INPUT and the like, and "
            f"TRAINER.{own}, which has {', '.join(cfg.TRAINER[own])}"
        )


def note_other_owners(cfg, files: list[str]) -> None:
    """Print which options of other trainers config files have: a file may be one for several trainers."""
    own = cfg.TRAINER.NAME.upper()
    for path in files if own in cfg.TRAINER else ():
        nodes = (yaml.safe_load(Path(path).read_text(encoding="utf-8")) or {}).get("TRAINER") or {}
        unused = [name for name in nodes if name not in ("NAME", own)]
        if unused:
            print(f"Note: {path} sets options of {', '.join(unused)}, which {cfg.TRAINER.NAME} does not take")


def find_paths(cfg) -> None:
    """Make relative paths absolute which lead to nothing from the working folder, and to something from the checkout.

    These are the paths of CLIP, of the checkpoint to start from, of the run to go on with, and of feature banks. All
    others stay as they are written. So a run that is started in the checkout names CLIP as its config file does.

    Args:
        cfg: is changed.
    """
    from trainers.modules.open_clip_models import FOLDER_PREFIX, split_path

    backbone = cfg.MODEL.BACKBONE
    before, backbone.NAME = split_path(backbone.NAME or "")
    paths = [
        # a name of OpenAI's may be a folder's, too
        (backbone, "NAME", os.path.isdir if before.endswith(FOLDER_PREFIX) else os.path.isfile),
        (cfg.MODEL, "INIT_WEIGHTS", os.path.isfile),
        (cfg, "RESUME", os.path.isdir),
    ]
    for options in cfg.TRAINER.values():
        if isinstance(options, dict) and "FEATURE_BANK_DIR" in options:
            paths.append((options, "FEATURE_BANK_DIR", os.path.isdir))
    for node, key, is_there in paths:
        path = os.path.expanduser(node[key] or "")
        if path and not is_there(path) and is_there(ROOT / path):
            node[key] = str(ROOT / path)
    backbone.NAME = before + backbone.NAME


def _renamed_file(path: str) -> str:
    """The path of a config file, or of the one that has taken its place."""
    old = Path(path)
    if old.name not in ("vit_b16_coupled.yaml", "tiny_coupled.yaml") or old.parent.name != "CDC" or old.exists():
        return path
    now = path.replace("_coupled.yaml", ".yaml")
    print(f"{path} is now {now}: coupled templates are the default")
    return now


def _renamed(cfg) -> dict[str, str]:
    """Today's config keys by the names that they once had, as the trainers have told yacs."""
    return cfg.__dict__[cfg.RENAMED_KEYS]


def rename_keys(cfg, given) -> None:
    """Give the keys of a config that had other names once their names of today.

    Args:
        cfg: a config with the trainers' keys.
        given: the older config, also a part of one; is changed.

    Raises:
        ValueError: a key is there under both names.
    """
    for old, new in _renamed(cfg).items():
        *nodes, name = old.split(".")
        node = functools.reduce(lambda node, key: node.get(key, {}) if isinstance(node, dict) else {}, nodes, given)
        if isinstance(node, dict) and name in node:
            *nodes, new_name = new.split(".")
            target = functools.reduce(lambda node, key: node.setdefault(key, type(cfg)()), nodes, given)
            if not isinstance(target, dict) or new_name in target:
                raise ValueError(f"{old} is now {new}, and both are given")
            target[new_name] = node.pop(name)


def merge_file(cfg, path: str) -> None:
    """Merge a YAML file, in which keys may have old names. yacs would run a file of Python.

    Raises:
        ValueError: the file is not YAML by its name.
        KeyError, TypeError, ValueError, yaml.YAMLError, ...: as yacs has it of wrong content.
    """
    if Path(path).suffix.lower() not in CONFIG_SUFFIXES:
        raise ValueError(f"a config file must be YAML, with a name that ends in .yaml or .yml, got {path}")
    given = cfg.load_cfg(Path(path).read_text(encoding="utf-8"))  # text is YAML for yacs, always
    merge_settings(cfg, given)


def merge_settings(cfg, given) -> None:
    """Merge nested settings, whose keys may have old names; errors as of `compat.settings.merge_tree`."""
    from compat.settings import merge_tree

    rename_keys(cfg, given)
    merge_tree(cfg, given)


def merge_options(cfg, opts) -> None:
    """Merge KEY VALUE pairs, whose keys may have old names; errors as of `compat.settings.merge_tree`."""
    from compat.settings import merge_pairs

    merge_pairs(cfg, [_renamed(cfg).get(text, text) if not n % 2 else text for n, text in enumerate(opts)])


def merge_checked(source: str, merge, *content) -> None:
    """Merge into a config, and tell of wrong content, which yacs meets with errors of many kinds, in one.

    Args:
        source: what is merged, as the error names it.
        merge: does it; is given `content`.

    Raises:
        ValueError: the content is wrong.
    """
    try:
        merge(*content)
    except (KeyError, AssertionError, ValueError, TypeError, AttributeError, RecursionError, yaml.YAMLError) as error:
        message = str(error.args[0] if len(error.args) == 1 else error)
        raise ValueError(f"{source}: {' '.join(message.split())}") from error


def _escaped(value):
    """A setting with `escaped` texts; in lists Python escapes them itself."""
    from trainers.modules.safe_text import escaped

    if isinstance(value, dict):
        return type(value)({key: _escaped(entry) for key, entry in value.items()})
    return escaped(value) if isinstance(value, str) else value


def print_settings(args: argparse.Namespace, cfg) -> None:
    """The arguments, the config and the machine, in the words of CoOp's logs."""
    import compat

    from dassl.utils import collect_env_info

    stars = "***************"
    print(f"{stars}\n** Arguments **\n{stars}")
    for key, value in sorted(vars(args).items()):
        print(f"{key}: {_escaped(value)}")
    stars = "************"
    print(f"{stars}\n** Config **\n{stars}")
    print(_escaped(cfg))
    print("Collecting env info ...")
    print(f"** System info **\n{collect_env_info()}\n        Dassl: {compat.which()}\n")


def build(args: argparse.Namespace, cfg):
    """Log and a trainer that is ready to train, or to test with its checkpoint loaded.

    The settings and the machine are written to the log alone, as long as there is one.
    """
    from compat.console import log_alone, metrics_alone

    import torch
    from dassl.engine import build_trainer
    from dassl.utils import set_random_seed, setup_logger

    from trainers.base import ClipTrainer
    from trainers.modules import ranks
    from trainers.modules.hub import PREFIX

    if args.model_dir and not args.model_dir.startswith(PREFIX) and not Path(args.model_dir).expanduser().exists():
        raise FileNotFoundError(f"--model-dir must be a run's folder or a file of tools.export, no {args.model_dir}")
    if cfg.SEED >= 0:
        if not args.quiet:
            print(f"Setting fixed seed: {cfg.SEED}")
        set_random_seed(cfg.SEED)
    elif ranks.size() > 1:  # all processes draw the same numbers
        set_random_seed(ranks.agree(torch.seed() % 2**32))
    set_log_aside(Path(cfg.OUTPUT_DIR))
    setup_logger(cfg.OUTPUT_DIR)
    if args.quiet:
        metrics_alone()
    with log_alone() as log:
        print_settings(args, cfg)
    if log:
        print(f"Settings and environment are in {_escaped(log)}")
    trainer = build_trainer(cfg)
    if ranks.size() > 1 and not isinstance(trainer, ClipTrainer):
        raise ValueError(f"{cfg.TRAINER.NAME} takes one process, and torchrun has started {ranks.size()}")
    if cfg.REPORT_TO and not isinstance(trainer, ClipTrainer):
        raise ValueError(f"{cfg.TRAINER.NAME} writes for TensorBoard alone, but --report-to is {cfg.REPORT_TO}")
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
    return trainer


def set_log_aside(folder: Path) -> None:
    """Name the log of a run that was cut `log.txt-<time>`, so that the one that ends it is `log.txt`.

    CoOp's `parse_test_res.py` reads `log.txt` alone. Dassl would give the later log the other name, and the seed would
    be missing in the mean.

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


def main(args: argparse.Namespace) -> None:
    output = ""
    try:
        if os.environ.get("RANK", "0") != "0":  # tqdm reads it once, when it is imported
            os.environ.setdefault("TQDM_DISABLE", "1")
        cfg = setup_cfg(args, to_run=True)
        output = cfg.OUTPUT_DIR
        import torch

        from trainers.modules import ranks
        from trainers.modules.ownership import own_folder

        on_gpu = torch.cuda.is_available() and cfg.USE_CUDA
        # The folder is owned before anything is written there.
        with ranks.joined(on_gpu), _quiet_unless_first(cfg), own_folder(cfg.OUTPUT_DIR) as owned:
            try:
                run(args, cfg)
            except BaseException:
                if not args.debug:
                    owned.discard_logs()
                raise
    except KeyboardInterrupt as interrupt:
        interrupt.args = (_where_stopped(output, args.eval_only),)
        raise
    except (OSError, ValueError, FloatingPointError) as error:
        if args.debug:
            raise
        # By its path, since `import trainers` brings PyTorch. Of an error in a process that reads images, PyTorch hands
        # on the traceback, its message last.
        last_line = runpy.run_path(str(ROOT / "trainers/modules/safe_text.py"))["last_line"]
        if isinstance(error, OSError) and error.strerror and (error.filename or output):
            # Without the number. A log that cannot be written does not say where it is.
            error = OSError(f"{error.filename or output}: {error.strerror}")
        print(f"train.py: {last_line(error)}", file=sys.stderr)
        sys.exit(2)


@contextmanager
def _quiet_unless_first(cfg) -> Iterator[None]:
    """Of several processes (`modules.ranks`) the first one alone prints and writes; others have a folder to throw away.

    Args:
        cfg: is changed.
    """
    from trainers.modules import ranks

    if ranks.number() == 0:
        yield
        return
    with TemporaryDirectory() as folder, open(os.devnull, "w") as nothing, redirect_stdout(nothing):
        cfg.defrost()
        cfg.OUTPUT_DIR = os.path.join(folder, "run")
        cfg.freeze()
        yield


def run(args: argparse.Namespace, cfg) -> None:
    """Build, and then train or test."""
    from trainers.modules import ranks

    ranks.agree("the first process owns the folder")
    trainer = build(args, cfg)
    if args.eval_only:
        trainer.test()
    elif not args.no_train:
        trainer.train()


class Terminated(KeyboardInterrupt):
    """The process was told to end by SIGTERM or SIGHUP."""

    def __init__(self, number: int) -> None:
        super().__init__(number)
        self.number = number


def _terminate(number: int, frame: FrameType | None) -> None:
    raise Terminated(number)


def _where_stopped(output_dir: str, eval_only: bool) -> str:
    """What an interrupted run has left, and what its command does when it is called again."""
    kept = [] if eval_only or not output_dir else sorted(Path(output_dir).glob("*/checkpoint"))
    epoch = kept[0].read_text().strip().rpartition("-")[2] if kept else ""
    if not epoch.isdecimal():
        return "before anything was kept; the same command starts from the beginning"
    return f"after epoch {epoch}; the same command goes on"


def _tell_uncaught(kind: type[BaseException], error: BaseException, trace: TracebackType | None) -> None:
    """What Python does with an uncaught exception, but for Ctrl-C: that is one line. The exit status stays Python's.

    Python ends itself by SIGINT then, which a shell gives as 130, and which ends a script that called it, too.
    """
    if issubclass(kind, KeyboardInterrupt):
        how = "terminated" if issubclass(kind, Terminated) else "stopped"
        where = [text for text in error.args if isinstance(text, str)]
        print(f"\ntrain.py: {' '.join([how, *where])}", file=sys.stderr)  # after a line of progress
    else:
        sys.__excepthook__(kind, error, trace)


if __name__ == "__main__":
    sys.excepthook = _tell_uncaught
    for name in ("SIGTERM", "SIGHUP"):
        if signal.getsignal(getattr(signal, name)) == signal.SIG_DFL:  # not under nohup
            signal.signal(getattr(signal, name), _terminate)
    try:
        main(parse_arguments())
    except Terminated as stopped:
        _tell_uncaught(Terminated, stopped, None)
        sys.stdout.flush()
        signal.signal(stopped.number, signal.SIG_DFL)
        os.kill(os.getpid(), stopped.number)  # so that whoever waits sees what ended it
elif __name__ == "__mp_main__":  # in a process that reads images and was not forked
    import compat  # noqa: F401  an installed Dassl needs mending there, too
