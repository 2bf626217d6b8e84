"""One .keras file with labels and image size: written, read, transferred from, exported to other programs."""

import contextlib
import importlib.util
import inspect
import io
import json
import os
import struct
import tempfile
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from .labels import LabelMap
from .model import check_image_size, with_keras_layers_only
from .naming import named
from .storage import partial_file, write_whole

CONFIG = "config.json"  # the member of the zip in which Keras describes the layers
METADATA = "unet_helpers.json"  # a member of the zip; Keras, which loads the file as any other, leaves it alone
WEIGHTS = "model.weights.h5"  # the member of the zip that holds the weights
EXPANSION, ALWAYS = 100, 1 << 26  # a file unpacks to so many times its bytes at most, or to 64 MB; Keras packs nothing
LONGEST_TEXT = 1 << 24  # bytes of CONFIG and METADATA
FORMAT = 1  # of the record
# What zipfile raises for damaged bytes, also where they claim a password, another compression or an impossible place.
DAMAGED = (
    zipfile.BadZipFile, zlib.error, struct.error, OSError, EOFError, KeyError, NotImplementedError, RuntimeError,
    UnicodeDecodeError,
)  # fmt: skip


@dataclass(frozen=True)
class Network:
    """A trained network. model: takes (B, H, W, 3), 0..255, answers (B, H', W', K) logits. labels: the K classes.

    image_size: (height, width) of the pictures that it was trained with: it knows things as large as it saw them.
    bits: of the 16-bit pictures that it was trained with, how many were in use, 8..16; None: there were none.
    """

    model: keras.Model
    labels: LabelMap
    image_size: tuple[int, int]
    bits: int | None = None


def save_network(
    path: str | Path, model: keras.Model, labels: LabelMap | None = None, image_size: tuple[int, int] | None = None,
    bits: int | None = None,
) -> None:  # fmt: skip
    """Write a network to one `.keras` file, whole or not at all; what is None is missing there. See `Network`.

    Keras alone loads the file too, if the model has no other layers than Keras's own: see
    `normalization.with_keras_layers_only`. Raises OSError if it can't be written.
    """
    path = Path(path)
    partial = partial_file(path, ".keras")  # Keras wants the suffix at the end
    record = {"format": FORMAT, "labels": labels and asdict(labels), "image_size": image_size and list(image_size)}
    record |= {"bits": bits} if bits else {}
    whole = io.BytesIO()
    try:
        model.save(partial)
        with zipfile.ZipFile(partial) as archive, zipfile.ZipFile(whole, "w") as changed:
            for name in archive.namelist():
                content = archive.read(name)
                changed.writestr(name, _without_defaults(content) if name == CONFIG else content)
            changed.writestr(METADATA, json.dumps(record, indent=1))
        write_whole(path, whole.getbuffer())
    finally:
        with contextlib.suppress(OSError):
            partial.unlink()


def _without_defaults(config: bytes) -> bytes:
    """A network's config.json without the arguments of layers that have their default values.

    Each version of Keras adds some, writes them all, and can't read a file that has one it does not know: so a network
    trained with the newest Keras would not load in Colab.
    """
    network = json.loads(config)
    for layer in network["config"].get("layers", []):  # a class of its own has none here
        kind = getattr(keras.layers, layer["class_name"], None)
        parameters = inspect.signature(kind.__init__).parameters if layer["module"] == "keras.layers" and kind else {}
        for name, parameter in parameters.items():
            if name in layer["config"] and layer["config"][name] == parameter.default:
                del layer["config"][name]
    return json.dumps(network).encode()


def load_network(
    path: str | Path, labels: LabelMap | None = None, image_size: tuple[int, int] | None = None
) -> Network:
    """The network of a `.keras` file with its labels and image size.

    labels, image_size: for a file that does not hold them; what is given counts, whatever the file holds.
    Raises ValueError, naming the file, if it is none, can't be loaded, is no network for masks, or lacks one of them.
    Nor is one loaded that unpacks to more than a hundred times its bytes (64 MB are always right), or whose weights lie
    in other files.
    """
    path = Path(path)
    if image_size is not None:
        image_size = check_image_size(named("image_size"), image_size)
    check_file(path)
    known_labels, known_size, bits = read_record(path)
    model = _load_model(path)
    labels, image_size = labels or known_labels, image_size or known_size
    own_size = model.input_shape[1:3]
    if image_size is None and None not in own_size:
        image_size = own_size
    missing = {"labels=LabelMap(names, colors)": labels, "image_size=(height, width)": image_size}
    missing = ", ".join(named(text) for text, value in missing.items() if value is None)
    call = named("load_network(path, {})")
    if missing:
        raise ValueError(
            f"{path}: it holds a network, but not its {'image size' if labels else 'labels'}: it was made by another "
            f"program, or before this one wrote them; give what is missing: {call.format(missing)}"
        )
    if model.output_shape[-1] != labels.n_classes:
        raise ValueError(
            f"{path}: the network tells {model.output_shape[-1]} classes apart, found {labels.n_classes} labels; give "
            f"one name and one colour for each class: {call.format(named('labels=LabelMap(names, colors)'))}"
        )
    return Network(model, labels, tuple(image_size), bits)


