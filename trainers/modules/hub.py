"""Files of the Hugging Face Hub, through its own client, which is imported when one is asked for."""

from __future__ import annotations

from pathlib import Path
from types import ModuleType

PREFIX = "hf-hub:"


def import_client(purpose: str) -> ModuleType:
    """The package `huggingface_hub`.

    Args:
        purpose: what it is needed for; the error begins with it.

    Raises:
        ValueError: it is not installed.
    """
    try:
        import huggingface_hub
    except ImportError as error:
        raise ValueError(f"{purpose} needs the package huggingface_hub: pip install huggingface_hub") from error
    return huggingface_hub


def split_name(name: str) -> tuple[str, str | None]:
    """The repository, and the revision or None, of `hf-hub:OWNER/NAME` or `hf-hub:OWNER/NAME@REVISION`.

    Raises:
        ValueError: it is neither.
    """
    repository, at, revision = name[len(PREFIX) :].partition("@")
    owner, slash, rest = repository.partition("/")
    if not name.startswith(PREFIX) or not (owner and slash and rest) or "/" in rest or (at and not revision):
        raise ValueError(
            f"a repository of the Hub is named {PREFIX}OWNER/NAME or {PREFIX}OWNER/NAME@REVISION, got {name}"
        )
    return repository, revision or None


def hub_file(name: str, *files: str) -> Path:
    """The first of these files that a repository has, out of the client's cache or downloaded into it.

    Args:
        name: see `split_name`.
        files: names in the repository, the preferred one first.

    Raises:
        ValueError: the name is none of a repository, or `huggingface_hub` is not installed.
        FileNotFoundError: the repository has none of them, or cannot be reached and the cache has none.
    """
    repository, revision = split_name(name)
    client = import_client(name)
    for file in files:
        try:
            return Path(client.hf_hub_download(repository, file, revision=revision))
        except Exception as error:  # of the HTTP library that the client happens to use, too
            if _is_missing(client, error):
                continue
            cached = (client.try_to_load_from_cache(repository, each, revision=revision) for each in files)
            found = [Path(path) for path in cached if isinstance(path, str)]
            if found:
                return found[0]
            reason = " ".join(str(error).split()) or type(error).__name__
            raise FileNotFoundError(
                f"{name}: {file} is not in the cache and the download failed ({reason}); a folder with the "
                "repository's files needs no network"
            ) from error
    raise FileNotFoundError(f"{name}: the repository has no file {' or '.join(files)}")


def _is_missing(client: ModuleType, error: Exception) -> bool:
    """Whether the repository was reached and does not have the file."""
    errors = client.utils
    return isinstance(error, errors.EntryNotFoundError) and not isinstance(error, errors.LocalEntryNotFoundError)
