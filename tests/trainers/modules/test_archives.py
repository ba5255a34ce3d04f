"""Reading files of `torch.save` and TorchScript: what PyTorch reads from them, and nothing that they would run."""

from __future__ import annotations

import argparse
import collections
import gzip
import io
import os
import pickle
import random
import struct
import time
import tracemalloc
import warnings
import zipfile
import zlib
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from helpers import run_archive, save_harmful_archive
from trainers.modules import archives, inert_pickle, loading, weights
from trainers.modules.checkpoints import read_checkpoint
from trainers.modules.inert_pickle import Foreign, StoredTensor, Unreadable


def read(path):
    """All that a file holds."""
    with archives.opened(path) as saved:
        return saved.everything()


def read_module(path) -> dict:
    """The state dict of a TorchScript archive."""
    with archives.opened(path) as saved:
        return {name: saved.tensor(value) for name, value in saved.module_tensors().items()}


def same(a, b) -> bool:
    """Whether two tensors are equal to the last bit, in type, shape and strides too."""
    layout = [(t.dtype, t.shape, t.stride(), t.storage_offset()) for t in (a, b)]
    values = [t.contiguous().reshape(-1).view(torch.uint8) if t.numel() else t for t in (a, b)]
    return layout[0] == layout[1] and torch.equal(*values)


# What PyTorch writes


class Parts(nn.Module):
    """A module with every kind of tensor that an archive may hold."""

    def __init__(self):
        super().__init__()
        self.linear = nn.Linear(3, 2)
        self.deep = nn.Sequential(nn.Linear(2, 2), nn.BatchNorm1d(2))
        self.scale = nn.Parameter(torch.tensor(4.6))
        self.turned = nn.Parameter(torch.randn(4, 3).t(), requires_grad=False)
        both = torch.randn(10)
        self.register_buffer("first", both[2:6])
        self.register_buffer("second", both[5:].view(5, 1))
        self.register_buffer("same", self.linear.weight.detach())
        self.register_buffer("none", torch.zeros(0, 3))
        self.register_buffer("nan", torch.tensor([float("nan"), -0.0, float("inf")]))
        for dtype in (torch.float16, torch.bfloat16, torch.float64, torch.int64, torch.int32, torch.uint8, torch.bool):
            self.register_buffer(f"as_{str(dtype)[6:]}", torch.arange(6).view(2, 3).to(dtype))
        self.count: int = 7

    def forward(self, x):
        return self.deep(self.linear(x)) * self.scale


@pytest.mark.parametrize("kind", ["trace", "script"])
def test_archives_are_read_as_torch_jit_reads_them(tmp_path, kind):
    path = tmp_path / "parts.pt"
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        module = Parts().eval()
        archive = torch.jit.trace(module, torch.zeros(1, 3)) if kind == "trace" else torch.jit.script(module)
        archive.save(str(path))
        expected = torch.jit.load(str(path)).state_dict()
    ours = read_module(path)
    assert ours.keys() == expected.keys() == module.state_dict().keys()
    for name, value in expected.items():
        assert same(ours[name], value), name
    for one, other in (("first", "second"), ("same", "linear.weight")):
        assert expected[one].data_ptr() - expected[other].data_ptr() == ours[one].data_ptr() - ours[other].data_ptr()
    ours["first"][3] = 100.0
    assert ours["second"][0] == 100.0


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("form", ["zip", "legacy", "gzip"])
def test_files_are_read_as_torch_load_reads_them(tmp_path, protocol, form):
    path, module = tmp_path / "content", Parts()
    optimizer = torch.optim.Adam(module.parameters())
    module(torch.randn(4, 3)).sum().backward()
    optimizer.step()
    content = {
        "state_dict": module.state_dict(),
        "parameters": dict(module.named_parameters()),
        "optimizer": optimizer.state_dict(),
        "epoch": 3,
        "plain": [
            None,
            True,
            False,
            -1,
            2**40,
            1.5,
            float("inf"),
            "naïve",
            b"\x00\xff" if protocol > 2 else "",
            (),
            (1,),
        ],
        "random": random.getstate(),
        7: {"nested": ({"deep": [[[[1]]]]},)},
    }
    torch.save(content, path, pickle_protocol=protocol, _use_new_zipfile_serialization=form != "legacy")
    expected = torch.load(path, weights_only=False)
    if form == "gzip":
        path.write_bytes(gzip.compress(path.read_bytes(), 1))
    ours = read(path)

    def compare(a, b):
        if isinstance(b, torch.Tensor):
            assert same(a, b)
        elif isinstance(b, dict):
            assert list(a) == list(b)
            for key in b:
                compare(a[key], b[key])
        elif isinstance(b, (list, tuple)):
            assert (type(a), len(a)) == (type(b), len(b))
            for x, y in zip(a, b):
                compare(x, y)
        else:
            assert (type(a), a) == (type(b), b)

    compare(ours, expected)
    assert ours["state_dict"]["same"].data_ptr() == ours["parameters"]["linear.weight"].data_ptr()


