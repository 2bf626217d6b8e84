"""Each cause is made with real parts: PNG pairs, `make_batches`, a tiny network that is trained on them."""

import json
from dataclasses import replace

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import make_lyft, make_small_recipe
from conftest import write_pair_to
from PIL import Image

from unet_helpers import diagnosis
from unet_helpers.__main__ import main
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.checkpoints import RunCheckpoint, run_folder
from unet_helpers.datasets import Dataset
from unet_helpers.diagnosis import Alignment, compare_edges, diagnose
from unet_helpers.labels import LabelMap, Pair
from unet_helpers.model import PreciseStatistics, unet_model
from unet_helpers.pipeline import make_batches
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


def linear(kernel, bias, activation=None) -> keras.Model:
    """A network of one 1x1 convolution. kernel: (3, K), bias: (K,)."""
    inputs = keras.Input((*SIZE, 3))
    convolution = keras.layers.Conv2D(len(bias), 1, activation=activation)
    model = keras.Model(inputs, convolution(inputs))
    convolution.set_weights([np.float32(kernel)[None, None], np.float32(bias)])
    return model


def scaled(batches, by, minus=0):
    return batches.map(lambda images, masks: (tf.cast(images, tf.float32) / by - minus, masks))


def causes(found) -> list[str]:
    return [finding.cause for finding in found.findings]


@pytest.fixture(scope="module")
def healthy(tmp_path_factory):
    """(batches, labels, log, model) of a training that went well."""
    keras.utils.set_random_seed(0)
    batches = make_batches(write_pairs(tmp_path_factory.mktemp("healthy")), THREE, SIZE, 2, shuffle=True)
    model = unet_model((*SIZE, 3), 4, 3, depth=1, dropout_prob=0)
    compile_unet(model, 3, 2e-2)
    return batches, THREE, model.fit(batches, epochs=12, shuffle=False, verbose=0).history, model


# ---- a training that went well ----


def test_a_healthy_training_has_no_finding(healthy):
    found = diagnose(*healthy)
    assert found.findings == []
    said = str(found)
    assert said.startswith("nothing wrong was found\nlooked at:\n  images: 6, values ")
    for line in ("masks: 3 of 3 classes, 0.0% void, values 0, 1, 2 in", "log: 12 epochs", "predictions: 3 classes"):
        assert line in said
    # The reader's "my masks are all black": the answer is how to look at them.
    alone = diagnose(*healthy[:2])
    assert alone.findings == []
    assert "ids up to 2 look black in a grey image: unet_helpers.labels.colorize(mask, labels)" in str(alone)


# ---- each cause, made ----


def test_a_rare_class_that_is_not_learned_is_imbalance_and_one_that_is_found_is_healthy(tmp_path):
    """Nine tenths of the prediction are one class, and that is right: the thing is red. Then one pixel of twenty."""
    batches = make_batches(write_pairs(tmp_path, lambda ids: ids > 1), TWO, SIZE, 2)
    assert diagnose(batches, TWO, model=linear([[0, 1], [0, 0], [0, 0]], [0, -150])).findings == []
    pairs = write_pairs(tmp_path, lambda ids: np.random.default_rng(0).random(ids.shape) < 0.05)
    batches = make_batches(pairs, TWO, SIZE, 2)
    log = {"loss": [0.7, 0.3, 0.21, 0.2, 0.2, 0.2, 0.2, 0.2], "mIoU": [0.47] * 8}
    (finding,) = diagnose(batches, TWO, log, linear(np.zeros((3, 2)), [3, 0])).findings
    assert (finding.symptom, finding.cause) == ("all black", "class imbalance")
    assert "100.0% of the prediction and 9" in finding.evidence


def bilinear(ids):
    return Image.fromarray(np.uint8(255 * (ids > 1))).resize((30, 30), Image.Resampling.BILINEAR)


VOID_3 = LabelMap(THREE.names, COLORS, void_values=(3, 255))
BAD_MASKS = {
    "0 and 255": (lambda ids: 255 * (ids > 1), TWO, "0/255", "divide the masks by 255"),
    "from 1": (lambda ids: ids + 1, THREE, "off by one", "subtract 1"),
    "from 1, and 3 declared void": (lambda ids: ids + 1, VOID_3, "off by one", "subtract 1"),
    "all unknown": (lambda ids: 70 + ids, THREE, "all void", "ids 0 to 2"),
    "empty": (lambda ids: 0 * ids, THREE, "one class", "label the others"),
    "a name too few": (lambda ids: ids, TWO, "unknown ids", "name all classes"),
    "resized bilinearly": (bilinear, TWO, "unknown ids", "nearest neighbour"),
}


