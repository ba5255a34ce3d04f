"""Temperature and evidence fitted to labels: recovered, at their limits, never worse, and the same every time."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from scipy.optimize import minimize

from trainers.modules.calibration import MOST, fit_evidence, fit_temperature, mean_nll
from trainers.modules.evidence import EvidenceFunction, fuse

H = EvidenceFunction("exp", 50.0, 0.2)


def logits_of(temperature, n=20000, classes=5):
    """Logits that are `temperature` times too large, and labels drawn from the right probabilities."""
    generator = torch.Generator().manual_seed(0)
    logits = 2 * torch.randn(n, classes, generator=generator, dtype=torch.float64)
    label = torch.multinomial(logits.softmax(dim=1), 1, generator=generator)[:, 0]
    return temperature * logits, label


def cosines_of(n=300, templates=3, classes=6, seed=0, alike=0.5):
    """Cosines of templates whose noise is shared to some part, and labels that they find most of the time."""
    generator = torch.Generator().manual_seed(seed)
    label = torch.randint(classes, (n,), generator=generator)
    shared = torch.randn(1, n, classes, generator=generator)
    own = torch.randn(templates, n, classes, generator=generator)
    cosines = 0.2 + 0.04 * (math.sqrt(alike) * shared + math.sqrt(1 - alike) * own)
    return cosines + 0.06 * torch.nn.functional.one_hot(label, classes), label


def drawn_of(evidence, n):
    """Cosines, and labels drawn from the prediction that they give with this evidence."""
    cosines, _ = cosines_of(n)
    probability = fuse(evidence(cosines)).log_prob.exp()
    return cosines, torch.multinomial(probability, 1, generator=torch.Generator().manual_seed(0))[:, 0]


def nll_of(cosines, label, evidence):
    return mean_nll(fuse(evidence(cosines.double())).log_prob, label).item()


# Temperature


@pytest.mark.parametrize("temperature", [0.5, 1.0, 3.0])
def test_temperature_is_recovered(temperature):
    found = fit_temperature(*logits_of(temperature))
    assert found.values["temperature"] == pytest.approx(temperature, rel=0.03)
    assert found.at_bound == ()


def test_temperature_by_hand():
    """Three of four are right, with a log-odds of 4 to 1: at the best T it is that of 3 to 1."""
    logits = torch.tensor([[4.0, 0.0]] * 4)
    found = fit_temperature(logits, torch.tensor([0, 0, 0, 1]))
    assert found.values["temperature"] == pytest.approx(4 / math.log(3), rel=1e-5)
    assert found.nll_before == pytest.approx(math.log(1 + math.exp(4)) - 3)
    assert found.nll_after == pytest.approx(-0.75 * math.log(0.75) - 0.25 * math.log(0.25))


def test_temperature_is_the_lowest_on_a_grid():
    logits, label = logits_of(2.0, n=100)
    found = fit_temperature(logits, label)
    for temperature in np.geomspace(1 / MOST, MOST, 101):
        assert mean_nll(logits / temperature, label).item() >= found.nll_after - 1e-9


def test_temperature_of_images_that_do_not_determine_it():
    """All right: the more certain the better; all wrong: the less."""
    logits = torch.tensor([[4.0, 0.0], [0.0, 1.0]])
    right, wrong = (fit_temperature(logits, torch.tensor(label)) for label in ([0, 1], [1, 0]))
    assert right.values["temperature"] == pytest.approx(1 / MOST)
    assert wrong.values["temperature"] == pytest.approx(MOST)
    assert right.at_bound == wrong.at_bound == ("temperature",)


def test_temperature_of_equal_logits_stays():
    found = fit_temperature(torch.zeros(3, 2), torch.tensor([0, 1, 0]))
    assert found.values["temperature"] == 1
    assert found.nll_after == found.nll_before == pytest.approx(math.log(2))


# Evidence


def test_evidence_is_recovered():
    truth = EvidenceFunction("exp", 30.0, 0.25)
    cosines, label = drawn_of(truth, n=4000)
    found = fit_evidence(cosines, label, H)
    assert found.values["scale"] == pytest.approx(truth.scale, rel=0.05)
    assert found.values["shift"] == pytest.approx(truth.shift, abs=0.01)
    assert found.at_bound == ()
    assert found.nll_after <= nll_of(cosines, label, truth)


@pytest.mark.parametrize("function", ["exp", "softplus", "relu"])
@pytest.mark.parametrize("seed", range(3))
def test_evidence_is_never_worse_than_before(function, seed):
    cosines, label = cosines_of(seed=seed)
    before = EvidenceFunction(function, 60.0, 0.15)
    found = fit_evidence(cosines, label, before)
    after = before._replace(**found.values)
    assert found.nll_before == pytest.approx(nll_of(cosines, label, before))
    assert found.nll_after == pytest.approx(nll_of(cosines, label, after))
    assert found.nll_after <= found.nll_before
    # What a search without gradients finds from there is not better. relu's NLL is not smooth, which gradients assume.
    search = minimize(
        lambda x: nll_of(cosines, label, before._replace(scale=x[0], shift=x[1])),
        [after.scale, after.shift],
        method="Nelder-Mead",
        bounds=[(5.9, 601), (cosines.min().item() - 1e-4, cosines.max().item() + 1e-4)],
    )
    assert found.nll_after <= search.fun + (0.01 if function == "relu" else 1e-4)


def test_one_template_with_exp_has_a_scale_alone():
    """The prediction is the softmax of the cosines then, and the shift stays: a temperature by another name."""
    cosines, label = cosines_of(templates=1)
    found = fit_evidence(cosines, label, H)
    assert found.values["shift"] == pytest.approx(H.shift)
    temperature = fit_temperature(H.scale * cosines[0], label).values["temperature"]
    assert found.values["scale"] == pytest.approx(H.scale / temperature, rel=1e-3)


def test_evidence_of_images_that_do_not_determine_it():
    """All wrong: the less certain the better. All right, and certain already: it stays."""
    cosines = 0.2 + 0.1 * torch.eye(4).repeat(2, 1, 1)
    wrong = fit_evidence(cosines, (torch.arange(4) + 1) % 4, H)
    assert "scale" in wrong.at_bound
    assert wrong.values["scale"] == pytest.approx(H.scale / MOST)
    right = fit_evidence(cosines, torch.arange(4), H._replace(scale=500.0))
    assert right.values == {"scale": 500.0, "shift": H.shift}
    assert right.nll_after == right.nll_before
    assert right.at_bound == ()
    equal = fit_evidence(torch.full((2, 3, 4), 0.3), torch.arange(3), H)
    assert equal.values == {"scale": H.scale, "shift": H.shift}


def test_evidence_comes_within_its_range():
    """To the same place, also from far outside of the cosines."""
    cosines, label = drawn_of(EvidenceFunction("exp", 30.0, 0.25), n=500)
    found = [fit_evidence(cosines, label, H._replace(shift=shift)).values for shift in (-0.5, H.shift, 0.9)]
    for values in found:
        assert H.scale / MOST <= values["scale"] <= H.scale * MOST
        assert cosines.min() < values["shift"] < cosines.max()
        assert values["scale"] == pytest.approx(found[0]["scale"], rel=1e-2)
        assert values["shift"] == pytest.approx(found[0]["shift"], abs=2e-3)


def test_labels_without_evidence_get_some():
    """relu may leave a label none, so that the likelihood is 0: another shift gives it some."""
    cosines, label = cosines_of()
    before = EvidenceFunction("relu", 50.0, 0.28)
    found = fit_evidence(cosines, label, before)
    assert found.nll_before > 1e20
    assert found.nll_after < math.log(6)


def test_another_decision():
    """By the mean of the templates' logits the shift does not matter."""
    cosines, label = cosines_of()
    found = fit_evidence(cosines, label, H, lambda evidence: evidence.mean(dim=0).log_softmax(dim=1))
    assert found.values["shift"] == pytest.approx(H.shift)
    temperature = fit_temperature(H.scale * cosines.mean(dim=0), label).values["temperature"]
    assert found.values["scale"] == pytest.approx(H.scale / temperature, rel=1e-3)


