"""How fast is this machine, and how much of it do training, inference and the pipeline use?

    python benchmarks/throughput.py

Each line is measured in its own process, so that peak memory is its own; the first is the machine's limit, a product of
two large float32 matrices. Speeds are medians over steps. If PyTorch is installed, the same network is measured in it,
too. Writes throughput.md and throughput.json to --out and prints the tables.
"""

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook

NETWORKS = [  # (height, width), filters, half_resolution, batch size
    ((96, 128), 32, False, 32),
    ((96, 128), 16, False, 8),
    ((192, 256), 16, True, 4),
    ((192, 256), 16, True, 8),
    ((192, 256), 32, True, 4),
    ((192, 256), 16, False, 4),
    ((384, 512), 16, True, 4),
]
PIPELINES = [  # (height, width), images, kind of file, cached
    *(((192, 256), n_pairs, ".png", True) for n_pairs in (16, 64, 256)),
    *(((384, 512), 64, suffix, cache) for suffix in (".png", ".jpg") for cache in (True, False)),
]


def seconds_per_call(call, seconds: float) -> float:
    """Median time of call() over at least five calls, after two to warm up."""
    call()
    call()
    times = []
    while len(times) < 5 or sum(times) < seconds:
        started = time.perf_counter()
        call()
        times.append(time.perf_counter() - started)
    return statistics.median(times)


