"""Independent deep prompts, and PromptSRC against its published code."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dassl.config import get_cfg_default

from helpers import GOLDEN, HALF, ROOT, SIZE, checkout_of, random_clip, relative, results_of
from parity import assert_same_from_start, live_numbers, named, note_parity, read_numbers, start_as_published
from trainers.modules.loading import tokenize
from trainers.modules.prompts import CoupledPrompt, IndependentPrompt, IndependentTemplates, check_independent
from trainers.modules.self_regulation import gaussian_weights
from trainers.modules.templates import PROMPTSRC_TEMPLATES
from trainers.modules.text import TextEncoder, TextPrompt
from trainers.modules.vision import ImageEncoder, VisualPrompt

sys.path.append(str(GOLDEN))  # where the golden scripts find each other
make_coop, make_promptsrc = (importlib.import_module(name) for name in ("make_coop", "make_promptsrc"))

NAMES = ["dog", "a rather long class name", "striped_texture"]
CONFIGS = ROOT / "configs/trainers/PromptSRC"


# ---------------------------------------------------------------------------------------------- the published numbers


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(make_promptsrc.small_clip_state(), path)
    return str(path)


@pytest.fixture(scope="module")
def golden():
    return read_numbers(GOLDEN / "promptsrc.npz")


def collect(case: str, clip_file: str, published: dict) -> dict[str, np.ndarray]:
    """The numbers of this project's trainer from the published start."""
    trainer = make_promptsrc.build_case(case, clip_file)
    start_as_published(trainer, case, published)
    found = make_promptsrc.drive(
        trainer, lambda: named(trainer), lambda images: {"logits": trainer.model_inference(images)}
    )
    return {"frozen_texts": trainer.frozen_texts.numpy(), **found}


def assert_same(case: str, clip_file: str, published: dict) -> None:
    """Frozen features, logits, losses, gradients, parameters after five steps, the epochs' average after six."""
    ours = collect(case, clip_file, published)
    logged = {"loss_ce", "loss_text", "loss_image", "loss_logits", "acc"}  # the published code logs the loss alone
    assert_same_from_start(case, ours, published, logged)


@pytest.mark.parametrize("case", make_promptsrc.CASES)
def test_numbers_are_those_of_the_published_code(case, golden_clip, golden):
    assert_same(case, golden_clip, golden)


@pytest.mark.parametrize("case", make_promptsrc.CASES)
def test_start_is_the_published_one(case, golden_clip, golden):
    """The words' embeddings are the same numbers. All else comes from one normal distribution in both."""
    ours = named(make_promptsrc.build_case(case, golden_clip))
    assert {f"{case}/start.{name}" for name in ours} == {key for key in golden if key.startswith(f"{case}/start.")}
    for name, parameter in ours.items():
        expected = golden[f"{case}/start.{name}"]
        assert parameter.shape == expected.shape
        if name == "prompt_learner.ctx" and case != "random":
            assert np.array_equal(parameter.detach().numpy(), expected)
        else:
            assert all(0.015 < values.std() < 0.025 for values in (parameter.detach().numpy(), expected)), name


@pytest.mark.upstream
def test_numbers_and_checkpoint_of_the_published_code_live(golden_clip, golden, tmp_path):
    live = live_numbers("make_promptsrc.py", "PROMPTSRC_CHECKOUT", tmp_path)
    assert set(live) == set(golden)
    for case in make_promptsrc.CASES:
        assert_same(case, golden_clip, live)

    trainer = make_promptsrc.build_case("published", golden_clip)
    trainer.load_model(str(tmp_path), epoch=make_promptsrc.EPOCHS)
    trainer.set_model_mode("eval")
    with torch.no_grad():
        logits = trainer.model_inference(make_coop.batches(7)[-1]["img"])
    assert relative(logits, live["published/end_logits"]) < 1e-5
    note_parity("PromptSRC", "PROMPTSRC_CHECKOUT")


