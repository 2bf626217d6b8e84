"""Figures of a U-Net, made from its layers: the U, the receptive fields, the feature maps."""

from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from ..images import resize_image
from .figures import BLUE, ORANGE, PINK, RED, SKY, WIDTH, YELLOW, InlineFigure, new_figure
from .levels import Level, receptive_fields, unet_levels

FONT = 14  # points
UNITS = 12  # lengths in the U are twelfths of the figure's width
TALLEST, ARROW, ROW_GAP, LETTER = 1.7, 0.45, 0.55, 0.175  # highest box, room for an arrow, between rows, for a letter
BOXES = {"entering": "#d3ebf8", "skip": "#f3d3e4", "out": SKY}
ARROWS = {  # kind -> its sign in the legend, its colour
    "convolutions": (r"$\rightarrow$", "black"),
    "max pooling": (r"$\downarrow$", RED),
    "convolution, stride 2": (r"$\downarrow$", "#8c510a"),
    "up-convolution": (r"$\uparrow$", BLUE),
    "skip connection": (r"$\rightarrow$", PINK),
    "skip connection, cropped": (r"$\rightarrow$", PINK),
    "1x1 convolution": (r"$\rightarrow$", ORANGE),
}


def draw_unet(model: keras.Model, image_size: Sequence[int] | None = None) -> InlineFigure:
    """The U of a network: boxes for what each level gets (pale) and puts out, arrows between.

    "96x128, 16" is height x width, channels. A box grows with the root of its height and of its channels.
    image_size: (height, width) of the image, needed if the network takes any.
    Raises ValueError as `unet_levels` does.
    """
    found = unet_levels(model, image_size)
    for scale in np.linspace(1.3, 0.2, 23):  # the widest boxes that leave room for the labels
        boxes, right = _place(found, scale)
        if right <= UNITS:
            break
    top, bottom = boxes[0]["out"].y1 + 0.9, min(parts["out"].y0 for parts in boxes) - 0.1
    width = max(UNITS, right)
    figure, axes = new_figure(_describe(found), size=(WIDTH, (top - bottom) * WIDTH / width + 0.75))
    axes.set(xlim=(0, width), ylim=(bottom, top), aspect="equal")
    axes.set_axis_off()
    drawn = set()
    for i in range(len(found)):
        _draw_boxes(axes, found[i], boxes[i], last=i == len(found) - 2)
        for kind, start, end in _arrows(found, boxes, i):
            drawn.add(kind)
            style = {"arrowstyle": "-|>", "color": ARROWS[kind][1], "lw": 2.5, "mutation_scale": 16}
            axes.annotate("", end, start, arrowprops=style | {"shrinkA": 0, "shrinkB": 0})
    kinds = [kind for kind in ARROWS if kind in drawn]
    signs = [Line2D([], [], color=ARROWS[k][1], marker=ARROWS[k][0], linestyle="", markersize=16) for k in kinds]
    style = {"ncols": 3, "fontsize": FONT - 1, "frameon": False, "handletextpad": 0.1, "columnspacing": 1}
    figure.legend(signs, kinds, loc="outside lower center", **style)
    return figure


