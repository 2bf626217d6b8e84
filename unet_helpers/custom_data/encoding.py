"""Which value or colour of a data set's masks is which class: one rule for all of them, decided by looking at all."""

from collections import Counter
from collections.abc import Collection, Iterable
from pathlib import Path
from typing import NamedTuple

from ..images import MaskInfo
from ..labels import VOID
from ..naming import counted
from .class_lists import BACKGROUND, VOID_NAME, ClassList
from .report import Problems, few

MAX_UNNAMED = 64  # different values without a list of names; more are no classes
MAX_UNLISTED = 0.01  # share of a mask's pixels; a few are noise and become void, more are another kind of file
MIDDLE = 127  # of a grey scale; where no list says so, ids are not as large
SHOWN = 20  # colours that are shown to be named
NAME_THEM = "if they are classes, list them all in classes.txt, grey levels as lines 'NAME 255,255,255'"
WHITE, GREY_STEP = 0xFFFFFF, 0x010101

Masks = dict[Path, MaskInfo]
Meanings = dict[Path, dict[int, int]]  # of each mask: value in the file -> value or colour that it stands for


class Encoding(NamedTuple):
    meanings: Meanings
    ids: dict[int, int]  # value, or colour 65536 r + 256 g + b -> class id or VOID
    names: tuple[str, ...]  # of the K classes
    colors: tuple[tuple[int, int, int], ...]  # of the K classes; () if not known
    says: str  # the rule, for people

    def count_unknown(self, masks: Masks) -> Counter[Path]:
        """How many pixels of each mask have a meaning that is no class."""
        unknown: Counter[Path] = Counter()
        for path, mask in masks.items():
            unknown[path] = sum(mask.counts[value] for value, k in self.meanings[path].items() if k not in self.ids)
        return unknown

    def values(self) -> set[int]:
        """All values or colours that the masks' values stand for."""
        return set().union(*(meaning.values() for meaning in self.meanings.values()))


def decide(masks: Masks, classes: ClassList | None, errors: Problems, warnings: Problems) -> Encoding | None:
    """The rule for these masks, or None. What breaks it is added to the errors, a little noise to the warnings."""
    by_color, unlisted = None, Counter()
    if classes and classes.color_ids:
        meanings, says = {path: _colors_of(mask) for path, mask in masks.items()}, f"colours of {classes.path.name}"
        by_color = Encoding(meanings, classes.color_ids, classes.names, classes.colors, says)
        unlisted = by_color.count_unknown(masks)
        if not unlisted.total():
            return by_color
    by_value = _by_value(masks, classes) if not classes or classes.value_ids else None
    if by_value:
        n_unknown = by_value.count_unknown(masks).total()
        # Ids are small, but resizing and JPEG make values in both halves of a grey scale.
        reaches_white = {0, VOID} <= by_value.values() and any(MIDDLE <= value < VOID for value in by_value.values())
        if reaches_white and (not classes or len(classes.names) == 2 and n_unknown):
            sentence = "it holds values between 0 and 255, as resizing or JPEG makes of masks of these two; make what "
            sentence += f"is 128 or more 255, the rest 0, and save it as a PNG, or, {NAME_THEM}"
            _add_values(sentence, by_value, (0, VOID), errors)
            return by_value
        if not n_unknown:
            if by_value.ids[VOID] == VOID:
                _warn_of_void(by_value, warnings)
                _warn_of_start(by_value, classes, warnings)
            return by_value
        if not by_color or n_unknown <= unlisted.total():
            _add_unknown_values(by_value, classes, errors)
            return by_value
    if by_color:
        _add_unlisted(masks, by_color, unlisted, classes, errors, warnings)
        return by_color
    _add_colors(masks, errors)
    return None


def _colors_of(mask: MaskInfo) -> dict[int, int]:
    """{value in the file: its colour 65536 r + 256 g + b}; -1 for what has none."""
    if mask.values in ("color", "palette"):
        return mask.palette or {color: color for color in mask.counts}
    step = WHITE if mask.values == "bit" else GREY_STEP
    return {value: value * step if value < 256 else -1 for value in mask.counts}


