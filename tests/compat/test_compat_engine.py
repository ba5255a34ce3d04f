"""The embedded Dassl but for config and data: upstream's golden numbers, faults; the mending of an installed one."""

from __future__ import annotations

import importlib.util
import inspect
import io
import json
import math
import multiprocessing
import os
import re
import resource
import signal
import subprocess
import sys
from pathlib import Path

import compat

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from helpers import GOLDEN, ROOT, checkout_of, run_archive, save_harmful_archive

SCRIPT = GOLDEN / "make_dassl_engine.py"
FACTS = json.loads(SCRIPT.with_name("dassl_engine.json").read_text(encoding="utf-8"))

todays_torch = pytest.mark.skipif(torch.__version__ < "2.6", reason="this PyTorch's torch.load() takes all by default")
embedded = pytest.mark.skipif(compat.which() != "embedded", reason="an installed Dassl is in use")


def load_script():
    spec = importlib.util.spec_from_file_location("make_dassl_engine", SCRIPT)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


golden_script = load_script()


def differences(expected, found, where=""):
    """Every place where two JSON values differ by more than rounding."""
    if isinstance(expected, dict) and isinstance(found, dict) and list(expected) == list(found):
        return [line for key in expected for line in differences(expected[key], found[key], f"{where}/{key}")]
    if isinstance(expected, list) and isinstance(found, list) and len(expected) == len(found):
        return [line for i, pair in enumerate(zip(expected, found)) for line in differences(*pair, f"{where}[{i}]")]
    if isinstance(expected, (int, float)) and isinstance(found, (int, float)):
        return [] if math.isclose(expected, found, rel_tol=1e-5, abs_tol=1e-9) else [f"{where}: {expected} {found}"]
    return [] if expected == found else [f"{where}: {expected!r} {found!r}"]


def run_python(code, *path, **options):
    env = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join(map(str, path)),
        "PYTHONWARNINGS": "ignore",
        "OMP_NUM_THREADS": "1",
    }
    return subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, text=True, timeout=300, **options)


# Golden numbers of upstream


@pytest.mark.parametrize("part", [key for key in FACTS if key not in ("torch", "trainings")])
def test_golden(part):
    assert differences(FACTS[part], getattr(golden_script, part)()) == []


@pytest.mark.filterwarnings("ignore:Detected call of")
def test_golden_trainings():
    assert differences(FACTS["trainings"], golden_script.trainings()) == []


@pytest.mark.upstream
def test_upstream_mended(tmp_path):
    """A checkout (its path in DASSL_CHECKOUT) under today's PyTorch: golden numbers; resuming in and after warm-up."""
    checkout = checkout_of("DASSL_CHECKOUT")
    command = [sys.executable, SCRIPT, checkout, "--output", tmp_path / "found.json"]
    made = subprocess.run(command, capture_output=True, text=True, check=False)
    assert made.returncode == 0, made.stderr
    assert f"installed at {checkout}" in made.stdout
    found = json.loads((tmp_path / "found.json").read_text())
    assert differences({**FACTS, "torch": torch.__version__}, found) == []

    code = f"""
import compat, sys
sys.path.insert(0, {str(SCRIPT.parent)!r})
import make_dassl_engine, json
print(compat.which(), file=sys.stderr)
print(json.dumps([make_dassl_engine.resumed_training(OPTIM__WARMUP_EPOCH=w)["printed"] for w in (1, 3)]))
"""
    ran = run_python(code, checkout, ROOT)
    assert f"installed at {checkout}" in ran.stderr
    policies = "import compat; from dassl.data.transforms.autoaugment import *; ImageNetPolicy(), SVHNPolicy()"
    run_python(policies, checkout, ROOT, check=True)
    for warmup, lines in zip((1, 3), json.loads(ran.stdout)):
        assert printed_rates(lines) == expected_rates(warmup)


# Learning rates over a cut


def printed_rates(lines):
    """The learning rate at the end of each epoch, from the lines of the epoch's last batch."""
    return [float(re.search(r"lr (\S+)", line)[1]) for line in lines if "batch [5/5]" in line]


def expected_rates(warmup):
    """Four epochs of linear warm-up, then cosine from 0.1 over four epochs."""
    cosine = [0.05 * (1 + math.cos(math.pi * epoch / 4)) for epoch in range(4)]
    rates = [0.1 * epoch / warmup for epoch in range(1, warmup)] + cosine
    return [float(f"{rate:.4e}") for rate in rates[:4]]


@pytest.mark.parametrize("warmup", [1, 3])
def test_resumed_warmup_goes_on(warmup):
    assert printed_rates(golden_script.resumed_training(OPTIM__WARMUP_EPOCH=warmup)["printed"]) == expected_rates(
        warmup
    )


def build(schedule="cosine", optimiser="sgd", **changes):
    from dassl.optim import build_lr_scheduler, build_optimizer

    cfg = golden_script.default_cfg(OPTIM__MAX_EPOCH=10, **changes)
    for key, value in {**golden_script.SCHEDULES[schedule], **golden_script.OPTIMISERS[optimiser]}.items():
        cfg.OPTIM[key] = value
    torch.manual_seed(0)
    model = nn.Linear(3, 2)
    optim = build_optimizer(model, cfg.OPTIM)
    return model, optim, build_lr_scheduler(optim, cfg.OPTIM)


