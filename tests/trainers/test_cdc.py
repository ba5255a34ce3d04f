"""The trainer CDC on a small CLIP: what learns, what a checkpoint holds, resuming, wrong input."""

from __future__ import annotations

import errno
from pathlib import Path

import pytest
import torch
import yaml
from dassl.config import cfg_default

from helpers import HALF, ROOT, results_of
from trainers.modules.evidence import fuse, fused_log_evidence
from trainers.modules.loading import load_clip
from trainers.modules.losses import trusted_cross_entropy

OPTIONS = {
    "TRAINER.CDC.N_TEMPLATES": 2,
    "TRAINER.CDC.CTX_INIT": ["a photo of a", "one picture of a"],
    "TRAINER.CDC.AUGMENTATIONS": [["random_resized_crop", "normalize"], ["random_flip", "colorjitter", "normalize"]],
    "TRAINER.CDC.EVIDENCE_SCALE": 10.0,
}


@pytest.fixture
def build(build_run):
    def make(output, *opts, trainer="CDC", **given):
        options = {**OPTIONS, **dict(zip(opts[::2], opts[1::2]))} if trainer == "CDC" else {}
        return build_run(trainer, output, *[x for pair in options.items() for x in pair], **given)

    return make


def test_run_writes_its_results(build, tmp_path, capsys):
    trainer = build(tmp_path)
    start = trainer.model.prompt_learner.ctx.detach().clone()
    frozen = {k: v.clone() for k, v in trainer.model.state_dict().items() if not k.startswith("prompt_learner.")}
    trainer.train()

    assert not torch.equal(trainer.model.prompt_learner.ctx, start)
    after = trainer.model.state_dict()
    assert all(torch.equal(after[key], value) for key, value in frozen.items())
    learning = [name for name, p in trainer.model.named_parameters() if p.requires_grad or p.grad is not None]
    assert learning == ["prompt_learner.ctx"]

    results = results_of(tmp_path)
    printed = capsys.readouterr().out
    assert f"* accuracy: {results['figures']['accuracy']:.1f}%" in printed
    for name in ("loss_tce", "loss_de", "loss_con", "acc", "uncertainty"):
        assert f" {name} " in printed
    assert (results["trainer"], results["dataset"], results["seed"]) == ("CDC", "DescribableTextures", 1)
    assert (results["shots"], results["classes"], results["epoch"], results["images"]) == (4, "base", 3, 6)
    assert results["class_names"] == ["blue", "green"]
    assert 0 < results["figures"]["uncertainty"] < 1
    assert {"template1_accuracy", "template2_accuracy", "conflict", "doubt", "template_similarity"} <= results[
        "figures"
    ].keys()
    assert results["config"]["TRAINER"]["CDC"]["N_TEMPLATES"] == 2


def test_checkpoint_holds_what_was_trained_and_loads_under_other_classes(build, tmp_path):
    trained = build(tmp_path / "base")
    trained.train()
    path = tmp_path / "base/prompt_learner/model.pth.tar-3"
    checkpoint = torch.load(path, weights_only=True)
    assert list(checkpoint["state_dict"]) == ["ctx"]
    assert {"state_dict", "epoch", "optimizer", "scheduler", "val_result"} <= checkpoint.keys()
    assert (path.parent / "checkpoint").read_text() == "model.pth.tar-3\n"

    tested = build(tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=3)
    tested.test()
    assert torch.equal(tested.model.prompt_learner.ctx, trained.model.prompt_learner.ctx)
    results = results_of(tmp_path / "new")
    assert results["class_names"] == ["red", "yellow"]
    assert results["epoch"] == 3
    trained_on = {"dataset": "DescribableTextures", "classes": "base", "shots": 4, "seed": 1}
    assert (results["model_dir"], results["trained_on"]) == (str(tmp_path / "base"), trained_on)
    own = results_of(tmp_path / "base")
    assert (own["model_dir"], own["trained_on"]) == (None, trained_on)


