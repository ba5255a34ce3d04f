"""Trained prompts as one file: what is in it, that it serves as its run does, and wrong files."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

import pytest
import torch
from safetensors import safe_open
from safetensors.torch import save_file

from helpers import ROOT, results_of
from tools.calibrate.__main__ import main as calibrate
from tools.export import share
from tools.export.__main__ import main
from tools.predict import Predictor
from tools.predict.__main__ import main as predict
from trainers.modules.sharing import find_shared, read_shared, write_shared
from trainers.modules.tensor_file import write_tensor_file

TWO = ("TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.EVIDENCE_SCALE", 10.0)
TEXT = (*TWO, "TRAINER.CDC.PROMPT", "text", "TRAINER.CDC.CTX_INIT", ["a photo of a", "one picture of a"])
COUPLED = (*TWO, "TRAINER.CDC.PROMPT", "coupled", "TRAINER.CDC.PROMPT_DEPTH", 2, "TRAINER.CDC.CTX_INIT", [])
VIEWS = ("TRAINER.CDC.AUGMENTATIONS", [["random_resized_crop", "normalize"], ["normalize"]])
METHODS = {
    "CDC text": ("CDC", (*TEXT, *VIEWS)),
    "CDC coupled": ("CDC", (*COUPLED, "TRAINER.CDC.CTX_STD", 0.02, *VIEWS)),
    "CDC invariant": ("CDC", (*TEXT, *VIEWS, "TRAINER.CDC.INVARIANT", True)),
    "CoOp": ("CoOp", ()),
    "CoCoOp": ("CoCoOp", ()),
    "MaPLe": ("MaPLe", ("TRAINER.MAPLE.PROMPT_DEPTH", 2)),
    "PromptSRC": ("PromptSRC", ("TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2)),
    "CLIPICM": ("CLIPICM", ()),
}


@pytest.fixture(scope="module")
def runs():
    return {}


@pytest.fixture
def run_of(runs, tmp_path_factory, build_run, data):
    """A run of a method, trained once."""

    def make(name):
        if name not in runs:
            trainer, options = METHODS[name]
            runs[name] = tmp_path_factory.mktemp("runs") / trainer
            build_run(trainer, runs[name], "OPTIM.MAX_EPOCH", 2, *options).train()
        return runs[name]

    return make


@pytest.fixture
def pictures(data):
    return sorted((data / "dtd" / "images").rglob("*.jpg"))


@pytest.mark.parametrize("name", METHODS)
def test_file_serves_as_its_run_does(run_of, pictures, tmp_path, capsys, name):
    """By its name, by a folder with it, and in train.py; under the run's classes and under others."""
    run, path = run_of(name), tmp_path / "shared" / "prompts.safetensors"
    assert main([str(run), "--output", str(path)]) == 0
    assert f"Written to {path}" in capsys.readouterr().out
    assert [each.name for each in path.parent.iterdir()] == ["prompts.safetensors"]
    expected, clip = Predictor(run)(pictures), results_of(run)["config"]["MODEL"]["BACKBONE"]["NAME"]
    for place in (path, path.parent):
        shared = Predictor(place, backbone=clip)
        assert shared.class_names == results_of(run)["class_names"]
        assert shared.trainer.tested_epoch == results_of(run)["epoch"]
        assert shared(pictures) == expected
    others = ["red", "yellow", "a dog"]
    assert Predictor(path, others, backbone=clip)(pictures) == Predictor(run, others)(pictures)
    assert path.stat().st_size < 400_000


def test_header_says_what_it_is(run_of, tmp_path):
    run, path = run_of("CDC text"), tmp_path / "cdc.safetensors"
    share.export(str(run), str(path))
    results = results_of(run)
    with safe_open(str(path), "pt") as file:
        texts = file.metadata()
        assert set(file.keys()) == {"ctx"}
        checkpoint = torch.load(run / "prompt_learner" / "model.pth.tar-2", weights_only=True)
        assert torch.equal(file.get_tensor("ctx"), checkpoint["state_dict"]["ctx"])
    assert set(texts) == {"cdc"}
    about = json.loads(texts["cdc"])
    for key in (
        "trainer",
        "class_names",
        "epoch",
        "backbone_sha256",
        "figures",
        "dataset",
        "shots",
        "seed",
        "trained_on",
    ):
        assert about[key] == results[key], key
    assert about["trained_on"] == {"dataset": "DescribableTextures", "classes": "base", "shots": 4, "seed": 1}
    assert about["config"]["TRAINER"]["CDC"] == results["config"]["TRAINER"]["CDC"]
    assert about["format"] == 1


