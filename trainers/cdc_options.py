"""The options of CDC, `cfg.TRAINER.CDC`, with their defaults, and what can be wrong with them."""

from __future__ import annotations

from dassl.config import cfg_default
from dassl.data.transforms.transforms import AVAI_CHOICES
from yacs.config import CfgNode

from .config_checks import collect_errors
from .modules.evidence import EVIDENCE_FUNCTIONS, FUSIONS, PROBABILITIES
from .modules.invariant import check_estimate
from .modules.prompts import check_coupled, check_start
from .modules.self_regulation import gaussian_weights
from .modules.templates import format_template

PROMPTS = ("coupled", "independent", "text")

# The sources settle M = 4 and that every template has its own augmentation. Templates are MaPLe's. Every other value is
# our choice.
cfg_default.TRAINER.CDC = CfgNode(
    {
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32; losses and evidence are always in fp32
        # Kind of template: coupled (MaPLe's, which we believe the paper used: tokens in layers of both encoders; needs
        # a ViT, and M image passes), independent (PromptSRC's: the same without coupling), or text (tokens of the
        # text encoder alone; one image pass in testing)
        "PROMPT": "coupled",
        "N_TEMPLATES": 4,  # M
        "N_CTX": 2,  # context tokens of each template
        # Wordings that the templates start from: none (random), one for all, or one for each; of N_CTX tokens or, but
        # for text, more, the same number in all, of which the first N_CTX learn
        "CTX_INIT": ["a photo of a"],
        "CTX_STD": 0.0,  # normal noise on that start; text templates that start equal need some
        "PROMPT_DEPTH": 9,  # but for text: in how many layers tokens are put, 1 to CLIP's number of layers
        "ANCHOR": "",  # hand-written template of eq. (3), with {} for the class name; "": the data set's own
        # Dassl transforms in training, one list per template, or empty: INPUT.TRANSFORMS for all of them
        "AUGMENTATIONS": [
            ["random_resized_crop", "random_flip", "normalize"],
            ["random_resized_crop", "random_flip", "colorjitter", "normalize"],
            ["random_resized_crop", "random_flip", "randomgrayscale", "normalize"],
            ["random_resized_crop", "random_flip", "gaussian_blur", "normalize"],
        ],
        # Encode so many views of each training image once, keep their features on disk and train on these; 0: encode
        # every view when it is due. For text templates; with at least as many views as epochs nothing is seen twice.
        "FEATURE_BANK": 0,
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
        "TEST_VIEWS": False,  # in testing too each template sees its own augmentation, else all see the plain view
        "BETA": 0.1,  # weight of the diversity loss, eq. (2)
        "GAMMA": 0.1,  # weight of the consistency loss, eq. (3)
        # Evidence of eq. (4), h(EVIDENCE_SCALE * (cos - EVIDENCE_SHIFT)): exp, softplus or relu; scale 0 is CLIP's own
        "EVIDENCE": "exp",
        "EVIDENCE_SCALE": 0.0,
        "EVIDENCE_SHIFT": 0.2,
        # How templates are fused: dempster, eq. (5), as independent witnesses, or averaging, eq. (5'')
        "FUSION": "dempster",
        # Of the classes, by the fused opinion: belief, eq. (6), or expected, eq. (6'). Neither this key nor FUSION
        # changes which class is predicted.
        "PROBABILITY": "belief",
        # trusted: eqs. (5) to (7); mean, to show what these bring: plain cross-entropy of each template, and prediction
        # by the mean of the templates' logits, which are their log-evidence where EVIDENCE is exp
        "DECISION": "trusted",
        "FUSED_LOSS": False,  # add eq. (7) on the fused opinion
        "KL_WEIGHT": 0.0,  # weight of the KL to the uniform Dirichlet (Han et al., ICLR 2021) ...
        "KL_EPOCHS": 10,  # ... which grows linearly over so many epochs
        # PromptSRC's losses and average (Khattak et al., ICCV 2023) for each template, with its published weights
        "SELF_REGULATION": {
            "ENABLED": False,
            "TEXT_LOSS_WEIGHT": 25.0,  # of the distance of text features from the frozen CLIP's
            "IMAGE_LOSS_WEIGHT": 10.0,  # of that of image features; that of the predictions has weight 1
            "GPA_MEAN": 15.0,  # of the normal distribution that weighs the epochs 1, 2, ... in the average
            "GPA_STD": 1.0,
        },
        # All cosines after the invariant map of CLIP-ICM (Song et al., ICML 2025), estimated on plain CLIP before
        # training; cosines there are others, so that EVIDENCE_SHIFT may need another value
        "INVARIANT_MAP": {
            "ENABLED": False,
            "INTERVENTIONS": 1,  # on each training image
            "K": 0,  # dimension of the invariant subspace; 0: chosen on validation images
            "LAMBDA": 0.0,  # weight of the interventions; 0: chosen as K is
        },
    }
)
for old, new in {"INVARIANT": "ENABLED", "INTERVENTIONS": "INTERVENTIONS", "K": "K", "LAMBDA": "LAMBDA"}.items():
    cfg_default.register_renamed_key(f"TRAINER.CDC.{old}", f"TRAINER.CDC.INVARIANT_MAP.{new}")


