"""python -m unet_helpers: the notebook's steps from a terminal, and what a user's mistakes look like."""

import ast
import importlib.metadata
import importlib.util
import io
import json
import os
import re
import shutil
import struct
import subprocess
import sys
import zipfile
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LABELS, write_pair_to
from limits import pipe, small_disk
from PIL import Image

from unet_helpers import datasets, naming, networks
from unet_helpers import networks as exporting
from unet_helpers import recipe as parameters
from unet_helpers.__main__ import main
from unet_helpers.commands import OPTIONS, film
from unet_helpers.commands import train as command_train
from unet_helpers.commands.arguments import DATASETS, FORMATS, make_parser
from unet_helpers.custom_data import ValidationError, prepare_folder
from unet_helpers.custom_data.class_lists import make_labels
from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.images import decode_image
from unet_helpers.labels import CARLA, Pair
from unet_helpers.model import unet_model
from unet_helpers.networks import encoder
from unet_helpers.prediction import predict_mask

ROOT = Path(__file__).parents[1]
N_PAIRS = 24  # 17 train, 3 validate, 4 test


def make_folder(root, n_pairs=N_PAIRS, size=(64, 96)):
    for n in range(n_pairs):
        write_pair_to(root, f"p{n:02}", size, seed=n)
    (root / "classes.txt").write_text("\n".join(LABELS.names))
    return root


def make_lyft(root, *stems, size=(32, 48)) -> list[Pair]:
    """Pairs in the layout of Kaggle's Lyft set: no file is looked at before it is needed, unlike those of `folder`.

    F4 is a drive for training, F2 for validation, F1 for the test.
    """
    pairs = []
    for n, stem in enumerate(stems):
        folders = [root / "lyft" / "dataA" / "dataA" / name for name in ("CameraRGB", "CameraSeg")]
        for source, folder in zip(write_pair_to(root / "drawn", stem, size, seed=n), folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            source.replace(folder / f"{stem}.png")
        pairs.append(Pair(*(folder / f"{stem}.png" for folder in folders)))
    return pairs


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data set")


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code, what was printed, and what was said where errors go."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse's
        code = error.code
    return code, *capsys.readouterr()


def messages(errors: str) -> list[str]:
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("unet_helpers: ")]


# ---- arguments ----


