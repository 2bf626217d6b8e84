"""Unpacks a zip that nobody has looked into. An annex: nobody needs it to follow the lesson.

Names are safe, the disk has room, and every byte is checked.
"""

import contextlib
import errno
import os
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..naming import named
from .members import find_fault, find_twin, fold, parts_of

RESERVE = 2 * 1000**3  # bytes: would less than this stay free on the disk, the user is asked first
MAX_MEMBERS = 100_000  # files in an archive; the Lyft set has 20,000
# What comes out is at most so many times as large as the archive, or has at most so many bytes: pictures hardly shrink
# in a zip, text shrinks to a tenth, zeros to a thousandth.
MAX_RATIO, FREE_SIZE = 20, 100 * 1000**2


class DownloadError(Exception):
    """What happened, what to do next, and what is still there: a line each."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of the traceback."""
        return f"\x1b[31mDownloadError\x1b[0m: {self}".splitlines()


class Damaged(Exception):
    """An archive is not what was sent."""


def size_text(size: int | None) -> str:
    """1_230_000 -> "1.2 MB"; None: nobody knows."""
    if size is None:
        return "a size not told"
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def what_is_kept(staging: Path) -> str:
    """The last line of a DownloadError: what an earlier download left in the folder `staging`."""
    size = 0
    with contextlib.suppress(OSError):  # it may not be looked into
        size = sum(path.stat().st_size for path in staging.glob("*.zip"))
    if not size:
        return "Nothing was lost or changed."
    return f"Nothing was lost: {size_text(size)} are in {staging}, and the next run goes on from there."


def is_web_page(path: Path) -> bool:
    """Whether a file that should be a zip is what a browser shows: HTML or XML, which begin with "<"."""
    with open(path, "rb") as file:
        return file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def check_disk(folder: Path, what: str, needed: int, likely: int) -> None:
    """Say what comes and what is free. Ask if `likely` bytes nearly fill the disk, refuse if `needed` don't fit."""
    free = shutil.disk_usage(folder).free
    print(f"{what}; {size_text(free)} are free on the disk of {folder.parent}")
    advice = f"Make room, or give a folder on another disk as {named('DATA_DIR')}, and {named('run the cell again')}.\n"
    advice += what_is_kept(folder)
    if needed > free:
        raise DownloadError(f"{what}, but only {size_text(free)} are free on the disk of {folder.parent}.\n{advice}")
    if free - likely < RESERVE:
        try:
            answer = input(f"It needs about {size_text(likely)} and would nearly fill the disk. Go on? [y/N] ")
        except (EOFError, OSError, NotImplementedError):  # nobody is there: nbconvert, CI
            answer = ""
        if answer.strip().lower() not in ("y", "yes"):
            raise DownloadError(f"{what}: stopped, because it would nearly fill the disk.\n{advice}")


def unpack(archive: Path, tree: Path, keep: Callable[[str], bool]) -> None:
    """Unpack all members that are kept, checking each one's name, size and CRC; raises Damaged or DownloadError."""
    shutil.rmtree(tree, ignore_errors=True)
    current = archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = _safe_members(opened, keep)
            total = sum(member.file_size for member, _ in members)
            check_disk(tree.parent, f"{len(members)} files, {size_text(total)} to unpack", total, total)
            for member, parts in members:
                current, path = member.filename, tree.joinpath(*parts)
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile never gives more bytes than declared, and checks the CRC at the end.
                with opened.open(member) as source, open(path, "xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (DownloadError, MemoryError):
        raise
    except Exception as error:  # zipfile raises BadZipFile, EOFError, zlib.error, RuntimeError and more
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise Damaged(f"{current}: {error}") from None


def _safe_members(opened: zipfile.ZipFile, keep: Callable[[str], bool]) -> list[tuple[zipfile.ZipInfo, list[str]]]:
    """The files to unpack and the parts of their paths. Raises DownloadError for a name that could do harm."""
    members, seen, fault = [], {}, ""
    if len(opened.infolist()) > MAX_MEMBERS:
        fault = f"it has {len(opened.infolist())} members, more than {MAX_MEMBERS}"
    for member in [] if fault else opened.infolist():
        name = member.filename
        if not keep(name):
            continue
        parts, fault = parts_of(name), find_fault(member)
        if not fault and parts and not name.endswith(("/", "\\")):  # a file, not a folder
            other = seen.setdefault(fold("/".join(parts)), member)
            fault = "" if other is member else find_twin(name, parts, other.filename)
            members.append((member, parts))
        if fault:
            break
    total, packed = sum(member.file_size for member, _ in members), os.path.getsize(opened.filename)
    if total > max(FREE_SIZE, MAX_RATIO * packed):
        fault = fault or (
            f"its {size_text(packed)} would become {size_text(total)}, more than {MAX_RATIO} times as many"
        )
    if fault:
        raise DownloadError(
            f"{opened.filename} was not unpacked: {fault}.\nDon't use it: such an archive is broken or hostile. Get "
            "the data set from its own page.\nNothing of it was written."
        )
    return members
