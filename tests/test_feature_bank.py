"""CDC on a bank of features: the same training as on the views themselves, made once, never mixed up."""

from __future__ import annotations

import random
import shutil

import numpy as np
import pytest
import torch
from conftest import relative
from dassl.utils import read_image

from trainers import feature_bank
from trainers.feature_bank import Views

CROP, JITTER = ["random_resized_crop", "normalize"], ["random_flip", "colorjitter", "normalize"]


@pytest.fixture
def build(build_run, tmp_path, data):
    shutil.copytree(data, tmp_path / "data")

    def make(output, *opts, augmentations=(CROP, JITTER), views=3):
        given = {
            "DATASET.ROOT": tmp_path / "data",
            "TRAINER.CDC.N_TEMPLATES": len(augmentations),
            "TRAINER.CDC.CTX_INIT": ["a photo of a", "one picture of a", "an image of a"][: len(augmentations)],
            "TRAINER.CDC.AUGMENTATIONS": [list(names) for names in augmentations],
            "TRAINER.CDC.EVIDENCE_SCALE": 10.0,
            "TRAINER.CDC.FEATURE_BANK": views,
            **dict(zip(opts[::2], opts[1::2])),
        }
        return build_run("CDC", tmp_path / output, *[x for pair in given.items() for x in pair])

    return make


@pytest.fixture
def files(tmp_path):
    return lambda: sorted((tmp_path / "data/feature_bank").glob("*"))


def encode_views(trainer, batch):
    """What the bank stands for: each template's view of this epoch, through the image encoder."""
    stacked = []
    for copy, transform in zip(trainer.copies, trainer.views):
        items = trainer.dm.dataset.train_x
        views = Views([item.impath for item in items], transform, 3, f"1 {copy}")
        pictures = [views.view(read_image(items[i].impath), i, trainer.epoch) for i in batch["index"].tolist()]
        stacked.append(torch.stack(pictures))
    return trainer.model.image_features(torch.stack(stacked))


@pytest.mark.parametrize("augmentations", [(CROP, JITTER), (CROP, CROP)])
def test_training_equals_that_on_the_views(build, augmentations):
    banked = build("banked", augmentations=augmentations)
    banked.train()
    plain = build("plain", augmentations=augmentations)
    plain.copies = (0, int(augmentations[0] == augmentations[1]))
    plain._train_features = lambda batch: encode_views(plain, batch)
    start = plain.model.prompt_learner.ctx.detach().clone()
    plain.train()
    ctx = plain.model.prompt_learner.ctx
    assert relative(ctx, start) > 1e-2
    assert relative(banked.model.prompt_learner.ctx, ctx) < 1e-5


def test_batches_are_those_of_the_images(build):
    """The same items in the same order, and no other random number drawn; Dassl's own loader has the images."""
    banked, orders = build("banked"), []
    for loader in (banked.dm.train_loader_x, banked.train_loader_x):
        torch.manual_seed(3)
        iterator = iter(loader)
        next(iterator)
        torch.manual_seed(3)
        epoch = list(loader)
        orders.append([batch["label"].tolist() for batch in epoch])
        assert len(epoch) == len(loader)
    assert orders[0] == orders[1]
    paths = [item.impath for item in banked.dm.dataset.train_x]
    torch.manual_seed(3)
    batch = next(iter(banked.train_loader_x))
    torch.manual_seed(3)
    assert [paths[i] for i in batch["index"].tolist()] == next(iter(banked.dm.train_loader_x))["impath"]


def test_runs_share_the_bank(build, files, monkeypatch):
    build("first").train()
    made = files()
    assert len(made) == 2
    monkeypatch.setattr(feature_bank, "_encode", lambda *arguments: pytest.fail("encoded again"))
    build("gamma", "TRAINER.CDC.GAMMA", 2.0, "OPTIM.LR", 0.3).train()
    build("one", augmentations=(JITTER,)).train()
    assert files() == made


@pytest.mark.parametrize(
    "other",
    [
        {"opts": ("SEED", 2)},
        {"views": 2},
        {"opts": ("INPUT.RRCROP_SCALE", (0.2, 0.4))},
        {"opts": ("DATASET.NUM_SHOTS", 3)},
        {"augmentations": (["random_flip", "normalize"],)},
        {"opts": ("TRAINER.CDC.PREC", "bf16")},
    ],
)
def test_other_views_have_a_bank_of_their_own(build, files, other):
    trainer = build("first", augmentations=(CROP,))
    trainer.before_train()
    trainer.close_writer()
    rest = {key: value for key, value in other.items() if key != "opts"}
    trainer = build("other", *other.get("opts", ()), **{"augmentations": (CROP,), **rest})
    trainer.before_train()
    trainer.close_writer()
    assert len(files()) == 2


def test_changed_image_and_other_clip_are_encoded_again(build, files, other_clip):
    def make(output, *opts):
        trainer = build(output, *opts, augmentations=(CROP,))
        trainer.before_train()
        trainer.close_writer()
        return trainer

    trainer = make("first")
    picture = trainer.dm.dataset.train_x[0].impath
    read_image(picture).rotate(90).save(picture)
    make("second")
    assert len(files()) == 2
    make("third", "MODEL.BACKBONE.NAME", other_clip)
    assert len(files()) == 3


def test_making_it_draws_no_random_number(build):
    trainer = build("run")
    states = random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()
    feature_bank.feature_bank(trainer, trainer.views, ["a", "b"], 2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_views_differ_and_come_again(build):
    trainer = build("run")
    paths = [item.impath for item in trainer.dm.dataset.train_x[:2]]
    views, again, other = (Views(paths, trainer.views[1], 3, seed)[0] for seed in ("1 0", "1 0", "1 1"))
    assert torch.equal(views, again)
    assert not torch.equal(views[0], views[1])
    assert not torch.equal(views, other)


def test_fewer_views_than_epochs_come_again(build):
    trainer = build("run", views=2)
    trainer.before_train()
    trainer.close_writer()
    batch = {"index": torch.tensor([0, 3])}
    seen = []
    for trainer.epoch in (0, 1, 2):
        seen.append(trainer._train_features(batch))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_broken_file_is_told(build, files):
    build("run").train()
    path = files()[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{path.name} is not a whole file"):
        build("again").train()
    np.save(path, np.zeros((1, 2, 3)))
    with pytest.raises(ValueError, match=r"its shape is \(1, 2, 3\)"):
        build("again").train()


@pytest.mark.parametrize("opts", [("TRAINER.CDC.PROMPT", "coupled"), ("TRAINER.CDC.FEATURE_BANK", -2)])
def test_what_cannot_have_a_bank_is_told(build, opts):
    with pytest.raises(ValueError, match="FEATURE_BANK takes"):
        build("run", *opts)


def test_bank_needs_a_seed(build):
    trainer = build("run")
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.SEED = -1
    assert "a SEED from 0 on" in " ".join(trainer.config_problems(cfg, trainer.options))
