"""Which value or colour of a data set's masks is which class: one rule for all of them, found by looking at all."""

from pathlib import Path
from typing import NamedTuple

from ..labels import VOID
from .classes import ClassList
from .misfits import add_colors, add_greys, add_unknown_values, add_unlisted, warn_of_start, warn_of_void
from .reading import Mask
from .report import Faults
from .values import (
    MAX_UNNAMED,
    are_grey_levels,
    are_red_and_white,
    colors_of,
    count_unknown,
    find_levels,
    find_scale,
    values_of,
)

WHERE = {
    "grey": "in one channel", "deep": "of 16 bits", "palette": "by the index of the palette", "bit": "of 1 bit",
    "color": "in the red channel",
}  # fmt: skip


class Coding(NamedTuple):
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

    def ids_of(self, mask: Mask) -> dict[int, int]:
        """{value in the file: class id or VOID} for all values that a mask holds."""
        meaning = colors_of(mask) if self.by == "color" else values_of(mask, self.levels, self.scale)
        return {value: self.ids.get(meant, VOID) for value, meant in meaning.items()}

    def keeps(self, mask: Mask) -> bool:
        """Whether training reads the same ids from the file as it is: ids in one channel or red, 255 for void."""
        is_red = mask.values == "grey" or (mask.values == "color" and not any(c & 0xFFFF for c in mask.counts))
        meaning = values_of(mask, self.levels, self.scale)
        return self.by == "value" and mask.plain and is_red and all(
            meaning[value] == k for value, k in self.ids_of(mask).items()
        )  # fmt: skip


def decide(masks: dict[Path, Mask], classes: ClassList | None, errors: Faults, warnings: Faults) -> Coding | None:
    """The rule for these masks. What does not follow it is added to the errors, a little noise to the warnings; None
    where there is no rule at all."""
    if classes and classes.otherwise:
        classes = choose_reading(masks, classes, warnings)
    listed = classes.color_ids if classes else {}
    unlisted = {path: count_unknown(mask, colors_of(mask), listed) for path, mask in masks.items()}
    by_color = classes and Coding("color", listed, classes.names, classes.colors, f"colours of {classes.path.name}")
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


def choose_reading(masks: dict[Path, Mask], classes: ClassList, warnings: Faults) -> ClassList:
    """The list with the numbers in front of its names as the masks' values, if the masks hold no others; else as parts
    of the names (2 way street), if the masks hold ids in the order of the lines. A note where it may be the other way.
    """
    whole = classes.otherwise
    fits, whole_fits = _follow(masks, classes), _follow(masks, whole)
    held = set().union(*(mask.counts for mask in masks.values()))
    if whole_fits and (fits or held & classes.value_ids.keys()):
        value, k = next(iter(classes.value_ids.items()))
        taken, remedy = f"the masks' values, so that {value} is {classes.names[k]!r}", f"0: {whole.names[0]}"
        if not fits:
            taken, remedy = f"parts of them, so that the first is {whole.names[0]!r}", f"{value}: {classes.names[k]}"
        sentence = f"the numbers in front of its names are taken as {taken}; if that is not so, write a value and a"
        warnings.add(f"{sentence} colon in front of each name, such as '{remedy}'", classes.path)
    return classes if fits or not whole_fits else whole


def _follow(masks: dict[Path, Mask], classes: ClassList) -> bool:
    """Whether all that the masks hold is listed, by colour or by value."""
    if classes.color_ids and not any(count_unknown(m, colors_of(m), classes.color_ids) for m in masks.values()):
        return True
    coding = _decide_values(masks, classes)
    return coding is not None and not any(
        count_unknown(mask, values_of(mask, coding.levels, coding.scale), coding.ids) for mask in masks.values()
    )


def _decide_values(masks: dict[Path, Mask], classes: ClassList | None) -> Coding | None:
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
        return Coding("value", {0: 0, 1: 1, VOID: 1}, names, colors, says, levels, scale)
    present |= {0, 1} if bits else set()
    found = sorted(present - {VOID})
    if classes is None:
        names = tuple(f"class {value}" for value in found)
        ids = {value: k for k, value in enumerate(found[:MAX_UNNAMED])} if len(found) <= MAX_UNNAMED else {}
        return Coding("value", ids | {VOID: VOID}, names, (), says, levels, scale)
    starts_at_1 = bool(found) and found[0] >= 1 and found[-1] == n and not classes.numbered
    says += f", from 1: 1 is {names[0]!r}" if starts_at_1 else ""
    says += f", with the numbers of {classes.path.name}" if classes.numbered else ""
    ids = {value + starts_at_1: k for value, k in classes.value_ids.items()}
    return Coding("value", {VOID: VOID} | ids, names, colors, says, levels, scale)


def _palettes_contradict(masks: dict[Path, Mask], by_value: Coding, listed: dict[int, int]) -> bool:
    """Whether a place in a palette has the listed colour of one class and is the number of another: then the places
    mean nothing, even if a few colours are not listed."""
    places = [place for mask in masks.values() if mask.values == "palette" for place in mask.palette.items()]
    return not by_value.levels and any(
        by_value.ids[index] != listed[color] for index, color in places if index in by_value.ids and color in listed
    )
