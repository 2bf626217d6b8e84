import importlib.util
import inspect
import io
import json
import os
import re
import tracemalloc
import zipfile

import h5py
import keras
import numpy as np
import pytest
import tensorflow as tf
from PIL import Image

from unet_helpers import networks as exporting
from unet_helpers.labels import CAMVID, CARLA, LabelMap
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.networks import (
    METADATA,
    Network,
    export_network,
    load_network,
    save_half,
    save_network,
    unet_switches,
)
from unet_helpers.prediction import predict_mask

THREE = LabelMap(("sky", "road", "traffic light"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)), (3, 255), ego_class=2)


def small(n_classes=3, **options):
    return with_keras_layers_only(unet_model((None, None, 3), 2, n_classes, depth=1, **options))


@pytest.fixture
def file(tmp_path):
    save_network(tmp_path / "best.keras", small(), THREE, (32, 48))
    return tmp_path / "best.keras"


# ---- one file ----


def test_a_network_is_never_written_through_a_link(tmp_path):
    mine = tmp_path / "mine.txt"
    mine.write_text("mine")
    for name in ("partial_best.keras", "best.keras.partial", "best.keras"):
        (tmp_path / name).symlink_to(mine)
    save_network(tmp_path / "best.keras", small(), THREE, (32, 48))
    assert mine.read_text() == "mine"
    assert load_network(tmp_path / "best.keras").labels == THREE
    assert len(list(tmp_path.iterdir())) == 4


@pytest.mark.parametrize("labels", [THREE, CARLA, CAMVID])
def test_a_file_holds_no_argument_that_only_the_newest_keras_knows(tmp_path, labels):
    """Arguments that have their defaults are left out, and initializers have no options: older versions refuse a file
    for one unknown name. That these load the network which comes along is tested with Colab's versions."""
    model = with_keras_layers_only(unet_model((None, None, 3), 2, 3, depth=1, half_resolution=True))
    save_network(tmp_path / "best.keras", model, labels, (32, 32))
    with zipfile.ZipFile(tmp_path / "best.keras") as archive:
        layers = json.loads(archive.read("config.json"))["config"]["layers"]
        assert not archive.testzip()
    assert {"Conv2D", "BatchNormalization", "Conv2DTranspose"} <= {layer["class_name"] for layer in layers}
    for layer in layers:
        known = inspect.signature(getattr(keras.layers, layer["class_name"]).__init__).parameters
        assert not [name for name, value in layer["config"].items() if name in known and value == known[name].default]
        assert layer["config"].get("kernel_initializer", {"config": {}})["config"] == {}
    images = np.random.default_rng(0).integers(0, 256, (1, 32, 32, 3)).astype("f4")
    loaded = keras.models.load_model(tmp_path / "best.keras")
    np.testing.assert_array_equal(loaded.predict_on_batch(images), model.predict_on_batch(images))


def test_a_file_gives_back_network_labels_and_size(tmp_path, labels):
    model = small(labels.n_classes)
    save_network(tmp_path / "n.keras", model, labels, (32, 48))
    network = load_network(str(tmp_path / "n.keras"))
    assert network.labels == labels
    assert network.image_size == (32, 48)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 24, 3), np.uint8)
    np.testing.assert_array_equal(network.model.predict_on_batch(image), model.predict_on_batch(image))
    assert [path.name for path in tmp_path.iterdir()] == ["n.keras"]


def test_the_file_is_all_that_a_picture_needs(tmp_path, file):
    picture = np.random.default_rng(0).integers(0, 256, (40, 60, 3), np.uint8)
    Image.fromarray(picture).save(tmp_path / "p.png")
    network = load_network(file)
    expected = predict_mask(network.model, picture, (32, 48))
    assert len(np.unique(expected)) > 1
    for given in (file, str(file), network):
        np.testing.assert_array_equal(predict_mask(given, tmp_path / "p.png"), expected)


def test_an_interrupted_write_leaves_the_old_file(tmp_path, file, monkeypatch):
    before = file.read_bytes()

    def full(*_):
        raise OSError(28, "No space left on device")

    for owner, name in ((zipfile.ZipFile, "writestr"), (os, "replace")):
        with monkeypatch.context() as patch:
            patch.setattr(owner, name, full)
            with pytest.raises(OSError, match="No space"):
                save_network(file, small(), CARLA, (64, 64))
        assert file.read_bytes() == before
        assert [path.name for path in tmp_path.iterdir()] == ["best.keras"]


