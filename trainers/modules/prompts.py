"""Prompt learners: what is trained. Each turns its parameters into prompts for the encoders.

Legend: M templates, B images, C classes, d context tokens, L suffix positions, W and V transformer width of the text
and of the image encoder, D embedding width.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from collections.abc import Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .invariant import InvariantMap
from .loading import tokenize
from .text import TextEncoder, TextPrompt, pad
from .vision import ImageEncoder, VisualPrompt

POSITIONS = ("end", "middle", "front")


class Learner(nn.Module):
    """What a `PromptedCLIP` trains: calling it gives the text encoder's prompts.

    Attributes:
        prompts_images: whether it has prompts of the image encoder too.
        invariant: a map that image and text features go through. Only a learner that was given one has it; it is kept
            in the learner's state dict.
    """

    prompts_images = False
    invariant: InvariantMap

    def visual(self) -> VisualPrompt | None:
        """The image encoder's prompts, of all templates; None for a learner without."""
        return None


class PromptLearner(Learner):
    """What is fixed in every learner's prompts: the embeddings of start-of-text and of the class names.

    A learner's state dict holds its parameters alone, so it loads under any list of class names.

    Args:
        encoder: the text encoder that the prompts are for.
        class_names: C class names; underscores count as blanks.
        n_ctx: d.
        words: embeddings of words `(F, W)` that stay fixed between context and class name, if any.

    Raises:
        ValueError: a class name is too long.
    """

    words: Tensor
    sos: Tensor
    suffix: Tensor

    def __init__(self, encoder: TextEncoder, class_names: Sequence[str], n_ctx: int, words: Tensor | None = None):
        super().__init__()
        if words is None:
            words = torch.zeros(0, encoder.width)
        n_before = n_ctx + len(words)
        suffix, eot_index = pad([_name_tokens(name, n_before, encoder.context_length) for name in class_names])
        self.register_buffer("words", words, persistent=False)
        self.register_buffer("sos", encoder.embed(torch.tensor(tokenize("")[:1])), persistent=False)  # (1, W)
        self.register_buffer("suffix", encoder.embed(suffix), persistent=False)  # (C, L, W)
        self.eot_index = eot_index

    def build_prefix(self, ctx: Tensor) -> Tensor:
        """The prefix `[SOS][context tokens][fixed words]` `(M, 1 + d + F, W)` of M contexts `(M, d, W)`."""
        start, words = (fixed.expand(len(ctx), -1, -1) for fixed in (self.sos, self.words))
        return torch.cat([start, ctx, words], dim=1)


