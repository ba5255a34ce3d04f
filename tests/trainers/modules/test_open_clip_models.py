"""open_clip's models as backbone, against open_clip's own computation, and those that are refused."""

from __future__ import annotations

import builtins
import copy
import json

import pytest
import torch

from helpers import HALF, SIZE, relative, results_of
from trainers.modules import loading, open_clip_models, representation, text
from trainers.modules.prompts import CoupledTemplates, TextTemplates
from trainers.modules.representation import LateImageEncoder, LateTextEncoder
from trainers.modules.text import TextEncoder
from trainers.modules.vision import ImageEncoder, VisualPrompt

open_clip = pytest.importorskip("open_clip", reason="open_clip_torch is not installed")

VISION = {"image_size": SIZE, "layers": 2, "width": 64, "patch_size": 8}
TEXT = {"context_length": 77, "vocab_size": 49408, "width": 64, "heads": 1, "layers": 3}
SCALE = {"ls_init_value": 0.5}
# What differs between open_clip's models: the activation, heads, the width of hidden layers, positions, LayerScale, ...
KINDS = {
    "gelu": {},
    "quickgelu": {"quick_gelu": True},
    "tanh gelu": {"text": {"act_kwargs": {"approximate": "tanh"}}, "vision": {"act_kwargs": {"approximate": "tanh"}}},
    "long": {"text": {"context_length": 120}},
    "short": {"text": {"context_length": 20, "heads": 4}, "vision": {"head_width": 16, "mlp_ratio": 3.5}},
    "layer scale": {"text": SCALE, "vision": SCALE},
    "other ends": {
        "vision": {
            "no_ln_pre": True,
            "final_ln_after_pool": True,
            "pos_embed_type": "sin_cos_2d",
            "patch_dropout": 0.5,
        },
        "init_logit_bias": -10,
    },
}
TEXTS = ["a photo of a dog.", "x", "striped_texture", "a rather long class name of many words, and one more"]


def config_of(kind: str = "gelu") -> dict:
    options = dict(KINDS[kind])
    vision, words = options.pop("vision", {}), options.pop("text", {})
    return {"embed_dim": 48, "vision_cfg": {**VISION, **vision}, "text_cfg": {**TEXT, **words}, **options}


def random_model(config: dict):
    """open_clip's own module of a config, its weights far enough from their start that every part matters."""
    generator = torch.Generator().manual_seed(0)
    model = open_clip.CLIP(**copy.deepcopy(config)).eval().requires_grad_(False)
    for name, parameter in model.named_parameters():
        if not name.startswith("logit_"):
            spread = 0.3 if parameter.ndim == 1 else 2.0 * parameter.std().item()
            mean = 1.0 if ("ln_" in name and name.endswith("weight")) or name.endswith("gamma") else 0.0
            parameter.copy_(mean + spread * torch.randn(parameter.shape, generator=generator))
    return model


def save_folder(folder, config: dict, model=None, safe: bool = True, **more) -> str:
    """A folder in the layout of open_clip's repositories; its name as a backbone."""
    folder.mkdir(exist_ok=True)
    (folder / "open_clip_config.json").write_text(json.dumps({"model_cfg": config, **more}))
    state = (model or random_model(config)).state_dict()
    if safe:
        from safetensors.torch import save_file

        save_file(state, folder / "open_clip_model.safetensors")
    else:
        torch.save(state, folder / "open_clip_pytorch_model.bin")
    return f"local-dir:{folder}"


@pytest.fixture(params=KINDS)
def pair(request, tmp_path):
    """open_clip's own model of each kind, and ours by its files."""
    model = random_model(config_of(request.param))
    return model, loading.load_clip(save_folder(tmp_path / "model", config_of(request.param), model))


@pytest.mark.parametrize("together", [10**6, 0], ids=["together", "apart"])
def test_text_features_are_open_clips(pair, monkeypatch, together):
    theirs, ours = pair
    monkeypatch.setattr(text, "TOKENS_TOGETHER", together)
    tokens = open_clip.tokenize([each.replace("_", " ") for each in TEXTS], theirs.context_length)
    encoder = TextEncoder(ours)
    assert encoder.context_length == theirs.context_length
    assert relative(encoder.encode_texts(TEXTS), theirs.encode_text(tokens, normalize=True)) < 1e-5


