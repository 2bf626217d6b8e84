import json
import os
import re

import numpy as np
import pytest

from unet_helpers import runs
from unet_helpers.augmentation import CopyPaste, RandomView
from unet_helpers.datasets import Dataset
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import make_recipe
from unet_helpers.runs import make_plan, run_folder
from unet_helpers.saving import TrainingState
from unet_helpers.training import ProgressiveResizing, compile_unet


@pytest.fixture
def dataset(write_pair, labels):
    pairs = [write_pair(size=(64, 96), stem=str(n), seed=n) for n in range(4)]
    return Dataset("folder", labels, tuple(pairs[:3]), tuple(pairs[3:]), ())


def recipe(tmp_path, **changes):
    values = {
        "DATASET": "folder", "DATA_DIR": str(tmp_path), "MINUTES": 4, "IMAGE_SIZE": (64, 96), "SEED": 0,
        "ARCHIVE": None, "RUN_DIR": str(tmp_path / "runs"), "EPOCHS": None, "N_FILTERS": 2, "HALF_RESOLUTION": True,
        "BATCH_SIZE": 2, "SIZE_STAGES": ((0.5, 0.5), (1, 1)), "LEARNING_RATE": 1e-2, "FRAMES_PER_DRIVE": 1,
        "TRAIN_ANEW": False,
    }  # fmt: skip
    return make_recipe("CPU", **values | changes)


def network(rate=1e-2, **switches):
    model = unet_model((None, None, 3), 2, 3, **{"depth": 1, "dropout_prob": 0, **switches})
    compile_unet(model, 3, rate)
    return model


# ---- the folder ----


def test_the_folders_name_tells_what_was_asked_for(tmp_path, dataset):
    folder = run_folder(recipe(tmp_path), network(), dataset)
    assert folder == tmp_path / "runs" / "folder_64x96_2_filters_4_minutes_seed_0"
    asked = run_folder(recipe(tmp_path, EPOCHS=12, SEED=3), network(), dataset)
    assert asked.name == "folder_64x96_2_filters_12_epochs_seed_3"


def test_the_settings_hold_all_that_decides_the_result(tmp_path, dataset):
    others = {"augment": [RandomView(), CopyPaste([2])], "class_weights": np.float32([1, 2, 3])}
    settings = json.loads((run_folder(recipe(tmp_path), network(), dataset, **others) / "settings.json").read_text())
    assert settings["recipe"]["minutes"] == 4
    assert settings["optimizer"]["name"] == "KernelMuon"
    assert [layer["class_name"] for layer in settings["network"]["layers"]].count("Conv2DTranspose") == 1
    assert settings["others"]["augment"][1] == "CopyPaste(classes=[2], share=0.5)"
    stat = dataset.train[1].mask.stat()
    assert settings["files"]["train"]["masks/1.png"] == [stat.st_size, stat.st_mtime_ns]
    assert str(tmp_path) not in json.dumps(settings)


def test_the_same_training_comes_back_to_its_folder_though_layers_have_new_names(tmp_path, dataset):
    folders = {run_folder(recipe(tmp_path), network(), dataset, augment=[RandomView()]) for _ in range(2)}
    assert len(folders) == 1
    moved = recipe(tmp_path, DATA_DIR=str(tmp_path / "images"))  # the place of the data is not asked, its files are
    assert run_folder(moved, network(), dataset, augment=[RandomView()]) in folders


def change_a_picture(dataset):
    path = dataset.train[0].image
    os.utime(path, ns=(0, path.stat().st_mtime_ns + 1))


def remove_a_pair(dataset):
    object.__setattr__(dataset, "train", dataset.train[1:])


OTHER_TRAININGS = {
    "network's switch": ({}, {"skip_connections": False}, {}, None),
    "filters": ({}, {"n_filters": 3}, {}, None),
    "rate": ({}, {"rate": 2e-2}, {}, None),
    "minutes": ({"MINUTES": 5}, {}, {}, None),
    "stages": ({"SIZE_STAGES": ((1, 1),)}, {}, {}, None),
    "pasting": ({}, {}, {"augment": [RandomView()]}, None),
    "zoom": ({}, {}, {"augment": [RandomView(zoom=(1, 2)), CopyPaste([2])]}, None),
    "weights": ({}, {}, {"class_weights": np.float32([1, 2, 3])}, None),
    "a picture's time": ({}, {}, {}, change_a_picture),
    "a pair less": ({}, {}, {}, remove_a_pair),
    "frozen": ({"START_FROM": "demo", "N_FILTERS": None, "FREEZE_ENCODER": True}, {}, {}, None),
}


