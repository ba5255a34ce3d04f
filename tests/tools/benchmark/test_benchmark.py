"""The benchmark: what it compares with, what it counts, what it says of its results; all of it at tiny sizes."""

from __future__ import annotations

import json
import re
from collections import Counter
from concurrent.futures import ProcessPoolExecutor

import pytest
import torch

from helpers import checkout_of, relative

pytest.importorskip("resource", reason="peak memory is read as POSIX has it")
pytest.importorskip("torch.utils.flop_counter", reason="PyTorch counts operations from 2.1 on")

from tools.benchmark import __main__ as command
from tools.benchmark import measure
from tools.benchmark import page as benchmark_page
from tools.benchmark.page import PAGE, TARGETS, Value, read_page, render, target_table, unexplained
from tools.benchmark.plain import PlainTextEncoder
from tools.benchmark.subjects import IMAGENET_LENGTHS, RATE_ROWS, Settings, Subject, class_names
from tools.common.blocks import contents
from trainers.modules.loading import tokenize
from trainers.modules.prompts import TextTemplates
from trainers.modules.text import ClassTokens, TextEncoder, TextPrompt

NAMES = ["dog", "a rather long class name of many words", "x y"]


def test_class_names_are_distinct_and_as_long_as_imagenets():
    names = class_names(1000)
    assert len(set(names)) == 1000
    assert Counter(len(tokenize(name)) - 2 for name in names) == IMAGENET_LENGTHS
    assert class_names(200) == names[:200]
    assert len(set(class_names(24))) == 24
    with pytest.raises(ValueError, match=r"1 to 1000 classes, got 1001"):
        class_names(1001)


@pytest.mark.parametrize("shape", [(), (2,)])
def test_plain_encoder_equals_the_fast_one(small_clip, shape):
    """Deep prompts, tokens of each class and a suffix of its own for each template included, with gradients."""
    prompt = TextTemplates(TextEncoder(small_clip), NAMES, 2, 3, std=0.5)()
    given = [prompt.prefix, prompt.suffix + 0.1 * torch.randn(2, *prompt.suffix.shape), torch.randn(2, 3, 64)]
    given.append(torch.randn(*shape, len(NAMES), 2, 64))
    found = []
    for encoder in (TextEncoder(small_clip), PlainTextEncoder(small_clip)):
        prefix, suffix, deep, own = leaves = [tensor.detach().clone().requires_grad_() for tensor in given]
        features = encoder(TextPrompt(prefix, suffix, prompt.eot_index, [deep], ClassTokens(2, own)))
        (features * torch.linspace(-1, 1, features.numel()).view_as(features)).sum().backward()
        found.append([features, *(leaf.grad for leaf in leaves)])
    assert all(relative(fast, plain) < 1e-5 for fast, plain in zip(*found))


def subject(**given):
    found = {"trainer": "CDC", "style": "ours", "work": "train", "classes": 24, "templates": 4, "batch": 4}
    found.update(
        {"coupled": False, "bank": True, "backbone": "ViT-B/16", "seconds": [1.0, 1.0, 1.0], "waited": [0] * 3}
    )
    found.update({"flops": 3e9, "flops_again": 1e9, "rate": 4e9, "baseline": 2**29, "peak": 2**30})
    found.update(given)
    return {"busy": found["seconds"], **found}


MACHINE = {"device": "cpu", "threads": 2, "precision": "fp32", "cores": 2, "model": "Some Processor", "torch": "2.0"}
RESULTS = {
    "machine": MACHINE,
    "measurements": {
        "text 1000": {
            "section": "text",
            "subjects": {
                "m1": subject(classes=1000, templates=1, seconds=[1.0] * 5),
                "m4": subject(classes=1000, seconds=[1.0] * 5),
                # 100 classes of one template in 2 s: a class costs 20 times, a template's class 80 times as much
                "plain": subject(style="plain", classes=100, templates=1, seconds=[2.0, 1.5, 1.0, 2.5, 2.0]),
            },
        },
        "train 200": {"section": "train", "subjects": {"plain_coop": subject(peak=4 * 2**30), "cdc": subject()}},
        "1000 classes, M = 4": {"section": "classes", "subjects": {"bank": subject(classes=1000, peak=3 * 2**30)}},
        "data 4": {"section": "data", "subjects": {"loop": subject(work="loop", waited=[0.5, 0.25, 0.0])}},
        "compiled text 24": {
            "section": "compile",
            "subjects": {
                "ours": subject(first=1.5),
                "compiled": subject(style="compiled", seconds=[0.5, 0.5, 0.5], first=90.0),
            },
        },
    },
}


