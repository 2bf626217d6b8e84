"""An interrupted training equals the uninterrupted one: with real batches and a real network."""

import os
import subprocess
import sys

import keras
import numpy as np
import pytest
import tensorflow as tf
from conftest import LABELS, write_pair_to

from benchmarks.copy_paste import CopyPaste
from unet_helpers.augmentation import RandomResizedCrop
from unet_helpers.checkpoints import RunCheckpoint, load_best
from unet_helpers.model import PreciseStatistics, unet_model
from unet_helpers.networks import load_network, read_record
from unet_helpers.optimizers import WarmupStableDecay
from unet_helpers.pipeline import make_batches
from unet_helpers.storage import read_json
from unet_helpers.training import ProgressiveResizing, compile_unet

SMALL, FULL = (32, 32), (64, 96)


class Training:
    """A small training of four epochs in run_dir, as the notebook makes it."""

    def __init__(self, run_dir, pairs):
        run_dir.mkdir(exist_ok=True)
        self.run_dir, self.seen = run_dir, []
        self.resizing = ProgressiveResizing(FULL, ((0.5, 0.5), (1, 1)), 4)
        options = {"seed": 1, "resizing": self.resizing}
        changes = [RandomResizedCrop(), CopyPaste([2])]
        self.train = make_batches(pairs[:3], LABELS, FULL, 1, shuffle=True, augment=changes, **options)
        self.validation = make_batches(pairs[3:], LABELS, FULL, 1, **options)
        keras.utils.set_random_seed(0)
        self.model = unet_model((None, None, 3), 2, 3, depth=1)
        compile_unet(self.model, 3, WarmupStableDecay(4 * 3, 1e-2))
        self.checkpoint = RunCheckpoint(run_dir, self.resizing, LABELS)

    def fit(self, *extra):
        return self.model.fit(
            self.train.map(self._watch), validation_data=self.validation, epochs=4, verbose=0, shuffle=False,
            initial_epoch=self.checkpoint.resume(self.model),
            callbacks=[self.resizing, PreciseStatistics(self.train), self.checkpoint, *extra],
        )  # fmt: skip

    def _watch(self, images, masks):
        watched = tf.py_function(lambda images: self.seen.append(tuple(images.shape[1:3])), [images], [])
        with tf.control_dependencies([watched]):
            return tf.identity(images), masks

    def rows(self):
        return np.genfromtxt(self.run_dir / "log.csv", delimiter=",", names=True)


class StopIn(keras.callbacks.Callback):
    """As if somebody pressed Stop in the middle of an epoch."""

    def __init__(self, epoch):
        super().__init__()
        self.last = epoch

    def on_epoch_begin(self, epoch, logs=None):
        self.now = epoch

    def on_train_batch_end(self, batch, logs=None):
        if self.now == self.last:
            raise KeyboardInterrupt


@pytest.fixture(scope="module")
def pairs(tmp_path_factory):
    folder = tmp_path_factory.mktemp("pairs")
    return [write_pair_to(folder, size=FULL, stem=str(n), seed=n) for n in range(4)]


@pytest.fixture(scope="module")
def whole(tmp_path_factory, pairs):
    """The same training, uninterrupted: what every interrupted one must equal."""
    training = Training(tmp_path_factory.mktemp("whole") / "run", pairs)
    training.fit()
    return training


def test_images_grow_and_the_run_keeps_its_network_with_labels_and_size_its_log_and_one_checkpoint(whole):
    assert whole.seen[-12:] == [SMALL] * 6 + [FULL] * 6  # JAX looks at a batch before the first epoch, too
    assert whole.rows()["epoch"].tolist() == [0, 1, 2, 3]
    assert {"loss", "mIoU", "val_loss", "val_mIoU"} <= set(whole.rows().dtype.names)
    names = {path.name for path in whole.run_dir.iterdir()}
    assert names == {"best.keras", "best.json", "log.csv", "state.npz"}
    network = load_network(whole.run_dir / "best.keras")
    assert (network.labels, network.image_size) == (LABELS, FULL)


def test_after_stops_and_in_a_new_session_it_is_the_training_in_one_go(tmp_path, pairs, whole):
    """With the weights of a half epoch in memory; and epoch 4 has the order, augmentation, size and rate of epoch 4."""
    training = Training(tmp_path / "stopped", pairs)
    for epoch in (0, 1, 3):
        with pytest.raises(KeyboardInterrupt):
            training.fit(StopIn(epoch))
        assert epoch != 1 or read_record(tmp_path / "stopped" / "best.keras")[1] == SMALL
    training = Training(tmp_path / "stopped", pairs)
    for variable in training.model.variables:
        variable.assign(np.ones(variable.shape))
    assert training.fit().epoch == [3]
    assert training.seen[-3:] == [FULL] * 3
    ours, theirs = training.rows(), whole.rows()
    np.testing.assert_array_equal(ours["epoch"], theirs["epoch"])
    np.testing.assert_allclose(ours["loss"], theirs["loss"], rtol=1e-4)
    np.testing.assert_allclose(ours["val_mIoU"], theirs["val_mIoU"], atol=1e-3)
    best, expected = (read_json(run.run_dir / "best.json") for run in (training, whole))
    assert best["epoch"] == expected["epoch"]
    loaded, weights = (load_best(run.run_dir, FULL)[0].get_weights() for run in (training, whole))
    for a, b in zip(loaded, weights, strict=True):
        np.testing.assert_allclose(a, b, atol=1e-4)


def test_a_finished_training_is_loaded_and_not_repeated(pairs, whole, capsys):
    files = {path.name: path.read_bytes() for path in whole.run_dir.iterdir() if path.suffix != ".keras"}
    training = Training(whole.run_dir, pairs)
    assert training.fit().epoch == whole.fit().epoch == []  # in a new session, and the cell again
    assert "trained before, 4 epochs: its network is loaded" in capsys.readouterr().out
    assert training.resizing.sizes[training.resizing.stage] == FULL
    best = load_best(whole.run_dir, FULL)[0].get_weights()
    for a, b in zip(training.model.get_weights(), best, strict=True):
        np.testing.assert_array_equal(a, b)
    assert {path.name: path.read_bytes() for path in whole.run_dir.iterdir() if path.suffix != ".keras"} == files


def test_the_best_network_predicts_the_same_in_a_fresh_process_without_this_package(tmp_path, whole):
    model, _ = load_best(whole.run_dir, FULL)
    image = np.random.default_rng(0).integers(0, 256, (1, 16, 16, 3)).astype(np.float32)
    np.save(tmp_path / "image.npy", image)
    code = "import keras, numpy, sys; model = keras.models.load_model(sys.argv[1]);"
    code += "numpy.save('logits.npy', model.predict_on_batch(numpy.load('image.npy')));"
    code += "assert 'unet_helpers' not in sys.modules"
    command = [sys.executable, "-c", code, str(whole.run_dir / "best.keras")]
    subprocess.run(command, check=True, cwd=tmp_path, env={**os.environ, "PYTHONPATH": ""})
    np.testing.assert_allclose(np.load(tmp_path / "logits.npy"), model.predict_on_batch(image), atol=1e-5)
