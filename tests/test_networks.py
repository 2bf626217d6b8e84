import importlib.util
import inspect
import io
import json
import os
import tracemalloc
import zipfile
from unittest.mock import Mock

import h5py
import keras
import numpy as np
import pytest
from conftest import LABELS
from limits import needs_links

from benchmarks.exporting import PROGRAMS, open_saved_model
from unet_helpers.datasets import load_dataset
from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import CAMVID, CARLA, LabelMap
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.naming import EXPORT_SUFFIXES
from unet_helpers.networks import (
    CONFIG,
    DRAWN_SCENES,
    METADATA,
    WEIGHTS,
    Network,
    encoder,
    export_network,
    load_network,
    save_network,
    transfer_weights,
    unet_switches,
)
from unet_helpers.prediction import predict_mask

SWITCHES = {"up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}
OLD_LABELS = LabelMap(("sky", "road", "traffic light"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)), (3, 255), 2)


def small(n_classes=3, **options):
    return with_keras_layers_only(unet_model((None, None, 3), 2, n_classes, depth=1, **options))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    path = tmp_path_factory.mktemp("saved") / "best.keras"
    save_network(path, small(), OLD_LABELS, (32, 48))
    return path


@pytest.fixture
def file(saved, tmp_path):
    """A small network's file."""
    (tmp_path / "best.keras").write_bytes(saved.read_bytes())
    return tmp_path / "best.keras"


def members(path):
    with zipfile.ZipFile(path) as archive:
        return {name: archive.read(name) for name in archive.namelist()}


def with_member(source, path, name, content):
    """The file with another content of a member, compressed as far as zip can."""
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member, old in (members(source) | {name: content}).items():
            new.writestr(member, old)
    return path


def test_a_file_gives_back_network_labels_size_and_bits(tmp_path):
    model, path = small(), tmp_path / "n.keras"
    for labels, size, bits in ((OLD_LABELS, (32, 48), 12), (LABELS, (64, 64), None)):
        save_network(path, model, labels, size, bits)
        network = load_network(str(path))
        assert (network.labels, network.image_size, network.bits) == (labels, size, bits)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
    expected = model.predict_on_batch(image)
    for loaded in (network.model, keras.models.load_model(path)):
        np.testing.assert_array_equal(loaded.predict_on_batch(image), expected)
    assert list(tmp_path.iterdir()) == [path]


def test_a_file_holds_no_argument_that_only_the_newest_keras_knows(tmp_path):
    """Arguments that have their defaults are left out, and initializers have no options: older versions refuse a file
    for one unknown name. That these load the included network is tested with Colab's versions."""
    save_network(tmp_path / "best.keras", small(half_resolution=True), CARLA, (32, 32))
    layers = json.loads(members(tmp_path / "best.keras")[CONFIG])["config"]["layers"]
    assert {"Conv2D", "BatchNormalization", "Conv2DTranspose"} <= {layer["class_name"] for layer in layers}
    for layer in layers:
        known = inspect.signature(getattr(keras.layers, layer["class_name"]).__init__).parameters
        assert not [name for name, value in layer["config"].items() if name in known and value == known[name].default]
        assert layer["config"].get("kernel_initializer", {"config": {}})["config"] == {}


