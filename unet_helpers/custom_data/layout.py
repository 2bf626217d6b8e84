"""The pairs of a folder: where its images and masks are, what is missing, and which pairs train, validate and test."""

import os
import re
from collections.abc import Collection, Iterator, Sequence
from itertools import accumulate
from pathlib import Path, PurePath
from typing import NamedTuple

from ..labels import SPLITS
from ..naming import counted, named
from .annotations import Annotations, Outlines
from .class_lists import read_text
from .matching import SPLIT_NAMES, match, normalize
from .report import MOST, Problems, few

# Names of folders, in any case of letters; the first one is taken before the others.
IMAGE_FOLDERS = ("images", "jpegimages", "image", "imgs", "img", "imagestr")  # the second: of PASCAL and CVAT
MASK_FOLDERS = ("masks", "segmentationclass", "masks_machine", "labelstr")  # the last two: of Supervisely, nnU-Net
OTHER_MASK_FOLDERS = ("mask", "labels", "label", "annotations")  # only where no other folder could hold the masks
LIST_FOLDERS = (".", "ImageSets/Segmentation")  # of train.txt; the second: of the PASCAL challenge and CVAT
READABLE_SUFFIXES = {
    ".avif", ".bmp", ".gif", ".jfif", ".jpe", ".jpeg", ".jpg", ".jp2", ".pbm", ".pgm", ".png", ".pnm", ".ppm", ".tga",
    ".tif", ".tiff", ".webp",
}  # fmt: skip
TEXT_SUFFIXES = {".csv", ".db", ".ini", ".json", ".md", ".txt", ".xml", ".yaml", ".yml"}  # may lie among images
MIN_PAIRS = 4  # a network learns nothing from fewer, and one of them must validate
MASK_END = "_mask"  # of masks that are in one folder with the images
# Of other tools: name; patterns that all find something below the folder; the step, or tool, that makes it readable.
FORMATS = [
    ("Cityscapes", ("leftImg8bit/*/*/*_leftImg8bit.png", "gtFine/*/*/*_gtFine_*.png"),
     "copy leftImg8bit/train/*/*.png to train/images/, gtFine/train/*/*_labelIds.png to train/masks/, val/ alike; "
     "for the usual 19 classes take *_labelTrainIds.png, which csCreateTrainIdLabelImgs makes (pip install "
     "cityscapesscripts)"),
    ("Label Studio's PNG per label", ("**/task-*-annotation-*-tag-*.png",),
     "export it as COCO if it has polygons; else merge the PNGs of each task into one mask: the recipe 'A PNG per "
     "label' in data/README.md"),
    ("Supervisely", ("**/meta.json", "**/ann/*.json"),
     "run Supervisely's app 'Export as masks' and give the folder that holds img/ and masks_machine/"),
    ("nnU-Net with volumes", ("imagesTr/*.nii*",),
     "write the slices as PNG files of the same names to images/ and masks/, with nibabel and Pillow"),
    ("YOLO", ("**/labels/**/*.txt",),
     "turn its polygons into COCO's JSON with supervision (pip install supervision): sv.DetectionDataset.from_yolo("
     "images, labels, 'data.yaml', force_masks=True).as_coco(annotations_path='annotations.json'); boxes alone are "
     "no masks"),
]  # fmt: skip


class Item(NamedTuple):
    stem: str
    split: str | None  # "train", "validation" or "test" if its folder tells
    image: Path
    mask: Path | Outlines

    @property
    def mask_path(self) -> Path:
        return self.mask.path if isinstance(self.mask, Outlines) else self.mask

    @property
    def files(self) -> tuple[Path, Path]:
        return self.image, self.mask_path


class Found(NamedTuple):
    items: list[Item]  # in the order of their names
    lonely: list[Item]  # files without a good partner, in the places of both; all are among the errors
    labels: tuple[str, ...]  # those of outlines, for where no list names classes; () without outlines
    lists: dict[str, Path]  # {split: a list of names}, if there is one for training and one to validate
    errors: Problems  # of names and folders
    warnings: Problems


