"""Does a training have the same numbers on one device, on several and in several processes, and how fast is each?

    python benchmarks/scaling.py

The same short training, from the same weights and with the real loss, Muon, augmentation and precise statistics, runs
in fresh processes: with TensorFlow, and with JAX on 1, 2, 4 and 8 virtual devices of the CPU and in two processes. Each
is compared with JAX on one device. So that the differences can be judged, one run has the images of each batch in
reverse order: nothing but the order in which numbers are added up is another. Then two processes on two cores are timed
beside one process held to one core. Writes scaling.json to --out and prints the table.
"""

import argparse
import json
import os
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook

import numpy as np

JAX = {"KERAS_BACKEND": "jax"}
RUNS = {  # the environments of a run's processes
    "JAX, 1 device": [JAX],
    "TensorFlow": [{"KERAS_BACKEND": "tensorflow"}],
    "JAX, 1 device, batches reversed": [JAX],
    **{f"JAX, {n} devices": [JAX | {"JAX_NUM_CPU_DEVICES": str(n)}] for n in (2, 4, 8)},
    "JAX, 2 processes": [JAX, JAX],
}
SCORES = ("loss", "mIoU", "val_loss", "val_mIoU")


def train(
    pairs: list, void: list, n_classes: int, n_train: int, out: str, epochs: int, image_size: list, batch_size: int = 8,
    n_filters: int = 16, depth: int = 4, weights: str = "", is_reversed: bool = False, core: int | None = None,
):  # fmt: skip
    """A training in this process, alone or with others. Prints a line of JSON: loss and mIoU of each epoch, images/s
    in the last one, seconds until the first step, how many images this process decoded in the first epoch, its share.

    pairs: paths; the first n_train are trained on. weights: .npz to begin from; is written where it does not exist.
    out: .npz for the weights at the end. core: the only one that this process may use.
    """
    if core is not None:
        os.sched_setaffinity(0, [core])
    import keras

    from unet_helpers import devices, pipeline, processes
    from unet_helpers.augmentation import RandomResizedCrop
    from unet_helpers.labels import LabelMap, Pair
    from unet_helpers.model import PLAIN, PreciseStatistics, unet_model
    from unet_helpers.optimizers import WarmupStableDecay
    from unet_helpers.training import ProgressiveResizing, compile_unet

    processes.join()
    devices.use_all()
    decoded, decode = set(), pipeline.decode_image
    pipeline.decode_image = lambda path: decoded.add(path) or decode(path)
    labels = LabelMap(tuple(map(str, range(n_classes))), ((0, 0, 0),) * n_classes, void_values=tuple(void))
    resizing = ProgressiveResizing(image_size, epochs=epochs)  # tells the batches the epoch, which decides their order
    options = {"image_size": tuple(image_size), "batch_size": batch_size, "resizing": resizing}
    options["mask_size"] = tuple(side // 2 for side in image_size)
    pairs = [Pair(*map(Path, pair)) for pair in pairs]
    batches = pipeline.make_batches(pairs[:n_train], labels, shuffle=True, augment=[RandomResizedCrop()], **options)
    validation = pipeline.make_batches(pairs[n_train:], labels, **options)
    given = batches.map(lambda images, masks: (images[::-1], masks[::-1])) if is_reversed else batches

    keras.utils.set_random_seed(0)
    switches = PLAIN | {"normalization": "batch", "half_resolution": True}
    model = unet_model((None, None, 3), n_filters, n_classes, depth=depth, **switches)
    if weights and Path(weights).exists():
        with np.load(weights) as arrays:
            model.set_weights([arrays[name] for name in arrays.files])
    elif weights:
        np.savez(weights, *model.get_weights())
    schedule = WarmupStableDecay(1, 1e-2)
    compile_unet(model, n_classes, schedule)
    schedule.set_steps(epochs * len(batches))

    ends, counts = [], []

    def note_step(batch, logs):
        float(logs["loss"])  # waits for an asynchronous device
        ends.append(time.perf_counter())

    watch = keras.callbacks.LambdaCallback(
        on_train_batch_end=note_step, on_epoch_end=lambda *_: counts.append(len(decoded))
    )
    begun = time.perf_counter()
    history = model.fit(
        given, validation_data=validation, epochs=epochs, shuffle=False, verbose=0,
        callbacks=[resizing, PreciseStatistics(batches), watch],
    ).history  # fmt: skip
    if processes.is_first():
        np.savez(out, *model.get_weights())
    last = ends[-len(batches) :]
    rate = batch_size * (len(last) - 1) / (last[-1] - last[0]) if len(last) > 1 else None
    record = {name: history[name] for name in SCORES} | {"images/s": rate, "first_step": ends[0] - begun}
    print(json.dumps(record | {"decoded": counts[0], "share": devices.share()}), file=sys.stderr, flush=True)
    processes.leave(0)


def run(environments: list[dict], folder: Path, options: dict, cores: list | None = None) -> tuple[list[dict], list]:
    """`train` in a process for each environment, together one run: what each printed, and the weights."""
    folder.mkdir()
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{listener.getsockname()[1]}"
    together = {"KERAS_DISTRIBUTION_JOB_ADDRESSES": address, "KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(environments))}
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("KERAS_", "JAX_NUM", "XLA_"))}
    running = []
    for number, environment in enumerate(environments):
        own = kept | environment
        if len(environments) > 1:
            own |= together | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)}
        call = json.dumps(options | {"out": str(folder / "weights.npz"), "core": cores and cores[number]})
        command = [sys.executable, __file__, "--train", call]
        with open(folder / f"{number}.err", "w", encoding="utf-8") as err:
            running.append(subprocess.Popen(command, env=own, stdout=err, stderr=err))
    texts = []
    for number, process in enumerate(running):
        code = process.wait()
        texts.append((folder / f"{number}.err").read_text(encoding="utf-8"))
        if code:
            raise RuntimeError(f"process {number} of {environments} ended with {code}:\n{texts[-1][-2000:]}")
    with np.load(folder / "weights.npz") as arrays:
        return [json.loads(text.splitlines()[-1]) for text in texts], [arrays[name] for name in arrays.files]