def steps(model, optim, sched, count):
    rates = []
    for _ in range(count):
        optim.zero_grad()
        model(torch.ones(1, 3)).square().sum().backward()
        optim.step()
        sched.step()
        rates.append(optim.param_groups[0]["lr"])
    return rates


@pytest.mark.parametrize("done", [1, 3, 6])
@pytest.mark.parametrize("recount", [True, False])
@pytest.mark.parametrize("kind", ["constant", "linear"])
@pytest.mark.parametrize("schedule", list(golden_script.SCHEDULES))
def test_schedule_survives_a_checkpoint(tmp_path, schedule, kind, recount, done):
    from dassl.utils import resume_from_checkpoint, save_checkpoint

    changes = {"OPTIM__WARMUP_EPOCH": 3, "OPTIM__WARMUP_TYPE": kind, "OPTIM__WARMUP_RECOUNT": recount}
    model, optim, sched = build(schedule, **changes)
    steps(model, optim, sched, done)
    state = {"state_dict": model.state_dict(), "optimizer": optim.state_dict(), "scheduler": sched.state_dict()}
    save_checkpoint({**state, "epoch": done, "val_result": None}, str(tmp_path))
    torch.load(tmp_path / f"model.pth.tar-{done}", weights_only=True)
    rest = steps(model, optim, sched, 9 - done)

    again = build(schedule, **changes)
    assert resume_from_checkpoint(str(tmp_path), *again) == done
    assert steps(*again, 9 - done) == rest
    assert torch.equal(again[0].weight, model.weight)


@todays_torch
@pytest.mark.parametrize("optimiser", list(golden_script.OPTIMISERS))
@pytest.mark.parametrize("schedule", list(golden_script.SCHEDULES))
def test_checkpoint_of_upstream_loads(tmp_path, schedule, optimiser):
    """Upstream stores the scheduler after the warm-up as an object; NumPy scalars come from people's evaluators."""
    from dassl.utils import load_checkpoint, resume_from_checkpoint, save_checkpoint

    model, optim, sched = build(schedule, optimiser, OPTIM__WARMUP_EPOCH=2)
    steps(model, optim, sched, 4)
    stored = {key: value for key, value in vars(sched).items() if key != "optimizer"}
    if schedule == "multi_step":
        sched.successor.__class__ = torch.optim.lr_scheduler.MultiStepLR  # upstream's is PyTorch's own
    state = {"state_dict": model.state_dict(), "optimizer": optim.state_dict(), "scheduler": stored}
    save_checkpoint({**state, "epoch": 4, "val_result": np.float64(61.5)}, str(tmp_path))
    with pytest.raises(Exception, match="weights_only"):
        torch.load(tmp_path / "model.pth.tar-4")
    rest = steps(model, optim, sched, 5)

    with torch.serialization.safe_globals([np.dtype]):
        assert load_checkpoint(str(tmp_path / "model.pth.tar-4"))["val_result"] == 61.5
        allowed = torch.serialization.get_safe_globals()  # as before: what the user allowed, nothing of ours
        assert np.dtype in allowed
        assert not any(isinstance(entry, tuple) and "SGD" in entry[1] for entry in allowed)
    again = build(schedule, optimiser, OPTIM__WARMUP_EPOCH=2)
    resume_from_checkpoint(str(tmp_path), *again)
    assert steps(*again, 5) == rest
    torch.save(again[2].state_dict(), tmp_path / "again")
    torch.load(tmp_path / "again", weights_only=True)


class Alien:
    """Something that no checkpoint of a trainer holds."""


@embedded
def test_checkpoint_runs_no_foreign_code(tmp_path):
    from dassl.utils import load_checkpoint

    torch.save({"state_dict": {}, "epoch": 1, "scheduler": Alien()}, tmp_path / "alien")
    with pytest.raises(ValueError, match=r"alien .* more than tensors and plain data"):
        load_checkpoint(str(tmp_path / "alien"))


@embedded
@pytest.mark.filterwarnings("ignore:.*TorchScript archive")
def test_checkpoint_runs_no_torchscript(tmp_path):
    """PyTorch before 2.6 hands an archive to `torch.jit.load`, even where it is asked for weights alone."""
    from dassl.utils import load_checkpoint

    trap, archive = tmp_path / "trap", tmp_path / "archive"
    save_harmful_archive(archive, trap)
    with pytest.raises(ValueError, match=r"archive .* more than tensors and plain data"):
        load_checkpoint(str(archive))
    assert not trap.exists()
    run_archive(archive)
    assert trap.exists()


# Checkpoints that go wrong


def state(value, size=10):
    return {
        "state_dict": {"module.weight": torch.full((size,), float(value))},
        "epoch": 7,
        "optimizer": None,
        "scheduler": None,
        "val_result": None,
    }


@embedded
def test_checkpoint_layout(tmp_path, capsys):
    from dassl.utils import load_checkpoint, save_checkpoint

    save_checkpoint(state(1), str(tmp_path / "net"), is_best=True)
    folder = tmp_path / "net"
    assert sorted(os.listdir(folder)) == ["checkpoint", "model-best.pth.tar", "model.pth.tar-7"]
    assert (folder / "checkpoint").read_text() == "model.pth.tar-7\n"
    for name in ("model-best.pth.tar", "model.pth.tar-7"):
        checkpoint = load_checkpoint(str(folder / name))
        assert list(checkpoint) == ["state_dict", "epoch", "optimizer", "scheduler", "val_result"]
        assert list(checkpoint["state_dict"]) == ["weight"]
    assert capsys.readouterr().out.splitlines() == [
        f"Checkpoint saved to {folder}/model.pth.tar-7",
        f'Best checkpoint saved to "{folder}/model-best.pth.tar"',
    ]


