"""The study's plan: what is tested has been trained, no two settings share a folder, sections run apart."""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path

import pytest
from dassl.engine import build_trainer
from dassl.utils import set_random_seed

from tools.common.layout import parse
from tools.study import methods
from tools.study.methods import (
    ABLATED,
    ABLATION,
    CDC,
    CONFOUNDED,
    HARDER,
    METHODS,
    ONE,
    PIECES,
    SETS,
    Method,
    banked,
    cdc,
    settings_of,
)
from tools.study.plan import CALIBRATED, full, left, quick
from tools.study.run import write_data_sets
from tools.study.sections import SECTIONS
from tools.sweep.experiment import Experiment, configure, runs_of

PLANS = [full, quick]
VIEWS = [["normalize"], ["gaussian_blur", "normalize"]] * 2


@pytest.mark.parametrize("only", [[], *([name] for name in SECTIONS)])
@pytest.mark.parametrize("plan", PLANS)
def test_what_is_tested_has_been_trained_before(plan, only, tmp_path):
    """In every section by itself too."""
    done = set()
    everything = []
    for experiment in plan(tmp_path).experiments(only):
        assert experiment.tested is None or experiment.tested in done
        done.update(experiment.folders)
        everything += experiment.folders
    assert everything
    assert len(set(everything)) == len(everything)


def test_what_is_kept_is_not_run_again_unless_it_is_tested(tmp_path):
    """A kept training is done again for a test of it that is not kept, in the order of the plan."""
    plan = quick(tmp_path)
    runs = plan.experiments(["base2new"])
    base, new = (plan.half(CDC, "shapes", 1, part) for part in ("base", "new"))
    every = {folder for run in runs for folder in run.folders}
    assert left(runs, set()) == runs
    assert left(runs, every) == []
    assert [run.folder for run in left(runs, every - {new})] == [base, new]
    assert [run.folder for run in left(runs, every - {base})] == [base]

    for folder in (base, new):  # both are here: the training is not done again, and what is kept and here is checked
        folder.mkdir(parents=True)
        (folder / "results.json").write_text("{}")
    assert [run.folder for run in left(runs, every)] == [base, new]
    (base / "results.json").unlink()
    assert [run.folder for run in left(runs, every - {new})] == [new]

    curves = plan.experiments(["curves"])
    (test,) = (run for run in curves if run.folders[0] == plan.half(methods.at_epoch(methods.CURVES[0], 1), *EPOCHS))
    kept = {folder for run in curves for folder in run.folders} - {test.folders[1]}
    assert [run.folder for run in left(curves, kept)] == [test.tested, test.folder]

    calibration = plan.experiments(["calibration"])  # of what needs no training it is fitted in the folder of the run
    test = next(run for run in calibration if run.tested is None and run.calibrated)
    kept = {folder for run in calibration for folder in run.folders} - {test.folder}
    assert [run.folder for run in left(calibration, kept)] == [test.calibrated, test.folder]


EPOCHS = ("digits", 1, "new")


@pytest.mark.parametrize("plan", PLANS)
def test_runs_lie_where_tables_look_for_them(plan, tmp_path):
    for run in plan(tmp_path).experiments():
        for folder in run.folders:
            top = tmp_path / CALIBRATED
            place = parse(folder.relative_to(top if folder.is_relative_to(top) else tmp_path))
            assert place
            assert (place.dataset, place.trainer, place.seed) == (run.dataset, run.trainer, run.seed)
            assert (place.shots, place.classes) == (run.settings["DATASET.NUM_SHOTS"], run.classes)


