"""Plans against the scripts: the same runs, in the same folders, with the same rules for what has finished."""

from __future__ import annotations

import json
import os
import re
import subprocess
import time

import pytest

from helpers import ROOT
from tools.common.layout import PROTOCOLS as LAYOUT
from tools.common.layout import Place, trains_nothing
from tools.results.runs import VARIANTS
from tools.sweep.__main__ import NAMES
from tools.sweep.protocols import PROTOCOLS, SETS, SHOTS, Wanted, command_of, plan_steps
from tools.sweep.state import FINISHED, GOES_ON, NEW, START, expected, look, size, weights
from tools.sweep.sweep import Plan, make_plan, say_states, say_time

PYTHON = """#!/usr/bin/env bash
printf '%s\\n' "$@" > "$0.called"
"""


@pytest.fixture
def wanted(tmp_path):
    """A plan's wishes, with folders of its own and a Python that records how it is called."""
    python = tmp_path / "python"
    python.write_text(PYTHON)
    python.chmod(0o755)
    (tmp_path / "data").mkdir()
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    environment = {"DATA": f"{tmp_path}/data", "OUTPUT": f"{tmp_path}/output", "PYTHON": str(python), **kept}

    def make(trainers=("CDC",), datasets=("dtd",), seeds=(1,), shots=(16,), settings=(), source=None, **variables):
        return Wanted(trainers, datasets, seeds, shots, settings, source, {**environment, **variables})

    return make


def leave_calibration(output, place):
    (output / place.folder).mkdir(parents=True, exist_ok=True)
    (output / place.folder / "calibration.json").touch()


def leave_training(output, place, finished=True):
    """What a training leaves behind."""
    folder = output / place.folder
    (folder / "prompt_learner").mkdir(parents=True, exist_ok=True)
    (folder / "prompt_learner/model.pth.tar-5").touch()
    if finished:
        write_results(folder)


def write_results(folder, **content):
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "results.json").write_text(json.dumps({"figures": {"accuracy": 50.0}, **content}))


def call(step, wish, answers, **variables):
    """Call a step's script as the engine does; return the arguments of Python, and the exit status."""
    arguments, environment = command_of(step, wish, answers)
    kept = {name: os.environ[name] for name in ("PATH", "HOME")}
    called = f"{environment['PYTHON']}.called"
    if os.path.exists(called):
        os.remove(called)
    done = subprocess.run(
        arguments, env={**kept, **environment, **variables}, capture_output=True, text=True, check=False
    )
    if not os.path.exists(called):
        return None, done
    with open(called) as file:
        return file.read().splitlines(), done


def option(called, name):
    return called[called.index(name) + 1] if name in called else None


CASES = {
    "base2new": {"datasets": ("dtd", "digits")},
    "xd": {"datasets": ("dtd",)},
    "dg": {"datasets": ("shapes",)},
    "fewshot": {"datasets": ("dtd",), "shots": (1, -1)},
    "open_set": {"datasets": ("dtd", "digits")},
}


@pytest.mark.parametrize("protocol", CASES)
def test_every_run_is_where_its_script_puts_it(protocol, wanted):
    """And of the training that the script takes, and with the config that is its default."""
    wish = wanted(trainers=("CoOp", "ZeroshotCLIP"), **CASES[protocol])
    steps, answers = plan_steps(protocol, wish)
    places = [step.place for step in steps]
    assert len(set(places)) == len(places)
    for step in steps:
        if step.trained:
            assert places.index(step.trained) < places.index(step.place)
            leave_training(answers.output, step.trained)
        elif step.trains:
            (answers.output / step.place.folder / "results.json").unlink(missing_ok=True)
        without_config = {"CFG": ""}  # so that the script takes its default
        called, done = call(step, wish, answers, **without_config)
        assert done.returncode == 0, done.stderr
        assert option(called, "--output-dir") == str(answers.output / step.place.folder)
        assert option(called, "--model-dir") == (str(answers.output / step.trained.folder) if step.trained else None)
        assert option(called, "--config-file") == f"configs/trainers/{step.place.trainer}/{step.config}.yaml"
        assert option(called, "--trainer") == step.place.trainer
        assert ("--eval-only" in called) != step.trains


