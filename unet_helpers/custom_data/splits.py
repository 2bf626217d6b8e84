"""Which pairs train, validate and test: as folders, lists, groups or blocks say, the same on every machine."""

import re
from collections.abc import Sequence
from itertools import accumulate

from ..labels import SPLITS
from ..naming import counted, named
from .layout import Found, read_list
from .matching import normalize

MIN_PAIRS = 4  # a network learns nothing from fewer, and one of them must validate


def natural(name: str) -> list:
    """Key that sorts p2 before p10: frames of a sequence in their order."""
    return [(int(part), "") if part.isdecimal() else (-1, part) for part in re.split(r"(\d+)", name)]


def cut_blocks(n: int) -> tuple[int, int]:
    """Where validation and test begin in n things in a row: 70 %, 15 %, 15 %, one at least validates, and fewer than 6
    have no test. Blocks, not a random choice: neighbours in a sequence look alike and belong on one side."""
    first, second = min(round(0.7 * n), n - 1), round(0.85 * n)
    return first, max(second, first + 1)


def split_items(found: Found, split_by: str | None, to_train: bool = True) -> list[str | None]:
    """For each item "train", "validation", "test", or None where it is in no list. The folders tell it; else root's
    train.txt, val.txt and perhaps test.txt, a name a line; else split_by, a regular expression that finds the group in
    an image's stem: groups are not cut; else blocks of the names in their natural order. Files without a partner keep
    their places: else what was learned could come to the test. to_train: whether there must be MIN_PAIRS, and some to
    train and to validate. Raises ValueError if a list is no text."""
    n_pairs, found = len(found.items), found._replace(items=found.items + found.lonely)
    items, root, errors, warnings = found.items, found.errors.root, found.errors, found.warnings
    by_folders = any(item.split for item in items)
    if by_folders:
        splits = _split_by_folders(found)
    elif found.lists:
        splits = _split_by_lists(found)
    elif split_by is not None:
        splits = _split_by_groups(found, split_by)
    else:
        order = sorted(range(len(items)), key=lambda k: (natural(items[k].stem), items[k].stem))
        splits = _place([[k] for k in order], *cut_blocks(len(items)), len(items))
    if split_by is not None and (found.lists or by_folders):
        warnings.add("the pattern for groups in names is not used, because folders or lists tell the splits", root)
    if to_train and len(items) < MIN_PAIRS and not errors.files_of:
        found_pairs = f"found {counted(len(items), 'pair')}, expected {MIN_PAIRS} at least"
        errors.add(f"{found_pairs}, one of them to validate; add some", root)
    for name in ("train", "validation") if to_train else ():
        if items and name not in splits and not errors.files_of:
            sentence = f"no pair is for {name}, expected one at least; put some there, or let the pattern find more"
            errors.add(sentence, root)
    return splits[:n_pairs]


def _place(groups: Sequence[Sequence[int]], first: int, second: int, n: int) -> list[str | None]:
    """The splits of n items, given the indices in each group: groups from first on validate, from second on test."""
    names = [SPLITS[(place >= first) + (place >= second)] for place in range(len(groups))]
    split_of = {k: name for name, group in zip(names, groups, strict=True) for k in group}
    return [split_of.get(k) for k in range(n)]


def _split_by_folders(found: Found) -> list[str | None]:
    splits = [item.split for item in found.items]
    if "validation" not in splits and (train := [k for k, split in enumerate(splits) if split == "train"]):
        for k in sorted(train, key=lambda k: natural(found.items[k].stem))[-max(1, round(0.15 * len(train))) :]:
            splits[k] = "validation"
        what = "there are no pairs for validation; the last of the training pairs are taken"
        found.warnings.add(what, found.warnings.root)
    return splits


def _split_by_lists(found: Found) -> list[str | None]:
    split_of: dict[str, str | None] = {normalize(item.stem): None for item in found.items}
    for split, path in found.lists.items():
        for line_number, line, names in read_list(path):
            where, name = f"line {line_number}: {line!r}", next((name for name in names if name in split_of), None)
            if name is None:
                found.errors.add("there is no pair of this name; correct the list", path, where)
            elif split_of[name] not in (None, split):
                where += f" is also for {split_of[name]}"
                found.errors.add("this pair is in two lists; keep one of them", path, where)
            else:
                split_of[name] = split
    splits = [split_of[normalize(item.stem)] for item in found.items]
    for item, split in zip(found.items, splits, strict=True):
        if split is None:
            found.warnings.add("it is in none of the lists; it is left out", item.image)
    return splits


def _split_by_groups(found: Found, split_by: str) -> list[str | None]:
    """Cuts between groups, nearest to 70 % and 85 % of the pairs; each part has a group, if there are three."""
    groups: dict[str, list[int]] = {}
    pattern, n = f"{named('SPLIT_BY')} {split_by!r}", len(found.items)
    for k, item in enumerate(found.items):
        if match := re.search(split_by, item.stem):
            groups.setdefault(next((part for part in match.groups() if part), match[0]), []).append(k)
        else:
            found.errors.add(f"{pattern} finds no group in its name; correct the pattern", item.image)
    names = sorted(groups, key=natural)
    if len(names) < 2:
        return ["train"] * n
    ends = [0, *accumulate(len(groups[name]) for name in names)]
    first = min(range(1, len(names) - (len(names) > 2)), key=lambda cut: abs(ends[cut] - 0.7 * n))
    second = min(range(first + 1, len(names)), key=lambda cut: abs(ends[cut] - 0.85 * n), default=len(names))
    return _place([groups[name] for name in names], first, second, n)