def find_root(folder: Path) -> Path:
    """The folder VOC2012 or the like, of the PASCAL challenge, in this folder or its VOCdevkit/; else the folder."""
    found = [path.parent for where in ("", "VOCdevkit/") for path in folder.glob(f"{where}VOC20??/JPEGImages")]
    return found[0] if len(found) == 1 else folder


def find_items(root: Path) -> Found:
    """All pairs below root, in the folders that data/README.md names. Raises ValueError, naming the folder, if there
    are none, several could be meant, they can't be read, or they are in one of `FORMATS`."""
    try:
        found = _find_items(root)
    except ValueError:
        if known := _recognise(root):
            raise ValueError(f"{root}: {known}") from None
        raise
    if not found.items and (known := _recognise(root)):
        raise ValueError(f"{root}: {known}")
    return found


def _recognise(root: Path) -> str:
    """ "this is YOLO; turn its ..." of a folder in a format that is not read; "" if none is known."""
    for name, signs, todo in FORMATS:
        if all(any(root.glob(sign)) for sign in signs):
            return f"this is {name}; {todo}"
    return ""


def _find_items(root: Path) -> Found:
    places = find_places(root)
    lists = _find_lists(root) if None in places else {}
    if lists.keys() >= {"train", "validation"}:
        listed = {name for path in lists.values() for _, _, names in read_list(path) for name in names}
        return find_in(root, places, listed)._replace(lists=lists)
    found = find_in(root, places)
    for path in lists.values():
        found.warnings.add("it is not used: lists need one for training, train.txt, and one to validate, val.txt", path)
    return found


def find_in(root: Path, places: dict[str | None, tuple[Path, Path]], needed: Collection[str] | None = None) -> Found:
    """All pairs of the given {split: (folder of images, folder of masks)} below root.
    needed: stems of the images that need a mask; None: all do."""
    found = Found([], [], (), {}, Problems(root), Problems(root))
    folders = {split: (*place, _read(place[0], found.errors)) for split, place in places.items()}
    annotations = Annotations(root, folders, found.errors)
    for split, (image_dir, mask_dir, images) in folders.items():
        images, masks = _find_masks(split, mask_dir, images, annotations)
        others = [path for path in list_folder(image_dir) if not is_image(path)]
        if not masks and split == "test":
            found.warnings.add("there are no masks for its images; they are left out", image_dir)
        elif not images:
            sentence = "found no image that can be read; expected PNG or JPEG files, or folders train/ and val/ of them"
            found.errors.add(sentence, image_dir, few([path.name for path in others], MOST))
        elif not masks:
            there = dict.fromkeys([*annotations.list_files(split), *sorted(mask_dir.glob("[!.]*"))])
            place = PurePath(os.path.relpath(mask_dir, root)).as_posix()
            sentence = f"found no masks for its images, expected image files or LabelMe's JSON in {place}/, or COCO's "
            sentence += "JSON with polygons, not named after another split; put them there"
            found.errors.add(sentence, image_dir, few([path.name for path in there], MOST))
        else:
            for path in others:
                is_used = path == mask_dir or path.suffix.lower() in TEXT_SUFFIXES
                if not is_used and (has_images(path) or not os.path.isdir(path)):
                    found.warnings.add("it is not read; save it as PNG or JPEG, or move the images in it up", path)
            _pair(split, images, masks, needed, found)
    return found._replace(labels=annotations.classes())


