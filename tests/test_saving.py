import contextlib
import csv
import json
import os
import subprocess
import sys
import zipfile

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LABELS, write_pair_to
from limits import small_disk, start

from unet_helpers import checkpoints as saving
from unet_helpers.augmentation import CopyPaste, RandomResizedCrop
from unet_helpers.checkpoints import RunCheckpoint, is_finished, load_best
from unet_helpers.model import PreciseStatistics, unet_model
from unet_helpers.networks import load_network
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.storage import read_json, write_json, write_whole
from unet_helpers.training import ProgressiveResizing, compile_unet


@pytest.fixture
def pairs(write_pair):
    return [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(4)]


class Training:
    """A small training whose files lie in run_dir, as the notebook makes it."""

    def __init__(self, run_dir, pairs, labels, epochs=4):
        run_dir.mkdir(exist_ok=True)
        self.run_dir, self.epochs = run_dir, epochs
        self.resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs)
        options = {"seed": 1, "resizing": self.resizing}
        changes = [RandomResizedCrop(), CopyPaste([2])]
        self.train = make_batches(pairs[:3], labels, (64, 96), 1, shuffle=True, augment=changes, **options)
        self.validation = make_batches(pairs[3:], labels, (64, 96), 1, **options)
        keras.utils.set_random_seed(0)
        self.model = unet_model((None, None, 3), 2, 3, depth=1)
        compile_unet(self.model, 3, WarmupStableDecay(epochs * 3, 1e-2))
        self.state = RunCheckpoint(run_dir, self.resizing, labels)

    def fit(self, *extra):
        return self.model.fit(
            self.train, validation_data=self.validation, initial_epoch=self.state.resume(self.model),
            epochs=self.epochs,
            verbose=0, shuffle=False, callbacks=[self.resizing, PreciseStatistics(self.train), self.state, *extra],
        )  # fmt: skip

    def rows(self):
        with (self.run_dir / "log.csv").open() as file:
            return list(csv.DictReader(file))


class StopIn(keras.callbacks.Callback):
    """As if somebody pressed Stop in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.last, self.now = epoch, 0

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.last:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The same training in one go: what every interrupted one must come to."""
    folder = tmp_path_factory.mktemp("whole")
    pairs = [write_pair_to(folder, size=(64, 96), stem=str(n), seed=n) for n in range(4)]
    training = Training(folder / "run", pairs, LABELS)
    training.fit()
    return training


