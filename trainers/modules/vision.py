"""The frozen image encoder, plain or, where it is a vision transformer, as a function of prompts.

Prompt tokens stand after the patches and are exchanged before each of the first layers (MaPLe, Khattak et al., CVPR
2023). Views of several templates go through in one batch as long as they are few tokens; what does not depend on the
prompts is computed once for all templates that see the same view, up to the first layer's queries, keys and values; in
the last layer only the class token is a query.

Legend: M templates, B images, S image size in pixels, G patches, d prompt tokens, V transformer width, D embedding
width.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from .attention import attention, heads, merge, project, scaled
from .clip_types import CLIP, ResidualBlock
from .ranks import divided

# Tokens of prompted images in one pass; of more, templates go through one after the other. Larger products are not
# faster, and what is kept for the gradient may be freed after each pass.
TOKENS_AT_ONCE = 1024


class VisualPrompt(NamedTuple):
    """Prompt tokens of M templates.

    Attributes:
        shallow: `(M, d, V)`, what stands after the patches in the first layer; it gets no positions.
        deep: for layers 1, 2, ...: `(M, d, V)`, what replaces those d tokens before that layer.
    """

    shallow: Tensor
    deep: Sequence[Tensor] = ()

    def of(self, templates: slice) -> VisualPrompt:
        """The prompt tokens of some of the templates."""
        return VisualPrompt(self.shallow[templates], [tokens[templates] for tokens in self.deep])


class ImageEncoder(nn.Module):
    """CLIP's image encoder, a vision transformer or a ResNet; prompts need a vision transformer.

    Args:
        clip_model: a CLIP of the `clip` package or open_clip's; its image side is shared, not copied.
    """

    def __init__(self, clip_model: CLIP) -> None:
        super().__init__()
        self.visual = clip_model.visual

    @property
    def input_size(self) -> int:
        """Height and width of the images it takes, in pixels."""
        return self.visual.input_resolution

    @property
    def blocks(self) -> Sequence[ResidualBlock]:
        """The vision transformer's layers.

        Raises:
            ValueError: it is a ResNet.
        """
        if not hasattr(self.visual, "transformer"):
            raise ValueError(
                f"prompting the image encoder needs a ViT, and this CLIP's image encoder is a "
                f"{type(self.visual).__name__}: choose one of CLIP's ViT backbones"
            )
        return self.visual.transformer.resblocks

    @property
    def width(self) -> int:
        """V, the length of a vision transformer's tokens."""
        return self.visual.class_embedding.shape[0]

    def forward(self, images: Tensor, prompt: VisualPrompt | None = None) -> Tensor:
        """L2-normalised features in float32; see `features`."""
        return F.normalize(self.features(images, prompt), dim=-1)

    def features(self, images: Tensor, prompt: VisualPrompt | None = None) -> Tensor:
        """Features in float32, not normalised.

        Args:
            images: `(..., 3, S, S)`; with a prompt `(M, B, 3, S, S)`, one view per template, or `(B, 3, S, S)`, one
                view for all.
            prompt: of M templates, or None.

        Returns:
            `(..., D)` without gradient; with a prompt `(M, B, D)`, every template's own, with its gradient.

        Raises:
            ValueError: the images have another size than the encoder takes, or it cannot take prompts.
        """
        self.check_size(images)
        n_images = images.shape[-4]

        def of_some(own: slice) -> Tensor:
            part = images[..., own, :, :, :].to(self.visual.conv1.weight.dtype)
            if prompt is not None:
                return self._prompted(part, prompt)
            with torch.no_grad():
                features: Tensor = self.visual(part.flatten(0, -4)).unflatten(0, part.shape[:-3])
            return features

        return divided(n_images, -2, of_some).float()

    def check_size(self, images: Tensor) -> None:
        """Whether images have the size that the encoder takes.

        Raises:
            ValueError: they have another one.
        """
        if images.shape[-2:] != (self.input_size, self.input_size):
            raise ValueError(
                f"this CLIP takes images of {self.input_size} x {self.input_size} pixels, "
                f"got {images.shape[-2]} x {images.shape[-1]}"
            )

    def parts(self, prompt: VisualPrompt, n_images: int) -> list[slice]:
        """The templates that go through in one pass, for so many images under each of them."""
        n_templates, n_tokens, _ = prompt.shallow.shape
        most = max(1, TOKENS_AT_ONCE // (n_images * (len(self.visual.positional_embedding) + n_tokens)))
        return [slice(m, m + most) for m in range(0, n_templates, most)]

    def _prompted(self, images: Tensor, prompt: VisualPrompt) -> Tensor:
        """Features `(M, B, D)` under the prompts, not normalised."""
        visual, n_templates, n_images = self.visual, len(prompt.shallow), images.shape[-4]
        x = visual.conv1(images.flatten(0, -4)).flatten(2).transpose(1, 2)  # (B or M B, G, V)
        start = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
        x = visual.ln_pre(torch.cat([start, x], dim=1) + visual.positional_embedding.to(x.dtype))
        shared = project(self.blocks[0], x) if images.ndim == 4 and n_templates > 1 and len(self.blocks) > 1 else None
        x = x.unflatten(0, images.shape[:-3]).expand(n_templates, n_images, *x.shape[1:])
        return torch.cat([self._encode(x[part], prompt.of(part), shared) for part in self.parts(prompt, n_images)])

    def _encode(self, x: Tensor, prompt: VisualPrompt, shared: Tensor | None) -> Tensor:
        """Features `(M, B, D)` of class token and patches before the first layer, `(M, B, 1 + G, V)`.

        Args:
            shared: `(B, 1 + G, 3 V)`, their queries, keys and values in that layer, where they are the same under all
                templates; else None.
        """
        visual, blocks, (n_templates, n_images, n_own, _) = self.visual, self.blocks, x.shape
        x = x.flatten(0, 1).transpose(0, 1)  # (1 + G, M B, V), the order that the clip package's blocks take

        def put_after(x: Tensor, tokens: Tensor) -> Tensor:
            tokens = tokens.to(x.dtype).transpose(0, 1).repeat_interleave(n_images, dim=1)  # (d, M B, V)
            return torch.cat([x[:n_own], tokens])

        tokens = visual.ln_pre(prompt.shallow.to(x.dtype))
        x = put_after(x, tokens)
        for layer, block in enumerate(blocks):
            if 0 < layer <= len(prompt.deep):
                x = put_after(x, prompt.deep[layer - 1])
            if layer == 0 and shared is not None:
                x = _with_shared(block, x, shared, tokens)
            else:
                x = whole_block(block, x) if layer < len(blocks) - 1 else block_at(block, x, slice(1))[0]
        features: Tensor = (visual.ln_post(x) @ visual.proj).unflatten(0, (n_templates, n_images))
        return features


def whole_block(block: ResidualBlock, x: Tensor) -> Tensor:
    """What a residual attention block makes of `(tokens, N, V)`; open_clip's blocks take images first."""
    after: Tensor = block(x.transpose(0, 1)).transpose(0, 1) if block.attn.batch_first else block(x)
    return after


def _with_shared(block: ResidualBlock, x: Tensor, shared: Tensor, tokens: Tensor) -> Tensor:
    """As `whole_block`, of `(1 + G + d, M B, V)` whose class token and patches are the same under all templates.

    Args:
        shared: `(B, 1 + G, 3 V)`, their queries, keys and values.
        tokens: `(M, d, V)`, the prompt tokens.
    """
    own = project(block, tokens)[:, None].expand(-1, len(shared), -1, -1)
    qkv = torch.cat([shared.expand(len(tokens), *shared.shape), own], dim=2)  # (M, B, 1 + G + d, 3 V)
    mixed = merge(attention(*heads(qkv, block.attn.num_heads))).flatten(0, 1).transpose(0, 1)
    x = x + scaled(block, "ls_1", block.attn.out_proj(mixed))
    after: Tensor = x + scaled(block, "ls_2", block.mlp(block.ln_2(x)))
    return after


def block_at(block: ResidualBlock, x: Tensor, *places: slice) -> Tensor:
    """What a residual attention block makes of `(tokens, N, V)` at some of the tokens, `(tokens', N, V)`.

    Args:
        block: of the clip package or of open_clip, as in `whole_block`.
        x: what comes to it.
        places: of the tokens that are wanted, in their order.
    """
    keys = block.ln_1(x)
    x, queries = (torch.cat([tokens[place] for place in places]) for tokens in (x, keys))
    if block.attn.batch_first:
        mixed = block.attn(*(tokens.transpose(0, 1) for tokens in (queries, keys, keys)), need_weights=False)[0]
        mixed = mixed.transpose(0, 1)
    else:
        mixed = block.attn(queries, keys, keys, need_weights=False)[0]
    x = x + scaled(block, "ls_1", mixed)
    after: Tensor = x + scaled(block, "ls_2", block.mlp(block.ln_2(x)))
    return after
