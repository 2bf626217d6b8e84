"""From pairs of files to batches for the network, with tf.data: decode, cache, shuffle, augment, prefetch."""

import errno
import io
import itertools
import math
import os
import shutil
import tempfile
import threading
import weakref
from collections.abc import Callable, Sequence

import numpy as np
import tensorflow as tf

from .devices import Share, share
from .images import decode_image, decode_mask, fit_image, fit_mask
from .labels import VOID, LabelMap, Pair

N_DRAWS = 256  # random numbers for each image and change: one for each id that a mask can hold


class PairReader:
    """Pairs at one size, by their number. Each is decoded when it is first asked for, and then cached in a file.

    The file holds plain pixels: the system keeps in memory what there is room for, and the process itself stays small.
    It ends with the reader, even if that is killed. Without room for it, or cache=False, pairs are decoded each time.
    """

    def __init__(
        self, pairs: Sequence[Pair], labels: LabelMap, image_size: tuple[int, int],
        mask_size: tuple[int, int] | None = None, cache: bool = True,
    ):  # fmt: skip
        self.pairs, self.labels, self.image_size, self.mask_size = pairs, labels, image_size, mask_size or image_size
        self.pair_bytes = 3 * int(np.prod(image_size)) + int(np.prod(self.mask_size))
        self.cached, self.full = np.zeros(len(pairs), bool), not cache
        self.file = self._make_file() if cache else None
        self.lock = threading.Lock()  # of the place in the file

    def read(self, index: int) -> tuple[np.ndarray, np.ndarray]:
        """Image, (H, W, 3) uint8, and mask, (H', W', 1) uint8 ids, of pair number index."""
        if self.cached[index]:
            with self.lock:
                self.file.seek(index * self.pair_bytes)
                pixels = np.frombuffer(self.file.read(self.pair_bytes), np.uint8)
            image, mask = np.split(pixels, [3 * int(np.prod(self.image_size))])
            return image.reshape(*self.image_size, 3), mask.reshape(*self.mask_size, 1)
        pair = self.pairs[index]
        with tf.device("CPU:0"):  # not on the GPU, which is busy training
            image = fit_image(decode_image(pair.image), self.image_size)
            mask = fit_mask(decode_mask(pair.mask, self.labels), self.mask_size, self.image_size)
        with self.lock:
            if not self.full:
                try:
                    self.file.seek(index * self.pair_bytes)
                    self.cached[index] = self.file.write(image.tobytes() + mask.tobytes()) == self.pair_bytes
                except OSError as error:  # the disk is full: what is cached stays
                    self._stop_caching(error)
        return image, mask

    def _make_file(self) -> io.FileIO | None:
        """An empty temporary file; None, and a message, unless it will take at most half of the free disk."""
        needed = len(self.pairs) * self.pair_bytes
        try:
            free = shutil.disk_usage(tempfile.gettempdir()).free
            if needed > free / 2:
                raise OSError(errno.ENOSPC, f"they need {needed / 1e9:.1f} GB, and {free / 1e9:.1f} GB are free")
            return tempfile.TemporaryFile(buffering=0)
        except OSError as error:
            return self._stop_caching(error)

    def _stop_caching(self, error: OSError) -> None:
        self.full, size = True, "x".join(map(str, self.image_size))
        what = f"not all {len(self.pairs)} decoded images of {size} can be cached ({error.strerror})"
        print(f"{what}: each epoch decodes the others again, unless you set TMPDIR to a folder on a larger disk")


