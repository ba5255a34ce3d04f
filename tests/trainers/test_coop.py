"""CoOp, CoCoOp and zero-shot CLIP: the published numbers, checkpoints of both sides, every position and backbone."""

from __future__ import annotations

import importlib
import os
import shutil
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from clip import clip
from dassl.config import get_cfg_default
from torch.optim.lr_scheduler import CosineAnnealingLR

from helpers import COLOURS, GOLDEN, HALF, ROOT, checkout_of, random_clip, relative, results_of
from parity import note_parity
from trainers import cocoop
from trainers.modules.checkpoints import read_checkpoint
from trainers.modules.prompts import ConditionalContext, TextContext
from trainers.modules.templates import ENSEMBLE
from trainers.modules.text import TextEncoder

sys.path.append(str(GOLDEN))
make_coop = importlib.import_module("make_coop")

NAMES = ["dog", "a rather long class name of many words", "striped_texture", "x"]
TRAINED = [name for name, case in make_coop.CASES.items() if not case["TRAINER"].startswith("Zeroshot")]
METHODS = ["CoOp", "CoCoOp"]


# ------------------------------------------------------------------------------------------------ the published numbers


@pytest.fixture(scope="module")
def golden():
    with np.load(GOLDEN / "coop.npz") as file:
        return dict(file)


@pytest.fixture(scope="module")
def golden_clips():
    with make_coop.clip_files() as files:
        yield files


@pytest.fixture
def build_case(golden_clips):
    def make(name):
        case = make_coop.CASES[name]
        return make_coop.build(case, golden_clips[case.get("resnet", False)])

    return make


def assert_same(name, ours, published) -> None:
    """Start, logits, losses, gradients, and the parameters after four steps, as well as the way there."""
    expected = {key.split("/")[1]: value for key, value in published.items() if key.startswith(f"{name}/")}
    assert ours.keys() - {"acc"} == expected.keys() - {"acc"}  # the published CoCoOp logs no accuracy
    for key, value in expected.items():
        assert np.linalg.norm(value) > 0 or key == "acc", key
        assert relative(ours[key], value) < 1e-5 or np.array_equal(ours[key], value), key
        if key.startswith("end."):
            start = key.replace("end.", "start.")
            assert relative(ours[key] - ours[start], value - expected[start]) < 1e-4, key


@pytest.mark.parametrize("name", make_coop.CASES)
def test_numbers_are_those_of_the_published_code(build_case, golden, name):
    assert_same(name, make_coop.drive(build_case(name)), golden)


def checkouts() -> list[str]:
    """The checkouts to compare with: CoOp's, and Dassl's if it is not to be the one in use here."""
    dassl = os.environ.get("DASSL_CHECKOUT")
    return [checkout_of("COOP_CHECKOUT"), *([dassl] if dassl else [])]


@pytest.mark.upstream
def test_numbers_and_checkpoints_of_the_published_code_live(build_case, tmp_path):
    script = [sys.executable, str(GOLDEN / "make_coop.py"), *checkouts()]
    places = ["--output", str(tmp_path / "live.npz"), "--checkpoints", str(tmp_path)]
    subprocess.run([*script, *places], check=True, cwd=tmp_path)
    with np.load(tmp_path / "live.npz") as file:
        published = dict(file)
    for name in make_coop.CASES:
        assert_same(name, make_coop.drive(build_case(name)), published)
    for name in TRAINED:
        trainer = build_case(name)
        trainer.load_model(str(tmp_path / name), epoch=2)
        assert relative(final_logits(trainer), published[f"{name}/end_logits"]) < 1e-5, name
    for trainer in METHODS:
        note_parity(trainer, "COOP_CHECKOUT", "CoOp")


PUBLISHED_RUN = """
import runpy, sys
sys.path.insert(0, sys.argv.pop(1))
import make_coop
n_checkouts = int(sys.argv.pop(1))
checkouts = [sys.argv.pop(1) for _ in range(n_checkouts)]
make_coop.register_published(checkouts[0], checkouts[1] if n_checkouts > 1 else None)
runpy.run_path(checkouts[0] + "/train.py", run_name="__main__")
"""


