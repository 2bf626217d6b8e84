"""Each cause is made with real parts: PNG pairs, `make_batches`, a tiny network that is trained on them."""

import contextlib
import json
import re
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import write_pair_to
from PIL import Image

from unet_helpers import diagnosis as evidence
from unet_helpers.__main__ import main
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.checkpoints import RunCheckpoint, run_folder
from unet_helpers.datasets import Dataset
from unet_helpers.diagnosis import Alignment, compare_edges, diagnose, gather
from unet_helpers.labels import CARLA, VOID, LabelMap, Pair
from unet_helpers.model import unet_model
from unet_helpers.pipeline import make_batches
from unet_helpers.recipe import make_recipe
from unet_helpers.training import ProgressiveResizing, compile_unet

SIZE = (32, 32)
COLORS = ((0, 0, 255), (128, 64, 128), (255, 0, 0))
THREE = LabelMap(("sky", "road", "car"), COLORS)
TWO = LabelMap(("background", "thing"), COLORS[:2])
RATE = "rate far too high"


def write_pairs(folder, change=lambda ids: ids) -> list[Pair]:
    """Six pairs of three classes, each mask written anew with changed ids."""
    pairs = [write_pair_to(folder, f"p{n}", SIZE, seed=n) for n in range(6)]
    for pair in pairs:
        Image.fromarray(np.uint8(change(np.asarray(Image.open(pair.mask))))).save(pair.mask)
    return pairs


def train(pairs, labels, rate=1e-2, epochs=12, *, helpers=False) -> tuple:
    """(batches, labels, log, model) of a short training: by Adam as in a textbook, or as the helpers compile."""
    batches = make_batches(pairs, labels, SIZE, 2, shuffle=True)
    keras.utils.set_random_seed(0)
    normalization = "batch" if helpers else None
    model = unet_model((*SIZE, 3), 4, labels.n_classes, depth=1, dropout_prob=0, normalization=normalization)
    if helpers:
        compile_unet(model, labels.n_classes, rate)
    else:
        loss = keras.losses.SparseCategoricalCrossentropy(from_logits=True, ignore_class=VOID)
        miou = keras.metrics.MeanIoU(labels.n_classes, "mIoU", "float32", ignore_class=VOID, sparse_y_pred=False)
        model.compile(keras.optimizers.Adam(rate), loss, metrics=[miou])
    log = model.fit(batches, epochs=epochs, shuffle=False, verbose=0).history
    return batches, labels, log, model


def linear(kernel, bias) -> keras.Model:
    """A network of one 1x1 convolution. kernel: (3, K), bias: (K,)."""
    inputs = keras.Input((*SIZE, 3))
    convolution = keras.layers.Conv2D(len(bias), 1)
    model = keras.Model(inputs, convolution(inputs))
    convolution.set_weights([np.float32(kernel)[None, None], np.float32(bias)])
    return model


def to_1(images, masks):
    return tf.cast(images, tf.float32) / 255, masks


def from_minus_1_to_1(images, masks):
    return tf.cast(images, tf.float32) / 127.5 - 1, masks


def causes(diagnosis) -> list[str]:
    return [finding.cause for finding in diagnosis.findings]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    keras.utils.set_random_seed(0)
    return train(write_pairs(tmp_path_factory.mktemp("healthy")), THREE, 2e-2, helpers=True)


# ---- a training that went well ----


def test_a_healthy_training_has_no_finding(healthy):
    diagnosis = diagnose(*healthy)
    assert diagnosis.findings == []
    said = str(diagnosis)
    assert said.startswith("nothing wrong was found\nlooked at:\n  images: 6, values ")
    assert "masks: 3 of 3 classes, 0.0% void, values 0, 1, 2 in the files" in said
    assert "log: 12 epochs" in said
    assert "predictions: 3 classes" in said


def test_batches_whose_images_grow_are_looked_at_in_their_last_size(tmp_path):
    """As the lesson has them at the end of its training."""
    resizing = ProgressiveResizing((64, 64), ((0.5, 0.5), (1, 1)), epochs=2)
    batches = make_batches(write_pairs(tmp_path), THREE, (64, 64), 2, shuffle=True, resizing=resizing)
    resizing.on_epoch_begin(1)
    assert "values 0, 1, 2 in the files" in str(diagnose(batches, THREE))
    assert next(iter(batches))[0].shape[1:3] == (64, 64)


