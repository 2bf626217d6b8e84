"""Kaggle -> a folder, whole or not at all. What can't be done ends in one DownloadError that says what to do next."""

import contextlib
import os
import re
import shutil
import zipfile
from collections.abc import Callable
from pathlib import Path

from ..naming import named
from ..storage import hold_lock
from .archives import MARKER, DownloadError, elsewhere, unpack, what_is_kept
from .kaggle_client import PAGE, browser_advice, fetch_zip

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook finds the data sets that are attached to it


def download_dataset(
    dest: str | Path, slug: str, *, archive: str | Path | None = None,
    keep: Callable[[str], bool] = lambda member: True, has_layout: Callable[[Path], bool] | None = None,
) -> Path:  # fmt: skip
    """Get Kaggle's data set `slug` ("owner/name") and return the folder that holds it.

    dest: folder to make; until everything in it is checked, all files are in `<dest>.partial`, where the next call
        resumes. A finished dest is returned without a request, and one that another process makes is waited for.
    archive: zip that you downloaded with a browser, used in place of the network; it stays where it is.
    keep: whether the member of this name is unpacked.
    has_layout: whether a folder is the data set's top one; the first such folder in dest is returned, or the one below
        /kaggle/input where the data set is attached to a Kaggle notebook. None: dest is returned.
    Credentials are taken from the environment, ~/.kaggle or Colab's secrets, if there are any. Raises DownloadError.
    """
    dest = Path(dest).expanduser().resolve()
    staging = dest.with_name(f"{dest.name}.partial")
    archive = archive and Path(archive).expanduser().resolve()
    try:
        if _read_note(dest)[:1] != [slug]:
            if has_layout and not archive and (mounted := find_layout(KAGGLE_INPUT, has_layout, depth=5)):
                return mounted
            busy = f"another process is downloading to {dest}: waiting for it"
            with hold_lock(dest, lambda: print(busy, flush=True)):
                if _read_note(dest)[:1] != [slug]:  # the other process may have made it
                    _make(dest, staging, slug, archive, keep, has_layout)
    except OSError as error:
        what, todo = f"{error.strerror}: {error.filename or dest}", f"Make it writable, make room, {elsewhere()}"
        raise DownloadError(what, todo, what_is_kept(staging)) from None
    return (has_layout and find_layout(dest, has_layout)) or dest


def check_whole(folder: Path) -> None:
    """Raise DownloadError if a finished download has fewer files than its note says, if it says how many."""
    found = re.search(r"(\d+) files", "".join(_read_note(folder)[1:]))
    if found and (there := _count(folder)) < (listed := int(found[1])):
        what = f"{folder}: it holds only {there} of the {listed} files of its finished download"
        again = f"Move it away or delete it, and {named('run the cell again')}"
        raise DownloadError(what, f"{again}, or delete {MARKER} in it, to use what is there")


def _count(folder: Path) -> int:
    return sum(name != MARKER for _, _, names in os.walk(folder) for name in names)


def find_layout(folder: Path, has_layout: Callable[[Path], bool], depth: int = 2) -> Path | None:
    """First folder for which has_layout is true: `folder` itself, else one at most `depth` levels below it."""
    for level in range(depth + 1):
        for candidate in sorted(folder.glob("*/" * level)) if level else [folder]:
            with contextlib.suppress(PermissionError):  # an unreadable folder is skipped
                if has_layout(candidate):
                    return candidate
    return None


def _read_note(folder: Path) -> list[str]:
    """The lines of the note that a download writes last: the slug and how many files there are. [] if there is none."""
    return (folder / MARKER).read_text(encoding="utf-8").splitlines() if os.path.isfile(folder / MARKER) else []


def _make(dest: Path, staging: Path, slug: str, archive: Path | None, keep, has_layout) -> None:
    """All that is done while the lock of dest is held."""
    tree, zip_path = staging / "tree", staging / f"{slug.split('/')[1]}.zip"  # the name that the client gives it
    _protect_users_files(dest, (staging, tree, zip_path), slug, archive)
    try:
        staging.mkdir(parents=True, exist_ok=True)
        if not archive:
            fetch_zip(slug, zip_path)
        unpack(archive or zip_path, tree, keep)
        if has_layout and not find_layout(tree, has_layout):
            what = f"{archive or zip_path} does not hold the folders of {slug}"
            raise DownloadError(what, f"If it is another file, {browser_advice(slug)}")
        (tree / MARKER).write_text(f"{slug}\n{_count(tree)} files\n", encoding="utf-8")
        if dest.exists():
            dest.rmdir()  # it is empty; Windows replaces no folder
        os.replace(tree, dest)
        _delete_zip(zip_path)
    except zipfile.BadZipFile as damage:
        todo, kept = "Download it again later", "It was not changed"
        if not archive:
            todo, kept = f"{named('run the cell again').capitalize()} to download it anew", "It is deleted"
            _delete_zip(zip_path)
        what, kept = f"{archive or zip_path} is damaged: {damage}", f"{kept}; no folder was changed"
        raise DownloadError(what, f"{todo}, or {browser_advice(slug)}", kept) from None
    finally:
        shutil.rmtree(tree, ignore_errors=True)
        with contextlib.suppress(OSError):  # a half zip is kept
            staging.rmdir()


def _delete_zip(zip_path: Path) -> None:
    """With the client's note on a half one."""
    for path in (zip_path, zip_path.with_name(f"{zip_path.name}.kaggle-partial")):
        path.unlink(missing_ok=True)


def _protect_users_files(dest: Path, ours: tuple[Path, ...], slug: str, archive: Path | None) -> None:
    """Refuse, before any change, what would touch files that this download did not make. ours: what it writes to."""
    if links := [path for path in ours if path.is_symlink()]:  # writing would follow it
        raise DownloadError(f"{links[0]} is a link", f"Delete the link, {elsewhere()}")
    if archive and not archive.is_file():
        todo = f"Give the path of the zip from {PAGE}{slug}. If the browser unpacked it, move the folder to {dest}"
        raise DownloadError(f"ARCHIVE: there is no file {archive}", todo)
    if archive and (archive.is_relative_to(dest) or archive.is_relative_to(ours[0])):
        todo = "Move it elsewhere and give its new path"
        raise DownloadError(f"ARCHIVE: {archive} is in a folder that is made anew", todo)
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):  # without the note of this download
        what = f"{dest} exists and was not made by this download of {slug}"
        raise DownloadError(what, f"Move it away or delete it, {elsewhere()}")
