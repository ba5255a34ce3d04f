"""CLIP-ICM: interventions, eq. (9) on constructed features, the choice of k, the trainer, and CDC behind the map."""

from __future__ import annotations

import random

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image

from helpers import HALF, random_clip, results_of
from trainers import cdc, clip_icm, invariance
from trainers.modules.interventions import OPERATIONS, InterventionViews, intervene
from trainers.modules.invariant import (
    LAMBDAS,
    InvariantMap,
    candidate_sizes,
    captured_energy,
    choose,
    cosine,
    invariant_directions,
)


@pytest.fixture
def world():
    """Features of two factors in 8 dimensions: content tells two classes apart, interventions move style alone.

    Style is the stronger factor, so that plain principal directions and plain cosines follow it.
    """
    generator = torch.Generator().manual_seed(0)
    axes = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    content, style = axes[:, 0], axes[:, 1]
    labels = torch.arange(200) % 2

    def draw(labels):
        sides = 2.0 * labels[:, None] - 1
        noise = 0.01 * torch.randn(len(labels), 8, generator=generator)
        return sides * content + 3 * torch.randn(len(labels), 1, generator=generator) * style + noise

    features = draw(labels)
    intervened = features + 3 * torch.randn(200, 1, generator=generator) * style
    text = torch.stack([-content + style, content - style])  # leans on style: plain cosines are wrong half of the time
    images = draw(labels)

    def accuracy(vectors):
        """Percent of further images that eq. (10) classifies correctly behind a map."""
        a = vectors.float()
        return 100 * (cosine(images @ a, text @ a).argmax(dim=1) == labels).double().mean().item()

    return {
        "content": content,
        "style": style,
        "pairs": (features, intervened),
        "images": images,
        "accuracy": accuracy,
    }


def random_pairs(n_images=40, width=6, n_interventions=1):
    generator = torch.Generator().manual_seed(1)
    features = torch.randn(n_images, width, generator=generator) + 1
    return features, features + torch.randn(n_interventions, n_images, width, generator=generator)


@pytest.mark.parametrize(
    ("weight", "values", "first"),
    [
        (0.5, [1.0, 0.5], [1.0, -1.0]),
        (1.0, [1.0, 0.0], [1.0, -1.0]),
        (3.0, [1.0, -2.0], [1.0, -1.0]),
    ],
)
def test_two_images_by_hand(weight, values, first):
    """Z^T Z / n = I and Delta^T Delta / n = [[.5, .5], [.5, .5]]: (1, 1) moves, with eigenvalue 1 - lambda."""
    features = torch.tensor([[1.0, 1.0], [1.0, -1.0]])
    intervened = torch.tensor([[0.0, 0.0], [1.0, -1.0]])
    directions = invariant_directions(features, intervened, weight)
    torch.testing.assert_close(directions.values, torch.tensor(values).double())
    v = directions.vectors[:, 0]
    torch.testing.assert_close(v * v[0].sign(), torch.tensor(first).double() / 2**0.5)
    assert captured_energy(features, intervened, directions.vectors[:, :1]) == pytest.approx(0, abs=1e-12)
    assert captured_energy(features, intervened, torch.eye(2)[:, :1]) == pytest.approx(0.5)
    assert captured_energy(features, intervened, torch.eye(2)) == pytest.approx(1)


def test_map_takes_the_factor_that_interventions_leave_alone(world):
    directions = invariant_directions(*world["pairs"], 1000.0)
    most, least = directions.vectors[:, 0].float(), directions.vectors[:, -1].float()
    assert abs(most @ world["content"]) > 0.99
    assert abs(least @ world["style"]) > 0.99  # what the smallest eigenvalue's vectors, the first of eigh, would be
    energy = [captured_energy(*world["pairs"], directions.vectors[:, :k]) for k in (1, 7, 8)]
    assert energy[0] < 0.01
    assert energy[1] < 0.01
    assert energy[2] == pytest.approx(1)

    assert world["accuracy"](directions.vectors) < 75  # plain CLIP
    assert world["accuracy"](directions.vectors[:, :1]) == 100
    assert world["accuracy"](directions.vectors[:, -1:]) < 75