@pytest.mark.upstream
@pytest.mark.parametrize("trainer", METHODS)
def test_whole_runs_of_both_train_py(data, small_clip, tmp_path, trainer):
    """Training from pictures and testing, by the published train.py and by ours, and each with the other's model."""
    root, backbone = tmp_path / "data", tmp_path / "half.pt"
    shutil.copytree(data, root)
    # To half precision the published code rounds any CLIP, and this project none.
    torch.save({name: value.half() for name, value in small_clip.state_dict().items()}, backbone)
    own = [sys.executable, str(ROOT / "train.py")]
    paths = checkouts()
    published = [sys.executable, "-c", PUBLISHED_RUN, str(GOLDEN), str(len(paths)), *paths]

    def run(program, output, *arguments, classes="base"):
        command = [*program, "--root", root, "--seed", 3, "--trainer", trainer, "--output-dir", tmp_path / output]
        command += ["--dataset-config-file", ROOT / "configs/datasets/dtd.yaml"]
        command += ["--config-file", ROOT / f"configs/trainers/{trainer}/tiny.yaml", *arguments]
        options = {
            "MODEL.BACKBONE.NAME": backbone,
            "INPUT.SIZE": "(32, 32)",
            "DATALOADER.NUM_WORKERS": 0,
            "DATALOADER.TRAIN_X.BATCH_SIZE": 3,
            "DATASET.NUM_SHOTS": 4,
            "DATASET.SUBSAMPLE_CLASSES": classes,
            "OPTIM.MAX_EPOCH": 3,
            f"TRAINER.{trainer.upper()}.CTX_INIT": "",
        }
        command += [part for pair in options.items() for part in pair]
        subprocess.run([str(part) for part in command], check=True, cwd=tmp_path, capture_output=True)
        log = (tmp_path / output / "log.txt").read_text()
        return [line for line in log.splitlines() if line.startswith("* accuracy:")]

    run(own, "split", "--no-train")  # who makes the split has drawn random numbers before the few-shot images
    assert run(published, "published") == run(own, "ours")
    states = [
        torch.load(tmp_path / name / "prompt_learner/model.pth.tar-3", weights_only=True)["state_dict"]
        for name in ("published", "ours")
    ]
    for key, value in states[1].items():
        assert relative(value, states[0][key]) < 1e-5, key
    assert states[0].keys() - states[1].keys() == {"token_prefix", "token_suffix"}

    test = ["--eval-only", "--load-epoch", 3, "--model-dir"]
    accuracies = [
        run(program, f"{n}_{model}", *test, tmp_path / model, classes="new")
        for n, program in enumerate((published, own))
        for model in ("published", "ours")
    ]
    assert accuracies == accuracies[:1] * 4


@pytest.mark.upstream
@pytest.mark.parametrize("trainer", METHODS)
def test_configs_hold_the_published_values(trainer):
    published = sorted(Path(checkouts()[0], "configs/trainers", trainer).glob("*.yaml"))
    assert published
    for path in published:
        theirs, ours = get_cfg_default(), get_cfg_default()
        theirs.merge_from_file(str(path))
        ours.merge_from_file(str(ROOT / "configs/trainers" / trainer / path.name))
        assert theirs == ours


# ------------------------------------------------------------------------------------------------------ prompt learners


@pytest.fixture
def encoder(small_clip):
    return TextEncoder(small_clip)