@embedded
def test_full_disk_keeps_the_older_checkpoint(tmp_path):
    from dassl.utils import load_checkpoint, save_checkpoint

    save_checkpoint(state(1, size=50_000), str(tmp_path))
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, before[1]))  # of 200,000 bytes
    try:
        with pytest.raises(OSError, match=r"model\.pth\.tar-7 cannot be written.*File too large"):
            save_checkpoint(state(2, size=50_000), str(tmp_path))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-7"]
    assert load_checkpoint(str(tmp_path / "model.pth.tar-7"))["state_dict"]["weight"][0] == 1


@embedded
def test_failed_note_keeps_the_older_one(tmp_path, monkeypatch):
    from dassl.utils import save_checkpoint

    save_checkpoint(state(1), str(tmp_path))
    replace = os.replace

    def fail_on_note(source, target):
        if os.path.basename(target) == "checkpoint":
            raise OSError(28, "No space left on device", target)
        replace(source, target)

    monkeypatch.setattr(os, "replace", fail_on_note)
    with pytest.raises(OSError, match="No space left"):
        save_checkpoint({**state(2), "epoch": 8}, str(tmp_path))
    assert (tmp_path / "checkpoint").read_text() == "model.pth.tar-7\n"
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-7", "model.pth.tar-8"]


@embedded
def test_killed_while_saving(tmp_path):
    from dassl.utils import load_checkpoint, save_checkpoint

    save_checkpoint(state(1), str(tmp_path))

    def save_half() -> None:
        def write_half(_, file):
            file.write(b"half of a checkpoint")
            file.flush()
            os.kill(os.getpid(), signal.SIGKILL)

        torch.save = write_half  # in the child only
        save_checkpoint(state(2), str(tmp_path))

    child = multiprocessing.get_context("fork").Process(target=save_half)
    child.start()
    child.join()
    assert child.exitcode == -signal.SIGKILL
    assert load_checkpoint(str(tmp_path / "model.pth.tar-7"))["state_dict"]["weight"][0] == 1
    save_checkpoint(state(2), str(tmp_path))
    assert sorted(os.listdir(tmp_path)) == ["checkpoint", "model.pth.tar-7"]


