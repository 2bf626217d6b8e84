"""python -m unet_helpers: arguments, check, train, evaluate and the installed package."""

import ast
import importlib.metadata
import json
import os
import re
import shutil
import signal
import subprocess
import sys
import zipfile
from dataclasses import replace
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from unittest.mock import Mock

import keras
import numpy as np
import pytest
from builders import fails, make_folder, make_lyft, messages, run, save_network, save_start, succeeds
from conftest import LABELS, write_pair_to
from limits import needs_sigint, start
from PIL import Image

import unet_helpers
from unet_helpers import naming, plots, recipe
from unet_helpers.__main__ import main
from unet_helpers.commands import OPTIONS, check
from unet_helpers.commands import train as command_train
from unet_helpers.commands.arguments import make_parser
from unet_helpers.custom_data import make_labels
from unet_helpers.evaluation import Scores, confusion_matrices
from unet_helpers.labels import CARLA, Pair
from unet_helpers.model import unet_model
from unet_helpers.networks import encoder
from unet_helpers.recipe import note_better_size

ROOT = Path(__file__).parents[1]
COMMANDS = ("check", "train", "speed", "diagnose", "evaluate", "predict", "export", "info")


@pytest.fixture
def folder(tmp_path):
    return make_folder(tmp_path / "data set")


@pytest.fixture
def network(tmp_path):
    return save_network(tmp_path / "run")


def test_help_and_wrong_usage_are_quick():
    """No TensorFlow before the arguments are right: its import takes seconds."""
    code = (
        "import sys, unet_helpers.__main__ as m\n"
        "codes = []\n"
        f"for words in [[]] + [[command] for command in {COMMANDS}]:\n"
        "    for option in '--help', '--nonsense':\n"
        "        try: m.main([*words, option])\n"
        "        except SystemExit as end: codes.append(end.code)\n"
        "print(codes, {'tensorflow', 'keras', 'matplotlib', 'kaggle'} & set(sys.modules))"
    )
    done = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.splitlines()[-1] == f"{[0, 2] * 9} set()"
    assert all(f"usage: python -m unet_helpers {command} [-h]" in done.stdout for command in COMMANDS)


def test_options_that_no_data_can_make_right_are_wrong_usage(capsys, tmp_path):
    for arguments, said in (
        (("train", tmp_path, "--minutes", "0"), "--minutes: found 0.0"),
        (("train", tmp_path, "--epochs", "0"), "--epochs: found 0"),
        (("train", tmp_path, "--image-size", "100x64"), "--image-size: height and width must be divisible by 32"),
        (("train", tmp_path, "--image-size", "64"), "--image-size: "),
        (("train", tmp_path, "--runs", "x" * 300), "--runs: found 'xxx"),
        (("check", tmp_path, "--split-by", "("), "--split-by: found '(' (missing )"),
        (("evaluate", "net", tmp_path, "--split-by", "a", "--dataset", "lyft"), "--split-by: lyft has splits of its"),
        (("predict", "net", "p.png", "--out", ""), "found nothing, expected a path"),  # not the current folder
        (("check", " "), "found nothing, expected a path"),
        (("train", "x", "--start-from", ""), "found nothing, expected a path"),
    ):
        code, shown, errors = run(capsys, *arguments)
        assert (code, shown) == (2, "")
        assert said in errors
    assert not list(tmp_path.iterdir())


def test_the_version_is_that_of_the_package(capsys):
    code, shown, _ = run(capsys, "--version")
    assert (code, shown) == (0, f"unet_helpers {unet_helpers.__version__}\n")


