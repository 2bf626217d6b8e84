import json
import re
from dataclasses import asdict, replace
from types import SimpleNamespace

import keras
import numpy as np
import pytest
import tensorflow as tf
from limits import needs_getrusage, needs_sigkill
from PIL import Image

from benchmarks import faults, learning, lesson, throughput, transfer
from unet_helpers.datasets import load_dataset, sequence_of
from unet_helpers.labels import CARLA
from unet_helpers.losses import cross_entropy_and_dice
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.networks import save_network
from unet_helpers.optimizers import KernelMuon


@pytest.fixture
def camvid(tmp_path):
    """Eight noisy images in SegNet's layout: sky above road, void rows at the bottom."""
    rng = np.random.default_rng(0)
    for split, number in (("train", 8), ("val", 4)):
        for folder in (split, f"{split}annot"):
            (tmp_path / "camvid" / folder).mkdir(parents=True)
        for n in range(number):
            values = np.repeat(np.uint8([0, 3, 11]), (30, 30, 4))[:, None] * np.ones((1, 96), np.uint8)
            image = np.where(values[..., None] == 0, [90, 130, 220], 90) + rng.integers(0, 20, (64, 96, 3))
            Image.fromarray(image.astype(np.uint8)).save(tmp_path / "camvid" / split / f"{n}.png")
            Image.fromarray(values).save(tmp_path / "camvid" / f"{split}annot" / f"{n}.png")
    return tmp_path / "camvid"


@pytest.mark.slow
def test_recipes_are_trained_for_their_time_and_scored_alike(camvid, tmp_path, capsys, tiny):
    options = ["--seeds", "1", "--recipes", "tutorial,adamw@0.001", "--out", str(tmp_path / "out"), "--scores", "3"]
    learning.main(["--data", str(camvid), "--minutes", "0.05", *options])
    record = json.loads((tmp_path / "out" / "learning.json").read_text())
    assert record["data"] == "camvid, validation: 4 images at 64x96"
    results = record["results"]
    assert [(result["recipe"], result["seed"]) for result in results] == [("tutorial", 1), ("adamw", 1)]
    for result in results:
        assert result["seconds"] >= 60 * result["minutes"] - 0.1
        assert result["curve"][-1] == [result["seconds"], result["without_tta"]]
        assert len(result["curve"]) <= 3
        assert result["curve"] == sorted(result["curve"])
        assert set(result["iou"]) >= {"sky", "road", "bicyclist"}
    assert results[0]["epochs"] > 1
    tables = (tmp_path / "out" / "learning.md").read_text()
    assert tables in capsys.readouterr().out
    assert re.search(r"\| road( \| [01]\.\d{3}){2} \|", tables)
    assert (tmp_path / "out" / "learning.png").is_file()


TINY = {
    "IMAGE_SIZE": (64, 96), "N_FILTERS": 2, "HALF_RESOLUTION": True, "BATCH_SIZE": 4, "LEARNING_RATE": 5e-3,
    "SIZE_STAGES": ((0.65, 0.5), (1, 1)), "RUN_DIR": ".",
}  # fmt: skip


@pytest.fixture
def tiny(monkeypatch):
    """The notebook's recipe for a network so small that a training takes a second."""
    recipe = learning.notebook_recipe
    for script in (learning, transfer):
        monkeypatch.setattr(script, "notebook_recipe", lambda dataset, **changes: recipe(dataset, **TINY | changes))


def test_the_assignments_recipe_has_the_assignments_errors(camvid):
    dataset = load_dataset("camvid", camvid)
    training = learning.assignment(dataset, dataset.validation[:1], 0, tf.Variable(0.0))
    assert (training.model.count_params(), training.epochs) == (8_640_471, 40)
    images, masks = next(iter(training.batches))
    seen = training.model.layers[1](images)
    assert isinstance(training.model.layers[1], keras.layers.Rescaling)
    assert 0 <= float(tf.reduce_min(seen)) <= float(tf.reduce_max(seen)) <= 1 / 255 + 1e-4  # scaled twice
    assert images.shape == (8, 96, 128, 3)
    assert set(np.unique(masks)) == {0, 3, 11}  # void is learned as a class
    score = training.score(True)
    assert score.confusion.shape == (11, 11)
    assert score.confusion.sum() == 60 * 96  # void is not scored, and at the masks' own size


