"""Opinions and their fusion: hand-computed values, rule (5) taken literally, limits, invariances, gradients."""

from __future__ import annotations

import math

import pytest
import torch

from trainers.modules.evidence import (
    EVIDENCE_FUNCTIONS,
    FUSIONS,
    PROBABILITIES,
    fuse,
    fused_log_evidence,
    log_evidence,
    template_certainty,
)

# The worked example: C = 3, three templates' evidence, checked by hand against eq. (5)
EXAMPLE = torch.tensor([[3.0, 1.0, 0.0], [1.0, 2.0, 0.5], [0.0, 0.0, 4.0]], dtype=torch.float64)


def dempster(evidence):
    """Eq. (5) taken literally, template after template: belief, uncertainty and total conflict."""
    n_classes = evidence.shape[-1]
    strength = (evidence + 1).sum(-1, keepdim=True)
    beliefs, uncertainties = evidence / strength, n_classes / strength[..., 0]
    belief, uncertainty, kept = beliefs[0], uncertainties[0], torch.ones_like(uncertainties[0])
    for b, u in zip(beliefs[1:], uncertainties[1:]):
        together = (belief[:, :, None] * b[:, None, :]).sum((1, 2))
        conflict = together - (belief * b).sum(1)
        belief = (belief * b + belief * u[:, None] + b * uncertainty[:, None]) / (1 - conflict)[:, None]
        uncertainty = uncertainty * u / (1 - conflict)
        kept = kept * (1 - conflict)
    return belief, uncertainty, 1 - kept


def random_evidence(m, b, c, spread=2.0, dtype=torch.float64):
    return spread * torch.randn(m, b, c, dtype=dtype, generator=torch.Generator().manual_seed(m * 100 + c))


def test_worked_example():
    opinion = fuse(EXAMPLE.log()[:, None])
    expected = [0.2970297, 0.2178218, 0.3069307]
    torch.testing.assert_close(opinion.belief[0], torch.tensor(expected, dtype=torch.float64), atol=1e-7, rtol=0)
    assert opinion.uncertainty.item() == pytest.approx(0.1782178, abs=1e-7)
    assert opinion.log_prob.exp()[0].tolist() == pytest.approx([0.3614458, 0.2650602, 0.3734940], abs=1e-7)
    assert opinion.doubt.item() == pytest.approx(1 - 0.3069307, abs=1e-7)
    expected = fuse(EXAMPLE.log()[:, None], probability="expected").log_prob.exp()[0].tolist()
    assert expected == pytest.approx([0.2970297 + 0.0594059, 0.2178218 + 0.0594059, 0.3069307 + 0.0594059], abs=1e-7)


def test_averaging_by_hand():
    # 1 + e / C is (4, 1) and (1, 9), so its geometric mean (2, 3), R = (1, 2) and U = 1 / 4
    opinion = fuse(torch.tensor([[[6.0, 0.0]], [[0.0, 16.0]]], dtype=torch.float64).log(), "averaging")
    assert opinion.belief[0].tolist() == pytest.approx([0.25, 0.5])
    assert opinion.uncertainty.item() == pytest.approx(0.25)
    assert opinion.doubt.item() == pytest.approx(0.5)
    assert opinion.log_prob.exp()[0].tolist() == pytest.approx([1 / 3, 2 / 3])
    # What Dempster's rule discards: opinions (3/4, 0; 1/4) and (0, 8/9; 1/9) put 3/4 * 8/9 on different classes
    assert opinion.conflict.item() == pytest.approx(2 / 3)


@pytest.mark.parametrize("spread", [1e-6, 1.0, 30.0])
def test_averaging_is_the_geometric_mean(spread):
    logs = random_evidence(4, 5, 6) + math.log(spread)
    fused = fused_log_evidence(logs, "averaging")
    weights = torch.log1p(logs.exp() / 6).mean(dim=0)
    torch.testing.assert_close(fused, torch.log(6 * torch.expm1(weights)), rtol=1e-9, atol=1e-9)


