"""MMRL's tokens in a space of their own, and CLIP's encoders with such tokens from a later layer on.

(Guo and Gu, CVPR 2025, arXiv 2503.08497.) Linear maps turn the same learnt tokens into tokens of each layer of each
encoder. They come in before one of the later layers and are replaced before the others. Nothing that is learnt goes
through the layers before: those of the class names are computed once, those of images without a gradient.

Legend: B images, C classes, S image size in pixels, n tokens, R their width in the shared space, W and V transformer
width of the text and of the image encoder, D embedding width, T tokens of all classes in one part.
"""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterable, Mapping, Sequence
from contextlib import AbstractContextManager
from typing import cast

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from .clip_types import CLIP
from .prompted import PromptedCLIP
from .prompts import Learner
from .ranks import divided, own_or_first
from .text import TOKENS_AT_ONCE, TOKENS_KEPT, TOKENS_TOGETHER, Layout, TextEncoder, encode_block, split_classes
from .vision import ImageEncoder, VisualPrompt, block_at, whole_block


class RepresentationLearner(Learner):
    """What MMRL trains: the tokens in the shared space, their maps, and a second projection of image features.

    Names, shapes and the order of random draws are the published code's, except that it draws the second projection
    while it builds CLIP, so that a seed gives another start here, of the same distribution.

    Its state dict is `compound_rep_tokens` `(n, R)`; for each layer the weights and biases of
    `compound_rep_tokens_r2vproj` (R to V) and `compound_rep_tokens_r2tproj` (R to W); and `proj_rep` `(V, D)`.

    Args:
        text_encoder, image_encoder: what the tokens are for.
        n_tokens: n.
        layers: before which layers tokens are put, counted from 1, ascending.
        width: R.

    Raises:
        ValueError: the image encoder is not a vision transformer, there is no such layer in both encoders, or as
            `check_representation`.
    """

    prompts_images = True

    def __init__(
        self, text_encoder: TextEncoder, image_encoder: ImageEncoder, n_tokens: int, layers: Sequence[int], width: int
    ):
        check_representation(n_tokens, layers, width)
        n_layers = min(len(image_encoder.blocks), len(text_encoder.blocks))
        if layers[-1] > n_layers:
            raise ValueError(
                f"representation tokens must be in layers 1 to {n_layers}, which both encoders of this CLIP have, "
                f"got {list(layers)}"
            )
        super().__init__()
        self.layers = tuple(layers)
        self.compound_rep_tokens = nn.Parameter(nn.init.normal_(torch.empty(n_tokens, width), std=0.02))
        to_image, to_text = nn.Linear(width, image_encoder.width), nn.Linear(width, text_encoder.width)
        self.compound_rep_tokens_r2vproj = nn.ModuleList(copy.deepcopy(to_image) for _ in layers)
        self.compound_rep_tokens_r2tproj = nn.ModuleList(copy.deepcopy(to_text) for _ in layers)
        projection = image_encoder.visual.proj
        self.proj_rep = nn.Parameter(projection.shape[0] ** -0.5 * torch.randn(projection.shape))

    def forward(self) -> dict[int, Tensor]:
        """The text encoder's tokens `(n, W)`, by the layers, counted from 0, that they are put before."""
        return self._mapped(self.compound_rep_tokens_r2tproj)

    def image_tokens(self) -> dict[int, Tensor]:
        """The same of the image encoder, `(n, V)`."""
        return self._mapped(self.compound_rep_tokens_r2vproj)

    def _mapped(self, maps: nn.ModuleList) -> dict[int, Tensor]:
        return {layer - 1: project(self.compound_rep_tokens) for layer, project in zip(self.layers, maps)}


def check_representation(n_tokens: int, layers: Sequence[int], width: int, backbone: str = "") -> None:
    """What can be said against representation tokens before CLIP is loaded; see `RepresentationLearner`.

    Raises:
        ValueError: no tokens or no width; layers that are none, not ascending or not from 1 on; or one of CLIP's
            ResNets by its name.
    """
    if n_tokens < 1 or width < 1:
        raise ValueError(f"there must be at least 1 representation token of width 1 or more, got {n_tokens} of {width}")
    if not layers or not all(isinstance(layer, int) for layer in layers) or layers[0] < 1:
        raise ValueError(f"representation tokens need layers to be put in, numbers from 1 on, got {list(layers)}")
    if list(layers) != sorted(set(layers)):
        raise ValueError(f"the layers of representation tokens must be ascending, got {list(layers)}")
    if backbone.startswith("RN"):
        raise ValueError(f"representation tokens in the image encoder need a ViT, got the backbone {backbone}")


