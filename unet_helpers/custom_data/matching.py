"""What names alone tell: which mask belongs to which image, and which folder or list is for which split."""

import os
import unicodedata
from collections.abc import Collection

SAMPLES = 3  # masks whose names are compared with those of the images; the first may have no image
SPLIT_NAMES = {  # of folders, in any case of letters, and of lists
    "train": ("train", "training", "train2017"), "validation": ("val", "valid", "validation", "val2017"),
    "test": ("test", "testing", "test2017"),
}  # fmt: skip
NEAREST = 20  # images that each of them is compared with: those whose names have most in common with it
# What surrounds the part of a name that an image and its mask have in common: (beginning, ending) of images, of masks.
Rule = tuple[tuple[str, str], tuple[str, str]]
SAME: Rule = (("", ""), ("", ""))


def normalize(name: str) -> str:
    """A name in the form that is compared: macOS may write ü as u and two dots, other systems as one letter."""
    return unicodedata.normalize("NFC", name)


def match(images: Collection[str], masks: Collection[str]) -> dict[str, str]:
    """{image: its mask}: stems that are equal but for a beginning or an ending that all images, or all masks, have."""
    of_images, of_masks = _find_rule(images, masks)
    mask_of = {_cut(mask, *of_masks): mask for mask in masks}
    keys = {image: _cut(image, *of_images) for image in images}
    return {image: mask_of[key] for image, key in keys.items() if key and key in mask_of}


def _cut(stem: str, begin: str, end: str) -> str | None:
    """A stem without this beginning and ending; None if it lacks them or they cut a number, as in frame_1, frame_15."""
    key = stem[len(begin) : len(stem) - len(end)]
    if not key or not (stem.startswith(begin) and stem.endswith(end)):
        return None
    cuts_number = begin[-1:].isdigit() and key[0].isdigit() or key[-1].isdigit() and end[:1].isdigit()
    return None if cuts_number else key


def _find_rule(images: Collection[str], masks: Collection[str]) -> Rule:
    """The rule that makes the most pairs: equal stems if they do, else an ending, else a beginning; the shortest."""
    if len(set(images) & set(masks)) == min(len(images), len(masks)):
        return SAME
    rules = {SAME}
    for mask in sorted(masks)[:SAMPLES]:
        for image, n in _nearest(mask, images):
            rules.add((("", image[n:]), ("", mask[n:])))
        for image, n in _nearest(mask[::-1], [image[::-1] for image in images]):
            rules.add(((image[n:][::-1], ""), (mask[: len(mask) - n], "")))

    def worth(rule: Rule) -> tuple:
        of_images, of_masks = rule
        keys = {_cut(stem, *of_images) for stem in images} & {_cut(stem, *of_masks) for stem in masks}
        n_pairs = len(keys - {None})
        if n_pairs == 1 < min(len(images), len(masks)) and rule != SAME:  # any two names are equal up to their ends
            n_pairs = 0
        return n_pairs, not (of_images[0] or of_masks[0]), -len("".join(of_images + of_masks)), rule

    return max(rules, key=worth)


def _nearest(mask: str, images: Collection[str]) -> list[tuple[str, int]]:
    """(name, number of first letters in common with the mask) of the `NEAREST` names."""
    common = {image: len(os.path.commonprefix([mask, image])) for image in images}
    return sorted(common.items(), key=lambda each: (-each[1], len(each[0])))[:NEAREST]
