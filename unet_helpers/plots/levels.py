"""Reads a U-Net from its layers, however it was built: what each level holds, its skip connection, how far it sees."""

from collections.abc import Sequence
from dataclasses import dataclass

import keras
from keras import layers

Shape = tuple[int, int, int]  # height, width, channels


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
    Raises ValueError if it is missing or does not fit, or if the network does not go down and up again once.
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
    Raises ValueError if the network does not go down and up again once.
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
    if isinstance(layer, layers.InputLayer):
        return []
    return layer.input if isinstance(layer.input, list) else [layer.input]


def _paths(model) -> dict[int, list]:
    """id of each layer's output -> the layers that lead to it, on the longest way from the image: along the U."""
    paths = {}
    for layer in model.layers:
        if unknown := [tensor for tensor in _inputs(layer) if id(tensor) not in paths]:
            raise ValueError(
                f"model: expected layers that are called once each, found {layer.name!r}, which takes {unknown[0]} "
                "that no layer before it makes: build the network from keras.Input and layers only"
            )
        longest = max((paths[id(tensor)] for tensor in _inputs(layer)), key=len, default=[])
        paths[id(layer.output)] = [*longest, layer]
    return paths


def _shapes(model, image_size) -> dict[int, Shape]:
    """id of each layer's output -> its height, width and channels for an image of image_size."""
    *fixed, channels = model.inputs[0].shape[1:]
    if None in fixed and image_size is None:
        raise ValueError("image_size: this network takes images of any size: say which, (height, width)")
    size = tuple(image_size or fixed)
    if len(size) != 2 or any(side not in (None, wanted) for side, wanted in zip(fixed, size, strict=False)):
        raise ValueError(
            f"image_size: expected (height, width), and {tuple(fixed)} is what this network takes (None: any), found "
            f"{size}: resize the image, or leave image_size out"
        )
    outputs = [layer.output for layer in model.layers]
    shapes = keras.Model(model.inputs, outputs).compute_output_shape([(1, *size, channels)])
    shapes = {id(output): tuple(shape[1:]) for output, shape in zip(outputs, shapes, strict=True)}
    for layer in model.layers:
        if len(merged := {shapes[id(tensor)][:2] for tensor in _inputs(layer)}) > 1:
            raise ValueError(
                f"image_size: {size} does not fit, {layer.name!r} would merge {' and '.join(map(str, merged))}: choose "
                "a height and a width that can be halved at each level"
            )
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
    n_down = directions.count("down")
    if not n_down or directions != ["down"] * n_down + ["up"] * (len(directions) - n_down) or directions[-1] != "up":
        raise ValueError(f"model: expected a U-Net, which goes down and then up again, found the steps {directions}")
    # The last convolution makes the logits; what is before it belongs to the last level.
    last = max(i for i, layer in enumerate(path) if "kernel_size" in layer.get_config())
    stages = [("input", 0, path[:1]), ("down", 1, [])]
    for layer in path[1:last]:
        direction, (_, number, stage) = _direction(layer), stages[-1]
        if direction == "down" and not any("kernel_size" in each.get_config() for each in stage) and number == 1:
            stages[-1] = ("down", 1, [])  # the image itself is made smaller: that is no level yet
        elif direction:
            stages.append((direction, number + 1 if direction == "down" else number - 1, []))
        stages[-1][2].append(layer)
    bottom = max(i for i, (part, *_) in enumerate(stages) if part == "down")
    stages[bottom] = ("bottom", *stages[bottom][1:])
    shrunk = _direction(stages[1][2][0]) == "down"
    stages[0] = ("input", 0 if shrunk else 1, path[:1])
    return [*stages, ("output", stages[-1][1], path[last:])]