@embedded
def test_unreadable_checkpoints_are_named(tmp_path):
    from dassl.utils import load_checkpoint, load_pretrained_weights, resume_from_checkpoint, save_checkpoint

    with pytest.raises(ValueError, match="None"):
        load_checkpoint(None)
    with pytest.raises(FileNotFoundError, match=r"missing\.pth"):
        load_checkpoint(str(tmp_path / "missing.pth"))
    save_checkpoint(state(1, size=5000), str(tmp_path))
    whole = (tmp_path / "model.pth.tar-7").read_bytes()
    for name, content in {"empty": b"", "half": whole[: len(whole) // 2], "text": b"hello, world\n" * 40}.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError, match=rf"/{name} \({len(content)} bytes\)"):
            load_checkpoint(str(tmp_path / name))
    torch.save(torch.ones(3), tmp_path / "tensor")
    with pytest.raises(ValueError, match="tensor is not a checkpoint: it holds a Tensor"):
        load_pretrained_weights(nn.Linear(1, 1), str(tmp_path / "tensor"))
    (tmp_path / "checkpoint").write_text("")
    with pytest.raises(ValueError, match="checkpoint is empty"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))
    (tmp_path / "checkpoint").write_text("model.pth.tar-9\n")
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-9"):
        resume_from_checkpoint(str(tmp_path), nn.Linear(1, 1))


@embedded
def test_pretrained_weights_load_what_fits(tmp_path, capsys):
    from dassl.utils import load_pretrained_weights

    model = nn.Linear(2, 3)
    torch.save({"module.weight": torch.ones(3, 2), "bias": torch.ones(5), "other": 1}, tmp_path / "weights")
    load_pretrained_weights(model, str(tmp_path / "weights"))
    assert torch.equal(model.weight.detach(), torch.ones(3, 2))
    assert "discarded due to unmatched keys or size: ['bias', 'other']" in capsys.readouterr().out
    torch.save({"elsewhere": torch.ones(1)}, tmp_path / "weights")
    with pytest.warns(UserWarning, match="Nothing in"):
        load_pretrained_weights(model, str(tmp_path / "weights"))


# The trainer


@pytest.fixture
def trainer(tmp_path):
    cfg = golden_script.default_cfg(OUTPUT_DIR=str(tmp_path), OPTIM__MAX_EPOCH=2, OPTIM__LR=0.1)
    with golden_script.printed():
        return golden_script.make_trainers()["TrainerX"](cfg)


@embedded
def test_default_model_is_backbone_head_and_classifier():
    from dassl.config import get_cfg_default
    from dassl.engine import SimpleNet
    from dassl.modeling import BACKBONE_REGISTRY, HEAD_REGISTRY, Backbone, build_network

    class FirstPixels(Backbone):
        def __init__(self, pretrained):
            super().__init__()
            self._out_features = 4

        def forward(self, x):
            return x.flatten(1)[:, :4]

    class Halves(Backbone):
        def __init__(self, in_features, hidden_layers, **_):
            super().__init__()
            self._out_features = in_features // 2

        def forward(self, x):
            return x[:, : self.out_features]

    BACKBONE_REGISTRY.register(FirstPixels)
    HEAD_REGISTRY.register(Halves)
    cfg = get_cfg_default()
    cfg.merge_from_list(["MODEL.BACKBONE.NAME", "FirstPixels", "MODEL.BACKBONE.PRETRAINED", False])
    images = torch.arange(24.0).reshape(2, 3, 2, 2)
    plain = SimpleNet(cfg, cfg.MODEL, num_classes=3)
    scores, features = plain(images, return_feature=True)
    torch.testing.assert_close(features, images[:, 0].flatten(1))
    torch.testing.assert_close(scores, plain.classifier(features))
    assert (plain.fdim, tuple(plain(images).shape)) == (4, (2, 3))

    cfg.merge_from_list(["MODEL.HEAD.NAME", "Halves", "MODEL.HEAD.HIDDEN_LAYERS", [8]])
    headed = SimpleNet(cfg, cfg.MODEL, num_classes=0)
    torch.testing.assert_close(headed(images), images[:, 0, 0])
    assert headed.fdim == 2
    with pytest.raises(ValueError, match="Network 'nosuch' is not registered"):
        build_network("nosuch")


@embedded
def test_radam_refuses_what_it_cannot_use_and_takes_a_closure():
    from dassl.optim.radam import RAdam

    weight = torch.nn.Parameter(torch.ones(2))
    for wrong, message in (({"lr": -1.0}, "lr"), ({"eps": -1.0}, "eps"), ({"betas": (0.9, 1.0)}, "betas")):
        with pytest.raises(ValueError, match=message):
            RAdam([weight], **wrong)

    def closure():
        weight.grad = None
        loss = weight.square().sum()
        loss.backward()
        return loss

    assert RAdam([weight], lr=0.1).step(closure).item() == 2.0
    assert (weight < 1).all()
    weight.grad = torch.ones(2).to_sparse()
    with pytest.raises(RuntimeError, match="sparse"):
        RAdam([weight]).step()


@embedded
def test_pairs_need_unlabelled_images(tmp_path):
    with golden_script.printed():
        trainer = golden_script.make_trainers()["TrainerXU"](golden_script.default_cfg(OUTPUT_DIR=str(tmp_path)))
    trainer.train_loader_u = None  # as a data set without such images leaves it
    with pytest.raises(ValueError, match="needs unlabelled images"):
        trainer.run_epoch()


@embedded
def test_load_model_without_validation_result(trainer, tmp_path, capsys):
    trainer.save_model(4, str(tmp_path))
    trainer.load_model(str(tmp_path), epoch=5)
    path = tmp_path / "classifier" / "model.pth.tar-5"
    assert f"Load {path} to classifier (epoch=5, val_result=None)\n" in capsys.readouterr().out
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-6"):
        trainer.load_model(str(tmp_path), epoch=6)
    with pytest.raises(FileNotFoundError, match=r"model-best\.pth\.tar"):
        trainer.load_model(str(tmp_path))
    trainer.load_model("")
    assert "load_model() is skipped" in capsys.readouterr().out


@embedded
def test_load_model_of_another_trainer(trainer, tmp_path):
    folder = tmp_path / "classifier"
    folder.mkdir()
    torch.save({"state_dict": {"prompt.ctx": torch.ones(4)}, "epoch": 5}, folder / "model.pth.tar-5")
    with pytest.raises(RuntimeError, match=r"(?s)model\.pth\.tar-5 does not fit.*weight.*prompt\.ctx"):
        trainer.load_model(str(tmp_path), epoch=5)
    torch.save({"weight": torch.ones(4)}, folder / "model.pth.tar-5")
    with pytest.raises(ValueError, match=r"model\.pth\.tar-5 .* lacks state_dict, epoch"):
        trainer.load_model(str(tmp_path), epoch=5)


@embedded
def test_resume_from_a_folder_without_checkpoint(trainer, tmp_path, capsys):
    (tmp_path / "classifier").mkdir()
    assert trainer.resume_model_if_exist(str(tmp_path)) == 0
    assert capsys.readouterr().out == "No checkpoint found, train from scratch\n"


@embedded
def test_trainer_refuses(trainer):
    from dassl.engine import TrainerBase, build_trainer

    with pytest.raises(ValueError, match="'classifier' is already registered"):
        trainer.register_model("classifier", nn.Linear(1, 1))
    with pytest.raises(ValueError, match="nobody"):
        trainer.set_model_mode("eval", "nobody")
    with pytest.raises(KeyError, match="sleep"):
        trainer.set_model_mode("sleep")
    with pytest.raises(FloatingPointError, match="infinite or NaN"):
        trainer.model_backward(torch.tensor([1.0, math.inf]))
    with pytest.raises(AttributeError, match="__init__"):
        TrainerBase.register_model(TrainerBase.__new__(TrainerBase), "early")
    with pytest.raises(ValueError, match="'NoSuchTrainer' is not one of"):
        build_trainer(golden_script.default_cfg(TRAINER__NAME="NoSuchTrainer"))
    cfg = golden_script.default_cfg(TRAIN__COUNT_ITER="both")
    with pytest.raises(ValueError, match="COUNT_ITER must be one of"), golden_script.printed():
        golden_script.make_trainers()["TrainerXU"](cfg).run_epoch()


@embedded
def test_test_returns_accuracy_and_leaves_no_gradient(trainer, capsys):
    before = torch.get_rng_state()
    assert trainer.test(split="val") == pytest.approx(
        100 * float(re.search(r"correct: (\d+)", capsys.readouterr().out)[1]) / 30
    )
    assert not trainer.model.training
    trainer.val_loader = None
    trainer.test(split="val")
    assert "Evaluate on the *test* set" in capsys.readouterr().out
    # Each pass over a loader draws one number, its workers' seed; the trainer itself draws none.
    after = torch.get_rng_state()
    torch.set_rng_state(before)
    iter(trainer.test_loader), iter(trainer.test_loader)
    assert torch.equal(after, torch.get_rng_state())


@embedded
def test_simple_net_with_own_backbone(tmp_path):
    from dassl.engine import SimpleNet
    from dassl.modeling import BACKBONE_REGISTRY, Backbone

    cfg = golden_script.default_cfg(VERBOSE=False)
    cfg.MODEL.BACKBONE.NAME = "resnet18"
    with pytest.raises(ValueError, match=r"'resnet18' is not registered.*not part of the embedded Dassl"):
        SimpleNet(cfg, cfg.MODEL, 3)

    class Identity(Backbone):
        def __init__(self):
            super().__init__()
            self._out_features = 4

        def forward(self, x):
            return x

    def as_it_is(pretrained):
        return Identity()

    BACKBONE_REGISTRY.register(as_it_is)
    cfg.MODEL.BACKBONE.NAME = "as_it_is"
    net = SimpleNet(cfg, cfg.MODEL, 3)
    scores, features = net(torch.ones(2, 4), return_feature=True)
    assert scores.shape == (2, 3)
    assert features.shape == (2, net.fdim) == (2, 4)


# Optimisers, schedules, evaluator, metrics


@embedded
@pytest.mark.parametrize(
    ("key", "value", "error"),
    [
        ("NAME", "lion", ValueError),
        ("LR_SCHEDULER", "linear", ValueError),
        ("WARMUP_TYPE", "exponential", ValueError),
        ("STEPSIZE", (2.5,), TypeError),
    ],
)
def test_optim_config_is_checked(key, value, error):
    from dassl.optim import build_lr_scheduler, build_optimizer

    cfg = golden_script.default_cfg(OPTIM__WARMUP_EPOCH=1, **{f"OPTIM__{key}": value})
    with pytest.raises(error, match=rf"{key} must be.*{value!r}".replace("(", r"\(").replace(")", r"\)")):
        build_lr_scheduler(build_optimizer(nn.Linear(1, 1), cfg.OPTIM), cfg.OPTIM)


@embedded
def test_multi_step_needs_a_list():
    from dassl.optim import build_lr_scheduler, build_optimizer

    cfg = golden_script.default_cfg(OPTIM__LR_SCHEDULER="multi_step")
    cfg.OPTIM.STEPSIZE = 3
    with pytest.raises(TypeError, match="list of epochs, got 3"):
        build_lr_scheduler(build_optimizer(nn.Linear(1, 1), cfg.OPTIM), cfg.OPTIM)


@embedded
def test_staged_lr_without_new_layers_warns():
    from dassl.optim import build_optimizer

    cfg = golden_script.default_cfg(OPTIM__STAGED_LR=True, OPTIM__NEW_LAYERS=("haed",))
    with pytest.warns(UserWarning, match="no layer is in OPTIM.NEW_LAYERS"):
        build_optimizer(nn.Sequential(nn.Linear(1, 1)), cfg.OPTIM)
    with pytest.warns(UserWarning, match="no effect on given parameter groups"):
        build_optimizer(None, cfg.OPTIM, param_groups=nn.Linear(1, 1).parameters())
    with pytest.raises(TypeError, match=r"nn\.Module, got list"):
        build_optimizer([nn.Parameter(torch.ones(1))], cfg.OPTIM)


@embedded
def test_evaluator_refuses(tmp_path):
    from dassl.evaluation import build_evaluator

    with pytest.raises(ValueError, match="lab2cname, got None"):
        build_evaluator(golden_script.default_cfg(TEST__PER_CLASS_RESULT=True))
    with pytest.raises(ValueError, match="did you mean 'Classification'"):
        build_evaluator(golden_script.default_cfg(TEST__EVALUATOR="Clasification"))
    evaluator = build_evaluator(golden_script.default_cfg())
    with pytest.raises(ValueError, match="no sample"):
        evaluator.evaluate()
    with pytest.raises(ValueError, match=r"of 3 samples, the labels are of shape \(1,\)"):
        evaluator.process(torch.ones(3, 2), torch.ones(1))


@embedded
def test_confusion_matrix_file(tmp_path):
    from dassl.evaluation import build_evaluator

    evaluator = build_evaluator(golden_script.default_cfg(TEST__COMPUTE_CMAT=True, OUTPUT_DIR=str(tmp_path)))
    evaluator.process(torch.eye(3)[[0, 1, 1, 2]], torch.tensor([0, 0, 1, 2]))
    evaluator.evaluate()
    expected = torch.tensor([[0.5, 0.5, 0], [0, 1, 0], [0, 0, 1]], dtype=torch.float64)
    assert torch.equal(torch.load(tmp_path / "cmat.pt", weights_only=True), expected)


def test_accuracy():
    from dassl.metrics import compute_accuracy

    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    (top1,) = compute_accuracy((scores, "features"), torch.tensor([1, 1, 2]))
    assert top1.shape == (1,)
    assert top1.item() == pytest.approx(200 / 3)


@embedded
def test_accuracy_top_k():
    from dassl.metrics import compute_accuracy

    scores = torch.tensor([[0.1, 0.7, 0.2], [0.5, 0.3, 0.2], [0.2, 0.3, 0.5]])
    found = compute_accuracy(scores, torch.tensor([1, 1, 0]), topk=(1, 2, 3))
    assert [round(x.item(), 3) for x in found] == [33.333, 66.667, 100.0]


# Utils


def test_registry():
    from dassl.utils import Registry

    registry = Registry("THING")

    @registry.register()
    class First: ...

    class Second: ...

    registry.register(Second)
    assert registry.registered_names() == ["First", "Second"]
    assert registry.get("First") is First
    with pytest.raises(KeyError, match="First"):
        registry.register(type("First", (), {}))
    registry.register(type("First", (), {}), force=True)
    assert registry.get("First") is not First
    with pytest.raises(KeyError, match="Third"):
        registry.get("Third")


@embedded
def test_read_image(tmp_path):
    from dassl.utils import read_image

    picture = Image.fromarray(np.random.RandomState(0).randint(0, 255, (40, 50, 3), dtype=np.uint8))
    for name, mode in (("a.jpg", "RGB"), ("b.png", "L"), ("c.png", "RGBA"), ("d.gif", "P")):
        picture.convert(mode).save(tmp_path / name)
        image = read_image(str(tmp_path / name))
        assert (image.mode, image.size) == ("RGB", (50, 40))
        with Image.open(tmp_path / name) as plain:
            assert image.tobytes() == plain.convert("RGB").tobytes()
    (tmp_path / "empty.jpg").write_bytes(b"")
    (tmp_path / "text.jpg").write_text("no picture")
    for whole, name in (("a.jpg", "half.jpg"), ("c.png", "half.png")):
        content = (tmp_path / whole).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
    for name in ("empty.jpg", "text.jpg", "half.jpg", "half.png"):
        with pytest.raises(OSError, match=re.escape(f"{tmp_path / name} cannot be read")):
            read_image(str(tmp_path / name))
    with pytest.raises(FileNotFoundError, match=r"nowhere\.jpg"):
        read_image(str(tmp_path / "nowhere.jpg"))


@embedded
def test_greys_of_16_bits_are_scaled(tmp_path):
    """Where a path asks for it. Pillow cuts them off at 255: an image that is white all over."""
    from dassl.utils import read_image

    from datasets.files import OwnImage

    values = np.array([[0, 128, 129, 257], [32768, 65000, 65534, 65535]], dtype=np.uint16)
    expected = np.array([[0, 0, 1, 1], [128, 253, 255, 255]])
    for name in ("x.png", "x.tif"):
        Image.fromarray(values).save(tmp_path / name)
    (tmp_path / "x.pgm").write_bytes(b"P5 4 2 65535\n" + values.astype(">u2").tobytes())
    Image.fromarray(values.astype(">u2")).save(tmp_path / "big.tif")
    for name in ("x.png", "x.tif", "x.pgm", "big.tif"):
        image = read_image(OwnImage(tmp_path / name))
        assert (image.mode, image.size) == ("RGB", (4, 2))
        assert (np.asarray(image) == expected[..., None]).all(), name
        assert (np.asarray(read_image(str(tmp_path / name))) == np.minimum(values, 255)[..., None]).all(), name


@pytest.mark.parametrize(
    ("values", "is_read"),
    [
        (np.array([[0, 255]], dtype=np.int32), True),
        (np.array([[0, 256]], dtype=np.int32), False),
        (np.array([[-1, 7]], dtype=np.int32), False),
        (np.array([[0, 254.5]], dtype=np.float32), True),
        (np.array([[0, 1]], dtype=np.float32), False),  # would be black
        (np.array([[0, np.inf]], dtype=np.float32), False),
    ],
)
def test_values_without_a_known_range_are_refused(tmp_path, values, is_read):
    from dassl.utils import read_image

    from datasets.files import OwnImage

    Image.fromarray(values).save(tmp_path / "x.tif")
    if is_read:
        assert np.asarray(read_image(OwnImage(tmp_path / "x.tif"))).max() in (254, 255)
        return
    with pytest.raises(OSError, match=r"x\.tif cannot be read: its 32-bit values must be 0 to 255, got"):
        read_image(OwnImage(tmp_path / "x.tif"))


def test_read_image_opens_regular_files_alone(tmp_path):
    from dassl.utils import read_image

    os.mkfifo(tmp_path / "pipe.jpg")
    (tmp_path / "loop.jpg").symlink_to("loop.jpg")
    (tmp_path / "null.jpg").symlink_to("/dev/null")
    (tmp_path / "folder.jpg").mkdir()
    for name, reason in (
        ("pipe.jpg", "not a regular file"),
        ("null.jpg", "not a regular file"),
        ("folder.jpg", "not a regular file"),
        ("loop.jpg", "symbolic links"),
    ):
        with pytest.raises(OSError, match=rf"{name} cannot be read: .*{reason}"):
            read_image(str(tmp_path / name))


@embedded
def test_limit_on_pixels_can_be_raised(tmp_path, monkeypatch):
    from dassl.utils import read_image

    path = tmp_path / "large.png"
    Image.new("1", (50, 40)).save(path)
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 1999)
    with (
        pytest.warns(Image.DecompressionBombWarning),
        pytest.raises(OSError, match=r"2,000 pixels, more than 1,999; .*MAX"),
    ):
        read_image(str(path))
    monkeypatch.setenv("MAX_IMAGE_PIXELS", "2000")
    assert read_image(str(path)).size == (50, 40)
    monkeypatch.setenv("MAX_IMAGE_PIXELS", "900")
    with pytest.raises(OSError, match=r"more than 1,800 pixels, and may have 900; .*MAX_IMAGE_PIXELS raises"):
        read_image(str(path))
    monkeypatch.setenv("MAX_IMAGE_PIXELS", "many")
    with pytest.raises(ValueError, match="from 1 on, got 'many'"):
        read_image(str(path))
    monkeypatch.delenv("MAX_IMAGE_PIXELS")
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", None)
    assert read_image(str(path)).size == (50, 40)


