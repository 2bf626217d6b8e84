"""Kaggle -> a folder, whole or not at all. What can't be done ends in one DownloadError that says what to do next."""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ..naming import named
from ..storage import hold_lock
from .archives import MARKER, Damaged, DownloadError, elsewhere, is_web_page, unpack, what_is_kept
from .kaggle_client import browser_advice, fetch_zip, page_of

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook finds the data sets that are attached to it


def download_dataset(
    dest: str | Path, slug: str, *, archive: str | Path | None = None,
    keep: Callable[[str], bool] = lambda member: True, has_layout: Callable[[Path], bool] | None = None,
) -> Path:  # fmt: skip
    """Get Kaggle's data set `slug` ("owner/name") and return the folder that holds it.

    dest: folder to make. It appears when everything in it is checked; until then all files are in `<dest>.partial`, and
        the next call resumes there. A finished dest is returned without a request. While another process makes it, this
        one waits, and then returns it.
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
        if not _is_marked(dest, slug):
            if has_layout and not archive and (mounted := find_layout(KAGGLE_INPUT, has_layout, depth=5)):
                return mounted
            busy = f"another process is downloading to {dest}: waiting for it"
            with hold_lock(dest, lambda: print(busy, flush=True)):
                if not _is_marked(dest, slug):  # the other process may have made it
                    _make(dest, staging, slug, archive, keep, has_layout)
        elif staging.is_dir():  # a run was killed at its last step
            with hold_lock(dest):
                _remove_empty(staging)
    except OSError as error:
        what, todo = f"{error.strerror}: {error.filename or dest}", "Repair that"
        if error.errno in (errno.ENOSPC, errno.EDQUOT):
            what, todo = f"The disk of {dest} is full", "Make room"
        raise DownloadError(f"{what}.\n{todo}, {elsewhere()}.\n{what_is_kept(staging)}") from None
    check_whole(dest)
    return (has_layout and find_layout(dest, has_layout)) or dest


def check_whole(folder: Path) -> bool:
    """Whether a folder has the note of a finished download, and as many files as that says.

    False where there is no note, or one of an older version without a number. Raises DownloadError if files are gone.
    """
    found = re.search(r"(\d+) files", "".join(_read_note(folder)[1:]))
    if found and (there := _count(folder)) < (listed := int(found[1])):
        raise DownloadError(
            f"{folder}: {there} of the {listed} files of this finished download are there.\nMove it away or delete it, "
            f"and {named('run the cell again')}, or delete {MARKER} in it, to use what is there.\nNothing was changed."
        )
    return bool(found)


def _count(folder: Path) -> int:
    """How many files are in a folder, without the note."""
    return sum(name != MARKER for _, _, names in os.walk(folder) for name in names)


def find_layout(folder: Path, has_layout: Callable[[Path], bool], depth: int = 2) -> Path | None:
    """First folder for which has_layout is true: `folder` itself, else one at most `depth` levels below it."""
    level = [folder]
    for _ in range(depth + 1):
        children = []
        for candidate in level:
            with contextlib.suppress(PermissionError):  # an unreadable folder is skipped
                if has_layout(candidate):
                    return candidate
                children += sorted(child for child in candidate.glob("*") if child.is_dir())
        level = children
    return None


def _read_note(folder: Path) -> list[str]:
    """The lines of the note that a download writes last: the slug and how many files there are. [] if there is none."""
    return (folder / MARKER).read_text(encoding="utf-8").splitlines() if os.path.isfile(folder / MARKER) else []


def _is_marked(folder: Path, slug: str) -> bool:
    return _read_note(folder)[:1] == [slug]


def _make(dest: Path, staging: Path, slug: str, archive: Path | None, keep, has_layout) -> None:
    """All that is done while the lock of dest is held."""
    tree, zip_path = staging / "tree", staging / f"{slug.split('/')[1]}.zip"  # the name that the client gives it
    try:
        _protect_users_files(dest, staging, slug, archive)
        if not _is_marked(tree, slug):  # else the last run was killed at its last step
            staging.mkdir(parents=True, exist_ok=True)
            _fetch_and_unpack(tree, zip_path, slug, archive, keep)
            if has_layout and not find_layout(tree, has_layout):
                shutil.rmtree(tree, ignore_errors=True)
                raise DownloadError(
                    f"{archive or zip_path} does not hold the folders of {slug}.\nIf it is another file, "
                    f"{browser_advice(slug)}.\nNo folder was changed."
                )
            (tree / MARKER).write_text(f"{slug}\n{_count(tree)} files\n", encoding="utf-8")
        if archive != zip_path:
            _delete_zip(zip_path)  # before the last step: after that, no run would look for it
        if dest.exists():
            dest.rmdir()  # it is empty; Windows replaces no folder
        os.replace(tree, dest)
    except OSError:
        shutil.rmtree(tree, ignore_errors=True)
        raise
    finally:
        _remove_empty(staging)


def _fetch_and_unpack(tree: Path, zip_path: Path, slug: str, archive: Path | None, keep) -> None:
    """Download to zip_path if there is no archive, and unpack to tree. A damaged download is repeated once."""
    source = archive or zip_path
    for again in (False, True):
        try:
            if not archive:
                fetch_zip(slug, zip_path)
            return unpack(source, tree, keep)
        except Damaged as damage:
            shutil.rmtree(tree, ignore_errors=True)
            what, todo = f"is damaged: {damage}", "Download it again later"
            if web_page := source.is_file() and is_web_page(source):
                what = "is a web page: this network or Kaggle wants you to sign in"
                todo = f"Sign in with a browser, and {named('run the cell again')} with an API token of "
                todo += "https://www.kaggle.com/settings in KAGGLE_API_TOKEN"
            if not archive:
                _delete_zip(zip_path)
            if archive or again or web_page:  # another one would be the same
                raise DownloadError(
                    f"{archive or f'What came as the zip of {slug}'} {what}.\n{todo}, or {browser_advice(slug)}.\n"
                    f"{'It was not changed' if archive else 'The file is deleted'}; no folder was changed."
                ) from None
            print(f"{zip_path.name} is damaged ({damage}): downloading it once more")


def _delete_zip(zip_path: Path) -> None:
    """With the client's note on a half one."""
    for path in (zip_path, zip_path.with_name(f"{zip_path.name}.kaggle-partial")):
        path.unlink(missing_ok=True)


