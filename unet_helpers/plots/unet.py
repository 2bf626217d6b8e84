"""A U-Net, read from its layers however it was built, and its figures: the U, receptive fields, feature maps; and what
a transposed convolution does, in numbers that can be added by hand: how a U-Net's way up gets larger."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import keras
import numpy as np
from keras import layers
from matplotlib.cm import ScalarMappable
from matplotlib.lines import Line2D
from matplotlib.patches import Rectangle
from matplotlib.patheffects import withStroke

from ..images import resize_image
from . import figures
from .figures import BLUE, ORANGE, PINK, RED, SKY_BLUE, WIDTH, YELLOW, InlineFigure, new_figure

Shape = tuple[int, int, int]  # height, width, channels
FONT = 14  # points, of the labels in the U and of the legends
UNITS = 12  # lengths in the U are twelfths of the figure's width
TALLEST, ARROW, ROW_GAP, LETTER = 1.7, 0.33, 0.55, 0.175  # highest box, room for an arrow, between rows, for a letter
TITLE = 14.5  # points, of the titles above the numbers of a transposed convolution
SHADES = np.array(["#9fd4f2", "#f5c869", "#e7b3cf", "#f7ee8b", "#8fd0bd", "#e8a06a"])  # readable under black
BOXES = {"entering": "#d3ebf8", "skip": "#f3d3e4", "out": SKY_BLUE}
ARROWS = {  # kind -> its sign in the legend, its colour
    "convolutions": (r"$\rightarrow$", "black"),
    "max pooling": (r"$\downarrow$", RED),
    "convolution, stride 2": (r"$\downarrow$", "#8c510a"),
    "transposed convolution": (r"$\uparrow$", BLUE),
    "skip connection": (r"$\rightarrow$", PINK),
    "skip connection, cropped": (r"$\rightarrow$", PINK),
    "1x1 convolution": (r"$\rightarrow$", ORANGE),
}


@dataclass(frozen=True)
class Level:  # of a U-Net on its way down or up; the image and the logits are the first and the last of them
    part: str  # "input", "down", "bottleneck", "up" or "output"
    number: int  # 1 is the finest, the bottleneck has the largest; 0 is an image before a first convolution of stride 2
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
    """The levels of a U-Net in the order of computation: input, way down, bottleneck, way up, output.
    image_size: (height, width) of the image, needed if the network takes any.
    Raises ValueError if it is missing or does not fit, or if the network does not go down and then up again."""
    shapes, found = _shapes(model, image_size), []
    for part, number, stage in _stages(model):
        entering = shapes[id(stage[0].output)] if _direction(stage[0]) or not found else found[-1].shape
        skip = None
        for below, merge in pairwise(stage):
            for across in (tensor for tensor in keras.tree.flatten(merge.input) if tensor is not below.output):
                entering, skip = shapes[id(below.output)], shapes[id(across)]
                if entering[:2] != skip[:2]:
                    sizes = f"{merge.name!r} would merge {entering[:2]} and {skip[:2]}"
                    raise ValueError(f"image_size: {image_size} can't be halved at each level: {sizes}")
        found.append(Level(part, number, shapes[id(stage[-1].output)], entering, skip, stage[-1]))
    return found


def receptive_fields(model: keras.Model) -> dict[str, int]:
    """For each level down to the bottleneck: the side, in pixels of the image, of the square that one value sees.
    Each kernel of k values adds k - 1 steps; a step is as many pixels as all strides before it multiplied.
    Source: Araujo, Norris and Sim 2019, https://distill.pub/2019/computing-receptive-fields."""
    side, step, fields = 1, 1, {}
    for part, number, stage in _stages(model):
        for layer in stage if part in ("input", "down", "bottleneck") else ():
            side += (_side(layer, "kernel_size", "pool_size") - 1) * _side(layer, "dilation_rate") * step
            step *= _side(layer, "strides")
        if part in ("down", "bottleneck"):
            fields[part if part == "bottleneck" else f"level {number}"] = side
    return fields


def _side(layer, *names: str) -> int:
    """The layer's kernel size, strides or the like; 1 where it has none."""
    config = layer.get_config()
    return next((int(np.ravel(config[name])[0]) for name in names if name in config), 1)


def _shapes(model, image_size) -> dict[int, Shape]:
    """id of each layer's output -> its height, width and channels for an image of image_size."""
    *fixed, channels = model.inputs[0].shape[1:]
    size = image_size or fixed
    if None in size:
        raise ValueError("image_size: this network takes images of any size: say which, (height, width)")
    outputs = [layer.output for layer in model.layers]
    features = keras.Model(model.inputs, outputs)(keras.Input((*size, channels)))  # Keras says what does not fit
    return {id(output): feature.shape[1:] for output, feature in zip(outputs, features, strict=True)}