def test_no_path_of_this_machine_is_in_it(run_of, tmp_path):
    run, path = run_of("CDC text"), tmp_path / "cdc.safetensors"
    share.export(str(run), str(path))
    content = path.read_bytes().decode("latin-1")
    config = results_of(run)["config"]
    assert config["DATASET"]["ROOT"]
    for private in (config["DATASET"]["ROOT"], str(run), str(Path(config["MODEL"]["BACKBONE"]["NAME"]).parent)):
        assert private not in content
    assert read_shared(path)[1]["backbone"] == "small.pt"


@pytest.mark.parametrize(
    ("name", "expected"),
    [
        ("ViT-B/16", "ViT-B/16"),
        ("weights/tiny_clip.pt.gz", "weights/tiny_clip.pt.gz"),
        (str(ROOT / "weights/tiny_clip.pt.gz"), "weights/tiny_clip.pt.gz"),
        ("/data/clip/ViT-B-16.pt", "ViT-B/16"),
        ("/data/clip/mine.pt", "mine.pt"),
        ("open_clip:ViT-B-16/laion2b_s34b_b88k", "open_clip:ViT-B-16/laion2b_s34b_b88k"),
        ("open_clip:ViT-B-16//data/ViT-B-16.pt", "open_clip:ViT-B-16/ViT-B-16.pt"),
        ("hf-hub:someone/clip", "hf-hub:someone/clip"),
        ("open_clip:hf-hub:someone/clip", "open_clip:hf-hub:someone/clip"),
        ("open_clip:local-dir:/data/clip/", "open_clip:local-dir:clip"),
        ("local-dir:clip", "local-dir:clip"),
    ],
)
def test_names_of_backbones_without_folders(name, expected):
    assert share.portable(name) == expected


def test_by_default_it_lies_in_the_run(run_of, tmp_path, pictures, capsys):
    """And the run is still the run."""
    run = tmp_path / "run"
    shutil.copytree(run_of("CoOp"), run)
    assert main([str(run)]) == 0
    assert (run / "model.safetensors").is_file()
    assert "CoOp of epoch 2, 2 classes, " in capsys.readouterr().out
    assert Predictor(run, epoch=1).trainer.tested_epoch == 1
    assert find_shared(run) == run / "model.safetensors"


def test_other_epoch(run_of, tmp_path, clip_files):
    """Its figures are not those of the test, so there are none."""
    run, path = run_of("CoOp"), tmp_path / "first.safetensors"
    share.export(str(run), str(path), epoch=1)
    about = read_shared(path)[1]
    assert (about["epoch"], about["figures"]) == (1, {})
    assert Predictor(path, backbone=str(clip_files["plain"])).trainer.tested_epoch == 1
    with pytest.raises(
        ValueError, match=r"first\.safetensors is not a checkpoint of this CoOp: it is of epoch 1, not 2$"
    ):
        Predictor(path, epoch=2, backbone=str(clip_files["plain"]))


def test_train_py_tests_it_and_starts_from_it(run_of, build_run, tmp_path):
    run, path = run_of("CoOp"), tmp_path / "coop.safetensors"
    share.export(str(run), str(path))
    tester = build_run("CoOp", tmp_path / "test")
    tester.load_model(str(path))
    assert tester.test() == results_of(run)["figures"]["accuracy"]
    results = results_of(tmp_path / "test")
    assert results["trained_on"] == results_of(run)["trained_on"]
    assert results["epoch"] == 2
    assert results["model_dir"] == str(path)
    started = build_run("CoOp", tmp_path / "more", "MODEL.INIT_WEIGHTS", str(path))
    assert torch.equal(started.model.prompt_learner.ctx, tester.model.prompt_learner.ctx)


