"""Which value or colour of a data set's masks is which class: one rule for all of them, found by looking at all."""

from collections import Counter
from collections.abc import Iterable
from pathlib import Path
from typing import NamedTuple

from ..images import MaskInfo
from ..labels import VOID
from .class_lists import BACKGROUND, VOID_NAME, ClassList
from .report import Problems

MAX_UNNAMED = 64  # different values without a list of names; more are no classes
MIDDLE = 127  # of a grey scale; few data sets have ids as large
WHITE, GREY = 0xFFFFFF, 0x010101


def values_of(mask: MaskInfo, levels: bool = False, scale: int = 1) -> dict[int, int] | None:
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


def colors_of(mask: MaskInfo) -> dict[int, int]:
    """{value in the file: its colour 65536 r + 256 g + b}; -1 for what has none."""
    if mask.values in ("color", "palette"):
        return mask.palette or {color: color for color in mask.counts}
    if mask.values == "bit":
        return {value: value * WHITE for value in mask.counts}
    return {value: value * GREY if value < 256 else -1 for value in mask.counts}


def find_levels(masks: Iterable[MaskInfo], n: int | None) -> bool | None:
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


def find_scale(masks: Iterable[MaskInfo]) -> int:
    """257 or 256 if all 16-bit values are multiples of it: 8 bits that were spread over 16. Else 1."""
    deep = {value for mask in masks if mask.values == "deep" for value in mask.counts}
    return next((scale for scale in (257, 256) if any(deep) and not any(v % scale for v in deep)), 1)


def are_red_and_white(masks: Iterable[MaskInfo]) -> bool:
    """Whether some masks hold reds and others greys: then their values are colours, not ids."""
    seen = {color for mask in masks if mask.values == "color" for color in mask.counts if color}
    return bool(seen) and not (all(map(_is_grey, seen)) or all(not color & 0xFFFF for color in seen))


def are_grey_levels(masks: dict[Path, MaskInfo], meanings: dict[Path, dict[int, int]]) -> bool:
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


def count_unknown(mask: MaskInfo, meaning: dict[int, int], known: dict[int, int]) -> int:
    return sum(number for value, number in mask.counts.items() if meaning[value] not in known)


def show_color(color: int) -> str:
    """65536 r + 256 g + b -> "R,G,B"."""
    return f"{color >> 16},{color >> 8 & 255},{color & 255}" if color >= 0 else "no colour of 8 bits"


WHERE = {
    "grey": "in one channel", "deep": "of 16 bits", "palette": "by the index of the palette", "bit": "of 1 bit",
    "color": "in the red channel",
}  # fmt: skip


class Encoding(NamedTuple):
    """by: "value" or "color", what stands for a class. ids: value, or colour 65536 r + 256 g + b, -> class id or VOID.
    names, colors: of the classes; no colors if not known. says: the rule, for people. levels: whether a palette's grey
    is the value, not its index. scale: 16-bit values are multiples of it.
    """

    by: str
    ids: dict[int, int]
    names: tuple[str, ...]
    colors: tuple[tuple[int, int, int], ...]
    says: str
    levels: bool = False
    scale: int = 1

    def ids_of(self, mask: MaskInfo) -> dict[int, int]:
        """{value in the file: class id or VOID} for all values that a mask holds."""
        meaning = colors_of(mask) if self.by == "color" else values_of(mask, self.levels, self.scale)
        return {value: self.ids.get(meant, VOID) for value, meant in meaning.items()}

    def keeps(self, mask: MaskInfo) -> bool:
        """Whether training reads the same ids from the file as it is: ids in one channel or red, 255 for void."""
        is_red = mask.values == "grey" or (mask.values == "color" and not any(c & 0xFFFF for c in mask.counts))
        meaning = values_of(mask, self.levels, self.scale)
        return self.by == "value" and mask.plain and is_red and all(
            meaning[value] == k for value, k in self.ids_of(mask).items()
        )  # fmt: skip