@embedded
def test_logger(tmp_path, monkeypatch):
    from dassl.utils import setup_logger

    console = io.StringIO()
    monkeypatch.setattr(sys, "stdout", console)
    for text in ("first", "second", "third"):
        setup_logger(str(tmp_path))
        logger = sys.stdout
        print(text)
        assert Path(logger.file.name).read_text() == f"{text}\n"  # before any flush: a killed run leaves its log
        assert logger.isatty() is False
        logger.flush()
        monkeypatch.setattr(sys, "stdout", console)
        logger.close()
        logger.write("after\n")
    del logger
    assert console.getvalue() == "first\nafter\nsecond\nafter\nthird\nafter\n"
    logs = sorted(tmp_path.iterdir(), key=lambda path: (len(path.name), path.name))
    assert [path.read_text() for path in logs] == ["first\n", "second\n", "third\n"]
    assert logs[0].name == "log.txt"
    assert re.fullmatch(r"log\.txt-\d{4}(-\d\d){5}", logs[1].name)
    setup_logger(None)
    assert sys.stdout is console
    setup_logger(str(tmp_path / "own.log"))
    sys.stdout.close()
    assert (tmp_path / "own.log").exists()


@embedded
def test_small_tools(tmp_path, monkeypatch):
    from dassl import utils

    monkeypatch.chdir(tmp_path)
    utils.mkdir_if_missing("a/b")
    utils.mkdir_if_missing("a/b")
    utils.write_json({"é": [1, 2]}, "plain.json")
    assert Path("plain.json").read_text() == '{\n    "\\u00e9": [\n        1,\n        2\n    ]\n}'
    assert utils.read_json("plain.json") == {"é": [1, 2]}
    Path("broken.json").write_text("{")
    with pytest.raises(ValueError, match=r"broken\.json is not a JSON file"):
        utils.read_json("broken.json")
    Path(".hidden").touch()
    assert utils.listdir_nohidden(".", sort=True) == ["a", "broken.json", "plain.json"]
    assert utils.check_isfile("plain.json")
    with pytest.warns(UserWarning, match="nothing"):
        assert not utils.check_isfile("nothing")
    with pytest.raises(ValueError, match=r"'dt' is not one of \['dtd', 'eurosat'\] \(did you mean 'dtd'\?\)"):
        utils.check_availability("dt", ["dtd", "eurosat"])
    with pytest.raises(ValueError, match=r"'dt' is not one of \[\]$"):
        utils.check_availability("dt", [])
    assert utils.tolist_if_not("ab") == ["ab"]
    assert "Pillow (" in utils.collect_env_info()
    utils.download_url(Path("plain.json").resolve().as_uri(), "copy.json")
    assert Path("copy.json").read_text() == Path("plain.json").read_text()
    assert not Path("copy.json.part").exists()


