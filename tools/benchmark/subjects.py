"""What the benchmark measures: a trainer at work, in a process of its own.

A subject's process builds the trainer on a CLIP of random weights and true size, and then does, when told so, one step
of its work. So the steps of several subjects can be timed in turn, and each one's peak memory is its own.

`trainers` and `clip` are imported late: with a checkout of published code in front they are that checkout's.
"""

from __future__ import annotations

import contextlib
import inspect
import io
import multiprocessing
import random
import resource
import sys
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import dataclass
from importlib import import_module
from pathlib import Path
from typing import TYPE_CHECKING, Any, ClassVar
from unittest import mock

import compat  # noqa: F401  makes `import dassl` work

import numpy as np
import torch
from dassl.config import get_cfg_default
from dassl.data.datasets import DATASET_REGISTRY, DatasetBase, Datum
from dassl.engine import build_trainer
from PIL import Image
from torch import Tensor, nn

from tools.benchmark.operations import counted_operations
from tools.benchmark.plain import PlainTextEncoder

if TYPE_CHECKING:  # a published checkout's process must find the checkout's own `trainers`
    from trainers.modules.clip_types import CLIP

# embed_dim, image_resolution, vision_layers, vision_width, vision_patch_size, context_length, vocab_size,
# transformer_width, transformer_heads, transformer_layers; "tiny" is for trying the benchmark itself.
BACKBONES = {
    "ViT-B/16": (512, 224, 12, 768, 16, 77, 49408, 512, 8, 12),
    "ViT-L/14": (768, 224, 24, 1024, 14, 77, 49408, 768, 12, 12),
    "tiny": (32, 32, 2, 64, 16, 77, 49408, 64, 1, 2),
}
DTD_BASE = """banded blotchy braided bubbly bumpy chequered cobwebbed cracked crosshatched crystalline dotted fibrous
    flecked freckled frilly gauzy grid grooved honeycombed interlaced knitted lacelike lined marbled"""
# How many of the 1000 class names that CLIP's authors use for ImageNet have so many tokens.
IMAGENET_LENGTHS = {1: 246, 2: 508, 3: 154, 4: 50, 5: 22, 6: 10, 7: 8, 9: 1, 12: 1}
PICTURES = 32  # different pictures of a data-loading subject
PICTURE_SIZE = (500, 375)  # as most of ImageNet's
WORKERS = 2
RATE_ROWS = 4096


@dataclass(frozen=True)
class Settings:
    """What is the same for all subjects of a run."""

    device: str = "cpu"
    threads: int = 1
    precision: str = "fp32"


@dataclass(frozen=True)
class Subject:
    """One trainer at one kind of work.

    Attributes:
        trainer: its registered name.
        work: "train": a training step on a given batch; "loop": the same on a batch of the data loader; "test":
            classify a batch of images; "text": text features and the gradient of their weighted sum.
        classes, templates, batch: C, M (of CDC) and B.
        style: "ours"; "plain": the same trainer on `PlainTextEncoder`, in testing with text features computed for every
            batch; "compiled": ours, its text encoder through `torch.compile`, on CUDA in the mode that tries CUDA
            graphs; "published": the trainer of the checkout.
        coupled, bank: CDC with coupled templates; with a feature bank.
        backbone: a key of `BACKBONES`.
        checkout: folder of the published code.
    """

    trainer: str
    work: str
    classes: int
    templates: int = 1
    batch: int = 4
    style: str = "ours"
    coupled: bool = False
    bank: bool = False
    backbone: str = "ViT-B/16"
    checkout: str = ""


def class_names(count: int) -> list[str]:
    """DTD's base classes for 24, else names of single-token words with the token lengths of ImageNet's class names.

    Raises:
        ValueError: there are not so many.
    """
    if count == len(DTD_BASE.split()):
        return DTD_BASE.split()
    lengths = [length for length, names in IMAGENET_LENGTHS.items() for _ in range(names)]
    if not 1 <= count <= len(lengths):
        raise ValueError(f"the benchmark has names for 1 to {len(lengths)} classes, got {count}")
    random.Random(0).shuffle(lengths)
    vocabulary = import_module("clip.clip")._tokenizer.encoder
    words = [token[:-4] for token in vocabulary if token.endswith("</w>") and token[:-4].isalpha() and token.isascii()]
    words = [word for word in words if len(word) > 3]
    return [" ".join(words[c + 1000 * n] for n in range(length)) for c, length in enumerate(lengths[:count])]


