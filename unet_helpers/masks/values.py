"""What the values in mask files may stand for: ids or colours."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path

from ..labels import VOID
from .reading import Mask

MAX_UNNAMED = 64  # different values without a list of names; more are no classes
MIDDLE = 127  # of a grey scale; few data sets have ids as large
WHITE, GREY = 0xFFFFFF, 0x010101


def values_of(mask: Mask, levels: bool = False, scale: int = 1) -> dict[int, int] | None:
    """{value in the file: the id that it may stand for}; None for a mask of true colours."""
    if mask.values == "color":
        if all(not color & 0xFFFF for color in mask.counts):
            return {color: color >> 16 for color in mask.counts}
        return {color: color & 255 for color in mask.counts} if all(map(_is_grey, mask.counts)) else None
    if mask.values == "palette" and levels:
        return {index: color & 255 for index, color in mask.palette.items()}
    if mask.values == "deep":
        return {value: VOID if value == 0xFFFF and scale == 1 else value // scale for value in mask.counts}
    return {value: value for value in mask.counts}


def colors_of(mask: Mask) -> dict[int, int]:
    """{value in the file: its colour 65536 r + 256 g + b}; -1 for what has none."""
    if mask.values in ("color", "palette"):
        return mask.palette or {color: color for color in mask.counts}
    if mask.values == "bit":
        return {value: value * WHITE for value in mask.counts}
    return {value: value * GREY if value < 256 else -1 for value in mask.counts}


def find_levels(masks: Iterable[Mask], n: int | None) -> bool | None:
    """Whether the grey of the palettes' colours is the value, and not their index; None if neither can be.

    Programs that make files small (GIF, above all) give indices anew, so that an index stands for one thing here and
    for another there; then the colours alone have a meaning.
    """
    n = MAX_UNNAMED if n is None else n
    palettes = [mask.palette for mask in masks if mask.values == "palette"]
    used = {color for palette in palettes for color in palette.values()}
    seen: dict[int, int] = {}
    same = all(seen.setdefault(index, color) == color for palette in palettes for index, color in palette.items())
    if not all(map(_is_grey, used)):
        return False if same else None
    levels = {color & 255 for color in used}
    return levels <= {0, 255} or not same or max(levels - {255}, default=0) <= n


def find_scale(masks: Iterable[Mask]) -> int:
    """257 or 256 if all 16-bit values are multiples of it: 8 bits that were spread over 16. Else 1."""
    deep = {value for mask in masks if mask.values == "deep" for value in mask.counts}
    return next((scale for scale in (257, 256) if any(deep) and not any(v % scale for v in deep)), 1)


def are_red_and_white(masks: Iterable[Mask]) -> bool:
    """Whether some masks hold reds and others greys: then their values are colours, not ids."""
    seen = {color for mask in masks if mask.values == "color" for color in mask.counts if color}
    return bool(seen) and not (all(map(_is_grey, seen)) or all(not color & 0xFFFF for color in seen))


def are_grey_levels(masks: dict[Path, Mask], meanings: dict[Path, dict[int, int]]) -> bool:
    """Whether 255 is the bright end of a grey scale, and not void: ids are small, but smoothing and JPEG make values in
    both halves of the scale, so a value from 127 to 254 tells, where most pixels are 0 or 255 and both occur.

    meanings: of each mask {value in the file: the id that it may stand for}.
    """
    counts: Counter[int] = Counter()
    for path, mask in masks.items():
        if all(color == -1 or _is_grey(color) for color in mask.palette.values()):  # true colours are not smoothed
            for value, number in mask.counts.items():
                counts[meanings[path][value]] += number
    ends = counts[0] + counts[VOID]
    return bool(counts[0] and counts[VOID]) and 2 * ends > counts.total() and any(MIDDLE <= v < VOID for v in counts)


def _is_grey(color: int) -> bool:
    return color == (color & 255) * GREY


def count_unknown(mask: Mask, meaning: dict[int, int], known: dict[int, int]) -> int:
    return sum(number for value, number in mask.counts.items() if meaning[value] not in known)


def show_color(color: int) -> str:
    """65536 r + 256 g + b -> "R,G,B"."""
    return f"{color >> 16},{color >> 8 & 255},{color & 255}" if color >= 0 else "no colour of 8 bits"
