"""What is measured, and measuring it."""

from __future__ import annotations

import argparse
import json
import multiprocessing
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from tqdm import tqdm

from storage.files import atomic_write
from tools.benchmark.page import read_page, render, target_table, unexplained
from tools.benchmark.subjects import Settings, Subject, serve
from tools.common.machine import cores, processor
from tools.common.paths import ROOT

SLOW = 20.0  # seconds from which on a step is repeated less often


@dataclass(frozen=True)
class Measurement:
    """Subjects whose steps are timed in turn.

    Attributes:
        section: one of `tools.common.choices.SECTIONS`.
        subjects: by a name that is used in figures and tables.
        rounds: how often each takes its step after the first one.
        rounds_if_slow: the same where a step takes more than `SLOW` seconds.
        warm_up: steps before that, of which only the first one's seconds are recorded.
    """

    section: str
    name: str
    subjects: dict[str, Subject]
    rounds: int = 3
    rounds_if_slow: int = 1
    warm_up: int = 1


def plan(upstream: Sequence[str] = ()) -> list[Measurement]:
    """All measurements; `upstream` names folders of published code, CoOp's or MaPLe's."""
    found = []

    def measure(section: str, name: str, rounds: int = 3, slow: int = 1, warm_up: int = 1, **subjects: Subject) -> None:
        found.append(Measurement(section, name, subjects, rounds, slow, warm_up))

    def cdc(work: str, classes: int, templates: int = 4, **more) -> Subject:
        return Subject("CDC", work, classes, templates, **more)

    def coop(work: str, classes: int, **more) -> Subject:
        return Subject("CoOp", work, classes, **more)

    # 1000 classes at 77 positions need 40 GB and minutes: time a class is that of 100 of them.
    for classes, plain in ((24, 24), (200, 200), (1000, 100)):
        subjects: dict[str, Any] = {
            "m1": cdc("text", classes, 1),
            "m4": cdc("text", classes),
            "plain": cdc("text", plain, 1),
        }
        subjects["plain"] = replace(subjects["plain"], style="plain")
        measure("text", f"text {classes}", 5, 2, **subjects)

    measure(
        "train",
        "train 24",
        5,
        3,
        plain_coop=coop("train", 24, style="plain"),
        coop=coop("train", 24),
        cdc_bank=cdc("train", 24, bank=True),
        cdc=cdc("train", 24),
        plain_cdc=cdc("train", 24, style="plain"),
    )
    measure("train", "train 200", 5, 3, plain_coop=coop("train", 200, style="plain"), cdc=cdc("train", 200))
    for trainer in ("CoCoOp", "MaPLe"):
        both: dict[str, Any] = {style: Subject(trainer, "train", 24, style=style) for style in ("ours", "plain")}
        measure("train", f"train {trainer}", **both)
    measure("train", "train M", m1=cdc("train", 24, 1), m8=cdc("train", 24, 8))
    # In pairs, as all of them at once would need the memory of all of them.
    peers = {f"CDC, M = {m}": cdc("train", 24, m, coupled=True) for m in (1, 4, 8)}
    peers.update({name: Subject(name, "train", 24) for name in ("PromptSRC", "MMRL", "TCP", "KgCoOp")})
    for name, peer in peers.items():
        measure("peers", f"MaPLe and {name}", 2, maple=Subject("MaPLe", "train", 24), peer=peer)
    thirty_two = {name: coop("train", 24, batch=32, style=name) for name in ("ours", "plain")}
    measure("train", "train batch 32", 2, coop=thirty_two["ours"], plain_coop=thirty_two["plain"])
    measure(
        "train",
        "train CDC batch 32",
        2,
        bank=cdc("train", 24, batch=32, bank=True),
        cdc=cdc("train", 24, batch=32),
        maple=Subject("MaPLe", "train", 24, batch=32),
    )

    for classes in (100, 397, 1000):
        for m in (1, 4, 8):
            if classes != 397 or m == 4:
                measure("classes", f"{classes} classes, M = {m}", 2, bank=cdc("train", classes, m, bank=True))
    measure("classes", "200 classes", 3, m1=cdc("train", 200, 1, bank=True), m8=cdc("train", 200, 8, bank=True))

    zero_shot = Subject("ZeroshotCLIP", "test", 1000, batch=32)
    measure("test", "test 1000", 5, 3, zero_shot=zero_shot, cdc=cdc("test", 1000, batch=32))
    zero_shot = replace(zero_shot, classes=24)
    for name, batch in (("test 24, batch 4", 4), ("test 24, batch 32", 32)):
        subjects = {
            "zero_shot": replace(zero_shot, batch=batch),
            "cdc": cdc("test", 24, batch=batch),
            "plain_cdc": cdc("test", 24, batch=batch, style="plain"),
            "maple": Subject("MaPLe", "test", 24, batch=batch),
        }
        if batch == 4:
            subjects["cocoop"] = Subject("CoCoOp", "test", 24, batch=batch)
            subjects["coupled"] = cdc("test", 24, batch=batch, coupled=True)
        measure("test", name, **subjects)

    # After more steps than batches are loaded ahead
    measure("data", "data 4", 20, 20, warm_up=5, loop=cdc("loop", 24, batch=4))
    for batch in (4, 32):
        measure("data", f"data {batch}, bank", 20, 20, warm_up=5, loop=cdc("loop", 24, batch=batch, bank=True))

    large: dict[str, Any] = {"backbone": "ViT-L/14"}
    measure("large", "large train", 2, cdc_bank=cdc("train", 24, bank=True, **large), cdc=cdc("train", 24, **large))
    measure("large", "large train 100", 2, cdc_bank=cdc("train", 100, bank=True, **large))
    both = {style: coop("train", 24, style=style, **large) for style in ("ours", "plain")}
    measure("large", "large CoOp", 2, **both)
    measure(
        "large", "large test", 2, zero_shot=Subject("ZeroshotCLIP", "test", 24, **large), cdc=cdc("test", 24, **large)
    )

    for checkout in upstream:
        for trainer in published_trainers(checkout):
            published = Subject(trainer, "train", 24, batch=1 if trainer == "CoCoOp" else 4)
            subjects = {"ours": published, "published": replace(published, style="published", checkout=checkout)}
            measure("upstream", f"published {trainer}", 5, 3, **subjects)

    compiled: dict[str, Any] = {style: cdc("text", 24, style=style) for style in ("ours", "compiled")}
    measure("compile", "compiled text 24", 5, warm_up=2, **compiled)
    return found


