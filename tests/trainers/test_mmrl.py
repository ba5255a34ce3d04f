"""MMRL against its published code, and the encoders with tokens from a later layer on."""

from __future__ import annotations

import copy
import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from dassl.config import cfg_default, get_cfg_default
from yacs.config import CfgNode

from helpers import GOLDEN, HALF, ROOT, SIZE, checkout_of, random_clip, relative, results_of
from parity import assert_same_from_start, live_numbers, named, note_parity, read_numbers, start_as_published
from trainers.modules import representation
from trainers.modules.loading import tokenize
from trainers.modules.representation import (
    LateImageEncoder,
    LateTextEncoder,
    RepresentationLearner,
    check_representation,
    cosine_distance,
)
from trainers.modules.text import TextEncoder
from trainers.modules.vision import ImageEncoder

sys.path.append(str(GOLDEN))  # where the golden scripts find each other
make_coop, make_maple, make_promptsrc, make_mmrl = (
    importlib.import_module(f"make_{name}") for name in ("coop", "maple", "promptsrc", "mmrl")
)

TEXTS = ["a photo of a dog.", "a photo of a rather long class name.", "a photo of a striped texture.", "a photo of x"]
CONFIGS = ROOT / "configs/trainers/MMRL"


# ---------------------------------------------------------------------------------------------- the published numbers


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(make_mmrl.small_clip_state(), path)
    return str(path)


@pytest.fixture(scope="module")
def golden():
    return read_numbers(GOLDEN / "mmrl.npz")


def infer(trainer, images) -> dict[str, torch.Tensor]:
    """What `infer` of make_mmrl.py has of the published model."""
    model = trainer.model
    of_class, of_tokens = model.both_image_features(images)
    return {
        "logits": model.logits(of_class),
        "logits_rep": model.logits(of_tokens),
        "logits_fused": trainer.model_inference(images),
        "image_features": of_class,
        "text_features": model.text_features()[0],
    }


def assert_same(case: str, clip_file: str, published: dict) -> None:
    """Features, logits, losses, accuracies, gradients, and the parameters after five and after six steps."""
    trainer = make_mmrl.build_case(case, clip_file)
    start_as_published(trainer, case, published)
    found = make_promptsrc.drive(trainer, lambda: named(trainer), lambda images: infer(trainer, images))
    ours = make_mmrl.sampled(found)
    logged = {"loss_class", "loss_rep", "reg_image", "reg_text"}  # not by the published code
    assert_same_from_start(case, ours, published, logged, make_maple.sample)


@pytest.mark.parametrize("case", make_mmrl.CASES)
def test_numbers_are_those_of_the_published_code(case, golden_clip, golden):
    assert_same(case, golden_clip, golden)


@pytest.mark.parametrize("case", make_mmrl.CASES)
def test_start_is_the_published_one(case, golden_clip, golden):
    """Other numbers of the same distributions; the maps of all layers start equal."""
    ours = named(make_mmrl.build_case(case, golden_clip))
    assert {f"{case}/start.{name}" for name in ours} == {key for key in golden if key.startswith(f"{case}/start.")}
    for name, parameter in ours.items():
        expected, found = golden[f"{case}/start.{name}"], parameter.detach().numpy()
        assert found.shape == expected.shape
        spread = max(0.1, 3 / found.size**0.5)  # of a standard deviation, from so few numbers
        assert found.std() / expected.std() == pytest.approx(1, abs=spread), name
        first = name.replace(".1.", ".0.").replace(".2.", ".0.")
        assert torch.equal(parameter, ours[first]), name
        assert np.array_equal(expected, golden[f"{case}/start.{first}"]), name


@pytest.mark.upstream
def test_numbers_and_checkpoint_of_the_published_code_live(golden_clip, golden, tmp_path):
    live = live_numbers("make_mmrl.py", "MMRL_CHECKOUT", tmp_path)
    assert set(live) == set(golden)
    for case in make_mmrl.CASES:
        assert_same(case, golden_clip, live)

    trainer = make_mmrl.build_case("published", golden_clip)
    trainer.load_model(str(tmp_path), epoch=3)
    trainer.set_model_mode("eval")
    images = make_coop.batches(7)[-1]["img"]
    with torch.no_grad():
        found = trainer.model(images)
        with pytest.raises(ValueError, match="does not say what it was trained on: set TASK"):
            trainer.model_inference(images)
    assert relative(found, live["published/end_logits_fused"]) < 1e-5
    note_parity("MMRL", "MMRL_CHECKOUT")


