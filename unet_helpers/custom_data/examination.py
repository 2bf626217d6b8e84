"""All files of a data set examined at once, on all cores: what each pair needs, and the report."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..images import ImageInfo, InvalidFile, MaskInfo, examine_image, examine_mask
from ..labels import VOID
from .annotations import Outlines, examine_outlines
from .class_lists import ClassList, find_unread_lists
from .encoding import Encoding, decide, is_kept
from .layout import Item
from .report import MOST, Problems, Report

SIZES = "a mask and its image need the same height x width; make the mask again in the image's size"
TRANSPARENT = (
    "parts of it are transparent, and the values or colours there count all the same; if they are not what is meant, "
    "save it without transparency"
)


class Need(NamedTuple):
    """What a pair needs before training reads it."""

    image: bool  # whether the image is converted: it has 16 bits
    ids: dict[int, int] | None  # {value in the mask: class id or VOID}; None: the mask is read as it is
    turn: int  # EXIF's orientation by which the mask is turned along with its image; 1: none
    counts: dict[int, int]  # {class id or VOID: pixels}


class Examined(NamedTuple):
    needs: list[Need]  # of the items, in their order; empty where the report has errors
    bits: int | None  # in use, of 16-bit images; None: there are none
    encoding: Encoding | None  # None only where the report has errors
    report: Report


class _Look(NamedTuple):
    image: ImageInfo | None  # None for an invalid file
    mask: MaskInfo | None
    problems: list[tuple[str, Path, str]]  # as `Problems.add` takes them


def examine_items(
    root: Path, items: Sequence[Item], classes: ClassList | None, labels: Sequence[str], errors: Problems
) -> Examined:
    """Decode each file once and find out what all of them together need.

    labels: the classes of outlines, where no list names them. errors: known before; those of the files are added, and
    the report has them all.
    """
    warnings = Problems(root)
    names = classes.names if classes else tuple(labels)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda item: _look_at(item, names), items))
    images, masks = [look.image for look in looks if look.image], [look.mask for look in looks if look.mask]
    for problem in (problem for look in looks for problem in look.problems):
        errors.add(*problem)
    turns = _find_turns(items, looks, errors, warnings)
    encoding = _find_encoding(items, looks, classes, names, errors, warnings)
    if not classes:
        _warn_of_lists(root, items, warnings)
    for item, (image, mask, _) in zip(items, looks, strict=True):
        if mask and mask.transparent:
            warnings.add(TRANSPARENT, item.mask_path)
        if image and image.more_frames:
            warnings.add("it holds more than one image, and only the first is used; save others as files", item.image)
    bits = max((image.bits for image in images if image.bits), default=None)
    sizes = Counter("{}x{}".format(*image.size) for image in images)
    kinds = Counter(image.kind for image in images), Counter(mask.kind for mask in masks)
    report = Report(str(root), {}, dict(sizes), *map(dict, kinds), encoding.says if encoding else "")
    needs = []
    if encoding and not errors.files_of:
        needs = [_need(*each, encoding) for each in zip(items, looks, turns, strict=True)]
        _count_pixels(needs, encoding, report, root, errors, warnings)
        report.converted = _count_converted(needs, looks, bits)
    report.errors, report.warnings = errors.lines(), warnings.lines()
    return Examined(needs, bits, encoding, report)


def _look_at(item: Item, names: tuple[str, ...]) -> _Look:
    image = mask = None
    problems = []
    try:
        image = examine_image(item.image)
    except InvalidFile as error:
        problems.append((str(error), item.image, error.found))
    try:
        if not isinstance(item.mask, Outlines):
            mask = examine_mask(item.mask)
        elif image and item.mask.size in (image.stored, image.size):  # else it may be of any size
            mask = examine_outlines(item.mask, names)
        elif image:
            raise InvalidFile(SIZES, _show_sizes(item.mask.size, image))
    except InvalidFile as error:
        of_many = isinstance(item.mask, Outlines) and item.mask.of_many  # then the file alone does not tell the image
        found = f"{item.mask_path.name}: {error.found}" if of_many else error.found
        problems.append((str(error), item.image if of_many else item.mask_path, found))
    return _Look(image, mask, problems)


def _show_sizes(size: tuple[int, int], image: ImageInfo) -> str:
    return "{}x{}, its image {}x{}".format(*size, *image.size)


def _find_turns(items: Sequence[Item], looks: list[_Look], errors: Problems, warnings: Problems) -> list[int]:
    """For each pair, the orientation by which its mask is to be turned along with its image; 1: it is upright.

    Labelling tools show images upright, and write masks in that size; what decodes images without their EXIF data makes
    masks of the stored size. Where both have the same size (square, upside down or flipped) the mask is taken as
    upright, unless all masks of turned images whose size tells were made of stored pixels.
    """
    turns, told, untold = [1] * len(items), [], []
    for place, (item, (image, mask, _)) in enumerate(zip(items, looks, strict=True)):
        if not image or not mask:
            continue
        if mask.size not in (image.stored, image.size):
            errors.add(SIZES, item.mask_path, _show_sizes(mask.size, image))
        elif image.stored != image.size:
            turns[place] = image.orientation if mask.size == image.stored else 1
            told.append(turns[place])
        elif image.orientation > 1:
            untold.append(place)
    as_stored = bool(told) and min(told) > 1
    how = "as stored, like the other masks of turned images" if as_stored else "as upright"
    for place in untold:
        turns[place] = looks[place].image.orientation if as_stored else 1
        sentence = "its EXIF data turn it, and its size does not tell whether its mask is turned, too"
        warnings.add(f"{sentence}; the mask is taken {how}: look at this pair", items[place].image)
    return turns


def _find_encoding(items, looks, classes, names, errors: Problems, warnings: Problems) -> Encoding | None:
    drawn = [isinstance(item.mask, Outlines) for item in items]
    if any(drawn) and not all(drawn):
        file = items[drawn.index(False)].mask_path
        errors.add("it is an image, but other masks are outlines in JSON; make all of one kind", file)
        return None
    if any(drawn):
        ids = {k: k for k in (*range(len(names)), VOID)}
        says = "outlines, drawn in the order of their file"
        colors = classes.colors if classes else ()
        return Encoding(dict.fromkeys((item.mask_path for item in items), ids), ids, names, colors, says)
    masks = {item.mask_path: look.mask for item, look in zip(items, looks, strict=True) if look.mask}
    return decide(masks, classes, errors, warnings) if masks else None


def _warn_of_lists(root: Path, items: Sequence[Item], warnings: Problems) -> None:
    """Name the files that may be lists of classes, where no list was found that is read."""
    close = {path.parent for item in items for path in (item.image, item.mask_path)}
    folders = {folder for inner in close for folder in (inner, inner.parent) if folder.is_relative_to(root)} | {root}
    for path in find_unread_lists(sorted(folders), {item.stem for item in items}):
        warnings.add(
            "it is not read, for the list of classes is classes.txt in the folder that holds images/, or train/ and "
            "val/; if this is one, copy it there under this name", path,
        )  # fmt: skip


def _need(item: Item, look: _Look, turn: int, encoding: Encoding) -> Need:
    ids, counts = encoding.ids_of(item.mask_path), Counter()
    for value, number in look.mask.counts.items():
        counts[ids[value]] += number
    kept = turn == 1 and is_kept(look.mask, ids)
    return Need(look.image.bits is not None, None if kept else ids, turn, dict(counts))


def _count_pixels(needs, encoding: Encoding, report: Report, root: Path, errors: Problems, warnings: Problems) -> None:
    counts = sum((Counter(need.counts) for need in needs), Counter())
    total = max(counts.total(), 1)
    report.classes = [(k, name, counts[k] / total) for k, name in enumerate(encoding.names)]
    report.void = counts[VOID] / total
    present = [repr(name) for k, name in enumerate(encoding.names) if counts[k]]
    absent = [repr(name) for k, name in enumerate(encoding.names) if not counts[k]]
    if len(present) < 2:
        what = " and ".join(present + ["void"] * bool(counts[VOID]))
        errors.add(
            f"all masks hold only {what} ({encoding.says}), expected two classes at least; label the others, or, if "
            "they were lost when the masks were saved, save them again as 8-bit PNG with ids 0, 1, 2 ...", root,
        )  # fmt: skip
    elif len(absent) > MOST:
        shown = f"{', '.join(absent[:MOST])} and {len(absent) - MOST} more"
        warnings.add(f"{len(absent)} of {len(encoding.names)} classes have no pixel in any mask: {shown}", root)
    else:
        for name in absent:
            warnings.add(f"class {name} has no pixel in any mask", root)


def _count_converted(needs: list[Need], looks: list[_Look], bits: int | None) -> dict[str, int]:
    converted: Counter[str] = Counter()
    for need, (image, mask, _) in zip(needs, looks, strict=True):
        if need.image:
            converted[f"images ({image.kind}; {bits} of 16 bits used)"] += 1
        if need.ids is not None:
            converted[f"masks ({mask.kind}{', turned like their images' * (need.turn > 1)})"] += 1
    return dict(converted)