def test_objects_are_names(tmp_path):
    counts = collections.defaultdict(list, a=[1])
    torch.save({"args": argparse.Namespace(lr=1), "best": np.float64(3), "counts": counts, "set": {3}}, tmp_path / "f")
    content = read(tmp_path / "f")
    assert content["args"].name == "argparse.Namespace"
    assert content["args"].attributes == {"lr": 1}
    assert content["best"].name.endswith("multiarray.scalar")
    assert content["counts"] == {"a": [1]}
    assert isinstance(content["set"], Foreign)


@pytest.mark.parametrize(
    "make",
    [
        lambda: torch.eye(2).to_sparse(),
        lambda: torch.quantize_per_tensor(torch.ones(2), 0.1, 0, torch.qint8),
        lambda: torch.zeros(2, device="meta"),
        lambda: torch.ones(2, dtype=torch.complex64),
        lambda: torch.ones(2, dtype=torch.complex64).conj().imag,
    ],
    ids=["sparse", "quantised", "meta", "complex", "to be negated"],
)
def test_tensors_of_other_kinds_are_objects(tmp_path, make):
    """None is taken for one with other values."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch.save({"state_dict": {"ctx": make()}}, tmp_path / "f")
    assert isinstance(read(tmp_path / "f")["state_dict"]["ctx"], Foreign)
    with pytest.raises(ValueError, match="ctx should be tensors"):
        read_checkpoint(tmp_path / "f")


def test_tensors_that_name_the_same_values_again_and_again(tmp_path):
    """On a GPU each would be a copy of its own."""
    values = torch.zeros(1_000_000)
    torch.save({"state_dict": {str(n): values[: len(values) - n] for n in range(4)}}, tmp_path / "few")
    read_checkpoint(tmp_path / "few")
    torch.save({"state_dict": {str(n): values[: len(values) - n] for n in range(6)}}, tmp_path / "many")
    with pytest.raises(ValueError, match="its tensors name the same stored values again and again"):
        read_checkpoint(tmp_path / "many")


# Archives of PyTorch 1.7, in which OpenAI's files are, written here instruction by instruction


def text(value: str) -> bytes:
    return b"X" + struct.pack("<I", len(value)) + value.encode()


def number(value: int) -> bytes:
    return b"J" + struct.pack("<i", value) if abs(value) < 2**31 else b"\x8a\x08" + struct.pack("<q", value)


def numbers(values) -> bytes:
    return b"(" + b"".join(map(number, values)) + b"t"


def stored(key: str, length: int, offset=0, size=(1,), stride=(1,), kind=b"ctorch\nHalfStorage\n") -> bytes:
    """A tensor: the function, its storage by persistent id, place, size, strides, requires_grad, hooks."""
    storage = b"(" + text("storage") + kind + text(key) + text("cuda:0") + number(length) + b"tQ"
    place = number(offset) + numbers(size) + numbers(stride)
    return b"ctorch._utils\n_rebuild_tensor_v2\n(" + storage + place + b"\x89ccollections\nOrderedDict\n)RtR"


def module_of(name: str, entries: dict) -> bytes:
    """An object of a TorchScript class with attributes."""
    content = b"".join(text(key) + value for key, value in entries.items())
    return f"c__torch__.{name}\n{name}\n".encode() + b")\x81}(" + content + b"ub"


STORAGES = {
    torch.float16: (b"ctorch\nHalfStorage\n", text("HalfStorage")),
    torch.float32: (b"ctorch\nFloatStorage\n", text("torch.FloatStorage")),
    torch.int64: (b"ctorch\nLongStorage\n", text("LongStorage")),
}


def write_zip(path, records: dict, folder="ViT-B-16") -> Path:
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in records.items():
            archive.writestr(f"{folder}/{name}", content)
    return path


def write_pickle(path, instructions: bytes, records=None) -> Path:
    """A zip file of PyTorch's layout around a pickle."""
    return write_zip(path, {"data.pkl": b"\x80\x02" + instructions + b".", "version": b"3\n", **(records or {})})