def plain(clip_model, contexts, position):
    """Text features of `NAMES` from all 77 positions; `contexts` holds the words' embeddings `(d, W)` for each."""
    features = []
    for name, ctx in zip(NAMES, contexts):
        sos, *name_part, stop, eos = clip_model.token_embedding(clip.tokenize(f"{name.replace('_', ' ')}."))[0][
            : len(clip._tokenizer.encode(name.replace("_", " "))) + 3
        ]
        n_before = {"end": len(ctx), "middle": len(ctx) // 2, "front": 0}[position]
        prompt = torch.stack([sos, *ctx[:n_before], *name_part, *ctx[n_before:], stop, eos])
        x = torch.cat([prompt, torch.zeros(77 - len(prompt), prompt.shape[1])])[None] + clip_model.positional_embedding
        x = clip_model.ln_final(clip_model.transformer(x.permute(1, 0, 2))[len(prompt) - 1])
        features.append(x[0] @ clip_model.text_projection)
    return torch.stack(features)


@pytest.mark.parametrize("position", ["end", "middle", "front"])
@pytest.mark.parametrize("class_specific", [False, True])
@pytest.mark.parametrize("n_ctx", [1, 5])
def test_context_equals_the_plain_computation(small_clip, encoder, n_ctx, class_specific, position):
    learner = TextContext(encoder, NAMES, n_ctx, class_specific=class_specific, position=position)
    learner.ctx.data.normal_(std=0.5)
    copy = learner.ctx.detach().clone().requires_grad_()
    fast, slow = encoder(learner())[0], plain(small_clip, copy.expand(len(NAMES), n_ctx, -1), position)
    weight = torch.randn_like(slow)
    (fast * weight).sum().backward()
    (slow * weight).sum().backward()
    assert relative(fast, slow) < 1e-5
    assert relative(learner.ctx.grad, copy.grad) < 1e-5


def test_what_classes_share_is_computed_once(encoder):
    lengths = {
        position: TextContext(encoder, NAMES, 5, position=position)().prefix.shape[1]
        for position in ("end", "middle", "front")
    }
    assert lengths == {"end": 6, "middle": 3, "front": 1}
    assert TextContext(encoder, NAMES, 5, class_specific=True)().prefix.shape[1] == 1


@pytest.mark.parametrize("words", ["a photo of a", "a_photo of_a", make_coop.MANY_TOKENS])
def test_words_say_what_they_say(small_clip, encoder, words):
    """A context that starts from words gives the features of the plain text, and its first tokens learn."""
    texts = [f"{words} {name}.".replace("_", " ") for name in NAMES]
    expected = small_clip.encode_text(clip.tokenize(texts))
    context, conditional = TextContext(encoder, NAMES, 16, words), ConditionalContext(encoder, NAMES, 16, words)
    assert len(context.ctx) == len(conditional.ctx) == len(words.replace("_", " ").split())
    assert relative(encoder(context())[0], expected) < 1e-5
    conditional.meta_net.linear2.weight.data.zero_()
    conditional.meta_net.linear2.bias.data.zero_()
    assert relative(encoder(conditional(torch.randn(2, 48)))[1], expected) < 1e-5


def test_every_image_shifts_the_context_for_itself(encoder):
    learner = ConditionalContext(encoder, NAMES, 2)
    images = F.normalize(torch.randn(3, 48), dim=-1)
    together = encoder(learner(images))
    for image, features in zip(images, together):
        alone = TextContext(encoder, NAMES, 2)
        alone.ctx.data = learner.ctx.data + learner.meta_net(image)
        assert relative(features, encoder(alone())[0]) < 1e-5
    assert relative(together[0], together[1]) > 1e-4


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((0,), "at least 1 context token, got 0"),
        ((4, "a  photo"), "one blank between"),
        ((4, "a photo", False, "back"), "end, middle, front, got 'back'"),
        ((4, make_coop.MANY_TOKENS, False, "front"), "5 words and 7 tokens"),
        ((70,), "class name too long"),
    ],
)
def test_wrong_contexts_are_told(encoder, arguments, message):
    with pytest.raises(ValueError, match=message):
        TextContext(encoder, NAMES, *arguments)


# ------------------------------------------------------------------------------------------------------------- training


@pytest.mark.parametrize("method", METHODS)
def test_only_the_prompts_train_and_are_kept(build_run, tmp_path, capsys, method):
    trainer = build_run(method, tmp_path / "base")
    before = {key: value.clone() for key, value in trainer.model.state_dict().items()}
    trainer.train()
    own = {
        "CoOp": ["ctx"],
        "CoCoOp": ["ctx", *[f"meta_net.linear{n}.{part}" for n in (1, 2) for part in ("weight", "bias")]],
    }[method]
    names = [f"prompt_learner.{key}" for key in own]
    assert [name for name, p in trainer.model.named_parameters() if p.requires_grad or p.grad is not None] == names
    after = trainer.model.state_dict()
    assert [key for key in before if not torch.equal(before[key], after[key])] == names
    assert " loss " in capsys.readouterr().out
    assert results_of(tmp_path / "base")["trainer"] == method

    checkpoint = torch.load(tmp_path / "base/prompt_learner/model.pth.tar-3", weights_only=True)
    assert list(checkpoint["state_dict"]) == own
    tested = build_run(method, tmp_path / "new", "DATASET.SUBSAMPLE_CLASSES", "new", flags=["--eval-only"])
    tested.load_model(str(tmp_path / "base"), epoch=3)
    tested.test()
    assert results_of(tmp_path / "new")["class_names"] == ["red", "yellow"]
    state = tested.model.prompt_learner.state_dict()
    assert all(torch.equal(state[key], trainer.model.prompt_learner.state_dict()[key]) for key in own)


