"""What differs on Windows, simulated by `windows`: paths, open files, locks, names, line ends, spawn, code pages."""

import os
import re
import shutil
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pytest
import windows
from builders import make_folder, save_network, save_start, succeeds
from kaggle_server import files_below, make_zip
from limits import start
from nbformat.v4 import new_code_cell, new_notebook, writes
from PIL import Image
from test_archives import camvid_files

from unet_helpers import custom_data, storage
from unet_helpers.datasets import load_dataset
from unet_helpers.download import MARKER, download_dataset
from unet_helpers.drawing import DRIVES, draw_scenes, scenes
from unet_helpers.labels import LabelMap
from unet_helpers.recipe import make_recipe

ROOT = Path(__file__).parents[1]
NAMES = ("Straße", "🚗 taxi", "木")  # cp1252, the code page of Western Europe, has the first
linux = pytest.mark.skipif(sys.platform != "linux", reason="the simulation reads /proc and locks regions as Linux does")


@pytest.fixture
def on_windows(monkeypatch):
    windows.install(monkeypatch.setattr)
    monkeypatch.setattr(storage, "fcntl", None)
    monkeypatch.setattr(storage, "msvcrt", windows.msvcrt, raising=False)


# ---- paths, and files that are open ----


def test_a_data_set_may_be_a_whole_drive(tmp_path):
    """Such as E:\\, a disk with images/ and masks/; it has no name, as / has none."""
    inside, elsewhere = custom_data.places_for(Path("/"), tmp_path)
    assert inside.is_relative_to("/")  # so that it is not used
    assert elsewhere.parent == tmp_path


def test_a_drive_that_is_not_there_is_a_sentence(tmp_path, monkeypatch):
    """Not even the last of the folders above exists, unlike /."""
    monkeypatch.setattr(os.path, "lexists", lambda path: False)
    asked = {"DATASET": "folder", "DATA_DIR": str(tmp_path), "RUN_DIR": "/no_drive/runs", "MINUTES": 4, "SEED": 0}
    with pytest.raises(ValueError, match=r"^RUN_DIR: nothing can be written in '/no_drive/runs' \(No such file"):
        make_recipe("CPU", **asked, IMAGE_SIZE=None, ARCHIVE=None, TRAIN_ANEW=False)


def test_lists_with_backslashes_and_crlf_split_as_they_do_on_windows(tmp_path):
    root = make_folder(tmp_path / "data", 8)
    for name, numbers in {"train": range(6), "val": (6, 7)}.items():
        lines = [rf".\images\p{n:02}.png masks\p{n:02}.png" for n in numbers]
        (root / f"{name}.txt").write_text("\r\n".join([*lines, ""]), encoding="utf-8-sig", newline="")
    data = load_dataset("folder", root)
    splits = ([pair.image.stem for pair in split] for split in (data.train, data.validation, data.test))
    assert [*splits] == [["p00", "p01", "p02", "p03", "p04", "p05"], ["p06", "p07"], []]


