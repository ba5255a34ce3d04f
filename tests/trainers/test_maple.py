"""Coupled deep prompts: MaPLe against its published code, image encoder under prompts, CDC's coupled templates."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dassl.config import get_cfg_default

from helpers import GOLDEN, HALF, ROOT, SIZE, checkout_of, random_clip, relative, results_of
from parity import live_numbers, note_parity, read_numbers
from trainers.modules.loading import tokenize
from trainers.modules.prompts import CoupledPrompt, CoupledTemplates
from trainers.modules.text import TextEncoder
from trainers.modules.vision import ImageEncoder, VisualPrompt

sys.path.append(str(GOLDEN))  # where the golden scripts find each other
make_coop, make_maple = (importlib.import_module(name) for name in ("make_coop", "make_maple"))

NAMES = ["dog", "a rather long class name", "striped_texture"]
CONFIGS = ROOT / "configs/trainers/MaPLe"


# ---------------------------------------------------------------------------------------------- the published numbers


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(make_maple.clip_state(), path)
    return str(path)


@pytest.fixture(scope="module")
def ours(golden_clip):
    return make_maple.collect(golden_clip)


def assert_same(ours, published) -> None:
    """Every number of the published code: start, logits, losses, gradients, and the parameters after four steps."""
    assert {key for key in ours if not key.endswith("/acc")} == set(published)  # the published code logs the loss alone
    for key, expected in published.items():
        assert np.linalg.norm(expected) > 0, key
        # Four steps of a large rate multiply rounding errors; the parameters' way there is compared below.
        assert relative(ours[key], expected) < (1e-4 if key.endswith("end_logits") else 1e-5), key
        if "/end." in key:
            start = key.replace("/end.", "/start.")
            assert relative(ours[key] - ours[start], expected - published[start]) < 1e-4, key
        if "/start." in key:
            assert np.array_equal(ours[key], expected), key


def test_configs_hold_the_published_values():
    """The numbers of the paper's implementation details, base-to-new and cross-data-set."""
    found = {}
    for name in ("", "_cross_datasets"):
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"vit_b16_c2_ep5_batch4_2ctx{name}.yaml"))
        options, optim = cfg.TRAINER.MAPLE, cfg.OPTIM
        assert (options.N_CTX, options.CTX_INIT, options.PREC) == (2, "a photo of a", "fp16")
        assert (optim.NAME, optim.LR_SCHEDULER, optim.WARMUP_EPOCH, optim.WARMUP_CONS_LR) == ("sgd", "cosine", 1, 1e-5)
        assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.MODEL.BACKBONE.NAME) == (4, "ViT-B/16")
        found[name] = (optim.LR, optim.MAX_EPOCH, options.PROMPT_DEPTH)
    assert found == {"": (0.0035, 5, 9), "_cross_datasets": (0.0026, 2, 3)}


@pytest.mark.upstream
def test_configs_hold_the_published_values_live():
    published = sorted(Path(checkout_of("MAPLE_CHECKOUT"), "configs/trainers/MaPLe").glob("*.yaml"))
    assert published
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(CONFIGS / path.name))
        assert theirs == ours


def test_numbers_are_those_of_the_published_code(ours):
    assert_same(ours, read_numbers(GOLDEN / "maple.npz"))


@pytest.mark.upstream
def test_numbers_and_checkpoint_of_the_published_code_live(ours, golden_clip, tmp_path):
    published = live_numbers("make_maple.py", "MAPLE_CHECKOUT", tmp_path)
    assert_same(ours, published)

    trainer = make_maple.build_case("published", golden_clip)
    trainer.load_model(str(tmp_path), epoch=5)
    trainer.set_model_mode("eval")
    with torch.no_grad():
        logits = trainer.model_inference(make_coop.batches(5)[-1]["img"])
    assert relative(logits, published["published/end_logits"]) < 1e-5
    note_parity("MaPLe", "MAPLE_CHECKOUT")