def load_model(path: str | Path) -> keras.Model:
    """The network of a `.keras` file alone, for what needs neither labels nor size. Raises as `load_network` does."""
    path = Path(path)
    check_file(path)
    return _load_model(path)


def check_file(path: Path) -> None:
    """Raises ValueError, saying what was found, unless it is a `.keras` file as far as its outside tells."""
    expected = "expected the .keras file of a trained network, such as best.keras in the folder of a training"
    if path.is_dir():
        if (path / "best.keras").is_file():
            raise ValueError(f"{path}: found a folder; {expected}: give {path / 'best.keras'}")
        kind = "a SavedModel, which can't be turned back" if (path / "saved_model.pb").is_file() else "a folder"
        raise ValueError(f"{path}: found {kind}; {expected}")
    if not path.is_file():
        raise ValueError(f"{path}: there is no such file; {expected}")
    with open(path, "rb") as file:
        start = file.read(8)
    if start.startswith(b"\x89HDF"):
        raise ValueError(
            f"{path}: found an HDF5 file, Keras's older format; load it with keras.models.load_model, save it under a "
            "name that ends in .keras and give that file"
        )
    if not zipfile.is_zipfile(path):
        found = "an empty file" if not start else "a damaged zip" if start.startswith(b"PK") else "no zip"
        raise ValueError(f"{path}: found {found}; {expected}, which is a zip: get it again, or give another file")
    try:
        with zipfile.ZipFile(path) as archive:
            sizes = {member.filename: member.file_size for member in archive.infolist()}
    except DAMAGED as error:
        raise ValueError(f"{path}: found a damaged zip ({error}); {expected}: get it again") from error
    _check_expansion(path, sum(sizes.values()), path.stat().st_size)
    for name in (CONFIG, METADATA):
        if sizes.get(name, 0) > LONGEST_TEXT:
            raise ValueError(f"{path}: its {name} has {sizes[name]:,} bytes, more than {LONGEST_TEXT:,}; {expected}")
    if CONFIG not in sizes:
        raise ValueError(f"{path}: found a zip that holds no network of Keras; {expected}")
    if path.suffix != ".keras":
        raise ValueError(f"{path}: found another suffix than .keras, without which Keras does not load it; rename it")


def _check_expansion(path: Path, n_bytes: int, packed: int) -> None:
    if n_bytes > max(ALWAYS, EXPANSION * packed):
        raise ValueError(
            f"{path}: {packed:,} bytes of it would unpack to {n_bytes:,}, expected {EXPANSION} times as many at most: "
            "no training writes such a file, which could fill the memory; get it from somebody you know"
        )


def open_weights(path: Path) -> h5py.File:
    """The weights of a `.keras` file, in memory. Raises ValueError, naming the file, if they can't be read, unpack to
    too much, or lie in another file, whose content would become part of the network.
    """
    content = read_member(path, WEIGHTS)
    arrays: list[h5py.Dataset] = []
    try:
        weights = h5py.File(io.BytesIO(content))
        outside = weights.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
        weights.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        outside = outside or next((array.name for array in arrays if array.external or array.is_virtual), None)
        n_bytes = sum(array.nbytes for array in arrays)
    except Exception as error:  # HDF5 raises many kinds for damaged bytes
        raise ValueError(f"{path}: its {WEIGHTS} can't be read ({error}); it is damaged, get the file again") from error
    if outside:
        raise ValueError(
            f"{path}: {outside!r} of its {WEIGHTS} leads elsewhere, expected numbers in the file itself, as a training "
            "writes them; get the file from somebody you know"
        )
    _check_expansion(path, n_bytes, len(content))
    return weights


def read_member(path: Path, name: str) -> bytes:
    """A file in the zip that a `.keras` file is. Raises ValueError, naming the file, if it can't be read."""
    try:
        with zipfile.ZipFile(path) as archive:
            return archive.read(name)
    except DAMAGED as error:
        raise ValueError(f"{path}: its {name} can't be read ({error}); it is damaged, get the file again") from error