class TextTemplates(PromptLearner):
    """M text-only templates `[SOS][d context tokens][class name].[EOS]`, CoOp's kind M times.

    Its state dict is the context tokens `ctx` `(M, d, W)`.

    Args:
        encoder, class_names: see `PromptLearner`.
        n_templates: M.
        n_ctx: d; where words are given, each wording must have exactly d tokens.
        ctx_init: wordings that the templates start from: none (random start), one for all, or M.
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
        ctx_init: Sequence[str] = (),
        std: float = 0.02,
    ):
        check_start(ctx_init, n_templates, n_ctx, std)
        super().__init__(encoder, class_names, n_ctx)
        tokens = [tokenize(text)[1:-1] for text in ctx_init]
        start = encoder.embed(torch.tensor(tokens)) if ctx_init else torch.zeros(1, n_ctx, encoder.width)
        self.ctx = nn.Parameter(start + std * torch.randn(n_templates, n_ctx, encoder.width))

    def forward(self) -> TextPrompt:
        return TextPrompt(self.build_prefix(self.ctx), self.suffix, self.eot_index)


class TextContext(PromptLearner):
    """One context for all classes, or one for each, with the class name at its end, in its middle or before it.

    The learner of CoOp (Zhou et al., IJCV 2022). Its state dict is the context tokens `ctx`, `(d, W)` or `(C, d, W)`.

    Args:
        encoder, class_names: see `PromptLearner`.
        n_ctx, ctx_init: see `start_context`.
        class_specific: a context for each class; only from a random start, as in the published code.
        position: where the class name stands, one of `POSITIONS`; "middle": after d // 2 context tokens.

    Raises:
        ValueError: see `check_context`; or a class name is too long.
    """

    order: Tensor

    def __init__(
        self,
        encoder: TextEncoder,
        class_names: Sequence[str],
        n_ctx: int,
        ctx_init: str = "",
        class_specific: bool = False,
        position: str = "end",
    ):
        check_context(n_ctx, ctx_init, position)
        ctx, fixed = start_context(encoder, n_ctx, ctx_init, copies=(len(class_names),) if class_specific else ())
        n_ctx = ctx.shape[-2]
        super().__init__(encoder, class_names, n_ctx, fixed)
        self.ctx = nn.Parameter(ctx)

        n_before = {"end": n_ctx, "middle": n_ctx // 2, "front": 0}[position]
        n_tokens = n_ctx + self.suffix.shape[1]
        orders = []  # of the positions in [context tokens][class name].[EOS][padding]
        for name in class_names:
            after_name = n_ctx + len(tokenize(name, sys.maxsize)) - 2
            start, name_part = range(n_before), range(n_ctx, after_name)
            orders.append([*start, *name_part, *range(n_before, n_ctx), *range(after_name, n_tokens)])
        # Context tokens before the name are the same for all classes, unless they are class-specific.
        self.n_shared = n_before if ctx.ndim == 2 else 0
        order = torch.tensor(orders)[:, self.n_shared :, None]
        self.register_buffer("order", order, persistent=False)  # (C, L', 1)
        self.eot_index = tuple(index + n_ctx - self.n_shared for index in self.eot_index)

    def forward(self) -> TextPrompt:
        tokens = torch.cat([self.ctx.expand(len(self.suffix), -1, -1), self.suffix], dim=1)
        own = torch.take_along_dim(tokens, self.order, dim=1)  # (C, L', W)
        shared = self.ctx[: self.n_shared] if self.n_shared else self.sos[:0]
        return TextPrompt(self.build_prefix(shared[None]), own, self.eot_index)


class ConditionalContext(PromptLearner):
    """A context that every image shifts: its embedding, through a small network, adds one vector to all context tokens.

    The learner of CoCoOp (Zhou et al., CVPR 2022). Its state dict is the context tokens `ctx` `(d, W)` and the weights
    and biases of `meta_net.linear1` (D to D // 16) and `meta_net.linear2` (D // 16 to W).

    Args:
        encoder, class_names: see `PromptLearner`.
        n_ctx, ctx_init: see `start_context`.

    Raises:
        ValueError: see `check_context`; or a class name is too long.
    """

    def __init__(self, encoder: TextEncoder, class_names: Sequence[str], n_ctx: int, ctx_init: str = ""):
        ctx, fixed = start_context(encoder, n_ctx, ctx_init)
        super().__init__(encoder, class_names, len(ctx), fixed)
        self.ctx = nn.Parameter(ctx)
        n_in, n_out = encoder.text_projection.shape[1], ctx.shape[1]
        hidden = n_in // 16
        layers = {"linear1": nn.Linear(n_in, hidden), "relu": nn.ReLU(), "linear2": nn.Linear(hidden, n_out)}
        self.meta_net = nn.Sequential(OrderedDict(layers))

    def forward(self, image_features: Tensor) -> TextPrompt:
        """The prompts of image embeddings `(B, D)`, each image as a template of its own."""
        shift = self.meta_net(image_features)[:, None]  # (B, 1, W)
        return TextPrompt(self.build_prefix(self.ctx + shift), self.suffix, self.eot_index)


def start_context(
    encoder: TextEncoder, n_ctx: int, ctx_init: str = "", copies: Sequence[int] = ()
) -> tuple[Tensor, Tensor]:
    """Where CoOp's and CoCoOp's context tokens start: at the embeddings of words, or at small random numbers.

    As in their published code there are as many context tokens as words; tokens beyond that number, where a word has
    several, stay fixed between context and class name.

    Args:
        encoder: the text encoder that they are for.
        n_ctx: d, unless `ctx_init` is given.
        ctx_init: words with blanks or underscores between them; "": random start.
        copies: sizes that stand before `(d, W)` in a random start.

    Returns:
        The context `(..., d, W)` and the words that stay fixed `(F, W)`.

    Raises:
        ValueError: see `check_context`.
    """
    check_context(n_ctx, ctx_init)
    if ctx_init:
        embedded = encoder.embed(torch.tensor(tokenize(ctx_init)[1:-1]))
        n_ctx = _count_words(ctx_init)
        return embedded[:n_ctx].clone(), embedded[n_ctx:]
    start = nn.init.normal_(torch.empty(*copies, n_ctx, encoder.width), std=0.02)
    return start, torch.zeros(0, encoder.width)


def check_context(n_ctx: int, ctx_init: str, position: str = "end") -> None:
    """Whether a context can be so; see `start_context` and `TextContext`.

    Raises:
        ValueError: no context tokens; an unknown position; words with other than one blank between them; or words of
            several tokens where the class name is not at the end (the published code then takes some for the name).
    """
    if position not in POSITIONS:
        raise ValueError(f"the class name must stand at one of {', '.join(POSITIONS)}, got {position!r}")
    if not ctx_init and n_ctx < 1:
        raise ValueError(f"there must be at least 1 context token, got {n_ctx}")
    n_tokens, n_words = len(tokenize(ctx_init)) - 2, _count_words(ctx_init)
    if ctx_init and n_tokens < n_words:
        raise ValueError(f"the context's words must have one blank between them, got {ctx_init!r}")
    if ctx_init and n_tokens > n_words and position != "end":
        raise ValueError(
            f"with the class name at the {position}, each of the context's words must be one token of CLIP; "
            f"{ctx_init!r} has {n_words} words and {n_tokens} tokens"
        )


def _count_words(text: str) -> int:
    return len(text.replace("_", " ").split(" "))


class CoupledPrompt(PromptLearner):
    """One template of coupled deep prompts, MaPLe's (Khattak et al., CVPR 2023).

    Context tokens stand after [SOS] and are exchanged before each of the next layers of the text encoder; linear maps
    of these tokens stand after the patches in the same layers of the image encoder. Names, shapes and the order of
    random draws are the published code's, so that its checkpoints fit and a seed gives the same start; the widths,
    which stand in its code as 512 and 768, come from the encoders.

    Args:
        text_encoder, image_encoder: what the prompts are for.
        class_names: see `PromptLearner`.
        n_ctx: d.
        depth: in how many layers tokens are put, counted from the first: 1 to the encoders' number of layers.
        ctx_init: wording of at least d tokens that the template starts from. The first d tokens learn, any others stay
            fixed before the class name. "": random start.
        std: standard deviation of the normal noise added to the words' embeddings, or of the random start.

    Raises:
        ValueError: the image encoder is not a vision transformer, `depth` is more than its or the text encoder's
            number of layers, the wording is too short, or a class name is too long.
    """

    prompts_images = True

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        class_names: Sequence[str],
        n_ctx: int,
        depth: int,
        ctx_init: str = "",
        std: float = 0.02,
    ):
        check_start([ctx_init] if ctx_init else [], 1, n_ctx, std, coupled=True)
        n_layers = min(len(image_encoder.blocks), len(text_encoder.blocks))
        if not 1 <= depth <= n_layers:
            raise ValueError(
                f"prompt depth must be from 1 to {n_layers}, the layers that both encoders of this CLIP have, "
                f"got {depth}"
            )
        tokens = tokenize(ctx_init)[1:-1]
        embedded = text_encoder.embed(torch.tensor(tokens, dtype=torch.long))
        super().__init__(text_encoder, class_names, n_ctx, words=embedded[n_ctx:])
        width = text_encoder.width
        start = embedded[:n_ctx] if ctx_init else torch.zeros(n_ctx, width)
        if std:
            start = start + std * torch.randn(n_ctx, width)
        self.proj = nn.Linear(width, image_encoder.width)
        self.ctx = nn.Parameter(start)
        self.compound_prompts_text = nn.ParameterList(0.02 * torch.randn(n_ctx, width) for _ in range(depth - 1))
        projection = nn.Linear(width, image_encoder.width)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(projection) for _ in range(depth - 1))

    def forward(self) -> TextPrompt:
        deep = [tokens[None] for tokens in self.compound_prompts_text]
        return TextPrompt(self.build_prefix(self.ctx[None]), self.suffix, self.eot_index, deep)

    def visual(self) -> VisualPrompt:
        deep = zip(self.compound_prompt_projections, self.compound_prompts_text)
        return VisualPrompt(self.proj(self.ctx)[None], [project(tokens)[None] for project, tokens in deep])


def check_coupled(depth: int, backbone: str) -> None:
    """What can be said against coupled prompts before CLIP is loaded.

    Raises:
        ValueError: no layer to put tokens in, or one of CLIP's ResNets by its name.
    """
    if depth < 1:
        raise ValueError(f"prompt depth must be at least 1, got {depth}")
    if backbone.replace("open_clip:", "").startswith("RN"):
        raise ValueError(f"prompting the image encoder needs a ViT, got the backbone {backbone}")


class CoupledTemplates(Learner):
    """M templates of coupled deep prompts, each a `CoupledPrompt` with random draws of its own.

    Args:
        text_encoder, image_encoder, class_names, n_ctx, depth, std: see `CoupledPrompt`.
        n_templates: M.
        ctx_init: wordings that the templates start from, all of one length: none (random start), one for all, or M.

    Raises:
        ValueError: a wrong number of wordings, wordings of unequal length, or as `CoupledPrompt`.
    """

    prompts_images = True

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        class_names: Sequence[str],
        n_templates: int,
        n_ctx: int,
        depth: int,
        ctx_init: Sequence[str] = (),
        std: float = 0.02,
    ):
        super().__init__()
        check_start(ctx_init, n_templates, n_ctx, std, coupled=True)
        starts = ctx_init if len(ctx_init) == n_templates else [ctx_init[0] if ctx_init else ""] * n_templates
        self.templates = nn.ModuleList(
            CoupledPrompt(text_encoder, image_encoder, class_names, n_ctx, depth, start, std) for start in starts
        )

    def forward(self) -> TextPrompt:
        prefixes, suffixes, ends, deep = zip(*(template() for template in self.templates))
        # Class names are the same under all templates.
        return TextPrompt(torch.cat(prefixes), suffixes[0], ends[0], [torch.cat(layer) for layer in zip(*deep)])

    def visual(self) -> VisualPrompt:
        templates = cast("Iterable[CoupledPrompt]", self.templates)
        shallow, deep = zip(*(template.visual() for template in templates))
        return VisualPrompt(torch.cat(shallow), [torch.cat(layer) for layer in zip(*deep)])


def check_start(ctx_init: Sequence[str], n_templates: int, n_ctx: int, std: float, coupled: bool = False) -> None:
    """Whether templates can start so; see `TextTemplates` and, if `coupled`, `CoupledTemplates`.

    Raises:
        ValueError: they cannot.
    """
    if n_templates < 1 or n_ctx < 1 or std < 0:
        raise ValueError(
            "templates and context tokens must be at least 1 and the noise not negative, "
            f"got {n_templates}, {n_ctx} and {std}"
        )
    if not all(isinstance(text, str) for text in ctx_init):
        raise ValueError(f"wordings must be texts, got {list(ctx_init)}")
    if len(ctx_init) not in (0, 1, n_templates):
        raise ValueError(f"{n_templates} templates start from 0, 1 or {n_templates} wordings, got {len(ctx_init)}")
    lengths = {text: len(tokenize(text)) - 2 for text in ctx_init}
    for text, n_tokens in lengths.items():
        if n_tokens < n_ctx or (n_tokens > n_ctx and not coupled):
            least = "at least " if coupled else ""
            raise ValueError(
                f"a wording must have {least}as many tokens as the context, {n_ctx}; {text!r} has {n_tokens}"
            )
    if len(set(lengths.values())) > 1:
        raise ValueError(f"wordings must have the same number of tokens, got {lengths}")
    # Coupled templates are told apart by their random deep prompts and projections.
    if not coupled and n_templates > 1 and std == 0 and len(set(ctx_init)) < n_templates:
        raise ValueError(f"without noise {n_templates} templates need as many different wordings, got {list(ctx_init)}")


def _name_tokens(name: str, n_ctx: int, context_length: int) -> list[int]:
    """Tokens of a class name, the full stop after it and end-of-text."""
    tokens = tokenize(f"{name}.", sys.maxsize)[1:]
    n_tokens = 1 + n_ctx + len(tokens)
    if n_tokens > context_length:
        raise ValueError(
            f"class name too long: CLIP's text encoder takes {context_length} tokens, "
            f"the prompt of {name!r} with {n_ctx} context tokens has {n_tokens}"
        )
    return tokens
