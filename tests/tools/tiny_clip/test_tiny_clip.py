"""The tiny CLIP: its file, what it knows without training, and the tool that makes it."""

from __future__ import annotations

import json
import math
import re
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import pytest
import torch
from clip import tokenize
from torch.nn import functional

from datasets import world
from helpers import ROOT
from tools.tiny_clip.__main__ import main, parse
from tools.tiny_clip.evaluation import handwritten_digits, probes
from tools.tiny_clip.losses import Heads, contrastive_loss
from tools.tiny_clip.model import encode_image, encode_text, make_model, patches, whiten_
from tools.tiny_clip.optimisers import make_muon, make_optimisers
from tools.tiny_clip.pairs import Batches, Factors
from tools.tiny_clip.pictures import render_pictures, to_input
from tools.tiny_clip.schedule import fall_begins, rate_at, steps_in_time
from tools.tiny_clip.step import train_step
from tools.tiny_clip.vocabulary import Vocabulary
from trainers.modules.loading import load_clip

WEIGHTS = ROOT / "weights"
needs_muon = pytest.mark.skipif(not hasattr(torch.optim, "Muon"), reason="this PyTorch has no Muon")


@pytest.fixture(scope="module")
def tiny():
    return load_clip(str(WEIGHTS / "tiny_clip.pt.gz"))


@pytest.fixture(scope="module")
def vocabulary():
    return Vocabulary()


# -------------------------------------------------------------------------------------------- the weights
def test_the_file_is_small_and_makes_clips_own_model(tiny):
    assert (WEIGHTS / "tiny_clip.pt.gz").stat().st_size < 10 * 2**20
    assert tiny.visual.input_resolution == 48
    assert tiny.context_length == 77
    assert tiny.vocab_size == 49408
    assert all(parameter.isfinite().all() for parameter in tiny.parameters())


def test_rows_of_words_that_the_world_does_not_use_are_zero(tiny, vocabulary):
    used = torch.zeros(49408, dtype=torch.bool)
    used[torch.tensor(vocabulary.tokens)] = True
    norms = tiny.token_embedding.weight.norm(dim=1)
    assert norms[~used].max() == 0
    assert norms[used].min() > 0


def test_the_record_tells_how_the_weights_were_made(tasks):
    record = json.loads((WEIGHTS / "tiny_clip.json").read_text())
    args = parse(record["made by"].split()[3:])
    assert args.steps == record["steps done"]
    assert set(record["zero-shot"]) == set(tasks)
    assert all(row["accuracy"] > row["chance"] for row in record["zero-shot"].values())


def accuracy(model, prompts, pictures, labels):
    """Zero-shot accuracy by CLIP's own two encoders and tokenizer, and nothing of the tool's."""
    with torch.no_grad():
        text = functional.normalize(model.encode_text(tokenize(prompts)), dim=-1)
        image = functional.normalize(model.encode_image(to_input(pictures)), dim=-1)
    return (image @ text.T).argmax(dim=-1).eq(labels).float().mean().item()


@pytest.fixture(scope="module")
def tasks():
    """Pictures that neither pre-training nor its record has seen."""
    return probes(each=4, seed=5)


@pytest.mark.parametrize(
    ("task", "times_chance"),
    [
        ("shapes", 14),
        ("colour + shape, unseen", 24),
        ("texture + shape, unseen", 40),
        ("textures, full frame", 14),
        ("digits, real handwriting", 7),
    ],
)
def test_zero_shot_is_clearly_above_chance(tiny, tasks, task, times_chance):
    probe = tasks[task]
    rows = torch.from_numpy(np.random.default_rng(0).permutation(len(probe.labels))[:300])
    got = accuracy(tiny, probe.prompts, probe.pictures[rows], probe.labels[rows])
    mark = times_chance / len(probe.prompts)
    # Three standard deviations above the mark: not by luck.
    assert got > mark + 3 * math.sqrt(mark * (1 - mark) / len(rows))


# -------------------------------------------------------------------------------------------- the tool's parts
def test_the_encoders_in_bfloat16_are_clips_own(tiny, vocabulary):
    generator = torch.Generator().manual_seed(0)
    model = make_model(vocabulary, seed=1).eval()
    with torch.no_grad():
        for parameter in model.parameters():  # away from the start, where biases are zero and norms do nothing
            parameter.add_(0.05 * torch.randn(parameter.shape, generator=generator))
    texts = [
        "a photo of a red circle.",
        "striped texture.",
        "a star",
        "the handwritten digit seven on a black plain background",
    ]
    short = vocabulary.batch(texts)
    long = functional.pad(short, (0, 77 - short.shape[1]))
    pictures = torch.randn(4, 3, 48, 48, generator=generator)
    with torch.no_grad():
        pairs = [
            (encode_text(model, short), model.encode_text(long)),
            (encode_image(model, pictures), model.encode_image(pictures)),
        ]
    for ours, clips in pairs:
        assert ours.dtype == torch.float32
        # bfloat16 has eight bits: a wrong mask, scale or norm is far beyond this.
        assert (ours - clips).norm(dim=1).div(clips.norm(dim=1)).max() < 0.03
        assert clips.std(dim=0).mean() > 0.1