def optimizer_gflop(model) -> float:
    """10**9 floating-point operations per step with which Muon orthogonalizes the updates of all kernels."""
    total = 0
    for variable, velocity in zip(model.trainable_variables, model.optimizer.adam_velocities, strict=True):
        if velocity is None:  # a kernel: each round has two products of its matrix and one square of the smaller side
            a, b = sorted((variable.shape.num_elements() // variable.shape[-1], variable.shape[-1]))
            total += model.optimizer.ns_steps * (2 * 2 * a * a * b + 2 * a**3)
    return total / 1e9


def build(size: tuple[int, int], n_filters: int, half_resolution: bool, n_classes: int = 13):
    """The tutorial's network and its compiled loss."""
    from unet_helpers.model import PLAIN, unet_model
    from unet_helpers.training import compile_unet

    model = unet_model(
        (*size, 3), n_filters, n_classes, **PLAIN | {"normalization": "batch", "half_resolution": half_resolution}
    )  # fmt: skip
    compile_unet(model, n_classes, 1e-3)
    return model


def random_batch(size: tuple[int, int], batch_size: int, output_size: tuple[int, int], n_classes: int = 13):
    """A batch of noise, as `make_batches` would yield it."""
    import tensorflow as tf

    images = tf.random.uniform((batch_size, *size, 3), 0, 255)
    masks = tf.cast(tf.random.uniform((batch_size, *output_size, 1), 0, n_classes, tf.int32), tf.uint8)
    return images, masks


# ---- what a process of its own measures ----


def measure_limit(seconds: float, n: int = 2048) -> dict:
    """GFLOP/s of a float32 product of two n x n matrices."""
    import tensorflow as tf

    matrix = tf.random.normal((n, n))
    product = tf.function(lambda: tf.reduce_sum(tf.matmul(matrix, matrix)))
    return {"gflops": 2 * n**3 / seconds_per_call(lambda: product().numpy(), seconds) / 1e9}


def measure_network(seconds: float, size, n_filters: int, half_resolution: bool, batch_size: int) -> dict:
    """Training and inference on one batch of noise, images/s and GFLOP/s.

    A training step counts as three forward passes plus what Muon computes.
    """
    from unet_helpers.speed import forward_gflop

    model = build(size, n_filters, half_resolution)
    images, masks = random_batch(size, batch_size, model.output_shape[1:3])
    gflop = forward_gflop(model, size)
    inference = batch_size / seconds_per_call(lambda: model.predict_on_batch(images), seconds)
    training = batch_size / seconds_per_call(lambda: model.train_on_batch(images, masks), seconds)
    return {
        "parameters": model.count_params(), "gflop": gflop,
        "training": training, "training_gflops": training * (3 * gflop + optimizer_gflop(model) / batch_size),
        "inference": inference, "inference_gflops": gflop * inference,
    }  # fmt: skip


def measure_torch(seconds: float, size, n_filters: int, half_resolution: bool, batch_size: int, n_classes: int = 13):
    """The same network in PyTorch, channels last: training and inference, images/s. {} where it is not installed."""
    try:
        import torch
    except ImportError:
        return {}
    from torch import nn

    def convolution(a: int, b: int) -> list[nn.Module]:
        return [nn.Conv2d(a, b, 3, padding=1, bias=False), nn.BatchNorm2d(b), nn.ReLU()]

    class UNet(nn.Module):
        def __init__(self, depth: int = 4):
            super().__init__()
            n = [n_filters * 2**level for level in range(depth + 1)]
            self.stem = nn.Sequential(nn.Conv2d(3, n[0], 3, 2, 1), nn.ReLU()) if half_resolution else nn.Identity()
            inputs = [n[0] if half_resolution else 3, *n]
            self.down = nn.ModuleList(nn.Sequential(*convolution(inputs[i], n[i]), *convolution(n[i], n[i])) for i in
                                      range(depth + 1))  # fmt: skip
            self.up = nn.ModuleList(nn.ConvTranspose2d(2 * n[i], n[i], 2, 2) for i in range(depth))
            self.merge = nn.ModuleList(nn.Sequential(*convolution(2 * n[i], n[i]), *convolution(n[i], n[i])) for i in
                                       range(depth))  # fmt: skip
            self.logits = nn.Conv2d(n[0], n_classes, 1)

        def forward(self, x):
            x = self.stem(x / 127.5 - 1)
            skips = []
            for level, block in enumerate(self.down):
                x = block(x if level == 0 else nn.functional.max_pool2d(x, 2))
                skips.append(x)
            for level in reversed(range(len(self.up))):
                x = self.merge[level](torch.cat([self.up[level](x), skips[level]], 1))
            return self.logits(x)

    model = UNet().to(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), 1e-3)
    images = (255 * torch.rand(batch_size, 3, *size)).to(memory_format=torch.channels_last)
    with torch.no_grad():
        masks = torch.randint(n_classes, model(images).argmax(1).shape)

    def train():
        optimizer.zero_grad()
        nn.functional.cross_entropy(model(images), masks).backward()
        optimizer.step()

    def infer():
        with torch.no_grad():
            model(images)

    training = batch_size / seconds_per_call(train, seconds)
    model.eval()
    return {
        "parameters": sum(p.numel() for p in model.parameters()), "version": torch.__version__,
        "training": training, "inference": batch_size / seconds_per_call(infer, seconds),
    }  # fmt: skip


def write_pairs(folder: Path, number: int, suffix: str = ".png", size: tuple[int, int] = (600, 800)) -> list:
    """Random images without fine detail (PNG or JPEG) and masks of 13 classes (PNG), of the Kaggle data set's size."""
    import numpy as np
    from PIL import Image

    from unet_helpers.labels import Pair

    rng = np.random.default_rng(0)
    pairs = []
    for n in range(number):
        pair = Pair(folder / f"image{n}{suffix}", folder / f"mask{n}.png")
        for path, channels, high in ((pair.image, 3, 256), (pair.mask, 1, 13)):
            coarse = Image.fromarray(rng.integers(0, high, (8, 8, channels), np.uint8).squeeze())
            method = Image.Resampling.BICUBIC if channels == 3 else Image.Resampling.NEAREST
            coarse.resize(size[::-1], method).save(path)
        pairs.append(pair)
    return pairs


def training_batches(pairs: list, size: tuple[int, int], batch_size: int, cache: bool = True):
    """Batches as the notebook makes them on a CPU, with augmentation."""
    from unet_helpers.augmentation import RandomResizedCrop
    from unet_helpers.labels import CARLA
    from unet_helpers.pipeline import make_batches

    return make_batches(
        pairs, CARLA, size, batch_size, mask_size=tuple(side // 2 for side in size), shuffle=True,
        augment=[RandomResizedCrop()], cache=cache,
    )  # fmt: skip


def measure_pipeline(seconds: float, size, batch_size: int, n_pairs: int, suffix: str = ".png", cache: bool = True):
    """The pipeline alone, images/s: in the first epoch, which decodes, and later. Peak memory is the process's."""
    with tempfile.TemporaryDirectory() as folder:
        batches = training_batches(write_pairs(Path(folder), n_pairs, suffix), size, batch_size, cache)
        next(iter(batches))  # builds the graph
        started = time.perf_counter()
        for _ in batches:
            pass
        first = n_pairs / (time.perf_counter() - started)
        iterator = iter(batches.repeat())
        return {"first": first, "later": batch_size / seconds_per_call(lambda: next(iterator), seconds)}


def measure_cost(seconds: float, size, batch_size: int, n_pairs: int) -> dict:
    """What the pipeline costs a training step, and what decoding costs an epoch.

    Measured in turns: a slow spell of the machine must not hit one of the two alone.
    """
    with tempfile.TemporaryDirectory() as folder:
        batches = training_batches(write_pairs(Path(folder), n_pairs), size, batch_size)
        model = build(size, 16, True)
        fixed = next(iter(batches))
        model.train_on_batch(*fixed)
        epochs = []
        for _ in range(4):
            started = time.perf_counter()
            for batch in batches:
                model.train_on_batch(*batch)
            epochs.append(time.perf_counter() - started)
        iterator = iter(batches.repeat())
        times = {"fixed": [], "fed": []}
        for _ in range(5):
            times["fixed"].append(seconds_per_call(lambda: model.train_on_batch(*fixed), seconds / 2))
            times["fed"].append(seconds_per_call(lambda: model.train_on_batch(*next(iterator)), seconds / 2))
        result = {name: batch_size / statistics.median(values) for name, values in times.items()}
        result["cost"] = statistics.median(fed / fixed - 1 for fixed, fed in zip(*times.values(), strict=True))
        return result | {"first_epoch": epochs[0], "later_epoch": statistics.median(epochs[1:])}


def measure_memory(size, n_pairs: int, n_steps: int) -> dict:
    """So many steps of a training in batches of 8, for the peak memory of the process; MiB that n_pairs take decoded.

    The number of steps is given because a process grows in its first ones, whatever the data.
    """
    from unet_helpers.training import StepLine

    with tempfile.TemporaryDirectory() as folder:
        pairs = write_pairs(Path(folder), 16)
        batches = training_batches(pairs * (n_pairs // 16), size, 8)
        # As in the lesson, a callback looks at each step: without one, Keras on JAX runs ahead of the device, and each
        # step that waits holds its batch.
        options = {"epochs": 8 * n_steps // n_pairs, "callbacks": [StepLine()], "shuffle": False, "verbose": 0}
        build(size, 2, True).fit(batches, **options)
        return {"decoded_mib": n_pairs * batches.readers.of(0).pair_bytes / 2**20}


def measure_normalization(seconds: float, size, n_filters: int, batch_size: int) -> dict:
    """A training step with the fused kernel and with Keras's own computation, images/s, in turns."""
    from unet_helpers.model import FusedBatchNormalization
    from unet_helpers.training import compile_unet

    networks = {"fused": build(size, n_filters, True), "keras": build(size, n_filters, True)}
    compile_unet(networks["keras"], 13, 1e-3)
    for layer in networks["keras"].layers:
        if isinstance(layer, FusedBatchNormalization):
            layer.fused = False
    batch = random_batch(size, batch_size, networks["fused"].output_shape[1:3])
    times = {name: [] for name in networks}
    for _ in range(5):
        for name, network in networks.items():
            times[name].append(seconds_per_call(lambda network=network: network.train_on_batch(*batch), seconds / 2))
    ratios = [keras / fused for fused, keras in zip(*times.values(), strict=True)]
    return {name: batch_size / statistics.median(values) for name, values in times.items()} | {
        "ratio": statistics.median(ratios)
    }


MEASUREMENTS = {
    f.__name__: f
    for f in (
        measure_limit, measure_network, measure_torch, measure_pipeline, measure_cost, measure_memory,
        measure_normalization,
    )
}  # fmt: skip

# ---- what collects it ----


def in_own_process(name: str, *arguments, **environment: str) -> tuple[dict, str]:
    """Result of a measurement in a fresh process, with its peak memory in MiB, and everything that it printed."""
    call = json.dumps([name, arguments])
    root = Path(__file__).resolve().parent.parent
    child = subprocess.run(
        [sys.executable, __file__, "--measure", call], capture_output=True, text=True, check=False,
        env=os.environ | {"PYTHONPATH": str(root)} | environment,
    )  # fmt: skip
    if child.returncode:
        raise RuntimeError(f"{call} ended with {child.returncode}:\n{child.stderr[-2000:]}")
    return json.loads(child.stdout.splitlines()[-1]), child.stdout


def profile(seconds: float, size, n_filters: int, half_resolution: bool, batch_size: int) -> Counter:
    """Where a step's time goes according to oneDNN: milliseconds per kind of kernel, training and inference.

    Empty if TensorFlow does not use oneDNN.
    """
    _, printed = in_own_process(
        "measure_network", seconds, size, n_filters, half_resolution, batch_size, ONEDNN_VERBOSE="1"
    )
    milliseconds = Counter()
    for line in printed.splitlines():
        fields = line.split(",")
        if fields[0].startswith("onednn_verbose") and "exec" in fields:
            kind = fields[fields.index("exec") + 2]
            milliseconds[f"{kind} {fields[fields.index('exec') + 4]}" if "conv" in kind else kind] += float(fields[-1])
    return milliseconds


def table(header: list[str], rows: list[list]) -> str:
    """Markdown table; floats with three significant digits."""

    def cell(value):
        return value if isinstance(value, str) else f"{value:,}" if isinstance(value, int) else f"{value:,.3g}"

    lines = [f"| {' | '.join(header)} |", "|---" * len(header) + "|"]
    return "\n".join(lines + [f"| {' | '.join(map(cell, row))} |" for row in rows])


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--seconds", type=float, default=3, help="time of each measurement (default: 3)")
    parser.add_argument("--networks", type=int, default=len(NETWORKS), metavar="N", help="measure only the first N")
    parser.add_argument("--out", default="build/throughput", help="folder for the results (default: build/throughput)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.measure:
        import resource  # which Windows lacks

        name, values = json.loads(options.measure)
        result = MEASUREMENTS[name](*(tuple(v) if isinstance(v, list) else v for v in values))
        result["peak_mib"] = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
        print(json.dumps(result))
        return result

    seconds = options.seconds
    record = {"limit": in_own_process("measure_limit", seconds)[0]["gflops"], "networks": [], "pipeline": []}
    parts = [f"Limit, a 2048x2048 float32 product: {record['limit']:.0f} GFLOP/s on {os.cpu_count()} cores"]

    rows = []
    for size, n_filters, half, batch_size in NETWORKS[: options.networks]:
        keras, _ = in_own_process("measure_network", seconds, size, n_filters, half, batch_size)
        torch, _ = in_own_process("measure_torch", seconds, size, n_filters, half, batch_size)
        record["networks"].append({"size": size, "filters": n_filters, "half": half, "batch": batch_size, **keras,
                                   "torch": torch})  # fmt: skip
        other = [f"{torch['training']:.3g} / {torch['inference']:.3g}"] if "training" in torch else ["not installed"]
        rows.append([
            f"{size[0]}x{size[1]}{', half' if half else ''}", n_filters, batch_size, keras["gflop"], keras["training"],
            keras["training_gflops"], f"{keras['training_gflops'] / record['limit']:.0%}", keras["inference"],
            f"{keras['inference_gflops'] / record['limit']:.0%}", int(keras["peak_mib"]), *other,
        ])  # fmt: skip
    header = ["network", "filters", "batch", "GFLOP forward", "training images/s", "GFLOP/s", "of the limit"]
    header += ["inference images/s", "of the limit", "peak MiB", "PyTorch images/s, training / inference"]
    parts.append(table(header, rows))

    rows = []
    for size, n_pairs, suffix, cache in PIPELINES:
        result, _ = in_own_process("measure_pipeline", seconds, size, 8, n_pairs, suffix, cache)
        record["pipeline"].append({"size": size, "images": n_pairs, "suffix": suffix, "cache": cache, **result})
        kept = "cached" if cache else "decoded each time"
        cells = [f"{size[0]}x{size[1]}", n_pairs, f"{suffix[1:].upper()}, {kept}"]
        rows.append([*cells, result["first"], result["later"], int(result["peak_mib"])])
    header = ["pipeline, batch 8", "images of 600x800", "files", "images/s, first epoch", "later", "peak MiB"]
    parts.append(table(header, rows))

    record["cost"] = []
    for size in ((96, 128), (192, 256), (384, 512)):  # of the notebook's stages
        cost, _ = in_own_process("measure_cost", seconds, size, 8, 64)
        record["cost"].append({"size": size, **cost})
        parts.append(
            f"A training step at {size[0]}x{size[1]}, half, 16 filters, batch 8: {cost['fixed']:.1f} images/s on one "
            f"batch, {cost['fed']:.1f} fed by the pipeline, which costs {cost['cost']:.1%} of a step. The first epoch, "
            f"which decodes 64 images of 600x800, takes {cost['first_epoch']:.1f} s, later ones "
            f"{cost['later_epoch']:.1f} s."
        )
    record["memory"], rows = [], []
    for backend in ("tensorflow", "jax"):
        for n_pairs in (32, 512):
            result, _ = in_own_process("measure_memory", (384, 512), n_pairs, 128, KERAS_BACKEND=backend)
            record["memory"].append({"backend": backend, "images": n_pairs, **result})
            rows.append([backend, n_pairs, result["decoded_mib"], int(result["peak_mib"])])
    parts.append(table(["128 steps at 384x512", "images of 600x800", "decoded, MiB", "peak MiB"], rows))
    record["normalization"] = []
    for size in ((96, 128), (192, 256)):
        result, _ = in_own_process("measure_normalization", seconds, size, 16, 8)
        record["normalization"].append({"size": size, **result})
        parts.append(
            f"Batch normalization at {size[0]}x{size[1]}, half, 16 filters, batch 8: {result['fused']:.1f} images/s in "
            f"training with the fused kernel, {result['keras']:.1f} with Keras's, a ratio of {result['ratio']:.2f}."
        )
    kernels = profile(seconds, *NETWORKS[0])
    if kernels:
        record["kernels"] = dict(kernels)
        total = sum(kernels.values())
        rows = [[kind, f"{share / total:.0%}"] for kind, share in kernels.most_common() if share > 0.005 * total]
        size, n_filters, _, batch_size = NETWORKS[0]
        title = f"kernel time at {size[0]}x{size[1]}, {n_filters} filters, batch {batch_size}"
        parts.append(table([title, "share"], rows))

    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "throughput.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    text = "\n\n".join(parts)
    (out / "throughput.md").write_text(text + "\n", encoding="utf-8")
    print(f"{text}\n\nWritten to {out}/: throughput.md, throughput.json")
    return record


if __name__ == "__main__":
    main()