# Both


def test_the_same_scores_give_the_same_numbers():
    """Whatever their precision, the order of the images and of the templates, and the random state."""
    cosines, label = cosines_of()
    found = fit_evidence(cosines, label, H)
    torch.manual_seed(7)
    assert fit_evidence(cosines, label, H) == found
    order = torch.randperm(len(label))
    other = fit_evidence(cosines[[2, 0, 1]][:, order].double(), label[order], H)
    for name, value in found.values.items():
        assert other.values[name] == pytest.approx(value, rel=1e-3)


@pytest.mark.parametrize(
    ("scores", "label", "message"),
    [
        (torch.zeros(3), [0], "shape"),
        (torch.zeros(3, 2), [0, 1], "shape"),
        (torch.zeros(0, 2), [], "none of them 0"),
        (torch.zeros(2, 2), [0, 2], "from 0 to 1, got 0 to 2"),
        (torch.zeros(2, 2), [-1, 0], "from 0 to 1, got -1 to 0"),
        (torch.full((1, 2), math.nan), [0], "finite, got 2"),
        (torch.tensor([[-math.inf, 0.0]]), [1], "finite, got 1"),
    ],
)
def test_wrong_input(scores, label, message):
    label = torch.tensor(label, dtype=torch.long)
    with pytest.raises(ValueError, match=message):
        fit_temperature(scores, label)
    with pytest.raises(ValueError, match=message):
        fit_evidence(scores[None], label, H)