def _by_value(masks: Masks, classes: ClassList | None) -> Encoding | None:
    """The rule if all masks hold values, not colours; its ids may lack some of them."""
    n = max(classes.value_ids) + 1 if classes else None
    levels = _are_palettes_grey(masks.values(), MAX_UNNAMED if n is None else n)
    meanings = _values_of(masks, levels)
    if meanings is None or levels is None:
        return None
    present = {value for path, meaning in meanings.items() if masks[path].values != "bit" for value in meaning.values()}
    bits = any(mask.values == "bit" for mask in masks.values())
    palette = f", of a palette the {'grey' if levels else 'index'}"
    says = f"class ids{palette * any(mask.values == 'palette' for mask in masks.values())}"
    names, colors = (classes.names, classes.colors) if classes else (("background", "foreground"), ())
    counted = classes is None or not classes.numbered or set(classes.value_ids) in ({0, 1}, {0, VOID})
    found = sorted((present | ({0, 1} if bits else set())) - {VOID})
    if present <= {0, VOID} and (VOID in present or bits) and len(names) == 2 and counted:
        says = f"0 and {'255' if VOID in present else '1'} in all masks: 0 is {names[0]!r}, the other {names[1]!r}"
        ids = {0: 0, 1: 1, VOID: 1}
    elif classes is None:
        names = tuple(f"class {value}" for value in found)
        are_ids = len(found) <= MAX_UNNAMED and max(found, default=0) < VOID  # else 8 bits may be spread over 16
        ids = {VOID: VOID} | ({value: k for k, value in enumerate(found)} if are_ids else {})
    else:
        starts_at_1 = bool(found) and found[0] >= 1 and found[-1] == n and not classes.numbered
        says += f", from 1: 1 is {names[0]!r}" if starts_at_1 else ""
        ids = {VOID: VOID} | {value + starts_at_1: k for value, k in classes.value_ids.items()}
    encoding = Encoding(meanings, ids, names, colors, says)
    used = {place for mask in masks.values() for place in mask.palette.items() if classes and not levels}
    # An index that has the listed colour of one class and is the number of another means nothing, nor do all others.
    contradict = any(ids[k] != classes.color_ids[c] for k, c in used if k in ids and c in classes.color_ids)
    return None if contradict else encoding


def _values_of(masks: Masks, levels: bool | None) -> Meanings | None:
    """Of each mask {value in the file: the id that it may stand for}; None if some hold colours. levels: whether the
    grey of a palette's colours is the value, not their index."""
    colors = {color for mask in masks.values() if mask.values == "color" for color in mask.counts}
    shift = 0 if _are_grey(colors) else 16
    if shift and any(color & 0xFFFF for color in colors):  # reds beside greys are colours, too
        return None
    meanings = {}
    for path, mask in masks.items():
        meanings[path] = {value: value for value in mask.counts}
        if mask.values == "color":
            meanings[path] = {color: color >> shift & 255 for color in mask.counts}
        elif mask.values == "palette" and levels:
            meanings[path] = {index: color & 255 for index, color in mask.palette.items()}
        elif mask.values == "deep":
            meanings[path] = {value: VOID if value == 0xFFFF else value for value in mask.counts}
    return meanings


def _are_grey(colors: Iterable[int]) -> bool:
    return all(color == (color & 255) * GREY_STEP for color in colors)


def _are_palettes_grey(masks: Iterable[MaskInfo], n: int) -> bool | None:
    """Whether the grey of the palettes' colours is the value, and not their index; None if neither can be. Programs
    that make files small (GIF, above all) give indices anew in each file; then the colours alone have a meaning."""
    palettes = [mask.palette for mask in masks if mask.values == "palette"]
    used = {color for palette in palettes for color in palette.values()}
    seen: dict[int, int] = {}
    same = all(seen.setdefault(index, color) == color for palette in palettes for index, color in palette.items())
    if not _are_grey(used):
        return False if same else None
    levels = {color & 255 for color in used}
    return levels <= {0, 255} or not same or max(levels - {255}, default=0) <= n