def kinds(steps):
    return {(step.place.trainer, step.place.kind, step.place.dataset, step.place.shots) for step in steps}


def test_runs_of_each_protocol(wanted):
    steps, _ = plan_steps("base2new", wanted(("CDC", "ZeroshotCLIP"), seeds=(1, 2)))
    assert kinds(steps) == {
        *(("CDC", kind, "dtd", 16) for kind in ("train_base", "test_new")),
        *(("ZeroshotCLIP", kind, "dtd", 16) for kind in ("test_base", "test_new")),
    }
    assert len(steps) == 8
    steps, _ = plan_steps("xd", wanted(("CDC", "ZeroshotCLIP"), ("dtd", "imagenet", "digits")))
    assert kinds(steps) == {
        *(("CDC", "all", source, 16) for source in ("imagenet", "shapes")),
        *(("CDC", "evaluation", dataset, 16) for dataset in ("dtd", "digits")),
        *(("ZeroshotCLIP", "evaluation", dataset, 16) for dataset in ("imagenet", "dtd", "shapes", "digits")),
    }
    steps, _ = plan_steps("dg", wanted(datasets=("imagenet", "shapes")))
    assert kinds(steps) == {
        *(("CDC", "all", source, 16) for source in VARIANTS),
        *(("CDC", "evaluation", variant, 16) for variants in VARIANTS.values() for variant in variants),
    }
    steps, _ = plan_steps("fewshot", wanted(("CDC", "ZeroshotCLIP"), shots=SHOTS))
    assert kinds(steps) == {
        *(("CDC", "all", "dtd", shots) for shots in SHOTS),
        ("ZeroshotCLIP", "evaluation", "dtd", 16),
    }
    assert len({step.name for step in steps}) == len(steps)


def test_another_source_has_folders_of_its_own(wanted):
    wish = wanted(source="shapes")
    steps, answers = plan_steps("xd", wish)
    test = steps[-1]
    assert test.place == Place("evaluation", "dtd", 16, "CDC", "tiny+from_shapes", 1)
    leave_training(answers.output, test.trained)
    called, _ = call(test, wish, answers)
    assert option(called, "--output-dir") == str(answers.output / test.place.folder)


@pytest.mark.parametrize(
    "options",
    [
        {"settings": ("OPTIM.LR", "0.1", "INPUT.TRANSFORMS", "['a b']")},
        {"settings": ("OPTIM.LR", "0.1"), "TAG": "short"},
        {"settings": ("TRAIN.PRINT_FREQ", "1"), "TAG": ""},
        {"trainers": ("CDC/vit_b16_text",)},
        {"trainers": ("CDC/vit_b16_coupled",)},
        {"CFG": "vit_b16_text"},
        {"shots": (4,)},
        {"LOADEP": "3", "SUB": "base", "SHOTS": "2", "TRAINER": "CoOp"},
    ],
    ids=str,
)
def test_settings_and_variables_of_the_scripts(wanted, options):
    wish = wanted(**options)
    steps, answers = plan_steps("base2new", wish)
    for step in steps:
        if step.trained:
            leave_training(answers.output, step.trained)
        called, done = call(step, wish, answers)
        assert done.returncode == 0, done.stderr
        assert option(called, "--output-dir") == str(answers.output / step.place.folder)
        assert not wish.settings or called[-2:] == [*wish.settings[-2:]]


def test_config_is_part_of_a_plan_side_by_side(wanted):
    steps, _ = plan_steps("base2new", wanted(("CDC", "CDC/vit_b16_text", "CDC/vit_b16")))
    assert [step.place.config for step in steps] == ["vit_b16", "vit_b16", "vit_b16_text", "vit_b16_text"]