@pytest.mark.parametrize("method", METHODS)
@pytest.mark.parametrize("precision", ["fp32", "amp", "bf16", HALF])
def test_precisions(build_run, tmp_path, method, precision):
    trainer = build_run(method, tmp_path, f"TRAINER.{method.upper()}.PREC", precision, "OPTIM.LR", 0.01)
    trainer.train()
    learner = trainer.model.prompt_learner
    assert all(p.dtype == torch.float32 and p.isfinite().all() for p in learner.parameters())
    images = torch.randn(3, 3, 32, 32)
    logits = logits_of(trainer, images)
    assert logits.dtype == torch.float32
    exact = build_run(method, tmp_path / "exact", f"TRAINER.{method.upper()}.PREC", "fp32")
    exact.model.prompt_learner.load_state_dict(learner.state_dict())
    expected = logits_of(exact, images)
    tolerance = {"fp32": 1e-4, "fp16": 0.03}.get(precision, 0.12)  # of 14 times a cosine
    error = (logits - expected).abs().max()
    assert error < tolerance
    assert (logits.roll(1, dims=0) - expected).abs().max() > 2 * tolerance  # other images are further away
    if precision in ("fp32", "fp16"):  # so are other classes, but by less than what bfloat16 can tell
        assert (logits.flip(1) - expected).abs().max() > error


@pytest.fixture(scope="module")
def resnet_file(tmp_path_factory):
    path = tmp_path_factory.mktemp("resnet") / "resnet.pt"
    torch.save(random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None).state_dict(), path)
    return path


@pytest.mark.parametrize("precision", ["fp32", HALF, "amp"])
@pytest.mark.parametrize("method", [*METHODS, "ZeroshotCLIP", "ZeroshotCLIP2"])
def test_resnet(build_run, resnet_file, tmp_path, method, precision):
    options = (f"TRAINER.{method.upper()}.PREC", precision, "OPTIM.MAX_EPOCH", 1, "OPTIM.LR", 0.01)
    trainer = build_run(method, tmp_path, *options, backbone=resnet_file)
    statistics = "model.image_encoder.visual.bn1" if method in METHODS else "image_encoder.visual.bn1"
    mean = attribute(trainer, statistics).running_mean.clone()
    trainer.train()
    assert torch.equal(attribute(trainer, statistics).running_mean, mean)  # frozen, not updated by training batches
    assert results_of(tmp_path)["figures"]["accuracy"] >= 0
    assert logits_of(trainer, torch.randn(2, 3, 32, 32)).isfinite().all()


def attribute(owner, path):
    for name in path.split("."):
        owner = getattr(owner, name)
    return owner


def logits_of(trainer, images):
    trainer.set_model_mode("eval")
    with torch.no_grad():
        return trainer.model_inference(images)


def final_logits(trainer):
    return logits_of(trainer, make_coop.batches(5)[-1]["img"])


def test_memory_bound_changes_nothing(build_run, tmp_path, monkeypatch):
    trainer = build_run("CoCoOp", tmp_path)
    images = torch.randn(5, 3, 32, 32)
    whole = logits_of(trainer, images)
    monkeypatch.setattr(cocoop, "PROMPTS_AT_ONCE", 4)  # two of two classes' images
    lengths = []
    trainer.model.text_encoder.register_forward_hook(lambda module, inputs, output: lengths.append(len(output)))
    assert relative(logits_of(trainer, images), whole) < 1e-5
    assert lengths == [2, 2, 1]
    monkeypatch.setattr(cocoop, "PROMPTS_AT_ONCE", 1)
    assert relative(logits_of(trainer, images), whole) < 1e-5