@pytest.mark.parametrize(
    ("place", "epoch", "options"),
    [
        ("before_epoch", 1, ()),
        ("before_epoch", 2, ("TEST.FINAL_MODEL", "best_val")),
        ("update_lr", 1, ("DATALOADER.NUM_WORKERS", 2)),  # at an epoch's last batch
        ("test", 2, ()),
    ],
)
def test_resumed_run_ends_as_if_not_cut(build, tmp_path, place, epoch, options):
    whole = build(tmp_path / "whole", *options)
    whole.train()

    cut = build(tmp_path / "cut", *options)
    hook = getattr(cut, place)

    def stop(*args, **kwargs):
        if cut.epoch == epoch:
            raise KeyboardInterrupt
        return hook(*args, **kwargs)

    setattr(cut, place, stop)
    with pytest.raises(KeyboardInterrupt):
        cut.train()
    assert not (tmp_path / "cut/results.json").exists()

    resumed = build(tmp_path / "cut", *options)
    resumed.train()
    assert results_of(tmp_path / "cut")["epoch"] == results_of(tmp_path / "whole")["epoch"]
    assert torch.equal(resumed.model.prompt_learner.ctx, whole.model.prompt_learner.ctx)
    assert resumed.optim.state_dict()["param_groups"] == whole.optim.state_dict()["param_groups"]
    figures = [results_of(tmp_path / name)["figures"] for name in ("whole", "cut")]
    assert figures[0] == figures[1]


def test_checkpoint_serves_the_clip_that_it_was_made_with(build, tmp_path, clip_files, other_clip):
    """Whatever its file is called: by the digest of the weights, where a checkpoint has one."""
    trainer = build(tmp_path / "run", "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    path = tmp_path / "run/prompt_learner/model.pth.tar-1"
    checkpoint = torch.load(path, weights_only=True)
    digest = load_clip(str(clip_files["plain"])).sha256
    assert results_of(tmp_path / "run")["backbone_sha256"] == checkpoint["backbone_sha256"] == digest

    same = build(tmp_path / "same", "TRAINER.CDC.PREC", "bf16", backbone=clip_files["archive"])
    same.load_model(str(tmp_path / "run"), epoch=1)
    other = build(tmp_path / "other", backbone=other_clip)
    ctx = other.model.prompt_learner.ctx.detach().clone()
    message = rf"model\.pth\.tar-1 was made with other weights of CLIP \(SHA-256 {digest[:12]}.*{other_clip}"
    with pytest.raises(ValueError, match=message):
        other.load_model(str(tmp_path / "run"), epoch=1)
    with pytest.raises(ValueError, match=message):
        other.resume_model_if_exist(str(tmp_path / "run"))
    with pytest.raises(ValueError, match=message):
        build(tmp_path / "start", "MODEL.INIT_WEIGHTS", path, backbone=other_clip)
    assert torch.equal(other.model.prompt_learner.ctx, ctx)

    del checkpoint["backbone_sha256"]  # as older ones are
    torch.save(checkpoint, path)
    other.load_model(str(tmp_path / "run"), epoch=1)


def test_run_without_a_checkpoint_starts_again(build, tmp_path):
    (tmp_path / "prompt_learner").mkdir()
    trainer = build(tmp_path, "OPTIM.MAX_EPOCH", 1)
    trainer.train()
    assert results_of(tmp_path)["epoch"] == 1


def test_lost_checkpoint_does_not_start_again(build, tmp_path):
    trainer = build(tmp_path)
    trainer.save_model(0, str(tmp_path))
    (tmp_path / "prompt_learner/model.pth.tar-1").unlink()
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-1"):
        trainer.train()
    with pytest.raises(FileNotFoundError, match="elsewhere"):
        build(tmp_path / "other", "RESUME", tmp_path / "elsewhere").train()


def test_full_disk_leaves_the_old_checkpoint(build, tmp_path, monkeypatch):
    trainer = build(tmp_path)
    trainer.update_lr()  # as after an epoch
    trainer.save_model(0, str(tmp_path))
    kept = (tmp_path / "prompt_learner/model.pth.tar-1").read_bytes()

    def fill_disk(path, content):
        with path.open("wb") as file:
            file.write(bytes(content)[:10])
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(Path, "write_bytes", fill_disk)
    reason = r"model\.pth\.tar-1 cannot be written, older checkpoints are kept: No space left on device$"
    with pytest.raises(OSError, match=reason):
        trainer.save_model(0, str(tmp_path))
    monkeypatch.undo()
    assert (tmp_path / "prompt_learner/model.pth.tar-1").read_bytes() == kept
    assert sorted(p.name for p in (tmp_path / "prompt_learner").iterdir()) == ["checkpoint", "model.pth.tar-1"]
    assert build(tmp_path).resume_model_if_exist(str(tmp_path)) == 1


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"", "not a whole checkpoint"),
        (b"no checkpoint", "not a whole checkpoint"),
        ({"state_dict": {"ctx": torch.zeros(2, 4, 8)}, "epoch": 3}, r"ctx of shape \(2, 4, 8\) where.*\(2, 4, 64\)"),
        ({"state_dict": {"token_prefix": torch.zeros(1)}, "epoch": 3}, "has no ctx; it has token_prefix, which is not"),
        ({"epoch": 3}, "lacks state_dict"),
        ({"state_dict": {"ctx": torch.zeros(2, 4, 64)}}, "lacks epoch"),
        ({"state_dict": {"ctx": [0.0]}, "epoch": 3}, "ctx should be tensors"),
        ({"state_dict": ["ctx"], "epoch": 3}, "not a whole checkpoint"),
    ],
)
def test_wrong_checkpoint_is_told(build, tmp_path, content, message):
    trainer = build(tmp_path)
    path = tmp_path / "prompt_learner/model.pth.tar-3"
    path.parent.mkdir()
    if isinstance(content, bytes):
        path.write_bytes(content)
    else:
        torch.save(content, path)
    (path.parent / "checkpoint").write_text("model.pth.tar-3\n")
    before = trainer.model.prompt_learner.ctx.clone()
    with pytest.raises(ValueError, match=message):
        trainer.load_model(str(tmp_path), epoch=3)
    with pytest.raises(ValueError):  # noqa: PT011  the same, or that it also lacks the optimizer
        trainer.resume_model_if_exist(str(tmp_path))
    assert torch.equal(trainer.model.prompt_learner.ctx, before)
    if message == "lacks epoch":  # training may start from it all the same
        start = build(tmp_path, "MODEL.INIT_WEIGHTS", path)
        assert torch.equal(start.model.prompt_learner.ctx, content["state_dict"]["ctx"])
    else:
        with pytest.raises(ValueError, match=message):
            build(tmp_path, "MODEL.INIT_WEIGHTS", path)


