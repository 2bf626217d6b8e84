"""Six trainings are held up on purpose, and each time the cause is named: as figures made by hand, and in reality."""

import builtins
import os
import random
import shutil
import subprocess
import sys
import time
from dataclasses import replace
from pathlib import Path

import keras
import numpy as np
import pytest
import tensorflow as tf
from builders import fails, make_folder, succeeds
from conftest import LABELS, write_pair_to
from PIL import Image

from unet_helpers.commands import OPTIONS
from unet_helpers.commands import speed as command_speed
from unet_helpers.labels import Pair
from unet_helpers.model import unet_model
from unet_helpers.naming import options_named
from unet_helpers.pipeline import make_batches
from unet_helpers.speed import Bottlenecks, SizeSpeed, forward_gflop, measure
from unet_helpers.training import ProgressiveResizing, compile_unet

SMALL, LARGE = (
    SizeSpeed(size, first=400.0, later=1000.0, plain=1000.0, step=step, both=step, share=0.5, compiling=4.0)
    for size, step in (((96, 128), 100.0), ((192, 256), 30.0))
)
FINE = Bottlenecks([SMALL, LARGE], reading=1e-4, decoding=2e-3, gain=1.1, batch_size=8, cores=0.95, limit=200, mib=900)
SLOW_FILES = [SMALL._replace(first=20.0), LARGE]
SLOW_CHANGES = [SMALL, LARGE._replace(first=5.0, later=6.0)]  # and 1000 without augmentation
CASES = {
    "network": (FINE, "IMAGE_SIZE or N_FILTERS, or set HALF_RESOLUTION = True", "--image-size"),
    "decoding": (replace(FINE, sizes=SLOW_FILES), "DATA_DIR", "DIR"),
    "reading": (replace(FINE, sizes=SLOW_FILES, reading=0.05), "DATA_DIR", "DIR"),
    "augmentation": (replace(FINE, sizes=SLOW_CHANGES), "the list augment", "more cores"),
    "batch": (replace(FINE, gain=1.9), "BATCH_SIZE = 16", "--batch-size 16"),
    "load": (replace(FINE, cores=0.3), "MINUTES", "--minutes"),
}


def cause(found: Bottlenecks) -> str:
    return max(found.weights, key=found.weights.get)


@pytest.mark.parametrize("name", CASES)
def test_the_figures_tell_the_bottleneck_and_the_sentence_its_parameter(name):
    found, parameter, option = CASES[name]
    assert cause(found) == name
    assert parameter in found.sentence
    assert found.sentence.count(".") <= 2  # one sentence, perhaps with a decimal point
    with options_named(OPTIONS):
        assert option in found.sentence
    lines = str(found).splitlines()
    assert max(map(len, lines)) <= 45
    assert found.sentence in " ".join(lines)
    assert lines[1].split() == ["96x128", *(f"{rate:.{0 if rate >= 100 else 1}f}" for rate in (
        found.sizes[0].first, found.sizes[0].later, 100.0, 100.0)), "50%"]  # fmt: skip


def test_what_is_a_little_too_slow_counts_and_what_just_suffices_does_not():
    """By hand: 1.2 times the step's 100 images/s, 1.3 times for twice the batch, three quarters of the cores."""
    for changes, name in (
        ({"sizes": [SMALL._replace(first=119.0)]}, "decoding"), ({"sizes": [SMALL._replace(first=121.0)]}, "network"),
        ({"gain": 1.31}, "batch"), ({"gain": 1.29}, "network"), ({"cores": 0.74}, "load"), ({"cores": 0.76}, "network"),
        ({"cores": 0.5, "sizes": SLOW_FILES}, "decoding"),  # five times too slow: not by others' load alone
        ({"cores": 0.3, "on_cpu": False}, "network"),  # a GPU's step needs no core
    ):  # fmt: skip
        assert cause(replace(FINE, **changes)) == name, changes


def test_a_forward_pass_counts_as_by_hand():
    """And a network without a fixed size counts as one with it."""
    switches = {"depth": 1, "normalization": None, "last_conv": False, "up_kernel_size": 2}
    counts = [forward_gflop(unet_model((*sides, 1), 2, 3, **switches), (8, 12)) for sides in ((8, 12), (None, None))]
    full, half = 8 * 12, 4 * 6
    products = full * 9 * (1 * 2 + 2 * 2) + half * 9 * (2 * 4 + 4 * 4)  # encoder
    products += half * 4 * 4 * 2 + full * 9 * (4 * 2 + 2 * 2) + full * 2 * 3  # up, decoder, logits
    assert counts == pytest.approx([2 * products / 1e9] * 2)


# ---- real ones ----


def training(pairs, batch_size=4, size=(32, 48), model=None, stages=((1, 1),), augment=()):
    """What `measure` takes: a compiled network, by default one that takes hardly any time."""
    conv = keras.layers.Conv2D
    layers = conv(4, 3, padding="same"), keras.layers.BatchNormalization(), conv(3, 1)
    model = model or keras.Sequential([keras.Input((None, None, 3)), *layers])
    compile_unet(model, 3, 1e-2)
    resizing = ProgressiveResizing(size, stages, step=16)
    options = {"shuffle": True, "augment": augment, "resizing": resizing}
    return model, make_batches(pairs, LABELS, size, batch_size, **options), resizing