def test_directions_are_eigenvectors_of_eq_9():
    features, intervened = random_pairs()
    vectors, values = invariant_directions(features, intervened, 2.0)
    delta = features - intervened[0]
    s = features.double().T @ features.double() / 40 - 2 * delta.double().T @ delta.double() / 40
    assert vectors.dtype == values.dtype == torch.float64
    torch.testing.assert_close(s @ vectors, vectors * values)
    torch.testing.assert_close(vectors.T @ vectors, torch.eye(6).double())
    assert (values.diff() < 0).all()
    assert not vectors.requires_grad


def test_several_interventions_are_as_many_pairs():
    features, intervened = random_pairs(n_interventions=3)
    several = invariant_directions(features, intervened, 2.0)
    pairs = invariant_directions(features.repeat(3, 1), intervened.flatten(0, 1), 2.0)
    torch.testing.assert_close(several.values, pairs.values)
    shares = [captured_energy(*views, several.vectors[:, :2]) for views in ((features, intervened),)]
    assert shares[0] == pytest.approx(
        captured_energy(features.repeat(3, 1), intervened.flatten(0, 1), several.vectors[:, :2])
    )


def test_lambda_0_is_uncentred_pca():
    features, intervened = random_pairs()
    vectors = invariant_directions(features, intervened, 0.0).vectors[:, :3]
    right = torch.linalg.svd(features.double(), full_matrices=False).Vh[:3].T
    torch.testing.assert_close(vectors @ vectors.T, right @ right.T)


def test_whole_space_is_plain_clip_and_bases_do_not_matter():
    features, intervened = random_pairs()
    text = torch.randn(4, 6, generator=torch.Generator().manual_seed(2))
    vectors = invariant_directions(features, intervened, 5.0).vectors.float()
    torch.testing.assert_close(
        cosine(features @ vectors, text @ vectors), F.cosine_similarity(features[:, None], text, -1)
    )
    a = vectors[:, :3]
    turned = a @ torch.linalg.qr(torch.randn(3, 3, generator=torch.Generator().manual_seed(3))).Q
    for other in (turned, a * torch.tensor([1.0, -1.0, -1.0])):
        torch.testing.assert_close(cosine(features @ other, text @ other), cosine(features @ a, text @ a))


def test_fewer_images_than_dimensions():
    """Directions in which no image has a part are of equal rank: a choice takes all of them or none."""
    features, intervened = random_pairs(n_images=3, width=16)
    vectors, values = invariant_directions(features, intervened, 1.0)
    assert vectors.isfinite().all()
    n_positive, n_zero = int((values > 1e-9).sum()), int((values.abs() < 1e-9).sum())
    assert n_zero == 10  # 3 features and 3 changes span 6 of 16
    sizes = candidate_sizes(values)
    assert not [k for k in sizes if n_positive < k < n_positive + n_zero]
    assert n_positive + n_zero in sizes
    assert sizes[-1] == 16
    assert candidate_sizes(torch.linspace(2, 1, 16).double()) == [2, 4, 6, 8, 10, 12, 14, 16]
    assert candidate_sizes(torch.tensor([1.0]).double()) == [1]


def test_choice_is_by_score(world):
    pairs, accuracy = world["pairs"], world["accuracy"]
    plain = accuracy(torch.eye(8))
    choice = choose(*pairs, accuracy)
    assert plain < 75
    assert choice.score == 100
    assert choice.k == 7  # of all that are right the one that changes CLIP least
    right = [x for x in LAMBDAS if accuracy(invariant_directions(*pairs, x).vectors[:, :7]) == 100]
    assert choice.weight == min(right) > LAMBDAS[0]
    assert choose(*pairs, accuracy, weight=1000.0).weight == 1000
    assert choose(*pairs, accuracy, k=8).score == pytest.approx(plain)
    fixed = choose(*pairs, accuracy, weight=10.0, k=3)
    assert (fixed.weight, fixed.k) == (10, 3)
    torch.testing.assert_close(fixed.directions.values, invariant_directions(*pairs, 10.0).values)
    assert choose(*pairs, lambda a: 50.0).k == 8  # nothing to tell by
    assert choose(*pairs, lambda a: -abs(a.shape[1] - 4)).k == 4