def test_text_gradients_are_open_clips(pair):
    """Of context tokens, through the fast path and through all positions."""
    theirs, ours = pair
    names = ["dog", "striped_texture"]
    learner = TextTemplates(TextEncoder(ours), names, 1, 4, std=0.5)
    ctx = learner.ctx.detach().clone().requires_grad_()
    tokens = open_clip.tokenize(["X X X X " + name.replace("_", " ") + "." for name in names], theirs.context_length)
    x = theirs.token_embedding(tokens)
    x = torch.cat([x[:, :1], ctx.expand(2, -1, -1), x[:, 5:]], dim=1) + theirs.positional_embedding
    x = theirs.ln_final(theirs.transformer(x, attn_mask=theirs.attn_mask))
    slow = x[torch.arange(2), tokens.argmax(dim=1)] @ theirs.text_projection
    fast = TextEncoder(ours)(learner())[0]
    weight = torch.randn_like(slow)
    (fast * weight).sum().backward()
    (slow * weight).sum().backward()
    assert relative(fast, slow) < 1e-5
    assert relative(learner.ctx.grad, ctx.grad) < 1e-5


def test_image_features_are_open_clips(pair):
    """Without prompts, and through the prompted path with no tokens."""
    theirs, ours = pair
    images = torch.randn(3, 3, SIZE, SIZE)
    encoder, expected = ImageEncoder(ours), theirs.encode_image(images)
    assert encoder.input_size == SIZE
    assert relative(encoder.features(images), expected) < 1e-5
    nothing = VisualPrompt(torch.zeros(2, 0, 64), [torch.zeros(2, 0, 64)])
    for features in encoder.features(images, nothing):
        assert relative(features, expected) < 1e-5


@pytest.mark.parametrize("n_templates", [1, 2])
def test_prompted_images_equal_the_same_through_all_of_open_clips_blocks(pair, n_templates):
    theirs, ours = pair
    images, (shallow, deep) = torch.randn(2, 3, SIZE, SIZE), torch.randn(2, n_templates, 3, 64)
    visual = theirs.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    start = torch.cat([visual.class_embedding.expand(2, 1, -1), patches], dim=1) + visual.positional_embedding
    first, second = visual.transformer.resblocks
    features = ImageEncoder(ours).features(images, VisualPrompt(shallow, [deep]))
    for m in range(n_templates):
        x = first(visual.ln_pre(torch.cat([start, shallow[m].expand(2, -1, -1)], dim=1)))
        x = second(torch.cat([x[:, :-3], deep[m].expand(2, -1, -1)], dim=1))
        assert relative(features[m], visual.ln_post(x[:, 0]) @ visual.proj) < 1e-5


@pytest.mark.parametrize("layers", [[1], [0, 1], [0]])
def test_images_with_late_tokens_equal_the_same_through_all_of_open_clips_blocks(pair, layers):
    """As MMRL has them."""
    theirs, ours = pair
    images, tokens = torch.randn(5, 3, SIZE, SIZE), {layer: torch.randn(2, 64) for layer in layers}
    visual = theirs.visual
    patches = visual.conv1(images).flatten(2).transpose(1, 2)
    x = torch.cat([visual.class_embedding.expand(5, 1, -1), patches], dim=1) + visual.positional_embedding
    x, n_own = visual.ln_pre(x), x.shape[1]
    for layer, block in enumerate(visual.transformer.resblocks):
        if layer in tokens:
            x = torch.cat([x[:, :n_own], tokens[layer].expand(5, -1, -1)], dim=1)
        x = block(x)
    x = visual.ln_post(x)
    of_class, of_tokens = LateImageEncoder(ImageEncoder(ours))(images, tokens)
    assert relative(of_class, x[:, 0] @ visual.proj) < 1e-5
    assert relative(of_tokens, x[:, n_own:].mean(dim=1)) < 1e-5


