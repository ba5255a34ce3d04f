"""TCP: the published numbers, configs and checkpoints, its learner, Adam's epsilon."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip import clip
from dassl.config import get_cfg_default

from helpers import GOLDEN, HALF, ROOT, relative, results_of
from parity import assert_same_training, checkouts, live_numbers, note_parity, read_numbers
from trainers.modules.prompts import ClassAwareContext, start_context
from trainers.modules.templates import format_template
from trainers.modules.text import TextEncoder
from trainers.tcp import HAND_WRITTEN, PROMPTS

sys.path.append(str(GOLDEN))  # where the golden scripts find each other
make_coop, make_kgcoop, make_tcp = (importlib.import_module(f"make_{name}") for name in ("coop", "kgcoop", "tcp"))

NAMES = ["dog", "a rather long class name of many words", "striped_texture"]
CONFIGS = ROOT / "configs/trainers/TCP"
PARAMETERS = ["ctx", *[f"meta_net.linear{n}.{part}" for n in (1, 2) for part in ("weight", "bias")]]
LAYER = ("TRAINER.TCP.LAYER", 2)  # the last one of the small CLIP


# ------------------------------------------------------------------------------------------------ the published numbers


@pytest.fixture(scope="module")
def golden():
    return read_numbers(GOLDEN / "tcp.npz")


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    make_tcp.save_clip(path)
    return str(path)


@pytest.fixture(scope="module")
def ours(golden_clip):
    return make_tcp.collect(golden_clip)


def assert_same(ours, published) -> None:
    assert_same_training(
        ours, {key: value for key, value in published.items() if not key.startswith(("hand_written/", "prompts/"))}
    )


def test_numbers_are_those_of_the_published_code(ours, golden):
    assert_same(ours, golden)


def test_texts_are_the_published_ones(golden):
    """The hand-written templates, and what stands after the context."""
    sets = [key.split("/")[1] for key in golden if key.startswith("prompts/")]
    assert len(sets) == 15
    assert HAND_WRITTEN.keys() | PROMPTS.keys() <= set(sets)
    for name in sets:
        (text,) = format_template(["dog"], name, HAND_WRITTEN.get(name, ""))
        assert np.array_equal(make_kgcoop.tokens(text), golden[f"hand_written/{name}"]), name
        prompt = PROMPTS.get(name, "{}.").format("dog")
        assert np.array_equal(make_kgcoop.tokens(prompt)[1:], golden[f"prompts/{name}"]), name


def test_configs_hold_the_published_values():
    """The numbers of the published config, script and README, and the epochs that train.py sets for two data sets."""
    found = {}
    for epochs in (100, 25):
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"vit_b16_ep{epochs}_ctxv1.yaml"))
        options, optim = cfg.TRAINER.TCP, cfg.OPTIM
        assert (options.N_CTX, options.CTX_INIT, options.W, options.PREC) == (4, "", 8.0, "fp16")
        assert (options.LAYER, options.ADAM_EPS) == (8, 1e-3)
        assert (optim.NAME, optim.LR, optim.WARMUP_CONS_LR) == ("adam", 0.002, 1e-5)
        assert (cfg.DATALOADER.TRAIN_X.BATCH_SIZE, cfg.MODEL.BACKBONE.NAME) == (32, "ViT-B/16")
        found[epochs] = optim.MAX_EPOCH
    assert found == {100: 50, 25: 25}


@pytest.mark.upstream
def test_configs_hold_the_published_values_live():
    published = sorted(Path(checkouts("TCP_CHECKOUT")[0], "configs/trainers/TCP").glob("*.yaml"))
    assert published
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.TRAINER.COOP.CTX_INIT = None  # a truth value there
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(CONFIGS / path.name))
        assert {k: v for k, v in theirs.items() if k != "TRAINER"} == {k: v for k, v in ours.items() if k != "TRAINER"}
        assert theirs.TRAINER.COOP.CTX_INIT is False


@pytest.mark.upstream
def test_numbers_and_checkpoint_of_the_published_code_live(ours, golden_clip, tmp_path):
    published = live_numbers("make_tcp.py", "TCP_CHECKOUT", tmp_path)
    assert_same(ours, published)
    trainer = make_tcp.build_case("published", golden_clip)
    trainer.load_model(str(tmp_path), epoch=5)
    images = make_coop.batches(make_kgcoop.STEPS + 1)[-1]["img"]
    assert relative(logits_of(trainer, images), published["published/end_logits"]) < 1e-5
    note_parity("TCP", "TCP_CHECKOUT")


# --------------------------------------------------------------------------------------------------------- the learner


@pytest.fixture
def encoder(small_clip):
    return TextEncoder(small_clip)


def learner_of(encoder, words="a photo of a", layer=2, text="{}.", names=NAMES):
    features = encoder.encode_texts([f"a photo of a {name}." for name in names])
    return ClassAwareContext(encoder, names, *start_context(encoder, 4, words), features, layer, text)


def plain(clip_model, learner, layer):
    """Text features of `NAMES` from all 77 positions through the clip package's own modules."""
    tokens = clip.tokenize([f"a photo of a person doing {name.replace('_', ' ')}." for name in NAMES])
    embedded = clip_model.token_embedding(tokens)
    x = torch.cat([embedded[:, :1], learner.ctx.expand(len(NAMES), -1, -1), embedded[:, 5:]], dim=1)
    x = (x + clip_model.positional_embedding).permute(1, 0, 2)
    net = learner.meta_net
    hidden = net["linear1"](learner.class_features)
    own = net["linear2"](clip_model.transformer.resblocks[0].mlp.gelu(hidden)).reshape(len(NAMES), 4, 64)
    for n, block in enumerate(clip_model.transformer.resblocks):
        x = block(torch.cat([x[:1], own.permute(1, 0, 2), x[5:]]) if n == layer else x)
    x = clip_model.ln_final(x.permute(1, 0, 2))
    return x[torch.arange(len(NAMES)), tokens.argmax(dim=-1)] @ clip_model.text_projection


