"""CDC and others on a bank of features: the training on the views themselves, made once, never mixed up."""

from __future__ import annotations

import functools
import json
import random
import shutil

import numpy as np
import pytest
import torch
from dassl.config import get_cfg_default
from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import AVAI_CHOICES
from dassl.utils import read_image
from yacs.config import CfgNode

from helpers import relative
from trainers import feature_bank
from trainers.feature_bank import Views, describe, view_seed

CROP, JITTER = ["random_resized_crop", "normalize"], ["random_flip", "colorjitter", "normalize"]
OTHERS = ["CoOp", "CoCoOp", "KgCoOp", "TCP"]


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
def build_other(build_run, tmp_path, build):
    """One of `OTHERS` on the pictures of `build`, with the one view of its first template."""

    def make(trainer, output, *opts, views=3):
        given = {
            "DATASET.ROOT": tmp_path / "data",
            "INPUT.TRANSFORMS": CROP,
            f"TRAINER.{trainer.upper()}.FEATURE_BANK": views,
            f"TRAINER.{trainer.upper()}.CTX_INIT": "a photo of a",
            **({"TRAINER.TCP.LAYER": 2, "OPTIM.LR": 0.002} if trainer == "TCP" else {}),
            **dict(zip(opts[::2], opts[1::2])),
        }
        return build_run(trainer, tmp_path / output, *[x for pair in given.items() for x in pair])

    return make


@pytest.fixture
def files(tmp_path):
    return lambda: sorted((tmp_path / "data/feature_bank").glob("*"))


def encode_views(trainer, batch):
    """What the bank stands for: each template's view of this epoch, through the image encoder."""
    stacked = []
    names = trainer.augmentations() or [trainer.cfg.INPUT.TRANSFORMS]
    for copy, own, transform in zip(trainer.copies, names, transforms_of(trainer)):
        seeds = [view_seed(1, sorted(own), copy)]
        views = Views([item.impath for item in trainer.dm.dataset.train_x], [transform], seeds, 3)
        stacked.append(torch.stack([views[i][0, trainer.epoch] for i in batch["index"].tolist()]))
    images = torch.stack(stacked)
    return trainer.model.image_features(images if trainer.augmentations() else images[0])


def transforms_of(trainer) -> list:
    transform = trainer.dm.train_loader_x.dataset.transform
    return transform if isinstance(transform, list) else [transform]


@pytest.mark.parametrize("augmentations", [(CROP, JITTER), (CROP, CROP)])
def test_training_equals_that_on_the_views(build, augmentations):
    banked = build("banked", augmentations=augmentations)
    banked.train()
    plain = build("plain", augmentations=augmentations)
    plain.copies = (0, int(augmentations[0] == augmentations[1]))
    plain.train_features = lambda batch: encode_views(plain, batch)
    start = plain.model.prompt_learner.ctx.detach().clone()
    plain.train()
    ctx = plain.model.prompt_learner.ctx
    assert relative(ctx, start) > 1e-2
    assert relative(banked.model.prompt_learner.ctx, ctx) < 1e-5


@pytest.mark.parametrize("name", OTHERS)
def test_other_methods_train_as_on_the_views(build_other, name):
    banked = build_other(name, "banked")
    banked.train()
    plain = build_other(name, "plain")
    plain.copies = (0,)
    plain.train_features = lambda batch: encode_views(plain, batch)
    start = {key: value.clone() for key, value in plain.learner.named_parameters()}
    plain.train()
    trained = dict(banked.learner.named_parameters())
    for key, value in plain.learner.named_parameters():
        assert relative(value, start[key]) > 1e-3
        assert relative(trained[key], value) < 1e-5


@pytest.mark.parametrize("name", ["CoOp", "CoCoOp"])
def test_without_a_bank_images_are_encoded(build_other, files, name):
    trainer = build_other(name, "run", views=0)
    batch = next(iter(trainer.train_loader_x))
    logits = trainer.model(batch["img"])
    assert torch.equal(trainer.loss(batch)[0], torch.nn.functional.cross_entropy(logits, batch["label"]))
    assert not files()


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


def test_methods_share_the_bank(build, build_other, files, monkeypatch):
    """Whatever else the templates' views are made with, and in whatever order transforms are named."""
    build("cdc", "INPUT.GB_K", 5, "INPUT.COLORJITTER_B", 0.1, augmentations=(CROP[::-1], JITTER)).train()
    assert len(files()) == 2
    monkeypatch.setattr(feature_bank, "_encode", lambda *arguments: pytest.fail("encoded again"))
    for name in OTHERS:
        build_other(name, name).train()


def other(number):
    """Another number that an option may be."""
    return number + 2 if isinstance(number, int) else number / 2 or 0.1


