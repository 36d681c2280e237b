"""The twelve archives in which NIH publishes the images of ChestX-ray14: brought and unpacked.

Page: https://nihcc.app.box.com/v/ChestXray-NIHCC (links in its `batch_download_zips.py`)
"""

from __future__ import annotations

import re
import shutil
import tarfile
import zlib
from bisect import bisect_right
from collections import Counter
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from threading import Event
from typing import Any, NamedTuple

from filelock import FileLock, Timeout
from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.data.download import download
from cardiomegaly.data.image_folder import ImageFolder

NIH = "https://nihcc.box.com/shared/static"
PAUSES = (1.0, 5.0, 30.0)  # seconds before an archive is asked for again
ROUNDING = 1.02  # what many small files take on a disk beyond their bytes
GB = 1e9
MEMBER = re.compile(r"(?:\./)?(?:images/)?(\d{8}_\d{3})\.png")


class Archive(NamedTuple):
    """An archive: its number, the first of its images in the order of names, how many, where."""

    number: int
    first: str
    images: int
    box_name: str
    bytes: int
    md5: str

    @property
    def folder(self) -> str:
        """Where its images are unpacked to."""
        return f"images_{self.number:03}"


ARCHIVES = [
    Archive(int(number), first, int(images), name, int(size), md5)
    for number, first, images, name, size, md5 in (
        line.split()
        for line in """
 1 00000001_000  4999 vfk49d74nhbxq3nqjg0900w5nvkorp5c 2008470987 fe8ed0a6961412fddcbb3603c11b3698
 2 00001336_000 10000 i28rlmbvmfjbl8p2n3ril0pptcmcu9d1 3952623504 ab07a2d7cbe6f65ddd97b4ed7bde10bf
 3 00003923_014 10000 f1t00wrtdk94satdfb9olcolqx20z2jp 3929234850 2301d03bde4c246388bad3876965d574
 4 00006585_007 10000 0aowwzs5lhjrceb3qp67ahp0rd1l1etg 3838903983 9f1b7f5aae01b13f4bc8e2c44a4b8ef6
 5 00009232_004 10000 v5e3goj22zr6h8tzualxfsqlqaygfbsn 3935496531 1861f3cd0ef7734df8104f2b0309023b
 6 00011558_008 10000 asi7ikud9jwnkrnkj99jnpfkjdes7l6l 3986301172 456b53a8b351afd92a35bc41444c58c8
 7 00013774_026 10000 jn1b4mw4n6lnh74ovmcjb8y48h8xj07n 4016328426 1075121ea20a137b87f290d6a4a5965e
 8 00016051_010 10000 tvpxmn7qyrgl0w8wfh9kqfjskv6nmm1j 4018347353 b61f34cec3aa69f295fbb593cbd9d443
 9 00018387_035 10000 upyy3ml7qdumlgk2rfcvlb9k6gvqq2pj 4111327929 442a3caa61ae9b64e61c561294d1e183
10 00020945_050 10000 l6nilvfa9cg3s28tqv1qc1olm3gnz54p 4181556296 09ec81c4c31e32858ad8cf965c494b74
11 00024718_000 10000 hhq8fkdgvcari67vfhs7ppg2w6ni4jze 4187084020 499aefc67207a5a97692424cf5dbeed5
12 00028173_003  7121 ioqwiy20ihqwyr8pf4c24eazhh281pbu 2914187733 dc9fda1757c2de0032b63347a7d2895c
""".strip().splitlines()
    )
]


def archive_of(image: str) -> int:
    """The number of the archive that holds an image, told by its name."""
    return max(1, bisect_right([archive.first for archive in ARCHIVES], image))


def missing_archives(target: Path, numbers: Iterable[int]) -> list[tuple[Archive, int]]:
    """Those archives of which images lack below a folder, each with how many lack.

    Raises:
        UserError: there is no such archive.
    """
    wanted = set(numbers)
    if unknown := wanted - {archive.number for archive in ARCHIVES}:
        raise UserError(f"archives: must be of 1 to {len(ARCHIVES)}, got {sorted(unknown)}")
    there = Counter(archive_of(image) for image in _present(target))
    lacking = [(a, a.images - there[a.number]) for a in ARCHIVES if a.number in wanted]
    return [(archive, images) for archive, images in lacking if images > 0]


