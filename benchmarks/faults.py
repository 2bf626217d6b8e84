"""What is lost when the process is killed? Kills an end-to-end run at random moments, repeats it and compares.

    python benchmarks/faults.py --kills 50 --seed 0

An end-to-end run downloads a data set from a server on this machine, unpacks it, draws another one, trains a small
network for a few epochs and scores it. It is killed (SIGKILL) in each of its parts in turn; half of the kills are aimed
at a write: they come while a file exists that is not yet in its final place. Then the same run is repeated to its end.
It resumed if data, log and best network equal those of a run that was never killed. Prints a table and writes it to
--out.
"""

import argparse
import hashlib
import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path[:0] = [str(ROOT), str(ROOT / "tests")]
os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")

KINDS = ("download", "unpack", "draw", "cache", "epoch", "checkpoint", "best", "score")
EPOCHS = 4
# Files that exist only while something is being written, for kills aimed at a write.
WRITES = {
    "download": "data/lyft.partial/*.zip", "unpack": "data/lyft.partial/tree/*/*/*/*",
    "draw": "data/*.partial-*/*/*/*/*",
    "epoch": "runs/*/.*.partial", "checkpoint": "runs/*/.*.partial", "best": "runs/*/.*.partial.keras",
    "score": "runs/*/best.json",
}  # fmt: skip


def run_all(folder: Path, url: str) -> None:
    """The end-to-end run, in its own process; prints which part begins, and writes folder/result.json at its end."""
    tempfile.tempdir = str(folder / "temporary")
    Path(tempfile.tempdir).mkdir(exist_ok=True)
    import kagglesdk.kaggle_env as kaggle_env
    import keras

    from unet_helpers.augmentation import RandomResizedCrop
    from unet_helpers.checkpoints import RunCheckpoint, load_best, run_folder
    from unet_helpers.datasets import load_dataset
    from unet_helpers.drawing import draw_scenes
    from unet_helpers.evaluation import evaluate_model
    from unet_helpers.model import PreciseStatistics, unet_model
    from unet_helpers.optimizers import WarmupStableDecay
    from unet_helpers.pipeline import make_batches
    from unet_helpers.recipe import make_recipe
    from unet_helpers.training import ProgressiveResizing, compile_unet

    kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = url
    (folder / "data").mkdir(exist_ok=True)
    say("download")
    dataset = load_dataset("lyft", folder / "data")
    say("draw")
    if not (folder / "data" / "drawn").exists():
        draw_scenes(folder / "data" / "drawn", size=(60, 80), n_frames=2)
    recipe = make_recipe(
        "CPU", DATASET="lyft", DATA_DIR=str(folder / "data"), MINUTES=1, IMAGE_SIZE=(64, 96), SEED=0, ARCHIVE=None,
        RUN_DIR=str(folder / "runs"), EPOCHS=EPOCHS, N_FILTERS=4, HALF_RESOLUTION=True, BATCH_SIZE=4,
        SIZE_STAGES=((0.5, 0.5), (1, 1)), LEARNING_RATE=1e-2, FRAMES_PER_DRIVE=1, TRAIN_ANEW=False,
    )  # fmt: skip
    resizing = ProgressiveResizing(recipe.image_size, recipe.size_stages, EPOCHS)
    options = {"mask_size": recipe.output_size, "resizing": resizing}
    augment = [RandomResizedCrop()]
    size = (dataset.labels, recipe.image_size, recipe.batch_size)
    train = make_batches(dataset.train, *size, shuffle=True, augment=augment, **options)
    validation = make_batches(dataset.validation, *size, **options)
    keras.utils.set_random_seed(0)
    model = unet_model((None, None, 3), recipe.n_filters, dataset.labels.n_classes, half_resolution=True)
    compile_unet(model, dataset.labels.n_classes, WarmupStableDecay(len(train) * EPOCHS, recipe.learning_rate))
    run_dir = run_folder(recipe, model, dataset, augment=augment)
    checkpoint = RunCheckpoint(run_dir, resizing)
    say("cache")
    begin = keras.callbacks.LambdaCallback(on_epoch_begin=lambda epoch, logs: say("epoch") if epoch else None)
    model.fit(
        train, validation_data=validation, initial_epoch=checkpoint.resume(model), epochs=EPOCHS, verbose=0,
        shuffle=False, callbacks=[resizing, PreciseStatistics(train), checkpoint, begin],
    )  # fmt: skip
    say("score")
    best, image_size = load_best(run_dir, recipe.image_size)
    scores = evaluate_model(best, dataset.test, dataset.labels, image_size)
    rows = [(row["epoch"], round(row["loss"], 4), round(row["val_mIoU"], 4)) for row in checkpoint.log]
    data = hashlib.sha256()
    for path in sorted((folder / "data").rglob("*.png")):
        data.update(str(path.relative_to(folder)).encode() + path.read_bytes())
    result = {"data": data.hexdigest(), "log": rows, "best": checkpoint.best["epoch"], "mIoU": round(scores.miou, 4)}
    (folder / "result.json").write_text(json.dumps(result))
    say("end")


