"""TCP: Textual-based Class-aware Prompt tuning (Yao et al., CVPR 2024, arXiv 2311.18231).

KgCoOp whose context gives way, before the ninth layer of the text encoder, to tokens of each class's own. A small
network makes these of the class's embedding under the hand-written template.

In fp32, in which the published code cannot run, all numbers are that code's arithmetic in fp32. It reads its options
from `TRAINER.COOP`; here they are in `TRAINER.TCP`. Four of its constants are options: the weight of the second loss,
for which it does not look at `W`; the layer; the number of each class's tokens, here `N_CTX`; and the epsilon of Adam,
which its README asks for. In half precision the two differ as in CoOp (see there). With `PREC: amp` the published code
cannot train.
"""

from __future__ import annotations

from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .coop import CoOp
from .kgcoop import KgCoOp
from .modules.clip_types import CLIP
from .modules.loading import repeat_draws
from .modules.prompted import PromptedCLIP
from .modules.prompts import ClassAwareContext, start_context
from .modules.text import TextEncoder

cfg_default.TRAINER.TCP = CfgNode(
    {
        "N_CTX": 4,  # context tokens, unless CTX_INIT is given, and each class's tokens; 4 in the published code
        "CSC": False,  # class-specific context; there is none
        "CTX_INIT": "",  # words that the context starts from, as many tokens as words; "": random
        "W": 8.0,  # weight of the second loss
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "CLASS_TOKEN_POSITION": "end",  # of the class name; it has no other
        "LAYER": 8,  # before which layer of the text encoder, counted from 0, the classes' tokens come
        "ADAM_EPS": 1e-3,  # epsilon where OPTIM.NAME is adam
        "FEATURE_BANK": 0,  # train on the features of so many views of each image, encoded once; 0: encode every view
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
    }
)

# The published code's templates that are others than those of `modules.templates`, by data set
HAND_WRITTEN = {
    "FGVCAircraft": "a photo of an aircraft {}.",
    "DescribableTextures": "a photo of a {}, a type of texture.",
    "Food101": "a photo of a {}, a type of food.",
}
# What stands after the context, by data set; for others "{}."
PROMPTS = {
    "OxfordPets": "{}, a type of pet.",
    "OxfordFlowers": "{}, a type of flower.",
    "FGVCAircraft": "{}, a type of aircraft.",
    "DescribableTextures": "{} texture.",
    "StanfordCars": "{}, a type of car",
    "Food101": "{}, a type of food.",
    "UCF101": "person doing {}.",
}


@TRAINER_REGISTRY.register()
class TCP(KgCoOp):
    """Trainer of TCP."""

    untrained_keys = CoOp.untrained_keys
    hand_written = HAND_WRITTEN

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        if options.CSC or options.CLASS_TOKEN_POSITION != "end":
            problems.append(
                f"TCP takes CSC False and CLASS_TOKEN_POSITION end, got {options.CSC} and "
                f"{options.CLASS_TOKEN_POSITION!r}"
            )
        if options.LAYER < 1:
            problems.append(f"LAYER must be at least 1, got {options.LAYER}")
        if options.ADAM_EPS <= 0:
            problems.append(f"ADAM_EPS must be above 0, got {options.ADAM_EPS}")
        return problems

    def build_clip(self, clip_model: CLIP) -> None:
        options, encoder = self.options, TextEncoder(clip_model)
        start, words = start_context(encoder, options.N_CTX, options.CTX_INIT)
        repeat_draws(clip_model)  # so that the network starts as the published one of the same seed
        clip_model.to(self.device)
        self.anchor = self.encode_hand_written(encoder)
        text = PROMPTS.get(self.cfg.DATASET.NAME, "{}.")
        learner = ClassAwareContext(encoder, self.class_names, start, words, self.anchor, options.LAYER, text)
        self.model = PromptedCLIP(clip_model, learner, self.autocast).to(self.device)

    def build_model(self) -> None:
        super().build_model()
        if self.cfg.OPTIM.NAME == "adam":  # Dassl takes no epsilon
            for group in self.optim.param_groups:
                group["eps"] = self.options.ADAM_EPS
