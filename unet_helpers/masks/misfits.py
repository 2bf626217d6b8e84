"""What is said of masks that do not follow the rule of `coding.Coding`, or may be meant in another way."""

from collections import Counter
from pathlib import Path

from ..labels import VOID
from .classes import BACKGROUND, VOID_NAME, ClassList
from .reading import Mask
from .report import Faults
from .values import MAX_UNNAMED, MIDDLE, colors_of, show_color, values_of

MAX_UNLISTED = 0.01  # share of a mask's pixels; a few are noise and become void, more are another kind of file
SHOWN = 20  # colours that are shown to be named
SMOOTHING = "smoothing makes such values: make the masks smaller by nearest neighbour only, and never as JPEG"


def warn_of_void(meanings: dict[Path, dict], ids: dict, classes: ClassList | None, warnings: Faults) -> None:
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


def warn_of_start(values: set[int], ids: dict, classes: ClassList | None, warnings: Faults) -> None:
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


def add_greys(meanings: dict[Path, dict], errors: Faults) -> None:
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


def add_unknown_values(meanings: dict[Path, dict], ids: dict, classes: ClassList | None, errors: Faults) -> None:
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


def add_unlisted(masks: dict, unlisted: dict, classes: ClassList, errors: Faults, warnings: Faults) -> None:
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


def add_colors(masks: dict[Path, Mask], classes: ClassList | None, errors: Faults) -> None:
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