def _direction(layer) -> str | None:
    """ "down" where the layer makes its input smaller by a stride, "up" where it makes it larger."""
    if isinstance(layer, layers.UpSampling2D):
        return "up"
    if _side(layer, "strides") > 1:
        return "up" if isinstance(layer, layers.Conv2DTranspose) else "down"
    return None


def _stages(model) -> list[tuple[str, int, list]]:
    """(part, number, layers along the U) for each `Level`: a layer that changes the size begins a new one."""
    path = [layer for layer in model.layers if not isinstance(layer, layers.Cropping2D)]  # those are on the way across
    directions = [direction for direction in map(_direction, path) if direction]
    used = keras.tree.flatten([model.outputs, *(layer.input for layer in path[1:])])
    called_again = {id(tensor) for tensor in used} - {id(layer.output) for layer in model.layers}
    if set(directions) != {"down", "up"} or directions != sorted(directions) or called_again:
        expected = "a U-Net of layers that are called once each, which goes down and then up again"
        raise ValueError(f"model: expected {expected}, found the steps {directions}")
    convolutions = [i for i, layer in enumerate(path) if "kernel_size" in layer.get_config()]
    first, last = convolutions[0], convolutions[-1]  # the last one makes the logits
    number = 0 if _direction(path[first]) else 1  # 0: the image itself is made smaller
    stages = [("input", number, path[:first])]
    for layer in path[first:last]:
        direction = _direction(layer)
        if direction or len(stages) == 1:
            number += {"down": 1, "up": -1}.get(direction, 0)
            stages.append((direction or "down", number, []))
        stages[-1][2].append(layer)
    bottom = max(i for i, (part, *_) in enumerate(stages) if part == "down")
    stages[bottom] = ("bottleneck", *stages[bottom][1:])
    return [*stages, ("output", number, path[last:])]


def draw_unet(model: keras.Model, image_size: Sequence[int] | None = None) -> InlineFigure:
    """The U of a network: boxes for what each level gets (pale) and puts out, arrows between. "96x128, 16" is height x
    width, channels. A box grows with the root of its height and of its channels.
    image_size: (height, width) of the image, needed if it takes any size. Raises ValueError as `unet_levels` does."""
    found = unet_levels(model, image_size)
    x, y, size = _layout(found)
    low = min(y[level.number] - size(level.shape)[1] / 2 for level in found) - 0.1
    levels = "; ".join(f"{level.name} {level.size}" for level in found)
    skips = ", ".join(f"level {level.number}" for level in found if level.skip) or "none"
    alt = f"A U-Net, each level as height x width, channels: {levels}. Skip connections across from: {skips}."
    figure, axes = new_figure(alt, size=(WIDTH, (0.9 - low) * WIDTH / UNITS + 0.75))
    axes.set(xlim=(0, UNITS), ylim=(low, 0.9), aspect="equal")
    axes.set_axis_off()
    kinds = set()

    def draw_box(kind: str, shape: Shape, middle: float, level: Level) -> Rectangle:
        width, height = size(shape)
        corner = middle - width / 2, y[level.number] - height / 2
        return axes.add_patch(Rectangle(corner, width, height, edgecolor="black", facecolor=BOXES[kind]))

    def draw_arrow(kind: str, start: Rectangle, end: Rectangle) -> None:
        kinds.add(kind)
        style = {"arrowstyle": "-|>", "color": ARROWS[kind][1], "lw": 2.5, "mutation_scale": 16}
        style |= {"patchA": start, "patchB": end, "shrinkA": 0, "shrinkB": 0}  # from edge to edge
        axes.annotate("", end.get_center(), start.get_center(), arrowprops=style)

    outs = [draw_box("out", level.shape, middle, level) for middle, level in zip(x, found, strict=True)]
    across = {level.number: (level, out) for level, out in zip(found, outs, strict=True) if level.part == "down"}
    for i, (before, level) in enumerate(pairwise(found)):
        start, out = outs[i], outs[i + 1]
        if level.number != before.number:  # pooled or up-convolved: straight below or above where it comes from
            start = draw_box("entering", level.entering, x[i], level)
            pooled = "convolution, stride 2" if before.part == "input" else "max pooling"
            draw_arrow(pooled if level.number > before.number else "transposed convolution", outs[i], start)
        if level.skip:
            source, its_out = across[level.number]
            skip = draw_box("skip", level.skip, start.get_x() - size(level.skip)[0] / 2, level)
            draw_arrow("skip connection" + ", cropped" * (level.skip != source.shape), its_out, skip)
        draw_arrow("1x1 convolution" if level.part == "output" else "convolutions", start, out)
    for level, out in zip(found, outs, strict=True):
        _label(axes, level, out, beside_output=level is found[-2])
    kinds = [kind for kind in ARROWS if kind in kinds]
    signs = [Line2D([], [], color=ARROWS[k][1], marker=ARROWS[k][0], linestyle="", markersize=16) for k in kinds]
    style = {"ncols": 3, "fontsize": FONT - 1, "frameon": False, "handletextpad": 0.1, "columnspacing": 1}
    figure.legend(signs, kinds, loc="outside lower center", **style)
    return figure


