"""PromptSRC's self-regulation: hand-computed values, limits, gradients, and the average of the epochs."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from trainers.modules.self_regulation import GaussianAverage, distances, ensemble_features, gaussian_weights
from trainers.modules.text import TextEncoder


def unit(*shape, seed=0):
    generator = torch.Generator().manual_seed(seed)
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=generator), dim=-1)


def test_distances_worked_example():
    """Two classes and one image, which the prompts turn from the first class to the second."""
    frozen = torch.eye(2, dtype=torch.float64)
    image, frozen_image = frozen[1:], frozen[:1]
    far = distances(image, frozen.flip(1), frozen_image, frozen, math.log(3))
    assert far.text == far.image == 1
    # With the texts exchanged as well the logits are (log 3, 0) in both.
    assert far.logits == pytest.approx(0)
    # The texts as they were: predictions (1/4, 3/4) where the frozen CLIP has (3/4, 1/4).
    far = distances(image, frozen, frozen_image, frozen, math.log(3))
    assert far.text == 0
    assert far.logits == pytest.approx(0.5 * (0.75 - 0.25) * math.log(3))


def test_nothing_is_far_from_itself():
    images, texts = unit(3, 8), unit(4, 8, seed=1)
    assert [value.item() for value in distances(images, texts, images, texts, 100.0)] == [0.0, 0.0, 0.0]


def test_divergence_is_pytorchs():
    images, texts, frozen_images, frozen_texts = unit(3, 8), unit(4, 8, seed=1), unit(3, 8, seed=2), unit(4, 8, seed=3)
    logits, frozen = (30 * i @ t.T for i, t in ((images, texts), (frozen_images, frozen_texts)))
    expected = F.kl_div(logits.log_softmax(1), frozen.log_softmax(1), reduction="sum", log_target=True) / 12
    torch.testing.assert_close(distances(images, texts, frozen_images, frozen_texts, 30.0).logits, expected)


def test_of_templates_it_is_the_mean():
    images, texts = unit(2, 3, 8), unit(2, 4, 8, seed=1)
    frozen = unit(3, 8, seed=2), unit(4, 8, seed=3)
    together = distances(images, texts, *frozen, 30.0)
    alone = [distances(images[m], texts[m], *frozen, 30.0) for m in range(2)]
    for value, values in zip(together, zip(*alone)):
        torch.testing.assert_close(value, sum(values) / 2)


def test_gradients_and_large_scales():
    frozen = unit(2, 5, seed=2), unit(3, 5, seed=3)
    inputs = unit(2, 5).requires_grad_(), unit(3, 5, seed=1).requires_grad_()
    assert torch.autograd.gradcheck(lambda i, t: sum(distances(i, t, *frozen, 10.0)), inputs)
    far = sum(distances(*inputs, *frozen, 1e6))
    far.backward()
    assert far.isfinite()
    assert all(x.grad.isfinite().all() for x in inputs)


@pytest.mark.parametrize(("images", "texts", "name"), [((3, 8), (5, 8), "text"), ((4, 8), (4, 8), "image")])
def test_distances_of_other_shapes_are_told(images, texts, name):
    with pytest.raises(ValueError, match=f"frozen {name} features must have the last dimensions"):
        distances(unit(3, 8), unit(4, 8), unit(*images), unit(*texts), 1.0)


def test_ensemble_is_the_normalised_mean_of_what_is_not_normalised(small_clip):
    encoder = TextEncoder(small_clip)
    templates, names = ["a photo of a {}.", "{} texture.", "a {} or another {}."], ["dog", "striped_cat"]
    texts = [[template.replace("{}", name) for name in ("dog", "striped cat")] for template in templates]
    features = torch.stack([encoder.plain_features(own) for own in texts])
    assert (features.norm(dim=-1) - 1).abs().min() > 0.1
    found = ensemble_features(encoder, templates, names)
    torch.testing.assert_close(found, F.normalize(features.mean(dim=0), dim=-1), rtol=1e-5, atol=1e-6)
    assert not found.requires_grad
    with pytest.raises(ValueError, match="at least 1 template"):
        ensemble_features(encoder, [], names)


def test_weights_are_the_densities():
    densities = [math.exp(-0.5 * ((epoch - 15) / 2) ** 2) for epoch in range(1, 21)]
    assert gaussian_weights(20, 15, 2) == pytest.approx([value / sum(densities) for value in densities], abs=1e-15)
    assert sum(gaussian_weights(50, 30, 30)) == pytest.approx(1)
    assert gaussian_weights(1, 100, 1) == (1.0,)


def test_weights_far_from_the_mean():
    """The densities themselves would all be 0."""
    assert gaussian_weights(3, 1000, 1) == pytest.approx([0.0, 0.0, 1.0])


@pytest.mark.parametrize(("n_epochs", "std"), [(0, 1), (3, 0), (3, -1)])
def test_wrong_weights_are_told(n_epochs, std):
    with pytest.raises(ValueError, match="at least 1 epoch and a standard deviation above 0"):
        gaussian_weights(n_epochs, 1, std)


def test_average_by_hand():
    average = GaussianAverage(3, 2, 1)
    side = math.exp(-0.5) / (1 + 2 * math.exp(-0.5))
    for value in (1.0, 2.0, 4.0):
        assert not average.complete
        average.add({"a": torch.tensor([value, -value], dtype=torch.float64), "b": torch.ones(())})
    assert average.complete
    expected = 5 * side + 2 * (1 - 2 * side)
    assert average.total["a"].tolist() == pytest.approx([expected, -expected])
    assert average.total["b"] == pytest.approx(1.0)
    with pytest.raises(ValueError, match="over 3 epochs, and all of them"):
        average.add({"a": torch.zeros(2), "b": torch.ones(())})


def test_average_does_not_follow_its_parameters():
    parameter = torch.nn.Parameter(torch.ones(2))
    average = GaussianAverage(1, 1, 1)
    average.add({"a": parameter})
    with torch.no_grad():
        parameter.zero_()
    assert average.total["a"].tolist() == [1.0, 1.0]
    assert not average.total["a"].requires_grad


def test_average_goes_on_where_another_was():
    whole, first, second = (GaussianAverage(4, 3, 2) for _ in range(3))
    values = [{"a": unit(5, seed=n)} for n in range(4)]
    for value in values:
        whole.add(value)
    first.load_state_dict(first.state_dict() | {})
    for value in values[:2]:
        first.add(value)
    second.load_state_dict(first.state_dict())
    for value in values[2:]:
        second.add(value)
    assert torch.equal(second.total["a"], whole.total["a"])
    assert first.n_added == 2  # what it gave away is its own no more


def test_average_of_other_weights_is_not_continued():
    average = GaussianAverage(3, 2, 1)
    with pytest.raises(ValueError, match="there is no average"):
        average.load_state_dict({})
    with pytest.raises(ValueError, match=r"made with .*'std': 2\.0.*, not with .*'std': 1\.0"):
        average.load_state_dict(GaussianAverage(3, 2, 2).state_dict())
