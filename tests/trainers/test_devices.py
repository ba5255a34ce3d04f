"""Every trainer on every device and in every precision, on the embedded CLIP.

The same tests run on the CPU by default and, marked `gpu`, on CUDA: `python -m pytest -m gpu`.
"""

from __future__ import annotations

import gc
import itertools
from contextlib import contextmanager

import pytest
import torch
from dassl.engine import TRAINER_REGISTRY
from dassl.utils import set_random_seed
from torch.utils._python_dispatch import TorchDispatchMode

import trainers
from helpers import HALF, ROOT, relative, results_of
from trainers.modules.loading import PRECISIONS
from trainers.prompt_trainer import PromptTrainer, grad_scaler

EMBEDDED_CLIP = ROOT / "weights/tiny_clip.pt.gz"
VIEWS = ["random_resized_crop", "normalize"]

# Each trainer's name, config and options: two epochs of a few steps. They enlarge no rounding: one of 4e-7 in every
# layer moves their scores by less than 1e-5. CDC with the loss of the fused opinion at OPTIM.LR 0.03 and the probe at
# K = 4 would move by up to 2e-4 and 3e-5.
CASES = {
    "CDC": ("CDC", "tiny_text", {}),
    "CDC coupled": ("CDC", "tiny", {}),
    "CDC bank": ("CDC", "tiny_text", {"TRAINER.CDC.FEATURE_BANK": 2}),
    "CDC all losses": (
        "CDC",
        "tiny_text",
        {"TRAINER.CDC.FUSED_LOSS": True, "TRAINER.CDC.KL_WEIGHT": 0.1, "OPTIM.LR": 0.01},
    ),
    "CDC invariant": (
        "CDC",
        "tiny_text",
        {
            "TRAINER.CDC.INVARIANT_MAP.ENABLED": True,
            "TRAINER.CDC.INVARIANT_MAP.K": 4,
            "TRAINER.CDC.INVARIANT_MAP.LAMBDA": 1.0,
            "TRAINER.CDC.EVIDENCE_SHIFT": 0.7,
        },
    ),
    "CoOp": ("CoOp", "tiny", {}),
    "CoOp bank": ("CoOp", "tiny", {"TRAINER.COOP.FEATURE_BANK": 2}),
    "CoCoOp": ("CoCoOp", "tiny", {}),
    "KgCoOp": ("KgCoOp", "tiny", {}),
    "MaPLe": ("MaPLe", "tiny", {}),
    "TCP": ("TCP", "tiny", {"OPTIM.LR": 0.002}),
    "PromptSRC": ("PromptSRC", "tiny", {"TRAINER.PROMPTSRC.GPA_MEAN": 1}),
    "MMRL": ("MMRL", "tiny", {"OPTIM.LR": 0.001}),
    # K and LAMBDA are given, as their choice by accuracy may turn on a rounding; K is below the rank of 8 images.
    "CLIPICM probe": (
        "CLIPICM",
        "tiny",
        {"TRAINER.CLIPICM.K": 2, "TRAINER.CLIPICM.LAMBDA": 1.0, "TRAINER.CLIPICM.PREDICTION": "probe"},
    ),
    "CLIPICM": ("CLIPICM", "tiny", {"TRAINER.CLIPICM.K": 4, "TRAINER.CLIPICM.LAMBDA": 1.0}),
    "ZeroshotCLIP": ("ZeroshotCLIP", "tiny", {}),
    "ZeroshotCLIP2": ("ZeroshotCLIP2", "tiny", {}),
}
# Those that take steps.
LEARNING = [
    case
    for case, (trainer, _, _) in CASES.items()
    if issubclass(TRAINER_REGISTRY.get(trainer), PromptTrainer) and trainer != "CLIPICM"
]

# How far from those in fp32, as parts of their lengths, scores may be, and what training changed of the parameters.
# CDC's scores are the most sensitive: cosines, which bfloat16 keeps to three digits, times 100 for each template.
TOLERANCE = {"fp32": (1e-4, 1e-2), "fp16": (0.02, 0.2), "bf16": (0.2, 0.6), "amp": (0.2, 0.6)}