def test_ids_that_only_look_black_are_no_fault(healthy):
    """The reader's "my masks are all black": the answer is how to look at them."""
    batches, labels, *_ = healthy
    diagnosis = diagnose(batches, labels)
    assert diagnosis.findings == []
    assert "ids up to 2 look black, and that is fine: unet_helpers.labels.colorize(mask, labels)" in str(diagnosis)
    assert "log: not given" in str(diagnosis)
    assert "predictions: no network was given" in str(diagnosis)


def test_a_network_that_finds_a_rare_class_is_healthy(tmp_path):
    """Nine tenths of its prediction are one class, and that is right. The thing is red."""
    batches = make_batches(write_pairs(tmp_path, lambda ids: ids > 1), TWO, SIZE, 2)
    diagnosis = diagnose(batches, TWO, model=linear([[0, 1], [0, 0], [0, 0]], [0, -150]))
    assert diagnosis.findings == []
    assert "predictions: 2 classes" in str(diagnosis)


# ---- each cause, made ----


def test_what_is_wrong_with_a_trained_network_is_named_with_its_cure(tmp_path):
    diagnosis = diagnose(*train(write_pairs(tmp_path, lambda ids: 255 * (ids > 1)), TWO, epochs=6))
    (finding,) = diagnosis.findings
    assert (finding.symptom, finding.cause) == ("all black", "0/255")
    assert re.search("0, 255: .* 'background'", finding.evidence)
    said = f"all black: 0/255. {finding.evidence}\n  Cure: {finding.cure}.\nlooked at:\n"
    assert str(diagnosis).startswith(said)


def test_a_rare_class_that_is_not_learned_is_imbalance(tmp_path):
    """One pixel of twenty, and a loss that fell as far as their shares allow."""
    pairs = write_pairs(tmp_path, lambda ids: np.random.default_rng(0).random(ids.shape) < 0.05)
    batches = make_batches(pairs, TWO, SIZE, 2)
    log = {"loss": [0.7, 0.3, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2], "mIoU": [0.47] * 8}
    (finding,) = diagnose(batches, TWO, log, linear(np.zeros((3, 2)), [3, 0])).findings
    assert (finding.symptom, finding.cause) == ("all black", "class imbalance")
    assert "100.0% of the prediction and 9" in finding.evidence


BAD_MASKS = {
    "0 and 255": (lambda ids: 255 * (ids > 1), THREE, "0/255", "divide the masks by 255"),
    "from 1": (lambda ids: ids + 1, THREE, "off by one", "subtract 1"),
    "from 1, two names": (lambda ids: 1 + (ids > 1), TWO, "off by one", "subtract 1"),
    "from 1, and 3 declared void": (
        lambda ids: ids + 1, LabelMap(THREE.names, COLORS, void_values=(3, 255)), "off by one", "subtract 1",
    ),
    "all 255": (lambda ids: 0 * ids + 255, THREE, "all void", "ids 0 to 2"),
    "all unknown": (lambda ids: 70 + ids, THREE, "all void", "ids 0 to 2"),
    "empty": (lambda ids: 0 * ids, THREE, "one class", "label the others"),
    "a name too few": (lambda ids: ids, TWO, "unknown ids", "name all classes"),
    "made smaller smoothly": (
        lambda ids: Image.fromarray(np.uint8(255 * (ids > 1))).resize((30, 30), Image.Resampling.BILINEAR), TWO,
        "unknown ids", "nearest neighbour",
    ),
}  # fmt: skip


@pytest.mark.parametrize("fault", BAD_MASKS)
def test_bad_masks_are_known_before_any_training(tmp_path, fault):
    change, labels, cause, cure = BAD_MASKS[fault]
    diagnosis = diagnose(make_batches(write_pairs(tmp_path, change), labels, SIZE, 2), labels)
    assert causes(diagnosis) == [cause]
    assert cure in diagnosis.findings[0].cure


@pytest.mark.parametrize("void", [{0: 255}, {2: 255}, {1: 4}, {0: 4}])
def test_a_class_that_became_void_is_no_shift(tmp_path, void):
    """Also where the number of classes is a value of void, and classes never occur, among them 0."""
    labels = LabelMap((*THREE.names, "dog"), (*COLORS, (9, 9, 9)), void_values=(4, 255))
    pairs = write_pairs(tmp_path, lambda ids: np.vectorize(lambda k: void.get(k, k))(ids))
    assert diagnose(make_batches(pairs, labels, SIZE, 2), labels).findings == []