def _add_values(sentence: str, encoding: Encoding, known: Collection[int], problems: Problems) -> None:
    """Name the masks that hold other values than the known ones."""
    for path, meaning in encoding.meanings.items():
        if values := sorted(set(meaning.values()) - set(known)):
            more = f" and {counted(len(values) - 5, 'more value')}" if len(values) > 5 else ""
            problems.add(sentence, path, f"holds {values[:5]}{more}")


def _warn_of_void(encoding: Encoding, warnings: Problems) -> None:
    """One value too much in one mask makes 255 void in all; where most have no other value, that is seldom meant."""
    if 2 * sum(set(held.values()) == {0, VOID} for held in encoding.meanings.values()) > len(encoding.meanings):
        sentence = f"it holds more than 0 and 255, so that 255 is void in all masks; mend this mask, or {NAME_THEM}"
        _add_values(sentence, encoding, (0, VOID), warnings)


def _warn_of_start(encoding: Encoding, classes: ClassList | None, warnings: Problems) -> None:
    """Warn if ids may begin with 1, their last class being absent: no mask holds 0, or most names are not used."""
    if classes is None or classes.numbered or encoding.ids.get(0) != 0:
        return
    found, first, n = encoding.values() - {VOID}, classes.names[0], len(classes.names)
    if found and (0 not in found or 2 * len(found) < n and first.lower() != BACKGROUND):
        sentence = f"0 is taken as {first!r}, though the masks hold only {len(found)} of {n} ids; if not, write each "
        sentence += f"id in front of its name in classes.txt, such as '1 {first}', and '0 {VOID_NAME}' if 0 is no class"
        warnings.add(sentence, warnings.root)


def _add_unknown_values(encoding: Encoding, classes: ClassList | None, errors: Problems) -> None:
    known = sorted(encoding.ids.keys() - {VOID})
    expected = f"at most {MAX_UNNAMED} class ids, 0..254, where no list names them"
    if classes:
        expected = f"class ids {known[0]}..{known[-1]} of {classes.path.name} or 255 = void"
    sentence = f"expected {expected}; {NAME_THEM}; else correct the masks: resizing makes such values, so make them "
    _add_values(f"{sentence}smaller by nearest neighbour only, and never as JPEG", encoding, encoding.ids, errors)


def _add_unlisted(masks: Masks, by_color: Encoding, unlisted: Counter[Path], classes, errors, warnings) -> None:
    for path, number in unlisted.items():
        share = number / sum(masks[path].counts.values())
        if 0 < share <= MAX_UNLISTED:
            warnings.add(f"a few pixels have colours that {classes.path.name} does not list; they become void", path)
        elif share:
            color = max(set(by_color.meanings[path].values()) - by_color.ids.keys())
            sentence = f"it has colours that {classes.path.name} does not list; is it the mask? List them, or make the "
            sentence += "mask again by nearest neighbour, as a PNG"
            errors.add(sentence, path, f"{share:.0%} of it, such as {_show_color(color)}")


def _add_colors(masks: Masks, errors: Problems) -> None:
    counts: Counter[int] = Counter()
    for mask in masks.values():
        for value, color in _colors_of(mask).items():
            counts[color] += mask.counts[value]
    shown = few([f"{_show_color(c)} ({n / counts.total():.2%})" for c, n in counts.most_common()], SHOWN)
    sentence = f"it holds colours, and no list says which class is which: found {shown} in all masks; write each with "
    sentence += "a name to classes.txt, a line 'NAME R,G,B' each, that of class 0 first"
    for path, mask in masks.items():
        if mask.values in ("color", "palette"):
            errors.add(sentence, path)


def _show_color(color: int) -> str:
    """65536 r + 256 g + b -> "R,G,B"."""
    return ",".join(map(str, color.to_bytes(3))) if color >= 0 else "no colour of 8 bits"
