"""What a run's folder holds after each epoch and after a kill, and which folder a training gets. See test_resuming."""

import contextlib
import hashlib
import json
import os
import re
import shutil
import threading

import keras
import numpy as np
import pytest
from builders import make_small_recipe as recipe
from limits import needs_links, needs_sigkill, small_disk, start

from benchmarks.copy_paste import CopyPaste
from unet_helpers import checkpoints, storage
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.checkpoints import Checkpoint, RunCheckpoint, load_best, make_plan, read_checkpoint, run_folder
from unet_helpers.datasets import Dataset
from unet_helpers.labels import Pair
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.storage import hold_lock, read_json
from unet_helpers.training import ProgressiveResizing, Speed, compile_unet


def names(folder):
    return sorted(path.name for path in folder.iterdir())


# ---- a run, without computing: its callbacks alone ----

SCORES = (0.5, 0.4, 0.3, 0.2)  # of four epochs, the last two at full size: no progress, but all epochs are trained


def train(run_dir, scores=SCORES, until=None, before_saving=lambda epoch, model: None):
    """An epoch's weights follow from those before, so a lost checkpoint shows. until: the epoch that is interrupted."""
    run_dir.mkdir(exist_ok=True)
    model = keras.Sequential([keras.Input((1,)), keras.layers.Dense(1, use_bias=False)])
    model.compile(keras.optimizers.SGD(momentum=0.5), "mse")
    model.set_weights([np.float32([[1]])])
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    run = RunCheckpoint(run_dir, resizing)
    run.set_model(model)
    for epoch in range(run.resume(model), 4):
        resizing.on_epoch_begin(epoch)
        if epoch == until:
            return run
        (weight,), (momentum,) = model.get_weights(), model.optimizer.variables[2:]
        momentum.assign(2 * momentum + epoch)
        model.set_weights([weight + np.asarray(momentum)])
        before_saving(epoch, model)
        run.on_epoch_end(epoch, {"loss": 0.1 * epoch, "val_mIoU": scores[epoch]})
    run.on_train_end()
    return run


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """The folder of a run that nothing interrupted."""
    return train(tmp_path_factory.mktemp("whole") / "run").run_dir


def best_weight(run_dir):
    return load_best(run_dir, (64, 96))[0].get_weights()[0].item()


def assert_same(run_dir, whole):
    for name in ("log.csv", "best.json"):
        assert (run_dir / name).read_bytes() == (whole / name).read_bytes()
    found, expected = read_checkpoint(run_dir), read_checkpoint(whole)
    assert found[:3] == expected[:3]
    for a, b in zip([*found[3], *found[4]], [*expected[3], *expected[4]], strict=True):
        np.testing.assert_array_equal(a, b, strict=True)
    assert best_weight(run_dir) == best_weight(whole)


def test_a_run_keeps_its_log_and_the_best_network_of_the_largest_size(whole, capsys):
    """Scores at smaller sizes do not compare: here the best of all epochs is the first."""
    assert names(whole) == ["best.json", "best.keras", "log.csv", "state.npz"]
    rows = (whole / "log.csv").read_text().splitlines()
    assert (rows[0], rows[2], len(rows)) == ("epoch,loss,val_mIoU", "1,0.1,0.4", 5)
    assert read_json(whole / "best.json") == {"epoch": 3, "image_size": [64, 96], "val_mIoU": 0.3}
    assert load_best(whole, (64, 96))[1] == (64, 96)
    assert best_weight(whole) == 1 + 0 + 1 + 4  # momentum: 0, 1, 4
    assert read_checkpoint(whole).finished
    assert not capsys.readouterr().out


def test_a_run_that_ended_before_its_last_size_keeps_its_best_and_says_so(tmp_path, capsys):
    with pytest.raises(ValueError, match="no epoch has ended"):
        load_best(tmp_path, (64, 96))
    train(tmp_path, until=2).on_train_end()
    assert (best_weight(tmp_path), load_best(tmp_path, (64, 96))[1]) == (1, (32, 32))
    assert "ended before its last image size" in capsys.readouterr().out