@pytest.mark.parametrize("seed", [0, 7])
def test_seed(seed):
    import random

    from dassl.utils import set_random_seed

    def draw():
        return random.random(), np.random.rand(), torch.rand(1).item()

    set_random_seed(seed)
    first = draw()
    assert draw() != first
    set_random_seed(seed)
    assert draw() == first
    assert first == (random.Random(seed).random(), np.random.RandomState(seed).rand(), first[2])


@embedded
def test_layers_and_parameters():
    from dassl.utils import count_num_param, init_network_weights, open_all_layers, open_specified_layers

    model = nn.Sequential()
    model.body, model.norm, model.head = nn.Linear(3, 4), nn.BatchNorm1d(4), nn.Linear(4, 2)
    open_specified_layers(model, "head")
    assert [p.requires_grad for p in model.parameters()] == [False] * 4 + [True] * 2
    assert [child.training for child in model.children()] == [False, False, True]
    with pytest.raises(ValueError, match="'haed' is not a layer"):
        open_specified_layers(model, ["haed"])
    open_all_layers(model)
    assert all(p.requires_grad for p in model.parameters())
    assert count_num_param(model) == count_num_param(params=model.parameters()) == 34
    assert count_num_param(params=[{"params": model.body.weight}, {"params": [model.head.weight]}]) == 20
    with pytest.raises(ValueError, match="model or params"):
        count_num_param()
    init_network_weights(model, "orthogonal", gain=2.0)
    assert torch.allclose(model.body.weight.T @ model.body.weight, 4 * torch.eye(3), atol=1e-5)
    assert not model.head.bias.any()
    with pytest.raises(NotImplementedError, match="'zeros'"):
        init_network_weights(model, "zeros")