def test_map_is_the_identity_until_it_is_set(world):
    invariant = InvariantMap(8)
    torch.testing.assert_close(invariant(world["images"]), world["images"])
    choice = choose(*world["pairs"], world["accuracy"], k=2, weight=100.0)
    invariant.set(choice, 0.25)
    torch.testing.assert_close(invariant(world["images"]), world["images"] @ choice.directions.vectors[:, :2].float())
    assert not list(invariant.parameters())
    loaded = InvariantMap(8)
    loaded.load_state_dict(invariant.state_dict())
    assert torch.equal(loaded(world["images"]), invariant(world["images"]))
    assert loaded.metrics() == {
        "subspace_dimension": 2,
        "lambda": 100,
        "energy_inside": 0.25,
        "energy_outside": 0.75,
    }


@pytest.mark.parametrize(
    ("call", "message"),
    [
        (lambda z: invariant_directions(z, z[:3], 1.0), r"\(4, 6\) and \(3, 6\)"),
        (lambda z: invariant_directions(z, z, -1.0), "lambda must not be negative, got -1"),
        (lambda z: choose(z, z, len, k=7), "K must be at most 6, .* got 7"),
        (lambda z: choose(z, z, len, k=-1), "K and LAMBDA must be positive"),
    ],
)
def test_wrong_input_is_told(call, message):
    with pytest.raises(ValueError, match=message):
        call(torch.ones(4, 6))


def picture(size=(40, 30)):
    pixels = np.random.default_rng(0).integers(0, 256, (size[1], size[0], 3))
    return Image.fromarray(pixels.astype(np.uint8))


@pytest.mark.parametrize("name", OPERATIONS)
def test_operation(name):
    before = picture()
    after = OPERATIONS[name](before, random.Random(0))
    assert (after.mode, after.size) == ("RGB", before.size)
    assert not np.array_equal(np.asarray(after), np.asarray(before))
    assert np.array_equal(np.asarray(before), np.asarray(picture()))
    again = OPERATIONS[name](before, random.Random(0))
    assert np.array_equal(np.asarray(after), np.asarray(again))


def test_every_operation_is_drawn(monkeypatch):
    drawn = []
    for name in OPERATIONS:
        monkeypatch.setitem(OPERATIONS, name, lambda image, rng, name=name: drawn.append(name))
    rng = random.Random(0)
    for _ in range(700):
        intervene(None, rng)
    assert set(drawn) == set(OPERATIONS)
    assert all(60 < drawn.count(name) < 140 for name in OPERATIONS)


def test_views_depend_on_seed_and_picture_alone():
    def views(seed=1, n=2, paths=("a", "b", "c")):
        return InterventionViews(paths, lambda path: picture(), lambda image: torch.tensor(np.asarray(image)), n, seed)

    first = views()[1]
    assert first.shape == (3, 30, 40, 3)
    assert torch.equal(first[0], torch.tensor(np.asarray(picture())))
    state = random.getstate()
    random.random()
    torch.rand(1)
    other = views()
    other[0]
    assert torch.equal(other[1], first)
    random.setstate(state)
    assert [torch.equal(views()[i], first) for i in (0, 2)] == [False, False]
    assert not torch.equal(views(seed=2)[1], first)
    assert random.getstate() == state


@pytest.fixture
def build(build_run):
    def make(output, *opts, trainer="CLIPICM", classes="base", **kwargs):
        return build_run(trainer, output, "DATASET.SUBSAMPLE_CLASSES", classes, *opts, **kwargs)

    return make