def test_patches_and_whitening_fit_clips_convolution(vocabulary):
    generator = torch.Generator().manual_seed(0)
    pictures = torch.randn(40, 3, 48, 48, generator=generator).cumsum(dim=-1)
    model = make_model(vocabulary, seed=0)
    with torch.no_grad():
        whiten_(model, pictures)
        kernel = model.visual.conv1.weight
        seen = model.visual.conv1(pictures).flatten(2).transpose(1, 2)
        by_hand = functional.linear(patches(pictures, 8), kernel.flatten(1))
    assert torch.allclose(seen, by_hand, atol=1e-3)
    covariance = torch.cov(seen.flatten(0, 1).T)
    assert torch.allclose(covariance, torch.eye(128), atol=0.05)


@needs_muon
def test_muon_steps_are_orthogonal_and_leave_what_has_no_gradient():
    generator = torch.Generator().manual_seed(0)
    square, tall, joint, idle = (
        torch.randn(*shape, generator=generator) for shape in ((8, 8), (32, 8), (24, 8), (8, 8))
    )
    before = [matrix.clone() for matrix in (square, tall, joint, idle)]
    optimiser = make_muon([square, tall, joint, idle], decay=0.0)
    optimiser.param_groups[0]["lr"] = 0.1
    for matrix in (square, tall, joint):
        matrix.grad = torch.randn(matrix.shape, generator=generator)
    optimiser.step()
    steps = [(old - new) / 0.1 for old, new in zip(before, (square, tall, joint, idle))]
    assert torch.equal(steps[3], torch.zeros(8, 8))
    for step, stretch in ((steps[0], 1.0), (steps[1], 2.0), *((part, 1.0) for part in steps[2].chunk(3))):
        values = torch.linalg.svdvals(step) / stretch
        assert values.min() > 0.5  # five iterations bring them near 1, and no closer
        assert values.max() < 1.3
    for matrix, step in ((square, steps[0]), (tall, steps[1])):
        assert (matrix.grad * step).sum() > 0  # downhill


def test_heads_count_only_factors_that_are_given():
    factors = Factors()
    scene = world.Scene("object", "star", "red", texture="striped", ground="white")
    codes = torch.tensor([factors.codes(vars(scene)), factors.codes({"subject": "star"})])
    digit = factors.codes(vars(world.Scene("digit", "one", "red", writing="printed", font="DejaVuSans")))
    named = list(world.NAMED)
    assert [k for k, code in enumerate(digit) if code == -1] == [named.index("texture"), named.index("ground")]
    assert (codes[1] >= 0).sum() == 1
    torch.manual_seed(0)
    heads = Heads(8, factors)
    features = torch.randn(2, 8)
    # By hand: the subject of both, every other factor of the first alone; subject and texture count four times.
    total = 0.0
    for k, (logits, name) in enumerate(zip(heads(features).split(factors.sizes, dim=1), named)):
        rows = [row for row in (0, 1) if codes[row, k] >= 0]
        if rows:
            loss = -sum(logits[row].log_softmax(0)[codes[row, k]] for row in rows) / len(rows)
            total = total + loss * (4 if name in ("subject", "texture") else 1)
    assert torch.allclose(heads.loss(features, codes), total / (len(named) + 6))


def test_without_other_true_pairs_the_loss_is_clips():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 6, 8, generator=generator)
    logits = 5 * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    by_hand = -(logits.log_softmax(1).diag().mean() + logits.log_softmax(0).diag().mean()) / 2
    own = torch.eye(6, dtype=torch.bool)
    assert torch.allclose(contrastive_loss(image, text, torch.tensor(5.0), own), by_hand)


def test_a_true_pair_that_is_not_the_pictures_own_does_not_count():
    generator = torch.Generator().manual_seed(0)
    image, text = torch.randn(2, 4, 8, generator=generator)
    true = torch.eye(4, dtype=torch.bool)
    true[0, 2] = True
    logits = 5 * functional.normalize(image, dim=-1) @ functional.normalize(text, dim=-1).T
    rows = [logits[i, [j for j in range(4) if not (i == 0 and j == 2)]].logsumexp(0) - logits[i, i] for i in range(4)]
    columns = [
        logits[[i for i in range(4) if not (i == 0 and j == 2)], j].logsumexp(0) - logits[j, j] for j in range(4)
    ]
    by_hand = (sum(rows) / 4 + sum(columns) / 4) / 2
    assert torch.allclose(contrastive_loss(image, text, torch.tensor(5.0), true), by_hand)