def can_compile(device: str) -> bool:
    """Whether `torch.compile` works: it needs a C++ compiler on a CPU, Triton on CUDA, and a Python that it knows."""
    try:
        torch.compile(lambda x: x.sin() + 1)(torch.ones(2, device=device))
    except Exception as error:  # of whatever kind its parts raise
        print(f"torch.compile is not measured, as it does not work here: {type(error).__name__}", file=sys.stderr)
        return False
    return True


def published_trainers(checkout: str) -> list[str]:
    """Which trainers a folder of published code is asked for: MaPLe's for its own, CoOp's for both of its own.

    Raises:
        FileNotFoundError: it is no such folder.
    """
    for names in (["MaPLe"], ["CoOp", "CoCoOp"]):
        if all(Path(checkout, "trainers", f"{name.lower()}.py").is_file() for name in names):
            return names
    raise FileNotFoundError(f"{checkout} holds neither trainers/maple.py nor trainers/coop.py and cocoop.py")


def small(measurements: Sequence[Measurement]) -> list[Measurement]:
    """Every kind of subject once, on a CLIP and numbers so small that they only show that all of it runs."""
    classes = {24: 6, 100: 8, 200: 9, 397: 10, 1000: 12}
    found: list[Measurement] = []
    seen: set[tuple[object, ...]] = set()
    for measurement in measurements:
        kinds = {(s.trainer, s.work, s.style, s.coupled, s.bank) for s in measurement.subjects.values()}
        if kinds <= seen or measurement.section == "compile":  # which takes minutes, however small the model
            continue
        seen |= kinds
        subjects = {
            name: replace(
                subject,
                backbone="tiny",
                classes=classes[subject.classes],
                templates={8: 3, 4: 2}.get(subject.templates, subject.templates),
                batch=min(subject.batch, 3),
            )
            for name, subject in measurement.subjects.items()
        }
        found.append(replace(measurement, subjects=subjects, rounds=2, warm_up=1))
    return found


def take(measurement: Measurement, settings: Settings) -> dict:
    """Take one measurement: for every subject its settings, seconds of each round, memory, operations, rate.

    The first step's seconds stand on their own: some of its work need not be done again.

    Raises:
        RuntimeError: a subject's process failed or was killed.
    """
    with _processes(measurement.subjects, settings) as ask:
        found = {
            name: {**asdict(subject), "seconds": [], "waited": [], "busy": []}
            for name, subject in measurement.subjects.items()
        }
        slowest = 0.0
        for name in found:
            steps = [ask(name, "step")["seconds"] for _ in range(measurement.warm_up)]
            found[name]["first"] = steps[0]
            slowest = max(slowest, steps[-1])
        for _ in range(measurement.rounds_if_slow if slowest > SLOW else measurement.rounds):
            for name in found:
                step = ask(name, "step")
                for key in ("seconds", "waited", "busy"):
                    found[name][key].append(step[key])
        for name in found:
            found[name].update(ask(name, "finish"))
    return {"section": measurement.section, "subjects": found}


