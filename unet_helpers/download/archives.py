"""Unpacks a zip of unknown origin: its names are safe, the disk has room, and every byte is checked."""

import contextlib
import errno
import os
import re
import shutil
import stat
import unicodedata
import zipfile
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path

from ..naming import named

MARKER = ".download_complete"  # the note in a finished folder; no archive may bring its own
RESERVE = 2 * 1000**3  # bytes: the user is asked before less than this is left free on the disk
MAX_MEMBERS = 100_000  # files in an archive; the Lyft set has 20,000
# An archive unpacks to at most MAX_RATIO times its size, or to FREE_SIZE bytes: images hardly shrink in a zip, text
# shrinks to a tenth, zeros to a thousandth.
MAX_RATIO, FREE_SIZE = 20, 100 * 1000**2
# characters, endings and devices: such names are refused, not changed, for a data set must be the same everywhere
NOT_ON_WINDOWS = re.compile(
    r'.*[:*?"<>|\x00-\x1f].*|.*[. ]|(con|prn|aux|nul|conin\$|conout\$|(com|lpt)[1-9¹²³]) *(\..*)?', re.I | re.S
)


class DownloadError(Exception):
    """What happened, what to do next, and what is still there: a line each."""

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of the traceback."""
        return f"\x1b[31mDownloadError\x1b[0m: {self}".splitlines()


class Damaged(Exception):
    """An archive is not what was sent."""


def size_text(size: int) -> str:
    """1_230_000 -> "1.2 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def what_is_kept(staging: Path) -> str:
    """The last line of a DownloadError: what an earlier download left in the folder `staging`."""
    with contextlib.suppress(OSError):  # the folder may not be readable
        if size := sum(path.stat().st_size for path in staging.glob("*.zip")):
            return f"Nothing was lost: {size_text(size)} are in {staging}, and the next run resumes from there."
    return "Nothing was lost or changed."


def elsewhere() -> str:
    """The end of a remedy that begins with another way."""
    return f"or give another folder as {named('DATA_DIR')}, and {named('run the cell again')}"


def is_web_page(path: Path) -> bool:
    """Whether a file that should be a zip is HTML or XML, which begin with "<"."""
    with open(path, "rb") as file:
        return file.read(512).removeprefix(b"\xef\xbb\xbf").lstrip().startswith(b"<")


def check_disk(folder: Path, what: str, needed: int, likely: int) -> None:
    """Print what comes and what is free. Ask if `likely` bytes nearly fill the disk, refuse if `needed` don't fit."""
    free = shutil.disk_usage(folder).free
    print(f"{what}; {size_text(free)} are free on the disk of {folder.parent}")
    advice = f"Make room, {elsewhere()}.\n{what_is_kept(folder)}"
    if needed > free:
        raise DownloadError(f"{what}, but only {size_text(free)} are free on the disk of {folder.parent}.\n{advice}")
    if free - likely < RESERVE:
        try:
            reply = input(f"It needs about {size_text(likely)} and would nearly fill the disk. Continue? [y/N] ")
        except (EOFError, OSError, NotImplementedError):  # there is no keyboard: nbconvert, CI
            reply = ""
        if reply.strip().lower() not in ("y", "yes"):
            raise DownloadError(f"{what}: stopped, because it would nearly fill the disk.\n{advice}")


def unpack(archive: Path, tree: Path, keep: Callable[[str], bool]) -> None:
    """Unpack the members whose names are kept, checking names, sizes and CRCs. Raises Damaged or DownloadError."""
    shutil.rmtree(tree, ignore_errors=True)
    current = archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [member for member in opened.infolist() if keep(member.filename)]
            for problem in _find_problems(members, os.path.getsize(archive)):
                raise DownloadError(
                    f"{archive} was not unpacked: {problem}.\nDon't use it: such an archive is broken or hostile. Get "
                    "the data set from its own page.\nNothing of it was written."
                )
            files = [member for member in members if _is_file(member)]
            total = sum(member.file_size for member in files)
            check_disk(tree.parent, f"{len(files)} files, {size_text(total)} to unpack", total, total)
            for member in files:
                current, path = member.filename, tree.joinpath(*_parts_of(member.filename))
                path.parent.mkdir(parents=True, exist_ok=True)
                # zipfile never gives more bytes than declared, and checks the CRC at the end
                with opened.open(member) as source, open(path, "xb") as target:
                    shutil.copyfileobj(source, target, 1 << 20)
    except (DownloadError, MemoryError):
        raise
    except Exception as error:  # zipfile raises BadZipFile, EOFError, zlib.error, RuntimeError and more
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise Damaged(f"{current}: {error}") from None


def _is_file(member: zipfile.ZipInfo) -> bool:
    return bool(_parts_of(member.filename)) and not member.filename.endswith(("/", "\\"))


def _parts_of(name: str) -> list[str]:
    """The parts of a member's path. Some programs on Windows write backslashes, and Windows reads all so."""
    return [part for part in re.split(r"[/\\]", name) if part not in ("", ".")]


def _fold(name: str) -> str:
    """The same for all names of one file where upper and lower case are the same."""
    return unicodedata.normalize("NFC", name).casefold()


def _find_problems(members: Sequence[zipfile.ZipInfo], packed: int) -> Iterator[str]:
    """Why an archive of `packed` bytes must not be unpacked: parts of a sentence, none if it may be."""
    if len(members) > MAX_MEMBERS:
        yield f"it has {len(members)} members, more than {MAX_MEMBERS}"
    seen: dict[str, zipfile.ZipInfo] = {}
    for member in members:
        name = member.orig_filename  # `filename` ends at \0
        parts = _parts_of(name)
        if ".." in parts or name[:1] in ("/", "\\") or re.match("[A-Za-z]:", name):
            yield f"{name!r} points out of its folder"
        if stat.S_IFMT(member.external_attr >> 16) not in (0, stat.S_IFREG, stat.S_IFDIR):
            yield f"{name!r} is a link or a device"
        if any(NOT_ON_WINDOWS.fullmatch(part) for part in parts):
            yield f"{name!r} is a name that Windows does not allow"
        if any(_fold(part) == MARKER for part in parts):
            yield f"{name!r} has the name of the note that marks a finished download"
        if _is_file(member) and (other := seen.setdefault(_fold("/".join(parts)), member)) is not member:
            yield f"{name!r} and {other.filename!r} are one file where upper and lower case are the same"
    total = sum(member.file_size for member in members)
    if total > max(FREE_SIZE, MAX_RATIO * packed):
        yield f"its {size_text(packed)} would become {size_text(total)}, more than {MAX_RATIO} times as many"
