"""Two processes at once, each with a TMPDIR of its own, as the README advises: is everything made once, and whole?

    PYTHONPATH=.:tests python tests/at_once.py --pairs 10

The first one waits in the middle of its work until the other waits for it, was refused, or wrongly works as well, so
each pair meets, however busy the machine is. Prints a table; exit code 1 if a pair failed.
"""

import argparse
import sys
import tempfile
from pathlib import Path

from limits import gate, start, together

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
DRAW = """
from unet_helpers.drawing import draw_scenes, writing
writing._draw = inside(writing._draw)
folder = draw_scenes(pathlib.Path({data!r}) / "drawn", drives=("F1", "F2"), n_frames=2, size=(48, 64), processes=1)
print(sum(path.is_file() for path in folder.rglob("*")))
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


def two_drawings(folder: Path) -> str:
    return run_two(folder, DRAW.format(data=str(folder / "data")), ["8"] * 2, folder / "data", ["drawn"])


def two_trainings(folder: Path) -> str:
    """One trains, the other is refused."""
    (folder / "data").mkdir()
    code = TRAIN.format(data=str(folder / "data"))
    return run_two(folder, code, ["1", "refused: another process is training"], folder / "data", ["run"])


KINDS = {"drawings": two_drawings, "trainings": two_trainings}


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
