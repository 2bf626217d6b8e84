"""All files of a data set looked at once, on all cores: what each pair needs, and the report."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..images import FIRST_FRAME, ImageInfo, InvalidFile, MaskInfo, examine_image, examine_mask, open_file
from ..labels import VOID
from .annotations import Outlines, examine_outlines
from .class_lists import ClassList, find_unread_lists
from .encoding import Encoding, decide
from .layout import Item
from .report import MOST, Problems, Report

SIZES = "a mask and its picture need the same height x width; make the mask again in the picture's size"


def show_sizes(size: tuple[int, int], picture: ImageInfo) -> str:
    return "{}x{}, its picture {}x{}".format(*size, *picture.upright)


def find_turns(items, pictures, masks, errors: Problems, warnings: Problems) -> list[int]:
    """For each pair, the orientation by which its mask is to be turned along with its picture; 1: it is upright.

    Labelling tools show pictures upright, and write masks in that size; what decodes pictures without their EXIF data
    makes masks of the stored size. Where both have the same size (square, upside down or mirrored) the mask is taken
    as upright, unless all masks of turned pictures whose size tells were made of stored pixels.
    """
    turns, told, untold = [], [], []
    for place, (item, picture, mask) in enumerate(zip(items, pictures, masks, strict=True)):
        turns.append(1)
        if not picture or not mask:
            continue
        if mask.size not in (picture.stored, picture.upright):
            errors.add(SIZES, item.mask_path, show_sizes(mask.size, picture))
        elif picture.stored != picture.upright:
            turns[place] = picture.orientation if mask.size == picture.stored else 1
            told.append(turns[place])
        elif picture.orientation > 1:
            untold.append(place)
    as_stored = bool(told) and all(turn > 1 for turn in told)
    for place in untold:
        if as_stored:
            turns[place] = pictures[place].orientation
        how = "as stored, like the other masks of turned pictures" if as_stored else "as upright"
        sentence = "its EXIF data turn it, and its size does not tell whether its mask is turned, too"
        warnings.add(f"{sentence}; the mask is taken {how}: look at this pair", items[place].image)
    return turns


TRANSPARENT = (
    "parts of it are transparent, and the values or colours there count all the same, also those that nobody sees; if "
    "they are not what is meant, save it without transparency"
)


class Need(NamedTuple):
    """What a pair needs. picture: whether it is written anew. ids: {value in the mask: class id or VOID}, or None where
    the mask is read as it is. turn: EXIF orientation by which the mask is turned along with its picture; 1: not.
    counts: {class id or VOID: pixels}.
    """

    picture: bool
    ids: dict[int, int] | None
    turn: int
    counts: dict[int, int]


class Examined(NamedTuple):
    """needs: of the items, in their order. bits: of 16-bit pictures, how many are used; None: there are none. coding:
    the masks' rule. needs is empty and coding may be None where the report has errors."""

    needs: list[Need]
    bits: int | None
    coding: Encoding | None
    report: Report


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
        looked = list(pool.map(lambda item: _look(item, names), items))
    for _, _, faults, _ in looked:
        for fault in faults:
            errors.add(*fault)
    pictures, masks = [picture for picture, *_ in looked], [mask for _, mask, *_ in looked]
    turns = find_turns(items, pictures, masks, errors, warnings)
    coding = _find_encoding(items, masks, classes, names, errors, warnings)
    if not classes:
        _warn_of_lists(root, items, warnings)
    for item, picture, (*_, transparent) in zip(items, pictures, looked, strict=True):
        if transparent:
            warnings.add(TRANSPARENT, item.mask_path)
        if picture and FIRST_FRAME in picture.changes:
            warnings.add("it holds more than one picture, and only the first is used; save others as files", item.image)
    used = [picture.highest.bit_length() for picture in pictures if picture and picture.highest]
    bits = max(8, *used) if used else None
    report = Report(
        str(root), reading=coding.says if coding else "",
        sizes=dict(Counter("{}x{}".format(*picture.upright) for picture in pictures if picture)),
        pictures=dict(Counter(picture.kind for picture in pictures if picture)),
        masks=dict(Counter(mask.kind for mask in masks if mask)),
    )  # fmt: skip
    needs = []
    if coding and not errors.files_of:
        needs = [_need(*each, coding) for each in zip(items, pictures, masks, turns, strict=True)]
        _count_pixels(needs, coding, report, root, errors, warnings)
        report.converted = _count_converted(needs, pictures, masks, bits)
    report.errors, report.warnings = errors.lines(), warnings.lines()
    return Examined(needs, bits, coding, report)