@pytest.mark.parametrize("together", [10**6, 0], ids=["together", "apart"])
def test_texts_with_late_tokens_equal_the_same_through_all_of_open_clips_blocks(pair, monkeypatch, together):
    theirs, ours = pair
    monkeypatch.setattr(representation, "TOKENS_TOGETHER", together)
    tokens = {layer: torch.randn(2, 64) for layer in (1, 2)}
    given = open_clip.tokenize([each.replace("_", " ") for each in TEXTS], theirs.context_length)
    x = theirs.token_embedding(given) + theirs.positional_embedding
    mask = torch.full((x.shape[1] + 2,) * 2, float("-inf")).triu(1)
    first, *others = theirs.transformer.resblocks
    x = first(x, attn_mask=mask[:-2, :-2])
    for layer, block in enumerate(others, 1):
        x = block(
            torch.cat([x[:, :1], tokens[layer].expand(len(x), -1, -1), x[:, 1 + 2 * (layer > 1) :]], dim=1),
            attn_mask=mask,
        )
    expected = theirs.ln_final(x)[torch.arange(len(x)), given.argmax(dim=1) + 2] @ theirs.text_projection
    assert relative(LateTextEncoder(TextEncoder(ours), TEXTS, 1, 2)(tokens), expected) < 1e-5


@pytest.mark.parametrize("precision", [HALF, "bf16", "amp"])
@pytest.mark.parametrize("kind", ["gelu", "layer scale"])
def test_precision(tmp_path, precision, kind):
    if precision == "amp" and kind == "layer scale" and torch.__version__ < "2.1":
        pytest.skip("PyTorch 2.0's attention has no autocast on a CPU for what LayerScale widens to float32")
    theirs = random_model(config_of(kind))
    ours = loading.load_clip(save_folder(tmp_path / "model", config_of(kind), theirs), precision)
    dtype = loading.PRECISIONS[precision]
    assert ours.visual.conv1.weight.dtype == ours.text_projection.dtype == dtype
    assert ours.ln_final.weight.dtype == torch.float32
    encoder, images = ImageEncoder(ours), torch.randn(2, 3, SIZE, SIZE)
    templates = CoupledTemplates(TextEncoder(ours), encoder, ["dog", "cat"], 1, 2, 2, std=0.02)
    with torch.autocast("cpu", dtype=torch.bfloat16, enabled=precision == "amp"):
        words, pictures = TextEncoder(ours)(templates()), encoder.features(images, templates.visual())
        found, plain = TextEncoder(ours).encode_texts(TEXTS), encoder.features(images)
    assert all(x.isfinite().all() for x in (words, pictures))
    assert (
        relative(found, theirs.encode_text(open_clip.tokenize([*TEXTS[:2], "striped texture", *TEXTS[3:]]), True))
        < 0.05
    )
    assert relative(plain, theirs.encode_image(images)) < 0.05


def test_tokens_are_open_clips():
    tokenizer = open_clip.get_tokenizer("ViT-B-32")
    for words in [*TEXTS, "Naïve CAFÉ!", "it's 3 o'clock, isn't it?", "東京", ""]:
        tokens = tokenizer([words.replace("_", " ")])[0]
        assert loading.tokenize(words) == tokens[: tokens.argmax() + 1].tolist()


def test_formats_and_names_give_the_same_model(tmp_path, monkeypatch):
    """A folder, a model of the package's list with a file, safetensors or not, a training's checkpoint."""
    config = config_of()
    model = random_model(config)
    safe = save_folder(tmp_path / "safe", config, model)
    plain = save_folder(tmp_path / "plain", config, model, safe=False)
    state = {f"module.{name}": value for name, value in model.state_dict().items()}
    torch.save({"epoch": 3, "name": "run", "state_dict": state, "optimizer": {}}, tmp_path / "epoch_3.pt")
    monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, "Small-8", config)
    names = [safe, f"open_clip:{plain}", f"open_clip:Small-8/{tmp_path / 'epoch_3.pt'}"]
    names.append(f"open_clip:Small-8/{tmp_path / 'safe' / 'open_clip_model.safetensors'}")
    models = [loading.load_clip(name) for name in names]
    assert len({each.sha256 for each in models}) == 1
    for each in models:
        assert not each.training
        assert not any(parameter.requires_grad for parameter in each.parameters())
        assert all(torch.equal(a, b) for a, b in zip(each.state_dict().values(), model.state_dict().values()))
    monkeypatch.chdir(tmp_path)
    assert loading.load_clip("open_clip:Small-8/epoch_3.pt").sha256 == models[0].sha256