def write_old_archive(path, state: dict, form: int) -> Path:
    """A state dict as an archive of PyTorch 1.7; form 1 names types by texts in place of classes."""
    records = {"constants.pkl": b"\x80\x02).", "code/__torch__/CLIP.py": b"while True: pass"}
    tree: dict = {"training": b"\x89"}
    for key, (name, value) in enumerate(state.items()):
        records[f"data/{key}"] = value.contiguous().view(-1).numpy().tobytes()
        kind = STORAGES[value.dtype][form]
        tensor = stored(str(key), value.numel(), 0, value.shape, value.contiguous().stride(), kind)
        *parents, last = name.split(".")
        node = tree
        for parent in parents:
            node = node.setdefault(parent, {"training": b"\x89"})
        node[last] = tensor

    def module(name: str, node: dict) -> bytes:
        entries = {key: value if isinstance(value, bytes) else module(key, value) for key, value in node.items()}
        return module_of(name if name.isidentifier() else f"_{name}", entries)

    return write_pickle(path, module("CLIP", tree), records)


@pytest.mark.parametrize("form", [0, 1])
def test_archives_of_old_pytorch(small_clip, tmp_path, form):
    """As OpenAI published them: half precision where it was trained so, sizes as integers, storages of a GPU."""
    state = {
        name: value.half() if name.endswith("attn.in_proj_weight") else value
        for name, value in small_clip.state_dict().items()
    }
    sizes = {name: torch.tensor(32) for name in weights.SIZES}
    path = write_old_archive(tmp_path / "old.pt", {**state, **sizes}, form)
    ours = weights.read_state_dict(path)
    assert ours.keys() == {*state, *weights.SIZES}
    assert all(torch.equal(ours[name], value) and ours[name].dtype == value.dtype for name, value in state.items())
    model = loading.load_clip(str(path))
    assert model.sha256 == loading.weights_digest(state)
    image = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(model.encode_image(image), small_clip.encode_image(image), atol=0.02, rtol=0.01)


def test_causal_mask_beside_the_parameters_is_left_out(small_clip, tmp_path):
    """TorchScript writes plain attributes down too, of which CLIP's blocks have one."""
    state = {**small_clip.state_dict(), "transformer.resblocks.0.attn_mask": torch.zeros(77, 77)}
    path = write_old_archive(tmp_path / "masked.pt", state, 0)
    assert weights.read_state_dict(path).keys() == small_clip.state_dict().keys()


def test_other_forms_of_a_tensor(tmp_path):
    """As PyTorch writes parameters, and TorchScript what is in a typed attribute."""
    values = torch.tensor([1.0, 2.0]).half()
    tensor = stored("0", 2, 0, (2,), (1,))
    parameter = b"ctorch._utils\n_rebuild_parameter\n(" + tensor + b"\x88ccollections\nOrderedDict\n)RtR"
    tagged = b"ctorch.jit._pickle\nrestore_type_tag\n(" + tensor + text("Tensor") + b"tR"
    cuda = stored("0", 2, 0, (2,), (1,), b"ctorch.cuda\nHalfStorage\n")
    instructions = b"(" + parameter + tagged + cuda + b"t"
    found = read(write_pickle(tmp_path / "f", instructions, {"data/0": values.numpy().tobytes()}))
    assert all(torch.equal(value, values) for value in found)


# Nothing runs


class Harmful:
    def __init__(self, function, *arguments):
        self.call = function, arguments

    def __reduce__(self):
        return self.call


@pytest.mark.parametrize("reader", [weights.read_state_dict, read_checkpoint])
def test_code_of_an_archive_does_not_run(tmp_path, reader):
    trap = tmp_path / "trap"
    for loops in (False, True):
        path = tmp_path / f"{loops}.pt"
        save_harmful_archive(path, trap, loops)
        with pytest.raises(ValueError, match="not a"):
            reader(path)
    assert not trap.exists()
    run_archive(tmp_path / "False.pt")
    assert trap.exists()


