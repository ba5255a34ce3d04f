"""Train and test one trainer on one data set, with CoOp's command line.

    python train.py --root data --trainer CDC --dataset-config-file configs/datasets/digits.yaml \\
        --config-file configs/trainers/CDC/tiny.yaml --output-dir output/digits --seed 1 [KEY VALUE ...]

Wrong input (config, data, weights, checkpoint) and a training that diverges end the program with one line and exit
status 2, and leave no output folder unless epochs have finished; `--debug` shows the traceback instead. So does an
output folder that another process runs in (`storage.ownership`); nothing is changed there.

PyTorch, Dassl, the data sets and the trainers are imported after the arguments are read: `--help` and the message
about a wrong argument come at once.
"""

from __future__ import annotations

import argparse
import os
import signal
import sys
from collections.abc import Iterator
from contextlib import contextmanager, redirect_stdout
from pathlib import Path
from tempfile import TemporaryDirectory
from types import FrameType, TracebackType

from settings.log import print_settings, set_log_aside
from settings.reading import setup_cfg
from storage.ownership import own_folder
from storage.safe_text import escaped, last_line


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
        print(f"Settings and environment are in {escaped(log)}")
    trainer = build_trainer(cfg)
    if ranks.size() > 1 and not isinstance(trainer, ClipTrainer):
        raise ValueError(f"{cfg.TRAINER.NAME} takes one process, and torchrun has started {ranks.size()}")
    if cfg.REPORT_TO and not isinstance(trainer, ClipTrainer):
        raise ValueError(f"{cfg.TRAINER.NAME} writes for TensorBoard alone, but --report-to is {cfg.REPORT_TO}")
    if args.eval_only:
        trainer.load_model(args.model_dir, epoch=args.load_epoch)
    return trainer


def main(args: argparse.Namespace) -> None:
    output = ""
    try:
        if os.environ.get("RANK", "0") != "0":  # tqdm reads it once, when it is imported
            os.environ.setdefault("TQDM_DISABLE", "1")
        cfg = setup_cfg(args, to_run=True)
        output = cfg.OUTPUT_DIR
        import torch

        from trainers.modules import ranks

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
        # Of an error in a process that reads images, PyTorch hands on the traceback, its message last.
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
    """SIGTERM or SIGHUP asked the process to end."""

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
    finally:
        # All is done. While Python ends, an exception by a signal would be a traceback.
        for name in ("SIGINT", "SIGTERM", "SIGHUP"):
            if callable(signal.getsignal(getattr(signal, name))):
                signal.signal(getattr(signal, name), signal.SIG_DFL)
elif __name__ == "__mp_main__":  # in a process that reads images and was not forked
    import compat  # noqa: F401  an installed Dassl needs mending there, too
