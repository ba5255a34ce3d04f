"""The text encoder against CLIP's own 77-position computation, and the prompt learner."""

from __future__ import annotations

import copy

import pytest
import torch
import torch.nn.functional as F
from clip import clip
from clip.model import LayerNorm

from helpers import relative
from trainers.modules import text
from trainers.modules.prompts import TextTemplates
from trainers.modules.text import ClassTokens, TextEncoder, TextPrompt

NAMES = ["dog", "a rather long class name of many words", "striped_texture", "x"]


@pytest.fixture(params=[10**6, 0], ids=["together", "apart"])
def encoder(small_clip, monkeypatch, request):
    """The encoder, whose tokens attend in one masked product or in one for each length of a class."""
    monkeypatch.setattr(text, "TOKENS_TOGETHER", request.param)
    return TextEncoder(small_clip)


def plain(clip_model, ctx, names, deep=(), class_tokens=None):
    """All 77 positions of every class and template through the clip package's own modules."""
    features = []
    for m in range(len(ctx)):
        tokens = clip.tokenize(["X " * ctx.shape[1] + name.replace("_", " ") + "." for name in names])
        embedded = clip_model.token_embedding(tokens)
        n_ctx = ctx.shape[1]
        x = torch.cat([embedded[:, :1], ctx[m].expand(len(names), -1, -1), embedded[:, 1 + n_ctx :]], dim=1)
        x = (x + clip_model.positional_embedding).permute(1, 0, 2)
        for layer, block in enumerate(clip_model.transformer.resblocks):
            if 0 < layer <= len(deep):
                replaced = deep[layer - 1][m][:, None].expand(-1, len(names), -1)
                x = torch.cat([x[:1], replaced, x[1 + n_ctx :]])
            if class_tokens is not None and layer == class_tokens.layer:
                replaced = class_tokens.tokens.expand(len(ctx), -1, -1, -1)[m].permute(1, 0, 2)  # (d, C, W)
                x = torch.cat([x[:1], replaced, x[1 + len(replaced) :]])
            x = block(x)
        x = clip_model.ln_final(x.permute(1, 0, 2))
        features.append(x[torch.arange(len(names)), tokens.argmax(dim=-1)] @ clip_model.text_projection)
    return torch.stack(features)


@pytest.mark.parametrize(("m", "n_ctx"), [(1, 1), (3, 4), (2, 16)])
def test_equals_the_plain_computation(small_clip, encoder, m, n_ctx):
    learner = TextTemplates(encoder, NAMES, m, n_ctx, std=0.5)
    ctx = learner.ctx.detach().clone().requires_grad_()
    fast, slow = encoder(learner()), plain(small_clip, ctx, NAMES)
    weight = torch.randn_like(slow)
    (fast * weight).sum().backward()
    (slow * weight).sum().backward()
    assert relative(fast, slow) < 1e-5
    assert relative(learner.ctx.grad, ctx.grad) < 1e-5


def test_deep_prompts_equal_the_plain_computation(small_clip, encoder):
    learner = TextTemplates(encoder, NAMES, 2, 3, std=0.5)
    deep = [torch.randn(2, 3, 64, requires_grad=True) for _ in range(2)]
    copies = [tokens.detach().clone().requires_grad_() for tokens in deep]
    fast = encoder(learner()._replace(deep=deep))
    slow = plain(small_clip, learner.ctx.detach(), NAMES, copies)
    fast.square().sum().backward()
    slow.square().sum().backward()
    assert relative(fast, slow) < 1e-5
    for a, b in zip(deep, copies):
        assert relative(a.grad, b.grad) < 1e-5


