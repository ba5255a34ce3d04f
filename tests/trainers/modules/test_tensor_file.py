"""safetensors files: written whole, read as CLIP's weights, and refused where they are broken."""

from __future__ import annotations

import builtins
import json
import struct

import pytest
import torch
from safetensors.torch import save_file

from trainers.modules import loading, tensor_file
from trainers.modules.inert_pickle import Unreadable
from trainers.modules.tensor_file import is_tensor_file, read_tensor_file, write_tensor_file


def test_what_is_written_is_read(tmp_path):
    """Also tensors of all types, without values, transposed, sharing their values."""
    shared = torch.arange(6.0).view(2, 3)
    tensors = {"a": shared, "b.c": shared.T, "none": torch.zeros(0, 3), "one": torch.tensor(2.5)}
    tensors.update({code: torch.tensor([0, 1], dtype=dtype) for code, dtype in tensor_file.DTYPES.items()})
    write_tensor_file(tmp_path / "a.safetensors", tensors, {"about": "ä\n", "empty": ""})
    found, texts = read_tensor_file(tmp_path / "a.safetensors")
    assert texts == {"about": "ä\n", "empty": ""}
    assert found.keys() == tensors.keys()
    for name, value in tensors.items():
        assert found[name].dtype == value.dtype
        assert torch.equal(found[name], value)
    assert is_tensor_file(tmp_path / "a.safetensors")
    assert [path.name for path in tmp_path.iterdir()] == ["a.safetensors"]


def test_other_files_are_none(tmp_path, clip_files):
    for content in (b"", b"{", b"        {", b"epoch: 1{"):
        (tmp_path / "file").write_bytes(content)
        assert not is_tensor_file(tmp_path / "file")
    assert not any(is_tensor_file(path) for path in clip_files.values())


def test_a_failed_write_leaves_the_old_file(tmp_path, monkeypatch):
    path = tmp_path / "a.safetensors"
    write_tensor_file(path, {"a": torch.zeros(1)}, {})

    def refuse(*_):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.write_bytes", refuse)
    with pytest.raises(OSError, match="disk full"):
        write_tensor_file(path, {"a": torch.ones(1)}, {})
    assert read_tensor_file(path)[0]["a"] == 0
    assert [each.name for each in tmp_path.iterdir()] == ["a.safetensors"]


@pytest.mark.parametrize("prefix", ["", "module."])
def test_weights_of_clip(small_clip, clip_files, tmp_path, prefix):
    path = tmp_path / "small.safetensors"
    save_file({prefix + name: value for name, value in small_clip.state_dict().items()}, path)
    model, plain = loading.load_clip(str(path)), loading.load_clip(str(clip_files["plain"]))
    assert model.sha256 == plain.sha256
    assert all(torch.equal(a, b) for a, b in zip(model.state_dict().values(), plain.state_dict().values()))


def test_other_tensors_are_no_weights_of_clip(small_clip, tmp_path):
    path = tmp_path / "other.safetensors"
    save_file({"weight": torch.zeros(3)}, path)
    with pytest.raises(ValueError, match=r"other\.safetensors is not a CLIP file: it has no token_embedding"):
        loading.load_clip(str(path))
    save_file({**small_clip.state_dict(), "visual.proj": torch.zeros(64, 48, dtype=torch.int8)}, path)
    with pytest.raises(ValueError, match=r"its weights are integers, as of a quantised model: visual\.proj"):
        loading.load_clip(str(path))


def whole(header: dict, values: bytes = b"") -> bytes:
    text = json.dumps(header).encode()
    return struct.pack("<Q", len(text)) + text + values


ENTRY = {"dtype": "F32", "shape": [2], "data_offsets": [0, 8]}


@pytest.mark.parametrize(
    ("content", "match"),
    [
        (whole({"a": ENTRY}, bytes(7)), "a damaged safetensors file"),
        (whole({"a": ENTRY}, bytes(9)), "a damaged safetensors file"),
        (whole({"a": ENTRY}, bytes(8))[:30], "a damaged safetensors file"),
        (whole({"a": {**ENTRY, "shape": [10**12]}}, bytes(8)), "a damaged safetensors file"),
        (whole({"a": {**ENTRY, "data_offsets": [8, 16]}}, bytes(8)), "a damaged safetensors file"),
        (whole({"a": {**ENTRY, "dtype": "Q7"}}, bytes(8)), "a damaged safetensors file"),
        (
            whole({"a": {"dtype": "F8_E4M3", "shape": [8], "data_offsets": [0, 8]}}, bytes(8)),
            "its a is of type F8_E4M3",
        ),
        (whole({"a" * 501: ENTRY}, bytes(8)), "names longer than 500"),
        (whole({"\x1b[31m": {**ENTRY, "shape": 3}}, bytes(8)), "a damaged safetensors file"),
        (struct.pack("<Q", 10**7) + b"{", "a damaged safetensors file"),
    ],
    ids=range(10),
)
def test_damaged_files(tmp_path, content, match):
    (tmp_path / "file").write_bytes(content)
    assert is_tensor_file(tmp_path / "file")
    with pytest.raises(Unreadable, match=match) as told:
        read_tensor_file(tmp_path / "file")
    assert str(told.value).isprintable()
    with pytest.raises(ValueError, match=rf"file cannot be read as a CLIP file: it .*{match}|{match}"):
        loading.load_clip(str(tmp_path / "file"))


def test_missing_file(tmp_path):
    with pytest.raises(FileNotFoundError, match="nowhere"):
        read_tensor_file(tmp_path / "nowhere.safetensors")


def test_without_the_package_one_line_says_so(tmp_path, monkeypatch):
    save_file({"a": torch.zeros(1)}, tmp_path / "a.safetensors")
    plain = builtins.__import__

    def refuse(name, *arguments, **options):
        if name.startswith("safetensors"):
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    for call in (
        read_tensor_file,
        lambda path: write_tensor_file(path, {}, {}),
        lambda path: loading.load_clip(str(path)),
    ):
        with pytest.raises(ValueError, match=r"a\.safetensors needs the package safetensors: pip install safetensors"):
            call(tmp_path / "a.safetensors")