def test_command_line_takes_it(run_of, data, tmp_path, clip_files, capsys):
    path = tmp_path / "cdc.safetensors"
    share.export(str(run_of("CDC text")), str(path))
    capsys.readouterr()
    arguments = [str(data / "dtd" / "images" / "blue"), "--backbone", str(clip_files["plain"])]
    assert predict(["--model-dir", str(path), *arguments]) == 0
    assert len(capsys.readouterr().out.splitlines()) == 11
    assert predict(["--model-dir", str(path), arguments[0]]) == 2
    told = capsys.readouterr().err
    assert "CLIP 'small.pt' is neither a file" in told
    assert told.endswith(f"; --backbone says where the CLIP of {path} is\n")


# ------------------------------------------------------------------------------------------------------- wrong files


def changed(path: Path, target: Path, tensors=(), **about) -> Path:
    """A shared file with other tensors and other entries of its header."""
    state, header = read_shared(path)
    write_tensor_file(target, {**state, **dict(tensors)}, {"cdc": json.dumps({**header, **about})})
    return target


@pytest.fixture
def shared(run_of, tmp_path):
    share.export(str(run_of("CDC text")), str(tmp_path / "cdc.safetensors"))
    return tmp_path / "cdc.safetensors"


def refused(build_run, place, match, *options, trainer="CDC"):
    """A run does not take the file, and has the parameters that it had."""
    own = options or ((*TEXT, *VIEWS) if trainer == "CDC" else ())
    run = build_run(trainer, place.parent / "run", *own)
    before = {name: value.clone() for name, value in run.learner.state_dict().items()}
    with pytest.raises(ValueError, match=match):
        run.load_model(str(place))
    assert all(torch.equal(value, before[name]) for name, value in run.learner.state_dict().items())
    assert (run.model_dir, run.trained_on, run.tested_epoch) == (None, None, 0)


def test_foreign_keys(build_run, shared, tmp_path):
    place = changed(shared, tmp_path / "more.safetensors", {"extra": torch.zeros(1)})
    refused(build_run, place, r"more\.safetensors is not a checkpoint of this CDC: it has extra, which is not known$")


def test_other_shapes(build_run, shared, tmp_path):
    place = changed(shared, tmp_path / "wide.safetensors", {"ctx": torch.zeros(2, 4, 65)})
    refused(build_run, place, r"has ctx of shape \(2, 4, 65\) where this run has \(2, 4, 64\)$")


def test_other_method(build_run, shared):
    refused(build_run, shared, r"cdc\.safetensors is not a checkpoint of this CoOp: it is one of CDC$", trainer="CoOp")


def test_config_of_the_other_kind(build_run, shared):
    match = r"was trained with PROMPT text, where this run has coupled; it .*has ctx, which is not known"
    refused(build_run, shared, match, *COUPLED, *VIEWS, "TRAINER.CDC.CTX_STD", 0.02)


def test_other_weights_of_clip(build_run, shared, tmp_path, other_clip, clip_files):
    run = build_run("CDC", tmp_path / "run", *TEXT, *VIEWS, backbone=other_clip)
    with pytest.raises(ValueError, match=r"cdc\.safetensors was made with other weights of CLIP"):
        run.load_model(str(shared))
    with pytest.raises(ValueError, match=r"cdc\.safetensors was made with other weights of CLIP"):
        Predictor(shared, backbone=str(other_clip))
    place = changed(shared, tmp_path / "digest.safetensors", backbone_sha256="0" * 64)
    with pytest.raises(ValueError, match=r"digest\.safetensors was made with other weights of CLIP \(SHA-256 000000"):
        Predictor(place, backbone=str(clip_files["plain"]))


