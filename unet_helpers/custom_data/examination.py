"""All files of a data set examined at once, on all cores: what each pair needs, and the report."""

import os
import re
from collections import Counter
from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..images import ImageInfo, InvalidFile, MaskInfo, examine_image, examine_mask
from ..labels import VOID
from .annotations import Outlines, draw
from .class_lists import ClassList
from .encoding import Encoding, decide
from .layout import Found, Item
from .report import MOST, Problems, Report, few

SIZES = "a mask and its image need the same height x width; make the mask again in the image's size"
TRANSPARENT = "parts of it are transparent, and what is there counts all the same; if it should not, save it opaque"


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
    """What a pair's files are; None for an invalid one."""

    item: Item
    image: ImageInfo | None
    mask: MaskInfo | None
    problems: list[tuple[str, Path, str]]  # as `Problems.add` takes them


def examine_items(found: Found, classes: ClassList | None) -> Examined:
    """Decode each file once and find out what all of them together need.

    The errors of the files are added to those that were known before, and the report has them all.
    """
    errors, warnings = found.errors, Problems(found.errors.root)
    names = classes.names if classes else found.labels  # of outlines
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda item: _look_at(item, names), found.items))
    for problem in (problem for look in looks for problem in look.problems):
        errors.add(*problem)
    turns = _find_turns(looks, errors, warnings)
    encoding = _find_encoding(looks, classes, names, errors, warnings)
    if not classes:
        _warn_of_lists(found.items, warnings)
    for item, image, mask, _ in looks:
        if mask and mask.transparent:
            warnings.add(TRANSPARENT, item.mask_path)
        if image and image.more_frames:
            warnings.add("it holds more than one image, and only the first is used; save others as files", item.image)
    images = [look.image for look in looks if look.image]
    sizes = Counter("{}x{}".format(*image.size) for image in images)
    kinds = Counter(image.kind for image in images), Counter(look.mask.kind for look in looks if look.mask)
    report = Report(str(errors.root), {}, dict(sizes), *map(dict, kinds), encoding.says if encoding else "")
    bits = max((image.bits for image in images if image.bits), default=None)
    needs = []
    if encoding and not errors.files_of:
        needs = [_need(look, turn, encoding) for look, turn in zip(looks, turns, strict=True)]
        _count_pixels(needs, encoding, report, errors, warnings)
        converted = [f"images ({image.kind}; {bits} of 16 bits used)" for image in images if image.bits]
        for need, look in zip(needs, looks, strict=True):
            if need.ids is not None:
                converted.append(f"masks ({look.mask.kind}{', turned like their images' * (need.turn > 1)})")
        report.converted = dict(Counter(converted))
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
            counts = {k: n for k, n in enumerate(draw(item.mask, names).histogram()) if n}
            mask = MaskInfo("outlines in JSON", item.mask.size, "grey", counts, {}, False)
        elif image:
            raise InvalidFile(SIZES, _show_sizes(item.mask, image))
    except InvalidFile as error:
        of_many = isinstance(item.mask, Outlines) and item.mask.of_many  # then the file alone does not tell the image
        where = f"{item.mask_path.name}: " if of_many else ""
        problems.append((str(error), item.image if of_many else item.mask_path, where + error.found))
    return _Look(item, image, mask, problems)


def _show_sizes(mask: MaskInfo | Outlines, image: ImageInfo) -> str:
    return "{}x{}, its image {}x{}".format(*mask.size, *image.size)


