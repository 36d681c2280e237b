"""Download one file: with a progress bar, resumed where it broke off, checked, never stuck."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from concurrent.futures import Future
from http.client import HTTPException
from pathlib import Path
from threading import Thread
from typing import Any, TypeVar
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tqdm import tqdm

from cardiomegaly import UserError

PATIENCE = 10.0  # seconds that a server may stay silent
CHUNK = 1 << 20
PARTIAL, RANGE_BEYOND_END = 206, 416
Answer = TypeVar("Answer")


def download(url: str, target: Path, md5: str) -> None:
    """Bring a file to `target`; `target.part` keeps what has arrived until the file is whole.

    A broken connection is taken up again as long as each attempt brings bytes; a later call goes
    on from the part that is there, if the server can, else from the beginning.

    Raises:
        OSError: no server, no answer within `PATIENCE`, connection lost for good, disk full.
        UserError: the whole file has another checksum.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    part = target.with_name(target.name + ".part")
    resumed = part.exists()
    _receive_all(url, part)
    if resumed and digest(part, "md5") != md5:  # perhaps the part was of another version
        part.unlink()
        _receive_all(url, part)
    found = digest(part, "md5")
    if found != md5:
        part.unlink()
        raise UserError(
            f"{url}: the file that arrived has the md5 checksum {found}, published is {md5}; it "
            "was deleted, try again, or look whether a proxy answers in the server's place"
        )
    part.replace(target)


def digest(path: Path, algorithm: str) -> str:
    """Checksum of a file, as hexadecimal text."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, algorithm).hexdigest()


def within(seconds: float, action: Callable[[], Answer]) -> Answer:
    """What `action` returns or raises, unless it takes longer.

    A socket's own timeout starts anew for each address of a host and does not count the look-up of
    its name, which together can be minutes behind a firewall that drops packets.

    Raises:
        TimeoutError: still nothing after so many seconds; the action is left behind in its thread.
    """
    future: Future[Answer] = Future()

    def work() -> None:
        try:
            future.set_result(action())
        except Exception as error:
            future.set_exception(error)

    Thread(target=work, daemon=True).start()
    try:
        return future.result(timeout=seconds)
    except TimeoutError as error:
        raise TimeoutError(f"no answer in {seconds:g} seconds") from error


def _receive_all(url: str, part: Path) -> None:
    while True:
        before = _size(part)
        problem: Exception = ConnectionError("the connection closed before the end of the file")
        try:
            if _receive(url, part):
                return
        except (OSError, HTTPException) as error:
            problem = error
        if _size(part) <= before:
            raise OSError(f"{url}: {problem}") from problem


def _receive(url: str, part: Path) -> bool:
    """Append to the part what the server still has; say whether the file is whole."""
    start = _size(part)
    request = Request(url, headers={"Range": f"bytes={start}-"} if start else {})  # noqa: S310
    try:
        response: Any = within(PATIENCE, lambda: urlopen(request, timeout=PATIENCE))  # noqa: S310
    except HTTPError as error:
        error.close()
        if error.code == RANGE_BEYOND_END:
            return True  # nothing is left to send; the checksum decides
        raise
    with response:
        if response.status != PARTIAL:
            start = 0
        length = response.headers.get("Content-Length")
        total = start + int(length) if length else None
        with (
            part.open("ab" if start else "wb") as file,
            tqdm(total=total, initial=start, unit="B", unit_scale=True, desc=part.stem) as bar,
        ):
            while block := response.read(CHUNK):
                file.write(block)
                bar.update(len(block))
    return total is None or _size(part) >= total


def _size(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0
