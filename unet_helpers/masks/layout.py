"""The pairs of a folder: which picture belongs to which mask, and what is missing."""

import os
from collections.abc import Collection
from pathlib import Path
from typing import NamedTuple

from .annotations import Annotations
from .folders import Place, find_other_masks, find_places, has_pictures, is_picture, list_folder
from .lists import find_lists, list_names
from .pairing import match, normalize
from .polygons import Drawing
from .report import Faults

OTHERS = {".csv", ".db", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"}  # nobody takes them for pictures
MASK_END = "_mask"  # of masks that are in one folder with the pictures
MOST_NAMES = 4  # of what else is there, in a sentence; the rest is counted
NO_MASKS = "found no masks, as picture files or as LabelMe or COCO JSON"


class Item(NamedTuple):
    """A picture with its mask, or the outlines of one. split: "train", "validation" or "test" if its folder tells."""

    stem: str
    split: str | None
    image: Path
    mask: Path | Drawing

    @property
    def mask_path(self) -> Path:
        return _file(self.mask)


class Found(NamedTuple):
    """items: in the order of their names. labels: those of outlines, where no list names classes; () without outlines.
    errors, warnings: about names and folders.
    """

    items: list[Item]
    labels: tuple[str, ...]
    errors: Faults
    warnings: Faults


def find_items(root: Path) -> Found:
    """All pairs of root/images/ and root/masks/, of these in root/train/, root/val/ and root/test/, or of images/train/
    and masks/train/ and so on; `folders` knows more names.

    Masks may also be outlines, in JSON files beside the pictures, in masks/, annotations/ or above.
    Raises ValueError, naming the folder, if there are no such folders, or they can't be read.
    """
    places = find_places(root)
    lists = find_lists(root)[0] if None in places else {}
    return find_in(root, places, list_names(lists.values()) if lists else None)


def find_in(root: Path, places: dict[str | None, tuple], needed: Collection[str] | None = None) -> Found:
    """All pairs of the given {split: `Place`, or (folder of pictures, folder of masks)} below root.

    needed: stems of the pictures that need a mask; None: all do.
    """
    found = Found([], (), Faults(root), Faults(root))
    annotations = Annotations(root, {split: place[:2] for split, place in places.items()}, found.errors)
    for split, place in places.items():
        place = Place(*place)
        pictures = _read(place.images)
        images, masks = _find_masks(place, pictures.of, annotations, found.errors)
        if not masks and split == "test":
            found.warnings.add("there are no masks for its pictures; they are left out", place.images)
        elif not images:
            _say_no_pictures(place, pictures, found.errors)
        elif not masks:
            annotations.blame_unused(place.images)
            _say_no_masks(place, pictures, found.errors)
        else:
            _say_twins(pictures, found.errors)
            _say_others(place, pictures, found.warnings)
            found.items.extend(_pair(split, images, masks, needed, found))
    return found._replace(labels=annotations.classes())


class _Files(NamedTuple):
    """What is in a folder. of: {stem as it compares: picture}. twins: (picture, the one in `of` with the same stem).
    others: what is no picture by its name, and folders.
    """

    of: dict[str, Path]
    twins: list[tuple[Path, Path]]
    others: list[Path]


def _read(folder: Path) -> _Files:
    files = _Files({}, [], [])
    for path in list_folder(folder):
        if not is_picture(path):
            files.others.append(path)
        elif files.of.setdefault(normalize(path.stem), path) is not path:
            files.twins.append((path, files.of[normalize(path.stem)]))
    return files


def _find_masks(place: Place, images: dict[str, Path], annotations: Annotations, errors: Faults) -> tuple[dict, dict]:
    """(pictures, masks) by stem: masks in their folder, else outlines, else masks in a folder of another name, else
    those files among the pictures that end in `MASK_END`."""
    if place.masks and (masks := _read_masks(place.masks, errors)):
        return images, masks
    drawings = annotations.find(place.images, place.masks, {path.stem: path for path in images.values()})
    if drawings:
        return images, {normalize(stem): drawing for stem, drawing in drawings.items()}
    other = None if place.masks else find_other_masks(place)
    if other and (masks := _read_masks(other, errors)):
        return images, masks
    masks = {stem: path for stem, path in images.items() if stem.lower().endswith(MASK_END)}
    if place.masks or len(masks) == len(images):
        return images, {}
    return {stem: path for stem, path in images.items() if stem not in masks}, masks


def _read_masks(folder: Path, errors: Faults) -> dict[str, Path]:
    files = _read(folder)
    _say_twins(files, errors)
    return files.of


def _pair(
    split: str | None, images: dict[str, Path], masks: dict, needed: Collection[str] | None, found: Found
) -> list[Item]:
    mask_of, several = match(images, masks)
    items = []
    for stem, image in sorted(images.items()):
        if stem in several:
            names = _few([_file(masks[mask]).name for mask in several[stem] if masks[mask]])
            sentence = "several masks belong to it by their names; merge them into one, or keep one kind of masks only"
            found.errors.add(sentence, image, names)
        elif stem in mask_of:
            if masks[mask_of[stem]]:  # else its file is faulty, and named already
                items.append(Item(image.stem, split, image, masks[mask_of[stem]]))
        elif needed is None or stem in needed:
            sentence = "it has no mask; a mask has its picture's stem, or all have one beginning or ending more, such"
            found.errors.add(f"{sentence} as '_mask'; add the mask or move the picture away", image)
        else:
            found.warnings.add("it has no mask and is in none of the lists; it is left out", image)
    paired = {*mask_of.values(), *(mask for names in several.values() for mask in names)}
    for stem in sorted(masks.keys() - paired):
        if masks[stem]:
            sentence = "it has no picture of the same stem; add the picture or move the mask away"
            found.errors.add(sentence, _file(masks[stem]))
    return items


def _file(mask: Path | Drawing) -> Path:
    return mask.path if isinstance(mask, Drawing) else mask


def _few(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + f" and {len(names) - MOST_NAMES} more" * (len(names) > MOST_NAMES)


def _say_twins(files: _Files, errors: Faults) -> None:
    for path, twin in files.twins:
        errors.add("two files have this stem; keep one of them in the folder", path, f"and {twin.name}")


def _say_others(place: Place, pictures: _Files, warnings: Faults) -> None:
    for path in pictures.others:
        if os.path.isdir(path):
            if place.images != place.beside and has_pictures(path):
                warnings.add("it holds pictures, but folders among pictures are not looked at; move them up", path)
        elif path.suffix.lower() not in OTHERS:
            warnings.add("it is no kind of picture that can be read; save it as PNG or JPEG, or move it", path)


def _say_no_pictures(place: Place, pictures: _Files, errors: Faults) -> None:
    folders = [path.name for path in pictures.others if os.path.isdir(path)]
    files = [path.name for path in pictures.others if path.name not in folders and path.suffix.lower() not in OTHERS]
    if files:
        sentence = "found no picture that can be read; save these files as PNG or JPEG"
        errors.add(sentence, place.images, _few(files))
    elif folders:
        sentence = "found folders, but no pictures directly in it; expected pictures, or folders train/ and val/ with "
        errors.add(f"{sentence}pictures in each; move them", place.images, _few(folders))
    else:
        errors.add("found no pictures in it; put them there", place.images)


def _say_no_masks(place: Place, pictures: _Files, errors: Faults) -> None:
    wanted = place.wanted or place.masks
    name = wanted.relative_to(errors.root).as_posix() if wanted.is_relative_to(errors.root) else str(wanted)
    if pictures.twins:
        for path, twin in pictures.twins:
            sentence = "two files have this stem, and there are no masks; if one of each is the mask, move the masks to"
            errors.add(f"{sentence} {name}/", path, f"and {twin.name}")
    elif place.masks:
        errors.add(f"{NO_MASKS}, in it; put them there", place.masks, _few([p.name for p in list_folder(place.masks)]))
    elif wanted.parent == place.images.parent:
        errors.add(f"{NO_MASKS}, beside it; put them into a folder {wanted.name}/ there", place.images)
    else:
        errors.add(f"{NO_MASKS}, for its pictures; put them into a folder {name}/", place.images)