@pytest.mark.parametrize(
    ("about", "match"),
    [
        ({"format": 2}, r"written by a newer version \(format 2, here 1\)"),
        ({"format": None}, "its header has no number of its format"),
        ({"epoch": "3"}, "in its header epoch must be a number"),
        ({"class_names": ["a", 3]}, "class_names must be texts that are not empty"),
        ({"class_names": "ab", "config": []}, "in its header config must be an object, class_names must be a list"),
        ({"config": {"TRAINER": {"NAME": "Nobody"}}}, "the trainer must be one of .*, got 'Nobody'"),
        ({"config": {"COLOUR": 1}}, "the config in the header of the file: .*COLOUR"),
    ],
    ids=range(7),
)
def test_wrong_headers(shared, tmp_path, clip_files, about, match):
    place = changed(shared, tmp_path / "wrong.safetensors", **about)
    with pytest.raises(ValueError, match=match):
        Predictor(place, backbone=str(clip_files["plain"]))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({}, "without the header that tools.export writes"),
        ({"cdc": "{"}, "its header is not JSON"),
        ({"cdc": "[" * 100_000}, "its header is not JSON"),
        ({"cdc": "[]"}, "its header has no number of its format"),
        ({"cdc": '{"format": 1}'}, "its header lacks trainer, config, class_names, epoch, backbone_sha256, figures"),
    ],
    ids=range(5),
)
def test_files_that_are_not_whole(tmp_path, content, match):
    path = tmp_path / "other.safetensors"
    save_file({"ctx": torch.zeros(2, 4, 64)}, path, content)
    with pytest.raises(ValueError, match=rf"other\.safetensors is not a whole checkpoint: .*{match}"):
        Predictor(path)


def test_damaged_and_missing_files(shared, tmp_path):
    (tmp_path / "cut.safetensors").write_bytes(shared.read_bytes()[:-10])
    with pytest.raises(
        ValueError, match=r"cut\.safetensors is not a whole checkpoint: it is a damaged safetensors file"
    ):
        Predictor(tmp_path / "cut.safetensors")
    with pytest.raises(ValueError, match=r"holds several files cdc\.safetensors, cut\.safetensors: name one"):
        Predictor(tmp_path)
    with pytest.raises(FileNotFoundError, match=r"nothing\.safetensors"):
        Predictor(tmp_path / "nothing.safetensors")
    (tmp_path / "page.safetensors").write_text("<html>")
    with pytest.raises(ValueError, match="a web page by its looks"):
        Predictor(tmp_path / "page.safetensors")


def test_a_header_that_lacks_something_is_not_written(tmp_path):
    with pytest.raises(ValueError, match="would not be a whole file of trained prompts: its header lacks trainer"):
        write_shared(tmp_path / "a.safetensors", {}, {"config": {}})
    assert not list(tmp_path.iterdir())


# ------------------------------------------------------------------------------------------------ runs that have none


@pytest.mark.parametrize("figures", [{"accuracy": 10**400, "ece": 1.0, "nll": "low"}, ["accuracy"], None])
def test_figures_that_are_no_numbers_are_left_out(run_of, tmp_path, figures):
    run = tmp_path / "run"
    shutil.copytree(run_of("CoOp"), run)
    (run / "results.json").write_text(json.dumps({**results_of(run), "figures": figures}))
    _, about = share.collect(run)
    assert about["figures"] == ({"ece": 1.0} if isinstance(figures, dict) else {})


def test_runs_that_cannot_be_exported(run_of, build_run, tmp_path, capsys):
    """One line each, and no file."""

    def told(*arguments) -> str:
        assert main([*map(str, arguments)]) == 2
        lines = capsys.readouterr().err.splitlines()
        assert len(lines) == 1
        return lines[0]

    run = tmp_path / "run"
    shutil.copytree(run_of("CoOp"), run)
    build_run("ZeroshotCLIP", tmp_path / "zero").test()
    capsys.readouterr()
    assert "is of ZeroshotCLIP, and only what CDC, " in told(tmp_path / "zero")
    assert "results.json is missing" in told(tmp_path / "nowhere")
    assert "give the folder of a training" in told(run / "results.json")
    assert "--output must be a file that ends in .safetensors" in told(run, "--output", tmp_path / "a.pt")
    assert "no checkpoint of epoch 7 in " in told(run, "--load-epoch", 7)
    assert "is named hf-hub:OWNER/NAME" in told(run, "--push", "someone/prompts")
    results = results_of(run)
    for change, match in (
        ({"class_names": ["x", "y"]}, "its class_names is ['blue', 'green'], not ['x', 'y']"),
        ({"backbone_sha256": "0" * 64}, "was made with other weights of CLIP than"),
    ):
        (run / "results.json").write_text(json.dumps({**results, **change}))
        assert match in told(run)
    assert not list(tmp_path.rglob("*.safetensors"))
    assert not list(tmp_path.rglob("*.part"))