@pytest.mark.parametrize(
    ("protocol", "options", "words"),
    [
        ("xy", {}, "the protocol must be one of base2new, xd, dg, fewshot, open_set, got 'xy'"),
        ("base2new", {"trainers": ("Foo", "CDC")}, "configs/trainers has no Foo; it has CDC,"),
        ("base2new", {"trainers": ("CDC/foo", "CoOp/bar")}, "CDC/foo.yaml, no configs/trainers/CoOp/bar.yaml"),
        ("base2new", {"datasets": ("dtdd", "nosuch")}, "configs/datasets has no dtdd, nosuch; it has "),
        ("xd", {"source": "nosuch"}, "configs/datasets has no nosuch"),
        ("dg", {"datasets": ("dtd",)}, "there are variants of imagenet and shapes, and none of dtd"),
        ("base2new", {"seeds": ()}, "at least one of seeds is needed"),
        ("base2new", {"seeds": (-1,)}, "SEED must be a whole number from 0 on, got '-1'"),
        ("base2new", {"shots": (0,)}, "SHOTS must be a whole number from 1 on, or -1 for all, got '0'"),
        ("base2new", {"settings": ("OPTIM.LR",)}, "settings must come as pairs of KEY VALUE"),
        ("base2new", {"settings": ("SEED", "3")}, "give the seed"),
        ("base2new", {"TAG": "a/b"}, "TAG must consist of"),
        (
            "base2new",
            {"TAG": "", "settings": ("OPTIM.LR", "0.1")},
            "TAG= would put a run with OPTIM.LR into the folder",
        ),
        ("base2new", {"DATA": "/no/such/folder"}, "there is no data folder /no/such/folder"),
    ],
)
def test_what_cannot_be_planned_is_told(wanted, protocol, options, words):
    with pytest.raises(ValueError, match=re.escape(words)):
        plan_steps(protocol, wanted(**options))


def test_generated_sets_need_no_data_folder(wanted):
    steps, _ = plan_steps("base2new", wanted(datasets=("digits",), DATA="/no/such/folder"))
    assert len(steps) == 2


# ---- what has finished


@pytest.mark.parametrize("trainer", ["CDC", "ZeroshotCLIP"])
def test_finished_is_what_the_scripts_take_for_finished(wanted, trainer):
    wish = wanted((trainer,))
    steps, answers = plan_steps("base2new", wish)
    output = answers.output
    first, test = steps

    def states():
        found = look(steps, output)
        for step in steps:
            _, done = call(step, wish, answers, ASK="1")
            assert (done.returncode == 0) == (found[step.place.folder] == FINISHED)
        return [found[step.place.folder] for step in steps]

    assert states() == [NEW, NEW]
    if trains_nothing(trainer):
        write_results(output / test.place.folder)
        assert states() == [NEW, FINISHED]
        return
    leave_training(output, first.place, finished=False)
    assert states() == [GOES_ON, NEW]
    write_results(output / test.place.folder)
    assert states() == [GOES_ON, NEW]  # a test of an unfinished training
    leave_training(output, first.place)
    model = output / first.place.folder / "prompt_learner/model.pth.tar-5"
    os.utime(model, ns=(10**18, 10**18))
    assert states() == [FINISHED, FINISHED]
    os.utime(output / test.place.folder / "results.json", ns=(10**17, 10**17))  # older than its model
    assert states() == [FINISHED, NEW]
    best = model.with_name("model-best.pth.tar")
    best.touch()
    os.utime(best, ns=(10**16, 10**16))  # which is what is tested
    assert states() == [FINISHED, FINISHED]


def call_finished(step, wish, answers):
    return call(step, wish, answers, ASK="1")[1].returncode == 0


@pytest.mark.parametrize("trainer", ["CDC", "ZeroshotCLIP"])
@pytest.mark.parametrize("protocol", ["base2new", "xd"])
def test_calibrated_tests_need_their_calibration(wanted, protocol, trainer):
    wish = wanted((trainer,), CALIBRATED="1")
    steps, answers = plan_steps(protocol, wish)
    tests = [step for step in steps if step.calibrated]
    assert len(tests) == 2 if protocol == "base2new" or trainer == "ZeroshotCLIP" else 1
    for step in tests:
        if step.trained:
            leave_training(answers.output, step.trained)
        write_results(answers.output / step.place.folder)

    def finished():
        states = look(tests, answers.output)
        now = [states[step.place.folder] == FINISHED for step in tests]
        assert [call_finished(step, wish, answers) for step in tests] == now
        return any(now)

    assert not finished()
    for step in tests:
        leave_calibration(answers.output, step.calibrated)
    assert not finished()
    for step in tests:
        write_results(answers.output / step.place.folder, ece_calibrated=1.0)
    assert finished()
    for step in tests:
        os.utime(answers.output / step.calibrated.folder / "calibration.json", ns=(2 * 10**18, 2 * 10**18))
    assert not finished()


