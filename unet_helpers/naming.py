"""How messages name a setting: as a parameter of the notebook or, while a command runs, as its option."""

import contextlib
from collections.abc import Iterator, Mapping

# What `networks.export_network` writes: its name, and the suffix of its file. Here, so that --help needs no Keras.
EXPORT_SUFFIXES = {"tf_saved_model": "", "litert": ".tflite", "onnx": ".onnx", "keras_half": ".keras"}

_options: dict[str, str] = {}  # of the command that runs: what stands there for a name or phrase of the notebook


@contextlib.contextmanager
def options_named(options: Mapping[str, str]) -> Iterator[None]:
    """During the block, messages say what stands in options instead of a name or phrase of the notebook."""
    _options.update(options)
    try:
        yield
    finally:
        _options.clear()


def named(name: str) -> str:
    """A parameter such as "SEED", or a phrase such as "run the cell again", as the reader knows it."""
    return _options.get(name, name)


def shown(value) -> str:
    """A value as it is typed: (64, 96), but 64x96 for an option."""
    return "x".join(map(str, value)) if _options and isinstance(value, tuple) else repr(value)


def setting(name: str, value) -> str:
    """A parameter and its value as they are typed: TRAIN_ANEW = True, but --train-anew for a command."""
    if isinstance(value, float) and value.is_integer():
        value = int(value)
    if name not in _options:
        return f"{name} = {value!r}"
    if value is None or isinstance(value, bool):
        return f"{'' if value else 'no '}{named(name)}"
    return f"{named(name)} {shown(value)}"


def counted(n: int, noun: str) -> str:
    """A number and its noun: "1 epoch", "1,200 epochs", "2 classes"."""
    return f"{n:,} {noun}" + ("" if n == 1 else "es" if noun.endswith("s") else "s")
