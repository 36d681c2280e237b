"""A web server on this machine that behaves, or misbehaves, as a test needs."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Event, Thread

import pytest
from huggingface_hub import constants

from cardiomegaly.model import resnet152v2


@dataclass
class FileServer:
    """Serves `content`: the same at every path, or by path without the leading slash.

    Attributes:
        cut_after: connections close after so many bytes, as often as `cuts` says.
        ranges: answer `Range` requests with the part asked for.
        silent: accept connections and never answer.
        trickle: seconds between pieces of `piece` bytes.
        statuses: answer so, each once, before behaving.
        retry_after: seconds, in the header of that name beside these statuses.
        extra_length: how much more than the truth the length says, as often as `cuts` says.
        redirects: whether what is asked for lies at another address.
        headers: further headers, of the redirect if there is one.
        sent: bytes of all answers so far.
        asked: path and `Range` header of each request, empty where there was none.
    """

    content: bytes | Mapping[str, bytes]
    cut_after: int | None = None
    cuts: int = 0
    ranges: bool = True
    silent: bool = False
    trickle: float = 0.0
    piece: int = 1
    statuses: list[int] = field(default_factory=list)
    retry_after: int | None = None
    extra_length: int = 0
    redirects: bool = False
    headers: dict[str, str] = field(default_factory=dict)
    url: str = ""
    sent: int = 0
    asked: list[tuple[str, str]] = field(default_factory=list)
    closing: Event = field(default_factory=Event)

    @property
    def ranges_asked(self) -> list[str]:
        """The `Range` headers of all requests."""
        return [asked for _, asked in self.asked]


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Run the server until the block ends; `url` is then its address and a path below it."""

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            if server.silent:
                server.closing.wait()
                return
            path, asked = self.path.lstrip("/"), self.headers.get("Range", "")
            if server.redirects and not path.startswith("moved/"):
                self._head(302, {"Location": f"/moved/{path}", "Content-Type": "text/html"})
                return
            server.asked.append((path, asked))
            content = server.content
            if not isinstance(content, bytes):
                content = content.get(path.removeprefix("moved/"), b"")
            if server.statuses or not content:
                wait = {} if server.retry_after is None else {"Retry-After": server.retry_after}
                self._head(server.statuses.pop(0) if server.statuses else 404, wait)
                return
            self._send(content, asked if server.ranges else "")

        def _send(self, content: bytes, asked: str) -> None:
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if start >= len(content):
                self._head(416, {"Content-Range": f"bytes */{len(content)}"})
                return
            payload = content[start:]
            length = {"Content-Length": len(payload) + (server.extra_length if server.cuts else 0)}
            if asked:
                length["Content-Range"] = f"bytes {start}-{len(content) - 1}/{len(content)}"
            self._head(206 if asked else 200, length)
            if server.cuts > 0:
                server.cuts -= 1
                payload = payload[: server.cut_after]
            step = server.piece if server.trickle else len(payload)
            for at in range(0, len(payload), step or 1):
                if server.closing.wait(server.trickle):
                    return
                server.sent += self.wfile.write(payload[at : at + step])

        def _head(self, status: int, headers: Mapping[str, object]) -> None:
            self.send_response(status)
            for name, value in {**headers, **server.headers}.items():
                self.send_header(name, str(value))
            self.end_headers()

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    class Quiet(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that leaves is what many tests are about."""

    http = Quiet(("127.0.0.1", 0), Handler)
    server.url = f"http://127.0.0.1:{http.server_address[1]}/weights.h5"
    thread = Thread(target=http.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        server.closing.set()
        http.shutdown()
        http.server_close()
        thread.join()


def closed_url() -> str:
    """An address where nobody listens."""
    with serving(FileServer(b"")) as server:
        return server.url


def weights_from(address: str, cache: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the hub and Keras' storage be at an address of ours, and our caches be empty."""
    keras = f"{address}/{resnet152v2.URL.rpartition('/')[2]}"
    monkeypatch.setenv("CARDIOMEGALY_CACHE", str(cache))
    monkeypatch.setattr(constants, "HF_HUB_CACHE", str(cache / "hub"))
    monkeypatch.setattr(constants, "ENDPOINT", address)
    template = address + "/{repo_id}/resolve/{revision}/{filename}"
    monkeypatch.setattr(constants, "HUGGINGFACE_CO_URL_TEMPLATE", template)
    monkeypatch.setattr(resnet152v2, "URL", keras)