@pytest.mark.parametrize("command", [(), ("check",), ("train",), ("evaluate",), ("predict",), ("export",)])
def test_help_and_wrong_usage_are_quick(command):
    """No TensorFlow before the arguments are right: its import takes seconds."""
    code = (
        "import sys, unet_helpers.__main__ as m\n"
        "codes = []\n"
        f"for words in {[*command, '--help']!r}, {[*command, '--nonsense']!r}:\n"
        "    try: m.main(words)\n"
        "    except SystemExit as end: codes.append(end.code)\n"
        "print(codes, {'tensorflow', 'keras', 'matplotlib', 'kaggle'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == "[0, 2] set()"
    assert done.stdout.startswith(" ".join(["usage: python -m unet_helpers", *command]))


@pytest.mark.parametrize("arguments", [
    (), ("nonsense",), ("check",), ("check", "x", "--dataset", "imagenet"), ("train", "x", "--image-size", "64"),
    ("train", "x", "--epochs", "many"), ("train", "x", "--epoch", "3"), ("evaluate", "net"),
    ("predict", "net", "p.png"),
    ("predict", "net", "--out", "x"), ("export", "net", "--out", "x"), ("export", "net", "--format", "tflite"),
])  # fmt: skip
def test_wrong_usage(capsys, arguments):
    code, _, errors = run(capsys, *arguments)
    assert code == 2
    assert errors.startswith("usage: python -m unet_helpers")


@pytest.mark.parametrize(("option", "value", "said"), [
    ("--minutes", "0", "--minutes: found 0.0, expected a number above 0, at most 1000000; try --minutes 4"),
    ("--epochs", "0", "--epochs: found 0, expected None or a whole number above 0, at most 100000; try --epochs 20"),
    ("--seed", "-1", "--seed: found -1, expected a whole number"),
    ("--image-size", "100x64", "--image-size: height and width must be divisible by 32, from 64 to 8192, found 100x64; "
     "try 128x64"),
    ("--runs", "x" * 300, "--runs: found 'xxx"),
])  # fmt: skip
def test_options_that_no_data_can_make_right_are_wrong_usage(capsys, folder, option, value, said):
    code, _, errors = run(capsys, "train", folder, option, value)
    assert code == 2
    assert errors.startswith(f"unet_helpers: {said}")


@pytest.mark.parametrize("command", [("check",), ("train",), ("evaluate", "network")])
def test_a_pattern_that_no_data_can_make_right_is_wrong_usage(capsys, tmp_path, command):
    for pattern, dataset, said in (
        ("(", "folder", "found '(' (no regular expression: missing )"), ("", "folder", "found '' (it is empty)"),
        ("a", "lyft", "lyft has splits of its own"), ("a", "demo", "demo has splits of its own"),
    ):  # fmt: skip
        options = ("--split-by", pattern, "--dataset", dataset)
        code, _, errors = run(capsys, *command, tmp_path, *options)
        assert code == 2
        assert f"--split-by: {said}" in errors
        assert not list(tmp_path.iterdir())


def test_the_data_sets_are_those_of_the_package():
    assert sorted(DATASETS) == sorted(datasets.NAMES)


def test_the_formats_are_those_of_the_package():
    assert sorted(FORMATS) == sorted([*exporting.SUFFIXES, "keras_half"])


def test_defaults_are_the_parameters_of_the_notebook():
    """The same command and cell train the same network."""
    cells = json.loads((ROOT / "segmentation_unet.ipynb").read_text(encoding="utf-8"))["cells"]
    names = {}
    exec("".join(next(cell["source"] for cell in cells if cell["id"] == "parameters")), names)
    options = vars(make_parser().parse_args(["train", "data"]))
    for option, name in {
        "minutes": "MINUTES", "seed": "SEED", "image_size": "IMAGE_SIZE", "split_by": "SPLIT_BY", "runs": "RUN_DIR",
        "start_from": "START_FROM", "freeze_encoder": "FREEZE_ENCODER", "train_anew": "TRAIN_ANEW",
        "epochs": "EPOCHS", "batch_size": "BATCH_SIZE", "learning_rate": "LEARNING_RATE",
    }.items():  # fmt: skip
        assert options[option] == names[name], option
    for name, value in command_train.FIXED.items():
        assert value == names[name], name
    assert {make_parser().parse_args([c, *words]).seed for c, *words in (("check", "x"), ("evaluate", "n", "x"))} == {0}


def test_messages_name_options_in_a_command_only():
    said = {"TRAIN_ANEW": (True, "--train-anew"), "SPLIT_BY": (None, "no --split-by"),
            "MINUTES": (15.0, "--minutes 15"), "IMAGE_SIZE": ((64, 96), "--image-size 64x96"),
            "N_FILTERS": (None, "N_FILTERS = None")}  # fmt: skip
    with naming.options_named(OPTIONS):
        assert {name: (value, naming.setting(name, value)) for name, (value, _) in said.items()} == said
        assert naming.named("run the cell again, or") == "run the cell again, or"
    assert naming.setting("IMAGE_SIZE", (64, 96)) == "IMAGE_SIZE = (64, 96)"
    assert naming.named("run the cell again") == "run the cell again"


def test_each_name_that_messages_have_is_known_here():
    """Else a command would tell the reader of a parameter that only the notebook has."""
    known = {*OPTIONS, "ARCHIVE", "N_FILTERS", "HALF_RESOLUTION", "SIZE_STAGES", "FRAMES_PER_DRIVE"}
    assert set(parameters.RULES) <= known
    found = []
    for path in (ROOT / "unet_helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.Call) and getattr(node.func, "id", "") in ("named", "setting"):
                found += [node.args[0].value] if isinstance(node.args[0], ast.Constant) else []
    assert len(found) > 30
    assert set(found) <= known


def test_names_of_classes_and_files_stay_as_they_are(capsys, tmp_path, monkeypatch):
    """Whatever they are: none is taken for the name of a parameter, and said in another word."""
    names = ("SEED", "run the cell again", "image_size: found (64, 65)")
    data = tmp_path / "path: DATASET" / "SEED"
    for n in range(N_PAIRS):
        write_pair_to(data, f"EPOCHS {n:02}", (32, 48), seed=n)
    (data / "classes.txt").write_text("\n".join(names))
    (data / "masks" / "EPOCHS 03.png").unlink()
    _, shown, errors = run(capsys, "check", data)
    text = " ".join((shown + errors).split())
    for name in names:
        assert re.search(rf"class \d [\d. ]+ {re.escape(name)} ", text)
    assert f"{data}: errors in the table: 1" in text
    assert "images/EPOCHS 03.png: it has no mask" in text
    monkeypatch.chdir(tmp_path)
    for name in ("path: x", "image_size: x", "format: x", "SEED = 3"):
        code, _, errors = run(capsys, "export", name, "--format", "keras_half", "--out", "new.keras")
        assert (code, errors.split("; ")[0]) == (1, f"unet_helpers: {name}: there is no such file")


def test_ctrl_c_is_a_sentence(capsys, folder, monkeypatch):
    from unet_helpers.commands import check

    def interrupt(*_, **__):
        raise KeyboardInterrupt

    monkeypatch.setattr(check, "load_dataset", interrupt)
    assert run(capsys, "check", folder) == (130, "", "unet_helpers: stopped\n")


# ---- check ----


def test_check_says_what_was_found_in_one_table(capsys, folder):
    write_pair_to(folder, "p23", values=np.full((64, 80), 255, np.uint8))  # void
    code, shown, errors = run(capsys, "check", folder)
    assert (code, errors) == (0, "")
    for line in (
        "pairs      17 train, 3 validation, 4 test",
        "sizes      23 of 64x96, 1 of 64x80 (height x width)", "masks      24 PNG of mode L (grey)",
        "ids        class ids in one channel", "converted  nothing: training reads all files as they are",
        "all pairs are fine",
    ):  # fmt: skip
        assert line in shown.splitlines()
    assert shown.split("pairs ")[0].split() == ["folder", *str(folder).split()]  # a long one is in more than one line
    masks = [np.asarray(Image.open(path)).ravel() for path in sorted((folder / "masks").iterdir())]
    for row, value, name in (("class 0", 0, "sky"), ("class 1", 1, "road"), ("class 2", 2, "car"), ("void", 255, "")):
        parts = (masks, masks[:17], masks[17:20], masks[20:])
        shares = [100 * np.mean(np.concatenate(part) == value) for part in parts]
        numbers = " +".join(re.escape(f"{share:.3f}") for share in shares)
        assert re.search(f"^{row} +{numbers}  {name}", shown, re.MULTILINE)


def make_phone_folder(root):
    """Pictures that EXIF data turn, half of them upside down, so that sizes do not tell; masks of 0 and 255."""
    for folder in ("images", "masks"):
        (root / folder).mkdir(parents=True)
    for n in range(24):
        ids = np.zeros((48, 32), np.uint8)
        ids[8 + n :] = 255
        exif = Image.Exif()
        exif[0x0112] = 3 if n % 2 else 6
        Image.fromarray(np.rot90(ids, 2 if n % 2 else 1)).save(root / "images" / f"IMG_{n:04}.jpg", exif=exif)
        Image.fromarray(ids).save(root / "masks" / f"IMG_{n:04}.png")
    return root


@pytest.mark.parametrize("columns", [80, 100])
def test_check_says_what_was_converted_and_fits_the_terminal(capsys, tmp_path, monkeypatch, columns):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("COLUMNS", str(columns))
    code, shown, errors = run(capsys, "check", make_phone_folder(Path("phone")))
    assert (code, errors) == (0, "")
    assert max(len(line) for line in shown.splitlines() if "writing 24 images" not in line) <= columns
    text = " ".join(shown.split())
    assert "ids 0 and 255 in all masks: 0 is 'background', the other 'foreground'" in text
    converted = "24 masks (PNG of mode L)"
    assert f"converted {converted}; the copies are in phone.prepared, your files are as they were" in text
    assert text.count("look at this pair") == 1
    assert "images/IMG_0019.jpg and 2 more: its EXIF data turn it" in text


def spoil(folder) -> dict[str, str]:
    """Several faults at once; {file: what is said of it}."""
    for n in range(12):
        (folder / "masks" / f"p{n:02}.png").write_bytes(b"no mask")
    Image.fromarray(np.zeros((64, 96), np.float32)).save(folder / "images" / "p12.png", "TIFF")
    (folder / "masks" / "p13.png").unlink()
    (folder / "images" / "p14.png").unlink()
    shutil.copy(folder / "images" / "p15.png", folder / "images" / "p15.jpg")
    Image.fromarray(np.zeros((64, 95), np.uint8)).save(folder / "masks" / "p16.png")
    Image.fromarray(np.full((64, 96), 77, np.uint8)).save(folder / "masks" / "p17.png")
    return {
        "masks/p09.png": "and 2 more: it can't be read as an image", "images/p12.png": "expected an image in",
        "images/p13.png": "it has no mask", "masks/p14.png": "it has no image",
        "images/p15.png": "two files have this stem", "masks/p16.png": "the same height x width",
        "masks/p17.png": "expected class ids 0..2",
    }  # fmt: skip


def test_check_names_all_faults_at_once(capsys, folder):
    said = spoil(folder)
    code, shown, errors = run(capsys, "check", folder)
    assert code == 1
    assert errors == f"unet_helpers: {folder}: errors in the table: {len(said)}; mend them, and check again\n"
    faults = [" ".join(fault.split()) for fault in shown.split("ERROR")[1:]]
    assert len(faults) == len(said)
    for name, sentence in said.items():
        assert sum(name in fault and sentence in fault for fault in faults) == 1, name
    assert "p10.png" not in shown  # ten names a fault
    assert "pairs      0 train, 2 validation, 4 test; those with errors are not counted" in shown


def test_a_folder_of_faulty_files_only_has_a_table_too(capsys, folder):
    for path in (folder / "masks").iterdir():
        path.write_bytes(b"no mask")
    code, shown, errors = run(capsys, "check", folder)
    assert code == 1
    assert "24 of 64x96" in shown
    assert "masks/p09.png (cannot identify image file) and 14 more: it can't be read" in " ".join(shown.split())
    assert len(messages(errors)) == 1


def test_check_names_each_bad_file_once_and_does_the_others(capsys, tmp_path):
    pairs = make_lyft(tmp_path, "F4-1", "F4-2", "F4-3", "F2-1", "F1-1")
    pairs[0].image.write_bytes(b"no picture")
    Image.fromarray(np.full((32, 48), 77, np.uint8)).save(pairs[1].mask)
    Image.fromarray(np.zeros((32, 47), np.uint8)).save(pairs[4].mask)
    code, shown, errors = run(capsys, "check", tmp_path, "--dataset", "lyft")
    assert code == 1
    assert len(messages(errors)) == 1
    faults = shown.split("ERROR")[1:]
    for fault, path in zip(faults, (pairs[0].image, pairs[1].mask, pairs[4].mask), strict=True):
        assert str(path) in fault
    assert "pairs      1 train, 1 validation, 0 test" in shown


def test_nothing_is_trained_on_a_folder_with_bad_files_and_all_are_named(capsys, folder, tmp_path):
    (folder / "images" / "p03.png").write_bytes(b"no picture")
    Image.fromarray(np.zeros((64, 95), np.uint8)).save(folder / "masks" / "p22.png")
    code, _, errors = run(capsys, "train", folder, "--epochs", 1, "--runs", tmp_path / "runs")
    assert code == 1
    assert len(messages(errors)) == 1
    assert errors.startswith(f"unet_helpers: {folder}: ")
    assert [sum(name in line for line in errors.splitlines()) for name in ("p03.png", "p22.png")] == [1, 1]
    assert not list(tmp_path.glob("runs/*"))


def make_films(root):
    """Six films of four frames; the blocks of names alone would cut two of them."""
    for n in range(24):
        write_pair_to(root, f"film{n // 4}_{n % 4}", (64, 96), seed=n)
    (root / "classes.txt").write_text("\n".join(LABELS.names))
    return root


def test_films_are_not_cut_by_any_command(capsys, tmp_path, monkeypatch):
    from unet_helpers.commands import train as command

    seen = {}

    def stop(recipe, data):
        seen.update(recipe=recipe, data=data)
        raise KeyboardInterrupt

    monkeypatch.setattr(command, "_fit", stop)
    folder, by_film = make_films(tmp_path / "films"), ("--split-by", r"^(film\d)_")
    network = save_network(tmp_path / "run")
    assert "pairs      17 train, 3 validation, 4 test" in run(capsys, "check", folder)[1]
    assert "pairs      16 train, 4 validation, 4 test" in run(capsys, "check", folder, *by_film)[1]
    assert "validation: 3 pictures" in run(capsys, "evaluate", network, folder, "--split", "validation")[1]
    shown = run(capsys, "evaluate", network, folder, "--split", "validation", *by_film)[1]
    assert "validation: 4 pictures" in shown
    assert run(capsys, "train", folder, "--runs", tmp_path / "runs", *by_film)[0] == 130
    assert [len(getattr(seen["data"], split)) for split in ("train", "validation", "test")] == [16, 4, 4]
    assert seen["recipe"].split_by == by_film[1]
    code, shown, errors = run(capsys, "check", folder, "--split-by", "movie")
    assert code == 1
    assert "--split-by 'movie' finds no group in its name" in " ".join(shown.split())
    assert "SPLIT_BY" not in shown + errors


def test_a_terminal_shows_the_messages_and_nothing_else(folder, tmp_path):
    """In a process of its own: TensorFlow's start-up messages are kept from the user."""
    (folder / "masks" / "p05.png").write_bytes(b"no mask")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-m", "unet_helpers", "check", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ERROR      masks/p05.png (cannot identify image file): " in done.stdout
    assert done.stderr.startswith(f"unet_helpers: {folder}: errors in the table: 1")
    assert len(done.stderr.splitlines()) == 1


def test_a_missing_folder_is_one_line(capsys, tmp_path):
    code, _, errors = run(capsys, "check", tmp_path / "none")
    assert code == 1
    assert errors.startswith(f"unet_helpers: DIR: there is no folder '{tmp_path / 'none'}'; ")
    assert len(errors.splitlines()) == 1
    assert errors.endswith("give the folder that holds images/ and masks/\n")


def test_progress(capsys, folder, monkeypatch):
    monkeypatch.setattr("unet_helpers.commands.PROGRESS_SECONDS", 0)
    _, shown, _ = run(capsys, "check", folder)
    assert re.findall(r"^train: (\d+) of 17$", shown, re.MULTILINE) == [str(n) for n in range(1, 17)]


# ---- train: the same as the notebook ----

PARAMETERS = {"DATASET": "folder", "EPOCHS": 3, "IMAGE_SIZE": (64, 64), "SEED": 5, "START_FROM": "demo"}
WHOLE_CELLS = ("bootstrap", "versions", "parameters", "recipe", "data", "check")
RECIPE_CELLS = ("recipe-batches", "recipe-network", "train")


def run_notebook_cells(**parameters) -> dict:
    """Part 3's cells with all that they need of those before: imports and `plain`, the switches of part 1's network."""
    cells = json.loads((ROOT / "segmentation_unet.ipynb").read_text(encoding="utf-8"))["cells"]
    sources = {cell["id"]: "".join(cell["source"]) for cell in cells if cell["cell_type"] == "code"}
    names = {}
    for name, source in sources.items():
        if name in WHOLE_CELLS + RECIPE_CELLS + ("scores",):
            exec(source, names)
        else:
            exec(_imports_and_plain(source), names)
        if name == "parameters":
            assert parameters.keys() <= names.keys()
            names |= parameters
        if name == "train":
            names |= {"network": None, "score": lambda *_: SimpleNamespace(miou=0, accuracy=0)}  # part 1's
        if name == "scores":
            return names
    raise AssertionError("the notebook has no cell 'scores'")


def _imports_and_plain(source: str) -> str:
    def is_needed(node) -> bool:
        assigns = isinstance(node, ast.Assign) and [ast.unparse(target) for target in node.targets] == ["plain"]
        return isinstance(node, (ast.Import, ast.ImportFrom)) or assigns

    return "\n".join(ast.unparse(node) for node in ast.parse(source).body if is_needed(node))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data, the names that the notebook's cells leave behind, and the folder of its run."""
    root = tmp_path_factory.mktemp("trained")
    data = make_folder(root / "data set")
    names = run_notebook_cells(**PARAMETERS, DATA_DIR=str(data), RUN_DIR=str(root / "notebook"))
    return SimpleNamespace(data=data, names=names, run_dir=names["run_dir"])


def train(trained, runs_dir) -> int:
    options = ["--epochs", "3", "--image-size", "64x64", "--seed", "5", "--runs", str(runs_dir), "--start-from", "demo"]
    return main(["train", str(trained.data), *options])


def assert_same_run(one: Path, other: Path):
    assert one.name == other.name
    assert json.loads((one / "settings.json").read_text()) == json.loads((other / "settings.json").read_text())
    logs = [np.genfromtxt(path / "log.csv", delimiter=",", names=True) for path in (one, other)]
    assert logs[0].dtype.names == logs[1].dtype.names
    assert len(logs[0]) == 3
    for name in logs[0].dtype.names:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
    weights = [keras.models.load_model(path / "best.keras").get_weights() for path in (one, other)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_training_is_that_of_the_notebook_also_when_it_was_interrupted(capsys, trained, tmp_path, monkeypatch):
    """The same data and parameters: the same folder, settings, log and weights."""
    from unet_helpers.commands import train as command

    class Interrupting(command.EpochLine):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 1:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command, "EpochLine", Interrupting)
        assert train(trained, tmp_path / "runs") == 130
    lock, run_dir = sorted((tmp_path / "runs").iterdir())  # the lock is held until the process ends, or the next fit
    assert lock.name == f".{run_dir.name}.lock"
    said = f"unet_helpers: stopped: 2 epochs are saved in {run_dir}; the same command goes on\n"
    assert capsys.readouterr().err == said
    assert train(trained, tmp_path / "runs") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert "resuming after epoch 2" in shown
    assert len(re.findall(r"^epoch 3/3 64x64: ", shown, re.MULTILINE)) == 1
    assert str(run_dir / "best.keras") in shown.splitlines()[-1]
    assert_same_run(run_dir, trained.run_dir)
    assert list((tmp_path / "runs").iterdir()) == [run_dir]


def test_what_the_notebook_trained_is_not_trained_again(capsys, trained):
    assert train(trained, trained.run_dir.parent) == 0
    assert "trained before" in capsys.readouterr().out
    assert [path.name for path in trained.run_dir.parent.iterdir()] == [trained.run_dir.name]


def test_nothing_is_trained_on_bad_files(capsys, tmp_path):
    pairs = make_lyft(tmp_path, "F4-1", "F4-2", "F2-1", "F1-1")
    pairs[1].image.write_bytes(b"no picture")
    pairs[3].mask.write_bytes(b"no mask")
    code, _, errors = run(
        capsys, "train", tmp_path, "--dataset", "lyft", "--epochs", 1, "--runs", tmp_path / "runs"
    )  # fmt: skip
    assert code == 1
    assert all(name in said for name, said in zip(("F4-2.png", "F1-1.png", "2 bad"), messages(errors), strict=True))
    assert not list(tmp_path.glob("runs/*"))


@pytest.mark.parametrize(
    ("sizes", "asked", "said"),
    [
        ([(640, 400)], "64x96", "fill 42% of 64x96, the rest is padding; --image-size 128x64 would show them larger"),
        ([(400, 640)], "64x96", None),
        ([(400, 600), (400, 600), (900, 150)], "64x96", None),  # 64x96 is the size of most of them
        ([(400, 800)], "192x256", None),  # 128x320 has their proportions, too, and shows them just as large
        (
            [(240, 320)], "384x512",
            "of 240x320 are enlarged 1.6 times to fit 384x512; --image-size 256x320 would show as much in less time",
        ),
        ([(360, 480)], "384x512", None),
    ],
)
def test_a_better_size_is_said_for_upright_and_for_small_images(capsys, tmp_path, monkeypatch, sizes, asked, said):
    """Before the training, which is left out here: a size is suggested where it shows the pictures larger."""
    from unet_helpers.commands import train as command

    def stop(*_):
        raise ValueError("here it would train")

    monkeypatch.setattr(command, "_fit", stop)
    for number in range(9):
        write_pair_to(tmp_path / "data", f"p{number}", sizes[number % len(sizes)])
    assert main(["train", str(tmp_path / "data"), "--image-size", asked, "--runs", str(tmp_path / "runs")]) == 1
    shown = capsys.readouterr().out
    assert "test:" in shown
    assert ("note: images" in shown) == bool(said)
    assert said is None or f"note: images {said}\n" in shown


@pytest.mark.parametrize("freeze", [False, True])
def test_train_goes_on_from_the_folder_of_a_training(capsys, folder, tmp_path, monkeypatch, freeze):
    """Up to where it compiles: the training itself is tested elsewhere."""
    from unet_helpers.commands import train as command

    switches = {"up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
    theirs = unet_model((None, None, 3), 2, 3, half_resolution=True, **switches)
    (tmp_path / "my run").mkdir()
    networks.save_network(tmp_path / "my run" / "best.keras", theirs, LABELS, (32, 64))

    def stop(model, *_):
        compiled.append(model)
        raise ValueError("here it would train")

    compiled = []
    monkeypatch.setattr(command, "compile_unet", stop)
    options = ["--start-from", tmp_path / "my run", "--image-size", "64x64", "--runs", tmp_path / "runs"]
    code, shown, errors = run(capsys, "train", folder, *options, *["--freeze-encoder"] * freeze)
    assert (code, errors) == (1, "unet_helpers: here it would train\n")
    assert "going on from the network in best.keras" in shown
    for mine, other in zip(compiled[0].get_weights(), theirs.get_weights(), strict=True):
        np.testing.assert_array_equal(mine, other)
    frozen = [not layer.trainable for layer in compiled[0].layers]
    assert frozen == [freeze and layer in encoder(compiled[0]) for layer in compiled[0].layers]


def test_a_training_that_could_save_nothing_is_no_success(capsys, folder, tmp_path, monkeypatch):
    """A full disk, of which the training itself tells only in a sentence."""
    from unet_helpers.commands import train as command

    monkeypatch.setattr(command, "_fit", lambda *_: tmp_path / "run")
    code, _, errors = run(capsys, "train", folder, "--runs", tmp_path / "runs")
    assert code == 1
    said = f"{tmp_path / 'run'}: no network could be saved; make room on the disk and run the command again"
    assert messages(errors) == [f"unet_helpers: {said}"]


def test_a_split_without_a_pair_is_said(capsys, tmp_path):
    options = ("--runs", tmp_path / "runs")
    code, _, errors = run(capsys, "train", make_folder(tmp_path / "one", n_pairs=1), *options)
    assert code == 1
    assert "found 1 pairs, expected 4 at least" in errors
    make_lyft(tmp_path, "F4-1")
    code, _, errors = run(capsys, "train", tmp_path, "--dataset", "lyft", *options)
    assert code == 1
    assert "the validation split is empty" in errors


# ---- evaluate ----


def test_scores_are_those_of_the_notebook(capsys, trained):
    code, shown, errors = run(capsys, "evaluate", trained.run_dir, trained.data)
    assert (code, errors) == (0, "")
    scores, baseline = trained.names["scores"], trained.names["baseline"]
    assert shown.endswith(f"\n{scores.table()}\n")
    for title, row in {"the network": scores, r"baseline \(always .*\)": baseline}.items():
        assert re.search(rf"^{title} +mIoU {row.miou:.3f}   accuracy {row.accuracy:.3f}$", shown, re.MULTILINE)
    assert "folder, test: 4 pictures" in shown
    assert "folder, validation: 3" in run(capsys, "evaluate", trained.run_dir, trained.data, "--split", "validation")[1]


def save_network(folder, labels=LABELS, size=(16, 24), unusual=False):
    """A network that finds conftest's three classes by their colours, saved as a training does."""
    n_classes = labels.n_classes
    inputs = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(n_classes, 1)
    model = keras.Model(inputs, keras.layers.GlobalAveragePooling2D()(inputs) if unusual else logits(inputs))
    if not unusual:
        weights = np.zeros((1, 1, 3, n_classes), np.float32)
        weights[0, 0, :, 0], weights[0, 0, :, 2] = (-1, 0, 1), (1, 0, -1)
        logits.set_weights([weights, np.float32([0, 60, 0] + [-99] * n_classes)[:n_classes]])
    folder.mkdir(parents=True)
    networks.save_network(folder / "best.keras", model, labels, size)
    return folder / "best.keras"


@pytest.fixture
def network(tmp_path):
    return save_network(tmp_path / "run")


def test_evaluate_and_predict_agree_at_each_masks_own_size(capsys, tmp_path, network):
    folder = make_folder(tmp_path / "data")
    write_pair_to(folder, "p21", (40, 60), seed=99)  # in test, with three of 64x96
    (code, shown, _), out = run(capsys, "evaluate", network, folder), tmp_path / "out"
    assert code == 0
    stems = [f"p{n}" for n in (20, 21, 22, 23)]
    assert run(capsys, "predict", network, *(folder / "images" / f"{stem}.png" for stem in stems), "--out", out)[0] == 0
    true, answers = ([np.asarray(Image.open(path)) for path in paths] for paths in (
        [folder / "masks" / f"{stem}.png" for stem in stems], [out / f"{stem}_ids.png" for stem in stems],
    ))  # fmt: skip
    parts = [confusion_matrices(t[None], a[None], 3) for t, a in zip(true, answers, strict=True)]
    scores = Scores(LABELS, np.concatenate(parts))
    assert 0.7 < scores.miou < 1
    assert f"mIoU {scores.miou:.3f}   accuracy {scores.accuracy:.3f}" in shown


def test_the_cameras_own_car_is_left_out_in_a_score_of_its_own(capsys, tmp_path):
    """Its pixels are sky to this network, so that without them nothing is wrong; masks of several sizes have none."""
    cameras = {folder: tmp_path / "lyft" / "dataA" / "dataA" / folder for folder in ("CameraRGB", "CameraSeg")}
    values = np.zeros((32, 48), np.uint8)
    values[24:] = 10

    def write(name, size):
        pair = write_pair_to(tmp_path / "drawn", name, values=values[:, : size[1]])
        draw(SKY, SKY, size).save(pair.image)
        for source, folder in zip(pair, cameras.values(), strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            source.replace(folder / f"{name}.png")

    for name in ("F4-1", "F4-2", "F2-1", "F1-1"):  # two train, one validates, one tests
        write(name, (32, 48))
    network = save_network(tmp_path / "carla", CARLA)
    _, shown, _ = run(capsys, "evaluate", network, tmp_path, "--dataset", "lyft")
    assert re.search(r"^the network +mIoU 0\.375   accuracy 0\.750$", shown, re.MULTILINE)
    assert re.search(r"^without the bonnet +mIoU 1\.000   accuracy 1\.000$", shown, re.MULTILINE)
    write("F1-2", (32, 40))
    code, shown, _ = run(capsys, "evaluate", network, tmp_path, "--dataset", "lyft")
    assert code == 0
    assert "bonnet" not in shown

    (cameras["CameraSeg"] / "F4-1.png").write_bytes(b"no mask")
    code, shown, errors = run(capsys, "evaluate", network, tmp_path, "--dataset", "lyft")
    assert code == 1
    assert "F4-1.png" in messages(errors)[0]
    assert re.search(r"^the network +mIoU 0\.375", shown, re.MULTILINE)


def test_evaluate_names_bad_files_and_scores_the_others(capsys, tmp_path):
    pairs = make_lyft(tmp_path, "F4-1", "F2-1", "F1-1", "F1-2", "F1-3")
    pairs[3].mask.write_bytes(b"no mask")
    code, shown, errors = run(capsys, "evaluate", save_network(tmp_path / "run", CARLA), tmp_path, "--dataset", "lyft")
    assert code == 1
    assert [str(pairs[3].mask) in message for message in messages(errors)] == [True]
    assert "test: 2 pictures" in shown


def test_a_split_without_a_good_pair_is_said(capsys, tmp_path):
    pairs = make_lyft(tmp_path, "F4-1", "F2-1", "F1-1")
    pairs[2].mask.write_bytes(b"no mask")
    code, shown, errors = run(capsys, "evaluate", save_network(tmp_path / "run", CARLA), tmp_path, "--dataset", "lyft")
    assert code == 1
    assert "mIoU" not in shown
    assert messages(errors)[-1] == (
        f"unet_helpers: {tmp_path}: the test split has no pair that can be scored; try another --split"
    )


def test_evaluate_names_faulty_files_of_a_folder_and_scores_the_others(capsys, folder, tmp_path, network):
    """The same scores as without the pair, of the same split; also where it has to be converted, and again."""
    for path in (folder / "masks").iterdir():
        ids = Image.open(path)
        path.unlink()
        ids.save(path.with_suffix(".gif"))
    (folder / "masks" / "p01.gif").write_bytes(b"no mask")
    (folder / "masks" / "p21.gif").write_bytes(b"no mask")
    for _ in range(2):
        code, shown, errors = run(capsys, "evaluate", network, folder)
        assert code == 1
        said = f"unet_helpers: {folder}: left out: masks/p01.gif, masks/p21.gif (cannot identify image file): "
        assert len(messages(errors)) == 1
        assert messages(errors)[0].startswith(said)
        assert "folder, test: 3 pictures" in shown
    assert run(capsys, "train", folder, "--runs", tmp_path / "runs")[0] == 1
    assert not list(tmp_path.glob("runs/*"))
    alone = tmp_path / "alone"
    for split, numbers in {"train": (2, 3), "val": (17, 18), "test": (20, 22, 23)}.items():
        for kind, suffix in (("images", "png"), ("masks", "gif")):
            (alone / split / kind).mkdir(parents=True)
            for n in numbers:
                shutil.copy(folder / kind / f"p{n:02}.{suffix}", alone / split / kind)
    shutil.copy(folder / "classes.txt", alone)
    code, expected, _ = run(capsys, "evaluate", network, alone)
    assert code == 0
    assert shown.split("folder, test")[1] == expected.split("folder, test")[1]


def test_networks_that_can_not_be_scored_are_said(capsys, folder, tmp_path, network):
    cases = {
        tmp_path / "none": "there is no such file",
        folder / "classes.txt": "found no zip",
        save_network(tmp_path / "four", make_labels(("a", "b", "c", "d"))): "it knows 4 classes, but the data set",
        save_network(tmp_path / "turned", replace(LABELS, names=LABELS.names[::-1])): (
            f"its class 0 is {LABELS.names[2]!r}, but in the data set 'folder' in {folder} it is {LABELS.names[0]!r}"
        ),
        save_network(tmp_path / "unusual", unusual=True): "expected one for masks",
    }
    (tmp_path / "damaged.keras").write_bytes(network.read_bytes()[:-200])
    cases[tmp_path / "damaged.keras"] = "found a damaged zip"
    cases[save_alone(network, tmp_path / "alone.keras")] = "give what is missing: --classes FILE, --image-size HxW"
    for path, said in cases.items():
        code, _, errors = run(capsys, "evaluate", path, folder)
        assert code == 1
        assert len(messages(errors)) == 1
        assert str(path) in errors
        assert said in errors
    given = ("--image-size", "16x24", "--classes", folder / "classes.txt")
    assert run(capsys, "evaluate", tmp_path / "alone.keras", folder, *given)[0] == 0


def save_alone(network: Path, path: Path) -> Path:
    """The network as another program saves it, without labels and size."""
    keras.models.load_model(network).save(path)
    return path


# ---- predict ----

SKY, ROAD, CAR = (90, 130, 220), (90, 90, 90), (200, 40, 40)


def draw(top, bottom, size=(32, 48)) -> Image.Image:
    picture = np.empty((*size, 3), np.uint8)
    picture[: size[0] // 2], picture[size[0] // 2 :] = top, bottom
    return Image.fromarray(picture)


def ids(path: Path) -> np.ndarray:
    image = Image.open(path)
    assert image.mode == "L"
    return np.asarray(image)


def test_three_files_for_each_picture(capsys, tmp_path, network):
    picture, out = tmp_path / "my street.png", tmp_path / "new" / "out"
    draw(SKY, CAR, (50, 70)).save(picture)
    (tmp_path / "names.txt").write_text("sky\nthe road\nred car\n")
    code, shown, errors = run(capsys, "predict", network, picture, "--out", out, "--classes", tmp_path / "names.txt")
    assert (code, errors) == (0, "")
    assert sorted(p.name for p in out.iterdir()) == [f"my street_{end}.png" for end in ("colors", "ids", "overlay")]
    mask = ids(out / "my street_ids.png")
    assert mask.shape == (50, 70)
    assert np.unique(mask[:22]).tolist() == [0]
    assert np.unique(mask[28:]).tolist() == [2]
    colors = np.asarray(Image.open(out / "my street_colors.png"))
    assert len({tuple(colors[y, 0]) for y in (5, 45)}) == 2
    overlay = np.asarray(Image.open(out / "my street_overlay.png")).astype(int)
    np.testing.assert_allclose(overlay, (np.asarray(Image.open(picture)).astype(int) + colors) / 2, atol=1)
    assert "my street: " in shown
    assert "red car" in shown


def test_a_picture_is_answered_upright_as_it_is_shown(capsys, tmp_path, network):
    exif = Image.Exif()
    exif[0x0112] = 6  # shown turned by 90 degrees: what is stored at the bottom is shown at the left
    draw(SKY, CAR).save(tmp_path / "phone.jpg", exif=exif, quality=95)
    assert run(capsys, "predict", network, tmp_path / "phone.jpg", "--out", tmp_path)[0] == 0
    mask = ids(tmp_path / "phone_ids.png")
    assert mask.shape == (48, 32)
    assert np.unique(mask[:, :12]).tolist() == [2]
    assert np.unique(mask[:, -12:]).tolist() == [0]


def test_a_bad_picture_is_one_message_and_the_others_are_done(capsys, tmp_path, network):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for n in (1, 2, 10):
        draw(SKY, ROAD, (32 + n, 48)).save(pictures / f"p{n}.png")
    (pictures / "p3.jpg").write_bytes(b"no picture")
    (pictures / "notes.txt").write_text("no picture, and nobody takes it for one")
    draw(CAR, ROAD).save(tmp_path / "one.bmp")
    out, none = tmp_path / "out", tmp_path / "none.png"
    code, shown, errors = run(capsys, "predict", network, pictures, none, tmp_path / "one.bmp", "--out", out)
    assert code == 1
    assert all(str(path) in said for path, said in zip((pictures / "p3.jpg", none), messages(errors), strict=True))
    assert {path.name.split("_")[0] for path in out.iterdir()} == {"p1", "p2", "p10", "one"}
    assert "no film, because the pictures differ in size" in shown
    assert re.findall(r"^\[\d/4\] (p\d+):", shown, re.MULTILINE) == ["p1", "p2", "p10"]


def test_16_bit_pictures_of_a_folder_share_one_scale_as_in_training(capsys, tmp_path, network):
    """Dark and bright ones of a 12-bit camera: alone, the dark ones would be as bright as the others."""
    frames, data = tmp_path / "frames", tmp_path / "data"
    for folder in (frames, data / "images", data / "masks"):
        folder.mkdir(parents=True)
    for n, highest in enumerate((4000, 1000, 500, 3000)):
        values = np.linspace(0, highest, 32 * 48).reshape(32, 48).astype(np.uint16)
        for path in (frames / f"f{n}.png", data / "images" / f"f{n}.png"):
            Image.fromarray(values).save(path)
        Image.fromarray((values > 100).astype(np.uint8)).save(data / "masks" / f"f{n}.png")
    draw(SKY, ROAD).save(frames / "f4.jpg")
    trained_on = {pair.image.stem: pair.image for pair in datasets.load_dataset("folder", data).train}

    def read(out, stem):  # the picture as the network saw it, from the half of it in the overlay
        overlay, colors = (np.asarray(Image.open(out / f"{stem}_{end}.png")) for end in ("overlay", "colors"))
        return overlay - colors // 2

    code, shown, _ = run(capsys, "predict", network, frames, "--out", tmp_path / "all")
    assert code == 0
    assert f"note: {frames}: 4 pictures of 16 bits: of all of them, the highest 8 of the 12 bits in use" in shown
    for stem, path in trained_on.items():
        expected = np.asarray(Image.open(path).convert("RGB")) // 2
        np.testing.assert_array_equal(read(tmp_path / "all", stem), expected)
    both = [frames / "f2.png", frames / "f0.png"]  # named one by one
    assert "the 12 bits in use" in run(capsys, "predict", network, *both, "--out", tmp_path / "both")[1]
    np.testing.assert_array_equal(read(tmp_path / "both", "f2"), read(tmp_path / "all", "f2"))
    _, shown, _ = run(capsys, "predict", network, frames / "f2.png", "--out", tmp_path / "one")
    assert f"note: {frames / 'f2.png'}: a picture of 16 bits: the highest 8 of the 9 bits in use are taken" in shown
    assert read(tmp_path / "one", "f2").max() > 100 > read(tmp_path / "all", "f2").max()


def make_deep(folder, highest):
    """Five pairs of 16 bits: road is 1600, sky 800; one pixel of each picture has the highest value of all."""
    for n in range(5):
        values = np.uint16([800, 1600])[make_road(n)]
        values[0, 0] = highest
        for name, pixels in (("images", values), ("masks", make_road(n))):
            (folder / name).mkdir(parents=True, exist_ok=True)
            Image.fromarray(pixels).save(folder / name / f"p{n}.png")
    (folder / "classes.txt").write_text("sky\nroad\n")
    return folder


def make_road(n):
    road = np.zeros((32, 48), np.uint8)
    road[16 + n :, n:] = 1
    return road


def test_what_a_training_has_taken_of_16_bits_is_taken_again(capsys, tmp_path):
    """Pictures of 12 bits in training: 1600 is 100 there, and has to be 100 where no picture needs more than 11."""
    bright, dark = make_deep(tmp_path / "bright", 4000), make_deep(tmp_path / "dark", 2000)
    options = ("--epochs", 1, "--image-size", "64x64", "--batch-size", 1, "--runs", tmp_path / "runs")
    assert run(capsys, "train", bright, *options)[0] == 0
    trained = networks.load_network(next((tmp_path / "runs").glob("*/best.keras")))

    inputs = keras.Input((None, None, 3))
    threshold = keras.layers.Conv2D(2, 1)
    model = keras.Model(inputs, threshold(inputs))  # road is brighter than 75, sky is not
    threshold.set_weights([np.float32([[[[0, 1], [0, 0], [0, 0]]]]), np.float32([0, -75])])
    networks.save_network(tmp_path / "net.keras", model, trained.labels, (32, 48), trained.bits)
    for named in (dark / "images", dark / "images" / "p3.png"):
        out = tmp_path / f"of_{named.stem}"
        code, shown, _ = run(capsys, "predict", tmp_path / "net.keras", named, "--out", out)
        assert (code, "16 bits" in shown) == (0, False)
        for path in out.glob("*_ids.png"):
            assert (np.asarray(Image.open(path)) != make_road(int(path.name[1]))).sum() <= 1  # the pixel of 2000
    assert (predict_mask(tmp_path / "net.keras", dark / "images" / "p3.png") != make_road(3)).sum() <= 1
    code, shown, _ = run(capsys, "evaluate", tmp_path / "net.keras", dark, "--split", "validation")
    assert "accuracy 0.999" in shown
    first = datasets.load_dataset("folder", dark).train[0].image  # what a training on them reads is as it was
    assert np.asarray(Image.open(first)).max() == 2000 >> 3
    networks.save_network(tmp_path / "net.keras", model, trained.labels, (32, 48))
    _, shown, _ = run(capsys, "predict", tmp_path / "net.keras", dark / "images", "--out", tmp_path / "without")
    assert "the highest 8 of the 11 bits in use" in shown
    assert (np.asarray(Image.open(tmp_path / "without" / "p3_ids.png")) == 1).all()


def test_a_picture_brighter_than_any_in_training_is_white(tmp_path):
    Image.fromarray(np.uint16([[0, 4095, 4096, 65535]])).save(tmp_path / "a.png")
    assert decode_image(tmp_path / "a.png", 12)[0, :, 0].tolist() == [0, 255, 255, 255]


def test_a_bad_16_bit_picture_of_a_folder_and_hidden_files_do_not_stop_the_others(capsys, tmp_path, network):
    """Such as ._p1.png, which macOS puts beside each picture on other disks."""
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    values = np.linspace(0, 4000, 32 * 48).reshape(32, 48).astype(np.uint16)
    for n in (1, 2, 3):
        Image.fromarray(values).save(pictures / f"p{n}.png")
        (pictures / f"._p{n}.png").write_bytes(b"no picture")
    (pictures / "p2.png").write_bytes((pictures / "p2.png").read_bytes()[:-100])
    (pictures / "notes.heic").write_bytes(b"a picture of a phone")
    code, shown, errors = run(capsys, "predict", network, pictures, "--out", tmp_path / "out")
    assert code == 1
    assert [str(pictures / "p2.png") in said for said in messages(errors)] == [True]
    assert {path.name.split("_")[0] for path in (tmp_path / "out").glob("*.png")} == {"p1", "p3"}
    assert "2 pictures of 16 bits: of all of them, the highest 8 of the 12 bits" in shown
    assert f"note: {pictures}: 1 files are no pictures by their names, and passed over: notes.heic" in shown


def test_a_folder_without_pictures_is_named(capsys, tmp_path, network):
    (tmp_path / "none").mkdir()
    code, _, errors = run(capsys, "predict", network, tmp_path / "none", "--out", tmp_path / "out")
    assert code == 1
    assert messages(errors) == [
        f"unet_helpers: {tmp_path / 'none'}: found no picture in this folder; give one that holds pictures"
    ]


def test_a_folder_of_frames_is_a_film_in_the_order_of_their_numbers(capsys, tmp_path, network):
    frames = tmp_path / "drive 7"
    frames.mkdir()
    order = {1: (SKY, ROAD), 2: (ROAD, CAR), 10: (CAR, SKY)}
    for n, (top, bottom) in order.items():
        draw(top, bottom).save(frames / f"f{n}.png")
    code, shown, _ = run(capsys, "predict", network, frames, "--out", tmp_path / "out")
    assert code == 0
    assert "drive 7_film.gif: 3 of 3 frames" in shown
    made = Image.open(tmp_path / "out" / "drive 7_film.gif")
    assert (made.n_frames, made.height) == (3, 32)
    for number, n in enumerate(order):
        made.seek(number)
        shown_frame = np.asarray(made.convert("RGB")).astype(int)
        answer = np.asarray(Image.open(tmp_path / "out" / f"f{n}_colors.png")).astype(int)
        assert np.abs(shown_frame[:, :48] - np.asarray(Image.open(frames / f"f{n}.png"))).mean() < 8
        assert np.abs(shown_frame[:, -48:] - answer).mean() < 8


def test_an_animation_is_answered_frame_by_frame(capsys, tmp_path, network):
    first, *others = draw(SKY, CAR), draw(CAR, SKY), draw(ROAD, CAR)
    first.save(tmp_path / "drive.gif", save_all=True, append_images=others, duration=70)
    assert run(capsys, "predict", network, tmp_path / "drive.gif", "--out", tmp_path / "out")[0] == 0
    tops = [ids(tmp_path / "out" / f"drive_{n}_ids.png")[3, 3] for n in (1, 2, 3)]
    assert tops == [0, 2, 1]
    made = Image.open(tmp_path / "out" / "drive_film.gif")
    assert (made.n_frames, made.info["duration"]) == (3, 70)


def test_a_small_animation_of_a_disk_full_of_frames_is_refused(capsys, tmp_path, network):
    """Frames of one pixel each, 15 bytes: too many of them, or on too large a canvas."""
    for n_frames, side, found in ((10_001, 1, "10,001 frames, 10,001"), (70, 9000, "70 frames, 5,670,000,000")):
        frame = struct.pack("<BHHHHB", 0x2C, 0, 0, 1, 1, 0) + b"\2\2\x44\1\0"
        start = b"GIF89a" + struct.pack("<HHBBB", side, side, 0x80, 0, 0) + bytes(6)
        (tmp_path / "drive.gif").write_bytes(start + n_frames * frame + b";")
        code, _, errors = run(capsys, "predict", network, tmp_path / "drive.gif", "--out", tmp_path / "out")
        assert code == 1
        assert f"drive.gif: found an animation of {found}" in errors
        assert "expected at most 10,000 and 5,000,000,000; cut it into parts" in errors
        assert not list((tmp_path / "out").iterdir())


def test_a_pipe_among_the_pictures_is_named_and_not_waited_for(capsys, tmp_path, network):
    (tmp_path / "new").mkdir()
    draw(SKY, CAR).save(tmp_path / "new" / "a.png")
    with pipe(tmp_path / "new" / "p.png"):
        code, _, errors = run(capsys, "predict", network, tmp_path / "new", "--out", tmp_path / "out")
    assert code == 1
    assert "p.png: it is no file, but a folder, a pipe or a device" in errors
    assert (tmp_path / "out" / "a_ids.png").is_file()


STRANGE = {"escape": "p\x1b[2J\x07", "no UTF-8": os.fsdecode(b"p\xff"), "turned": "p\u202egnp"}


@pytest.mark.parametrize("strange", STRANGE)
def test_names_that_a_terminal_obeys_or_cannot_show_are_written_as_text(capsys, tmp_path, network, strange):
    name, as_text = STRANGE[strange], ascii(STRANGE[strange])[1:-1]
    folder = make_folder(tmp_path / (name if strange != "no UTF-8" else "folder") / "data", 6)
    for part in ("images", "masks"):
        (folder / part / "p03.png").rename(folder / part / f"{name}.png")
    predict = ("predict", network, folder / "images", "--out", folder.parent / "out")
    good = [run(capsys, "check", folder), run(capsys, *predict)]
    assert [(code, errors) for code, _, errors in good] == [(0, "")] * 2
    assert (folder.parent / "out" / f"{name}_ids.png").is_file()
    (folder / "images" / f"{name}.png").write_bytes(b"no picture")
    bad = [run(capsys, "check", folder), run(capsys, *predict, "--overwrite")]
    assert [code for code, *_ in bad] == [1, 1]
    with pytest.raises(ValidationError, match=re.escape(f"images/{as_text}.png (")) as caught:
        prepare_folder(folder)
    for text in (*good[1][1:2], bad[0][1], bad[1][2]):
        assert as_text in "".join(text.split())
    for text in [text for _, *both in good + bad for text in both] + [str(caught.value)]:
        assert all(line.isprintable() for line in text.split("\n"))


def test_a_network_with_a_class_that_a_terminal_obeys_is_refused(capsys, tmp_path):
    path = save_network(tmp_path / "run")
    with zipfile.ZipFile(path) as archive:
        content = {name: archive.read(name) for name in archive.namelist()}
    content["unet_helpers.json"] = content["unet_helpers.json"].replace(b"road", rb"road\u001b[2J")
    with zipfile.ZipFile(path, "w") as archive:
        for name, data in content.items():
            archive.writestr(name, data)
    code, _, errors = run(capsys, "predict", path, tmp_path, "--out", tmp_path / "out")
    assert code == 1
    assert f"{path}: its unet_helpers.json can't be read (names: found control characters in" in errors
    assert "\x1b" not in errors


def test_many_frames_without_a_duration_keep_their_order(capsys, tmp_path, network):
    """Names with zeros in front, which every program sorts; 0 milliseconds, as some programs write, become 100."""
    first, *others = [draw((n, 9, 9), CAR) for n in range(12)]
    first.save(tmp_path / "drive.gif", save_all=True, append_images=others, duration=0, disposal=2)
    assert run(capsys, "predict", network, tmp_path / "drive.gif", "--out", tmp_path / "out")[0] == 0
    names = sorted(path.name for path in (tmp_path / "out").glob("*_ids.png"))
    assert names == [f"drive_{n:02}_ids.png" for n in range(1, 13)]
    assert Image.open(tmp_path / "out" / "drive_film.gif").info["duration"] == 100


def test_a_film_of_large_pictures_keeps_small_frames_in_memory():
    made = film.Film(2)
    for _ in range(2):
        made.add(*np.zeros((2, 900, 1600, 3), np.uint8))
    assert {panel.size for frame in made.frames for panel in frame} == {(film.MAX_SIDE, film.MAX_SIDE * 9 // 16)}


def test_a_film_of_chosen_frames_lasts_as_long():
    """Up to a length of each frame at which it would only be jerky; the first and the last are among them."""
    for n_frames, duration in ((250, 100), (1000, 100), (50, 70)):
        made = film.Film(n_frames, duration=duration)
        for n in range(n_frames):
            made.add(*np.full((2, 4, 6, 3), 255 * n // (n_frames - 1), np.uint8))
        image = Image.open(io.BytesIO(made.make()[0]))
        shown = n_frames * duration / image.n_frames
        assert image.info["duration"] == pytest.approx(min(film.LONGEST, shown), abs=10)
        assert np.asarray(image.convert("RGB"))[0, 0].max() <= 4
        image.seek(image.n_frames - 1)
        assert np.asarray(image.convert("RGB"))[0, 0].min() >= 251


@pytest.mark.parametrize(("n_frames", "size", "limit"), [(5, 300, 500_000), (5, 300, 100_000), (9, 60, 30_000)])
def test_a_film_stays_small(monkeypatch, n_frames, size, limit):
    """Noise, which no format compresses: smaller frames first, then fewer, and it is said."""
    assert film.MAX_BYTES <= 3_000_000
    monkeypatch.setattr(film, "MAX_BYTES", limit)
    rng, made = np.random.default_rng(0), film.Film(n_frames)
    for _ in range(n_frames):
        made.add(*rng.integers(0, 256, (2, size, size, 3), np.uint8))
    content, said = made.make()
    assert 0.3 * limit < len(content) <= limit
    image = Image.open(io.BytesIO(content))
    assert f"{image.n_frames} of {n_frames} frames at {image.height}x{image.width}" in said
    assert image.n_frames == n_frames or image.height <= film.MIN_SIDE


def test_a_long_film_keeps_few_frames_in_memory():
    made = film.Film(1000)
    for n in range(1000):
        made.add(*np.full((2, 4, 6, 3), n % 256, np.uint8))
    assert len(made.frames) == film.MAX_FRAMES
    assert made.make()[1].startswith(f"{film.MAX_FRAMES} of 1000 frames")


def test_nothing_is_overwritten_unless_asked_for(capsys, tmp_path, network):
    out = tmp_path / "out"
    for folder, colors in {"a": (SKY, ROAD), "b": (CAR, ROAD)}.items():
        (tmp_path / folder).mkdir()
        draw(*colors).save(tmp_path / folder / "p.png")
    out.mkdir()
    (out / "p_colors.png").write_bytes(b"somebody's")
    code, _, errors = run(capsys, "predict", network, tmp_path / "a" / "p.png", "--out", out)
    assert code == 1
    assert "p_colors.png: it is there already; give another --out, or --overwrite" in errors
    assert [(path.name, path.read_bytes()) for path in out.iterdir()] == [("p_colors.png", b"somebody's")]

    both = [tmp_path / folder / "p.png" for folder in "ab"]
    assert run(capsys, "predict", network, *both, "--out", out, "--overwrite")[0] == 0
    assert [ids(out / f"p{number}_ids.png")[3, 3] for number in ("", "_2")] == [0, 2]  # neither is lost
    assert (out / "p_colors.png").read_bytes() != b"somebody's"


def test_a_film_that_is_there_is_not_replaced(capsys, tmp_path, network):
    frames, out = tmp_path / "drive", tmp_path / "out"
    for folder in (frames, out):
        folder.mkdir()
    for n in (1, 2):
        draw(SKY, ROAD).save(frames / f"f{n}.png")
    (out / "drive_film.gif").write_bytes(b"somebody's")
    code, _, errors = run(capsys, "predict", network, frames, "--out", out)
    assert code == 1
    assert "drive_film.gif: it is there already" in errors
    assert (out / "drive_film.gif").read_bytes() == b"somebody's"
    assert (out / "f2_ids.png").is_file()


def test_names_that_differ_in_capitals_alone_do_not_share_files(capsys, tmp_path, network):
    """On the disks of Windows and macOS one would replace the other."""
    pictures = []
    for folder, name, colors in (("a", "P.png", (SKY, ROAD)), ("b", "p.png", (CAR, ROAD)), ("c", "P.png", (ROAD, SKY))):
        (tmp_path / folder).mkdir()
        pictures.append(tmp_path / folder / name)
        draw(*colors).save(pictures[-1])
    assert run(capsys, "predict", network, *pictures, "--out", tmp_path / "out")[0] == 0
    assert len({path.name.casefold() for path in (tmp_path / "out").iterdir()}) == 9
    assert [ids(tmp_path / "out" / f"{stem}_ids.png")[3, 3] for stem in ("P", "p_2", "P_3")] == [0, 2, 1]


def test_a_full_disk_leaves_no_half_file(capsys, tmp_path, network):
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    noise = np.random.default_rng(0).integers(0, 256, (300, 300, 3), np.uint8)
    for n in (1, 2):
        Image.fromarray(noise).save(pictures / f"p{n}.png")
    with small_disk(tmp_path / "disk", 600_000) as disk:
        code, _, errors = run(capsys, "predict", network, pictures, "--out", disk / "out")
        assert code == 1
        for said in messages(errors):
            assert re.search(rf"{disk}/out/p\w+\.(png|gif): it can't be written \(No space left on device\); ", said)
        made = list((disk / "out").iterdir())
        assert made
        for path in made:
            Image.open(io.BytesIO(path.read_bytes())).load()  # no open file would let the disk go


def test_an_out_that_can_not_be_a_folder_is_named(capsys, tmp_path, network):
    Image.new("RGB", (48, 32)).save(tmp_path / "p.png")
    for out in (tmp_path / "p.png", tmp_path / "p.png" / "inside"):
        assert main(["predict", str(network), str(tmp_path / "p.png"), "--out", str(out)]) == 1
        assert re.fullmatch(rf"unet_helpers: {out}: \w+( \w+)*; give another path\n", capsys.readouterr().err)


def test_the_pictures_themselves_are_never_replaced(capsys, tmp_path, network):
    for name in ("p.png", "p_ids.png"):
        draw(SKY, ROAD).save(tmp_path / name)
    before = (tmp_path / "p_ids.png").read_bytes()
    both = [tmp_path / "p.png", tmp_path / "p_ids.png"]
    code, _, errors = run(capsys, "predict", network, *both, "--out", tmp_path, "--overwrite")
    assert code == 1
    assert "p_ids.png: it is one of the pictures themselves" in errors
    assert (tmp_path / "p_ids.png").read_bytes() == before
    assert (tmp_path / "p_ids_ids.png").exists()
    code, _, errors = run(capsys, "predict", network, tmp_path, "--out", tmp_path, "--overwrite")
    assert code == 1
    assert "it is the folder of the pictures" in errors


def test_pictures_named_by_another_path_are_never_replaced_either(capsys, tmp_path, network, monkeypatch):
    """The same file or folder by a relative path, or by a link."""
    (tmp_path / "pictures").mkdir()
    for name in ("p.png", "p_ids.png"):
        draw(SKY, ROAD).save(tmp_path / "pictures" / name)
    before = (tmp_path / "pictures" / "p_ids.png").read_bytes()
    (tmp_path / "link").symlink_to(tmp_path / "pictures")
    monkeypatch.chdir(tmp_path / "pictures")
    for out in (".", "../pictures", tmp_path / "link"):
        code, _, errors = run(capsys, "predict", network, "p.png", "p_ids.png", "--out", out, "--overwrite")
        assert code == 1
        assert "p_ids.png: it is one of the pictures themselves" in errors
        code, _, errors = run(capsys, "predict", network, tmp_path / "pictures", "--out", out, "--overwrite")
        assert code == 1
        assert "it is the folder of the pictures" in errors
        assert Path("p_ids.png").read_bytes() == before


@pytest.mark.parametrize("kind", ["link to a file", "link in the folder", "folder by a link"])
def test_pictures_that_a_folder_reaches_by_a_link_are_never_replaced_either(capsys, tmp_path, network, kind):
    (tmp_path / "archive").mkdir()
    draw(SKY, ROAD).save(tmp_path / "archive" / "p_ids.png")
    before = (tmp_path / "archive" / "p_ids.png").read_bytes()
    (tmp_path / "pictures").mkdir()
    draw(SKY, CAR).save(tmp_path / "pictures" / "p.png")
    (tmp_path / "pictures" / "q.png").symlink_to(tmp_path / "archive" / "p_ids.png")
    given, out = tmp_path / "pictures", tmp_path / "archive"
    if kind == "link to a file":
        given = [tmp_path / "pictures" / name for name in ("p.png", "q.png")]
    if kind == "folder by a link":
        (tmp_path / "link").symlink_to(given)
        given = tmp_path / "link"
    named = given if isinstance(given, list) else [given]
    code, _, errors = run(capsys, "predict", network, *named, "--out", out, "--overwrite")
    assert code == 1
    assert f"{out / 'p_ids.png'}: it is one of the pictures themselves" in errors
    assert (out / "p_ids.png").read_bytes() == before
    assert (out / "q_ids.png").is_file()


def test_a_size_that_does_not_fit_the_network_is_said_once(capsys, tmp_path, trained):
    draw(SKY, ROAD).save(tmp_path / "p.png")
    pictures = [tmp_path / "p.png"] * 3
    out = tmp_path / "out"
    code, _, errors = run(capsys, "predict", trained.run_dir, *pictures, "--out", out, "--image-size", "64x65")
    assert code == 1
    assert len(messages(errors)) == 1
    assert "--image-size: found 64x65, " in errors
    assert not out.exists()


@pytest.mark.parametrize("size", ["0x0", "16x0", "99968x99968"])
def test_a_size_that_no_network_can_look_at_is_said_before_anything_is_done(capsys, tmp_path, network, size):
    draw(SKY, ROAD).save(tmp_path / "p.png")
    said = f"unet_helpers: --image-size: height and width must be whole numbers from 1 to 8192, found {size}; try "
    for command, *others in (("predict", tmp_path / "p.png", "--out", tmp_path / "out"), ("evaluate", tmp_path)):
        code, shown, errors = run(capsys, command, network, *others, "--image-size", size)
        assert (code, shown) == (1, "")
        assert errors.startswith(said)
    assert {path.name for path in tmp_path.iterdir()} == {"run", "p.png"}


@pytest.mark.parametrize("nothing", ["", " "])
def test_no_path_is_the_folder_where_one_stands_by_chance(capsys, tmp_path, monkeypatch, nothing):
    monkeypatch.chdir(tmp_path)
    for arguments in (
        ("predict", "net", "p.png", "--out", nothing), ("predict", "net", nothing, "--out", "x"), ("check", nothing),
        ("predict", nothing, "p.png", "--out", "x"), ("evaluate", "net", "x", "--classes", nothing),
        ("export", "net", "--format", "onnx", "--out", nothing), ("train", "x", "--runs", nothing),
        ("train", "x", "--start-from", nothing), ("diagnose", nothing, "x"), ("diagnose", "x", nothing),
    ):  # fmt: skip
        code, _, errors = run(capsys, *arguments)
        assert code == 2
        assert errors.endswith(": found nothing, expected a path\n")
    assert not list(tmp_path.iterdir())


def test_the_classes_of_a_training_keep_their_names(capsys, tmp_path, trained):
    train(trained, trained.run_dir.parent)
    draw(SKY, ROAD).save(tmp_path / "p.png")
    _, shown, _ = run(capsys, "predict", trained.run_dir, tmp_path / "p.png", "--out", tmp_path / "out")
    assert re.search(r"^p: (sky|road|car) \d+%", shown, re.MULTILINE)


# ---- export ----


def test_an_exported_network_answers_the_same_and_needs_no_labels(capsys, tmp_path, network):
    files = {"folder": network.parent, "alone": save_alone(network, tmp_path / "alone.keras")}
    pictures = np.random.default_rng(0).uniform(0, 255, (1, 16, 24, 3)).astype(np.float32)
    expected = keras.models.load_model(network).predict_on_batch(pictures)
    for name, path in files.items():
        out = tmp_path / "new" / name
        code, shown, errors = run(capsys, "export", path, "--format", "tf_saved_model", "--out", out)
        assert (code, errors) == (0, "")
        assert f"{out}: " in shown
        loaded = tf.saved_model.load(out)  # kept: it holds the weights
        np.testing.assert_allclose(loaded.serve(pictures), expected, rtol=1e-4, atol=1e-3)


@pytest.mark.parametrize(("kind", "name"), [("tf_saved_model", "n"), ("litert", "n.tflite")])
def test_an_export_that_fails_halfway_leaves_nothing(capsys, tmp_path, network, monkeypatch, kind, name):
    def full(self, path, **_):
        half = Path(path) if kind == "litert" else Path(path) / "saved_model.pb"
        half.parent.mkdir(parents=True, exist_ok=True)
        half.write_bytes(b"half of it")
        raise OSError(28, "No space left on device", str(half))

    monkeypatch.setattr(keras.Model, "export", full)
    code, _, errors = run(capsys, "export", network, "--format", kind, "--out", tmp_path / "new" / name)
    assert code == 1
    assert "No space left on device" in errors
    assert not list((tmp_path / "new").iterdir())


def test_what_can_not_be_exported_is_said(capsys, tmp_path, network, monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if "onnx" in name else find(name, *_))
    for path, kind, out, said in (
        (network, "onnx", "n.onnx", "--format: 'onnx' needs onnx and tf2onnx: pip install onnx tf2onnx"),
        (network, "litert", "n.bin", "--out: found"),
        (network, "tf_saved_model", "run", "--out: "),
        (tmp_path / "none", "tf_saved_model", "n", f"{tmp_path / 'none'}: there is no such file"),
    ):
        code, _, errors = run(capsys, "export", path, "--format", kind, "--out", tmp_path / out)
        assert code == 1
        assert errors.startswith(f"unet_helpers: {said}")
        assert len(errors.splitlines()) == 1
    assert {path.name for path in tmp_path.iterdir()} == {"run"}


# ---- installed ----


def test_each_package_that_is_imported_is_in_the_requirements():
    """Also where another package brings it along today."""
    imported = set()
    for path in (ROOT / "unet_helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                imported |= {name.split(".")[0] for name in names}
    required = set(re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    packages, foreign = importlib.metadata.packages_distributions(), imported - sys.stdlib_module_names
    assert {"keras", "h5py", "requests", "PIL"} <= foreign
    assert not {name for name in foreign if not {package.lower() for package in packages[name]} & required}


def test_the_installed_package_is_whole_and_runs_anywhere(tmp_path):
    """Without the network: the wheel is made by this environment's setuptools, from a copy."""
    source = tmp_path / "source"
    source.mkdir()
    folders = ("unet_helpers", "benchmarks", "tests", "docs")
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", *folders):
        copy = shutil.copytree if (ROOT / name).is_dir() else shutil.copy
        copy(ROOT / name, source / name)
    command = [sys.executable, "-m", "pip", "wheel", "--quiet", "--no-deps", "--no-build-isolation", "--no-index"]
    subprocess.run([*command, "--wheel-dir", tmp_path, source], check=True, timeout=300, capture_output=True)
    (wheel,) = tmp_path.glob("unet_helpers-*.whl")
    with zipfile.ZipFile(wheel) as file:
        found = {name for name in file.namelist() if ".dist-info/" not in name}
        (metadata,) = (file.read(name).decode() for name in file.namelist() if name.endswith("/METADATA"))
        file.extractall(tmp_path / "installed")
    files = {path for path in (ROOT / "unet_helpers").rglob("*") if path.is_file() and "__pycache__" not in path.parts}
    assert found == {path.relative_to(ROOT).as_posix() for path in files}
    assert {"plots", "drawing", "download", "masks", "commands"} <= {name.split("/")[1] for name in found}
    needed = re.findall(r"^Requires-Dist: (.*)$", metadata, re.MULTILINE)
    assert sorted(needed) == sorted((ROOT / "requirements.txt").read_text().split())
    assert "\nName: unet-helpers\n" in metadata

    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    program = [sys.executable, "-m", "unet_helpers", "check", "--help"]
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": ""}
    done = subprocess.run(program, cwd=elsewhere, env=environment, capture_output=True, text=True, check=True)
    assert done.stdout.startswith("usage: python -m unet_helpers check")
