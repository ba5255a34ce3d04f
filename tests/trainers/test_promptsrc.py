"""PromptSRC: independent deep prompts."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F

from helpers import SIZE, random_clip, relative
from trainers.modules.loading import tokenize
from trainers.modules.prompts import CoupledPrompt, IndependentPrompt, IndependentTemplates, check_independent
from trainers.modules.text import TextEncoder, TextPrompt
from trainers.modules.vision import ImageEncoder, VisualPrompt

NAMES = ["dog", "a rather long class name", "striped_texture"]

# ------------------------------------------------------------------------------------------------------- the learners


@pytest.fixture(scope="module")
def clip_model():
    """Text and vision side of unequal width and depth."""
    torch.manual_seed(0)
    return random_clip(vision_width=128, vision_layers=3, transformer_layers=2)


@pytest.fixture
def encoders(clip_model):
    return TextEncoder(clip_model), ImageEncoder(clip_model)


def plain_text(clip_model, ctx, deep, texts):
    """Features of `[SOS][ctx][words]` `(C, D)` in all 77 positions, as CLIP computes them, tokens put in before layers.

    `texts` have as many words in the place of the context.
    """
    n_ctx = len(ctx)
    tokens = [tokenize(text) for text in texts]
    padded = torch.tensor([[*text, *[0] * (77 - len(text))] for text in tokens])

    def put(x, new):
        return torch.cat([x[:, :1], new.expand(len(x), -1, -1), x[:, 1 + n_ctx :]], dim=1)

    x = put(clip_model.token_embedding(padded), ctx) + clip_model.positional_embedding
    for layer, block in enumerate(clip_model.transformer.resblocks):
        if 0 < layer <= len(deep):
            x = put(x, deep[layer - 1])
        x = block(x.transpose(0, 1)).transpose(0, 1)
    ends = torch.tensor([len(text) - 1 for text in tokens])
    return clip_model.ln_final(x)[torch.arange(len(x)), ends] @ clip_model.text_projection


@pytest.mark.parametrize("words", ["", "a photo of a"])
@pytest.mark.parametrize("depth", [1, 2])
def test_text_equals_the_plain_computation(clip_model, encoders, words, depth):
    """Outputs and gradients; the words that do not learn stay where they are."""
    learner = IndependentPrompt(*encoders, NAMES, 3, depth, words, visual_depth=0)
    features = encoders[0](learner())[0]
    tokens = [learner.ctx, *learner.compound_prompts_text]
    copies = [t.detach().clone().requires_grad_() for t in tokens]
    stand_in = "x x x a" if words else "x x x"
    texts = [f"{stand_in} {name.replace('_', ' ')}." for name in NAMES]
    expected = plain_text(clip_model, copies[0], copies[1:], texts)
    weight = torch.randn_like(expected)
    (features * weight).sum().backward()
    (expected * weight).sum().backward()
    assert relative(features.detach(), expected.detach()) < 1e-5
    for ours, plain in zip(tokens, copies):
        assert relative(ours.grad, plain.grad) < 1e-5


def test_text_side_is_that_of_coupled_prompts(encoders):
    """With the same tokens both kinds give the same class embeddings; on the image side they share nothing."""
    coupled = CoupledPrompt(*encoders, NAMES, 2, 2, "a photo of a", 0.1)
    learner = IndependentPrompt(*encoders, NAMES, 2, 2, "a photo of a", 0.1)
    with torch.no_grad():
        learner.ctx.copy_(coupled.ctx)
        learner.compound_prompts_text[0].copy_(coupled.compound_prompts_text[0])
    assert torch.equal(encoders[0](learner()), encoders[0](coupled()))
    images = torch.randn(2, 3, SIZE, SIZE)
    encoders[1](images, learner.visual()).square().sum().backward()
    assert learner.ctx.grad is None
    assert learner.compound_prompts_text[0].grad is None


def test_images_see_the_learners_own_tokens(encoders):
    """Of another number and in another depth than the text's; each of them has a gradient."""
    learner = IndependentPrompt(*encoders, NAMES, 2, 1, visual_n_ctx=4, visual_depth=3)
    images = torch.randn(2, 3, SIZE, SIZE)
    features = encoders[1](images, learner.visual())
    tokens = [learner.visual_ctx, *learner.compound_prompts_visual]
    assert [tuple(t.shape) for t in tokens] == 3 * [(4, 128)]
    assert torch.equal(features, encoders[1](images, VisualPrompt(tokens[0][None], [t[None] for t in tokens[1:]])))
    assert relative(features[0], encoders[1](images)) > 1e-3
    features[..., 0].sum().backward()
    assert all(t.grad.norm() > 0 for t in tokens)