def test_configs_hold_the_published_values():
    found = {}
    for name in ("ep20_batch4_4+4ctx", "ep20_batch4_4+4ctx_cross_datasets", "ep50_batch4_4+4ctx_few_shot"):
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"vit_b16_c2_{name}.yaml"))
        options, optim = cfg.TRAINER.PROMPTSRC, cfg.OPTIM
        assert (options.N_CTX_TEXT, options.N_CTX_VISION, options.CTX_INIT) == (4, 4, "a photo of a")
        assert (options.TEXT_LOSS_WEIGHT, options.IMAGE_LOSS_WEIGHT, options.PREC) == (25, 10, "fp16")
        assert (optim.NAME, optim.LR, optim.LR_SCHEDULER, optim.WARMUP_EPOCH) == ("sgd", 0.0025, "cosine", 1)
        assert optim.WARMUP_CONS_LR == 1e-5
        assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.MODEL.BACKBONE.NAME) == (4, "ViT-B/16")
        assert options.PROMPT_DEPTH_TEXT == options.PROMPT_DEPTH_VISION
        found[name] = (optim.MAX_EPOCH, options.PROMPT_DEPTH_TEXT, options.GPA_MEAN, options.GPA_STD)
    assert list(found.values()) == [(20, 9, 15, 1), (20, 3, 6, 10), (50, 9, 30, 30)]


@pytest.mark.upstream
def test_configs_hold_the_published_values_live():
    published = sorted(Path(checkout_of("PROMPTSRC_CHECKOUT"), "configs/trainers/PromptSRC").glob("*.yaml"))
    assert len(published) == 3
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(CONFIGS / path.name))
        assert theirs == ours


@pytest.mark.upstream
def test_templates_are_the_published_ones_live(monkeypatch):
    monkeypatch.syspath_prepend(str(Path(checkout_of("PROMPTSRC_CHECKOUT"), "trainers")))
    assert list(PROMPTSRC_TEMPLATES) == importlib.import_module("imagenet_templates").IMAGENET_TEMPLATES


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
    names = learner.templates[0]()  # the first template has those of all
    for m, template in enumerate(learner.templates):
        own = template()._replace(suffix=names.suffix, eot_index=names.eot_index)
        assert relative(text[m], encoders[0](own)[0]) < 1e-5
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


# -------------------------------------------------------------------------------------------------------- the trainer


@pytest.fixture(scope="module")
def clip_file(clip_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(clip_model.state_dict(), path)
    return path


@pytest.fixture
def build(build_run, clip_file):
    def make(output, *opts, backbone=clip_file):
        depths = {"TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT": 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION": 3}
        average = {"TRAINER.PROMPTSRC.GPA_MEAN": 2, "TRAINER.PROMPTSRC.GPA_STD": 2}
        given = {**depths, **average, **dict(zip(opts[::2], opts[1::2]))}
        return build_run("PromptSRC", output, *(x for pair in given.items() for x in pair), backbone=backbone)

    return make


def state_of(trainer):
    return copy.deepcopy(trainer.learner.state_dict())


PUBLISHED_NAMES = {
    "prompt_learner.ctx",
    "text_encoder.transformer.resblocks.1.VPT_shallow",
    "image_encoder.VPT",
    "image_encoder.transformer.resblocks.1.VPT_shallow",
    "image_encoder.transformer.resblocks.2.VPT_shallow",
}


def test_only_prompts_learn_and_are_kept_by_their_published_names(build, tmp_path):
    trainer = build(tmp_path / "base")
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    learning = {name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is not None}
    assert learning == {f"prompt_learner.{name}" for name in state_of(trainer)}
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in learning), name
    checkpoint = torch.load(tmp_path / "base/VLPromptLearner/model.pth.tar-3", weights_only=True)
    assert set(checkpoint["state_dict"]) == PUBLISHED_NAMES

    tested = build(tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
    tested.load_model(str(tmp_path / "base"), epoch=3)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    assert all(torch.equal(value, state_of(tested)[name]) for name, value in state_of(trainer).items())


def test_tested_is_the_average_of_the_epochs(build, tmp_path):
    """By hand from the parameters after each epoch, of which the last ones are no longer in the trainer."""
    trainer = build(tmp_path, "TRAIN.CHECKPOINT_FREQ", 1)
    after, update = [], trainer.update_lr

    def keep(*args):
        after.append(state_of(trainer))
        update(*args)

    trainer.update_lr = keep
    trainer.train()
    weights = gaussian_weights(3, 2, 2)
    assert len(after) == 3
    for name, value in state_of(trainer).items():
        expected = sum(weight * state[name] for weight, state in zip(weights, after))
        torch.testing.assert_close(value, expected, rtol=1e-5, atol=1e-6)
        assert relative(value, after[-1][name]) > 1e-4
    # Until the last epoch the average is kept beside the parameters, which go on by themselves.
    kept = torch.load(tmp_path / "VLPromptLearner/model.pth.tar-2", weights_only=True)
    assert torch.equal(kept["state_dict"]["prompt_learner.ctx"], after[1]["ctx"])
    assert kept["resume"]["method"]["n_added"] == 2


@pytest.mark.parametrize("cut_at", [1, 2])
def test_resumed_run_ends_as_if_not_cut(build, tmp_path, cut_at):
    whole = build(tmp_path / "whole")
    whole.train()

    cut = build(tmp_path / "cut", "TRAIN.CHECKPOINT_FREQ", 1)
    before_epoch = cut.before_epoch

    def stop():
        if cut.epoch == cut_at:
            raise KeyboardInterrupt
        before_epoch()

    cut.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    torch.rand(7)  # whatever the new process has drawn until then
    resumed = build(tmp_path / "cut", "TRAIN.CHECKPOINT_FREQ", 1)
    resumed.train()
    assert resumed.start_epoch == cut_at
    assert all(torch.equal(value, state_of(resumed)[name]) for name, value in state_of(whole).items())


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (("OPTIM.MAX_EPOCH", 4), r"OPTIM\.MAX_EPOCH 3 in place of 4"),
        (("TRAINER.PROMPTSRC.GPA_MEAN", 1), r"TRAINER\.PROMPTSRC\.GPA_MEAN"),
    ],
)
def test_a_training_is_not_continued_with_other_weights_of_the_average(build, tmp_path, change, message):
    build(tmp_path).train()
    with pytest.raises(ValueError, match=f"training cannot go on from .*{message}"):
        build(tmp_path, *change).train()


