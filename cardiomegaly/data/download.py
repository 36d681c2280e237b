"""One file from the network: taken up where it broke off, checked while it arrives, never stuck.

libcurl does what concerns the network: ranges, redirects, proxies, certificates, time limits and
the least rate below which a server is given up. What is here is the part on the disk, its checksum,
and when to try again.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

import pycurl
from tqdm import tqdm

from cardiomegaly import UserError

PATIENCE = 10  # seconds until a connection stands, and below the least rate until it is given up
LEAST_RATE = 1000  # bytes a second
LONGEST_WAIT = 120  # seconds that a server may ask for by Retry-After
BUSY = (408, 429, 500, 502, 503, 504)
NETWORK = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS


class BrokenTransferError(OSError):
    """A transfer worth taking up again, after the seconds that the server asked for."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


def download(
    url: str,
    target: Path,
    checksum: str,
    size: int | None = None,
    pauses: Sequence[float] = (1.0,),
    bar: Any = None,
    stop: Event | None = None,
) -> None:
    """Bring a file to `target`; `target.part` keeps what has arrived until the file is whole.

    Args:
        url: http, https or file.
        target: where to; a file that is there already is checked and completed.
        checksum: `md5:...`, `sha256:...`, the name of the response's header in which the server
            publishes the sha256, or empty where the caller checks.
        size: bytes, where they are known.
        pauses: seconds before each further try, counted anew whenever a try got further.
        bar: a tqdm bar that counts several downloads; None shows one of its own.
        stop: ends the download when set.

    Raises:
        FileNotFoundError: the server does not have it.
        OSError: no server, refused, slower than `LEAST_RATE` for `PATIENCE` seconds, a web page in
            the file's place, connection lost for good, disk full, stopped.
        UserError: the whole file has another checksum; it was deleted.
    """
    target.parent.mkdir(parents=True, exist_ok=True)
    path = target.with_name(target.name + ".part")
    if target.exists():
        target.replace(path)
    algorithm, _, published = checksum.rpartition(":")
    with tqdm(unit="B", unit_scale=True, desc=target.name, disable=bar is not None) as own:
        while True:
            with _Part(path, algorithm or "sha256", size, own if bar is None else bar) as part:
                resumed = part.length > 0
                _receive(url, part, list(pauses), stop or Event())
            arrived = part.digest.hexdigest()
            expected = published if algorithm else part.headers.get(published, "").strip('"')
            if not checksum or arrived == expected:
                path.replace(target)
                return
            path.unlink()
            part.advance(-part.length)
            if not resumed:  # else the part was perhaps of another version
                raise UserError(
                    f"{url}: the file that arrived has the {part.digest.name} checksum {arrived}, "
                    f"published is {expected or 'none'}; it was deleted, try again, or look "
                    "whether a proxy answers in the server's place"
                )


class _Part:
    """What has arrived of a file, with its checksum so far; libcurl calls its methods."""

    def __init__(self, path: Path, algorithm: str, size: int | None, bar: Any) -> None:
        if size is not None and path.exists() and path.stat().st_size > size:
            path.unlink()
        self.path, self.size, self.bar = path, size, bar
        self.headers: dict[str, str] = {}
        self.start = 0  # where the answer in hand begins
        self.begun = False  # whether it has sent anything
        self.problem: OSError | None = None
        self.file = path.open("a+b")
        self.file.seek(0)
        self.digest = hashlib.file_digest(self.file, algorithm)
        self.length = self.file.seek(0, os.SEEK_END)
        self.advance(self.length)

    def __enter__(self) -> _Part:
        return self

    def __exit__(self, problem: object, *_: object) -> None:
        self.file.flush()
        os.fsync(self.file.fileno())
        self.file.close()
        if problem is not None and not self.length:
            self.path.unlink()

    def read_header(self, line: bytes) -> None:
        """Note a header; those of redirects count too, but their type is not the file's."""
        if line.startswith(b"HTTP/"):
            self.headers.pop("content-type", None)
        name, _, value = line.decode("latin-1").partition(":")
        self.headers[name.strip().lower()] = value.strip()

    def write(self, block: bytes) -> int:
        """Append a block; 0 ends the transfer, `problem` says why."""
        try:
            if not self.begun and self._is_web_page(block):
                raise OSError("a web page came instead of the file")
            if not self.begun and self.length > self.start:
                self._restart()
            self.begun = True
            if self.size is not None and self.length + len(block) > self.size:
                raise OSError(f"more than the published {self.size:,} bytes came")
            self.file.write(block)
        except OSError as error:  # the disk may be full, too
            self.problem = error
            return 0
        self.digest.update(block)
        self.length += len(block)
        self.advance(len(block))
        return len(block)

    def advance(self, count: int) -> None:
        """Move the bar, which other threads may move too."""
        with self.bar.get_lock():
            self.bar.update(count)

    def _restart(self) -> None:
        self.file.truncate(0)
        self.digest = hashlib.new(self.digest.name)
        self.advance(-self.length)
        self.length = 0

    def _is_web_page(self, block: bytes) -> bool:
        marked = block.lstrip()[:9].lower().startswith((b"<!doctype", b"<html"))
        return marked or self.headers.get("content-type", "").startswith("text/html")


