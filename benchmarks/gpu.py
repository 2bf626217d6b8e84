"""How fast does a GPU train the tutorial's network and the paper's, in float32 and in bfloat16?

    python benchmarks/gpu.py

For a machine that has JAX for its GPU, Keras and Pillow: no TensorFlow, network or data. The batches are noise, kept in
.npz files. The limit is the card's own, a large product of bfloat16 matrices. Each network and precision has a process
of its own, so that peak memory is its own, with batches from small to large. What does not fit into --minutes is left
out and listed; with JAX_COMPILATION_CACHE_DIR set, a second call compiles less and so comes further. Writes gpu.md and
gpu.json to --out and prints the table.
"""

import argparse
import itertools
import json
import os
import subprocess
import sys
import time
from pathlib import Path

import numpy as np

ROOT = Path(__file__).resolve().parent.parent
PRECISIONS = "mixed_bfloat16", "float32"
SIZES = (192, 256), (96, 128), (384, 512)  # of the notebook, its demo's first
BATCHES, PAPERS_BATCHES, N_CLASSES = (8, 16, 32, 64), (1, 2, 4, 8), 13
SECONDS = 1.0  # of steps that are timed
HEADER = "network | precision | batch | images/s | ms a step | of the limit | compiling, s | peak MiB"


def networks(tiny: bool) -> list[dict]:
    """What is measured, the most important first: a network, its precision and its batches."""
    names = "size", "filters", "half", "paper", "precision", "batches"
    of_notebook = itertools.product(SIZES, (32, 16), (False, True), (False,), PRECISIONS, (BATCHES,))
    of_paper = [((572, 572), 64, False, True, precision, PAPERS_BATCHES) for precision in PRECISIONS]
    first, second, *others = of_notebook
    found = [dict(zip(names, values, strict=True)) for values in (first, second, *of_paper, *others)]
    if tiny:
        found = [found[0] | {"size": (32, 32), "filters": 2, "batches": (1, 2)}]
        found.append(dict(zip(names, ((188, 188), 1, False, True, "float32", (1,)), strict=True)))
    return found


def name_of(network: dict) -> str:
    kind = ", the paper's" if network["paper"] else ", half resolution" if network["half"] else ""
    return "{}x{}".format(*network["size"]) + f", {network['filters']} filters{kind}"


def write_batch(path: Path, network: dict, output_size: tuple[int, int]) -> None:
    """Noise as the largest of the network's batches: images and masks, uint8."""
    rng, n = np.random.default_rng(0), max(network["batches"])
    channels, n_classes = (1, 2) if network["paper"] else (3, N_CLASSES)
    images = rng.integers(0, 256, (n, *network["size"], channels), np.uint8)
    np.savez(path, images=images, masks=rng.integers(0, n_classes, (n, *output_size, 1), np.uint8))


# ---- what a process of its own measures ----


def measure_limit() -> dict:
    """GFLOP/s of a large matrix product in each precision, and the device's name."""
    import jax

    from unet_helpers.speed import matmul_gflops

    limits = {dtype: matmul_gflops(dtype) for dtype in ("bfloat16", "float32")}
    return {"device": jax.devices()[0].device_kind, "jax": jax.__version__, **limits}


def measure_network(network: dict, folder: str) -> None:
    """Train on batches from small to large, and print a line of JSON after each."""
    import keras

    from unet_helpers.model import PLAIN, unet_model
    from unet_helpers.speed import forward_gflop, peak_mib
    from unet_helpers.training import compile_unet

    keras.config.set_dtype_policy(network["precision"])
    if network["paper"]:
        channels, n_classes, switches = 1, 2, {"padding": "valid"}
    else:
        channels, n_classes, switches = 3, N_CLASSES, {"normalization": "batch", "half_resolution": network["half"]}
    size = tuple(network["size"])
    model = unet_model((*size, channels), network["filters"], n_classes, **PLAIN | switches)
    compile_unet(model, n_classes, 1e-3)
    path = Path(folder) / "batch.npz"
    write_batch(path, network, model.output_shape[1:3])
    for batch_size in network["batches"]:
        with np.load(path) as file:
            batch = file["images"][:batch_size], file["masks"][:batch_size]

        def seconds(n_steps: int, batch=batch) -> float:
            started = time.perf_counter()
            model.fit((batch for _ in range(n_steps)), steps_per_epoch=n_steps, verbose=0)
            return time.perf_counter() - started

        first = seconds(1)
        step = seconds(5) / 5
        n_steps = max(5, int(SECONDS / step))
        step = seconds(n_steps) / n_steps
        record = {"batch": batch_size, "images": batch_size / step, "step": step, "compiling": first - step}
        gflops = 3 * batch_size * forward_gflop(model, size) / step  # a step counts as three forward passes
        print(json.dumps(record | {"gflops": gflops, "mib": peak_mib()}), flush=True)