def assert_same(training, whole):
    assert [row["epoch"] for row in training.rows()] == [row["epoch"] for row in whole.rows()]
    for row, expected in zip(training.rows(), whole.rows(), strict=True):
        assert float(row["loss"]) == pytest.approx(float(expected["loss"]), rel=1e-4)
        assert float(row["val_mIoU"]) == pytest.approx(float(expected["val_mIoU"]), abs=1e-3)
    best, expected = (read_json(run.run_dir / "best.json") for run in (training, whole))
    assert best["epoch"] == expected["epoch"]
    loaded, weights = (load_best(run.run_dir, (64, 96))[0].get_weights() for run in (training, whole))
    for a, b in zip(loaded, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_training_leaves_its_network_its_log_and_one_state(whole):
    assert [row["epoch"] for row in whole.rows()] == ["0", "1", "2", "3"]
    assert {"loss", "mIoU", "val_loss", "val_mIoU"} <= whole.rows()[0].keys()
    names = {path.name for path in whole.run_dir.iterdir()}
    assert names == {"best.keras", "best.json", "log.csv", "state.npz"}
    assert is_finished(whole.run_dir)


def test_the_best_network_carries_its_labels_and_the_size_that_it_was_scored_at(tmp_path, whole, capsys):
    network = load_network(whole.run_dir / "best.keras")
    assert (network.labels, network.image_size) == (LABELS, (64, 96))
    scored(tmp_path, {0: 0.9, 1: 0.8})  # ended with pictures of 32x32, and without labels
    with zipfile.ZipFile(tmp_path / "best.keras") as archive:
        record = json.loads(archive.read("unet_helpers.json"))
    assert record == {"format": 1, "labels": None, "image_size": [32, 32]}


@pytest.mark.parametrize("epoch", [0, 1, 3])
def test_the_cell_again_after_stop_is_the_training_in_one_go(tmp_path, pairs, labels, whole, epoch):
    """In the same session, with the weights of a half epoch in memory; of the first epoch, too."""
    training = Training(tmp_path / "stopped", pairs, labels)
    with pytest.raises(KeyboardInterrupt):
        training.fit(StopIn(epoch))
    training.fit()
    assert_same(training, whole)


@pytest.mark.parametrize("last", [0, 1])
def test_a_training_that_diverges_ends_there_and_keeps_the_epochs_before(tmp_path, pairs, labels, whole, last):
    """Its loss and its mIoU may be numbers: a unit without one is 0 after ReLU, and so not active."""

    class FarTooFast(keras.callbacks.Callback):
        def on_epoch_begin(self, epoch, logs=None):
            if epoch == last:
                self.model.weights[0].assign(np.full_like(self.model.weights[0], np.inf))

    training = Training(tmp_path / "diverged", pairs, labels)
    kept = "what was learned until epoch 1" if last else "only a log"
    said = f"LEARNING_RATE: the training diverged in epoch {last + 1}: .*; give a tenth of it .*diverged keeps {kept}$"
    with pytest.raises(RuntimeError, match=said):
        training.fit(FarTooFast())
    assert len(training.rows()) == last + 1
    assert (tmp_path / "diverged" / "best.keras").exists() == (last > 0)
    training.fit()  # as if nothing had been
    assert_same(training, whole)


def test_a_new_session_goes_on_with_the_pictures_of_its_epoch(tmp_path, pairs, labels, whole):
    """Epoch 4 after a stop has the order, the pictures, the size and the rate of epoch 4, not those of the first."""
    with pytest.raises(KeyboardInterrupt):
        Training(tmp_path / "stopped", pairs, labels).fit(StopIn(3))
    training = Training(tmp_path / "stopped", pairs, labels)
    for variable in training.model.variables:
        variable.assign(np.ones(variable.shape))
    assert training.fit().epoch == [3]
    assert_same(training, whole)


def test_a_finished_training_is_loaded_and_not_repeated(pairs, labels, whole, capsys):
    files = {path.name: path.read_bytes() for path in whole.run_dir.iterdir() if path.suffix != ".keras"}
    training = Training(whole.run_dir, pairs, labels)
    assert training.fit().epoch == []
    assert "trained before, 4 epochs: its network is loaded (TRAIN_ANEW = True" in capsys.readouterr().out
    best = load_best(whole.run_dir, (64, 96))[0].get_weights()
    for a, b in zip(training.model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {path.name: path.read_bytes() for path in whole.run_dir.iterdir() if path.suffix != ".keras"} == files
    assert whole.fit().epoch == []  # the cell again


# ---- killed ----


class Killed(BaseException):
    """What a kill is to the files: nothing happens any more."""


def replacements_of(training, *extra) -> int:
    """How often a file is put in its place."""
    count = 0
    replace = os.replace

    def counted(*paths):
        nonlocal count
        count += 1
        replace(*paths)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(os, "replace", counted)
        training.fit(*extra)
    return count


def test_a_kill_at_any_write_loses_no_epoch_and_no_best_network(tmp_path, pairs, labels, whole, monkeypatch):
    """Each file is put in place by os.replace: killed before or after each of them, the next run comes to the same."""
    total = replacements_of(Training(tmp_path / "counted", pairs, labels))
    assert total >= 4 * 3
    replace = os.replace
    for number in range(1, total, 4):  # each file's turn comes: there are five or seven in an epoch
        left = number

        def die(source, target, after=number % 2):
            nonlocal left
            left -= 1
            if left < 0:
                if after:
                    replace(source, target)
                raise Killed
            replace(source, target)

        run_dir = tmp_path / f"killed_{number}"
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "replace", die)
            Training(run_dir, pairs, labels).fit()
        training = Training(run_dir, pairs, labels)
        training.fit()
        assert_same(training, whole)


CHILD = """
import os, sys
sys.path[:0] = ["tests", "."]
os.environ["TF_CPP_MIN_LOG_LEVEL"] = "3"
import signal
from pathlib import Path
from test_saving import LABELS, Training
from unet_helpers.labels import Pair
folder, kind = Path({folder!r}), {kind!r}
pairs = [Pair(folder / "images" / f"{{n}}.png", folder / "masks" / f"{{n}}.png") for n in range(4)]
training = Training(folder / "killed", pairs, LABELS)
replace, opened = os.replace, open
def die(source, target):
    if len(training.state.log) == 3 and kind in f"{{source}} {{target}}":
        with open(source, "r+b") as file:  # killed in the middle of writing
            file.truncate(os.path.getsize(source) // 2)
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
if kind:
    os.replace = die
training.fit()
"""


@pytest.mark.parametrize("kind", ["state_next", "best.keras", "log.csv"])
def test_real_kills_aimed_at_the_writes(tmp_path, pairs, labels, whole, kind):
    for kills in (kind, ""):
        child = start(CHILD.format(folder=str(tmp_path), kind=kills))
        _, errors = child.communicate(timeout=300)
        if kills and child.returncode == 0:  # the third epoch was not the best one
            assert kind == "best.keras"
        else:
            assert child.returncode == (-9 if kills else 0), errors[-2000:]
    assert_same(Training(tmp_path / "killed", pairs, labels), whole)


def truncated(path):
    with open(path, "r+b") as file:
        file.truncate(path.stat().st_size * 3 // 4)


def damaged(path):
    content = bytearray(path.read_bytes())
    content[len(content) // 2] ^= 255
    path.write_bytes(content)


DAMAGE = [truncated, damaged, lambda path: path.write_bytes(b""), lambda path: path.write_text("no zip at all")]


@pytest.mark.parametrize("damage", DAMAGE, ids=["truncated", "damaged", "empty", "text"])
def test_a_state_that_cant_be_read_is_put_aside_and_the_one_before_is_taken(
    tmp_path, pairs, labels, whole, capsys, damage
):
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Training(run_dir, pairs, labels).fit(StopIn(3))
    damage(run_dir / "state.npz")
    training = Training(run_dir, pairs, labels)
    assert training.fit().epoch == [2, 3]
    said = capsys.readouterr().out
    assert "state.npz can't be read" in said
    assert "going on after epoch 2" in said
    assert (run_dir / "unreadable_state.npz").exists()
    assert_same(training, whole)


def test_where_no_state_can_be_read_training_begins_again(tmp_path, pairs, labels, whole):
    run_dir = tmp_path / "run"
    with pytest.raises(KeyboardInterrupt):
        Training(run_dir, pairs, labels).fit(StopIn(3))
    truncated(run_dir / "state.npz")
    truncated(run_dir / "state_before.npz")
    training = Training(run_dir, pairs, labels)
    assert training.fit().epoch == [0, 1, 2, 3]
    assert_same(training, whole)


# ---- the best network, and when to stop ----


def scored(run_dir, scores, epochs=4, new=True):
    """Networks with one weight, the number of their epoch, get these validation scores; what is left of them."""
    run_dir.mkdir(exist_ok=True)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs)
    state = RunCheckpoint(run_dir, resizing)
    state.set_model(model)
    assert (state.resume(model) == 0) == new
    for epoch, score in scores.items():
        resizing.on_epoch_begin(epoch)
        model.set_weights([np.float32([[epoch]])])
        state.on_epoch_end(epoch, {"val_mIoU": score})
    state.on_train_end()
    loaded, size = load_best(run_dir, (64, 96))
    return int(loaded.get_weights()[0][0, 0]), size, len(state.log)


def test_the_best_network_is_one_of_the_largest_size(tmp_path, capsys):
    """Scores of smaller pictures are others: here the best of all epochs is the first."""
    assert scored(tmp_path, {0: 0.9, 1: 0.8, 2: 0.5, 3: 0.4})[:2] == (2, (64, 96))
    assert not capsys.readouterr().out
    assert read_json(tmp_path / "best.json") == {"epoch": 3, "image_size": [64, 96], "val_mIoU": 0.5}


def test_a_training_that_ended_before_its_last_size_leaves_its_best_and_says_so(tmp_path, capsys):
    assert scored(tmp_path, {0: 0.9, 1: 0.8})[:2] == (0, (32, 32))
    assert "ended before its last size: the network is the best of those that saw 32x32" in capsys.readouterr().out


def test_a_worse_network_after_an_interruption_does_not_replace_the_best(tmp_path):
    scored(tmp_path, {0: 0.1, 1: 0.1, 2: 0.1, 3: 0.5, 4: 0.8}, epochs=7)
    assert scored(tmp_path, {5: 0.6}, epochs=7, new=False)[0] == 4
    assert scored(tmp_path, {6: 0.85}, epochs=7, new=False)[0] == 6


def test_a_training_without_any_progress_takes_all_its_epochs(tmp_path):
    """The rate falls at the end, and that brings the last gain: who stops on the plateau never sees it."""
    scores = {epoch: 0.9 - 0.01 * epoch for epoch in range(60)}
    scored(tmp_path, dict(list(scores.items())[:59]), epochs=60)
    assert not is_finished(tmp_path)
    assert scored(tmp_path, {59: 0.95}, epochs=60, new=False)[::2] == (59, 60)
    assert is_finished(tmp_path)


def test_no_epoch_at_all_is_said(tmp_path):
    with pytest.raises(ValueError, match="no epoch was finished here"):
        load_best(tmp_path, (64, 96))


def test_the_best_network_answers_the_same_in_a_fresh_process_without_this_package(tmp_path, whole):
    model, _ = load_best(whole.run_dir, (64, 96))  # the file holds labels, too
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code = "import keras, numpy, sys; model = keras.models.load_model(sys.argv[1]);"
    code += "numpy.save(sys.argv[3], model.predict_on_batch(numpy.load(sys.argv[2])));"
    code += "assert 'unet_helpers' not in sys.modules"
    paths = [whole.run_dir / "best.keras", tmp_path / "image.npy", tmp_path / "logits.npy"]
    command = [sys.executable, "-c", code, *map(str, paths)]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model.predict_on_batch(image), atol=1e-5)


def test_pictures_grow_while_training_and_after_an_interruption_too(tmp_path, pairs, labels):
    """What the network is fed in each epoch; the second fit starts where the first was interrupted."""
    seen = []

    class Watched(keras.Model):
        def train_step(self, data):
            tf.py_function(lambda images, masks: seen.append((images.shape[1:3], masks.shape[1:3])), data, [])
            return super().train_step(data)

    def train(*extra):
        resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
        batches = make_batches(pairs[:1], labels, (64, 96), 1, mask_size=(32, 48), resizing=resizing)
        plain = unet_model((None, None, 3), 2, 3, depth=2, half_resolution=True)
        model = Watched(plain.inputs, plain.outputs)
        compile_unet(model, 3, 1e-3)
        state = RunCheckpoint(tmp_path, resizing)
        state._write_best = lambda model: None  # a class of this test can't be cloned
        model.fit(
            batches, validation_data=batches, epochs=4, initial_epoch=state.resume(model), verbose=0, shuffle=False,
            callbacks=[resizing, state, *extra],
        )  # fmt: skip

    class Interrupt(keras.callbacks.Callback):
        def on_epoch_end(self, epoch, logs=None):
            if epoch == 2:
                raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(Interrupt())
    assert seen == [((32, 32), (16, 16)), ((32, 32), (16, 16)), ((64, 96), (32, 48))]
    seen.clear()
    train()
    assert set(seen) == {((64, 96), (32, 48))}


# ---- full disks, and two at once ----


def test_a_full_disk_is_one_sentence_and_what_was_good_stays(tmp_path, pairs, labels, whole, capsys):
    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        training = Training(disk / "run", pairs, labels)

        class Fill(keras.callbacks.Callback):
            def on_epoch_end(self, epoch, logs=None):
                if epoch == 1:
                    with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
                        while file.write(bytes(4096)):
                            pass

        training.fit(Fill())
        assert len(training.rows()) == 2
        assert capsys.readouterr().out.count(f"{disk / 'run'}: the training can't be saved") == 2
        (disk / "filler").unlink()
        again = Training(disk / "run", pairs, labels)
        assert again.fit().epoch == [2, 3]
        assert_same(again, whole)


def test_a_training_of_which_nothing_can_be_saved_is_not_begun(tmp_path, pairs, labels, whole):
    """It would take hours, and leave nothing. With room it is what it would have been; a second try is no other."""
    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        (disk / "filler").write_bytes(bytes((5 << 19) - 8192))
        training = Training(disk / "run", pairs, labels)
        for _ in range(2):
            with pytest.raises(RuntimeError, match=r"run: nothing can be saved, so nothing was trained; make room, or"):
                training.fit()
        assert not list((disk / "run").iterdir())
        assert not saving._locks
        (disk / "filler").unlink()
        training.fit()
        assert_same(training, whole)


def test_a_best_network_that_the_disk_did_not_take_is_written_when_it_does(tmp_path, monkeypatch):
    """The best epoch ends on a full disk, the next one, which is worse, on a disk with room."""
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile("sgd", "mse")
    resizing = ProgressiveResizing((64, 96), epochs=4)
    state = RunCheckpoint(tmp_path, resizing)
    state.set_model(model)
    state.resume(model)
    for epoch, (score, full) in enumerate([(0.3, False), (0.9, True), (0.5, False)]):
        resizing.on_epoch_begin(epoch)
        model.set_weights([np.float32([[epoch]])])
        with monkeypatch.context() as patch:
            if full:
                patch.setattr(os, "replace", lambda *_: (_ for _ in ()).throw(OSError(28, "No space left on device")))
            state.on_epoch_end(epoch, {"val_mIoU": score})
    state.on_train_end()
    assert load_best(tmp_path, (64, 96))[0].get_weights()[0] == 1
    assert read_json(tmp_path / "best.json")["epoch"] == 2


def test_a_file_is_replaced_whole_or_not_at_all(tmp_path, monkeypatch):
    write_json(tmp_path / "a.json", {"n": 1})
    with pytest.raises(TypeError):
        write_json(tmp_path / "a.json", {"n": object()})

    def full(*_):
        raise OSError(28, "No space left on device")

    with monkeypatch.context() as patch:
        patch.setattr(os, "fsync", full)
        with pytest.raises(OSError, match="No space"):
            write_whole(tmp_path / "a.json", b"new")
    assert read_json(tmp_path / "a.json") == {"n": 1}
    assert [path.name for path in tmp_path.iterdir()] == ["a.json"]
    (tmp_path / "a.json").write_text("{")
    assert read_json(tmp_path / "a.json") is None
    assert read_json(tmp_path / "b.json") is None


def test_a_file_is_never_written_through_a_link_or_over_somebodys_file(tmp_path):
    mine, there = tmp_path / "mine.txt", tmp_path / "a.json.partial"
    mine.write_text("mine")
    there.symlink_to(mine)
    write_json(tmp_path / "a.json", {"n": 1})
    there.unlink()
    there.write_text("mine, too")
    write_json(tmp_path / "a.json", {"n": 2})
    assert (mine.read_text(), there.read_text()) == ("mine", "mine, too")
    assert read_json(tmp_path / "a.json") == {"n": 2}
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.json", "a.json.partial", "mine.txt"]
    assert (tmp_path / "a.json").stat().st_mode == mine.stat().st_mode  # others may read it, as any file


def test_what_a_killed_writer_left_goes_with_the_next_training(tmp_path, pairs, labels, whole):
    training = Training(tmp_path / "run", pairs, labels)
    (training.run_dir / "mine.partial").write_text("mine")
    code = f"""
import os, signal
from pathlib import Path
import keras
from unet_helpers import storage as files
from unet_helpers import networks
files.os.replace = lambda *_: os.kill(os.getpid(), signal.SIGKILL)
network = keras.Sequential([keras.Input((8, 8, 3)), keras.layers.Conv2D(2, 1)])
networks.save_network(Path({str(training.run_dir)!r}) / "other.keras", network)
"""
    start(code).communicate(timeout=120)
    left = sorted(training.run_dir.glob(".*"))
    assert [path.suffix for path in left] in ([".keras", ".partial"], [".partial", ".keras"])
    with pytest.raises(KeyboardInterrupt):
        training.fit(StopIn(0))
    assert all(path.exists() for path in left)  # what is so new may be another process's
    for path in left:
        os.utime(path, (1, 1))
    training.fit()
    assert not any(path.exists() for path in left)
    assert (training.run_dir / "mine.partial").read_text() == "mine"
    assert_same(training, whole)


def test_two_processes_do_not_train_in_one_folder(tmp_path, pairs, labels):
    training = Training(tmp_path / "run", pairs, labels)
    code = f"""
from pathlib import Path
from unet_helpers.storage import hold_lock
with hold_lock(Path({str(training.run_dir)!r})) as held:
    print(held, flush=True)
    input()
"""
    child = subprocess.Popen([sys.executable, "-c", code], stdin=-1, stdout=-1, text=True, cwd=os.getcwd())
    assert child.stdout.readline() == "True\n"
    with pytest.raises(RuntimeError, match=r"another process is training in .*run: wait until it ends, or"):
        training.fit()
    assert list(training.run_dir.iterdir()) == []
    child.communicate("\n", timeout=120)
    training.fit(StopIn(9))
    assert not saving._locks