@needs_muon
def test_muon_has_momentum_and_weight_decay():
    """A second step goes along both gradients, ahead by the momentum, from matrices that have shrunk."""
    generator = torch.Generator().manual_seed(0)
    joint, *gradients = torch.randn(3, 24, 8, generator=generator)
    optimiser = make_muon([joint], decay=0.5)
    optimiser.param_groups[0]["lr"] = 0.1
    for gradient in gradients:
        before, joint.grad = joint.clone(), gradient
        optimiser.step()
    step = (0.95 * before - joint) / 0.1
    ahead = gradients[1] + 0.95 * (gradients[1] + 0.95 * gradients[0])
    for part, towards in zip(step.chunk(3), ahead.chunk(3)):
        u, _, v = torch.linalg.svd(towards)
        assert torch.linalg.matrix_norm(part - u @ v) < 0.3 * torch.linalg.matrix_norm(u @ v)  # five iterations


def test_older_pytorch_is_told(monkeypatch, small_tool, tmp_path, capsys):
    monkeypatch.delattr(torch.optim, "Muon", raising=False)
    with pytest.raises(SystemExit) as stopped:
        small_tool(tmp_path)
    assert stopped.value.code == 2
    assert f"needs PyTorch 2.9 or newer, which has torch.optim.Muon; here is {torch.__version__}" in (
        capsys.readouterr().err
    )
    assert list(tmp_path.iterdir()) == []


@needs_muon
@pytest.mark.parametrize("alone", [0, 1])
def test_the_step_in_two_threads_has_the_plain_gradient(vocabulary, monkeypatch, alone):
    monkeypatch.setattr("tools.tiny_clip.pictures.CHUNK", 16)
    batches = Batches(*render_pictures(0, 16, 1), vocabulary, 16, 0, alone)
    batch = batches(0)
    model = make_model(vocabulary, seed=0)
    heads = Heads(128, Factors())
    image = encode_image(model, batch.pictures)
    loss = heads.loss(image, batch.shown)
    assert (batch.captions is None) == (alone == 1)
    if not alone:
        text = encode_text(model, batch.captions.tokens)
        loss = loss + heads.loss(text, batch.captions.named)
        loss = loss + contrastive_loss(image, text, model.logit_scale.exp(), batch.captions.true)
    loss.backward()
    plain = {n: p.grad.clone() for n, p in model.named_parameters() if p.grad is not None}
    assert ("text_projection" in plain) == (alone == 0)
    norm = torch.stack([gradient.norm() for gradient in plain.values()]).norm().item()
    factor = min(1.0, 1 / norm)  # clipped to norm 1
    optimisers = make_optimisers(model, heads, decay=0.1)
    heads.zero_grad()
    with ThreadPoolExecutor(2) as pool:
        got = train_step(model, heads, optimisers, 0.0, batches(0), pool)
    assert got == pytest.approx(loss.item(), rel=1e-2)
    found = {n: p.grad for n, p in model.named_parameters() if p.grad is not None}
    assert found.keys() == plain.keys()
    for name, gradient in found.items():
        assert (gradient - factor * plain[name]).norm() < 0.15 * factor * plain[name].norm() + 1e-6, name


def test_which_pairs_are_true_is_as_the_world_says(vocabulary, monkeypatch):
    monkeypatch.setattr("tools.tiny_clip.pictures.CHUNK", 32)
    pictures, scenes = render_pictures(3, 32, 1)
    batches = Batches(pictures, scenes, vocabulary, 32, seed=3)
    batch = batches(0)
    assert not any(world.held_out(scene) for scene in scenes)
    rng = np.random.default_rng([3, 2, 0])
    rows = rng.choice(32, 32, replace=False)
    rng.integers(0, 7, (32, 2))
    captions = [world.describe(scenes[row], rng) for row in rows]
    by_hand = [[world.is_true(caption.named, scenes[row]) for caption in captions] for row in rows]
    tokens, named, true = batch.captions
    assert true.tolist() == by_hand
    assert 32 < true.sum() < 32 * 16
    assert tokens.tolist() == vocabulary.batch([caption.text for caption in captions]).tolist()
    assert ((named == batch.shown) | (named == -1)).all()
    for row, caption in zip(named.tolist(), captions):
        assert {name for name, code in zip(world.NAMED, row) if code >= 0} == set(caption.named)