# ---- what collects it ----


def in_own_process(seconds: float, *arguments) -> tuple[list[dict], str]:
    """The lines of JSON that a measurement printed within so many seconds, and why it ended early: "" if it did not."""
    command = [sys.executable, __file__, "--measure", json.dumps(arguments)]
    environment = os.environ | {"PYTHONPATH": os.pathsep.join([str(ROOT), os.environ.get("PYTHONPATH", "")])}
    try:
        child = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=seconds, check=False)
        printed, ended = child.stdout, child.returncode and (child.stderr.strip().splitlines() or ["killed"])[-1][:200]
    except subprocess.TimeoutExpired as late:
        printed, ended = (late.stdout or b"").decode(), "no time left"
    return [json.loads(line) for line in printed.splitlines() if line.startswith("{")], ended or ""


def table(record: dict) -> str:
    """Markdown: the limits, a row for each measurement, and what was left out."""
    limit = record["limit"]
    rows = [f"| {HEADER} |", "|---" * (HEADER.count("|") + 1) + "|"]
    for each in record["networks"]:
        cells = f"{each['images']:,.4g} | {1000 * each['step']:.1f} | {each['gflops'] / limit['bfloat16']:.0%}"
        memory = "unknown" if each["mib"] is None else f"{each['mib']:,.0f}"
        who = f"{each['network']} | {each['precision']} | {each['batch']}"
        rows.append(f"| {who} | {cells} | {each['compiling']:.1f} | {memory} |")
    title = f"{limit['device']}, JAX {limit['jax']}. A large product of matrices: {limit['bfloat16']:,.0f} GFLOP/s in "
    left = [f"- {each}" for each in record["left_out"]]
    return "\n".join([f"{title}bfloat16, the limit, and {limit['float32']:,.0f} in float32.", "", *rows, "", *left])


def main(arguments: list[str] | None = None) -> dict | None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--minutes", type=float, default=9, help="for all measurements (default: 9)")
    parser.add_argument("--tiny", action="store_true", help="tiny networks, to try the script on a CPU")
    parser.add_argument("--out", default="build/gpu", help="folder for the results (default: build/gpu)")
    parser.add_argument("--measure", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    os.environ.setdefault("KERAS_BACKEND", "jax")
    if options.measure:
        network, *rest = json.loads(options.measure) or [None]
        return measure_network(network, *rest) if network else print(json.dumps(measure_limit()))

    end, out = time.monotonic() + 60 * options.minutes, Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    limit, why = in_own_process(end - time.monotonic())
    if not limit:
        raise SystemExit(f"JAX and Keras can't compute here: {why}")
    record = {"limit": limit[0], "networks": [], "left_out": []}
    for network in networks(options.tiny):
        name, precision = name_of(network), network["precision"]
        found, why = in_own_process(max(0.1, end - time.monotonic()), network, str(out))
        record["networks"] += [{"network": name, "precision": precision, **each} for each in found]
        for batch_size in network["batches"][len(found) :]:
            record["left_out"].append(f"{name}, {precision}, batch {batch_size}: {why}")
        text, rates = table(record), [f"{each['images']:.4g} images/s" for each in found]
        (out / "gpu.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
        (out / "gpu.md").write_text(text + "\n", encoding="utf-8")
        print(f"{name}, {precision}: {', '.join(rates) or why}", flush=True)
    (out / "batch.npz").unlink(missing_ok=True)
    print(f"\n{text}\n\nWritten to {out}/: gpu.md, gpu.json")
    return record


if __name__ == "__main__":
    main()
