"""requirements.lock and requirements-lowest.lock against the ranges of setup.py."""

from __future__ import annotations

import importlib.metadata
import os
import runpy
import sysconfig

import pytest
import setuptools
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

from helpers import ROOT

PYTHONS = ("3.9.0", "3.10.0", "3.11.0", "3.12.0", "3.13.0", "3.14.0")
PLATFORMS = (("linux", "Linux", "x86_64"), ("linux", "Linux", "aarch64"), ("darwin", "Darwin", "arm64"))
PLATFORMS += (("win32", "Windows", "AMD64"),)
LOCKS = {"lock": "requirements.lock", "lowest": "requirements-lowest.lock"}


def read_lock(name: str) -> list[Requirement]:
    lines = (ROOT / name).read_text(encoding="utf-8").splitlines()
    return [Requirement(line.split("  #")[0]) for line in lines if not line.lstrip().startswith("#")]


def version_of(pin: Requirement) -> Version:
    (specifier,) = pin.specifier
    assert specifier.operator == "=="
    return Version(specifier.version)


def pins_in(name: str, environment: dict[str, str] | None = None) -> dict[str, Version]:
    """The versions that a lock gives an environment, this one by default; each once."""
    pins = [pin for pin in read_lock(name) if pin.marker is None or pin.marker.evaluate(environment)]
    versions = {canonicalize_name(pin.name): version_of(pin) for pin in pins}
    assert len(versions) == len(pins)
    return versions


@pytest.fixture(scope="module")
def wanted():
    """What setup.py asks for, with all extras."""
    arguments = {}
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(setuptools, "setup", lambda **given: arguments.update(given))
        runpy.run_path(str(ROOT / "setup.py"))
    extras = [line for lines in arguments["extras_require"].values() for line in lines]
    return [Requirement(line) for line in (*arguments["install_requires"], *extras)]


@pytest.mark.parametrize("platform", PLATFORMS, ids=lambda platform: "-".join(platform[1:]))
@pytest.mark.parametrize("python", PYTHONS)
def test_lock_is_within_the_ranges(python, platform, wanted):
    """One exact version of everything for every supported Python and platform; else: `make lock`."""
    names = ("sys_platform", "platform_system", "platform_machine")
    environment = {
        "python_full_version": python,
        "python_version": python.rpartition(".")[0],
        "implementation_name": "cpython",
        "platform_python_implementation": "CPython",
        **dict(zip(names, platform)),
    }
    pins = pins_in("requirements.lock", environment)
    for requirement in wanted:
        if requirement.marker is None or requirement.marker.evaluate({**environment, "extra": ""}):
            assert requirement.specifier.contains(pins[canonicalize_name(requirement.name)]), requirement


def test_lowest_are_the_lower_bounds(wanted):
    """Else delete requirements-lowest.lock and call `make lock`."""
    pins = pins_in("requirements-lowest.lock")
    for requirement in wanted:
        bounds = [Version(each.version) for each in requirement.specifier if each.operator in (">=", "==")]
        assert [pins[canonicalize_name(requirement.name)]] == bounds, requirement


@pytest.mark.skipif(os.environ.get("SUITE_VERSIONS") not in LOCKS, reason="not called by make test or make test-lowest")
def test_this_environment_is_the_locks():
    """Nothing is missing and nothing differs; people may have put tools of their own beside it."""
    folders = {sysconfig.get_path(name) for name in ("purelib", "platlib")}  # not what setuptools puts on sys.path
    installed = {
        canonicalize_name(each.metadata["Name"]): Version(Version(each.version).public)  # 2.14.1+cpu is 2.14.1
        for each in importlib.metadata.distributions(path=sorted(folders))
    }
    pins = pins_in(LOCKS[os.environ["SUITE_VERSIONS"]])
    assert {name: installed.get(name) for name in pins} == pins