def test_configs_hold_the_published_values():
    found = {}
    for name in ("", "_imagenet", "_few_shot", "_cross_datasets"):
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"vit_b16{name}.yaml"))
        options, optim = cfg.TRAINER.MMRL, cfg.OPTIM
        assert (options.ALPHA, options.N_REP_TOKENS, options.REP_DIM, options.PREC) == (0.7, 5, 512, "amp")
        assert options.REP_LAYERS == [6, 7, 8, 9, 10, 11, 12]
        assert not options.BY_DATASET
        assert (optim.NAME, optim.LR, optim.LR_SCHEDULER, optim.WARMUP_CONS_LR) == ("adamw", 0.001, "cosine", 1e-5)
        assert (tuple(cfg.INPUT.RRCROP_SCALE), cfg.MODEL.BACKBONE.NAME) == ((0.5, 1), "ViT-B/16")
        batch = cfg.DATALOADER.TRAIN_X.BATCH_SIZE
        found[name] = (batch, optim.MAX_EPOCH, optim.WARMUP_EPOCH, options.REG_WEIGHT)
    assert list(found.values()) == [(4, 10, 1, 1.0), (32, 5, 1, 1.0), (32, 50, 1, 0.5), (32, 1, 0, 0.2)]


@pytest.mark.upstream
def test_configs_and_tables_hold_the_published_values_live(monkeypatch):
    published = sorted(Path(checkout_of("MMRL_CHECKOUT"), "configs/trainers/MMRL").glob("*.yaml"))
    assert len(published) == 4
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(CONFIGS / path.name))
        assert theirs == ours
    monkeypatch.syspath_prepend(str(Path(checkout_of("MMRL_CHECKOUT"), "trainers")))
    settings = importlib.import_module("config").get_dataset_specified_config
    options = get_cfg_default().TRAINER.MMRL
    for dataset in [*options.REG_WEIGHTS, "SmallNames"]:
        pairs = settings(dataset, "MMRL", "B2N")
        found = {"TRAINER.MMRL.REG_WEIGHT": options.REG_WEIGHTS.get(dataset)}
        found["TRAINER.MMRL.REP_DIM"] = options.REP_DIMS.get(dataset)
        assert {key: value for key, value in found.items() if value is not None} == dict(zip(pairs[::2], pairs[1::2]))
    assert len(options.REG_WEIGHTS) == 11


# -------------------------------------------------------------------------------------------------- encoders, learner


@pytest.fixture(scope="module")
def clip_model():
    """Text and vision side of unequal width and depth."""
    torch.manual_seed(0)
    return random_clip(vision_width=128, vision_layers=4, transformer_layers=3)


@pytest.fixture
def encoders(clip_model):
    return TextEncoder(clip_model), ImageEncoder(clip_model)


def plain_text(clip_model, tokens):
    """All 77 positions, and the tokens after the first one from a layer on, as CLIP computes them."""
    found = []
    for words in TEXTS:
        numbers = tokenize(words)
        padded = torch.tensor([*numbers, *[0] * (77 - len(numbers))])
        x, n_put = clip_model.token_embedding(padded) + clip_model.positional_embedding, 0
        for layer, block in enumerate(clip_model.transformer.resblocks):
            if layer in tokens:
                x = torch.cat([x[:1], tokens[layer], x[1 + n_put :]])
                n_put = len(tokens[layer])
            mask = torch.full((len(x), len(x)), float("-inf")).triu(1)
            own = block.ln_1(x)[:, None]
            x = x + block.attn(own, own, own, need_weights=False, attn_mask=mask)[0][:, 0]
            x = x + block.mlp(block.ln_2(x))
        end = len(numbers) - 1 + n_put
        found.append(clip_model.ln_final(x[end]) @ clip_model.text_projection)
    return torch.stack(found)


