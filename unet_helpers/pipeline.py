"""From pairs of files to batches for the network: decode, resize, cache, augment, prefetch - all in tf.data."""

import tempfile
import time
from collections.abc import Sequence

import numpy as np
import tensorflow as tf

from .labels import VOID, LabelMap, Pair

CACHE_BYTES = 2 * 1024**3  # of decoded pictures stay in memory; a set that is larger goes to a temporary file

_cache_folders = []  # kept until the process ends: a dataset reads its cache file for as long as it lives


def decode_image(path) -> tf.Tensor:
    """Picture file (PNG, JPEG, BMP) -> (H, W, 3) uint8."""
    return tf.io.decode_image(tf.io.read_file(path), channels=3, expand_animations=False)


def decode_mask(path, labels: LabelMap) -> tf.Tensor:
    """Mask PNG with ids in its one channel or its red channel -> (H, W, 1) uint8 class ids 0..K-1 or 255 = void."""
    values = tf.io.decode_png(tf.io.read_file(path), channels=3)[..., :1]
    return tf.gather(tf.constant(labels.value_to_id), tf.cast(values, tf.int32))


def resize_image(image, size: tuple[int, int]) -> tf.Tensor:
    """(..., H, W, 3) uint8 -> (..., *size, 3) uint8, bilinear; antialias averages pixels where it shrinks."""
    resized = tf.image.resize(image, size, method="bilinear", antialias=True)
    return tf.cast(tf.round(resized), tf.uint8)


def resize_mask(mask, size: tuple[int, int]) -> tf.Tensor:
    """(..., H, W, 1) ids -> (..., *size, 1) ids. Nearest neighbour: a mean of two ids would be a third class."""
    return tf.image.resize(mask, size, method="nearest")


def augmentation(
    zoom: tuple[float, float] = (0.9, 1.3), stretch: float = 1.05, light: float = 0.2, seed: int | None = None
):
    """Random changes for a batch, the same for a picture and its mask; fresh ones each time.

    zoom: range of the enlargement; below 1 the picture shrinks and its surroundings are void.
    stretch: largest change of the ratio of width to height.
    light: largest share by which brightness and contrast change; the mask keeps its ids.
    Returns a function (images (B, H, W, 3) uint8, masks (B, H, W, 1) uint8) -> (float32 0..255, uint8).
    """

    def augment(images, masks):
        # One draw for all: ops with the same seed would draw the same numbers, and large pictures would all be bright.
        draws = tf.random.uniform([7, tf.shape(images)[0], 1], -1, 1, seed=seed)
        enlargement, ratio, row, column, mirror, contrast, brightness = tf.unstack(draws)

        # One op cuts a window out of each picture and enlarges it; a window that runs from right to left mirrors.
        # Keras has a layer for each of these changes, but several passes over the pictures would slow training down,
        # and before Keras 3.14 its RandomZoom resamples masks bilinearly and so invents classes.
        low, high = np.log(zoom)
        scale = tf.exp((low + high + (high - low) * enlargement) / 2)
        ratio = stretch ** (ratio / 2)
        height, width = ratio / scale, 1 / (ratio * scale)  # of the window, as shares of the picture
        top, left = (1 - height) * (row + 1) / 2, (1 - width) * (column + 1) / 2
        sides = tf.where(mirror < 0, [left, left + width], [left + width, left])
        boxes = tf.concat([top, sides[0], top + height, sides[1]], axis=1)

        def cut(pictures, method, fill):
            batch, height, width = tf.unstack(tf.shape(pictures)[:3])
            return tf.image.crop_and_resize(pictures, boxes, tf.range(batch), (height, width), method, fill)

        contrast, brightness = (1 + light * draw[..., None, None] for draw in (contrast, brightness))
        lit = (cut(images, "bilinear", 127.5) - 127.5) * contrast + (255 * brightness - 127.5)
        return tf.clip_by_value(lit, 0, 255), tf.cast(cut(masks, "nearest", VOID), tf.uint8)

    return augment


def copy_paste(classes: Sequence[int], share: float = 0.5, seed: int | None = None):
    """Rare things more often: pixels of these classes, cut out of the next picture and pasted at their place.

    classes: ids. share: 0..1, how many of the classes, drawn anew for each picture of the batch, are pasted into it.
    Returns a function (images (B, H, W, 3), masks (B, H', W', 1) uint8) -> the same shapes and dtypes.
    Source: Ghiasi et al. 2021, https://arxiv.org/abs/2012.07177 (objects); Olsson et al. 2021,
    https://arxiv.org/abs/2007.07936 (all pixels of a class, as here).
    """
    ids = np.arange(256)
    if not np.isin(classes, ids[:VOID]).all():
        raise ValueError(f"classes: expected ids 0..{VOID - 1}, found {list(classes)}")
    pasted = np.isin(ids, classes)

    def paste(images, masks):
        chosen = pasted & (tf.random.uniform([tf.shape(masks)[0], len(ids)], seed=seed) < share)
        other_images, other_masks = tf.roll(images, 1, axis=0), tf.roll(masks, 1, axis=0)
        covered = tf.gather(chosen, tf.cast(other_masks[..., 0], tf.int32), batch_dims=1)[..., None]
        masks = tf.where(covered, other_masks, masks)
        covered = resize_mask(tf.cast(covered, tf.uint8), tf.shape(images)[1:3]) > 0  # the picture may be larger
        return tf.where(covered, other_images, images), masks

    return paste