@pytest.mark.parametrize("last", [0, 1])
def test_a_training_that_diverges_ends_there_and_keeps_the_epochs_before(tmp_path, whole, last):
    """Its loss and its mIoU may be numbers: a unit without one is 0 after ReLU, and so not active."""

    def diverge(epoch, model):
        if epoch == last:
            model.set_weights([np.float32([[np.inf]])])

    with pytest.raises(RuntimeError, match=f"LEARNING_RATE: .* in epoch {last + 1}: .* a tenth "):
        train(tmp_path / "run", before_saving=diverge)
    assert len((tmp_path / "run" / "log.csv").read_text().splitlines()) == 2 + last
    assert (tmp_path / "run" / "best.keras").exists() == (last > 0)
    assert_same(train(tmp_path / "run").run_dir, whole)


# ---- killed, damaged, full, two at once ----


class Killed(BaseException):
    """What a kill is to the files: nothing happens any more."""


def test_a_kill_at_any_write_loses_no_epoch_and_no_best_network(tmp_path, whole, monkeypatch):
    """Each file is put in place by os.replace: killed before each of them, the next run comes to the same."""
    replace, number, left = os.replace, 0, -1
    while left < 0:  # until a run has fewer writes
        left = number

        def die(source, target):
            nonlocal left
            left -= 1
            if left < 0:
                raise Killed
            replace(source, target)

        run_dir = tmp_path / f"killed_{number}"
        with monkeypatch.context() as patch, contextlib.suppress(Killed):
            patch.setattr(os, "replace", die)
            train(run_dir)
        assert_same(train(run_dir).run_dir, whole)
        number += 1
    assert number > 3 * 4


CHILD = """
import os, signal, sys
sys.path[:0] = ["tests", "."]
from pathlib import Path
from test_checkpoints import train
run_dir, kind, replace = Path({folder!r}), {kind!r}, os.replace
def die(source, target):
    if kind in f"{{source}} {{target}}" and (run_dir / "log.csv").exists():
        os.truncate(source, os.path.getsize(source) // 2)  # killed in the middle of writing
        os.kill(os.getpid(), signal.SIGKILL)
    replace(source, target)
os.replace = die
train(run_dir)
"""


@needs_sigkill
def test_real_kills_in_the_middle_of_both_writers(tmp_path, whole, monkeypatch):
    """What they left is deleted by the next training, but not what is so new that another process may write it."""
    kinds = ("state.npz", "best.keras")  # by storage.write_whole, as all others, and by networks.save_network
    children = [start(CHILD.format(folder=str(tmp_path / kind), kind=kind)) for kind in kinds]
    for child, kind in zip(children, kinds, strict=True):
        _, errors = child.communicate(timeout=300)
        assert child.returncode == -9, errors[-2000:]
        left = [name for name in names(tmp_path / kind) if name.startswith(".")]
        assert left
        (tmp_path / kind / "mine.partial").touch()
        train(tmp_path / kind, until=0)
        assert set(left) <= set(names(tmp_path / kind))
        monkeypatch.setattr(storage, "RECENT", -1)
        assert_same(train(tmp_path / kind).run_dir, whole)
        monkeypatch.undo()
        assert names(tmp_path / kind) == ["best.json", "best.keras", "log.csv", "mine.partial", "state.npz"]


@pytest.mark.parametrize(
    "spoil", [lambda content: content.replace(b"finished", b"finishes"), lambda content: content[:-100]]
)
def test_a_checkpoint_that_cant_be_read_is_put_aside_and_the_training_begins_anew(tmp_path, whole, capsys, spoil):
    run_dir = train(tmp_path / "run", until=3).run_dir
    content = spoil((run_dir / "state.npz").read_bytes())  # the zip's checksum tells
    (run_dir / "state.npz").write_bytes(content)
    network = (run_dir / "best.keras").read_bytes()
    assert_same(train(run_dir).run_dir, whole)
    said = capsys.readouterr().out
    assert "state.npz can't be read" in said
    assert "resuming" not in said
    assert (run_dir / "earlier_state.npz").read_bytes() == content
    assert (run_dir / "earlier_best.keras").read_bytes() == network  # hours may have gone into it