@pytest.fixture(autouse=True)
def without_tf32():
    """TF32 rounds to 10 bits, which is not fp32. PyTorch uses it for convolutions unless told otherwise."""
    switches = torch.backends.cuda.matmul, torch.backends.cudnn
    before = [switch.allow_tf32 for switch in switches]
    for switch in switches:
        switch.allow_tf32 = False
    yield
    for switch, value in zip(switches, before):
        switch.allow_tf32 = value


@pytest.fixture(params=["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def device(request):
    if request.param == "cuda":
        _need_gpu()
    return request.param


def _need_gpu() -> None:
    if not torch.cuda.is_available():
        pytest.skip("PyTorch finds no CUDA device")


@pytest.fixture
def build(build_run, tmp_path):
    """A trainer of one of `CASES` on a device, in a precision."""

    def make(case, device, output="run", precision="fp32", options=(), flags=()):
        trainer, config, own = CASES[case]
        given = {
            "USE_CUDA": device == "cuda",
            f"TRAINER.{trainer.upper()}.PREC": precision,
            "INPUT.SIZE": (48, 48),
            "OPTIM.MAX_EPOCH": 2,
            "OPTIM.WARMUP_EPOCH": 0,
            "OPTIM.LR": 0.03,
            **own,
            **dict(options),
        }
        for key in own:
            if key.endswith("FEATURE_BANK"):
                given.setdefault(f"{key}_DIR", tmp_path / "bank")
        pairs = [x for pair in given.items() for x in pair]
        return build_run(trainer, tmp_path / output, *pairs, backbone=EMBEDDED_CLIP, config=config, flags=flags)

    return make


def scores_of(trainer) -> torch.Tensor:
    """Scores of all test images, on the CPU."""
    trainer.set_model_mode("eval")
    with torch.no_grad():
        batches = [trainer.parse_batch_test(batch) for batch in trainer.test_loader]
        return torch.cat([trainer.model_inference(images).float().cpu() for images, _ in batches])


@pytest.fixture(scope="module")
def references():
    """What came out on the CPU in fp32, by case."""
    return {}


def test_every_trainer_has_its_case():
    modules = {f"trainers.{method}" for method in trainers.METHODS}  # other tests register trainers of their own
    assert {trainer for trainer, _, _ in CASES.values()} >= {
        name for name in TRAINER_REGISTRY.registered_names() if TRAINER_REGISTRY.get(name).__module__ in modules
    }


# A CPU is slow in half precision: there amp stands for it, but once.
ON_A_CPU = [(case, "amp") for case in CASES] + [("CDC", precision) for precision in ("fp32", "fp16", "bf16")]


@pytest.mark.parametrize(
    ("device", "case", "precision"),
    [pytest.param("cpu", *pair, marks=HALF.marks if pair[1] == "fp16" else ()) for pair in ON_A_CPU]
    + [pytest.param("cuda", *pair, marks=pytest.mark.gpu) for pair in itertools.product(CASES, PRECISIONS)],
    indirect=["device"],
)
def test_trains_and_tests_as_in_fp32_on_a_cpu(build, tmp_path, references, device, case, precision):
    if case not in references:
        references[case] = outcome(build(case, "cpu", "reference"), case)
    trainer = build(case, device, "run", precision)
    assert trainer.device.type == device
    scores, change, parameters = outcome(trainer, case)
    expected_scores, expected_change, expected = references[case]
    assert results_of(tmp_path / "run")["device"] == ("cpu" if device == "cpu" else torch.cuda.get_device_name())
    of_scores, of_change = TOLERANCE[precision]
    assert relative(scores, expected_scores) < of_scores
    if case in LEARNING:
        assert relative(change, expected_change) < of_change
        assert all(value.dtype == torch.float32 for value in parameters.values())
        if precision == "fp32":
            assert all(relative(parameters[name], value) < 1e-4 for name, value in expected.items())


def outcome(trainer, case):
    """Train; the scores of the test images, what training changed, and the trained parameters, all on the CPU."""
    start = parameters_of(trainer) if case in LEARNING else {}
    trainer.train()
    end = parameters_of(trainer) if case in LEARNING else {}
    changes = [(end[name] - value).flatten() for name, value in start.items()]
    return scores_of(trainer), torch.cat(changes) if changes else None, end


def parameters_of(trainer):
    return {name: value.detach().cpu().clone() for name, value in trainer.learner.named_parameters()}


class _Waits(TorchDispatchMode):
    """Records operations that would make the host wait for a GPU: values asked for, and tensors made of Python's."""

    NAMES = ("_local_scalar_dense", "nonzero", "equal", "lift_fresh", "is_nonzero")

    def __init__(self):
        super().__init__()
        self.found = []

    def __torch_dispatch__(self, operation, types, arguments=(), options=None):
        if operation.overloadpacket.__name__ in self.NAMES:
            self.found.append(str(operation))
        return operation(*arguments, **(options or {}))


@contextmanager
def no_waiting(device):
    """Fails where what is done inside makes the host wait."""
    if device == "cuda":
        torch.cuda.set_sync_debug_mode("error")
        try:
            yield
        finally:
            torch.cuda.set_sync_debug_mode("default")
    else:
        with _Waits() as waits:
            yield
        assert waits.found == []


@pytest.mark.parametrize(
    ("device", "case", "precision"),
    [("cpu", case, "fp32") for case in LEARNING]
    + [pytest.param("cuda", *pair, marks=pytest.mark.gpu) for pair in itertools.product(LEARNING, PRECISIONS)],
    indirect=["device"],
)
def test_a_step_does_not_wait_for_the_device(build, device, case, precision):
    options = {"DATASET.NUM_SHOTS": 8}
    if device == "cpu":  # Adam asks for a number of steps that it keeps on the host beside any device
        options["OPTIM.NAME"] = "sgd"
    trainer = build(case, device, precision=precision, options=options.items())
    trainer.scaler = None  # which has to look whether a gradient overflowed
    trainer.before_train()
    trainer.set_model_mode("train")
    first, second, *_ = trainer.train_loader_x
    assert all(value.is_pinned() for value in second.values() if device == "cuda" and torch.is_tensor(value))
    trainer.step(first)  # what is computed once is computed now
    with no_waiting(device):
        trainer.step(second)


def test_waiting_is_noticed(device):
    values = torch.ones(3, device=device)
    for wait in (
        lambda: values.sum().item(),
        lambda: values.nonzero(),
        lambda: torch.tensor([1.0, 2.0], device=device),
    ):
        with pytest.raises((AssertionError, RuntimeError)), no_waiting(device):
            wait()


@pytest.fixture
def scaled(build, device):
    """A trainer with the scaler of amp, which is CUDA's own; on a CPU it gets PyTorch's for CPUs."""

    def make(output, *options, scale=None):
        trainer = build("CDC", device, output, "amp", dict(zip(options[::2], options[1::2])).items())
        if device == "cpu":
            assert trainer.scaler is None
            if not hasattr(torch.amp, "GradScaler"):
                pytest.skip("PyTorch scales gradients on a CPU from 2.3 on")
            trainer.scaler = grad_scaler(device)
        if scale is not None:
            trainer.scaler.load_state_dict({**trainer.scaler.state_dict(), "scale": scale})
        return trainer

    return make


def batches_of(trainer):
    trainer.before_train()
    trainer.set_model_mode("train")
    trainer.batch_idx, trainer.num_batches = 0, 100
    return list(trainer.train_loader_x)


def test_scaling_does_not_change_the_step(build, scaled, device):
    """A power of two changes no digit of a gradient that neither over- nor underflows."""
    changes = []
    for trainer in (scaled("scaled"), build("CDC", device, "plain", "amp")):
        if changes:
            trainer.scaler = None
        set_random_seed(0)
        start = trainer.learner.ctx.detach().clone()
        for batch in batches_of(trainer):
            trainer.forward_backward(batch)
        changes.append((trainer.learner.ctx.detach() - start).cpu())
    assert changes[1].norm() > 1e-3
    assert relative(*changes) < (1e-6 if device == "cpu" else 1e-2)  # in fp16, what is not scaled underflows a little


def test_a_step_that_overflows_is_left_out(scaled):
    trainer = scaled("run", scale=2.0**127)
    batch = batches_of(trainer)[0]
    before = trainer.learner.ctx.detach().clone()
    logged = trainer.forward_backward(batch)
    assert torch.equal(trainer.learner.ctx, before)
    assert trainer.scaler.get_scale() == 2.0**126
    assert 0 < logged["loss"] < 100
    while torch.equal(trainer.learner.ctx, before):
        trainer.forward_backward(batch)
    assert trainer.scaler.get_scale() < 2.0**126
    assert trainer.learner.ctx.isfinite().all()


def test_resumed_run_goes_on_with_its_scale(scaled):
    """From twice the largest scale without an overflow: the first step is left out, others are taken."""
    probe = scaled("probe", scale=2.0**127)
    batch, start = batches_of(probe)[0], probe.learner.ctx.detach().clone()
    while torch.equal(probe.learner.ctx, start):
        probe.forward_backward(batch)
    scale = 2 * probe.scaler.get_scale()
    whole = scaled("whole", scale=scale)
    whole.train()
    cut = scaled("cut", scale=scale)
    cut.before_epoch = lambda: _stop_at(cut, 1)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = scaled("cut")
    resumed.train()
    assert whole.scaler.get_scale() < scale
    assert not torch.equal(whole.learner.ctx, start)
    assert resumed.scaler.state_dict() == whole.scaler.state_dict()
    assert torch.equal(resumed.learner.ctx, whole.learner.ctx)


def _stop_at(trainer, epoch: int) -> None:
    if trainer.epoch == epoch:
        raise KeyboardInterrupt


@pytest.mark.parametrize(
    ("case", "precision"),
    [
        ("CDC", "amp"),
        ("CoOp bank", "fp32"),
        *(
            pytest.param(*pair, marks=pytest.mark.gpu)
            for pair in [("CDC coupled", "fp16"), ("CoOp bank", "bf16"), ("CoCoOp", "amp"), ("MaPLe", "fp32")]
        ),
    ],
)
def test_resumed_run_ends_with_the_same_bits(build, tmp_path, device, case, precision):
    whole = build(case, device, "whole", precision)
    whole.train()
    cut = build(case, device, "cut", precision)
    cut.before_epoch = lambda: _stop_at(cut, 1)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    resumed = build(case, device, "cut", precision)
    resumed.train()
    states = [trainer.learner.state_dict() for trainer in (whole, resumed)]
    assert all(torch.equal(value, states[1][key]) for key, value in states[0].items())
    figures = [results_of(tmp_path / name)["figures"] for name in ("whole", "cut")]
    assert figures[0] == figures[1]


@pytest.mark.parametrize("makes", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
def test_bank_of_one_device_serves_the_other(build, tmp_path, device, makes):
    if makes == "cuda":
        _need_gpu()
    for precision in ("fp32", "bf16"):
        maker = build("CDC bank", makes, f"maker {precision}", precision)
        maker.before_train()
        files = {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").glob("*")}
        taker = build("CDC bank", device, f"taker {precision}", precision)
        taker.before_train()
        assert {path: path.stat().st_mtime_ns for path in (tmp_path / "bank").glob("*")} == files
        assert all(torch.equal(a, b) for a, b in zip(maker.feature_source.banks, taker.feature_source.banks))
        batch = next(iter(taker.train_loader_x))
        assert taker.train_features(batch).device.type == device


def test_bank_of_amp_tells_the_type_that_its_device_mixes_in(build):
    """A GPU computes amp in float16, a CPU in bfloat16, which has three bits less."""
    trainer = build("CDC bank", "cpu", precision="amp")
    found = [trainer.encoder_precision]
    trainer.device = torch.device("cuda")
    found.append(trainer.encoder_precision)
    assert found == ["amp torch.bfloat16", "amp torch.float16"]


@pytest.mark.parametrize("trains", ["cpu", pytest.param("cuda", marks=pytest.mark.gpu)])
@pytest.mark.parametrize("case", ["CDC", "CDC coupled", "CLIPICM"])
def test_checkpoint_of_one_device_loads_on_the_other(build, tmp_path, device, trains, case):
    if trains == "cuda":
        _need_gpu()
    trained = build(case, trains, "trained")
    trained.train()
    tested = build(case, device, "tested", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "trained"), epoch=trained.max_epoch)
    assert {value.device.type for value in tested.learner.state_dict().values()} == {device}
    assert relative(scores_of(tested), scores_of(trained)) < 1e-4
    if case != "CLIPICM":
        three = {"OPTIM.MAX_EPOCH": 3}.items()
        cut = build(case, trains, "cut", options=three)
        cut.before_epoch = lambda: _stop_at(cut, 2)
        with pytest.raises(KeyboardInterrupt):
            cut.train()
        resumed = build(case, device, "cut", options=three)
        resumed.train()
        assert resumed.start_epoch == 2


@pytest.mark.gpu
def test_peak_memory_is_what_the_benchmark_says(tmp_path):
    """And does not grow with the number of templates: at most 1.2 times that of one."""
    _need_gpu()
    from tools.benchmark.measure import Measurement, take
    from tools.benchmark.subjects import Measured, Settings, Subject

    settings = Settings("cuda", 1, "fp16")
    subjects = {f"m{m}": Subject("CDC", "train", 1000, m, bank=True) for m in (1, 8)}
    peaks = {
        name: subject["peak"]
        for name, subject in take(Measurement("classes", "x", subjects), settings)["subjects"].items()
    }
    assert peaks["m8"] < 1.2 * peaks["m1"]
    gc.collect()
    before = torch.cuda.memory_allocated()  # what other tests have left
    own = Measured(subjects["m8"], settings, tmp_path)
    trainer, batch = own.trainer, own.batch
    gc.collect()
    torch.cuda.reset_peak_memory_stats()
    for _ in range(3):
        trainer.step(batch)
    assert torch.cuda.max_memory_allocated() - before == pytest.approx(peaks["m8"], rel=0.1)


@pytest.mark.parametrize(
    ("place", "value"), [("loss", float("nan")), ("loss", float("inf")), ("parameter", float("nan"))]
)
def test_training_that_diverges_is_told_and_leaves_no_checkpoint(build, tmp_path, device, place, value):
    trainer = build("CoOp", device)
    if place == "loss":
        loss = trainer.loss
        trainer.loss = lambda batch: (loss(batch)[0] * value, {})
    else:  # of the last step, after which no loss tells
        update_lr = trainer.update_lr
        trainer.update_lr = lambda: (trainer.learner.ctx.data.fill_(value), update_lr())
    message = (
        "the loss is (nan|inf) in epoch 1, batch 1, at the learning rate" if place == "loss" else "ctx is infinite"
    )
    with pytest.raises(FloatingPointError, match=message):
        trainer.train()
    assert not list((tmp_path / "run").glob("prompt_learner/model*"))
    assert not (tmp_path / "run/results.json").exists()


def test_scaler_of_old_pytorch(monkeypatch):
    """Before PyTorch 2.3 there is one for CUDA alone, under another name."""
    monkeypatch.delattr(torch.amp, "GradScaler", raising=False)
    with pytest.raises(ValueError, match="on cuda alone, got cpu"):
        grad_scaler("cpu")
    monkeypatch.setattr(torch.cuda.amp, "GradScaler", lambda: "the old one")
    assert grad_scaler("cuda") == "the old one"