def decide(
    masks: dict[Path, MaskInfo], classes: ClassList | None, errors: Problems, warnings: Problems
) -> Encoding | None:
    """The rule for these masks. What does not follow it is added to the errors, a little noise to the warnings; None
    where there is no rule at all."""
    listed = classes.color_ids if classes else {}
    unlisted = {path: count_unknown(mask, colors_of(mask), listed) for path, mask in masks.items()}
    by_color = classes and Encoding("color", listed, classes.names, classes.colors, f"colours of {classes.path.name}")
    if listed and not any(unlisted.values()):
        return by_color
    by_value = None
    if not classes or classes.value_ids:
        by_value = _decide_values(masks, classes)
    if by_value and not _palettes_contradict(masks, by_value, listed):
        meanings = {path: values_of(mask, by_value.levels, by_value.scale) for path, mask in masks.items()}
        values = set().union(*(meaning.values() for meaning in meanings.values()))
        if classes and values == {0, VOID} and len(classes.names) != 2:
            errors.add(
                f"all masks hold only 0 and 255, which are two classes, but {classes.path.name} has "
                f"{len(classes.names)} names; write two names, or make masks with all classes", errors.root,
            )  # fmt: skip
        unknown = {path: count_unknown(mask, meanings[path], by_value.ids) for path, mask in masks.items()}
        two_at_most = not classes or (len(classes.names) == 2 and any(unknown.values()))
        if two_at_most and are_grey_levels(masks, meanings):
            add_greys(meanings, errors)
            return by_value
        if not any(unknown.values()):
            warn_of_void(meanings, by_value.ids, classes, warnings)
            warn_of_start(values, by_value.ids, classes, warnings)
            return by_value
        if sum(unknown.values()) <= sum(unlisted.values()):
            add_unknown_values(meanings, by_value.ids, classes, errors)
            return by_value
    if listed:
        add_unlisted(masks, unlisted, classes, errors, warnings)
        return by_color
    add_colors(masks, classes, errors)
    return None


def _decide_values(masks: dict[Path, MaskInfo], classes: ClassList | None) -> Encoding | None:
    """The rule if all masks hold values, not colours; its ids may lack some of them."""
    n = max(classes.value_ids) + 1 if classes else None
    levels, scale = find_levels(masks.values(), n), find_scale(masks.values())
    meanings = {path: values_of(mask, levels, scale) for path, mask in masks.items()}
    if None in meanings.values() or (levels is None) or are_red_and_white(masks.values()):
        return None
    present = {value for path, m in meanings.items() if masks[path].values != "bit" for value in m.values()}
    bits = any(mask.values == "bit" for mask in masks.values())
    kinds = sorted({mask.values for mask in masks.values()}, key=list(WHERE).index)
    says = f"class ids {', '.join(WHERE[kind] for kind in kinds)}"
    says = says.replace("index", "grey") if levels else says
    names, colors = (classes.names, classes.colors) if classes else (("background", "foreground"), ())
    counted = classes is None or not classes.numbered or set(classes.value_ids) in ({0, 1}, {0, VOID})
    if present <= {0, VOID} and (VOID in present or bits) and len(names) == 2 and counted:
        says = f"0 and {'255' if VOID in present else '1'} in all masks: 0 is {names[0]!r}, the other {names[1]!r}"
        return Encoding("value", {0: 0, 1: 1, VOID: 1}, names, colors, says, levels, scale)
    present |= {0, 1} if bits else set()
    found = sorted(present - {VOID})
    if classes is None:
        names = tuple(f"class {value}" for value in found)
        ids = {value: k for k, value in enumerate(found[:MAX_UNNAMED])} if len(found) <= MAX_UNNAMED else {}
        return Encoding("value", ids | {VOID: VOID}, names, (), says, levels, scale)
    starts_at_1 = bool(found) and found[0] >= 1 and found[-1] == n and not classes.numbered
    says += f", from 1: 1 is {names[0]!r}" if starts_at_1 else ""
    says += f", with the numbers of {classes.path.name}" if classes.numbered else ""
    ids = {value + starts_at_1: k for value, k in classes.value_ids.items()}
    return Encoding("value", {VOID: VOID} | ids, names, colors, says, levels, scale)


def _palettes_contradict(masks: dict[Path, MaskInfo], by_value: Encoding, listed: dict[int, int]) -> bool:
    """Whether a place in a palette has the listed colour of one class and is the number of another: then the places
    mean nothing, even if a few colours are not listed."""
    places = [place for mask in masks.values() if mask.values == "palette" for place in mask.palette.items()]
    return not by_value.levels and any(
        by_value.ids[index] != listed[color] for index, color in places if index in by_value.ids and color in listed
    )


MAX_UNLISTED = 0.01  # share of a mask's pixels; a few are noise and become void, more are another kind of file
SHOWN = 20  # colours that are shown to be named
SMOOTHING = "smoothing makes such values: make the masks smaller by nearest neighbour only, and never as JPEG"


def warn_of_void(meanings: dict[Path, dict], ids: dict, classes: ClassList | None, warnings: Problems) -> None:
    """One value too much in one mask makes 255 void in all of them: where most have no other value, that is seldom
    meant, nor where the others are no small numbers, as ids are."""
    pairs = [path for path, meaning in meanings.items() if set(meaning.values()) == {0, VOID}]
    values = set().union(*(meaning.values() for meaning in meanings.values()))
    if ids[VOID] == VOID and 2 * len(pairs) > len(meanings):
        for path, meaning in meanings.items():
            others = sorted(set(meaning.values()) - {0, VOID})
            if others:
                sentence = "most masks hold only 0 and 255, but this one holds more, so that 255 is void in all of them"
                warnings.add(f"{sentence}; if 255 is a class, mend this mask", path, f"holds {others[:5]}")
    elif not classes and {0, VOID} <= values and ids[VOID] == VOID and max(values - {VOID}) >= MIDDLE:
        warnings.add(
            f"255 is taken as void, though {max(values - {VOID})} occurs, too; if it is a class, as white is in grey "
            "levels, list all in classes.txt, a line 'NAME 255,255,255' each", warnings.root,
        )  # fmt: skip


