"""KgCoOp: the published numbers, configs and checkpoints, the second loss."""

from __future__ import annotations

import importlib
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from dassl.config import get_cfg_default

from helpers import GOLDEN, HALF, ROOT, relative, results_of
from parity import assert_same_training, checkouts, live_numbers, note_parity, read_numbers
from trainers.kgcoop import HAND_WRITTEN
from trainers.modules.templates import format_template
from trainers.modules.text import TextEncoder

sys.path.append(str(GOLDEN))  # where the golden scripts find each other
make_coop, make_kgcoop = (importlib.import_module(name) for name in ("make_coop", "make_kgcoop"))

CONFIGS = ROOT / "configs/trainers/KgCoOp"


# ------------------------------------------------------------------------------------------------ the published numbers


@pytest.fixture(scope="module")
def golden():
    return read_numbers(GOLDEN / "kgcoop.npz")


@pytest.fixture(scope="module")
def golden_clip(tmp_path_factory):
    path = tmp_path_factory.mktemp("clip") / "clip.pt"
    torch.save(make_coop.clip_state(), path)
    return str(path)


@pytest.fixture(scope="module")
def ours(golden_clip):
    return make_kgcoop.collect(golden_clip)


def assert_same(ours, published) -> None:
    assert_same_training(ours, {key: value for key, value in published.items() if not key.startswith("hand_written/")})


def test_numbers_are_those_of_the_published_code(ours, golden):
    assert_same(ours, golden)


def test_hand_written_templates_are_the_published_ones(golden):
    sets = [key.split("/")[1] for key in golden if key.startswith("hand_written/")]
    assert len(sets) == 15
    assert HAND_WRITTEN.keys() <= set(sets)
    for name in sets:
        (text,) = format_template(["dog"], name, HAND_WRITTEN.get(name, ""))
        assert np.array_equal(make_kgcoop.tokens(text), golden[f"hand_written/{name}"]), name


def test_configs_hold_the_published_values():
    """The numbers of the published configs, and of scripts/run.sh."""
    for name, backbone in {"vit_b16_ep100_ctxv1": "ViT-B/16", "rn50_ep100": "RN50"}.items():
        cfg = get_cfg_default()
        cfg.merge_from_file(str(CONFIGS / f"{name}.yaml"))
        options, optim = cfg.TRAINER.KGCOOP, cfg.OPTIM
        assert (options.N_CTX, options.CTX_INIT, options.CSC, options.W) == (4, "a photo of a", False, 8.0)
        assert (options.PREC, options.CLASS_TOKEN_POSITION) == ("fp16", "end")
        assert (optim.NAME, optim.LR, optim.MAX_EPOCH, optim.WARMUP_CONS_LR) == ("sgd", 0.002, 100, 1e-5)
        assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 128
        assert backbone == cfg.MODEL.BACKBONE.NAME


def without_trainers(cfg):
    """A config without the trainers' own options."""
    return {key: value for key, value in cfg.items() if key != "TRAINER"}


@pytest.mark.upstream
def test_configs_hold_the_published_values_live():
    published = sorted(Path(checkouts("KGCOOP_CHECKOUT")[0], "configs/trainers/KgCoOp").glob("*.yaml"))
    assert published
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.TRAINER.COOP.CTX_INIT = None  # a truth value there
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(CONFIGS / path.name))
        assert without_trainers(theirs) == without_trainers(ours)
        assert theirs.TRAINER.COOP.CTX_INIT is True


@pytest.mark.upstream
def test_numbers_and_checkpoint_of_the_published_code_live(ours, golden_clip, tmp_path):
    published = live_numbers("make_kgcoop.py", "KGCOOP_CHECKOUT", tmp_path)
    assert_same(ours, published)
    trainer = make_kgcoop.build_case("published", golden_clip)
    trainer.load_model(str(tmp_path), epoch=5)
    images = make_coop.batches(make_kgcoop.STEPS + 1)[-1]["img"]
    assert relative(logits_of(trainer, images), published["published/end_logits"]) < 1e-5
    note_parity("KgCoOp", "KGCOOP_CHECKOUT")


# --------------------------------------------------------------------------------------------------------- the trainer


def logits_of(trainer, images):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model_inference(images)


def test_loss_is_cross_entropy_and_the_way_from_the_hand_written_template(build_run, small_clip, tmp_path):
    trainer = build_run("KgCoOp", tmp_path, "TRAINER.KGCOOP.W", 3.0)
    batch = next(iter(trainer.train_loader_x))
    names = trainer.class_names
    anchor = TextEncoder(small_clip).encode_texts([f"a photo of a {name}, a type of texture." for name in names])
    assert relative(trainer.anchor, anchor) < 1e-5
    learnt = TextEncoder(small_clip).encode_texts([f"a photo of a {name}." for name in names])
    way = 1 - (anchor * learnt).sum(dim=1).mean()
    assert way > 0.01
    cross_entropy = F.cross_entropy(trainer.model(batch["img"]), batch["label"])
    loss, logged = trainer.loss(batch)
    assert relative(loss.detach(), cross_entropy.detach() + 3.0 * way) < 1e-5
    assert list(logged) == ["acc"]