def test_checkpoint_of_another_kind_of_template_is_told(build, tmp_path):
    """By the option that makes it another kind, before all the parameters that do not fit."""
    build(tmp_path).save_model(1, str(tmp_path))
    path = tmp_path / "prompt_learner/model.pth.tar-2"
    message = "it was trained with PROMPT text, where this run has independent; .* it has ctx, which is not known"
    with pytest.raises(ValueError, match=message):
        build(
            tmp_path / "other",
            *("TRAINER.CDC.PROMPT", "independent", "TRAINER.CDC.PROMPT_DEPTH", 2, "MODEL.INIT_WEIGHTS", path),
        )


def test_missing_checkpoint_is_told(build, tmp_path):
    trainer = build(tmp_path)
    trainer.save_model(1, str(tmp_path))
    with pytest.raises(FileNotFoundError, match=r"model\.pth\.tar-7.*model\.pth\.tar-2"):
        trainer.load_model(str(tmp_path), epoch=7)


def test_seed_decides_the_run(build, tmp_path):
    """Seed 0 counts as a seed: the same twice, another than seed 1."""
    ends = []
    for n, seed in enumerate((0, 0, 1)):
        trainer = build(tmp_path / str(n), "OPTIM.MAX_EPOCH", 2, "SEED", seed)
        trainer.train()
        ends.append(trainer.model.prompt_learner.ctx.detach())
    assert torch.equal(ends[0], ends[1])
    assert not torch.equal(ends[0], ends[2])


def test_inference_gives_log_probabilities(build, tmp_path):
    trainer = build(tmp_path)
    trainer.set_model_mode("eval")
    with torch.no_grad():
        log_prob = trainer.model_inference(torch.randn(5, 3, 32, 32))
    assert log_prob.shape == (5, 2)
    assert log_prob.dtype == torch.float32
    torch.testing.assert_close(log_prob.exp().sum(1), torch.ones(5))