def test_defaults_are_the_parameters_of_the_notebook():
    """The same command and cell train the same network."""
    cells = json.loads((ROOT / "segmentation_unet.ipynb").read_text(encoding="utf-8"))["cells"]
    names = {}
    exec("".join(next(cell["source"] for cell in cells if cell["id"] == "parameters")), names)
    names |= recipe.OPTIONS
    options = vars(make_parser().parse_args(["train", "data"]))
    for option, name in {
        "minutes": "MINUTES", "seed": "SEED", "image_size": "IMAGE_SIZE", "split_by": "SPLIT_BY", "runs": "RUN_DIR",
        "start_from": "START_FROM", "freeze_encoder": "FREEZE_ENCODER", "train_anew": "TRAIN_ANEW",
        "epochs": "EPOCHS", "batch_size": "BATCH_SIZE", "learning_rate": "LEARNING_RATE",
    }.items():  # fmt: skip
        assert options[option] == names[name], option
    assert {make_parser().parse_args([c, *words]).seed for c, *words in (("check", "x"), ("evaluate", "n", "x"))} == {0}
    no_option = {"ARCHIVE", "N_FILTERS", "HALF_RESOLUTION", "SIZE_STAGES", "FRAMES_PER_DRIVE"}
    assert recipe.RULES.keys() - OPTIONS.keys() == no_option  # messages name each parameter as its option


def test_a_terminal_shows_the_messages_and_nothing_else(folder):
    """In a process of its own: TensorFlow's start-up messages are kept from the user."""
    (folder / "masks" / "p05.png").write_bytes(b"no mask")
    environment = {name: value for name, value in os.environ.items() if not name.startswith("TF_")}
    command = [sys.executable, "-m", "unet_helpers", "check", folder]
    done = subprocess.run(command, cwd=ROOT, env=environment, capture_output=True, text=True, check=False)
    assert done.returncode == 1
    assert "ERROR      masks/p05.png (cannot identify image file): " in done.stdout
    assert done.stderr.startswith(f"unet_helpers: {folder}: errors in the table: 1")
    assert len(done.stderr.splitlines()) == 1


@needs_sigint
def test_ctrl_c_stops_a_check_with_a_sentence(folder):
    """Without waiting for the files that no thread has begun."""
    code = f"""
import signal, sys, time
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
from unet_helpers import commands
from unet_helpers.commands import check
commands.PROGRESS_SECONDS = 0
check.check_pair = lambda pair, labels: time.sleep(2) or 0
from unet_helpers.__main__ import main
sys.exit(main(["check", {str(folder)!r}]))
"""
    child = start(code, PYTHON_CPU_COUNT="2")
    assert child.stdout.readline().startswith("train: 1 of 17")
    child.send_signal(signal.SIGINT)
    _, errors = child.communicate(timeout=60)
    assert (child.returncode, errors.splitlines()[-1]) == (130, "unet_helpers: stopped")
    assert "Traceback" not in errors


def test_a_reader_that_ends_early_is_no_traceback(folder):
    child = start(f"import sys\nfrom unet_helpers.__main__ import main\nsys.exit(main(['check', {str(folder)!r}]))")
    child.stdout.close()  # as `head` does
    errors = child.stderr.read()
    assert child.wait(timeout=120) == 1
    assert "Traceback" not in errors
    assert "BrokenPipe" not in errors


def test_check_says_what_was_found_in_one_table(capsys, folder, monkeypatch):
    """It fits the terminal; files that must be converted and odd names are tested with `custom_data`."""
    write_pair_to(folder, "p23", values=np.full((64, 80), 255, np.uint8))  # void
    (folder / "masks" / "p22.png").rename(folder / "masks" / "p22.gif")
    Image.open(folder / "masks" / "p22.gif").save(folder / "masks" / "p22.gif")
    monkeypatch.setattr("unet_helpers.commands.PROGRESS_SECONDS", 0)
    monkeypatch.chdir(folder.parent)
    monkeypatch.setenv("COLUMNS", "70")
    shown = succeeds(capsys, "check", folder.name)
    assert max(len(line) for line in shown.splitlines() if "converting" not in line) <= 70
    for said in (
        "1 mask (GIF of mode P); the copies are in data set.prepared", "pairs 17 train, 3 validation, 4 test",
        "sizes 23 of 64x96, 1 of 64x80", "23 PNG of mode L, 1 GIF of mode P", "all pairs are fine",
    ):  # fmt: skip
        assert said in " ".join(shown.split())
    masks = [np.asarray(Image.open(path)).ravel() for path in sorted((folder / "masks").iterdir())]
    for row, value, name in (("class 0", 0, "sky"), ("class 2", 2, "car"), ("void", 255, "")):
        parts = (masks, masks[:17], masks[17:20], masks[20:])
        numbers = " +".join(re.escape(f"{100 * np.mean(np.concatenate(part) == value):.3f}") for part in parts)
        assert re.search(f"^{row} +{numbers}  {name}", shown, re.MULTILINE)
    assert re.findall(r"^train: (\d+) of 17$", shown, re.MULTILINE) == [str(n) for n in range(1, 17)]  # progress