def test_full_disk_leaves_nothing(run_of, tmp_path, monkeypatch, capsys):
    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    assert main([str(run_of("CoOp")), "--output", str(tmp_path / "a.safetensors")]) == 2
    assert "disk full" in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


# --------------------------------------------------------------------------------------------------------------- Hub


@pytest.fixture
def local_hub(tmp_path, monkeypatch):
    """A folder in the place of the Hub: a folder a repository, and what was asked of it."""
    huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")
    folder, asked = tmp_path / "hub", []

    class Api:
        def create_repo(self, repo_id, private, exist_ok):
            asked.append((repo_id, private, exist_ok))
            (folder / repo_id).mkdir(parents=True, exist_ok=exist_ok)

        def upload_file(self, path_or_fileobj, path_in_repo, repo_id, revision):
            shutil.copy(path_or_fileobj, folder / repo_id / path_in_repo)

    monkeypatch.setattr(huggingface_hub, "HfApi", Api)
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", lambda name, file, revision: str(folder / name / file))
    return asked


def test_to_the_hub_and_back(local_hub, run_of, build_run, pictures, tmp_path, clip_files, capsys):
    run, path = run_of("CDC text"), tmp_path / "cdc.safetensors"
    assert main([str(run), "--output", str(path), "--push", "hf-hub:someone/prompts"]) == 0
    assert "Pushed to hf-hub:someone/prompts" in capsys.readouterr().out
    assert main([str(run), "--output", str(path), "--push", "hf-hub:someone/others", "--public"]) == 0
    assert local_hub == [("someone/prompts", True, True), ("someone/others", False, True)]
    found = Predictor("hf-hub:someone/prompts", backbone=str(clip_files["plain"]))
    assert found(pictures) == Predictor(run)(pictures)
    tester = build_run("CDC", tmp_path / "test", *TEXT, *VIEWS)
    tester.load_model("hf-hub:someone/prompts")
    assert tester.model_dir == "hf-hub:someone/prompts"
    assert torch.equal(tester.model.prompt_learner.ctx, found.trainer.model.prompt_learner.ctx)


def test_hub_that_refuses(local_hub, run_of, tmp_path, monkeypatch, capsys):
    import huggingface_hub

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub.HfApi, "create_repo", refuse)
    path = tmp_path / "cdc.safetensors"
    assert main([str(run_of("CDC text")), "--output", str(path), "--push", "hf-hub:someone/prompts"]) == 2
    told = f"{path} is written, and hf-hub:someone/prompts cannot be: no network"
    assert capsys.readouterr().err == f"tools.export: {told}\n"
    assert path.is_file()


def test_without_the_client_nothing_is_written(run_of, tmp_path, monkeypatch, capsys):
    def missing(purpose):
        raise ValueError(f"{purpose} needs the package huggingface_hub")

    monkeypatch.setattr(share, "import_client", missing)
    path = tmp_path / "cdc.safetensors"
    assert main([str(run_of("CDC text")), "--output", str(path), "--push", "hf-hub:someone/prompts"]) == 2
    assert "needs the package huggingface_hub" in capsys.readouterr().err
    assert not path.exists()


def test_public_is_of_a_repository(capsys):
    with pytest.raises(SystemExit):
        main(["run", "--public"])
    assert "--public is of a repository" in capsys.readouterr().err


@pytest.fixture
def calibrated(run_of, data, tmp_path):
    """A copy of a run, calibrated."""

    def make(name):
        run = tmp_path / "run"
        shutil.copytree(run_of(name), run)
        assert calibrate([str(run), "--root", str(data)]) == 0
        return run

    return make