def test_defaults_are_the_texts_number_and_depth(encoders):
    shapes = {key: tuple(value.shape) for key, value in IndependentPrompt(*encoders, NAMES, 3, 2).state_dict().items()}
    assert shapes == {
        "ctx": (3, 64),
        "compound_prompts_text.0": (3, 64),
        "visual_ctx": (3, 128),
        "compound_prompts_visual.0": (3, 128),
    }


def test_state_has_no_class_names(encoders):
    learner = IndependentPrompt(*encoders, NAMES, 3, 2)
    other = IndependentPrompt(*encoders, ["others"], 3, 2, "with some words")
    other.load_state_dict(learner.state_dict())
    assert encoders[0](other()).shape == (1, 1, 48)


def test_random_tokens_are_small_and_differ(encoders):
    learner = IndependentPrompt(*encoders, NAMES, 50, 2)
    tokens = list(learner.parameters())
    assert all(0.018 < t.std() < 0.022 and t.mean().abs() < 0.002 for t in tokens)
    assert not torch.equal(learner.ctx, learner.compound_prompts_text[0])
    assert not torch.equal(learner.visual_ctx, learner.compound_prompts_visual[0])


@pytest.mark.parametrize("visual_depth", [0, 1, 3])
def test_templates_together_are_each_alone(encoders, visual_depth):
    words = ["a photo of a", "one picture of the"]
    learner = IndependentTemplates(*encoders, NAMES, 2, 3, 2, words, 0.01, 5, visual_depth)
    images = torch.randn(2, 2, 3, SIZE, SIZE)
    text, views = encoders[0](learner()), encoders[1](images, learner.visual())
    for m, template in enumerate(learner.templates):
        assert relative(text[m], encoders[0](template())[0]) < 1e-5
        expected = encoders[1](images[m], template.visual())
        assert relative(views[m], expected[0] if visual_depth else expected) < 1e-5
    assert [name.split(".", 2)[2] for name in learner.state_dict()] == 2 * list(learner.templates[0].state_dict())


@pytest.mark.parametrize(("depth", "visual_depth"), [(2, 0), (1, 1)])
def test_templates_with_the_same_words_start_apart(encoders, depth, visual_depth):
    learner = IndependentTemplates(*encoders, NAMES, 2, 2, depth, ["a photo of a"], 0.0, None, visual_depth)
    assert torch.equal(learner.templates[0].ctx, learner.templates[1].ctx)
    text, image = encoders[0](learner()), torch.randn(1, 3, SIZE, SIZE)
    views = encoders[1](image, learner.visual()).expand(2, 1, -1)
    assert (relative(text[0], text[1]) > 1e-3) == (depth > 1)
    assert (relative(views[0], views[1]) > 1e-3) == (visual_depth > 0)


def test_prompts_of_the_text_alone_need_no_vision_transformer():
    clip_model = random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None)
    encoders = TextEncoder(clip_model), ImageEncoder(clip_model)
    learner = IndependentPrompt(*encoders, NAMES, 2, 3, visual_depth=0)
    assert learner.visual() is None
    assert isinstance(learner(), TextPrompt)
    assert F.normalize(encoders[0](learner()), dim=-1).isfinite().all()
    with pytest.raises(ValueError, match="needs a ViT"):
        IndependentPrompt(*encoders, NAMES, 2, 3, visual_depth=1)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 2, 0, ["a photo of a"]), "at least 1, got 0"),
        ((1, 2, 3, ["a photo of a"], 0.0, None, 3), "from 1 to 2, .* got 3"),
        ((1, 2, 1, ["a photo of a"], 0.0, None, 4), "visual prompt depth must be from 0 to 3, .* got 4"),
        ((1, 2, 1, ["a photo of a"], 0.0, None, -1), "visual prompt depth must be at least 0, got -1"),
        ((1, 2, 1, ["a photo of a"], 0.0, 0, 1), "at least 1 visual context token, got 0"),
        ((1, 5, 1, ["a photo of a"]), "at least as many tokens as the context, 5; 'a photo of a' has 4"),
        ((3, 2, 1, ["a photo", "one more"]), "0, 1 or 3 wordings"),
        ((2, 2, 1, ["a photo", "one more of"]), "same number of tokens"),
        ((2, 2, 1, ["a photo of a"], 0.0, None, 0), "need as many different wordings"),
        ((0, 2, 1, []), "at least 1"),
        ((2, 0, 1, []), "at least 1"),
    ],
)
def test_wrong_templates_are_told(encoders, arguments, message):
    with pytest.raises(ValueError, match=message):
        IndependentTemplates(*encoders, NAMES, *arguments)


def test_wrong_backbone_is_told_before_it_is_loaded():
    check_independent(9, 0, 0, "RN50")
    with pytest.raises(ValueError, match="needs a ViT, got the backbone RN50"):
        check_independent(9, 1, 4, "RN50")