def _place(found: list[Level], scale: float) -> tuple[list[dict[str, Bbox]], float]:
    """The boxes "entering", "skip" and "out" of each level, as far as it has them, and where the drawing ends."""
    highest, most = (max(level.shape[axis] for level in found) for axis in (0, 2))
    middles, y = {}, 0  # middles: of the rows, by number of the level
    for number in sorted({level.number for level in found}):
        half = TALLEST / 2 * (max(level.shape[0] for level in found if level.number == number) / highest) ** 0.5
        middles[number] = y - half
        y -= 2 * half + ROW_GAP

    def width(shape):
        return max(0.08, scale * (shape[2] / most) ** 0.5) if shape else 0

    def box(shape, number, left):
        height = TALLEST * (shape[0] / highest) ** 0.5
        return Bbox.from_bounds(left, middles[number] - height / 2, width(shape), height)

    label = LETTER * max(len(level.size) for level in found)
    boxes = [{"out": box(found[0].shape, found[0].number, LETTER * len("level 1 "))}]
    for i, (before, level) in enumerate(pairwise(found), 1):
        above, parts = boxes[-1]["out"], {}
        left = above.x1
        if level.number != before.number:  # pooled or up-convolved: straight below or above where it comes from
            left = (above.x0 + above.x1 - width(level.entering)) / 2
            parts["entering"] = box(level.entering, level.number, left)
            if level.skip:
                parts["skip"] = box(level.skip, level.number, left - width(level.skip))
            left += width(level.entering)
        left += ARROW
        if level.part == "bottom":  # the way up begins where the level above has room for its label
            beside = width(found[i + 1].skip) + width(found[i + 1].entering) / 2 - width(level.shape) / 2
            left = max(left, above.x1 + label + 0.4 + beside)
        boxes.append(parts | {"out": box(level.shape, level.number, left)})
    return boxes, boxes[-1]["out"].x0 + label


def _draw_boxes(axes, level: Level, boxes: dict[str, Bbox], last: bool) -> None:
    """A level's boxes and labels. last: it is beside the output, whose label needs the room."""
    for name, box in boxes.items():
        axes.add_patch(Rectangle(box.min, box.width, box.height, facecolor=BOXES[name], edgecolor="black"))
    out, middle, style = boxes["out"], (boxes["out"].y0 + boxes["out"].y1) / 2, {"fontsize": FONT}
    if level.part in ("down", "bottom"):
        axes.text(0, middle, level.name, va="center", color="dimgrey", **style)
    if level.part in ("input", "output"):
        left = 0.3 if level.part == "input" else out.x0
        axes.text(left, out.y1 + 0.08, f"{level.name}\n{level.size}", va="bottom", **style)
    elif last:
        axes.text(out.x1, out.y1 + 0.08, level.size, va="bottom", ha="right", **style)
    else:  # above the line of the skip connection, where there may be one
        above = level.part == "down"
        axes.text(out.x1 + 0.1, middle + 0.04 * above, level.size, va="bottom" if above else "center", **style)


def _arrows(found: list[Level], boxes: list[dict[str, Bbox]], i: int):
    """Yields (kind, start, end) of each arrow that leads to level number i of the list."""
    if i == 0:
        return
    level, before, out, above = found[i], found[i - 1], boxes[i]["out"], boxes[i - 1]["out"]
    entering, skip = boxes[i].get("entering"), boxes[i].get("skip")
    middle = (out.y0 + out.y1) / 2
    if entering:
        x, down = (above.x0 + above.x1) / 2, level.number > before.number
        kind = "up-convolution" if not down else "convolution, stride 2" if before.part == "input" else "max pooling"
        yield kind, (x, above.y0 if down else above.y1), (x, entering.y1 if down else entering.y0)
    if skip:
        source = next(j for j, each in enumerate(found) if each.part == "down" and each.number == level.number)
        start = boxes[source]["out"]
        kind = "skip connection" + ", cropped" * (level.skip != found[source].shape)
        yield kind, (start.x1, (start.y0 + start.y1) / 2), (skip.x0, (skip.y0 + skip.y1) / 2)
    kind = "1x1 convolution" if level.part == "output" else "convolutions"
    yield kind, ((entering or above).x1, middle), (out.x0, middle)


def _describe(found: list[Level]) -> str:
    ways = {"Way down": ("input", "down"), "Bottom": ("bottom",), "Way up": ("up", "output")}
    text = "A U-Net, each level as height x width, channels."
    for title, parts in ways.items():
        text += f" {title}: " + "; ".join(f"{each.name} {each.size}" for each in found if each.part in parts) + "."
    skips = [f"level {each.number}" for each in found if each.skip]
    return text + (f" Skip connections across from {', '.join(skips)}." if skips else " No skip connections.")


