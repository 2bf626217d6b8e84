"""Which folders of a data set hold pictures, and which hold masks, of which split: by their names."""

import os
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..naming import named

IMAGE_FOLDERS = ("images", "JPEGImages")  # the second: as the PASCAL challenge has them, and CVAT exports them
MASK_FOLDERS = ("masks", "SegmentationClass")
# Where there are none of these. So may other things be called, too: masks are only looked for where no other folder
# could hold them.
MORE_IMAGE_FOLDERS = ("image", "imgs", "img")
MORE_MASK_FOLDERS = ("mask", "labels", "label", "annotations")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
MORE_SPLIT_FOLDERS = {"train": ("training",), "validation": (), "test": ("testing",)}
PICTURES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga",
    ".tif", ".tiff", ".webp",
}  # fmt: skip


class Place(NamedTuple):
    """images: folder of pictures. masks: that of their masks, None if there is none of the usual names. wanted: where
    masks are expected. beside: the folder in which masks may also have another name.
    """

    images: Path
    masks: Path | None
    wanted: Path | None = None
    beside: Path | None = None


def find_places(root: Path) -> dict[str | None, Place]:
    """{split, None where folders tell none: its place} below root; see data/README.md for the names.

    Raises ValueError, naming the folder, if there are no such folders, several could be meant, or they can't be read.
    """
    images = _find_exact(root, IMAGE_FOLDERS)
    splits = {} if images else _find_splits(root)
    if "train" in splits:
        return {split: _place_in(folder) for split, folder in splits.items()}
    images = images or _find(root, IMAGE_FOLDERS, MORE_IMAGE_FOLDERS)
    if not images:
        there = ", ".join(path.name for path in list_folder(root)[:10]) if os.path.isdir(root) else "no such folder"
        raise ValueError(
            f"{root}: found {there or 'nothing'}; expected images/ and masks/, or train/ and val/ with images/ and "
            f"masks/ in each; make them, or give another {named('DATA_DIR')}"
        )
    masks = _find(root, MASK_FOLDERS)
    splits = {} if has_pictures(images) else _find_splits(images)
    if "train" not in splits:
        return {None: Place(images, masks, root / MASK_FOLDERS[0], root)}
    masks = masks or _find_more_masks(root, images) or root / MASK_FOLDERS[0]
    inner = _find_splits(masks)
    return {split: Place(folder, inner.get(split), masks / folder.name) for split, folder in splits.items()}


def find_other_masks(place: Place) -> Path | None:
    """A folder of masks by another name than `MASK_FOLDERS`.

    Raises ValueError if more folders hold pictures, so that nobody can say which of them are the masks.
    """
    return _find_more_masks(place.beside, place.images) if place.beside else None


def list_folder(folder: Path) -> list[Path]:
    """What is in a folder, hidden files left out, sorted. Raises ValueError if it can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        todo = f"check {named('DATA_DIR')}, or make it readable"
        raise ValueError(f"{folder}: can't be read ({error.strerror}); {todo}") from None


def has_pictures(folder: Path) -> bool:
    """Whether pictures lie directly in a folder; False, too, if nobody can look."""
    try:
        return any(is_picture(path) and os.path.isfile(path) for path in folder.iterdir())
    except OSError:
        return False


def is_picture(path: Path) -> bool:
    """Whether a file's name is that of a picture, and not of a hidden file."""
    return path.suffix.lower() in PICTURES and not path.name.startswith(".")


def folders_in(folder: Path) -> list[Path]:
    return [path for path in list_folder(folder) if os.path.isdir(path)]


def _place_in(folder: Path) -> Place:
    """The place of a split's folder. Without images/, the pictures are in the folder itself, as with COCO files."""
    images = _find_exact(folder, IMAGE_FOLDERS)
    if not images and not has_pictures(folder):
        images = _find(folder, IMAGE_FOLDERS, MORE_IMAGE_FOLDERS)
    return Place(images or folder, _find(folder, MASK_FOLDERS), folder / MASK_FOLDERS[0], folder)


def _find_splits(folder: Path) -> dict[str, Path]:
    found = {split: _find(folder, names, MORE_SPLIT_FOLDERS[split]) for split, names in SPLIT_FOLDERS.items()}
    return {split: path for split, path in found.items() if path}


def _find_exact(folder: Path, names: Iterable[str]) -> Path | None:
    return next((folder / name for name in names if os.path.isdir(folder / name)), None)


def _find(folder: Path, names: tuple[str, ...], more_names: tuple[str, ...] = ()) -> Path | None:
    """The first of the names that is there as it is written, else the only one of all names in any case.

    Raises ValueError if there are several of these.
    """
    exact = _find_exact(folder, names)
    if exact or not os.path.isdir(folder):
        return exact
    wanted = {name.lower() for name in names + more_names}
    found = [path for path in folders_in(folder) if path.name.lower() in wanted]
    if found[1:]:
        _refuse(folder, found, names[0])
    return found[0] if found else None


def _find_more_masks(folder: Path, images: Path) -> Path | None:
    """The one folder beside that of the pictures which holds pictures, or has folders with some, if its name is one of
    `MORE_MASK_FOLDERS`."""
    others = [path for path in folders_in(folder) if path.name.lower() != images.name.lower()]
    found = [path for path in others if has_pictures(path) or any(map(has_pictures, _try_folders_in(path)))]
    named = [path for path in found if path.name.lower() in MORE_MASK_FOLDERS]
    if named and found[1:]:
        _refuse(folder, found, MASK_FOLDERS[0])
    return named[0] if named else None


def _try_folders_in(folder: Path) -> list[Path]:
    """`folders_in`; none if nobody can look."""
    try:
        return folders_in(folder)
    except ValueError:
        return []


def _refuse(folder: Path, found: list[Path], name: str) -> None:
    names = ", ".join(path.name for path in found)
    raise ValueError(f"{folder}: the folders {names} could all be {name}/; call the one that is meant {name}/")
