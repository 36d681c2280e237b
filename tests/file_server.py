"""A web server on this machine that behaves, or misbehaves, as a test needs."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from threading import Event, Thread


@dataclass
class FileServer:
    """Serves `content` at every path.

    Attributes:
        cut_after: connections close after so many bytes, as often as `cuts` says.
        ranges: answer `Range` requests with the part asked for.
        silent: accept connections and never answer.
        asked: the `Range` header of each request, empty where there was none.
    """

    content: bytes
    cut_after: int = 0
    cuts: int = 0
    ranges: bool = True
    silent: bool = False
    url: str = ""
    asked: list[str] = field(default_factory=list)
    closing: Event = field(default_factory=Event)


@contextmanager
def serving(server: FileServer) -> Iterator[FileServer]:
    """Run the server until the block ends."""

    class Handler(BaseHTTPRequestHandler):
        def do_HEAD(self) -> None:
            self._answer(body=False)

        def do_GET(self) -> None:
            self._answer(body=True)

        def _answer(self, body: bool) -> None:
            if server.silent:
                server.closing.wait()
                return
            asked = self.headers.get("Range", "")
            server.asked.append(asked)
            start = int(asked.removeprefix("bytes=").removesuffix("-")) if asked else 0
            if start >= len(server.content):
                self.send_error(416)
                return
            partial = bool(asked) and server.ranges
            payload = server.content[start if partial else 0 :]
            self.send_response(206 if partial else 200)
            self.send_header("Content-Length", str(len(payload)))
            self.send_header("ETag", '"a-checksum"')  # these two are what the hub's client needs
            self.send_header("X-Repo-Commit", "0" * 40)
            self.end_headers()
            if body and server.cuts > 0:
                server.cuts -= 1
                payload = payload[: server.cut_after]
            if body:
                self.wfile.write(payload)

        def log_message(self, *_: object) -> None:
            """Keep quiet."""

    http = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
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
