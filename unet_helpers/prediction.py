"""Masks of whole images: by tiles where they are large, with test-time augmentation, at the image's own size."""

from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

import keras
import numpy as np
import tensorflow as tf
from keras import layers

from .images import decode_image, fit_image, fitted_box
from .model import check_image_size
from .naming import named, shown
from .networks import Network, load_network


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


STRIP = 1 << 22  # logits that are enlarged at once: those of all pixels of a large picture would take gigabytes


def predict_logits(model: keras.Model, images, flipped: bool = False) -> np.ndarray:
    """The network's answer to a batch: images (B, H, W, 3), 0..255, at its input size -> (B, H', W', K) logits.

    flipped: ask about the mirrored pictures and mirror the answer back: a second opinion about the same pixels.
    """
    if flipped:
        return model.predict_on_batch(images[:, :, ::-1])[:, :, ::-1]
    return model.predict_on_batch(images)


def predict_masks(model: keras.Model, images, tta: bool = True) -> np.ndarray:
    """Masks for a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, H', W') uint8 class ids.

    tta: take the mean of two answers, one of them about the mirrored pictures. It is a little better than one answer
        and takes twice the time.
    """
    logits = predict_logits(model, images)
    if tta:
        logits = (logits + predict_logits(model, images, flipped=True)) / 2
    return np.argmax(logits, axis=-1).astype(np.uint8)


def predict_mask(
    network: Network | keras.Model | str | Path, image, image_size: tuple[int, int] | None = None, *,
    tiles: bool = False, margin: int | None = None, tta: bool = True, confidence: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mask of one picture at the picture's own size, (H, W) uint8 class ids.

    network: from `load_network`, or its `.keras` file, which is read anew each time; with a model alone, image_size is
        needed, unless the model takes one size only.
    image: path of a picture file, or an (H, W, 3) uint8 RGB array of any size. Files are read by `images.decode_image`.
    image_size: (height, width) at which the network looks at it; None: at which it was trained, because it knows things
        only as large as it saw them. The picture keeps its proportions, and grey surrounds it where it does not fit.
        With tiles: the size of a tile, a multiple of the network's stride.
    tiles: for a network that was trained with cuttings of pictures at their own scale: it looks at one part after
        another, so that its memory does not grow with the picture. See `tiles.cut_tiles`.
    margin: pixels at the border of a tile whose answer is not used; None: as many as an answer depends on.
    tta: take the mean of two answers, see `predict_masks`.
    confidence: return (mask, confidence), (H, W) float32, 0..1: the softmax's value for the class that is answered.
    Raises ValueError, naming the file or what was found, if image is neither or the network can't look at that size.
    """
    if isinstance(network, (str, Path)):
        network = load_network(network)
    model, trained = (network.model, network.image_size) if isinstance(network, Network) else (network, None)
    bits = network.bits if isinstance(network, Network) else None
    pixels = decode_image(image, bits) if isinstance(image, (str, Path)) else image
    if pixels.ndim != 3 or pixels.shape[-1] != 3 or pixels.dtype != np.uint8 or 0 in pixels.shape:
        raise ValueError(f"image: expected an (H, W, 3) uint8 RGB array, found {tuple(pixels.shape)} {pixels.dtype}")
    pixels = np.asarray(pixels)
    if tiles:
        size, margin = plan_tiles(model, _known_size(model, image_size), margin, trained or (1, 1))
        pieces = cut_tiles(pixels, size, margin)
    elif margin is not None:
        raise ValueError(f"margin: found {margin} without tiles; give tiles=True, or leave it out")
    else:
        size = _known_size(model, image_size or trained)
        if size is None:
            raise ValueError(
                f"{named('image_size')}: this network takes any size; expected the (height, width) of its training"
            )
        pieces = [fit_whole(pixels, size)]
    mask = np.empty(pixels.shape[:2], np.uint8)
    certainty = np.empty(mask.shape, np.float32) if confidence else None
    for piece in pieces:
        write_prediction(piece, _logits(model, piece.pixels[None], tta, size)[0], mask, certainty)
    return (mask, certainty) if confidence else mask


def _logits(model: keras.Model, images, tta: bool, size: tuple[int, int]) -> np.ndarray:
    try:
        logits = predict_logits(model, images)
        return (logits + predict_logits(model, images, flipped=True)) / 2 if tta else logits
    except (ValueError, tf.errors.InvalidArgumentError):
        raise ValueError(
            f"{named('image_size')}: found {shown(size)}, at which the levels of this network do not fit together; try "
            "the size that it was trained at, or multiples of 32"
        ) from None


def write_prediction(
    piece: Piece, logits: np.ndarray, mask: np.ndarray, confidence: np.ndarray | None = None
) -> np.ndarray:
    """Write the answer to a piece, (h, w, K) logits, to its place in mask, (H, W) uint8, and confidence; returns mask.

    The logits are enlarged, not the ids: their bilinear mean puts an edge between two pixels, a nearest neighbour could
    only repeat pixels.
    """
    top, left, bottom, right = (int(side) for side in piece.box)
    scale = np.array(piece.scale) * piece.pixels.shape[:2] / logits.shape[:2]  # the answer may be coarser
    n_rows = max(1, STRIP // ((right - left) * logits.shape[-1]))
    for row in range(top, bottom, n_rows):
        end = min(row + n_rows, bottom)
        with tf.device("CPU:0"):  # the only one that has this op, which is tf.image.resize for a part of the result
            strip = tf.raw_ops.ScaleAndTranslate(
                images=logits[None], size=(end - row, right - left), scale=scale.astype(np.float32),
                translation=np.float32([piece.offset[0] - row, piece.offset[1] - left]),
                kernel_type="triangle", antialias=False,
            )[0]  # fmt: skip
            mask[row:end, left:right] = tf.argmax(strip, axis=-1, output_type=tf.int32).numpy()
            if confidence is not None:
                confidence[row:end, left:right] = tf.reduce_max(tf.nn.softmax(strip), axis=-1).numpy()
    return mask


def _known_size(model: keras.Model, image_size: tuple[int, int] | None) -> tuple[int, int] | None:
    """(height, width) that is asked for or that the network takes only; None: it takes any."""
    own = model.input_shape[1:3]
    if image_size is None:
        return None if None in own else own
    name, image_size = named("image_size"), check_image_size(named("image_size"), image_size)
    if None not in own and image_size != own:
        raise ValueError(f"{name}: found {shown(image_size)}, but this network takes pictures of {own}; leave it out")
    return image_size