def test_average_is_not_continued_with_other_weights(build, tmp_path):
    """Where the checkpoint, an older one, does not tell its settings."""
    build(tmp_path).train()
    path = tmp_path / "VLPromptLearner/model.pth.tar-3"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["settings"]
    torch.save(checkpoint, path)
    with pytest.raises(ValueError, match=r"training cannot go on from .*made with .*'mean': 2.0"):
        build(tmp_path, "TRAINER.PROMPTSRC.GPA_MEAN", 1).train()


def test_checkpoint_without_an_average_is_not_continued(build, tmp_path):
    build(tmp_path, "TRAIN.CHECKPOINT_FREQ", 1).train()
    path = tmp_path / "VLPromptLearner/model.pth.tar-2"
    checkpoint = torch.load(path, weights_only=True)
    del checkpoint["resume"]  # as the published code's
    torch.save(checkpoint, path)
    path.with_name("checkpoint").write_text(f"{path.name}\n")
    with pytest.raises(ValueError, match=r"can only be tested or be MODEL\.INIT_WEIGHTS: there is no average"):
        build(tmp_path).train()
    start = build(tmp_path / "start", "MODEL.INIT_WEIGHTS", path)
    assert torch.equal(start.learner.ctx, checkpoint["state_dict"]["prompt_learner.ctx"])
    assert start.average.n_added == 0


@pytest.mark.parametrize("precision", ["amp", "bf16", HALF])
def test_precisions(build, tmp_path, precision):
    trainer = build(tmp_path, "TRAINER.PROMPTSRC.PREC", precision, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state_of(trainer).values())
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    exact = build(tmp_path / "exact", "TRAINER.PROMPTSRC.PREC", "fp32")
    assert relative(trainer.frozen_texts, exact.frozen_texts) < 0.05
    exact = exact.model
    exact.prompt_learner.load_state_dict(state_of(trainer))
    with torch.no_grad():
        features = trainer.model.image_features(images)
        assert features.dtype == trainer.model_inference(images).dtype == torch.float32
        assert relative(features, exact.image_features(images)) < 0.05
        assert relative(trainer.model.text_features(), exact.text_features()) < 0.05


def test_without_visual_prompts_the_image_loss_is_none(build, tmp_path):
    """Then the image encoder may be a ResNet, as nothing is put into it."""
    torch.save(
        random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None).state_dict(),
        tmp_path / "resnet.pt",
    )
    options = ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 0)
    trainer = build(tmp_path / "run", *options, backbone=tmp_path / "resnet.pt")
    trainer.train()
    batch = next(iter(trainer.train_loader_x))
    _, logged = trainer.loss(batch)
    assert logged["loss_image"] == 0
    assert logged["loss_text"] > 0
    with pytest.raises(ValueError, match=r"needs a ViT.*ModifiedResNet"):
        build(tmp_path / "vit", backbone=tmp_path / "resnet.pt")


# ---------------------------------------------------------------------------------------------- CDC with its losses


