"""What a level of the network sees of a picture, its receptive field, and what it makes of it, its feature maps."""

from collections.abc import Sequence

import keras
import numpy as np
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..images import resize_image
from .figures import WIDTH, InlineFigure, new_figure
from .levels import Level, levels, receptive_fields

FONT = 13.5  # points
COLORS = ("#f0e442", "#e69f00", "#56b4e9", "#cc79a7", "#d55e00", "#0072b2")  # Okabe and Ito: for the colour-blind, too


def show_receptive_fields(
    model: keras.Model, image: np.ndarray, image_size: Sequence[int] | None = None, point: Sequence[int] | None = None
) -> InlineFigure:
    """The square that one value of each level sees, down to the bottom, drawn around one point of a picture.

    image: (H, W, C) uint8. image_size: (height, width) that the network sees; None: its own, or else the picture's.
    point: (row, column) at image_size; None: the middle. A square may be larger than the picture.
    Raises ValueError as `levels.receptive_fields` does.
    """
    own, image = tuple(model.inputs[0].shape[1:3]), np.asarray(image)
    height, width = image_size or (image.shape[:2] if None in own else own)
    row, column = point or (height // 2, width // 2)
    fields = receptive_fields(model)
    largest = max(fields.values()) / 2
    left, right = min(-0.5, column - largest) - 1, max(width - 0.5, column + largest) + 1
    top, bottom = min(-0.5, row - largest) - 1, max(height - 0.5, row + largest) + 1
    unit = (right - left) / (0.7 * WIDTH)  # pixels for an inch: the labels get three tenths of the figure
    sides = ", ".join(f"{name} {side} pixels" for name, side in fields.items())
    alt = f"What one value of each level sees of a picture of {height}x{width} pixels, side of the square: {sides}."
    figure, axes = new_figure(alt, size=(WIDTH, max((bottom - top) / unit, 0.4 * len(fields) + 0.2)))
    axes.set(xlim=(left, left + WIDTH * unit), ylim=(bottom, top), aspect="equal", anchor="N")
    axes.set_axis_off()
    axes.add_patch(Rectangle((left, top), right - left, bottom - top, facecolor="#e8e8e8", zorder=-1))
    axes.imshow(resize_image(image, (height, width)).numpy().squeeze(), cmap="gray", interpolation="none")
    axes.set(xlim=(left, left + WIDTH * unit), ylim=(bottom, top))  # imshow has changed them
    outline = [withStroke(linewidth=5, foreground="black")]
    for i, (name, side) in enumerate(reversed(fields.items())):
        color = COLORS[(len(fields) - 1 - i) % len(COLORS)]
        corner = (column - side / 2, row - side / 2)
        style = {"linewidth": 3, "path_effects": outline}
        axes.add_patch(Rectangle(corner, side, side, fill=False, edgecolor=color, **style))
        label_x, label_y = right + 0.35 * unit, top + (0.3 + 0.4 * i) * unit
        axes.plot([corner[0] + side, label_x], [corner[1], label_y], color=color, **style)
        axes.text(label_x + 0.1 * unit, label_y, f"{name}: {side} px", va="center", fontsize=FONT)
    return figure


def show_feature_maps(
    model: keras.Model, image: np.ndarray, shown: Sequence[Level] | None = None, n_maps: int = 6
) -> InlineFigure:
    """A row for each level: the picture and the feature maps that vary most; dark is small, bright is large.

    Each map has its own scale, from its smallest value to the one that a hundredth of its pixels exceeds.
    image: (H, W, C), 0..255, as large as the network's input.
    shown: levels from `levels.levels`; None: the first one, the bottom, and the last one of the way up.
    Raises ValueError if the picture does not fit the network.
    """
    image, n_channels = np.asarray(image, np.uint8), model.inputs[0].shape[-1]
    if image.ndim != 3 or image.shape[2] != n_channels:
        raise ValueError(f"image: expected one picture (height, width, {n_channels}), found the shape {image.shape}")
    found = levels(model, image.shape[:2])
    if shown is None:
        shown = [next(each for each in found if each.part == part) for part in ("down", "bottom")] + [found[-2]]
    features = keras.Model(model.inputs, [level.layer.output for level in shown])([image[None]], training=False)
    cell = WIDTH / (n_maps + 1)
    size = (WIDTH, len(shown) * (cell * image.shape[0] / image.shape[1] + 0.3))
    alt = f"Feature maps of {len(shown)} levels for a picture of {image.shape[0]}x{image.shape[1]} pixels."
    figure, axes = new_figure(alt, len(shown), n_maps + 1, size, squeeze=False)
    for row, level, answer in zip(axes, shown, features if len(shown) > 1 else [features], strict=True):
        maps = np.asarray(keras.ops.convert_to_numpy(answer)[0], np.float32)
        # By the largest value, a few bright pixels would be chosen first, and leave all else in their map dark.
        bright = np.maximum(np.percentile(maps, 99, axis=(0, 1)), 1e-6)
        strongest = np.argsort(-np.minimum(maps / bright, 1).var(axis=(0, 1)), kind="stable")[:n_maps]
        for panel in row:
            panel.set_axis_off()
        row[0].imshow(image.squeeze(), cmap="gray", interpolation="none")
        for panel, channel in zip(row[1:], strongest, strict=False):
            panel.imshow(maps[..., channel], cmap="cividis", interpolation="none", vmax=bright[channel])
        title = level.name + {"down": ", way down", "up": ", way up"}.get(level.part, "")
        title += f", {level.shape[0]}x{level.shape[1]}, {level.shape[2]} channels"
        row[len(row) // 2].set_title(title, fontsize=FONT)
        figure.alt += f" {title}: channels {', '.join(map(str, strongest))}, which vary most."
    return figure
