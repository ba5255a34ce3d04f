"""compat/dassl's config and data against golden numbers of the published Dassl, and against bad input."""

from __future__ import annotations

import importlib
import importlib.util
import json
import pickle
import subprocess
import sys
from pathlib import Path

import dassl
import numpy as np
import pytest
import torch
from dassl.config import cfg_default, get_cfg_default
from dassl.data import DataManager, DatasetWrapper, data_manager
from dassl.data.data_manager import build_data_loader
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum, build_dataset
from dassl.data.samplers import build_sampler
from dassl.data.transforms import build_transform
from dassl.data.transforms.transforms import AVAI_CHOICES, Cutout, InstanceNormalization
from PIL import Image
from yacs.config import CfgNode

from helpers import GOLDEN, ROOT, checkout_of

pytestmark = pytest.mark.skipif(
    not Path(dassl.__file__).is_relative_to(ROOT / "compat"),
    reason="an installed Dassl is in use; these are tests of compat/dassl",
)

_spec = importlib.util.spec_from_file_location("make_dassl_data", GOLDEN / "make_dassl_data.py")
golden_script = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(golden_script)


@pytest.fixture(scope="module")
def ours():
    return golden_script.collect()


@pytest.fixture(scope="module")
def golden():
    return json.loads((GOLDEN / "dassl_data.json").read_text(encoding="utf-8"))


@pytest.fixture
def cfg():
    return golden_script.make_cfg()


@pytest.fixture(scope="module")
def items(tmp_path_factory):
    return golden_script.make_items(golden_script.make_images(tmp_path_factory.mktemp("images")))


def assert_same(ours, golden, hashes: bool, where: str = "") -> None:
    """Compare what `collect` gives; the means of images within a grey level, their hashes only if `hashes`."""
    assert type(ours) is type(golden), where
    if isinstance(golden, dict):
        assert list(ours) == list(golden), where
        for key, value in golden.items():
            if key == "means":
                assert ours[key] == pytest.approx(value, abs=1, rel=0.005), where
            elif key != "hash" or hashes:
                assert_same(ours[key], value, hashes, f"{where} / {key}")
    elif isinstance(golden, list):
        assert len(ours) == len(golden), where
        for number, (our_value, value) in enumerate(zip(ours, golden)):
            assert_same(our_value, value, hashes, f"{where} [{number}]")
    else:
        assert ours == golden, where


# ------------------------------------------------------------------------------------------------ golden numbers


@pytest.mark.parametrize("section", ["config", "datasets", "samplers", "transforms", "policies", "managers"])
def test_golden(ours, golden, section):
    same_versions = golden["versions"] == golden_script.versions()
    assert_same(ours[section], golden[section], hashes=same_versions, where=section)


def test_golden_transforms_cover_every_name():
    named = {name for choices, _, _ in golden_script.TRAIN_TRANSFORMS.values() for name in choices}
    assert named == set(AVAI_CHOICES)


@pytest.mark.upstream
def test_live_against_checkout(tmp_path):
    """Everything `collect` notes, with a hash of every image, is what the checkout gives on this machine."""
    checkout = checkout_of("DASSL_CHECKOUT")
    output = tmp_path / "upstream.json"
    script = GOLDEN / "make_dassl_data.py"
    subprocess.run([sys.executable, script, checkout, "--hash-all", "--output", output], check=True, timeout=900)
    assert_same(golden_script.collect(hash_all=True), json.loads(output.read_text(encoding="utf-8")), hashes=True)


