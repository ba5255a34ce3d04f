"""The space of a search: what its file may say, and that every trainer's own fits its configs."""

from __future__ import annotations

import pytest

from helpers import ROOT
from tools.search.plan import Search, start_config
from tools.search.smaller import Smaller
from tools.search.space import read_space

SIZES = {"layers": 12, "width": 512}
SPACES = sorted(path.stem for path in (ROOT / "configs" / "search").glob("*.yaml"))
TRAINERS = ["CDC", "CLIPICM", "CoCoOp", "CoOp", "KgCoOp", "MMRL", "MaPLe", "PromptSRC", "TCP"]


def config(trainer="CDC", name="tiny_text", **settings):
    given = {key.replace("__", "."): value for key, value in settings.items()}
    return start_config(trainer, name, "shapes", Smaller(ROOT), given)


@pytest.fixture(scope="module")
def cfg():
    return config(OPTIM__LR=0.03, OPTIM__MAX_EPOCH=10, TRAINER__CDC__GAMMA=1.0)


@pytest.fixture
def read(tmp_path, cfg):
    def read(text, own=cfg):
        path = tmp_path / "space.yaml"
        path.write_text(text)
        return read_space(path, own, lambda: SIZES)

    return read


def only(space):
    (parameter,) = space.parameters
    return parameter


def test_numbers_and_their_scales(read):
    parameter = only(read("OPTIM.LR: {times: [0.1, 10]}"))
    assert (parameter.low, parameter.high) == pytest.approx((0.003, 0.3))
    assert (parameter.log, parameter.whole, parameter.own) == (True, False, 0.03)
    parameter = only(read("OPTIM.MAX_EPOCH: {times: [0.25, 2]}"))
    assert (parameter.low, parameter.high, parameter.whole, parameter.own) == (2, 20, True, 10)
    parameter = only(read("OPTIM.MAX_EPOCH: {low: 3, high: 20, step: 4}"))
    assert (parameter.low, parameter.high, parameter.step, parameter.own) == (3, 19, 4, None)
    parameter = only(read("TRAINER.CDC.GAMMA: {low: 0.0, high: 1.05, step: 0.1}"))
    assert (parameter.high, parameter.own) == (pytest.approx(1.0), 1.0)
    assert only(read("OPTIM.LR: {low: 1e-5, high: 1e-1, log: true}")).low == 1e-5  # a text to YAML
    parameter = only(read("TRAINER.CDC.PROMPT_DEPTH: {low: 1, high: layers - 1}"))
    assert parameter.high == 11


def test_choices_and_what_stands_for_the_config(read):
    space = read("TRAINER.CDC.EVIDENCE: {choices: [exp, softplus]}")
    assert only(space).own == "exp"
    assert space.settings({"TRAINER.CDC.EVIDENCE": "softplus"}) == {"TRAINER.CDC.EVIDENCE": "softplus"}
    space = read("INPUT.TRANSFORMS: {choices: {config: , plain: [normalize], crops: [random_resized_crop, normalize]}}")
    assert only(space).choices == ("config", "crops")  # the config has plain pictures
    assert space.own() == {"INPUT.TRANSFORMS": "config"}
    assert space.settings({"INPUT.TRANSFORMS": "config"}) == {}
    assert space.settings({"INPUT.TRANSFORMS": "crops"}) == {"INPUT.TRANSFORMS": ["random_resized_crop", "normalize"]}
    assert only(read("TRAINER.CDC.N_CTX: {choices: [4, width / 8]}")).choices == (4, 64)