def test_plan_keeps_settings_apart(tmp_path):
    """A folder has one run and a run's settings one folder, and all templates of a run have a start and views."""
    by_settings: dict[str, set[Path]] = {}
    by_folder: dict[Path, set[str]] = {}
    plan = full(tmp_path)
    for run in (run for name in SECTIONS for run in plan.section(name, 1)):
        if run.tested is None:
            known = {**settings_of(run.trainer, run.config), **run.settings}
            what = [run.trainer, run.config, run.dataset, run.classes, run.train, run.calibrated]
            key = json.dumps([*what, known], default=str)
            by_settings.setdefault(key, set()).add(run.folder)
            by_folder.setdefault(run.folder, set()).add(key)
        if run.trainer == "CDC":
            options = {**settings_of("CDC", run.config), **run.settings}
            number = options["TRAINER.CDC.N_TEMPLATES"]
            assert len(options["TRAINER.CDC.CTX_INIT"]) in (1, number)
            assert len(options["TRAINER.CDC.AUGMENTATIONS"]) in (0, number)
    assert {len(folders) for folders in by_settings.values()} == {1}
    assert {len(settings) for settings in by_folder.values()} == {1}


def test_sections_come_in_order_and_in_each_seed_by_seed(tmp_path):
    plan = replace(quick(tmp_path), seeds=(1, 2))
    both = plan.experiments()
    assert both[: len(plan.experiments(["base2new"]))] == plan.experiments(["base2new"])
    seeds = [run.seed for run in plan.experiments(["ablation"])]
    assert seeds == sorted(seeds)
    asked = plan.experiments(["confounded", "base2new"])
    assert [run.classes == "all" for run in asked] == sorted(run.classes == "all" for run in asked)
    with pytest.raises(ValueError, match=r"sections base2new, .* got base"):
        plan.experiments(["base"])


def test_a_run_that_two_sections_need_comes_once(tmp_path):
    plan = full(tmp_path)
    folder = plan.half(CDC, "shapes", 1, "base")
    assert folder in [run.folder for run in plan.experiments(["base2new"])]
    assert folder in [run.folder for run in plan.experiments(["cost"])]
    assert [run.folder for run in plan.experiments(["base2new", "cost"])].count(folder) == 1


def test_what_no_seed_changes_is_run_once(tmp_path):
    plan = replace(full(tmp_path), seeds=(3, 4))
    zero_shot = [run for run in plan.experiments() if run.trainer == "ZeroshotCLIP"]
    assert {run.seed for run in zero_shot} == {1}
    assert len({run.folder for run in zero_shot}) == len(zero_shot)
    starts = [run for run in plan.experiments(["ablation"]) if run.folder.parent.name == "tiny+start"]
    assert {run.seed for run in starts} == {3, 4}  # deep prompts start at random
    assert not any(run.train for run in starts)


def test_long_trainings_have_four_times_the_epochs_and_nothing_else():
    for long, short in ((methods.LONG_MAPLE, methods.MAPLE), (methods.LONG_ONE, methods.ONE)):
        assert (long.trainer, long.config) == (short.trainer, short.config)
        known = settings_of(short.trainer, short.config)
        settings, others = ({**known, **method.settings} for method in (long, short))
        changed = {key for key in settings if settings[key] != others.get(key)}
        assert changed == {"OPTIM.MAX_EPOCH"}
        assert settings["OPTIM.MAX_EPOCH"] == 4 * others["OPTIM.MAX_EPOCH"]


def test_every_method_is_in_base_to_new(tmp_path):
    runs = {(run.trainer, run.config) for run in full(tmp_path).experiments(["base2new"])}
    others = {
        "ZeroshotCLIP",
        "ZeroshotCLIP2",
        "CLIPICM",
        "CoOp",
        "CoCoOp",
        "KgCoOp",
        "TCP",
        "MaPLe",
        "PromptSRC",
        "MMRL",
    }
    kinds = {("CDC", f"tiny{kind}") for kind in ("", "_text", "_independent", "_self_regulated")}
    assert runs == kinds | {(trainer, "tiny") for trainer in others}