@pytest.mark.parametrize("difference", OTHER_TRAININGS)
def test_another_training_never_lands_in_the_folder_of_the_first(tmp_path, dataset, difference):
    usual = {"augment": [RandomView(), CopyPaste([2])], "class_weights": None}
    first = run_folder(recipe(tmp_path), network(), dataset, **usual)
    (first / "best.keras").write_text("the reader's network")
    changed_recipe, switches, others, change = OTHER_TRAININGS[difference]
    if change:
        change(dataset)
    if "n_filters" in switches:
        model = unet_model((None, None, 3), switches["n_filters"], 3, depth=1, dropout_prob=0)
        compile_unet(model, 3, 1e-2)
    else:
        model = network(**switches)
    second = run_folder(recipe(tmp_path, **changed_recipe), model, dataset, **usual | others)
    assert second != first
    assert (first / "best.keras").read_text() == "the reader's network"
    assert run_folder(recipe(tmp_path, **changed_recipe), model, dataset, **usual | others) == second


def test_a_training_from_other_weights_is_another_one(tmp_path, dataset):
    """Wherever the file lies, and whatever it is called: its content decides."""
    paths = [tmp_path / name for name in ("a.keras", "b.keras", "c.keras")]
    unet_model((None, None, 3), 2, 3).save(paths[0])
    paths[1].write_bytes(paths[0].read_bytes())
    unet_model((None, None, 3), 2, 3).save(paths[2])
    folders = [
        run_folder(recipe(tmp_path, START_FROM=start, HALF_RESOLUTION=None), network(), dataset)
        for start in (*map(str, paths), "scratch")
    ]
    assert folders[0] == folders[1]
    assert len(set(folders)) == 3


def test_a_folder_that_is_not_ours_is_left_alone(tmp_path, dataset):
    (tmp_path / "runs" / "folder_64x96_2_filters_4_minutes_seed_0").mkdir(parents=True)
    assert run_folder(recipe(tmp_path), network(), dataset).name == "folder_64x96_2_filters_4_minutes_seed_0_2"


def test_a_finished_training_is_repeated_only_when_asked_and_then_elsewhere(tmp_path, dataset):
    first = run_folder(recipe(tmp_path), network(), dataset)
    anew = recipe(tmp_path, TRAIN_ANEW=True)
    assert run_folder(anew, network(), dataset) == first  # not finished: it goes on
    state = TrainingState(first, ProgressiveResizing((64, 96)))
    state.finished = True
    assert state._save(network())
    assert run_folder(recipe(tmp_path), network(), dataset) == first
    second = run_folder(anew, network(), dataset)
    assert second.name == first.name + "_2"
    assert run_folder(anew, network(), dataset) == second
    assert run_folder(recipe(tmp_path), network(), dataset) == second  # the newest one


def test_two_processes_that_ask_at_once_get_the_same_folder(tmp_path, dataset, monkeypatch):
    """The other one makes it between the look and the making."""
    from pathlib import Path

    rename, others = Path.rename, []

    def late(path, target):
        if not others:
            others.append(target)
            monkeypatch.setattr(Path, "rename", rename)
            with monkeypatch.context() as other:
                other.setattr(os, "getpid", lambda: 1)
                assert run_folder(recipe(tmp_path), network(), dataset) == target
        return rename(path, target)

    monkeypatch.setattr(Path, "rename", late)
    assert run_folder(recipe(tmp_path), network(), dataset) == others[0]
    assert [folder.name for folder in (tmp_path / "runs").iterdir()] == [others[0].name]


# ---- the plan ----


@pytest.fixture
def batches(dataset, labels):
    resizing = ProgressiveResizing((64, 96), ((0.5, 0.5), (1, 1)), epochs=4)
    train = make_batches(dataset.train, labels, (64, 96), 1, shuffle=True, resizing=resizing)
    return train, make_batches(dataset.validation, labels, (64, 96), 1, resizing=resizing), resizing


