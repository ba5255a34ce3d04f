"""CoOp: Context Optimization (Zhou et al., IJCV 2022, arXiv 2109.01134).

The context around the class names is learnt, one for all classes or one for each, by cross-entropy over a frozen CLIP.

In fp32 all numbers are those of the published code. With `PREC: fp16` that code keeps and updates the context itself in
half precision, where a step of the learning rate is often rounded away and an overflow stays for good; here the context
and its updates, the softmax and the loss are in float32 whatever the encoders compute in.
"""

from __future__ import annotations

from dassl.config import cfg_default
from dassl.engine import TRAINER_REGISTRY
from yacs.config import CfgNode

from .config_checks import collect_errors
from .modules.clip_types import CLIP
from .modules.prompted import PromptedCLIP
from .modules.prompts import TextContext, check_context
from .modules.text import TextEncoder
from .prompt_trainer import LogitTrainer

cfg_default.TRAINER.COOP = CfgNode(
    {
        "N_CTX": 16,  # context tokens, unless CTX_INIT is given
        "CSC": False,  # class-specific context; with CTX_INIT it is one for all classes all the same
        "CTX_INIT": "",  # words that the context starts from, as many tokens as words; "": random
        "PREC": "fp16",  # of the encoders: fp16, bf16, amp or fp32
        "CLASS_TOKEN_POSITION": "end",  # of the class name: end, middle or front
        "FEATURE_BANK": 0,  # train on the features of so many views of each image, encoded once; 0: encode every view
        "FEATURE_BANK_DIR": "",  # shared by runs; "": feature_bank in DATASET.ROOT
    }
)


@TRAINER_REGISTRY.register()
class CoOp(LogitTrainer):
    """Trainer of CoOp."""

    untrained_keys: tuple[str, ...] = ("token_prefix", "token_suffix")

    def config_problems(self, cfg, options) -> list[str]:
        problems = super().config_problems(cfg, options)
        return problems + collect_errors(check_context, options.N_CTX, options.CTX_INIT, options.CLASS_TOKEN_POSITION)

    def build_clip(self, clip_model: CLIP) -> None:
        options = self.options
        learner = TextContext(
            TextEncoder(clip_model),
            self.class_names,
            options.N_CTX,
            options.CTX_INIT,
            options.CSC,
            options.CLASS_TOKEN_POSITION,
        )
        self.model = PromptedCLIP(clip_model, learner, self.autocast).to(self.device)

    def checkpoint_problems(self, checkpoint: dict) -> list[str]:
        """As in the base class; and a class-specific context can be used for its own classes only.

        Published checkpoints do not say which classes these are.
        """
        problems = super().checkpoint_problems(checkpoint)
        names = checkpoint.get("class_names", self.class_names)
        if self.learner.get_parameter("ctx").ndim == 3 and names != self.class_names:
            problems.append(f"has a context for each of {', '.join(names)}, not for {', '.join(self.class_names)}")
        return problems
