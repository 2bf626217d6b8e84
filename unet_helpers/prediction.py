"""Masks from a trained network: the same decoding and resizing as in training, the answer at the picture's own size."""

from pathlib import Path

import keras
import numpy as np
import tensorflow as tf

from .decoding import decode_image
from .masks.reading import examine_picture, read_picture
from .masks.report import Unfit
from .model import check_image_size
from .naming import named, shown
from .networks import Network, load_network
from .tiles import Piece, cut_tiles, fit_whole, plan_tiles

STRIP = 1 << 22  # logits that are enlarged at once: those of all pixels of a large picture would take gigabytes


def predict_logits(model: keras.Model, images, mirrored: bool = False) -> np.ndarray:
    """The network's answer to a batch: images (B, H, W, 3), 0..255, at its input size -> (B, H', W', K) logits.

    mirrored: ask about the mirrored pictures and mirror the answer back: a second opinion about the same pixels.
    """
    if mirrored:
        return model.predict_on_batch(images[:, :, ::-1])[:, :, ::-1]
    return model.predict_on_batch(images)


def predict_masks(model: keras.Model, images, mirror: bool = True) -> np.ndarray:
    """Masks for a batch: images (B, H, W, 3), 0..255, at the network's input size -> (B, H', W') uint8 class ids.

    mirror: take the mean of two answers, one of them about the mirrored pictures. It is a little better than one answer
        and takes twice the time.
    """
    logits = predict_logits(model, images)
    if mirror:
        logits = (logits + predict_logits(model, images, mirrored=True)) / 2
    return np.argmax(logits, axis=-1).astype(np.uint8)


def predict_mask(
    network: Network | keras.Model | str | Path, image, image_size: tuple[int, int] | None = None, *,
    tiles: bool = False, margin: int | None = None, mirror: bool = True, confidence: bool = False,
) -> np.ndarray | tuple[np.ndarray, np.ndarray]:  # fmt: skip
    """Mask of one picture at the picture's own size, (H, W) uint8 class ids.

    network: from `load_network`, or its `.keras` file, which is read anew each time; with a model alone, image_size is
        needed, unless the model takes one size only.
    image: path of a picture file, or an (H, W, 3) uint8 RGB array of any size. Of a file, `read_image` tells more.
    image_size: (height, width) at which the network looks at it; None: at which it was trained, because it knows things
        only as large as it saw them. The picture keeps its proportions, and grey surrounds it where it does not fit.
        With tiles: the size of a tile, a multiple of the network's stride.
    tiles: for a network that was trained with cuttings of pictures at their own scale: it looks at one part after
        another, so that its memory does not grow with the picture. See `tiles.cut_tiles`.
    margin: pixels at the border of a tile whose answer is not used; None: as many as an answer depends on.
    mirror: take the mean of two answers, see `predict_masks`.
    confidence: return (mask, confidence), (H, W) float32, 0..1: the softmax's value for the class that is answered.
    Raises ValueError, naming the file or what was found, if image is neither or the network can't look at that size.
    """
    if isinstance(network, (str, Path)):
        network = load_network(network)
    model, trained = (network.model, network.image_size) if isinstance(network, Network) else (network, None)
    bits = network.bits if isinstance(network, Network) else None
    pixels = read_image(image, bits) if isinstance(image, (str, Path)) else image
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
        write_answer(piece, _logits(model, piece.pixels[None], mirror, size)[0], mask, certainty)
    return (mask, certainty) if confidence else mask


def read_image(path: str | Path, bits: int | None = None) -> np.ndarray:
    """A picture file as (H, W, 3) uint8 RGB: the pixels that training decodes, which reads PNG, JPEG and BMP.

    Others are read by Pillow: TIFF, WebP, GIF (its first frame), CMYK, what EXIF data turn, and 16 bits.
    bits: how many of 16 were in use in training, `Network.bits`: the highest 8 of them are taken, and what needs more
        is white. None: as many as the picture uses.
    Raises ValueError, naming the file, if there is none or it can't be read.
    """
    path = Path(path)
    if not path.exists():
        raise ValueError(f"image: there is no file {str(path)!r}")
    try:
        picture = examine_picture(path)
        if not picture.changes:
            return decode_image(str(path)).numpy()
        return np.asarray(read_picture(path, bits or max(8, picture.highest.bit_length())))
    except Unfit as error:
        raise ValueError(error.about(path)) from error
    except tf.errors.InvalidArgumentError as error:
        raise ValueError(f"{path}: TensorFlow can't decode it; save it anew as PNG, or get it again") from error


def _logits(model: keras.Model, images, mirror: bool, size: tuple[int, int]) -> np.ndarray:
    try:
        logits = predict_logits(model, images)
        return (logits + predict_logits(model, images, mirrored=True)) / 2 if mirror else logits
    except (ValueError, tf.errors.InvalidArgumentError):
        raise ValueError(
            f"{named('image_size')}: found {shown(size)}, at which the levels of this network do not fit together; try "
            "the size that it was trained at, or multiples of 32"
        ) from None


def write_answer(
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
