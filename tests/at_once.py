"""Two processes at once, each with a TMPDIR of its own, as the README advises: is everything made once, and whole?

    PYTHONPATH=.:tests python tests/at_once.py --pairs 10

The first one waits in the middle of its work until the other waits for it, was refused, or wrongly works as well, so
each pair meets, however busy the machine is. Prints a table; exit code 1 if a pair failed.
"""

import argparse
import io
import sys
import tempfile
from pathlib import Path

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
model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1)])
model.compile("sgd", "mse")
resizing = ProgressiveResizing((64, 96), epochs=1)
checkpoint = RunCheckpoint(run_dir, resizing)
checkpoint.set_model(model)
try:
    checkpoint.resume(model)
    meet()
    resizing.on_epoch_begin(0)
    checkpoint.on_epoch_end(0, {{"loss": 1, "val_mIoU": 0.5}})
    checkpoint.on_train_end()
    print(len(checkpoint.log))
except RuntimeError as error:
    met.touch()
    print("refused:", str(error).split(" in ")[0])
"""


def lyft_zip() -> bytes:
    """The Lyft data set's layout, with 50 pairs of each split."""
    image = io.BytesIO()
    Image.new("RGB", (8, 6), (7, 0, 0)).save(image, "PNG")
    return make_zip({
        f"data{letter}/data{letter}/{camera}/{name.format(n)}.png": image.getvalue()
        for letter, name in (("A", "02_00_{:03}"), ("B", "09_00_{:03}"), ("E", "F1-{}"))
        for camera in ("CameraRGB", "CameraSeg") for n in range(50)
    })  # fmt: skip


def run_two(folder: Path, code: str, expected: list[str], above: Path, left: list[str]) -> str:
    """What went wrong with two processes that run code, "" if nothing did.

    expected: the last lines that they print, sorted. left: what there is in the folder above at the end.
    """
    children = []
    for name in ("first", "second"):
        (folder / name).mkdir()
        children.append(start(gate(folder) + MEET.format(here=str(folder)) + code, TMPDIR=str(folder / name)))
    ends = together(folder, *children)
    last = sorted(output.split("\n")[-2] if code == 0 else errors.strip()[-200:] for code, output, errors in ends)
    problems = [f"they ended with {last}"] if last != expected else []
    if (at_work := len(list(folder.glob("inside-*")))) != 1:
        problems.append(f"{at_work} were at work")
    if (found := sorted(path.name for path in above.iterdir())) != left:
        problems.append(f"left: {found}")
    return ", ".join(problems)


def two_downloads(folder: Path) -> str:
    data = folder / "data"
    data.mkdir()
    with KaggleServer(lyft_zip()) as server:
        code = DOWNLOAD.format(url=server.url, data=str(data))
        problems = run_two(folder, code, ["50 50 50"] * 2, data, ["lyft"])
        return problems or ("" if len(server.sent) == 1 else "it is downloaded twice")


def two_drawings(folder: Path) -> str:
    return run_two(folder, DRAW.format(data=str(folder / "data")), ["8"] * 2, folder / "data", ["drawn"])


def two_preparations(folder: Path) -> str:
    data = folder / "all" / "data"
    for n in range(6):
        pair = write_pair_to(data, stem=str(n), seed=n)
        Image.open(pair.mask).save(pair.mask.with_suffix(".gif"))
        pair.mask.unlink()
    (data / "classes.txt").write_text("sky\nroad\ncar\n")
    return run_two(folder, PREPARE.format(data=str(data)), ["5"] * 2, folder / "all", ["data", "data.prepared"])


def two_trainings(folder: Path) -> str:
    """One trains, the other is refused."""
    (folder / "data").mkdir()
    code = TRAIN.format(data=str(folder / "data"))
    return run_two(folder, code, ["1", "refused: another process is training"], folder / "data", ["run"])


KINDS = {
    "downloads": two_downloads, "drawings": two_drawings, "preparations": two_preparations, "trainings": two_trainings,
}  # fmt: skip


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10, help="of each kind (default: 10)")
    n_pairs, n_bad = parser.parse_args().pairs, 0
    print("| two at once | pairs | good |\n|---|---|---|", flush=True)
    for kind, run in KINDS.items():
        problems = []
        for _ in range(n_pairs):
            with tempfile.TemporaryDirectory() as folder:
                problems.append(run(Path(folder)))
        print(f"| {kind} | {n_pairs} | {problems.count('')} |", *filter(None, problems), sep="\n  ", flush=True)
        n_bad += n_pairs - problems.count("")
    return int(n_bad > 0)


if __name__ == "__main__":
    sys.exit(main())