def test_an_interrupted_write_leaves_the_old_file(tmp_path, file, monkeypatch):
    before = file.read_bytes()
    for owner, name in ((keras.Model, "save"), (zipfile.ZipFile, "writestr"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, Mock(side_effect=OSError(28, "No space left on device")))
            with pytest.raises(OSError, match="No space"):
                save_network(file, small(), CARLA, (64, 64))
        assert file.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["best.keras"]


def test_a_file_without_labels_takes_them_as_arguments(tmp_path, file):
    plain = tmp_path / "plain.keras"
    small().save(plain)
    for given, missing in (({}, "labels=LabelMap"), ({"labels": OLD_LABELS}, "missing: .*image_size=.height, width")):
        with pytest.raises(ValueError, match=rf"plain\.keras: .*{missing}"):
            load_network(plain, **given)
    network = load_network(plain, labels=OLD_LABELS, image_size=(16, 24))
    assert (network.labels, network.image_size) == (OLD_LABELS, (16, 24))
    save_network(plain, small(), None, (32, 48))  # as a training without labels does
    assert load_network(plain, labels=OLD_LABELS).image_size == (32, 48)
    assert load_network(plain, labels=OLD_LABELS, image_size=(64, 64)).image_size == (64, 64)
    with pytest.raises(ValueError, match=r"best\.keras: the network has 3 classes, found 13 labels"):
        load_network(file, labels=CARLA)


def test_what_is_no_network_is_named(tmp_path, file):
    (tmp_path / "text.keras").write_text("no network")
    (tmp_path / "half.keras").write_bytes(file.read_bytes()[:2000])
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "exported").mkdir()
    (tmp_path / "renamed.zip").write_bytes(file.read_bytes())
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    with_member(file, tmp_path / "bad.keras", WEIGHTS, b"no HDF5")
    for name, found in {
        "none.keras": "no such file", "text.keras": "not a zip", "half.keras": "not a zip", "old.h5": "not a zip",
        "other.keras": CONFIG, "exported": "directory", "renamed.zip": "can't load it",
        "dense.keras": "expected one for segmentation",
        "bad.keras": WEIGHTS,
    }.items():  # fmt: skip
        with pytest.raises(ValueError, match=rf"(?s){name}: .*{found}"):
            load_network(tmp_path / name)


def test_a_damaged_file_is_named_whichever_of_its_bytes_is_wrong(tmp_path, file):
    """By all that read it; bytes that nobody looks at, such as dates, may be wrong."""
    rng, damaged, out, said = np.random.default_rng(0), tmp_path / "damaged.keras", tmp_path / "out.keras", []
    content = file.read_bytes()
    with zipfile.ZipFile(file) as archive:
        starts = [*(member.header_offset for member in archive.infolist()), archive.start_dir]
    for place in [rng.integers(start, min(start + 150, len(content))) for start in 5 * starts + 9 * starts[-1:]]:
        wrong = bytearray(content)
        wrong[place] ^= rng.integers(1, 256)
        damaged.write_bytes(wrong)
        for read in (load_network, unet_switches, lambda path: export_network(path, out, "keras_half")):
            out.unlink(missing_ok=True)
            try:
                read(damaged)
            except ValueError as error:
                said.append(str(error))
    assert len(said) > 20
    assert all("damaged.keras: " in message for message in said)


GOOD = {"names": ["sky", "road", "car"], "colors": [[0, 0, 255], [128, 64, 128], [255, 0, 0]], "void_values": [255]}
WRONG = [
    ("names", "sky"), ("names", ["sky", "road", 3]), ("names", None), ("names", ["sky", "\x1b[2J", "car"]),
    ("colors", 3), ("colors", [[0, 0, 0], [1, 1, 1], [1, 1, 256]]), ("void_values", [True]), ("ego_class", -1),
    ("void_pixels", [[True]]),
    ("image_size", "32x48"), ("image_size", [0, 48]), ("image_size", [32.5, 48]), ("bits", 7), ("format", 2),
]  # fmt: skip


def test_a_record_that_cannot_be_right_is_named_with_its_file(tmp_path, file):
    texts = ["{", "3", "{}", '{"format": 1, "labels": 3}', 10**5 * "["]
    for field, value in [(None, text) for text in texts] + WRONG:
        record = {"format": 1, "labels": dict(GOOD), "image_size": [32, 48]}
        (record["labels"] if field in (*GOOD, "ego_class", "void_pixels") else record)[field] = value
        bad = with_member(file, tmp_path / "n.keras", METADATA, json.dumps(record) if field else value)
        with pytest.raises(ValueError, match=rf"n\.keras: its {METADATA} can't be read \({field or ''}") as caught:
            load_network(bad, labels=OLD_LABELS, image_size=(32, 48))
        assert "\x1b" not in str(caught.value)


