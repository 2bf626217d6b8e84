import hashlib
import json
import os
import re
import shutil
import threading

import numpy as np
import pytest

from unet_helpers import checkpoints as runs
from unet_helpers.augmentation import CopyPaste, RandomResizedCrop
from unet_helpers.checkpoints import RunCheckpoint, make_plan, run_folder
from unet_helpers.datasets import Dataset
from unet_helpers.labels import Pair
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import make_recipe
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
    others = {"augment": [RandomResizedCrop(), CopyPaste([2])], "class_weights": np.float32([1, 2, 3])}
    settings = json.loads((run_folder(recipe(tmp_path), network(), dataset, **others) / "settings.json").read_text())
    assert settings["recipe"]["minutes"] == 4
    assert settings["optimizer"]["name"] == "KernelMuon"
    assert [layer["class_name"] for layer in settings["network"]["layers"]].count("Conv2DTranspose") == 1
    assert settings["others"]["augment"][1] == "CopyPaste(classes=[2], share=0.5)"
    mask = dataset.train[1].mask
    content = hashlib.sha256(mask.read_bytes()).hexdigest()
    assert settings["files"]["train"]["masks/1.png"] == [mask.stat().st_size, mask.stat().st_mtime_ns, content]
    assert str(tmp_path) not in json.dumps(settings)


def test_the_same_training_comes_back_to_its_folder_though_layers_have_new_names(tmp_path, dataset):
    folders = {run_folder(recipe(tmp_path), network(), dataset, augment=[RandomResizedCrop()]) for _ in range(2)}
    assert len(folders) == 1
    moved = recipe(tmp_path, DATA_DIR=str(tmp_path / "images"))  # the place of the data is not asked, its files are
    assert run_folder(moved, network(), dataset, augment=[RandomResizedCrop()]) in folders


def change_a_picture(dataset):
    """A byte of it, so that its size stays."""
    path = dataset.train[0].image
    content, changed = bytearray(path.read_bytes()), path.stat().st_mtime_ns + 1
    content[100] ^= 1
    path.write_bytes(content)
    os.utime(path, ns=(0, changed))


def remove_a_pair(dataset):
    object.__setattr__(dataset, "train", dataset.train[1:])


OTHER_TRAININGS = {
    "network's switch": ({}, {"skip_connections": False}, {}, None),
    "filters": ({}, {"n_filters": 3}, {}, None),
    "rate": ({}, {"rate": 2e-2}, {}, None),
    "minutes": ({"MINUTES": 5}, {}, {}, None),
    "stages": ({"SIZE_STAGES": ((1, 1),)}, {}, {}, None),
    "pasting": ({}, {}, {"augment": [RandomResizedCrop()]}, None),
    "zoom": ({}, {}, {"augment": [RandomResizedCrop(zoom=(1, 2)), CopyPaste([2])]}, None),
    "weights": ({}, {}, {"class_weights": np.float32([1, 2, 3])}, None),
    "a picture": ({}, {}, {}, change_a_picture),
    "a pair less": ({}, {}, {}, remove_a_pair),
    "frozen": ({"START_FROM": "demo", "N_FILTERS": None, "FREEZE_ENCODER": True}, {}, {}, None),
}


@pytest.mark.parametrize("difference", OTHER_TRAININGS)
def test_another_training_never_lands_in_the_folder_of_the_first(tmp_path, dataset, difference):
    usual = {"augment": [RandomResizedCrop(), CopyPaste([2])], "class_weights": None}
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


def copied(dataset, folder):
    """The same data in another place, where it has other times."""
    for pair in dataset.train + dataset.validation:
        for path in pair:
            new = folder / path.parent.name / path.name
            new.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, new)
            os.utime(new, (1, 1))
    move = {pair: Pair(*(folder / path.parent.name / path.name for path in pair)) for pair in dataset.train}
    return Dataset("folder", dataset.labels, tuple(move.values()), dataset.validation, ())


def test_the_same_content_is_the_same_training_however_old_its_files_are(tmp_path, dataset, capsys):
    first = run_folder(recipe(tmp_path), network(), dataset)
    assert run_folder(recipe(tmp_path), network(), copied(dataset, tmp_path / "copy")) == first
    for path in (*dataset.train[0], *dataset.validation[0]):
        path.write_bytes(path.read_bytes())  # as a preparation does that is made anew
    assert run_folder(recipe(tmp_path), network(), dataset) == first
    assert capsys.readouterr().out == ""


def test_settings_of_an_older_version_without_content_are_followed(tmp_path, dataset):
    first = run_folder(recipe(tmp_path), network(), dataset)
    settings = json.loads((first / "settings.json").read_text())
    for files in settings["files"].values():
        files.update({name: note[:2] for name, note in files.items()})
    (first / "settings.json").write_text(json.dumps(settings))
    assert run_folder(recipe(tmp_path), network(), dataset) == first
    os.utime(dataset.train[0].image, (1, 1))  # then nobody knows
    assert run_folder(recipe(tmp_path), network(), dataset) != first