def find_places(root: Path) -> dict[str | None, tuple[Path, Path]]:
    """{split or None: (folder of images, of masks, which may be missing)} below root. Raises ValueError."""
    images = _find(root, IMAGE_FOLDERS)
    splits = {} if images and has_images(images) else _find_splits(images or root)
    if images:
        masks = _find_masks_beside(root, images)
        if not splits:
            return {None: (images, masks)}
        inner = _find_splits(masks)
        return {split: (folder, inner.get(split, masks / folder.name)) for split, folder in splits.items()}
    if splits:  # without images/, the images are in the split's folder itself, as with COCO files
        found = {split: (folder, _find(folder, IMAGE_FOLDERS) or folder) for split, folder in splits.items()}
        return {split: (images, _find_masks_beside(folder, images)) for split, (folder, images) in found.items()}
    signs = ("*.[jJ][sS][oO][nN]", f"*{MASK_END}.*", "masks/*")  # LabelMe writes beside the images
    if has_images(root) and any(any(root.glob(sign)) for sign in signs):
        return {None: (root, root / "masks")}
    there = ", ".join(path.name for path in list_folder(root)[:10]) if os.path.isdir(root) else "no such folder"
    expected = "images/ and masks/, or train/ and val/ with images/ and masks/ in each"
    todo = f"make them, or give another {named('DATA_DIR')}"
    raise ValueError(f"{root}: found {there or 'nothing'}; expected {expected}; {todo}")


def read_list(path: Path) -> Iterator[tuple[int, str, list[str]]]:
    """(number of the line, the line, all names that it may mean) of each line of a list: a stem, a file's name or path,
    or this and then that of its mask. Raises ValueError if it is no text."""
    for number, line in enumerate(map(str.strip, read_text(path).split("\n")), 1):
        if line:
            path = normalize(line).replace("\\", "/")  # a list written on Windows is one of the same pairs elsewhere
            whole, first = PurePath(path), PurePath(path.split()[0])
            yield number, line, [normalize(line), whole.name, whole.stem, first.name, first.stem]


def list_folder(folder: Path) -> list[Path]:
    """What is in a folder, hidden files left out, sorted. Raises ValueError if it can't be read."""
    try:
        return sorted(path for path in folder.iterdir() if not path.name.startswith("."))
    except OSError as error:
        found, todo = f"can't be read ({error.strerror})", f"check {named('DATA_DIR')}, or make it readable"
        raise ValueError(f"{folder}: {found}; {todo}") from None


def has_images(folder: Path) -> bool:
    """Whether images lie directly in a folder; False, too, if it can't be read."""
    return any(is_image(path) and os.path.isfile(path) for path in folder.glob("[!.]*"))


def is_image(path: Path) -> bool:
    return path.suffix.lower() in READABLE_SUFFIXES


def _find_lists(root: Path) -> dict[str, Path]:
    """{split: its file} in the one of `LIST_FOLDERS` that has the most."""
    lists = []
    for folder in LIST_FOLDERS:
        paths = {split: [root / folder / f"{name}.txt" for name in names] for split, names in SPLIT_NAMES.items()}
        lists.append({s: path for s, there in paths.items() if (path := next(filter(os.path.isfile, there), None))})
    return max(lists, key=len)


def _find_splits(folder: Path) -> dict[str, Path]:
    return {split: path for split, names in SPLIT_NAMES.items() if (path := _find(folder, names))}


def _find(folder: Path, names: tuple[str, ...]) -> Path | None:
    """The folder of one of the names, in any case."""
    there = list_folder(folder) if os.path.isdir(folder) else []
    found = [path for path in there if path.name.lower() in names and os.path.isdir(path)]
    return _only_one(folder, [path for path in found if path.name == names[0]] or found, names[0])


def _find_masks_beside(folder: Path, images: Path) -> Path:
    """The folder of the masks, one of `OTHER_MASK_FOLDERS` only if no other one holds images or folders of them."""
    masks = _find(folder, MASK_FOLDERS)
    if not masks:
        others = [path for path in list_folder(folder) if path != images]
        found = [path for path in others if has_images(path) or any(map(has_images, path.glob("[!.]*")))]
        is_known = any(path.name.lower() in OTHER_MASK_FOLDERS for path in found)
        masks = _only_one(folder, found, "masks") if is_known else None
    return masks or folder / "masks"


