"""Kaggle -> a folder, whole or not at all. An annex: nobody needs it to follow the lesson.

What can't be done ends in one DownloadError that says what to do next.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Callable
from pathlib import Path

from .kaggle_client import fetch_zip
from .unpack import Damaged, DownloadError, unpack, what_is_kept

KAGGLE_INPUT = Path("/kaggle/input")  # where a Kaggle notebook sees the data sets attached to it
MARKER = ".download_complete"  # written last: a folder with it is whole


def download_dataset(
    dest: str | Path, slug: str, *, archive: str | Path | None = None, force: bool = False,
    keep: Callable[[str], bool] = lambda member: True, has_layout: Callable[[Path], bool] | None = None,
) -> Path:  # fmt: skip
    """Get Kaggle's data set `slug` ("owner/name") and return the folder that holds it.

    dest: folder to make. It appears when everything in it is checked; until then the work lies in `<dest>.partial`, and
        the next call goes on there. A finished dest is returned without a request, unless force is True.
    archive: zip that you downloaded with a browser, used in place of the network; it stays where it is.
    keep: says for a member's name whether it is unpacked.
    has_layout: says whether a folder is the data set's top one; what is returned is the first such folder in dest, or
        below /kaggle/input where the data set is attached to a Kaggle notebook.
    Raises DownloadError. Credentials come from the environment, ~/.kaggle or Colab's secrets; without any, it is tried
    without.
    """
    dest = Path(dest).expanduser().resolve()
    staging = dest.with_name(f"{dest.name}.partial")
    try:
        if _is_whole(staging / "tree", slug) and not dest.exists():  # the last call was ended at its last step
            _put_in_place(staging, dest)
        if force or not _is_whole(dest, slug):
            mounted = None if force or archive else _find_mounted(slug, has_layout)
            if mounted:
                return mounted
            _refuse_foreign(dest, slug)
            staging.mkdir(parents=True, exist_ok=True)
            for zip_path in staging.glob("*.zip") if force else ():
                if not _sidecar(zip_path).exists():  # whole, so the client would not ask for it again
                    zip_path.unlink()
            _fill(staging / "tree", slug, archive and Path(archive).expanduser(), keep, has_layout)
            _put_in_place(staging, dest)
        shutil.rmtree(staging, ignore_errors=True)
    except OSError as error:
        shutil.rmtree(staging / "tree", ignore_errors=True)
        full = error.errno in (errno.ENOSPC, errno.EDQUOT)
        raise DownloadError(
            f"{f'The disk of {dest} is full' if full else f'{error.strerror}: {error.filename or dest}'}.\n"
            f"{'Make room' if full else 'Repair that'}, or give a folder on another disk as DATA_DIR, and run the cell "
            f"again.\n{what_is_kept(staging)}"
        ) from None
    finally:
        with contextlib.suppress(OSError):
            staging.rmdir()  # only if nothing was downloaded
    return (has_layout and find_layout(dest, has_layout)) or dest


def find_layout(folder: Path, has_layout: Callable[[Path], bool], depth: int = 2) -> Path | None:
    """First folder for which has_layout is true: `folder` itself, else one at most `depth` levels below it."""
    level = [folder]
    for _ in range(depth + 1):
        for candidate in level:
            if has_layout(candidate):
                return candidate
        level = [child for parent in level if parent.is_dir() for child in sorted(parent.iterdir()) if child.is_dir()]
    return None


def _sidecar(zip_path: Path) -> Path:
    """Where the client notes what a half zip is the half of."""
    return zip_path.with_name(f"{zip_path.name}.kaggle-partial")


def _is_whole(folder: Path, slug: str) -> bool:
    return (folder / MARKER).is_file() and (folder / MARKER).read_bytes() == slug.encode()


def _find_mounted(slug: str, has_layout) -> Path | None:
    if not KAGGLE_INPUT.is_dir():
        return None
    return find_layout(KAGGLE_INPUT, has_layout or (lambda folder: folder.name == slug.split("/")[1]), depth=5)


def _refuse_foreign(dest: Path, slug: str) -> None:
    if dest.exists() and not _is_whole(dest, slug) and (not dest.is_dir() or any(dest.iterdir())):
        raise DownloadError(
            f"{dest} exists and was not made by this download of {slug}.\n"
            "Move it away or delete it, or give another folder as DATA_DIR, and run the cell again.\n"
            "Nothing in it was touched."
        )


def _put_in_place(staging: Path, dest: Path) -> None:
    for archive in staging.glob("*.zip*"):  # the tree is whole; nobody would look for the zip later
        archive.unlink()
    if dest.exists():
        shutil.rmtree(staging / "old", ignore_errors=True)
        os.replace(dest, staging / "old")
    os.replace(staging / "tree", dest)


def _fill(tree: Path, slug: str, archive: Path | None, keep, has_layout) -> None:
    """Download if there is no archive, unpack to tree, and mark it. A damaged download is repeated once."""
    page = f"https://www.kaggle.com/datasets/{slug}"
    if archive and not archive.is_file():
        raise DownloadError(
            f"ARCHIVE: there is no file {archive}.\nGive the path of the zip from {page}. If the browser unpacked it, "
            f"move the folder to {str(tree.parent).removesuffix('.partial')}.\nNothing was changed."
        )
    for again in (False, True):
        zip_path = archive or tree.parent / f"{slug.split('/')[1]}.zip"
        try:
            if not archive:
                fetch_zip(slug, zip_path)
            unpack(zip_path, tree, keep)
            break
        except Damaged as damage:
            shutil.rmtree(tree, ignore_errors=True)
            if archive:
                raise DownloadError(
                    f"{archive} is no zip that can be unpacked: {damage}.\nGet it again from {page} and give its path "
                    "as ARCHIVE.\nIt was not changed, and nothing else was."
                ) from None
            zip_path.unlink(missing_ok=True)
            _sidecar(zip_path).unlink(missing_ok=True)
            if again:
                raise DownloadError(
                    f"What Kaggle sent for {slug} was damaged twice: {damage}.\n"
                    f"Try again later, or get the zip from {page} with a browser and give its path as ARCHIVE.\n"
                    "The damaged file is deleted; no folder was changed."
                ) from None
            print(f"{zip_path.name} is damaged ({damage}): downloading it once more")
    if has_layout and not find_layout(tree, has_layout):
        shutil.rmtree(tree, ignore_errors=True)
        raise DownloadError(
            f"{zip_path} does not hold the folders that {slug} is known for.\nIs it the right file? Its page is {page}."
            "\nNo folder was changed."
        )
    (tree / MARKER).write_text(slug, encoding="utf-8")