def test_digest_is_that_of_weights_and_computation(small_clip, clip_files, tmp_path):
    """Under QuickGELU the same weights are the same model as in OpenAI's file, under GELU another one."""
    folders = {}
    for kind in ("quickgelu", "gelu"):
        folders[kind] = save_folder(tmp_path / kind, config_of(kind), small_clip)
    openai = loading.load_clip(str(clip_files["plain"]))
    quick, gelu = (loading.load_clip(folders[kind]) for kind in ("quickgelu", "gelu"))
    assert quick.sha256 == openai.sha256 != gelu.sha256
    assert loading.load_clip(folders["quickgelu"], sha256=openai.sha256)
    with pytest.raises(loading.OtherWeights, match=r"open_clip_model\.safetensors"):
        loading.load_clip(folders["gelu"], sha256=openai.sha256)
    images = torch.randn(2, 3, SIZE, SIZE)
    expected = [small_clip.encode_image(images), TextEncoder(openai).encode_texts(TEXTS)]
    for model, same in ((quick, True), (gelu, False)):
        found = [ImageEncoder(model).features(images), TextEncoder(model).encode_texts(TEXTS)]
        assert all((relative(a, b) < 1e-5) == same for a, b in zip(found, expected))


def test_resnet_without_visual_prompts(tmp_path):
    config = {"embed_dim": 48, "vision_cfg": {"image_size": 64, "layers": [1, 1, 1, 1], "width": 8}, "text_cfg": TEXT}
    model = open_clip.CLIP(**copy.deepcopy(config)).eval()
    ours = loading.load_clip(save_folder(tmp_path / "resnet", config, model))
    images = torch.randn(2, 3, 64, 64)
    with torch.no_grad():
        assert relative(ImageEncoder(ours).features(images), model.encode_image(images)) < 1e-5
    with pytest.raises(ValueError, match="needs a ViT, and this CLIP's image encoder is a ModifiedResNet"):
        CoupledTemplates(TextEncoder(ours), ImageEncoder(ours), ["dog"], 1, 2, 1)


@pytest.mark.parametrize(
    "name",
    ["ViT-B-32", "ViT-B-32-quickgelu", "ViT-B-16", "ViT-L-14", "ViT-L-14-336", "ViT-H-14", "ViT-bigG-14", "RN50"],
)
def test_published_architectures_are_supported(name):
    assert open_clip_models.config_problems(open_clip.get_model_config(name)) == []


@pytest.mark.parametrize(
    ("name", "match"),
    [
        ("ViT-B-16-SigLIP", r"image encoder is timm's vit_base_patch16_siglip_224; its text encoder is not causal;"),
        ("ViT-B-16-SigLIP", "its text encoder pools by last; its text projection is not one matrix; its tokenizer is "),
        ("EVA02-B-16", "image encoder is timm's eva02_base_patch16_clip_224"),
        ("convnext_base", "image encoder is timm's convnext_base"),
        ("coca_ViT-B-32", "it is a CoCa"),
        ("roberta-ViT-B-32", "text encoder is Hugging Face's roberta-base"),
        ("ViT-L-14-CLIPA", "image encoder pools by avg; its text encoder is not causal"),
        ("ViT-H-14-worldwide", "text encoder pools by eos; its tokenizer is not CLIP's but facebook/xlm-v-base"),
    ],
)
def test_other_towers_are_refused_with_what_is_supported(name, match, tmp_path):
    if name not in open_clip.list_models():
        pytest.skip("an older open_clip, without this model")
    file = tmp_path / "weights.pt"
    file.write_bytes(b"not looked at")
    with pytest.raises(ValueError, match=match) as told:
        loading.load_clip(f"open_clip:{name}/{file}")
    assert str(told.value).startswith(f"open_clip:{name}/{file} cannot be used: ")
    assert "supported are open_clip's own ViT (feature: the class token) and ResNet" in str(told.value)