def test_text_features_are_kept_and_never_stale(build, tmp_path):
    model = build(tmp_path).model
    with torch.no_grad():
        first = model.text_features()
        assert model.text_features() is first
        model.prompt_learner.ctx.add_(1.0)
        second = model.text_features()
        assert second is not first
        model.prompt_learner.ctx.data.copy_(model.prompt_learner.ctx + 1.0)  # as some optimisers do, unnoticed
        assert not torch.equal(model.text_features(), second)
        model.prompt_learner.ctx.sub_(1.0)
        model.prompt_learner.load_state_dict({"ctx": model.prompt_learner.ctx - 1.0})
        torch.testing.assert_close(model.text_features(), first, rtol=1e-4, atol=1e-4)
    assert model.text_features().requires_grad


def test_every_template_sees_its_own_view(build, tmp_path):
    trainer = build(tmp_path, "TRAINER.CDC.TEST_VIEWS", True)
    views = trainer.views(next(iter(trainer.train_loader_x)))
    assert views.shape == (2, 4, 3, 32, 32)
    assert not torch.equal(views[0], views[1])
    seen = []
    trainer.model.image_encoder.register_forward_hook(lambda module, inputs, output: seen.append(inputs[0].shape))
    trainer.test()
    assert seen == [(2, 6, 3, 32, 32)]  # six images, two views


def test_views_and_text_features_meet_template_by_template(build, tmp_path):
    model = build(tmp_path).model
    views = torch.randn(2, 3, 3, 32, 32)
    both = model(views).detach()
    for m in range(2):
        torch.testing.assert_close(both[m], model(views[m]).detach()[m], rtol=1e-4, atol=1e-4)


def test_gradients_of_the_last_step_take_no_memory_from_the_next_one(build, tmp_path):
    trainer = build(tmp_path)
    loss, kept = trainer.loss, []
    batch = next(iter(trainer.train_loader_x))

    def looking(batch):
        kept.append([parameter.grad is not None for parameter in trainer.learner.parameters()])
        return loss(batch)

    trainer.loss = looking
    for _ in range(2):
        trainer.step(batch)
    assert all(parameter.grad is not None for parameter in trainer.learner.parameters())
    assert kept == [[False] * len(kept[0])] * 2 != [[], []]


def test_decision_by_the_mean_of_the_logits(build, tmp_path):
    none = ("TRAINER.CDC.BETA", 0.0, "TRAINER.CDC.GAMMA", 0.0)
    trainer = build(tmp_path, "TRAINER.CDC.DECISION", "mean", *none)
    batch = next(iter(trainer.train_loader_x))
    views, label = trainer.views(batch), batch["label"]
    features, text = trainer.model.image_features(views), trainer.model.text_features()
    logits = 10.0 * features @ text.transpose(1, 2)
    by_hand = sum(torch.nn.functional.cross_entropy(own, label) for own in logits)
    torch.testing.assert_close(trainer.loss(batch)[0], by_hand)
    with torch.no_grad():
        plain = 10.0 * trainer.model.image_features(views[0]) @ text.transpose(1, 2)
        log_prob = trainer.model_inference(views[0])
    torch.testing.assert_close(log_prob, plain.mean(dim=0).log_softmax(dim=1).detach())
    conflict = trainer.judge(trainer.outputs(views[0]))[1]["conflict"].detach()
    torch.testing.assert_close(conflict, fuse(trainer.model(views[0])).conflict.detach())
    assert (conflict > 0).any()
    assert not torch.allclose(log_prob, build(tmp_path).model_inference(views[0]).detach(), atol=1e-4)


def test_fusion_and_probability_change_how_sure_a_prediction_is_and_not_which(build, tmp_path):
    options = ("TRAINER.CDC.FUSION", "averaging", "TRAINER.CDC.PROBABILITY", "expected")
    plain, other = build(tmp_path), build(tmp_path, *options)
    other.model.load_state_dict(plain.model.state_dict())
    images, _ = plain.parse_batch_test(next(iter(plain.test_loader)))
    with torch.no_grad():
        scores, records = other.judge(other.outputs(images))
        expected = fuse(plain.model(images), "averaging", "expected")
        before, before_records = plain.judge(plain.outputs(images))
    torch.testing.assert_close(scores, expected.log_prob)
    torch.testing.assert_close(other.model_inference(images).detach(), expected.log_prob)
    assert torch.equal(scores.argmax(dim=1), before.argmax(dim=1))
    assert (records["uncertainty"] > before_records["uncertainty"]).all()
    assert (records["doubt"] > records["uncertainty"]).all()


