"""Loading CLIP from OpenAI's two formats, from the layouts that labs have, and from what is not a CLIP."""

from __future__ import annotations

import argparse
import hashlib
import re
import textwrap
import urllib.error

import numpy as np
import pytest
import torch
from clip import clip
from clip.model import build_model
from torch import nn

from helpers import ROOT, SIZE, random_clip
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


@pytest.mark.parametrize("precision", ["fp16", "fp32"])
def test_draws_of_a_load_can_be_repeated(clip_files, precision):
    """Those of CLIP's own constructor, whatever has become of the model; which is left as it is."""
    torch.manual_seed(3)
    model = loading.load_clip(str(clip_files["plain"]), precision)
    expected = torch.rand(3)
    before = {name: value.clone() for name, value in model.state_dict().items()}
    torch.manual_seed(3)
    loading.repeat_draws(model)
    assert torch.equal(torch.rand(3), expected)
    assert all(torch.equal(value, before[name]) for name, value in model.state_dict().items())
    assert not any(parameter.requires_grad for parameter in model.parameters())


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
    with pytest.raises(
        ValueError, match=r"harmful\.pt is not a CLIP file: .*text_projection \(an object of _?io\.open\)"
    ):
        loading.load_clip(str(tmp_path / "harmful.pt"))
    assert not (tmp_path / "harm").exists()


def test_what_lies_beside_the_weights_is_passed_over(small_clip, tmp_path):
    state = small_clip.state_dict()
    beside = {"epoch": np.int64(3), "args": argparse.Namespace(model="ViT-B-16"), "optimizer": {0: torch.ones(2)}}
    torch.save({"state_dict": state, **beside}, tmp_path / "wrapped.pt")
    torch.save({**state, **beside}, tmp_path / "mixed.pt")
    digest = loading.weights_digest(state)
    assert loading.load_clip(str(tmp_path / "wrapped.pt")).sha256 == digest
    assert loading.load_clip(str(tmp_path / "mixed.pt")).sha256 == digest


def test_two_positional_embeddings_of_longclip(small_clip, tmp_path):
    """The text encoder takes the first 20 positions of one and the others of the other; here by its two masks."""
    state = {name: value.clone() for name, value in small_clip.state_dict().items()}
    first, rest = torch.randn(2, 248, 64)
    torch.save({**state, "positional_embedding": first, "positional_embedding_res": rest}, tmp_path / "long.pt")
    model = loading.load_clip(str(tmp_path / "long.pt"))
    kept = (torch.arange(248) < 20).float()[:, None]
    tokens = clip.tokenize(["a photo of a dog, " + "and " * 150 + "a cat"], context_length=248)
    x = small_clip.token_embedding(tokens) + first * kept + rest * (1 - kept)
    for block in small_clip.transformer.resblocks:
        mask = torch.full((248, 248), float("-inf")).triu(1)
        y = block.ln_1(x).transpose(0, 1)
        x = x + block.attn(y, y, y, need_weights=False, attn_mask=mask)[0].transpose(0, 1)
        x = x + block.mlp(block.ln_2(x))
    expected = small_clip.ln_final(x)[0, tokens.argmax()] @ small_clip.text_projection
    torch.testing.assert_close(model.encode_text(tokens)[0], expected)
    torch.save({**state, "positional_embedding_res": rest}, tmp_path / "odd.pt")
    with pytest.raises(ValueError, match=r"odd\.pt is not a whole CLIP file.*positional_embedding_res"):
        loading.load_clip(str(tmp_path / "odd.pt"))


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"visual.proj": torch.zeros(64, 47)}, r"visual\.proj"),
        ({"ln_final.weight": torch.zeros(10**6)}, "positional_embedding"),
        ({"text_projection": torch.zeros(64, 10**6)}, "text_projection|visual.proj"),
        ({"text_projection": torch.zeros(3)}, "IndexError"),
        ({"positional_embedding": torch.zeros(10**5, 64)}, "more than 4,096 positions"),
        ({"visual.conv1.weight": torch.zeros(64 * 1500, 3, 8, 8)}, r"visual\."),
        ({"visual.transformer.resblocks.9.attn.in_proj_weight": torch.zeros(1)}, "visual.transformer.resblocks"),
        ({"\x1b[31mred": torch.zeros(1)}, "x1b"),
        ({f"visual.{n}": torch.zeros(1) for n in range(5000)}, "its 5,0.. weights claim"),
        ({"visual.proj": torch.zeros(64, 48, dtype=torch.int8)}, r"weights are integers, .*: visual\.proj$"),
        ({"visual.proj": "text"}, r"has no visual\.proj|visual\.proj|KeyError"),
        ({"text_projection": [1.0]}, "its text_projection is a list"),
        ({"text_projection": argparse.Namespace()}, r"its text_projection is an object of argparse\.Namespace"),
    ],
    ids=range(13),
)
def test_wrong_weights_are_told_before_memory_is_taken(small_clip, tmp_path, monkeypatch, change, match):
    built = []

    def build_model(state):
        built.append(torch.empty(0).device.type)
        return plain(state)

    plain = loading.build_model
    monkeypatch.setattr(loading, "build_model", build_model)
    torch.save({**small_clip.state_dict(), **change}, tmp_path / "wrong.pt")
    with pytest.raises(ValueError, match=match) as told:
        loading.load_clip(str(tmp_path / "wrong.pt"))
    assert str(told.value).isprintable()
    assert f"{tmp_path / 'wrong.pt'} is not a " in str(told.value)
    assert "cpu" not in built
    torch.save(small_clip.state_dict(), tmp_path / "right.pt")
    loading.load_clip(str(tmp_path / "right.pt"))
    assert built[-1] == "cpu"