def random_clip(backbone: str, precision: str) -> CLIP:
    """A frozen CLIP of the `clip` package with random weights, as `load_clip` gives a real one."""
    model = import_module("clip.model")
    torch.manual_seed(0)
    clip_model = model.CLIP(*BACKBONES[backbone])
    if precision == "fp16":
        model.convert_weights(clip_model)
    clip_model.sha256, clip_model.pixels = "random weights", {}
    return clip_model.eval().requires_grad_(False)


def serve(connection, subject: Subject, settings: Settings) -> None:
    """The subject's process: build it, then answer "step" and, at the end, "finish".

    Every answer is a dict; what went wrong is in its "error".
    """
    try:
        torch.set_num_threads(settings.threads)
        if "fork" in multiprocessing.get_all_start_methods():
            multiprocessing.set_start_method("fork", force=True)  # of data-loading workers, as in a training run
        with contextlib.redirect_stdout(io.StringIO()), tempfile.TemporaryDirectory() as folder:
            measured = Measured(subject, settings, Path(folder))
            connection.send({})
            while connection.recv() == "step":
                connection.send(measured.step())
            connection.send(measured.finish())
    except Exception:
        connection.send({"error": traceback.format_exc()})


class Measured:
    """A subject, built.

    Args:
        subject, settings: what to build.
        folder: an empty folder for its files.
    """

    def __init__(self, subject: Subject, settings: Settings, folder: Path):
        self.subject, self.settings = subject, settings
        self.cuda = settings.device == "cuda"
        build = _published if subject.style == "published" else _own
        self.trainer: Any = build(subject, settings, folder)
        self.trainer.set_model_mode("eval" if subject.work == "test" else "train")
        if subject.work == "test" and hasattr(self.trainer, "model"):
            self.trainer.model.requires_grad_(False)  # PyTorch's counter of operations takes it for a training step
        self.trainer.batch_idx, self.trainer.num_batches = 0, sys.maxsize  # never the last of an epoch
        self.work = getattr(self, f"_{subject.work}")
        self.batch = _batch(subject, self.trainer.cfg.INPUT.SIZE[0], self.trainer.device)
        self.baseline = self._memory(reset=True)

    def step(self) -> dict[str, float]:
        """Do the work once: its seconds, of these those waited for data, and those that each thread was busy.

        The latter are, on a CPU, processor time, which other programs on the machine do not stretch; on CUDA all.
        """
        self._synchronize()
        started, busy = time.perf_counter(), time.process_time()
        waited = self.work() or 0.0
        self._synchronize()
        seconds, busy = time.perf_counter() - started, (time.process_time() - busy) / self.settings.threads
        return {"seconds": seconds, "waited": waited, "busy": seconds if self.cuda else busy}

    def finish(self) -> dict[str, float]:
        """Memory in bytes, before the first step and its peak; operations a second of matrix products; and
        floating-point operations of one more step, with those of them that were computed again.

        Counting keeps more in memory than the step does, so it comes last.
        """
        found = {"baseline": self.baseline, "peak": self._memory(), "rate": self._rate()}
        with counted_operations() as counts:
            self.step()
        return {**found, **counts}

    def _train(self) -> None:
        self.trainer.forward_backward(self.batch)

    def _loop(self) -> float:
        started = time.perf_counter()
        if not hasattr(self, "iterator"):
            self.iterator = iter(self.trainer.train_loader_x)
        batch = next(self.iterator)
        waited = time.perf_counter() - started
        self.trainer.forward_backward(batch)
        return waited

    @torch.no_grad()
    def _test(self) -> None:
        if self.subject.style == "plain":
            self.trainer.model._kept = None
        self.trainer.model_inference(self.batch["img"])

    def _text(self) -> None:
        model = self.trainer.model
        features = model.encode_text(model.prompt_learner())
        (features * torch.linspace(-1, 1, features.numel(), device=features.device).view_as(features)).sum().backward()

    def _synchronize(self) -> None:
        if self.cuda:
            torch.cuda.synchronize()

    def _memory(self, reset: bool = False) -> int:
        """Peak memory of this process, or of its CUDA device; from here on if `reset`."""
        if self.cuda:
            if reset:
                torch.cuda.reset_peak_memory_stats()
            return torch.cuda.max_memory_allocated()
        if reset:
            with contextlib.suppress(OSError):  # Linux alone can; else what was needed to build counts too
                Path("/proc/self/clear_refs").write_text("5")
        return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * (1 if sys.platform == "darwin" else 1024)

    def _rate(self) -> float:
        width, dtype = BACKBONES[self.subject.backbone][7], torch.float16 if self.cuda else torch.float32
        if self.settings.precision == "fp32":
            dtype = torch.float32
        device = self.trainer.device
        a, b = (torch.rand(*size, device=device, dtype=dtype) for size in ((RATE_ROWS, width), (width, 4 * width)))
        product = torch.empty(RATE_ROWS, 4 * width, device=device, dtype=dtype)

        def multiply() -> None:
            torch.matmul(a, b, out=product)

        self.work, work = multiply, self.work
        seconds = [self.step()["busy"] for _ in range(12)]
        self.work = work
        return 2.0 * RATE_ROWS * width * 4 * width / float(np.median(seconds[2:]))