@pytest.mark.parametrize(
    ("side", "options", "match"),
    [
        ("vision_cfg", {"attentional_pool": True}, "pools by attention"),
        ("vision_cfg", {"pool_type": "avg"}, "pools by avg"),
        ("vision_cfg", {"qk_norm": True}, r"its image encoder has blocks of another kind \(qk_norm\)"),
        ("text_cfg", {"block_type": "custom"}, r"its text encoder has blocks of another kind \(custom\)"),
        ("vision_cfg", {"image_size": [32, 64]}, r"images must be square, of 1 to 4096 pixels, got \[32, 64\]"),
        ("vision_cfg", {"image_size": [[32], [32]]}, "images must be square"),
        ("vision_cfg", {"layers": 10**9}, "image layers must be from 1 to 256, got 1000000000"),
        ("text_cfg", {"heads": 0}, "text heads must be from 1 to 65536, got 0"),
        ("text_cfg", {"width": "\x1b[31m"}, r"text width must be from 1 to 65536, got \\x1b\[31m"),
        ("text_cfg", {"context_length": 10**9}, "must have 3 to 4096 positions"),
        ("text_cfg", {"vocab_size": 32000}, "tokenizer is not CLIP's but one of 32000 tokens"),
        ("text_cfg", {"tokenizer_kwargs": {"clean": "canonicalize"}}, "tokenizer is not CLIP's"),
        ("text_cfg", {"proj_type": "none"}, "text projection is not one matrix"),
        ("text_cfg", {"embed_cls": True}, "its text encoder has a class token"),
        (None, {"custom_text": True}, r"module of its own \(custom_text\)"),
        (None, {"multimodal_cfg": {}}, "CoCa"),
        (None, {"something": 1}, "its config has the unknown something"),
        (None, {"text_cfg": None}, "must have embed_dim, vision_cfg and text_cfg"),
    ],
    ids=range(18),
)
def test_other_configs_are_refused(tmp_path, side, options, match):
    config = config_of()
    (config[side] if side else config).update(options)
    name = save_folder(tmp_path / "model", config, random_model(config_of()))
    with pytest.raises(ValueError, match=match) as told:
        loading.load_clip(name)
    assert str(told.value).isprintable()


@pytest.mark.parametrize(
    ("change", "match"),
    [
        ({"visual.proj": None}, r"missing are visual\.proj$"),
        ({"other": torch.zeros(1)}, "not known are other$"),
        ({"visual.proj": torch.zeros(64, 47)}, r"of other shapes are visual\.proj \(64, 47\) in place of \(64, 48\)$"),
        ({"text_projection": torch.zeros(64, 10**6)}, r"\(64, 1000000\) in place of \(64, 48\)"),
    ],
)
def test_other_weights_than_the_configs(tmp_path, change, match, monkeypatch):
    """Told before memory is taken for a model."""
    state = {k: v for k, v in {**random_model(config_of()).state_dict(), **change}.items() if v is not None}
    save_folder(tmp_path / "model", config_of(), safe=False)
    torch.save(state, tmp_path / "model" / "open_clip_pytorch_model.bin")
    made = []
    plain = open_clip.CLIP
    monkeypatch.setattr(open_clip, "CLIP", lambda **given: made.append(torch.empty(0).device.type) or plain(**given))
    with pytest.raises(ValueError, match=match) as told:
        loading.load_clip(f"local-dir:{tmp_path / 'model'}")
    assert f"open_clip_pytorch_model.bin does not hold the weights of local-dir:{tmp_path / 'model'}: " in str(
        told.value
    )
    assert made == ["meta"]


def test_config_that_open_clip_cannot_build(tmp_path):
    config = config_of()
    config["vision_cfg"]["patches"] = 3
    with pytest.raises(ValueError, match=r"open_clip cannot build its config: TypeError: .*patches"):
        loading.load_clip(save_folder(tmp_path / "model", config, random_model(config_of())))


def test_file_that_runs_code_is_refused(tmp_path):
    class Harm:
        def __reduce__(self):
            return (open, (str(tmp_path / "harm"), "w"))

    save_folder(tmp_path / "model", config_of(), safe=False)
    torch.save({"text_projection": Harm()}, tmp_path / "model" / "open_clip_pytorch_model.bin")
    with pytest.raises(ValueError, match=r"is not a CLIP file: .*text_projection \(an object of _?io\.open\)"):
        loading.load_clip(f"local-dir:{tmp_path / 'model'}")
    assert not (tmp_path / "harm").exists()