def read_record(path: Path) -> tuple[LabelMap | None, tuple[int, int] | None, int | None]:
    """Labels, image size and bits of a `.keras` file, see `Network`; None for what it does not hold. Raises ValueError,
    naming the file."""
    with zipfile.ZipFile(path) as archive:
        if METADATA not in archive.namelist():
            return None, None, None
    content = read_member(path, METADATA)
    try:
        record = json.loads(content)
        version, labels, size, bits = record["format"], *(record.get(key) for key in ("labels", "image_size", "bits"))
        if bits not in (None, *range(8, 17)):
            raise ValueError(f"bits: {bits!r}")
        if version == FORMAT:
            labels = labels if labels is None else LabelMap(**_as_tuples(labels))
            size = size if size is None else check_image_size("image_size", size)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its {METADATA} can't be read ({error}); it is damaged, get it again") from error
    if version != FORMAT:
        raise ValueError(
            f"{path}: its {METADATA} has format {version}, expected {FORMAT}; get the version of this project that "
            "wrote it, or load the network alone: keras.models.load_model(path)"
        )
    return labels, size, bits


def _as_tuples(content):
    """What JSON has, with tuples for its lists."""
    if isinstance(content, dict):
        return {name: _as_tuples(value) for name, value in content.items()}
    return tuple(map(_as_tuples, content)) if isinstance(content, list) else content


def _load_model(path: Path) -> keras.Model:
    """The model of a `.keras` file, not compiled: another program's loss may be unknown here."""
    open_weights(path).close()
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = [model.input_shape, model.output_shape]
    except Exception as error:  # Keras raises what its layers, HDF5 and zip raise
        reason = str(error).strip().split("\n")[0]
        raise ValueError(
            f"{path}: Keras can't load it ({reason}); if it is damaged, get it again; if it has layers of your own, "
            "load the model yourself and give Network(model, labels, image_size)"
        ) from error
    if not all(isinstance(shape, tuple) and len(shape) == 4 for shape in shapes) or shapes[0][-1] != 3:
        raise ValueError(
            f"{path}: found a network from {shapes[0]} to {shapes[1]}; expected one for masks, which takes pictures "
            "(None, height, width, 3) and answers (None, height, width, classes)"
        )
    return model


DRAWN_SCENES = Path(__file__).parent / "trained" / "drawn_scenes.keras"  # comes with the project; see its README.md


def transfer_weights(model: keras.Model, labels: LabelMap, path: str | Path, freeze_encoder: bool = False) -> bool:
    """Give a `unet_model`, before it is compiled, the weights of the network in a `.keras` file.

    If both know the same classes, all are taken. Otherwise, or if the file does not tell its classes, the last layer,
    which tells them apart, stays as it is: new and untrained.
    freeze_encoder: the encoder keeps these weights, and only the decoder is trained: less to learn from few pictures.
    Returns whether the last layer's weights were taken. Raises ValueError, naming the file, if it can't be read or its
    layers are others.
    Source: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792.
    """
    network, path = load_model(path), Path(path)
    known, *_ = read_record(path)
    same_classes = known is not None and labels.names == known.names
    mine, theirs = ([layer for layer in m.layers if layer.weights] for m in (model, network))
    taken = slice(None if same_classes else -1)
    shapes, found = ([[w.shape for w in layer.weights] for layer in some[taken]] for some in (mine, theirs))
    if shapes != found:
        raise ValueError(
            f"{named('START_FROM')}: the layers of {path} are not those of the network that goes on from it; expected "
            f"{_say(model)}, found {_say(network)}; with N_FILTERS = None and "
            "HALF_RESOLUTION = None it follows the file, if this project trained that"
        )
    for own, other in zip(mine[taken], theirs[taken], strict=True):
        own.set_weights(other.get_weights())
    if freeze_encoder:
        for layer in encoder(model):
            layer.trainable = False
    return same_classes


def unet_switches(path: str | Path) -> tuple[int, bool]:
    """(n_filters, half_resolution) of the `model.unet_model` in a `.keras` file, without loading it.

    Raises ValueError, naming the file, if it is none or its first layers are others.
    """
    path = Path(path)
    check_file(path)
    content = read_member(path, CONFIG)
    try:
        layers = json.loads(content)["config"]["layers"]
        first = next(layer["config"] for layer in layers if layer["class_name"] == "Conv2D")
        return int(first["filters"]), tuple(first["strides"]) == (2, 2)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, StopIteration) as error:
        raise ValueError(f"{path}: it holds no U-Net of this project; give the best.keras of a training") from error


def encoder(model: keras.Model) -> list[keras.Layer]:
    """The layers of a U-Net down to its bottleneck: all before the first up-convolution."""
    kinds = [isinstance(layer, keras.layers.Conv2DTranspose) for layer in model.layers]
    return model.layers[: kinds.index(True)]


def _say(model: keras.Model) -> str:
    filters = [f"{layer.filters} filters in the first" for layer in model.layers if hasattr(layer, "filters")]
    n_layers = sum(bool(layer.weights) for layer in model.layers)
    return ", ".join([f"{n_layers} layers with weights", *filters[:1], f"{model.count_params():,} parameters"])


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
