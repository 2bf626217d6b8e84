"""What holds a training up on this machine: measured, and named in one sentence."""

import contextlib
import math
import os
import shutil
import sys
import tempfile
import textwrap
import time
import zlib
from collections import namedtuple
from collections.abc import Iterable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import keras

from .devices import device_report
from .labels import Pair
from .naming import named, setting
from .training import ProgressiveResizing, restored

SECONDS, N_STEPS, N_FILES = 0.3, 3, 8  # that are timed, at least
N_CORES = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
ENOUGH = 1.2  # how many times as fast as the step the data should come
GAIN = 1.3  # from here on, times the images/s with twice the batch size, the batch is too small
SHARE = 0.75  # of the cores' time; with less, others hold the training up

# At one image size, images/s: of the data alone in the pass that decodes, in later ones, in later ones without
# augmentation; of the step alone and fed by later passes. The step's share of the matmul limit; seconds to compile it.
SizeSpeed = namedtuple("SizeSpeed", "size first later plain step both share compiling")


@dataclass(frozen=True)
class Bottlenecks:
    """What `measure` found; as text, lines that fit a phone."""

    sizes: list[SizeSpeed]
    reading: float  # seconds for the files of a pair, with all cores
    decoding: float  # seconds for what is in them
    gain: float  # how many times the images/s with twice the batch size
    batch_size: int
    cores: float  # 0..1, the share of the cores' time that this process gets
    limit: float  # GFLOP/s of a large matrix product
    mib: float | None  # peak memory
    on_cpu: bool = True

    @property
    def weights(self) -> dict[str, float]:
        """How much each possible bottleneck matters, from 1 on; the largest is the one."""
        waits = {"augmentation": 0.0, "reading" if self.reading > self.decoding else "decoding": 0.0}
        for each in self.sizes:
            augmenting = 1 / each.later - 1 / each.plain  # seconds an image
            for name, seconds in zip(waits, (augmenting, 1 / each.first - augmenting), strict=True):
                waits[name] = max(waits[name], ENOUGH * seconds * each.step)
        load = SHARE / self.cores if self.on_cpu else min(SHARE / self.cores, *waits.values())
        return {"network": 1.0, "batch": self.gain / GAIN, "load": load} | waits

    @property
    def sentence(self) -> str:
        """The bottleneck, and the parameter that widens it."""
        found = max(self.weights, key=self.weights.get)
        augmenting = [1000 * (1 / each.later - 1 / each.plain) for each in self.sizes]
        return "Held up by " + {
            "network": f"the network, at {self.sizes[-1].share:.0%} of the limit; lower "
            f"{named('IMAGE_SIZE or N_FILTERS, or set HALF_RESOLUTION = True')}.",
            "batch": f"the small batch; {setting('BATCH_SIZE', 2 * self.batch_size)} is {self.gain:.1f} times as fast "
            "for each image.",
            "load": f"other programs or a container's limit, which leave {self.cores:.0%} of the cores; end them, or "
            f"raise {named('MINUTES')}.",
            "augmentation": f"the augmentation, {max(augmenting):.1f} ms an image; "
            f"{named('shorten the list augment')}.",
            "reading": f"reading the files, {1000 * self.reading:.1f} ms a pair; copy them to a disk of this machine "
            f"and give that folder as {named('DATA_DIR')}.",
            "decoding": f"decoding, {1000 * self.decoding:.1f} ms a pair in the first epoch of each size; give a "
            f"folder of smaller copies as {named('DATA_DIR')}.",
        }[found]  # fmt: skip

    def __str__(self):
        lines = [f"{'images/s':<9}{'first':>7}{'later':>7}{'step':>7}{'both':>7}{'limit':>7}"]
        for each in self.sizes:
            rates = "".join(f"{rate:>7.{0 if rate >= 100 else 1}f}" for rate in (*each[1:3], *each[4:6]))
            lines.append(f"{'{}x{}'.format(*each.size):<9}{rates}{each.share:>7.0%}")
        compiling = ", ".join(f"{each.compiling:.1f}" for each in self.sizes)
        legend = "first, later: data alone, decoded and cached; step: alone; both: together; limit: the step's share "
        legend += f"of a matrix product's {self.limit:,.0f} GFLOP/s; compiled in {compiling} s"
        legend += f"; peak memory {self.mib:,.0f} MiB" if self.mib else ""
        return "\n".join([*lines, *textwrap.wrap(legend, 45), *textwrap.wrap(self.sentence, 45)])