@pytest.mark.parametrize("form", ["zip", "legacy", "gzip"])
@pytest.mark.parametrize("place", ["beside", "weight", "state"])
def test_functions_that_a_file_names_are_not_called(small_clip, tmp_path, form, place):
    trap, path = tmp_path / "trap", tmp_path / "harmful.pt"
    state = small_clip.state_dict()
    for function, argument in (
        (os.system, f"touch {trap}"),
        (os.mkdir, str(trap)),
        (exec, f"open({str(trap)!r}, 'w')"),
    ):
        harm = Harmful(function, argument)
        if place == "weight":
            content = {**state, "text_projection": harm}
        else:
            content = {"state_dict": state, "args": harm} if place == "beside" else {"state_dict": harm}
        torch.save(content, path, _use_new_zipfile_serialization=form != "legacy")
        if form == "gzip":
            path.write_bytes(gzip.compress(path.read_bytes(), 1))
        if place == "beside":
            assert weights.read_state_dict(path).keys() == state.keys()
        else:
            with pytest.raises(ValueError, match=rf"harmful\.pt .*an object of \w+\.{function.__name__}") as told:
                weights.read_state_dict(path)
            assert "\n" not in str(told.value)
        assert not trap.exists()


def test_attributes_of_python_objects_are_not_set(tmp_path):
    """BUILD on a class, a function, a tensor: Python's own reader would set attributes, and call `__setstate__`."""
    state = b"}(" + text("name") + text("changed") + text("__code__") + number(1) + b"ub"
    tensor = stored("0", 1, 0, (1,), (1,))
    path = write_pickle(
        tmp_path / "f",
        b"(ctrainers.modules.inert_pickle\nForeign\n" + state + b"ctorch\nTensor\n" + state + tensor + state + b"t",
        {"data/0": b"\0\0"},
    )
    first, second, third = read(path)
    assert (first.name, second.name) == ("trainers.modules.inert_pickle.Foreign", "torch.Tensor")
    assert torch.equal(third, torch.zeros(1).half())
    assert not hasattr(Foreign, "__code__")
    assert not hasattr(torch.Tensor, "__code__")


# Sizes and places


def long_size(**changes) -> bytes:
    return stored(**{"key": "0", "length": 4, "size": (4,), "stride": (1,), **changes})


STORAGE = b"(" + text("storage") + b"ctorch\nHalfStorage\n" + text("0") + text("cpu") + number(4) + b"tQ"
BOMBS = {
    "a billion values that are not there": long_size(length=10**9, size=(10**9,)),
    "a billion values of one": long_size(size=(10**9,), stride=(0,)),
    "many factors": long_size(size=(2**40,) * 10, stride=(0,) * 10),
    "too many dimensions": long_size(size=(1,) * 100, stride=(1,) * 100),
    "offset behind the end": long_size(offset=1),
    "strides behind the end": long_size(size=(2, 2), stride=(4, 1)),
    "an empty tensor behind the end": long_size(offset=10, size=(0,)),
    "negative offset": long_size(offset=-1),
    "negative stride": long_size(stride=(-1,)),
    "negative size": long_size(size=(-4,)),
    "negative number": long_size(length=-4),
    "no stride": long_size(stride=()),
    "a size that is true": b"ctorch._utils\n_rebuild_tensor_v2\n(" + STORAGE + b"K\x00(\x88t(K\x01ttR",
    "a size between numbers": b"ctorch._utils\n_rebuild_tensor_v2\n("
    + STORAGE
    + b"K\x00(G?\xf8"
    + bytes(6)
    + b"t(K\x01ttR",
    "a view of a storage": STORAGE[:-2] + b"K\x01tQ",
    "key outside": long_size(key="../data/0"),
    "key of another record": long_size(key="../data.pkl"),
    "no such record": long_size(key="1"),
    "one storage of two sizes": b"(" + long_size() + long_size(length=2, size=(1,)) + b"t",
    "one storage of two types": b"(" + long_size() + long_size(kind=b"ctorch\nFloatStorage\n") + b"t",
    "a tensor of no storage": b"ctorch._utils\n_rebuild_tensor_v2\n(K\x01K\x00(K\x01t(K\x01ttR",
    "a storage of no kind": b"(" + text("storage") + b"NX\x01\x00\x00\x000NK\x04tQ",
    "another persistent id": text("storage") + b"Q",
    "a list in itself": b"]q\x00h\x00a",
    "a module in itself": b"c__torch__\nM\n)\x81q\x00}(" + text("m") + b"h\x00ub",
    "doubled and doubled": b"]" + b"".join(b"q%c](h%ch%ce" % (n, n, n) for n in range(1, 41)),
    "modules doubled": b"".join(
        module_of("M", {"t": long_size()} if n == 0 else {"a": b"h%c" % n, "b": b"h%c" % n}) + b"q%c" % (n + 1)
        for n in range(40)
    ),
    "lists in lists": b"]" * 100_000 + b"a" * 99_999,
    "tuples in tuples": b")" + b"\x85" * 100_000,
    "dictionaries in dictionaries": b"}" + b"K\x01}" * 100_000 + b"s" * 100_000,
    "modules in modules": (b"c__torch__\nM\n)\x81}" + text("m")) * 100_000 + b"N" + b"sb" * 100_000,
    "a name without end": b"c__torch__." + b"A" * 100_000 + b"\nM\n",
    "a name of two without end": text("A" * 100_000) + text("M") + b"\x93",
    "a mark that is not there": b"N" + b"e",
    "nothing": b"",
    "a value that is not kept": b"h\x05",
    "fills a number": b"K\x01(K\x01K\x01u",
    "appends to a text": text("a") + b"K\x01a",
    "calls a number": b"K\x01)R",
    "an old instruction": b"I1\n",
    "an instruction of objects": b"(cos\nsystem\no",
    "an extension": b"\x82\x01",
    "a buffer from outside": b"\x97",
    "a text that claims a gigabyte": b"X" + struct.pack("<I", 1 << 30) + b"a",
    "bytes that claim an exabyte": b"\x8e" + struct.pack("<Q", 1 << 60) + b"a",
}


