"""Files from the network, whole or not at all.

`download` has what torchvision's `download_url` lacks: a time-out, resuming, retries, and no file at the final path
before its checksum is right.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import http.client
import os
import re
import shutil
import ssl
import time
import urllib.error
import urllib.request
from email.message import Message
from typing import IO
from urllib.parse import urlsplit

from tqdm import tqdm

from storage.files import atomic_write, put

TIMEOUT = 30.0  # seconds without an answer, or with less than SLOWEST bytes in each of them
SLOWEST = 1024  # bytes a second; a server that sends less is as good as one that has stopped
ATTEMPTS = 5
PAUSE = 2.0  # seconds before the second attempt, doubled before each further one
BLOCK = 1 << 20
PASSING = (408, 425, 429, 500, 502, 503, 504)  # answers that may be others a little later
USER_AGENT = "cdc-dassl data preparation"


class DownloadError(OSError):
    """A file could not be fetched; the message says from where and why."""


class PassingError(Exception):
    """An attempt failed in a way that another attempt may not."""


def download(
    url: str,
    path: str,
    md5: str = "",
    timeout: float = TIMEOUT,
    attempts: int = ATTEMPTS,
    pause: float = PAUSE,
) -> None:
    """Fetch a file unless it is there; afterwards it is whole, or an error was raised and it is not there.

    What has arrived is kept in `<path>.part` between attempts and calls, and the rest is asked for. That is done only
    if the server says that the file is still the same one (by its ETag or date in `<path>.part.version`); else the
    file is fetched from its beginning.

    Args:
        url: http or https.
        path: where the file is to lie; its folder must exist.
        md5: its checksum in hexadecimal digits; empty if none is known, then only its length is checked.
        timeout: seconds that a server may take to answer, and in which it must send `SLOWEST` bytes each.
        attempts: how often it is tried in all; each goes on where the one before has stopped.
        pause: seconds before the second attempt, doubled before each further one.

    Raises:
        ValueError: the URL is not http(s), or a file at `path` has another checksum.
        DownloadError: the server does not have the file, cannot be reached, or sends one with another checksum.
        OSError: the disk is full or the folder not writable.
    """
    if urlsplit(url).scheme not in ("http", "https"):
        raise ValueError(f"a download address must start with http:// or https://, got {url!r}")
    if os.path.exists(path):
        check_md5(path, md5)
        return
    part = f"{path}.part"
    with open(part, "ab") as file:
        lock(file, f"another process is downloading {path}")
        try:
            if not os.path.exists(path):  # as the process that has just given the lock free may have left it
                fetch(url, path, file, md5, timeout, attempts, pause)
        finally:
            if os.path.exists(part) and not os.path.getsize(part):
                os.remove(part)
                remove_if_there(f"{part}.version")


def fetch(url: str, path: str, file: IO[bytes], md5: str, timeout: float, attempts: int, pause: float) -> None:
    """The work of `download`, on the open and locked `<path>.part`."""
    part, reason = file.name, ""
    for attempt in range(attempts):
        if attempt:
            print(f"{reason}; trying again ({attempt + 1} of {attempts})")
            time.sleep(pause * 2 ** (attempt - 1))
        try:
            resumed = fetch_rest(url, file, f"{part}.version", timeout, os.path.basename(path))
        except PassingError as error:
            reason = str(error)
            continue
        if not md5 or md5_of(part) == md5.lower():
            put(part, path)
            remove_if_there(f"{part}.version")
            return
        reason = f"{url} does not have the MD5 checksum {md5} but {md5_of(part)}"
        file.truncate(0)
        remove_if_there(f"{part}.version")
        if not resumed:
            raise DownloadError(f"{reason}: the file on the server is another one now; nothing was kept of it")
    kept = os.path.getsize(part)
    raise DownloadError(
        f"{reason}; gave up after {attempts} attempts"
        + (f" with {kept:,} bytes, from which the next call goes on" if kept else "")
    )


def fetch_rest(url: str, file: IO[bytes], version_path: str, timeout: float, label: str) -> bool:
    """Append to the open file what it lacks.

    Returns:
        Whether something that an earlier attempt had fetched was kept.

    Raises:
        PassingError: a later attempt may succeed; what has arrived is in the file.
        DownloadError: none will.
    """
    start = file.seek(0, os.SEEK_END)
    version = read_text(version_path)
    if start and not version:
        start = 0  # nothing says that the rest would be of the same file
    headers = {"User-Agent": USER_AGENT, "Accept-Encoding": "identity"}
    if start:
        headers.update({"Range": f"bytes={start}-", "If-Range": version})
    try:
        response = urllib.request.urlopen(urllib.request.Request(url, headers=headers), timeout=timeout)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416:  # nothing lies past what is there, which may be the whole file or a wrong one
            if total_length(error.headers) == start:
                return True
            file.truncate(0)
            raise PassingError(f"{url} is shorter than what was fetched of it before") from error
        if error.code in PASSING:
            raise PassingError(f"{url} answers {error.code} {error.reason}") from error
        raise DownloadError(f"{url} answers {error.code} {error.reason}") from error
    except (OSError, http.client.HTTPException) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLCertVerificationError):
            raise DownloadError(f"{url} has no valid certificate ({reason.verify_message})") from error
        raise PassingError(f"{url} cannot be reached ({describe(reason)})") from error

    with response:
        if response.status == 206 and first_byte(response.headers) == start:
            total = total_length(response.headers)
        elif response.status == 200:
            start, total = 0, int(response.headers.get("Content-Length") or -1)
        else:
            file.truncate(0)
            raise PassingError(f"{url} answers {response.status} with another part of the file than was asked for")
        file.truncate(start)
        file.seek(start)
        with atomic_write(version_path) as beside:
            beside.write_text(version_of(response.headers), encoding="utf-8")
        check_space(file.name, total - start)
        with tqdm(
            initial=start, total=max(total, 0) or None, unit="B", unit_scale=True, desc=label, disable=None
        ) as bar:
            copy(response, file, url, timeout, bar)
    file.flush()
    size = file.tell()
    if total >= 0 and size != total:
        if size > total:
            file.truncate(0)
        raise PassingError(f"{url} broke off after {size:,} of {total:,} bytes")
    return start > 0


def copy(response: http.client.HTTPResponse, file: IO[bytes], url: str, timeout: float, bar: tqdm) -> None:
    """Copy a response to its end.

    Raises:
        PassingError: the connection broke, or was too slow for too long.
    """
    since, received = time.monotonic(), 0
    while True:
        try:
            block = response.read1(BLOCK)  # what there is, so that a trickle is noticed
        except (OSError, http.client.HTTPException) as error:
            file.flush()
            raise PassingError(f"{url} broke off ({describe(error)})") from error
        if not block:
            return
        file.write(block)
        bar.update(len(block))
        received += len(block)
        now = time.monotonic()
        if now - since >= timeout:
            if received < SLOWEST * (now - since):
                file.flush()
                raise PassingError(f"{url} sends only {received / (now - since):.0f} bytes a second")
            since, received = now, 0


def describe(error: object) -> str:
    """Say what an error is also where it has no message."""
    return str(error) or type(error).__name__


def first_byte(headers: Message) -> int:
    """First byte of a partial answer, -1 if it does not say."""
    found = re.match(r"bytes (\d+)-", headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def total_length(headers: Message) -> int:
    """Length of the whole file by a partial answer, -1 if it does not say."""
    found = re.search(r"/(\d+)$", headers.get("Content-Range", ""))
    return int(found[1]) if found else -1


def version_of(headers: Message) -> str:
    """What tells this version of a file from others: a strong ETag, or the date of its last change; "" without both."""
    tag = headers.get("ETag", "")
    return headers.get("Last-Modified", "") if not tag or tag.startswith("W/") else tag


def check_space(path: str, needed: int) -> None:
    """Raise OSError if the disk that `path` lies on has less space than this."""
    free = shutil.disk_usage(os.path.dirname(os.path.abspath(path))).free
    if needed > free:
        raise OSError(errno.ENOSPC, f"the disk has {free:,} bytes left, {needed:,} are needed", path)


def md5_of(path: str) -> str:
    """MD5 checksum of a file in hexadecimal digits."""
    digest = hashlib.md5(usedforsecurity=False)
    with open(path, "rb") as file:
        while block := file.read(BLOCK):
            digest.update(block)
    return digest.hexdigest()


def check_md5(path: str, md5: str) -> None:
    """Raise ValueError unless the file has this checksum; an empty one stands for any."""
    if md5 and md5_of(path) != md5.lower():
        raise ValueError(
            f"{path} must have the MD5 checksum {md5}, but has {md5_of(path)}: remove it if it is damaged, so that it "
            "is fetched again"
        )


def lock(file: IO[bytes] | int, busy: str) -> None:
    """Keep other processes from using an open file or folder until it is closed, also by the end of this one.

    Raises:
        OSError: another process has it; its message is `busy`.
    """
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError as error:
        raise OSError(error.errno, busy) from error


def read_text(path: str) -> str:
    """Content of a small file, "" where there is none."""
    try:
        with open(path, encoding="utf-8") as file:
            return file.read()
    except FileNotFoundError:
        return ""


def remove_if_there(path: str) -> None:
    """Remove a file unless it is gone."""
    if os.path.exists(path):
        os.remove(path)
