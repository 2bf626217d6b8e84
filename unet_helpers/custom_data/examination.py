"""All files of a data set examined at once, on all cores: what each pair needs, and the report."""

import os
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import NamedTuple

from ..images import ImageInfo, InvalidFile, MaskInfo, examine_image, examine_mask
from ..labels import VOID
from .annotations import Outlines, draw
from .class_lists import ClassList
from .encoding import Encoding, decide
from .layout import Found, Item
from .report import MOST, Problems, Report, ValidationError, few

SIZES = "a mask and its image need the same height x width; make the mask again in the image's size"
UPSIDE_DOWN = (
    "its EXIF data turn it, and its size does not tell whether its mask is turned, too; the mask is taken as upright: "
    "look at this pair"
)
TRANSPARENT = "parts of it are transparent, and what is there counts all the same; if it should not, save it opaque"


class Need(NamedTuple):  # of a pair, before training reads it
    image: bool  # whether the image is converted: it has 16 bits
    ids: dict[int, int] | None  # {value in the mask: class id or VOID}; None: the mask is read as it is
    turn: int  # EXIF's orientation by which the mask is turned along with its image; 1: none
    counts: dict[int, int]  # {class id or VOID: pixels}


class Examined(NamedTuple):
    needs: list[Need]  # of the items, in their order
    bits: int | None  # in use, of grey 16-bit images; None: there are none
    encoding: Encoding
    report: Report


class _Look(NamedTuple):
    item: Item
    image: ImageInfo | None  # None: the file is invalid
    mask: MaskInfo | None  # None: the file is invalid
    problems: list[tuple[str, Path, str]]  # as `Problems.add` takes them


def examine_items(found: Found, classes: ClassList | None) -> Examined:
    """Decode each file once and find out what all of them together need.

    Raises ValidationError with the errors of the files, and those that were known before.
    """
    errors, warnings = found.errors, Problems(found.errors.root)
    names = classes.names if classes else found.labels  # of outlines
    with ThreadPoolExecutor(os.cpu_count()) as pool:
        looks = list(pool.map(lambda item: _look_at(item, names), found.items))
    for problem in (problem for look in looks for problem in look.problems):
        errors.add(*problem)
    encoding = _find_encoding(looks, classes, names, errors, warnings)
    for item, image, mask, _ in looks:
        if image and mask and image.orientation > 1 and image.stored == image.size:
            warnings.add(UPSIDE_DOWN, item.image)
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
        needs = [_need(look, encoding) for look in looks]
        _count_pixels(needs, encoding, report, errors, warnings)
        converted = [f"images ({image.kind}; {bits} of 16 bits used)" for image in images if image.bits]
        converted += [f"masks ({look.mask.kind})" for need, look in zip(needs, looks, strict=True) if need.ids]
        report.converted = dict(Counter(converted))
    report.errors, report.warnings, report.warned = errors.lines(), warnings.lines(), warnings.reasons()
    if report.errors:
        raise ValidationError(report)
    return Examined(needs, bits, encoding, report)


def _look_at(item: Item, names: tuple[str, ...]) -> _Look:
    image = mask = None
    outlines = item.mask if isinstance(item.mask, Outlines) else None
    problems = []
    try:
        image = examine_image(item.image)
    except InvalidFile as error:
        problems.append((str(error), item.image, error.found))
    try:
        mask = None if outlines else examine_mask(item.mask)
        size = outlines.size if outlines else mask.size
        if image and size not in (image.stored, image.size):
            raise InvalidFile(SIZES, "{}x{}, its image {}x{}".format(*size, *image.size))
        if image and outlines:  # else they may be of any size
            counts = {k: n for k, n in enumerate(draw(outlines, names).histogram()) if n}
            mask = MaskInfo("outlines in JSON", size, "grey", counts, {}, False)
    except InvalidFile as error:
        found = f"{outlines.path.name}: {error.found}" if outlines else error.found  # which may be of many images
        problems.append((str(error), item.image if outlines else item.mask, found))
    return _Look(item, image, mask, problems)


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


def _need(look: _Look, encoding: Encoding) -> Need:
    """A mask of the stored size is turned with its image: what decodes images without their EXIF data has made it."""
    _, image, mask, _ = look
    counts, turn = Counter(), image.orientation if mask.size == image.stored != image.size else 1
    ids = {value: encoding.ids.get(meant, VOID) for value, meant in encoding.meanings[look.item.mask_path].items()}
    for value, number in mask.counts.items():
        counts[ids[value]] += number
    shift = 16 if mask.values == "color" else 0  # `images.decode_mask` reads ids in one channel or in red
    kept = turn == 1 and mask.plain and all(value == k << shift for value, k in ids.items())
    return Need(image.bits is not None, None if kept else ids, turn, dict(counts))


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
        without = f"classes without a pixel in any mask, {len(absent)} of {len(encoding.names)}"
        warnings.add(f"{without}: {few(absent, MOST)}", warnings.root)
