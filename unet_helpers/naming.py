"""How messages name a setting: as a parameter of the notebook or, while a command runs, as its option."""

import contextlib
from collections.abc import Iterator, Mapping

_options: dict[str, str] = {}  # of the running command: what replaces a name or phrase of the notebook


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