def test_sizes_change_after_their_share_of_the_steps(monkeypatch):
    """Three quarters of the steps use small images and are four times as fast: 3/7 of the time."""
    resizing = learning.ProgressiveResizing((64, 96), ((0.75, 0.5), (1, 1)), epochs=1)
    training = learning.Training(None, None, None, resizing=resizing)
    monkeypatch.setattr(learning, "seconds_per_step", lambda _, stage: (1, 4)[stage])
    time, steps = learning.time_shares(training)
    assert time == pytest.approx([0, 3 / 7, 1])
    assert steps == [0, 0.75, 1]


def test_a_target_that_one_seed_missed_is_not_reached():
    def result(seed, miou):
        iou, curve = {"sky": miou, "sign": None}, [(10.0, miou / 2), (20.0, miou)]
        return learning.Result("tutorial", seed, 5, 1000, 20.0, 2.0, 30.0, miou, miou - 0.01, 0.5, iou, curve)

    table = learning.tables([result(0, 0.45), result(1, 0.35)])
    assert "| tutorial, 5 min | 2 | 1,000 | 30.0 | 2.0 | 15 | 20 | - |" in table
    assert "| - | 0.400 | 0.350 to 0.450 | 0.390 |" in table
    assert "| sign | absent |" in table


def test_the_ladder_leads_from_the_textbook_to_the_tutorial(camvid, tiny):
    """The first step is the textbook's recipe, and with all changes it is the tutorial's."""
    dataset, names = load_dataset("camvid", camvid), (learning.LADDER[0], learning.LADDER[-2], "tutorial")
    first, last, tutorial = (learning.RECIPES[name](dataset, dataset.validation, 0, tf.Variable(0.0)) for name in names)
    assert type(first.model.optimizer) is keras.optimizers.Adam
    assert float(first.model.optimizer.learning_rate) == pytest.approx(1e-3)
    assert first.model.loss.name == "sparse_categorical_crossentropy"
    assert not any("Normalization" in type(layer).__name__ for layer in first.model.layers)
    assert isinstance(last.model.optimizer, KernelMuon)
    assert (last.model.loss, last.resizing.sizes) == (tutorial.model.loss, tutorial.resizing.sizes)
    assert [type(layer) for layer in last.model.layers] == [type(layer) for layer in tutorial.model.layers]
    for one, other in zip(next(iter(last.batches)), next(iter(tutorial.batches)), strict=True):
        np.testing.assert_array_equal(one, other)


@pytest.mark.parametrize(("step", "optimizer", "rate", "decay"), [
    ("+ Dice", "Adam", 1e-3, None), ("+ tuned Adam", "Adam", 5e-3, None), ("+ AdamW", "AdamW", 5e-3, 0.01),
    ("+ Muon", "KernelMuon", 5e-3, 0.01), ("+ high rate", "KernelMuon", 2e-2, 0.01),
    ("without Muon", "AdamW", 5e-3, 0.01),
])  # fmt: skip
def test_from_adam_to_muon_one_thing_changes_at_a_time(camvid, monkeypatch, tiny, step, optimizer, rate, decay):
    recipe, dataset = replace(learning.notebook_recipe("camvid"), learning_rate=2e-2), load_dataset("camvid", camvid)
    monkeypatch.setattr(learning, "notebook_recipe", lambda name: recipe)
    share = tf.Variable(0.5)  # the schedule is at its highest
    found = learning.RECIPES[step](dataset, dataset.validation, 0, share).model.optimizer
    assert (type(found).__name__, found.weight_decay) == (optimizer, decay)
    if optimizer != "KernelMuon":
        assert found.beta_2 == (0.999 if step == "+ Dice" else 0.95)
    assert float(found.learning_rate) == pytest.approx(rate)