def test_a_model_of_a_class_of_its_own_is_written_and_one_that_keras_refuses_leaves_nothing(tmp_path):
    own = Own()
    own(np.zeros((1, 8, 8, 3)))
    save_network(tmp_path / "own.keras", own, THREE, (8, 8))
    loaded = keras.models.load_model(tmp_path / "own.keras")
    np.testing.assert_array_equal(loaded.head.kernel, own.head.kernel)
    own.refuses = True
    with pytest.raises(RuntimeError, match="no configuration"):
        save_network(tmp_path / "again.keras", own, THREE, (8, 8))
    assert [path.name for path in tmp_path.iterdir()] == ["own.keras"]


@keras.saving.register_keras_serializable("test_networks")
class Own(keras.Model):
    refuses = False

    def __init__(self, **options):
        super().__init__(**options)
        self.head = keras.layers.Conv2D(3, 1)

    def call(self, x):
        return self.head(x)

    def get_config(self):
        if self.refuses:
            raise RuntimeError("no configuration")
        return {}


# ---- what is no such file ----


def test_a_file_without_labels_takes_them_as_arguments(tmp_path):
    plain = tmp_path / "plain.keras"
    small().save(plain)
    with pytest.raises(ValueError, match=r"plain\.keras: .* not its labels: it was made by another .*image_size="):
        load_network(plain)
    with pytest.raises(ValueError, match=r"not its image size: .* load_network\(path, image_size=\(height, width\)\)"):
        load_network(plain, labels=THREE)
    network = load_network(plain, labels=THREE, image_size=(16, 24))
    assert (network.labels, network.image_size) == (THREE, (16, 24))
    save_network(plain, small(), None, (32, 48))  # as a training without labels does
    assert load_network(plain, labels=THREE).image_size == (32, 48)
    with_keras_layers_only(unet_model((32, 64, 3), 2, 3, depth=1)).save(plain)
    assert load_network(plain, labels=THREE).image_size == (32, 64)


def test_labels_that_are_not_the_networks_are_refused(file):
    with pytest.raises(ValueError, match=r"best\.keras: the network tells 3 classes apart, found 13 labels"):
        load_network(file, labels=CARLA)


def test_what_is_no_network_is_named(tmp_path, file):
    (tmp_path / "text.keras").write_text("no network")
    (tmp_path / "empty.keras").write_bytes(b"")
    (tmp_path / "half.keras").write_bytes(file.read_bytes()[:2000])
    (tmp_path / "old.h5").write_bytes(b"\x89HDF\r\n\x1a\n" + bytes(100))
    (tmp_path / "renamed.zip").write_bytes(file.read_bytes())
    with zipfile.ZipFile(tmp_path / "other.keras", "w") as archive:
        archive.writestr("a.txt", "a")
    (tmp_path / "exported").mkdir()
    (tmp_path / "exported" / "saved_model.pb").write_bytes(b"")
    keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)]).save(tmp_path / "dense.keras")
    for name, found in {
        "none.keras": "there is no such file; expected the .keras file",
        "text.keras": "found no zip",
        "empty.keras": "found an empty file",
        "half.keras": "found a damaged zip",
        "old.h5": "found an HDF5 file, Keras's older format",
        "renamed.zip": "found another suffix than .keras",
        "other.keras": "found a zip that holds no network of Keras",
        "exported": "found a SavedModel, which can't be turned back",
        ".": "found a folder; .* give .*best.keras",
        "dense.keras": "found a network from .* expected one for masks, which takes pictures",
    }.items():
        with pytest.raises(ValueError, match=f"(?s){'' if name == '.' else name}: {found}"):
            load_network(tmp_path / name)