def test_weights_that_claim_more_than_is_stored(small_clip, tmp_path):
    """Every weight is a part of one storage: read as they are, a small file would become a large model."""
    state = small_clip.state_dict()
    values = torch.zeros(max(value.numel() for value in state.values()))
    torch.save({name: values[: value.numel()].view(value.shape) for name, value in state.items()}, tmp_path / "one.pt")
    assert loading.load_clip(str(tmp_path / "one.pt"))  # less than twice
    huge = {name: value if value.ndim < 2 else values[: 10**6] for name, value in state.items()}
    torch.save(huge, tmp_path / "shared.pt")
    with pytest.raises(ValueError, match=r"shared\.pt is not a CLIP file: its \d+ weights claim [\d,]+ values where"):
        loading.load_clip(str(tmp_path / "shared.pt"))


@pytest.mark.parametrize(
    ("content", "match"),
    [
        ({"text_model.embeddings.weight": torch.zeros(1)}, "Hugging Face.* MODEL.BACKBONE.NAME takes OpenAI's file"),
        ({"state_dict": {"prompt_learner.ctx": torch.zeros(1)}}, "a checkpoint of prompts, which --model-dir or"),
        (
            {f"layer{n}.weight": torch.zeros(1) for n in range(9)},
            r"another model, with layer0.*layer4\.weight and 4 more;",
        ),
        ({"model": nn.Linear(1, 1)}, r"another model, with model \(an object of torch\.nn\.modules\.linear\.Linear\)"),
        (nn.Linear(1, 1), r"it holds an object of torch\.nn\.modules\.linear\.Linear in place of weights; torch\.save"),
        ([torch.zeros(1)], "it holds a list in place of weights"),
        ({"state_dict": None}, "it holds a NoneType in place of weights"),
        ({}, "with nothing"),
        ({"\x1b[31m\n": torch.zeros(1)}, r"with \\x1b\[31m\\n;"),
    ],
    ids=range(9),
)
def test_other_contents_are_told(tmp_path, content, match):
    torch.save(content, tmp_path / "other.pt")
    with pytest.raises(ValueError, match=match) as told:
        loading.load_clip(str(tmp_path / "other.pt"))
    assert str(told.value).startswith(f"{tmp_path / 'other.pt'} ")
    assert str(told.value).isprintable()


def test_file_named_as_one_of_openais(monkeypatch, clip_files, tmp_path, capsys):
    """Told where it is not that file, in the reason of a refusal or in a note."""
    content = clip_files["plain"].read_bytes()
    path = tmp_path / "small.pt"
    path.write_bytes(content)
    assert loading.is_published(path) is None
    loading.load_clip(str(path))
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(loading.PUBLISHED, "small", ("small.pt", hashlib.sha256(content).hexdigest()))
    assert loading.is_published(path) is True
    loading.load_clip(str(path))
    assert capsys.readouterr().out == ""
    monkeypatch.setitem(loading.PUBLISHED, "small", ("small.pt", "0" * 64))
    loading.load_clip(str(path))
    assert capsys.readouterr().out == (
        f"Note: {path} is named as one of OpenAI's files, and is not that file: its SHA-256 is another\n"
    )
    path.write_bytes(content[:-1000])
    with pytest.raises(ValueError, match=r"cut off.* \(it is not OpenAI's small\.pt, whose SHA-256 is another\)"):
        loading.load_clip(str(path))