def compare(one: tuple[list[dict], list], other: tuple[list[dict], list]) -> dict[str, float]:
    """Largest differences: of the losses, relative; of the mIoUs; of the weights, relative to a layer's largest."""
    (a, *_), (b, *_) = one[0], other[0]
    losses = [np.abs(np.subtract(a[name], b[name])) / np.abs(a[name]) for name in ("loss", "val_loss")]
    mious = [np.abs(np.subtract(a[name], b[name])) for name in ("mIoU", "val_mIoU")]
    weights = [np.abs(x - y).max() / np.abs(x).max() for x, y in zip(one[1], other[1], strict=True) if np.any(x)]
    named = {"loss": np.max(losses), "mIoU": np.max(mious), "weights": max(weights), "first_loss": losses[0][0]}
    return {name: float(value) for name, value in named.items()}


def main(arguments: list[str] | None = None) -> dict:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", default="data", help="folder for the drawn scenes (default: data)")
    parser.add_argument("--frames", type=int, default=4, help="scenes of each drive (default: 4)")
    parser.add_argument("--epochs", type=int, default=3)
    parser.add_argument("--filters", type=int, default=16)
    parser.add_argument("--depth", type=int, default=4)
    parser.add_argument("--runs", nargs="*", default=list(RUNS), help=f"some of {', '.join(map(repr, RUNS))}")
    parser.add_argument("--out", default="build/scaling", help="folder for the results (default: build/scaling)")
    parser.add_argument("--train", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.train:
        return train(**json.loads(options.train))

    from unet_helpers.datasets import load_dataset

    data = load_dataset("demo", options.data, frames_per_drive=options.frames)
    given = {
        "pairs": [[str(path) for path in pair] for pair in (*data.train, *data.validation)], "void": [255],
        "n_classes": data.labels.n_classes, "n_train": len(data.train), "epochs": options.epochs,
        "image_size": [96, 128], "n_filters": options.filters, "depth": options.depth,
    }  # fmt: skip
    record = {"images": len(data.train), "epochs": options.epochs, "cores": os.cpu_count(), "runs": {}}
    print(f"{'':<33}{'loss':>9}{'mIoU':>9}{'weights':>9}{'images/s':>10}{'first step':>12}{'decoded':>9}")
    with tempfile.TemporaryDirectory() as folder:
        given["weights"] = str(Path(folder) / "start.npz")
        reference = None
        for name in options.runs:
            is_reversed = {"is_reversed": name.endswith("reversed")}
            found = run(RUNS[name], Path(folder) / str(len(record["runs"])), given | is_reversed)
            reference = reference or found
            (first, *_), differences = found[0], compare(reference, found)
            decoded = [each["decoded"] for each in found[0]]
            record["runs"][name] = {
                "differences": differences, "images/s": first["images/s"], "first_step": first["first_step"],
                "decoded": decoded, "scores": {score: first[score] for score in SCORES},
            }  # fmt: skip
            cells = [f"{differences[key]:>9.1e}" for key in ("loss", "mIoU", "weights")]
            rate = f"{first['images/s'] or 0:>10.1f}{first['first_step']:>10.1f} s{' + '.join(map(str, decoded)):>9}"
            print(f"{name:<33}{''.join(cells)}{rate}", flush=True)
        if hasattr(os, "sched_setaffinity") and "JAX, 2 processes" in options.runs:
            one = run([JAX], Path(folder) / "one_core", given, [0])[0][0]["images/s"]
            two = run([JAX, JAX], Path(folder) / "two_cores", given, [0, 1])[0][0]["images/s"]
            record["two_cores"] = {"one process, one core": one, "two processes, a core each": two, "ratio": two / one}
            print(f"images/s: {one:.1f} in one process on one core, {two:.1f} in two on two: {two / one:.2f} times")
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "scaling.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return record


if __name__ == "__main__":
    main()