def test_without_a_change_all_others_are_there(camvid, tiny):
    dataset = load_dataset("camvid", camvid)
    recipes = {name: learning.RECIPES[f"without {name}"] for name in learning.LEFT_OUT}
    found = {name: recipe(dataset, dataset.validation, 0, tf.Variable(0.5)) for name, recipe in recipes.items()}
    normalized = {k: any("Normalization" in type(x).__name__ for x in t.model.layers) for k, t in found.items()}
    images, masks = zip(*(next(iter(training.batches)) for training in found.values()), strict=True)
    assert [name for name in found if not normalized[name]] == ["normalization"]
    assert [k for k, t in found.items() if t.model.loss is not cross_entropy_and_dice] == ["Dice"]
    assert [k for k, t in found.items() if not isinstance(t.model.optimizer, KernelMuon)] == ["Muon"]
    is_constant = [k for k, t in found.items() if isinstance(t.model.optimizer._learning_rate, keras.Variable)]
    assert is_constant == ["schedule"]
    sizes = [(image.shape[1:3], mask.shape[1:3]) for image, mask in zip(images, masks, strict=True)]
    assert [name for name, (image, mask) in zip(found, sizes, strict=True) if image == mask] == ["output stride 2"]
    assert [name for name, training in found.items() if len(training.resizing.sizes) == 1] == ["progressive resizing"]
    assert [name for name, each in zip(found, images, strict=True) if each.dtype == np.uint8] == ["augmentation"]


def test_what_the_notebook_reads_is_made_of_the_trainings(tmp_path):
    """Also of the trainings of two runs, in any order."""

    def result(recipe, seed, miou):
        curve, iou = [(60.0, 0.31), (120.0, miou)], {"sky": miou + 0.3, "sign": None}
        known = {"iou_without_tta": {"sky": miou + 0.2, "sign": None}}
        return learning.Result(recipe, seed, 2, 9, 120.0, 2.0, 30.0, miou + 0.01, miou, 0.5, iou, curve, **known)

    runs = [[result("without Dice", 0, 0.1), result("textbook", 1, 0.2), result("+ augmentation", 1, 0.6)]]
    runs += [[result("textbook", 0, 0.4), result("without Dice", 1, 0.3), result("+ augmentation", 0, 0.5)]]
    for number, run in enumerate(runs):
        record = {"data": "demo", "results": [asdict(each) for each in run]}
        (tmp_path / f"{number}.json").write_text(json.dumps(record))
    learning.main(["--join", *(str(tmp_path / f"{number}.json") for number in (0, 1)), "--out", str(tmp_path / "out")])
    summary = json.loads((tmp_path / "out" / "changes.json").read_text())
    assert (summary["data"], summary["minutes"], summary["seeds"]) == ("demo", 2, 2)
    assert [list(step.values()) for step in summary["steps"]] == [  # the textbook's mean is 0.3
        ["textbook", [0.4, 0.2], {"sky": 0.5, "sign": None}, 120.0],
        ["+ augmentation", [0.5, 0.6], {"sky": 0.75, "sign": None}, 60.0],
        ["+ TTA", [0.51, 0.61], {"sky": 0.85, "sign": None}, 60.0],
    ]  # fmt: skip
    assert [list(step.values()) for step in summary["left_out"]] == [
        ["without TTA", [0.5, 0.6], {"sky": 0.75, "sign": None}],
        ["without Dice", [0.11, 0.31], {"sky": 0.5, "sign": None}],
    ]  # fmt: skip


@pytest.mark.slow
def test_photographs_start_from_the_drawn_scenes_and_train_for_as_many_epochs(camvid, tmp_path, monkeypatch, tiny):
    """And a second call adds to what the first has found."""
    monkeypatch.setattr(transfer, "DRAWN_EPOCHS", 2)
    monkeypatch.setattr(transfer, "DRAWN_IMAGES", 4)
    switches = {"up_kernel_size": 2, "last_conv": False, "dropout_prob": 0, "half_resolution": True}
    network = with_keras_layers_only(unet_model((None, None, 3), 2, CARLA.n_classes, **switches))
    save_network(tmp_path / "drawn.keras", network, CARLA, (64, 96))
    taken = []
    monkeypatch.setattr(transfer, "transfer_weights", lambda *args, **options: taken.append((args[2], options)))
    usual = ["--data", str(camvid), "--network", str(tmp_path / "drawn.keras"), "--epochs", "2"]
    usual += ["--out", str(tmp_path / "out")]
    transfer.main([*usual, "--seeds", "3", "--trainings", "drawn,long"])
    transfer.main([*usual, "--seeds", "4", "--trainings", "frozen@0.01", "--note", ", few scenes"])
    assert taken == [(tmp_path / "drawn.keras", {"freeze_encoder": frozen}) for frozen in (False, True)]
    rows = json.loads((tmp_path / "out" / "transfer.json").read_text())["trainings"]
    # Long: 8 x (4 x 0.25 + 1) images of full size, where 4 x 1.25 drawn ones and 8 x 1.25 photographs were seen.
    assert [(row["name"], row["epochs"], row["seeds"]) for row in rows] == [
        ("from the drawn scenes", 2, [3]), ("long: from scratch", 5, [3]),
        ("from the drawn scenes, encoder frozen, rate 0.01, few scenes", 2, [4]),
    ]  # fmt: skip
    assert all(len(row["curve"]) == row["epochs"] and len(row["miou"]) == 1 for row in rows)