def _layout(found: list[Level]):
    """x of each level's middle, y of each row by the number of its level, and what makes a shape (width, height)."""
    highest, most = (max(level.shape[axis] for level in found) for axis in (0, 2))
    label = LETTER * max(len(level.size) for level in found)
    step = (UNITS - 1.8 - 2 * label + 2 * ARROW) / len(found)  # 1.8: for the names of the rows
    widest = step - ARROW
    x = 1.4 + widest / 2 + step * np.arange(len(found))
    x[[level.part for level in found].index("bottleneck") :] += label + 0.4 + 1.5 * widest - step  # room for a label
    y, top = {}, 0
    for level in found:
        if level.number not in y:
            height = TALLEST * (level.shape[0] / highest) ** 0.5
            y[level.number], top = top - height / 2, top - height - ROW_GAP

    def size(shape: Shape) -> tuple[float, float]:
        return max(0.08, widest * (shape[2] / most) ** 0.5), TALLEST * (shape[0] / highest) ** 0.5

    return x, y, size


def _label(axes, level: Level, box: Rectangle, beside_output: bool) -> None:
    """The name of a row, on its left, and a level's size, beside or above its box."""
    (left, _), (right, top), middle = box.get_xy(), box.get_corners()[2], box.get_center()[1]
    style = {"fontsize": FONT, "va": "bottom"}
    if level.part in ("down", "bottleneck"):
        axes.text(0, middle, level.name, color="dimgrey", va="center", fontsize=FONT)
    if level.part in ("input", "output"):
        axes.text(0.3 if level.part == "input" else left, top + 0.08, f"{level.name}\n{level.size}", **style)
    elif beside_output:  # whose label needs the room
        axes.text(right, top + 0.08, level.size, ha="right", **style)
    else:  # above the line of the skip connection, where there may be one
        axes.text(right + 0.1, middle + 0.04, level.size, **style)