@pytest.mark.parametrize(
    ("module", "names"),
    [
        ("dassl.config", "get_cfg_default cfg_default clean_cfg"),
        ("dassl.data", "DataManager DatasetWrapper"),
        ("dassl.data.data_manager", "build_data_loader DataManager DatasetWrapper"),
        ("dassl.data.datasets", "DATASET_REGISTRY Datum DatasetBase build_dataset"),
        ("dassl.data.datasets.build", "DATASET_REGISTRY build_dataset"),
        ("dassl.data.datasets.base_dataset", "Datum DatasetBase"),
        (
            "dassl.data.samplers",
            "build_sampler RandomSampler SequentialSampler RandomDomainSampler SeqDomainSampler RandomClassSampler",
        ),
        ("dassl.data.transforms", "INTERPOLATION_MODES build_transform"),
        (
            "dassl.data.transforms.transforms",
            "AVAI_CHOICES INTERPOLATION_MODES Cutout GaussianNoise InstanceNormalization Random2DTranslation "
            "ImageNetPolicy CIFAR10Policy SVHNPolicy RandAugment RandAugment2 RandAugmentFixMatch build_transform "
            "Resize Compose ToTensor Normalize CenterCrop RandomCrop ColorJitter RandomApply GaussianBlur "
            "RandomGrayscale RandomResizedCrop RandomHorizontalFlip",
        ),
        ("dassl.data.transforms.autoaugment", "ImageNetPolicy CIFAR10Policy SVHNPolicy"),
        ("dassl.data.transforms.randaugment", "RandAugment RandAugment2 RandAugmentFixMatch"),
    ],
)
def test_published_names(module, names):
    missing = [name for name in names.split() if not hasattr(importlib.import_module(module), name)]
    assert not missing


# ------------------------------------------------------------------------------------------------ configuration


def test_defaults_are_cloned():
    get_cfg_default().OPTIM.LR = 99.0
    get_cfg_default().INPUT.PIXEL_MEAN.append(1.0)
    assert get_cfg_default().OPTIM.LR == 0.0003
    assert get_cfg_default().INPUT.PIXEL_MEAN == [0.485, 0.456, 0.406]


def test_trainers_extend_the_defaults():
    cfg_default.TRAINER.NEWCOMER = CfgNode({"WEIGHT": 0.5})
    try:
        assert get_cfg_default().TRAINER.NEWCOMER.WEIGHT == 0.5
    finally:
        del cfg_default.TRAINER["NEWCOMER"]


def test_yaml_merges(tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text(
        "DATALOADER:\n  TRAIN_X:\n    BATCH_SIZE: 4\n"
        "INPUT:\n  SIZE: (48, 64)\n  TRANSFORMS: ['random_flip', 'normalize']\n  PIXEL_MEAN: [0.1, 0.2, 0.3]\n"
        "OPTIM:\n  STEPSIZE: [3, 5]\n  WARMUP_CONS_LR: 1e-5\n",
        encoding="utf-8",
    )
    cfg = get_cfg_default()
    cfg.merge_from_file(str(path))
    assert cfg.DATALOADER.TRAIN_X.BATCH_SIZE == 4
    assert cfg.DATALOADER.TRAIN_U.BATCH_SIZE == 32
    assert cfg.INPUT.SIZE == (48, 64)
    assert cfg.INPUT.TRANSFORMS == ("random_flip", "normalize")
    assert cfg.OPTIM.STEPSIZE == (3, 5)
    assert cfg.OPTIM.WARMUP_CONS_LR == 1e-5


def test_unknown_key_and_wrong_type_fail():
    with pytest.raises(KeyError, match=r"OPTIM\.LEARNING_RATE"):
        get_cfg_default().merge_from_other_cfg(CfgNode({"OPTIM": {"LEARNING_RATE": 0.1}}))
    with pytest.raises(ValueError, match="Type mismatch"):
        get_cfg_default().merge_from_list(["OPTIM.LR", "fast"])


# ------------------------------------------------------------------------------------------------ data sets


def test_unknown_data_set(cfg):
    class Pictures(DatasetBase):
        pass

    DATASET_REGISTRY.register(Pictures, force=True)
    cfg.DATASET.NAME = "Picture"
    with pytest.raises(ValueError, match=r"Unknown data set \(DATASET.NAME\).*'Picture'.*'Pictures'"):
        build_dataset(cfg)


def test_bad_datum(tmp_path):
    with pytest.raises(FileNotFoundError, match=r"absent\.jpg.*'moth'"):
        Datum(str(tmp_path / "absent.jpg"), label=3, classname="moth")
    with pytest.raises(FileNotFoundError, match="no image file"):
        Datum(str(tmp_path))
    with pytest.raises(ValueError, match="string, not PosixPath"):
        Datum(tmp_path / "absent.jpg")


def test_datum_is_read_only(items):
    with pytest.raises(AttributeError):
        items[0].label = 3


def test_no_training_images(items):
    with pytest.raises(ValueError, match="no labelled training images"):
        DatasetBase(train_x=[], test=items)
    with pytest.raises(ValueError, match="no labelled training images"):
        DatasetBase(test=items)


def test_one_label_with_two_names(items):
    twin = Datum(items[0].impath, label=items[0].label, classname="other")
    with pytest.raises(ValueError, match=f"Label {items[0].label} has two class names"):
        DatasetBase(train_x=[*items, twin])


def test_domains_are_checked(items):
    class Seasons(DatasetBase):
        domains = ["spring", "autumn"]  # noqa: RUF012  as every published reader writes it

    dataset = Seasons(train_x=items)
    dataset.check_input_domains(["spring"], ["autumn", "spring"])
    with pytest.raises(ValueError, match=r"spring.*autumn.*not 'winter'"):
        dataset.check_input_domains(["spring"], ["winter"])
    with pytest.raises(ValueError, match="No source domain"):
        dataset.check_input_domains([], ["autumn"])


# ------------------------------------------------------------------------------------------------ samplers


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"sampler_type": "WeightedSampler"}, r"Unknown sampler 'WeightedSampler'.*RandomClassSampler"),
        ({"sampler_type": "RandomDomainSampler", "batch_size": 7}, r"multiple of the 3 domains.*not 7"),
        ({"sampler_type": "RandomDomainSampler", "batch_size": 0}, r"multiple of the 3 domains.*not 0"),
        ({"sampler_type": "RandomDomainSampler", "batch_size": 8, "n_domain": 4}, r"4 domains.*from 3"),
        ({"sampler_type": "SeqDomainSampler", "batch_size": 33}, r"takes 11 images of a domain"),
        ({"sampler_type": "RandomClassSampler", "batch_size": 4, "n_ins": 5}, r"between 1 and the batch size 4, not 5"),
        ({"sampler_type": "RandomClassSampler", "batch_size": 4, "n_ins": 0}, r"between 1 and the batch size 4, not 0"),
        ({"sampler_type": "RandomClassSampler", "batch_size": 10, "n_ins": 2}, r"takes 5 classes.*from 4"),
    ],
)
def test_impossible_samplers(items, arguments, message):
    with pytest.raises(ValueError, match=message):
        build_sampler(data_source=items, **arguments)


