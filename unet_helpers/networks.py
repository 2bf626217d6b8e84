"""One .keras file with labels and image size: written, read, transferred from, exported to other programs."""

import contextlib
import importlib.util
import inspect
import io
import json
import os
import tempfile
import zipfile
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras
import numpy as np

from .images import GREY
from .labels import LabelMap
from .model import check_image_size, with_keras_layers_only
from .naming import EXPORT_SUFFIXES, counted, named
from .storage import partial_file, write_json, write_whole

DRAWN_SCENES = Path(__file__).parent / "trained" / "drawn_scenes.keras"  # included; see the README.md beside it
CONFIG, WEIGHTS = "config.json", "model.weights.h5"  # Keras's members of the zip: the layers, and their weights
METADATA = "unet_helpers.json"  # our member of the zip, which Keras ignores
METADATA_FORMAT = 1  # of METADATA
EXPANSION, ALWAYS = 100, 1 << 26  # a file may unpack to 100 times its size, or to 64 MB: Keras itself packs nothing


@dataclass(frozen=True)
class Network:
    model: keras.Model  # images (B, H, W, 3), 0..255 -> logits (B, H', W', K)
    labels: LabelMap  # of the K classes
    image_size: tuple[int, int]  # (height, width) of its training images
    bits: int | None = None  # in use in its 16-bit training images, 8..16; None: there were none