def say(part: str) -> None:
    print(f"part: {part}", flush=True)


class Run:
    """An end-to-end run in its own process. part: the current one."""

    def __init__(self, folder: Path, url: str):
        home = {"HOME": str(folder), "KAGGLE_CONFIG_DIR": str(folder), "NO_PROXY": "127.0.0.1,localhost"}
        command = [sys.executable, __file__, "--run-in", str(folder), "--url", url]
        self.process = subprocess.Popen(
            command, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True, env=os.environ | home
        )
        self.part, self.printed = "start", []
        self.reader = ThreadPoolExecutor(1)
        self.reader.submit(self._read)

    def _read(self) -> None:
        for line in self.process.stdout:
            self.printed.append(line)
            if line.startswith("part: "):
                self.part = line[6:].strip()

    def wait(self, seconds: float = 300) -> int:
        code = self.process.wait(seconds)
        self.reader.shutdown()
        return code


def moment(kind: str, aimed: bool, rng: random.Random):
    """A function (run, folder) -> bool that says when to kill, and how many seconds later."""
    part = {"unpack": "download", "checkpoint": "epoch", "best": "epoch"}.get(kind, kind)
    wanted = rng.randrange(3)  # the first, second or third file of this kind

    def now(run: Run, folder: Path) -> bool:
        nonlocal wanted
        seen = any(folder.glob(WRITES[kind])) if aimed or kind in ("unpack", "checkpoint", "best") else run.part == part
        if seen and wanted and kind in ("checkpoint", "best", "epoch"):
            wanted -= 1
            while any(folder.glob(WRITES[kind])) and run.process.poll() is None:
                time.sleep(0.001)
            return False
        return seen

    return now, 0.0 if aimed else rng.random() * {"download": 0.5, "draw": 3, "cache": 5, "score": 2}.get(kind, 0.1)


def try_once(number: int, kinds: list[str], seed: int, url: str, expected: dict) -> dict:
    """Kill a run once, repeat it, and compare."""
    rng = random.Random(f"{seed} {number}")
    kind = kinds[number % len(kinds)]
    aimed = kind in WRITES and number // len(kinds) % 2 == 0
    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        folder = Path(name)
        now, delay = moment(kind, aimed, rng)
        run = Run(folder, url)
        while run.process.poll() is None and not now(run, folder):
            time.sleep(0.001)
        time.sleep(delay)
        killed = run.process.poll() is None
        run.process.send_signal(signal.SIGKILL)
        run.wait()
        logs = [len(path.read_text().splitlines()) - 1 for path in folder.glob("runs/*/log.csv")]
        (folder / "result.json").unlink(missing_ok=True)
        again = Run(folder, url)
        code = again.wait()
        result = json.loads((folder / "result.json").read_text()) if (folder / "result.json").exists() else {}
        epochs = [row[0] for row in result.get("log", [])]
        # "trained before": the last epoch's checkpoint was written, but not yet its line of log.csv.
        begun = [line for line in again.printed if "resuming after epoch" in line or "trained before" in line]
        lost = bool(logs and logs[0] and logs[0] < EPOCHS and not begun)
        left = [path.name for path in (*folder.glob("data/*.partial*"), *folder.glob("runs/*/*partial*"))]
        return {
            "kind": kind, "aimed": aimed, "killed": killed, "resumed": code == 0 and result == expected,
            "lost": lost, "missing or double": epochs != list(range(EPOCHS)), "left": left,
            "says": "" if result == expected else "".join(again.printed[-12:]) + json.dumps(result),
        }  # fmt: skip


