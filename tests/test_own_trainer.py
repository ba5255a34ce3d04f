"""The trainers of docs/own_trainer.md, as they stand on that page."""

from __future__ import annotations

import importlib.util
import re
import sys

import pytest
import torch
from dassl.config import get_cfg_default

from helpers import ROOT, SIZE, relative, results_of

PAGE = (ROOT / "docs/own_trainer.md").read_text(encoding="utf-8")
CODE = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
FILES = [re.search(rf"`trainers/({name})\.py`", PAGE)[1] for name in ("held", "linear")]


@pytest.fixture(scope="module")
def config(tmp_path_factory):
    """The page's two trainers imported as modules of `trainers`, and the path of its config."""
    folder = tmp_path_factory.mktemp("page")
    for name, code in zip(FILES, CODE):
        (folder / f"{name}.py").write_text(code)
        spec = importlib.util.spec_from_file_location(f"trainers.{name}", folder / f"{name}.py")
        module = sys.modules[spec.name] = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(module)
    path = folder / "vit_b16.yaml"
    path.write_text(re.search(r"```yaml\n(.*?)```", PAGE, re.DOTALL)[1])
    return path


@pytest.fixture
def build(build_run, config):
    def make(trainer, output, *opts):
        folder = config.parent / "configs/trainers" / trainer
        folder.mkdir(parents=True, exist_ok=True)
        (folder / config.name).write_text(config.read_text())
        (config.parent / "configs/datasets").mkdir(exist_ok=True)
        (config.parent / "configs/datasets/dtd.yaml").write_text((ROOT / "configs/datasets/dtd.yaml").read_text())
        return build_run(trainer, output, *opts, config=config.stem, root=config.parent)

    return make


def test_page_is_whole():
    assert len(CODE) == 2
    lines = [line for line in CODE[0].splitlines() if line.strip() and not line.startswith(("import", "from", '"""'))]
    assert len(lines) <= 30


def test_held_coop(build, tmp_path):
    options = ("TRAINER.HELDCOOP.PREC", "fp32", "OPTIM.LR", 0.002, "OPTIM.WARMUP_CONS_LR", 0.002)
    trainer = build("HeldCoOp", tmp_path / "run", *options)
    batch = next(iter(trainer.train_loader_x))
    loss, logged = trainer.loss(batch)
    # The data set's template is "{} texture." and the start "a photo of a {}.", so there is a way to go.
    assert 0 < logged["drift"] < 2
    cross_entropy = torch.nn.functional.cross_entropy(trainer.model(batch["img"]), batch["label"])
    assert relative(loss.detach(), (cross_entropy + 8 * logged["drift"]).detach()) < 1e-5

    start = trainer.learner.ctx.detach().clone()
    trainer.train()
    assert not torch.equal(start, trainer.learner.ctx)
    trained = [name for name, parameter in trainer.model.named_parameters() if parameter.requires_grad]
    assert trained == ["prompt_learner.ctx"]
    assert trainer.loss(batch)[1]["drift"] < logged["drift"]
    assert results_of(tmp_path / "run")["epoch"] == 3

    tested = build("HeldCoOp", tmp_path / "new", *options, "DATASET.SUBSAMPLE_CLASSES", "new")
    tested.load_model(str(tmp_path / "run"), epoch=3)
    assert torch.equal(tested.learner.ctx, trainer.learner.ctx)
    tested.test()


def test_linear(build, tmp_path, capsys):
    trainer = build("LinearCLIP", tmp_path / "run", "OPTIM.MAX_EPOCH", 10, "TRAIN.PRINT_FREQ", 1)
    assert trainer.model.weight.shape == (2, trainer.visual.output_dim)
    trainer.train()
    printed = capsys.readouterr().out
    losses = [float(loss) for loss in re.findall(r"loss (\S+) \(", printed)]
    assert len(losses) == 20
    assert losses[-1] < losses[0]
    assert "* accuracy: 100.0%" in printed
    assert (tmp_path / "run/linear/model.pth.tar-10").is_file()


def test_options_are_known(config):
    assert get_cfg_default().TRAINER.HELDCOOP.WEIGHT == 8.0
    assert get_cfg_default().TRAINER.LINEARCLIP.BIAS is True
    assert SIZE == 32
