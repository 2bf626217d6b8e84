"""How large and how fast is a network in other programs, and does it predict the same there as in Keras?

    python benchmarks/exporting.py path/to/best.keras

Exports it to each format whose packages are installed, names the others, and runs each program on the same drawn
scenes, one after another, on all cores. The programs take turns in each round, so that a slow spell of the machine hits
all of them; times are medians over the rounds. Writes exporting.json and, with the table, exporting.md to --out.
"""

import argparse
import importlib.metadata
import importlib.util
import json
import os
import platform
import re
import statistics
import sys
import tempfile
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's path begins with its own folder
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook

import numpy as np
import tensorflow as tf

from unet_helpers.drawing import DRIVES, render_frame
from unet_helpers.naming import EXPORT_SUFFIXES
from unet_helpers.networks import export_network, load_model
from unet_helpers.plots import unet_levels

ROUNDS = 15
PACKAGES = ("keras", "tensorflow", "onnx", "tf2onnx", "onnxruntime")


def open_saved_model(path: Path):
    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    return lambda images: loaded.serve(images).numpy()


def open_litert(path: Path):
    runner = tf.lite.Interpreter(str(path), num_threads=os.cpu_count()).get_signature_runner()  # takes any size
    (name,) = runner.get_input_details()  # its name depends on the version of Keras
    return lambda images: next(iter(runner(**{name: images}).values()))


def open_onnx(path: Path):
    import onnxruntime

    options = onnxruntime.SessionOptions()
    options.intra_op_num_threads = os.cpu_count()  # by itself it leaves out the second thread of a core
    session = onnxruntime.InferenceSession(str(path), options)
    return lambda images: session.run(None, {session.get_inputs()[0].name: images})[0]


PROGRAMS = {  # format: the program, and what opens a file: (B, H, W, 3) float32 images -> (B, H', W', K) logits
    "tf_saved_model": ("TensorFlow", open_saved_model), "litert": ("LiteRT", open_litert),
    "onnx": ("ONNX Runtime", open_onnx),
}  # fmt: skip


def megabytes(path: Path) -> float:
    """Size of a file, or of all in a folder, in 10**6 bytes."""
    return sum(file.stat().st_size for file in (path, *path.rglob("*")) if file.is_file()) / 1e6


def predict(run, images: np.ndarray) -> np.ndarray:
    """Logits of (N, H, W, 3) images, one after another."""
    return np.concatenate([run(image[None]) for image in images])


def take_turns(runs: dict, images: np.ndarray) -> dict[str, list[float]]:
    """Milliseconds per image of each program, in each round."""
    times = {name: [] for name in runs}
    for _ in range(ROUNDS):
        for name, run in runs.items():
            run(images[:1])  # warms the caches, which the program before filled
            begun = time.perf_counter()
            predict(run, images)
            times[name].append(1000 * (time.perf_counter() - begun) / len(images))
    return times


def measure(network: Path, sizes: list[tuple[int, int]], n_images: int) -> dict:
    """The content of exporting.json. sizes: (height, width) to compare predictions at; the first is timed, too."""
    model = load_model(network)
    try:
        unet_levels(model, sizes[0])
    except ValueError as error:  # its levels do not match at this size
        raise ValueError(f"--size: {error}") from None
    drawn = [np.float32([render_frame(drive, 0, size=size)[0] for drive in DRIVES[:n_images]]) for size in sizes]
    expected = [predict(model.predict_on_batch, images) for images in drawn]
    runs, missing = {"keras": model.predict_on_batch}, {}
    rows = {"keras": {"program": "Keras", "mb": megabytes(network)}}
    with tempfile.TemporaryDirectory() as folder:
        for name, (program, open_it) in PROGRAMS.items():
            path = Path(folder) / f"network{EXPORT_SUFFIXES[name]}"
            try:
                export_network(network, path, name)
                run = open_it(path)
            except ImportError as error:
                missing[name] = str(error)
                print(f"{name} is left out: {error}")
                continue
            found = [np.abs(predict(run, drawn[n]) - logits).max() for n, logits in enumerate(expected)]
            rows[name] = {"program": program, "mb": megabytes(path), "differences": [float(value) for value in found]}
            runs[name] = run
        rounds = take_turns(runs, drawn[0])
    for name, times in rounds.items():
        ratios = [own / of_keras for own, of_keras in zip(times, rounds["keras"], strict=True)]
        rows[name] |= {"ms": statistics.median(times), "ratio": statistics.median(ratios), "rounds": times}
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    versions = {name: importlib.metadata.version(name) for name in PACKAGES if importlib.util.find_spec(name)}
    known = {"machine": machine, "versions": versions, "sizes": sizes, "images": n_images}
    return known | {"missing": missing, "rows": rows}


def table(record: dict) -> str:
    """Markdown of what `measure` returns."""
    timed, other = ("{}x{}".format(*size) for size in record["sizes"])
    head = ["program", "format", "MB", f"ms per image, {timed}", "of Keras's", f"logits differ by, {timed}", other]
    lines = [head, ["---"] * len(head)]
    for name, row in record["rows"].items():
        differences = [f"{value:.1e}" if value else "0" for value in row.get("differences", [])] or ["", ""]
        figures = [f"{row['mb']:.1f}", f"{row['ms']:.1f}", f"{row['ratio']:.2f}"]
        lines.append([row["program"], f"`{name}`", *figures, *differences])
    return "".join(f"| {' | '.join(cells)} |\n" for cells in lines)


def main(arguments: list[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("network", type=Path, metavar="NETWORK", help=".keras file of a trained network")
    parser.add_argument("--out", type=Path, default="build/exporting", help="folder (default: build/exporting)")
    parser.add_argument("--images", type=int, default=20, help=f"in each round, 1 to {len(DRIVES)} (default: 20)")
    parser.add_argument("--size", default="192x256", help="HEIGHTxWIDTH, and compared at twice that (default: 192x256)")
    options = parser.parse_args(arguments)
    if not 1 <= options.images <= len(DRIVES):
        parser.error(f"--images: found {options.images}, expected 1 to {len(DRIVES)}")
    size = re.fullmatch(r"(\d+)x(\d+)", options.size)
    if not size:
        parser.error(f"--size: found {options.size!r}, expected HEIGHTxWIDTH in pixels, such as 192x256")
    sizes = [(factor * int(size[1]), factor * int(size[2])) for factor in (1, 2)]
    try:
        record = measure(options.network, sizes, options.images)
    except ValueError as error:
        parser.error(str(error))
    options.out.mkdir(parents=True, exist_ok=True)
    (options.out / "exporting.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    (options.out / "exporting.md").write_text(table(record), encoding="utf-8")
    print(f"{table(record)}\nWritten to {options.out}/: exporting.md, exporting.json")


if __name__ == "__main__":
    main()