def _find_turns(looks: list[_Look], errors: Problems, warnings: Problems) -> list[int]:
    """For each pair, the orientation by which its mask is to be turned along with its image; 1: it is upright.

    Labelling tools show images upright, and write masks in that size; what decodes images without their EXIF data makes
    masks of the stored size. Where both have the same size (square, upside down or flipped) the mask is taken as
    upright, unless all masks of turned images whose size tells were made of stored pixels.
    """
    pairs = [(look.image, look.mask) for look in looks if look.image and look.mask]
    told = {mask.size == image.stored for image, mask in pairs if image.stored != image.size}
    how = "as stored, like the other masks of turned images" if told == {True} else "as upright"
    turns = []
    for item, image, mask, _ in looks:
        is_stored = bool(image and mask) and mask.size == image.stored
        if image and mask and mask.size not in (image.stored, image.size):
            errors.add(SIZES, item.mask_path, _show_sizes(mask, image))
        elif is_stored and image.stored == image.size and image.orientation > 1:
            is_stored = told == {True}
            sentence = "its EXIF data turn it, and its size does not tell whether its mask is turned, too"
            warnings.add(f"{sentence}; the mask is taken {how}: look at this pair", item.image)
        turns.append(image.orientation if is_stored else 1)
    return turns


def _find_encoding(looks: list[_Look], classes, names, errors: Problems, warnings: Problems) -> Encoding | None:
    files = [look.item.mask_path for look in looks if not isinstance(look.item.mask, Outlines)]
    if files and len(files) < len(looks):
        errors.add("it is an image, but other masks are outlines in JSON; make all of one kind", files[0])
        return None
    if looks and not files:
        ids = {k: k for k in (*range(len(names)), VOID)}
        meanings = {look.item.mask_path: ids for look in looks}
        colors = classes.colors if classes else ()
        return Encoding(meanings, ids, names, colors, "outlines, drawn in the order of their file")
    masks = {look.item.mask_path: look.mask for look in looks if look.mask}
    return decide(masks, classes, errors, warnings) if masks else None


def _warn_of_lists(items: Sequence[Item], warnings: Problems) -> None:
    """Name the files that may be lists of classes, where no list was found that is read."""
    close = {path.parent for item in items for path in item.files}
    folders = {folder for path in close for folder in (path, path.parent) if folder.is_relative_to(warnings.root)}
    stems = {item.stem for item in items}  # of images; texts of the same stem are no lists
    for path in sorted(path for folder in folders | {warnings.root} for path in folder.glob("*.*")):
        if path.stem not in stems and re.fullmatch(r".*(class|label).*\.(txt|csv|names)", path.name.lower()):
            sentence = "it is not read, for the list of classes is classes.txt in the folder that holds images/, or "
            warnings.add(f"{sentence}train/ and val/; if this is one, copy it there under this name", path)


def _need(look: _Look, turn: int, encoding: Encoding) -> Need:
    mask, counts = look.mask, Counter()
    ids = {value: encoding.ids.get(meant, VOID) for value, meant in encoding.meanings[look.item.mask_path].items()}
    for value, number in mask.counts.items():
        counts[ids[value]] += number
    shift = 16 if mask.values == "color" else 0  # `images.decode_mask` reads ids in one channel or in red
    kept = turn == 1 and mask.plain and all(value == k << shift for value, k in ids.items())
    return Need(look.image.bits is not None, None if kept else ids, turn, dict(counts))


def _count_pixels(needs, encoding: Encoding, report: Report, errors: Problems, warnings: Problems) -> None:
    counts = sum((Counter(need.counts) for need in needs), Counter())
    total = max(counts.total(), 1)
    report.classes = [(k, name, counts[k] / total) for k, name in enumerate(encoding.names)]
    report.void = counts[VOID] / total
    present = [repr(name) for k, name in enumerate(encoding.names) if counts[k]]
    absent = [repr(name) for k, name in enumerate(encoding.names) if not counts[k]]
    if len(present) < 2:
        what = " and ".join(present + ["void"] * bool(counts[VOID]))
        errors.add(
            f"all masks hold only {what} ({encoding.says}), expected two classes at least; label the others, or, if 0 "
            "and 255 are two classes, give the list two names, or, if ids were lost when the masks were saved, save "
            "them again as 8-bit PNG with ids 0, 1, 2 ...", errors.root,
        )  # fmt: skip
    elif absent:
        sentence = f"{len(absent)} of {len(encoding.names)} classes have no pixel in any mask: {few(absent, MOST)}"
        warnings.add(sentence, warnings.root)