def test_run_reports_and_its_map_serves_new_classes(build, tmp_path, capsys):
    trained = build(tmp_path / "base", "TRAINER.CLIPICM.K", 12)
    trained.train()
    results = results_of(tmp_path / "base")
    figures = results["figures"]
    assert (results["trainer"], results["epoch"], results["class_names"]) == ("CLIPICM", 1, ["blue", "green"])
    assert figures["subspace_dimension"] == 12
    assert figures["lambda"] in LAMBDAS
    assert 0 < figures["energy_inside"] < 1
    assert figures["energy_inside"] + figures["energy_outside"] == pytest.approx(1)
    assert f"Invariant subspace: 12 of 48 dimensions, lambda {figures['lambda']:g}; " in capsys.readouterr().out

    checkpoint = torch.load(tmp_path / "base/invariant_map/model.pth.tar-1", weights_only=True)
    assert set(checkpoint["state_dict"]) == {"directions", "k", "weight", "energy"}
    assert checkpoint["state_dict"]["directions"].shape == (48, 48)
    assert checkpoint["epoch"] == 1

    tested = build(tmp_path / "new", "TRAINER.CLIPICM.K", 12, classes="new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=1)
    tested.test()
    results = results_of(tmp_path / "new")
    assert results["class_names"] == ["red", "yellow"]
    assert torch.equal(tested.learner.directions, trained.learner.directions)
    assert {key: results["figures"][key] for key in tested.learner.metrics()} == trained.learner.metrics()
    images = torch.randn(5, 3, 32, 32)
    a = tested.learner.directions[:, :12]
    expected = F.cosine_similarity(
        (tested.model.image_encoder(images) @ a)[:, None], tested.model.text_features @ a, dim=-1
    )
    torch.testing.assert_close(tested.model_inference(images), tested.model.scale * expected)


def test_estimate_is_that_of_the_training_images_features(build, tmp_path, monkeypatch):
    """In one pass and with the seed's interventions; no test image and no global random state has a part."""
    read = []
    monkeypatch.setattr(invariance, "read_image", lambda path: read.append(path) or Image.open(path).convert("RGB"))
    trainer = build(tmp_path, "TRAINER.CLIPICM.LAMBDA", 10.0, "TRAINER.CLIPICM.INTERVENTIONS", 2)
    states = random.getstate(), torch.get_rng_state()
    trainer.run_epoch()
    assert random.getstate() == states[0]
    assert torch.equal(torch.get_rng_state(), states[1])
    dataset = trainer.dm.dataset
    assert read == [item.impath for item in [*dataset.train_x, *dataset.val]]

    transform = trainer.dm.test_loader.dataset.transform
    views = InterventionViews(read[: len(dataset.train_x)], invariance.read_image, transform, 2, seed=1)
    encoded = torch.stack([trainer.model.image_encoder.visual(view) for view in views], dim=1)
    directions = invariant_directions(encoded[0], encoded[1:], 10.0)
    k = int(trainer.learner.k)
    ours, expected = trainer.learner.directions[:, :k], directions.vectors[:, :k].float()
    torch.testing.assert_close(ours @ ours.T, expected @ expected.T, rtol=0, atol=1e-3)
    energy = captured_energy(encoded[0], encoded[1:], directions.vectors[:, :k])
    assert trainer.learner.energy.item() == pytest.approx(energy, rel=1e-3)


def test_images_without_a_transform_are_refused(build, tmp_path):
    trainer = build(tmp_path, "INPUT.NO_TRANSFORM", True)
    with pytest.raises(ValueError, match=r"INPUT\.NO_TRANSFORM must be False"):
        trainer.run_epoch()


def test_validation_images_that_are_the_test_images_are_left_alone(build, tmp_path, monkeypatch, capsys):
    trainer = build(tmp_path)
    dataset = trainer.dm.dataset
    assert invariance.held_out(dataset) == dataset.val
    for val in (None, dataset.test):
        monkeypatch.setattr(type(dataset), "val", val)
        trainer.run_epoch()
        assert f"accuracy on {len(dataset.train_x)} training images" in capsys.readouterr().out


def test_cut_run_resumes_without_a_new_estimate(build, tmp_path, monkeypatch):
    cut = build(tmp_path)
    monkeypatch.setattr(cut, "test", lambda: (_ for _ in ()).throw(KeyboardInterrupt))
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert not (tmp_path / "results.json").exists()
    resumed = build(tmp_path)
    monkeypatch.setattr(resumed, "run_epoch", lambda: pytest.fail("estimated again"))
    resumed.train()
    assert torch.equal(resumed.learner.directions, cut.learner.directions)
    assert results_of(tmp_path)["epoch"] == 1


def test_seed_decides_the_map(build, tmp_path):
    maps = []
    for n, opts in enumerate([(), ("DATALOADER.NUM_WORKERS", 1, "DATALOADER.TEST.BATCH_SIZE", 3), ("SEED", 2)]):
        trainer = build(tmp_path / str(n), "TRAINER.CLIPICM.LAMBDA", 10.0, "TRAINER.CLIPICM.K", 6, *opts)
        trainer.run_epoch()
        a = trainer.learner.directions[:, :6]
        maps.append(a @ a.T)
    torch.testing.assert_close(maps[0], maps[1], rtol=0, atol=1e-3)
    assert (maps[0] - maps[2]).abs().max() > 0.05


@pytest.mark.parametrize("classes", ["base", "all"])  # two classes and four
def test_linear_probe(build, tmp_path, classes):
    options = ("TRAINER.CLIPICM.PREDICTION", "probe", "TRAINER.CLIPICM.K", 24, "TRAINER.CLIPICM.LAMBDA", 0.0)
    trainer = build(tmp_path / "probe", *options, classes=classes)
    trainer.train()
    assert results_of(tmp_path / "probe")["figures"]["accuracy"] == 100  # colours are no riddle
    from sklearn.linear_model import LogisticRegression

    batch = next(iter(trainer.test_loader))
    dataset = trainer.dm.dataset
    transform = trainer.dm.test_loader.dataset.transform
    images = torch.stack([transform(Image.open(item.impath)) for item in dataset.train_x])
    x = trainer.learner(trainer.model.image_encoder.features(images))
    direct = LogisticRegression(C=0.316, max_iter=1000).fit(x.numpy(), [item.label for item in dataset.train_x])
    probability = trainer.model_inference(batch["img"]).softmax(dim=1)
    expected = direct.predict_proba(trainer.learner(trainer.model.image_encoder.features(batch["img"])).numpy())
    np.testing.assert_allclose(probability.numpy(), expected, atol=1e-3)

    again = build(tmp_path / "again", *options, classes=classes, flags=["--eval-only"])
    again.load_model(str(tmp_path / "probe"), epoch=1)
    torch.testing.assert_close(again.model_inference(batch["img"]).softmax(dim=1), probability)


def test_probe_predicts_its_own_classes_alone(build, tmp_path):
    build(tmp_path / "base", "TRAINER.CLIPICM.PREDICTION", "probe").train()
    asked = build(tmp_path / "new", "TRAINER.CLIPICM.PREDICTION", "probe", classes="new")
    with pytest.raises(ValueError, match="probe for blue, green, not for red, yellow, which PREDICTION cosine"):
        asked.load_model(str(tmp_path / "base"), epoch=1)
    cosine_only = build(tmp_path / "cosine", classes="new")
    cosine_only.load_model(str(tmp_path / "base"), epoch=1)
    cosine_only.test()
    build(tmp_path / "plain").train()
    with pytest.raises(ValueError, match=r"has no probe\.bias, probe\.weight"):
        build(tmp_path / "x", "TRAINER.CLIPICM.PREDICTION", "probe").load_model(str(tmp_path / "plain"), epoch=1)


def test_probe_without_validation_images_asks_for_k_and_lambda(build, tmp_path, monkeypatch):
    monkeypatch.setattr(clip_icm, "held_out", lambda dataset: [])
    options = ("TRAINER.CLIPICM.PREDICTION", "probe", "TRAINER.CLIPICM.K", 24, "TRAINER.CLIPICM.LAMBDA", 0.0)
    with pytest.raises(ValueError, match="give both, got 24 and 0"):
        build(tmp_path, *options).train()
    assert list(tmp_path.rglob("events.out*")) == []  # before anything is logged
    build(tmp_path, *options, "TRAINER.CLIPICM.LAMBDA", 10.0).train()
    assert results_of(tmp_path)["figures"]["lambda"] == 10


def test_probe_is_tested_on_a_set_without_validation_images(build, tmp_path, monkeypatch):
    """As the variants of a source are, where nothing is chosen any more."""
    options = ("TRAINER.CLIPICM.PREDICTION", "probe")
    build(tmp_path / "source", *options).train()
    monkeypatch.setattr(clip_icm, "held_out", lambda dataset: [])
    variant = build(tmp_path / "variant", *options)
    variant.load_model(str(tmp_path / "source"), epoch=1)
    assert variant.test() == results_of(tmp_path / "source")["figures"]["accuracy"]


def test_resnet(build, tmp_path):
    resnet = {"vision_layers": (1, 1, 1, 1), "vision_width": 32, "vision_patch_size": None}
    torch.save(random_clip(**resnet).state_dict(), tmp_path / "resnet.pt")
    trainer = build(tmp_path / "run", backbone=tmp_path / "resnet.pt")
    trainer.train()
    figures = results_of(tmp_path / "run")["figures"]
    assert 1 <= figures["subspace_dimension"] == int(trainer.learner.k) <= 48
    images = torch.randn(3, 3, 32, 32)
    a = trainer.learner.directions[:, : int(trainer.learner.k)]
    cosine = (
        F.normalize(trainer.model.image_encoder.visual(images) @ a, dim=-1)
        @ F.normalize(trainer.model.text_features @ a, dim=-1).T
    )
    torch.testing.assert_close(trainer.model_inference(images), trainer.model.scale * cosine, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("precision", ["amp", "bf16", HALF])
def test_precisions(build, tmp_path, precision):
    trainer = build(tmp_path, "TRAINER.CLIPICM.PREC", precision, "TRAINER.CLIPICM.K", 40)
    trainer.train()
    logits = trainer.model_inference(torch.randn(4, 3, 32, 32))
    assert logits.dtype == torch.float32
    assert logits.isfinite().all()
    assert trainer.learner.directions.dtype == torch.float32
    exact = build(tmp_path / "exact", "TRAINER.CLIPICM.PREC", "fp32", "TRAINER.CLIPICM.K", 40)
    exact.run_epoch()
    assert trainer.learner.energy.item() == pytest.approx(exact.learner.energy.item(), abs=0.05)


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (("TRAINER.CLIPICM.PREC", "fp8", "TRAINER.CLIPICM.INTERVENTIONS", 0), ["fp16, bf16", "INTERVENTIONS"]),
        (
            ("TRAINER.CLIPICM.K", -1, "TRAINER.CLIPICM.LAMBDA", 0.0),
            ["K and LAMBDA must be positive, or 0", "got -1, 0.0"],
        ),
        (("TRAINER.CLIPICM.LAMBDA", -2.0), ["got 0, -2.0"]),
        (("TRAINER.CLIPICM.K", 49), ["K must be at most 48", "got 49"]),
        (("TRAINER.CLIPICM.PREDICTION", "knn"), ["cosine, probe", "'knn'"]),
    ],
)
def test_wrong_config_is_told_at_once(build, tmp_path, options, messages):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the messages are checked below
        build(tmp_path, *options)
    for message in messages:
        assert message in str(caught.value)