@pytest.mark.parametrize("name", [WEIGHTS, "more.bin"])
def test_a_zip_that_unpacks_to_far_more_is_not_unpacked(tmp_path, file, name):
    bad, out = with_member(file, tmp_path / "bad.keras", name, bytes(80 << 20)), tmp_path / "out.keras"
    assert bad.stat().st_size < 1 << 20
    tracemalloc.start()
    for read in (load_network, unet_switches, lambda path: export_network(path, out, "keras_half")):
        with pytest.raises(ValueError, match=r"bad\.keras: .*would unpack to 8\d,\d{3},\d{3}, .* at most 100 times"):
            read(bad)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()
    assert not out.exists()


def change_weights(weights, name, kind, secret):
    """The numbers of a layer come from another file, by a link, as raw bytes, or mapped; or are far too many."""
    shape, dtype = weights[name].shape, weights[name].dtype
    del weights[name]
    if kind == "link":
        weights[name] = h5py.ExternalLink(str(secret), "x")
    elif kind == "raw":
        weights.create_dataset(name, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    elif kind == "virtual":
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(secret), "x", shape)
        weights.create_virtual_dataset(name, layout)
    else:
        weights.create_dataset(name, (1 << 15, 1 << 15), "f4", chunks=(64, 64), compression="gzip")


@pytest.mark.parametrize("kind", ["link", "raw", "virtual", "too many"])
def test_weights_in_another_file_or_far_too_many_are_refused(tmp_path, file, kind):
    """Else a stranger's network could pull the reader's own files into an export that is passed on."""
    secret, out = tmp_path / "secret", tmp_path / "out.keras"
    secret.write_bytes(bytes(range(256)) * 99)
    content = io.BytesIO(members(file)[WEIGHTS])
    with h5py.File(content, "a") as weights:
        tables = []
        weights.visititems(lambda name, item: tables.append(name) if isinstance(item, h5py.Dataset) else None)
        change_weights(weights, tables[0], kind, secret)
    bad = with_member(file, tmp_path / "bad.keras", WEIGHTS, content.getvalue())
    said = "would unpack to 4,29" if kind == "too many" else "its model.weights.h5 .*links to another file"
    for read in (load_network, lambda path: export_network(path, out, "keras_half")):
        with pytest.raises(ValueError, match=rf"bad\.keras: .*{said}"):
            read(bad)
    assert not out.exists()


def network(n_classes, n_filters=4, **options):
    return unet_model(
        (None, None, 3), n_filters, n_classes, **SWITCHES | {"depth": 1, "half_resolution": True} | options
    )


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    """The file of a network whose weights are no initial ones."""
    keras.utils.set_random_seed(0)
    model, rng = network(3), np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    path = tmp_path_factory.mktemp("trained") / "best.keras"
    save_network(path, with_keras_layers_only(model), LABELS, (32, 64))
    return path


def assert_same_weights(some, others):
    for one, other in zip(some, others, strict=True):
        for a, b in zip(one.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("names", [LABELS.names, ("road", "sky", "car"), ("sky", "road", "car", "tram"), None])
def test_the_same_classes_load_all_weights_and_others_keep_a_new_last_layer(names, trained, tmp_path):
    """Also as many classes with other names: a head that calls trams cars would have to unlearn that first. Without
    names (None), as in a file that Keras alone saved, nobody knows which class the last layer means."""
    theirs, file, labels = load_network(trained).model, trained, LABELS
    if names:
        labels = LabelMap(names, ((0, 0, 0),) * len(names))
    else:
        file = tmp_path / "other.keras"
        theirs.save(file)
    model = network(labels.n_classes)
    new_head = model.layers[-1].get_weights()
    same = names == LABELS.names
    assert transfer_weights(model, labels, file) == same
    assert all(layer.trainable for layer in model.layers)
    expected = theirs.layers[-1].get_weights() if same else new_head
    for found, numbers in zip(model.layers[-1].get_weights(), expected, strict=True):
        np.testing.assert_array_equal(found, numbers)
    assert_same_weights(model.layers[:-1], theirs.layers[:-1])


def test_a_frozen_encoder_ends_before_the_first_up_convolution(trained):
    """That it then learns nothing is tested in test_model.py."""
    model = network(3)
    transfer_weights(model, LABELS, trained, freeze_encoder=True)
    kept = encoder(model)
    assert isinstance(model.layers[len(kept)], keras.layers.Conv2DTranspose)
    assert sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in kept) == 1
    assert [layer.trainable for layer in model.layers] == [layer not in kept for layer in model.layers]