def _only_one(folder: Path, found: list[Path], name: str) -> Path | None:
    if found[1:]:
        names = ", ".join(path.name for path in found)
        raise ValueError(f"{folder}: the folders {names} could all be {name}/; call the one that is meant {name}/")
    return found[0] if found else None


def _read(folder: Path, errors: Problems) -> dict[str, Path]:
    """{normalized stem: image} of the images in a folder. Two of one stem are an error."""
    images: dict[str, Path] = {}
    for path in filter(is_image, list_folder(folder)):
        twin = images.setdefault(normalize(path.stem), path)
        if twin is not path:
            sentence = "two files have this stem; keep one of them in the folder, or move the mask to masks/"
            errors.add(sentence, path, f"and {twin.name}")
    return images


def _find_masks(split: str | None, masks: Path, images: dict, annotations: Annotations) -> tuple[dict, dict]:
    """(images, masks) by stem: masks in their folder, else outlines, else those images that end in `MASK_END`."""
    if os.path.isdir(masks):
        return images, _read(masks, annotations.errors) or annotations.find(split)
    if found := annotations.find(split):
        return images, found
    among = {stem: path for stem, path in images.items() if stem.lower().endswith(MASK_END)}
    rest = {stem: path for stem, path in images.items() if stem not in among}
    return (rest, among) if among and rest else (images, {})


def _pair(split: str | None, images: dict, masks: dict, needed: Collection[str] | None, found: Found) -> None:
    """Add the pairs, and what has no partner. A mask is None if its file is invalid, and among the errors already."""
    mask_of = match(images, masks)
    for stem, image in sorted(images.items()):
        mask = masks[mask_of[stem]] if stem in mask_of else None
        if mask:
            found.items.append(Item(image.stem, split, image, mask))
        elif stem in mask_of or needed is None or stem in needed:
            found.lonely.append(Item(image.stem, split, image, image))
            if stem not in mask_of:
                sentence = "it has no mask; masks have their images' stems, or all one ending more; "
                found.errors.add(f"{sentence}add the mask or move the image away", image)
        else:
            found.warnings.add("it has no mask and is in none of the lists; it is left out", image)
    for stem in sorted(masks.keys() - mask_of.values()):
        if mask := masks[stem]:
            sentence = "it has no image of the same stem, or that image has another mask; add the image, merge several"
            path = mask.path if isinstance(mask, Outlines) else mask
            found.lonely.append(Item(path.stem, split, path, path))
            found.errors.add(f"{sentence} masks of an image into one, or move the mask away", path)