CDC_OPTIONS = {
    "TRAINER.CDC.N_TEMPLATES": 2,
    "TRAINER.CDC.CTX_INIT": ["a photo of a", "one picture of a"],
    "TRAINER.CDC.AUGMENTATIONS": [["random_resized_crop", "normalize"], ["random_flip", "normalize"]],
    "TRAINER.CDC.EVIDENCE_SCALE": 10.0,
    "OPTIM.MAX_EPOCH": 2,
    "OPTIM.LR": 0.1,
    "DATALOADER.TRAIN_X.BATCH_SIZE": 4,
}


@pytest.fixture
def build_cdc(build):
    def make(output, *opts, **kwargs):
        options = {**CDC_OPTIONS, **dict(zip(opts[::2], opts[1::2]))}
        return build(output, *[x for pair in options.items() for x in pair], trainer="CDC", **kwargs)

    return make


def test_cdc_behind_the_whole_space_is_cdc(build_cdc, tmp_path):
    """k = D turns the features and changes no cosine; and the estimate draws nothing that training draws."""
    contexts = []
    for name, opts in {
        "plain": (),
        "invariant": ("TRAINER.CDC.INVARIANT_MAP.ENABLED", True, "TRAINER.CDC.INVARIANT_MAP.K", 48),
    }.items():
        trainer = build_cdc(tmp_path / name, *opts)
        trainer.train()
        contexts.append(trainer.learner.ctx.detach())
        assert ("energy_inside" in results_of(tmp_path / name)["figures"]) == (name == "invariant")
        assert hasattr(trainer.learner, "invariant") == (name == "invariant")
    assert not torch.equal(trainer.learner.invariant.directions, torch.eye(48))
    torch.testing.assert_close(contexts[0], contexts[1], rtol=0, atol=1e-3)