@pytest.mark.parametrize("scale", [to_1, from_minus_1_to_1])
def test_images_scaled_only_when_the_network_is_used(healthy, scale):
    """It was trained with the right images, so the cure is not to train anew."""
    batches, *rest = healthy
    (finding,) = diagnose(batches.map(scale), *rest).findings
    assert finding.cause == "scaled twice"
    right, whole = (int(n) for n in re.search(r"(\d+)% of its predictions .* (\d+)% with", finding.evidence).groups())
    assert whole > right + 10
    assert "anew" not in finding.cure


def test_images_of_mean_0_are_scaled_too(healthy):
    batches, labels, *_ = healthy
    standardized = batches.map(lambda images, masks: ((tf.cast(images, tf.float32) - 100) / 50, masks))
    assert causes(diagnose(standardized, labels)) == ["scaled twice"]


def test_a_network_that_does_not_rescale_may_get_scaled_images(healthy):
    batches, labels, log, _ = healthy
    model = linear(np.eye(3), [0, 0, 0])
    assert "scaled twice" not in causes(diagnose(batches.map(to_1), labels, log, model))
    assert "scaled twice" in causes(diagnose(batches.map(to_1), labels, log))


def test_images_that_are_no_numbers(healthy):
    """In the last batch only."""
    (*batches, (images, masks)), labels, *_ = healthy
    images = images.numpy().astype("f4")
    images[0, 0, 0] = np.nan
    (finding,) = diagnose([*batches, (images, masks)], labels, {"loss": [np.nan]}).findings
    assert (finding.symptom, finding.cause) == ("nan", "no numbers")


def test_weights_that_are_no_numbers_are_seen_without_a_log(healthy):
    batches, labels, _, model = healthy
    spoilt = keras.models.clone_model(model)
    spoilt.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    (finding,) = diagnose(batches, labels, model=spoilt).findings
    assert (finding.symptom, finding.cause) == ("nan", RATE)


def test_a_dead_network_is_seen_without_a_log(healthy):
    """After steps far too long no unit is active: the prediction is that of the last layer's bias, everywhere."""
    batches, labels, *_ = healthy
    (finding,) = diagnose(batches, labels, model=linear(np.zeros((3, 3)), [1, 0, -1])).findings
    assert (finding.symptom, finding.cause) == ("all black", RATE)
    assert "All pixels get the same logits" in finding.evidence


def test_a_softmax_hides_how_much_the_logits_differ(healthy):
    """So equal predictions do not tell of a dead network, and nothing is told to be done."""
    batches, labels, *_ = healthy
    inputs = keras.Input((*SIZE, 3))
    x = keras.layers.Conv2D(3, 1, kernel_initializer="zeros", activation="softmax")(inputs)
    (finding,) = diagnose(batches, labels, model=keras.Model(inputs, x)).findings
    assert (finding.symptom, finding.cause, finding.cure) == ("all black", "not found", "")


def test_two_causes_are_both_named_the_data_first(tmp_path):
    """Shifted ids make no loss nan."""
    diagnosis = diagnose(*train(write_pairs(tmp_path, lambda ids: ids + 1), THREE, rate=1e3))
    assert causes(diagnosis) == ["off by one", RATE]
    assert diagnosis.findings[0].symptom == "wrong classes"


# ---- what is not known is not guessed ----


def test_without_the_files_a_shift_is_not_guessed_and_the_pairs_tell_it(tmp_path):
    pairs = write_pairs(tmp_path, lambda ids: ids + 1)
    batches = make_batches(pairs, THREE, SIZE, 2).map(lambda images, masks: (images, masks))
    unknown = diagnose(batches, THREE)
    assert unknown.findings == []
    assert "masks: 2 of 3 classes, " in str(unknown)
    assert "values not known" in str(unknown)
    assert causes(diagnose(batches, THREE, pairs=pairs)) == ["off by one"]


def test_ids_of_a_pipeline_of_ones_own():
    """No files, no `make_batches`: arrays in a list, with weights."""
    rng = np.random.default_rng(0)
    images, ids = rng.integers(0, 256, (4, 8, 8, 3)), rng.integers(1, 4, (4, 8, 8, 1))
    assert causes(diagnose([(images, ids, np.ones(ids.shape))], THREE)) == ["off by one"]
    assert causes(diagnose([(images, ids - 1)], THREE)) == []
    assert causes(diagnose([(images, 255 * (ids > 2))], TWO)) == ["0/255"]


