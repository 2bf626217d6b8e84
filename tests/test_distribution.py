"""Several devices and several processes, by JAX: virtual devices of a CPU, and real processes on 127.0.0.1."""

import atexit
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
from conftest import write_pair_to

from benchmarks import scaling
from unet_helpers.devices import Share
from unet_helpers.pipeline import share_of_batches
from unet_helpers.recipe import make_recipe

ROOT = Path(__file__).parents[1]
JAX = {"KERAS_BACKEND": "jax"}
needs_processes = pytest.mark.skipif(sys.platform == "win32", reason="several processes are tried on Linux and macOS")
CACHE = Path(tempfile.mkdtemp(prefix="unet_jax_"))  # of what JAX has compiled: many of these processes compile the same
atexit.register(shutil.rmtree, CACHE, ignore_errors=True)


def clean_environment(**changes: str) -> dict[str, str]:
    ours = ("KERAS_", "JAX_", "XLA_", "SLURM_", "OMPI_")
    kept = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
    cache = {"JAX_COMPILATION_CACHE_DIR": str(CACHE), "JAX_PERSISTENT_CACHE_MIN_COMPILE_TIME_SECS": "0"}
    return kept | cache | {"TF_CPP_MIN_LOG_LEVEL": "3", "MPLBACKEND": "agg"} | changes


def free_port() -> int:
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        return listener.getsockname()[1]


def start(command: list[str], environments: list[dict], folder: Path) -> list[subprocess.Popen]:
    """A process for each environment, together one run if there are several; each with a temporary folder of its own.

    What number N prints is in folder/N.out and N.err.
    """
    together = {"KERAS_DISTRIBUTION_NUM_PROCESSES": str(len(environments))}
    together |= {"KERAS_DISTRIBUTION_JOB_ADDRESSES": f"127.0.0.1:{free_port()}"}
    started = []
    for number, environment in enumerate(environments):
        temporary = folder / f"tmp{number}"
        temporary.mkdir(parents=True, exist_ok=True)
        own = environment | {"TMPDIR": str(temporary)}
        if len(environments) > 1:
            own |= together | {"KERAS_DISTRIBUTION_PROCESS_ID": str(number)}
        with open(folder / f"{number}.out", "w") as out, open(folder / f"{number}.err", "w") as err:
            started.append(subprocess.Popen(command, cwd=ROOT, env=clean_environment(**own), stdout=out, stderr=err))
    return started


def read_last(path: Path) -> str:
    lines = path.read_text().splitlines()
    return lines[-1] if lines else ""


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """Sixteen pairs; in half of them, most of the mask is void, so that it is unevenly spread over the devices."""
    folder = tmp_path_factory.mktemp("pairs")
    rng = np.random.default_rng(0)
    for n in range(16):
        values = np.zeros((64, 96), np.uint8)
        values[32:] = 1
        row, column = rng.integers(2, 40, 2)
        values[row : row + 16, column : column + 24] = 2
        if n % 2:
            values[: 10 + 3 * n] = 255
        write_pair_to(folder, f"{n:02}", values=values, seed=n)
    (folder / "classes.txt").write_text("sky\nroad\ncar\n")
    return folder


# ---- which part of a batch a process loads ----