def make_batches(
    pairs: Sequence[Pair], labels: LabelMap, image_size: tuple[int, int], batch_size: int, *,
    mask_size: tuple[int, int] | None = None, shuffle: bool = False, augment: Sequence[Callable] = (), seed: int = 0,
    resizing=None, cache: bool = True,
) -> tf.data.Dataset:  # fmt: skip
    """Batches (images, masks) for `model.fit`.
    image_size: (height, width) of the network's input, see `fit_image`; mask_size: of the masks, image_size if None.
    shuffle: True draws a new order for each epoch and drops an incomplete last batch; False keeps order and all pairs.
    augment: changes from `augmentation`, made in this order.
    seed: determines, with epoch and pair, all that is random, so that a run can be repeated and resumed.
    resizing: `training.ProgressiveResizing`, which tells the epoch and its image size; masks shrink alike. Without it,
        each pass over the batches is the next epoch.
    cache: False for batches that are used once.
    Where several devices share a batch, it is filled up for equal shares, with repeated images whose masks are void;
    where several processes do, each loads its own share of it, and B is the size of that.
    Yields images (B, H, W, 3), uint8 or, if augmented, float32, 0..255; masks (B, H', W', 1) uint8, ids 0..K-1 or 255 =
    void. The attribute plain has the same batches without augmentation, from the same cache."""
    if not pairs:
        raise ValueError("pairs: found none, expected at least one image with its mask")
    mask_size = mask_size or image_size
    sizes = resizing.sizes if resizing else [image_size]
    n_batches = math.ceil(len(_full_batches(np.arange(len(pairs)), batch_size, shuffle)) / batch_size)

    mask_sizes = [tuple((np.array(size) * mask_size // image_size).tolist()) for size in sizes]
    readers = _StageReaders([(pairs, labels, *both, cache) for both in zip(sizes, mask_sizes, strict=True)])
    readers_of_batches = weakref.ref(readers)  # TensorFlow never frees `load`, which must not keep the files alive

    def deliver(changes: Sequence[Callable]) -> tf.data.Dataset:
        def load(epoch, indices):
            reader = readers_of_batches().of(resizing.stage if resizing else 0)
            known = np.maximum(indices, ~indices)
            images, masks = map(np.stack, zip(*map(reader.read, known), strict=True))
            masks[indices < 0] = VOID
            draws = [np.random.default_rng([seed, epoch, 1 + i]).random((len(changes), N_DRAWS), "f4") for i in known]
            return images, masks, np.stack(draws)

        def prepare(epoch, indices):
            images, masks, draws = tf.numpy_function(load, [epoch[0], indices], (tf.uint8, tf.uint8, tf.float32))
            size = (*sizes[0], *mask_size) if len(sizes) == 1 else (None,) * 4
            images = tf.ensure_shape(images, (*indices.shape, *size[:2], 3))
            masks = tf.ensure_shape(masks, (*indices.shape, *size[2:], 1))
            draws = tf.ensure_shape(draws, (*indices.shape, len(changes), N_DRAWS))
            for number, change in enumerate(changes):
                images, masks = change(images, masks, draws[:, number])
            return images, masks

        batches = epoch_order(len(pairs), batch_size, shuffle, seed, resizing)
        batches = batches.map(prepare, num_parallel_calls=os.cpu_count()).prefetch(2)
        batches = without_autotune(batches.apply(tf.data.experimental.assert_cardinality(n_batches)))
        batches.pairs, batches.readers = pairs, readers  # for diagnosis; the files live as long as these
        return batches

    batches = deliver(augment)
    batches.plain = deliver(())
    return batches


class _StageReaders:
    """One reader at a time: the files of one size are deleted before those of the next are made."""

    def __init__(self, arguments: Sequence[tuple]):
        self.arguments, self.stage, self.reader = arguments, None, None
        self.lock = threading.Lock()  # two batches are loaded at once, and must not make a reader each

    def of(self, stage: int) -> PairReader:
        with self.lock:
            if stage != self.stage:
                self.stage, self.reader = stage, None  # deletes its file
                self.reader = PairReader(*self.arguments[stage])
            return self.reader


def epoch_order(n_pairs: int, batch_size: int, shuffle: bool, seed: int, clock=None) -> tf.data.Dataset:
    """Yields (epoch, numbers) of each batch: this process's share of it, see `share_of_batches`, shuffled by epoch.
    clock: its attribute epoch is read when a pass begins; without it, passes are counted from 0."""
    passes, part = itertools.count(), share()

    def own(numbers: np.ndarray) -> np.ndarray:
        return share_of_batches(_full_batches(numbers, batch_size, shuffle), batch_size, part)

    share_size, n_own = len(share_of_batches(np.arange(batch_size), batch_size, part)), len(own(np.arange(n_pairs)))

    def start():
        epoch = clock.epoch if clock else next(passes)
        numbers = np.random.default_rng([seed, epoch]).permutation(n_pairs) if shuffle else np.arange(n_pairs)
        return np.full(n_own, epoch), own(numbers)

    def one_epoch(_):  # Dataset.from_generator would be shorter, but changes how the whole process allocates memory
        columns = tf.numpy_function(start, [], (tf.int64, tf.int64))
        return tf.data.Dataset.from_tensor_slices(tuple(tf.ensure_shape(column, [n_own]) for column in columns))

    return tf.data.Dataset.range(1).flat_map(one_epoch).batch(share_size, drop_remainder=n_own % share_size == 0)


def _full_batches(numbers: np.ndarray, batch_size: int, shuffle: bool) -> np.ndarray:
    """Without those of an incomplete last batch, if they are shuffled and there is another batch."""
    n = len(numbers)
    return numbers[: n - n % batch_size] if shuffle and n >= batch_size else numbers


def share_of_batches(numbers: np.ndarray, batch_size: int, part: Share) -> np.ndarray:
    """A process's part of each batch of these numbers, one after another, each as large as that of any other process.
    A number below 0 fills a batch up: ~number is repeated, and its mask is void."""
    shares = []
    for start in range(0, len(numbers), batch_size):
        batch = numbers[start : start + batch_size]
        filled = np.append(batch, ~np.resize(batch, -len(batch) % part.n_devices))
        shares.append(np.split(filled, part.n_processes)[part.process])
    return np.concatenate(shares)


def with_class_weights(batches: tf.data.Dataset, class_weights: np.ndarray) -> tf.data.Dataset:
    """Batches (images, masks, weights) for `model.fit`: each pixel weighs what its class does, void 0.
    class_weights: (K,) float, from `losses.class_weights`. weights: (B, H', W', 1) float32.
    The attributes pairs, those of the batches, and class_weights say what they hold."""
    weight_of_id = np.pad(np.asarray(class_weights, np.float32), (0, 256 - len(class_weights)))
    weighted = batches.map(lambda images, masks: (images, masks, tf.gather(weight_of_id, tf.cast(masks, tf.int32))))
    weighted.pairs, weighted.class_weights = getattr(batches, "pairs", None), np.asarray(class_weights, np.float32)
    return weighted


def without_autotune(batches: tf.data.Dataset) -> tf.data.Dataset:
    """The same batches without tf.data's autotuning.
    Its thread sleeps 10 ms, then 20, 40 and so on, and a loop over the batches ends only when it wakes up."""
    options = tf.data.Options()
    options.autotune.enabled = False
    return batches.with_options(options)
