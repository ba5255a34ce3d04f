"""The code of docs/without_dassl.md, as it stands on that page: it needs no Dassl, and it is CDC."""

from __future__ import annotations

import re
import subprocess
import sys

import pytest
import torch

from helpers import ROOT, relative
from trainers.modules.cdc_model import CDCModel
from trainers.modules.loading import load_clip

PAGE = (ROOT / "docs/without_dassl.md").read_text(encoding="utf-8")
CODE, COUPLED = re.findall(r"```python\n(.*?)```", PAGE, re.DOTALL)
RUN = """
import sys
sys.modules.update(dassl=None, yacs=None)
import torch


def run(steps):
    torch.manual_seed(0)
    views, labels = torch.randn(4, 6, 3, 48, 48), torch.tensor([0, 1, 2, 0, 1, 2])
    names = {"batches": [(views, labels)] * steps, "images": views[0]}
    exec(CODE, names)
    loss = names["model"].loss(views, labels, names["anchor"], beta=0.01868, gamma=0.384)
    return names, loss


(start, first_loss), (end, last_loss) = run(1), run(5)
assert last_loss < first_loss, (last_loss, first_loss)
opinion = end["opinion"]
assert opinion.log_prob.shape == (6, 3) and not torch.equal(opinion.log_prob, start["opinion"].log_prob)
assert not opinion.log_prob.requires_grad
assert torch.allclose(opinion.belief.sum(dim=1) + opinion.uncertainty, torch.ones(6))
trained = [name for name, parameter in end["model"].named_parameters() if parameter.requires_grad]
assert len(trained) == N_TRAINED and all(name.startswith("prompt_learner.") for name in trained), trained
"""


def run_without_dassl(code: str, folder, n_trained: int = 1) -> None:
    given = f"CODE = {code!r}\nN_TRAINED = {n_trained}\n"
    done = subprocess.run(
        [sys.executable, "-c", given + RUN], cwd=folder, capture_output=True, text=True, check=False, timeout=300
    )
    assert done.returncode == 0, done.stderr


def test_page_runs_without_dassl():
    run_without_dassl(CODE, ROOT)


def test_it_takes_ten_lines():
    lines = [line for line in CODE.splitlines() if line and "import " not in line]
    assert len(lines) == 10


def test_coupled_templates_take_the_same_steps():
    coupled = COUPLED.replace(" 9,", " 3,").replace("ViT-B/16", "weights/tiny_clip.pt.gz")  # this CLIP has 4 layers
    code, changes = re.subn(r"model = CDCModel.text_only.*\n", lambda found: coupled, CODE)
    assert changes == 1
    rate = re.search(r"learning rate; there it is ([\d.]+)\.\s", PAGE)[1]
    code, changes = re.subn(r"lr=[\d.]+", f"lr={rate}", code)
    assert changes == 1
    run_without_dassl(code, ROOT, n_trained=4 * 9)


def test_modules_serve_as_a_package_of_their_own(tmp_path):
    (tmp_path / "cdc").symlink_to(ROOT / "trainers/modules")
    (tmp_path / "storage").symlink_to(ROOT / "storage")
    (tmp_path / "weights").symlink_to(ROOT / "weights")
    run_without_dassl(CODE.replace("from trainers.modules.", "from cdc."), tmp_path)


def test_it_is_the_trainers_own_loss(build_run, tmp_path, monkeypatch):
    options = ("TRAINER.CDC.ANCHOR", "a photo of a {}.", "INPUT.SIZE", (48, 48))
    trainer = build_run("CDC", tmp_path, *options, backbone=ROOT / "weights/tiny_clip.pt.gz")
    batch = next(iter(trainer.train_loader_x))
    views = torch.stack([batch[name] for name in ("img", "img2", "img3", "img4")])
    code = CODE.replace('["blue fish", "green fish", "blue ring"]', repr(trainer.class_names))
    code = code.replace('"weights/', f'"{ROOT}/weights/')
    losses, loss_of_page = [], CDCModel.loss

    def kept(*given, **weights):
        losses.append(loss_of_page(*given, **weights))
        return losses[-1]

    monkeypatch.setattr(CDCModel, "loss", kept)
    page = {"batches": [], "images": views[0]}
    exec(code, page)
    with torch.no_grad():
        assert relative(page["opinion"].log_prob, trainer.model_inference(views[0])) < 1e-5
    assert losses == []
    exec(code, {"batches": [(views, batch["label"])], "images": views[0]})
    loss, _ = trainer.loss(batch)
    assert losses[0].item() == pytest.approx(loss.item(), rel=1e-5)


def test_templates_that_cannot_be_so_are_refused():
    clip_model = load_clip(str(ROOT / "weights/tiny_clip.pt.gz"))
    for templates in ([], ["a photo of a", "a photo of a"], ["a photo of a", "a picture"]):
        with pytest.raises(ValueError, match=r"at least 1|different wordings|as many tokens"):
            CDCModel.text_only(clip_model, ["cat", "dog"], templates)