def test_probe_is_tested_on_the_classes_that_it_knows_alone(tmp_path):
    plan = full(tmp_path)
    runs = [run for run in plan.experiments() if "TRAINER.CLIPICM.PREDICTION" in run.settings]
    assert {run.classes for run in runs} == {"all"}
    tested = {run.dataset for run in runs if run.tested is not None}
    assert tested == {"shapes", *plan.variants}
    assert {run.dataset for run in runs if run.tested is not None and not run.calibrated} == set(plan.variants)
    assert {run.dataset for run in runs if run.tested is None} == {"shapes", *plan.confounded}


# ---- calibration


@pytest.mark.parametrize("plan", PLANS)
def test_calibrations_are_fitted_on_trained_classes_once(plan, tmp_path):
    """By the first test that uses one; the others wait for it, so that no two processes write the same file."""
    experiments = plan(tmp_path).experiments()
    by_folder = {run.folder: run for run in experiments}
    needs = {run.name: set(run.needs) for run in runs_of(experiments, tmp_path, tmp_path)}
    fitting: dict[Path, str] = {}
    for test in (run for run in experiments if run.calibrated):
        run = by_folder[test.calibrated]
        assert run.calibrated is None
        assert (run.trainer, run.config, run.seed) == (test.trainer, test.config, test.seed)
        assert run.classes == ("all" if test.classes == "all" else "base")
        assert test.tested == (run.folder if run.train else None)
        assert run.dataset == (test.dataset if test.classes != "all" else "shapes")
        name, fitted = (folder.relative_to(tmp_path).as_posix() for folder in (test.folder, run.folder))
        first = fitting.setdefault(test.calibrated, name)
        assert needs[name] == {fitted, first} - {name}
    assert fitting


def test_tests_after_calibration_are_of_every_method_set_and_seed(tmp_path):
    plan = replace(full(tmp_path), seeds=(1, 2))
    tests = [run for run in plan.experiments(["calibration"]) if run.calibrated]
    of_all = ("shapes", *plan.variants)
    expected = [
        (method.run_config, method.trainer, dataset, seed, classes)
        for method in (*METHODS, methods.PROBE)
        for seed in (plan.seeds if method.seeded else (1,))
        for datasets, classes in ((SETS, "base"), (SETS, "new"), (of_all, "all"))
        for dataset in (datasets if classes == "all" or method in METHODS else ())
    ]
    places = [parse(run.folder.relative_to(tmp_path / CALIBRATED)) for run in tests]
    found = [(place.config, place.trainer, place.dataset, place.seed, place.classes) for place in places]
    assert sorted(found) == sorted(expected)
    for run in tests:
        assert run.settings.get("TEST.OPEN_SET", False) == (run.classes == "base")
        far = [Path(path).stem for path in run.settings.get("TEST.FAR_SETS", ())]
        assert far == [name for name in methods.FAR_SETS if run.settings.get("TEST.OPEN_SET") and name != run.dataset]
        assert run.dataset in plan.data_sets
    assert set(methods.FAR_SETS) <= set(plan.data_sets)  # which are painted before


def test_averaged_cdc_is_a_test_of_cdcs_models(tmp_path):
    """Beside each of its tests with calibration, with two other options, and without calibration."""
    plan = replace(full(tmp_path), seeds=(1, 2))
    runs = plan.experiments(["calibration"])
    of_cdc = [run for run in runs if run.calibrated and (run.trainer, run.config) == ("CDC", "tiny")]
    averaged = [run for run in runs if run.settings.get("TRAINER.CDC.FUSION") == "averaging"]
    assert len(averaged) == len(of_cdc) == 2 * (2 * len(SETS) + 1 + len(plan.variants))
    for run, other in zip(averaged, of_cdc):
        assert run.tested
        settings = {**other.settings, **methods.AVERAGED.settings}
        assert run == replace(other, folder=run.folder, calibrated=None, settings=settings)


def test_a_row_that_would_be_cdc_again_is_left_out():
    """The config's own views are those of CDC as it is."""
    assert [m.title for m in methods.ABLATION if m.run_config == "tiny"] == ["all: CDC"]
    own = [title for title, pieces, sets in methods.REGIMES if not sets and not cdc("", *pieces).settings]
    assert own == ["as configured"]