def test_a_damaged_file_is_named_whichever_of_its_bytes_is_wrong(tmp_path, file):
    """By all that read it; bytes that nobody looks at, such as dates, may be wrong."""
    save_half(file, tmp_path / "packed.keras")
    rng, damaged = np.random.default_rng(0), tmp_path / "damaged.keras"
    said = {reader: [] for reader in (load_network, unet_switches, save_half)}
    for source in (file, tmp_path / "packed.keras"):
        content = source.read_bytes()
        with zipfile.ZipFile(source) as archive:
            starts = [*(member.header_offset for member in archive.infolist()), archive.start_dir]
        places = [rng.integers(start, start + 150) for start in starts[:-1] for _ in range(12)]
        places += rng.integers(starts[-1], len(content), 60).tolist()  # the list of what is in the zip
        for place in places:
            wrong = bytearray(content)
            wrong[place] ^= rng.integers(1, 256)
            damaged.write_bytes(wrong)
            for reader in (unet_switches, save_half, load_network)[: 2 + (place % 12 == 0)]:
                (tmp_path / "out.keras").unlink(missing_ok=True)
                try:
                    reader(*[damaged, tmp_path / "out.keras"][: 1 + (reader is save_half)])
                except ValueError as error:
                    said[reader].append(str(error))
    for messages in said.values():
        assert len(messages) > 5
        assert all("damaged.keras: " in message for message in messages)


def write_record(path, text):
    save_network(path, small())
    with zipfile.ZipFile(path) as archive:
        members = {name: archive.read(name) for name in archive.namelist() if name != METADATA}
    with zipfile.ZipFile(path, "w") as archive:
        for name, content in {**members, METADATA: text}.items():
            archive.writestr(name, content)


@pytest.mark.parametrize(
    "text", ["{", "3", "[]", "{}", '{"format": 1, "labels": 3}', '{"format": 1, "labels": {"names": ["a", "b"]}}']
)
def test_a_damaged_record_is_named(tmp_path, text):
    write_record(tmp_path / "n.keras", text)
    with pytest.raises(ValueError, match=rf"n\.keras: its {METADATA} can't be read"):
        load_network(tmp_path / "n.keras")


GOOD = {"names": ["sky", "road", "car"], "colors": [[0, 0, 255], [128, 64, 128], [255, 0, 0]], "void_values": [255]}


WRONG = [
    ("names", "sky"), ("names", ["sky", "road", 3]), ("names", {"sky": 1}), ("names", None), ("names", [["a"], "b"]),
    ("colors", 3), ("colors", ["red", "green", "blue"]), ("colors", [[0, 0, 0], [1, 1, 1], [1, 1]]),
    ("colors", [[0, 0, 0], [1, 1, 1], [1, 1, 256]]), ("colors", [[0, 0, 0], [1, 1, 1], [1, 1, 0.5]]),
    ("void_values", 255), ("void_values", [256]), ("void_values", ["255"]), ("void_values", [True]),
    ("ego_class", "car"), ("ego_class", -1), ("ego_class", 1.5), ("ego_class", [1]),
    ("image_size", "32x48"), ("image_size", [32]), ("image_size", [32, "48"]), ("image_size", [0, 48]),
    ("image_size", 0), ("image_size", [10**9, 10**9]), ("image_size", {"height": 32}), ("image_size", [32.5, 48]),
    ("image_size", [[32], 48]),
]  # fmt: skip


def test_a_field_of_a_wrong_type_is_named_with_its_file(tmp_path, file):
    for field, value in WRONG:
        record = {"format": 1, "labels": dict(GOOD), "image_size": [32, 48]}
        (record if field == "image_size" else record["labels"])[field] = value
        bad = with_member(file, tmp_path / "n.keras", METADATA, json.dumps(record))
        with pytest.raises(ValueError, match=rf"n\.keras: its {METADATA} can't be read \({field}: "):
            load_network(bad)


def test_a_record_of_endless_brackets_is_named(tmp_path, file):
    with pytest.raises(ValueError, match=rf"n\.keras: its {METADATA} can't be read"):
        load_network(with_member(file, tmp_path / "n.keras", METADATA, 10**5 * "["))


# ---- what would fill the memory, and what leads out of the file ----


def with_member(source, path, name, content):
    """The file with another content of a member, packed as well as zip can."""
    with zipfile.ZipFile(source) as old, zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as new:
        for member in {*old.namelist(), name}:
            new.writestr(member, content if member == name else old.read(member))
    return path


def read_with_all(path, out):
    """What each door says of a file."""
    for read in (load_network, unet_switches, lambda p: save_half(p, out)):
        with pytest.raises(ValueError, match=r"^\S+bad\.keras: ") as caught:
            read(path)
        yield str(caught.value)
    assert not out.exists()