def test_the_plan_fits_into_the_minutes_and_is_kept(tmp_path, batches, capsys, monkeypatch):
    calls = []
    speed = runs.Speed(start=5.0, epoch=(6.0, 14.0))
    monkeypatch.setattr(runs, "measure_speed", lambda *_: calls.append(1) or speed)
    plan = make_plan(tmp_path, recipe(tmp_path, MINUTES=6), None, *batches)  # two thirds of them
    assert plan == runs.Plan(20, 3, speed)
    assert "20 epochs of 3 steps, about 3.4 minutes, of which timing a few steps took 0 s" in capsys.readouterr().out
    assert make_plan(tmp_path, recipe(tmp_path, MINUTES=6), None, *batches) == plan
    assert len(calls) == 1
    assert "planned before: 20 epochs" in capsys.readouterr().out


@pytest.mark.parametrize("epochs", [3, 100])
def test_epochs_that_are_given_are_exact_and_nothing_is_timed(tmp_path, batches, monkeypatch, epochs):
    monkeypatch.setattr(runs, "measure_speed", None)
    plan = make_plan(tmp_path, recipe(tmp_path, EPOCHS=epochs), None, *batches)
    assert (plan.epochs, plan.steps) == (epochs, 3)
    assert plan.speed.epoch[1] == 6 * plan.speed.epoch[0]  # 64x96 pixels and 32x32
    assert make_plan(tmp_path, recipe(tmp_path, EPOCHS=epochs), None, *batches) == plan


@pytest.mark.parametrize(("minutes", "epochs", "said"), [
    (0.01, 1, "48 epochs; MINUTES = 15.4 give them"), (1, 3, "48 epochs; MINUTES = 15.4 give them"),
    (15.3, 32, "48 epochs; MINUTES = 15.4 give them"), (15.4, 48, None), (90, 256, None),
])  # fmt: skip
def test_too_few_minutes_are_said_and_those_that_would_do_are_enough(
    tmp_path, batches, capsys, monkeypatch, minutes, epochs, said
):
    """An epoch has three steps, so that 100 steps are 48 epochs of the ladder."""
    monkeypatch.setattr(runs, "measure_speed", lambda *_: runs.Speed(start=5.0, epoch=(6.0, 18.1)))
    assert make_plan(tmp_path, recipe(tmp_path, MINUTES=minutes), None, *batches).epochs == epochs
    shown = capsys.readouterr().out
    assert ("are few here: photographs take 100 steps or more" in shown) == bool(said)
    assert said is None or said in shown


@pytest.mark.parametrize(("minutes", "steps"), [(0.2, 1), (0.5, 2), (0.7, 3)])
def test_an_epoch_that_does_not_fit_is_cut_to_the_minutes(tmp_path, batches, monkeypatch, minutes, steps):
    """Three steps take 18 s, and 95 % of two thirds of the minutes are there: 7.6, 19 and 26.6 s, less 5 s."""
    monkeypatch.setattr(runs, "measure_speed", lambda *_: runs.Speed(start=5.0, epoch=(6.0, 18.0)))
    plan = make_plan(tmp_path, recipe(tmp_path, MINUTES=minutes), None, *batches)
    assert (plan.epochs, plan.steps) == (1, steps)
    assert make_plan(tmp_path, recipe(tmp_path, MINUTES=minutes), None, *batches) == plan


def test_a_plan_by_real_timing_counts_what_the_timing_took(tmp_path, batches, capsys):
    assert make_plan(tmp_path, recipe(tmp_path, MINUTES=0.02), network(), *batches).epochs == 1
    shown = capsys.readouterr().out
    timing = float(re.search(r"a few steps took (\d+) s", shown)[1])
    assert 1 <= timing <= 60 * (0.05 + float(re.search(r"about ([\d.]+) minutes", shown)[1]))
    assert json.loads((tmp_path / "plan.json").read_text())["epochs"] == 1
    assert [path.name for path in tmp_path.iterdir() if "timing" in path.name] == []


def test_a_plan_of_an_older_version_is_followed(tmp_path, batches):
    speed = {"start": 5.0, "step": [0.1, 0.2], "epoch": [6.0, 14.0]}
    (tmp_path / "plan.json").write_text(json.dumps({"epochs": 20, "minutes": 3.4, "speed": speed}))
    assert make_plan(tmp_path, recipe(tmp_path), None, *batches) == runs.Plan(20, 3, runs.Speed(5.0, (6.0, 14.0)))