class _Part(nn.Module):
    """Some classes that go through the later layers of the text encoder together.

    Attributes:
        start: `(1, P + T, W)`, their tokens before the first of these layers.
        layout: of their tokens once the representation tokens are in.
    """

    start: Tensor

    def __init__(self, start: Tensor, layout: Layout) -> None:
        super().__init__()
        self.register_buffer("start", start, persistent=False)
        self.layout = layout


class LateTextEncoder(nn.Module):
    """CLIP's text encoder of fixed texts, with tokens after [SOS] from a later layer on.

    They have no positions. Where there is too much to keep for the gradient, the classes go through in parts, as in
    `TextEncoder`. It stays on the device that it is made on.

    Args:
        encoder: the text encoder; it is shared, not copied.
        texts: one per class.
        layer: the first layer, counted from 0, that tokens are put before.
        n_tokens: n.

    Raises:
        ValueError: a text is longer than the encoder has positions.
    """

    place: Tensor

    @torch.no_grad()
    def __init__(self, encoder: TextEncoder, texts: Sequence[str], layer: int, n_tokens: int) -> None:
        super().__init__()
        self.encoder, self.first, self.n_classes = encoder, layer, len(texts)
        prefix, suffix, eot_index = encoder.plain_prompt(texts[own_or_first(len(texts))])[:3]
        n_prefix, device = prefix.shape[1], prefix.device
        order = sorted(range(len(eot_index)), key=eot_index.__getitem__, reverse=True)
        members = split_classes(order, eot_index, TOKENS_KEPT, TOKENS_AT_ONCE)
        members.reverse()  # the largest part, which is kept for the gradient, comes last
        place = sorted(range(len(order)), key=[c for part in members for c in part].__getitem__)
        self.register_buffer("place", torch.tensor(place, device=device), persistent=False)
        self.parts = nn.ModuleList()
        for classes in members:
            plain, late = (
                Layout.of(classes, eot_index, n, TOKENS_TOGETHER, device) for n in (n_prefix, n_prefix + n_tokens)
            )
            tokens = [prefix]
            tokens += [suffix[own, :length].flatten(0, 1)[None] for length, own in plain.groups]
            positions = [torch.arange(n_prefix, device=device)]
            positions += [
                torch.arange(n_prefix, n_prefix + n, device=device).repeat(len(own)) for n, own in plain.groups
            ]
            x = torch.cat(tokens, dim=1).to(encoder.dtype)
            x = x + encoder.positional_embedding[torch.cat(positions)].to(encoder.dtype)
            for block in encoder.blocks[:layer]:
                x = encode_block(block, x, plain, last=False)
            self.parts.append(_Part(x, late))

    def forward(self, tokens: Mapping[int, Tensor]) -> Tensor:
        """Text features `(C, D)`, not normalised.

        Args:
            tokens: `(n, W)` by the layer, counted from 0, that they are put before; `layer` and later ones.
        """
        return divided(self.n_classes, 0, lambda _: self._encode_own(tokens))

    def _encode_own(self, tokens: Mapping[int, Tensor]) -> Tensor:
        """As `forward`, of the classes of this process alone, which are all where it has no others beside it."""
        features = []
        for part in cast("Iterable[_Part]", self.parts):
            # The backward pass begins with the last part and has freed it before others are computed again.
            if part is not self.parts[-1] and torch.is_grad_enabled():
                own = checkpoint(self._encode, part, tokens, use_reentrant=False, preserve_rng_state=False)
            else:
                own = self._encode(part, tokens)
            features.append(own)
        return torch.cat(features).index_select(0, self.place)

    def _encode(self, part: _Part, tokens: Mapping[int, Tensor]) -> Tensor:
        """Features `(C', D)` of the classes of one part, in its order."""
        encoder, x = self.encoder, part.start
        last, n_put = len(encoder.blocks) - 1, 0
        for layer in range(self.first, last + 1):
            if layer in tokens:
                x = torch.cat([x[:, :1], tokens[layer][None].to(x.dtype), x[:, 1 + n_put :]], dim=1)
                n_put = len(tokens[layer])
            x = encode_block(encoder.blocks[layer], x, part.layout, layer == last)
        features: Tensor = encoder.ln_final(x[0]).to(encoder.dtype) @ encoder.text_projection
        return features