@pytest.mark.parametrize("kind", BAD_MASKS)
def test_bad_masks_are_known_before_any_training(tmp_path, kind):
    change, labels, cause, cure = BAD_MASKS[kind]
    found = diagnose(make_batches(write_pairs(tmp_path, change), labels, SIZE, 2), labels)
    (finding,) = found.findings
    assert finding.cause == cause
    assert cure in finding.cure
    said = f"{finding.symptom}: {cause}. {finding.evidence}\n  Cure: {finding.cure}.\nlooked at:\n"
    assert str(found).startswith(said)


@pytest.mark.parametrize("void", [{2: 255}, {0: 4}])
def test_a_class_that_became_void_is_no_shift(tmp_path, void):
    """Also where the number of classes is a value of void, and classes never occur, among them 0."""
    labels = LabelMap((*THREE.names, "dog"), (*COLORS, (9, 9, 9)), void_values=(4, 255))
    pairs = write_pairs(tmp_path, lambda ids: np.vectorize(lambda k: void.get(k, k))(ids))
    assert diagnose(make_batches(pairs, labels, SIZE, 2), labels).findings == []


def test_scaled_images_are_wrong_for_a_network_that_rescales(healthy):
    batches, labels, log, model = healthy
    for scale in ((255,), (127.5, 1), (50, 2)):  # the last: of mean 0, with values above 1
        for network in (None, model):
            (finding,) = diagnose(scaled(batches, *scale), labels, log, network).findings
            assert finding.cause == "scaled twice"
            assert "if the training had them scaled, too, train anew" in finding.cure
    assert "scaled twice" not in causes(diagnose(scaled(batches, 255), labels, log, linear(np.eye(3), [0, 0, 0])))


def test_images_in_the_last_batch_and_weights_that_are_no_numbers(healthy):
    (*batches, (images, masks)), labels, _, model = healthy
    images = images.numpy().astype("f4")
    images[0, 0, 0] = np.nan
    (finding,) = diagnose([*batches, (images, masks)], labels, {"loss": [np.nan]}).findings
    assert (finding.symptom, finding.cause) == ("nan", "no numbers")
    spoilt = keras.models.clone_model(model)
    spoilt.set_weights([np.full_like(weights, np.nan) for weights in model.get_weights()])
    (finding,) = diagnose(healthy[0], labels, model=spoilt).findings
    assert (finding.symptom, finding.cause) == ("nan", RATE)


def test_a_dead_network_is_seen_without_a_log(healthy):
    """After far too long steps no unit is active: the last layer's bias is the prediction everywhere."""
    batches, labels, *_ = healthy
    (finding,) = diagnose(batches, labels, model=linear(np.zeros((3, 3)), [1, 0, -1])).findings
    assert (finding.symptom, finding.cause) == ("all black", RATE)
    # A softmax hides how much the logits differ: nothing is told to be done.
    (finding,) = diagnose(batches, labels, model=linear(np.zeros((3, 3)), [0, 0, 0], "softmax")).findings
    assert (finding.symptom, finding.cause, finding.cure) == ("all black", "not found", "")


# ---- what is not known is not guessed ----


def test_without_the_files_a_shift_is_not_guessed_and_the_pairs_tell_it(tmp_path):
    pairs = write_pairs(tmp_path, lambda ids: ids + 1)
    batches = make_batches(pairs, THREE, SIZE, 2).map(lambda images, masks: (images, masks))
    unknown = diagnose(batches, THREE)
    assert unknown.findings == []
    assert "values not known" in str(unknown)
    # Shifted ids make no loss nan: two causes, that of the data first.
    assert causes(diagnose(batches, THREE, {"loss": [1.1, np.nan]}, pairs=pairs)) == ["off by one", RATE]


def test_ids_of_a_pipeline_of_ones_own():
    """No files, no `make_batches`: arrays in a list, with weights."""
    rng = np.random.default_rng(0)
    images, ids = rng.integers(0, 256, (4, 8, 8, 3)), rng.integers(1, 4, (4, 8, 8, 1))
    assert causes(diagnose([(images, ids, np.ones(ids.shape))], THREE)) == ["off by one"]
    assert causes(diagnose([(images, ids - 1)], THREE)) == []


