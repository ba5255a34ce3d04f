"""Operations counted: by hand, forward and backward, whatever kernel runs and whatever PyTorch knows of it."""

from __future__ import annotations

import contextlib
from unittest import mock

import pytest
import torch
import torch.nn.functional as F

pytest.importorskip("torch.utils.flop_counter", reason="PyTorch counts operations from 2.1 on")

from torch.utils import flop_counter
from torch.utils._python_dispatch import TorchDispatchMode

from tools.benchmark.operations import KERNELS, attention, attention_backward, counted_operations, kernels
from tools.benchmark.plain import PlainTextEncoder
from trainers.modules import text
from trainers.modules.differentiation import differentiate_now
from trainers.modules.prompts import TextTemplates
from trainers.modules.text import TextEncoder

NAMES = ["dog", "a rather long class name of many words", "x y"]
B, H, N, K, D = 2, 3, 5, 7, 16
PRODUCT = 2 * B * H * N * K * D
MASKS = {
    "none": {},
    "causal": {"is_causal": True},
    "boolean": {"attn_mask": torch.ones(N, K, dtype=torch.bool).tril(2)},
    "added": {"attn_mask": torch.linspace(-1, 1, N * K).view(N, K)},
}


def choice(kernel):
    """A context in which `scaled_dot_product_attention` may take this kernel alone."""
    if hasattr(torch.nn, "attention"):
        return torch.nn.attention.sdpa_kernel(getattr(torch.nn.attention.SDPBackend, kernel, []))
    return torch.backends.cuda.sdp_kernel(  # before PyTorch 2.3, for CPU too
        enable_flash=kernel == "FLASH_ATTENTION",
        enable_mem_efficient=kernel == "EFFICIENT_ATTENTION",
        enable_math=kernel == "MATH",
    )


@contextlib.contextmanager
def only(kernel):
    """Let attention take this kernel alone, or any; skip the test where the kernel does not take this attention."""
    with contextlib.nullcontext() if kernel == "any" else choice(kernel):
        try:
            yield
        except RuntimeError as error:
            if kernel in ("any", "MATH") or not str(error).startswith(("No available kernel", "No viable backend")):
                raise
            pytest.skip(f"{kernel} does not take this attention here")


def count_attention(options, device="cpu", dtype=torch.float32, width=D):
    """What is counted of attention forward, and of its backward pass."""
    query, key, value = (
        torch.randn(B, H, length, width, device=device, dtype=dtype, requires_grad=True) for length in (N, K, K)
    )
    with counted_operations() as forward:
        attended = F.scaled_dot_product_attention(query, key, value, **options)
    with counted_operations() as backward:
        attended.sum().backward()
    return forward, backward


@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kernel", ["any", "FLASH_ATTENTION", "MATH"])
def test_attention_needs_as_much_whichever_kernel_runs(kernel, mask):
    with only(kernel):
        forward, backward = count_attention(MASKS[mask])
    assert forward == {"flops": 2 * PRODUCT, "flops_again": 0}
    assert backward["flops"] - backward["flops_again"] == 4 * PRODUCT
    again = {"FLASH_ATTENTION": [PRODUCT], "MATH": [0], "any": [0, PRODUCT]}
    assert backward["flops_again"] in again[kernel]


@pytest.mark.skipif(
    not hasattr(flop_counter, "ModuleTracker"), reason="before 2.4 PyTorch counts no gradient taken in a forward pass"
)
def test_gradient_taken_in_the_forward_pass_counts():
    layer, x = torch.nn.Linear(4, 3, bias=False), torch.randn(2, 4, requires_grad=True)
    with counted_operations() as counts:
        loss, _ = differentiate_now(lambda x: (layer(x).sum(), x), x)
        loss.backward()
    assert counts == {"flops": 2 * 2 * 2 * 4 * 3, "flops_again": 0}  # forward, and the gradient of x


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
@pytest.mark.parametrize("mask", MASKS)
@pytest.mark.parametrize("kernel", ["any", "FLASH_ATTENTION", "EFFICIENT_ATTENTION", "CUDNN_ATTENTION", "MATH"])
def test_attention_on_cuda_needs_as_much_whichever_kernel_runs(kernel, mask):
    options = {
        name: given.to("cuda", torch.bool if given.dtype == torch.bool else torch.float16)
        if isinstance(given, torch.Tensor)
        else given
        for name, given in MASKS[mask].items()
    }
    with only(kernel):
        forward, backward = count_attention(options, "cuda", torch.float16, width=64)
    product = PRODUCT // D * 64
    assert forward == {"flops": 2 * product, "flops_again": 0}
    assert backward["flops"] - backward["flops_again"] == 4 * product
    again = {"MATH": [0], "any": [0, product]}
    assert backward["flops_again"] in again.get(kernel, [product])


