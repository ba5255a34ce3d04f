"""The code of docs/without_dassl.md, as it stands on that page: it needs no Dassl, and it is CDC."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from helpers import ROOT, relative

PAGE = (ROOT / "docs/without_dassl.md").read_text(encoding="utf-8")
(CODE,) = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
USE = """
views, labels = torch.randn(4, 6, 3, 48, 48), torch.tensor([0, 1, 2, 0, 1, 2])
before = predict(views[0]).log_prob
losses = [train_step(views, labels) for _ in range(5)]
assert losses[-1] < losses[0], losses
opinion = predict(views[0])
assert opinion.log_prob.shape == (6, 3) and not torch.equal(opinion.log_prob, before)
assert torch.allclose(opinion.belief.sum(dim=1) + opinion.uncertainty, torch.ones(6))
trained = [name for name, parameter in model.named_parameters() if parameter.requires_grad]
assert trained == ["prompt_learner.ctx"], trained
"""


def run_without_dassl(code: str, folder) -> None:
    blocked = "import sys\nsys.modules.update(dassl=None, yacs=None)\nimport torch\ntorch.manual_seed(0)\n"
    done = subprocess.run(
        [sys.executable, "-c", blocked + code], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_page_runs_without_dassl():
    run_without_dassl(CODE + USE, ROOT)


def test_coupled_templates_take_the_same_steps():
    (coupled,) = re.findall(r"`(CoupledTemplates\(.*?\]\))`", PAGE, re.DOTALL)
    coupled = coupled.replace(" 9,", " 3,")  # this CLIP has 4 layers
    imports = (
        "from trainers.modules.prompts import CoupledTemplates\nfrom trainers.modules.vision import ImageEncoder\n"
    )
    code, changes = re.subn(r"TextTemplates\(encoder.*?std=0.0\)", coupled, CODE)
    assert changes == 1
    run_without_dassl(imports + code + USE.split("trained =")[0], ROOT)


def test_modules_serve_as_a_package_of_their_own(tmp_path):
    (tmp_path / "cdc").symlink_to(ROOT / "trainers/modules")
    (tmp_path / "storage").symlink_to(ROOT / "storage")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    run_without_dassl(CODE.replace("from trainers.modules.", "from cdc.") + USE, tmp_path)


@pytest.fixture
def page():
    """The page's names, with the classes of the small data set."""
    names: dict = {}
    code = CODE.replace('["blue fish", "green fish", "blue ring"]', '["blue", "green"]')
    exec(code.replace('"weights/', f'"{ROOT}/weights/'), names)
    return names


def test_it_is_the_trainers_own_loss(page, build_run, tmp_path):
    options = ("TRAINER.CDC.ANCHOR", "a photo of a {}.", "INPUT.SIZE", (48, 48))
    trainer = build_run("CDC", tmp_path, *options, backbone=ROOT / "weights/tiny_clip.pt.gz")
    assert trainer.class_names == ["blue", "green"]
    batch = next(iter(trainer.train_loader_x))
    views = torch.stack([batch[name] for name in ("img", "img2", "img3", "img4")])
    with torch.no_grad():
        assert relative(page["predict"](views[0]).log_prob, trainer.model_inference(views[0])) < 1e-5
    loss, _ = trainer.loss(batch)
    assert page["train_step"](views, batch["label"]) == pytest.approx(loss.item(), rel=1e-5)