def test_parts_differ_by_what_their_rows_say():
    mean = set(PIECES["mean"]) - {"EVIDENCE_SCALE"}
    of_cdc = [part for part in methods.PARTS if methods.MAPLE not in part]
    for title, one, other in of_cdc:
        known = settings_of("CDC", "tiny")
        changed = {
            key.removeprefix("TRAINER.CDC.")
            for key in {*one.settings, *other.settings}
            if {**known, **one.settings}[key] != {**known, **other.settings}[key]
        }
        losses = {"BETA", "GAMMA"}
        expected = {
            "four templates in place of one": {"N_TEMPLATES"},
            "DSTC (evidence, fusion, loss (7)) for four templates": {"DECISION"},
            "VSD (own views, losses (2) and (3)) for four templates": losses,
            "DSTC beside VSD": {"DECISION"},
            "VSD beside DSTC": losses,
            "of VSD: diversity loss (2)": {"BETA"},
            "of VSD: consistency loss (3)": {"GAMMA"},
            "of VSD: both losses": losses,
            "of VSD: mild views in place of plain pictures": {"AUGMENTATIONS"},
            "DSTC and VSD together, for four templates": losses | {"DECISION"},
            "all of it: CDC in place of one template": losses | {"DECISION", "N_TEMPLATES"},
            "besides: CLIP-ICM's map (9)": {"INVARIANT_MAP.ENABLED"},
        }[title]
        # Views and the scale of the evidence belong to VSD and DSTC where the config has some of its own
        assert expected <= changed, title
        assert changed <= expected | {"AUGMENTATIONS"} | (
            mean | {"EVIDENCE_SCALE"} if "DECISION" in expected else set()
        )


def test_curves_are_of_longer_trainings_than_the_configs():
    """More epochs than CDC and MaPLe have elsewhere by far: base is to rise and new to fall, if they ever do."""
    for method in methods.CURVES:
        times = 1 if method.trainer == "CoOp" else 3
        assert times * settings_of(method.trainer, "tiny")["OPTIM.MAX_EPOCH"] <= methods.LONG
        frequency = method.settings["TRAIN.CHECKPOINT_FREQ"]
        assert [epoch for epoch in methods.CURVE_EPOCHS if epoch % frequency and epoch != methods.LONG] == []


# ---- pieces of CDC's settings


def test_pieces_name_the_folder_in_one_order():
    assert cdc("", "gamma0", "m1", "beta0") == cdc("", "m1", "beta0", "gamma0")
    assert cdc("", "gamma0", "m1", "beta0").run_config == "tiny+m1-beta0-gamma0"
    with pytest.raises(ValueError, match=r"pieces are m1, .* got gamma1"):
        cdc("", "gamma1")


def test_a_piece_that_the_config_has_already_names_nothing(monkeypatch):
    """Else a setting that a search has found would be trained again under another name, or two under one."""
    assert cdc("", "m4") == replace(CDC, title="")
    monkeypatch.setitem(methods.CONFIGURED, "TRAINER.CDC.BETA", 0.0)
    assert cdc("", "beta0").run_config == "tiny"
    assert cdc("", "beta0", "gamma0").run_config == "tiny+gamma0"
    monkeypatch.setitem(methods.CONFIGURED, "TRAINER.CDC.AUGMENTATIONS", [])
    assert cdc("", "plain").run_config == "tiny"
    assert cdc("", "mild").run_config == "tiny+mild"


@pytest.mark.parametrize("pieces", [(name,) for name in PIECES])
def test_trainers_take_every_piece(pieces, tmp_path):
    method = cdc("", *pieces)
    run = Experiment("CDC", "tiny", "shapes", 1, "base", tmp_path, method.settings)
    _, cfg = configure(run, tmp_path)
    for key, value in method.settings.items():
        node = cfg
        for name in key.split("."):
            node = node[name]
        assert node == value