def plain_images(clip_model, images, tokens):
    """The class token's feature, and the mean of the tokens, which stand before the patches."""
    visual, n_put = clip_model.visual, 0
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(len(images), 1, -1), patches], dim=1) + visual.positional_embedding
    x = visual.ln_pre(x)
    for layer, block in enumerate(visual.transformer.resblocks):
        if layer in tokens:
            x = torch.cat([x[:, :1], tokens[layer].expand(len(x), -1, -1), x[:, 1 + n_put :]], dim=1)
            n_put = len(tokens[layer])
        x = block(x.transpose(0, 1)).transpose(0, 1)
    return visual.ln_post(x[:, 0]) @ visual.proj, visual.ln_post(x[:, 1 : 1 + n_put]).mean(dim=1)


@pytest.mark.parametrize("together", [10**6, 0], ids=["together", "apart"])
@pytest.mark.parametrize("kept", [10**6, 12, 0])
@pytest.mark.parametrize("layers", [[0, 1, 2], [0], [1, 2], [0, 2], [2]])
def test_late_text_equals_the_plain_computation(clip_model, encoders, monkeypatch, layers, kept, together):
    """Outputs and gradients, with the classes in one part or in several."""
    for name, value in (("TOKENS_TOGETHER", together), ("TOKENS_KEPT", kept), ("TOKENS_AT_ONCE", kept)):
        monkeypatch.setattr(representation, name, value)
    tokens = {layer: torch.randn(3, 64, requires_grad=True) for layer in layers}
    copies = {layer: value.detach().clone().requires_grad_() for layer, value in tokens.items()}
    encoder = LateTextEncoder(encoders[0], TEXTS, layers[0], 3)
    assert len(encoder.parts) == {10**6: 1, 12: 2, 0: 4}[kept]
    features, expected = encoder(tokens), plain_text(clip_model, copies)
    weight = torch.randn_like(expected)
    (features * weight).sum().backward()
    (expected * weight).sum().backward()
    assert relative(features.detach(), expected.detach()) < 1e-5
    for layer in layers:
        assert relative(tokens[layer].grad, copies[layer].grad) < 1e-5


@pytest.mark.parametrize("layers", [[0, 1, 2, 3], [0], [1, 3], [3]])
def test_late_images_equal_the_plain_computation(clip_model, encoders, layers):
    images = torch.randn(2, 3, SIZE, SIZE)
    tokens = {layer: torch.randn(3, 128, requires_grad=True) for layer in layers}
    copies = {layer: value.detach().clone().requires_grad_() for layer, value in tokens.items()}
    found, expected = LateImageEncoder(encoders[1])(images, tokens), plain_images(clip_model, images, copies)
    weights = [torch.randn_like(part) for part in expected]
    for parts in (found, expected):
        sum((part * weight).sum() for part, weight in zip(parts, weights)).backward()
    for ours, plain in zip(found, expected):
        assert relative(ours.detach(), plain.detach()) < 1e-5
    for layer in layers:
        assert relative(tokens[layer].grad, copies[layer].grad) < 1e-5


def test_images_of_another_size_are_told(encoders):
    with pytest.raises(ValueError, match="32 x 32 pixels, got 32 x 40"):
        LateImageEncoder(encoders[1])(torch.randn(2, 3, 32, 40), {0: torch.zeros(1, 128)})


def test_text_too_long_is_told(encoders):
    with pytest.raises(ValueError, match="takes 77 tokens"):
        LateTextEncoder(encoders[0], ["word " * 80], 1, 1)