def test_check_names_all_problems_at_once(capsys, folder):
    """Those that are found by name, and when a file is examined."""
    (folder / "masks" / "p13.png").unlink()
    Image.fromarray(np.full((64, 96), 77, np.uint8)).save(folder / "masks" / "p17.png")
    code, shown, errors = run(capsys, "check", folder)
    assert code == 1
    assert errors.startswith(f"unet_helpers: {folder}: errors in the table: 2; ")
    problems = [" ".join(problem.split()) for problem in shown.split("ERROR")[1:]]
    assert problems[0].startswith("images/p13.png: it has no mask")
    assert "masks/p17.png (holds [77]): expected class ids 0..2" in problems[1]
    assert "pairs      16 train, 2 validation, 4 test; " in shown
    for path in (folder / "masks").iterdir():
        path.write_bytes(b"no mask")
    code, shown, errors = run(capsys, "check", folder)  # not one good pair is left
    assert (code, len(messages(errors))) == (1, 1)
    assert "masks/p09.png (cannot identify image file) and 13 more: " in " ".join(shown.split())  # ten names


def test_suspicious_pairs_are_shown_first_and_nothing_is_replaced(capsys, folder, tmp_path, monkeypatch):
    """Those of a warning, what EXIF turns, and an id that a mask has because it was a JPEG once."""
    out, exif = tmp_path / "new" / "look", Image.Exif()
    for n in range(24, 60):
        write_pair_to(folder, f"p{n}", (64, 96), seed=n)
    values = np.array(Image.open(folder / "masks" / "p07.png"))
    values[values == 2] = 1
    values[3, 5] = 3
    Image.fromarray(values).save(folder / "masks" / "p07.png")
    (folder / "classes.txt").write_text("sky\nroad\ncar\nno car\n")  # one pixel of 60 x 64 x 96: 0.0003 %
    exif[0x0112] = 3
    Image.open(folder / "images" / "p11.png").save(folder / "images" / "p11.png", exif=exif)
    image = Image.open(folder / "masks" / "p13.png").convert("RGBA")
    image.putpixel((0, 0), (0, 0, 0, 0))
    image.save(folder / "masks" / "p13.png")  # partly transparent
    drawn = []
    monkeypatch.setattr(check, "show_pairs", lambda *given: drawn.append(given) or plots.show_pairs(*given))
    shown = " ".join(succeeds(capsys, "check", folder, "--show", out).split())
    assert "classes with less than 0.01 % of the pixels: 3 'no car' (0.00027 %)" in shown
    assert f"12 pairs shown in {out / 'pairs_1.png'}, {out / 'pairs_2.png'}, {out / 'pairs_3.png'}" in shown
    titles = [title for *_, part in drawn for title in part]
    assert [title.split(":")[0] for title in titles[:3]] == ["p11.png", "p13.png", "p07.png"]
    assert ("EXIF" in titles[0], "transparent" in titles[1]) == (True, True)
    assert re.search(r"id 3, 'no car': 1 pixel\b", titles[2])
    assert len(set(titles)) == 12
    assert not any(":" in title for title in titles[3:])
    for path in sorted(out.iterdir()):
        assert Image.open(path).size[0] == 800
    before = (out / "pairs_1.png").read_bytes()
    (out / "pairs_3.png").write_bytes(b"mine")
    errors = fails(capsys, "check", folder, "--show", out)
    assert "pairs_1.png: it is there already; give another --show, or --overwrite" in errors
    assert ((out / "pairs_1.png").read_bytes(), (out / "pairs_3.png").read_bytes()) == (before, b"mine")
    succeeds(capsys, "check", folder, "--show", out, "--overwrite")
    assert (out / "pairs_3.png").read_bytes() != b"mine"