@pytest.fixture
def build_cdc(build_run, clip_file):
    """CDC with independent templates under PromptSRC's losses."""

    def make(output, *opts, flags=()):
        own = {
            "PROMPT": "independent",
            "PROMPT_DEPTH": 2,
            "N_CTX": 2,
            "N_TEMPLATES": 2,
            "AUGMENTATIONS": [],
            "SELF_REGULATION.ENABLED": True,
            "SELF_REGULATION.GPA_MEAN": 2.0,
            "SELF_REGULATION.GPA_STD": 2.0,
        }
        given = [x for key, value in own.items() for x in (f"TRAINER.CDC.{key}", value)]
        return build_run("CDC", output, *given, *opts, backbone=clip_file, config="tiny", flags=flags)

    return make


def test_one_template_of_cdc_without_its_own_losses_is_promptsrc(build, build_cdc, tmp_path):
    size = ("PROMPT_DEPTH_TEXT", 2, "PROMPT_DEPTH_VISION", 2, "N_CTX_TEXT", 2, "N_CTX_VISION", 2)
    weights = ("TEXT_LOSS_WEIGHT", 25, "IMAGE_LOSS_WEIGHT", 10)  # CDC's
    given = [
        x
        for key, value in zip((size + weights)[::2], (size + weights)[1::2])
        for x in (f"TRAINER.PROMPTSRC.{key}", value)
    ]
    promptsrc = build(tmp_path / "promptsrc", *given)
    plain = {"N_TEMPLATES": 1, "DECISION": "mean", "BETA": 0.0, "GAMMA": 0.0, "EVIDENCE_SHIFT": 0.0}
    cdc = build_cdc(tmp_path / "cdc", *(x for key, value in plain.items() for x in (f"TRAINER.CDC.{key}", value)))
    state = {f"templates.0.{name}": value for name, value in state_of(promptsrc).items()}
    cdc.learner.load_state_dict(state)
    batch = {"img": torch.randn(3, 3, SIZE, SIZE), "label": torch.tensor([0, 1, 0])}
    for trainer in (cdc, promptsrc):
        trainer.batch_idx, trainer.num_batches, trainer.epoch = 0, 1, 0
    assert cdc.forward_backward(batch)["loss"] == pytest.approx(promptsrc.forward_backward(batch)["loss"], rel=1e-5)
    for name, value in state_of(promptsrc).items():
        assert relative(cdc.learner.state_dict()[f"templates.0.{name}"], value) < 1e-6, name
    assert set(cdc.average.total) == set(state)


@pytest.mark.parametrize("prompt", ["text", "coupled", "independent"])
def test_self_regulated_cdc_is_resumed_as_if_not_cut(build_cdc, tmp_path, prompt):
    opts = ("TRAINER.CDC.PROMPT", prompt, "TRAINER.CDC.CTX_INIT", [], "TRAINER.CDC.CTX_STD", 0.02)
    opts = (*opts, "OPTIM.MAX_EPOCH", 2)
    whole = build_cdc(tmp_path / "whole", *opts)
    epochs = []
    after_epoch = whole.after_epoch
    whole.after_epoch = lambda: (epochs.append(state_of(whole)), after_epoch())
    whole.train()
    cut = build_cdc(tmp_path / "cut", *opts, "TEST.NO_TEST", True)
    cut.max_epoch = 1
    cut.train()
    resumed = build_cdc(tmp_path / "cut", *opts)
    resumed.train()
    assert all(torch.equal(value, state_of(resumed)[name]) for name, value in state_of(whole).items())
    assert any(not torch.equal(value, epochs[0][name]) for name, value in state_of(whole).items())
    assert whole.average.complete
    parameters = dict(whole.learner.named_parameters())
    assert all(torch.equal(value, parameters[name]) for name, value in whole.average.total.items())
    plain = build_cdc(tmp_path / "cut", *opts, "TRAINER.CDC.SELF_REGULATION.ENABLED", False)
    with pytest.raises(ValueError, match=r"SELF_REGULATION\.ENABLED True in place of False"):
        plain.train()


