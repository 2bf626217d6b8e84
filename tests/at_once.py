"""Two processes at once, each with a TMPDIR of its own, as the README advises: is everything made once, and whole?

    PYTHONPATH=.:tests python tests/at_once.py --pairs 10

Downloads (from `kaggle_server`), drawings, preparations and trainings. The one that comes to the work waits in it until
the other waits, too, has been refused, or is at the work as well, which no two ever should be: so each pair meets,
however busy the machine is. Prints a table; exit code 1 if a pair is not good.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

import numpy as np
from conftest import write_pair_to
from kaggle_server import KaggleServer, make_zip
from limits import gate, start, together
from PIL import Image

MEET = """
import glob, os, sys
sys.path[:0] = ["tests", "."]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
here = pathlib.Path({here!r})
def meet(*_):
    (here / f"inside-{{os.getpid()}}").touch()
    while not met.exists() and len(glob.glob(str(here / "inside-*"))) < 2: time.sleep(.001)
def inside(function):
    return lambda *arguments, **options: (meet(), function(*arguments, **options))[1]
"""
DOWNLOAD = """
import kagglesdk.kaggle_env as kaggle_env
kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {url!r}
from unet_helpers.datasets import load_dataset
from unet_helpers.download import dataset as download
download.KAGGLE_INPUT = pathlib.Path("/nowhere")
download.unpack = inside(download.unpack)
data = load_dataset("lyft", {data!r})
print(len(data.train), len(data.validation), len(data.test))
"""
DRAW = """
from unet_helpers.drawing import draw_scenes, writing
writing._draw = inside(writing._draw)
folder = draw_scenes(pathlib.Path({data!r}) / "drawn", drives=("F1", "F2"), n_frames=2, size=(48, 64), processes=1,
                     exist_ok=True)
print(sum(path.is_file() for path in folder.rglob("*")))
"""
PREPARE = """
from unet_helpers.datasets import load_dataset
from unet_helpers.custom_data import preparation as writing
writing._write_whole = inside(writing._write_whole)
data = load_dataset("folder", {data!r})
print(sum(path.is_file() and "prepared" in str(path) for pair in data.train + data.validation for path in pair))
"""
TRAIN = """
import keras
from unet_helpers.checkpoints import RunCheckpoint
from unet_helpers.training import ProgressiveResizing
run_dir = pathlib.Path({data!r}) / "run"
run_dir.mkdir(exist_ok=True)
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])  # any network: what lies in the folder is the same
model.compile("sgd", "mse")
resizing = ProgressiveResizing((64, 96), epochs=1)
state = RunCheckpoint(run_dir, resizing)
state.set_model(model)
try:
    state.resume(model)
    meet()
    resizing.on_epoch_begin(0)
    state.on_epoch_end(0, {{"loss": 1, "val_mIoU": 0.5}})
    state.on_train_end()
    print(len(state.log))
except RuntimeError as error:
    print(error)
    met.touch()
    print("refused")
"""


def png(pixels) -> bytes:
    file = io.BytesIO()
    Image.fromarray(np.uint8(pixels)).save(file, "PNG")
    return file.getvalue()


def lyft_zip() -> bytes:
    """Of the Lyft set's layout, 50 pairs of each split."""
    files = {}
    for letter, name in (("A", "02_00_{:03}"), ("B", "09_00_{:03}"), ("E", "F1-{}")):
        for n in range(50):
            for camera, pixels in (("CameraRGB", np.full((6, 8, 3), n)), ("CameraSeg", np.full((6, 8, 3), (7, 0, 0)))):
                files[f"data{letter}/data{letter}/{camera}/{name.format(n)}.png"] = png(pixels)
    return make_zip(files)


def run_two(folder: Path, code: str) -> tuple[list[tuple[int, str, str]], int]:
    """What the two processes ended with, (exit code, output, errors) each, and how many were at the work."""
    children = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        children.append(start(gate(folder) + MEET.format(here=str(folder)) + code, TMPDIR=str(folder / name)))
    return together(folder, *children), len(list(folder.glob("inside-*")))


def two_downloads(folder: Path) -> str:
    """What is not well, "" if all is; so do the others."""
    (folder / "data").mkdir()
    with KaggleServer(lyft_zip()) as server:
        ends, at_work = run_two(folder, DOWNLOAD.format(url=server.url, data=str(folder / "data")))
        whole = len(list((folder / "data" / "lyft").rglob("*.png"))) == 300
        return judge(ends, at_work, ["50 50 50"] * 2, whole and len(server.sent) == 1, folder / "data", ["lyft"])


def two_drawings(folder: Path) -> str:
    ends, at_work = run_two(folder, DRAW.format(data=str(folder / "data")))
    return judge(ends, at_work, ["8"] * 2, True, folder / "data", ["drawn"])


def two_preparations(folder: Path) -> str:
    data = folder / "all" / "data"
    for n in range(6):
        pair = write_pair_to(data, stem=str(n), seed=n)
        Image.open(pair.mask).save(pair.mask.with_suffix(".gif"))
        pair.mask.unlink()
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    ends, at_work = run_two(folder, PREPARE.format(data=str(data)))
    return judge(ends, at_work, ["5"] * 2, True, folder / "all", ["data", "data.prepared"])


def two_trainings(folder: Path) -> str:
    """One trains, the other is told so."""
    (folder / "data").mkdir()
    ends, at_work = run_two(folder, TRAIN.format(data=str(folder / "data")))
    told = sum("another process is training in" in output for _, output, _ in ends) == 1
    return judge(ends, at_work, ["1", "refused"], told, folder / "data", ["run"])


def judge(ends, at_work: int, expected: list[str], good: bool, folder: Path, left: list[str]) -> str:
    faults = []
    if at_work != 1:
        faults.append(f"{at_work} were at the work")
    last = sorted(output.split("\n")[-2] if code == 0 else errors.strip()[-200:] for code, output, errors in ends)
    if last != expected:
        faults.append(f"they ended with {last}")
    if not good:
        faults.append("it is not whole, or made twice")
    if sorted(path.name for path in folder.iterdir()) != left:
        faults.append(f"left: {sorted(path.name for path in folder.iterdir())}")
    return ", ".join(faults)


KINDS = {
    "downloads": two_downloads, "drawings": two_drawings, "preparations": two_preparations, "trainings": two_trainings,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10, help="of each kind (default: 10)")
    parser.add_argument("--kinds", default=",".join(KINDS), help=f"some of {', '.join(KINDS)}")
    options = parser.parse_args()
    bad = 0
    print("| two at once | pairs | good |\n|---|---|---|", flush=True)
    for kind in options.kinds.split(","):
        faults = []
        for _ in range(options.pairs):
            with tempfile.TemporaryDirectory() as folder:
                faults.append(KINDS[kind](Path(folder)))
        print(f"| {kind} | {options.pairs} | {faults.count('')} |", *filter(None, faults), sep="\n  ", flush=True)
        bad += options.pairs - faults.count("")
    return int(bad > 0)


if __name__ == "__main__":
    sys.exit(main())