@pytest.mark.parametrize("name", [METADATA, "config.json", "model.weights.h5", "more.bin"])
def test_a_zip_that_unpacks_to_far_more_is_not_unpacked(tmp_path, file, name):
    bad = with_member(file, tmp_path / "bad.keras", name, bytes(80 << 20))
    assert bad.stat().st_size < 1 << 20
    tracemalloc.start()
    for said in read_with_all(bad, tmp_path / "out.keras"):
        assert re.search(r"\d bytes of it would unpack to 8\d,\d{3},\d{3}, expected 100 times as many at most", said)
    assert tracemalloc.get_traced_memory()[1] < 10 << 20
    tracemalloc.stop()


def test_a_record_of_many_megabytes_is_not_read(tmp_path, file):
    bad = with_member(file, tmp_path / "bad.keras", METADATA, json.dumps({"format": 1}).encode() + bytes(17 << 20))
    for said in read_with_all(bad, tmp_path / "out.keras"):
        assert f"its {METADATA} has 17,825,805 bytes, more than 16,777,216" in said


def bad_weights(tmp_path, file, change):
    """The network's file with weights that change has had."""
    with zipfile.ZipFile(file) as archive:
        content = io.BytesIO(archive.read("model.weights.h5"))
    with h5py.File(content, "a") as weights:
        tables = []
        weights.visititems(lambda name, item: tables.append(name) if isinstance(item, h5py.Dataset) else None)
        change(weights, tables[0])
    return with_member(file, tmp_path / "bad.keras", "model.weights.h5", content.getvalue())


def outside(weights, name, kind, secret):
    """The numbers of a layer come from another file: by a link, as raw bytes, or mapped."""
    shape, dtype = weights[name].shape, weights[name].dtype
    del weights[name]
    if kind == "link":
        weights[name] = h5py.ExternalLink(str(secret), "x")
    elif kind == "soft link":
        weights[name] = h5py.SoftLink("/elsewhere")
    elif kind == "raw":
        weights.create_dataset(name, shape, dtype, external=[(str(secret), 0, h5py.h5f.UNLIMITED)])
    else:
        layout = h5py.VirtualLayout(shape, dtype)
        layout[:] = h5py.VirtualSource(str(secret), "x", shape)
        weights.create_virtual_dataset(name, layout)


@pytest.mark.parametrize("kind", ["link", "soft link", "raw", "virtual"])
def test_weights_that_lie_in_another_file_are_refused(tmp_path, file, kind):
    """Else a network of somebody else would carry the reader's own files into what is exported, and passed on."""
    secret = tmp_path / "secret"
    secret.write_bytes(bytes(range(256)) * 99)
    bad = bad_weights(tmp_path, file, lambda weights, name: outside(weights, name, kind, secret))
    for read in (load_network, lambda path: save_half(path, tmp_path / "out.keras")):
        with pytest.raises(ValueError, match=r"bad\.keras: '.*' of its model\.weights\.h5 leads elsewhere"):
            read(bad)
    assert not (tmp_path / "out.keras").exists()


def test_weights_that_claim_far_more_numbers_than_they_hold_are_refused(tmp_path, file):
    def grow(weights, name):
        weights.create_dataset("more", (1 << 15, 1 << 15), "f4", chunks=(64, 64), compression="gzip")

    bad = bad_weights(tmp_path, file, grow)
    for read in (load_network, lambda path: save_half(path, tmp_path / "out.keras")):
        with pytest.raises(ValueError, match=r"bad\.keras: .* bytes of it would unpack to 4,29\d,\d{3},\d{3}"):
            read(bad)
    assert not (tmp_path / "out.keras").exists()


def test_weights_that_are_none_are_named(tmp_path, file):
    bad = with_member(file, tmp_path / "bad.keras", "model.weights.h5", b"no HDF5")
    for read in (load_network, lambda path: save_half(path, tmp_path / "out.keras")):
        with pytest.raises(ValueError, match=r"bad\.keras: its model\.weights\.h5 can't be read"):
            read(bad)


def test_a_network_of_zeros_that_packs_well_is_loaded(tmp_path):
    model = small(3)
    model.set_weights([np.zeros(weight.shape) for weight in model.weights])
    save_network(tmp_path / "zeros.keras", model, THREE, (32, 48))
    save_half(tmp_path / "zeros.keras", tmp_path / "half.keras")
    assert load_network(tmp_path / "half.keras").labels == THREE


def test_a_record_of_another_format_is_refused(tmp_path):
    write_record(tmp_path / "n.keras", json.dumps({"format": 2, "classes": ["a", "b"]}))
    with pytest.raises(ValueError, match=r"n\.keras: .* has format 2, expected 1; get the version"):
        load_network(tmp_path / "n.keras", labels=THREE, image_size=(32, 48))


