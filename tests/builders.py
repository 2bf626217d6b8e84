"""What tests of the commands need: data sets, a network of known weights, and the command itself."""

import keras
import numpy as np
from conftest import LABELS, write_pair_to

from unet_helpers import networks
from unet_helpers.__main__ import main
from unet_helpers.labels import Pair
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.recipe import Recipe, make_recipe


def make_folder(root, n_pairs=24, size=(64, 96), stem="p{:02}"):
    """Of 24 pairs, 17 train, 3 validate, 4 test."""
    for n in range(n_pairs):
        write_pair_to(root, stem.format(n), size, seed=n)
    (root / "classes.txt").write_text("\n".join(LABELS.names))
    return root


def make_lyft(root, *stems, size=(32, 48)) -> list[Pair]:
    """Pairs in the layout of Kaggle's Lyft set: no file is looked at before it is needed, unlike those of `folder`.

    F4 is a drive for training, F2 for validation, F1 for the test.
    """
    pairs = []
    for n, stem in enumerate(stems):
        folders = [root / "lyft" / "dataA" / "dataA" / name for name in ("CameraRGB", "CameraSeg")]
        for source, folder in zip(write_pair_to(root / "drawn", stem, size, seed=n), folders, strict=True):
            folder.mkdir(parents=True, exist_ok=True)
            source.replace(folder / f"{stem}.png")
        pairs.append(Pair(*(folder / f"{stem}.png" for folder in folders)))
    return pairs


def save_network(folder, labels=LABELS, size=(16, 24)):
    """A network that finds conftest's three classes by their colours, saved as a training does; its file."""
    n_classes = labels.n_classes
    inputs = keras.Input((None, None, 3))
    logits = keras.layers.Conv2D(n_classes, 1)
    model = keras.Model(inputs, logits(inputs))
    weights = np.zeros((1, 1, 3, n_classes), np.float32)
    weights[0, 0, :, 0], weights[0, 0, :, 2] = (-1, 0, 1), (1, 0, -1)
    logits.set_weights([weights, np.float32([0, 60, 0] + [-99] * n_classes)[:n_classes]])
    folder.mkdir(parents=True)
    networks.save_network(folder / "best.keras", model, labels, size)
    return folder / "best.keras"


def save_start(path, **options):
    """A small untrained U-Net to start from, so that a training takes seconds: its filters are those of the file."""
    switches = {"half_resolution": True, "up_kernel_size": 2, "last_conv": False, "dropout_prob": 0} | options
    networks.save_network(path, with_keras_layers_only(unet_model((None, None, 3), 2, 3, **switches)))
    return path


def make_small_recipe(root, **changes) -> Recipe:
    """Of the data set `folder` in root, with its runs beside the images."""
    values = {
        "DATASET": "folder", "DATA_DIR": str(root), "MINUTES": 4, "IMAGE_SIZE": (64, 96), "SEED": 0,
        "ARCHIVE": None, "RUN_DIR": str(root / "runs"), "EPOCHS": None, "N_FILTERS": 2, "HALF_RESOLUTION": True,
        "BATCH_SIZE": 2, "SIZE_STAGES": ((0.5, 0.5), (1, 1)), "LEARNING_RATE": 1e-2, "FRAMES_PER_DRIVE": 1,
        "TRAIN_ANEW": False,
    }  # fmt: skip
    return make_recipe("CPU", **values | changes)


def run(capsys, *arguments) -> tuple[int, str, str]:
    """Exit code of a command, its output and its errors."""
    capsys.readouterr()
    try:
        code = main([str(argument) for argument in arguments])
    except SystemExit as error:  # argparse's
        code = error.code
    return code, *capsys.readouterr()


def messages(errors: str) -> list[str]:
    assert "Traceback" not in errors
    return [line for line in errors.splitlines() if line.startswith("unet_helpers: ")]


def succeeds(capsys, *arguments) -> str:
    """The output of a command that succeeds without complaints."""
    code, shown, errors = run(capsys, *arguments)
    assert (code, errors) == (0, "")
    return shown


def fails(capsys, *arguments, n_messages: int | None = None) -> str:
    """The messages of a command that fails, as many as stated."""
    code, _, errors = run(capsys, *arguments)
    assert code == 1
    assert n_messages in (None, len(messages(errors)))
    return errors