def test_nothing_is_trained_on_bad_files_or_too_few(capsys, folder, tmp_path):
    options = ("--epochs", 1, "--runs", tmp_path / "runs")
    (folder / "images" / "p03.png").write_bytes(b"no image")
    Image.fromarray(np.zeros((64, 95), np.uint8)).save(folder / "masks" / "p22.png")
    errors = fails(capsys, "train", folder, *options, n_messages=1)
    assert [sum(name in line for line in errors.splitlines()) for name in ("p03.png", "p22.png")] == [1, 1]
    (bad,) = make_lyft(tmp_path, "F4-1")
    for dataset, directory, said in (
        ("folder", make_folder(tmp_path / "one", 1), "found 1 pair, expected 4 at least"),
        ("lyft", tmp_path, "the validation split is empty"),
    ):
        errors = fails(capsys, "train", directory, "--dataset", dataset, *options)
        assert said in errors
    bad.image.write_bytes(b"no image")
    errors = fails(capsys, "train", tmp_path, "--dataset", "lyft", *options)
    assert [name in said for name, said in zip([str(bad.image), "1 bad"], messages(errors), strict=True)] == [True] * 2
    assert not list(tmp_path.glob("runs/*"))


def test_sequences_are_not_split_by_any_command(capsys, tmp_path, monkeypatch):
    """Six drives of four frames; the blocks of names alone would cut two of them."""
    fit = Mock(side_effect=KeyboardInterrupt)
    monkeypatch.setattr(command_train, "_fit", fit)
    folder, by_drive = tmp_path / "drives", ("--split-by", r"^(drive\d)_")
    for n in range(24):
        write_pair_to(folder, f"drive{n // 4}_{n % 4}", (32, 48), seed=n)
    (folder / "classes.txt").write_text("\n".join(LABELS.names))
    network = save_network(tmp_path / "run")
    assert "pairs      17 train, 3 validation, 4 test" in succeeds(capsys, "check", folder)
    assert "pairs      16 train, 4 validation, 4 test" in succeeds(capsys, "check", folder, *by_drive)
    shown = succeeds(capsys, "evaluate", network, folder, "--split", "validation", *by_drive)
    assert "validation: 4 images" in shown
    assert run(capsys, "train", folder, "--runs", tmp_path / "runs", *by_drive)[0] == 130
    recipe, data = fit.call_args.args
    assert (recipe.split_by, len(data.train), len(data.validation)) == (by_drive[1], 16, 4)


PARAMETERS = {"DATASET": "folder", "EPOCHS": 2, "IMAGE_SIZE": (64, 64), "SEED": 5}
WHOLE_CELLS = ("bootstrap", "parameters", "recipe", "look", "mask", "check")
WHOLE_CELLS += ("recipe-batches", "recipe-network", "train", "scores")


def run_notebook_cells(**parameters) -> dict:
    """Part 3's cells with all that they need of those before: imports."""
    cells = json.loads((ROOT / "segmentation_unet.ipynb").read_text(encoding="utf-8"))["cells"]
    names = {}
    for name, source in {c["id"]: "".join(c["source"]) for c in cells if c["cell_type"] == "code"}.items():
        exec(source if name in WHOLE_CELLS else _imports(source), names)
        if name == "parameters":
            names |= parameters
        if name == "train":
            names |= {"network": None, "score": lambda *_: SimpleNamespace(miou=0, accuracy=0)}  # part 1's
        if name == "scores":
            return names
    raise AssertionError("the notebook has no cell 'scores'")