def test_each_batch_is_divided_into_equal_parts_for_any_number_of_images():
    for n in range(1, 41):
        for batch_size in range(1, 9):
            for n_devices in (1, 2, 4, 8):
                for n_processes in (p for p in (1, 2, 4, 8) if n_devices % p == 0):
                    parts = [Share(p, n_processes, n_devices) for p in range(n_processes)]
                    shares = [share_of_batches(np.arange(n), batch_size, part) for part in parts]
                    assert len({len(share) for share in shares}) == 1
                    largest = -(-batch_size // n_devices) * n_devices // n_processes
                    for start in range(-(-n // batch_size)):  # the batch of one device, in its order
                        whole = np.concatenate([share[start * largest :][:largest] for share in shares])
                        expected = np.arange(n)[start * batch_size :][:batch_size]
                        np.testing.assert_array_equal(whole[whole >= 0], expected)
                        assert len(whole) == -(-len(expected) // n_devices) * n_devices
                        assert np.isin(~whole[whole < 0], expected).all()  # what fills it up is void


def test_a_batch_size_that_the_devices_do_not_divide_is_refused_with_the_nearest_that_work(tmp_path):
    given = {"DATASET": "demo", "DATA_DIR": str(tmp_path), "MINUTES": 1, "IMAGE_SIZE": None, "SEED": 0}
    given |= {"RUN_DIR": str(tmp_path)}
    with pytest.raises(ValueError, match=r"BATCH_SIZE: found 8, .*multiple of 3.*BATCH_SIZE = 6 or BATCH_SIZE = 9$"):
        make_recipe("CPU", 3, **given, BATCH_SIZE=8)
    with pytest.raises(ValueError, match=r"found 1, .*try BATCH_SIZE = 4$"):
        make_recipe("CPU", 4, **given, BATCH_SIZE=1)
    assert make_recipe("CPU", 3, **given, BATCH_SIZE=9).batch_size == 9
    assert make_recipe("CPU", 3, **given).batch_size == 9  # the default follows the devices
    assert make_recipe("CPU", 1, **given).batch_size == 8


# ---- the same training on one device, on several, in several processes ----


@pytest.fixture(scope="module")
def trainings(folder, tmp_path_factory):
    """{name: (records of the processes, weights)} of three epochs of one step, from the same weights."""
    made = tmp_path_factory.mktemp("trainings")
    pairs = [[str(image), str(folder / "masks" / image.name)] for image in sorted((folder / "images").iterdir())]
    options = {
        "pairs": pairs[:15], "void": [3, 255], "n_classes": 3, "n_train": 10, "epochs": 3, "image_size": [64, 96],
        "n_filters": 4, "depth": 2, "weights": str(made / "start.npz"),
    }  # fmt: skip
    environments = {
        "JAX": [JAX],
        "TensorFlow": [{"KERAS_BACKEND": "tensorflow"}],
        "four devices": [JAX | {"JAX_NUM_CPU_DEVICES": "4"}],
        "two processes": [JAX, JAX],
    }
    with mock.patch.dict(os.environ, clean_environment(), clear=True):
        return {name: scaling.run(each, made / name, options) for name, each in environments.items()}


@needs_processes
def test_jax_trains_as_tensorflow_does_and_several_devices_and_processes_as_one(trainings):
    """From copied weights; the first loss is that before any step, the last that after two."""
    (reference,), weights = trainings["JAX"]
    for name, (records, others) in trainings.items():
        for record in records:
            for score in ("loss", "mIoU", "val_loss", "val_mIoU"):
                np.testing.assert_allclose(record[score], reference[score], rtol=1e-3, err_msg=f"{name}: {score}")
        for a, b in zip(weights, others, strict=True):
            np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-3, err_msg=name)
    assert reference["loss"][2] < 0.99 * reference["loss"][0]  # or nothing was compared
    assert trainings["four devices"][0][0]["share"] == [0, 1, 4]
    assert [record["share"] for record in trainings["two processes"][0]] == [[0, 2, 2], [1, 2, 2]]


@needs_processes
def test_each_of_two_processes_decodes_half_of_the_files(trainings):
    """The first epoch: a batch of 8 of ten images, two batches of 4 for the statistics, and 5 images of validation."""
    ((alone,), _), (both, _) = trainings["JAX"], trainings["two processes"]
    assert alone["decoded"] >= 13
    for record in both:
        assert record["decoded"] <= 0.55 * alone["decoded"] + 1  # an odd number of images


ANY_NUMBER = """
import sys
sys.path.insert(0, "tests")
from conftest import LABELS
from pathlib import Path
import keras, numpy as np
from unet_helpers import devices
from unet_helpers.labels import Pair
from unet_helpers.pipeline import make_batches
from unet_helpers.prediction import predict_masks
from unet_helpers.training import compile_unet

devices.use_all()
folder = Path(sys.argv[1])
pairs = [Pair(image, folder / "masks" / image.name) for image in sorted((folder / "images").iterdir())] * 3
keras.utils.set_random_seed(0)
model = keras.Sequential([keras.Input((32, 48, 3)), keras.layers.Rescaling(1 / 255), keras.layers.Conv2D(3, 1)])
compile_unet(model, 3, 0.0)
for n in (1, 3, 8, 9, 40):
    for batch_size in (1, 3, 8):
        both = [make_batches(pairs[:n], LABELS, (32, 48), batch_size, shuffle=shuffle) for shuffle in (True, False)]
        model.fit(both[0], epochs=1, verbose=0, shuffle=False)
        found = model.evaluate(both[1], verbose=0, return_dict=True)
        images = np.stack([images[0] for images, _ in both[1]])
        print(n, batch_size, f"{found['mIoU']:.7f}", predict_masks(model, images).sum())
"""


def test_no_number_of_images_hangs_or_fails_and_scores_are_those_of_one_device(folder, tmp_path):
    scores = []
    for n_devices in ("1", "2", "8"):
        environment = JAX | {"JAX_NUM_CPU_DEVICES": n_devices, "PYTHONPATH": str(ROOT)}
        (process,) = start([sys.executable, "-c", ANY_NUMBER, str(folder)], [environment], tmp_path / n_devices)
        assert process.wait(400) == 0, (tmp_path / n_devices / "0.err").read_text()
        lines = (tmp_path / n_devices / "0.out").read_text().splitlines()
        assert (lines[0] == f"each batch is shared by {n_devices} devices") == (n_devices != "1")
        scores.append(lines[-15:])
    assert scores[0] == scores[1] == scores[2]
    assert len(set(scores[0])) > 5


# ---- the command, in two processes ----


def train_command(folder: Path, runs: Path) -> list[str]:
    options = ["--image-size", "64x96", "--batch-size", "4", "--epochs", "24", "--runs", str(runs)]
    return [sys.executable, "-m", "unet_helpers", "train", str(folder), *options]


def read_losses(runs: Path) -> np.ndarray:
    """(epochs, columns) of the only run's log.csv; (0, 0) before the first epoch."""
    logs = list(runs.glob("*/log.csv"))
    return np.atleast_2d(np.loadtxt(logs[0], delimiter=",", skiprows=1)) if logs else np.empty((0, 0))


def wait_for_epochs(runs: Path, n: int, running: list[subprocess.Popen]) -> None:
    until = time.monotonic() + 400
    while len(read_losses(runs)) < n:
        assert time.monotonic() < until, f"{len(read_losses(runs))} epochs"
        assert all(process.poll() is None for process in running), "a process has ended by itself"
        time.sleep(0.2)


@needs_processes
def test_when_a_process_dies_the_others_say_so_and_a_new_start_resumes_as_if_nothing_had_happened(folder, tmp_path):
    """A process is killed, then the other one; each has its own temporary folder, as on machines that share a disk."""
    single, runs = tmp_path / "single", tmp_path / "runs"
    (uninterrupted,) = start(train_command(folder, single), [JAX], tmp_path / "uninterrupted")
    assert uninterrupted.wait(500) == 0

    for victim in (1, 0):
        place = tmp_path / f"killed_{victim}"
        running = start(train_command(folder, runs), [JAX, JAX], place)
        wait_for_epochs(runs, len(read_losses(runs)) + 1, running)
        if victim == 1:  # a third process, which is not of this run, must not train in its folder
            (other,) = start(train_command(folder, runs), [JAX], tmp_path / "other")
            assert other.wait(200) == 1
            assert "another process is training in" in read_last(tmp_path / "other" / "0.err")
        time.sleep(random.random())
        running[victim].kill()
        killed = time.monotonic()
        survivor = 1 - victim
        assert running[survivor].wait(120) == 1
        assert time.monotonic() - killed < 120
        last = read_last(place / f"{survivor}.err")
        assert last.startswith(f"unet_helpers: process {victim} (of 0 to 1) has ended: "), last
        assert "start all again" in last

    n_before = len(read_losses(runs))
    assert 2 <= n_before < 24
    running = start(train_command(folder, runs), [JAX, JAX], tmp_path / "last")
    assert [process.wait(500) for process in running] == [0, 0], (tmp_path / "last" / "0.err").read_text()
    printed = (tmp_path / "last" / "0.out").read_text()
    assert "resuming after epoch" in printed
    assert "each batch is shared by 2 devices of 2 processes" in printed
    assert (tmp_path / "last" / "1.out").read_text() == ""
    assert len(list(runs.iterdir())) == 1  # one run, and no lock or unfinished file left
    resumed, reference = read_losses(runs), read_losses(single)
    assert resumed.shape == reference.shape
    np.testing.assert_allclose(resumed[:3], reference[:3], rtol=2e-3)
    np.testing.assert_allclose(resumed[-1], reference[-1], atol=0.05)


# ---- the first process tells the others ----

TELL = """
import sys
from pathlib import Path
from unet_helpers import devices, processes

processes.WAIT_SECONDS = processes.FILE_SECONDS = 2
processes.DEAD_SECONDS = 5
processes.join()
devices.use_all()
code = 1
try:
    me = devices.share().process
    assert processes.from_first(lambda: {"from": me}) == {"from": 0}
    WHAT
    print("all of", devices.share().n_processes)
    code = 0
except Exception as error:
    print(error, file=sys.stderr, flush=True)
processes.leave(code)
sys.exit(code)
"""


@needs_processes
@pytest.mark.parametrize(
    ("what", "codes", "said"),
    [
        ("pass", (0, 0), ("", "")),
        (
            "processes.from_first(lambda: (_ for _ in ()).throw(ValueError('the disk is full')))", (1, 1),
            ("the disk is full", "the disk is full"),
        ),
        (
            "processes.from_first(lambda: __import__('time').sleep(6))", (1, 1),
            ("process 1 (of 0 to 1) has ended", "process 0 has not answered within 2 s"),
        ),
        (
            "processes.expect_file(Path('nowhere' if me else 'README.md'), 'DATA_DIR'); processes.from_first(int)",
            (1, 1),
            ("process 1 (of 0 to 1) has ended", "DATA_DIR: nowhere of process 0 is not the same on the machine"),
        ),
    ],
)  # fmt: skip
def test_what_the_first_process_finds_or_fails_at_is_everybodys(what, codes, said, tmp_path):
    if "sleep" in what:  # the first is still busy when the other has given up; then it must notice that
        what += "; processes.from_first(lambda: __import__('time').sleep(30))"
    command = [sys.executable, "-c", TELL.replace("WHAT", what)]
    running = start(command, [JAX | {"PYTHONPATH": str(ROOT)}] * 2, tmp_path)
    assert tuple(process.wait(100) for process in running) == codes
    for number, sentence in enumerate(said):
        assert sentence in (tmp_path / f"{number}.err").read_text()
    assert (tmp_path / "1.out").read_text() == ""
    assert "each batch is shared by 2 devices of 2 processes\n" in (tmp_path / "0.out").read_text()


@needs_processes
def test_sruns_variables_are_enough(tmp_path):
    """As SLURM documents them for a step of two tasks on one node; JAX reads them."""
    port = free_port()
    step = {"SLURM_JOB_ID": str(port), "SLURM_NTASKS": "2", "SLURM_STEP_NUM_TASKS": "2"}
    step |= {"SLURM_STEP_NODELIST": "localhost"}
    environments = [JAX | step | {"SLURM_PROCID": str(n), "SLURM_LOCALID": str(n)} for n in (0, 1)]
    running = []
    for n, environment in enumerate(environments):
        running += start([sys.executable, "-c", TELL.replace("WHAT", "pass")], [environment], tmp_path / str(n))
    assert [process.wait(100) for process in running] == [0, 0]
    assert "all of 2" in (tmp_path / "0" / "0.out").read_text()


def test_several_processes_need_jax_and_a_number(monkeypatch):
    from unet_helpers.processes import join, n_wanted

    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "two")
    with pytest.raises(ValueError, match="KERAS_DISTRIBUTION_NUM_PROCESSES: found 'two', expected the number"):
        n_wanted()
    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    monkeypatch.setattr("keras.backend.backend", lambda: "tensorflow")
    with pytest.raises(ValueError, match="2 processes: only JAX trains in several; set KERAS_BACKEND=jax in each"):
        join()
