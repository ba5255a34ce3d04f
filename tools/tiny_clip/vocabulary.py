"""The tokens of the tiny CLIP: those of CLIP's own that the embedded world uses."""

from __future__ import annotations

import functools
import itertools

import compat  # noqa: F401  (makes `dassl`, which the readers beside the world need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import numpy as np
import torch
from clip.simple_tokenizer import SimpleTokenizer

from datasets import world

CLIP_TOKENS = 49408  # in CLIP's own vocabulary
CONTEXT_LENGTH = 77
# Words of prompts that captions do not use, so that hand-written templates of other sets find all their words.
PROMPT_WORDS = (
    "something type of centered cropped bright dark good bad satellite itap origami sketch cartoon many low resolution "
    "X"
)


class Vocabulary:
    """CLIP's tokens that the world uses, numbered without gaps while training.

    The order of CLIP's numbers is kept, so end-of-text stays the largest, which is how CLIP finds it.
    """

    def __init__(self) -> None:
        self.tokenizer = SimpleTokenizer()
        rng = np.random.default_rng(0)
        # The wordings are few, so that a large draw of captions has all of them; names are added in full below.
        texts = [world.caption(world.sample_scene(rng, world.FONTS), rng) for _ in range(4000)]
        names = [*world.COLOURS, *world.TEXTURES, *world.BACKGROUNDS, *world.STYLES, *world.UNSEEN_STYLES, *world.SIZES]
        subjects = itertools.chain(world.SHAPES, *world.CHARACTERS.values())
        texts += [*names, *subjects, *world.CHARACTERS, PROMPT_WORDS]
        used = {0, CLIP_TOKENS - 2, CLIP_TOKENS - 1}
        for text in texts:
            used.update(self.tokenizer.encode(text))
        self.tokens = sorted(used)
        self._number = {token: k for k, token in enumerate(self.tokens)}

    def __len__(self) -> int:
        return len(self.tokens)

    @functools.lru_cache(maxsize=100_000)  # noqa: B019  (one vocabulary lives as long as the program)
    def encode(self, text: str) -> tuple[int, ...]:
        """Numbers of the text's tokens between start and end of text."""
        tokens = (CLIP_TOKENS - 2, *self.tokenizer.encode(text), CLIP_TOKENS - 1)
        return tuple(self._number[token] for token in tokens)

    def batch(self, texts: list[str]) -> torch.Tensor:
        """``(B, longest)`` numbers, padded with zeros."""
        rows = [self.encode(text) for text in texts]
        longest = max(map(len, rows))
        return torch.tensor([row + (0,) * (longest - len(row)) for row in rows])