def test_without_the_second_loss_it_is_coop(build_run, tmp_path):
    def train(trainer, *options):
        built = build_run(trainer, tmp_path / "".join((trainer, *map(str, options))), *options)
        built.train()
        return built

    coop, free, held = train("CoOp"), train("KgCoOp", "TRAINER.KGCOOP.W", 0.0), train("KgCoOp")
    assert relative(free.learner.ctx, coop.learner.ctx) < 1e-5
    # What holds it near the hand-written template does so.
    ways = [1 - (trainer.model.text_features()[0] * held.anchor).sum(dim=1).mean() for trainer in (held, free)]
    assert 0 < ways[0] < ways[1]


def test_only_the_context_trains_and_is_kept(build_run, tmp_path):
    trainer = build_run("KgCoOp", tmp_path / "base")
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    after = trainer.model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == ["prompt_learner.ctx"]
    assert [key for key, p in trainer.model.named_parameters() if p.requires_grad] == ["prompt_learner.ctx"]
    checkpoint = torch.load(tmp_path / "base/prompt_learner/model.pth.tar-3", weights_only=True)
    assert list(checkpoint["state_dict"]) == ["ctx"]

    tested = build_run("KgCoOp", tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=3)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    assert torch.equal(tested.learner.ctx, trainer.learner.ctx)


@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16", HALF])
def test_precisions(build_run, tmp_path, precision):
    trainer = build_run("KgCoOp", tmp_path, "TRAINER.KGCOOP.PREC", precision, "OPTIM.LR", 0.01)
    trainer.train()
    assert trainer.learner.ctx.dtype == trainer.anchor.dtype == torch.float32
    assert trainer.learner.ctx.isfinite().all()


def published_state(ctx):
    """What the published code keeps: a vector and a layer that it does not use, and seven classes' embeddings."""
    return {
        "ctx": ctx.half(),
        "bias_vectors": torch.zeros(1, 512),
        "meta_net.linear1.weight": torch.zeros(512, 512),
        "meta_net.linear1.bias": torch.zeros(512),
        "token_prefix": torch.zeros(7, 1, 64),
        "token_suffix": torch.zeros(7, 72, 64),
    }


def save_published(state, folder):
    (folder / "prompt_learner").mkdir(parents=True)
    torch.save({"state_dict": state, "epoch": 100, "val_result": None}, folder / "prompt_learner/model.pth.tar-100")


def test_published_checkpoint_gives_the_published_logits(golden, golden_clip, tmp_path):
    state = published_state(torch.from_numpy(golden["published/end.ctx"]))
    save_published({**state, "ctx": state["ctx"].float()}, tmp_path / "half")
    state["ctx"] = torch.from_numpy(golden["published/end.ctx"])
    save_published(state, tmp_path / "run")
    images = make_coop.batches(make_kgcoop.STEPS + 1)[-1]["img"]
    trainer = make_kgcoop.build_case("published", golden_clip)
    for folder, tolerance in {"run": 1e-5, "half": 1e-2}.items():
        trainer.load_model(str(tmp_path / folder), epoch=100)
        assert relative(logits_of(trainer, images), golden["published/end_logits"]) < tolerance


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"meta_net.linear2.weight": torch.zeros(1)}, "has meta_net.linear2.weight, which is not known"),  # TCP's
        ({"ctx": torch.zeros(2, 64)}, r"has ctx of shape \(2, 64\) where this run has \(4, 64\)"),
    ],
)
def test_foreign_checkpoint_is_told(build_run, tmp_path, changes, message):
    trainer = build_run("KgCoOp", tmp_path / "run")
    save_published({**published_state(torch.zeros(4, 64)), **changes}, tmp_path)
    with pytest.raises(ValueError, match=message):
        trainer.load_model(str(tmp_path), epoch=100)


def test_context_of_other_classes_is_refused(build_run, tmp_path):
    options = ("TRAINER.KGCOOP.CSC", True, "TRAINER.KGCOOP.CTX_INIT", "", "OPTIM.MAX_EPOCH", 1)
    build_run("KgCoOp", tmp_path / "base", *options).train()
    tested = build_run("KgCoOp", tmp_path / "new", *options, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match="a context for each of blue, green, not for red, yellow"):
        tested.load_model(str(tmp_path / "base"), epoch=1)


def test_wrong_config_is_told_at_once(build_run, tmp_path):
    options = {"W": -1.0, "PREC": "fp8", "CTX_INIT": "", "N_CTX": 0}
    with pytest.raises(ValueError, match=r"fp16, bf16.*at least 1 context token, got 0.*W must not be negative"):
        build_run("KgCoOp", tmp_path, *[x for k, v in options.items() for x in (f"TRAINER.KGCOOP.{k}", v)])
