"""What a download leaves alone: others' folders, links, ARCHIVE. An annex: nobody needs it to follow the lesson.

Each check raises DownloadError before anything is changed.
"""

import os
from pathlib import Path

from ..naming import named
from .unpack import DownloadError


def is_link(path: Path) -> bool:
    return path.is_symlink() or getattr(os.path, "isjunction", lambda _: False)(path)  # Windows, from Python 3.12 on


def refuse_foreign(dest: Path, whole: bool, slug: str) -> None:
    """Refuse a dest that this download of `slug` did not make; whole: whether its note says that it did."""
    if dest.exists() and not whole and (not dest.is_dir() or any(dest.iterdir())):
        raise DownloadError(
            f"{dest} exists and was not made by this download of {slug}.\n"
            f"Move it away or delete it, or give another folder as {named('DATA_DIR')}, and "
            f"{named('run the cell again')}.\nNothing in it was touched."
        )


def refuse_links(staging: Path) -> None:
    """Refuse links where the work lies: they would lead it to somebody's files."""
    inside = staging.iterdir() if staging.is_dir() and not is_link(staging) else ()
    for path in (staging, *inside):
        if is_link(path):
            raise DownloadError(
                f"{path} is a link, expected a {'file' if '.zip' in path.name else 'folder'} of this download's own.\n"
                f"Delete the link, or give another folder as {named('DATA_DIR')}, and {named('run the cell again')}.\n"
                "Nothing was changed, neither here nor where it leads."
            )


def check_archive(archive: Path, dest: Path, staging: Path, slug: str) -> None:
    """Refuse an ARCHIVE that is not there, or that lies where this run deletes."""
    if not archive.is_file():
        raise DownloadError(
            f"ARCHIVE: there is no file {archive}.\nGive the path of the zip from https://www.kaggle.com/datasets/{slug}."
            f" If the browser unpacked it, move the folder to {dest}.\nNothing was changed."
        )
    for folder in (dest, staging / "tree", staging / "old"):
        if archive.is_relative_to(folder):
            raise DownloadError(
                f"ARCHIVE: {archive} lies in {folder}, which this run replaces.\nMove it to another folder and give "
                "its new path.\nNothing was changed."
            )