def test_part_1_is_trained_with_and_without_skips_and_scored_on_both_kinds_of_frames(tmp_path, monkeypatch):
    recipe, scored = learning.notebook_recipe("demo", **TINY | {"FRAMES_PER_DRIVE": 1}), []

    def score(model, pairs, *_, **__):
        scored.append((model, pairs))
        return SimpleNamespace(miou=len(scored) / 10)

    monkeypatch.setattr(lesson, "notebook_recipe", lambda dataset: recipe)
    monkeypatch.setattr(lesson, "evaluate_model", score)
    out = tmp_path / "lesson.json"
    lesson.main(["--data", str(tmp_path), "--epochs", "1,2", "--seeds", "4", "--out", str(out)])
    record = json.loads(out.read_text())
    assert record["trainings"] == [
        {"skips": True, "seed": 4, "new drives": [0.1, 0.3], "set aside": [0.2, 0.4]},
        {"skips": False, "seed": 4, "new drives": [0.5, 0.7], "set aside": [0.6, 0.8]},
    ]
    assert record["scaled twice"] == [{"skips": True, "seed": 4, "new drives": [0.9, 1.1], "set aside": [1.0, 1.2]}]
    *models, twice = [model for model, _ in scored[::4]]
    assert [any(layer.name.startswith("concatenate") for layer in model.layers) for model in models] == [True, False]
    # What the network proper gets of a white image is white's 255 divided by 255, which its own rescaling makes -0.99.
    white = np.full((1, *recipe.output_size, 3), 255, np.float32)
    np.testing.assert_allclose(twice(white), twice.layers[-1](white / 255), atol=1e-5)
    drives = [set(map(sequence_of, pairs)) for _, pairs in scored[:2]]
    trained = set(map(sequence_of, load_dataset("demo", tmp_path, frames_per_drive=1).train))
    assert not drives[0] & trained
    assert drives[1] <= trained


def test_the_lesson_says_what_was_measured():
    """Why the skip connections stay: each seed gained, and more with more epochs. Neighbouring frames flatter. And why
    CamVid starts from the drawn scenes: every seed gained, though they are not worth their own time."""
    runs = {(run["skips"], run["seed"]): run for run in json.loads(lesson.FILE.read_text())["trainings"]}
    drives = np.array([[runs[skips, n]["new drives"] for n in range(3)] for skips in (False, True)])
    gaps = [runs[True, n]["set aside"] for n in range(3)] - drives[1]
    assert (drives[1, :, 0] > drives[0, :, 0]).all()
    assert (np.diff(drives[1] - drives[0], axis=1) > 0).all()
    assert (gaps > 0).all()
    twice = json.loads(lesson.FILE.read_text())["scaled twice"]
    assert [run["seed"] for run in twice] == [0, 1, 2]
    assert (np.array([run["new drives"] for run in twice]) < drives[1] - 0.1).all()  # more than a seed makes
    assert gaps[:, 0].mean() < gaps[:, -1].mean()
    found = json.loads((learning.ROOT / "benchmarks" / "transfer_camvid.json").read_text())
    rows = {row["name"]: row for row in found["trainings"]}
    scratch, drawn, long = (rows[name] for name in ("from scratch", "from the drawn scenes", "long: from scratch"))
    assert scratch["epochs"] == drawn["epochs"] < long["epochs"]
    assert all(b > a for a, b in zip(scratch["miou"], drawn["miou"], strict=True))
    assert np.mean(long["miou"]) > np.mean(drawn["miou"])


