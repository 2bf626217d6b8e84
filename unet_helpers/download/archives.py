"""Unpacks a zip of unknown origin: nothing leaves the folder, the disk has room, and every byte is checked."""

import errno
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..naming import named

MAX_RATIO, FREE_SIZE = 20, 100 * 1000**2  # images hardly shrink in a zip; text may, up to so many bytes
MARKER = ".download_complete"  # the note in a finished folder; no archive may bring its own


class DownloadError(Exception):
    """What happened, what to do next, and what is still there: a line each."""

    def __init__(self, what: str, todo: str, kept: str = "Nothing was changed"):
        super().__init__(f"{what}.\n{todo}.\n{kept}.")

    def _render_traceback_(self) -> list[str]:
        """IPython shows this in place of the traceback."""
        return f"\x1b[31mDownloadError\x1b[0m: {self}".splitlines()


def size_text(size: int) -> str:
    """1_230_000 -> "1.2 MB"."""
    return f"{size / 1e9:.1f} GB" if size >= 1e9 else f"{size / 1e6:.1f} MB" if size >= 1e5 else f"{size:,} bytes"


def what_is_kept(staging: Path) -> str:
    """The last line of a DownloadError: what an earlier download left in the folder `staging`."""
    if size := sum(path.stat().st_size for path in staging.glob("*.zip")):
        return f"Nothing was lost: {size_text(size)} are in {staging}, and the next run resumes from there"
    return "Nothing was lost or changed"


def elsewhere() -> str:
    """The end of a remedy that begins with another way."""
    return f"or give another folder as {named('DATA_DIR')}, and {named('run the cell again')}"


def check_disk(folder: Path, what: str, needed: int) -> None:
    """Print what comes and what is free; refuse what does not fit."""
    free = shutil.disk_usage(folder).free
    what += f"; {size_text(free)} are free on the disk of {folder.parent}"
    print(what)
    if needed > free:
        raise DownloadError(what, f"Make room, {elsewhere()}", what_is_kept(folder))


def unpack(archive: Path, tree: Path, keep: Callable[[str], bool]) -> None:
    """Unpack the members whose names are kept to the new folder `tree`. Raises BadZipFile or DownloadError.

    zipfile keeps every name inside the folder (it drops "..", drives and absolute paths), writes a link as a plain
    file, never writes more bytes than declared, and checks the CRC.
    """
    shutil.rmtree(tree, ignore_errors=True)
    tree.mkdir()
    current = archive.name
    try:
        with zipfile.ZipFile(archive) as opened:
            members = [m for m in opened.infolist() if keep(m.filename) and MARKER not in m.filename.split("/")]
            total, n_files = sum(member.file_size for member in members), sum(not member.is_dir() for member in members)
            if total > max(FREE_SIZE, MAX_RATIO * archive.stat().st_size):
                what = f"{archive} was not unpacked: it would become {size_text(total)}, {MAX_RATIO} times its size"
                raise DownloadError(what, "Get the data set from its own page", "Nothing of it was written")
            check_disk(tree.parent, f"{n_files} files, {size_text(total)} to unpack", total)
            for member in members:
                current = member.filename
                opened.extract(member, tree)
    except (DownloadError, MemoryError):
        raise
    except Exception as error:  # zipfile raises BadZipFile, EOFError, zlib.error, RuntimeError and more
        if isinstance(error, OSError) and error.errno != errno.EINVAL:
            raise
        raise zipfile.BadZipFile(f"{current}: {error}") from None