# Which Dassl is in use

STAND_IN_DASSL = {
    "__init__.py": "",
    "data/__init__.py": "import gdown\nfrom dassl.data import datasets\n",
    "data/datasets/__init__.py": "from dassl.data.datasets import dg\n",
    "data/datasets/dg/__init__.py": "from .wilds import *\n",
    "data/datasets/dg/wilds/__init__.py": "import wilds, pandas\n",
    "optim/__init__.py": "",
    "optim/lr_scheduler.py": """
from torch.optim.lr_scheduler import _LRScheduler
class _BaseWarmupScheduler(_LRScheduler):
    def __init__(self, optimizer, successor, warmup_epoch, last_epoch=-1, verbose=False):
        self.successor, self.warmup_epoch = successor, warmup_epoch
        super().__init__(optimizer, last_epoch, verbose)
    def get_lr(self):
        return [0.5 for _ in self.base_lrs]
""",
    "utils/__init__.py": "from .tools import *\nfrom .torchtools import *\n",
    "utils/tools.py": """
from PIL import Image

__all__ = ["read_image"]

def read_image(path):
    return Image.open(path).convert("RGB")
""",
    "utils/torchtools.py": "import torch\n__all__ = ['load_checkpoint']\nload_checkpoint = torch.load\n",
}


