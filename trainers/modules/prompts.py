"""Prompt learners: what is trained. Each turns its parameters into prompts for the encoders.

Legend: M templates, B images, C classes, d context tokens, L suffix positions, W and V transformer width of the text
and of the image encoder, D embedding width.
"""

from __future__ import annotations

import copy
import sys
from collections import OrderedDict
from collections.abc import Callable, Iterable, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from .invariant import InvariantMap
from .loading import tokenize
from .text import ClassTokens, TextEncoder, TextPrompt, pad
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
        text: what stands after them, with `{}` for the class name.

    Raises:
        ValueError: a class name is too long.
    """

    words: Tensor
    sos: Tensor
    suffix: Tensor

    def __init__(
        self,
        encoder: TextEncoder,
        class_names: Sequence[str],
        n_ctx: int,
        words: Tensor | None = None,
        text: str = "{}.",
    ):
        super().__init__()
        if words is None:
            words = torch.zeros(0, encoder.width)
        n_before = n_ctx + len(words)
        suffix, eot_index = pad([_name_tokens(name, n_before, encoder.context_length, text) for name in class_names])
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


class ClassAwareContext(PromptLearner):
    """A context that in a later layer gives way to tokens of each class's own, made from the class's embedding.

    The learner of TCP (Yao et al., CVPR 2024). Its state dict is the context tokens `ctx` `(d, W)` and the weights and
    biases of `meta_net.linear1` (D to D // 4) and `meta_net.linear2` (D // 4 to d W), between which stands CLIP's
    QuickGELU.

    Args:
        encoder, class_names, text: see `PromptLearner`.
        start, words: `(d, W)` and `(F, W)`, see `start_context`.
        class_features: `(C, D)`, L2-normalised class embeddings under a hand-written template.
        layer: before which layer of the text encoder the tokens come: from 1 to its number of layers less 1.

    Raises:
        ValueError: there is no such layer, or a class name is too long.
    """

    class_features: Tensor

    def __init__(
        self,
        encoder: TextEncoder,
        class_names: Sequence[str],
        start: Tensor,
        words: Tensor,
        class_features: Tensor,
        layer: int,
        text: str = "{}.",
    ):
        n_layers = len(encoder.blocks)
        if not 1 <= layer < n_layers:
            raise ValueError(
                f"class-aware tokens come before one of the layers 1 to {n_layers - 1} of this CLIP's text encoder, "
                f"counted from 0, got {layer}"
            )
        super().__init__(encoder, class_names, len(start), words, text)
        self.ctx = nn.Parameter(start)
        n_in, hidden = class_features.shape[1], class_features.shape[1] // 4
        self.meta_net = nn.ModuleDict({"linear1": nn.Linear(n_in, hidden), "linear2": nn.Linear(hidden, start.numel())})
        self.register_buffer("class_features", class_features, persistent=False)
        self.layer = layer

    def class_tokens(self) -> Tensor:
        """The tokens `(C, d, W)` that the classes' embeddings give."""
        hidden = self.meta_net["linear1"](self.class_features)
        tokens: Tensor = self.meta_net["linear2"](hidden * torch.sigmoid(1.702 * hidden))
        return tokens.view(-1, *self.ctx.shape)

    def forward(self) -> TextPrompt:
        own = ClassTokens(self.layer, self.class_tokens())
        return TextPrompt(self.build_prefix(self.ctx[None]), self.suffix, self.eot_index, class_tokens=own)


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


class DeepPrompt(PromptLearner):
    """One template with context tokens in several layers: after [SOS], and exchanged before each of the next layers.

    Of its wording the first d tokens learn, any others stay fixed before the class name.

    Args:
        encoder, class_names, n_ctx: see `PromptLearner`.
        depth: in how many layers tokens are put, counted from the first: 1 to `n_layers`.
        n_layers: how many layers can have them.
        ctx_init, std: see `CoupledPrompt`.

    Raises:
        ValueError: `depth` is out of its range, the wording is too short, or a class name is too long.
    """

    compound_prompts_text: nn.ParameterList

    def __init__(
        self,
        encoder: TextEncoder,
        class_names: Sequence[str],
        n_ctx: int,
        depth: int,
        n_layers: int,
        ctx_init: str = "",
        std: float = 0.02,
    ):
        check_start([ctx_init] if ctx_init else [], 1, n_ctx, std, coupled=True)
        if not 1 <= depth <= n_layers:
            raise ValueError(
                f"prompt depth must be from 1 to {n_layers}, the layers of this CLIP that can have tokens, got {depth}"
            )
        tokens = tokenize(ctx_init)[1:-1]
        embedded = encoder.embed(torch.tensor(tokens, dtype=torch.long))
        super().__init__(encoder, class_names, n_ctx, words=embedded[n_ctx:])
        width = encoder.width
        start = embedded[:n_ctx] if ctx_init else torch.zeros(n_ctx, width)
        if std:
            start = start + std * torch.randn(n_ctx, width)
        self.ctx = nn.Parameter(start)

    def forward(self) -> TextPrompt:
        deep = [tokens[None] for tokens in self.compound_prompts_text]
        return TextPrompt(self.build_prefix(self.ctx[None]), self.suffix, self.eot_index, deep)


class CoupledPrompt(DeepPrompt):
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
        n_layers = min(len(image_encoder.blocks), len(text_encoder.blocks))
        super().__init__(text_encoder, class_names, n_ctx, depth, n_layers, ctx_init, std)
        width = text_encoder.width
        self.proj = nn.Linear(width, image_encoder.width)
        self.compound_prompts_text = _random_tokens(depth - 1, n_ctx, width)
        projection = nn.Linear(width, image_encoder.width)
        self.compound_prompt_projections = nn.ModuleList(copy.deepcopy(projection) for _ in range(depth - 1))

    def visual(self) -> VisualPrompt:
        deep = zip(self.compound_prompt_projections, self.compound_prompts_text)
        return VisualPrompt(self.proj(self.ctx)[None], [project(tokens)[None] for project, tokens in deep])


class IndependentPrompt(DeepPrompt):
    """One template of independent deep prompts, PromptSRC's (Khattak et al., ICCV 2023; there named IVLP).

    As `CoupledPrompt`, but the image encoder's tokens are parameters of their own, in a number and in a depth of their
    own. All but words start from random numbers. The published code draws them while it builds CLIP, between CLIP's own
    random numbers, so that a seed gives another start here, of the same distribution.

    Its state dict is `ctx`, `compound_prompts_text`, `visual_ctx` and `compound_prompts_visual`.

    Args:
        text_encoder, image_encoder, class_names, ctx_init, std: see `CoupledPrompt`.
        n_ctx: d of the text encoder.
        depth: in how many layers of the text encoder tokens are put: 1 to its number of layers.
        visual_n_ctx: d of the image encoder; None: as `n_ctx`.
        visual_depth: in how many layers of the image encoder tokens are put: 0 to its number of layers; None: as
            `depth`. With 0 the image encoder may be a ResNet.

    Raises:
        ValueError: as `CoupledPrompt`.
    """

    def __init__(
        self,
        text_encoder: TextEncoder,
        image_encoder: ImageEncoder,
        class_names: Sequence[str],
        n_ctx: int,
        depth: int,
        ctx_init: str = "",
        std: float = 0.02,
        visual_n_ctx: int | None = None,
        visual_depth: int | None = None,
    ):
        visual_n_ctx = n_ctx if visual_n_ctx is None else visual_n_ctx
        visual_depth = depth if visual_depth is None else visual_depth
        check_independent(depth, visual_depth, visual_n_ctx)
        n_visual_layers = len(image_encoder.blocks) if visual_depth else 0
        if visual_depth > n_visual_layers:
            raise ValueError(
                f"visual prompt depth must be from 0 to {n_visual_layers}, the layers of this CLIP's image encoder, "
                f"got {visual_depth}"
            )
        super().__init__(text_encoder, class_names, n_ctx, depth, len(text_encoder.blocks), ctx_init, std)
        self.compound_prompts_text = _random_tokens(depth - 1, n_ctx, text_encoder.width)
        self.prompts_images = visual_depth > 0
        if self.prompts_images:
            self.visual_ctx, *deep = _random_tokens(visual_depth, visual_n_ctx, image_encoder.width)
            self.compound_prompts_visual = nn.ParameterList(deep)

    def visual(self) -> VisualPrompt | None:
        if not self.prompts_images:
            return None
        return VisualPrompt(self.visual_ctx[None], [tokens[None] for tokens in self.compound_prompts_visual])


def _random_tokens(count: int, n_ctx: int, width: int) -> nn.ParameterList:
    """Tokens `(n_ctx, width)` for so many layers, from a normal distribution of standard deviation 0.02."""
    return nn.ParameterList(nn.Parameter(0.02 * torch.randn(n_ctx, width)) for _ in range(count))


def check_coupled(depth: int, backbone: str) -> None:
    """What can be said against coupled prompts before CLIP is loaded.

    Raises:
        ValueError: no layer to put tokens in, or one of CLIP's ResNets by its name.
    """
    if depth < 1:
        raise ValueError(f"prompt depth must be at least 1, got {depth}")
    if backbone.replace("open_clip:", "").startswith("RN"):
        raise ValueError(f"prompting the image encoder needs a ViT, got the backbone {backbone}")


def check_independent(depth: int, visual_depth: int, visual_n_ctx: int, backbone: str = "") -> None:
    """What can be said against independent prompts before CLIP is loaded; see `IndependentPrompt`.

    Raises:
        ValueError: no layer of the text encoder to put tokens in, a negative depth, no tokens for the image encoder, or
            tokens for one of CLIP's ResNets by its name.
    """
    if visual_depth < 0:
        raise ValueError(f"visual prompt depth must be at least 0, got {visual_depth}")
    if visual_depth and visual_n_ctx < 1:
        raise ValueError(f"there must be at least 1 visual context token, got {visual_n_ctx}")
    check_coupled(depth, backbone if visual_depth else "")


class DeepTemplates(Learner):
    """M templates with tokens in several layers.

    The class names are the same under all of them, so the first one alone has them all: with many, their tokens take
    time to make and room to keep.

    Args:
        make: gives one template of a wording that it starts from, "" for a random start, and class names.
        class_names: C class names.
        n_templates: M.
        n_ctx: d of the text encoder.
        ctx_init, std: see `CoupledTemplates`.

    Raises:
        ValueError: a wrong number of wordings, wordings of unequal length, or as `make`.
    """

    def __init__(
        self,
        make: Callable[[str, Sequence[str]], DeepPrompt],
        class_names: Sequence[str],
        n_templates: int,
        n_ctx: int,
        ctx_init: Sequence[str],
        std: float,
    ):
        super().__init__()
        check_start(ctx_init, n_templates, n_ctx, std, coupled=True)
        starts = ctx_init if len(ctx_init) == n_templates else [ctx_init[0] if ctx_init else ""] * n_templates
        self.templates = nn.ModuleList(
            make(start, class_names if m == 0 else class_names[:1]) for m, start in enumerate(starts)
        )
        self.prompts_images = any(cast("DeepPrompt", template).prompts_images for template in self.templates)

    def forward(self) -> TextPrompt:
        prompts: list[TextPrompt] = [template() for template in self.templates]
        deep = [torch.cat(layer) for layer in zip(*(prompt.deep for prompt in prompts))]
        return prompts[0]._replace(prefix=torch.cat([prompt.prefix for prompt in prompts]), deep=deep)

    def visual(self) -> VisualPrompt | None:
        templates = cast("Iterable[DeepPrompt]", self.templates)
        prompts = [prompt for prompt in (template.visual() for template in templates) if prompt is not None]
        if not prompts:
            return None
        deep = [torch.cat(layer) for layer in zip(*(prompt.deep for prompt in prompts))]
        return VisualPrompt(torch.cat([prompt.shallow for prompt in prompts]), deep)


class CoupledTemplates(DeepTemplates):
    """M templates of coupled deep prompts, each a `CoupledPrompt` with random draws of its own.

    Args:
        text_encoder, image_encoder, class_names, n_ctx, depth, std: see `CoupledPrompt`.
        n_templates: M.
        ctx_init: wordings that the templates start from, all of one length: none (random start), one for all, or M.

    Raises:
        ValueError: a wrong number of wordings, wordings of unequal length, or as `CoupledPrompt`.
    """

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
        def make(start: str, names: Sequence[str]) -> CoupledPrompt:
            return CoupledPrompt(text_encoder, image_encoder, names, n_ctx, depth, start, std)

        super().__init__(make, class_names, n_templates, n_ctx, ctx_init, std)


class IndependentTemplates(DeepTemplates):
    """M templates of independent deep prompts, each an `IndependentPrompt` with random draws of its own.

    Args:
        text_encoder, image_encoder, class_names, n_ctx, depth, std, visual_n_ctx, visual_depth: see
            `IndependentPrompt`.
        n_templates, ctx_init: see `CoupledTemplates`.

    Raises:
        ValueError: a wrong number of wordings, wordings of unequal length, templates that would start equal, or as
            `IndependentPrompt`.
    """

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
        visual_n_ctx: int | None = None,
        visual_depth: int | None = None,
    ):
        def make(start: str, names: Sequence[str]) -> IndependentPrompt:
            return IndependentPrompt(
                text_encoder, image_encoder, names, n_ctx, depth, start, std, visual_n_ctx, visual_depth
            )

        super().__init__(make, class_names, n_templates, n_ctx, ctx_init, std)
        if depth == 1 and visual_depth == 0:
            check_distinct(ctx_init, n_templates, std)


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
    if not coupled:
        check_distinct(ctx_init, n_templates, std)


def check_distinct(ctx_init: Sequence[str], n_templates: int, std: float) -> None:
    """Whether templates that differ in their first layer's text tokens alone would start apart.

    Raises:
        ValueError: they would not.
    """
    if n_templates > 1 and std == 0 and len(set(ctx_init)) < n_templates:
        raise ValueError(f"without noise {n_templates} templates need as many different wordings, got {list(ctx_init)}")


def _name_tokens(name: str, n_ctx: int, context_length: int, text: str) -> list[int]:
    """Tokens of `text` with a class name in it, and end-of-text."""
    tokens = tokenize(text.replace("{}", name), sys.maxsize)[1:]
    n_tokens = 1 + n_ctx + len(tokens)
    if n_tokens > context_length:
        raise ValueError(
            f"class name too long: CLIP's text encoder takes {context_length} tokens, "
            f"the prompt of {name!r} with {n_ctx} context tokens has {n_tokens}"
        )
    return tokens
