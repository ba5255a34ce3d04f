"""Prompt learners: what is trained. Each turns its parameters into the `TextPrompt` of all templates and classes.

Legend: M templates, C classes, d context tokens, L suffix positions, W transformer width.
"""

from __future__ import annotations

import sys
from collections.abc import Sequence

import torch
from torch import nn

from .loading import tokenize
from .text import TextEncoder, TextPrompt, pad


class TextTemplates(nn.Module):
    """M text-only templates `[SOS][d context tokens][class name].[EOS]`, CoOp's kind M times.

    Its state dict is the context tokens `ctx` `(M, d, W)` alone, so it loads under any list of class names.

    Args:
        encoder: the text encoder that the prompts are for.
        class_names: C class names; underscores count as blanks.
        n_templates: M.
        n_ctx: d; where words are given, each wording must have exactly d tokens.
        words: wordings that the templates start from: none (random start), one for all, or M.
        std: standard deviation of the normal noise added to the words' embeddings, or of the random start.

    Raises:
        ValueError: a wrong number of wordings or tokens, templates that would start equal (and so learn the same but
            for the diversity loss), or a class name that is too long.
    """

    def __init__(
        self,
        encoder: TextEncoder,
        class_names: Sequence[str],
        n_templates: int,
        n_ctx: int,
        words: Sequence[str] = (),
        std: float = 0.02,
    ):
        super().__init__()
        check_start(words, n_templates, n_ctx, std)
        tokens = [tokenize(text)[1:-1] for text in words]
        width = encoder.positional_embedding.shape[-1]
        start = encoder.embed(torch.tensor(tokens)) if words else torch.zeros(1, n_ctx, width)  # (1 or M, d, W)
        self.ctx = nn.Parameter(start + std * torch.randn(n_templates, n_ctx, width))

        suffix, end = pad([_name_tokens(name, n_ctx, encoder.context_length) for name in class_names])
        self.register_buffer("sos", encoder.embed(torch.tensor(tokenize("")[:1])), persistent=False)  # (1, W)
        self.register_buffer("suffix", encoder.embed(suffix), persistent=False)  # (C, L, W)
        self.register_buffer("end", end, persistent=False)  # (C,)

    def forward(self) -> TextPrompt:
        start = self.sos.expand(len(self.ctx), -1, -1)
        return TextPrompt(torch.cat([start, self.ctx], dim=1), self.suffix, self.end)


def check_start(words: Sequence[str], n_templates: int, n_ctx: int, std: float) -> None:
    """Whether templates can start so; see `TextTemplates`.

    Raises:
        ValueError: they cannot.
    """
    if n_templates < 1 or n_ctx < 1 or std < 0:
        raise ValueError(
            "templates and context tokens must be at least 1 and the noise not negative, "
            f"got {n_templates}, {n_ctx} and {std}"
        )
    if not all(isinstance(text, str) for text in words):
        raise ValueError(f"wordings must be texts, got {list(words)}")
    if len(words) not in (0, 1, n_templates):
        raise ValueError(f"{n_templates} templates start from 0, 1 or {n_templates} wordings, got {len(words)}")
    for text in words:
        n_tokens = len(tokenize(text)) - 2
        if n_tokens != n_ctx:
            raise ValueError(f"a wording must have as many tokens as the context, {n_ctx}; {text!r} has {n_tokens}")
    if n_templates > 1 and std == 0 and len(set(words)) < n_templates:
        raise ValueError(f"without noise {n_templates} templates need as many different wordings, got {list(words)}")


def _name_tokens(name: str, n_ctx: int, context_length: int) -> list[int]:
    """Tokens of a class name, the full stop behind it and end-of-text."""
    tokens = tokenize(f"{name}.", sys.maxsize)[1:]
    n_tokens = 1 + n_ctx + len(tokens)
    if n_tokens > context_length:
        raise ValueError(
            f"class name too long: CLIP's text encoder takes {context_length} tokens, "
            f"the prompt of {name!r} with {n_ctx} context tokens has {n_tokens}"
        )
    return tokens