@pytest.mark.parametrize(("log", "found"), [
    ({"loss": [1.1, np.nan]}, [("nan", RATE)]),
    ({"loss": [1.1, 0.9], "val_loss": [np.inf, 1]}, [("nan", RATE)]),
    ({"loss": [9e9, 1e3, 500]}, [("stuck", RATE)]),
    ({"loss": [1.1, 1.1, 1.1]}, [("stuck", "not found")]),
    ({"loss": [1.1, 1.0], "mIoU": [0.16, 0.16]}, [("low mIoU", "too short")]),
    ({"loss": [1.1], "mIoU": [0.16]}, [("low mIoU", "too short")]),
    ({"loss": [1.1, 0.5, 0.3]}, []),
    ({"loss": [0.2, 0.2]}, []),
    ({"loss": [1.1, 0.5], "mIoU": [0.2, 0.6]}, []),
    ({"loss": [0.2, 0.2], "mIoU": [0.6, 0.6]}, []),
    ({"loss": [], "mIoU": []}, []),
])  # fmt: skip
def test_a_log_alone(healthy, log, found):
    batches, labels, *_ = healthy
    findings = diagnose(batches, labels, log).findings
    assert [(finding.symptom, finding.cause) for finding in findings] == found


def test_edges_tell_a_shift_in_masks_of_half_the_size():
    """And nothing of masks that are coarse, drawn too large, or of images without edges."""
    rng = np.random.default_rng(0)
    ids = np.zeros((12, 64, 64, 1), np.uint8)
    for mask in ids:
        for row, column in rng.integers(0, 52, (4, 2)):
            mask[row : row + 12, column : column + 12] = 1
    images = 100 * ids.repeat(3, axis=-1) + rng.integers(0, 30, (*ids.shape[:3], 3))
    moved = np.pad(ids, ((0, 0), (12, 0), (0, 0), (0, 0)))[:, :64]
    assert compare_edges(images, ids) == Alignment(12)
    assert compare_edges(images, moved) == Alignment(12, (12, 0))
    (row, column) = compare_edges(images, moved[:, ::2, ::2]).shift
    assert abs(row - 12) + abs(column) <= 2
    assert compare_edges(images, np.roll(ids, 1, axis=0)) == Alignment(12, None, 12)
    large = np.max([np.roll(ids, (y, x), (1, 2)) for y in range(-5, 6) for x in range(-5, 6)], axis=0)
    coarse = ids[:, 4::8, 4::8].repeat(8, 1).repeat(8, 2)
    for masks in (large, coarse, coarse[:, ::8, ::8]):
        assert compare_edges(images, masks) == Alignment(12)
    assert compare_edges(rng.integers(0, 256, images.shape), np.roll(ids, 1, axis=0)) == Alignment(12)
    assert compare_edges(images[:7], np.roll(ids[:7], 1, axis=0)) == Alignment(0)


@pytest.mark.parametrize("fails", [False, True])
def test_the_network_is_left_as_it_was(healthy, monkeypatch, fails):
    batches, labels, log, model = healthy
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before = [np.array(variable) for variable in model.variables], [layer.momentum for layer in layers]
    if fails:  # once the moving averages are others
        calls = []

        def score(*arguments):
            calls.append([np.array(layer.moving_mean) for layer in layers])
            if len(calls) == 3:
                raise MemoryError
            return real(*arguments)

        real = evidence._score
        monkeypatch.setattr(evidence, "_score", score)
    with pytest.raises(MemoryError) if fails else contextlib.nullcontext():
        diagnose(batches, labels, log, model)
    if fails:
        assert any((one != other).any() for one, other in zip(calls[0], calls[2], strict=True))
    for variable, value in zip(model.variables, before[0], strict=True):
        np.testing.assert_array_equal(variable, value)
    assert [layer.momentum for layer in layers] == before[1]


# ---- wrong arguments ----


def test_a_network_of_other_classes_is_refused(healthy):
    batches, _, log, model = healthy
    with pytest.raises(ValueError, match="model: it tells 3 classes apart, the labels have 2; give the labels"):
        diagnose(batches, TWO, log, model)


def test_batches_without_ids_are_refused():
    rgb = np.zeros((1, 8, 8, 3))
    for batches, said in (([], "found none"), ([(rgb, rgb)], "shape (1, 8, 8, 3), expected class ids")):
        with pytest.raises(ValueError, match=re.escape(said)):
            diagnose(batches, THREE)


# ---- python -m unet_helpers diagnose ----