def test_a_full_disk_is_one_sentence_and_what_was_good_stays(tmp_path, whole, capsys):
    def fill(epoch, model):  # until the next epoch
        (disk / "filler").unlink(missing_ok=True)
        if epoch == 2:
            with contextlib.suppress(OSError), open(disk / "filler", "wb", buffering=0) as file:
                while file.write(bytes(4096)):
                    pass

    with small_disk(tmp_path / "disk", 3 << 20) as disk:
        run_dir = train(disk / "run", before_saving=fill, until=3).run_dir
        assert len((run_dir / "log.csv").read_text().splitlines()) == 3
        assert capsys.readouterr().out.count(f"{run_dir}: the training can't be saved") == 1
        with pytest.raises(RuntimeError, match=r"new: nothing can be saved, .* RUN_DIR"):
            train(disk / "new")  # hours of training could be lost
        assert names(disk / "new") == []
        (disk / "filler").unlink()
        assert_same(train(run_dir).run_dir, whole)
        assert "resuming after epoch 2" in capsys.readouterr().out
        # The best epoch ends on the full disk; it is written after the next one, which is worse.
        train(disk / "best", (0.3, 0.3, 0.9, 0.5), before_saving=fill)
        assert read_json(disk / "best" / "best.json")["epoch"] == 3
        assert best_weight(disk / "best") == 1 + 0 + 1 + 4


def test_two_do_not_train_in_one_folder(tmp_path, whole):
    run_dir = tmp_path / "run"
    run_dir.mkdir()
    with hold_lock(run_dir), pytest.raises(RuntimeError, match=r"another process is training in .*run: .* RUN_DIR"):
        train(run_dir)
    assert names(run_dir) == []
    train(run_dir, until=1)
    with hold_lock(run_dir) as held:
        assert not held  # after an interruption until this process ends or trains again
    assert_same(train(run_dir).run_dir, whole)
    assert not checkpoints._locks


# ---- the folder of a training ----


@pytest.fixture
def dataset(write_pair, labels):
    pairs = [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(4)]
    return Dataset("folder", labels, tuple(pairs[:3]), tuple(pairs[3:]), ())


def network(rate=1e-2, **switches):
    model = unet_model((None, None, 3), 2, 3, **{"depth": 1, "dropout_prob": 0, **switches})
    compile_unet(model, 3, rate)
    return model


NAME = "folder_64x96_2_filters_4_minutes_seed_0"


@needs_links
def test_the_folder_is_named_by_what_was_asked_and_its_settings_hold_all_that_decides_the_result(tmp_path, dataset):
    (tmp_path / "runs" / f"{NAME}.partial-4194305").mkdir(parents=True)  # of a killed process
    others = {"augment": [RandomResizedCrop(), CopyPaste([2])], "class_weights": np.float32([1, 2, 3])}
    folder = run_folder(recipe(tmp_path), network(), dataset, **others)
    assert folder == tmp_path / "runs" / NAME
    assert names(tmp_path / "runs") == [NAME]
    settings = json.loads((folder / "settings.json").read_text())
    assert settings["recipe"]["minutes"] == 4
    assert settings["optimizer"]["name"] == "KernelMuon"
    assert [layer["class_name"] for layer in settings["network"]["layers"]].count("Conv2DTranspose") == 1
    assert settings["others"]["augment"][1] == "CopyPaste(classes=[2], share=0.5)"
    mask = dataset.train[1].mask
    content = hashlib.sha256(mask.read_bytes()).hexdigest()
    assert settings["files"]["train"]["masks/1.png"] == [mask.stat().st_size, mask.stat().st_mtime_ns, content]
    assert str(tmp_path) not in json.dumps(settings)
    asked = run_folder(recipe(tmp_path, EPOCHS=12, SEED=3), network(), dataset)
    assert asked.name == "folder_64x96_2_filters_12_epochs_seed_3"
    asked.with_name(f"{NAME[:-1]}4").symlink_to(tmp_path / "nowhere")  # no folder, and none can take its place
    with pytest.raises(ValueError, match="^RUN_DIR: .*seed_4 can't be made "):
        run_folder(recipe(tmp_path, SEED=4), network(), dataset)