def test_ratios_are_of_processor_time():
    slow, fast = subject(seconds=[9.0, 7.0], busy=[2.0, 2.0]), subject(seconds=[1.0, 5.0], busy=[1.0, 0.5])
    assert benchmark_page._times(slow, fast) == [2.0, 4.0]
    assert benchmark_page._shares(fast) == [0.5, 1.0]  # 2e9 of 3e9 operations are needed, at a rate of 4e9


def test_targets_of_known_results():
    lines = {line.split("  ")[0].strip(): line for line in target_table(RESULTS).splitlines()}
    line = lines["text forward and backward, 1000 names, a template of M = 1"]
    assert "20.00x (15.00 to 20.00)" in line
    assert line.endswith("yes")
    assert "80.00x" in lines["text forward and backward, 1000 names, a template of M = 4"]
    line = lines["CDC M = 4 peak memory, C = 1000, batch 4, with bank"]
    assert "at most 0.5" in line
    assert "0.75" in line
    assert line.endswith("no")
    # 2 of the 3 billion operations are needed, the machine does 4 billion a second
    share = "share of the matrix product limit, CDC M = 4 training step with bank, C = 1000"
    assert "50.00%" in lines[share]
    assert "75.00%" in lines["the same for M = 4, counting what is computed again"]
    assert len(lines) == 2 + 6  # and nothing of what was not measured


def test_page_has_the_tables_and_keeps_its_text():
    text = PAGE.read_text()
    page = render(RESULTS, text)
    assert "2 cores of Some Processor, 2 threads" in page
    assert "compiled 0.50x (0.50 to 0.50)" in page
    assert "90.0 s" in page
    assert "| 25.0%" in page.split("## Training from files")[1].split("## ")[0]  # 0.75 of 3 s
    assert "Not measured here." in page.split("## ViT-L/14")[1].split("## ")[0]
    assert "sizes that say nothing" not in page
    by_hand = [re.sub(r"(?s)<!-- made: .*?<!-- end -->", "", each) for each in (text, page)]
    assert by_hand[0] == by_hand[1]
    assert render(RESULTS, page) == page


def test_page_of_one_section_keeps_the_others_and_says_its_machine():
    maple = subject(trainer="MaPLe", templates=1, bank=False)
    pairs = {
        trainer: {"section": "peers", "subjects": {"maple": maple, "peer": {**maple, "trainer": trainer, "busy": busy}}}
        for trainer, busy in {"TCP": [0.5, 0.5, 0.5], "MMRL": [2.0, 3.0, 2.0]}.items()
    }
    text = PAGE.read_text()
    made = contents(render({"machine": MACHINE, "measurements": pairs}, text, ["peers"]))
    peers = made.pop("peers")
    assert made == {name: content for name, content in contents(text).items() if name != "peers"}
    assert peers.startswith("Machine: 2 cores of Some Processor, 2 threads, fp32, PyTorch 2.0.\n\n| trainer")
    assert [line.split("|")[1].strip() for line in peers.splitlines()[4:]] == ["MaPLe", "TCP", "MMRL"]
    assert "MaPLe's beside it" in peers
    ratios = [line.split("|")[5].strip() for line in peers.splitlines()[4:]]
    assert ratios == ["", "0.50 (0.50 to 0.50)", "2.00 (2.00 to 2.50)"]


def test_page_that_is_not_there_begins_as_the_committed_one(tmp_path):
    assert read_page(tmp_path / "page.md") == PAGE.read_text()
    (tmp_path / "page.md").write_text("# Mine\n")
    with pytest.raises(ValueError, match=r"page.md must hold each of the blocks machine, targets.*got none"):
        read_page(tmp_path / "page.md")


def test_page_without_marks_is_refused_before_anything_is_measured(tmp_path):
    (tmp_path / "page.md").write_text("# Mine\n")
    with pytest.raises(ValueError, match="must hold each of the blocks"):
        measure.run(arguments(tmp_path, "--only", "text"))
    assert sorted(path.name for path in tmp_path.iterdir()) == ["page.md"]


def test_missed_targets_without_a_reason_are_named():
    assert unexplained(RESULTS, "") == [
        "CDC M = 4 training step without bank, C = 200, batch 4",  # 1.00, of at least 3
        "CDC M = 4 peak memory, C = 1000, batch 4, with bank",
        "share of the matrix product limit, CDC M = 4 training step with bank, C = 1000",
    ]
    page = "Why:\n\n- CDC M = 4 peak memory, C = 1000, batch 4, with\n  bank: so much is kept.\n"
    assert "CDC M = 4 peak memory, C = 1000, batch 4, with bank" not in unexplained(RESULTS, page)