@pytest.mark.parametrize("name", BOMBS)
def test_wrong_pickles_are_refused_within_bounds(tmp_path, name):
    path = write_pickle(tmp_path / "bomb.pt", BOMBS[name], {"data/0": bytes(8)})
    started = time.process_time()
    if "in" not in name.split() and "doubled" not in name:  # which is slow with many small values
        tracemalloc.start()
    try:
        with pytest.raises(Unreadable):
            read_module(path) if "module" in name else read(path)
        with pytest.raises(ValueError) as told:  # noqa: PT011  as the file is no CLIP either, in one of two places
            weights.read_state_dict(path)
        assert str(told.value).startswith(f"{path} ")
        assert str(told.value).isprintable()
        assert tracemalloc.get_traced_memory()[1] < 200e6
    finally:
        tracemalloc.stop()
    assert time.process_time() - started < 60


def test_places_of_what_is_kept_take_no_memory(tmp_path):
    """Python's own reader makes room for all places up to the one that is named."""
    path = write_pickle(tmp_path / "f", b"Nr" + struct.pack("<I", 2**32 - 1))
    tracemalloc.start()
    assert read(path) is None
    assert tracemalloc.get_traced_memory()[1] < 10e6
    tracemalloc.stop()


def test_objects_that_share_their_attributes_take_no_memory(tmp_path):
    attributes = b"}(" + b"".join(number(n) + b"N" for n in range(3000)) + b"u"
    path = write_pickle(tmp_path / "f", attributes + b"q\x00(" + b"c__torch__\nM\n)\x81h\x00b" * 3000 + b"t")
    tracemalloc.start()
    assert len(read(path)) == 3000
    assert tracemalloc.get_traced_memory()[1] < 50e6
    tracemalloc.stop()


def test_deep_tuples_are_no_keys(tmp_path):
    """Python computes the hash of a tuple by recursion, and dies of a deep one."""
    instructions = b"}" + b")" + b"\x85" * 100_000 + b"K\x01s" + text("a") + b"K\x02s"
    assert read(write_pickle(tmp_path / "f", instructions)) == {"a": 2}


def test_integers_of_one_hash_are_no_keys():
    """A dictionary of them is filled in hours; Python's hash of an integer is what remains of it after 2**61 - 1."""
    items = b"".join(
        b"\x8a\x0b" + (number * (2**61 - 1)).to_bytes(11, "little") + b"K\x00" for number in range(1, 100_000)
    )
    started = time.process_time()
    content = inert_pickle.read_pickle(io.BytesIO(b"\x80\x02}(" + items + b"K\x07K\x00u.")).content
    assert content == {7: 0}
    assert time.process_time() - started < 30


