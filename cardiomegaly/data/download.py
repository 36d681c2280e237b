"""One file from the network: taken up where it broke off, checked, never waited for in vain."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from threading import Event
from typing import Any

from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.data import transfer
from cardiomegaly.data.transfer import BrokenTransferError, Part


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
        OSError: no server, refused, slower than `LEAST_RATE` for `PATIENCE`, a web page in
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
            with Part(path, algorithm or "sha256", size, own if bar is None else bar) as part:
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


def _receive(url: str, part: Part, pauses: list[float], stop: Event) -> None:
    """Bring all that the part lacks."""
    remaining, furthest = pauses.copy(), part.length
    while part.size is None or part.length < part.size:
        try:
            transfer.request(url, part, part.length, stop)
            if part.size is None or part.length == part.size:
                return
            problem = BrokenTransferError(
                f"{part.length:,} bytes came, published are {part.size:,}"
            )
        except BrokenTransferError as error:
            problem = error
        if part.length >= furthest + transfer.LEAST_RATE * transfer.PATIENCE:
            remaining, furthest = pauses.copy(), part.length
        if not remaining:
            raise OSError(f"{url}: {problem}") from problem
        if stop.wait(max(problem.wait, remaining.pop(0))):
            raise OSError(f"{url}: stopped")
