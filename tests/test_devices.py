"""Which backend and which device: what is missing, what is refused, and which precision suits."""

import os
import subprocess
import sys
import types
from pathlib import Path

import keras
import pytest
import tensorflow as tf

from unet_helpers import devices
from unet_helpers.devices import device_report

ROOT = Path(__file__).parents[1]
# A package that is not installed, for a whole process: nothing finds it.
HIDE = """
import importlib.machinery, sys

class Finder(importlib.machinery.PathFinder):
    @classmethod
    def find_spec(cls, name, path=None, target=None):
        return None if name.split(".")[0] in {names} else super().find_spec(name, path, target)

sys.meta_path[:] = [Finder if each is importlib.machinery.PathFinder else each for each in sys.meta_path]
"""


def test_precision_follows_the_gpus_compute_capability(monkeypatch):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [])
    assert device_report() == {"kind": "CPU", "name": "CPU", "precision": "float32"}
    gpu = tf.config.PhysicalDevice("/physical_device:GPU:0", "GPU")
    monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind: [gpu])
    for capability, precision in (((6, 1), "float32"), ((7, 5), "mixed_float16"), ((8, 0), "mixed_bfloat16")):
        details = {"compute_capability": capability, "device_name": "some GPU"}
        monkeypatch.setattr(tf.config.experimental, "get_device_details", lambda device, found=details: found)
        assert device_report() == {"kind": "GPU", "name": "some GPU", "precision": precision}


def test_jax_reports_its_devices_too(monkeypatch):
    """By stand-ins with the attributes that JAX's documentation gives its devices."""
    jax = pytest.importorskip("jax")
    monkeypatch.setattr(keras.backend, "backend", lambda: "jax")
    for platform, name, capability, kind, precision in (
        ("cpu", "cpu", None, "CPU", "float32"),
        ("gpu", "NVIDIA H100", "9.0", "GPU", "mixed_bfloat16"),
        ("gpu", "Tesla T4", "7.5", "GPU", "mixed_float16"),
        ("tpu", "TPU v5 lite", None, "GPU", "mixed_bfloat16"),
    ):
        device = types.SimpleNamespace(platform=platform, device_kind=name)
        if capability:
            device.compute_capability = capability
        monkeypatch.setattr(jax, "devices", lambda device=device: [device])
        found = device_report()
        assert (found["kind"], found["precision"]) == (kind, precision)
        assert found["name"] == ("CPU" if kind == "CPU" else name)


def test_tensorflow_says_that_it_uses_one_gpu_of_several(monkeypatch, capsys):
    monkeypatch.setattr(keras.backend, "backend", lambda: "tensorflow")
    for n in (0, 1, 4):
        gpus = [tf.config.PhysicalDevice(f"/physical_device:GPU:{k}", "GPU") for k in range(n)]
        monkeypatch.setattr(tf.config, "list_physical_devices", lambda kind, gpus=gpus: gpus)
        devices.use_all()
        printed = capsys.readouterr().out
        assert printed == ("note: one of 4 GPUs is used; KERAS_BACKEND=jax uses all\n" if n == 4 else "")


@pytest.mark.parametrize(
    ("backend", "hidden", "expected"),
    [
        ("torch", (), "KERAS_BACKEND: found 'torch', expected 'tensorflow' or 'jax'; set it and start again"),
        ("", ("tensorflow",), "TensorFlow is missing; it decodes images and makes batches: pip install tensorflow"),
        ("jax", ("tensorflow",), "makes batches with JAX, too: pip install tensorflow-cpu"),
        ("jax", ("jax",), "KERAS_BACKEND: 'jax' needs JAX: pip install jax (for a GPU: pip install 'jax[cuda12]')"),
    ],
)
def test_a_backend_that_cannot_be_used_is_one_sentence(backend, hidden, expected, tmp_path):
    """In the command and in a notebook's first cell, in a real process that does not find the package."""
    (tmp_path / "sitecustomize.py").write_text(HIDE.format(names=set(hidden) or "()"))
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KERAS_")}
    environment = kept | {"PYTHONPATH": f"{tmp_path}{os.pathsep}{ROOT}", "KERAS_HOME": str(tmp_path)}
    environment |= {"KERAS_BACKEND": backend} if backend else {}
    notebook = "from unet_helpers.notebook import NotebookError, start\n"
    notebook += "try:\n    start()\nexcept NotebookError as error:\n    print(error)"
    command = [sys.executable, "-m", "unet_helpers", "info", "demo"]
    done = subprocess.run(command, env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120)
    assert (done.returncode, done.stdout) == (1, "")
    assert done.stderr.startswith("unet_helpers: ")
    assert done.stderr.endswith(f"{expected}\n")
    assert done.stderr.count("\n") == 1
    done = subprocess.run(
        [sys.executable, "-c", notebook], env=environment, cwd=tmp_path, capture_output=True, text=True, timeout=120
    )
    assert done.stdout.count("\n") == 1
    assert done.stdout.startswith(f"{expected}\n" if backend == "torch" else "this kernel, the Python of "), done.stderr
    assert expected in done.stdout


def test_keras_json_may_name_the_backend_that_is_refused(tmp_path):
    pytest.importorskip("jax")
    code = "import keras\nkeras.backend.backend = lambda: 'torch'\nfrom unet_helpers.devices import check_backend\n"
    done = subprocess.run(
        [sys.executable, "-c", code + "check_backend()"], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert done.stderr.rstrip().endswith("found 'torch', expected 'tensorflow' or 'jax'; set it and start again")


def test_a_notebook_does_not_train_in_several_processes(monkeypatch):
    from unet_helpers.notebook import NotebookError, start

    monkeypatch.setenv("KERAS_DISTRIBUTION_NUM_PROCESSES", "2")
    with pytest.raises(NotebookError, match=r"one process; in several, use python -m unet_helpers train"):
        start()