def test_ensemble_is_the_mean_of_normalised_embeddings(build_run, small_clip, tmp_path):
    trainer = build_run("ZeroshotCLIP2", tmp_path)
    embeddings = []
    for template in (*ENSEMBLE, "{} texture."):
        texts = [template.format(name) for name in ("blue", "green")]
        embeddings.append(F.normalize(small_clip.encode_text(clip.tokenize(texts)), dim=-1))
    expected = F.normalize(torch.stack(embeddings).mean(dim=0), dim=-1)
    torch.testing.assert_close(trainer.text_features, expected)
    trainer.cfg.defrost()
    trainer.cfg.DATASET.NAME = "ImageNet"
    assert len(trainer.prompts()) == 7


@pytest.mark.parametrize(
    ("method", "options", "messages"),
    [
        ("CoOp", ("PREC", "fp8", "N_CTX", 0), ["fp16, bf16", "at least 1 context token, got 0"]),
        ("CoOp", ("CLASS_TOKEN_POSITION", "back"), ["end, middle, front, got 'back'"]),
        ("CoOp", ("CTX_INIT", make_coop.MANY_TOKENS, "CLASS_TOKEN_POSITION", "middle"), ["7 tokens"]),
        ("CoCoOp", ("PREC", "fp8", "CTX_INIT", " a"), ["fp16, bf16", "one blank"]),
        ("ZeroshotCLIP2", ("PREC", "half"), ["'half'"]),
    ],
)
def test_wrong_config_is_told_at_once(build_run, tmp_path, method, options, messages):
    start = {"CTX_INIT": ""} if method != "ZeroshotCLIP2" else {}
    given = {**start, **dict(zip(options[::2], options[1::2]))}
    with pytest.raises(ValueError) as caught:  # noqa: PT011  the messages are checked below
        build_run(method, tmp_path, *[x for k, v in given.items() for x in (f"TRAINER.{method.upper()}.{k}", v)])
    for message in messages:
        assert message in str(caught.value)


# ---------------------------------------------------------------------------------------------------------- checkpoints


def write_published(folder, state, **changes):
    """A checkpoint as the published code writes it: class names' embeddings, objects as scheduler, a NumPy scalar."""
    parameter = torch.nn.Parameter(state["ctx"].clone())
    optimizer = torch.optim.SGD([parameter], 0.002, 0.9)
    parameter.sum().backward()
    optimizer.step()
    scheduler = CosineAnnealingLR(optimizer, 10)
    tokens = {"token_prefix": torch.zeros(7, 1, 64), "token_suffix": torch.zeros(7, 73, 64)}  # of seven classes
    checkpoint = {
        "state_dict": {**state, **tokens},
        "epoch": 10,
        "optimizer": optimizer.state_dict(),
        "scheduler": {"successor": scheduler, "last_epoch": 10},
        "val_result": np.float64(71.5),
        **changes,
    }
    folder.mkdir(parents=True, exist_ok=True)
    torch.save(checkpoint, folder / "model.pth.tar-10")


@pytest.mark.parametrize("name", ["generic end", "specific middle", "conditional", "generic resnet"])
def test_published_checkpoint_gives_the_published_logits(build_case, golden, tmp_path, name):
    state = {key.split("end.")[1]: torch.from_numpy(v) for key, v in golden.items() if key.startswith(f"{name}/end.")}
    write_published(tmp_path / "prompt_learner", state)
    trainer = build_case(name)
    trainer.load_model(str(tmp_path), epoch=10)
    assert trainer.tested_epoch == 10
    assert relative(final_logits(trainer), golden[f"{name}/end_logits"]) < 1e-5


def test_half_precision_checkpoint_loads(build_case, golden, tmp_path):
    ctx = torch.from_numpy(golden["generic end/end.ctx"])
    write_published(tmp_path / "prompt_learner", {"ctx": ctx.half()})
    trainer = build_case("generic end")
    trainer.load_model(str(tmp_path), epoch=10)
    assert torch.equal(trainer.model.prompt_learner.ctx, ctx.half().float())


class Harmful:
    """What a forged checkpoint may hold: an object that is read by calling a function."""

    def __init__(self, function, path):
        self.call = function, (str(path),)

    def __reduce__(self):
        return self.call


def touch(path):
    Path(path).touch()