@pytest.mark.parametrize("name", ["CDC coupled", "CoOp", "PromptSRC"])
def test_calibration_goes_with_the_file(calibrated, pictures, tmp_path, capsys, clip_files, name):
    """And does there what it does in the run: probabilities, thresholds, and what these keep of validation images."""
    run, path = calibrated(name), tmp_path / "shared" / "prompts.safetensors"
    assert main([str(run), "--output", str(path)]) == 0
    assert "With the calibration of the run: " in capsys.readouterr().out
    assert str(tmp_path) not in json.dumps(read_shared(path)[1]["calibration"])
    for options in ({"calibrated": True}, {"coverage": 0.5}, {"calibrated": True, "reject_above": 0.4}):
        own, shared = Predictor(run, **options), Predictor(path, backbone=str(clip_files["plain"]), **options)
        assert (shared.calibration, shared.rejection) == (own.calibration, own.rejection)
        assert shared(pictures) == own(pictures)
    assert shared(pictures) != Predictor(path, backbone=str(clip_files["plain"]))(pictures)
    arguments = ["--model-dir", str(path.parent), "--backbone", str(clip_files["plain"]), "--coverage", "0.5"]
    assert predict([*arguments, str(pictures[0])]) == 0


def test_calibration_of_a_file_serves_a_test(calibrated, build_run, tmp_path):
    run, path = calibrated("CoOp"), tmp_path / "coop.safetensors"
    share.export(str(run), str(path))
    found = []
    for place in (run, path):
        tester = build_run("CoOp", tmp_path / "test", "TEST.CALIBRATION", str(place))
        tester.load_model(str(path))
        tester.test()
        found.append(results_of(tmp_path / "test")["figures"]["nll_calibrated"])
    assert found[0] == found[1]


def test_calibration_that_is_not_of_what_is_exported_is_left_out(calibrated, tmp_path, clip_files, capsys):
    """It is of another epoch, or of parameters that were trained further since."""
    run, path = calibrated("CoOp"), tmp_path / "coop.safetensors"
    share.export(str(run), str(path), epoch=1)
    assert "Without a calibration: " in (told := capsys.readouterr().out)
    assert "was fitted to epoch 2, and this is epoch 1" in told
    assert "calibration" not in read_shared(path)[1]
    with pytest.raises(FileNotFoundError, match=r"no calibration in .*coop\.safetensors; .*tools\.export"):
        Predictor(path, backbone=str(clip_files["plain"]), calibrated=True)
    content = json.loads((run / "calibration.json").read_text())
    (run / "calibration.json").write_text(json.dumps({**content, "trained_sha256": "0" * 64}))
    share.export(str(run), str(path))
    assert "was fitted to another training than this one" in capsys.readouterr().out
    assert "calibration" not in read_shared(path)[1]


def test_calibration_of_another_training_is_refused(calibrated, tmp_path, clip_files):
    run, path = calibrated("CoOp"), tmp_path / "coop.safetensors"
    share.export(str(run), str(path))
    content = read_shared(path)[1]["calibration"]
    for change, match in (
        ({"trained_sha256": "0" * 64}, "was fitted to another training than this one; .*tools.export` of the run"),
        ({"values": {}}, "is not a whole calibration: its values must be finite numbers"),
        ({"format": 2}, "is not a whole calibration: it was written by a newer version"),
    ):
        other = changed(path, tmp_path / "other.safetensors", calibration={**content, **change})
        with pytest.raises(ValueError, match=match):
            Predictor(other, backbone=str(clip_files["plain"]), calibrated=True)
        Predictor(other, backbone=str(clip_files["plain"]))


def test_calibration_beside_a_file_without_one_serves_it(calibrated, run_of, tmp_path, clip_files):
    run, path = calibrated("CoOp"), tmp_path / "shared" / "coop.safetensors"
    share.export(str(run_of("CoOp")), str(path))
    shutil.copy(run / "calibration.json", path.parent)
    shared = Predictor(path, backbone=str(clip_files["plain"]), calibrated=True)
    assert shared.calibration == Predictor(run, calibrated=True).calibration
