"""The losses: hand-computed values, limits, invariances, gradients, large numbers."""

from __future__ import annotations

import math

import pytest
import torch
import torch.nn.functional as F

from trainers.modules import losses
from trainers.modules.losses import (
    consistency_loss,
    dirichlet_kl,
    diversity_loss,
    knowledge_loss,
    template_similarity,
    total_loss,
    trusted_cross_entropy,
)


def random_features(*shape):
    return F.normalize(torch.randn(*shape, dtype=torch.float64, generator=torch.Generator().manual_seed(3)), dim=-1)


def test_trusted_cross_entropy_worked_example():
    evidence = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.0, 4.0]], dtype=torch.float64)
    loss = trusted_cross_entropy(evidence.log()[:, None], torch.tensor([0]))
    assert loss.item() == pytest.approx(4.4367937, abs=1e-7)


@pytest.mark.parametrize("spread", [1.0, 6.0])
def test_trusted_cross_entropy_is_equation_7(spread):
    logs = spread * torch.randn(3, 5, 7, dtype=torch.float64, generator=torch.Generator().manual_seed(0))
    target = torch.tensor([0, 6, 3, 3, 1])
    alpha = logs.exp() + 1
    right = alpha[:, torch.arange(5), target]
    expected = (torch.digamma(alpha.sum(2)) - torch.digamma(right)).sum(0).mean()
    torch.testing.assert_close(trusted_cross_entropy(logs, target), expected)


def test_trusted_cross_entropy_limits():
    target = torch.tensor([1])
    certain = torch.tensor([[[-1e4, 1e4, 0.0]]])
    assert trusted_cross_entropy(certain, target).item() == pytest.approx(0.0, abs=1e-6)
    wrong = torch.tensor([[[1e4, -1e4, 0.0]]])  # psi(S) - psi(1) = log S + 0.5772
    assert trusted_cross_entropy(wrong, target).item() == pytest.approx(1e4 + 0.5772157, rel=1e-6)
    vacuous = torch.full((1, 1, 3), -math.inf)  # psi(3) - psi(1) = 1 + 1/2
    assert trusted_cross_entropy(vacuous, target).item() == pytest.approx(1.5, abs=1e-6)


def test_trusted_cross_entropy_joins_its_series_smoothly():
    # alpha just below and above 100, where the digamma function gives way to its series
    logs = torch.tensor([99.0 - 1e-9, 99.0 + 1e-9], dtype=torch.float64).log()
    values = [trusted_cross_entropy(x.view(1, 1, 1).expand(1, 1, 2), torch.tensor([0])) for x in logs]
    assert abs(values[0] - values[1]) < 1e-10


@pytest.mark.parametrize("function", [trusted_cross_entropy, dirichlet_kl])
@pytest.mark.parametrize(("m", "c"), [(1, 1), (4, 24), (64, 21_000)])
def test_finite_for_any_evidence(function, m, c):
    generator = torch.Generator().manual_seed(0)
    logs = (2e4 * torch.rand(m, 2, c, generator=generator) - 1e4).requires_grad_()
    loss = function(logs, torch.zeros(2, dtype=torch.long))
    loss.backward()
    assert loss.isfinite()
    assert loss >= 0
    assert logs.grad.isfinite().all()


@pytest.mark.parametrize("n_classes", [2, 2214, 21_000])
def test_dirichlet_kl_of_little_evidence(n_classes):
    target = torch.zeros(1, dtype=torch.long)
    assert dirichlet_kl(torch.full((1, 1, n_classes), -math.inf), target).item() == pytest.approx(0.0, abs=1e-6)
    little = torch.full((1, 1, n_classes), -5.0)
    assert dirichlet_kl(little, target).item() == pytest.approx(dirichlet_kl(little.double(), target).item(), rel=1e-6)


@pytest.mark.parametrize("function", [trusted_cross_entropy, dirichlet_kl])
def test_gradient_and_no_evidence(function):
    logs = 3 * torch.randn(2, 3, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(1))
    target = torch.tensor([0, 3, 2])
    assert torch.autograd.gradcheck(lambda x: function(x, target), logs.clone().requires_grad_())
    logs[0, 0] = -math.inf
    logs.requires_grad_()
    function(logs, target).backward()
    assert logs.grad.isfinite().all()
    assert logs.grad[0, 0].eq(0).all()


def test_dirichlet_kl_is_torchs():
    logs = 4 * torch.randn(2, 3, 5, dtype=torch.float64, generator=torch.Generator().manual_seed(2))
    target = torch.tensor([4, 0, 2])
    alpha = logs.exp() + 1
    alpha[:, torch.arange(3), target] = 1.0
    dirichlet = torch.distributions.Dirichlet
    expected = torch.distributions.kl_divergence(dirichlet(alpha), dirichlet(torch.ones_like(alpha)))
    torch.testing.assert_close(dirichlet_kl(logs, target), expected.sum(0).mean())


def test_diversity_is_equation_2():
    features, scale = random_features(3, 4, 6), 10.0
    expected = 0.0
    for m in range(3):
        for other in range(3):
            if m != other:
                for c in range(4):
                    p = torch.softmax(scale * features[other] @ features[m, c], dim=0)
                    expected += (p * p.log()).sum() / 4 / 2
    torch.testing.assert_close(diversity_loss(features, scale), expected)