def _look(
    item: Item, names: tuple[str, ...]
) -> tuple[ImageInfo | None, MaskInfo | None, list[tuple[str, Path, str]], bool]:
    """What picture and mask are, None for a faulty one; the faults; whether the mask is partly transparent."""
    picture = mask = None
    faults, transparent = [], False
    try:
        picture = examine_image(item.image)
    except InvalidFile as error:
        faults.append((str(error), item.image, error.found))
    try:
        if not isinstance(item.mask, Outlines):
            mask = examine_mask(item.mask)
            transparent = _is_partly_transparent(item.mask, mask)
        elif picture and item.mask.size in (picture.stored, picture.upright):  # else it may be of any size
            mask = examine_outlines(item.mask, names)
        elif picture:
            raise InvalidFile(SIZES, show_sizes(item.mask.size, picture))
    except InvalidFile as error:
        of_many = isinstance(item.mask, Outlines) and item.mask.of_many  # then the file alone does not tell the picture
        found = f"{item.mask_path.name}: {error.found}" if of_many else error.found
        faults.append((str(error), item.image if of_many else item.mask_path, found))
    return picture, mask, faults, transparent


def _is_partly_transparent(path: Path, mask: MaskInfo) -> bool:
    if "mode RGBA" not in mask.kind and "mode LA" not in mask.kind:
        return False
    low, high = open_file(path).image.getchannel("A").getextrema()
    return low < high


def _warn_of_lists(root: Path, items: Sequence[Item], warnings: Problems) -> None:
    """Names the files that may be lists of classes, where no list was found that is read."""
    close = {path.parent for item in items for path in (item.image, item.mask_path)}
    folders = {folder for inner in close for folder in (inner, inner.parent) if folder.is_relative_to(root)} | {root}
    for path in find_unread_lists(sorted(folders), {item.stem for item in items}):
        warnings.add(
            "it is not read, for the list of classes is classes.txt in the folder that holds images/, or train/ and "
            "val/; if this is one, copy it there under this name", path,
        )  # fmt: skip


def _find_encoding(items, masks, classes, names, errors: Problems, warnings: Problems) -> Encoding | None:
    drawn = [isinstance(item.mask, Outlines) for item in items]
    if any(drawn) and not all(drawn):
        file = items[drawn.index(False)].mask_path
        errors.add("it is a picture, but other masks are outlines in JSON; make all of one kind", file)
        return None
    if any(drawn):
        ids = {k: k for k in range(len(names))} | {VOID: VOID}
        says = "outlines, drawn in the order of their file"
        return Encoding("value", ids, names, classes.colors if classes else (), says)
    files = {item.mask_path: mask for item, mask in zip(items, masks, strict=True) if mask}
    return decide(files, classes, errors, warnings) if files else None


def _need(item: Item, picture: ImageInfo, mask: MaskInfo, turn: int, coding: Encoding) -> Need:
    ids = coding.ids_of(mask)
    counts: Counter[int] = Counter()
    for value, number in mask.counts.items():
        counts[ids[value]] += number
    keeps = turn == 1 and not isinstance(item.mask, Outlines) and coding.keeps(mask)
    return Need(bool(picture.changes), None if keeps else ids, turn, dict(counts))


def _count_pixels(needs, coding: Encoding, report: Report, root: Path, errors: Problems, warnings: Problems) -> None:
    counts: Counter[int] = Counter()
    for need in needs:
        counts.update(need.counts)
    total = max(counts.total(), 1)
    report.classes = [(k, name, counts[k] / total) for k, name in enumerate(coding.names)]
    report.void = counts[VOID] / total
    present = [name for k, name in enumerate(coding.names) if counts[k]]
    if len(present) < 2:
        what = " and ".join([repr(name) for name in present] + ["void"] * bool(counts[VOID]))
        errors.add(
            f"all masks hold only {what} ({coding.says}), expected two classes at least; label the others, or, if they "
            "were lost when the masks were saved, save them again as 8-bit PNG with ids 0, 1, 2 ...", root,
        )  # fmt: skip
    absent = [repr(name) for k, name in enumerate(coding.names) if not counts[k] and len(present) >= 2]
    if len(absent) > MOST:
        shown = f"{', '.join(absent[:MOST])} and {len(absent) - MOST} more"
        warnings.add(f"{len(absent)} of {len(coding.names)} classes have no pixel in any mask: {shown}", root)
        return
    for name in absent:
        warnings.add(f"class {name} has no pixel in any mask", root)


def _count_converted(needs, pictures, masks, bits: int | None) -> dict[str, int]:
    converted: Counter[str] = Counter()
    for need, picture, mask in zip(needs, pictures, masks, strict=True):
        if need.picture:
            used = f" ({bits} of 16 bits used)" if picture.highest else ""
            converted[f"pictures ({', '.join(picture.changes)}){used}"] += 1
        if need.ids is not None:
            converted[f"masks ({mask.kind}{', turned like their pictures' * (need.turn > 1)})"] += 1
    return dict(converted)