def table(results: list[dict]) -> str:
    """A row for each kind of moment."""
    lines = ["| killed in | tried | aimed at a write | resumed | training lost | epochs missing or double |"]
    lines.append("|---" * 6 + "|")
    for kind in (*KINDS, "together"):
        group = [result for result in results if kind in (result["kind"], "together")]
        count = Counter()
        for result in group:
            count.update(name for name in ("aimed", "resumed", "lost", "missing or double") if result[name])
        cells = [kind, len(group), *(count[name] for name in ("aimed", "resumed", "lost", "missing or double"))]
        lines.append(f"| {' | '.join(map(str, cells))} |")
    return "\n".join(lines)


def main(arguments: list[str] | None = None) -> list[dict]:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--kills", type=int, default=50, help="how many runs are killed (default: 50)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"parts of the run, some of {', '.join(KINDS)}")
    parser.add_argument("--seed", type=int, default=0, help="of the moments (default: 0)")
    parser.add_argument("--at-once", type=int, default=2, help="runs at the same time (default: 2)")
    parser.add_argument("--out", default="build/faults", help="folder for the results (default: build/faults)")
    parser.add_argument("--run-in", help=argparse.SUPPRESS)
    parser.add_argument("--url", help=argparse.SUPPRESS)
    options = parser.parse_args(arguments)
    if options.run_in:
        run_all(Path(options.run_in), options.url)
        return []

    from kaggle_server import KaggleServer, make_zip

    from unet_helpers.drawing import draw_scenes

    with tempfile.TemporaryDirectory(prefix="faults_") as name:
        drawn = draw_scenes(Path(name) / "drawn", size=(60, 80), n_frames=1, processes=1, progress=str)
        files = {path.relative_to(drawn).as_posix(): path.read_bytes() for path in sorted(drawn.rglob("*.png"))}
        files["dataa/filler"] = os.urandom(8 << 20)  # not unpacked: makes the download last longer
        with KaggleServer(make_zip(files)) as server:
            (Path(name) / "whole").mkdir()
            whole = Run(Path(name) / "whole", server.url)
            if whole.wait() != 0:
                raise SystemExit("".join(whole.printed[-30:]))
            expected = json.loads((Path(name) / "whole" / "result.json").read_text())
            results = []
            with ThreadPoolExecutor(options.at_once) as pool:
                kinds = options.kinds.split(",")
                tries = [
                    pool.submit(try_once, n, kinds, options.seed, server.url, expected) for n in range(options.kills)
                ]
                for attempt in tries:
                    results.append(attempt.result())
                    last = results[-1]
                    print(f"{len(results)}: {last['kind']}, {last['says'] or 'resumed'}", flush=True)
    out = Path(options.out)
    out.mkdir(parents=True, exist_ok=True)
    (out / "faults.json").write_text(json.dumps(results, indent=1) + "\n", encoding="utf-8")
    (out / "faults.md").write_text(table(results) + "\n", encoding="utf-8")
    print(f"\n{table(results)}\n\nWritten to {out}/: faults.md, faults.json")
    return results


if __name__ == "__main__":
    main()
