"""What the study compares: data sets, methods, the parts of CDC.

Settings are those of configs/trainers/<trainer>/tiny*.yaml, and what is varied here is varied on these.
"""

from __future__ import annotations

import functools
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

import compat  # noqa: F401  makes `import dassl` work; stands before it

from dassl.config import get_cfg_default

import trainers  # noqa: F401  registers the trainers' options
from tools.common.layout import config_folder, trains_nothing
from tools.common.paths import ROOT

SETS = ("shapes", "textures", "digits", "letters", "symbols", "backgrounds")
SOURCE = "shapes"
CONFOUNDED = ("confounded_colours",)  # whose background misleads CLIP itself
HARDER = ("reliefs", "turned")
ABLATED = ("shapes", "textures", "letters")  # on which parts are left out and numbers varied
CURVE_SETS = ("textures", *HARDER)  # shown over the epochs
FAR_SETS = ("digits", "symbols", "textures")  # of other images on open sets, as open_set_test.sh takes by default


@dataclass(frozen=True)
class Method:
    """A trainer with its settings.

    Attributes:
        title: in tables.
        trainer, config: as for the scripts.
        tag: what is put after the config in the name of the run's folder, as the scripts do with TAG.
        settings: config keys and values besides.
        epoch: that is tested, with its folder named after it; None for the one that the training tests.
        as_it_starts: whether it is tested before any training.
        own_classes: whether it knows the classes of its training alone.
    """

    title: str
    trainer: str
    config: str = "tiny"
    tag: str = ""
    settings: dict[str, object] = field(default_factory=dict, hash=False)
    epoch: int | str | None = None
    as_it_starts: bool = False
    own_classes: bool = False

    @property
    def run_config(self) -> str:
        return config_folder(self.config, self.tag, self.epoch)

    @property
    def train(self) -> bool:
        """Whether it is trained."""
        return not (self.as_it_starts or trains_nothing(self.trainer))

    @property
    def seeded(self) -> bool:
        """Whether its results depend on the seed."""
        return not trains_nothing(self.trainer)


@functools.cache
def settings_of(trainer: str, config: str) -> Mapping[str, Any]:
    """All settings of a trainer's config by their whole names; the defaults where there is no such file."""
    cfg = get_cfg_default()
    path = ROOT / f"configs/trainers/{trainer}/{config}.yaml"
    if path.is_file():  # a run of a config that is missing says so itself
        cfg.merge_from_file(str(path))
    found: dict[str, Any] = {}
    waiting = [("", cfg)]
    for prefix, node in waiting:
        for key, value in node.items():
            if isinstance(value, dict):
                waiting.append((f"{prefix}{key}.", value))
            else:
                found[f"{prefix}{key}"] = value
    return found


def banked(method: Method) -> dict[str, object]:
    """Settings for training on features of views that are encoded once, as many as the method sees different ones.

    None where the method has no bank of features, as its prompts are in the image encoder too or nothing is trained,
    and where its config or its settings say of how many views theirs is.
    """
    options = {**settings_of(method.trainer, method.config), **method.settings}
    own = f"TRAINER.{method.trainer.upper()}."
    if options.get(f"{own}FEATURE_BANK", 1) or options.get(f"{own}PROMPT", "text") != "text":
        return {}
    views = options.get(f"{own}AUGMENTATIONS") or [options["INPUT.TRANSFORMS"]]
    random = any(name != "normalize" for names in views for name in names)
    return {f"{own}FEATURE_BANK": options["OPTIM.MAX_EPOCH"] if random else 1}


# --------------------------------------------------------------------------------------------- what is varied in CDC
CONFIGURED = settings_of("CDC", "tiny")
VIEWS = CONFIGURED["TRAINER.CDC.AUGMENTATIONS"]
NUMBERS = (1, 2, 4, 8)  # of templates
LONG = 60  # epochs of the curves, three times those of CDC's and MaPLe's configs
CURVE_EPOCHS = (2, 6, 10, 14, 20, 30, 40, 50, LONG)
LONGER = f"epochs{LONG}"
# A start of one token a word, of which the last ones are taken
WORDS = "this is a very good and clear and sharp photo or picture or image of a"


