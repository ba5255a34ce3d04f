"""The frozen text encoder under learnable prompts, computing only what differs between prompts.

CLIP's text transformer is causal and its feature is read at the end-of-text token, so nothing after it is computed,
for every class its own (of 77 positions about 5), and the start `[SOS][context tokens]`, which the classes of one
template share, is computed once a template: every class's own tokens attend to its keys and values. A few tokens attend
in one masked product, many in one for each length that classes have, without padding. In the last layer only the
end-of-text position is a query, and QuickGELU, where it is the model's activation, keeps one tensor for the gradient
instead of two. Where there still is
too much to keep, the classes go through in parts, each but the last computed again when its gradient is due, so that
memory does not grow with templates and classes. All of it is exact: outputs and gradients are those of the plain
77-position encoder.

Tokens that replace context tokens in a later layer may be the class's own (`ClassTokens`). Then the classes share the
whole prefix up to that layer, and from there on nothing but `[SOS]`, which attends to itself alone.

Legend: M templates, C classes, P prefix and L suffix positions, T own tokens of all classes, d replaced tokens, W
transformer width, D embedding width, H heads.
"""

from __future__ import annotations

import functools
import itertools
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .attention import attention, heads, merge, project, scaled
from .clip_types import CLIP, ResidualBlock
from .loading import tokenize
from .ranks import divided

# Own tokens, of all templates, whose activations are kept for the gradient, about 0.4 MB each for ViT-B/16 in float32;
# and beside these in one part that is computed again.
TOKENS_KEPT = 4096
TOKENS_AT_ONCE = 1024
# The former where the image encoder keeps activations of one template at a time: as many as one template has, at least.
TOKENS_KEPT_BESIDE_IMAGES = 256
# Tokens of a template up to which all of them attend in one masked product; more do so in one for each length of a
# class, as they would be masked from ever more tokens of others.
TOKENS_TOGETHER = 256


class ClassTokens(NamedTuple):
    """Tokens that replace the prefix positions 1..d of each class by its own.

    Attributes:
        layer: before which layer, counted from 0.
        tokens: `(C, d, W)`, or `(M, C, d, W)` where they differ between templates; d from 1 to P - 1.
    """

    layer: int
    tokens: Tensor


class TextPrompt(NamedTuple):
    """Token embeddings of `M x C` prompts, without positions, split where the classes begin to differ.

    Attributes:
        prefix: `(M, P, W)`, what all classes of a template share: `[SOS][context tokens]`.
        suffix: `(C, L, W)`, or `(M, C, L, W)` where it differs between templates; arbitrary after end-of-text.
        eot_index: for each class the position of end-of-text in the suffix.
        deep: for layers 1, 2, ...: `(M, d, W)`, what replaces the prefix positions 1..d before that layer.
        class_tokens: what replaces them for each class, in one layer after these; None where nothing does.
    """

    prefix: Tensor
    suffix: Tensor
    eot_index: Sequence[int]
    deep: Sequence[Tensor] = ()
    class_tokens: ClassTokens | None = None

    def of(self, classes: slice) -> TextPrompt:
        """The prompts of some of the classes."""
        own = self.class_tokens
        return self._replace(
            suffix=self.suffix[..., classes, :, :],
            eot_index=self.eot_index[classes],
            class_tokens=own and own._replace(tokens=own.tokens[..., classes, :, :]),
        )