@linux
def test_nothing_is_replaced_or_deleted_while_it_is_open(on_windows, tmp_path, capsys):
    """All that writes files: each file that it replaces or deletes has been closed before, and nothing is left over."""
    root, runs, state = make_folder(tmp_path / "data", 8), tmp_path / "runs", None
    for mask in (root / "masks").iterdir():  # which are converted
        Image.open(mask).save(mask.with_suffix(".gif"))
        mask.unlink()
    begin = save_start(tmp_path / "start.keras")
    training = ["train", root, "--runs", runs, "--epochs", 1, "--image-size", "64x96", "--start-from", begin]
    succeeds(capsys, *training)
    (state,) = runs.glob("*/state.npz")
    state.write_bytes(damaged := state.read_bytes()[:-100])
    assert "the training begins anew" in succeeds(capsys, *training)
    assert state.with_name("earlier_state.npz").read_bytes() == damaged
    assert "trained before" in succeeds(capsys, *training)
    Image.fromarray(np.zeros((64, 96), np.uint8)).save(root / "masks" / "p00.gif")
    assert "converting 8 files" in succeeds(capsys, "train", *training[1:])
    network, out = state.with_name("best.keras"), tmp_path / "out"
    for _ in range(2):
        succeeds(capsys, "predict", network, root / "images", root / "masks" / "p01.gif", "--out", out, "--overwrite")
    succeeds(capsys, "evaluate", network, root, "--json", tmp_path / "scores.json")
    for name, kind in {"n": "tf_saved_model", "n.tflite": "litert", "half.keras": "keras_half"}.items():
        succeeds(capsys, "export", network, "--format", kind, "--out", tmp_path / name)
    draw_scenes(tmp_path / "demo", drives=("F1", "F2"), n_frames=1, size=(48, 64), processes=2)
    (tmp_path / "archive.zip").write_bytes(make_zip(camvid_files("CamVid/")))
    for _ in range(2):
        load_dataset("camvid", tmp_path, archive=tmp_path / "archive.zip")
    made = [path.relative_to(tmp_path) for path in tmp_path.rglob("*")]
    assert not [path for path in made if "partial" in path.name or path.suffix == ".lock"]
    assert [path for path in made if not windows.is_valid(path.name)] == []
    ours = [path for path in made if path.parts[0] not in ("data", "n") and (tmp_path / path).is_file()]
    texts = [path for path in ours if path.suffix in (".json", ".csv", ".txt", "")]
    assert {path.name for path in texts} >= {"prepared.json", "settings.json", "log.csv", "classes.txt", MARKER}
    assert [path for path in texts if b"\r" in (tmp_path / path).read_bytes()] == []  # the same bytes as elsewhere
    partial = len(f".{'0' * 16}.partial.keras")  # is longer than the names of the files in a run's folder
    assert max(len(str(path.parent)) + max(len(path.name), partial) for path in made) < windows.MAX_PATH - windows.HOME


@linux
def test_a_file_that_a_virus_scanner_has_open_is_waited_for(on_windows, tmp_path):
    storage.write_whole(tmp_path / "a", b"old")
    scanned = open(tmp_path / "a", "rb")  # noqa: SIM115
    with pytest.raises(PermissionError):
        os.replace(tmp_path / "a", tmp_path / "b")  # Windows itself does not wait
    threading.Timer(0.4, scanned.close).start()
    storage.write_whole(tmp_path / "a", b"new")
    with storage.write_folder(tmp_path / "set") as partial:
        (partial / "image").touch()
        scanned = open(partial / "image", "rb")  # noqa: SIM115
        threading.Timer(0.4, scanned.close).start()
    assert {name: len(content) for name, content in files_below(tmp_path).items()} == {"a": 3, "set/image": 0}
    assert (tmp_path / "a").read_bytes() == b"new"


@linux
def test_a_download_waits_for_the_virus_scanner_too(on_windows, tmp_path):
    """It may hold any of thousands of new files when their folder gets its name."""
    (tmp_path / "archive.zip").write_bytes(make_zip({"a/1.png": b"image"}))

    def has_layout(folder):  # is asked last before that
        if (folder / "a" / "1.png").is_file() and folder.name == "tree":
            scanned = open(folder / "a" / "1.png", "rb")  # noqa: SIM115
            threading.Timer(0.4, scanned.close).start()
        return (folder / "a").is_dir()

    found = download_dataset(tmp_path / "set", "a/set", archive=tmp_path / "archive.zip", has_layout=has_layout)
    assert (found / "a" / "1.png").read_bytes() == b"image"


# ---- locks ----