def test_a_log_alone(healthy):
    for log, found in (
        ({"loss": [1.1, np.nan]}, [("nan", RATE)]),
        ({"loss": [1.1, 0.9], "val_loss": [np.inf, 1]}, [("nan", RATE)]),
        ({"loss": [9e9, 1e3, 500]}, [("stuck", RATE)]),
        ({"loss": [1.1, 1.1, 1.1]}, [("stuck", "not found")]),
        ({"loss": [1.1, 1.0], "mIoU": [0.16, 0.16]}, [("low mIoU", "too short")]),
        ({"loss": [1.1], "mIoU": [0.16]}, [("low mIoU", "too short")]),
        ({"loss": [1.1, 0.5, 0.3]}, []),
        ({"loss": [0.2, 0.2]}, []),
        ({"loss": [1.1, 0.5], "mIoU": [0.2, 0.6]}, []),
        ({"loss": [], "mIoU": []}, []),
    ):
        findings = diagnose(*healthy[:2], log).findings
        assert [(finding.symptom, finding.cause) for finding in findings] == found, log


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
    (row, column) = compare_edges(images, moved[:, ::2, ::2].repeat(2, 1).repeat(2, 2)).shift
    assert abs(row - 12) + abs(column) <= 2
    assert compare_edges(images, np.roll(ids, 1, axis=0)) == Alignment(12, None, 12)
    large = np.max([np.roll(ids, (y, x), (1, 2)) for y in range(-5, 6) for x in range(-5, 6)], axis=0)
    coarse = ids[:, 4::8, 4::8].repeat(8, 1).repeat(8, 2)
    for masks in (large, coarse):
        assert compare_edges(images, masks) == Alignment(12)
    assert compare_edges(rng.integers(0, 256, images.shape), np.roll(ids, 1, axis=0)) == Alignment(12)
    assert compare_edges(images[:7], np.roll(ids[:7], 1, axis=0)) == Alignment(0)


def test_the_network_is_left_as_it_was_even_if_something_fails(healthy, monkeypatch):
    *_, model = healthy
    layers = [layer for layer in model.layers if isinstance(layer, keras.layers.BatchNormalization)]
    before, momenta = [variable.numpy() for variable in model.variables], [layer.momentum for layer in layers]
    real = PreciseStatistics.estimate

    def fail(statistics):
        real(statistics)
        assert not all(map(np.array_equal, model.variables, before))
        raise MemoryError

    monkeypatch.setattr(PreciseStatistics, "estimate", fail)
    with pytest.raises(MemoryError):
        diagnose(*healthy)
    assert all(map(np.array_equal, model.variables, before))
    assert [layer.momentum for layer in layers] == momenta


def test_wrong_arguments_are_refused(healthy):
    batches, _, log, model = healthy
    rgb = np.zeros((1, 8, 8, 3))
    for arguments, said in (
        ((batches, TWO, log, model), "model: .*3 classes.* 2"), (([], THREE), "batches: found none"),
        (([(rgb, rgb)], THREE), r"batches: .*\(1, 8, 8, 3\), expected class ids"),
    ):  # fmt: skip
        with pytest.raises(ValueError, match=said):
            diagnose(*arguments)


# ---- python -m unet_helpers diagnose ----


def make_run(root, rate=2e-2, epochs=8):
    """The folder of a tiny training on eight pairs, as `python -m unet_helpers train` makes it."""
    pairs = [write_pair_to(root, f"p{n}", SIZE, seed=n) for n in range(8)]
    (root / "classes.txt").write_text("\n".join(THREE.names))
    dataset = Dataset("folder", THREE, tuple(pairs[:6]), tuple(pairs[6:7]), tuple(pairs[7:]))
    recipe = make_small_recipe(root, EPOCHS=epochs, N_FILTERS=4, SIZE_STAGES=((1, 1),))
    recipe = replace(recipe, image_size=SIZE)  # quicker, and less than a recipe takes now: earlier versions took it
    resizing = ProgressiveResizing(SIZE, epochs=epochs)
    options = {"mask_size": recipe.output_size, "resizing": resizing}
    augment = [RandomResizedCrop()]
    batches = make_batches(dataset.train, THREE, SIZE, 2, shuffle=True, augment=augment, **options)
    validation = make_batches(dataset.validation, THREE, SIZE, 2, **options)
    model = unet_model((None, None, 3), 4, 3, depth=1, dropout_prob=0, half_resolution=True)
    compile_unet(model, 3, rate)
    run_dir = run_folder(recipe, model, dataset, augment=augment)
    state = RunCheckpoint(run_dir, resizing, labels=THREE)
    callbacks = [resizing, state]
    state.resume(model)
    model.fit(batches, validation_data=validation, epochs=epochs, shuffle=False, verbose=0, callbacks=callbacks)
    return run_dir