def _receive(url: str, part: _Part, pauses: list[float], stop: Event) -> None:
    """Bring all that the part lacks."""
    remaining, furthest = pauses.copy(), part.length
    while part.size is None or part.length < part.size:
        try:
            _transfer(url, part, part.length, stop)
            if part.size is None or part.length == part.size:
                return
            problem = BrokenTransferError(
                f"{part.length:,} bytes came, published are {part.size:,}"
            )
        except BrokenTransferError as error:
            problem = error
        if part.length >= furthest + LEAST_RATE * PATIENCE:
            remaining, furthest = pauses.copy(), part.length
        if not remaining:
            raise OSError(f"{url}: {problem}") from problem
        if stop.wait(max(problem.wait, remaining.pop(0))):
            raise OSError(f"{url}: stopped")


def _transfer(url: str, part: _Part, start: int, stop: Event) -> None:
    """One request, from `start` on.

    Raises:
        BrokenTransferError: the rest may come at another try.
        OSError: it will not.
    """

    def progress(expected: int, *_: int) -> bool:
        part.bar.total = part.bar.total or (start + expected if expected else None)
        return stop.is_set()

    part.start, part.begun, part.problem = start, False, None
    curl = pycurl.Curl()
    options: dict[int, Any] = {
        pycurl.URL: url,
        pycurl.PROTOCOLS: NETWORK | pycurl.PROTO_FILE,
        pycurl.REDIR_PROTOCOLS: NETWORK,
        pycurl.FOLLOWLOCATION: True,
        pycurl.MAXREDIRS: 10,
        pycurl.FAILONERROR: True,
        pycurl.RESUME_FROM_LARGE: start,
        pycurl.CONNECTTIMEOUT: PATIENCE,
        pycurl.LOW_SPEED_LIMIT: LEAST_RATE,
        pycurl.LOW_SPEED_TIME: PATIENCE,
        pycurl.BUFFERSIZE: 1 << 18,
        pycurl.NOSIGNAL: True,
        pycurl.NOPROGRESS: False,
        pycurl.XFERINFOFUNCTION: progress,
        pycurl.HEADERFUNCTION: part.read_header,
        pycurl.WRITEFUNCTION: part.write,
    }
    if authorities := ssl.get_default_verify_paths().cafile:  # $SSL_CERT_FILE or the system's
        options[pycurl.CAINFO] = authorities
    for option, value in options.items():
        curl.setopt(option, value)
    try:
        curl.perform()
    except pycurl.error as error:
        code, text = error.args
        if code == pycurl.E_HTTP_RANGE_ERROR and start:  # the server sends all or nothing
            return _transfer(url, part, 0, stop)
        if part.problem is not None:
            raise OSError(f"{url}: {part.problem}") from error
        raise _explain(url, code, text, curl) from error


def _explain(url: str, code: int, text: str, curl: pycurl.Curl) -> OSError:
    """What libcurl's error means: whether another try may help, and when."""
    if code == pycurl.E_ABORTED_BY_CALLBACK:
        return OSError(f"{url}: stopped")
    if code == pycurl.E_FILE_COULDNT_READ_FILE:
        return FileNotFoundError(f"{url}: {text}")
    if code != pycurl.E_HTTP_RETURNED_ERROR:
        return BrokenTransferError(text)
    status, wait = curl.getinfo(pycurl.RESPONSE_CODE), curl.getinfo(pycurl.RETRY_AFTER)
    if status not in BUSY:
        kind = FileNotFoundError if status in (404, 410) else PermissionError
        return kind(f"{url}: the server answers {status}")
    if wait > LONGEST_WAIT:
        return OSError(f"{url}: the server answers {status}, to be asked again in {wait} s")
    return BrokenTransferError(f"the server answers {status}, it is busy", wait)
