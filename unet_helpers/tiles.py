"""What the network looks at: a whole picture fitted into the size of the training, or one tile of it after another."""

from collections.abc import Iterator
from typing import NamedTuple

import keras
import numpy as np
from keras import layers

from .decoding import fit_image, fitted_box


class Piece(NamedTuple):
    """What the network looks at in one go.

    pixels: (h, w, 3), 0..255. box: (top, left, bottom, right) of the part of the picture that its answer is taken for.
    scale: (down, across), how many pixels of the picture one of these is. offset: (down, across), where in the picture
    their first corner lies.
    """

    pixels: np.ndarray
    box: tuple[int, int, int, int]
    scale: tuple[float, float] = (1, 1)
    offset: tuple[float, float] = (0, 0)


def fit_whole(image: np.ndarray, size: tuple[int, int]) -> Piece:
    """The whole picture, (H, W, 3) uint8, as `decoding.fit_image` puts it into size."""
    top, left, bottom, right = fitted_box(image.shape[:2], size)
    scale = image.shape[0] / (bottom - top), image.shape[1] / (right - left)
    offset = -top * scale[0], -left * scale[1]
    return Piece(fit_image(image, size), (0, 0, *image.shape[:2]), scale, offset)


def cut_tiles(image: np.ndarray, tile: tuple[int, int], margin: int) -> Iterator[Piece]:
    """Tiles, (height, width), that overlap by 2 * margin, at the picture's own scale; beyond its border it is mirrored.

    Each answers for what lies margin inside of it, so every pixel belongs to one tile. With a margin that is a multiple
    of the network's stride, so are all offsets: the pooling windows lie as they would in the whole picture.
    Source: the overlap-tile strategy of Ronneberger, Fischer and Brox 2015, https://arxiv.org/abs/1505.04597.
    """
    height, width = image.shape[:2]
    step = tile[0] - 2 * margin, tile[1] - 2 * margin
    for top in range(0, height, step[0]):
        rows = _mirrored(top - margin, tile[0], height)
        for left in range(0, width, step[1]):
            columns = _mirrored(left - margin, tile[1], width)
            box = (top, left, min(top + step[0], height), min(left + step[1], width))
            yield Piece(image[np.ix_(rows, columns)], box, offset=(top - margin, left - margin))


def _mirrored(start: int, n: int, size: int) -> np.ndarray:
    """Indices of n pixels from start on, in a row of size pixels that goes on mirrored at both ends."""
    index = np.arange(start, start + n) % (2 * size)
    return np.where(index < size, index, 2 * size - 1 - index)


def plan_tiles(
    model: keras.Model, tile: tuple[int, int] | None, margin: int | None, trained: tuple[int, int] = (1, 1)
) -> tuple[tuple[int, int], int]:
    """(height, width) of the tiles and the margin, both multiples of the network's stride.

    tile: the network's only size or the one that is asked for. None: at least trained, and so large that the margins
        are half of it. margin: None: what a pixel's answer depends on, or as much of it as the tile has room for.
    Raises ValueError if they don't fit each other or the network.
    """
    stride, needed = stride_and_reach(model)
    if margin is not None and (not isinstance(margin, int) or margin < 0):
        raise ValueError(f"margin: found {margin!r}, expected a whole number of pixels, 0 or more")
    wanted = -(-(needed if margin is None else margin) // stride) * stride
    if tile is None:
        tile = tuple(-(-max(side, 4 * wanted) // stride) * stride for side in trained)
    elif any(side % stride for side in tile):
        raise ValueError(
            f"image_size: found {tuple(tile)}, expected tiles of multiples of {stride}, the network's stride"
        )
    room = (min(tile) - stride) // 2 // stride * stride
    if margin is not None and wanted > room:
        raise ValueError(
            f"margin: found {margin}, expected at most {room} with tiles of {tuple(tile)}; take larger ones"
        )
    answer = tuple(np.ravel(model.compute_output_shape((1, *tile, 3)))[1:3].tolist())  # a list for a list of one input
    if any(side % answered for side, answered in zip(tile, answer, strict=True)):
        raise ValueError(
            f"tiles: the network answers {answer} for a tile of {tuple(tile)}; expected padded convolutions, whose "
            "answer covers the whole tile"
        )
    return tuple(tile), min(wanted, room)


def stride_and_reach(model: keras.Model) -> tuple[int, int]:
    """Of a U-Net: pixels from one value of its coarsest level to the next, and how far a pixel's answer looks at most.

    From an answered pixel back through all layers, one after another, as they follow each other along the U: with
    branches beside it, such as the shortcuts of residual networks, both numbers are too large, never too small.
    A layer that looks at the whole picture, such as a global pooling, is not counted.
    """
    windows = [_window(layer) for layer in _flat(model)]
    step = stride = 1.0
    for _, factor, up in windows:
        step = step / factor if up else step * factor
        stride = max(stride, step)
    reach = 0
    for pixel in range(int(stride)):
        low = int(np.floor((pixel + 0.5) / step - 0.5))  # a coarser answer is enlarged bilinearly
        high = low + (step > 1)
        for kernel, factor, up in reversed(windows):
            before = max(kernel - factor, 0) // 2  # the padding on the left
            if up:
                low, high = -((kernel - 1 - before - low) // factor), (high + before) // factor
            else:
                low, high = factor * low - before, factor * high - before + kernel - 1
        reach = max(reach, pixel - low, high - pixel)
    return int(stride), int(reach)


def _window(layer: keras.Layer) -> tuple[int, int, bool]:
    """(kernel, factor, up): a value is made of so many, and there are so many times fewer, or with up, more of them."""
    config = layer.get_config()
    if isinstance(layer, layers.UpSampling2D):
        factor = int(max(config["size"]))
        return factor if config["interpolation"] == "nearest" else 3 * factor, factor, True
    kernel = int(np.max(config.get("kernel_size", config.get("pool_size", 1))))
    kernel += (kernel - 1) * (int(np.max(config.get("dilation_rate", 1))) - 1)
    return kernel, int(np.max(config.get("strides") or 1)), isinstance(layer, layers.Conv2DTranspose)


def _flat(model: keras.Model) -> Iterator[keras.Layer]:
    for layer in model.layers:
        yield from _flat(layer) if isinstance(layer, keras.Model) else [layer]
