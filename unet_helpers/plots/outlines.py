"""Masks that are read without telling colours apart: lines between the classes, and names where colours are close."""

import numpy as np
from matplotlib.collections import LineCollection
from matplotlib.patheffects import withStroke

from ..labels import LabelMap, class_pixels

FONT = 10  # points


def draw_outline(axes, mask: np.ndarray, labels: LabelMap, width: float) -> None:
    """Draw into the axes of a mask, `width` inches wide, what its colours do not tell everybody.

    mask: (H, W) uint8 class ids. A class is named once, if its colour is close to another's that is there, too, and
    unless the name of a larger class is in the way.
    """
    point = mask.shape[1] / (72 * width)  # a point in pixels of the mask
    step = max(1, mask.shape[1] // 1000)  # more lines than a figure has pixels take seconds
    lines = borders(mask[::step, ::step]) * step + (step - 1) / 2
    axes.add_collection(LineCollection(lines, colors="white", linewidths=min(0.6, 0.3 * step / point)))
    taken = []
    for k in hard_to_tell(mask, labels):
        name = labels.names[k]
        row, column, radius = middle(mask == k)
        high, wide = 0.5 * FONT * point, 0.34 * FONT * len(name) * point  # half the size of the text
        if radius < high:  # above the thing, which the text would hide
            row -= radius + 1.4 * high
        row, column = np.clip(row, high, mask.shape[0] - high), np.clip(column, wide, mask.shape[1] - wide)
        if all(abs(row - r) > high + h or abs(column - c) > wide + w for r, c, h, w in taken):
            taken.append((row, column, high, wide))
            edge = [withStroke(linewidth=2, foreground="black")]
            axes.text(column, row, name, color="white", size=FONT, ha="center", va="center", path_effects=edge)


def borders(mask: np.ndarray) -> np.ndarray:
    """(N, 2, 2) ends (x, y) of each line between two pixels of different classes; pixels are centred on integers."""
    y, x = np.nonzero(mask[1:] != mask[:-1])
    flat = np.stack([x - 0.5, y + 0.5, x + 0.5, y + 0.5], axis=-1)
    y, x = np.nonzero(mask[:, 1:] != mask[:, :-1])
    upright = np.stack([x + 0.5, y - 0.5, x + 0.5, y + 0.5], axis=-1)
    return np.concatenate([flat, upright]).reshape(-1, 2, 2)


def hard_to_tell(mask: np.ndarray, labels: LabelMap) -> np.ndarray:
    """Ids of the classes in the mask, large ones first, whose colour is near another's in it for the red-green blind.

    To them, a colour is little more than its brightness and its share of blue.
    """
    pixels = class_pixels(mask, labels)
    present = np.flatnonzero(pixels)
    seen = labels.palette[present] @ np.array([[0.3, 0], [0.59, 0], [0.11, 1]])
    apart = np.linalg.norm(seen[:, None] - seen, axis=-1)
    np.fill_diagonal(apart, np.inf)
    close = present[apart.min(axis=1, initial=np.inf) < 60]
    return close[np.argsort(-pixels[close])]


def middle(region: np.ndarray) -> tuple[int, int, int]:
    """Row and column of a pixel of the region (H, W) bool far from the region's border, and how far, in pixels."""
    step = max(1, region.shape[1] // 128)
    if not region[::step, ::step].any():
        step = 1
    region, radius = np.pad(region[::step, ::step], 1), 0
    while region.any():  # peel it until nothing is left
        inner, radius = region, radius + 1
        region = inner.copy()
        region[1:-1, 1:-1] &= inner[:-2, 1:-1] & inner[2:, 1:-1] & inner[1:-1, :-2] & inner[1:-1, 2:]
    spots = np.argwhere(inner) - 1
    row, column = spots[len(spots) // 2] * step
    return row, column, radius * step