def command(capsys, *arguments) -> tuple[int, str, str]:
    capsys.readouterr()
    code = main(["diagnose", *map(str, arguments)])
    return code, *capsys.readouterr()


@pytest.fixture(scope="module")
def run(tmp_path_factory):
    keras.utils.set_random_seed(0)
    root = tmp_path_factory.mktemp("run")
    return root, make_run(root)


def test_the_command_finds_nothing_in_a_healthy_run_and_changes_nothing_in_its_folder(capsys, run, monkeypatch):
    root, run_dir = run
    seen = []
    monkeypatch.setattr(diagnosis, "diagnose", lambda *given: seen.append(given) or diagnose(*given))
    before = {path: path.stat().st_mtime_ns for path in root.rglob("*")}
    code, shown, errors = command(capsys, run_dir, root)
    assert (code, errors) == (0, "")
    assert shown.startswith("nothing wrong was found\n")
    for line in ("images: 6, values ", "masks: 3 of 3 classes", "values 0, 1, 2 in", "log: 8 epochs", "predictions: "):
        assert line in shown
    assert {path: path.stat().st_mtime_ns for path in root.rglob("*")} == before
    images, masks = next(iter(seen[0][0]))  # as the network was given them
    assert (images.shape, masks.shape) == ((2, 32, 32, 3), (2, 16, 16, 1))


def test_the_command_names_a_rate_far_too_high(capsys, tmp_path):
    with pytest.raises(RuntimeError, match=r"^LEARNING_RATE: the training diverged in epoch 1: "):
        make_run(tmp_path, rate=1e6, epochs=3)
    code, shown, _ = command(capsys, next((tmp_path / "runs").iterdir()), tmp_path)
    assert code == 1
    assert shown.startswith((f"stuck: {RATE}. ", f"nan: {RATE}. "))
    assert "predictions: no network was given" in shown


def test_before_the_first_epoch_the_command_looks_at_the_data_and_names_a_damaged_file(capsys, run, tmp_path):
    """In CARLA's layout 255 is void, so masks of 0 and 255 are valid; no file is read before it is needed."""
    (tmp_path / "settings.json").write_bytes((run[1] / "settings.json").read_bytes())
    pairs = make_lyft(tmp_path, "F4-1", "F4-2", "F2-1")  # two for training and one for validation
    for pair in pairs:
        Image.fromarray(np.uint8(255 * (np.asarray(Image.open(pair.mask)) > 0))).save(pair.mask)
    arguments = tmp_path, tmp_path, "--dataset", "lyft"
    code, shown, errors = command(capsys, *arguments)
    assert (code, errors) == (1, "")
    assert "log: not given" in shown
    assert ": 0/255. The mask files hold 0, 255: 255 means void, so 'none (sky)' is the only class" in shown
    pairs[0].image.write_bytes(pairs[0].image.read_bytes()[:60])
    code, _, errors = command(capsys, *arguments)
    assert code == 1
    assert f"{pairs[0].image}: " in errors


def test_the_command_says_which_folder_or_field_of_the_settings_is_wrong(capsys, run, tmp_path):
    root, run_dir = run
    recipe, path = json.loads((run_dir / "settings.json").read_text())["recipe"], tmp_path / "settings.json"
    for text, said in (
        (json.dumps({"recipe": recipe | {"image_size": [0, 32]}}), f"{path}: image_size: "),
        (json.dumps({"recipe": recipe | {"split_by": "("}}), f"{path}: split_by: "),
        ('{"recipe": {"more": 1}}', f"{tmp_path}: its settings.json can't be read"),
        ("{", f"{tmp_path}: its settings.json can't be read"),
    ):
        path.write_text(text)
        code, shown, errors = command(capsys, tmp_path, root)
        assert (code, shown, len(errors.splitlines())) == (1, "", 1)
        assert errors.startswith(f"unet_helpers: {said}")
    assert f"{tmp_path / 'none'}: there is no such folder" in command(capsys, tmp_path / "none", root)[2]
    write_pairs(tmp_path)
    (tmp_path / "classes.txt").write_text("sky\nroad\ncar\ndog")
    errors = command(capsys, run_dir, tmp_path)[2]
    assert f"{run_dir / 'best.keras'}: it has 3 classes, but the data set 'folder' in {tmp_path} has 4" in errors
