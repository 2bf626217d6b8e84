"""What each of the notebook's parameters may be, and the sentence that says so."""

import math
import numbers
import os
import re
import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from .datasets import NAMES


def _is_whole(value, low: int, high: float = math.inf) -> bool:
    return isinstance(value, numbers.Integral) and not isinstance(value, bool) and low <= value <= high


def _is_number(value, high: float = math.inf) -> bool:
    """A finite number above 0, up to high."""
    return isinstance(value, numbers.Real) and not isinstance(value, bool) and 0 < value <= high and value < math.inf


def _is_path(value) -> bool:
    return isinstance(value, (str, Path)) and bool(str(value).strip())


def _is_pattern(value) -> bool:
    try:
        return isinstance(value, str) and bool(value) and bool(re.compile(value))
    except (re.error, RecursionError, OverflowError):
        return False


def _are_stages(stages) -> bool:
    try:
        shares = [share for share, _ in stages]
        return (
            all(_is_number(share, 1) and _is_number(fraction, 1) for share, fraction in stages)
            and shares == sorted(set(shares)) and shares[-1:] == [1]
        )  # fmt: skip
    except (TypeError, ValueError):
        return False


def _is_size(value) -> bool:
    return isinstance(value, Sequence) and len(value) == 2 and all(_is_whole(side, 1) for side in value)


def _or_none(is_right: Callable[[object], bool]) -> Callable[[object], bool]:
    return lambda value: value is None or is_right(value)


RULES: dict[str, tuple[Callable[[object], bool], str, object]] = {  # parameter: is it right, what is, an example
    "DATASET": (lambda value: value in NAMES, f"one of {', '.join(map(repr, NAMES))}", "demo"),
    "DATA_DIR": (_is_path, "the path of a folder", "data"),
    "RUN_DIR": (_is_path, "the path of a folder", "runs"),
    "ARCHIVE": (_or_none(_is_path), "None or the path of a zip file", None),
    "SPLIT_BY": (
        _or_none(_is_pattern),
        "None or a regular expression whose group names the drive, patient or film in a file's name", None,
    ),
    "MINUTES": (_is_number, "a number above 0", 4),
    "IMAGE_SIZE": (_or_none(_is_size), "None or (height, width), two whole numbers above 0", (192, 256)),
    "SEED": (lambda value: _is_whole(value, 0, 2**32 - 1), "a whole number from 0 to 4294967295", 0),
    "EPOCHS": (_or_none(lambda value: _is_whole(value, 1)), "None or a whole number above 0", 20),
    "N_FILTERS": (_or_none(lambda value: _is_whole(value, 1)), "None or a whole number above 0", 16),
    "HALF_RESOLUTION": (_or_none(lambda value: isinstance(value, bool)), "None, True or False", True),
    "BATCH_SIZE": (_or_none(lambda value: _is_whole(value, 1)), "None or a whole number above 0", 8),
    "SIZE_STAGES": (
        _or_none(_are_stages),
        "None or (share of the epochs, fraction of the size) pairs, shares rising to 1, fractions up to 1",
        ((0.5, 0.5), (1, 1)),
    ),
    "LEARNING_RATE": (lambda value: _is_number(value, 1), "a number above 0, at most 1", 0.02),
    "START_FROM": (_or_none(_is_path), 'None, "scratch", "demo" or the path of a .keras file', "demo"),
    "FREEZE_ENCODER": (lambda value: isinstance(value, bool), "True or False", False),
    "TRAIN_ANEW": (lambda value: isinstance(value, bool), "True or False", False),
    "FRAMES_PER_DRIVE": (lambda value: _is_whole(value, 1), "a whole number above 0", 20),
}  # fmt: skip


def check_parameters(values: dict[str, object]) -> None:
    """Raises ValueError that names the first parameter that no rule allows, what was found and what works."""
    for name, (is_right, expected, example) in RULES.items():
        if not is_right(values[name]):
            raise ValueError(f"{name}: found {values[name]!r}, expected {expected}; try {name} = {example!r}")
    dataset = values["DATASET"]
    if values["SPLIT_BY"] is not None and dataset != "folder":
        raise ValueError(f"SPLIT_BY: {dataset!r} has splits of its own, so it takes no pattern; try SPLIT_BY = None")
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
    """The path with ~ expanded; if it is to be written, raises ValueError unless a file can be made in it."""
    folder = Path(value).expanduser()
    # os.path's functions say no where Path's raise for a folder that may not be looked into.
    there = next(path for path in (folder, *folder.absolute().parents) if os.path.lexists(path))
    if not os.path.isdir(there):
        raise ValueError(f"{name}: {str(there)!r} is no folder; give the path of a folder")
    if written:
        try:
            # Asking for permissions does not tell of read-only disks, and a full one takes an empty file.
            with tempfile.TemporaryFile(dir=there) as file:
                file.write(bytes(1 << 16))
                file.flush()
        except OSError as error:
            raise ValueError(
                f"{name}: nothing can be written in {str(there)!r} ({os.strerror(error.errno or 0)}); give a folder "
                "where you may write"
            ) from None
    return folder