def warn_of_start(values: set[int], ids: dict, classes: ClassList | None, warnings: Problems) -> None:
    """Ids from 1 whose last class is in no mask can't be told from ids from 0, so that this is said where it may be:
    where no mask holds 0, or most of the names are not used."""
    if classes is None or classes.numbered or ids.get(0) != 0 or ids[VOID] != VOID:
        return
    found = sorted(values & ids.keys() - {VOID})
    first, n = classes.names[0], len(classes.names)
    few = 2 * len(found) < n and first.lower() != BACKGROUND
    if found and (few or 0 not in found):
        reason = "no mask holds 0" if 0 not in found else f"the masks hold only {len(found)} of {n} ids"
        warnings.add(
            f"{reason}, and 0 is taken as {first!r}; if that is not so, write each id in front of its name in "
            f"classes.txt, such as '1 {first}', and '0 {VOID_NAME}' if 0 is no class", warnings.root,
        )  # fmt: skip


def add_greys(meanings: dict[Path, dict], errors: Problems) -> None:
    """Of masks in grey levels, see `values.are_grey_levels`: those that hold more than 0 and 255."""
    for path, meaning in meanings.items():
        between = sorted(set(meaning.values()) - {0, VOID})
        if between:
            shown = min(between, key=lambda value: abs(value - 128))
            more = f" and {len(between) - 1} more between 0 and 255" if len(between) > 1 else ""
            errors.add(
                "it holds values between 0 and 255, as smoothing or JPEG makes of masks of these two; make what is 128 "
                "or more 255, the rest 0, and save it as a PNG, or, if each value is a class, list all in classes.txt, "
                "a line 'NAME 128,128,128' each", path, f"holds {shown}{more}",
            )  # fmt: skip


def add_unknown_values(meanings: dict[Path, dict], ids: dict, classes: ClassList | None, errors: Problems) -> None:
    unknown = {path: sorted(set(meaning.values()) - ids.keys()) for path, meaning in meanings.items()}
    kinds = len(set().union(*unknown.values()))
    known = sorted(ids.keys() - {VOID})
    expected = f"at most {MAX_UNNAMED} class ids where no list names them"
    remedy = f"write all their names to classes.txt if they are classes; else {SMOOTHING}"
    if classes:
        numbers = f", the numbers in {classes.path.name}," if classes.numbered else ""
        expected = f"class ids {known[0]}..{known[-1]}{numbers} or 255 = void"
        remedy = "correct the list of classes, or the masks; grey levels that stand for classes are listed as colours"
        remedy = SMOOTHING if kinds > 5 else f"{remedy} are"
    for path, values in unknown.items():
        if values:
            found = f"holds {values[:5]}" + (f" and {len(values) - 5} more values" if len(values) > 5 else "")
            errors.add(f"expected {expected}; {remedy}", path, found)


def add_unlisted(masks: dict, unlisted: dict, classes: ClassList, errors: Problems, warnings: Problems) -> None:
    for path, number in unlisted.items():
        share = number / sum(masks[path].counts.values())
        if 0 < share <= MAX_UNLISTED:
            warnings.add(f"a few pixels have colours that {classes.path.name} does not list; they become void", path)
        elif share:
            color = max(set(colors_of(masks[path]).values()) - classes.color_ids.keys())
            errors.add(
                f"it has colours that {classes.path.name} does not list; is it the mask? List them, or make the mask "
                "again without smoothing, as a PNG", path, f"{share:.0%} of it, such as {show_color(color)}",
            )  # fmt: skip


def add_colors(masks: dict[Path, MaskInfo], classes: ClassList | None, errors: Problems) -> None:
    """classes: a list without colours, or None."""
    counts = Counter()
    for mask in masks.values():
        for value, color in colors_of(mask).items():
            counts[color] += mask.counts[value]
    shown = [f"{show_color(c)} ({n / counts.total():.2%})" for c, n in counts.most_common(SHOWN)]
    more = f" and {len(counts) - SHOWN} more" if len(counts) > SHOWN else ""
    colored = [path for path, mask in masks.items() if mask.values == "palette" or values_of(mask) is None]
    colored = colored or list(masks)
    some = " (is it the mask? the others hold none)" if len(colored) < len(masks) else ""
    own = f"; {classes.path.name} is there, but gives no colour to {classes.names[0]!r}" if classes else ""
    for path in colored:
        errors.add(
            f"it holds colours{some}, and no list says which class is which: found {', '.join(shown)}{more} in all "
            f"masks; write each with a name to classes.txt, a line 'NAME R,G,B' each, that of class 0 first{own}", path,
        )  # fmt: skip
