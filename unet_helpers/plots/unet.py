"""A U-Net, read from its layers however it was built, and its figures: the U, receptive fields, feature maps."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
from keras import layers
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke
from matplotlib.transforms import Bbox

from ..images import resize_image
from .figures import BLUE, ORANGE, PINK, RED, SKY_BLUE, WIDTH, YELLOW, InlineFigure, new_figure

Shape = tuple[int, int, int]  # height, width, channels
FONT = 14  # points
UNITS = 12  # lengths in the U are twelfths of the figure's width
TALLEST, ARROW, ROW_GAP, LETTER = 1.7, 0.45, 0.55, 0.175  # highest box, room for an arrow, between rows, for a letter
BOXES = {"entering": "#d3ebf8", "skip": "#f3d3e4", "out": SKY_BLUE}
ARROWS = {  # kind -> its sign in the legend, its colour
    "convolutions": (r"$\rightarrow$", "black"),
    "max pooling": (r"$\downarrow$", RED),
    "convolution, stride 2": (r"$\downarrow$", "#8c510a"),
    "up-convolution": (r"$\uparrow$", BLUE),
    "skip connection": (r"$\rightarrow$", PINK),
    "skip connection, cropped": (r"$\rightarrow$", PINK),
    "1x1 convolution": (r"$\rightarrow$", ORANGE),
}


@dataclass(frozen=True)
class Level:
    """One level of a U-Net on its way down or up; the image and the logits are the first and the last of them."""

    part: str  # "input", "down", "bottom", "up" or "output"
    number: int  # 1 is the finest, the bottom has the largest; 0 is an image before a first convolution of stride 2
    shape: Shape  # of the output of the level's last layer
    entering: Shape  # of what its first convolution gets along the U: image, pooled or up-convolved features
    skip: Shape | None  # of what comes across from the way down, after cropping; None without a skip connection
    layer: keras.Layer  # the last one: `keras.Model(model.inputs, level.layer.output)` returns the level's features

    @property
    def name(self) -> str:
        return f"level {self.number}" if self.part in ("down", "up") else self.part

    @property
    def size(self) -> str:
        """Height, width and channels in words: "96x128, 16"."""
        return f"{self.shape[0]}x{self.shape[1]}, {self.shape[2]}"


def unet_levels(model: keras.Model, image_size: Sequence[int] | None = None) -> list[Level]:
    """The levels of a U-Net in the order of computation: input, way down, bottom, way up, output.

    image_size: (height, width) of the image, needed if the network takes any.
    Raises ValueError if it is missing or does not fit, or if the network does not go down and then up again.
    """
    paths, shapes, found = _paths(model), _shapes(model, image_size), []
    for part, number, stage in _stages(model):
        entering = shapes[id(stage[0].output)] if _direction(stage[0]) or not found else found[-1].shape
        skip = None
        for merge in (layer for layer in stage if len(_inputs(layer)) > 1):
            below, across = sorted(_inputs(merge), key=lambda tensor: -len(paths[id(tensor)]))[:2]
            entering, skip = shapes[id(below)], shapes[id(across)]
        found.append(Level(part, number, shapes[id(stage[-1].output)], entering, skip, stage[-1]))
    return found


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """For each level down to the bottom: the side, in pixels of the image, of the square that one value sees.

    Each kernel of k values adds k - 1 steps; a step is as many pixels as all strides before it multiplied.
    Source: Araujo, Norris and Sim 2019, https://distill.pub/2019/computing-receptive-fields.
    """
    side, step, fields = 1, 1, {}
    for part, number, stage in _stages(model):
        for layer in stage if part in ("input", "down", "bottom") else ():
            side += (_side(layer, "kernel_size", "pool_size") - 1) * _side(layer, "dilation_rate") * step
            step *= _side(layer, "strides")
        if part in ("down", "bottom"):
            fields[part if part == "bottom" else f"level {number}"] = side
    return fields


def _side(layer, *names: str) -> int:
    """The layer's kernel size, strides or the like, from its configuration; 1 where it has none."""
    config = layer.get_config()
    value = next((config[name] for name in names if name in config), 1)
    return value if isinstance(value, int) else value[0]


def _inputs(layer) -> list:
    return [] if isinstance(layer, layers.InputLayer) else keras.tree.flatten(layer.input)


def _paths(model) -> dict[int, list]:
    """id of each layer's output -> the layers that lead to it, on the longest way from the image: along the U."""
    paths = {}
    for layer in model.layers:
        if not all(id(tensor) in paths for tensor in _inputs(layer)):
            found = f"found {layer.name!r}, whose input no layer before it makes"
            raise ValueError(f"model: expected layers that are called once each, {found}")
        longest = max((paths[id(tensor)] for tensor in _inputs(layer)), key=len, default=[])
        paths[id(layer.output)] = [*longest, layer]
    return paths


def _shapes(model, image_size) -> dict[int, Shape]:
    """id of each layer's output -> its height, width and channels for an image of image_size."""
    *fixed, channels = model.inputs[0].shape[1:]
    size = image_size or fixed
    if None in size:
        raise ValueError("image_size: this network takes images of any size: say which, (height, width)")
    outputs = [layer.output for layer in model.layers]
    features = keras.Model(model.inputs, outputs)(keras.Input((*size, channels)))  # Keras says what does not fit
    shapes = {id(output): feature.shape[1:] for output, feature in zip(outputs, features, strict=True)}
    for layer in model.layers:
        if len(merged := {shapes[id(tensor)][:2] for tensor in _inputs(layer)}) > 1:
            found = f"{layer.name!r} would merge {' and '.join(map(str, merged))}"
            raise ValueError(f"image_size: {size} can't be halved at each level: {found}")
    return shapes


