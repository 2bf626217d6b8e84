"""speed: what holds a training of the notebook's part 3 up on this machine, and which parameter widens it."""

import tempfile

import keras
import tensorflow as tf

from ..datasets import load_dataset
from ..devices import device_report, share, use_all
from ..recipe import make_recipe
from ..speed import measure
from . import WrongOption
from .train import prepare


def speed(**options) -> int:
    """Print what `speed.measure` finds, without DIR with the drawn scenes in data; returns 0."""
    given = {name.upper(): value for name, value in options.items()} | {"MINUTES": 1, "RUN_DIR": tempfile.gettempdir()}
    if given["DATA_DIR"] is None:
        given |= {"DATA_DIR": "data", "DATASET": "demo"}
    device = device_report()
    keras.config.set_dtype_policy(device["precision"])
    use_all()
    try:
        recipe = make_recipe(device["kind"], share().n_devices, **given, START_FROM="scratch")
    except ValueError as error:
        raise WrongOption(str(error)) from None
    data = load_dataset(recipe.dataset, recipe.data_dir, **recipe.data_options)
    model, _, batches, _, resizing = prepare(recipe, data)
    try:
        print(f"device: {device['name']}, precision: {device['precision']}\n{measure(model, batches, resizing)}")
    except tf.errors.OpError:
        raise ValueError(f"{recipe.data_dir}: a file can't be decoded; the command check says which") from None
    return 0
