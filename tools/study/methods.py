"""What the study compares: data sets, methods, the parts of CDC."""

from __future__ import annotations

from dataclasses import dataclass, field, replace

from tools.common.layout import config_folder, trains_nothing

SETS = ("shapes", "textures", "digits", "letters", "symbols", "backgrounds")
SOURCE = "shapes"
CONFOUNDED = "confounded"
MISLEADING = "confounded_colours"
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


def cdc(title: str, tag: str, config: str = "tiny", **options: object) -> Method:
    """CDC with other options than the config's."""
    settings = {key if "." in key else f"TRAINER.CDC.{key}": value for key, value in options.items()}
    return Method(title, "CDC", config, tag, settings)


def banked(method: Method) -> dict[str, object]:
    """Settings for training on features of views that are encoded once, as many as the method sees different ones."""
    if (method.trainer, method.config) not in (("CDC", "tiny_text"), ("CoOp", "tiny"), ("CoCoOp", "tiny")):
        return {}  # its prompts are in the image encoder too, or it trains nothing
    views = method.settings.get("OPTIM.MAX_EPOCH", 10) if method.trainer == "CDC" else 1  # others see plain pictures
    return {f"TRAINER.{method.trainer.upper()}.FEATURE_BANK": views}


ZERO_SHOT = Method("Zero-shot CLIP", "ZeroshotCLIP")
COOP = Method("CoOp", "CoOp")
MAPLE = Method("MaPLe", "MaPLe")
CDC = cdc("CDC", "")
TEXT_ONLY = cdc("CDC, text-only", "", "tiny_text")
INDEPENDENT = cdc("CDC, independent", "independent", PROMPT="independent", N_CTX=4)
SELF_REGULATED = cdc("CDC, self-regulated", "", "tiny_self_regulated")
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
    INDEPENDENT,
    CDC,
    SELF_REGULATED,
)
# A linear probe knows the classes that it was trained on alone
PROBE = Method("CLIP-ICM, probe", "CLIPICM", tag="probe", settings={"TRAINER.CLIPICM.PREDICTION": "probe"})

PLAIN = ["normalize"]
VIEWS_OF = (
    PLAIN,
    ["random_translation", "normalize"],
    ["gaussian_blur", "normalize"],
    ["random_resized_crop", "normalize"],
)
STRONG_VIEWS = (
    ["random_resized_crop", "normalize"],
    ["random_resized_crop", "random_translation", "normalize"],
    ["random_resized_crop", "gaussian_blur", "normalize"],
    ["random_translation", "gaussian_blur", "normalize"],
)
ONE_VIEW = {"AUGMENTATIONS": [PLAIN] * 4}
NO_LOSSES = {"BETA": 0.0, "GAMMA": 0.0}
LONE = {"N_TEMPLATES": 1, "AUGMENTATIONS": [PLAIN], "DECISION": "mean", **NO_LOSSES}
ONE = cdc("one template", "one", **LONE)
# Without losses that tie them, and with the mean of their logits, templates learn as if each were alone.
TEMPLATES = cdc("M = 4 templates", "templates", DECISION="mean", **ONE_VIEW, **NO_LOSSES)
VSD = cdc("M = 4 + VSD (own views, losses (2) and (3))", "vsd", DECISION="mean")
DSTC = cdc("M = 4 + DSTC (evidence, fusion, loss (7))", "dstc", **ONE_VIEW, **NO_LOSSES)
NO_DIVERSITY = cdc("CDC without (2)", "beta0", BETA=0.0)
NO_CONSISTENCY = cdc("CDC without (3)", "gamma0", GAMMA=0.0)
PLAIN_PICTURES = cdc("CDC on plain pictures", "oneview", **ONE_VIEW)
INVARIANT = cdc("CDC after CLIP-ICM's map (9)", "invariant", **{"TRAINER.CDC.INVARIANT_MAP.ENABLED": True})
ABLATION = (
    *(ONE, TEMPLATES, VSD, DSTC, replace(CDC, title="all: CDC")),
    *(NO_DIVERSITY, NO_CONSISTENCY, PLAIN_PICTURES, INVARIANT),
)
# What a part changes: with it, without it
PARTS = (
    ("four templates in place of one", TEMPLATES, ONE),
    ("DSTC (evidence, fusion, loss (7)) for four templates", DSTC, TEMPLATES),
    ("VSD (own views, losses (2) and (3)) for four templates", VSD, TEMPLATES),
    ("DSTC beside VSD", CDC, VSD),
    ("VSD beside DSTC", CDC, DSTC),
    ("of VSD: diversity loss (2)", CDC, NO_DIVERSITY),
    ("of VSD: consistency loss (3)", CDC, NO_CONSISTENCY),
    ("of VSD: own views", CDC, PLAIN_PICTURES),
    ("DSTC and VSD together, for four templates", CDC, TEMPLATES),
    ("all of it: CDC in place of one template", CDC, ONE),
)

# At about the cost of four templates, one that has it all: the epochs, or the context tokens
LONG_ONE = cdc("one template, four times the epochs", "one_long", **LONE)
WIDE_ONE = cdc("one template, four times the tokens", "one_wide", N_CTX=8, CTX_INIT=[EIGHT_TOKENS], **LONE)
EQUAL_COST = (ONE, LONG_ONE, WIDE_ONE, TEMPLATES, CDC)

# When losses (2) and (3) might help: each setting with them and without
DISTINCT = {"CTX_INIT": ["a photo of a", "a picture of a", "an image of a", "a snapshot of a"]}
NOISY = {"CTX_STD": 0.02}
STRONG = {"AUGMENTATIONS": list(STRONG_VIEWS)}
REGIMES = (
    ("as configured", CDC, cdc("", "noloss", **NO_LOSSES)),
    ("templates that start from other words", cdc("", "words", **DISTINCT), cdc("", "words_noloss", **DISTINCT, **NO_LOSSES)),
    ("templates that start with noise", cdc("", "noise", **NOISY), cdc("", "noise_noloss", **NOISY, **NO_LOSSES)),
    ("plain pictures", PLAIN_PICTURES, DSTC),
    ("stronger views", cdc("", "strong", **STRONG), cdc("", "strong_noloss", **STRONG, **NO_LOSSES)),
)
