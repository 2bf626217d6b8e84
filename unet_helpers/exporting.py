"""A trained network for others: TensorFlow's SavedModel, LiteRT for phones and small devices, ONNX, a small file."""

import importlib.util
import io
import os
import tempfile
import zipfile
from pathlib import Path

import h5py
import keras
import numpy as np

from .files import write_whole
from .naming import named
from .networks import WEIGHTS, Network, check_file, load_model, open_weights, read_member
from .normalization import with_keras_layers_only

SUFFIXES = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx"}  # a SavedModel is a folder
PACKAGES = {"onnx": ("onnx", "tf2onnx")}  # beyond those of requirements.txt


def export_network(network: Network | keras.Model | str | Path, path: str | Path, format: str) -> None:
    """Write a network so that it runs without Keras and this package; by Keras's own `Model.export`.

    network: a Network, its `.keras` file, one without labels, too, or a model alone.
    path: ends in .tflite for "litert", in .onnx for "onnx"; a folder that does not exist yet for "tf_saved_model".
    What is written takes pictures (B, H, W, 3) float32 RGB, 0..255, H and W of the same sizes as the network does, and
    answers (B, H', W', K) float32 logits. It is float32 throughout, also where the network was trained in half
    precision: runtimes differ in what they make of that. With LiteRT, call `resize_tensor_input` before each new size.
    Raises ValueError for an unknown format or a path that doesn't fit, ImportError where the format needs a package
    that is not there.
    """
    path = Path(path)
    if format not in SUFFIXES:
        raise ValueError(f"{named('format')}: found {format!r}, expected one of {', '.join(map(repr, SUFFIXES))}")
    if SUFFIXES[format] and path.suffix != SUFFIXES[format]:
        expected = f"a name that ends in {SUFFIXES[format]} for {format!r}"
        raise ValueError(f"{named('path')}: found {str(path)!r}, expected {expected}")
    if path.exists():
        raise ValueError(f"{named('path')}: {str(path)!r} is there already; delete it, or give another name")
    missing = [name for name in PACKAGES.get(format, ()) if importlib.util.find_spec(name) is None]
    if missing:
        todo = f"{' and '.join(missing)}: pip install {' '.join(missing)}"
        raise ImportError(f"{named('format')}: {format!r} needs {todo}")
    if isinstance(network, (str, Path)):
        network = load_model(network)
    model = _in_float32(network.model if isinstance(network, Network) else network)
    images = [keras.InputSpec(shape=model.input_shape, dtype="float32", name="images")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial_", dir=path.parent) as folder:  # whole or not at all
        # as text: Keras before 3.14 asks it for its ending
        model.export(str(Path(folder) / path.name), format=format, verbose=False, input_signature=images)
        os.replace(Path(folder) / path.name, path)


def _in_float32(model: keras.Model) -> keras.Model:
    """A copy of a network that computes in float32."""
    model = with_keras_layers_only(model)
    copy = keras.models.clone_model(
        model, clone_function=lambda layer: type(layer).from_config(layer.get_config() | {"dtype": "float32"})
    )
    copy.set_weights(model.get_weights())
    return copy


def save_half(path: str | Path, out: str | Path) -> None:
    """Write the network of a `.keras` file once more, with its numbers in half precision: half as many bytes.

    Keras makes 32 bits of them again when it loads the file, so the network computes as before, with rounded weights.
    Raises ValueError, naming the file, if path is none, out does not end in .keras or is the same file, or a number is
    too large for 16 bits; OSError if out can't be written.
    """
    path, out = Path(path), Path(out)
    check_file(path)
    if out.suffix != ".keras" or out.is_dir():
        raise ValueError(f"{named('path')}: found {str(out)!r}, expected a name that ends in .keras")
    if out.exists() and out.samefile(path):
        todo = "and would lose its 32 bits; give another name"
        raise ValueError(f"{named('path')}: {str(out)!r} is the network itself, {todo}")
    if out.exists():
        raise ValueError(f"{named('path')}: {str(out)!r} is there already; delete it, or give another name")
    out.parent.mkdir(parents=True, exist_ok=True)
    content = io.BytesIO()
    with zipfile.ZipFile(path) as old, zipfile.ZipFile(content, "w", zipfile.ZIP_DEFLATED) as new:
        for name in old.namelist():
            new.writestr(name, _halve(path) if name == WEIGHTS else read_member(path, name))
    write_whole(out, content.getvalue())


def _halve(path: Path) -> bytes:
    """The HDF5 file in a `.keras` file, with all its 32-bit numbers in 16 bits."""
    content = io.BytesIO()
    with open_weights(path) as old, h5py.File(content, "w") as new:

        def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
            if isinstance(item, h5py.Group):
                copied = new.require_group(name)
            else:
                values = item[()]
                halved = values
                if values.dtype == np.float32:  # others stay: counters, and what is of 16 bits already
                    with np.errstate(over="ignore"):  # said below
                        halved = values.astype(np.float16)
                if halved is not values and not np.isfinite(halved).all():
                    raise ValueError(f"{path}: {name} has numbers that 16 bits can't hold; keep the file as it is")
                copied = new.create_dataset(name, data=halved)
            for key, value in item.attrs.items():
                copied.attrs[key] = value

        old.visititems(copy)
        for key, value in old.attrs.items():
            new.attrs[key] = value
    return content.getvalue()
