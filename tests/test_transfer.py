import zipfile

import keras
import numpy as np
import pytest
from limits import small_disk

from unet_helpers.datasets import load_dataset
from unet_helpers.evaluation import evaluate_model
from unet_helpers.labels import CAMVID, CARLA, LabelMap
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.networks import (
    DRAWN_SCENES,
    encoder,
    load_network,
    save_half,
    save_network,
    transfer_weights,
    unet_switches,
)
from unet_helpers.prediction import predict_mask
from unet_helpers.training import compile_unet

SWITCHES = {"up_kernel_size": 2, "last_conv": False, "dropout_prob": 0}


def network(n_classes, n_filters=4, **options):
    return unet_model((None, None, 3), n_filters, n_classes, **SWITCHES | options)


@pytest.fixture
def trained(tmp_path, labels):
    """The file of a network with normalization whose numbers are those of no new one."""
    model, rng = network(3, half_resolution=True), np.random.default_rng(0)
    model.set_weights([rng.uniform(0.1, 1, weight.shape) for weight in model.get_weights()])
    save_network(tmp_path / "best.keras", with_keras_layers_only(model), labels, (32, 64))
    return tmp_path / "best.keras"


def test_the_same_classes_go_on_where_the_network_stood(trained, labels):
    model = network(3, half_resolution=True)
    assert transfer_weights(model, labels, trained)
    assert all(layer.trainable for layer in model.layers)
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 64, 3)).astype("f4")
    expected = load_network(trained).model.predict_on_batch(images)
    np.testing.assert_allclose(model.predict_on_batch(images), expected, rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("names", [("sky", "road", "tram"), ("road", "sky", "car"), ("sky", "road", "car", "tram")])
def test_other_classes_get_a_head_of_their_own(names, trained):
    """Also as many classes with other names: a head that calls trams cars would have to unlearn that first."""
    model = network(len(names), half_resolution=True)
    head = [np.array(weight) for weight in model.layers[-1].get_weights()]
    assert not transfer_weights(model, LabelMap(names, ((0, 0, 0),) * len(names)), trained)
    for before, after in zip(head, model.layers[-1].get_weights(), strict=True):
        np.testing.assert_array_equal(before, after)
    theirs = load_network(trained).model
    body = [w for layer in model.layers[:-1] for w in layer.get_weights()]
    for mine, other in zip(body, [w for layer in theirs.layers[:-1] for w in layer.get_weights()], strict=True):
        np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("known", ["size", "labels", "nothing"])
def test_weights_need_neither_labels_nor_size(known, trained, labels, tmp_path):
    """Such as of a network that Keras alone saved: without labels nobody knows which class its last layer means."""
    theirs = load_network(trained).model
    if known == "nothing":
        theirs.save(tmp_path / "other.keras")
    else:
        save_network(
            tmp_path / "other.keras", theirs, **{"labels": {"labels": labels}, "size": {"image_size": (32, 64)}}[known]
        )
    model = network(3, half_resolution=True)
    assert transfer_weights(model, labels, tmp_path / "other.keras") == (known == "labels")
    for mine, other in zip(model.layers[:-1], theirs.layers[:-1], strict=True):
        for a, b in zip(mine.get_weights(), other.get_weights(), strict=True):
            np.testing.assert_array_equal(a, b)
    assert np.array_equal(model.layers[-1].get_weights()[0], theirs.layers[-1].get_weights()[0]) == (known == "labels")


def test_a_frozen_encoder_keeps_its_numbers_and_the_decoder_learns(trained, labels):
    model = network(3, half_resolution=True)
    transfer_weights(model, labels, trained, freeze_encoder=True)
    kept = encoder(model)
    assert isinstance(model.layers[len(kept)], keras.layers.Conv2DTranspose)
    assert sum(isinstance(layer, keras.layers.MaxPooling2D) for layer in kept) == 4
    compile_unet(model, 3, 1e-2)
    weights = {layer.name: layer.get_weights() for layer in model.layers}
    images = np.random.default_rng(1).integers(0, 256, (2, 32, 64, 3)).astype("f4")
    model.fit(images, np.zeros((2, 16, 32, 1), np.uint8), verbose=0)
    for layer in model.layers:
        if layer.weights:
            same = all(np.array_equal(a, b) for a, b in zip(weights[layer.name], layer.get_weights(), strict=True))
            assert same == (layer in kept), layer.name


def test_another_network_is_named_and_nothing_is_taken(trained, labels, tmp_path):
    for options in ({"n_filters": 8}, {"half_resolution": False}, {"normalization": None}, {"depth": 3}):
        model = network(3, **{"half_resolution": True} | options)
        before = model.get_weights()
        with pytest.raises(ValueError, match=r"START_FROM: the layers of .*best\.keras are not those of the network"):
            transfer_weights(model, labels, trained)
        assert all(np.array_equal(a, b) for a, b in zip(before, model.get_weights(), strict=True))
    inputs = keras.Input((None, None, 3))
    save_network(tmp_path / "nested.keras", keras.Model(inputs, network(3)(inputs)), labels, (32, 64))
    with pytest.raises(ValueError, match=r"nested\.keras are not those .* found 1 layers with weights"):
        transfer_weights(model, labels, tmp_path / "nested.keras")
    with pytest.raises(ValueError, match=r"none\.keras: there is no such file"):
        transfer_weights(model, labels, trained.with_name("none.keras"))


def test_the_switches_are_read_out_of_the_file(trained, tmp_path, labels):
    assert unet_switches(trained) == (4, True)
    save_network(tmp_path / "whole.keras", network(3, n_filters=6, normalization=None), labels, (32, 64))
    assert unet_switches(tmp_path / "whole.keras") == (6, False)
    model = keras.Sequential([keras.Input((4,)), keras.layers.Dense(2)])
    model.save(tmp_path / "dense.keras")
    with pytest.raises(ValueError, match=r"dense\.keras: it holds no U-Net of this project; give the best\.keras"):
        unet_switches(tmp_path / "dense.keras")
    for config in ('{"config": {"layers": [{"class_name": "Conv2D", "config": {"filters": Infinity}}]}}', 10**5 * "["):
        with zipfile.ZipFile(tmp_path / "odd.keras", "w") as archive:
            archive.writestr("config.json", config)
        with pytest.raises(ValueError, match=r"odd\.keras: it holds no U-Net of this project"):
            unet_switches(tmp_path / "odd.keras")


# ---- in half the bytes ----


def test_half_precision_halves_the_file_and_keeps_the_answers(trained, tmp_path):
    save_half(trained, tmp_path / "new" / "half.keras")
    assert (tmp_path / "new" / "half.keras").stat().st_size < 0.6 * trained.stat().st_size
    old, new = load_network(trained), load_network(tmp_path / "new" / "half.keras")
    assert (new.labels, new.image_size) == (old.labels, old.image_size)
    for a, b in zip(old.model.weights, new.model.weights, strict=True):
        assert b.dtype == "float32"
        np.testing.assert_array_equal(np.float16(a), np.float16(b))
        np.testing.assert_array_equal(np.float32(np.float16(a)), b)
    keras.models.load_model(tmp_path / "new" / "half.keras")  # Keras alone can, too


def test_half_precision_leaves_other_numbers_as_they_are(tmp_path, labels):
    """Half ones in bfloat16, which NumPy does not know, and an optimizer's counters."""
    keras.config.set_dtype_policy("bfloat16")
    try:
        model = network(3, normalization=None, depth=1)
    finally:
        keras.config.set_dtype_policy("float32")
    model.compile("sgd")
    model.optimizer.iterations.assign(70_000)
    save_network(tmp_path / "bf.keras", model, labels, (32, 64))
    save_half(tmp_path / "bf.keras", tmp_path / "half.keras")
    loaded = keras.models.load_model(tmp_path / "half.keras")
    assert int(loaded.optimizer.iterations) == 70_000
    assert {w.dtype for w in loaded.layers[-3].weights} == {"bfloat16"}
    for a, b in zip(model.layers[:-1], loaded.layers[:-1], strict=True):
        for mine, other in zip(a.get_weights(), b.get_weights(), strict=True):
            np.testing.assert_array_equal(mine, other)


@pytest.mark.parametrize("link", [False, True])
def test_half_precision_never_replaces_the_network_itself(trained, tmp_path, link):
    before, out = trained.read_bytes(), trained
    if link:
        (tmp_path / "link").symlink_to(tmp_path)
        out = tmp_path / "link" / trained.name
    with pytest.raises(ValueError, match=r"path: .*best\.keras' is the network itself"):
        save_half(trained, out)
    assert trained.read_bytes() == before


def test_half_precision_refuses_what_it_would_spoil(trained, tmp_path):
    model = load_network(trained).model
    model.layers[-1].set_weights([1e5 * np.ones(w.shape) for w in model.layers[-1].weights])
    save_network(tmp_path / "large.keras", model, load_network(trained).labels, (32, 64))
    with pytest.raises(ValueError, match=r"large\.keras: .* has numbers that 16 bits can't hold"):
        save_half(tmp_path / "large.keras", tmp_path / "half.keras")
    (tmp_path / "there.keras").write_text("somebody's")
    with pytest.raises(ValueError, match=r"path: .*there\.keras' is there already; delete it, or give another name"):
        save_half(trained, tmp_path / "there.keras")
    assert (tmp_path / "there.keras").read_text() == "somebody's"
    with pytest.raises(ValueError, match=r"path: found .*half\.zip', expected a name that ends in \.keras"):
        save_half(trained, tmp_path / "half.zip")
    assert not list(tmp_path.glob("half*"))


def test_half_precision_on_a_full_disk_leaves_no_half_file(trained, tmp_path):
    size = trained.stat().st_size // 4
    with small_disk(tmp_path / "disk", size) as disk:
        with pytest.raises(OSError, match="No space left on device"):
            save_half(trained, disk / "half.keras")
        assert not list(disk.iterdir())


# ---- the network that comes along ----


def test_the_drawn_scenes_network_is_small_and_works_at_once(tmp_path):
    """On drives that it has never seen; always the commonest class scores 0.02 there."""
    assert DRAWN_SCENES.stat().st_size < 5_000_000
    with zipfile.ZipFile(DRAWN_SCENES) as archive:
        assert not archive.testzip()
    drawn = load_network(DRAWN_SCENES)
    assert (drawn.labels, drawn.image_size, unet_switches(DRAWN_SCENES)) == (CARLA, (192, 256), (16, True))
    dataset = load_dataset("demo", tmp_path, frames_per_drive=1)
    scores = evaluate_model(drawn.model, dataset.test, dataset.labels, drawn.image_size)
    assert scores.miou > 0.5
    assert predict_mask(DRAWN_SCENES, dataset.test[0].image).shape == (240, 320)


def test_photographs_can_start_from_the_drawn_scenes():
    model = unet_model((None, None, 3), 16, CAMVID.n_classes, half_resolution=True, **SWITCHES)
    assert not transfer_weights(model, CAMVID, DRAWN_SCENES)
    assert CARLA.names != CAMVID.names