class Unexecuted(TorchDispatchMode):
    """Every operation gives something of the kinds that it should, and computes nothing."""

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        return tuple(
            torch.empty(0) if isinstance(result.type, torch.TensorType) else 0 for result in func._schema.returns
        )


def test_no_kernel_for_cpu_or_cuda_is_forgotten():
    """Also one that a newer PyTorch adds. A build without CUDA has no other than the CPU's."""
    has_kernel = torch._C._dispatch_has_kernel_for_dispatch_key
    found = {
        schema.name
        for schema in torch._C._jit_get_all_schemas()
        if schema.name.startswith("aten::_scaled_dot_product_")
        and any(has_kernel(schema.name, device) for device in ("CPU", "CUDA"))
    }
    assert found
    assert found <= {str(operation).replace(".", "::") for operation in (*kernels(), *kernels("_backward"))}


@pytest.mark.parametrize(("ending", "products", "again"), [("", 2, 0), ("_backward", 5, 1)])
@pytest.mark.parametrize("kernel", KERNELS)
def test_formulas_fit_the_arguments_of_every_kernel(kernel, ending, products, again):
    """CUDA's kernels too, called as autograd does; nothing runs."""
    operation = getattr(torch.ops.aten, f"_scaled_dot_product_{kernel}{ending}", None)
    if operation is None:
        pytest.skip(f"this PyTorch has no such operation of {kernel}")
    tensors = {name: torch.empty(B, H, K, D) for name in ("key", "value")}
    tensors.update({name: torch.empty(B, H, N, D) for name in ("query", "grad_out")})
    others = {"Tensor": torch.empty(0), "float": 0.0, "bool": False, "int": 0, "List[bool]": [True] * 4}
    arguments = [
        tensors.get(argument.name.rstrip("_"), others.get(str(argument.type)))
        for argument in operation.default._schema.arguments
        if not argument.has_default_value()
    ]
    with Unexecuted(), counted_operations() as counts:
        operation(*arguments)
    assert counts == {"flops": products * PRODUCT, "flops_again": again * PRODUCT}


def test_formulas_are_pytorchs():
    query, key, value, grad = (B, H, N, D), (B, H, K, D), (B, H, K, 2 * D), (B, H, N, 2 * D)
    assert attention(query, key, value) == flop_counter.sdpa_flop_count(query, key, value)
    assert attention_backward(grad, query, key, value) == flop_counter.sdpa_backward_flop_count(grad, query, key, value)


def registry():
    """PyTorch's own formulas."""
    return getattr(flop_counter, "flop_registry", None) or flop_counter.flop_mapping


@pytest.mark.parametrize("known", [True, False], ids=["known", "lacking"])
@pytest.mark.parametrize("mask", MASKS)
def test_count_is_the_same_whatever_pytorch_knows(mask, known):
    with mock.patch.dict(registry()):
        for ending in ("", "_backward"):
            formula = registry()[getattr(torch.ops.aten, f"_scaled_dot_product_flash_attention{ending}")]
            registry().update(dict.fromkeys(kernels(ending), formula))
        if not known:
            for operation in (*kernels(), *kernels("_backward")):
                del registry()[operation]
        forward, backward = count_attention(MASKS[mask])
    assert forward["flops"] == 2 * PRODUCT
    assert backward["flops"] - backward["flops_again"] == 4 * PRODUCT