# ---- export ----


@pytest.fixture(scope="module")
def trained():
    """A network whose normalization has seen something, with a coarser answer, and what Keras answers to two sizes."""
    keras.utils.set_random_seed(0)
    model = unet_model((None, None, 3), 2, 3, depth=1, half_resolution=True)
    rng = np.random.default_rng(0)
    for _ in range(20):
        model(rng.integers(0, 256, (2, 16, 16, 3)).astype(np.float32), training=True)
    images = [rng.uniform(0, 255, shape).astype(np.float32) for shape in ((1, 16, 24, 3), (2, 32, 20, 3))]
    network = Network(with_keras_layers_only(model), THREE, (16, 24))
    return network, images, [network.model.predict_on_batch(image) for image in images]


def run_saved_model(path):
    loaded = tf.saved_model.load(str(path))  # its variables live as long as it does
    return lambda image: loaded.serve(image)


def run_litert(path):
    interpreter = tf.lite.Interpreter(str(path))

    def run(image):
        index = interpreter.get_input_details()[0]["index"]
        interpreter.resize_tensor_input(index, image.shape)
        interpreter.allocate_tensors()
        interpreter.set_tensor(index, image)
        interpreter.invoke()
        return interpreter.get_tensor(interpreter.get_output_details()[0]["index"])

    return run


def run_onnx(path):
    session = pytest.importorskip("onnxruntime").InferenceSession(str(path))
    return lambda image: session.run(None, {session.get_inputs()[0].name: image})[0]


RUNTIMES = {"tf_saved_model": ("n", run_saved_model), "litert": ("n.tflite", run_litert), "onnx": ("n.onnx", run_onnx)}


@pytest.mark.filterwarnings("ignore::FutureWarning:keras", "ignore:.*tf.lite.Interpreter is deprecated")
@pytest.mark.parametrize("format", RUNTIMES)
def test_an_exported_network_answers_as_keras_does(tmp_path, trained, format):
    if format == "onnx":
        pytest.importorskip("onnx")
        pytest.importorskip("onnxruntime")
    network, images, expected = trained
    name, runtime = RUNTIMES[format]
    export_network(network, tmp_path / "new" / name, format)
    assert [path.name for path in (tmp_path / "new").iterdir()] == [name]
    run = runtime(tmp_path / "new" / name)
    for image, logits in zip(images, expected, strict=True):
        assert np.ptp(logits) > 0.1
        np.testing.assert_allclose(run(image), logits, atol=1e-4)


def test_a_network_in_half_precision_is_exported_in_single(tmp_path, trained):
    """Its answer is that of the same weights in float32, which is not that of half precision."""
    network, (image, _), (expected, _) = trained
    keras.config.set_dtype_policy("mixed_bfloat16")
    try:
        half = small(half_resolution=True)
    finally:
        keras.config.set_dtype_policy("float32")
    half.set_weights(network.model.get_weights())
    assert np.abs(half.predict_on_batch(image) - expected).max() > 1e-3
    export_network(half, tmp_path / "n", "tf_saved_model")
    np.testing.assert_allclose(run_saved_model(tmp_path / "n")(image), expected, atol=1e-4)


def test_what_cannot_be_exported_is_said_before_anything_is_written(tmp_path, trained, monkeypatch):
    with pytest.raises(ValueError, match="format: found 'tflite', expected one of 'tf_saved_model', 'litert', 'onnx'"):
        export_network(trained[0], tmp_path / "n.tflite", "tflite")
    with pytest.raises(ValueError, match=r"path: found .*n\.bin.* ends in \.tflite"):
        export_network(trained[0], tmp_path / "n.bin", "litert")
    (tmp_path / "there").mkdir()
    with pytest.raises(ValueError, match="path: .*there' is there already"):
        export_network(trained[0], tmp_path / "there", "tf_saved_model")
    find = importlib.util.find_spec
    monkeypatch.setattr(
        exporting.importlib.util, "find_spec", lambda name: None if name in ("onnx", "tf2onnx") else find(name)
    )
    with pytest.raises(ImportError, match="format: 'onnx' needs onnx and tf2onnx: pip install onnx tf2onnx"):
        export_network(trained[0], tmp_path / "n.onnx", "onnx")
    assert [path.name for path in tmp_path.iterdir()] == ["there"]
