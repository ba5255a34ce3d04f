"""Loading CLIP from OpenAI's two formats, from the layouts that labs have, and from what is not a CLIP."""

from __future__ import annotations

import urllib.error

import pytest
import torch
from clip import clip

from trainers.modules import loading


@pytest.mark.parametrize("kind", ["plain", "gzip", "archive"])
def test_formats(small_clip, clip_files, kind):
    model = loading.load_clip(str(clip_files[kind]), "fp32")
    assert not model.training
    assert not any(parameter.requires_grad for parameter in model.parameters())
    image = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    torch.testing.assert_close(model.encode_image(image), small_clip.encode_image(image))
    tokens = clip.tokenize(["a photo of a dog."])
    torch.testing.assert_close(model.encode_text(tokens), small_clip.encode_text(tokens))


@pytest.mark.parametrize("precision", ["fp16", "bf16", "fp32", "amp"])
def test_precision(clip_files, precision):
    model = loading.load_clip(str(clip_files["plain"]), precision)
    dtype = loading.PRECISIONS[precision]
    assert model.visual.conv1.weight.dtype == dtype
    assert model.text_projection.dtype == dtype
    assert model.ln_final.weight.dtype == torch.float32


def test_digest_is_of_the_weights_and_of_nothing_else(small_clip, clip_files, tmp_path):
    """The same for every format and precision, also for half-precision weights that were stored in float32."""
    digest = loading.weights_digest(small_clip.state_dict())
    assert len(digest) == 64
    for kind, precision in (("plain", "fp16"), ("gzip", "bf16"), ("archive", "fp32"), ("archive", "fp16")):
        assert loading.load_clip(str(clip_files[kind]), precision).sha256 == digest
    half = {name: tensor.half() for name, tensor in reversed(small_clip.state_dict().items())}
    single = {name: tensor.float() for name, tensor in half.items()}
    assert loading.weights_digest(half) == loading.weights_digest(single) != digest
    for name in ("logit_scale", "visual.proj"):
        changed = {**small_clip.state_dict()}
        changed[name] = changed[name] * 1.0001
        torch.save(changed, tmp_path / "changed.pt")
        assert loading.load_clip(str(tmp_path / "changed.pt")).sha256 != digest
    state = small_clip.state_dict()
    turned = {**state, "text_projection": state["text_projection"].reshape(48, 64)}
    assert loading.weights_digest(turned) != digest


def test_unknown_precision(clip_files):
    with pytest.raises(ValueError, match="fp16, bf16, amp, fp32"):
        loading.load_clip(str(clip_files["plain"]), "fp8")


def test_wrapped_state_dict(small_clip, tmp_path):
    state = {f"module.{key}": value for key, value in small_clip.state_dict().items()}
    torch.save({"state_dict": state, "epoch": 3}, tmp_path / "wrapped.pt")
    keys = loading.read_state_dict(tmp_path / "wrapped.pt").keys()
    assert keys == small_clip.state_dict().keys()


@pytest.mark.parametrize("content", [b"", b"not a model", b"PK\x03\x04 cut off"])
@pytest.mark.parametrize("suffix", [".pt", ".pt.gz"])
def test_broken_file(tmp_path, content, suffix):
    path = tmp_path / f"broken{suffix}"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=f"broken{suffix}"):
        loading.load_clip(str(path))


def test_cut_archive(clip_files, tmp_path):
    path = tmp_path / "cut.pt"
    path.write_bytes(clip_files["archive"].read_bytes()[:-1000])
    with pytest.raises(ValueError, match=r"cut\.pt cannot be read"):
        loading.load_clip(str(path))


def test_another_models_file(tmp_path):
    torch.save({"weight": torch.zeros(3)}, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=r"is not a CLIP file: it has no token_embedding\.weight"):
        loading.load_clip(str(tmp_path / "other.pt"))


@pytest.mark.parametrize("key", ["visual.proj", "visual.ln_post.weight", "transformer.resblocks.1.ln_1.bias"])
def test_half_a_clip(small_clip, tmp_path, key):
    state = {name: value for name, value in small_clip.state_dict().items() if name != key}
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"half\.pt is not a whole CLIP file"):
        loading.load_clip(str(tmp_path / "half.pt"))


def test_file_that_runs_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    torch.save({"text_projection": Harm()}, tmp_path / "harmful.pt")
    with pytest.raises(ValueError, match=r"is not a CLIP file: .*text_projection \(an object of io\.open\)"):
        loading.load_clip(str(tmp_path / "harmful.pt"))
    assert not (tmp_path / "harm").exists()


def test_unknown_name():
    with pytest.raises(FileNotFoundError, match=r"'ViT-B/61'.*ViT-B/16"):
        loading.load_clip("ViT-B/61")


def test_name_is_found_in_the_cache_after_its_checksum(monkeypatch, clip_files, tmp_path):
    import hashlib

    content = clip_files["archive"].read_bytes()
    url = f"https://nowhere.invalid/{hashlib.sha256(content).hexdigest()}/small.pt"
    monkeypatch.setitem(clip._MODELS, "small", url)
    (tmp_path / "small.pt").write_bytes(content)
    assert loading.find_file("small", str(tmp_path)) == tmp_path / "small.pt"


def test_failed_download_is_one_sentence(monkeypatch, tmp_path):
    def refuse(*_):
        raise urllib.error.URLError("no network")

    monkeypatch.setattr("urllib.request.urlopen", refuse)
    with pytest.raises(FileNotFoundError, match=r"ViT-B-16\.pt is missing.*no network.*MODEL\.BACKBONE\.NAME"):
        loading.load_clip("ViT-B/16", cache=str(tmp_path))


def test_tokens_are_clips():
    for text in ("a photo of a dog.", "Striped_Texture", "naïve café", ""):
        tokens = clip.tokenize(text.replace("_", " "))[0]
        assert loading.tokenize(text) == tokens[: tokens.argmax() + 1].tolist()


def test_maples_package_is_asked_for_the_plain_clip(small_clip, clip_files, monkeypatch):
    """Its `build_model` takes what the encoders hold of prompts besides, and builds CLIP's own for none."""
    asked = []

    def build_model(state_dict, design_details):
        asked.append(design_details)
        return plain(state_dict)

    plain = loading.build_model
    monkeypatch.setattr(loading, "build_model", build_model)
    model = loading.load_clip(str(clip_files["plain"]))
    none = {"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
    assert asked
    assert all(details == none for details in asked)
    assert model.state_dict().keys() == small_clip.state_dict().keys()


def test_parts_that_a_package_leaves_at_random_are_told(small_clip, tmp_path, monkeypatch):
    """MaPLe's package passes over what a file lacks: half a CLIP would be tested with random weights."""

    def build_model(state_dict, design_details):
        return plain({**small_clip.state_dict(), **state_dict})

    plain = loading.build_model
    monkeypatch.setattr(loading, "build_model", build_model)
    state = {name: value for name, value in small_clip.state_dict().items() if name != "visual.ln_post.bias"}
    torch.save(state, tmp_path / "half.pt")
    with pytest.raises(ValueError, match=r"half\.pt is not a whole CLIP file: .* visual\.ln_post\.bias$"):
        loading.load_clip(str(tmp_path / "half.pt"))