def _imports(source: str) -> str:
    return "\n".join(ast.unparse(n) for n in ast.parse(source).body if isinstance(n, (ast.Import, ast.ImportFrom)))


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The data, the names that the notebook's cells leave behind, and the folder of its run.

    All networks have one level: TensorFlow would take most of the time to prepare the others.
    """
    root, small = tmp_path_factory.mktemp("trained"), partial(unet_model, depth=1)
    data, start = make_folder(root / "data set"), str(save_start(root / "start.keras", depth=1))
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("unet_helpers.model.unet_model", small)  # the notebook's
        patch.setattr(command_train, "unet_model", small)
        names = run_notebook_cells(**PARAMETERS, DATA_DIR=str(data), RUN_DIR=str(root / "notebook"), START_FROM=start)
        yield SimpleNamespace(data=data, names=names, run_dir=names["run_dir"], start=start)


def train(trained, runs_dir) -> int:
    options = ["--epochs", "2", "--image-size", "64x64", "--seed", "5", "--runs", str(runs_dir)]
    return main(["train", str(trained.data), *options, "--start-from", trained.start])


def assert_same_run(one: Path, other: Path):
    assert one.name == other.name
    assert (one / "settings.json").read_text() == (other / "settings.json").read_text()
    logs = [np.genfromtxt(path / "log.csv", delimiter=",", names=True) for path in (one, other)]
    assert logs[0].dtype.names == logs[1].dtype.names
    assert len(logs[0]) == 2
    for name in logs[0].dtype.names:
        np.testing.assert_allclose(logs[0][name], logs[1][name], rtol=1e-4)
    weights = [keras.models.load_model(path / "best.keras").get_weights() for path in (one, other)]
    for a, b in zip(*weights, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-5)


def test_training_is_that_of_the_notebook_also_when_it_was_interrupted(capsys, trained, tmp_path, monkeypatch):
    """The same data and parameters: the same folder, settings, log and weights; and nothing is trained twice."""

    class Interrupting(command_train.EpochLine):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 0:
                raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(command_train, "EpochLine", Interrupting)
        assert train(trained, tmp_path / "runs") == 130
    (run_dir,) = (tmp_path / "runs").iterdir()
    saved = f"unet_helpers: interrupted: 1 epoch saved in {run_dir}; run the command again to resume\n"
    assert capsys.readouterr().err == saved
    assert train(trained, tmp_path / "runs") == 0
    shown, errors = capsys.readouterr()
    assert errors == ""
    assert len(re.findall(r"^epoch \d/2 64x64: ", shown, re.MULTILINE)) == 1
    assert str(run_dir / "best.keras") in shown.splitlines()[-1]
    assert_same_run(run_dir, trained.run_dir)
    assert list((tmp_path / "runs").iterdir()) == [run_dir]
    assert train(trained, trained.run_dir.parent) == 0
    assert "trained before" in capsys.readouterr().out
    assert [path.name for path in trained.run_dir.parent.iterdir()] == [trained.run_dir.name]


def test_a_better_size_is_said_for_upright_and_for_small_images(capsys, tmp_path):
    """Before the training: a size is suggested where it shows the images larger, or as large in less time."""
    for sizes, asked, said in (
        ([(640, 400)], (64, 96), "fill 42% .* --image-size 128x64"),
        ([(400, 600), (400, 600), (900, 150)], (64, 96), None),  # 64x96 is the size of most of them
        ([(400, 800)], (192, 256), None),  # 128x320 has their proportions, too, and shows them just as large
        ([(240, 320)], (384, 512), "fill 39% .* --image-size 256x320"),
        ([(360, 480)], (384, 512), None),
    ):
        for number in range(9):
            Image.new("RGB", sizes[number % len(sizes)][::-1]).save(tmp_path / f"p{number}.png")
        pairs = [Pair(path, None) for path in sorted(tmp_path.iterdir())]
        with naming.options_named(OPTIONS):
            note_better_size(pairs, SimpleNamespace(image_size=asked))
        assert re.search(f"^note: images .*{said}" if said else "^$", capsys.readouterr().out)


def test_train_starts_from_a_runs_folder_and_freezes_its_encoder(capsys, folder, tmp_path, monkeypatch):
    """Up to where it compiles: the training itself is tested elsewhere. It notes a better size before."""
    (tmp_path / "my run").mkdir()
    start = keras.models.load_model(save_start(tmp_path / "my run" / "best.keras", depth=1))
    monkeypatch.setattr(command_train, "unet_model", partial(unet_model, depth=1))
    compiled = Mock(side_effect=ValueError("here it would train"))
    monkeypatch.setattr(command_train, "compile_unet", compiled)
    options = ["--start-from", tmp_path / "my run", "--image-size", "128x192", "--runs", tmp_path / "runs"]
    code, shown, errors = run(capsys, "train", folder, *options, "--freeze-encoder")
    assert (code, errors) == (1, "unet_helpers: here it would train\n")
    assert re.search("^note: images .* --image-size 64x128", shown, re.MULTILINE)
    model = compiled.call_args.args[0]
    for mine, other in zip(model.get_weights()[:-2], start.get_weights()[:-2], strict=True):  # but the last layer's
        np.testing.assert_array_equal(mine, other)
    kept = encoder(model)
    assert [layer.trainable for layer in model.layers] == [layer not in kept for layer in model.layers]


def test_a_training_that_could_save_nothing_is_no_success(capsys, folder, tmp_path, monkeypatch):
    """A full disk, which the training itself only mentions."""
    monkeypatch.setattr(command_train, "_fit", lambda *_: tmp_path / "run")
    errors = fails(capsys, "train", folder, "--runs", tmp_path / "runs")
    assert errors.startswith(f"unet_helpers: {tmp_path / 'run'}: no network could be saved; make room")


def test_scores_are_those_of_the_notebook(capsys, trained):
    shown = succeeds(capsys, "evaluate", trained.run_dir, trained.data)
    scores, baseline = trained.names["scores"], trained.names["rows"]["baseline"]
    assert shown.endswith(f"\n{scores.table()}\n")
    rows = {"the network": scores, "without TTA": scores.without_tta, r"baseline \(always .*\)": baseline}
    for title, row in rows.items():
        assert re.search(rf"^{title} +mIoU {row.miou:.3f}   accuracy {row.accuracy:.3f}$", shown, re.MULTILINE)
    assert "folder, test: 4 images" in shown


def test_evaluate_and_predict_agree_at_each_masks_own_size(capsys, tmp_path, network):
    folder, out = make_folder(tmp_path / "data"), tmp_path / "out"
    write_pair_to(folder, "p21", (40, 60), seed=99)  # in test, with three of 64x96
    stems = [f"p{n}" for n in (20, 21, 22, 23)]
    succeeds(capsys, "predict", network, *(folder / "images" / f"{stem}.png" for stem in stems), "--out", out)
    true = [np.asarray(Image.open(folder / "masks" / f"{stem}.png")) for stem in stems]
    predicted = [np.asarray(Image.open(out / f"{stem}_ids.png")) for stem in stems]
    parts = [confusion_matrices(t[None], p[None], 3) for t, p in zip(true, predicted, strict=True)]
    scores = Scores(LABELS, np.concatenate(parts))
    assert 0.7 < scores.miou < 1
    shown = succeeds(capsys, "evaluate", network, folder)
    assert f"mIoU {scores.miou:.3f}   accuracy {scores.accuracy:.3f}" in shown


def iou_of(true, predicted, k) -> float:
    both, either = ((true == k) & (predicted == k)).sum(), ((true == k) | (predicted == k)).sum()
    return both / either


def test_scores_are_written_as_json_of_all_pairs_of_each_class_and_image(capsys, tmp_path, network):
    folder, out, file = make_folder(tmp_path / "data", 6), tmp_path / "out", tmp_path / "scores.json"
    succeeds(capsys, "predict", network, folder / "images", "--out", out)
    shown = succeeds(capsys, "evaluate", network, folder, "--split", "all", "--json", file)
    assert "folder, all: 6 images" in shown
    found = json.loads(file.read_text())
    files = sorted((folder / "masks").iterdir()), sorted(out.glob("*_ids.png"))
    true, predicted = (np.stack([np.asarray(Image.open(path)) for path in part]) for part in files)
    assert found["accuracy"] == pytest.approx((true == predicted).mean())
    expected = [iou_of(true, predicted, k) for k in range(3)]
    assert [row["iou"] for row in found["classes"]] == pytest.approx(expected)
    assert [row["name"] for row in found["classes"]] == list(LABELS.names)
    assert [row["share"] for row in found["classes"]] == pytest.approx([(true == k).mean() for k in range(3)])
    assert found["miou"] == pytest.approx(np.mean(expected))
    each = {Path(row["image"]).stem: row["miou"] for row in found["images"]}
    assert each == pytest.approx(
        {f"p0{n}": np.mean([iou_of(true[n], predicted[n], k) for k in range(3)]) for n in range(6)}
    )
    code, _, errors = run(capsys, "evaluate", network, folder, "--json", file)
    assert (code, "--json: " in errors, "there already" in errors) == (2, True, True)


def test_a_folder_with_a_test_part_alone_is_scored_and_unnamed_classes_match_by_their_ids(capsys, tmp_path, network):
    folder = make_folder(tmp_path / "data" / "test", 5)
    (folder / "classes.txt").unlink()
    shown = succeeds(capsys, "evaluate", network, tmp_path / "data")
    assert "folder, test: 5 images" in shown
    assert re.search(r"^car +\d", shown, re.MULTILINE)
    (tmp_path / "data" / "classes.txt").write_text("sky\nroad\nbus\n")
    assert "its classes are sky, road, car, but" in fails(capsys, "evaluate", network, tmp_path / "data")
    assert "no pair is for train" in fails(capsys, "train", tmp_path / "data", "--runs", tmp_path / "runs")
    two = make_folder(tmp_path / "two", 2)  # too few to train, and enough to score
    assert "folder, all: 2 images" in succeeds(capsys, "evaluate", network, two, "--split", "all")


def test_info_says_what_a_network_is(capsys, trained, tmp_path):
    shown = succeeds(capsys, "info", trained.run_dir)
    best = json.loads((trained.run_dir / "best.json").read_text())
    for said in (
        "best.keras", "0 sky, 1 road, 2 car", "64x64", "logits of 32x32", "folder, 17 training images", "start.keras",
        f"validation mIoU {best['val_mIoU']:.3f} in epoch {best['epoch']}",
    ):  # fmt: skip
        assert said in shown, said
    moved = tmp_path / "moved.keras"  # the file alone knows it
    moved.write_bytes((trained.run_dir / "best.keras").read_bytes())
    assert succeeds(capsys, "info", moved).splitlines()[1:] == shown.splitlines()[1:]
    alone = tmp_path / "alone.keras"
    keras.models.load_model(moved).save(alone)
    assert "not in the file" in succeeds(capsys, "info", alone)
    included = succeeds(capsys, "info", "demo")
    for said in ("drawn_scenes.keras", "12 traffic sign", "192x256", "demo, 380 training images", "mIoU 0.673"):
        assert said in included, said


def test_a_runs_folder_holds_figures_of_it(trained, capsys, tmp_path):
    """Those that the command writes; what they show is tested with `plots`."""
    assert train(trained, tmp_path / "runs") == 0
    (run_dir,) = (path for path in (tmp_path / "runs").iterdir() if path.is_dir())
    names = ["best_and_worst.png", "confusion.png", "curves.png", "first_batch.png"]
    assert sorted(path.name for path in run_dir.glob("*.png")) == names
    assert all(np.ptp(np.asarray(Image.open(run_dir / name))) == 255 for name in names)
    assert "figures: curves.png, confusion.png, first_batch.png, best_and_worst.png" in capsys.readouterr().out
    (run_dir / "curves.png").unlink()
    assert train(trained, tmp_path / "runs") == 0  # a finished run is loaded, and its figures stay
    assert not (run_dir / "curves.png").exists()


def test_the_cameras_own_car_and_bad_files_are_left_out_of_the_scores(capsys, tmp_path):
    """Its pixels are sky to this network, so that without them nothing is wrong."""
    values = np.zeros((32, 48), np.uint8)
    values[24:] = 10

    def write(name):
        (pair,) = make_lyft(tmp_path / "data", name)
        Image.new("RGB", (48, 32), (90, 130, 220)).save(pair.image)
        Image.fromarray(values).save(pair.mask)
        return pair.mask

    bad, _, _, tested, other = map(write, ("F4-1", "F4-2", "F2-1", "F1-1", "F1-2"))  # F4 trains
    evaluate = ("evaluate", save_network(tmp_path / "carla", CARLA), tmp_path / "data", "--dataset", "lyft")
    shown = succeeds(capsys, *evaluate)
    assert re.search(r"^the network +mIoU 1\.000   accuracy 1\.000$", shown, re.MULTILINE)
    bad.write_bytes(b"no mask")
    other.write_bytes(b"no mask")
    code, shown, errors = run(capsys, *evaluate)
    assert (code, "test: 1 image," in shown) == (1, True)
    assert f"{other}: " in errors
    tested.write_bytes(b"no mask")
    assert "the test split has no pair that can be scored; try another --split" in fails(capsys, *evaluate)


def test_networks_that_can_not_be_scored_are_said(capsys, folder, tmp_path, network):
    alone = tmp_path / "alone.keras"
    keras.models.load_model(network).save(alone)  # as another program saves it, without labels and size
    cases = {
        tmp_path / "none": "there is no such file",
        save_network(tmp_path / "four", make_labels(("a", "b", "c", "d"))): "its classes are a, b, c, d, but",
        save_network(tmp_path / "turned", replace(LABELS, names=LABELS.names[::-1])): "its classes are car, road, sky,",
        alone: "give what is missing: --classes FILE, --image-size HxW",
    }
    for path, said in cases.items():
        errors = fails(capsys, "evaluate", path, folder, n_messages=1)
        assert str(path) in errors
        assert said in errors
    given = ("--image-size", "16x24", "--classes", folder / "classes.txt")
    succeeds(capsys, "evaluate", alone, folder, *given)


BASE = {"tensorflow", "keras", "h5py", "numpy", "matplotlib", "pillow"}  # what the package itself needs
WITHOUT = """
import sys
for name in ("kaggle", "tensorboard", "nbformat", "jax", "onnx"):
    sys.modules[name] = None  # as if it were not installed
