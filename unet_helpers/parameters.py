"""What each of the notebook's parameters may be, and the sentence that says so."""

import math
import numbers
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .datasets import NAMES
from .model import check_image_size
from .naming import named, setting, shown

SIDE_STEP, LEAST_SIDE = 32, 64  # of IMAGE_SIZE: what all cells of the lesson work with, at half resolution, too
LEAST_FREE = 1 << 20  # bytes on a disk: with fewer, no training is saved
LONGEST_NAME, LONGEST_PATH = 255, 800  # bytes that each disk takes; a run's files add some to the path


class UnfitFolder(ValueError):
    """The parameter is right, but the disk is not as it has to be."""


def _is_whole(value, low: int, high: float = math.inf) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high


def _is_number(value, high: float = math.inf) -> bool:
    """A finite number above 0, up to high."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value <= high and value < math.inf


def _is_path(value) -> bool:
    """A path with names that disks take; its ~ or ~NAME is the home folder of somebody."""
    try:
        path = os.fsencode(Path(value).expanduser().absolute()) if str(value).strip() else b""
    except (TypeError, ValueError, RuntimeError, OSError):  # no path, no name that a disk takes, nobody of this name
        return False
    names = path.split(os.fsencode(os.sep))
    return b"\0" not in path and 0 < len(path) <= LONGEST_PATH and max(map(len, names)) <= LONGEST_NAME


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_stages(stages) -> bool:
    if not isinstance(stages, Sequence) or len(stages) > 100:
        return False
    try:
        shares, fractions = zip(*stages, strict=True)
    except (TypeError, ValueError):
        return False
    # At the end the pictures have the size that was asked for: less of it is another IMAGE_SIZE.
    return (
        all(_is_number(value, 1) for value in (*shares, *fractions))
        and [*shares] == sorted(set(shares)) and shares[-1] == fractions[-1] == 1
    )  # fmt: skip


def _is_size(value) -> bool:
    """Raises ValueError, which says more than the rule, if it is none."""
    return bool(check_image_size(named("IMAGE_SIZE"), value, SIDE_STEP, LEAST_SIDE))


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


def _whole(high: int, example: int, none: bool = True) -> tuple[Callable[[object], bool], str, int]:
    is_right = lambda value: (none and value is None) or _is_whole(value, 1, high)  # noqa: E731
    return is_right, f"{'None or ' * none}a whole number above 0, at most {high}", example


# Parameter: is it right, what is, an example. No real use reaches the highest numbers: beyond them the memory is full.
RULES: dict[str, tuple[Callable[[object], bool], str, object]] = {
    "DATASET": (lambda value: value in NAMES, f"one of {', '.join(map(repr, NAMES))}", "demo"),
    "DATA_DIR": (_is_path, "the path of a folder", "data"),
    "RUN_DIR": (_is_path, "the path of a folder", "runs"),
    "ARCHIVE": (_or_none(_is_path), "None or the path of a zip file", None),
    "SPLIT_BY": (
        _or_none(_is_pattern),
        "None or a regular expression whose group names the drive, patient or film in a file's name", None,
    ),
    "MINUTES": (lambda value: _is_number(value, 10**6), "a number above 0, at most 1000000", 4),
    "IMAGE_SIZE": (_or_none(_is_size), "None or (height, width)", (192, 256)),
    "SEED": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295", 0),
    "EPOCHS": _whole(10**5, 20),
    "N_FILTERS": _whole(256, 16),
    "HALF_RESOLUTION": (_or_none(lambda value: isinstance(value, bool)), "None, True or False", True),
    "BATCH_SIZE": _whole(4096, 8),
    "SIZE_STAGES": (
        _or_none(_are_stages),
        "None or (share of the epochs, fraction of the size) pairs, shares rising to 1, fractions up to 1, the last 1",
        ((0.5, 0.5), (1, 1)),
    ),
    "LEARNING_RATE": (lambda value: _is_number(value, 1), "a number above 0, at most 1", 0.02),
    "START_FROM": (_or_none(_is_path), 'None, "scratch", "demo" or the path of a .keras file', "demo"),
    "FREEZE_ENCODER": (lambda value: isinstance(value, bool), "True or False", False),
    "TRAIN_ANEW": (lambda value: isinstance(value, bool), "True or False", False),
    "FRAMES_PER_DRIVE": _whole(10**4, 20, none=False),
}  # fmt: skip


def check_parameters(values: dict[str, object]) -> None:
    """Raises ValueError that names the first parameter that no rule allows, what was found and what works; TypeError
    unless there is a value for each of RULES, and for nothing else.
    """
    if odd := sorted(values.keys() ^ RULES):
        raise TypeError(f"{', '.join(odd)}: missing or unknown; expected a value for each of {', '.join(RULES)}")
    for name, (is_right, expected, example) in RULES.items():
        if not is_right(values[name]):
            found = shown(values[name])
            raise ValueError(f"{named(name)}: found {found}, expected {expected}; try {setting(name, example)}")
    dataset = values["DATASET"]
    if values["SPLIT_BY"] is not None and dataset != "folder":
        todo = setting("SPLIT_BY", None)
        raise ValueError(f"{named('SPLIT_BY')}: {dataset!r} has splits of its own, so it takes no pattern; try {todo}")
    if values["ARCHIVE"] is not None and dataset not in ("lyft", "camvid"):
        raise ValueError(f"ARCHIVE: {dataset!r} is not downloaded, so it needs no zip; try ARCHIVE = None")


def checked_archive(value) -> Path | None:
    """The path with ~ expanded; raises ValueError if there is no such file."""
    if value is None:
        return None
    archive = Path(value).expanduser()
    if not archive.is_file():
        raise ValueError(f"ARCHIVE: there is no file {str(archive)!r}; give the path of the zip that you downloaded")
    return archive


def checked_folder(name: str, value, written: bool) -> Path:
    """The path with ~ expanded; if it is to be written, raises UnfitFolder unless a file can be made in it."""
    folder = Path(value).expanduser()
    # os.path's functions say no where Path's raise for a folder that may not be looked into.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise UnfitFolder(f"{named(name)}: {str(there)!r} is no folder; give the path of a folder")
    if written:
        try:
            # Asking for permissions does not tell of read-only disks, and a full one takes an empty file.
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(LEAST_FREE))
                file.flush()
        except OSError as error:
            raise UnfitFolder(
                f"{named(name)}: nothing can be written in {str(there)!r} ({os.strerror(error.errno or 0)}); give a "
                "folder where you may write"
            ) from None
    return folder