@pytest.mark.parametrize("sampler_type", ["RandomSampler", "SequentialSampler", "SeqDomainSampler"])
@pytest.mark.parametrize("data_source", [[], None])
def test_sampler_without_images(sampler_type, data_source):
    with pytest.raises(ValueError, match=f"{sampler_type} has no images"):
        build_sampler(sampler_type, data_source=data_source)


def test_domain_batches_hold_what_they_promise(items):
    torch.manual_seed(0)
    order = list(build_sampler("RandomDomainSampler", data_source=items, batch_size=4, n_domain=2))
    assert len(order) == len(set(order))
    for start in range(0, len(order), 4):
        domains = [items[index].domain for index in order[start : start + 4]]
        assert sorted(domains.count(domain) for domain in set(domains)) == [2, 2]


# ------------------------------------------------------------------------------------------------ transforms


def test_unknown_transforms_are_all_named(cfg):
    with pytest.raises(ValueError, match=r"\['flip', 'blur'\].*random_flip.*gaussian_blur"):
        build_transform(cfg, choices=["flip", "normalize", "blur"])


def test_transforms_as_a_string(cfg):
    with pytest.raises(ValueError, match="list of names, not as the string 'normalize'"):
        build_transform(cfg, choices="normalize")


def test_unknown_interpolation(cfg, items):
    cfg.INPUT.INTERPOLATION = "lanczos"
    with pytest.raises(ValueError, match=r"'lanczos'.*bicubic"):
        build_transform(cfg, choices=["random_crop"])
    with pytest.raises(ValueError, match=r"'lanczos'.*bicubic"):
        DatasetWrapper(cfg, items)


def test_randaugment_level(cfg):
    cfg.INPUT.RANDAUGMENT_M = 31
    with pytest.raises(ValueError, match="between 0 and 30, not 31"):
        build_transform(cfg, choices=["randaugment"])


def test_cutout_leaves_its_input_alone():
    image = torch.ones(3, 8, 8)
    np.random.seed(0)
    blanked = Cutout(n_holes=1, length=4)(image)
    assert image.min() == 1
    assert 4 * 3 <= (blanked == 0).sum() <= 16 * 3