def make_run(root, name, dataset, rate=2e-2, epochs=8):
    """The folder of a tiny training, as `python -m unet_helpers train` makes it, and the data set's folder."""
    recipe = make_recipe(
        "CPU", DATASET=name, DATA_DIR=str(root), MINUTES=1, IMAGE_SIZE=(64, 64), SEED=0, ARCHIVE=None,
        RUN_DIR=str(root / "runs"), EPOCHS=epochs, N_FILTERS=4, HALF_RESOLUTION=True, BATCH_SIZE=2,
        SIZE_STAGES=((1, 1),), LEARNING_RATE=1e-2, FRAMES_PER_DRIVE=1, TRAIN_ANEW=False,
    )  # fmt: skip
    recipe = replace(recipe, image_size=SIZE)  # which is quicker, and less than it takes: as earlier versions took it
    resizing = ProgressiveResizing(SIZE, epochs=epochs)
    options = {"mask_size": recipe.output_size, "resizing": resizing}
    augment = [RandomResizedCrop()]
    batches = make_batches(dataset.train, dataset.labels, SIZE, 2, shuffle=True, augment=augment, **options)
    validation = make_batches(dataset.validation, dataset.labels, SIZE, 2, **options)
    model = unet_model((None, None, 3), 4, dataset.labels.n_classes, depth=1, dropout_prob=0, half_resolution=True)
    compile_unet(model, dataset.labels.n_classes, rate)
    run_dir = run_folder(recipe, model, dataset, augment=augment)
    state = RunCheckpoint(run_dir, resizing, labels=dataset.labels)
    model.fit(
        batches, validation_data=validation, initial_epoch=state.resume(model), epochs=epochs, shuffle=False, verbose=0,
        callbacks=[resizing, state],
    )  # fmt: skip
    return run_dir


def make_folder(root) -> Dataset:
    """A data set `folder` of eight pairs, and what the command will find in it."""
    pairs = [write_pair_to(root, f"p{n}", SIZE, seed=n) for n in range(8)]
    (root / "classes.txt").write_text("\n".join(THREE.names))
    return Dataset("folder", THREE, tuple(pairs[:6]), tuple(pairs[6:7]), tuple(pairs[7:]))


def command(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["diagnose", *map(str, arguments)])
    return code, *capsys.readouterr()


def write_lyft(root) -> list[Pair]:
    """Three pairs in CARLA's layout, two for training and one for validation."""
    pairs = []
    for n, stem in enumerate(("F4-1", "F4-2", "F2-1")):
        folders = [root / "lyft" / "dataA" / "dataA" / name for name in ("CameraRGB", "CameraSeg")]
        pair = write_pair_to(root / "drawn", stem, SIZE, seed=n)
        for source, target in zip(pair, folders, strict=True):
            target.mkdir(parents=True, exist_ok=True)
            source.replace(target / f"{stem}.png")
        pairs.append(Pair(*(target / f"{stem}.png" for target in folders)))
    return pairs


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    keras.utils.set_random_seed(0)
    root = tmp_path_factory.mktemp("run")
    return root, make_run(root, "folder", make_folder(root))


def test_the_command_finds_nothing_in_a_healthy_run_and_changes_nothing_in_its_folder(capsys, run):
    root, run_dir = run
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, shown, errors = command(capsys, run_dir, root)
    assert (code, errors) == (0, "")
    assert shown.startswith("nothing wrong was found\n")
    for line in ("images: 6, values ", "masks: 3 of 3 classes", "values 0, 1, 2 in", "log: 8 epochs", "predictions: "):
        assert line in shown
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before


def test_the_command_names_a_rate_far_too_high(capsys, tmp_path):
    with pytest.raises(RuntimeError, match=r"^LEARNING_RATE: the training diverged in epoch 1: "):
        make_run(tmp_path, "folder", make_folder(tmp_path), rate=1e6, epochs=3)
    code, shown, _ = command(capsys, next((tmp_path / "runs").iterdir()), tmp_path)
    assert code == 1
    assert shown.startswith(f"stuck: {RATE}. ")
    assert "predictions: no network was given" in shown


