"""Files of the Hugging Face Hub, with the client's own functions replaced: no test has a network."""

from __future__ import annotations

import builtins

import pytest

from trainers.modules.hub import hub_file, split_name

huggingface_hub = pytest.importorskip("huggingface_hub", reason="huggingface_hub is not installed")


def test_names():
    assert split_name("hf-hub:someone/clip") == ("someone/clip", None)
    assert split_name("hf-hub:someone/clip@v1.0") == ("someone/clip", "v1.0")
    for name in ("hf-hub:clip", "hf-hub:a/b/c", "hf-hub:/b", "hf-hub:a/", "hf-hub:a/b@", "someone/clip", "hf-hub:"):
        with pytest.raises(ValueError, match="is named hf-hub:OWNER/NAME"):
            split_name(name)


@pytest.fixture
def client(monkeypatch, tmp_path):
    """What the Hub has, what the cache has, and whether there is a network."""

    class Client:
        there: tuple[str, ...] = ()
        cached: tuple[str, ...] = ()
        network = True
        asked: list = []  # noqa: RUF012

    def download(repository, file, revision=None):
        Client.asked.append((repository, file, revision))
        if not Client.network:
            raise huggingface_hub.utils.LocalEntryNotFoundError("no network")
        if file not in Client.there:
            error = huggingface_hub.utils.EntryNotFoundError
            raise error.__new__(error)
        return str(tmp_path / file)

    def cache(repository, file, revision=None):
        return str(tmp_path / "cache" / file) if file in Client.cached else None

    Client.asked = []
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", download)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", cache)
    return Client


def test_first_of_the_files_that_is_there(client, tmp_path):
    client.there = ("b", "c")
    assert hub_file("hf-hub:someone/clip@v1", "a", "b", "c") == tmp_path / "b"
    assert client.asked == [("someone/clip", "a", "v1"), ("someone/clip", "b", "v1")]
    with pytest.raises(FileNotFoundError, match="hf-hub:someone/clip: the repository has no file x or y"):
        hub_file("hf-hub:someone/clip", "x", "y")


def test_without_network_the_cache_serves(client, tmp_path):
    client.network, client.cached = False, ("b",)
    assert hub_file("hf-hub:someone/clip", "a", "b") == tmp_path / "cache" / "b"
    client.cached = ()
    with pytest.raises(
        FileNotFoundError, match=r"a is not in the cache and the download failed \(no network\); a folder"
    ):
        hub_file("hf-hub:someone/clip", "a", "b")


def test_without_the_package_one_line_says_so(monkeypatch):
    plain = builtins.__import__

    def refuse(name, *arguments, **options):
        if name == "huggingface_hub":
            raise ImportError(name)
        return plain(name, *arguments, **options)

    monkeypatch.setattr(builtins, "__import__", refuse)
    with pytest.raises(ValueError, match="hf-hub:a/b needs the package huggingface_hub: pip install huggingface_hub"):
        hub_file("hf-hub:a/b", "c")
