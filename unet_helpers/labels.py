"""What a class id means: names, colours and void, and the tables that turn the values of mask files into ids."""

import numbers
import re
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple

import numpy as np

# Control characters, line ends, changes of the writing direction, and surrogates (bytes that are not UTF-8); no tabs.
CONTROL = re.compile(r"[\0-\x08\n-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069\ud800-\udfff]")
SPLITS = ("train", "validation", "test")
DATASETS = ("demo", "lyft", "camvid", "folder")  # the names of the data sets that we know
VOID = 255  # class id of the pixels that are neither learned nor scored


def printable(text: str) -> str:
    """Text that is safe to print: each `CONTROL` character but the line end is escaped as in Python, as \\x1b."""
    return CONTROL.sub(lambda found: found[0] if found[0] == "\n" else ascii(found[0])[1:-1], text)


class Pair(NamedTuple):  # an image file and its mask file, of the same stem
    image: Path
    mask: Path


@dataclass(frozen=True)
class LabelMap:
    """The K classes of a data set, in the order of their ids. Raises ValueError for a field that makes no sense."""

    names: tuple[str, ...]  # K class names
    colors: tuple[tuple[int, int, int], ...]  # K (red, green, blue) triples, 0..255, to show masks only
    void_values: tuple[int, ...] = (VOID,)  # values in mask files that mean void; 0..K-1 are the class ids themselves
    ego_class: int | None = None  # id of the class that the camera's own car is labelled with, None if it is not seen
    # (H, W) bool, pixels that are void in each mask of this size, such as the camera's own car; None without any.
    void_pixels: np.ndarray | None = field(default=None, compare=False, repr=False)

    def __post_init__(self):
        are_names = _are(str, self.names) and 2 <= len(set(self.names)) == len(self.names) <= VOID
        are_colors = _are((tuple, list), self.colors) and all(len(c) == 3 and _are_bytes(c) for c in self.colors)
        are_colors = are_colors and are_names and len(self.colors) == len(self.names)
        void = self.void_pixels
        is_map = void is None or isinstance(void, np.ndarray) and void.ndim == 2 and void.dtype == bool
        for name, right, expected in (
            ("names", are_names, f"2 to {VOID} different texts"),
            ("names", are_names and not any(map(CONTROL.search, self.names)), "no control characters"),
            ("colors", are_colors, "(red, green, blue), one for each name"),
            ("void_values", _are_bytes(self.void_values), "whole numbers, 0..255"),
            ("ego_class", self.ego_class is None or _are_bytes([self.ego_class]), "None or a class id"),
            ("void_pixels", is_map, "None or (H, W) bool"),
        ):
            if not right:
                raise ValueError(f"{name}: found {getattr(self, name)!r}, expected {expected}")

    @property
    def n_classes(self) -> int:
        """K, the number of classes; void is none of them."""
        return len(self.names)

    @property
    def value_to_id(self) -> np.ndarray:
        """(256,) uint8: value in a mask file -> class id 0..K-1 or VOID."""
        ids = np.arange(256, dtype=np.uint8)
        return np.where((ids < self.n_classes) & ~np.isin(ids, self.void_values), ids, np.uint8(VOID))

    def ids_of(self, values: np.ndarray) -> np.ndarray:
        """(H, W) uint8 values of a mask file -> (H, W) uint8 class ids 0..K-1 or VOID."""
        ids = self.value_to_id[values]
        if self.void_pixels is not None and self.void_pixels.shape == values.shape:
            ids[self.void_pixels] = VOID
        return ids

    @property
    def known_values(self) -> np.ndarray:
        """(256,) bool: which values may occur in a mask file."""
        return (self.value_to_id != VOID) | np.isin(np.arange(256), self.void_values)

    @property
    def palette(self) -> np.ndarray:
        """(256, 3) uint8: class id -> colour; void is white, which no class uses."""
        palette = np.full((256, 3), 255, np.uint8)
        palette[: self.n_classes] = self.colors
        return palette


def _are(kind, values) -> bool:
    return isinstance(values, (tuple, list)) and all(isinstance(value, kind) for value in values)


def _are_bytes(values) -> bool:
    return _are(numbers.Integral, values) and all(0 <= n <= 255 and not isinstance(n, bool) for n in values)


def colorize(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """Show a mask: (H, W) uint8 ids -> (H, W, 3) uint8 colours. A class has the same colour everywhere."""
    return labels.palette[mask]


def class_pixels(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """(K,) int64: how many pixels of each class a mask (..., uint8 ids) has; void is not counted."""
    return np.bincount(mask.ravel(), minlength=256)[: labels.n_classes]


# CARLA 0.8, as in Kaggle's Lyft/Udacity set, where the camera's bonnet is a vehicle: `load_dataset` makes it void.
CARLA = LabelMap(
    names=(
        "none (sky)", "building", "fence", "other", "pedestrian", "pole", "road line", "road", "sidewalk", "vegetation",
        "vehicle", "wall", "traffic sign",
    ),
    colors=(
        (0, 0, 0), (70, 70, 70), (190, 153, 153), (72, 0, 90), (220, 20, 60), (153, 153, 153), (157, 234, 50),
        (128, 64, 128), (244, 35, 232), (107, 142, 35), (0, 0, 255), (102, 102, 156), (220, 220, 0),
    ),
    ego_class=10,
)  # fmt: skip

# CamVid's eleven classes in the order that SegNet gave them; its files hold 11 for void.
CAMVID = LabelMap(
    names=("sky", "building", "pole", "road", "pavement", "tree", "sign", "fence", "car", "pedestrian", "bicyclist"),
    colors=(
        (128, 128, 128), (128, 0, 0), (192, 192, 128), (128, 64, 128), (60, 40, 222), (128, 128, 0), (192, 128, 128),
        (64, 64, 128), (64, 0, 128), (64, 64, 0), (0, 128, 192),
    ),
    void_values=(11, VOID),
)  # fmt: skip
