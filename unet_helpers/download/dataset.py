"""Kaggle -> a folder, whole or not at all. An annex: nobody needs it to follow the lesson.

What can't be done ends in one DownloadError that says what to do next.
"""

import contextlib
import errno
import os
import re
import shutil
from collections.abc import Callable
from pathlib import Path

from ..naming import named
from ..storage import hold_lock
from .kaggle_client import fetch_zip
from .members import MARKER
from .refusals import check_archive, is_link, refuse_foreign, refuse_links
from .unpack import Damaged, DownloadError, is_web_page, unpack, what_is_kept

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook sees the data sets attached to it


def download_dataset(
    dest: str | Path, slug: str, *, archive: str | Path | None = None, force: bool = False,
    keep: Callable[[str], bool] = lambda member: True, has_layout: Callable[[Path], bool] | None = None,
) -> Path:  # fmt: skip
    """Get Kaggle's data set `slug` ("owner/name") and return the folder that holds it.

    dest: folder to make. It appears when everything in it is checked; until then the work lies in `<dest>.partial`, and
        the next call goes on there. A finished dest is returned without a request, unless force is True. While another
        process makes it, this one waits, and then finds it finished.
    archive: zip that you downloaded with a browser, used in place of the network; it stays where it is.
    keep: says for a member's name whether it is unpacked.
    has_layout: says whether a folder is the data set's top one; what is returned is the first such folder in dest, or
        below /kaggle/input where the data set is attached to a Kaggle notebook.
    Raises DownloadError. Credentials come from the environment, ~/.kaggle or Colab's secrets; without any, it is tried
    without.
    """
    dest = Path(dest).expanduser().resolve()
    staging = dest.with_name(f"{dest.name}.partial")
    archive = archive and Path(archive).expanduser().resolve()
    try:
        if force or not _is_marked(dest, slug):
            mounted = None if force or archive else _find_mounted(slug, has_layout)
            if mounted:
                return mounted
            busy = f"another process is downloading to {dest}: waiting for it"
            with hold_lock(dest, lambda: print(busy, flush=True)):
                _make(dest, staging, slug, archive, keep, has_layout, force)
        elif staging.is_dir() and not is_link(staging):  # a run was killed at its last step, or one with force works
            with hold_lock(dest) as alone:
                if alone:
                    _clean(staging)
    except OSError as error:
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DownloadError(
            f"{f'The disk of {dest} is full' if full else f'{error.strerror}: {error.filename or dest}'}.\n"
            f"{'Make room' if full else 'Repair that'}, or give a folder on another disk as {named('DATA_DIR')}, and "
            f"{named('run the cell again')}.\n{what_is_kept(staging)}"
        ) from None
    check_whole(dest)
    return (has_layout and find_layout(dest, has_layout)) or dest


def check_whole(folder: Path) -> bool:
    """Whether a folder has the mark of a finished download, and as many files as that lists.

    False where there is no mark: others put the files there; or one of an older version, which lists nothing.
    Raises DownloadError if files are gone.
    """
    mark = (folder / MARKER).read_text(encoding="utf-8") if os.path.isfile(folder / MARKER) else ""
    found = re.search(r"^(\d+) files$", mark, re.MULTILINE)
    if not found:
        return False
    there, listed = _count(folder), int(found[1])
    if there < listed:
        raise DownloadError(
            f"{folder}: {there} of the {listed} files of this finished download are there.\nMove the folder away or "
            f"delete it, and {named('run the cell again')}: it is downloaded anew. Or delete {MARKER} in it, to use "
            "what is there.\nNothing was changed."
        )
    return True


def _count(folder: Path) -> int:
    """How many files are in a folder, without the mark."""
    return sum(name != MARKER for _, _, names in os.walk(folder) for name in names)


def find_layout(folder: Path, has_layout: Callable[[Path], bool], depth: int = 2) -> Path | None:
    """First folder for which has_layout is true: `folder` itself, else one at most `depth` levels below it."""
    level = [folder]
    for _ in range(depth + 1):
        children = []
        for candidate in level:
            with contextlib.suppress(PermissionError):  # what may not be looked into holds nothing for us
                if has_layout(candidate):
                    return candidate
                if candidate.is_dir():
                    children += [child for child in sorted(candidate.iterdir()) if child.is_dir()]
        level = children
    return None


def _sidecar(zip_path: Path) -> Path:
    """Where the client notes what a half zip is the half of."""
    return zip_path.with_name(f"{zip_path.name}.kaggle-partial")


def _is_marked(folder: Path, slug: str) -> bool:
    """Whether a folder has the mark that this download of `slug` writes at last."""
    return (folder / MARKER).is_file() and (folder / MARKER).read_bytes().split(b"\n")[0] == slug.encode()