def show_receptive_fields(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """The square that one value of each level down to the bottleneck sees, drawn around the middle of an image.
    image: (H, W, C) uint8, resized to the network's input unless it takes any size. A square may be larger."""
    own, image, fields = model.inputs[0].shape[1:3], np.asarray(image), receptive_fields(model)
    height, width = image.shape[:2] if None in own else own
    sides = ", ".join(f"{name} {side} pixels" for name, side in fields.items())
    alt = f"What one value of each level sees of an image of {height}x{width} pixels, side of the square: {sides}."
    high, wide = np.maximum((height, width), max(fields.values()))
    figure, axes = new_figure(alt, size=(WIDTH, max(0.7 * WIDTH * high / wide, 0.3 * len(fields) + 0.2)))
    axes.imshow(np.asarray(resize_image(image, (height, width))).squeeze(), cmap="gray", interpolation="none")
    axes.set(facecolor="#e8e8e8", xticks=[], yticks=[])
    axes.spines[:].set_visible(False)
    style = {"fill": False, "linewidth": 3, "path_effects": [withStroke(linewidth=5, foreground="black")]}
    colors = zip(fields.items(), (YELLOW, ORANGE, SKY_BLUE, PINK, RED, BLUE) * 2, strict=False)
    for (name, side), color in reversed(list(colors)):  # the smallest on top
        corner, label = (width // 2 - side / 2, height // 2 - side / 2), f"{name}: {side} px"
        axes.add_patch(Rectangle(corner, side, side, edgecolor=color, label=label, **style))
    axes.autoscale()
    axes.margins(0.02)
    figure.legend(loc="outside right upper", fontsize=FONT, frameon=False)
    return figure


def show_feature_maps(model: keras.Model, image: np.ndarray) -> InlineFigure:
    """First level, bottleneck and last level: of each the two feature maps that vary most. What does each one find?
    Each map has its own scale, from its smallest value (dark) to the one that a hundredth of its pixels exceeds.
    image: (H, W, C), 0..255, as large as the network's input."""
    image = np.asarray(image, np.uint8)
    found = unet_levels(model, image.shape[:2])
    shown = [next(each for each in found if each.part == part) for part in ("down", "bottleneck")] + [found[-2]]
    features = keras.Model(model.inputs, [level.layer.output for level in shown])([image[None]], training=False)
    size = (WIDTH, 3 * (WIDTH / 2 * image.shape[0] / image.shape[1]) + 1.5)
    alt = f"Feature maps of 3 levels for an image of {image.shape[0]}x{image.shape[1]} pixels."
    figure, axes = new_figure(alt, 3, 2, size)
    for panel in axes.flat:
        panel.set_axis_off()
    for panels, level, feature in zip(axes, shown, features, strict=True):
        maps = np.asarray(keras.ops.convert_to_numpy(feature)[0], np.float32)
        # By the largest value, a few bright pixels would be chosen first, and leave the rest of their map dark.
        bright = np.maximum(np.percentile(maps, 99, axis=(0, 1)), 1e-6)
        strongest = np.argsort(-np.minimum(maps / bright, 1).var(axis=(0, 1)), kind="stable")[:2]
        for panel, channel in zip(panels, strongest, strict=False):
            panel.imshow(maps[..., channel], cmap="cividis", interpolation="none", vmax=bright[channel])
        way = "" if level.part == "bottleneck" else f", way {level.part}"
        title = f"{level.name}{way}: {level.size} channels"
        panels[0].set_title(title, loc="left", fontsize=FONT)
        figure.alt += f" {title}; channels {', '.join(map(str, strongest))} vary most."
    style = {"location": "bottom", "aspect": 60, "pad": 0.005, "ticks": ()}
    bar = figure.colorbar(ScalarMappable(cmap="cividis"), ax=axes, **style)
    bar.set_label("from small to large, each map for itself", fontsize=FONT)
    return figure


def show_transposed_convolution(values, kernel) -> InlineFigure:
    """What a transposed convolution does whose kernel is as wide as its stride: each value stamps the kernel times it.
    values: (h, w) numbers; kernel: (k, k) numbers. Few and small ones, so that they can be followed by eye.
    The result is (k * h, k * w), as keras.layers.Conv2DTranspose(1, k, strides=k) computes it."""
    values, kernel = np.asarray(values), np.asarray(kernel)
    (height, width), k = values.shape, len(kernel)
    stamps = np.ones((k, k), int)
    result, write = np.kron(values, kernel) + 0, np.vectorize("{:g}".format)  # + 0: no -0
    factors = np.vectorize("{:g}×{:g}".format)(np.kron(values, stamps), np.tile(kernel, values.shape))
    rows = ("; ".join(" ".join(row) for row in write(grid)) for grid in (values, kernel, result))
    x, y_result, longest = max(width, k) + 1, 0, max(map(len, factors.flat))
    x_result = x + k * width + 1
    if _font_size(x_result + k * width, longest) < figures.FONT:  # too small on a phone: the result below the stamps
        x_result, y_result = x, -k * height - 1.2
    n_columns, n_rows = x_result + k * width, max(k * height - y_result, height + k + 1.2)
    alt = "Transposed convolution with stride {}: input {}, kernel {}, result {}. No stamps overlap.".format(k, *rows)
    figure, axes = new_figure(alt, size=(WIDTH, (n_rows + 0.9) * WIDTH / (n_columns + 0.2)))
    axes.set(xlim=(-0.1, n_columns + 0.1), ylim=(-n_rows - 0.1, 0.8), aspect="equal")
    axes.set_axis_off()
    numbers = np.arange(values.size).reshape(values.shape)
    shades, stamp_shades = (SHADES[grid % len(SHADES)] for grid in (numbers, np.kron(numbers, stamps)))
    _draw_grid(axes, 0, 0, "input", write(values), shades)
    _draw_grid(axes, 0, -height - 1.2, "kernel", write(kernel), np.full(kernel.shape, "white"))
    _draw_grid(axes, x, 0, "stamps: value × kernel", factors, stamp_shades)
    _draw_grid(axes, x_result, y_result, "result", write(result), stamp_shades)
    for left, top in ((x, 0), (x_result, y_result)):
        axes.text(left - 0.5, top - k * height / 2, "→", ha="center", va="center", fontsize=24)
    return figure


def _font_size(n_columns: float, length: int) -> float:
    """Points, with which a text of so many letters fits into one of n_columns cells across the figure."""
    return min(17, 1.45 * 72 * WIDTH / (n_columns + 0.2) / length)


def _draw_grid(axes, left: float, top: float, title: str, texts: np.ndarray, shades: np.ndarray) -> None:
    """Cells with texts and shades below a title. (left, top): the corner in the axes."""
    axes.text(left, top + 0.15, title, fontsize=TITLE, va="bottom")
    size = _font_size(np.ptp(axes.get_xlim()) - 0.2, max(map(len, texts.flat)))
    for (row, column), text in np.ndenumerate(texts):
        x, y = left + column, top - row - 1
        axes.add_patch(Rectangle((x, y), 1, 1, facecolor=shades[row, column], edgecolor="black"))
        axes.text(x + 0.5, y + 0.5, text, ha="center", va="center", fontsize=size)
