"""What the study compares: data sets, methods, the parts of CDC."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tools.common.layout import config_folder, trains_nothing

SETS = ("shapes", "textures", "digits", "letters", "symbols", "backgrounds")
SOURCE = "shapes"
CONFOUNDED = "confounded"
ABLATED = ("shapes", "textures", "letters")  # on which parts are left out and numbers varied
CURVE_SETS = ("shapes", "textures")  # shown over the epochs


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
    """

    title: str
    trainer: str
    config: str = "tiny"
    tag: str = ""
    settings: dict[str, object] = field(default_factory=dict, hash=False)
    epoch: int | str | None = None
    as_it_starts: bool = False

    @property
    def run_config(self) -> str:
        return config_folder(self.config, self.tag, self.epoch)

    @property
    def train(self) -> bool:
        """Whether it is trained; if not, its results do not depend on the seed."""
        return not (self.as_it_starts or trains_nothing(self.trainer))


def cdc(title: str, tag: str, **options: object) -> Method:
    """CDC with text-only templates and other options than the config's."""
    settings = {key if "." in key else f"TRAINER.CDC.{key}": value for key, value in options.items()}
    return Method(title, "CDC", "tiny_text", tag, settings)


def banked(method: Method) -> dict[str, object]:
    """Settings for training on features of views that are encoded once, as many as the method sees different ones."""
    if (method.trainer, method.config) not in (("CDC", "tiny_text"), ("CoOp", "tiny"), ("CoCoOp", "tiny")):
        return {}  # its prompts are in the image encoder too, or it trains nothing
    views = method.settings.get("OPTIM.MAX_EPOCH", 10) if method.trainer == "CDC" else 1  # others see plain pictures
    return {f"TRAINER.{method.trainer.upper()}.FEATURE_BANK": views}


ZERO_SHOT = Method("Zero-shot CLIP", "ZeroshotCLIP")
COOP = Method("CoOp", "CoOp")
CDC = Method("CDC", "CDC")
TEXT_ONLY = cdc("CDC, text-only", "")
SELF_REGULATED = Method("CDC, self-regulated", "CDC", "tiny_self_regulated")
METHODS = (
    ZERO_SHOT,
    COOP,
    Method("CoCoOp", "CoCoOp"),
    Method("MaPLe", "MaPLe"),
    Method("PromptSRC", "PromptSRC"),
    TEXT_ONLY,
    CDC,
    SELF_REGULATED,
)

# Wordings and views of up to eight templates; the first four of both are those of the config
WORDINGS: tuple[str, ...] = ("a photo of a", "a picture of a", "an image of a", "a snapshot of a")
WORDINGS += ("a drawing of a", "a painting of a", "a sketch of a", "a rendering of a")
PLAIN = ["normalize"]
VIEWS_OF = (
    PLAIN,
    ["random_translation", "normalize"],
    ["gaussian_blur", "normalize"],
    ["random_resized_crop", "normalize"],
)
ONE_VIEW = {"AUGMENTATIONS": [PLAIN] * 4}
NO_LOSSES = {"BETA": 0.0, "GAMMA": 0.0}
ONE = cdc(
    "one template",
    "one",
    N_TEMPLATES=1,
    CTX_INIT=list(WORDINGS[:1]),
    AUGMENTATIONS=[PLAIN],
    DECISION="mean",
    **NO_LOSSES,
)
TEMPLATES = cdc("M = 4 templates", "templates", DECISION="mean", **ONE_VIEW, **NO_LOSSES)
VSD = cdc("M = 4 + VSD (own views, losses (2) and (3))", "vsd", DECISION="mean")
DSTC = cdc("M = 4 + DSTC (evidence, fusion, loss (7))", "dstc", **ONE_VIEW, **NO_LOSSES)
NO_DIVERSITY = cdc("CDC without (2)", "beta0", BETA=0.0)
NO_CONSISTENCY = cdc("CDC without (3)", "gamma0", GAMMA=0.0)
PLAIN_PICTURES = cdc("CDC on plain pictures", "oneview", **ONE_VIEW)
INVARIANT = cdc("CDC after CLIP-ICM's map (9)", "invariant", **{"TRAINER.CDC.INVARIANT_MAP.ENABLED": True})
ABLATION = (
    *(ONE, TEMPLATES, VSD, DSTC, replace(TEXT_ONLY, title="all: CDC")),
    *(NO_DIVERSITY, NO_CONSISTENCY, PLAIN_PICTURES, INVARIANT),
)
# What a part changes: with it, without it
PARTS = (
    ("four templates in place of one", TEMPLATES, ONE),
    ("DSTC (evidence, fusion, loss (7)) for four templates", DSTC, TEMPLATES),
    ("VSD (own views, losses (2) and (3)) for four templates", VSD, TEMPLATES),
    ("DSTC beside VSD", TEXT_ONLY, VSD),
    ("VSD beside DSTC", TEXT_ONLY, DSTC),
    ("of VSD: diversity loss (2)", TEXT_ONLY, NO_DIVERSITY),
    ("of VSD: consistency loss (3)", TEXT_ONLY, NO_CONSISTENCY),
    ("of VSD: own views", TEXT_ONLY, PLAIN_PICTURES),
    ("DSTC and VSD together, for four templates", TEXT_ONLY, TEMPLATES),
    ("all of it: CDC in place of one template", TEXT_ONLY, ONE),
    ("CDC in place of CoOp", TEXT_ONLY, COOP),
)
NUMBERS = (1, 2, 4, 8)  # of templates


def templates(number: int) -> Method:
    """CDC with so many templates."""
    if number == 4:
        return replace(TEXT_ONLY, title="4")
    starts = {"CTX_INIT": list(WORDINGS[:number]), "AUGMENTATIONS": [VIEWS_OF[m % 4] for m in range(number)]}
    return cdc(str(number), f"m{number}", N_TEMPLATES=number, **starts)


DIVERSITY = (
    replace(NO_DIVERSITY, title="0"),
    replace(TEXT_ONLY, title="0.1 (the config's)"),
    cdc("1", "beta1", BETA=1.0),
    cdc("10", "beta10", BETA=10.0),
)
START = replace(cdc("CDC before training", "start"), as_it_starts=True)
LONG: dict[str, object] = {"OPTIM.MAX_EPOCH": 30, "TRAIN.CHECKPOINT_FREQ": 3}
CURVES = tuple(replace(method, tag="epochs30", settings=LONG) for method in (COOP, TEXT_ONLY))


def at_epoch(method: Method, epoch: int | str) -> Method:
    """A method at an epoch of its training, in the folders of tests with LOADEP."""
    return replace(method, epoch=epoch)


CURVE_EPOCHS = tuple(range(3, 31, 3))