@pytest.mark.parametrize(
    ("name", "error", "match"),
    [
        (
            "open_clip:ViT-B-61/openai",
            FileNotFoundError,
            "this open_clip has no model 'ViT-B-61'; nearest are .*ViT-B-16",
        ),
        ("open_clip:ViT-B-16", FileNotFoundError, r"pre-trained weights \(openai, .*laion2b_s34b_b88k.*\), got ''$"),
        ("open_clip:ViT-B-16/laion3b", FileNotFoundError, "got 'laion3b'$"),
        ("open_clip:ViT-B-32/openai", ValueError, "trained with QuickGELU, .*open_clip:ViT-B-32-quickgelu/openai$"),
        ("local-dir:/nowhere", FileNotFoundError, "the folder must hold open_clip_config.json and open_clip_model"),
        ("hf-hub:nothing", ValueError, "hf-hub:OWNER/NAME"),
    ],
)
def test_names_that_lead_nowhere(name, error, match):
    with pytest.raises(error, match=match):
        loading.load_clip(name)


@pytest.mark.parametrize(
    ("name", "before", "path"),
    [
        ("ViT-B/16", "", "ViT-B/16"),
        ("/a/b.pt", "", "/a/b.pt"),
        ("open_clip:ViT-B-16/openai", "open_clip:ViT-B-16/", "openai"),
        ("open_clip:ViT-B-16//a/b.pt", "open_clip:ViT-B-16/", "/a/b.pt"),
        ("open_clip:ViT-B-16", "open_clip:ViT-B-16", ""),
        ("open_clip:local-dir:a/b", "open_clip:local-dir:", "a/b"),
        ("local-dir:/a", "local-dir:", "/a"),
        ("hf-hub:a/b@c", "hf-hub:a/b@c", ""),
        ("open_clip:hf-hub:a/b", "open_clip:hf-hub:a/b", ""),
    ],
)
def test_path_in_a_name(name, before, path):
    assert open_clip_models.split_path(name) == (before, path)


@pytest.mark.parametrize("content", ["{", "[]", '{"model_cfg": 3}', "[" * 100_000, "\xff"])
def test_broken_config(tmp_path, content):
    name = save_folder(tmp_path / "model", config_of())
    (tmp_path / "model" / "open_clip_config.json").write_text(content)
    with pytest.raises(ValueError, match=r"open_clip_config\.json is not a config of open_clip: "):
        loading.load_clip(name)


@pytest.mark.parametrize(
    "name", ["hf-hub:someone/clip", "open_clip:hf-hub:someone/clip@main", "open_clip:ViT-B-16/openai"]
)
def test_without_network_one_line_says_so(monkeypatch, name):
    import huggingface_hub

    def refuse(*_, **__):
        raise ConnectionError("no network")

    monkeypatch.setattr(huggingface_hub, "hf_hub_download", refuse)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda *_, **__: None)
    name = name.replace("ViT-B-16/openai", "ViT-B-16/laion2b_s34b_b88k")
    with pytest.raises(FileNotFoundError, match=r"is not in the cache and the download failed \(no network\)"):
        loading.load_clip(name)


def test_repository_of_the_hub(tmp_path, monkeypatch):
    """Its config is looked at before its weights are downloaded."""
    save_folder(tmp_path / "repository", config_of("short"))
    asked = []

    def hub_file(name, *files):
        asked.append((name, files))
        return next(tmp_path / "repository" / file for file in files if (tmp_path / "repository" / file).exists())

    monkeypatch.setattr(open_clip_models, "hub_file", hub_file)
    model = loading.load_clip("hf-hub:someone/clip@v1")
    assert model.sha256 == loading.load_clip(f"local-dir:{tmp_path / 'repository'}").sha256
    assert [files for _, files in asked] == [("open_clip_config.json",), open_clip_models.WEIGHT_FILES]
    assert {name for name, _ in asked} == {"hf-hub:someone/clip@v1"}
    asked.clear()
    config = config_of()
    config["text_cfg"]["no_causal_mask"] = True
    (tmp_path / "repository" / "open_clip_config.json").write_text(json.dumps({"model_cfg": config}))
    with pytest.raises(ValueError, match="is not causal"):
        loading.load_clip("hf-hub:someone/clip")
    assert len(asked) == 1