from unet_helpers.__main__ import main
assert [main(words.split("|")) for words in sys.argv[1:]] == [0, 0, 0]
"""


def test_commands_need_neither_jupyter_nor_kaggle_nor_tensorboard(folder, tmp_path):
    options = ("--epochs", 1, "--image-size", "64x64", "--start-from", save_start(tmp_path / "start.keras"))
    commands = (
        ("check", folder, "--show", tmp_path / "look"), ("train", folder, "--runs", tmp_path / "runs", *options),
        ("predict", "demo", folder / "images" / "p01.png", "--out", tmp_path / "out"),
    )  # fmt: skip
    command = [sys.executable, "-c", WITHOUT, *("|".join(map(str, words)) for words in commands)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr


def test_each_package_that_is_imported_is_in_the_requirements():
    """Also if another package installs it today."""
    imported = set()
    for path in (ROOT / "unet_helpers").rglob("*.py"):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, (ast.Import, ast.ImportFrom)) and not getattr(node, "level", 0):
                names = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module]
                imported |= {name.split(".")[0] for name in names}
    required = set(re.findall(r"^[\w-]+", (ROOT / "requirements.txt").read_text(), re.MULTILINE))
    foreign = imported - sys.stdlib_module_names - {"onnx", "jax", "google"}  # named where missing; Colab's own
    packages = importlib.metadata.packages_distributions()
    assert {"keras", "h5py", "requests", "PIL"} <= foreign
    assert not {name for name in foreign if not {package.lower() for package in packages[name]} & required}


def test_the_installed_package_is_whole_and_runs_anywhere(tmp_path):
    """Without the network: the wheel is made by this environment's setuptools, from a copy."""
    source = tmp_path / "source"
    source.mkdir()
    for name in ("pyproject.toml", "requirements.txt", "README.md", "LICENSE", "unet_helpers", "benchmarks", "tests"):
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
    needed = re.findall(r"^Requires-Dist: (\S+)$", metadata, re.MULTILINE)  # without the extras
    listed = set((ROOT / "requirements.txt").read_text().split())
    assert set(needed) <= listed
    assert {re.match(r"\w+", package)[0] for package in needed} == BASE
    extras = re.findall(r"^Requires-Dist: (\S+); extra == \"(?:notebook|kaggle)\"$", metadata, re.MULTILINE)
    assert set(needed) | set(extras) == listed
    environment = {"PYTHONPATH": str(tmp_path / "installed"), "PATH": "", "TF_CPP_MIN_LOG_LEVEL": "3"}
    for words, said in ((("check", "--help"), "usage: python -m unet_helpers check"), (("info", "demo"), "network ")):
        program = [sys.executable, "-m", "unet_helpers", *words]
        done = subprocess.run(program, cwd=tmp_path, env=environment, capture_output=True, text=True, check=True)
        assert done.stdout.startswith(said)