def test_number_of_instructions_is_bounded(tmp_path, monkeypatch):
    path = write_pickle(tmp_path / "f", b"N0" * 10 + b"N")
    monkeypatch.setattr(inert_pickle, "INSTRUCTIONS", 20)
    with pytest.raises(Unreadable, match="POP"):
        read(path)
    path = write_pickle(tmp_path / "f", b"(" + b"N" * 20 + b"t")
    with pytest.raises(Unreadable, match="more than 20 instructions"):
        read(path)
    monkeypatch.setattr(inert_pickle, "INSTRUCTIONS", 24)
    assert read(path) == (None,) * 20
    monkeypatch.setattr(archives, "VALUES", 20)
    with pytest.raises(Unreadable, match="more than 20 values"):
        read(path)


def rewritten(source, target, change) -> Path:
    """A copy of a zip file whose records (name, content, compression) went through a function."""
    with zipfile.ZipFile(source) as archive:
        records = [(name, archive.read(name), zipfile.ZIP_STORED) for name in archive.namelist()]
    with warnings.catch_warnings(), zipfile.ZipFile(target, "w") as archive:
        warnings.simplefilter("ignore")  # of two records of one name
        for name, content, compression in change(records):
            archive.writestr(name, content, compression)
    return target


def test_zip_files_unlike_pytorchs_are_refused(tmp_path, monkeypatch):
    torch.save({"a": torch.zeros(2**18)}, tmp_path / "good")
    good, bad = tmp_path / "good", tmp_path / "bad"
    assert torch.equal(read(rewritten(good, bad, lambda records: records))["a"], torch.zeros(2**18))

    def refused(change, match):
        with pytest.raises(Unreadable, match=match):
            read(rewritten(good, bad, change))

    def packed(suffix):
        return lambda records: [
            (name, content, zipfile.ZIP_DEFLATED if name.endswith(suffix) else how) for name, content, how in records
        ]

    refused(lambda records: records + records[-1:], "two of one name")
    refused(lambda records: [*records, ("good/../../x", b"", 0)], "outside its folder")
    refused(lambda records: [*records, ("/etc/x", b"", 0)], "outside its folder")
    refused(lambda records: [*records, ("good\\..\\x", b"", 0)], "outside its folder")
    refused(packed("data/0"), "'data/0' is compressed")
    refused(packed("data.pkl"), r"'data\.pkl' is compressed")
    refused(lambda records: [*records, ("other/data.pkl", records[0][1], 0)], "not one of PyTorch")
    refused(lambda records: records[1:], "not one of PyTorch")
    refused(lambda records: [record for record in records if not record[0].endswith("/0")], "'data/0' is missing")
    refused(
        lambda records: [
            (name, content[:-1] if name.endswith("/0") else content, how) for name, content, how in records
        ],
        "'0' has 1,048,575 bytes where 1,048,576",
    )
    refused(lambda records: [*records, ("good/byteorder", b"big", 0)][-1:] + records[:2], "big-endian")
    for name, limit, match in (
        ("PICKLE_BYTES", 20, r"'data\.pkl' claims"),
        ("RECORDS", 2, "more than 2 records"),
        ("DIRECTORY_BYTES", 10, "claims .* bytes in one piece"),
    ):
        monkeypatch.setattr(archives, name, limit)
        refused(lambda records: records, match)
        monkeypatch.undo()