# -------------------------------------------------------------------------------------------------- encoders, learners


@pytest.fixture(scope="module")
def clip_model():
    """Text and vision side of unequal width and depth."""
    torch.manual_seed(0)
    return random_clip(vision_width=128, vision_layers=3, transformer_layers=2)


@pytest.fixture(scope="module")
def resnet_clip():
    return random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None)


@pytest.fixture
def encoders(clip_model):
    return TextEncoder(clip_model), ImageEncoder(clip_model)


def plain(clip_model, images, shallow, deep):
    """One template's image features, `(B, 3, S, S)` to `(B, D)`, written down as CLIP does it."""
    visual, n_images, n_tokens = clip_model.visual, len(images), len(shallow)
    patches = visual.conv1(images).reshape(n_images, -1, (SIZE // 8) ** 2).permute(0, 2, 1)
    x = torch.cat([visual.class_embedding.expand(n_images, 1, -1), patches], dim=1) + visual.positional_embedding
    x = visual.ln_pre(torch.cat([x, shallow.expand(n_images, -1, -1)], dim=1))
    for layer, block in enumerate(visual.transformer.resblocks):
        if 0 < layer <= len(deep):
            x = torch.cat([x[:, : x.shape[1] - n_tokens], deep[layer - 1].expand(n_images, -1, -1)], dim=1)
        x = block(x.permute(1, 0, 2)).permute(1, 0, 2)
    return F.normalize(visual.ln_post(x[:, 0]) @ visual.proj, dim=-1)


@pytest.mark.parametrize("n_deep", [0, 1, 2])
@pytest.mark.parametrize("own_views", [True, False])
def test_prompted_images_equal_the_plain_computation(clip_model, encoders, n_deep, own_views):
    """Outputs and gradients of M templates in one batch against template by template; deep prompts reach all layers."""
    images = torch.randn(3, 2, 3, SIZE, SIZE) if own_views else torch.randn(2, 3, SIZE, SIZE)
    tokens = [torch.randn(3, 4, 128, requires_grad=True) for _ in range(1 + n_deep)]
    copies = [t.detach().clone().requires_grad_() for t in tokens]
    together = encoders[1](images, VisualPrompt(tokens[0], tokens[1:]))
    one_by_one = torch.stack(
        [
            plain(clip_model, images[m] if own_views else images, copies[0][m], [t[m] for t in copies[1:]])
            for m in range(3)
        ]
    )
    weight = torch.randn_like(one_by_one)
    (together * weight).sum().backward()
    (one_by_one * weight).sum().backward()
    assert together.shape == (3, 2, 48)
    assert relative(together.detach(), one_by_one.detach()) < 1e-5
    for ours, expected in zip(tokens, copies):
        assert relative(ours.grad, expected.grad) < 1e-5


@pytest.mark.parametrize(("own_views", "rows"), [(False, 2 * 17 + 3 * 4), (True, 3 * 2 * (17 + 4))])
def test_what_templates_share_of_the_first_layer_is_computed_once(clip_model, encoders, own_views, rows):
    """Of 2 images with 16 patches and 3 templates with 4 tokens each: how many tokens get queries, keys and values."""
    images = torch.randn(3, 2, 3, SIZE, SIZE) if own_views else torch.randn(2, 3, SIZE, SIZE)
    seen = []
    first = clip_model.visual.transformer.resblocks[0]
    hook = first.ln_1.register_forward_hook(lambda layer, given, result: seen.append(result[..., 0].numel()))
    encoders[1](images, VisualPrompt(torch.randn(3, 4, 128)))
    hook.remove()
    assert sum(seen) == rows


@pytest.mark.parametrize("kind", ["clip_model", "resnet_clip"])
def test_images_without_prompts_are_clips_own(request, kind):
    model = request.getfixturevalue(kind)
    encoder = ImageEncoder(model)
    images = torch.randn(2, 3, 3, SIZE, SIZE)
    features = encoder(images)
    expected = F.normalize(torch.stack([model.visual(views) for views in images]), dim=-1)
    torch.testing.assert_close(features, expected, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(encoder(images[1]), expected[1], rtol=1e-5, atol=1e-6)
    with pytest.raises(ValueError, match=r"32 x 32 pixels, got 32 x 40"):
        encoder(torch.randn(2, 3, 32, 40))


def test_no_prompt_tokens_change_nothing(encoders):
    images = torch.randn(2, 3, SIZE, SIZE)
    features = encoders[1](images, VisualPrompt(torch.zeros(1, 0, 128)))[0]
    torch.testing.assert_close(features, encoders[1](images), rtol=1e-5, atol=1e-6)


def test_words_behind_the_context_stay(clip_model, encoders):
    """Of "a photo of a" two tokens learn; untouched and shallow, the text side is plain CLIP's."""
    learner = CoupledPrompt(*encoders, NAMES, 2, 1, "a photo of a", std=0.0)
    expected = encoders[0].encode_texts([f"a photo of a {name}." for name in NAMES])
    torch.testing.assert_close(F.normalize(encoders[0](learner())[0], dim=-1), expected, rtol=1e-5, atol=1e-6)
    with torch.no_grad():
        learner.ctx.copy_(encoders[0].embed(torch.tensor(tokenize("one big")[1:-1])))
    expected = encoders[0].encode_texts([f"one big of a {name}." for name in NAMES])
    torch.testing.assert_close(F.normalize(encoders[0](learner())[0], dim=-1), expected, rtol=1e-5, atol=1e-6)


def test_state_has_the_published_names_and_no_class_names(encoders):
    learner = CoupledPrompt(*encoders, NAMES, 3, 2)
    shapes = {key: tuple(value.shape) for key, value in learner.state_dict().items()}
    assert shapes == {
        "ctx": (3, 64),
        "proj.weight": (128, 64),
        "proj.bias": (128,),
        "compound_prompts_text.0": (3, 64),
        "compound_prompt_projections.0.weight": (128, 64),
        "compound_prompt_projections.0.bias": (128,),
    }
    other = CoupledPrompt(*encoders, ["others"], 3, 2, "with some words")
    other.load_state_dict(learner.state_dict())
    assert encoders[0](other()).shape == (1, 1, 48)


def test_templates_together_are_each_alone(encoders):
    words = ["a photo of a", "one picture of the"]
    learner = CoupledTemplates(*encoders, NAMES, 2, 3, 2, words, 0.01)
    images = torch.randn(2, 2, 3, SIZE, SIZE)
    text, views = encoders[0](learner()), encoders[1](images, learner.visual())
    names = learner.templates[0]()  # the first template has those of all
    for m, template in enumerate(learner.templates):
        own = template()._replace(suffix=names.suffix, eot_index=names.eot_index)
        assert relative(text[m], encoders[0](own)[0]) < 1e-5
        assert relative(views[m], encoders[1](images[m], template.visual())[0]) < 1e-5
    assert [name.split(".", 2)[2] for name in learner.state_dict()] == 2 * list(learner.templates[0].state_dict())


def test_templates_with_the_same_words_start_apart(encoders):
    learner = CoupledTemplates(*encoders, NAMES, 2, 2, 2, ["a photo of a"], 0.0)
    assert torch.equal(learner.templates[0].ctx, learner.templates[1].ctx)
    text, views = encoders[0](learner()), encoders[1](torch.randn(2, 3, SIZE, SIZE), learner.visual())
    assert relative(text[0], text[1]) > 1e-3
    assert relative(views[0], views[1]) > 1e-3


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((1, 2, 0, ["a photo of a"]), "from 1 to 2, .* got 0"),
        ((1, 2, 3, ["a photo of a"]), "from 1 to 2, .* got 3"),
        ((1, 5, 1, ["a photo of a"]), "at least as many tokens as the context, 5; 'a photo of a' has 4"),
        ((3, 2, 1, ["a photo", "one more"]), "0, 1 or 3 wordings"),
        ((2, 2, 1, ["a photo", "one more of"]), "same number of tokens"),
        ((0, 2, 1, []), "at least 1"),
        ((2, 0, 1, []), "at least 1"),
    ],
)
def test_wrong_templates_are_told(encoders, arguments, message):
    with pytest.raises(ValueError, match=message):
        CoupledTemplates(*encoders, NAMES, *arguments)


def test_class_name_too_long_for_all_words(encoders):
    CoupledPrompt(*encoders, ["word " * 70], 2, 1, "a photo of a")
    with pytest.raises(ValueError, match=r"class name too long.* has 78"):
        CoupledPrompt(*encoders, ["word " * 71], 2, 1, "a photo of a")


# ------------------------------------------------------------------------------------------------------- the trainers


@pytest.fixture(scope="module")
def clip_file(clip_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(clip_model.state_dict(), path)
    return path


@pytest.fixture
def build(build_run, clip_file):
    """A trainer of MaPLe, or of CDC with coupled templates."""

    def make(trainer, output, *opts, backbone=clip_file):
        opts = ("OPTIM.MAX_EPOCH", 2, f"TRAINER.{trainer.upper()}.PROMPT_DEPTH", 2, *opts)
        if trainer == "MaPLe":
            return build_run("MaPLe", output, *opts, backbone=backbone)
        augmentations = [["random_resized_crop", "normalize"], ["colorjitter", "normalize"]]
        opts = ("TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.AUGMENTATIONS", augmentations, *opts)
        opts = ("TRAINER.CDC.EVIDENCE_SCALE", 10.0, *opts)
        return build_run("CDC", output, *opts, backbone=backbone, config="tiny")

    return make


def state_of(trainer):
    return copy.deepcopy(trainer.model.prompt_learner.state_dict())


@pytest.mark.parametrize("kind", ["MaPLe", "CDC"])
def test_only_prompts_learn_and_are_kept(build, tmp_path, kind):
    trainer = build(kind, tmp_path / "base")
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    learning = {name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is not None}
    assert learning == {f"prompt_learner.{name}" for name in state_of(trainer)}
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in learning), name

    folder = "MultiModalPromptLearner" if kind == "MaPLe" else "prompt_learner"
    prefix = "prompt_learner." if kind == "MaPLe" else ""
    checkpoint = torch.load(tmp_path / "base" / folder / "model.pth.tar-2", weights_only=True)
    assert set(checkpoint["state_dict"]) == {prefix + name for name in state_of(trainer)}

    tested = build(kind, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
    tested.load_model(str(tmp_path / "base"), epoch=2)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    assert all(torch.equal(value, state_of(tested)[name]) for name, value in state_of(trainer).items())


@pytest.mark.parametrize("kind", ["MaPLe", "CDC"])
def test_resumed_run_ends_as_if_not_cut(build, tmp_path, kind):
    whole = build(kind, tmp_path / "whole")
    whole.train()

    cut = build(kind, tmp_path / "cut")
    before_epoch = cut.before_epoch

    def stop():
        if cut.epoch == 1:
            raise KeyboardInterrupt
        before_epoch()

    cut.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    torch.rand(7)  # whatever the new process has drawn until then
    resumed = build(kind, tmp_path / "cut")
    resumed.train()
    assert all(torch.equal(value, state_of(resumed)[name]) for name, value in state_of(whole).items())


@pytest.mark.parametrize("kind", ["MaPLe", "CDC"])
@pytest.mark.parametrize("precision", ["amp", "bf16", HALF])
def test_precisions(build, tmp_path, kind, precision):
    trainer = build(kind, tmp_path, f"TRAINER.{kind.upper()}.PREC", precision, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state_of(trainer).values())
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    exact = build(kind, tmp_path / "exact", f"TRAINER.{kind.upper()}.PREC", "fp32").model
    exact.prompt_learner.load_state_dict(state_of(trainer))
    with torch.no_grad():
        features = trainer.model.image_features(images)
        assert features.dtype == trainer.model_inference(images).dtype == torch.float32
        assert relative(features, exact.image_features(images)) < 0.05
        assert relative(trainer.model.text_features(), exact.text_features()) < 0.05


def test_one_coupled_template_is_maple(build, tmp_path):
    maple = build("MaPLe", tmp_path / "a").model
    one = ("TRAINER.CDC.N_TEMPLATES", 1, "TRAINER.CDC.AUGMENTATIONS", [])
    cdc = build("CDC", tmp_path / "b", *one).model
    cdc.prompt_learner.load_state_dict(
        {f"templates.0.{name}": value for name, value in maple.prompt_learner.state_dict().items()}
    )
    images, labels = torch.randn(3, 3, SIZE, SIZE), torch.tensor([0, 1, 0])
    assert torch.equal(cdc.text_features(), maple.text_features())
    assert torch.equal(cdc.image_features(images), maple.image_features(images))
    logits = cdc.scale * (cdc.image_features(images) @ cdc.text_features().transpose(1, 2))[0]
    F.cross_entropy(logits, labels).backward()
    F.cross_entropy(maple(images), labels).backward()
    for ours, expected in zip(cdc.prompt_learner.parameters(), maple.prompt_learner.parameters()):
        assert relative(ours.grad, expected.grad) < 1e-4


def test_kept_text_features_are_never_stale(build, tmp_path):
    model = build("CDC", tmp_path).model
    with torch.no_grad():
        first = model.text_features()
        assert model.text_features() is first
        model.prompt_learner.templates[1].compound_prompts_text[0].add_(1.0)
        second = model.text_features()
    assert torch.equal(second[0], first[0])
    assert not torch.equal(second[1], first[1])


def test_every_template_encodes_its_view_under_its_prompts(build, tmp_path):
    trainer = build("CDC", tmp_path, "TRAINER.CDC.TEST_VIEWS", True)
    model = trainer.model
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    with torch.no_grad():
        text = model.text_features()
        evidence = model.log_evidence(model.image_features(images), text)
        assert evidence.shape == (2, 6, 2)
        shared = model.log_evidence(model.image_features(images[1]), text)
        torch.testing.assert_close(shared[1], evidence[1], rtol=1e-4, atol=1e-4)
        assert relative(shared[0], evidence[0]) > 1e-3
        model.prompt_learner.templates[0].proj.weight.neg_()
        moved = model.log_evidence(model.image_features(images), text)
    assert relative(moved[0], evidence[0]) > 1e-3
    torch.testing.assert_close(moved[1], evidence[1], rtol=1e-5, atol=1e-5)


def gradients_of(trainer, batch) -> tuple[torch.Tensor, dict, list[torch.Tensor]]:
    """Loss, what is logged, and the gradients of the loss, of one batch."""
    trainer.optim.zero_grad()
    loss, logged = trainer.loss(batch)
    loss.backward()
    return loss.detach(), logged, [parameter.grad.clone() for parameter in trainer.learner.parameters()]


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"KL_WEIGHT": 1.0},
        {"DECISION": "mean"},
        {"FUSED_LOSS": True},
        {"INVARIANT_MAP.ENABLED": True},
        {"PROMPT": "independent"},
        {"SELF_REGULATION.ENABLED": True},
        {"SELF_REGULATION.ENABLED": True, "INVARIANT_MAP.ENABLED": True},
    ],
)
@pytest.mark.parametrize("n_at_once", [1, 2])
def test_templates_one_after_the_other_have_the_same_gradients(build, tmp_path, monkeypatch, options, n_at_once):
    """In parts, each with its own backward pass, against all templates in one graph."""
    given = [x for key, value in options.items() for x in (f"TRAINER.CDC.{key}", value)]
    trainer = build("CDC", tmp_path, "TRAINER.CDC.N_TEMPLATES", 3, "TRAINER.CDC.AUGMENTATIONS", [], *given)
    trainer.epoch = 1
    images = torch.randn(4, 3, 3, SIZE, SIZE)
    batch = {f"img{m + 1}" if m else "img": images[:, m] for m in range(3)} | {"label": torch.tensor([0, 1, 1, 0])}
    n_tokens = 4 * (1 + (SIZE // 8) ** 2 + 2)
    with monkeypatch.context() as patch:
        patch.setattr("trainers.modules.vision.TOKENS_AT_ONCE", n_at_once * n_tokens)
        assert len(trainer.model.image_encoder.parts(trainer.learner.visual(), 4)) == -(-3 // n_at_once)
        loss, logged, found = gradients_of(trainer, batch)
        patch.setattr("trainers.cdc.differentiate_now", lambda function, *inputs, scale: function(*inputs))
        patch.setattr("trainers.modules.vision.TOKENS_AT_ONCE", 10**6)
        plain_loss, plain_logged, expected = gradients_of(trainer, batch)
    assert relative(loss, plain_loss) < 1e-6
    for name, value in plain_logged.items():
        torch.testing.assert_close(logged[name], value, rtol=1e-5, atol=1e-5)
    assert all(relative(ours, theirs) < 1e-5 for ours, theirs in zip(found, expected))


def test_scaler_of_amp_reaches_every_part(build, tmp_path, monkeypatch):
    """The backward pass of a part is taken before the scaler sees the loss."""
    monkeypatch.setattr("trainers.modules.vision.TOKENS_AT_ONCE", 1)
    scales = []

    def recorded(function, *inputs, scale):
        scales.append(scale)
        return function(*inputs)

    monkeypatch.setattr("trainers.cdc.differentiate_now", recorded)
    trainer = build("CDC", tmp_path)
    trainer.epoch, trainer.scaler = 0, SimpleNamespace(scale=lambda loss: 2.0 * loss)
    images = torch.randn(2, 2, 3, SIZE, SIZE)
    trainer.loss({"img": images[0], "img2": images[1], "label": torch.tensor([0, 1])})
    assert scales == [trainer.scaler.scale] * 2


def kept_for_the_gradient(trainer, batch) -> int:
    """The most numbers that the graph of one loss keeps at a time."""
    now = most = 0

    class Kept:
        def __init__(self, tensor):
            nonlocal now, most
            self.tensor = tensor
            now += tensor.numel()
            most = max(most, now)

        def __del__(self):
            nonlocal now
            now -= self.tensor.numel()

    with torch.autograd.graph.saved_tensors_hooks(Kept, lambda kept: kept.tensor):
        trainer.loss(batch)[0].backward()
    return most


def test_memory_does_not_grow_with_the_templates(build, tmp_path, monkeypatch):
    monkeypatch.setattr("trainers.modules.vision.TOKENS_AT_ONCE", 1)
    most = {}
    for n_templates in (1, 8):
        opts = ("TRAINER.CDC.N_TEMPLATES", n_templates, "TRAINER.CDC.AUGMENTATIONS", [])
        trainer = build("CDC", tmp_path / str(n_templates), *opts)
        images = torch.randn(8, 16, 3, SIZE, SIZE)
        batch = {f"img{m + 1}" if m else "img": images[m] for m in range(n_templates)}
        most[n_templates] = kept_for_the_gradient(trainer, {**batch, "label": torch.tensor([0, 1] * 8)})
    assert most[8] < 1.3 * most[1]


def published_state(trainer, clip_model):
    """What the published code would keep of this MaPLe: all of CLIP, class names, the first layer in half precision."""
    learner = trainer.model.prompt_learner
    state = {f"prompt_learner.{name}": value for name, value in state_of(trainer).items()}
    state.update({name: state[name].half() for name in state if ".ctx" in name or ".proj." in name})
    state["prompt_learner.token_prefix"] = learner.sos.expand(2, 1, -1).half()
    state["prompt_learner.token_suffix"] = torch.randn(2, 74, 64).half()
    state["logit_scale"] = clip_model.logit_scale
    for name, value in clip_model.state_dict().items():
        if name.startswith("visual."):
            state[f"image_encoder.{name[len('visual.') :]}"] = value
        elif name != "token_embedding.weight":
            state[f"text_encoder.{name}"] = value
    return state


def save_published(state, folder):
    path = folder / "MultiModalPromptLearner/model.pth.tar-5"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 5, "optimizer": {}, "scheduler": {}, "val_result": None}, path)


def test_published_checkpoint_gives_the_same_logits(build, tmp_path, clip_model):
    trained = build("MaPLe", tmp_path / "run")
    trained.train()
    trained.model.prompt_learner.load_state_dict(
        {name: value.half().float() for name, value in state_of(trained).items()}
    )
    save_published(published_state(trained, clip_model), tmp_path)
    tested = build("MaPLe", tmp_path / "test")
    tested.load_model(str(tmp_path), epoch=5)
    images = torch.randn(3, 3, SIZE, SIZE)
    with torch.no_grad():
        assert torch.equal(tested.model_inference(images), trained.model_inference(images))
    tested.test()
    assert results_of(tmp_path / "test")["epoch"] == 5


def test_foreign_checkpoint_is_told(build, tmp_path, clip_model):
    trainer = build("MaPLe", tmp_path / "run")
    state = published_state(trainer, clip_model)
    state["prompt_learner.meta_net.linear1.weight"] = state.pop("prompt_learner.proj.bias")
    save_published(state, tmp_path)
    with pytest.raises(ValueError, match=r"has no prompt_learner\.proj\.bias; it has prompt_learner\.meta_net"):
        trainer.load_model(str(tmp_path), epoch=5)
    deeper = build("MaPLe", tmp_path / "deeper", "TRAINER.MAPLE.PROMPT_DEPTH", 1)
    save_published(published_state(trainer, clip_model), tmp_path / "deep")
    with pytest.raises(ValueError, match=r"has .*prompt_learner\.compound_prompts_text\.0, which are not known"):
        deeper.load_model(str(tmp_path / "deep"), epoch=5)


@pytest.mark.parametrize("kind", ["MaPLe", "CDC"])
def test_it_needs_a_vit(build, tmp_path, kind, resnet_clip):
    torch.save(resnet_clip.state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match=r"needs a ViT.*ModifiedResNet"):
        build(kind, tmp_path, backbone=tmp_path / "resnet.pt")


@pytest.mark.parametrize(
    ("kind", "options", "message"),
    [
        ("MaPLe", ("TRAINER.MAPLE.PROMPT_DEPTH", 0), "at least 1, got 0"),
        ("MaPLe", ("TRAINER.MAPLE.PROMPT_DEPTH", 3), "from 1 to 2, .* got 3"),
        ("MaPLe", ("TRAINER.MAPLE.PREC", "fp8"), "PREC must be one of"),
        ("MaPLe", ("TRAINER.MAPLE.N_CTX", 0), "at least 1"),
        ("MaPLe", ("TRAINER.MAPLE.N_CTX", 3, "TRAINER.MAPLE.CTX_INIT", "a photo"), "at least as many tokens"),
        ("CDC", ("TRAINER.CDC.PROMPT_DEPTH", 3), "from 1 to 2, .* got 3"),
        ("CDC", ("TRAINER.CDC.N_CTX", 5), "at least as many tokens"),
        ("CDC", ("TRAINER.CDC.PROMPT", "deep"), "PROMPT must be one of coupled, independent, text, got 'deep'"),
    ],
)
def test_wrong_config_is_told(build, tmp_path, kind, options, message):
    with pytest.raises(ValueError, match=message):
        build(kind, tmp_path, *options)
