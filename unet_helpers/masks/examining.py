"""All files of a data set looked at once, on all cores: what each pair needs, and the report."""

import os
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..labels import VOID
from .classes import ClassList
from .coding import Coding, decide
from .layout import Item
from .polygons import Drawing, examine_drawing
from .reading import FIRST_FRAME, Mask, Picture, examine_mask, examine_picture
from .report import Faults, Report, Unfit

SIZES = "a mask and its picture need the same height x width; make the mask again in the picture's size"


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
    """needs: of the items, in their order. bits: of 16-bit pictures, how many are used. coding: the masks' rule. needs
    is empty and coding may be None where the report has errors."""

    needs: list[Need]
    bits: int
    coding: Coding | None
    report: Report


def examine_items(
    root: Path, items: Sequence[Item], classes: ClassList | None, labels: Sequence[str], errors: Faults
) -> Examined:
    """Decode each file once and find out what all of them together need.

    labels: the classes of outlines, where no list names them. errors: known before; those of the files are added, and
    the report has them all.
    """
    warnings = Faults(root)
    names = classes.names if classes else tuple(labels)
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looked = list(pool.map(lambda item: _look(item, names), items))
    for _, _, faults in looked:
        for fault in faults:
            errors.add(*fault)
    pictures, masks = [picture for picture, _, _ in looked], [mask for _, mask, _ in looked]
    turns = _find_turns(items, pictures, masks, errors, warnings)
    coding = _find_coding(items, masks, classes, names, errors, warnings)
    for item, picture in zip(items, pictures, strict=True):
        if picture and FIRST_FRAME in picture.changes:
            warnings.add("it holds more than one picture, and only the first is used; save others as files", item.image)
    bits = max([8, *(picture.highest.bit_length() for picture in pictures if picture)])
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


def _look(item: Item, names: tuple[str, ...]) -> tuple[Picture | None, Mask | None, list[tuple[str, Path, str]]]:
    picture = mask = None
    faults = []
    try:
        picture = examine_picture(item.image)
    except Unfit as error:
        faults.append((str(error), item.image, error.found))
    try:
        if not isinstance(item.mask, Drawing):
            mask = examine_mask(item.mask)
        elif picture and item.mask.size in (picture.stored, picture.upright):  # else it may be of any size
            mask = examine_drawing(item.mask, names)
        elif picture:
            raise Unfit(SIZES, _show_sizes(item.mask.size, picture))
    except Unfit as error:
        of_many = isinstance(item.mask, Drawing) and item.mask.of_many  # then the file alone does not tell the picture
        found = f"{item.mask_path.name}: {error.found}" if of_many else error.found
        faults.append((str(error), item.image if of_many else item.mask_path, found))
    return picture, mask, faults


def _show_sizes(size: tuple[int, int], picture: Picture) -> str:
    return "{}x{}, its picture {}x{}".format(*size, *picture.upright)


def _find_coding(items, masks, classes, names, errors: Faults, warnings: Faults) -> Coding | None:
    drawn = [isinstance(item.mask, Drawing) for item in items]
    if any(drawn) and not all(drawn):
        file = items[drawn.index(False)].mask_path
        errors.add("it is a picture, but other masks are outlines in JSON; make all of one kind", file)
        return None
    if any(drawn):
        ids = {k: k for k in range(len(names))} | {VOID: VOID}
        says = "outlines, drawn in the order of their file"
        return Coding("value", ids, names, classes.colors if classes else (), says)
    files = {item.mask_path: mask for item, mask in zip(items, masks, strict=True) if mask}
    return decide(files, classes, errors, warnings) if files else None


def _find_turns(items, pictures, masks, errors: Faults, warnings: Faults) -> list[int]:
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
            errors.add(SIZES, item.mask_path, _show_sizes(mask.size, picture))
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


def _need(item: Item, picture: Picture, mask: Mask, turn: int, coding: Coding) -> Need:
    ids = coding.ids_of(mask)
    counts: Counter[int] = Counter()
    for value, number in mask.counts.items():
        counts[ids[value]] += number
    keeps = turn == 1 and not isinstance(item.mask, Drawing) and coding.keeps(mask)
    return Need(bool(picture.changes), None if keeps else ids, turn, dict(counts))


def _count_pixels(needs, coding: Coding, report: Report, root: Path, errors: Faults, warnings: Faults) -> None:
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
    for k, name in enumerate(coding.names):
        if not counts[k] and len(present) >= 2:
            warnings.add(f"class {name!r} has no pixel in any mask", root)


def _count_converted(needs, pictures, masks, bits: int) -> dict[str, int]:
    converted: Counter[str] = Counter()
    for need, picture, mask in zip(needs, pictures, masks, strict=True):
        if need.picture:
            used = f" ({bits} of 16 bits used)" if picture.highest else ""
            converted[f"pictures ({', '.join(picture.changes)}){used}"] += 1
        if need.ids is not None:
            converted[f"masks ({mask.kind}{', turned like their pictures' * (need.turn > 1)})"] += 1
    return dict(converted)