def test_records_in_each_other_are_refused(tmp_path):
    """A file of 1 MB with 50 records, each but the last holding the next one: whoever reads them all takes 50 MB."""
    content, records = bytes(1_000_000), []
    for n in range(50):
        name = f"f/data/{n}".encode()
        records.append((name, content))
        sizes = struct.pack("<3I2H", zlib.crc32(content), len(content), len(content), len(name), 0)
        content = b"PK\x03\x04" + struct.pack("<5H", 20, 0, 0, 0, 0) + sizes + name + content
    tensors = b"(" + b"".join(stored(str(n), 500_000, 0, (500_000,)) for n in range(50)) + b"t"
    path = write_zip(tmp_path / "f", {"outer": content, "data.pkl": b"\x80\x02" + tensors + b"."}, "f")
    whole = path.read_bytes()
    with zipfile.ZipFile(path, "a") as archive:
        for name, inner in records:
            record = zipfile.ZipInfo(name.decode())
            record.file_size = record.compress_size = len(inner)
            record.CRC, record.header_offset = zlib.crc32(inner), whole.index(name) - 30
            archive.filelist.append(record)
        archive._didModify = True
    tracemalloc.start()
    # Newer Pythons find it before this reader counts.
    with pytest.raises(Unreadable, match=r"more than there can be|Overlapped"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 20e6
    tracemalloc.stop()


def test_legacy_files_unlike_pytorchs_are_refused(tmp_path):
    path = tmp_path / "f"

    def legacy(version=1001, little=True, key="0", keys=("0",), tail=bytes(8) + bytes(8)) -> Path:
        head = [pickle.dumps(value, 2) for value in (archives.LEGACY[0], version, {"little_endian": little})]
        tensor = b"\x80\x02" + stored(key, 4, 0, (4,), (1,)) + b"."
        path.write_bytes(b"".join((*head, tensor, pickle.dumps(list(keys), 2), tail)))
        return path

    assert torch.equal(read(legacy()), torch.zeros(4).half())
    for changes, match in (
        ({"version": 1000}, "an old format"),
        ({"little": False}, "an old format"),
        ({"keys": ()}, "its storages are not those"),
        ({"keys": ("1",)}, "its storages are not those"),
        ({"keys": ("0", "0")}, "its storages are not those"),
        ({"keys": ([[]],)}, "its storages are not those"),
        ({"tail": bytes(15)}, "cut off"),
    ):
        with pytest.raises(Unreadable, match=match):
            read(legacy(**changes))


def test_names_and_number_of_tensors_are_bounded(tmp_path, monkeypatch):
    tensor = stored("0", 1, 0, (1,), (1,))
    deep = tensor
    for _ in range(11):
        deep = module_of("M", {"n" * 40: deep})
    path = write_pickle(tmp_path / "f", deep, {"data/0": bytes(2)})
    assert len(next(iter(read_module(path)))) == 11 * 41 - 1
    with pytest.raises(Unreadable, match="names longer than 500"):
        read_module(write_pickle(path, module_of("M", {"n" * 60: deep}), {"data/0": bytes(2)}))
    monkeypatch.setattr(archives, "TENSORS", 3)
    with pytest.raises(Unreadable, match="more than 3 tensors"):
        read_module(write_pickle(path, module_of("M", {str(n): tensor for n in range(5)}), {"data/0": bytes(2)}))


def test_gzip_bomb(tmp_path, monkeypatch):
    path = tmp_path / "bomb.pt.gz"
    with gzip.open(path, "wb", compresslevel=9) as file:
        for _ in range(300):
            file.write(bytes(1 << 20))
    assert path.stat().st_size < 1 << 20
    tracemalloc.start()
    with pytest.raises(Unreadable, match="unpacks to more than 256 MB"):
        read(path)
    assert tracemalloc.get_traced_memory()[1] < 600e6
    tracemalloc.stop()
    torch.save({"state_dict": {"a": torch.zeros(2**18)}}, tmp_path / "good")
    path.write_bytes(gzip.compress((tmp_path / "good").read_bytes()))
    assert read_checkpoint(path)["state_dict"]["a"].sum() == 0
    monkeypatch.setattr(archives, "UNPACKED_BYTES", 1 << 19)
    with pytest.raises(ValueError, match=r"bomb\.pt\.gz is not a whole checkpoint: it unpacks to more than 0 MB"):
        read_checkpoint(path)


# What else it may be


def damaged(name: str) -> bytes:
    buffer = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.zeros(5000)}, "epoch": 1}, buffer)
    whole = buffer.getvalue()
    buffer = io.BytesIO()
    torch.save({"state_dict": {"ctx": torch.zeros(5000)}}, buffer, _use_new_zipfile_serialization=False)
    legacy = buffer.getvalue()
    header = b'{"weight":{"dtype":"F32","shape":[1],"data_offsets":[0,4]}}'
    zipped = io.BytesIO()
    with zipfile.ZipFile(zipped, "w") as archive:
        archive.writestr("photo.jpg", b"...")
    return {
        "empty": b"",
        "page": b"\n<!DOCTYPE html><html><head><title>404</title>",
        "pointer": b"version https://git-lfs.github.com/spec/v1\noid sha256:4d7a\nsize 1\n",
        "cut": whole[: len(whole) // 2],
        "cut legacy": legacy[:-100],
        "cut legacy pickle": legacy[:60],
        "cut gzip": gzip.compress(whole)[:-20],
        "pickle": pickle.dumps({"args": argparse.Namespace(a=1)}),
        "plain pickle": pickle.dumps([1]),
        "packed safetensors": gzip.compress(struct.pack("<Q", len(header)) + header + bytes(4)),
        "tar": bytes(257) + b"ustar" + bytes(1000),
        "zip": zipped.getvalue(),
        "text": b"epoch,loss\n1,0.5\n",
        "escapes": b"\x1b[31mred\x1b[0m",
        "garbage": bytes(range(256)) * 10,
    }[name]


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("empty", "it is empty; download"),
        ("page", "it is a web page by its looks, as a failed download leaves; download it again"),
        ("pointer", "a pointer of Git LFS in place of the file; `git lfs pull`"),
        ("cut", "it is cut off, as a broken download leaves it; download"),
        ("cut legacy", "it is cut off"),
        ("cut legacy pickle", "it is damaged .*; download"),
        ("cut gzip", "it is damaged .*; download"),
        ("pickle", r"a pickle that torch\.save did not write and that holds objects, of argparse\.Namespace first"),
        ("plain pickle", r"a pickle that torch\.save did not write; only"),
        ("packed safetensors", "a safetensors file, which is read where .* and not compressed"),
        ("tar", "a packed file; unpack it"),
        ("zip", "a zip file, but not one of PyTorch"),
        ("text", r"a text, which begins 'epoch,loss\\n1,0\.5\\n'; download"),
        ("escapes", r"begins '\\x1b\[31mred"),
        ("garbage", "none of the formats of torch.save and TorchScript; download"),
    ],
)
def test_what_a_file_is_is_told_in_one_line(tmp_path, name, match):
    path = tmp_path / "file.pt"
    path.write_bytes(damaged(name))
    for reader, wrong in (
        (weights.read_state_dict, "cannot be read as a CLIP"),
        (read_checkpoint, "not a whole check"),
    ):
        with pytest.raises(ValueError, match=match) as told:
            reader(path)
        assert wrong in str(told.value)
        assert str(told.value).startswith(str(path))
        assert str(told.value).isprintable()
        assert "weights_only" not in str(told.value)
        assert "ocumentation" not in str(told.value)