@contextmanager
def _processes(subjects: dict[str, Subject], settings: Settings) -> Iterator:
    """A process for each subject, built one after the other, and how to ask one of them."""
    connections: dict[str, Connection] = {}
    processes = []

    def ask(name: str, command: str = "") -> dict:
        try:
            if command:
                connections[name].send(command)
            answer = connections[name].recv()
        except (EOFError, OSError) as error:
            raise RuntimeError(f"the process of {subjects[name]} was killed, perhaps for want of memory") from error
        if "error" in answer:
            raise RuntimeError(f"{subjects[name]} failed:\n{answer['error']}")
        return answer

    try:
        for name, subject in subjects.items():
            context = _context(subject, settings.device)
            connections[name], theirs = context.Pipe()
            process = context.Process(target=serve, args=(theirs, subject, settings))
            process.start()
            theirs.close()
            processes.append(process)
            ask(name)
        yield ask
        for process in processes:
            process.join()
    finally:
        for process in processes:
            process.kill()
            process.join()


def _context(subject: Subject, device: str):
    """How the subject's process starts: with this project's trainers imported already, or with nothing.

    With nothing for others' trainers, and on CUDA: importing `clip` asks for GPUs, and a fork after that can use none.
    """
    if subject.style == "published" or device == "cuda" or "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["tools.benchmark.subjects", "trainers"])
    return context


def machine(settings: Settings) -> dict[str, str | int]:
    """What the figures depend on: processor or GPU by model, cores, threads, precision and PyTorch."""
    found = {**asdict(settings), "cores": cores(), "model": processor(), "torch": torch.__version__}
    if settings.device == "cuda":
        found["gpu"] = torch.cuda.get_device_name()
    return found


def read(path: Path, described: dict, again: bool) -> dict:
    """Results so far.

    Raises:
        ValueError: they are of another machine or other settings, and are not to be thrown away.
    """
    results = {"machine": described, "measurements": {}}
    if path.is_file():
        found = json.loads(path.read_text())
        if found["machine"] == described:
            return found
        if not again:
            differing = [key for key in described if found["machine"].get(key) != described[key]]
            raise ValueError(
                f"{path} is of another {', '.join(differing)}; --again measures it again, --output names another"
            )
    return results


def write(path: Path, text: str) -> None:
    """Write a file whole or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_write(path) as part:
        part.write_text(text, encoding="utf-8")


def run(arguments: argparse.Namespace) -> dict:
    """Take what is missing of the measurements asked for; write results and page.

    Raises:
        ValueError: there is no GPU, results are of another machine, or the page lacks marks of its blocks.
        FileNotFoundError: no published code at the paths given.
        RuntimeError: a measurement failed.
    """
    if arguments.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("--device cuda needs a GPU that PyTorch can use, and there is none")
    if arguments.page:
        read_page(arguments.page)  # which may lack marks, and is read again when all is measured
    settings = Settings(arguments.device, arguments.threads, arguments.precision)
    measurements = plan([str(Path(path).resolve()) for path in arguments.upstream])
    measurements = small(measurements) if arguments.quick else measurements
    path = arguments.output or ROOT / f"output/benchmark/{'quick' if arguments.quick else arguments.device}.json"
    results = read(path, machine(settings), arguments.again)

    wanted = [m for m in measurements if m.section in arguments.only]
    missing = [m for m in wanted if arguments.again or m.name not in results["measurements"]]
    if any(m.section == "compile" for m in missing) and not can_compile(settings.device):
        missing = [m for m in missing if m.section != "compile"]
    started = time.time()
    for measurement in tqdm(missing, disable=None):
        results["measurements"][measurement.name] = take(measurement, settings)
        write(path, json.dumps(results, indent=1) + "\n")
    print(f"{len(missing)} measurements in {time.time() - started:.0f} s, results in {path}\n")
    print(target_table(results))
    if arguments.page:
        page = render(results, read_page(arguments.page), arguments.only)
        write(arguments.page, page)
        print(f"\nPage: {arguments.page}")
        for what in unexplained(results, page):
            print(f"It does not say why this target is missed: {what}")
    return results
