"""Gradients that are taken at once: the same values and gradients, and nothing kept for later."""

from __future__ import annotations

import weakref

import pytest
import torch

from trainers.modules.differentiation import differentiate_now


def quartic(x, y):
    """A loss whose value is 3 x^2 y^2, and something beside it."""
    product = x * y
    return 3 * product.square().sum(), product


def test_value_and_gradients_by_hand():
    x, y = torch.tensor([2.0], requires_grad=True), torch.tensor([-1.0], requires_grad=True)
    loss, product = differentiate_now(quartic, x, y)
    assert (loss.item(), product.item()) == (12.0, -2.0)
    assert not product.requires_grad
    (5 * loss + x.sum()).backward()
    assert x.grad.item() == 5 * 12.0 + 1  # d/dx 3 x^2 y^2 = 6 x y^2
    assert y.grad.item() == 5 * -24.0


def test_inputs_may_be_computed_themselves():
    weight = torch.randn(3, dtype=torch.float64, requires_grad=True)
    assert torch.autograd.gradcheck(lambda w: differentiate_now(quartic, w.exp(), w.sin())[0], [weight])


def test_input_that_needs_no_gradient():
    x = torch.tensor([2.0], requires_grad=True)
    differentiate_now(quartic, x, torch.tensor([3.0]))[0].backward()
    assert x.grad.item() == 6 * 2 * 9


def test_small_gradients_of_half_precision_need_the_scale():
    """2^-18 squared is nothing in half precision; with a scaler's factor the gradient comes through."""

    def loss_of(x):
        return (x.half() * 2.0**-14).float().sum() * 2.0**-14, x

    x = torch.tensor([1.0], requires_grad=True)
    differentiate_now(loss_of, x)[0].backward()
    assert x.grad.item() == 0.0
    x.grad = None
    loss, _ = differentiate_now(loss_of, x, scale=lambda value: 2.0**12 * value)
    (2.0**12 * loss).backward()
    assert x.grad.item() == 2.0**12 * 2.0**-28


def test_overflow_stays_visible():
    """An infinite gradient, by which a scaler knows an overflow, is one here, too."""
    x = torch.tensor([1.0], requires_grad=True)
    loss, _ = differentiate_now(lambda x: ((x.half() * 4).float().sum(), x), x, scale=lambda value: 2.0**17 * value)
    (2.0**17 * loss).backward()
    assert x.grad.isinf().all()


def test_what_a_call_has_computed_is_gone_after_it():
    kept = []

    def loss_of(x):
        hidden = x.exp()  # which the gradient of exp needs
        kept.append(weakref.ref(hidden))
        return hidden.sum(), x

    loss, _ = differentiate_now(loss_of, torch.randn(3, requires_grad=True))
    assert loss.requires_grad
    assert kept[0]() is None


def test_without_gradient_it_is_the_plain_call():
    x = torch.tensor([2.0], requires_grad=True)
    with torch.no_grad():
        loss, _ = differentiate_now(quartic, x, x)
    assert not loss.requires_grad
    assert loss.item() == 48.0


def test_an_input_without_part_in_the_loss_is_an_error():
    x = torch.randn(1, requires_grad=True)
    with pytest.raises(RuntimeError, match="not have been used"):
        differentiate_now(lambda x, y: (x.sum(), x), x, x)