def test_what_pytorch_counts_is_left_to_it():
    with mock.patch.dict(registry(), dict.fromkeys(kernels(), lambda *_, **__: 1000)), only("FLASH_ATTENTION"):
        forward, backward = count_attention({})
    assert forward["flops"] == 1000
    assert backward == {"flops": 5 * PRODUCT, "flops_again": PRODUCT}


def by_hand(encoder, prompt, plain=False, apart=False):
    """Operations of a forward pass of small_clip's text side: linear maps, attention, and of this the scores that a
    kernel computes again backward.

    `apart`: a class's own tokens attend without a kernel, which takes no five dimensions.
    """
    n_templates, n_prefix, width = prompt.prefix.shape
    n_out, layers, n_classes = encoder.text_projection.shape[1], len(encoder.blocks), len(prompt.eot_index)
    lengths = [end + 1 for end in prompt.eot_index]
    if plain:  # a class and template at a time, all positions in all layers
        all_rows = last_rows = n_classes * 77
        full = last = kernel = n_classes * 77**2
    else:
        all_rows, last_rows = n_prefix + sum(lengths), n_classes
        full = kernel = all_rows**2
        last = n_classes * all_rows
        if apart:
            kernel = n_prefix**2
            full = kernel + sum(length * (n_prefix + length) for length in lengths)
            last = sum(n_prefix + length for length in lengths)
    linear = (
        2 * width**2 * (12 * (layers - 1) * all_rows + 3 * all_rows + 9 * last_rows) + 2 * width * n_out * n_classes
    )
    attention = 2 * 2 * width * ((layers - 1) * full + last)
    scores = 2 * width * ((layers - 1) * kernel + (0 if apart else last))
    return n_templates * linear, n_templates * attention, n_templates * scores


@pytest.mark.parametrize("kernel", ["any", "MATH"])
@pytest.mark.parametrize("way", ["plain", "together", "apart"])
def test_operations_of_text_encoders_equal_a_count_by_hand(small_clip, monkeypatch, way, kernel):
    """Masked attention, causal attention and the activation's own gradient included; weights are frozen."""
    monkeypatch.setattr(text, "TOKENS_TOGETHER", 0 if way == "apart" else 10**6)
    encoder = (PlainTextEncoder if way == "plain" else TextEncoder)(small_clip)
    prompt = TextTemplates(TextEncoder(small_clip), NAMES, 2, 3, std=0.5)()
    with only(kernel):
        with counted_operations() as forward:
            features = encoder(prompt)
        with counted_operations() as backward:
            features.sum().backward()
    linear, attention, scores = by_hand(encoder, prompt, way == "plain", way == "apart")
    assert forward == {"flops": linear + attention, "flops_again": 0}
    assert backward["flops"] - backward["flops_again"] == linear + 2 * attention
    assert backward["flops_again"] in ([0] if kernel == "MATH" else [0, scores])


def test_what_checkpoints_compute_again_is_told_apart(small_clip, monkeypatch):
    encoder = TextEncoder(small_clip)
    found = []
    for most in (text.TOKENS_AT_ONCE, 1):
        monkeypatch.setattr(text, "TOKENS_AT_ONCE", most)
        monkeypatch.setattr(text, "TOKENS_KEPT", most)
        learner = TextTemplates(encoder, NAMES, 2, 3, std=0.5)
        with only("MATH"):  # which computes no scores again
            with torch.no_grad(), counted_operations() as forward:
                encoder(learner())
            with counted_operations() as counts:
                encoder(learner()).sum().backward()
        found.append((forward["flops"], counts))
    (_, whole), (forward, parts) = found
    assert whole["flops_again"] == 0
    # A class a part, of 7, 8 and 14 tokens with the start; the last and longest is kept.
    assert 0.45 < parts["flops_again"] / forward < 0.56
    # The start is computed for every part; nothing else is more.
    assert whole["flops"] < parts["flops"] - parts["flops_again"] < 2 * whole["flops"]