def test_state_has_the_published_shapes(encoders):
    learner = RepresentationLearner(*encoders, 2, [2, 3], 16)
    shapes = {key: tuple(value.shape) for key, value in learner.state_dict().items()}
    linear = {"r2vproj": 128, "r2tproj": 64}
    assert shapes == {
        "compound_rep_tokens": (2, 16),
        **{f"compound_rep_tokens_{kind}.{n}.weight": (width, 16) for kind, width in linear.items() for n in (0, 1)},
        **{f"compound_rep_tokens_{kind}.{n}.bias": (width,) for kind, width in linear.items() for n in (0, 1)},
        "proj_rep": (128, 48),
    }
    assert list(learner()) == list(learner.image_tokens()) == [1, 2]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0, [2], 8), "at least 1 representation token of width 1 or more, got 0 of 8"),
        ((1, [2], 0), "got 1 of 0"),
        ((1, [], 8), r"need layers to be put in, numbers from 1 on, got \[\]"),
        ((1, [0, 1], 8), r"numbers from 1 on, got \[0, 1\]"),
        ((1, ["all"], 8), "numbers from 1 on"),
        ((1, [3, 2], 8), r"must be ascending, got \[3, 2\]"),
        ((1, [2, 2], 8), "must be ascending"),
        ((1, [3, 4], 8), r"in layers 1 to 3, .* got \[3, 4\]"),
    ],
)
def test_wrong_tokens_are_told(encoders, arguments, message):
    with pytest.raises(ValueError, match=message):
        RepresentationLearner(*encoders, *arguments)


def test_wrong_backbone_is_told_before_it_is_loaded():
    with pytest.raises(ValueError, match="need a ViT, got the backbone RN50"):
        check_representation(1, [1], 8, "RN50")


def test_cosine_distance_by_hand():
    features = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64, requires_grad=True)
    frozen = torch.tensor([[1.0, 0.0], [0.0, -1.0]], dtype=torch.float64)
    assert cosine_distance(features, frozen).item() == pytest.approx(1 - (0.6 - 1) / 2)
    assert cosine_distance(5 * features, features).item() == pytest.approx(0)
    assert torch.autograd.gradcheck(cosine_distance, (features, frozen))
    with pytest.raises(ValueError, match="same shape"):
        cosine_distance(features, frozen[:1])


# -------------------------------------------------------------------------------------------------------- the trainer


