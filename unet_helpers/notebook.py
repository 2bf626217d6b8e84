"""What the notebooks share: a quiet start, the parameters, and errors of one line in place of a traceback."""

import contextlib
import os
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping
from importlib.metadata import version
from pathlib import Path

from .devices import check_backend, device_report, share, use_all
from .processes import n_wanted


class OneLine:
    """An exception that a notebook shows as its one sentence, in place of a traceback."""

    def _render_traceback_(self) -> list[str]:
        return [str(self)]


class NotebookError(OneLine, ValueError):
    """What is missing, and which cell or command brings it."""


class Interrupted(OneLine, KeyboardInterrupt):
    """Somebody interrupted a cell: what is kept, and how to go on."""


@contextlib.contextmanager
def interruptible(message: Callable[[], str]) -> Iterator[None]:
    """During the block, KeyboardInterrupt becomes `Interrupted` with the line that message() returns."""
    try:
        yield
    except KeyboardInterrupt:
        raise Interrupted(f"interrupted: {message()}") from None


def start() -> None:
    """Import TensorFlow, set Keras's precision, print versions and device.
    Raises NotebookError where a package is missing. What the imports write to standard error is held back."""
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # fast convolutions on every CPU, not only on the newest
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    if n_wanted() > 1:
        raise NotebookError("a notebook trains in one process; in several, use python -m unet_helpers train")
    try:
        with hold_back_stderr():
            check_backend()
            import keras
            import matplotlib  # noqa: F401
            import numpy as np
            import PIL  # noqa: F401
            import tensorflow as tf

            tf.get_logger().setLevel("ERROR")
            device = device_report()
    except ValueError as error:
        raise NotebookError(str(error)) from None
    except ImportError as error:
        kernel = f"this kernel, the Python of {sys.prefix}, lacks what the notebook needs ({error})"
        todo = "choose the kernel of the environment that has it (menu Kernel, Change Kernel)"
        pip = f"{sys.executable} -m pip install -r {Path(__file__).parents[1] / 'requirements.txt'}"
        raise NotebookError(f"{kernel}: {todo}, or install it and restart this kernel: {pip}") from None
    keras.config.set_dtype_policy(device["precision"])
    print(f"Python {sys.version.split()[0]}, NumPy {np.__version__}")
    is_jax = keras.backend.backend() == "jax"
    print(f"TensorFlow {tf.__version__}, Keras {keras.__version__}" + (f", JAX {version('jax')}" if is_jax else ""))
    print(f"device: {device['name']}, precision: {device['precision']}")
    use_all()


def read_recipe(variables: Mapping[str, object]):
    """The `recipe.Recipe` of a notebook's variables: its parameters and those in its dict OPTIONS; prints the sizes.

    A variable with the name of an option counts, too, as papermill's -p sets it. Raises ValueError for an invalid one.
    """
    from .recipe import OPTIONS, RULES, make_recipe

    options = variables.get("OPTIONS", {})
    unknown = [name for name in options if name not in OPTIONS] if isinstance(options, Mapping) else [options]
    if unknown:
        expected = f'a dict with some of {", ".join(OPTIONS)}; try OPTIONS = {{"EPOCHS": 16}}'
        raise ValueError(f"OPTIONS: found {unknown[0]!r}, expected {expected}")
    given = {**options, **{name: variables[name] for name in RULES if name in variables}}
    recipe = make_recipe(device_report()["kind"], share().n_devices, **given)
    small, large = ("{}x{}".format(*size) for size in (recipe.output_size, recipe.image_size))
    print(f"images: {small} in parts 1 and 2, {large} in part 3")
    print(f"{recipe.n_filters} filters in the first block, {recipe.batch_size} images a step")
    return recipe


@contextlib.contextmanager
def hold_back_stderr() -> Iterator[None]:
    """During the block, what this process writes to standard error, C++ code too, is kept; it is shown if it fails."""
    sys.stderr.flush()
    with tempfile.TemporaryFile() as file, contextlib.ExitStack() as stack:
        stderr = os.dup(2)
        stack.callback(os.close, stderr)
        os.dup2(file.fileno(), 2)
        try:
            yield
        except Exception:
            file.seek(0)
            os.write(stderr, file.read())
            raise
        finally:
            sys.stderr.flush()
            os.dup2(stderr, 2)
