"""One request for a file, by libcurl, and what has arrived of it.

libcurl does what concerns the network: ranges, redirects, proxies, certificates, time limits and
the least rate below which a server is given up.
"""

from __future__ import annotations

import hashlib
import os
import ssl
from pathlib import Path
from threading import Event
from typing import Any

import pycurl

PATIENCE = 10  # seconds until a connection stands, and below the least rate until it is given up
LEAST_RATE = 1000  # bytes a second
LONGEST_WAIT = 120  # seconds that a server may ask for by Retry-After
BUSY = (408, 429, 500, 502, 503, 504)
NETWORK = pycurl.PROTO_HTTP | pycurl.PROTO_HTTPS
OPTIONS: dict[int, Any] = {
    pycurl.PROTOCOLS: NETWORK | pycurl.PROTO_FILE,
    pycurl.REDIR_PROTOCOLS: NETWORK,
    pycurl.FOLLOWLOCATION: True,
    pycurl.MAXREDIRS: 10,
    pycurl.FAILONERROR: True,
    pycurl.BUFFERSIZE: 1 << 18,
    pycurl.NOSIGNAL: True,  # other threads transfer too
    pycurl.NOPROGRESS: False,
}


class BrokenTransferError(OSError):
    """A transfer worth taking up again, after the seconds that the server asked for."""

    def __init__(self, problem: str, wait: float = 0.0) -> None:
        super().__init__(problem)
        self.wait = wait


class Part:
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

    def __enter__(self) -> Part:
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


def request(url: str, part: Part, start: int, stop: Event) -> None:
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
    options = OPTIONS | {
        pycurl.URL: url,
        pycurl.RESUME_FROM_LARGE: start,
        pycurl.CONNECTTIMEOUT: PATIENCE,
        pycurl.LOW_SPEED_LIMIT: LEAST_RATE,
        pycurl.LOW_SPEED_TIME: PATIENCE,
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
            return request(url, part, 0, stop)
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