@pytest.mark.parametrize("layer", [1, 2])
def test_learner_equals_the_plain_computation(small_clip, encoder, layer):
    learner = learner_of(encoder, layer=layer, text="person doing {}.")
    found = []
    for features in (encoder(learner())[0], plain(small_clip, learner, layer)):
        learner.zero_grad()
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        found.append([features.detach(), *[parameter.grad.clone() for parameter in learner.parameters()]])
    assert len(found[0]) == 6
    assert max(relative(fast, slow) for fast, slow in zip(*found)) < 1e-4
    assert relative(found[0][0], found[1][0]) < 1e-5


def test_state_has_the_published_names_and_no_class_names(encoder):
    learner = learner_of(encoder, words="")
    shapes = {key: tuple(value.shape) for key, value in learner.state_dict().items()}
    assert shapes == dict(zip(PARAMETERS, [(4, 64), (12, 48), (12,), (256, 12), (256,)]))
    other = learner_of(encoder, names=["others"])
    other.load_state_dict(learner.state_dict())
    assert encoder(other()).shape == (1, 1, 48)


def test_as_many_tokens_as_the_context_has(encoder):
    learner = learner_of(encoder, words="one close-up photo")  # of 5 tokens, of which as many learn as there are words
    assert learner.class_tokens().shape == (3, 3, 64)
    assert learner().prefix.shape[1] == 6
    assert encoder(learner()).isfinite().all()


@pytest.mark.parametrize("layer", [0, 3])
def test_wrong_layer_is_told(encoder, layer):
    with pytest.raises(ValueError, match=f"one of the layers 1 to 2 .* counted from 0, got {layer}"):
        learner_of(encoder, layer=layer)


# --------------------------------------------------------------------------------------------------------- the trainer


def logits_of(trainer, images):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model_inference(images)


def test_loss_is_cross_entropy_and_the_way_from_the_hand_written_template(build_run, small_clip, tmp_path):
    trainer = build_run("TCP", tmp_path, *LAYER, "TRAINER.TCP.W", 8.0)
    batch = next(iter(trainer.train_loader_x))
    texts = [f"a photo of a {name}, a type of texture." for name in trainer.class_names]
    anchor = TextEncoder(small_clip).encode_texts(texts)
    assert relative(trainer.anchor, anchor) < 1e-5
    assert torch.equal(trainer.learner.class_features, trainer.anchor)
    way = 1 - (anchor * trainer.model.text_features()[0]).sum(dim=1).mean()
    cross_entropy = F.cross_entropy(trainer.model(batch["img"]), batch["label"])
    assert relative(trainer.loss(batch)[0].detach(), (cross_entropy + 8.0 * way).detach()) < 1e-5


def test_text_after_the_context_is_the_data_sets(build_run, small_clip, tmp_path):
    """DTD's is "{} texture."; without tokens of the classes' own, the start is plain CLIP's."""
    trainer = build_run("TCP", tmp_path, *LAYER, "TRAINER.TCP.CTX_INIT", "a photo of a")
    prompt = trainer.learner()._replace(class_tokens=None)
    expected = TextEncoder(small_clip).encode_texts([f"a photo of a {name} texture." for name in trainer.class_names])
    assert relative(trainer.model.encode_text(prompt)[0].detach(), expected) < 1e-5


