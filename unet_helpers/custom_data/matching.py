"""Which mask belongs to which picture, told by their names alone."""

import os
import unicodedata
from collections.abc import Collection
from typing import NamedTuple

SAMPLES = 3  # masks whose names are compared with those of the pictures; the first may be without a picture
NEAREST = 20  # pictures that each of them is compared with: those whose names have most in common with it


class Rule(NamedTuple):
    """What is around the part of a name that a picture and its mask have in common: of all pictures, of all masks."""

    image_begin: str = ""
    image_end: str = ""
    mask_begin: str = ""
    mask_end: str = ""

    def image_key(self, stem: str) -> str | None:
        return _cut(stem, self.image_begin, self.image_end)

    def mask_key(self, stem: str) -> str | None:
        return _cut(stem, self.mask_begin, self.mask_end)


class Matched(NamedTuple):
    """mask_of: {stem of a picture: that of its mask}. several: {stem of a picture: those of all masks that may be its},
    where there is more than one; such a picture is not in mask_of.
    """

    mask_of: dict[str, str]
    several: dict[str, list[str]]


def normalize(name: str) -> str:
    """A name as it compares: Macs may write ü as u and two dots, others as one letter."""
    return unicodedata.normalize("NFC", name)


def match(images: Collection[str], masks: Collection[str]) -> Matched:
    """Pairs of stems that are equal up to a beginning or an ending that all pictures, or all masks, have."""
    rule = _find_rule(images, masks)
    by_key = {rule.mask_key(mask): mask for mask in masks}
    by_key.pop(None, None)
    keys = {stem: rule.image_key(stem) for stem in images}
    mask_of = {stem: by_key[key] for stem, key in keys.items() if key in by_key}
    owners = {key: stem for stem, key in keys.items() if key} | {stem: stem for stem in images}
    masks_of: dict[str, list[str]] = {stem: [mask] for stem, mask in mask_of.items()}
    for mask in sorted(set(masks) - set(mask_of.values())):
        owner = _find_owner(mask, owners)
        if owner:
            masks_of.setdefault(owner, []).append(mask)
    several = {stem: sorted(names) for stem, names in masks_of.items() if len(names) > 1}
    return Matched({stem: mask for stem, mask in mask_of.items() if stem not in several}, several)


def _cut(stem: str, begin: str, end: str) -> str | None:
    """What is left of a stem without this beginning and ending; None if it lacks them, or if they cut through a number:
    frame_1 and frame_15 are two frames, not one with an ending."""
    key = stem[len(begin) : len(stem) - len(end)]
    if not key or not (stem.startswith(begin) and stem.endswith(end)):
        return None
    cuts_number = begin[-1:].isdigit() and key[0].isdigit() or key[-1].isdigit() and end[:1].isdigit()
    return None if cuts_number else key


def _find_rule(images: Collection[str], masks: Collection[str]) -> Rule:
    """The rule that makes the most pairs: equal stems if they do, else an ending, else a beginning; the shortest."""
    if len(set(images) & set(masks)) == min(len(images), len(masks)):
        return Rule()
    rules = {Rule()}
    for mask in sorted(masks)[:SAMPLES]:
        common = {stem: len(os.path.commonprefix([mask, stem])) for stem in images}
        for stem in _nearest(common):
            rules.add(Rule(image_end=stem[common[stem] :], mask_end=mask[common[stem] :]))
        common = {stem: len(os.path.commonprefix([mask[::-1], stem[::-1]])) for stem in images}
        for stem in _nearest(common):
            rules.add(Rule(stem[: len(stem) - common[stem]], "", mask[: len(mask) - common[stem]], ""))

    def worth(rule: Rule) -> tuple:
        n_pairs = len({rule.image_key(stem) for stem in images} & {rule.mask_key(stem) for stem in masks} - {None})
        if n_pairs == 1 < min(len(images), len(masks)) and rule != Rule():  # any two names are equal up to their ends
            n_pairs = 0
        return n_pairs, not (rule.image_begin or rule.mask_begin), -sum(map(len, rule)), rule

    return max(rules, key=worth)


def _nearest(common: dict[str, int]) -> list[str]:
    """The stems with the most letters in common, those that have none left out."""
    stems = sorted(common, key=lambda stem: (-common[stem], len(stem)))[:NEAREST]
    return [stem for stem in stems if common[stem]]


def _find_owner(mask: str, owners: dict[str, str]) -> str | None:
    """The picture that a mask without a partner may belong to: its name begins or ends with the longest of the keys of
    owners, and words end there."""
    for n in range(len(mask) - 1, 0, -1):
        for key, edge in ((mask[:n], mask[n - 1 : n + 1]), (mask[-n:], mask[-n - 1 :][:2])):
            if key in owners and not edge.isalnum():
                return owners[key]
    return None
