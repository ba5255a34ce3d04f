"""The parts of a CLIP that this project uses, as types.

Neither the `clip` packages nor open_clip have type hints, and `nn.Module` says of an attribute only that it may be a
tensor or a module. The classes here name the attributes with their types. `load_clip` returns a `CLIP`; none of these
classes is instantiated.
"""

from __future__ import annotations

from collections.abc import Sequence

from torch import nn


class MLP(nn.Module):
    """The two linear layers of a residual block, and the activation between them."""

    c_fc: nn.Linear
    gelu: nn.Module
    c_proj: nn.Linear


class ResidualBlock(nn.Module):
    """One layer of a transformer. open_clip's has `ls_1` and `ls_2` too, which scale or leave what is added."""

    ln_1: nn.LayerNorm
    attn: nn.MultiheadAttention
    ln_2: nn.LayerNorm
    mlp: MLP


class Transformer(nn.Module):
    """The layers of a text encoder or of a vision transformer."""

    resblocks: Sequence[ResidualBlock]  # an nn.Sequential


class VisualTower(nn.Module):
    """An image encoder. A ResNet has `input_resolution`, `output_dim` and `conv1` alone of these."""

    input_resolution: int
    output_dim: int
    conv1: nn.Conv2d
    class_embedding: nn.Parameter
    positional_embedding: nn.Parameter
    ln_pre: nn.LayerNorm
    transformer: Transformer
    ln_post: nn.LayerNorm
    proj: nn.Parameter


class CLIP(nn.Module):
    """A whole model.

    `sha256` is set by `load_clip`, and `pixels`: the `mean` and `std` that images are normalised with, where they are
    known.
    """

    visual: VisualTower
    transformer: Transformer
    token_embedding: nn.Embedding
    positional_embedding: nn.Parameter
    ln_final: nn.LayerNorm
    text_projection: nn.Parameter
    logit_scale: nn.Parameter
    sha256: str
    pixels: dict[str, tuple[float, ...]]