def test_only_context_and_network_train_and_are_kept(build_run, tmp_path):
    trainer = build_run("TCP", tmp_path / "base", *LAYER, "OPTIM.LR", 0.002)
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    names = [f"prompt_learner.{key}" for key in PARAMETERS]
    after = trainer.model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == names
    assert [key for key, p in trainer.model.named_parameters() if p.requires_grad] == names
    checkpoint = torch.load(tmp_path / "base/prompt_learner/model.pth.tar-3", weights_only=True)
    assert list(checkpoint["state_dict"]) == PARAMETERS

    tested = build_run("TCP", tmp_path / "new", *LAYER, "DATASET.SUBSAMPLE_CLASSES", "new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=3)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    state = trainer.learner.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in tested.learner.state_dict().items())


def test_adam_has_the_published_epsilon(build_run, tmp_path):
    assert [group["eps"] for group in build_run("TCP", tmp_path, *LAYER).optim.param_groups] == [1e-3]
    other = build_run("TCP", tmp_path, *LAYER, "OPTIM.NAME", "adamw")
    assert [group["eps"] for group in other.optim.param_groups] == [1e-8]


def test_resumed_run_ends_as_if_not_cut(build_run, tmp_path):
    whole = build_run("TCP", tmp_path / "whole", *LAYER, "OPTIM.LR", 0.002)
    whole.train()
    cut = build_run("TCP", tmp_path / "cut", *LAYER, "OPTIM.LR", 0.002)
    before_epoch = cut.before_epoch

    def stop():
        if cut.epoch == 1:
            raise KeyboardInterrupt
        before_epoch()

    cut.before_epoch = stop
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    torch.rand(7)  # whatever the new process has drawn until then
    resumed = build_run("TCP", tmp_path / "cut", *LAYER, "OPTIM.LR", 0.002)
    resumed.train()
    state = resumed.learner.state_dict()
    assert all(torch.equal(value, state[key]) for key, value in whole.learner.state_dict().items())


@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16", HALF])
def test_precisions(build_run, tmp_path, precision):
    trainer = build_run("TCP", tmp_path, *LAYER, "TRAINER.TCP.PREC", precision, "OPTIM.LR", 0.002)
    trainer.train()
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in trainer.learner.parameters())
    exact = build_run("TCP", tmp_path / "exact", *LAYER, "TRAINER.TCP.PREC", "fp32")
    exact.learner.load_state_dict(trainer.learner.state_dict())
    with torch.no_grad():
        assert relative(trainer.model.text_features(), exact.model.text_features()) < 0.05


def published_state(state):
    """What the published code keeps besides: seven classes' embeddings."""
    return {**state, "token_prefix": torch.zeros(7, 1, 64), "token_suffix": torch.zeros(7, 72, 64)}


def save_published(state, folder):
    (folder / "prompt_learner").mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 50, "val_result": None}, folder / "prompt_learner/model.pth.tar-50")


def test_published_checkpoint_gives_the_same_logits(build_run, tmp_path):
    trained = build_run("TCP", tmp_path / "run", *LAYER, "OPTIM.LR", 0.002)
    trained.train()
    half = {key: value.half() for key, value in trained.learner.state_dict().items()}
    trained.learner.load_state_dict(half)
    save_published(published_state(half), tmp_path)
    tested = build_run("TCP", tmp_path / "test", *LAYER)
    tested.load_model(str(tmp_path), epoch=50)
    images = torch.randn(3, 3, 32, 32)
    assert torch.equal(logits_of(tested, images), logits_of(trained, images))


def test_foreign_checkpoint_is_told(build_run, tmp_path):
    trainer = build_run("TCP", tmp_path / "run", *LAYER)
    state = trainer.learner.state_dict()
    state["bias_vectors"] = state.pop("meta_net.linear2.bias")  # as KgCoOp's
    save_published(published_state(state), tmp_path)
    with pytest.raises(ValueError, match=r"has bias_vectors, which is not known; it has no meta_net\.linear2\.bias"):
        trainer.load_model(str(tmp_path), epoch=50)


def test_wrong_config_is_told_at_once(build_run, tmp_path):
    options = {"CSC": True, "CLASS_TOKEN_POSITION": "front", "LAYER": 0, "ADAM_EPS": 0.0, "W": -1.0}
    message = (
        r"W must not be negative, got -1.0; TCP takes CSC False and CLASS_TOKEN_POSITION end, got True and 'front'; "
        r"LAYER must be at least 1, got 0; ADAM_EPS must be above 0, got 0.0"
    )
    with pytest.raises(ValueError, match=message):
        build_run("TCP", tmp_path, *[x for k, v in options.items() for x in (f"TRAINER.TCP.{k}", v)])
    with pytest.raises(ValueError, match="layers 1 to 2 of this CLIP's text encoder, counted from 0, got 8"):
        build_run("TCP", tmp_path, "TRAINER.TCP.LAYER", 8)