@pytest.mark.parametrize("at_once", [None, 1, 40])
@pytest.mark.parametrize(
    ("layer", "shape", "n_deep"), [(0, (4, 2), 0), (1, (4, 3), 0), (2, (2, 4, 3), 1), (2, (4, 1), 0)]
)
def test_tokens_of_each_class_equal_the_plain_computation(
    small_clip, encoder, monkeypatch, layer, shape, n_deep, at_once
):
    """They may differ between templates, and be fewer than the context tokens; classes may go through in parts."""
    if at_once:
        bound_tokens(monkeypatch, at_once)
    monkeypatch.setattr(LayerNorm, "forward", torch.nn.LayerNorm.forward)  # CLIP's own computes in float32
    clip_model = copy.deepcopy(small_clip).double()
    encoder = TextEncoder(clip_model)
    learner = TextTemplates(encoder, NAMES, 2, 3, std=0.5).double()
    given = [learner.ctx, torch.randn(*shape, 64), *(torch.randn(2, 3, 64) for _ in range(n_deep))]
    weight, found = torch.randn(2, len(NAMES), 48), []
    for kind in ("fast", "plain"):
        ctx, tokens, *deep = leaves = [tensor.detach().double().requires_grad_() for tensor in given]
        own = ClassTokens(layer, tokens)
        if kind == "fast":
            prompt = learner()._replace(prefix=learner.build_prefix(ctx), deep=deep, class_tokens=own)
            features = encoder(prompt)
        else:
            features = plain(clip_model, ctx, NAMES, deep, own)
        (features * weight).sum().backward()
        found.append([features, *(leaf.grad for leaf in leaves)])
    assert max(relative(fast, slow) for fast, slow in zip(*found)) < 1e-12
    with torch.no_grad():
        assert relative(encoder(prompt), found[1][0]) < 1e-12


def test_what_classes_share_before_their_own_tokens_is_computed_once(encoder, monkeypatch):
    """Before the third layer one prefix of four tokens, from there on [SOS] alone."""
    lengths = []
    attended = text.encode_block
    monkeypatch.setattr(
        text, "encode_block", lambda block, x, *rest: lengths.append(x.shape[1]) or attended(block, x, *rest)
    )
    prompt = TextTemplates(encoder, NAMES, 1, 3)()
    n_own = sum(prompt.eot_index) + len(NAMES)
    encoder(prompt._replace(class_tokens=ClassTokens(2, torch.randn(len(NAMES), 3, 64))))
    assert lengths == [4 + n_own, 4 + n_own, 1 + n_own + 3 * len(NAMES)]


@pytest.mark.parametrize(
    ("layer", "n_tokens", "n_deep", "message"),
    [
        (3, 1, 0, "one of the layers 0 to 2 of this CLIP's text encoder, got 3"),
        (-1, 1, 0, "got -1"),
        (1, 1, 2, "one of the layers 3 to 2"),
        (1, 4, 0, "4 positions has room for 1 to 3 tokens of each class, got 4"),
        (1, 0, 0, "got 0"),
    ],
)
def test_wrong_tokens_of_each_class_are_told(encoder, layer, n_tokens, n_deep, message):
    own = ClassTokens(layer, torch.zeros(len(NAMES), n_tokens, 64))
    prompt = TextTemplates(encoder, NAMES, 1, 3)()._replace(deep=[torch.zeros(1, 3, 64)] * n_deep, class_tokens=own)
    with pytest.raises(ValueError, match=message):
        encoder(prompt)


def test_suffix_of_its_own_for_each_template(encoder):
    """Where suffixes differ between templates, each template is as if it were alone."""
    names = (["dog", "cat"], ["red", "blue"])  # as long as each other
    first, second = (TextTemplates(encoder, name, 1, 2, std=0.5)() for name in names)
    both = TextPrompt(
        torch.cat([first.prefix, second.prefix]), torch.stack([first.suffix, second.suffix]), first.eot_index
    )
    features = encoder(both)
    assert relative(features[0], encoder(first)[0]) < 1e-5
    assert relative(features[1], encoder(second)[0]) < 1e-5
    assert relative(features[1], features[0]) > 0.1


def bound_tokens(monkeypatch, most):
    """No more own tokens than these are kept, or computed again at once."""
    for name in ("TOKENS_AT_ONCE", "TOKENS_KEPT"):
        monkeypatch.setattr(text, name, most)