def test_equal_templates_average_to_one_of_them():
    one = random_evidence(1, 5, 6, spread=6.0)
    averaged, own = fuse(one.expand(4, 5, 6), "averaging"), fuse(one)
    for name in ("belief", "uncertainty", "log_prob", "doubt"):
        torch.testing.assert_close(getattr(averaged, name), getattr(own, name), rtol=1e-10, atol=1e-13)
    assert (fuse(one.expand(4, 5, 6)).uncertainty < own.uncertainty).all()  # Dempster's rule takes them for four


def test_averaging_with_a_template_without_evidence_is_less_certain():
    logs = random_evidence(3, 4, 5)
    vacuous = torch.full((1, 4, 5), -math.inf, dtype=torch.float64)
    assert (fuse(torch.cat([logs, vacuous]), "averaging").uncertainty > fuse(logs, "averaging").uncertainty).all()


@pytest.mark.parametrize("spread", [0.1, 2.0, 200.0])
def test_no_fusion_or_probability_changes_the_order_of_classes(spread):
    logs = random_evidence(4, 20, 6, spread)
    order = fuse(logs).log_prob.argsort(dim=1)
    for fusion in FUSIONS:
        for probability in PROBABILITIES:
            assert torch.equal(fuse(logs, fusion, probability).log_prob.argsort(dim=1)[:, -1], order[:, -1])
    assert torch.equal(fuse(logs, "averaging").log_prob.argsort(dim=1), order)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_expected_probability_is_the_mean_of_the_fused_dirichlet(fusion):
    logs = random_evidence(3, 4, 5)
    alpha = fused_log_evidence(logs, fusion).exp() + 1
    found = fuse(logs, fusion, "expected").log_prob.exp()
    torch.testing.assert_close(found, alpha / alpha.sum(dim=1, keepdim=True), rtol=1e-10, atol=1e-13)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_doubt_is_what_the_predicted_class_lacks(fusion):
    opinion = fuse(random_evidence(3, 8, 5), fusion)
    torch.testing.assert_close(opinion.doubt, 1 - opinion.belief.amax(dim=1))


def test_doubt_keeps_its_digits_where_belief_is_one():
    logs = torch.tensor([[[60.0, 20.0, -5.0]]])  # belief in the others is exp(20 - 60)
    assert fuse(logs).doubt.item() == pytest.approx(math.exp(-40) + 3 * math.exp(-60), rel=1e-5)
    assert fuse(logs).belief.amax() == 1


@pytest.mark.parametrize(
    ("given", "allowed"), [({"fusion": "vote"}, "dempster, averaging"), ({"probability": "p"}, "belief, expected")]
)
def test_unknown_fusion_and_probability_are_told(given, allowed):
    with pytest.raises(ValueError, match=allowed):
        fuse(random_evidence(1, 1, 2), **given)


