"""Fixtures: a small CLIP with random weights, and its file in OpenAI's two formats."""

from __future__ import annotations

import warnings

import compat  # noqa: F401  makes `import dassl` work

import pytest
import torch

from trainers.modules import loading  # noqa: F401  imports clip without its warning

SIZE = 32  # pixels of the small CLIP's images


def random_clip(**arguments):
    """The clip package's own architecture, small, its weights far enough from their start that every part matters."""
    from clip.model import CLIP

    settings = {
        "embed_dim": 48,
        "image_resolution": SIZE,
        "vision_layers": 2,
        "vision_width": 64,
        "vision_patch_size": 8,
        "context_length": 77,
        "vocab_size": 49408,
        "transformer_width": 64,
        "transformer_heads": 1,
        "transformer_layers": 3,
    }
    generator = torch.Generator().manual_seed(0)
    model = CLIP(**{**settings, **arguments}).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if name != "logit_scale":
            spread = 0.3 if parameter.ndim == 1 else 2.0 * parameter.std().item()
            mean = 1.0 if name.endswith(("ln_1.weight", "ln_2.weight", "ln_final.weight")) else 0.0
            parameter.copy_(mean + spread * torch.randn(parameter.shape, generator=generator))
    return model


@pytest.fixture(scope="session")
def small_clip():
    torch.manual_seed(0)
    return random_clip()


class _Archive(torch.nn.Module):
    """What OpenAI's archives look like from outside: CLIP's parameters and three integers beside them."""

    def __init__(self, clip_model):
        super().__init__()
        for name, child in clip_model.named_children():
            self.add_module(name, child)
        for name, parameter in clip_model.named_parameters(recurse=False):
            self.register_parameter(name, parameter)
        for name in ("input_resolution", "context_length", "vocab_size"):
            self.register_buffer(name, torch.tensor(1))

    def forward(self, image):
        return self.visual(image)


def save_archive(clip_model, path) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        size = clip_model.visual.input_resolution
        torch.jit.trace(_Archive(clip_model).eval(), torch.zeros(1, 3, size, size)).save(str(path))


@pytest.fixture(scope="session")
def clip_files(small_clip, tmp_path_factory):
    """The small CLIP as a state dict, a gzip-compressed one, and a TorchScript archive."""
    import gzip

    folder = tmp_path_factory.mktemp("clip")
    files = {"plain": folder / "small.pt", "gzip": folder / "small.pt.gz", "archive": folder / "archive.pt"}
    torch.save(small_clip.state_dict(), files["plain"])
    files["gzip"].write_bytes(gzip.compress(files["plain"].read_bytes(), compresslevel=1))
    save_archive(small_clip, files["archive"])
    return files