@todays_torch
def test_installed_dassl_wins_and_is_mended(tmp_path):
    """A stand-in with the faults that the 2022 release has under today's PyTorch; its files stay as they are."""
    for name, content in STAND_IN_DASSL.items():
        path = tmp_path / "site" / "dassl" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(content)
    code = """
import sys
import compat
print(compat.which())
import dassl, dassl.utils, dassl.data, torch
from dassl.optim.lr_scheduler import _BaseWarmupScheduler
print(dassl.__file__)
optimiser = torch.optim.SGD([torch.nn.Parameter(torch.ones(1))], lr=1.0)
schedule = _BaseWarmupScheduler(optimiser, torch.optim.lr_scheduler.StepLR(optimiser, 2), 3, -1, False)
print(optimiser.param_groups[0]["lr"], type(schedule.state_dict()["successor"]).__name__)
try:
    dassl.utils.load_checkpoint("nowhere")
except FileNotFoundError as error:
    print(error)
try:
    dassl.utils.read_image("cut_off.png")
except OSError as error:
    print(error)
try:
    dassl.data.gdown.download("http://x/y", "y", quiet=False)
except ModuleNotFoundError as error:
    print(error)
print([name for name in ("gdown", "wilds", "dassl.data.datasets.dg.wilds") if name in sys.modules])
"""
    Image.effect_noise((64, 64), 90).save(tmp_path / "whole.png")
    (tmp_path / "cut_off.png").write_bytes((tmp_path / "whole.png").read_bytes()[:600])
    ran = run_python(code, ROOT, tmp_path / "site", cwd=tmp_path)
    missing = [name for name in ("gdown", "wilds", "pandas") if importlib.util.find_spec(name) is None]
    if missing != ["gdown", "wilds", "pandas"]:
        pytest.skip("gdown, wilds or pandas is installed")
    folder = tmp_path / "site" / "dassl"
    takes_verbose = "verbose" in inspect.signature(torch.optim.lr_scheduler.LRScheduler.__init__).parameters
    mended = ["imports of packages that are not installed"]
    mended += [] if hasattr(np, "int") else ["numpy's int"]
    mended += ["names of broken images"]
    mended += [] if takes_verbose else ["warm-up schedulers"]
    assert ran.stdout.splitlines() == [
        f"installed at {folder}, mended: {', '.join(mended)}, checkpoints",
        f"{folder}/__init__.py",
        "0.5 dict",
        "There is no checkpoint file nowhere",
        "The image file cut_off.png cannot be read: image file is truncated",
        "Downloading http://x/y needs the package gdown, which is not installed: pip install gdown",
        "[]",
    ], ran.stderr
    assert {path.relative_to(folder).as_posix() for path in folder.rglob("*.py")} == set(STAND_IN_DASSL)
    assert all((folder / name).read_text() == content for name, content in STAND_IN_DASSL.items())


def test_embedded_dassl_is_last_and_no_installed_one(tmp_path):
    """The folder compat on the path, even first, is no installed Dassl, nor is a folder dassl without code."""
    (tmp_path / "dassl").mkdir()
    code = """
import importlib, sys
import compat
importlib.reload(compat)
import dassl
print(compat.which(), dassl.__version__, [entry.endswith("compat") for entry in sys.path].count(True))
"""
    ran = run_python(code, ROOT / "compat", ROOT, cwd=tmp_path)
    assert ran.stdout == "embedded 0.6.3+embedded 1\n", ran.stderr
    ran = run_python(code + "print(sys.path[-1].endswith('compat'))", ROOT, cwd=tmp_path)
    assert ran.stdout == "embedded 0.6.3+embedded 1\nTrue\n", ran.stderr


@embedded
def test_spawned_workers_find_dassl():
    # Code from a string: the workers have no main module to import, only the path tells them where dassl is.
    code = """
import compat
from dassl.utils import tolist_if_not
from torch.utils.data import DataLoader
print(list(DataLoader(range(2), num_workers=1, multiprocessing_context="spawn", collate_fn=tolist_if_not)))
"""
    ran = run_python(code, ROOT)
    assert ran.stdout == "[[0], [1]]\n", ran.stderr