def make_batches(
    pairs: Sequence[Pair], labels: LabelMap, image_size: tuple[int, int], batch_size: int, augment: bool = False, *,
    mask_size: tuple[int, int] | None = None, pasted: Sequence[int] = (), class_weights: np.ndarray | None = None,
    seed: int | None = None, sizes: Sequence[tuple[int, int]] = (), stage: tf.Variable | int = 0,
) -> tf.data.Dataset:  # fmt: skip
    """Batches (images, masks) or, with class_weights, (images, masks, weights) that `model.fit` takes.

    image_size: (height, width) of the network's input; mask_size: that of the masks, image_size if None.
    augment: True shuffles anew in each epoch, changes pictures and masks at random, and leaves out a last batch that is
        not full; False keeps the order and every picture.
    pasted: with augment, ids of the classes that `copy_paste` pastes into other pictures.
    class_weights: (K,) weight of a class's pixels in the loss; void weighs nothing.
    sizes: the pictures are kept at each of these sizes instead of image_size, their masks in proportion.
    stage: which of the sizes the batches have; a variable that may change between epochs, as that of
        `training.ProgressiveResizing` does.
    Yields images (B, H, W, 3), uint8 or (augmented) float32, 0..255; masks (B, H, W, 1) uint8, ids 0..K-1, 255 = void;
    weights (B, H, W, 1) float32.
    """
    if not pairs:
        raise ValueError("pairs: found none, expected at least one picture with its mask")
    mask_size, sizes = mask_size or image_size, sizes or [image_size]
    mask_sizes = [tuple(np.array(size) * mask_size // image_size) for size in sizes]

    def load(image_path, mask_path):
        image, mask = decode_image(image_path), decode_mask(mask_path, labels)
        return tuple(
            (
                tf.ensure_shape(resize_image(image, size), (*size, 3)),
                tf.ensure_shape(resize_mask(mask, mask_size), (*mask_size, 1)),
            )
            for size, mask_size in zip(sizes, mask_sizes, strict=True)
        )

    def choose(*versions):
        return tf.switch_case(tf.convert_to_tensor(stage), [lambda version=version: version for version in versions])

    batches = tf.data.Dataset.from_tensor_slices(([str(p.image) for p in pairs], [str(p.mask) for p in pairs]))
    batches = batches.map(load, num_parallel_calls=tf.data.AUTOTUNE)
    # Decoded and resized once, not once an epoch.
    pair_bytes = sum(3 * np.prod(size) + np.prod(mask_size) for size, mask_size in zip(sizes, mask_sizes, strict=True))
    batches = batches.cache(_cache_file(len(pairs) * pair_bytes))
    if augment:  # the buffer from which it draws is in memory
        batches = batches.shuffle(max(1, min(len(pairs), CACHE_BYTES // pair_bytes)), seed=seed)
    batches = batches.batch(batch_size, drop_remainder=augment and len(pairs) >= batch_size)
    batches = batches.map(choose)  # whole batches: the stage may change at any time
    if augment:
        batches = batches.map(augmentation(seed=seed))
        if len(pasted):  # another seed: with the same one both would draw the same numbers
            batches = batches.map(copy_paste(pasted, seed=None if seed is None else seed + 1))
    if class_weights is not None:
        weight_of_id = np.zeros(256, np.float32)
        weight_of_id[: labels.n_classes] = class_weights
        batches = batches.map(lambda images, masks: (images, masks, tf.gather(weight_of_id, tf.cast(masks, tf.int32))))
    return without_autotune(batches.prefetch(2))


def without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, but tf.data does not tune itself while it delivers them.

    Its tuner sleeps 10 ms, then 20, then 40 and so on, and a loop over the batches can end only when it wakes up:
    with TensorFlow 2.21 an epoch of 11 seconds takes 20 every now and then.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)


def _cache_file(n_bytes: int) -> str:
    """Name for `Dataset.cache`: "" (memory) where n_bytes fit, else a new file that goes when the process ends."""
    if n_bytes <= CACHE_BYTES:
        return ""
    _cache_folders.append(tempfile.TemporaryDirectory(prefix="unet_cache_", ignore_cleanup_errors=True))
    return f"{_cache_folders[-1].name}/cache"


def images_per_second(batches: tf.data.Dataset, step=None, max_batches: int = 20) -> float:
    """How many pictures a second the pipeline delivers, or that step(*batch) takes in, warmed up by one batch."""
    iterator = iter(batches.repeat())
    n_images = 0
    for number in range(max_batches + 1):
        batch = next(iterator)
        if step:
            step(*batch)
        if number == 0:  # the first batch fills the cache and traces the graph
            started = time.perf_counter()
        else:
            n_images += len(batch[0])
    return n_images / (time.perf_counter() - started)