def test_a_network_of_other_layers_is_named_and_nothing_is_loaded(trained):
    for options in ({"half_resolution": False}, {"depth": 2}):
        model = network(3, **options)
        before = model.get_weights()
        with pytest.raises(ValueError, match=r"START_FROM: the layers of .*best\.keras are not those"):
            transfer_weights(model, LABELS, trained)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))


def test_the_switches_are_read_out_of_the_file(trained, tmp_path):
    assert unet_switches(trained) == (4, True)
    save_network(tmp_path / "whole.keras", network(3, 6, half_resolution=False), LABELS, (32, 64))
    assert unet_switches(tmp_path / "whole.keras") == (6, False)
    odd = '{"config": {"layers": [{"class_name": "Conv2D", "config": {"filters": Infinity}}]}}'
    for config in (odd, 10**5 * "["):
        bad = with_member(trained, tmp_path / "odd.keras", CONFIG, config)
        with pytest.raises(ValueError, match=r"odd\.keras: it holds no U-Net of this project"):
            unet_switches(bad)


@pytest.fixture(scope="module")
def predictions():
    """A network whose normalization has seen something, with coarser logits, and what Keras predicts at two sizes."""
    keras.utils.set_random_seed(0)
    model = unet_model((None, None, 3), 2, 3, depth=1, half_resolution=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        model(rng.integers(0, 256, (2, 16, 16, 3)).astype(np.float32), training=True)
    images = [rng.uniform(0, 255, shape).astype(np.float32) for shape in ((1, 16, 24, 3), (2, 32, 20, 3))]
    network = Network(with_keras_layers_only(model), OLD_LABELS, (16, 24))
    return network, images, [network.model.predict_on_batch(image) for image in images]


def open_onnx_metadata(path) -> str:
    import onnxruntime

    return onnxruntime.InferenceSession(path).get_modelmeta().custom_metadata_map["unet_helpers"]


@pytest.mark.filterwarnings("ignore::FutureWarning:keras", "ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("format", PROGRAMS)
def test_an_exported_network_predicts_as_keras_does(tmp_path, predictions, format):
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    network, images, expected = predictions
    path = tmp_path / "new" / f"n{EXPORT_SUFFIXES[format]}"
    export_network(network, path, format)
    beside = path.with_name(f"{path.name}.json")
    assert sorted(path.parent.iterdir()) == [path, *[beside] * (format != "onnx")]
    about = json.loads(open_onnx_metadata(path) if format == "onnx" else beside.read_text())
    assert "letterboxed" in about.pop("input")
    assert about == {
        "classes": ["sky", "road", "traffic light"], "image_size": [16, 24], "padding": 128, "values": [0, 255],
    }  # fmt: skip
    run = PROGRAMS[format][1](path)
    for image, logits in zip(images, expected, strict=True):
        assert np.ptp(logits) > 0.1
        np.testing.assert_allclose(run(image), logits, atol=1e-4)


def test_a_network_in_half_precision_is_exported_in_single(tmp_path, predictions):
    """Its logits are those of the same weights in float32, which are not those of half precision."""
    network, (image, _), (expected, _) = predictions
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = small(half_resolution=True)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(network.model.get_weights())
    assert np.abs(half.predict_on_batch(image) - expected).max() > 1e-3
    export_network(half, tmp_path / "n", "tf_saved_model")
    np.testing.assert_allclose(open_saved_model(tmp_path / "n")(image), expected, atol=1e-4)


@needs_links
def test_what_cannot_be_exported_is_said_before_anything_is_written(tmp_path, predictions, trained, monkeypatch):
    (tmp_path / "there").mkdir()
    before = trained.read_bytes()
    (tmp_path / "link").symlink_to(trained.parent)
    for name, format, said in (
        ("n.tflite", "tflite", "format: found 'tflite', expected one of tf_saved_model, litert, onnx, keras_half"),
        ("n.bin", "litert", r"path: found .*n\.bin.* ends in \.tflite"),
        ("there", "tf_saved_model", "path: .*there' is there already"),
        (f"link/{trained.name}", "keras_half", "path: .*there already"),  # itself: its 32 bits would be lost
    ):
        with pytest.raises(ValueError, match=said):
            export_network(trained, tmp_path / name, format)
    assert trained.read_bytes() == before
    with pytest.raises(ValueError, match=r"none\.keras: there is no such file"):
        export_network(tmp_path / "none.keras", tmp_path / "new" / "n", "tf_saved_model")
    find, hidden = importlib.util.find_spec, ("onnx", "tf2onnx")
    monkeypatch.setattr(importlib.util, "find_spec", lambda name, *_: None if name in hidden else find(name, *_))
    with pytest.raises(ImportError, match="format: .* pip install onnx tf2onnx"):
        export_network(predictions[0], tmp_path / "n.onnx", "onnx")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["link", "there"]


def test_half_precision_halves_the_file_and_keeps_the_weights(trained, tmp_path):
    half = tmp_path / "new" / "half.keras"
    export_network(trained, half, "keras_half")
    assert half.stat().st_size < 0.6 * trained.stat().st_size
    old, new = load_network(trained), load_network(half)
    assert (new.labels, new.image_size) == (old.labels, old.image_size)
    for a, b in zip(old.model.weights, keras.models.load_model(half).weights, strict=True):  # by Keras alone, too
        assert b.dtype == "float32"
        np.testing.assert_array_equal(np.float32(np.float16(a)), b)
    for value, name in ((0, "zeros"), (1e5, "large")):
        old.model.set_weights([np.full(weight.shape, value) for weight in old.model.weights])
        save_network(tmp_path / f"{name}.keras", old.model, LABELS, (32, 64))
    export_network(tmp_path / "zeros.keras", tmp_path / "packed.keras", "keras_half")
    assert load_network(tmp_path / "packed.keras").labels == LABELS  # no bomb, though zeros pack well
    with pytest.raises(ValueError, match=r"large\.keras: .* has numbers that 16 bits can't hold"):
        export_network(tmp_path / "large.keras", tmp_path / "half.keras", "keras_half")
    assert not list(tmp_path.glob("half*"))


def test_the_included_network_is_small_and_works_at_once(tmp_path):
    """On drives that it has never seen, where always predicting the majority class scores 0.02."""
    assert DRAWN_SCENES.stat().st_size < 5_000_000
    drawn = load_network(DRAWN_SCENES)
    assert (drawn.labels, drawn.image_size, unet_switches(DRAWN_SCENES)) == (CARLA, (192, 256), (16, True))
    dataset = load_dataset("demo", tmp_path, frames_per_drive=1)
    scores = evaluate_model(drawn.model, dataset.test, dataset.labels, drawn.image_size)
    assert scores.miou > 0.5
    assert predict_mask(DRAWN_SCENES, dataset.test[0].image).shape == (240, 320)
    model = unet_model((None, None, 3), 16, CAMVID.n_classes, half_resolution=True, **SWITCHES)
    assert not transfer_weights(model, CAMVID, DRAWN_SCENES)  # photographs can start from it