def test_without_the_package_one_line_says_so(monkeypatch):
    plain = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "open_clip":
            raise ImportError("No module named 'open_clip'")
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(
        ValueError, match="open_clip:ViT-B-16/openai needs the package open_clip: pip install open_clip_torch"
    ):
        loading.load_clip("open_clip:ViT-B-16/openai")


def test_how_pixels_are_normalised(tmp_path):
    """Where the config says it; the trainers hold it against their own."""
    half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5], "size": 32}
    for number, (given, expected) in enumerate(
        [(half, {"mean": (0.5,) * 3, "std": (0.5,) * 3}), ({}, {}), (None, {}), ({"mean": "x", "std": [1, 2]}, {})]
    ):
        name = save_folder(tmp_path / f"model{number}", config_of(), preprocess_cfg=given)
        assert loading.load_clip(name).pixels == expected


TEMPLATES = ["TRAINER.CDC.N_TEMPLATES", 2, "TRAINER.CDC.CTX_INIT", [], "TRAINER.CDC.CTX_STD", 0.02]
TEMPLATES += ["TRAINER.CDC.AUGMENTATIONS", [["normalize"], ["normalize"]]]


@pytest.mark.parametrize(
    ("trainer", "options"),
    [
        ("ZeroshotCLIP", []),
        ("CoOp", []),
        ("CoCoOp", []),
        ("MaPLe", ["TRAINER.MAPLE.PROMPT_DEPTH", 2]),
        ("CDC", [*TEMPLATES, "TRAINER.CDC.PROMPT", "text"]),
        ("CDC", [*TEMPLATES, "TRAINER.CDC.PROMPT", "coupled", "TRAINER.CDC.PROMPT_DEPTH", 2]),
        ("PromptSRC", ["TRAINER.PROMPTSRC.PROMPT_DEPTH_VISION", 2, "TRAINER.PROMPTSRC.PROMPT_DEPTH_TEXT", 2]),
        ("CLIPICM", []),
        ("KgCoOp", []),
        ("TCP", ["TRAINER.TCP.LAYER", 2]),
        ("MMRL", ["TRAINER.MMRL.REP_LAYERS", [2], "TRAINER.MMRL.REP_DIM", 8]),
    ],
)
def test_trainers_run_over_it(build_run, tmp_path, trainer, options):
    name = save_folder(tmp_path / "model", config_of("short"))
    options = ["OPTIM.MAX_EPOCH", 1, "DATASET.NUM_SHOTS", 4, "OPTIM.LR", 0.001, *options]
    run = build_run(trainer, tmp_path / "run", *options, backbone=name)
    run.train() if trainer != "ZeroshotCLIP" else run.test()
    results = results_of(tmp_path / "run")
    assert results["backbone"] == name
    assert results["backbone_sha256"] == loading.load_clip(name).sha256


def test_other_normalisation_than_the_models_is_refused(build_run, tmp_path):
    half = {"mean": [0.5, 0.5, 0.5], "std": [0.5, 0.5, 0.5]}
    name = save_folder(tmp_path / "model", config_of(), preprocess_cfg=half)
    with pytest.raises(ValueError, match=r"INPUT\.PIXEL_MEAN must be \[0\.5, 0\.5, 0\.5\] for this CLIP, got \[0\.48"):
        build_run("ZeroshotCLIP", tmp_path / "run", backbone=name)
    wrong = r"INPUT\.SIZE must be \(32, 32\) .*; INPUT\.PIXEL_MEAN must be .*; INPUT\.PIXEL_STD must be "
    with pytest.raises(ValueError, match=wrong):  # all at once
        build_run("ZeroshotCLIP", tmp_path / "run", "INPUT.SIZE", (48, 48), backbone=name)
    pixels = ["INPUT.PIXEL_MEAN", [0.5, 0.5, 0.5], "INPUT.PIXEL_STD", [0.5001, 0.5, 0.5]]
    assert build_run("ZeroshotCLIP", tmp_path / "run", *pixels, backbone=name)


def test_resnet_by_its_name_is_refused_for_coupled_prompts(build_run, tmp_path):
    with pytest.raises(ValueError, match="needs a ViT, got the backbone open_clip:RN50/openai"):
        build_run("MaPLe", tmp_path / "run", backbone="open_clip:RN50/openai")