def test_wrong_byte_in_a_storage_is_told(tmp_path):
    torch.save({"state_dict": {"ctx": torch.zeros(5000)}}, tmp_path / "f")
    whole = (tmp_path / "f").read_bytes()
    at = whole.index(bytes(1000)) + 500
    (tmp_path / "f").write_bytes(whole[:at] + b"\x01" + whole[at + 1 :])
    with pytest.raises(ValueError, match=r"f is not a whole checkpoint: it is damaged \(BadZipFile .*\); download"):
        read_checkpoint(tmp_path / "f")


def test_changed_bytes_never_lead_elsewhere(tmp_path):
    """A file with wrong bytes is read or refused, and nothing else happens."""
    torch.save({"state_dict": {"a": torch.zeros(3)}, "epoch": 3, "args": argparse.Namespace(a=[1])}, tmp_path / "zip")
    torch.save({"a": torch.zeros(3)}, tmp_path / "legacy", _use_new_zipfile_serialization=False)
    write_old_archive(tmp_path / "archive", {"a": torch.zeros(3), "b.c": torch.zeros(2, 2)}, 0)
    generator, outcomes = random.Random(0), collections.Counter()
    for name in ("zip", "legacy", "archive"):
        whole = (tmp_path / name).read_bytes()
        for _ in range(250):
            changed = bytearray(whole)
            for _ in range(generator.choice((1, 2, 10))):
                changed[generator.randrange(len(changed))] = generator.randrange(256)
            path = tmp_path / "changed"
            path.write_bytes(changed[: generator.randrange(len(changed))] if generator.random() < 0.1 else changed)
            try:
                with archives.opened(path) as saved:
                    saved.everything()
                    assert all(isinstance(value, StoredTensor) for value in saved.module_tensors().values())
                outcomes["read"] += 1
            except Unreadable:
                outcomes["refused"] += 1
    assert min(outcomes["read"], outcomes["refused"]) > 100
