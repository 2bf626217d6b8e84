"""Where pictures and masks lie in a folder, and which picture belongs to which mask: by their names."""

import os
from collections import Counter
from pathlib import Path
from typing import NamedTuple

from .annotations import Annotations
from .polygons import Drawing
from .report import Faults

IMAGE_FOLDERS = ("images", "JPEGImages")  # the second: as the PASCAL challenge has them, and CVAT exports them
MASK_FOLDERS = ("masks", "SegmentationClass")
SPLIT_FOLDERS = {"train": ("train",), "validation": ("val", "valid", "validation"), "test": ("test",)}
PICTURES = {
    ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga", ".tif",
    ".tiff", ".webp",
}  # fmt: skip
OTHERS = {".csv", ".db", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"}  # nobody takes them for pictures


class Item(NamedTuple):
    """A picture with its mask, or the outlines of one. split: "train", "validation" or "test" if its folder tells."""

    stem: str
    split: str | None
    image: Path
    mask: Path | Drawing

    @property
    def mask_path(self) -> Path:
        return self.mask.path if isinstance(self.mask, Drawing) else self.mask


class Found(NamedTuple):
    """items: in the order of their names. labels: those of outlines, where no list names classes; () without outlines.
    errors, warnings: about names and folders.
    """

    items: list[Item]
    labels: tuple[str, ...]
    errors: Faults
    warnings: Faults


def find_items(root: Path) -> Found:
    """All pairs of root/images/ and root/masks/, or of these in root/train/, root/val/ and root/test/.

    Masks may also be outlines, in JSON files beside the pictures, in masks/, annotations/ or above.
    Raises ValueError, naming the folder, if there are no such folders, or they can't be read.
    """
    if _first(root, IMAGE_FOLDERS):
        return find_in(root, {None: (_first(root, IMAGE_FOLDERS), _first(root, MASK_FOLDERS))})
    folders = {}
    for split, names in SPLIT_FOLDERS.items():
        folder = _first(root, names)
        if folder:  # without images/, the pictures are in the folder itself, as with COCO files
            folders[split] = _first(folder, IMAGE_FOLDERS) or folder, _first(folder, MASK_FOLDERS)
    if "train" not in folders:
        there = ", ".join(sorted(path.name for path in _list(root))[:10]) if os.path.isdir(root) else "no such folder"
        raise ValueError(
            f"{root}: found {there or 'nothing'}; expected images/ and masks/, or train/ and val/ with images/ and "
            "masks/ in each; make them, or give another DATA_DIR"
        )
    return find_in(root, folders)


def find_in(root: Path, folders: dict[str | None, tuple[Path, Path | None]]) -> Found:
    """All pairs of the given {split: (folder of pictures, folder of masks or None)} below root."""
    found = Found([], (), Faults(root), Faults(root))
    annotations = Annotations(root, found.errors)
    for split, (image_dir, mask_dir) in folders.items():
        images = _by_stem(image_dir, found, say_others=True)
        masks = _by_stem(mask_dir, found) if mask_dir else {}
        masks = masks or annotations.find(image_dir, mask_dir, images)
        if not masks and split == "test":
            found.warnings.add("there are no masks for its pictures; they are left out", image_dir)
        elif not images:
            found.errors.add("found no pictures in it; put them there", image_dir)
        elif not masks:
            where = "in it; put them there" if mask_dir else "beside it; put them into a folder masks/ there"
            sentence = f"found no masks, as picture files or as LabelMe or COCO JSON, {where}"
            found.errors.add(sentence, mask_dir or image_dir)
        else:
            found.items.extend(_pair(split, images, masks, found.errors))
    return found._replace(labels=annotations.classes())


def _first(folder: Path, names: tuple[str, ...]) -> Path | None:
    return next((folder / name for name in names if os.path.isdir(folder / name)), None)


def _list(folder: Path) -> list[Path]:
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        raise ValueError(f"{folder}: can't be read ({error.strerror}); check DATA_DIR, or make it readable") from None


def _by_stem(folder: Path, found: Found, say_others: bool = False) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in _list(folder):
        suffix = path.suffix.lower()
        if suffix in PICTURES:
            twin = files.setdefault(path.stem, path)
            if twin is not path:
                found.errors.add("two files have this stem; keep one of them in the folder", path, f"and {twin.name}")
        elif say_others and suffix not in OTHERS and os.path.isfile(path):
            found.warnings.add("it is no kind of picture that can be read; save it as PNG or JPEG, or move it", path)
    return files


def _pair(split: str | None, images: dict[str, Path], masks: dict, errors: Faults) -> list[Item]:
    """The pairs of pictures and masks whose stems are equal up to an ending that all have, such as `_mask`."""
    image_end, mask_end = _endings(images, masks)
    by_key = {stem.removesuffix(mask_end): stem for stem in masks if stem.endswith(mask_end)}
    items, paired = [], set()
    for stem in sorted(images):
        mask = by_key.get(stem.removesuffix(image_end)) if stem.endswith(image_end) else None
        if mask is None:
            errors.add("it has no mask; a mask has its picture's stem, or all have one ending behind it, such as "
                       "'_mask'; add the mask or move the picture away", images[stem])  # fmt: skip
        else:
            paired.add(mask)
            if masks[mask]:  # else its file is faulty, and named already
                items.append(Item(stem, split, images[stem], masks[mask]))
    for stem in sorted(masks.keys() - paired):
        path = masks[stem].path if isinstance(masks[stem], Drawing) else masks[stem]
        if path:
            errors.add("it has no picture of the same stem; add the picture or move the mask away", path)
    return items


def _endings(images: dict, masks: dict) -> tuple[str, str]:
    """What the stems of all pictures, and those of all masks, end in; mostly "" and "", "_mask", "_L" or the like."""
    votes = Counter({("", ""): len(images.keys() & masks.keys())})
    for mask in sorted(masks)[:3]:  # the first may be without a picture
        common = {stem: len(os.path.commonprefix([mask, stem])) for stem in images}
        nearest = sorted(images, key=lambda stem, common=common: (-common[stem], len(stem)))[:20]
        for ends in {(stem[common[stem] :], mask[common[stem] :]) for stem in nearest if common[stem]}:
            keys = {stem.removesuffix(ends[0]) for stem in images if stem.endswith(ends[0])}
            votes[ends] = len(keys & {stem.removesuffix(ends[1]) for stem in masks if stem.endswith(ends[1])})
    return max(votes, key=lambda ends: (votes[ends], -len(ends[0] + ends[1]), ends))