def test_committed_page_says_why_each_target_is_missed_and_names_real_ones():
    text = PAGE.read_text()
    rows = [[cell.strip() for cell in line.split("|")[1:-1]] for line in text.splitlines() if line.startswith("|")]
    missed = {row[0] for row in rows if row[-1] == "no"}
    reasons = text.split("Why a target is missed, where the table says so:")[1].split("## ")[0].split("\n- ")[1:]
    assert {" ".join(reason.split()).split(": ")[0] for reason in reasons} == missed
    assert missed <= {target.what for target in TARGETS}
    assert f"matrices of {RATE_ROWS:,} rows" in text


def test_one_round_has_no_spread():
    assert Value.of([3.0]) == Value(3.0, 3.0, 3.0)


def test_every_target_has_its_measurement():
    """Of a plan without upstream, all targets can be computed, whatever the numbers."""
    results = {"machine": MACHINE, "measurements": {}}
    for measurement in measure.plan():
        subjects = {name: subject(classes=s.classes) for name, s in measurement.subjects.items()}
        assert measurement.name not in results["measurements"]
        results["measurements"][measurement.name] = {"section": measurement.section, "subjects": subjects}
    assert len(target_table(results).splitlines()) == 2 + len(TARGETS)


def arguments(folder, *more):
    given = ["--quick", "--threads", "1", "--output", str(folder / "found.json"), "--page", str(folder / "page.md")]
    return command.parse_arguments([*given, *more])


def test_quick_run_and_what_it_does_not_repeat(tmp_path, capsys):
    found = measure.run(arguments(tmp_path, "--only", "text", "data"))
    assert "3 measurements" in capsys.readouterr().out
    plain, ours = (found["measurements"]["text 24"]["subjects"][name] for name in ("plain", "m1"))
    assert len(plain["seconds"]) == 2
    assert plain["first"] > 0
    assert plain["flops"] > 5 * ours["flops"] > 0
    assert plain["peak"] >= plain["baseline"] > 0
    assert json.loads((tmp_path / "found.json").read_text()) == found
    assert "sizes that say nothing" in (tmp_path / "page.md").read_text()

    again = measure.run(arguments(tmp_path, "--only", "text"))
    assert "0 measurements" in capsys.readouterr().out
    assert again == found
    with pytest.raises(ValueError, match="another threads"):
        measure.run(arguments(tmp_path, "--threads", "2"))


def test_a_machine_that_cannot_compile_measures_the_rest(tmp_path, monkeypatch, capsys):
    def refuse(*_, **__):
        raise RuntimeError("no C++ compiler")

    monkeypatch.setattr(measure.torch, "compile", refuse)
    monkeypatch.setattr(measure, "small", lambda measurements: measurements)
    found = measure.run(arguments(tmp_path, "--only", "compile"))
    assert found["measurements"] == {}
    assert "does not work here: RuntimeError" in capsys.readouterr().err


def test_a_failing_subject_is_told():
    measurement = measure.Measurement("text", "x", {"bad": Subject("CDC", "text", 2000, backbone="tiny")})
    with pytest.raises(RuntimeError, match=r"(?s)classes=2000.*1 to 1000 classes, got 2000"):
        measure.take(measurement, Settings())


@pytest.mark.skipif(not hasattr(torch._C, "_cuda_isInBadFork"), reason="this PyTorch has no CUDA")
def test_process_of_a_subject_can_use_cuda():
    """A fork of a process that has asked for GPUs cannot, and importing `clip` asks for them."""
    context = measure._context(Subject("CDC", "train", 24), "cuda")
    with ProcessPoolExecutor(1, mp_context=context) as pool:
        assert pool.submit(torch._C._cuda_isInBadFork).result() is False


@pytest.mark.parametrize(
    ("given", "message"),
    [(["--threads", "0"], "at least 1, got 0"), (["--precision", "fp16"], "needs --device cuda")],
)
def test_arguments_that_cannot_be(tmp_path, given, message, capsys):
    with pytest.raises(SystemExit) as stopped:
        arguments(tmp_path, *given)
    assert stopped.value.code == 2
    assert message in capsys.readouterr().err


def test_folder_without_published_code(tmp_path):
    with pytest.raises(FileNotFoundError, match="holds neither"):
        measure.run(arguments(tmp_path, "--upstream", str(tmp_path)))


@pytest.mark.upstream
def test_published_trainers_beside_ours(tmp_path):
    found = measure.run(arguments(tmp_path, "--only", "upstream", "--upstream", checkout_of("COOP_CHECKOUT")))
    for name in ("published CoOp", "published CoCoOp"):
        subjects = found["measurements"][name]["subjects"]
        assert subjects["published"]["flops"] > 3 * subjects["ours"]["flops"]