def _find_mounted(slug: str, has_layout) -> Path | None:
    if not os.path.isdir(KAGGLE_INPUT):  # False, too, where one may not look
        return None
    return find_layout(KAGGLE_INPUT, has_layout or (lambda folder: folder.name == slug.split("/")[1]), depth=5)


def _make(dest: Path, staging: Path, slug: str, archive: Path | None, keep, has_layout, force: bool) -> None:
    """All that is done while no other process works on dest."""
    zip_path = staging / f"{slug.split('/')[1]}.zip"  # the name that the client gives it
    try:
        refuse_links(staging)
        if not dest.exists() and _is_marked(staging / "tree", slug):  # the last call was ended at its last step
            _put_in_place(staging, zip_path, dest, archive)
        if force or not _is_marked(dest, slug):  # it may be: another process made it meanwhile
            refuse_foreign(dest, _is_marked(dest, slug), slug)
            if archive:
                check_archive(archive, dest, staging, slug)
            staging.mkdir(parents=True, exist_ok=True)
            if force and not archive and not _sidecar(zip_path).exists():
                zip_path.unlink(missing_ok=True)  # whole, so the client would not ask for it again
            _fill(staging / "tree", zip_path, slug, archive, keep, has_layout)
            _put_in_place(staging, zip_path, dest, archive)
        _clean(staging)
    except OSError:
        shutil.rmtree(staging / "tree", ignore_errors=True)
        raise
    finally:
        with contextlib.suppress(OSError):
            staging.rmdir()  # only if nothing was downloaded


def _put_in_place(staging: Path, zip_path: Path, dest: Path, archive: Path | None) -> None:
    if archive != zip_path:  # the tree is whole; nobody would look for the zip later
        zip_path.unlink(missing_ok=True)
        _sidecar(zip_path).unlink(missing_ok=True)
    if dest.exists():
        shutil.rmtree(staging / "old", ignore_errors=True)
        os.replace(dest, staging / "old")
    os.replace(staging / "tree", dest)


def _clean(staging: Path) -> None:
    """Delete what the work left, and nothing else: ARCHIVE may lie there."""
    for name in ("tree", "old"):
        shutil.rmtree(staging / name, ignore_errors=True)
    with contextlib.suppress(OSError):
        staging.rmdir()


def _fill(tree: Path, zip_path: Path, slug: str, archive: Path | None, keep, has_layout) -> None:
    """Download to zip_path if there is no archive, unpack to tree, and mark it. A damaged download is repeated once."""
    page = f"https://www.kaggle.com/datasets/{slug}"
    source = archive or zip_path
    for again in (False, True):
        try:
            if not archive:
                fetch_zip(slug, zip_path)
            unpack(source, tree, keep)
            break
        except Damaged as damage:
            shutil.rmtree(tree, ignore_errors=True)
            web_page = source.is_file() and is_web_page(source)
            if archive:
                what = "is a web page" if web_page else f"is no zip that can be unpacked: {damage}"
                raise DownloadError(
                    f"{archive} {what}.\n{'Sign in at' if web_page else 'Get it again from'} {page}"
                    f"{', download it again' if web_page else ''} and {named('give its path as ARCHIVE')}.\n"
                    "It was not changed, and nothing else was."
                ) from None
            zip_path.unlink(missing_ok=True)
            _sidecar(zip_path).unlink(missing_ok=True)
            if web_page:  # the next one would be the same
                raise DownloadError(
                    f"A web page came instead of the zip of {slug}: this network or Kaggle wants you to sign in.\n"
                    f"Open {page} in a browser, sign in where you are asked, and {named('run the cell again')} with an "
                    "API token of https://www.kaggle.com/settings in KAGGLE_API_TOKEN, or get the zip there and "
                    f"{named('give its path as ARCHIVE')}.\nThe page is deleted; no folder was changed."
                ) from None
            if again:
                raise DownloadError(
                    f"What Kaggle sent for {slug} was damaged twice: {damage}.\n"
                    f"Try again later, or get the zip from {page} with a browser and "
                    f"{named('give its path as ARCHIVE')}.\nThe damaged file is deleted; no folder was changed."
                ) from None
            print(f"{zip_path.name} is damaged ({damage}): downloading it once more")
    if has_layout and not find_layout(tree, has_layout):
        shutil.rmtree(tree, ignore_errors=True)
        raise DownloadError(
            f"{source} does not hold the folders that {slug} is known for.\nIs it the right file? Its page is {page}."
            "\nNo folder was changed."
        )
    (tree / MARKER).write_text(f"{slug}\n{_count(tree)} files\n", encoding="utf-8")