@pytest.fixture(scope="module")
def clip_file(clip_model, tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "small.pt"
    torch.save(clip_model.state_dict(), path)
    return path


@pytest.fixture
def build(build_run, clip_file):
    def make(output, *opts, backbone=clip_file):
        given = {"TRAINER.MMRL.REP_LAYERS": [2, 3], "TRAINER.MMRL.REP_DIM": 16, "OPTIM.LR": 0.01, "OPTIM.MAX_EPOCH": 2}
        given.update({"TRAINER.MMRL.ALPHA": 0.7, "TRAINER.MMRL.REG_WEIGHT": 1.0})
        given.update(zip(opts[::2], opts[1::2]))
        return build_run("MMRL", output, *(x for pair in given.items() for x in pair), backbone=backbone)

    return make


def state_of(trainer):
    return copy.deepcopy(trainer.learner.state_dict())


def logits_of(trainer, images):
    """Those of the class token, of the representation tokens, and what the trainer makes of them."""
    trainer.set_model_mode("eval")
    with torch.no_grad():
        both = [trainer.model.logits(features) for features in trainer.model.both_image_features(images)]
        return (*both, trainer.model_inference(images))


def test_only_the_learner_learns_and_is_kept_by_its_published_names(build, tmp_path):
    trainer = build(tmp_path / "base")
    before = copy.deepcopy(trainer.model.state_dict())
    trainer.train()
    learning = {name for name, p in trainer.model.named_parameters() if p.requires_grad and p.grad is not None}
    assert learning == {f"prompt_learner.{name}" for name in state_of(trainer)}
    for name, value in trainer.model.state_dict().items():
        assert torch.equal(value, before[name]) == (name not in learning), name
    checkpoint = torch.load(tmp_path / "base/MultiModalRepresentationLearner/model.pth.tar-2", weights_only=True)
    names = {f"representation_learner.{name}" for name in state_of(trainer) if name != "proj_rep"}
    assert set(checkpoint["state_dict"]) == {*names, "image_encoder.proj_rep"}

    tested = build(tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new")
    tested.load_model(str(tmp_path / "base"), epoch=2)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    assert all(torch.equal(value, state_of(tested)[name]) for name, value in state_of(trainer).items())


def test_resumed_run_ends_as_if_not_cut(build, tmp_path):
    whole = build(tmp_path / "whole")
    whole.train()

    cut = build(tmp_path / "cut", "TRAIN.CHECKPOINT_FREQ", 1)
    before_epoch = cut.before_epoch

    def stop():
        if cut.epoch == 1:
            raise KeyboardInterrupt
        before_epoch()

    cut.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    torch.rand(7)  # whatever the new process has drawn until then
    resumed = build(tmp_path / "cut")
    resumed.train()
    assert resumed.start_epoch == 1
    assert all(torch.equal(value, state_of(resumed)[name]) for name, value in state_of(whole).items())


@pytest.mark.parametrize(
    ("classes", "task", "fused"),
    [
        ("base", "", True),
        ("new", "", False),
        ("all", "", False),
        ("base", "B2N", True),
        ("new", "B2N", False),
        ("all", "B2N", False),
        ("all", "CD", False),
        ("all", "FS", True),
    ],
)
def test_what_was_trained_is_predicted_by_both(build, tmp_path, classes, task, fused):
    """By what the checkpoint tells, or as the published TASK says."""
    build(tmp_path / "base").train()
    tested = build(tmp_path / "test", "DATASET.SUBSAMPLE_CLASSES", classes, "TASK", f"'{task}'")
    tested.load_model(str(tmp_path / "base"), epoch=2)
    of_class, of_tokens, found = logits_of(tested, torch.randn(3, 3, SIZE, SIZE))
    assert relative(of_class, of_tokens) > 1e-2
    torch.testing.assert_close(found, 0.7 * of_class + 0.3 * of_tokens if fused else of_class)


def test_other_data_with_the_same_classes_is_predicted_by_the_class_token(build, tmp_path):
    build(tmp_path / "base").train()
    tested = build(tmp_path / "test")
    path = tmp_path / "base/MultiModalRepresentationLearner/model.pth.tar-2"
    checkpoint = torch.load(path, weights_only=True)
    checkpoint["trained_on"]["dataset"] = "ImageNet"
    torch.save(checkpoint, path)
    tested.load_model(str(tmp_path / "base"), epoch=2)
    of_class, _, found = logits_of(tested, torch.randn(3, 3, SIZE, SIZE))
    assert torch.equal(found, of_class)


@pytest.mark.parametrize("by_dataset", [False, True])
@pytest.mark.parametrize(("dataset", "width"), [("DescribableTextures", 24), ("other", 16)])
def test_settings_by_data_set_are_off_by_default(build, tmp_path, monkeypatch, by_dataset, dataset, width):
    tables = cfg_default.TRAINER.MMRL
    monkeypatch.setitem(tables, "REP_DIMS", CfgNode({dataset: 24}))
    monkeypatch.setitem(tables, "REG_WEIGHTS", CfgNode({dataset: 6.0}))
    trainer = build(tmp_path, *(("TRAINER.MMRL.BY_DATASET", True) if by_dataset else ()))
    assert trainer.learner.compound_rep_tokens.shape == (5, width if by_dataset else 16)
    assert trainer.reg_weight == (6.0 if by_dataset and width == 24 else 1.0)


def test_weights_by_data_set_change_the_loss(build, tmp_path):
    """DTD has weight 6 in the published table. At the start the class token is near the frozen CLIP's, not on it."""
    losses = []
    for by_dataset in (False, True):
        torch.manual_seed(0)
        trainer = build(tmp_path, "TRAINER.MMRL.BY_DATASET", by_dataset)
        batch = {"img": torch.ones(2, 3, SIZE, SIZE), "label": torch.tensor([0, 1])}
        loss, parts = trainer.loss(batch)
        losses.append((loss, parts["reg_image"] + parts["reg_text"]))
    (plain, distance), (own, same) = losses
    assert distance == same > 1e-4
    torch.testing.assert_close(own - plain, 5 * distance)


@pytest.mark.parametrize("precision", ["amp", "bf16", HALF])
def test_precisions(build, tmp_path, precision):
    trainer = build(tmp_path, "TRAINER.MMRL.PREC", precision, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    assert all(value.dtype == torch.float32 and value.isfinite().all() for value in state_of(trainer).values())
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    exact = build(tmp_path / "exact", "TRAINER.MMRL.PREC", "fp32").model
    exact.prompt_learner.load_state_dict(state_of(trainer))
    with torch.no_grad():
        for found, expected in zip(trainer.model.both_image_features(images), exact.both_image_features(images)):
            assert found.dtype == torch.float32
            assert relative(found, expected) < 0.05
        assert trainer.model_inference(images).dtype == torch.float32
        assert relative(trainer.model.text_features(), exact.text_features()) < 0.05


def published_state(trainer, clip_model):
    """What the published code would keep of this MMRL: all of CLIP, and the class names' embeddings."""
    state = {key: p.detach().half() for key, p in named(trainer).items()}
    state["prompt_embeddings"] = torch.randn(2, 77, 64).half()
    for name, value in clip_model.state_dict().items():
        if name.startswith("visual."):
            state[f"image_encoder.{name[len('visual.') :]}"] = value
        elif name not in ("token_embedding.weight", "logit_scale"):
            state[f"text_encoder.{name}"] = value
    return state


def save_published(state, folder):
    path = folder / "MultiModalRepresentationLearner/model.pth.tar-10"
    path.parent.mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 10, "optimizer": {}, "scheduler": {}, "val_result": None}, path)


@pytest.mark.parametrize("classes", ["base", "new", "all"])
def test_published_checkpoint_gives_the_same_logits(build, tmp_path, clip_model, classes):
    """It does not say what it was trained on; halves of classes are those of base to new."""
    trained = build(tmp_path / "run", "DATASET.SUBSAMPLE_CLASSES", classes)
    trained.learner.load_state_dict({name: value.half().float() for name, value in state_of(trained).items()})
    save_published(published_state(trained, clip_model), tmp_path)
    tested = build(tmp_path / "test", "DATASET.SUBSAMPLE_CLASSES", classes)
    tested.load_model(str(tmp_path), epoch=10)
    images = torch.randn(3, 3, SIZE, SIZE)
    if classes == "all":
        with pytest.raises(ValueError, match=r"does not say what it was trained on: set TASK to CD .* or FS"):
            tested.model_inference(images)
        return
    expected = logits_of(trained, images)
    assert torch.equal(logits_of(tested, images)[2], expected[2] if classes == "base" else expected[0])
    tested.test()
    assert results_of(tmp_path / "test")["epoch"] == 10


def test_foreign_checkpoint_is_told(build, tmp_path, clip_model):
    trainer = build(tmp_path / "run")
    state = published_state(trainer, clip_model)
    state["image_encoder.VPT"] = state.pop("image_encoder.proj_rep")
    save_published(state, tmp_path)
    with pytest.raises(
        ValueError, match=r"has image_encoder\.VPT, which is not known; it has no image_encoder\.proj_rep"
    ):
        trainer.load_model(str(tmp_path), epoch=10)
    wider = build(tmp_path / "wider", "TRAINER.MMRL.REP_DIM", 24)
    save_published(published_state(trainer, clip_model), tmp_path / "narrow")
    with pytest.raises(ValueError, match=r"compound_rep_tokens of shape \(5, 16\) where this run has \(5, 24\)"):
        wider.load_model(str(tmp_path / "narrow"), epoch=10)


def test_it_needs_a_vit(build, tmp_path):
    model = random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None)
    torch.save(model.state_dict(), tmp_path / "resnet.pt")
    with pytest.raises(ValueError, match=r"needs a ViT.*ModifiedResNet"):
        build(tmp_path, backbone=tmp_path / "resnet.pt")


def test_wrong_configs_are_told_at_once(build, tmp_path):
    wrong = {"N_REP_TOKENS": 0, "ALPHA": 1.5, "REG_WEIGHT": -1.0, "PREC": "fp8"}
    options = [x for key, value in wrong.items() for x in (f"TRAINER.MMRL.{key}", value)]
    with pytest.raises(ValueError, match="the config cannot run") as caught:
        build(tmp_path, *options, "TASK", "B2B")
    for part in ("PREC must be", "got 0 of 16", "ALPHA .* got 1.5", "REG_WEIGHT .* got -1.0", "B2N, CD, FS .* 'B2B'"):
        assert caught.match(part)