def _number(templates: int) -> dict[str, object]:
    """So many templates, with the config's views in turn."""
    views = [VIEWS[m % len(VIEWS)] for m in range(templates)] if VIEWS else []
    return {"N_TEMPLATES": templates, "AUGMENTATIONS": views}


# Changes of CDC's settings, in the order in which their names stand in a folder's
PIECES: dict[str, dict[str, Any]] = {
    **{f"m{number}": _number(number) for number in NUMBERS},
    "plain": {"AUGMENTATIONS": []},  # INPUT.TRANSFORMS for all
    "mild": {
        "AUGMENTATIONS": [
            ["normalize"],
            ["random_translation", "normalize"],
            ["gaussian_blur", "normalize"],
            ["random_resized_crop", "normalize"],
        ]
    },
    "strong": {
        "AUGMENTATIONS": [
            ["random_resized_crop", "normalize"],
            ["random_resized_crop", "random_translation", "normalize"],
            ["random_resized_crop", "gaussian_blur", "normalize"],
            ["random_translation", "gaussian_blur", "normalize"],
        ]
    },
    "recoloured": {  # interventions on the colour, which is what misleads
        "AUGMENTATIONS": [
            ["normalize"],
            ["colorjitter", "normalize"],
            ["randomgrayscale", "normalize"],
            ["colorjitter", "randomgrayscale", "normalize"],
        ]
    },
    # Plain cross-entropy of CLIP's softmax for each template, and the mean of their logits
    "mean": {
        **{"DECISION": "mean", "EVIDENCE": "exp", "EVIDENCE_SCALE": 0.0, "FUSED_LOSS": False, "KL_WEIGHT": 0.0},
        **{"FUSION": "dempster", "PROBABILITY": "belief"},
    },
    "beta0": {"BETA": 0.0},
    "beta1": {"BETA": 1.0},
    "beta10": {"BETA": 10.0},
    "gamma0": {"GAMMA": 0.0},
    "invariant": {"INVARIANT_MAP.ENABLED": True},
    # Different to the last word: the tokens that learn are exchanged in the next layer, and the words after them stay
    "words": {"CTX_INIT": ["a photo of a", "there is one small", "my drawing shows the", "this looks like some"]},
    "noise": {"CTX_STD": 0.02},
    "wide": {
        "N_CTX": 4 * CONFIGURED["TRAINER.CDC.N_CTX"],
        "CTX_INIT": [" ".join(WORDS.split()[-4 * CONFIGURED["TRAINER.CDC.N_CTX"] :])],
    },
    "long": {"OPTIM.MAX_EPOCH": 4 * CONFIGURED["OPTIM.MAX_EPOCH"]},
    LONGER: {"OPTIM.MAX_EPOCH": LONG, "TRAIN.CHECKPOINT_FREQ": 2},
}


def cdc(title: str, *pieces: str) -> Method:
    """CDC with pieces of its config replaced. One that the config has already is not part of the folder's name.

    Raises:
        ValueError: there is no such piece.
    """
    if set(pieces) - PIECES.keys():
        raise ValueError(f"CDC's pieces are {', '.join(PIECES)}, got {', '.join(pieces)}")
    settings: dict[str, object] = {}
    names = []
    for name in PIECES:
        own = {k if k.startswith(("OPTIM", "TRAIN")) else f"TRAINER.CDC.{k}": v for k, v in PIECES[name].items()}
        if name in pieces and any({**CONFIGURED, **settings}[key] != value for key, value in own.items()):
            settings.update(own)
            names.append(name)
    return Method(title, "CDC", tag="-".join(names), settings=settings)


def at_start(*pieces: str) -> Method:
    """CDC before training, with those of the pieces that change how templates start."""
    own = cdc("CDC before training", *(name for name in pieces if name in ("words", "noise")))
    return replace(own, tag="-".join(filter(None, [own.tag, "start"])), as_it_starts=True)


