"""From pairs of files to batches for the network: decode, keep, shuffle, change, prefetch - with tf.data."""

import itertools
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence
from pathlib import Path

import numpy as np
import tensorflow as tf

from .images import decode_image, decode_mask, fit_image, fit_mask
from .labels import LabelMap, Pair
from .storage import make_temporary_folder

N_DRAWS = 256  # random numbers for each picture and change: one for each id that a mask can hold


class PairReader:
    """Pairs fitted into one size, by their number. Each is decoded when it is first asked for, and then kept in a file.

    The file holds the pixels as they are: what the memory has room for, the system keeps there by itself, and the
    process grows by no more than it reads at once. The file is temporary and goes with the reader. Where the disk has
    no room for it, and with cache=False, nothing is kept and each pair is decoded whenever it is asked for.
    """

    def __init__(
        self, pairs: Sequence[Pair], labels: LabelMap, image_size: tuple[int, int],
        mask_size: tuple[int, int] | None = None, cache: bool = True,
    ):  # fmt: skip
        self.pairs, self.labels, self.image_size, self.mask_size = pairs, labels, image_size, mask_size or image_size
        self.image_bytes, self.mask_bytes = 3 * int(np.prod(image_size)), int(np.prod(self.mask_size))
        self.kept = np.zeros(len(pairs), bool)
        self.file = self._make_file() if cache else None
        self.keeps = self.file is not None

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Picture, (H, W, 3) uint8, and mask, (H', W', 1) uint8 ids, of pair number index."""
        size = self.image_bytes + self.mask_bytes
        if self.kept[index]:
            pixels = np.fromfile(self.file, np.uint8, size, offset=index * size)
            image, mask = np.split(pixels, [self.image_bytes])
            return image.reshape(*self.image_size, 3), mask.reshape(*self.mask_size, 1)
        image, mask = self._decode(self.pairs[index])
        if self.keeps:
            try:
                with open(self.file, "r+b") as file:
                    file.seek(index * size)
                    file.write(image.tobytes() + mask.tobytes())
                self.kept[index] = True
            except OSError as error:  # the disk has become full: what is kept stays, the rest is decoded each time
                self.keeps = False
                print(f"no more decoded pictures can be kept ({error.strerror}): each epoch decodes the others again")
        return image, mask

    def _decode(self, pair: Pair) -> tuple[np.ndarray, np.ndarray]:
        with tf.device("CPU:0"):  # a GPU has better things to do
            image, mask = decode_image(pair.image), decode_mask(pair.mask, self.labels)
            return fit_image(image, self.image_size), fit_mask(mask, self.mask_size, self.image_size)

    def _make_file(self) -> Path | None:
        """An empty temporary file, or None, and a sentence, where half of what the disk has free is not enough."""
        needed = len(self.pairs) * (self.image_bytes + self.mask_bytes)
        try:
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if needed <= free / 2:
                folder, delete = make_temporary_folder("unet_cache_")
                weakref.finalize(self, delete)  # also at the end of the process
                (folder / "pixels").touch()
                return folder / "pixels"
            reason = f"they need {needed / 1e9:.1f} GB of temporary files, and {free / 1e9:.1f} GB are free"
        except OSError as error:
            reason = f"there is no place for temporary files: {error.strerror}"
        height, width = self.image_size
        print(
            f"{len(self.pairs)} decoded pictures of {height}x{width} are not kept ({reason}): each epoch decodes them "
            "again. Set TMPDIR to a folder on a larger disk to avoid that."
        )
        return None


def make_batches(
    pairs: Sequence[Pair], labels: LabelMap, image_size: tuple[int, int], batch_size: int, *,
    mask_size: tuple[int, int] | None = None, shuffle: bool = False, augment: Sequence[Callable] = (), seed: int = 0,
    resizing=None, cache: bool = True,
) -> tf.data.Dataset:  # fmt: skip
    """Batches (images, masks) that `model.fit` takes: `PairReader`, `epoch_order` and the changes, one after another.

    image_size: (height, width) of the network's input, into which `fit_image` puts each picture; mask_size: that of the
        masks, image_size if None.
    shuffle: True draws a new order for each epoch and leaves out a last batch that is not full, as training wants it;
        False keeps the order and every picture.
    augment: changes from `augmentation`, made in this order.
    seed: from it, the epoch and the picture follow all that is random, so that a training can be repeated and resumed.
    resizing: `training.ProgressiveResizing`, which tells the epoch and the size of its pictures; masks shrink alike.
        Without it, each pass over the batches is the next epoch.
    cache: False for batches that are gone through once.
    Yields images (B, H, W, 3), uint8 or, if augmented, float32, 0..255; masks (B, H', W', 1) uint8, ids 0..K-1 or 255 =
    void. The attribute plain has the same batches without augmentation, from the same files.
    """
    if not pairs:
        raise ValueError("pairs: found none, expected at least one picture with its mask")
    mask_size = mask_size or image_size
    sizes = resizing.sizes if resizing else [image_size]

    def make_reader(stage: int) -> PairReader:
        shrunk = tuple(int(side) for side in np.array(sizes[stage]) * mask_size // image_size)
        return PairReader(pairs, labels, sizes[stage], shrunk, cache)

    readers = _OneReader(make_reader)
    readers_of_batches = weakref.ref(readers)  # TensorFlow never forgets `load`, which must not keep files for ever

    def deliver(changes: Sequence[Callable]) -> tf.data.Dataset:
        def load(epoch, indices):
            reader = readers_of_batches().of(resizing.stage if resizing else 0)
            images, masks = zip(*(reader.read(index) for index in indices), strict=True)
            draws = [np.random.default_rng([seed, epoch, 1 + i]).random((len(changes), N_DRAWS), "f4") for i in indices]
            return np.stack(images), np.stack(masks), np.stack(draws)

        def prepare(epoch, indices):
            images, masks, draws = tf.numpy_function(load, [epoch[0], indices], (tf.uint8, tf.uint8, tf.float32))
            size = (*sizes[0], *mask_size) if len(sizes) == 1 else (None,) * 4
            images = tf.ensure_shape(images, (*indices.shape, *size[:2], 3))
            masks = tf.ensure_shape(masks, (*indices.shape, *size[2:], 1))
            draws = tf.ensure_shape(draws, (*indices.shape, len(changes), N_DRAWS))
            for number, change in enumerate(changes):
                images, masks = change(images, masks, draws[:, number])
            return images, masks

        order = epoch_order(len(pairs), shuffle, seed, resizing)
        batches = order.batch(batch_size, drop_remainder=full_only)
        batches = batches.map(prepare, num_parallel_calls=os.cpu_count()).prefetch(2)
        batches = without_autotune(batches.apply(tf.data.experimental.assert_cardinality(n_batches)))
        batches.readers = readers  # as long as there are the batches, or others made of them, there are the files
        return batches

    full_only = shuffle and len(pairs) >= batch_size
    n_batches = len(pairs) // batch_size if full_only else -(-len(pairs) // batch_size)
    batches = deliver(augment)
    batches.plain = deliver(())
    return batches


class _OneReader:
    """The reader of one stage at a time: the files of one size are deleted when the turn of the next comes."""

    def __init__(self, make_reader: Callable[[int], PairReader]):
        self.make_reader, self.stage, self.reader = make_reader, None, None
        self.one_at_a_time = threading.Lock()  # two batches are loaded at once, and must not make a reader each

    def of(self, stage: int) -> PairReader:
        with self.one_at_a_time:
            if stage != self.stage:
                self.stage, self.reader = stage, None  # its file goes before the next one comes
                self.reader = self.make_reader(stage)
            return self.reader


def epoch_order(n_pairs: int, shuffle: bool, seed: int, clock=None) -> tf.data.Dataset:
    """Yields (epoch, number of a pair), one after another: each number once an epoch, shuffled from seed and epoch.

    clock: its attribute epoch is read whenever a pass begins; without it, passes are counted from 0.
    """
    passes = itertools.count()

    def start():
        epoch = clock.epoch if clock else next(passes)
        rng = np.random.default_rng([seed, epoch])
        return np.int64(epoch), rng.permutation(n_pairs) if shuffle else np.arange(n_pairs)

    def one_epoch(_):
        epoch, numbers = tf.numpy_function(start, [], (tf.int64, tf.int64))
        epochs = tf.fill([n_pairs], epoch)
        return tf.data.Dataset.from_tensor_slices((epochs, tf.ensure_shape(numbers, [n_pairs])))

    return tf.data.Dataset.range(1).flat_map(one_epoch)


def with_class_weights(batches: tf.data.Dataset, class_weights: np.ndarray) -> tf.data.Dataset:
    """Batches (images, masks, weights) for `model.fit`: each pixel weighs what its class does, void nothing.

    class_weights: (K,) float, from `losses.class_weights`. weights: (B, H', W', 1) float32.
    """
    weight_of_id = np.zeros(256, np.float32)
    weight_of_id[: len(class_weights)] = class_weights
    return batches.map(lambda images, masks: (images, masks, tf.gather(weight_of_id, tf.cast(masks, tf.int32))))


def without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches, but tf.data does not tune itself while it delivers them.

    Its tuner sleeps 10 ms, then 20, then 40 and so on, and a loop over the batches can end only when it wakes up:
    with TensorFlow 2.21 an epoch of 11 seconds takes 20 every now and then.
    """
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