# ---- banks of features


@pytest.mark.parametrize(
    ("method", "bank"),
    [
        (methods.COOP, {"TRAINER.COOP.FEATURE_BANK": 1}),
        (replace(methods.COOP, settings={"INPUT.TRANSFORMS": ["random_flip", "normalize"]}), "epochs"),
        (replace(methods.COOP, settings={"TRAINER.COOP.FEATURE_BANK": 3}), {}),
        (replace(methods.TEXT_ONLY, settings={"TRAINER.CDC.AUGMENTATIONS": VIEWS}), "epochs"),
        (replace(methods.TEXT_ONLY, settings={"TRAINER.CDC.AUGMENTATIONS": []}), {"TRAINER.CDC.FEATURE_BANK": 1}),
        (CDC, {}),
        (methods.MAPLE, {}),
        (methods.ZERO_SHOT, {}),
        (Method("", "KgCoOp"), {"TRAINER.KGCOOP.FEATURE_BANK": 1}),
    ],
)
def test_a_bank_holds_the_views_that_a_training_sees(method, bank, monkeypatch):
    known = {
        **settings_of(method.trainer, method.config),
        "INPUT.TRANSFORMS": ["normalize"],
        "OPTIM.MAX_EPOCH": 7,
    }
    if f"TRAINER.{method.trainer.upper()}.FEATURE_BANK" in known:
        known[f"TRAINER.{method.trainer.upper()}.FEATURE_BANK"] = 0
    monkeypatch.setattr(methods, "settings_of", lambda trainer, config: known)
    expected = {f"TRAINER.{method.trainer.upper()}.FEATURE_BANK": 7} if bank == "epochs" else bank
    assert banked(method) == expected


def test_a_bank_that_a_search_has_found_is_kept(monkeypatch):
    known = {**settings_of("CoOp", "tiny"), "TRAINER.COOP.FEATURE_BANK": 10}
    monkeypatch.setattr(methods, "settings_of", lambda trainer, config: known)
    assert banked(methods.COOP) == {}


# ---- starts and ensembles


@pytest.fixture(scope="module")
def digits(tmp_path_factory):
    data = tmp_path_factory.mktemp("data")
    write_data_sets(["digits"], data)
    return data


def trainer_of(data, folder, number, **options):
    settings = {f"TRAINER.CDC.{key}": value for key, value in options.items()}
    settings.update({"TRAINER.CDC.N_TEMPLATES": number, "TRAINER.CDC.AUGMENTATIONS": [], "DATASET.NUM_SHOTS": 2})
    _, cfg = configure(Experiment("CDC", "tiny", "digits", 1, "base", folder, settings), data)
    set_random_seed(1)
    return build_trainer(cfg)


def test_templates_of_other_words_start_apart(digits, tmp_path, capsys):
    """Words that differ in the tokens which learn alone do not: the next layer exchanges these."""
    words = PIECES["words"]["CTX_INIT"]
    learn = [" ".join(text.split()[:2] + words[0].split()[2:]) for text in words]
    as_configured, other, alike = (
        trainer_of(digits, tmp_path / str(index), 4, **options).model_metrics()["template_similarity"]
        for index, options in enumerate(({}, {"CTX_INIT": words}, {"CTX_INIT": learn}))
    )
    assert other < as_configured - 0.05
    assert alike > as_configured - 0.05


def test_regime_of_a_longer_training_is_the_end_of_the_curves(tmp_path):
    plan = full(tmp_path)
    ends = {plan.half(method, "turned", 1, part) for method in plan.regime(("epochs60",)) for part in ("base", "new")}
    assert {folder.parent.name for folder in ends} == {"tiny+epochs60+epoch60", "tiny+beta0-gamma0-epochs60+epoch60"}
    for section in ("regimes", "curves"):
        assert ends <= {folder for run in plan.section(section, 1) for folder in run.folders}
    assert plan.regime(("noise",)) == methods.regime(("noise",))