def test_fused_loss_is_of_the_fusion_that_the_config_names(build, tmp_path):
    losses = {}
    for fusion in ("dempster", "averaging"):
        trainer = build(tmp_path, "TRAINER.CDC.FUSED_LOSS", True, "TRAINER.CDC.FUSION", fusion)
        batch = next(iter(trainer.train_loader_x))
        log_evidence = trainer.model(trainer.views(batch))
        losses[fusion] = trainer.loss(batch)[0]
        own = trusted_cross_entropy(fused_log_evidence(log_evidence, fusion)[None], batch["label"])
        trainer.options.defrost()
        trainer.options.FUSED_LOSS = False
        torch.testing.assert_close(losses[fusion] - trainer.loss(batch)[0], own)
    assert losses["dempster"] != losses["averaging"]


@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16", HALF])
def test_precisions(build, tmp_path, precision):
    trainer = build(tmp_path, "TRAINER.CDC.PREC", precision, "OPTIM.MAX_EPOCH", 2)
    trainer.train()
    assert trainer.model.prompt_learner.ctx.dtype == torch.float32
    assert trainer.model.prompt_learner.ctx.isfinite().all()
    images, _ = trainer.parse_batch_test(next(iter(trainer.test_loader)))
    with torch.no_grad():
        evidence = trainer.model(images)
    assert evidence.dtype == torch.float32
    exact = build(tmp_path / "exact", "TRAINER.CDC.PREC", "fp32").model
    exact.prompt_learner.load_state_dict(trainer.model.prompt_learner.state_dict())
    with torch.no_grad():
        expected = exact(images)
    torch.testing.assert_close(evidence, expected, rtol=0, atol=0.5)  # 10 times a cosine that half precision blurs


@pytest.mark.parametrize(
    "options",
    [
        ("TRAINER.CDC.EVIDENCE", "softplus"),
        ("TRAINER.CDC.EVIDENCE", "relu", "TRAINER.CDC.EVIDENCE_SHIFT", -1.0),
        ("TRAINER.CDC.FUSED_LOSS", True, "TRAINER.CDC.KL_WEIGHT", 0.1),
        ("TRAINER.CDC.FUSED_LOSS", True, "TRAINER.CDC.FUSION", "averaging", "TRAINER.CDC.PROBABILITY", "expected"),
        ("TRAINER.CDC.AUGMENTATIONS", [], "TRAINER.CDC.N_TEMPLATES", 1, "TRAINER.CDC.CTX_INIT", ["a photo of a"]),
        ("TRAINER.CDC.CTX_INIT", [], "TRAINER.CDC.CTX_STD", 0.02, "TRAINER.CDC.N_CTX", 2),
        ("TEST.FINAL_MODEL", "best_val"),
    ],
)
def test_options_train(build, tmp_path, options):
    trainer = build(tmp_path, *options)
    start = trainer.model.prompt_learner.ctx.detach().clone()
    trainer.train()
    assert not torch.equal(trainer.model.prompt_learner.ctx, start)
    assert results_of(tmp_path)["figures"]["accuracy"] >= 0


@pytest.mark.parametrize(("key", "name"), [("BETA", "loss_de"), ("GAMMA", "loss_con")])
def test_losses_do_what_they_are_for(build, tmp_path, key, name):
    """The loss that a weight belongs to goes down when the weight is large."""
    trainer = build(tmp_path, f"TRAINER.CDC.{key}", 100.0, "OPTIM.LR", 1e-3, "OPTIM.MOMENTUM", 0.0)
    trainer.model.scale = 100.0  # as CLIP's; the small CLIP's own tells hardly any classes apart
    batch = next(iter(trainer.train_loader_x))
    trainer.epoch, trainer.batch_idx, trainer.num_batches = 0, 0, 100
    values = [trainer.forward_backward(batch)[name] for _ in range(20)]
    assert values[-1] < values[0] - 0.01