class TextEncoder(nn.Module):
    """CLIP's text encoder as a function of `TextPrompt`s.

    Args:
        clip_model: a CLIP of the `clip` package or open_clip's; its text side is shared, not copied.
    """

    def __init__(self, clip_model: CLIP) -> None:
        super().__init__()
        self.blocks = clip_model.transformer.resblocks
        self.positional_embedding = clip_model.positional_embedding
        self.ln_final = clip_model.ln_final
        self.text_projection = clip_model.text_projection
        self.token_embedding = clip_model.token_embedding

    @property
    def context_length(self) -> int:
        return len(self.positional_embedding)

    @property
    def width(self) -> int:
        """W, the length of a token's embedding."""
        return self.positional_embedding.shape[1]

    @property
    def dtype(self) -> torch.dtype:
        """What the transformer computes in."""
        return self.text_projection.dtype

    def embed(self, tokens: Tensor) -> Tensor:
        """Token embeddings `(..., W)` of token numbers `(...)`, in float32, on the encoder's device."""
        embedded: Tensor = self.token_embedding(tokens.to(self.positional_embedding.device))
        return embedded.float()

    def forward(self, prompt: TextPrompt, beside_images: bool = False) -> Tensor:
        """Text features `(M, C, D)`, not normalised.

        Args:
            prompt: of M templates and C classes.
            beside_images: keep less for the gradient, as it is kept while images go through the image encoder.

        Raises:
            ValueError: the prompts are longer than the encoder has positions, or `class_tokens` have no such layer or
                not so many positions.
        """
        n_prefix, n_suffix = prompt.prefix.shape[1], prompt.suffix.shape[-2]
        if n_prefix + n_suffix > self.context_length:
            raise ValueError(
                f"CLIP's text encoder takes {self.context_length} tokens, a prompt has {n_prefix + n_suffix}"
            )
        if prompt.class_tokens is not None:
            self._check_class_tokens(prompt.class_tokens, n_prefix, len(prompt.deep))
        return divided(len(prompt.eot_index), 1, lambda own: self._encode_in_parts(prompt.of(own), beside_images))

    def _encode_in_parts(self, prompt: TextPrompt, beside_images: bool) -> Tensor:
        """As `forward`."""
        prefix, eot_index = prompt.prefix, prompt.eot_index
        n_prefix = prefix.shape[1]
        n_spread = 0 if prompt.class_tokens is None else n_prefix - 1
        n_own = sum(n_spread + position + 1 for position in eot_index)
        kept = min(TOKENS_KEPT, max(TOKENS_KEPT_BESIDE_IMAGES, n_own)) if beside_images else TOKENS_KEPT
        plan = _plan(
            tuple(eot_index),
            n_prefix,
            n_spread,
            kept // len(prefix),
            TOKENS_AT_ONCE // len(prefix),
            TOKENS_TOGETHER,
            prefix.device,
        )
        features = []
        for part in plan.parts:
            # The backward pass begins with the last part and has freed it before others are computed again.
            if part is not plan.parts[-1] and torch.is_grad_enabled():
                encoded = checkpoint(self._encode, prompt, part, use_reentrant=False, preserve_rng_state=False)
            else:
                encoded = self._encode(prompt, part)
            features.append(encoded)
        return torch.cat(features, dim=1).index_select(1, plan.place)

    def _check_class_tokens(self, class_tokens: ClassTokens, n_prefix: int, n_deep: int) -> None:
        layer, n_tokens = class_tokens.layer, class_tokens.tokens.shape[-2]
        first, last = n_deep + 1 if n_deep else 0, len(self.blocks) - 1
        if not first <= layer <= last:
            raise ValueError(
                f"tokens of each class must come before one of the layers {first} to {last} of this CLIP's "
                f"text encoder, got {layer}"
            )
        if not 1 <= n_tokens < n_prefix:
            raise ValueError(
                f"a prefix of {n_prefix} positions has room for 1 to {n_prefix - 1} tokens of each class, "
                f"got {n_tokens}"
            )

    def _encode(self, prompt: TextPrompt, part: _Part) -> Tensor:
        """Text features `(M, C', D)` of the classes of one part, in its order."""
        prefix, suffix, _, deep, class_tokens = prompt
        layout = part.layout
        n_prefix = prefix.shape[1]
        positions = self.positional_embedding.to(self.dtype)
        tokens = [prefix.to(self.dtype) + positions[:n_prefix]]
        for length, classes in layout.groups:
            own = suffix[..., :length, :].index_select(-3, classes).to(self.dtype)
            own = own + positions[n_prefix : n_prefix + length]
            tokens.append(own.expand(len(prefix), *own.shape[-3:]).flatten(1, 2))
        x = torch.cat(tokens, dim=1)  # (M, P + T, W)
        last = len(self.blocks) - 1
        for layer, block in enumerate(self.blocks):
            if 0 < layer <= len(deep):
                replaced = deep[layer - 1].to(x.dtype)
                x = torch.cat([x[:, :1], replaced, x[:, 1 + replaced.shape[1] :]], dim=1)
            if class_tokens is not None and layer == class_tokens.layer:
                x, layout = _spread_prefix(x, layout, class_tokens.tokens.to(x.dtype)), part.spread
            x = encode_block(block, x, layout, layer == last)
        features: Tensor = self.ln_final(x).to(self.dtype) @ self.text_projection
        return features

    def encode_texts(self, texts: Sequence[str]) -> Tensor:
        """L2-normalised features `(C, D)` of plain texts, float32, without gradient.

        Raises:
            ValueError: a text is longer than the encoder has positions.
        """
        return F.normalize(self.plain_features(texts), dim=-1)

    @torch.no_grad()
    def plain_features(self, texts: Sequence[str]) -> Tensor:
        """As `encode_texts`, not normalised."""
        features: Tensor = self(self.plain_prompt(texts))
        return features[0].float()

    def plain_prompt(self, texts: Sequence[str]) -> TextPrompt:
        """Plain texts as one template, with nothing to learn.

        Raises:
            ValueError: a text is longer than the encoder has positions.
        """
        tokens = [tokenize(text, self.context_length) for text in texts]
        n_shared = _common_length(tokens)
        device = self.positional_embedding.device
        suffix, eot_index = pad([text[n_shared:] for text in tokens], device)
        prefix = torch.tensor([tokens[0][:n_shared]], device=device)
        return TextPrompt(self.embed(prefix), self.embed(suffix), eot_index)


