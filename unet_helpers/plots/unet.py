"""Draws the U of a network, from its layers."""

from collections.abc import Sequence
from itertools import pairwise

import keras
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.transforms import Bbox

from .figures import WIDTH, InlineFigure, new_figure
from .levels import Level, levels

FONT = 14.5  # points
UNITS = 12  # lengths in the U are twelfths of the figure's width
TALLEST, ARROW, ROW_GAP, LETTER = 1.7, 0.45, 0.55, 0.175  # highest box, room for an arrow, between rows, for a letter
# Okabe and Ito's colours, which the colour-blind tell apart, too.
ANSWERED, ENTERING, COPIED = "#56b4e9", "#d3ebf8", "#f3d3e4"
ARROWS = {  # kind -> its sign in the legend, its colour
    "convolutions": (r"$\rightarrow$", "black"),
    "max pooling": (r"$\downarrow$", "#d55e00"),
    "convolution, stride 2": (r"$\downarrow$", "#8c510a"),
    "up-convolution": (r"$\uparrow$", "#0072b2"),
    "skip connection": (r"$\rightarrow$", "#cc79a7"),
    "skip connection, cropped": (r"$\rightarrow$", "#cc79a7"),
    "1x1 convolution": (r"$\rightarrow$", "#e69f00"),
}


def draw_unet(model: keras.Model, image_size: Sequence[int] | None = None) -> InlineFigure:
    """The U of a network, drawn from its layers: boxes for what each level gets (pale) and answers, arrows between.

    "96x128, 16" is height x width, channels. A box grows with the root of its height and of its channels.
    image_size: (height, width) of the picture, needed where the network takes any.
    Raises ValueError as `levels.levels` does.
    """
    found = levels(model, image_size)
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
    figure.legend(
        signs, kinds, loc="outside lower center", ncols=3, fontsize=FONT - 1, frameon=False, handletextpad=0.1,
        columnspacing=1,
    )  # fmt: skip
    return figure


def _place(found: list[Level], scale: float) -> tuple[list[dict[str, Bbox]], float]:
    """The boxes "entering", "skip" and "out" of each level, as far as it has them, and where the drawing ends."""
    highest, most = (max(level.shape[axis] for level in found) for axis in (0, 2))
    rows = {}  # number of a level -> the middle of its row
    y = 0
    for number in sorted({level.number for level in found}):
        half = TALLEST / 2 * (max(level.shape[0] for level in found if level.number == number) / highest) ** 0.5
        rows[number] = y - half
        y -= 2 * half + ROW_GAP

    def width(shape):
        return max(0.08, scale * (shape[2] / most) ** 0.5) if shape else 0

    def box(shape, number, left):
        height = TALLEST * (shape[0] / highest) ** 0.5
        return Bbox.from_bounds(left, rows[number] - height / 2, width(shape), height)

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
    for name, color in (("entering", ENTERING), ("skip", COPIED), ("out", ANSWERED)):
        if name in boxes:
            box = boxes[name]
            axes.add_patch(Rectangle(box.min, box.width, box.height, facecolor=color, edgecolor="black"))
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
        source = next(j for j, each in enumerate(found) if each.part == "down" and each.number == level.skip_from)
        kind = "skip connection" + ", cropped" * (level.skip != found[source].shape)
        start = boxes[source]["out"]
        yield kind, (start.x1, (start.y0 + start.y1) / 2), (skip.x0, (skip.y0 + skip.y1) / 2)
    kind = "1x1 convolution" if level.part == "output" else "convolutions"
    yield kind, ((entering or above).x1, middle), (out.x0, middle)


def _describe(found: list[Level]) -> str:
    ways = {"Way down": ("input", "down"), "Bottom": ("bottom",), "Way up": ("up", "output")}
    text = "A U-Net, each level as height x width, channels."
    for title, parts in ways.items():
        text += f" {title}: " + "; ".join(f"{each.name} {each.size}" for each in found if each.part in parts) + "."
    skips = [f"level {each.skip_from}" for each in found if each.skip]
    return text + (f" Skip connections across from {', '.join(skips)}." if skips else " No skip connections.")