class LateImageEncoder(nn.Module):
    """CLIP's vision transformer with tokens from a later layer on.

    They stand after the patches, where the published code has them before: without positions that is the same.

    Args:
        encoder: the image encoder; it is shared, not copied.
    """

    def __init__(self, encoder: ImageEncoder) -> None:
        super().__init__()
        self.encoder = encoder

    def forward(self, images: Tensor, tokens: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """The class token's feature `(B, D)`, and the mean of the tokens after the last layer `(B, V)`.

        Args:
            images: `(B, 3, S, S)`.
            tokens: `(n, V)` by the layer, counted from 0, that they are put before.

        Raises:
            ValueError: the images have another size than the encoder takes.
        """
        self.encoder.check_size(images)
        both = divided(len(images), 0, lambda own: torch.cat(self._encode(images[own], tokens), dim=1))
        of_class, of_tokens = both.split([both.shape[1] - self.encoder.width, self.encoder.width], dim=1)
        return of_class, of_tokens

    def _encode(self, images: Tensor, tokens: Mapping[int, Tensor]) -> tuple[Tensor, Tensor]:
        """As `forward`."""
        visual, blocks = self.encoder.visual, self.encoder.blocks
        first, last = min(tokens), len(blocks) - 1
        with torch.no_grad():
            x = visual.conv1(images.to(visual.conv1.weight.dtype)).flatten(2).transpose(1, 2)
            start = visual.class_embedding.to(x.dtype).expand(len(x), 1, -1)
            x = visual.ln_pre(torch.cat([start, x], dim=1) + visual.positional_embedding.to(x.dtype))
            x = x.transpose(0, 1)  # (1 + G, B, V), the order that CLIP's blocks take
            n_own = len(x)
            for block in blocks[:first]:
                x = whole_block(block, x)
        for layer in range(first, last + 1):
            if layer in tokens:
                own = tokens[layer][:, None].to(x.dtype).expand(-1, len(images), -1)
                x = torch.cat([x[:n_own], own])
            if layer < last:
                x = whole_block(blocks[layer], x)
            else:  # without the patches
                x = block_at(blocks[layer], x, slice(1), slice(n_own, None))
        x = visual.ln_post(x)
        return x[0] @ visual.proj, x[1:].mean(dim=0)


class RepresentationCLIP(PromptedCLIP):
    """CLIP with representation tokens in both encoders.

    Args:
        clip_model: frozen CLIP, on the device that it stays on.
        prompt_learner: what is trained.
        texts: one per class.
        alpha: weight of the class token's logits among the fused ones, in [0, 1].
        autocast: see `PromptedCLIP`.
    """

    prompt_learner: RepresentationLearner

    def __init__(
        self,
        clip_model: CLIP,
        prompt_learner: RepresentationLearner,
        texts: Sequence[str],
        alpha: float,
        autocast: Callable[[], AbstractContextManager[object]],
    ) -> None:
        super().__init__(clip_model, prompt_learner, autocast)
        first, n_tokens = prompt_learner.layers[0] - 1, len(prompt_learner.compound_rep_tokens)
        with autocast():
            self.late_text = LateTextEncoder(self.text_encoder, texts, first, n_tokens)
        self.late_image = LateImageEncoder(self.image_encoder)
        self.alpha = alpha

    def encode_text(self, tokens: Mapping[int, Tensor]) -> Tensor:  # type: ignore[override]
        with self.autocast():
            features = self.late_text(tokens)
        return F.normalize(features.float(), dim=-1)[None]

    def both_image_features(self, images: Tensor) -> tuple[Tensor, Tensor]:
        """L2-normalised features `(B, D)` of images `(B, 3, S, S)`: the class token's, the representation tokens'."""
        learner = self.prompt_learner
        with self.autocast():
            of_class, mean = self.late_image(images, learner.image_tokens())
            of_tokens = mean @ learner.proj_rep.to(mean.dtype)
        return F.normalize(of_class.float(), dim=-1), F.normalize(of_tokens.float(), dim=-1)

    def encode_images(self, images: Tensor, prompt: VisualPrompt | None = None) -> Tensor:
        """The class token's L2-normalised features `(B, D)`."""
        return self.both_image_features(images)[0]

    def forward(self, images: Tensor) -> Tensor:
        """Fused logits `(B, C)` of images `(B, 3, S, S)`, float32."""
        return self.fused(*(self.logits(features) for features in self.both_image_features(images)))

    def fused(self, logits: Tensor, logits_rep: Tensor) -> Tensor:
        """What the class token's and the representation tokens' logits say together."""
        return self.alpha * logits + (1 - self.alpha) * logits_rep


def cosine_distance(features: Tensor, frozen: Tensor) -> Tensor:
    """1 - the mean cosine of features `(..., D)` and those of the frozen CLIP, MMRL's regulariser; in [0, 2].

    Raises:
        ValueError: the shapes are not the same.
    """
    if features.shape != frozen.shape:
        raise ValueError(
            f"both features must have the same shape, got {tuple(features.shape)} and {tuple(frozen.shape)}"
        )
    return 1 - F.cosine_similarity(features, frozen, dim=-1).mean()
