"""The config of a run: Dassl's defaults, and over them what files and the command line say."""

from __future__ import annotations

import argparse
import functools
import sys
from pathlib import Path

import yaml

from .checks import check_given, check_owner, note_other_owners
from .declared import declared_defaults
from .merging import merge_pairs, merge_tree
from .paths import find_paths

CONFIG_SUFFIXES = (".yaml", ".yml", "")


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


def _renamed_file(path: str) -> str:
    """The path of a config file, or of the one that has taken its place."""
    old = Path(path)
    if old.name not in ("vit_b16_coupled.yaml", "tiny_coupled.yaml") or old.parent.name != "CDC" or old.exists():
        return path
    now = path.replace("_coupled.yaml", ".yaml")
    print(f"{path} is now {now}: coupled templates are the default")
    return now


def _renamed(cfg) -> dict[str, str]:
    """Today's config keys by their old names, as the trainers have registered them with yacs."""
    return cfg.__dict__[cfg.RENAMED_KEYS]


def rename_keys(cfg, given) -> None:
    """Rename the old keys of a config to today's names.

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
    """Merge nested settings, whose keys may have old names; errors as of `merging.merge_tree`."""
    rename_keys(cfg, given)
    merge_tree(cfg, given)


def merge_options(cfg, opts) -> None:
    """Merge KEY VALUE pairs, whose keys may have old names; errors as of `merging.merge_tree`."""
    merge_pairs(cfg, [_renamed(cfg).get(text, text) if not n % 2 else text for n, text in enumerate(opts)])


def merge_checked(source: str, merge, *content) -> None:
    """Merge into a config; wrong content, for which yacs has errors of many kinds, is one error.

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