def test_nothing_in_a_checkpoint_is_run(tmp_path):
    trap = tmp_path / "trap"
    harmful = Harmful(touch, trap)
    for extra in (harmful, Harmful(os.mkdir, trap), Harmful(Path.touch, trap)):  # found by a call of its own, the last
        write_published(tmp_path, {"ctx": torch.ones(2)}, extra=extra)
        checkpoint = read_checkpoint(tmp_path / "model.pth.tar-10")
        assert not trap.exists()
        assert torch.equal(checkpoint["state_dict"]["ctx"], torch.ones(2))
        assert checkpoint["optimizer"]["param_groups"][0]["momentum"] == 0.9
    function, arguments = harmful.__reduce__()
    function(*arguments)
    assert trap.exists()


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"state_dict": {"ctx": torch.zeros(4, 64), "meta_net.linear1.weight": torch.zeros(1)}},
            "has meta_net.linear1.wei",
        ),
        ({"state_dict": {"token_prefix": torch.zeros(1)}}, "it has no ctx"),
        ({"state_dict": {"ctx": torch.zeros(16, 64)}}, r"has ctx of shape \(16, 64\) where this run has \(4, 64\)"),
        (
            {"state_dict": {"ctx": torch.zeros(4, 64), "logit_scale": torch.ones(1)}},
            "has logit_scale, which is not known",
        ),
        (
            {"state_dict": {"ctx": torch.full((4, 64), float("nan"))}},
            "has ctx with infinite values or some that are not",
        ),
        (
            {"state_dict": {"ctx": torch.full((4, 64), float("-inf"))}},
            "has ctx with infinite values or some that are n",
        ),
        ({"state_dict": {"ctx": [0.0]}}, "ctx should be tensors"),
        (
            {"state_dict": {"ctx": torch.ones(4, 64, dtype=torch.int8)}},
            "has ctx of type torch.int8 where this run has real",
        ),
        ({"state_dict": CosineAnnealingLR}, "not a whole checkpoint"),
        ({"epoch": "ten"}, "not a whole checkpoint"),
        ({"epoch": -5}, "its epoch must be from 0 to 1,000,000, got -5"),
        ({"epoch": 10**18}, "its epoch must be from 0 to"),
    ],
)
def test_wrong_checkpoint_is_told(build_run, tmp_path, changes, message):
    trainer = build_run("CoOp", tmp_path)
    write_published(tmp_path / "prompt_learner", {"ctx": torch.zeros(4, 64)}, **changes)
    before = trainer.model.prompt_learner.ctx.clone()
    with pytest.raises(ValueError, match=message):
        trainer.load_model(str(tmp_path), epoch=10)
    assert torch.equal(trainer.model.prompt_learner.ctx, before)


def test_init_weights_start_from_a_checkpoint(build_run, tmp_path):
    state = {"ctx": torch.randn(4, 64)}
    write_published(tmp_path, state)
    file = tmp_path / "model.pth.tar-10"
    trainer = build_run("CoOp", tmp_path / "run", "MODEL.INIT_WEIGHTS", file)
    assert torch.equal(trainer.model.prompt_learner.ctx, state["ctx"])
    with pytest.raises(ValueError, match="has no meta_net"):
        build_run("CoCoOp", tmp_path / "run", "MODEL.INIT_WEIGHTS", file)
    with pytest.raises(FileNotFoundError, match="nowhere"):
        build_run("CoOp", tmp_path / "run", "MODEL.INIT_WEIGHTS", tmp_path / "nowhere")


def test_class_specific_context_knows_its_classes(build_run, tmp_path):
    specific = ("TRAINER.COOP.CSC", True, "TRAINER.COOP.CTX_INIT", "", "OPTIM.MAX_EPOCH", 1)
    trainer = build_run("CoOp", tmp_path, *specific)
    assert trainer.model.prompt_learner.ctx.shape == (2, 16, 64)
    trainer.train()
    again = build_run("CoOp", tmp_path / "again", *specific)
    again.load_model(str(tmp_path), epoch=1)
    other = build_run("CoOp", tmp_path / "new", *specific, "DATASET.SUBSAMPLE_CLASSES", "new")
    with pytest.raises(ValueError, match="context for each of blue, green, not for red, yellow"):
        other.load_model(str(tmp_path), epoch=1)
    every = build_run("CoOp", tmp_path / "all", *specific, "DATASET.SUBSAMPLE_CLASSES", "all")
    with pytest.raises(ValueError, match=f"{len(COLOURS)}, 16, 64"):
        every.load_model(str(tmp_path), epoch=1)