def test_self_regulation_has_its_weights(build_cdc, tmp_path):
    """The loss is linear in each weight, and counts every template."""
    batch = {"img": torch.randn(2, 3, SIZE, SIZE), "img2": torch.randn(2, 3, SIZE, SIZE), "label": torch.tensor([0, 1])}
    trainer = build_cdc(tmp_path)
    trainer.epoch = 0
    node = trainer.options.SELF_REGULATION
    node.defrost()

    def loss(text, image, enabled=True):
        node.TEXT_LOSS_WEIGHT, node.IMAGE_LOSS_WEIGHT, node.ENABLED = text, image, enabled
        return trainer.loss(batch)[0].item()

    model = trainer.model
    views = torch.stack([batch["img"], batch["img2"]])
    with torch.no_grad():
        text, images = model.text_features(), model.image_features(views)
        plain = model.plain_image_features(views)
        expected = [(text[m] - trainer.frozen_texts).abs().mean() for m in range(2)]
        assert loss(1.0, 0.0) - loss(0.0, 0.0) == pytest.approx(sum(expected).item(), rel=1e-3)
        expected = [(images[m] - plain[m]).abs().mean() for m in range(2)]
        assert loss(0.0, 1.0) - loss(0.0, 0.0) == pytest.approx(sum(expected).item(), rel=1e-3)
        frozen = torch.log_softmax(model.scale * plain @ trainer.frozen_texts.T, dim=-1)
        own = torch.log_softmax(model.scale * images @ text.transpose(1, 2), dim=-1)
        expected = sum(F.kl_div(own[m], frozen[m], reduction="sum", log_target=True) / own[m].numel() for m in range(2))
        assert loss(0.0, 0.0) - loss(0.0, 0.0, enabled=False) == pytest.approx(expected.item(), rel=1e-3)


def published_state(trainer, clip_model):
    """What the published code would keep of this PromptSRC: all of CLIP twice, class names, all in half precision."""
    state = {key: p.detach().half() for key, p in named(trainer).items()}
    state["prompt_learner.token_prefix"] = torch.randn(2, 1, 64).half()
    state["prompt_learner.token_suffix"] = torch.randn(2, 72, 64).half()
    state["logit_scale"] = clip_model.logit_scale
    for name, value in clip_model.state_dict().items():
        if name.startswith("visual."):
            state[f"image_encoder.{name[len('visual.') :]}"] = value
            state[f"prompt_learner.ZS_image_encoder.{name[len('visual.') :]}"] = value
        elif name not in ("token_embedding.weight", "logit_scale"):
            state[f"text_encoder.{name}"] = value
    return state


def save_published(state, folder):
    path = folder / "VLPromptLearner/model.pth.tar-20"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 20, "optimizer": {}, "scheduler": {}, "val_result": None}, path)


def test_published_checkpoint_gives_the_same_logits(build, tmp_path, clip_model):
    trained = build(tmp_path / "run")
    trained.train()
    trained.learner.load_state_dict({name: value.half().float() for name, value in state_of(trained).items()})
    save_published(published_state(trained, clip_model), tmp_path)
    tested = build(tmp_path / "test")
    tested.load_model(str(tmp_path), epoch=20)
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(tested.model_inference(images), trained.model_inference(images))
    tested.test()
    assert results_of(tmp_path / "test")["epoch"] == 20


def test_foreign_checkpoint_is_told(build, tmp_path, clip_model):
    trainer = build(tmp_path / "run")
    state = published_state(trainer, clip_model)
    state["prompt_learner.proj.weight"] = state.pop("image_encoder.VPT")
    save_published(state, tmp_path)
    with pytest.raises(
        ValueError, match=r"has no image_encoder\.VPT; it has prompt_learner\.proj\.weight, which is not"
    ):
        trainer.load_model(str(tmp_path), epoch=20)
    shallower = build(tmp_path / "shallower", "TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2)
    save_published(published_state(trainer, clip_model), tmp_path / "deep")
    with pytest.raises(ValueError, match=r"has image_encoder\.transformer\.resblocks\.2\.VPT_shallow, which is not"):
        shallower.load_model(str(tmp_path / "deep"), epoch=20)


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (("PROMPT_DEPTH_TEXT", 0), "prompt depth must be at least 1, got 0"),
        (("PROMPT_DEPTH_TEXT", 3), "from 1 to 2, .* got 3"),
        (("PROMPT_DEPTH_VISION", 4), "from 0 to 3, .* got 4"),
        (("N_CTX_VISION", 0), "at least 1 visual context token"),
        (("N_CTX_TEXT", 0), "at least 1"),
        (("CTX_INIT", "a photo"), "at least as many tokens as the context, 4"),
        (("GPA_STD", 0), "standard deviation above 0, got 3 and 0"),
        (("TEXT_LOSS_WEIGHT", -1, "IMAGE_LOSS_WEIGHT", -2), "TEXT_LOSS_WEIGHT .* got -1; IMAGE_LOSS_WEIGHT .* got -2"),
        (("PREC", "fp8"), "PREC must be one of"),
    ],
)
def test_wrong_config_is_told(build, tmp_path, options, message):
    keyed = [f"TRAINER.PROMPTSRC.{x}" if n % 2 == 0 else x for n, x in enumerate(options)]
    with pytest.raises(ValueError, match=message):
        build(tmp_path, *keyed)