@linux
def test_msvcrts_locks_let_one_process_in_at_a_time_and_leave_no_file(tmp_path):
    """Each adds 1 to a number in a file, which loses some if two are inside; then one is killed while it is inside."""
    folder, number = tmp_path / "set", tmp_path / "number"
    code = (
        "import sys\nsys.path.insert(0, 'tests')\nimport windows\nwindows.install_before_imports()\n"
        "import pathlib, time\nfrom unet_helpers.storage import fcntl, hold_lock, write_whole\nassert fcntl is None\n"
        f"folder, number = pathlib.Path({str(folder)!r}), pathlib.Path({str(number)!r})\n"
    )
    loop = (
        "print('ready', flush=True)\nwhile not number.exists(): time.sleep(.01)\n"
        "for _ in range(20):\n    with hold_lock(folder, lambda: None) as held:\n        assert held\n"
        "        n = int(number.read_text())\n        time.sleep(.001)\n        number.write_text(str(n + 1))\n"
    )
    children = [start(code + loop) for _ in range(3)]
    assert [child.stdout.readline() for child in children] == ["ready\n"] * 3
    storage.write_whole(number, b"0")
    assert [child.communicate(timeout=120)[1] for child in children] == [""] * 3
    assert number.read_text() == "60"
    assert [path.name for path in tmp_path.iterdir()] == ["number"]
    inside = start(f"{code}with hold_lock(folder) as held:\n    print(held, flush=True)\n    time.sleep(60)")
    assert inside.stdout.readline() == "True\n"
    ask = f"{code}with hold_lock(folder) as held:\n    print(held)"
    assert start(ask).communicate(timeout=60) == ("False\n", "")
    inside.kill()
    inside.communicate(timeout=60)
    assert start(ask).communicate(timeout=60) == ("True\n", "")
    assert [path.name for path in tmp_path.iterdir()] == ["number"]


# ---- names, line ends ----


def project_files() -> list[Path]:
    folders = ("unet_helpers", "tests", "benchmarks", "docs", ".github", ".ci")
    there = [*ROOT.glob("*"), *(path for name in folders for path in (ROOT / name).rglob("*"))]
    return [path.relative_to(ROOT) for path in there if path.is_file() and "__pycache__" not in path.parts]


def test_windows_can_hold_the_project():
    assert [name for name in ("NUL", "aux.tar.gz", "com1.txt", "a:b", "a ", "a.", "a?") if windows.is_valid(name)] == []
    assert all(map(windows.is_valid, ("nul_ids.png", "console", "COM10", ".a", "a.b")))
    files = project_files()
    assert [path for path in files if not all(map(windows.is_valid, path.parts))] == []
    assert len({str(path).casefold() for path in files}) == len(files)
    assert max(len(str(path)) for path in files) < windows.MAX_PATH - windows.HOME


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_checkout_has_the_same_bytes_as_here(tmp_path):
    """Git for Windows turns the ends of lines into CR LF unless the project says otherwise: `bash .ci/run` would fail,
    and a notebook that is executed there would differ in each line."""
    def git(*arguments):
        subprocess.run(["git", *arguments], check=True, capture_output=True, cwd=tmp_path)

    texts = {".gitattributes", "Makefile", "run_notebook.py", ".ci/run", "docs/mistakes.ipynb", "requirements.txt"}
    for name in texts:
        (tmp_path / "origin" / name).parent.mkdir(parents=True, exist_ok=True)
        shutil.copy(ROOT / name, tmp_path / "origin" / name)
    git("init", "--quiet", "origin")
    git("-C", "origin", "add", ".")
    git("-C", "origin", "-c", "user.name=a", "-c", "user.email=a@b", "commit", "--quiet", "-m", "all")
    git("clone", "--quiet", "-c", "core.autocrlf=true", "origin", "clone")
    for name in texts:
        assert (tmp_path / "clone" / name).read_bytes() == (ROOT / name).read_bytes(), name


def test_no_text_of_the_package_is_read_in_the_encoding_of_the_system():
    code = "import unet_helpers.commands.export, unet_helpers.drawing.street"
    command = [sys.executable, "-X", "warn_default_encoding", "-W", "always::EncodingWarning", "-c", code]
    said = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True).stderr
    assert [line for line in said.splitlines() if re.search(r"\bunet_helpers\b.*EncodingWarning", line)] == []