def test_published_digests_are_those_in_the_packages_addresses():
    """In whichever copy of the package is installed."""
    for name, url in clip._MODELS.items():
        *_, sha256, file = url.split("/")
        assert loading.PUBLISHED[name] == (file, sha256)
    assert len({sha256 for _, sha256 in loading.PUBLISHED.values()}) == 9
    assert loading.published_name("ViT-L-14-336px.pt") == "ViT-L/14@336px"


def test_package_that_checks_nothing_gets_no_other_file_in(monkeypatch, clip_files, tmp_path):
    """As a copy with other addresses, or without the check; with the right file all is well."""
    file = tmp_path / "ViT-B-16.pt"
    file.write_bytes(clip_files["plain"].read_bytes())
    monkeypatch.setattr(clip, "_download", lambda url, root: str(file))
    with pytest.raises(
        ValueError, match=r"CLIP ViT-B/16: .*ViT-B-16.pt, from http.* is not OpenAI's file: .* 5806e77c"
    ):
        loading.load_clip("ViT-B/16")
    monkeypatch.setitem(loading.PUBLISHED, "ViT-B/16", (file.name, hashlib.sha256(file.read_bytes()).hexdigest()))
    assert loading.load_clip("ViT-B/16").visual.input_resolution == SIZE


def test_what_weights_do_not_tell_is_told(monkeypatch, clip_files, tmp_path):
    """Activation and heads: of a file that is not OpenAI's, whatever its name; a wrong guess gives no error."""
    path = str(clip_files["plain"])
    told = loading.assumptions(path, loading.load_clip(path))
    assert told.startswith(
        f"{path} is not one of OpenAI's files, and is computed as if it were, with QuickGELU and heads of "
    )
    assert "(1 in the text encoder, 1 in the image encoder)" in told
    resnet = random_clip(vision_layers=(1, 1, 1, 1), vision_width=2, vision_patch_size=None)
    assert "(1 in the text encoder)" in loading.assumptions(path, resnet)
    digest = hashlib.sha256(clip_files["plain"].read_bytes()).hexdigest()
    monkeypatch.setitem(loading.PUBLISHED, "small", ("another_name.pt", digest))
    assert loading.assumptions(path, resnet) == ""
    for name in ("ViT-B/16", "open_clip:ViT-B-16/openai", "local-dir:folder"):
        assert loading.assumptions(name, resnet) == ""


def test_rounded_file_gives_what_published_code_computes_of_the_other(small_clip, tmp_path, monkeypatch):
    """As docs/backbones.md has it: of float32 weights published code makes half precision, and of that float32."""
    monkeypatch.chdir(tmp_path)
    torch.save(small_clip.state_dict(), "file.pt")
    published = build_model(small_clip.state_dict()).float()
    page = (ROOT / "docs/backbones.md").read_text(encoding="utf-8")
    code = re.search(r"```python\n(.*?)```", page[page.index("**Rounding**") :], re.DOTALL)[1]
    exec(textwrap.dedent(code), {})
    image, text = torch.randn(2, 3, SIZE, SIZE), torch.randint(1, 400, (2, 77))
    expected = [model(image, text)[0] for model in (published, small_clip)]
    rounded, exact = (loading.load_clip(name)(image, text)[0] for name in ("file_rounded.pt", "file.pt"))
    assert torch.equal(rounded, expected[0])
    assert torch.equal(exact, expected[1])
    assert not torch.equal(rounded, exact)


def test_weights_are_compared_before_a_model_is_made_of_them(monkeypatch, clip_files, other_clip):
    digest = loading.load_clip(str(clip_files["plain"])).sha256
    assert loading.load_clip(str(clip_files["archive"]), sha256=digest).sha256 == digest
    monkeypatch.setattr(loading, "build_model", None)
    with pytest.raises(loading.OtherWeights, match=rf"SHA-256 {digest[:12]}\.\.\.\) than those in {other_clip} \("):
        loading.load_clip(str(other_clip), sha256=digest)


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


def test_failed_download_is_one_error(monkeypatch, tmp_path):
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


@pytest.mark.parametrize(
    ("text", "read"),
    [
        ("a photo of a Red_Kite.", ("a photo of a red kite .", 7)),
        ("a Rückenschwimmer", ("a r-ü-cken-sch-wim-mer", 7)),
        ("", ("", 0)),
    ],
)
def test_words_as_clip_reads_them(text, read):
    assert loading.words_read(text) == read