def _direction(layer) -> str | None:
    """ "down" where the layer makes its input smaller by a stride, "up" where it makes it larger."""
    if isinstance(layer, layers.UpSampling2D):
        return "up"
    if _side(layer, "strides") > 1:
        return "up" if isinstance(layer, layers.Conv2DTranspose) else "down"
    return None


def _stages(model) -> list[tuple[str, int, list]]:
    """(part, number, layers along the U) for each `Level`: a layer that changes the size begins a new one."""
    path = _paths(model)[id(model.outputs[0])]
    directions = [direction for direction in map(_direction, path) if direction]
    if set(directions) != {"down", "up"} or directions != sorted(directions):
        raise ValueError(f"model: expected a U-Net, which goes down and then up again, found the steps {directions}")
    # The last convolution makes the logits; what is before it belongs to the last level.
    kernels = ["kernel_size" in layer.get_config() for layer in path]
    last = len(path) - 1 - kernels[::-1].index(True)
    stages = [("input", 1, path[:1]), ("down", 1, [])]
    for i, layer in enumerate(path[1:last], 1):
        direction, number = _direction(layer), stages[-1][1]
        if direction == "down" and number == 1 and not any(kernels[1:i]):
            stages = [("input", 0, path[:1]), ("down", 1, [])]  # the image itself is made smaller: no level yet
        elif direction:
            stages.append((direction, number + 1 if direction == "down" else number - 1, []))
        stages[-1][2].append(layer)
    bottom = max(i for i, (part, *_) in enumerate(stages) if part == "down")
    stages[bottom] = ("bottom", *stages[bottom][1:])
    return [*stages, ("output", stages[-1][1], path[last:])]


# ---- the figures ----


def draw_unet(model: keras.Model, image_size: Sequence[int] | None = None) -> InlineFigure:
    """The U of a network: boxes for what each level gets (pale) and puts out, arrows between.

    "96x128, 16" is height x width, channels. A box grows with the root of its height and of its channels.
    image_size: (height, width) of the image, needed if the network takes any. Raises ValueError as `unet_levels` does.
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
    levels = "; ".join(f"{each.name} {each.size}" for each in found)
    skips = [f"level {each.number}" for each in found if each.skip]
    skips = f"Skip connections across from {', '.join(skips)}." if skips else "No skip connections."
    return f"A U-Net, down and up again, each level as height x width, channels: {levels}. {skips}"


def show_receptive_fields(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """The square that one value of each level down to the bottom sees, drawn around the middle of an image.

    image: (H, W, C) uint8, resized to the network's input unless it takes any size. A square may be larger.
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
    style = {"fill": False, "linewidth": 3, "path_effects": [withStroke(linewidth=5, foreground="black")]}
    colors = zip(fields.items(), (YELLOW, ORANGE, SKY_BLUE, PINK, RED, BLUE) * 2, strict=False)
    for (name, side), color in reversed(list(colors)):  # the smallest on top
        corner, label = (column - side / 2, row - side / 2), f"{name}: {side} px"
        axes.add_patch(Rectangle(corner, side, side, edgecolor=color, label=label, **style))
    figure.legend(loc="outside right upper", fontsize=FONT, frameon=False)
    return figure


def show_feature_maps(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """First level, bottom and last level: a row with the image and the six feature maps that vary most.

    Each map has its own scale, from its smallest value (dark) to the one that a hundredth of its pixels exceeds.
    image: (H, W, C), 0..255, as large as the network's input.
    """
    image = np.asarray(image, np.uint8)
    found = unet_levels(model, image.shape[:2])
    shown = [next(each for each in found if each.part == part) for part in ("down", "bottom")] + [found[-2]]
    features = keras.Model(model.inputs, [level.layer.output for level in shown])([image[None]], training=False)
    size = (WIDTH, 3 * (WIDTH / 7 * image.shape[0] / image.shape[1] + 0.3))
    alt = f"Feature maps of 3 levels for an image of {image.shape[0]}x{image.shape[1]} pixels."
    figure, axes = new_figure(alt, 3, 7, size)
    for panel in axes.flat:
        panel.set_axis_off()
    for row, level, feature in zip(axes, shown, features, strict=True):
        maps = np.asarray(keras.ops.convert_to_numpy(feature)[0], np.float32)
        # By the largest value, a few bright pixels would be chosen first, and leave the rest of their map dark.
        bright = np.maximum(np.percentile(maps, 99, axis=(0, 1)), 1e-6)
        strongest = np.argsort(-np.minimum(maps / bright, 1).var(axis=(0, 1)), kind="stable")[:6]
        row[0].imshow(image.squeeze(), cmap="gray", interpolation="none")
        for panel, channel in zip(row[1:], strongest, strict=False):
            panel.imshow(maps[..., channel], cmap="cividis", interpolation="none", vmax=bright[channel])
        way = "" if level.part == "bottom" else f", way {level.part}"
        title = f"{level.name}{way}, {level.size} channels"
        row[3].set_title(title, fontsize=FONT)
        figure.alt += f" {title}: channels {', '.join(map(str, strongest))}, which vary most."
    return figure