def test_cdc_behind_the_map(build_cdc, tmp_path):
    options = ("TRAINER.CDC.INVARIANT_MAP.ENABLED", True, "TRAINER.CDC.INVARIANT_MAP.K", 12)
    trained = build_cdc(tmp_path / "base", *options)
    trained.train()
    model, images = trained.model, torch.randn(3, 3, 32, 32)
    assert [name for name, p in model.named_parameters() if p.requires_grad] == ["prompt_learner.ctx"]
    a = trained.learner.invariant.directions[:, :12]
    plain = F.normalize(model.text_encoder(trained.learner()), dim=-1)
    expected = F.cosine_similarity((plain @ a)[:, None], (model.image_encoder(images) @ a)[:, None], dim=-1)
    found = model.image_features(images) @ model.text_features().transpose(1, 2)
    torch.testing.assert_close(found, expected, rtol=1e-4, atol=1e-4)
    assert results_of(tmp_path / "base")["figures"]["subspace_dimension"] == 12

    tested = build_cdc(tmp_path / "new", *options, classes="new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=2)
    tested.test()
    assert torch.equal(tested.learner.invariant.directions, trained.learner.invariant.directions)
    assert results_of(tmp_path / "new")["figures"]["subspace_dimension"] == 12

    with pytest.raises(ValueError, match=r"has invariant\.directions, .*, which are not known"):
        build_cdc(tmp_path / "other").load_model(str(tmp_path / "base"), epoch=2)
    with pytest.raises(ValueError, match="K must be at most 48"):
        build_cdc(tmp_path / "wide", "TRAINER.CDC.INVARIANT_MAP.ENABLED", True, "TRAINER.CDC.INVARIANT_MAP.K", 49)


def test_resumed_cdc_keeps_its_map(build_cdc, tmp_path, monkeypatch):
    options = ("TRAINER.CDC.INVARIANT_MAP.ENABLED", True)
    whole = build_cdc(tmp_path / "whole", *options)
    whole.train()
    cut = build_cdc(tmp_path / "cut", *options, "TEST.NO_TEST", True)
    cut.max_epoch = 1
    cut.train()
    resumed = build_cdc(tmp_path / "cut", *options)
    monkeypatch.setattr(cdc, "estimate_invariant_map", lambda *args: pytest.fail("estimated again"))
    resumed.train()
    assert torch.equal(resumed.learner.ctx, whole.learner.ctx)
    assert torch.equal(resumed.learner.invariant.directions, whole.learner.invariant.directions)


def test_coupled_cdc_behind_the_map(build_cdc, tmp_path):
    opts = ("TRAINER.CDC.INVARIANT_MAP.ENABLED", True, "TRAINER.CDC.PROMPT", "coupled", "TRAINER.CDC.PROMPT_DEPTH", 2)
    trainer = build_cdc(tmp_path, *opts, "OPTIM.MAX_EPOCH", 1, "OPTIM.LR", 0.001)
    trainer.train()
    figures = results_of(tmp_path)["figures"]
    assert figures["subspace_dimension"] == int(trainer.learner.invariant.k)
    images = torch.randn(3, 3, 32, 32)
    a = trainer.learner.invariant.directions[:, : int(trainer.learner.invariant.k)]
    with torch.no_grad():
        features = trainer.model.image_encoder(images, trainer.learner.visual())  # (M, B, D)
        torch.testing.assert_close(trainer.model.image_features(images), F.normalize(features @ a, dim=-1))