def test_instance_norm_of_a_flat_channel():
    image = torch.stack([torch.full((4, 4), 0.5), torch.linspace(0, 1, 16).view(4, 4)])
    normalised = InstanceNormalization()(image)
    assert torch.equal(normalised[0], torch.zeros(4, 4))
    assert normalised[1].mean().item() == pytest.approx(0, abs=1e-6)
    assert normalised[1].std().item() == pytest.approx(1, abs=1e-6)


def test_transforms_reach_spawned_workers(cfg, items):
    """Workers that are spawned, as on macOS, receive the transform pickled."""
    transform = build_transform(cfg, choices=[name for name in AVAI_CHOICES if name != "random_resized_crop"])
    copy = pickle.loads(pickle.dumps(transform))
    image = Image.open(items[0].impath).convert("RGB")
    golden_script.seed_all(0)
    made = transform(image)
    golden_script.seed_all(0)
    assert torch.equal(copy(image), made)


# ------------------------------------------------------------------------------------------------ loaders


@pytest.mark.parametrize(
    ("batch_size", "is_train", "sizes"),
    [
        (10, True, [10, 10]),
        (10, False, [10, 10, 4]),
        (24, True, [24]),
        (25, True, [24]),  # fewer images than a batch has: kept
        (25, False, [24]),
    ],
)
def test_last_batch(cfg, items, batch_size, is_train, sizes):
    tfm = build_transform(cfg, is_train=False)
    loader = build_data_loader(cfg, data_source=items, batch_size=batch_size, tfm=tfm, is_train=is_train)
    assert [len(batch["label"]) for batch in loader] == sizes


def test_loader_without_a_batch(cfg, items):
    with pytest.raises(ValueError, match=r"no batch: RandomClassSampler gives 20 of the 24 images.*batch size is 23"):
        build_data_loader(cfg, "RandomClassSampler", items, batch_size=23, n_ins=5)


def test_manager_without_test_images(cfg, items):
    class Untested(DatasetBase):
        def __init__(self, cfg):
            super().__init__(train_x=items)

    DATASET_REGISTRY.register(Untested, force=True)
    cfg.DATASET.NAME = "Untested"
    with pytest.raises(ValueError, match="'Untested' has no images in its split 'test'"):
        DataManager(cfg)


def test_views_need_a_transform(cfg, items):
    cfg.DATALOADER.K_TRANSFORMS = 2
    with pytest.raises(ValueError, match="2 views of an image need a transform"):
        DatasetWrapper(cfg, items, is_train=True)
    assert DatasetWrapper(cfg, items, is_train=False)[0]["img"].mode == "RGB"


def test_file_is_decoded_once_for_all_views(cfg, items, monkeypatch):
    read = []
    monkeypatch.setattr(data_manager, "read_image", lambda path: read.append(path) or Image.new("RGB", (40, 30)))
    cfg.DATALOADER.K_TRANSFORMS = 3
    cfg.DATALOADER.RETURN_IMG0 = True
    transforms = [build_transform(cfg, choices=["random_flip"]) for _ in range(4)]
    item = DatasetWrapper(cfg, items, transform=transforms, is_train=True)[5]
    assert read == [items[5].impath]
    assert [len(item[key]) for key in ("img", "img2", "img3", "img4")] == [3, 3, 3, 3]
    assert item["img0"].shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("fault", "workers"), [("missing", 0), ("empty", 0), ("truncated", 0), ("text", 0), ("truncated", 1)]
)
def test_damaged_image_is_named(cfg, items, tmp_path, fault, workers):
    path = tmp_path / f"{fault}.jpg"
    Image.open(items[0].impath).convert("RGB").resize((200, 200)).save(path)
    content = path.read_bytes()
    damaged = Datum(str(path))
    path.write_bytes({"empty": b"", "truncated": content[: len(content) // 2], "text": b"no image"}.get(fault, content))
    if fault == "missing":
        path.unlink()
    cfg.DATALOADER.NUM_WORKERS = workers
    tfm = build_transform(cfg, is_train=False)
    loader = build_data_loader(cfg, data_source=[items[0], damaged], batch_size=2, tfm=tfm, is_train=False)
    with pytest.raises(OSError, match=rf"{fault}\.jpg") as caught:
        list(loader)
    # The error's frames keep the loader's worker alive, and the end of the test run would wait for it.
    caught.value.__traceback__ = None
    del caught