def test_the_learning_rate_leaves_the_number_of_steps_open_until_it_falls():
    for done in range(200, 3000, 7):
        steps = math.ceil(done * 5 / 3)
        assert fall_begins(steps) >= done
        assert rate_at(done, steps, 1.0) == rate_at(done, 10 * steps, 1.0) == 1.0
    rates = [rate_at(step, 1000, 1e-3) for step in range(1000)]
    assert rates[0] == pytest.approx(1e-3 / 200)
    assert rates[600] == 1e-3
    assert rates[800] == pytest.approx(5e-4)
    assert 0 < rates[999] < 1e-5


def test_the_clock_chooses_the_shortest_run_that_takes_up_the_time():
    assert steps_in_time(3000, done=300, spent=300.0, pace=1.0, limit=499.0) == 500
    assert steps_in_time(3000, done=300, spent=300.0, pace=1.0, limit=501.0) == 3000  # goes on, and is asked again
    assert steps_in_time(400, done=300, spent=300.0, pace=1.0, limit=0.0) == 400  # never more than it may have


# -------------------------------------------------------------------------------------------- whole runs
@pytest.fixture
def small_tool(monkeypatch, vocabulary):
    """The tool on few pictures, and without its figures' many."""
    digits = handwritten_digits()
    probe = digits._replace(pictures=digits.pictures[:20], labels=digits.labels[:20])
    monkeypatch.setattr("tools.tiny_clip.pictures.CHUNK", 16)
    monkeypatch.setattr("tools.tiny_clip.pretrain.probes", lambda: {"digits": probe})
    monkeypatch.setattr("tools.tiny_clip.training.Vocabulary", lambda: vocabulary)
    threads = torch.get_num_threads()
    few = ["--steps", "2", "--alone", "1", "--batch", "8", "--pictures", "16", "--workers", "1", "--save-every", "1"]
    yield lambda folder, *more: main(
        [*few, "--checkpoint", str(folder / "checkpoint.pt"), "--out", str(folder / "weights"), *more]
    )
    torch.set_num_threads(threads)


@needs_muon
def test_a_run_is_deterministic_and_a_cut_one_ends_as_if_it_had_not_been(small_tool, tmp_path, monkeypatch):
    small_tool(tmp_path / "whole")
    small_tool(tmp_path / "other_seed", "--seed", "1")

    calls = []

    def cut(*arguments):
        if calls:
            raise KeyboardInterrupt
        calls.append(1)
        return train_step(*arguments)

    with monkeypatch.context() as patch:
        patch.setattr("tools.tiny_clip.training.train_step", cut)
        with pytest.raises(KeyboardInterrupt):
            small_tool(tmp_path / "cut")
    assert not (tmp_path / "cut" / "weights").exists()
    small_tool(tmp_path / "cut")

    weights = {
        name: (tmp_path / name / "weights" / "tiny_clip.pt.gz").read_bytes() for name in ("whole", "cut", "other_seed")
    }
    assert weights["whole"] == weights["cut"] != weights["other_seed"]
    record = json.loads((tmp_path / "cut" / "weights" / "tiny_clip.json").read_text())
    assert record["steps done"] == 2
    assert load_clip(str(tmp_path / "cut" / "weights" / "tiny_clip.pt.gz")).vocab_size == 49408


@needs_muon
def test_a_checkpoint_of_another_run_is_refused(small_tool, tmp_path, capsys):
    small_tool(tmp_path)
    path = tmp_path / "checkpoint.pt"
    before = path.read_bytes()
    with pytest.raises(SystemExit) as stopped:
        small_tool(tmp_path, "--seed", "1")
    assert stopped.value.code == 2
    told = rf"{path} holds 2 steps of a run with steps 2.*but this run has steps 2.*'seed': 1"
    assert re.search(told, capsys.readouterr().err)

    saved = torch.load(path, weights_only=True)
    saved["optimisers"][0] = {"state": {}, "param_groups": [{"lr": 0.0, "decay": 0.1, "momentum": 0.95, "params": []}]}
    torch.save(saved, path)
    with pytest.raises(SystemExit):
        small_tool(tmp_path)
    assert f"{path} was written by an older version" in capsys.readouterr().err
    path.write_bytes(before)
    small_tool(tmp_path)


def test_arguments_out_of_range_are_refused(capsys):
    for arguments, message in ((["--steps", "0"], "--steps must be 1"), (["--pictures", "5"], "must be --batch")):
        with pytest.raises(SystemExit):
            parse(arguments)
        assert message in capsys.readouterr().err