@pytest.mark.parametrize(("m", "b", "c"), [(1, 3, 4), (2, 5, 2), (4, 3, 10), (7, 2, 50)])
def test_is_dempsters_rule(m, b, c):
    logs = random_evidence(m, b, c)
    belief, uncertainty, conflict = dempster(logs.exp())
    opinion = fuse(logs)
    torch.testing.assert_close(opinion.belief, belief, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(opinion.uncertainty, uncertainty, rtol=1e-10, atol=1e-14)
    torch.testing.assert_close(opinion.conflict, conflict, rtol=1e-9, atol=1e-12)
    torch.testing.assert_close(opinion.log_prob.exp(), belief / belief.sum(1, keepdim=True), rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("fusion", FUSIONS)
def test_float32_keeps_its_digits(fusion):
    logs = random_evidence(4, 6, 20, spread=8.0)
    exact, single = fuse(logs, fusion), fuse(logs.float(), fusion)
    torch.testing.assert_close(single.log_prob.double(), exact.log_prob, rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(single.belief.double(), exact.belief, rtol=1e-4, atol=1e-7)


def test_order_of_templates_does_not_matter():
    logs = random_evidence(5, 4, 6, spread=10.0)
    for order in (torch.tensor([4, 3, 2, 1, 0]), torch.tensor([2, 0, 4, 1, 3])):
        for fusion in FUSIONS:
            for a, b in zip(fuse(logs, fusion), fuse(logs[order], fusion)):
                torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-13)


def test_one_template_is_itself():
    evidence = torch.tensor([[3.0, 1.0, 0.0]], dtype=torch.float64)
    opinion = fuse(evidence.log()[None])
    assert opinion.belief[0].tolist() == pytest.approx([3 / 7, 1 / 7, 0.0])
    assert opinion.uncertainty.item() == pytest.approx(3 / 7)
    assert opinion.conflict.item() == 0.0


def test_template_without_evidence_changes_nothing():
    logs = random_evidence(3, 4, 5)
    vacuous = torch.full((1, 4, 5), -math.inf, dtype=torch.float64)
    for place in (0, 1, 3):
        wider = torch.cat([logs[:place], vacuous, logs[place:]])
        for a, b in zip(fuse(wider), fuse(logs)):
            torch.testing.assert_close(a, b, rtol=1e-10, atol=1e-14)


@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_no_evidence_at_all(fusion, probability):
    logs = torch.full((3, 2, 4), -math.inf, requires_grad=True)
    opinion = fuse(logs, fusion, probability)
    assert opinion.doubt.tolist() == [1.0, 1.0]
    assert opinion.uncertainty.tolist() == [1.0, 1.0]
    assert opinion.belief.eq(0).all()
    assert opinion.conflict.eq(0).all()
    torch.testing.assert_close(opinion.log_prob.exp(), torch.full((2, 4), 0.25))
    sum(part.sum() for part in opinion).backward()
    assert logs.grad.eq(0).all()


def test_class_without_evidence_has_probability_zero_and_no_nan():
    opinion = fuse(torch.tensor([[[2.0, -math.inf, 1.0]]]))
    assert opinion.log_prob.exp()[0, 1] == 0
    assert (opinion.log_prob.exp() * opinion.log_prob).isfinite().all()


def test_two_certain_templates_that_disagree():
    logs = torch.tensor([[[20.0, -20.0]], [[-20.0, 20.0]]], dtype=torch.float64)
    opinion = fuse(logs)
    assert opinion.conflict.item() == pytest.approx(1.0, abs=1e-7)
    assert opinion.log_prob.exp()[0].tolist() == pytest.approx([0.5, 0.5])


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
@pytest.mark.parametrize(("m", "c"), [(1, 1), (4, 24), (64, 21_000)])
def test_finite_for_any_evidence(fusion, dtype, m, c):
    generator = torch.Generator().manual_seed(0)
    logs = (2e4 * torch.rand(m, 2, c, dtype=dtype, generator=generator) - 1e4).requires_grad_()
    opinion = fuse(logs, fusion, "expected" if fusion == "averaging" else "belief")
    weights = [torch.randn(part.shape, dtype=dtype, generator=generator) for part in opinion]
    sum((part * weight).sum() for part, weight in zip(opinion, weights)).backward()
    assert all(part.isfinite().all() for part in opinion)
    assert logs.grad.isfinite().all()
    torch.testing.assert_close(opinion.belief.sum(1) + opinion.uncertainty, torch.ones(2, dtype=dtype))


@pytest.mark.parametrize("fusion", FUSIONS)
@pytest.mark.parametrize("value", [-1e4, 1e4])
def test_ends_of_the_range(fusion, value):
    logs = torch.full((64, 1, 3), value)
    logs[:, :, 1] -= 1e-2
    opinion = fuse(logs, fusion)
    assert opinion.uncertainty.item() == (1.0 if value < 0 else 0.0)
    # 64 templates that each prefer class 0 by 0.01 in log-evidence: a product of experts if certain, a sum if not; the
    # average of them is one of them
    gap = 64e-2 if value > 0 and fusion == "dempster" else 1e-2
    difference = (opinion.log_prob[0, 0] - opinion.log_prob[0, 1]).item()
    assert difference == pytest.approx(gap, rel=0.1)  # 1e4 has a float32 spacing of 1e-3


@pytest.mark.parametrize("shift", [0.0, -20.0])  # averaging takes log R of little evidence from its series
@pytest.mark.parametrize("probability", PROBABILITIES)
@pytest.mark.parametrize("fusion", FUSIONS)
def test_gradient(fusion, probability, shift):
    logs = (random_evidence(3, 2, 4) + shift).requires_grad_()
    assert torch.autograd.gradcheck(lambda x: tuple(fuse(x, fusion, probability)), logs)
    assert torch.autograd.gradcheck(lambda x: fused_log_evidence(x, fusion), logs)


def test_half_precision_comes_back_as_float32():
    logs = random_evidence(2, 3, 4).half()
    for part, wide in zip(fuse(logs), fuse(logs.float())):
        assert part.dtype == torch.float32
        assert torch.equal(part, wide)


def test_fused_log_evidence_is_that_of_the_fused_dirichlet():
    logs = random_evidence(3, 4, 5)
    belief, uncertainty, _ = dempster(logs.exp())
    torch.testing.assert_close(fused_log_evidence(logs).exp(), 5 * belief / uncertainty[:, None])
    torch.testing.assert_close(fused_log_evidence(logs[:1]), logs[0])


def test_certainty_of_templates_by_hand():
    evidence = torch.tensor([[[3.0, 1.0, 0.0]], [[0.0, 0.0, 0.0]]])
    confidence, uncertainty = template_certainty(evidence.log())
    assert confidence[:, 0].tolist() == pytest.approx([3 / 4, 1 / 3])
    assert uncertainty[:, 0].tolist() == pytest.approx([3 / 7, 1])


@pytest.mark.parametrize("spread", [1.0, 300.0])
def test_certainty_of_a_template_is_that_of_its_opinion(spread):
    log_e = random_evidence(3, 5, 4, spread).float()
    confidence, uncertainty = template_certainty(log_e)
    for m in range(3):
        opinion = fuse(log_e[m : m + 1])
        torch.testing.assert_close(confidence[m], opinion.log_prob.exp().amax(dim=1))
        torch.testing.assert_close(uncertainty[m], opinion.uncertainty)


@pytest.mark.parametrize("shape", [(3, 4), (0, 2, 3), (2, 2, 0), (1, 2, 3, 4)])
def test_wrong_shapes_are_told(shape):
    with pytest.raises(ValueError, match="shape"):
        fuse(torch.zeros(shape))


def test_evidence_functions():
    similarity = torch.tensor([0.1, 0.2, 0.3], dtype=torch.float64)
    z = torch.tensor([-1.0, 0.0, 1.0], dtype=torch.float64)
    assert torch.allclose(log_evidence(similarity, "exp", 10.0, 0.2).exp(), z.exp())
    assert torch.allclose(log_evidence(similarity, "softplus", 10.0, 0.2).exp(), torch.log1p(z.exp()))
    relu = log_evidence(similarity, "relu", 10.0, 0.2)
    assert relu[0] == -math.inf
    assert relu[2].exp() == pytest.approx(1.0)
    with pytest.raises(ValueError, match="exp, softplus, relu"):
        log_evidence(similarity, "sigmoid", 10.0, 0.2)


@pytest.mark.parametrize("function", EVIDENCE_FUNCTIONS)
def test_evidence_functions_are_finite_and_differentiable(function):
    z = torch.tensor([-1e4, -100.0, -15.1, -14.9, -1.0, 0.7, 30.0, 1e4], dtype=torch.float64, requires_grad=True)
    logs = log_evidence(z, function, 1.0, 0.0)
    if function != "relu":
        assert logs.isfinite().all()
    logs[logs.isfinite()].sum().backward()
    assert z.grad.isfinite().all()
    smooth = z.detach()[1:-1].requires_grad_()
    assert torch.autograd.gradcheck(lambda x: log_evidence(x, function, 1.0, 0.0).clamp(min=-1e6), smooth)


def test_shift_of_the_evidence_never_changes_which_image_is_less_certain():
    cosines = 0.2 + 0.1 * torch.randn(1, 40, 6, dtype=torch.float64, generator=torch.Generator().manual_seed(3))
    orders = [fuse(log_evidence(cosines, "exp", 30.0, shift)).uncertainty.argsort() for shift in (0.0, 0.2, 0.4)]
    assert torch.equal(orders[0], orders[1])
    assert torch.equal(orders[0], orders[2])
    # It is the order of the cosines' log-sum-exp, so a common offset of an image's cosines moves the image in it
    assert torch.equal(orders[0], (-torch.logsumexp(30.0 * cosines[0], dim=1)).argsort())