def test_the_command_names_masks_of_0_and_255_and_a_file_that_was_damaged_since(capsys, tmp_path):
    """In CARLA's layout 255 is void, so masks of 0 and 255 are valid; no file is read before it is needed."""
    pairs = write_lyft(tmp_path)
    for pair in pairs:
        Image.fromarray(np.uint8(255 * (np.asarray(Image.open(pair.mask)) > 0))).save(pair.mask)
    run_dir = make_run(tmp_path, "lyft", Dataset("lyft", CARLA, tuple(pairs[:2]), tuple(pairs[2:]), ()), epochs=3)
    code, shown, errors = command(capsys, run_dir, tmp_path)
    assert (code, errors) == (1, "")
    assert ": 0/255. The mask files hold 0, 255: 255 means void, so 'none (sky)' is the only class" in shown
    assert "look black, and that is fine" not in shown
    pairs[0].image.write_bytes(pairs[0].image.read_bytes()[:60])
    code, _, errors = command(capsys, run_dir, tmp_path)
    assert code == 1
    assert f"{pairs[0].image}: " in errors


def test_the_command_looks_at_the_batches_that_the_network_was_given(capsys, run, monkeypatch):
    """Masks as large as its answers, too."""
    root, run_dir = run
    settings = json.loads((run_dir / "settings.json").read_text())["recipe"]
    seen = []
    monkeypatch.setattr(
        "unet_helpers.diagnosis.gather", lambda batches, *others: seen.append(batches) or gather(batches, *others)
    )
    command(capsys, run_dir, root)
    images, masks = next(iter(seen[0]))
    half = 1 + settings["half_resolution"]
    assert [side * half for side in masks.shape[1:3]] == list(images.shape[1:3]) == settings["image_size"]


def test_the_command_says_which_folder_is_wrong(capsys, run, tmp_path):
    root, run_dir = run
    for folder, said in ((tmp_path / "none", "there is no such folder"), (tmp_path, "its settings.json can't be read")):
        code, shown, errors = command(capsys, folder, root)
        assert (code, shown) == (1, "")
        assert errors == f"unet_helpers: {folder}: {said}; give the folder of a run, one of those in runs/\n"
    code, _, errors = command(capsys, run_dir, tmp_path / "none")
    assert code == 1
    assert errors.startswith(f"unet_helpers: DIR: there is no folder '{tmp_path / 'none'}'")
    (make_folder(tmp_path).train[0].image.parents[1] / "classes.txt").write_text("sky\nroad\ncar\ndog")
    code, _, errors = command(capsys, run_dir, tmp_path)
    assert code == 1
    said = f"{run_dir / 'best.keras'}: it has 3 classes, but the data set 'folder' in {tmp_path} has 4"
    assert said in errors


@pytest.mark.parametrize(("field", "value"), [
    ("image_size", [0, 32]), ("image_size", [10**9, 10**9]), ("batch_size", "2"), ("seed", None), ("split_by", "("),
    ("dataset", ["folder"]), ("frames_per_drive", 1e9), ("size_stages", 1),
])  # fmt: skip
def test_the_command_names_a_field_of_the_settings_that_is_wrong(capsys, run, tmp_path, field, value):
    root, run_dir = run
    settings = json.loads((run_dir / "settings.json").read_text())
    settings["recipe"][field] = value
    (tmp_path / "settings.json").write_text(json.dumps(settings))
    code, shown, errors = command(capsys, tmp_path, root)
    assert (code, shown) == (1, "")
    assert errors.startswith(f"unet_helpers: {tmp_path / 'settings.json'}: {field}: ")
    assert len(errors.splitlines()) == 1


@pytest.mark.parametrize("text", ["3", '{"recipe": []}', '{"recipe": {"more": 1}}', "{"])
def test_the_command_names_settings_that_are_none(capsys, run, tmp_path, text):
    (tmp_path / "settings.json").write_text(text)
    code, _, errors = command(capsys, tmp_path, run[0])
    assert code == 1
    assert errors.startswith(f"unet_helpers: {tmp_path}: its settings.json can't be read; give the folder ")


def test_the_command_before_the_first_epoch(capsys, run, tmp_path):
    """Only the settings are there: the data are looked at."""
    root, run_dir = run
    (tmp_path / "settings.json").write_bytes((run_dir / "settings.json").read_bytes())
    code, shown, _ = command(capsys, tmp_path, root)
    assert code == 0
    assert "log: not given" in shown


def test_the_commands_help_is_quick_and_its_options_are_checked(capsys):
    with pytest.raises(SystemExit):
        main(["diagnose", "--help"])
    assert "usage: python -m unet_helpers diagnose" in capsys.readouterr().out
    with pytest.raises(SystemExit):
        main(["diagnose", "x", "--dataset", "imagenet"])