def option_problems(cfg: CfgNode, options: CfgNode) -> list[str]:
    """What is wrong with the options, or with the config beside them, an error each."""
    problems = []
    if options.PROMPT not in PROMPTS:
        problems.append(f"PROMPT must be one of {', '.join(PROMPTS)}, got {options.PROMPT!r}")
    if cfg.INPUT.NO_TRANSFORM or cfg.DATALOADER.K_TRANSFORMS != 1:
        problems.append("INPUT.NO_TRANSFORM must be False and DATALOADER.K_TRANSFORMS 1: views are AUGMENTATIONS'")
    if options.EVIDENCE not in EVIDENCE_FUNCTIONS:
        problems.append(f"EVIDENCE must be one of {', '.join(EVIDENCE_FUNCTIONS)}, got {options.EVIDENCE!r}")
    for key, known in (("FUSION", FUSIONS), ("PROBABILITY", PROBABILITIES)):
        if options[key] not in known:
            problems.append(f"{key} must be one of {', '.join(known)}, got {options[key]!r}")
    if options.DECISION not in ("trusted", "mean"):
        problems.append(f"DECISION must be trusted or mean, got {options.DECISION!r}")
    elif options.DECISION == "mean":
        if options.EVIDENCE != "exp" or options.FUSED_LOSS or options.KL_WEIGHT:
            problems.append("DECISION mean takes EVIDENCE exp, and neither FUSED_LOSS nor KL_WEIGHT")
        if (options.FUSION, options.PROBABILITY) != ("dempster", "belief"):
            problems.append(
                "DECISION mean fuses no opinions, so FUSION must be dempster and PROBABILITY belief, which are the "
                f"defaults, got {options.FUSION} and {options.PROBABILITY}"
            )
    negative = [k for k in ("EVIDENCE_SCALE", "BETA", "GAMMA", "KL_WEIGHT", "KL_EPOCHS") if options[k] < 0]
    problems += [f"{key} must not be negative, got {options[key]}" for key in negative]
    start = (options.CTX_INIT, options.N_TEMPLATES, options.N_CTX, options.CTX_STD)
    deep = options.PROMPT != "text"
    if deep and not options.CTX_INIT and not options.CTX_STD:
        problems.append("without CTX_INIT the context tokens start from noise: CTX_STD must be above 0, as 0.02 is")
    problems += collect_errors(check_start, *start, deep)
    problems += collect_errors(check_coupled, options.PROMPT_DEPTH, cfg.MODEL.BACKBONE.NAME) if deep else []
    problems += collect_errors(format_template, [], cfg.DATASET.NAME, options.ANCHOR)
    estimate = options.INVARIANT_MAP
    problems += collect_errors(check_estimate, estimate.INTERVENTIONS, estimate.K, estimate.LAMBDA)
    if options.FEATURE_BANK and deep:
        problems.append(f"FEATURE_BANK takes PROMPT text, got {options.PROMPT}")
    near = options.SELF_REGULATION
    if near.ENABLED:
        problems += collect_errors(gaussian_weights, cfg.OPTIM.MAX_EPOCH, near.GPA_MEAN, near.GPA_STD)
    negative = [key for key in ("TEXT_LOSS_WEIGHT", "IMAGE_LOSS_WEIGHT") if near[key] < 0]
    problems += [f"SELF_REGULATION.{key} must not be negative, got {near[key]}" for key in negative]
    return problems + _augmentation_problems(options, cfg.INPUT.TRANSFORMS)


def _augmentation_problems(options: CfgNode, transforms: list[str]) -> list[str]:
    """What is wrong with the templates' augmentations.

    A list that leaves out the normalisation that the test images get would ruin the features without an error.
    """
    if not options.AUGMENTATIONS:
        return []
    problems = []
    if len(options.AUGMENTATIONS) != options.N_TEMPLATES:
        problems.append(
            f"AUGMENTATIONS must hold one list for each of the {options.N_TEMPLATES} templates (N_TEMPLATES), "
            f"got {len(options.AUGMENTATIONS)}"
        )
    for m, names in enumerate(options.AUGMENTATIONS, 1):
        if not isinstance(names, (list, tuple)):
            problems.append(f"AUGMENTATIONS of template {m} must be a list of transforms, got {names!r}")
            continue
        unknown = [name for name in names if name not in AVAI_CHOICES]
        if unknown:
            problems.append(
                f"AUGMENTATIONS of template {m} has {', '.join(map(repr, unknown))} not among {', '.join(AVAI_CHOICES)}"
            )
        if ("normalize" in names) != ("normalize" in transforms):
            problems.append(f"AUGMENTATIONS of template {m} and INPUT.TRANSFORMS must both normalize or both not")
    return problems