# ---- spawn; a script without a guard: test_drawing.py ----


def test_a_machine_of_many_cores_draws_with_as_many_workers_as_windows_can_wait_for(tmp_path, monkeypatch):
    """Python's documentation of ProcessPoolExecutor: "On Windows, max_workers must be less than or equal to 61"."""
    class Pool(ThreadPoolExecutor):
        def __init__(self, max_workers, *_):
            if max_workers > 61:
                raise ValueError("max_workers must be <= 61")
            super().__init__(2)

    black = np.zeros((8, 8, 3), np.uint8), np.zeros((8, 8), np.uint8)
    monkeypatch.setattr(scenes, "render_frame", lambda *_, **__: black)
    monkeypatch.setattr(scenes, "ProcessPoolExecutor", Pool)
    monkeypatch.setattr(os, "cpu_count", lambda: 128)
    draw_scenes(tmp_path / "demo", n_frames=20)
    assert len(files_below(tmp_path)) == len(DRIVES) * 20 * 2


# ---- code pages ----


def test_a_code_page_that_lacks_a_letter_ends_no_command(tmp_path):
    root = make_folder(tmp_path / "🚗 data", stem="木{:02}")
    (root / "classes.txt").write_text("\n".join(NAMES), encoding="utf-8")
    network = save_network(tmp_path / "run", LabelMap(NAMES, ((0, 0, 255), (128, 64, 128), (255, 0, 0))))
    calls = (
        ["check", str(root)], ["info", str(network)], ["evaluate", str(network), str(root)],
        ["predict", str(network), str(root / "images"), "--out", str(tmp_path / "木")],
    )  # fmt: skip
    code = f"from unet_helpers.__main__ import main\nfor words in {ascii(calls)}: print(main(words))"
    child = subprocess.run(
        [sys.executable, "-c", code], cwd=ROOT, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True
    )
    said = child.stdout.decode("cp1252")
    assert child.returncode == 0, child.stderr
    assert [line for line in said.splitlines() if line.isdecimal()] == ["0"] * len(calls)
    assert "Straße" in said
    assert r"\U0001f697 taxi" in said


def test_a_reader_that_ends_early_is_no_traceback(tmp_path):
    """What is written to a pipe that nobody reads has EINVAL there: see `Popen._stdin_write` in Python's subprocess."""
    code = f"""
import errno, io, sys
from unet_helpers.__main__ import main
class Pipe(io.FileIO):
    def write(self, text):
        try:
            return super().write(text)
        except BrokenPipeError:
            sys.platform = "win32"
            raise OSError(errno.EINVAL, "Invalid argument") from None
sys.stdout = io.TextIOWrapper(io.BufferedWriter(Pipe(1, "w")))
sys.exit(main(["check", {str(make_folder(tmp_path / "data", 8))!r}]))
"""
    child = start(code)
    child.stdout.close()
    assert (child.stderr.read(), child.wait(timeout=120)) == ("", 1)


def test_a_code_page_that_lacks_a_letter_ends_no_run_of_a_notebook(tmp_path):
    shutil.copy(ROOT / "run_notebook.py", tmp_path)
    cell = new_code_cell(f"print({' '.join(NAMES)!r})", metadata={"tags": ["scores"]})
    (tmp_path / "木.ipynb").write_text(writes(new_notebook(cells=[cell])), encoding="utf-8")
    command = [sys.executable, "run_notebook.py", "木.ipynb"]
    child = subprocess.run(
        command, cwd=tmp_path, env=os.environ | {"PYTHONIOENCODING": "cp1252"}, capture_output=True
    )
    assert child.returncode == 0, child.stderr
    assert child.stdout.decode("cp1252").count(r"Straße \U0001f697 taxi \u6728") == 2  # when printed, and at the end