def save_network(
    path: str | Path, model: keras.Model, labels: LabelMap | None = None, image_size: tuple[int, int] | None = None,
    bits: int | None = None, about: dict | None = None,
) -> None:  # fmt: skip
    """Write a `Network` to one `.keras` file, whole or not at all; what is None is left out. Raises OSError.
    about: where it comes from, for people, as JSON: data_set, n_images, start, epoch, val_mIoU.
    Keras alone loads the file, too, if the model has only Keras's own layers: see `model.with_keras_layers_only`."""
    path = Path(path)
    partial = partial_file(path, ".keras")  # Keras wants the suffix at the end
    record = {"format": METADATA_FORMAT, "labels": labels and asdict(labels), "image_size": image_size}
    if labels:
        del record["labels"]["void_pixels"]  # they belong to the data set
    record |= ({"bits": bits} if bits else {}) | ({"about": about} if about else {})
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
    """A network's config.json without the arguments of layers that have their default values. Each version of Keras
    adds some, and can't read one that it does not know: a network of the newest Keras would not load in Colab."""
    network = json.loads(config)
    for layer in network["config"].get("layers", []):  # a model of the user's own class has none here
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
    labels, image_size: for a file that does not hold them, or instead of those it holds.
    Raises ValueError, naming the file, if it can't be loaded, is no segmentation network, lacks labels or size, unpacks
    to over EXPANSION times its size, or has weights in other files."""
    if image_size is not None:
        image_size = check_image_size(named("image_size"), image_size)
    known_labels, known_size, bits = read_record(path)
    model = load_model(path)
    fixed_size = None if None in model.input_shape[1:3] else model.input_shape[1:3]
    labels, image_size = labels or known_labels, image_size or known_size or fixed_size
    arguments = {"labels=LabelMap(names, colors)": labels, "image_size=(height, width)": image_size}
    missing = ", ".join(named(argument) for argument, value in arguments.items() if value is None)
    call = named("load_network(path, {})")
    if missing:
        found = "another program, or an older version of this one, wrote it"
        raise ValueError(f"{path}: {found}; give what is missing: {call.format(missing)}")
    if model.output_shape[-1] != labels.n_classes:
        found = f"the network has {counted(model.output_shape[-1], 'class')}, found {labels.n_classes} labels"
        todo = f"give one for each class: {call.format(named('labels=LabelMap(names, colors)'))}"
        raise ValueError(f"{path}: {found}; {todo}")
    return Network(model, labels, tuple(image_size), bits)


def load_model(path: str | Path) -> keras.Model:
    """The network of a `.keras` file alone, not compiled. Raises ValueError as `load_network` does."""
    open_weights(path).close()
    try:
        model = keras.models.load_model(path, compile=False)
        shapes = [model.input_shape, model.output_shape]
    except Exception as error:  # Keras raises what its layers, HDF5 and zip raise
        reason = str(error).strip().split("\n")[0]
        todo = "get it again, or, if it has layers of your own, give Network(model, labels, image_size)"
        raise ValueError(f"{path}: Keras can't load it ({reason}); {todo}") from error
    if not all(isinstance(shape, tuple) and len(shape) == 4 for shape in shapes) or shapes[0][-1] != 3:
        found = f"found a network from {shapes[0]} to {shapes[1]}; expected one for segmentation"
        expected = "from images (None, height, width, 3) to logits (None, height, width, classes)"
        raise ValueError(f"{path}: {found}, {expected}")
    return model


def read_members(path: str | Path) -> dict[str, bytes]:
    """The files in the zip that a `.keras` file is. Raises ValueError as `load_network` does."""
    try:
        with zipfile.ZipFile(path) as archive:
            _check_expansion(sum(member.file_size for member in archive.infolist()), os.path.getsize(path))
            members = {name: archive.read(name) for name in archive.namelist()}
            if not {CONFIG, WEIGHTS} <= members.keys():
                raise ValueError(f"it holds no {CONFIG} and {WEIGHTS}")
            return members
    except Exception as error:  # zipfile raises a dozen kinds for damaged bytes
        expected = "expected the .keras file of a trained network, such as best.keras in the folder of a run"
        found = "there is no such file" if isinstance(error, FileNotFoundError) else f"it can't be read ({error})"
        raise ValueError(f"{path}: {found}; {expected}") from error


def _check_expansion(n_bytes: int, packed: int) -> None:
    if n_bytes > max(ALWAYS, EXPANSION * packed):
        found = f"{packed:,} bytes of it would unpack to {n_bytes:,}"
        raise ValueError(f"{found}, expected at most {EXPANSION} times as many: it could fill the memory")


def open_weights(path: str | Path) -> h5py.File:
    """The weights of a `.keras` file, in memory. Raises ValueError as `load_network` does."""
    content, arrays = read_members(path)[WEIGHTS], []
    try:
        weights = h5py.File(io.BytesIO(content))
        weights.visititems(lambda _, item: arrays.append(item) if isinstance(item, h5py.Dataset) else None)
        linked = weights.visititems_links(lambda name, link: None if isinstance(link, h5py.HardLink) else name)
        if linked or any(array.external or array.is_virtual for array in arrays):
            raise ValueError("it links to another file")
        _check_expansion(sum(array.nbytes for array in arrays), len(content))
    except Exception as error:  # HDF5 raises many kinds for damaged bytes
        todo = "get the file again, from a source that you trust"
        raise ValueError(f"{path}: its {WEIGHTS} can't be read ({error}); {todo}") from error
    return weights


def read_record(path: str | Path) -> tuple[LabelMap | None, tuple[int, int] | None, int | None]:
    """(labels, image size, bits) of a `.keras` file, or None. Raises ValueError like `load_network`."""
    content = read_members(path).get(METADATA)
    if content is None:
        return None, None, None
    try:
        record = json.loads(content)
        if record["format"] != METADATA_FORMAT:
            raise ValueError(f"format: found {record['format']}, expected {METADATA_FORMAT}")
        labels, size, bits = (record.get(key) for key in ("labels", "image_size", "bits"))
        if bits not in (None, *range(8, 17)):
            raise ValueError(f"bits: found {bits!r}, expected 8 to 16")
        labels = labels if labels is None else LabelMap(**{key: as_python(value) for key, value in labels.items()})
        return labels, size if size is None else check_image_size("image_size", size), bits
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        todo = "get the file again, or the version of this project that wrote it"
        raise ValueError(f"{path}: its {METADATA} can't be read ({error}); {todo}") from error


def read_about(path: Path) -> dict:
    """Where the network of a `.keras` file comes from, see `save_network`; {} if the file does not say so."""
    about = json.loads(read_members(path).get(METADATA, "{}")).get("about")
    return about if isinstance(about, dict) else {}


def as_python(value):
    """NumPy's numbers as Python's, lists and arrays as tuples."""
    if isinstance(value, (list, tuple, np.ndarray)):
        return tuple(map(as_python, value))
    return value.item() if isinstance(value, np.generic) else value


def transfer_weights(model: keras.Model, labels: LabelMap, path: str | Path, freeze_encoder: bool = False) -> bool:
    """Load the weights of a `.keras` file into a `unet_model` that is not compiled yet.
    The last layer, which tells the classes apart, keeps its new weights unless the file names the same classes.
    freeze_encoder: train only the decoder: less to learn from few images. Returns whether the last layer's weights were
    loaded. Raises ValueError, naming the file, if its layers differ.
    Source: Yosinski et al. 2014, https://arxiv.org/abs/1411.1792."""
    network, (known, *_) = load_model(path), read_record(path)
    print(f"transfer learning: weights of {Path(path).name} loaded")
    same_classes = known is not None and labels.names == known.names
    own, theirs = ([layer for layer in m.layers if layer.weights] for m in (model, network))
    loaded = slice(None if same_classes else -1)
    expected, found = ([[w.shape for w in layer.weights] for layer in some[loaded]] for some in (own, theirs))
    if found != expected:
        raise ValueError(
            f"{named('START_FROM')}: the layers of {path} are not those of the network to train; found {len(theirs)} "
            f"with {network.count_params():,} parameters, expected {len(own)} with {model.count_params():,}; N_FILTERS "
            "= None and HALF_RESOLUTION = None make it follow a file of this project"
        )
    for layer, other in zip(own[loaded], theirs[loaded], strict=True):
        layer.set_weights(other.get_weights())
    if freeze_encoder:
        for layer in encoder(model):
            layer.trainable = False
    return same_classes


def unet_switches(path: str | Path) -> tuple[int, bool]:
    """(n_filters, half_resolution) of a `.keras` file's `model.unet_model`. Raises ValueError if it holds none."""
    content = read_members(path)[CONFIG]
    try:
        layers = json.loads(content)["config"]["layers"]
        first = next(layer["config"] for layer in layers if layer["class_name"] == "Conv2D")
        return int(first["filters"]), tuple(first["strides"]) == (2, 2)
    except (ValueError, KeyError, TypeError, OverflowError, RecursionError, StopIteration) as error:
        raise ValueError(f"{path}: it holds no U-Net of this project; give the best.keras of a run") from error