NO_LOSSES = ("beta0", "gamma0")

# ------------------------------------------------------------------------------------------------------ all systems
ZERO_SHOT = Method("Zero-shot CLIP", "ZeroshotCLIP")
COOP = Method("CoOp", "CoOp")
MAPLE = Method("MaPLe", "MaPLe")
CDC = cdc("CDC")
TEXT_ONLY = Method("CDC, text-only", "CDC", "tiny_text")
SELF_REGULATED = Method("CDC, self-regulated", "CDC", "tiny_self_regulated")
METHODS = (
    ZERO_SHOT,
    Method("Zero-shot ensemble", "ZeroshotCLIP2"),
    Method("CLIP-ICM", "CLIPICM"),
    COOP,
    Method("CoCoOp", "CoCoOp"),
    Method("KgCoOp", "KgCoOp"),
    Method("TCP", "TCP"),
    MAPLE,
    Method("PromptSRC", "PromptSRC"),
    Method("MMRL", "MMRL"),
    TEXT_ONLY,
    Method("CDC, independent", "CDC", "tiny_independent"),
    SELF_REGULATED,
    CDC,
)
# CDC's models, tested with the options that docs/uncertainty_study.md recommends; they have no part in its training
AVERAGED = Method(
    "CDC, averaged",
    "CDC",
    tag="averaged",
    settings={"TRAINER.CDC.FUSION": "averaging", "TRAINER.CDC.PROBABILITY": "expected"},
)
# A linear probe is no method for new classes or other data sets
PROBE = Method(
    "CLIP-ICM, probe", "CLIPICM", tag="probe", settings={"TRAINER.CLIPICM.PREDICTION": "probe"}, own_classes=True
)
START = at_start()

# --------------------------------------------------------------------------------------------------- the parts of CDC
ONE = cdc("one template", "m1", "plain", "mean", *NO_LOSSES)
TEMPLATES = cdc("M = 4 templates", "plain", "mean", *NO_LOSSES)
VSD = cdc("M = 4 + VSD (own views, losses (2) and (3))", "mean")
DSTC = cdc("M = 4 + DSTC (evidence, fusion, loss (7))", "plain", *NO_LOSSES)
NO_DIVERSITY = cdc("CDC without (2)", "beta0")
NO_CONSISTENCY = cdc("CDC without (3)", "gamma0")
NEITHER = cdc("CDC without (2) and (3)", *NO_LOSSES)
PLAIN = cdc("CDC on plain pictures", "plain")
MILD = cdc("CDC on mild views", "mild")
INVARIANT = cdc("CDC after CLIP-ICM's map (9)", "invariant")
RECOLOURED = cdc("CDC on recoloured views", "recoloured")
ABLATION = (
    *(ONE, TEMPLATES, VSD, DSTC, replace(CDC, title="all: CDC")),
    *(NO_DIVERSITY, NO_CONSISTENCY, NEITHER),
    *(method for method in (PLAIN, MILD) if method.settings),  # the config's own views are those of CDC
    INVARIANT,
)
# What a part changes: with it, without it
PARTS = (
    ("four templates in place of one", TEMPLATES, ONE),
    ("four templates in place of MaPLe's one, which has settings of its own", TEMPLATES, MAPLE),
    ("DSTC (evidence, fusion, loss (7)) for four templates", DSTC, TEMPLATES),
    ("VSD (own views, losses (2) and (3)) for four templates", VSD, TEMPLATES),
    ("DSTC beside VSD", CDC, VSD),
    ("VSD beside DSTC", CDC, DSTC),
    ("of VSD: diversity loss (2)", CDC, NO_DIVERSITY),
    ("of VSD: consistency loss (3)", CDC, NO_CONSISTENCY),
    ("of VSD: both losses", CDC, NEITHER),
    ("of VSD: mild views in place of plain pictures", MILD, PLAIN),
    ("DSTC and VSD together, for four templates", CDC, TEMPLATES),
    ("all of it: CDC in place of one template", CDC, ONE),
    ("besides: CLIP-ICM's map (9)", INVARIANT, CDC),
)
# Those that more seeds are run for. One template's training fails at times at CDC's settings, with any number of them
PARTS_WITHOUT_ONE = tuple(part for part in PARTS if ONE not in part)