def pad(tokens: Sequence[Sequence[int]], device: torch.device | str = "cpu") -> tuple[Tensor, tuple[int, ...]]:
    """Token lists of unequal length -> `(C, L)` filled up with zeros, and the position of each one's last token."""
    length = max(len(text) for text in tokens)
    padded = torch.tensor([[*text, *[0] * (length - len(text))] for text in tokens], device=device)
    return padded, tuple(len(text) - 1 for text in tokens)


def split_classes(order: list[int], eot_index: Sequence[int], first: int, most: int) -> list[list[int]]:
    """Classes in parts, the first one of at most `first` tokens, others of at most `most`, but at least one class."""
    parts: list[list[int]] = [[]]
    n_tokens = 0
    for c in order:
        n_tokens += eot_index[c] + 1
        if parts[-1] and n_tokens > (first if len(parts) == 1 else most):
            parts.append([])
            n_tokens = eot_index[c] + 1
        parts[-1].append(c)
    return parts


def _common_length(tokens: Sequence[Sequence[int]]) -> int:
    """How many first tokens all texts share, at least the start- and never the end-of-text token."""
    longest = min(len(text) for text in tokens) - 1
    return next((n for n in range(longest) if len({text[n] for text in tokens}) > 1), longest)


class Layout(NamedTuple):
    """Where things are among the `P + T` tokens of a template: its prefix, then one class's own tokens after the other.

    Attributes:
        n_prefix: P.
        groups: how many tokens a class has, and which classes `(C',)` have as many, in their order.
        ends: where the end-of-text tokens are, one for each class.
        mask: `(P + T, P + T)`, which token attends to which, or None where that would be too much.
    """

    n_prefix: int
    groups: Sequence[tuple[int, Tensor]]
    ends: Tensor
    mask: Tensor | None

    @classmethod
    def of(
        cls, classes: Sequence[int], eot_index: Sequence[int], n_prefix: int, together: int, device: torch.device
    ) -> Layout:
        """The layout of some classes, of which those of one `eot_index` are side by side."""
        lengths = [eot_index[c] + 1 for c in classes]
        ends = [n_prefix - 1 + n for n in itertools.accumulate(lengths)]
        mask = None
        if ends[-1] < together:
            owners = [0] * n_prefix + [c for c, length in enumerate(lengths, start=1) for _ in range(length)]
            owner = torch.tensor(owners, device=device)
            mask = ((owner == owner[:, None]) | (owner == 0)).tril()
        groups = [
            (length, torch.tensor(list(members), device=device))
            for length, members in itertools.groupby(classes, key=lambda c: eot_index[c] + 1)
        ]
        return cls(n_prefix, groups, torch.tensor(ends, device=device), mask)


class _Part(NamedTuple):
    """Some classes that go through the encoder together.

    Attributes:
        layout: of their tokens.
        spread: of their tokens from the layer of `ClassTokens` on, where all of the prefix but `[SOS]` is each class's
            own; `layout` itself where there are none.
    """

    layout: Layout
    spread: Layout


class _Plan(NamedTuple):
    """In which parts the classes go through the encoder.

    Attributes:
        parts: the last one is kept for the gradient, the others are computed again.
        place: `(C,)`, where each class stands in the order of the parts.
    """

    parts: Sequence[_Part]
    place: Tensor


@functools.lru_cache(maxsize=16)
@torch.inference_mode(False)  # else a plan first made in inference mode could not serve training
def _plan(
    eot_index: tuple[int, ...],
    n_prefix: int,
    n_spread: int,
    kept: int,
    at_once: int,
    together: int,
    device: torch.device,
) -> _Plan:
    """The plan for prompts of one shape.

    Its tensors are made on the device once: to send them in every step would make the host wait for a GPU.

    Args:
        eot_index: see `TextPrompt`.
        n_prefix: P.
        n_spread: how many of the prefix's last positions become each class's own in some layer.
        kept, at_once, together: own tokens of one template in the part that is kept, in any other one, and in one
            masked product.
        device: where the prompts are.
    """
    by_length = sorted(range(len(eot_index)), key=eot_index.__getitem__, reverse=True)
    own_index = [index + n_spread for index in eot_index]
    parts = split_classes(by_length, own_index, kept, at_once)
    parts.reverse()  # the first one, which is kept, comes last
    place = sorted(range(len(eot_index)), key=[c for part in parts for c in part].__getitem__)
    layouts = [Layout.of(part, eot_index, n_prefix, together, device) for part in parts]
    spread = (
        [Layout.of(part, own_index, n_prefix - n_spread, together, device) for part in parts] if n_spread else layouts
    )
    return _Plan([_Part(*pair) for pair in zip(layouts, spread)], torch.tensor(place, device=device))