@pytest.fixture
def pairs(write_pair):
    return [write_pair(stem=f"{n:02}", seed=n) for n in range(24)]


def cause_here(*arguments) -> str:
    """By a measurement, whatever else runs on this machine."""
    found = measure(*arguments)
    print(found)  # where it fails, why
    return cause(replace(found, cores=1.0))


@pytest.mark.slow
def test_slow_reading_is_named(pairs, tmp_path, monkeypatch):
    """As from a disk far away: each opening of a file takes a twentieth of a second."""
    real = builtins.open

    def slow_open(file, *arguments, **options):
        if str(tmp_path) in str(file):
            time.sleep(0.05)
        return real(file, *arguments, **options)

    monkeypatch.setattr(builtins, "open", slow_open)
    assert cause_here(*training(pairs)) == "reading"


@pytest.mark.slow
def test_slow_decoding_is_named(tmp_path):
    """Photographs of three megapixels for a network of 32x48."""
    rng = np.random.default_rng(0)
    first = write_pair_to(tmp_path, size=(1500, 2000))
    Image.fromarray(rng.integers(0, 256, (1500, 2000, 3), np.uint8)).save(first.image, compress_level=1)
    pairs = [first]
    for n in range(11):
        pairs.append(Pair(*(path.with_stem(f"{n}") for path in first)))
        for path, copy in zip(first, pairs[-1], strict=True):
            shutil.copyfile(path, copy)
    assert cause_here(*training(pairs)) == "decoding"


@pytest.mark.slow
def test_slow_augmentation_is_named(pairs):
    def slow(images, masks, draws):
        def wait(images):
            time.sleep(0.2)
            return images

        return tf.ensure_shape(tf.numpy_function(wait, [images], images.dtype), images.shape), masks

    assert cause_here(*training(pairs, augment=[slow])) == "augmentation"


@pytest.mark.slow
def test_a_tiny_batch_is_named(pairs):
    network = unet_model((None, None, 3), 2, 3)  # a hundred small operations
    assert cause_here(*training(pairs, batch_size=1, size=(32, 32), model=network)) == "batch"


@pytest.mark.slow
def test_a_large_network_is_named(pairs):
    network = unet_model((None, None, 3), 16, 3, depth=2)
    assert cause_here(*training(pairs, size=(96, 128), model=network)) == "network"


@pytest.mark.slow
def test_other_programs_are_named(pairs):
    """Three for each core."""
    network = unet_model((None, None, 3), 8, 3, depth=2)
    burning = [
        subprocess.Popen([sys.executable, "-c", "while True: pass"], start_new_session=True)
        for _ in range(3 * os.cpu_count())
    ]
    try:
        found = measure(*training(pairs, size=(96, 128), model=network))
    finally:
        for process in burning:
            process.kill()
            process.wait()
    assert cause(found) == "load", found
    assert found.cores < 0.6


def test_measuring_leaves_all_as_it_was(pairs):
    model, batches, resizing = training(pairs, stages=((0.5, 0.5), (1, 1)))
    model.optimizer.build(model.trainable_variables)
    before = [1 * variable.numpy() for variable in (*model.variables, *model.optimizer.variables)]
    state, order = random.getstate(), [masks.numpy() for _, masks in batches]
    found = measure(model, batches, resizing)
    assert [each.size for each in found.sizes] == resizing.sizes == [(16, 16), (32, 48)]
    assert min(min(each[1:6]) for each in found.sizes) > 0
    assert 1 < found.mib < 1e6
    for variable, value in zip((*model.variables, *model.optimizer.variables), before, strict=True):
        np.testing.assert_array_equal(variable.numpy(), value)
    assert (random.getstate(), resizing.stage, resizing.epoch) == (state, 0, 0)
    assert all(map(np.array_equal, (masks.numpy() for _, masks in batches), order))


def test_it_measures_on_jax_too():
    """The test above, in a process of its own."""
    pytest.importorskip("jax")
    command = [sys.executable, "-m", "pytest", __file__, "-k", "leaves_all_as_it_was", "-p", "no:cacheprovider"]
    environment = os.environ | {"KERAS_BACKEND": "jax"}
    done = subprocess.run(command, cwd=Path(__file__).parents[1], env=environment, capture_output=True, text=True)
    assert "1 passed" in done.stdout, done.stdout


# ---- the command ----


def test_the_command_measures_a_folder_and_names_its_options(capsys, tmp_path):
    folder = make_folder(tmp_path / "data set", size=(32, 32))
    shown = succeeds(capsys, "speed", folder, "--image-size", "64x64", "--batch-size", "2")
    assert [line.split()[0] for line in shown.splitlines()[2:4]] == ["32x32", "64x64"]  # each size once
    assert "Held up by " in shown
    assert "BATCH_SIZE" not in shown
    content = (folder / "images" / "p00.png").read_bytes()
    for path in (folder / "images").iterdir():
        path.write_bytes(content[: len(content) // 2])
    assert "can't be" in fails(capsys, "speed", folder, "--image-size", "64x64")


def test_without_a_folder_the_command_takes_the_drawn_scenes(capsys, monkeypatch):
    def refuse(name, folder, **options):
        raise ValueError(f"{name} in {folder}")

    monkeypatch.setattr(command_speed, "load_dataset", refuse)
    assert "demo in data" in fails(capsys, "speed", n_messages=1)