@pytest.mark.parametrize(("difference", "said"), {
    "a picture": "1 of the files to train, such as images/0.png)", "a pair less": "2 of the files to train, such as",
    "rate": "learning_rate: 0.01 there, 0.02 here", "zoom": "here", "network's switch": "the layers of the network",
    "batch": "batch_size: 2 there, 4 here", "not ours": "its settings.json can't be read",
}.items())  # fmt: skip
def test_another_folder_is_never_begun_without_a_word(tmp_path, dataset, capsys, difference, said):
    first = run_folder(recipe(tmp_path), network(), dataset, augment=[RandomResizedCrop()])
    assert capsys.readouterr().out == ""
    changes, switches, others, change = OTHER_TRAININGS.get(difference, ({}, {}, {}, None))
    if change:
        change(dataset)
    if difference == "batch":
        changes = {"BATCH_SIZE": 4}
    if difference == "not ours":
        (first / "settings.json").unlink()
    run_folder(recipe(tmp_path, **changes), network(**switches), dataset, **{"augment": [RandomResizedCrop()]} | others)
    shown = capsys.readouterr().out
    assert re.match(rf"note: {first.name} is of another training \(.*\); this one goes to {first.name}_2\n$", shown)
    assert said in shown


ODD = ["[]", "3", "{", "[" * 100_000, '{"recipe": 3}', '{"recipe": {}, "optimizer": {}, "others": {}, "files": 3}']


@pytest.mark.parametrize("content", [*ODD, "files"])
def test_a_record_of_wrong_types_is_that_of_no_training(tmp_path, dataset, capsys, content):
    first = run_folder(recipe(tmp_path), network(), dataset)
    if content == "files":
        settings = json.loads((first / "settings.json").read_text())
        content = json.dumps(settings | {"files": {"train": {"images/0.png": 3}, "validation": []}})
    (first / "settings.json").write_text(content)
    assert run_folder(recipe(tmp_path), network(), dataset).name == f"{first.name}_2"
    assert "note: " in capsys.readouterr().out
    assert (first / "settings.json").read_text() == content


@pytest.mark.parametrize("content", [*ODD, '{"epochs": "x", "speed": {"start": 0, "epoch": [1]}}', '{"epochs": 3}'])
def test_a_plan_of_wrong_types_is_named(tmp_path, batches, content):
    """To plan anew on the quiet would change the schedule of a training that has begun."""
    (tmp_path / "plan.json").write_text(content)
    with pytest.raises(ValueError, match=re.escape(f"{tmp_path / 'plan.json'}: it can't be read; delete it and run")):
        make_plan(tmp_path, recipe(tmp_path, EPOCHS=3), network(), *batches)


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


def test_a_finished_training_is_repeated_only_when_asked_and_then_elsewhere(tmp_path, dataset, capsys):
    first = run_folder(recipe(tmp_path), network(), dataset)
    anew = recipe(tmp_path, TRAIN_ANEW=True)
    assert run_folder(anew, network(), dataset) == first  # not finished: it goes on
    state = RunCheckpoint(first, ProgressiveResizing((64, 96)))
    state.finished = True
    assert state._save(network())
    assert run_folder(recipe(tmp_path), network(), dataset) == first
    second = run_folder(anew, network(), dataset)
    assert second.name == first.name + "_2"
    assert f"TRAIN_ANEW: {first.name} is finished and stays; this training goes to" in capsys.readouterr().out
    assert run_folder(anew, network(), dataset) == second
    assert run_folder(recipe(tmp_path), network(), dataset) == second  # the newest one


def test_two_that_ask_at_once_get_the_same_folder(tmp_path, dataset, monkeypatch):
    """The other one asks while the first makes it."""
    make, found, models = runs._make_folder, [], [network(), network()]

    def ask():
        found.append(run_folder(recipe(tmp_path), models.pop(), dataset))

    other = threading.Thread(target=ask)

    def slowly(*arguments):
        if not other.ident:
            other.start()
            other.join(0.5)
            assert found == []
        make(*arguments)

    monkeypatch.setattr(runs, "_make_folder", slowly)
    ask()
    other.join(60)
    assert found[0] == found[1]
    assert list((tmp_path / "runs").iterdir()) == [found[0]]


def test_a_folder_that_cant_be_made_is_one_sentence(tmp_path, dataset):
    """A link to nowhere is no folder, and none can take its place."""
    link = tmp_path / "runs" / "folder_64x96_2_filters_4_minutes_seed_0"
    link.parent.mkdir()
    link.symlink_to(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"^RUN_DIR: .*seed_0 can't be made \(.+\); make its folder writable, or give"):
        run_folder(recipe(tmp_path), network(), dataset)
    assert list(link.parent.iterdir()) == [link]


def test_what_a_killed_start_left_is_deleted_and_nothing_else(tmp_path, dataset):
    name = "folder_64x96_2_filters_4_minutes_seed_0"
    for left in (f"{name}.partial-4194305", f"{name}.partial-mine", f"{name}_2.partial-4194305"):
        (tmp_path / "runs" / left).mkdir(parents=True)
        (tmp_path / "runs" / left / "settings.json").write_text("{")
    run_folder(recipe(tmp_path), network(), dataset)
    kept = sorted([name, f"{name}.partial-mine", f"{name}_2.partial-4194305"])
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == kept
    run_folder(recipe(tmp_path, BATCH_SIZE=4), network(), dataset)
    assert sorted(path.name for path in (tmp_path / "runs").iterdir()) == sorted([*kept[:2], f"{name}_2"])


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