def natural(name: str) -> list:
    """Key that sorts p2 before p10: frames of a sequence in their order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def cut_blocks(n: int) -> tuple[int, int]:
    """Where validation and test begin in n things in a row: 70 %, 15 %, 15 %, one at least validates, and fewer than 6
    have no test. Blocks, not a random choice: neighbours in a sequence look alike and belong on one side."""
    first, second = min(round(0.7 * n), n - 1), round(0.85 * n)
    return first, max(second, first + 1)


def split_items(found: Found, split_by: str | None, to_train: bool = True) -> list[str | None]:
    """For each item "train", "validation", "test", or None where it is in no list. The folders tell it; else root's
    train.txt, val.txt and perhaps test.txt, a name a line; else split_by, a regular expression that finds the group in
    an image's stem: groups are not cut; else blocks of the names in their natural order. Files without a partner keep
    their places: else what was learned could come to the test. to_train: whether there must be MIN_PAIRS, and some to
    train and to validate. Raises ValueError if a list is no text."""
    n_pairs, found = len(found.items), found._replace(items=found.items + found.lonely)
    items, root, errors, warnings = found.items, found.errors.root, found.errors, found.warnings
    by_folders = any(item.split for item in items)
    if by_folders:
        splits = _split_by_folders(found)
    elif found.lists:
        splits = _split_by_lists(found)
    elif split_by is not None:
        splits = _split_by_groups(found, split_by)
    else:
        order = sorted(range(len(items)), key=lambda k: (natural(items[k].stem), items[k].stem))
        splits = _place([[k] for k in order], *cut_blocks(len(items)), len(items))
    if split_by is not None and (found.lists or by_folders):
        warnings.add("the pattern for groups in names is not used, because folders or lists tell the splits", root)
    if to_train and len(items) < MIN_PAIRS and not errors.files_of:
        found_pairs = f"found {counted(len(items), 'pair')}, expected {MIN_PAIRS} at least"
        errors.add(f"{found_pairs}, one of them to validate; add some", root)
    for name in ("train", "validation") if to_train else ():
        if items and name not in splits and not errors.files_of:
            sentence = f"no pair is for {name}, expected one at least; put some there, or let the pattern find more"
            errors.add(sentence, root)
    return splits[:n_pairs]


def _place(groups: Sequence[Sequence[int]], first: int, second: int, n: int) -> list[str | None]:
    """The splits of n items, given the indices in each group: groups from first on validate, from second on test."""
    names = [SPLITS[(place >= first) + (place >= second)] for place in range(len(groups))]
    split_of = {k: name for name, group in zip(names, groups, strict=True) for k in group}
    return [split_of.get(k) for k in range(n)]


def _split_by_folders(found: Found) -> list[str | None]:
    splits = [item.split for item in found.items]
    if "validation" not in splits and (train := [k for k, split in enumerate(splits) if split == "train"]):
        for k in sorted(train, key=lambda k: natural(found.items[k].stem))[-max(1, round(0.15 * len(train))) :]:
            splits[k] = "validation"
        what = "there are no pairs for validation; the last of the training pairs are taken"
        found.warnings.add(what, found.warnings.root)
    return splits


def _split_by_lists(found: Found) -> list[str | None]:
    split_of: dict[str, str | None] = {normalize(item.stem): None for item in found.items}
    for split, path in found.lists.items():
        for line_number, line, names in read_list(path):
            where, name = f"line {line_number}: {line!r}", next((name for name in names if name in split_of), None)
            if name is None:
                found.errors.add("there is no pair of this name; correct the list", path, where)
            elif split_of[name] not in (None, split):
                where += f" is also for {split_of[name]}"
                found.errors.add("this pair is in two lists; keep one of them", path, where)
            else:
                split_of[name] = split
    splits = [split_of[normalize(item.stem)] for item in found.items]
    for item, split in zip(found.items, splits, strict=True):
        if split is None:
            found.warnings.add("it is in none of the lists; it is left out", item.image)
    return splits


def _split_by_groups(found: Found, split_by: str) -> list[str | None]:
    """Cuts between groups, nearest to 70 % and 85 % of the pairs; each part has a group, if there are three."""
    groups: dict[str, list[int]] = {}
    pattern, n = f"{named('SPLIT_BY')} {split_by!r}", len(found.items)
    for k, item in enumerate(found.items):
        if match := re.search(split_by, item.stem):
            groups.setdefault(next((part for part in match.groups() if part), match[0]), []).append(k)
        else:
            found.errors.add(f"{pattern} finds no group in its name; correct the pattern", item.image)
    names = sorted(groups, key=natural)
    if len(names) < 2:
        return ["train"] * n
    ends = [0, *accumulate(len(groups[name]) for name in names)]
    first = min(range(1, len(names) - (len(names) > 2)), key=lambda cut: abs(ends[cut] - 0.7 * n))
    second = min(range(first + 1, len(names)), key=lambda cut: abs(ends[cut] - 0.85 * n), default=len(names))
    return _place([groups[name] for name in names], first, second, n)