def _spread_prefix(x: Tensor, layout: Layout, tokens: Tensor) -> Tensor:
    """The tokens of a part, with all of the prefix but `[SOS]` once for each class and its `tokens` put in.

    Args:
        x: `(M, P + T, W)`.
        layout: of these.
        tokens: see `ClassTokens`.

    Returns:
        `(M, 1 + T + C' (P - 1), W)`.
    """
    n_prefix, groups = layout.n_prefix, layout.groups
    prefix, *own = x.split([n_prefix, *(length * len(classes) for length, classes in groups)], dim=1)
    rest = prefix[:, 1 + tokens.shape[-2] :]  # what stands after the replaced ones
    spread = [prefix[:, :1]]
    for (length, classes), part in zip(groups, own):
        count = len(classes)
        replaced = tokens.index_select(-3, classes).expand(len(x), -1, -1, -1)  # (M, C', d, W)
        shared = rest[:, None].expand(-1, count, -1, -1)
        spread.append(torch.cat([replaced, shared, part.unflatten(1, (count, length))], dim=2).flatten(1, 2))
    return torch.cat(spread, dim=1)


def encode_block(block: ResidualBlock, x: Tensor, layout: Layout, last: bool) -> Tensor:
    """One residual attention block on `(M, P + T, W)`; of the last one the end-of-text tokens alone, `(M, C, W)`."""
    qkv = project(block, x)
    if layout.mask is None:
        mixed = _attend_apart(qkv, block.attn.num_heads, layout, last)
    else:
        mixed = _attend_together(qkv, block.attn.num_heads, layout.mask, layout.ends if last else None)
    if last:
        x = x.index_select(1, layout.ends)
    x = x + scaled(block, "ls_1", block.attn.out_proj(mixed))
    mlp = block.mlp
    activation = _quick_gelu if type(mlp.gelu).__name__ == "QuickGELU" else mlp.gelu
    x = x + scaled(block, "ls_2", mlp.c_proj(activation(mlp.c_fc(block.ln_2(x)))))
    return x


def _attend_together(qkv: Tensor, n_heads: int, mask: Tensor, ends: Tensor | None) -> Tensor:
    """What all tokens, or those at `ends` alone, take from others: `(M, P + T or C, W)`."""
    q, k, v = heads(qkv, n_heads)  # each (M, H, P + T, W/H)
    if ends is not None:
        q, mask = q.index_select(2, ends), mask[ends]
    return merge(attention(q, k, v, mask))


def _attend_apart(qkv: Tensor, n_heads: int, layout: Layout, last: bool) -> Tensor:
    """The same, with a product for each length of a class."""
    n_prefix, groups = layout.n_prefix, layout.groups
    prefix, *own = qkv.split([n_prefix, *(length * len(classes) for length, classes in groups)], dim=1)
    prefix = heads(prefix, n_heads)  # each (M, H, P, W/H)
    mixed = [] if last else [merge(attention(*prefix, is_causal=True))]
    for (length, classes), tokens in zip(groups, own):
        count = len(classes)
        q, k, v = heads(tokens.unflatten(1, (count, length)), n_heads)  # each (M, C', H, L, W/H)
        k, v = (
            torch.cat([start[:, None].expand(-1, count, -1, -1, -1), part], dim=3)
            for start, part in zip(prefix[1:], (k, v))
        )
        if last:
            q, mask = q[..., -1:, :], None
        else:
            mask = torch.ones(length, n_prefix + length, dtype=torch.bool, device=qkv.device).tril(n_prefix)
        mixed.append(merge(attention(q, k, v, mask)).flatten(1, 2))
    return torch.cat(mixed, dim=1)


class _QuickGELU(torch.autograd.Function):
    """CLIP's `x * sigmoid(1.702 x)`, which is `silu(1.702 x) / 1.702`; of it only x is kept for the gradient."""

    @staticmethod
    def forward(ctx: Any, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return (1.702 * x).sigmoid_().mul_(x)

    @staticmethod
    def backward(ctx: Any, grad: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        gradient: Tensor = torch.ops.aten.silu_backward(grad, 1.702 * x)
        return gradient


_quick_gelu: Callable[[Tensor], Tensor] = _QuickGELU.apply