def test_one_choice_holds_for_all_trials_and_when_looks_at_the_config(read):
    text = """
        TRAINER.CDC.FEATURE_BANK: {choices: [10], when: {TRAINER.CDC.PROMPT: text}}
        TRAINER.CDC.PROMPT_DEPTH: {low: 1, high: layers, when: {TRAINER.CDC.PROMPT: [coupled, independent]}}
        OPTIM.LR: {times: [0.1, 10]}
    """
    space = read(text)
    assert (space.fixed, [p.name for p in space.parameters]) == ({"TRAINER.CDC.FEATURE_BANK": 10}, ["LR"])
    assert space.settings({"OPTIM.LR": 0.1}) == {"TRAINER.CDC.FEATURE_BANK": 10, "OPTIM.LR": 0.1}
    space = read(text, config(name="tiny"))
    assert (space.fixed, [p.name for p in space.parameters]) == ({}, ["PROMPT_DEPTH", "LR"])


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "must have a line for each key"),
        ("[1", "is no YAML"),
        ("OPTIM.LR: {times: [1, 2]}\nOPTIM.LR: {times: [1, 3]}", "OPTIM.LR stands there twice"),
        ("OPTIM.LRR: {times: [1, 2]}", "OPTIM.LRR is no key of this trainer's config"),
        ("TRAINER.COOP.N_CTX: {low: 1, high: 2}", "TRAINER.COOP.N_CTX is no key of this trainer's config"),
        ("OPTIM: {low: 1, high: 2}", "OPTIM is a node of the config"),
        ("OPTIM.LR: 0.1", "OPTIM.LR must be {times: ...}"),
        ("OPTIM.LR: {low: 1}", "must have times, or low and high, or choices, got low"),
        ("OPTIM.LR: {low: 1, high: 2, choices: [1]}", "must have times, or low and high, or choices"),
        ("OPTIM.LR: {low: 1, high: 2, lgo: true}", "takes times, low, high, log, step, choices, when, got lgo"),
        ("OPTIM.LR: {low: 2, high: 1}", "must have a low below its high, got 2 and 1"),
        ("OPTIM.LR: {low: 0, high: 1, log: true}", "must be above 0 and without step on a logarithmic scale"),
        ("OPTIM.LR: {low: 0, high: 1, log: 3}", "must have true or false as log, got 3"),
        ("OPTIM.LR: {low: 0, high: 1, step: -1}", "must have a step above 0, got -1"),
        ("OPTIM.LR: {low: some, high: 1}", "must have numbers, or layers or width, got 'some'"),
        ("OPTIM.LR: {low: .nan, high: 1}", "must have numbers, or layers or width, got nan"),
        ("OPTIM.LR: {times: [2]}", r"must have \[least, most\] as times"),
        ("TRAINER.CDC.KL_WEIGHT: {times: [1, 2]}", "a number above 0 in the config, got .* and 0.0"),
        ("OPTIM.MAX_EPOCH: {low: 1.5, high: 3}", "is a whole number, and so must be low, high and step"),
        ("OPTIM.NAME: {low: 1, high: 3}", "OPTIM.NAME is no number in the config, where it is 'sgd'"),
        ("OPTIM.NAME: {choices: []}", "must have a list of choices"),
        ("OPTIM.NAME: {choices: [sgd, sgd]}", "has a choice twice"),
        ("OPTIM.NAME: {choices: [[sgd], adam]}", "or names for others"),
        ("OPTIM.NAME: {choices: [sgd, adam], log: true}", "has choices, of which there is no log"),
        ("OPTIM.LR: {times: [1, 2], when: text}", "must have keys and values as when"),
        ("OPTIM.LR: {times: [1, 2], when: {OPTIM.LRR: 1}}", "OPTIM.LR has OPTIM.LRR in when, which is no key"),
        ("OPTIM.LR: {choices: [0.1]}", "nothing in it is to be varied for this config"),
    ],
)
def test_wrong_spaces_are_told(read, text, message):
    with pytest.raises(ValueError, match=message):
        read(text)


def test_all_that_is_wrong_is_told_at_once(read):
    with pytest.raises(ValueError, match=r"space.yaml: OPTIM.LRR is no key .*; OPTIM.LR must have a low"):
        read("OPTIM.LRR: {low: 1, high: 2}\nOPTIM.LR: {low: 2, high: 1}")


@pytest.mark.parametrize("trainer", TRAINERS)
def test_every_trainer_has_a_space_that_fits_its_configs(trainer):
    assert trainer in SPACES
    configs = sorted(path.stem for path in (ROOT / "configs" / "trainers" / trainer).glob("*.yaml"))
    for name in configs:
        own = config(trainer, name)
        sizes = {"layers": 4, "width": 128} if name.startswith("tiny") else SIZES
        space = read_space(ROOT / "configs" / "search" / f"{trainer}.yaml", own, lambda sizes=sizes: sizes)
        assert space.parameters
        own_lacks = {parameter.key for parameter in space.parameters} - set(space.own())
        assert not own_lacks, f"{name} has no value of {own_lacks} in the space"
        if name.startswith("tiny"):
            smaller = {"shapes": Smaller(ROOT)}
            search = Search(trainer, name, smaller, (1,), ROOT / "no_such_folder", space)
            assert search.edge_problems() == []