def test_starts_of_regimes_are_tested_as_they_are(tmp_path):
    """Where a regime changes the start, that start; else that of CDC."""
    runs = [run for run in full(tmp_path).section("regimes", 1) if not run.train]
    found = {(run.folder.parent.name, run.dataset, run.classes) for run in runs}
    starts = ("tiny+start", "tiny+words-start", "tiny+noise-start")
    ablated = {(name, dataset) for name in starts for dataset in ABLATED}
    harder = {("tiny+start", dataset) for dataset in (*CONFOUNDED, *HARDER)}
    assert found == {(*each, "base") for each in ablated | harder}
    assert all(run.settings["TRAINER.CDC.CTX_STD"] > 0 for run in runs if "noise" in run.folder.parent.name)


@pytest.mark.parametrize(
    ("options", "alone"),
    [
        ({"DECISION": "mean", "BETA": 0.0, "GAMMA": 0.0}, True),
        ({"BETA": 0.0, "GAMMA": 1.0}, True),
        ({"BETA": 1e6, "GAMMA": 0.0}, False),  # as its gradient is small where classes are far apart
    ],
)
def test_only_loss_2_ties_templates(options, alone, digits, tmp_path, capsys):
    """What the page says of an ensemble: without (2), templates that train together are what each becomes alone."""
    together = trainer_of(digits, tmp_path / "two", 2, **options)
    single = [trainer_of(digits, tmp_path / f"one{m}", 1, **options) for m in range(2)]
    own = together.model.prompt_learner.templates
    for m, trainer in enumerate(single):
        trainer.model.prompt_learner.templates[0].load_state_dict(own[m].state_dict())
    start = [{name: tensor.clone() for name, tensor in template.state_dict().items()} for template in own]
    batches = [batch for _, batch in zip(range(3), together.dm.train_loader_x)]
    for trainer in (together, *single):
        trainer.set_model_mode("train")
        for group in trainer.optim.param_groups:
            group["lr"] = 0.02
        for trainer.batch_idx, batch in enumerate(batches):
            trainer.num_batches, trainer.epoch = 10, 1
            trainer.forward_backward(batch)
    far = moved = 0.0
    for m, trainer in enumerate(single):
        found = trainer.model.prompt_learner.templates[0].state_dict()
        for name, tensor in own[m].state_dict().items():
            far = max(far, float((tensor - found[name]).abs().max()))
            moved = max(moved, float((tensor - start[m][name]).abs().max()))
    assert moved > 0.1
    assert far < 1e-6 if alone else far > 5e-5


def test_more_seeds_are_those_of_two_methods_and_of_parts(tmp_path):
    plan = full(tmp_path)
    runs = plan.experiments(["seeds"])
    two = {("CDC", "tiny"), ("MaPLe", "tiny")}
    own = {dataset: {each.folder.parts[-3:-1] for each in runs if each.dataset == dataset} for dataset in plan.sets}
    assert {dataset for dataset, found in own.items() if found == two} == set(plan.sets) - set(plan.ablated)
    parts = {("CDC", method.run_config) for method in ABLATION} - {("CDC", ONE.run_config)}
    assert all(own[dataset] == two | parts for dataset in plan.ablated)
    assert {run.seed for run in runs if run.folder.parts[-3:-1] in parts - two} == set(plan.parts_seeds)
    assert set(plan.parts_seeds) < set(plan.more_seeds)
    assert {run.seed for run in runs} == set(plan.more_seeds)
    assert not set(plan.seeds) & set(plan.more_seeds)
    assert {run.dataset for run in runs} == set(plan.sets)
    everything = {run.folder for run in plan.experiments()}
    assert all(run.folder in everything for run in runs)
    assert not any(run.seed in plan.more_seeds for run in plan.experiments(["base2new", "transfer"]))