def test_the_same_content_is_the_same_training_wherever_and_however_old_its_files_are(tmp_path, dataset, capsys):
    """And whatever numbers Keras gave the layers. The content of the network to start from decides, too."""
    start, copy = tmp_path / "start.keras", tmp_path / "copy"
    unet_model((None, None, 3), 2, 3).save(start)
    usual = {"START_FROM": str(start), "HALF_RESOLUTION": None}
    first = run_folder(recipe(tmp_path, **usual), network(), dataset)
    for kind in ("images", "masks"):
        shutil.copytree(tmp_path / kind, copy / kind, copy_function=shutil.copyfile)  # with new times
    shutil.copyfile(start, copy / "best.keras")
    train, validation = (
        tuple(Pair(*(copy / path.relative_to(tmp_path) for path in pair)) for pair in pairs)
        for pairs in (dataset.train, dataset.validation)
    )
    copied, moved = Dataset("folder", dataset.labels, train, validation, ()), usual | {"DATA_DIR": str(copy)}
    assert run_folder(recipe(tmp_path, **moved | {"START_FROM": f"{copy}/best.keras"}), network(), copied) == first
    assert capsys.readouterr().out == ""
    assert run_folder(recipe(tmp_path, **moved | {"START_FROM": "scratch"}), network(), copied) != first
    assert "the initial weights" in capsys.readouterr().out


def test_another_training_gets_another_folder_and_a_note(tmp_path, dataset, capsys):
    usual = {"augment": [RandomResizedCrop(), CopyPaste([2])], "class_weights": None}
    first = run_folder(recipe(tmp_path), network(), dataset, **usual)
    (first / "best.keras").write_text("the reader's network")
    for number, (changes, switches, others, said) in enumerate((
        ({"BATCH_SIZE": 4}, {}, {}, "batch_size;"),
        ({}, {"skip_connections": False}, {}, "the layers of the network;"),
        ({}, {"rate": 2e-2}, {}, "the optimizer;"),
        ({}, {}, {"augment": [RandomResizedCrop(zoom=(1, 2)), CopyPaste([2])]}, "augment;"),
        ({}, {}, {"class_weights": np.float32([1, 2, 3])}, "class_weights;"),
        ({}, {}, {}, "images/0.png (train);"),
    ), start=2):  # fmt: skip
        if "images" in said:  # another byte, so that its size stays
            path = dataset.train[0].image
            content, changed = bytearray(path.read_bytes()), path.stat().st_mtime_ns + 1
            content[100] ^= 1
            path.write_bytes(content)
            os.utime(path, ns=(0, changed))
        changed, model = recipe(tmp_path, **changes), network(**switches)
        second = run_folder(changed, model, dataset, **usual | others)
        assert second.name == f"{first.name}_{number}"
        assert f"note: {first.name} differs in {said}" in capsys.readouterr().out
        assert run_folder(changed, model, dataset, **usual | others) == second
    assert (first / "best.keras").read_text() == "the reader's network"


def test_settings_of_wrong_types_are_those_of_no_training(tmp_path, dataset, capsys):
    model = network()
    first = run_folder(recipe(tmp_path), model, dataset) / "settings.json"
    files = {"train": {"images/0.png": 3}, "validation": []}
    for content in ("{", "[]", json.dumps(json.loads(first.read_text()) | {"files": files})):
        first.write_text(content)
        other = run_folder(recipe(tmp_path), model, dataset)
        assert other.name == f"{NAME}_2"
        assert "settings.json, which can't be read" in capsys.readouterr().out
        assert first.read_text() == content
        shutil.rmtree(other)


def test_a_finished_training_is_repeated_only_when_asked_and_then_elsewhere(tmp_path, dataset, capsys):
    model, usual, anew = network(), recipe(tmp_path), recipe(tmp_path, TRAIN_ANEW=True)
    first = run_folder(usual, model, dataset)
    assert run_folder(anew, model, dataset) == first  # not finished: it is resumed
    checkpoints.write_checkpoint(first, Checkpoint([], None, True, [], []))
    assert run_folder(usual, model, dataset) == first
    second = run_folder(anew, model, dataset)
    assert second.name == first.name + "_2"
    assert f"note: {first.name} is finished and stays; this training goes to" in capsys.readouterr().out
    assert run_folder(anew, model, dataset) == second
    assert run_folder(usual, model, dataset) == second  # the newest one