def _own(subject: Subject, settings: Settings, folder: Path):
    """This project's trainer, on random weights."""
    base = import_module("trainers").base
    clip_model = random_clip(subject.backbone, settings.precision)
    with mock.patch.object(base, "load_clip", return_value=clip_model):
        trainer = build_trainer(_config(subject, settings, folder))
    if subject.bank:
        n_images = len(trainer.dm.dataset.train_x)
        features = torch.nn.functional.normalize(torch.randn(1, n_images, clip_model.text_projection.shape[1]), dim=-1)
        trainer.feature_source.banks = [features] * subject.templates
    if subject.style == "plain":
        trainer.model.text_encoder = PlainTextEncoder(clip_model)
    if subject.style == "compiled":
        mode = "reduce-overhead" if settings.device == "cuda" else "default"
        trainer.model.text_encoder = torch.compile(trainer.model.text_encoder, mode=mode)
    return trainer


def _published(subject: Subject, settings: Settings, folder: Path):
    """The checkout's trainer, on random weights that it finds as its backbone's file."""
    sys.path.insert(0, subject.checkout)
    clip, model, train = (import_module(name) for name in ("clip.clip", "clip.model", "train"))
    # MaPLe's class takes what prompts it has inside; for this trainer and without any it is the plain CLIP.
    details = {"trainer": "CoOp", "vision_depth": 0, "language_depth": 0, "vision_ctx": 0, "language_ctx": 0}
    takes_details = "design_details" in inspect.signature(model.CLIP).parameters
    torch.manual_seed(0)
    path = folder / "clip.pt"
    torch.save(model.CLIP(*BACKBONES[subject.backbone], *([details] if takes_details else [])).state_dict(), path)
    with contextlib.ExitStack() as stack:
        stack.enter_context(mock.patch.dict(clip._MODELS, {subject.backbone: ""}))
        stack.enter_context(mock.patch.object(clip, "_download", return_value=str(path)))
        if settings.precision == "fp32":  # in which MaPLe's code, with its parts in half precision, else cannot run
            for kind in (torch.Tensor, nn.Module):
                stack.enter_context(mock.patch.object(kind, "half", lambda self: self))
        return build_trainer(_config(subject, settings, folder, train.extend_cfg))


