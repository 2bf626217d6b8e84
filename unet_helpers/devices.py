"""What a training computes on: the backend, its devices and their precision, and how they share a batch."""

import contextlib
import os
import warnings
from collections.abc import Iterator
from importlib.util import find_spec
from typing import NamedTuple

BACKENDS = ("tensorflow", "jax")  # with PyTorch nothing is tested


def check_backend() -> None:
    """Raises ImportError, one sentence, where a package is missing, and ValueError for another backend."""
    backend = os.environ.get("KERAS_BACKEND") or "tensorflow"
    if backend == "jax" and not find_spec("jax"):
        raise ImportError("KERAS_BACKEND: 'jax' needs JAX: pip install jax (for a GPU: pip install 'jax[cuda12]')")
    if backend in BACKENDS and not find_spec("tensorflow"):
        why, package = (" with JAX, too", "tensorflow-cpu") if backend == "jax" else ("", "tensorflow")
        raise ImportError(f"TensorFlow is missing; it decodes images and makes batches{why}: pip install {package}")
    if backend in BACKENDS:
        import keras

        backend = keras.backend.backend()  # keras.json may name another one
    if backend not in BACKENDS:
        raise ValueError(f"KERAS_BACKEND: found {backend!r}, expected 'tensorflow' or 'jax'; set it and start again")


def device_report() -> dict[str, str]:
    """What this process computes on: {"kind": "CPU" or "GPU", "name": ..., "precision": Keras policy that suits it}.
    Half precision suits GPUs with units for it, and TPUs, which count as GPUs here. A CPU gets float32, because
    mixed_bfloat16 can end the process there."""
    import keras

    if keras.backend.backend() == "jax":
        import jax

        device = jax.devices()[0]
        kind, name = device.platform, device.device_kind
        major = int(str(getattr(device, "compute_capability", 0)).partition(".")[0])
    else:
        import tensorflow as tf

        gpus = tf.config.list_physical_devices("GPU")
        details = tf.config.experimental.get_device_details(gpus[0]) if gpus else {}
        kind, name = ("gpu", details.get("device_name", gpus[0].name)) if gpus else ("cpu", "CPU")
        major = details.get("compute_capability", (0, 0))[0]
    if kind == "cpu":
        return {"kind": "CPU", "name": "CPU", "precision": "float32"}
    half = "mixed_bfloat16" if major >= 8 or kind == "tpu" else "mixed_float16" if major == 7 else "float32"
    return {"kind": "GPU", "name": name, "precision": half}


def use_all() -> None:
    """Share each batch among all devices that JAX sees, and print how many there are. Call it before a network is made.
    TensorFlow uses one device: `tf.distribute` computes Dice and batch normalization of each device's part alone, so
    that its weights differ."""
    import keras
    import tensorflow as tf

    if keras.backend.backend() == "tensorflow":
        gpus = tf.config.list_physical_devices("GPU")
        if len(gpus) > 1:
            print(f"note: one of {len(gpus)} GPUs is used; KERAS_BACKEND=jax uses all")
        return
    import jax

    warnings.filterwarnings("ignore", "Explicitly requested dtype int64")  # by Keras's metrics; 32 bits are enough
    with contextlib.suppress(RuntimeError):  # too late: this process has used it already
        tf.config.set_visible_devices([], "GPU")  # else TensorFlow would take the memory that JAX needs
    if jax.device_count() > 1:
        if keras.distribution.distribution() is None:
            keras.distribution.set_distribution(keras.distribution.DataParallel(auto_shard_dataset=False))
        of = f" of {jax.process_count()} processes" if jax.process_count() > 1 else ""
        print(f"each batch is shared by {jax.device_count()} devices{of}")


class Share(NamedTuple):
    """Which part of each batch this process loads: number `process` of n_processes equal ones."""

    process: int = 0
    n_processes: int = 1
    n_devices: int = 1  # of all processes; each gets as many images of a batch as the others


def share() -> Share:
    """This process's part of each batch, as `use_all` and `processes.join` have arranged it."""
    import keras

    distribution = keras.distribution.distribution()
    if distribution is None:
        return Share()
    import jax

    return Share(jax.process_index(), jax.process_count(), distribution.device_mesh.devices.size)


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """During the block, networks are made, loaded and asked for predictions in this process, whatever others do."""
    import keras

    before = keras.distribution.distribution()
    keras.distribution.set_distribution(None)
    try:
        yield
    finally:
        keras.distribution.set_distribution(before)