def measure(model: keras.Model, batches, resizing: ProgressiveResizing) -> Bottlenecks:
    """Find out what holds the training of a compiled model up; then it is `restored`.
    batches: from `pipeline.make_batches` with this resizing; what they cached is decoded anew."""
    sizes, cores, limit, gain = [], _share_of_cores(), matmul_gflops(model.compute_dtype), 1.0
    some, plain, batch_size = batches.take(4 * N_CORES), batches.plain.take(4 * N_CORES), len(next(iter(batches))[0])
    reading, decoding = _time_files(batches, resizing.stage)
    with restored(model, resizing):
        for size in dict.fromkeys(resizing.sizes):
            resizing.stage, kept = resizing.sizes.index(size), batches.take(1).cache()
            seconds_each(kept)  # or the first step would wait for it, and the second for the batches behind it
            step, compiling = _time_steps(model, kept)
            batches.readers.stage = None  # forgets what is decoded
            data = [seconds_each(each) for each in (some, some.repeat(3), plain.repeat(3))]
            rates = [batch_size / seconds for seconds in (*data, step, _time_steps(model, some)[0])]
            sizes.append(SizeSpeed(size, *rates, 3 * forward_gflop(model, size) * rates[3] / limit, compiling))
        with contextlib.suppress(Exception):  # no memory for it
            gain = 2 * step / _time_steps(model, kept.repeat(2).unbatch().batch(2 * batch_size).cache())[0]
    on_cpu, cores = device_report()["kind"] == "CPU", (cores + _share_of_cores()) / 2
    return Bottlenecks(sizes, reading, decoding, gain, batch_size, cores, limit, peak_mib(), on_cpu)


def seconds_each(items: Iterable) -> float:
    """Seconds until an item comes, on average."""
    started = time.perf_counter()
    number = sum(1 for _ in items)
    return (time.perf_counter() - started) / number


def _time_steps(model: keras.Model, batches) -> tuple[float, float]:
    """Seconds of a training step, and how many more the first one takes."""
    ends = [time.perf_counter()]

    def note(batch, logs):
        float(logs["loss"])  # waits for an asynchronous device
        ends.append(time.perf_counter())
        model.stop_training = len(ends) >= 2 + N_STEPS and ends[-1] - ends[1] >= SECONDS

    callback = keras.callbacks.LambdaCallback(on_train_batch_end=note)
    model.fit(batches.repeat(), verbose=0, shuffle=False, callbacks=[callback])
    step = (ends[-1] - ends[1]) / (len(ends) - 2)
    return step, max(0.0, ends[1] - ends[0] - step)


def _time_files(batches, stage: int) -> tuple[float, float]:
    """Seconds of reading the files of a pair, if possible of some that were not read before, and of decoding them."""
    from .pipeline import PairReader  # which imports TensorFlow

    reader = batches.readers.of(stage)
    unread = [pair for pair, is_cached in zip(batches.pairs, reader.cached, strict=True) if not is_cached]
    files = [path for pair in (unread or batches.pairs)[-N_FILES:] for path in pair]
    with tempfile.TemporaryDirectory() as folder, ThreadPoolExecutor(N_CORES) as pool:
        copies = [os.path.join(folder, f"{number}{path.suffix}") for number, path in enumerate(files)]
        pairs = [Pair(*both) for both in zip(copies[::2], copies[1::2], strict=True)]
        local = PairReader(pairs, reader.labels, reader.image_size, reader.mask_size, cache=False)
        reading = 2 * seconds_each(pool.map(shutil.copyfile, files, copies))
        return reading, seconds_each(pool.map(local.read, range(len(pairs))))


def _share_of_cores() -> float:
    """How much of the cores' time this process gets when it wants all, 0..1."""
    end, before, content = time.perf_counter() + SECONDS, time.process_time(), bytes(1 << 22)

    def work(_):
        while time.perf_counter() < end:
            zlib.crc32(content)  # Python's lock is free meanwhile

    with ThreadPoolExecutor(N_CORES) as pool:
        wanted = N_CORES * N_CORES * seconds_each(pool.map(work, range(N_CORES)))
    return min(1.0, (time.process_time() - before) / wanted)


def matmul_gflops(dtype: str) -> float:
    """10**9 operations a second of a product of square matrices, larger ones until it takes 20 ms."""
    n, seconds = 512, 0.0
    while seconds < 0.02 and n < 1 << 14:
        n *= 2
        matrix = keras.ops.cast(keras.random.normal((n, n), seed=0), dtype)
        product = (keras.ops.convert_to_numpy(keras.ops.matmul(matrix, matrix)[0, 0]) for _ in range(4))
        next(product)  # it may be compiled
        seconds = seconds_each(product)
    return 2 * n**3 / seconds / 1e9


def forward_gflop(model: keras.Model, size: tuple[int, int]) -> float:
    """10**9 operations of the convolutions for one image of this size, additions and products counted alike."""
    kinds = keras.layers.Conv2D, keras.layers.Conv2DTranspose
    convolutions = [layer for layer in model.layers if isinstance(layer, kinds)]
    # A convolution uses its kernel once for each output pixel, a transposed one for each input pixel.
    maps = [layer.input if isinstance(layer, kinds[1]) else layer.output for layer in convolutions]
    shapes = keras.Model(model.inputs, maps)(keras.KerasTensor((1, *size, model.input_shape[-1])))
    pairs = zip(shapes, convolutions, strict=True)
    return sum(2 * math.prod((*each.shape[1:3], *layer.kernel.shape)) for each, layer in pairs) / 1e9


def peak_mib() -> float | None:
    """MiB of memory used at most: of the GPU on JAX, else of the process; None where the system does not tell."""
    if keras.backend.backend() == "jax":
        import jax

        if stats := jax.local_devices()[0].memory_stats():  # None on a CPU
            return stats["peak_bytes_in_use"] / 2**20
    if sys.platform == "win32":
        return None
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / (2**20 if sys.platform == "darwin" else 2**10)