def runs_of_plan(protocol, wish, calibrate=()):
    plan = make_plan(protocol, wish, calibrate)
    return plan, {run.name: run for run in plan.runs()}


def test_calibrations_are_fitted_after_training_and_before_the_tests(wanted):
    plan, runs = runs_of_plan("base2new", wanted(("CDC",), CALIBRATED="1"), ("--hold-out", "4"))
    train, *tests = (f"CDC/vit_b16 dtd seed 1: {part}" for part in ("train_base", "test_base", "test_new"))
    fitted = "CDC/vit_b16 dtd seed 1: calibration of train_base"
    assert set(runs) == {train, fitted, *tests}
    assert runs[fitted].needs == (train,)
    assert [runs[test].needs for test in tests] == [(train, fitted)] * 2
    output = plan.answers.output
    folder = output / "base2new/train_base/dtd/shots_16/CDC/vit_b16/seed1"
    given = (str(folder), "--root", str(plan.answers.data), "--hold-out", "4")
    assert runs[fitted].task.arguments[-5:] == given
    assert runs[fitted].log != runs[train].log
    assert "calibrations that are fitted besides: 1" in say_states(plan)

    leave_training(output, Place("train_base", "dtd", 16, "CDC", "vit_b16", 1))
    assert runs_of_plan("base2new", wanted(("CDC",), CALIBRATED="1"))[1][fitted].needs == ()
    (folder / "calibration.json").touch()
    assert set(runs_of_plan("base2new", wanted(("CDC",), CALIBRATED="1"))[1]) == set(tests)
    os.utime(folder / "calibration.json", ns=(1, 1))  # of an older model
    assert fitted in runs_of_plan("base2new", wanted(("CDC",), CALIBRATED="1"))[1]
    # CALIBRATED=1 alone takes what is there
    assert set(runs_of_plan("base2new", wanted(("CDC",), CALIBRATED="1"), None)[1]) == set(tests)


@pytest.mark.parametrize(
    ("protocol", "first", "last"),
    [("base2new", "test_base", "test_new"), ("open_set", "test_base", "open_set"), ("xd", "test", "test")],
)
def test_what_trains_nothing_is_tested_before_its_calibration(wanted, protocol, first, last):
    plan, runs = runs_of_plan(protocol, wanted(("ZeroshotCLIP",), CALIBRATED="1"))
    source = "imagenet" if protocol == "xd" else "dtd"
    own, other = (f"ZeroshotCLIP/vit_b16 {name} seed 1" for name in (source, "dtd"))
    before = f"{own}: {first} before calibration"
    (fitted,) = (name for name in runs if ": calibration of " in name)
    assert set(runs) == {before, fitted, f"{own}: {first}", f"{other}: {last}"}
    assert runs[fitted].needs == (before,)
    assert runs[f"{own}: {first}"].needs == runs[f"{other}: {last}"].needs == (fitted,)
    assert "CALIBRATED" not in runs[before].task.environment
    assert runs[f"{other}: {last}"].task.environment["CALIBRATED"] == "1"
    (place,) = plan.uncalibrated
    write_results(plan.answers.output / place.folder)
    assert before not in runs_of_plan(protocol, wanted(("ZeroshotCLIP",), CALIBRATED="1"))[1]


def test_open_set_is_finished_with_all_its_far_sets(wanted):
    wish = wanted(("CDC",), ("digits",))
    steps, answers = plan_steps("open_set", wish)
    test = steps[-1]
    assert dict(test.variables) == {"FAR": "symbols textures"}
    leave_training(answers.output, test.trained)
    for figures, finished in (
        ({}, False),
        ({"symbols/images": 1.0}, False),
        ({"symbols/images": 1.0, "textures/images": 1.0}, True),
    ):
        folder = answers.output / test.place.folder
        folder.mkdir(parents=True, exist_ok=True)
        (folder / "results.json").write_text(json.dumps({"figures": figures}, indent=1))
        assert (look([test], answers.output)[test.place.folder] == FINISHED) == finished
        assert call_finished(test, wish, answers) == finished
    steps, _ = plan_steps("open_set", wanted(FAR="eurosat"))
    assert dict(steps[-1].variables) == {"FAR": "eurosat"}
    steps, _ = plan_steps("open_set", wanted(datasets=("eurosat",)))
    assert dict(steps[-1].variables) == {"FAR": ""}  # no other set is there