@pytest.mark.parametrize("name", AVAI_CHOICES)
def test_options_that_a_transform_reads_count(name):
    """A transform has one description until an option that it reads changes."""

    class Noted(CfgNode):
        def __getattr__(self, key):
            read.add(key)
            return super().__getattr__(key)

    def described(**changed):
        cfg = get_cfg_default()
        cfg.INPUT.update(changed)
        cfg.INPUT = Noted(cfg.INPUT)
        return describe(build_transform(cfg, is_train=True, choices=[name]))

    read = set()
    found = described()
    options = {key: get_cfg_default().INPUT[key] for key in read - {"NO_TRANSFORM", "INTERPOLATION", "TRANSFORMS"}}
    assert described() == found
    json.dumps(found)
    unread = "GN_MEAN" if name != "gaussian_noise" else "CUTOUT_N"
    assert described(**{unread: 7}) == found
    for key, value in options.items():
        if key.startswith("PIXEL_") and name != "normalize":
            continue  # read by the summary that is printed
        changed = tuple(map(other, value)) if isinstance(value, (tuple, list)) else other(value)
        assert described(**{key: changed}) != found, key


def own_transform(shift):
    return lambda image: image + shift


def halved(image):
    return image / 2


def test_transforms_that_cannot_be_told_apart_are_refused():
    assert describe(halved) != describe(other)
    assert describe(functools.partial(halved, 1)) != describe(functools.partial(halved, 2))
    assert describe(np.float64(2.0)) != describe(np.float64(3.0))
    for part in (own_transform(1), lambda image: image, object()):
        with pytest.raises(ValueError, match="FEATURE_BANK cannot distinguish views of"):
            describe(part)


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
    feature_bank.feature_bank(trainer, transforms_of(trainer), [CROP, JITTER], 2)
    assert (random.getstate(), np.random.get_state()[1].tolist(), torch.get_rng_state().tolist()) == states


def test_views_differ_and_come_again(build):
    trainer = build("run")
    paths = [item.impath for item in trainer.dm.dataset.train_x[:2]]
    own = transforms_of(trainer)[1:2]
    views, again, other = (Views(paths, own, [seed], 3)[0][0] for seed in ("1 0", "1 0", "1 1"))
    beside = Views(paths, own * 2, ["1 1", "1 0"], 3)[0]
    assert torch.equal(beside[1], views)  # whatever else is made of the image
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
        seen.append(trainer.train_features(batch))
    assert torch.equal(seen[0], seen[2])
    assert not torch.equal(seen[0], seen[1])


def test_broken_file_is_told(build, files):
    build("run").train()
    path = files()[0]
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=f"{path.name} is not a whole file"):
        build("again").train()


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda bank: np.zeros((1, 2, 3)), r"float32, got \(1, 2, 3\) of float64"),
        (lambda bank: bank[..., :-1], "of float32, got"),
        (lambda bank: bank[:, :-1], "of float32, got"),
        (lambda bank: bank.astype(np.float16), "got .* of float16"),
        (lambda bank: bank.astype(np.int32), "got .* of int32"),
        (lambda bank: bank * np.float32("nan"), "norms other than 1"),
        (lambda bank: bank * np.float32(0), "norms other than 1"),
        (lambda bank: bank * np.float32(2), "norms other than 1"),
        (lambda bank: np.array([[[{}]]]), "a whole file"),
    ],
)
def test_file_that_is_not_the_banks_is_told(build, files, change, message):
    build("run").train()
    path = files()[0]
    np.save(path, change(np.load(path)), allow_pickle=True)
    with pytest.raises(ValueError, match=rf"{path.name} is not .*{message}"):
        build("again").train()


def test_header_that_claims_more_than_the_file_has_takes_no_memory(build, files):
    build("run").train()
    path = files()[0]
    with path.open("wb") as file:
        header = {"descr": "<f4", "fortran_order": False, "shape": (1 << 20, 1 << 20, 1 << 10)}
        np.lib.format.write_array_header_1_0(file, header)
    with pytest.raises(ValueError, match=f"{path.name} is not a whole file"):
        build("again").train()


@pytest.mark.parametrize("opts", [("TRAINER.CDC.PROMPT", "coupled"), ("TRAINER.CDC.FEATURE_BANK", -2)])
def test_what_cannot_have_a_bank_is_told(build, opts):
    with pytest.raises(ValueError, match="FEATURE_BANK takes"):
        build("run", *opts)


@pytest.mark.parametrize("opts", [("TRAINER.COOP.FEATURE_BANK", -2), ("INPUT.NO_TRANSFORM", True)])
def test_what_cannot_have_a_bank_is_told_of_coop_too(build_other, opts):
    with pytest.raises(ValueError, match="FEATURE_BANK takes a number of views"):
        build_other("CoOp", "run", *opts)


def test_bank_needs_a_seed(build):
    trainer = build("run")
    cfg = trainer.cfg.clone()
    cfg.defrost()
    cfg.SEED = -1
    assert "a SEED from 0 on" in " ".join(trainer.config_problems(cfg, trainer.options))


def test_transforms_that_begin_alike_do_not_share_their_crops(build):
    """As without a bank, where each view is a draw of its own; a blur of half of the pictures hides no crop."""
    blur = ("random_resized_crop", "gaussian_blur", "normalize")
    trainer = build("run", "INPUT.GB_P", 0.0, augmentations=(CROP, blur))
    paths = [item.impath for item in trainer.dm.dataset.train_x[:4]]
    seeds = [view_seed(1, sorted(names), 0) for names in trainer.augmentations()]
    for image in Views(paths, transforms_of(trainer), seeds, 3):
        assert not any(torch.equal(one, other) for one, other in zip(*image))
