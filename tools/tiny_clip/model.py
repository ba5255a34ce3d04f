"""The tiny CLIP: the `clip` package's own class, small, and its encoders in bfloat16.

`clip`'s own code is several times slower in bfloat16 on a CPU than what is written out here.
"""

from __future__ import annotations

import math

import compat  # noqa: F401  (makes `dassl`, which the trainers need, importable)

from trainers.modules import loading  # noqa: F401  (imports `clip` without its warning)

# isort: split
import torch
from clip.model import CLIP, Transformer
from torch import nn
from torch.nn import functional

from tools.tiny_clip.pictures import SIZE
from tools.tiny_clip.vocabulary import CONTEXT_LENGTH, Vocabulary

ARCHITECTURE = {
    "embed_dim": 128,
    "image_resolution": SIZE,
    "vision_layers": 4,
    "vision_width": 128,
    "vision_patch_size": 8,
    "context_length": CONTEXT_LENGTH,
    "transformer_width": 128,
    "transformer_heads": 2,
    "transformer_layers": 4,
}
FAST = torch.bfloat16


def make_model(vocabulary: Vocabulary, seed: int) -> CLIP:
    """A fresh tiny CLIP whose vocabulary is only what the world uses."""
    torch.manual_seed(seed)
    return CLIP(**ARCHITECTURE, vocab_size=len(vocabulary)).float()


def _norm(x: torch.Tensor, layer: nn.LayerNorm) -> torch.Tensor:
    return functional.layer_norm(x, x.shape[-1:], layer.weight.to(FAST), layer.bias.to(FAST))


def _blocks(transformer: Transformer, x: torch.Tensor, mask: torch.Tensor | None = None) -> torch.Tensor:
    """CLIP's residual attention blocks on ``(B, L, D)``, with an additive mask ``(L, L)``."""
    batch, length, width = x.shape
    for block in transformer.resblocks:
        attention, heads = block.attn, block.attn.num_heads
        joint = functional.linear(
            _norm(x, block.ln_1), attention.in_proj_weight.to(FAST), attention.in_proj_bias.to(FAST)
        )
        query, key, value = joint.view(batch, length, 3, heads, -1).permute(2, 0, 3, 1, 4).unbind(0)
        scores = (query * (width // heads) ** -0.5) @ key.transpose(-1, -2)
        if mask is not None:
            scores = scores + mask
        mixed = (scores.softmax(dim=-1) @ value).transpose(1, 2).reshape(batch, length, width)
        x = x + functional.linear(mixed, attention.out_proj.weight.to(FAST), attention.out_proj.bias.to(FAST))
        # x * sigmoid(1.702 x) is silu(1.702 x) / 1.702; the factors go to the small matrices beside it.
        up, down = block.mlp.c_fc, block.mlp.c_proj
        hidden = functional.linear(_norm(x, block.ln_2), (1.702 * up.weight).to(FAST), (1.702 * up.bias).to(FAST))
        x = x + functional.linear(functional.silu(hidden), (down.weight / 1.702).to(FAST), down.bias.to(FAST))
    return x


def patches(pictures: torch.Tensor, side: int) -> torch.Tensor:
    """``(B, 3, H, W)`` to square patches ``(B, patches, 3 * side * side)``, as a convolution sees them."""
    batch, _, height, width = pictures.shape
    cut = pictures.reshape(batch, 3, height // side, side, width // side, side)
    return cut.permute(0, 2, 4, 1, 3, 5).reshape(batch, -1, 3 * side * side)


def encode_image(model: CLIP, pictures: torch.Tensor) -> torch.Tensor:
    """``CLIP.encode_image`` in bfloat16: ``(B, 3, H, W)`` to features ``(B, D)`` in float32."""
    visual = model.visual
    seen = patches(pictures, visual.conv1.kernel_size[0]).to(FAST)
    x = functional.linear(seen, visual.conv1.weight.flatten(1).to(FAST))
    first = visual.class_embedding.to(FAST).expand(len(x), 1, -1)
    x = torch.cat([first, x], dim=1) + visual.positional_embedding.to(FAST)
    x = _blocks(visual.transformer, _norm(x, visual.ln_pre))
    return _norm(x[:, 0], visual.ln_post).float() @ visual.proj


def _encode_cut(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    eot_index = tokens.argmax(dim=-1)
    length = int(eot_index.max()) + 1
    mask = torch.full((length, length), -math.inf, dtype=FAST).triu_(1)
    x = model.token_embedding(tokens[:, :length]) + model.positional_embedding[:length]
    x = _blocks(model.transformer, x.to(FAST), mask)[torch.arange(len(x)), eot_index]
    return _norm(x, model.ln_final).float() @ model.text_projection


def encode_text(model: CLIP, tokens: torch.Tensor) -> torch.Tensor:
    """``CLIP.encode_text`` in bfloat16, tokens ``(B, L)`` to features ``(B, D)``, not computing what is past the ends.

    Short and long texts go separately, so that the short ones are not padded to the longest.
    """
    order = tokens.argmax(dim=-1).argsort(stable=True)
    features = torch.cat([_encode_cut(model, tokens[rows]) for rows in order.chunk(2)])
    return features[order.argsort()]


@torch.no_grad()
def whiten_(model: CLIP, pictures: torch.Tensor) -> None:
    """Let the first layer start with the patches' strongest principal components, each scaled to variance 1.

    Neighbouring pixels are alike, so that from a random start the patch's mean colour drowns its lines and spots.

    Args:
        pictures: ``(B, 3, H, W)``, normalised.
    """
    kernel = model.visual.conv1.weight
    seen = patches(pictures, kernel.shape[-1]).flatten(0, 1).double()
    variance, directions = torch.linalg.eigh(torch.cov(seen.T))
    variance, directions = variance[-len(kernel) :], directions[:, -len(kernel) :]
    turn = torch.linalg.qr(torch.randn(len(kernel), len(variance), dtype=torch.float64)).Q
    kernel.copy_((turn @ (directions / (variance + 1e-3).sqrt()).T).view_as(kernel))
    model.visual.positional_embedding.mul_(5)  # as large beside the patches as before
