"""One `.keras` file that carries all that prediction needs: network, labels, size and 16-bit scale of its training."""

import contextlib
import inspect
import io
import json
import struct
import zipfile
import zlib
from dataclasses import asdict, dataclass
from pathlib import Path

import h5py
import keras

from .files import partial_file, write_whole
from .labels import LabelMap
from .model import check_image_size
from .naming import named

CONFIG = "config.json"  # the member of the zip in which Keras describes the layers
RECORD = "unet_helpers.json"  # a member of the zip; Keras, which loads the file as any other, leaves it alone
WEIGHTS = "model.weights.h5"  # the member of the zip that holds the weights
EXPANSION, ALWAYS = 100, 1 << 26  # a file unpacks to so many times its bytes at most, or to 64 MB; Keras packs nothing
LONGEST_TEXT = 1 << 24  # bytes of CONFIG and RECORD
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
            changed.writestr(RECORD, json.dumps(record, indent=1))
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
    for name in (CONFIG, RECORD):
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
        if RECORD not in archive.namelist():
            return None, None, None
    content = read_member(path, RECORD)
    try:
        record = json.loads(content)
        version, labels, size, bits = record["format"], *(record.get(key) for key in ("labels", "image_size", "bits"))
        if bits not in (None, *range(8, 17)):
            raise ValueError(f"bits: {bits!r}")
        if version == FORMAT:
            labels = labels if labels is None else LabelMap(**_as_tuples(labels))
            size = size if size is None else check_image_size("image_size", size)
    except (KeyError, TypeError, ValueError, AttributeError, RecursionError) as error:
        raise ValueError(f"{path}: its {RECORD} can't be read ({error}); it is damaged, get the file again") from error
    if version != FORMAT:
        raise ValueError(
            f"{path}: its {RECORD} has format {version}, expected {FORMAT}; get the version of this project that wrote "
            "it, or load the network alone: keras.models.load_model(path)"
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