def _remove_empty(folder: Path) -> None:
    with contextlib.suppress(OSError):
        folder.rmdir()


def _is_link(path: Path) -> bool:
    return path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)  # Windows, from Python 3.12 on


def _protect_users_files(dest: Path, staging: Path, slug: str, archive: Path | None) -> None:
    """Refuse, before any change, what would touch files that this download did not make."""
    inside = staging.iterdir() if staging.is_dir() and not _is_link(staging) else ()
    for path in (staging, *inside):
        if _is_link(path):  # writing would follow it
            raise DownloadError(
                f"{path} is a link, expected a {'file' if '.zip' in path.name else 'folder'} of this download's own.\n"
                f"Delete the link, {elsewhere()}.\nNothing was changed, neither here nor where it leads."
            )
    if archive and not archive.is_file():
        raise DownloadError(
            f"ARCHIVE: there is no file {archive}.\nGive the path of the zip from {page_of(slug)}. If the browser "
            f"unpacked it, move the folder to {dest}.\nNothing was changed."
        )
    if archive and (archive.is_relative_to(dest) or archive.is_relative_to(staging / "tree")):
        raise DownloadError(
            f"ARCHIVE: {archive} is in a folder that is made anew.\nMove it elsewhere and give its new path.\n"
            "Nothing was changed."
        )
    if dest.exists() and (not dest.is_dir() or any(dest.iterdir())):  # without the note of this download
        raise DownloadError(
            f"{dest} exists and was not made by this download of {slug}.\nMove it away or delete it, {elsewhere()}.\n"
            "Nothing in it was touched."
        )