def test_diversity_limits():
    assert diversity_loss(random_features(1, 5, 8), 100.0).item() == 0.0
    same_everywhere = torch.ones(4, 5, 8)  # no template can tell another's classes
    assert diversity_loss(same_everywhere, 100.0).item() == pytest.approx(-4 * math.log(5), rel=1e-6)
    one_hot = torch.eye(5).expand(4, 5, 5)  # every template tells all of another's classes
    assert diversity_loss(one_hot, 1000.0).item() == pytest.approx(0.0, abs=1e-6)


@pytest.mark.parametrize("at_once", [1, 12, 40])
def test_diversity_in_parts_equals_the_whole(monkeypatch, at_once):
    features = random_features(3, 5, 8).double()
    found = []
    for most in (losses.LOGITS_AT_ONCE, at_once):
        monkeypatch.setattr(losses, "LOGITS_AT_ONCE", most)
        leaf = features.clone().requires_grad_()
        loss = diversity_loss(leaf, 20.0)
        loss.backward()
        found.append((loss, leaf.grad))
    for whole, part in zip(*found):
        torch.testing.assert_close(part, whole)


def test_diversity_does_not_depend_on_the_order():
    features = random_features(4, 5, 8)
    expected = diversity_loss(features, 20.0)
    torch.testing.assert_close(diversity_loss(features[[2, 0, 3, 1]], 20.0), expected)
    torch.testing.assert_close(diversity_loss(features[:, [4, 2, 0, 1, 3]], 20.0), expected)
    torch.testing.assert_close(diversity_loss(7 * features, 20.0), expected)


def test_consistency_is_equation_3():
    features, anchor, scale = random_features(3, 4, 6), random_features(4, 6), 10.0
    expected = 0.0
    for m in range(3):
        for c in range(4):
            expected -= torch.log_softmax(scale * anchor @ features[m, c], dim=0)[c] / 4
    torch.testing.assert_close(consistency_loss(features, anchor, scale), expected)


def test_consistency_limits():
    eye = torch.eye(5)
    assert consistency_loss(eye.expand(3, 5, 5), eye, 1000.0).item() == pytest.approx(0.0, abs=1e-6)
    assert consistency_loss(torch.ones(3, 5, 5), eye, 10.0).item() == pytest.approx(3 * math.log(5), rel=1e-6)


def test_total_is_equation_8():
    text, anchor, classification = random_features(3, 4, 8), random_features(4, 8), torch.tensor(4.4367937)
    total, diversity, consistency = total_loss(classification, text, anchor, 10.0, beta=0.25, gamma=2.0)
    assert (diversity, consistency) == (diversity_loss(text, 10.0), consistency_loss(text, anchor, 10.0))
    assert total.item() == pytest.approx(4.4367937 + diversity.item() / 4 + 2 * consistency.item())


def test_gradients_of_the_text_losses():
    features, anchor = random_features(3, 4, 6).requires_grad_(), random_features(4, 6)
    assert torch.autograd.gradcheck(lambda x: diversity_loss(x, 5.0), features)
    assert torch.autograd.gradcheck(lambda x: consistency_loss(x, anchor, 5.0), features)


def test_half_precision_is_computed_in_float32():
    features = random_features(2, 300, 64).half()
    assert diversity_loss(features, 100.0).dtype == torch.float32
    torch.testing.assert_close(diversity_loss(features, 100.0), diversity_loss(features.float(), 100.0))


def test_wrong_shapes_are_told():
    with pytest.raises(ValueError, match="target"):
        trusted_cross_entropy(torch.zeros(2, 3, 4), torch.zeros(4, dtype=torch.long))
    with pytest.raises(ValueError, match="3 dimensions"):
        diversity_loss(torch.zeros(3, 4), 1.0)
    with pytest.raises(ValueError, match="anchor"):
        consistency_loss(torch.zeros(2, 3, 4), torch.zeros(5, 4), 1.0)


def test_knowledge_loss_worked_example():
    """Cosines of 0.6 and 0; lengths do not count."""
    learnt = torch.tensor([[3.0, 4.0], [0.0, 2.0]], dtype=torch.float64)
    anchor = torch.tensor([[5.0, 0.0], [1.0, 0.0]], dtype=torch.float64)
    assert knowledge_loss(learnt, anchor).item() == pytest.approx(1 - 0.3, abs=1e-12)


def test_knowledge_loss_limits():
    features = random_features(5, 8)
    assert knowledge_loss(features, features).item() == pytest.approx(0.0, abs=1e-12)
    assert knowledge_loss(features, -features).item() == pytest.approx(2.0, abs=1e-12)
    torch.testing.assert_close(  # half of the squared distance of unit vectors
        knowledge_loss(features, random_features(6, 8)[1:]),
        (features - random_features(6, 8)[1:]).square().sum(dim=1).mean() / 2,
    )
    leaf = features.clone().requires_grad_()
    assert torch.autograd.gradcheck(lambda x: knowledge_loss(x, random_features(6, 8)[1:]), leaf)
    with pytest.raises(ValueError, match=r"anchor must have the shape \(5, 8\) of the text features, got \(4, 8\)"):
        knowledge_loss(features, features[1:])


def test_template_similarity_is_the_mean_cosine_of_pairs():
    features = random_features(3, 5, 8)
    pairs = [(m, n, c) for m in range(3) for n in range(3) for c in range(5) if m < n]
    by_hand = sum(features[m, c] @ features[n, c] for m, n, c in pairs) / len(pairs)
    torch.testing.assert_close(template_similarity(features), by_hand)
    assert template_similarity(features[:1].expand(4, -1, -1)).item() == pytest.approx(1.0)