def encoder(model: keras.Model) -> list[keras.Layer]:
    """The layers of a U-Net down to its bottleneck: all before the first up-convolution."""
    kinds = [isinstance(layer, keras.layers.Conv2DTranspose) for layer in model.layers]
    return model.layers[: kinds.index(True)]


def export_network(network: Network | keras.Model | str | Path, path: str | Path, format: str) -> None:
    """Write a network for programs without Keras and this package, by Keras's own `Model.export`; or in half the bytes.
    network: a Network, a model, or a `.keras` file, with or without labels.
    path: ends in .tflite for "litert", in .onnx for "onnx"; a new folder for "tf_saved_model". Each takes images
        (B, H, W, 3) float32 RGB, 0..255, of the sizes that the network takes, and returns logits (B, H', W', K),
        float32 throughout: runtimes differ in half precision. With LiteRT, call `resize_tensor_input` for each size.
        Classes, image size and padding are in ONNX's metadata, "unet_helpers", and beside the others in PATH.json.
    format: one of EXPORT_SUFFIXES. "keras_half" writes a `.keras` file once more with its weights in float16. Keras
        loads them as float32, so the network computes as before, with rounded weights.
    Raises ValueError, naming file or parameter, ImportError for a missing package, OSError if path can't be written."""
    path = Path(path)
    if format not in EXPORT_SUFFIXES:
        raise ValueError(f"{named('format')}: found {format!r}, expected one of {', '.join(EXPORT_SUFFIXES)}")
    suffix = EXPORT_SUFFIXES[format]
    if suffix and path.suffix != suffix:
        raise ValueError(f"{named('path')}: found {str(path)!r}, expected a name that ends in {suffix} for {format!r}")
    beside = path.with_name(f"{path.name}.json")
    for each in (path, beside) if format in ("tf_saved_model", "litert") else (path,):
        if each.exists():
            raise ValueError(f"{named('path')}: {str(each)!r} is there already; give another name")
    missing = [name for name in ("onnx", "tf2onnx") if format == "onnx" and importlib.util.find_spec(name) is None]
    if missing:
        todo = f"{' and '.join(missing)}: pip install {' '.join(missing)}"
        raise ImportError(f"{named('format')}: {format!r} needs {todo}")
    if format == "keras_half":
        content = _halve(Path(network))
        path.parent.mkdir(parents=True, exist_ok=True)
        write_whole(path, content)
        return
    if keras.backend.backend() != "tensorflow":
        raise ValueError(f"{named('format')}: {format!r} is written by TensorFlow alone; set KERAS_BACKEND=tensorflow")
    labels = image_size = None
    if isinstance(network, (str, Path)):
        labels, image_size, _ = read_record(Path(network))
        network = load_model(network)
    elif isinstance(network, Network):
        network, labels, image_size = network.model, network.labels, network.image_size
    about = {"classes": labels and labels.names, "image_size": image_size, "padding": GREY, "values": [0, 255]}
    about["input"] = "RGB, float32, letterboxed into image_size (height, width), the rest is padding"
    model = with_keras_layers_only(network, "float32")
    images = [keras.InputSpec(shape=model.input_shape, dtype="float32", name="images")]
    path.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(prefix=".partial_", dir=path.parent) as folder:  # whole or not at all
        # as text: Keras before 3.14 asks it for its ending
        model.export(str(Path(folder) / path.name), format=format, verbose=False, input_signature=images)
        if format == "onnx":
            import onnx

            exported = onnx.load(Path(folder) / path.name)
            onnx.helper.set_model_props(exported, {"unet_helpers": json.dumps(about)})
            onnx.save(exported, Path(folder) / path.name)
        else:
            write_json(beside, about)
        os.replace(Path(folder) / path.name, path)


def _halve(path: Path) -> bytes:
    """A `.keras` file once more, packed, with its float32 weights in float16; others, such as counters, as they are."""
    halves, archive = io.BytesIO(), io.BytesIO()

    def copy(name: str, item: h5py.Group | h5py.Dataset) -> None:
        if isinstance(item, h5py.Group):
            new.require_group(name)
        else:
            with np.errstate(over="ignore"):  # said below
                new[name] = item[()].astype(np.float16 if item.dtype == np.float32 else item.dtype)
            if item.dtype == np.float32 and not np.isfinite(new[name]).all():
                raise ValueError(f"{path}: {name} has numbers that 16 bits can't hold; keep the file as it is")
        new[name].attrs.update(item.attrs)

    with open_weights(path) as old, h5py.File(halves, "w") as new:
        old.visititems(copy)
        new.attrs.update(old.attrs)
    with zipfile.ZipFile(archive, "w", zipfile.ZIP_DEFLATED) as packed:
        for name, content in (read_members(path) | {WEIGHTS: halves.getvalue()}).items():
            packed.writestr(name, content)
    return archive.getvalue()