@pytest.mark.parametrize(
    ("options", "messages"),
    [
        (("TRAINER.CDC.PREC", "fp8", "TRAINER.CDC.EVIDENCE", "tanh"), ["fp16, bf16", "EVIDENCE must be one of exp"]),
        (("TRAINER.CDC.N_TEMPLATES", 3), ["each of the 3 templates", "got 2", "0, 1 or 3 wordings"]),
        (
            ("TRAINER.CDC.AUGMENTATIONS", [["normalize"], ["flip", "normalize"]]),
            ["template 2", "'flip'", "random_flip"],
        ),
        (("TRAINER.CDC.AUGMENTATIONS", [["normalize"], ["random_flip"]]), ["template 2", "both normalize"]),
        (("TRAINER.CDC.AUGMENTATIONS", ["normalize", "normalize"]), ["template 1 must be a list"]),
        (("TRAINER.CDC.ANCHOR", "a photo."), ["{} once"]),
        (("TRAINER.CDC.AUGMENTATIONS", [1, 2]), ["template 1 must be a list"]),
        (("TRAINER.CDC.CTX_INIT", ["a photo of a", 3]), ["wordings must be texts"]),
        (("DATALOADER.K_TRANSFORMS", 2), ["K_TRANSFORMS 1"]),
        (("TRAINER.CDC.PROMPT", "deep"), ["PROMPT"]),
        (("TRAINER.CDC.BETA", -1.0), ["BETA must not be negative"]),
        (("TRAINER.CDC.DECISION", "vote"), ["DECISION must be trusted or mean"]),
        (
            ("TRAINER.CDC.FUSION", "vote", "TRAINER.CDC.PROBABILITY", "p"),
            ["FUSION must be one of dempster, averaging, got 'vote'", "PROBABILITY must be one of belief, expected"],
        ),
        (("TRAINER.CDC.DECISION", "mean", "TRAINER.CDC.EVIDENCE", "relu"), ["DECISION mean takes EVIDENCE exp"]),
        (("TRAINER.CDC.DECISION", "mean", "TRAINER.CDC.FUSED_LOSS", True), ["DECISION mean takes EVIDENCE exp"]),
        (("TRAINER.CDC.DECISION", "mean", "TRAINER.CDC.FUSION", "averaging"), ["FUSION must be dempster"]),
        (("TRAINER.CDC.DECISION", "mean", "TRAINER.CDC.PROBABILITY", "expected"), ["PROBABILITY belief", "expected"]),
        (("INPUT.SIZE", (48, 48)), ["(32, 32)", "(48, 48)"]),
    ],
)
def test_wrong_config_is_told_at_once(build, tmp_path, options, messages):
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the messages are checked below
        build(tmp_path, *options)
    for message in messages:
        assert message in str(caught.value)


def test_zero_shot(build, tmp_path, small_clip):
    trainer = build(tmp_path, trainer="ZeroshotCLIP", flags=["--eval-only"])
    trainer.load_model("")
    trainer.test()
    from clip import clip

    image = torch.randn(3, 3, 32, 32)
    half = small_clip.encode_text(clip.tokenize(["blue texture.", "green texture."]))
    expected = torch.nn.functional.normalize(small_clip.encode_image(image)) @ torch.nn.functional.normalize(half).T
    logits = trainer.model_inference(image) / trainer.scale
    torch.testing.assert_close(logits, expected, rtol=0, atol=1e-2)  # weights went through half precision
    assert results_of(tmp_path)["trainer"] == "ZeroshotCLIP"
    assert results_of(tmp_path)["epoch"] == 0


# What is no hyper-parameter of the method as the paper has it: a store of features, and parts of other methods.
OPTIONAL = {"FEATURE_BANK", "FEATURE_BANK_DIR", "INVARIANT_MAP", "SELF_REGULATION"}


@pytest.mark.parametrize("name", ["vit_b16", "vit_b16_cross_datasets", "vit_b16_self_regulated", "vit_b16_text"])
def test_config_for_photographs_writes_out_every_hyper_parameter(name):
    """With where it comes from, in a comment on its line or, for what has several lines, on the one before."""
    text = (ROOT / f"configs/trainers/CDC/{name}.yaml").read_text()
    options = yaml.safe_load(text)["TRAINER"]["CDC"]
    unused = OPTIONAL - set(options) | ({"PROMPT_DEPTH"} if options["PROMPT"] == "text" else set())
    assert set(options) == set(cfg_default.TRAINER.CDC) - unused
    lines = text.splitlines()
    for key in options:
        (number,) = (n for n, line in enumerate(lines) if line.startswith(f"    {key}:"))
        assert "  # " in lines[number] or lines[number - 1].startswith("    # "), key