def templates(number: int) -> Method:
    """CDC with so many templates."""
    return cdc(str(number), f"m{number}")


CONFIGURED_DIVERSITY = replace(CDC, title=f"{CONFIGURED['TRAINER.CDC.BETA']:g} (the config's)")
DIVERSITY = (
    replace(NO_DIVERSITY, title="0"),
    CONFIGURED_DIVERSITY,
    cdc("1", "beta1"),
    cdc("10", "beta10"),
)

# -------------------------------------------------------------------------------------------------------- equal cost
# Only loss (2) ties templates while they train: without it, they are what templates that train alone become, over the
# same batches. So those without losses are an ensemble of four separately trained ones.
LONG_ONE = cdc("one template, four times the epochs", "m1", "plain", "mean", *NO_LOSSES, "long")
WIDE_ONE = cdc("one template, four times the tokens", "m1", "plain", "mean", *NO_LOSSES, "wide")
# ONE has CDC's learning rate; MaPLe is one template with a learning rate, epochs and a depth that were chosen for it
LONG_MAPLE = Method(
    "MaPLe, four times the epochs",
    "MaPLe",
    tag="long",
    settings={"OPTIM.MAX_EPOCH": 4 * settings_of("MaPLe", "tiny")["OPTIM.MAX_EPOCH"]},
)
ENSEMBLE = replace(TEMPLATES, title="four templates trained alone (mean of logits)")
FUSED = replace(NO_DIVERSITY, title="four templates trained alone (CDC without (2))")
SINGLE = (LONG_ONE, WIDE_ONE, MAPLE, LONG_MAPLE)
EQUAL_COST = (ONE, *SINGLE, ENSEMBLE, FUSED, CDC)
COST_PAIRS = tuple(
    (f"{one.title} in place of {other.title}", one, other)
    for one, other in (
        *((ENSEMBLE, other) for other in (ONE, *SINGLE)),
        *((CDC, other) for other in (*SINGLE, ENSEMBLE, FUSED)),
    )
)

# ------------------------------------------------------------------------------------- when losses (2) and (3) help
# Pieces of a regime, and its data sets where they are not those of the ablation
REGIMES: tuple[tuple[str, tuple[str, ...], tuple[str, ...]], ...] = (
    ("as configured", (), ()),
    ("templates that start from other words", ("words",), ()),
    ("templates that start with noise", ("noise",), ()),
    *(
        (title, (piece,), ())
        for title, piece in (("plain pictures", "plain"), ("mild views", "mild"), ("stronger views", "strong"))
        if cdc("", piece).settings  # else it is as configured
    ),
    (f"{LONG} epochs", (LONGER,), CURVE_SETS),
    ("harder sets: pictures as pre-training never showed them", (), HARDER),
    ("a confounder: the background follows the class", (), CONFOUNDED),
)


def regime(pieces: tuple[str, ...]) -> tuple[Method, Method]:
    """CDC in a regime with losses (2) and (3), and without."""
    return cdc("with", *pieces), cdc("without", *pieces, *NO_LOSSES)


# ------------------------------------------------------------------------------------------------------- over epochs
CURVES = (
    *(
        replace(method, tag=LONGER, settings={"OPTIM.MAX_EPOCH": LONG, "TRAIN.CHECKPOINT_FREQ": 2})
        for method in (COOP, MAPLE)
    ),
    cdc("CDC", LONGER),
    cdc("CDC without (2) and (3)", LONGER, *NO_LOSSES),
)


def at_epoch(method: Method, epoch: int | str | None) -> Method:
    """A method at an epoch of its training, in the folders of tests with LOADEP; None for what training leaves."""
    return replace(method, epoch=epoch)