def show_receptive_fields(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """The square that one value of each level down to the bottom sees, drawn around the middle of an image.

    image: (H, W, C) uint8, resized to the network's input unless it takes any size. A square may be larger.
    Raises ValueError as `receptive_fields` does.
    """
    own, image, fields = model.inputs[0].shape[1:3], np.asarray(image), receptive_fields(model)
    height, width = image.shape[:2] if None in own else own
    row, column = height // 2, width // 2
    half = max(fields.values()) / 2 + 2
    left, right = min(-0.5, column - half), max(width - 0.5, column + half)
    top, bottom = min(-0.5, row - half), max(height - 0.5, row + half)
    sides = ", ".join(f"{name} {side} pixels" for name, side in fields.items())
    alt = f"What one value of each level sees of an image of {height}x{width} pixels, side of the square: {sides}."
    size = (WIDTH, max(0.7 * WIDTH * (bottom - top) / (right - left), 0.3 * len(fields) + 0.2))
    figure, axes = new_figure(alt, size=size)
    axes.imshow(np.asarray(resize_image(image, (height, width))).squeeze(), cmap="gray", interpolation="none")
    axes.set(xlim=(left, right), ylim=(bottom, top), facecolor="#e8e8e8", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    squares = []
    for (name, side), color in zip(fields.items(), (YELLOW, ORANGE, SKY, PINK, RED, BLUE) * 2, strict=False):
        style = {"linewidth": 3, "path_effects": [withStroke(linewidth=5, foreground="black")]}
        corner, label = (column - side / 2, row - side / 2), f"{name}: {side} px"
        squares.append(Rectangle(corner, side, side, fill=False, edgecolor=color, label=label, **style))
    for square in reversed(squares):  # the smallest on top
        axes.add_patch(square)
    figure.legend(handles=squares[::-1], loc="outside right upper", fontsize=FONT, frameon=False)
    return figure


def show_feature_maps(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """First level, bottom and last level: a row with the image and the six feature maps that vary most.

    Each map has its own scale, from its smallest value (dark) to the one that a hundredth of its pixels exceeds.
    image: (H, W, C), 0..255, as large as the network's input.
    Raises ValueError if the image does not fit the network.
    """
    image, n_channels = np.asarray(image, np.uint8), model.inputs[0].shape[-1]
    if image.ndim != 3 or image.shape[2] != n_channels:
        raise ValueError(f"image: expected one image (height, width, {n_channels}), found the shape {image.shape}")
    found = unet_levels(model, image.shape[:2])
    shown = [next(each for each in found if each.part == part) for part in ("down", "bottom")] + [found[-2]]
    features = keras.Model(model.inputs, [level.layer.output for level in shown])([image[None]], training=False)
    size = (WIDTH, 3 * (WIDTH / 7 * image.shape[0] / image.shape[1] + 0.3))
    alt = f"Feature maps of 3 levels for an image of {image.shape[0]}x{image.shape[1]} pixels."
    figure, axes = new_figure(alt, 3, 7, size)
    for row, level, feature in zip(axes, shown, features, strict=True):
        maps = np.asarray(keras.ops.convert_to_numpy(feature)[0], np.float32)
        # By the largest value, a few bright pixels would be chosen first, and leave the rest of their map dark.
        bright = np.maximum(np.percentile(maps, 99, axis=(0, 1)), 1e-6)
        strongest = np.argsort(-np.minimum(maps / bright, 1).var(axis=(0, 1)), kind="stable")[:6]
        for panel in row:
            panel.set_axis_off()
        row[0].imshow(image.squeeze(), cmap="gray", interpolation="none")
        for panel, channel in zip(row[1:], strongest, strict=False):
            panel.imshow(maps[..., channel], cmap="cividis", interpolation="none", vmax=bright[channel])
        title = level.name + {"down": ", way down", "up": ", way up"}.get(level.part, "")
        title += f", {level.shape[0]}x{level.shape[1]}, {level.shape[2]} channels"
        row[3].set_title(title, fontsize=FONT)
        figure.alt += f" {title}: channels {', '.join(map(str, strongest))}, which vary most."
    return figure