@pytest.mark.parametrize("at_once", [1, 12, 30])
@pytest.mark.parametrize("class_specific", [False, True])
def test_classes_in_parts_equal_the_whole(encoder, monkeypatch, at_once, class_specific):
    """Deep prompts, the shared start and suffixes that learn get the same gradient, whatever is computed again."""
    prompt = TextTemplates(encoder, NAMES, 2, 3, std=0.5)()
    suffix = prompt.suffix.expand(2, -1, -1, -1) if class_specific else prompt.suffix
    given = [prompt.prefix, suffix, torch.randn(2, 3, 64)]
    found = []
    for most in (text.TOKENS_AT_ONCE, at_once):
        bound_tokens(monkeypatch, most)
        prefix, suffix, deep = leaves = [tensor.detach().clone().requires_grad_() for tensor in given]
        features = encoder(TextPrompt(prefix, suffix, prompt.eot_index, [deep]))
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        with torch.no_grad():
            assert relative(encoder(TextPrompt(prefix, suffix, prompt.eot_index, [deep])), features) < 1e-5
        found.append([features, *(leaf.grad for leaf in leaves)])
    assert all(relative(part, whole) < 1e-5 for whole, part in zip(*found))


def test_parts_under_autocast_equal_the_whole(encoder, monkeypatch):
    """What is computed again, is so in the precision of the first time."""
    found = []
    for most in (text.TOKENS_AT_ONCE, 1):
        bound_tokens(monkeypatch, most)
        torch.manual_seed(1)
        learner = TextTemplates(encoder, NAMES, 2, 3, std=0.5)
        with torch.autocast("cpu", dtype=torch.bfloat16):
            features = encoder(learner())
        features.float().square().sum().backward()
        found.append((features, learner.ctx.grad))
    assert all(relative(part, whole) < 0.02 for whole, part in zip(*found))


def test_activation_is_clips(small_clip):
    """And keeps its input alone for the gradient."""
    x = torch.linspace(-30, 30, 1001, dtype=torch.float64, requires_grad=True)
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda tensor: kept.append(tensor) or tensor, lambda tensor: tensor):
        y = text._QuickGELU.apply(x)
    plain = small_clip.transformer.resblocks[0].mlp.gelu(x)
    assert torch.equal(y, plain)
    (expected,) = torch.autograd.grad(plain.sum(), x)
    (found,) = torch.autograd.grad(y.sum(), x)
    torch.testing.assert_close(found, expected, rtol=1e-12, atol=1e-12)
    assert [tensor.shape for tensor in kept] == [x.shape]


def test_last_part_is_not_computed_again(encoder, monkeypatch):
    calls = []
    encode = encoder._encode

    def record(prompt, part):
        calls.append(tuple(c for _, classes in part.layout.groups for c in classes.tolist()))
        return encode(prompt, part)

    monkeypatch.setattr(encoder, "_encode", record)
    bound_tokens(monkeypatch, 24)  # 12 of each template, the longest name has 10 tokens
    learner = TextTemplates(encoder, NAMES, 2, 3, std=0.5)
    encoder(learner()).sum().backward()
    *others, last = dict.fromkeys(calls)
    assert others
    assert 1 in last  # the longest name's
    assert calls.count(last) == 1
    assert all(calls.count(part) == 2 for part in others)


def test_plan_of_inference_mode_serves_training(encoder):
    names = [*NAMES, "a plan that no other test has made"]
    with torch.inference_mode():
        encoder(TextTemplates(encoder, names, 2, 3, std=0.5)())
    learner = TextTemplates(encoder, names, 2, 3, std=0.5)
    encoder(learner()).sum().backward()
    assert learner.ctx.grad.abs().sum() > 0


def test_prompts_of_other_lengths_have_a_plan_of_their_own(small_clip, encoder):
    """Also where as many classes, under as many templates, differ in their lengths or their start alone."""
    for names, n_ctx in ((["dog", "x"], 3), (["x", "striped cat"], 3), (["x", "striped cat"], 4)):
        learner = TextTemplates(encoder, names, 2, n_ctx, std=0.5)
        assert relative(encoder(learner()), plain(small_clip, learner.ctx.detach(), names)) < 1e-5


def test_parts_hold_all_classes_once():
    end = [3, 1, 1, 9, 2]
    order = [1, 2, 4, 0, 3]
    assert text.split_classes(order, end, 100, 0) == [order]
    assert text.split_classes(order, end, 7, 7) == [[1, 2, 4], [0], [3]]
    assert text.split_classes(order, end, 4, 20) == [[1, 2], [4, 0, 3]]
    assert text.split_classes(order, end, 0, 0) == [[c] for c in order]