def test_section_9_says_what_was_measured():
    """Which changes gain with every seed, which lose, and what it costs to leave one out of the whole recipe."""
    found = json.loads((learning.ROOT / "benchmarks" / "changes_demo.json").read_text())
    miou = {step["name"]: np.array(step["miou"]) for step in found["steps"]}
    names = list(miou)
    gains = {new: miou[new] - miou[old] for old, new in zip(names, names[1:], strict=False)}
    assert [name for name in gains if (gains[name] < 0).all()] == ["+ augmentation"]
    assert [name for name in gains if not (gains[name] > 0).all()] == ["+ AdamW", "+ output stride 2", "+ augmentation"]
    assert max(gains, key=lambda name: gains[name].mean()) == "+ Muon"
    left = {row["name"]: np.array(row["miou"]) - miou["+ TTA"] for row in found["left_out"]}
    costly = [name for name in left if left[name].max() < -0.05]
    assert costly == ["without normalization", "without Dice", "without Muon"]
    assert [name for name in left if (left[name] > 0).any()] == ["without schedule", "without augmentation and TTA"]
    assert (left["without augmentation and TTA"] > 0).all()
    iou = {row["name"]: row["iou"] for row in found["steps"] + found["left_out"]}
    assert all(iou["without Dice"][k] < iou["+ TTA"][k] - 0.1 for k in ("fence", "other", "traffic sign"))


def test_wrong_arguments_are_named(capsys):
    for option, value, said in (("--recipes", "tutorail", "'tutorail'"), ("--minutes", "0", "--minutes: ")):
        with pytest.raises(SystemExit):
            learning.main([option, value])
        assert said in capsys.readouterr().err


def test_muons_operations_are_counted_as_by_hand():
    model = keras.Sequential([keras.Input((8, 8, 1)), keras.layers.Conv2D(2, 3), keras.layers.Conv2D(3, 1)])
    model.compile(KernelMuon(0.1, ns_steps=3))
    model.optimizer.build(model.trainable_variables)
    products = 3 * (2 * 9 * 2 + 2**3 + 2 * 2 * 9)  # of the 9 x 2 matrix; the 1x1 kernel is AdamW's
    assert throughput.optimizer_gflop(model) == pytest.approx(2 * products / 1e9)


@needs_getrusage
def test_a_measurement_is_made_in_a_process_of_its_own():
    pipeline, _ = throughput.in_own_process("measure_pipeline", 0.01, (32, 64), 2, 4, ".jpg", False)
    assert pipeline.keys() == {"first", "later", "peak_mib"}
    assert min(pipeline.values()) > 1
    with pytest.raises(RuntimeError, match="measure_network.*ended with 1"):
        throughput.in_own_process("measure_network", 0.01, (32, 33), 2, True, 1)


@needs_sigkill
@pytest.mark.slow
@pytest.mark.parametrize("backend", ["tensorflow", "jax"])
def test_sixteen_times_the_data_need_no_more_memory(backend):
    """In as many steps; decoded, the images would take 293 MiB more."""
    pytest.importorskip(backend)
    environment = {"KERAS_BACKEND": backend}
    few, many = (
        throughput.in_own_process("measure_memory", (384, 512), n_pairs, 64, **environment)[0] for n_pairs in (32, 512)
    )
    assert many["decoded_mib"] - few["decoded_mib"] > 290
    assert many["peak_mib"] - few["peak_mib"] < 100


@pytest.mark.slow
def test_a_killed_run_resumes(tmp_path):
    """The short form of faults.py: a kill while unpacking, while a checkpoint is written, and while scoring."""
    kinds = ["unpack", "checkpoint", "score"]
    results = faults.main(["--kills", "3", "--kinds", ",".join(kinds), "--out", str(tmp_path)])
    assert [(result["kind"], result["resumed"]) for result in results] == [(kind, True) for kind in kinds], results
    assert not any(result["lost"] or result["missing or double"] for result in results)
    assert "| together | 3 | 3 | 3 | 0 | 0 |" in (tmp_path / "faults.md").read_text()