def test_two_that_ask_at_once_get_the_same_folder(tmp_path, dataset):
    """The one waits while the other makes it."""
    found, model = [], network()
    other = threading.Thread(target=lambda: found.append(run_folder(recipe(tmp_path), model, dataset)))
    with hold_lock(tmp_path / "runs" / "new_run"):
        other.start()
        other.join(0.5)
        assert found == []
        assert not (tmp_path / "runs" / NAME).exists()
    other.join(60)
    assert found == [run_folder(recipe(tmp_path), model, dataset)]


# ---- the plan ----


@pytest.fixture
def batches(dataset, labels):
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    options = {"image_size": (64, 96), "batch_size": 1, "resizing": resizing}
    return *(make_batches(pairs, labels, **options) for pairs in (dataset.train, dataset.validation)), resizing


def test_the_plan_fits_into_the_minutes_says_how_many_more_are_needed_and_is_kept(
    tmp_path, batches, capsys, monkeypatch
):
    """Of two thirds of the minutes 95 % are used; 100 steps are 48 epochs of the ladder here."""
    speed = Speed(epoch=(6.0, 18.1))
    for minutes, epochs, steps, said in (
        (0.01, 1, 1, "1 epoch of 1 step, about 0.1 minutes"),  # an epoch that does not fit is cut
        (0.37, 1, 2, "about 0.2 minutes"),  # 14 s, of 18.1 s
        (1, 3, 3, "3 epochs of 3 steps, about 0.5 minutes, of which the timing took 0 s"),
        (15.2, 32, 3, "48 epochs; MINUTES = 15.3 is enough"),
        (15.3, 48, 3, "48 epochs of 3 steps"),
    ):
        (tmp_path / "plan.json").unlink(missing_ok=True)
        monkeypatch.setattr(checkpoints, "measure_speed", lambda *_: speed)
        plan = make_plan(tmp_path, recipe(tmp_path, MINUTES=minutes), None, *batches)
        assert (plan.epochs, plan.steps, plan.speed) == (epochs, steps, speed)
        shown = capsys.readouterr().out
        assert said in shown
        assert ("is enough" in shown) == (epochs < 48)
        monkeypatch.setattr(checkpoints, "measure_speed", None)
        assert make_plan(tmp_path, recipe(tmp_path, MINUTES=minutes), None, *batches) == plan
        assert f"planned before: {epochs} epoch{'s' * (epochs > 1)}\n" in capsys.readouterr().out


def test_epochs_that_are_given_are_exact_and_nothing_is_timed(tmp_path, batches, monkeypatch):
    monkeypatch.setattr(checkpoints, "measure_speed", None)
    given = recipe(tmp_path, EPOCHS=100)
    plan = make_plan(tmp_path, given, None, *batches)
    assert (plan.epochs, plan.steps) == (100, 3)
    assert plan.speed.epoch[1] == 6 * plan.speed.epoch[0]  # 64x96 pixels and 32x32
    assert make_plan(tmp_path, given, None, *batches) == plan
    # To plan anew on the quiet would change the schedule of a training that has begun.
    for content in ("{", '{"epochs": "x", "steps": 1, "speed": {"start": 0, "epoch": [1]}}'):
        (tmp_path / "plan.json").write_text(content)
        with pytest.raises(ValueError, match=r"plan\.json: it can't be read; delete it"):
            make_plan(tmp_path, given, None, *batches)


def test_a_plan_by_real_timing_counts_what_the_timing_took(tmp_path, batches, capsys):
    assert make_plan(tmp_path, recipe(tmp_path, MINUTES=0.02), network(), *batches).epochs == 1
    shown = capsys.readouterr().out
    timing = float(re.search(r"the timing took (\d+) s", shown)[1])
    assert 1 <= timing <= 60 * (0.05 + float(re.search(r"about ([\d.]+) minutes", shown)[1]))
    assert json.loads((tmp_path / "plan.json").read_text())["epochs"] == 1
