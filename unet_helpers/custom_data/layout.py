"""The pairs of a folder: where its images and masks lie, and what is missing."""

import os
from collections.abc import Collection, Iterable, Iterator
from pathlib import Path, PurePath
from typing import NamedTuple

from ..naming import named
from .annotations import Annotations, Outlines
from .class_lists import read_text
from .matching import match, normalize
from .report import Problems

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


OTHERS = {".csv", ".db", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"}  # nobody takes them for pictures
MASK_END = "_mask"  # of masks that are in one folder with the pictures
MOST_NAMES = 4  # of what else is there, in a sentence; the rest is counted
NO_MASKS = "found no masks, as picture files or as LabelMe or COCO JSON"


class Item(NamedTuple):
    """A picture with its mask, or the outlines of one. split: "train", "validation" or "test" if its folder tells."""

    stem: str
    split: str | None
    image: Path
    mask: Path | Outlines

    @property
    def mask_path(self) -> Path:
        return _file(self.mask)


class Found(NamedTuple):
    """items: in the order of their names. labels: those of outlines, where no list names classes; () without outlines.
    errors, warnings: about names and folders.
    """

    items: list[Item]
    labels: tuple[str, ...]
    errors: Problems
    warnings: Problems


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
    found = Found([], (), Problems(root), Problems(root))
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


def _find_masks(place: Place, images: dict[str, Path], annotations: Annotations, errors: Problems) -> tuple[dict, dict]:
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


def _read_masks(folder: Path, errors: Problems) -> dict[str, Path]:
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


def _file(mask: Path | Outlines) -> Path:
    return mask.path if isinstance(mask, Outlines) else mask


def _few(names: list[str]) -> str:
    return ", ".join(names[:MOST_NAMES]) + f" and {len(names) - MOST_NAMES} more" * (len(names) > MOST_NAMES)


def _say_twins(files: _Files, errors: Problems) -> None:
    for path, twin in files.twins:
        errors.add("two files have this stem; keep one of them in the folder", path, f"and {twin.name}")


def _say_others(place: Place, pictures: _Files, warnings: Problems) -> None:
    for path in pictures.others:
        if os.path.isdir(path):
            if place.images != place.beside and has_pictures(path):
                warnings.add("it holds pictures, but folders among pictures are not looked at; move them up", path)
        elif path.suffix.lower() not in OTHERS:
            warnings.add("it is no kind of picture that can be read; save it as PNG or JPEG, or move it", path)


def _say_no_pictures(place: Place, pictures: _Files, errors: Problems) -> None:
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


def _say_no_masks(place: Place, pictures: _Files, errors: Problems) -> None:
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
