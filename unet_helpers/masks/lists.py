"""Lists of the names that train, validate and test: train.txt, val.txt and, if there is one, test.txt."""

import os
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePath

from .classes import read_text
from .folders import SPLIT_FOLDERS
from .pairing import normalize

LIST_FOLDERS = (".", "ImageSets/Segmentation")  # the second: as the PASCAL challenge has it, and CVAT exports it


def find_lists(root: Path) -> tuple[dict[str, Path], list[Path]]:
    """{split: its file}, if there is one for training and one to validate; and the files that lack the other one."""
    lone: list[Path] = []
    for folder in LIST_FOLDERS:
        paths = {split: [root / folder / f"{name}.txt" for name in names] for split, names in SPLIT_FOLDERS.items()}
        files = {split: next(filter(os.path.isfile, there), None) for split, there in paths.items()}
        if files["train"] and files["validation"]:
            return {split: path for split, path in files.items() if path}, lone
        lone += filter(None, files.values())
    return {}, lone


def read_list(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(number of the line, the line, all names that it may mean) of each line of a list. Raises ValueError if it is no
    text."""
    for number, line in enumerate(read_text(path).split("\n"), 1):
        if line.strip():
            yield number, line.strip(), _names(normalize(line.strip()))


def list_names(paths: Iterable[Path]) -> set[str]:
    """All names that the lists may mean."""
    return {name for path in paths for _, _, names in read_list(path) for name in names}


def _names(line: str) -> list[str]:
    """What a line of a list may mean: a stem, a file's name or path, or this and then that of its mask."""
    first = line.split()[0]
    return [line, PurePath(line).name, PurePath(line).stem, PurePath(first).name, PurePath(first).stem]