def _config(subject: Subject, settings: Settings, folder: Path, extend: Callable | None = None):
    """The whole config of a subject; `extend` adds the published trainers' options to Dassl's."""
    cfg = get_cfg_default()
    if extend:
        extend(cfg)
    size = BACKBONES[subject.backbone][1]
    _register(subject, folder)
    options = f"TRAINER.{subject.trainer.upper()}"
    given = {
        "DATASET.NAME": BenchmarkSet.__name__,
        "DATASET.ROOT": str(folder),
        "OUTPUT_DIR": str(folder),
        "SEED": 1,
        "DATALOADER.NUM_WORKERS": WORKERS,
        "DATALOADER.TRAIN_X.BATCH_SIZE": subject.batch,
        "INPUT.SIZE": (size, size),
        "INPUT.INTERPOLATION": "bicubic",
        "INPUT.TRANSFORMS": ["random_resized_crop", "random_flip", "normalize"],
        "OPTIM.NAME": "sgd",
        "OPTIM.LR": 0.002,
        "MODEL.BACKBONE.NAME": subject.backbone,
        "TRAINER.NAME": subject.trainer,
        "USE_CUDA": settings.device == "cuda",
        "VERBOSE": False,
        f"{options}.PREC": settings.precision,
    }
    if subject.trainer in ("CoOp", "CoCoOp", "KgCoOp", "TCP"):
        given.update({f"{options}.N_CTX": 4})
    if subject.trainer == "CDC":
        m = subject.templates
        given.update({f"{options}.N_TEMPLATES": m, f"{options}.CTX_INIT": ["a photo of a"], f"{options}.CTX_STD": 0.02})
        given.update({f"{options}.FEATURE_BANK": int(subject.bank)})
        if m != len(cfg.TRAINER.CDC.AUGMENTATIONS):
            given[f"{options}.AUGMENTATIONS"] = []
        depth = min(cfg.TRAINER.CDC.PROMPT_DEPTH, *(BACKBONES[subject.backbone][n] for n in (2, 9)))
        kind = {"PROMPT": "coupled", "PROMPT_DEPTH": depth} if subject.coupled else {"PROMPT": "text", "N_CTX": 4}
        given.update({f"{options}.{key}": value for key, value in kind.items()})
    layers = min(BACKBONES[subject.backbone][n] for n in (2, 9))
    if subject.trainer == "MaPLe":
        given.update({f"{options}.PROMPT_DEPTH": min(cfg.TRAINER.MAPLE.PROMPT_DEPTH, layers)})
    if subject.trainer == "PromptSRC":
        depths = (f"PROMPT_DEPTH_{side}" for side in ("TEXT", "VISION"))
        given.update({f"{options}.{key}": min(cfg.TRAINER.PROMPTSRC[key], layers) for key in depths})
    if subject.trainer == "MMRL":
        given.update({f"{options}.REP_LAYERS": [n for n in cfg.TRAINER.MMRL.REP_LAYERS if n <= layers] or [layers]})
        given.update({"OPTIM.NAME": "adamw"})
    if subject.trainer == "TCP":
        given.update({f"{options}.LAYER": min(cfg.TRAINER.TCP.LAYER, BACKBONES[subject.backbone][9] - 1)})
        given.update({"OPTIM.NAME": "adam"})
    cfg.merge_from_list([part for pair in given.items() for part in pair])
    return cfg


class BenchmarkSet(DatasetBase):
    """The subject's classes, and of pictures as many as are looked at."""

    items: ClassVar[list[Datum]] = []

    def __init__(self, cfg):
        super().__init__(train_x=self.items, test=self.items)


def _register(subject: Subject, folder: Path) -> None:
    names = class_names(subject.classes)
    paths = [__file__]  # which is not read
    if subject.work == "loop":
        paths = [str(folder / f"{n}.jpg") for n in range(PICTURES)]
        for n, path in enumerate(paths):
            _picture(n).save(path, quality=90)
    n_items = max(subject.classes, 64 * subject.batch)
    labels = [n % subject.classes for n in range(n_items)]
    BenchmarkSet.items = [
        Datum(paths[n % len(paths)], label, classname=names[label].replace(" ", "_")) for n, label in enumerate(labels)
    ]
    DATASET_REGISTRY.register(BenchmarkSet)


def _picture(number: int) -> Image.Image:
    """Smooth shapes under some noise, which a JPEG file stores in about as many bytes as a photograph."""
    rng = np.random.default_rng(number)
    coarse = Image.fromarray(rng.integers(0, 256, (12, 16, 3), dtype=np.uint8))
    smooth = np.asarray(coarse.resize(PICTURE_SIZE, Image.Resampling.BICUBIC))
    pixels = smooth + rng.normal(0, 12, (*PICTURE_SIZE[::-1], 3))
    return Image.fromarray(np.clip(pixels, 0, 255).astype(np.uint8))


def _batch(subject: Subject, size: int, device: torch.device) -> dict[str, Tensor]:
    """A batch as Dassl gives it: views img, img2, ..., the labels, and the numbers of the images."""
    shape = (subject.batch, 3, size, size)
    names = ["img", *(f"img{m}" for m in range(2, subject.templates + 1))] if not subject.bank else []
    numbers = torch.arange(subject.batch)
    views = {name: torch.randn(shape).to(device) for name in names}
    return {**views, "label": (numbers % subject.classes).to(device), "index": numbers, "domain": numbers * 0}