def test_expected_time_is_that_of_the_same_run_with_another_seed_or_of_other_sets(wanted):
    steps, answers = plan_steps("base2new", wanted(datasets=("dtd", "imagenet", "food101"), seeds=(1, 2)))
    by = {(step.place.dataset, step.place.seed, step.place.kind): step for step in steps}
    finished = by["dtd", 1, "train_base"]
    leave_training(answers.output, finished.place)
    write_results(answers.output / finished.place.folder, train_seconds=90.0, test_seconds=10.0)
    states = look(steps, answers.output)
    seconds = expected(steps, states, answers.output)
    assert finished.place.folder not in seconds
    assert seconds[by["dtd", 2, "train_base"].place.folder] == START + 100.0
    other = by["imagenet", 1, "train_base"]
    assert seconds[other.place.folder] == pytest.approx(START + 100.0 * size(other) / size(finished))
    assert seconds[by["dtd", 1, "test_new"].place.folder] is None
    heavy = weights(steps, seconds)
    first = max(heavy, key=lambda folder: heavy[folder])
    assert first in (by["imagenet", seed, "train_base"].place.folder for seed in (1, 2))
    assert size(by["imagenet", 1, "test_new"]) > size(by["food101", 1, "test_new"]) > size(by["dtd", 1, "test_new"])

    (answers.output / finished.place.folder / "results.json").write_text("{")
    assert set(expected(steps, states, answers.output).values()) == {None}


def test_words_of_a_plan(wanted):
    wish = wanted(seeds=(1, 2))
    plan = make_plan("base2new", wish)
    leave_training(plan.answers.output, plan.steps[0].place, finished=False)
    plan = make_plan("base2new", wish)
    assert say_states(plan) == [
        "4 runs: 0 have finished, 1 will go on, 3 are new",
        "will go on: CDC/vit_b16 dtd: train_base of seed 1",
        "new: CDC/vit_b16 dtd: test_new of seed 1 2; train_base of seed 2",
    ]
    assert say_time([]) == "nothing is left to run"
    assert "nothing tells how long" in say_time([None])
    assert say_time([3600.0, 61.0, None]) == (
        "left: about 1:01:01, as training and tests of finished runs took, with 10 s for the start of each program; "
        "nothing tells of 1 further runs"
    )


def test_runs_for_the_engine(wanted):
    wish = wanted(seeds=(1,), settings=("OPTIM.LR", "0.1"))
    plan = make_plan("base2new", wish)
    training, test = plan.runs()
    assert test.needs == (training.name,)
    assert training.name == "CDC/vit_b16+OPTIM.LR=0.1 dtd seed 1: train_base"
    assert training.log == plan.answers.output / "sweep" / plan.steps[0].place.folder.with_name("seed1.log")
    leave_training(plan.answers.output, plan.steps[0].place)
    (left,) = make_plan("base2new", wish).runs()
    assert (left.name, left.needs) == (test.name, ())


def test_a_thousand_runs_are_planned_at_once(wanted):
    """With their scripts asked once: processor time, as others may use this machine."""
    trainers = sorted(path.name for path in (ROOT / "configs/trainers").iterdir())
    started = time.process_time()
    plan = make_plan("base2new", wanted(trainers, SETS, tuple(range(1, 1 + 1000 // (len(trainers) * 20)))))
    runs = plan.runs()
    assert isinstance(plan, Plan)
    assert len(runs) > 900
    assert time.process_time() - started < 2


def test_every_protocol_has_its_defaults():
    assert set(PROTOCOLS) == {*NAMES} == {*LAYOUT}
    text = (ROOT / "scripts/cdc/base2new_all.sh").read_text()
    listed = text.split("DATASETS:-")[1].split("}")[0].replace("\\", " ").split()
    assert listed == [*SETS]
    assert "for shots in ${SHOTS:-1 2 4 8 16}" in (ROOT / "scripts/cdc/fewshot.sh").read_text()
    assert SHOTS == (1, 2, 4, 8, 16)