def test_memory_does_not_grow_with_templates_and_classes(encoder, monkeypatch):
    """What autograd keeps, beyond what goes in and comes out, is bounded."""

    def kept(n_templates):
        sizes = {}

        def pack(tensor):
            sizes[tensor.untyped_storage().data_ptr()] = tensor.untyped_storage().nbytes()
            return tensor

        learner = TextTemplates(encoder, [f"{name} {n}" for n in range(10) for name in NAMES], n_templates, 2, std=0.5)
        with torch.autograd.graph.saved_tensors_hooks(pack, lambda tensor: tensor):
            encoder(learner())
        return sum(sizes.values())

    plain_growth = kept(4) - kept(2)
    bound_tokens(monkeypatch, 50)
    assert kept(4) - kept(2) < plain_growth / 20


@pytest.mark.parametrize(
    "texts", [["a photo of a dog.", "a photo of a doggy dog."], ["a", "b c"], ["same", "same"], ["one alone"], [""]]
)
def test_plain_texts_equal_encode_text(small_clip, encoder, texts):
    expected = F.normalize(small_clip.encode_text(clip.tokenize(texts)), dim=-1)
    torch.testing.assert_close(encoder.encode_texts(texts), expected, rtol=1e-5, atol=1e-6)


def test_only_the_context_learns_and_is_kept(encoder):
    learner = TextTemplates(encoder, NAMES, 2, 4, ["a photo of a"], 0.01)
    assert [name for name, _ in learner.named_parameters()] == ["ctx"]
    assert list(learner.state_dict()) == ["ctx"]
    other = TextTemplates(encoder, ["quite", "other", "classes"], 2, 4)
    other.load_state_dict(learner.state_dict())
    assert encoder(other()).shape == (2, 3, 48)


def test_words_are_where_templates_start(small_clip, encoder):
    words = ["a photo of a", "this is one more"]
    learner = TextTemplates(encoder, NAMES, 2, 4, words, 0.0)
    torch.testing.assert_close(learner.ctx.data, small_clip.token_embedding(clip.tokenize(words))[:, 1:5])
    expected = encoder.encode_texts([f"this is one more {name}." for name in NAMES])
    torch.testing.assert_close(F.normalize(encoder(learner())[1], dim=-1), expected, rtol=1e-5, atol=1e-6)


def test_random_start_follows_the_seed(encoder):
    learners = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        learners.append(TextTemplates(encoder, NAMES, 2, 4, std=0.02).ctx.data)
    assert torch.equal(learners[0], learners[1])
    assert not torch.equal(learners[0], learners[2])
    assert learners[0].std().item() == pytest.approx(0.02, rel=0.2)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((3, 4, ["a photo of a", "one more of it"], 0.1), "0, 1 or 3 wordings"),
        ((1, 3, ["a photo of a"], 0.1), "4"),
        ((2, 4, ["a photo of a"], 0.0), "without noise"),
        ((2, 4, [], 0.0), "without noise"),
        ((0, 4, [], 0.1), "at least 1"),
        ((2, 0, [], 0.1), "at least 1"),
    ],
)
def test_wrong_starts_are_told(encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        TextTemplates(encoder, NAMES, *arguments)


def test_class_name_that_is_too_long(encoder):
    with pytest.raises(ValueError, match=r"class name too long.*'word word"):
        TextTemplates(encoder, ["dog", "word " * 80], 1, 4)
    fits = TextTemplates(encoder, ["dog", "word " * 70], 1, 4)
    assert encoder(fits()).shape == (1, 2, 48)
    with pytest.raises(ValueError, match=r"takes 77 tokens.* has 78"):
        TextTemplates(encoder, ["dog", "word " * 71], 1, 4)
    with pytest.raises(ValueError, match="77"):
        encoder.encode_texts(["word " * 80])


def test_encoder_refuses_prompts_beyond_its_positions(encoder):
    with pytest.raises(ValueError, match="77 tokens"):
        encoder(TextPrompt(torch.zeros(1, 70, 64), torch.zeros(1, 8, 64), torch.zeros(1, dtype=torch.long)))