def check_room(target: Path, missing: list[tuple[Archive, int]], parallel: int, keep: bool) -> str:
    """What the download takes of network and disk, as a sentence.

    Raises:
        UserError: the disk lacks room.
    """
    folder = target / "archives"
    arrived = sum(path.stat().st_size for path in folder.glob("images_*")) if folder.exists() else 0
    sizes = sorted((archive.bytes for archive, _ in missing), reverse=True)
    images = int(sum(a.bytes * lacking / a.images for a, lacking in missing) * ROUNDING)
    packed = max(0, sum(sizes if keep else sizes[:parallel]) - arrived)
    free = shutil.disk_usage(target).free
    needed = images + packed
    told = (
        f"{sum(sizes) / GB:.1f} GB of archives; on the disk {needed / GB:.1f} GB are needed "
        f"({packed / GB:.1f} of it for archives {'kept' if keep else 'on their way'}), "
        f"{free / GB:.1f} GB are free"
    )
    if needed > free:
        raise UserError(f"target={target}: {told}; parallel=1 needs less, archives=[1,2] is a part")
    return told


def fetch_archives(
    target: Path, missing: list[tuple[Archive, int]], source: str, parallel: int, keep: bool
) -> list[str]:
    """Bring archives and unpack them to `target/images_001` and so on; what is there stays.

    Args:
        target: folder of the data.
        missing: from `missing_archives`.
        source: URL below which the archives lie, by Box's names or as `images_001.tar.gz`.
        parallel: how many at once.
        keep: leave the archives in `target/archives`.

    Returns:
        A line for each archive that could not be had.

    Raises:
        UserError: another download is at work in the folder.
    """
    stop, halt = Event(), Event()
    problems: list[str] = []
    try:
        lock = FileLock(target / ".download.lock").acquire(timeout=0)
    except Timeout as error:
        raise UserError(f"target={target}: another download is at work there") from error
    present = _present(target)
    total = sum(archive.bytes for archive, _ in missing)

    def bring(archive: Archive) -> None:
        path = target / "archives" / f"{archive.folder}.tar.gz"
        try:
            if not halt.is_set():
                _download(archive, path, source, bar, stop)
                unpack(path, target / archive.folder, present, stop)
                if not keep:
                    path.unlink()
        except (OSError, UserError) as error:
            problems.append(f"archive {archive.number}: {error}")
            if not isinstance(error, FileNotFoundError | UserError):
                halt.set()  # the others would meet the same

    bar = tqdm(total=total, unit="B", unit_scale=True, desc="archives")
    with lock, bar, ThreadPoolExecutor(parallel) as pool:
        try:
            for work in [pool.submit(bring, archive) for archive, _ in missing]:
                work.result()
        except BaseException:
            stop.set()
            halt.set()
            raise
    return problems


def _present(target: Path) -> set[str]:
    return set(ImageFolder(target).files) if target.is_dir() else set()


def _download(archive: Archive, path: Path, source: str, bar: Any, stop: Event) -> None:
    names = [f"{archive.box_name}.gz"]
    if source != NIH:
        names += [path.name, f"images_{archive.number:02}.tar.gz"]
    for name in names:
        with suppress(FileNotFoundError):
            checksum = f"md5:{archive.md5}"
            return download(f"{source}/{name}", path, checksum, archive.bytes, PAUSES, bar, stop)
    raise FileNotFoundError(f"{source} has no {' or '.join(names)}")


def unpack(path: Path, folder: Path, present: set[str], stop: Event) -> None:
    """Unpack an archive as a stream, each image whole or not at all.

    Args:
        path: tar.gz of `images/NNNNNNNN_NNN.png`; other files in it are left there.
        folder: where to, without folders below it.
        present: images, by name without suffix, that are elsewhere and stay away.
        stop: ends the work when set.

    Raises:
        UserError: damaged, or a member would leave the folder, is a link or a device.
        OSError: the disk is full, or stopped.
    """
    folder.mkdir(exist_ok=True)
    try:
        with tarfile.open(path, "r|gz") as tar:
            for member in tar:
                if stop.is_set():
                    raise OSError(f"{path.name}: stopped")
                safe = tarfile.data_filter(member, str(folder))
                if safe.name != member.name or not (member.isreg() or member.isdir()):
                    raise tarfile.FilterError(f"{member.name!r} is neither file nor folder in it")
                name = MEMBER.fullmatch(member.name)
                if name is None or name[1] in present:
                    continue
                part = folder / f"{name[1]}.part"
                tar.extract(member.replace(name=part.name, deep=False), folder, filter="data")
                part.replace(folder / f"{name[1]}.png")
    except (tarfile.TarError, EOFError, zlib.error) as error:
        raise UserError(f"{path}: not unpacked further: {error}") from error
