"""What this project takes from other libraries beyond their documented use, one test for each.

CONTRIBUTING.md lists the same, with the place that relies on it. A test that fails here after an upgrade says what was
taken away and what breaks; the other tests would fail, too, but somewhere else and less clearly.
"""

import contextlib
import importlib
import inspect
import multiprocessing.spawn
import random
import re
import subprocess
import sys
import types
import zipfile
from pathlib import Path

import keras
import numpy as np
import pytest
import requests
import tensorflow as tf


def parameters(function) -> list[str]:
    return list(inspect.signature(function).parameters)


def test_muon_asks_overridable_methods_and_gives_them_whole_kernels():
    told = "keras.optimizers.Muon: KernelMuon overrides {}: kernels would be left to AdamW, or their steps not adjusted"
    calls = []

    class Watched(keras.optimizers.Muon):
        def _should_use_adamw(self, variable):
            return len(variable.shape) != 4

        def zeropower_via_newtonschulz5(self, x, steps):
            calls.append(("zeropower_via_newtonschulz5", tuple(x.shape), steps))
            return x

        def lr_adjust(self, x):
            calls.append(("lr_adjust", tuple(x.shape)))
            return 0 * x

    kernel, bias = keras.Variable(np.ones((3, 3, 2, 4), "f4")), keras.Variable(np.ones(4, "f4"))
    optimizer = Watched(0.1, ns_steps=3, weight_decay=None, adam_weight_decay=None)
    optimizer.apply([np.ones(kernel.shape, "f4"), np.ones(4, "f4")], [kernel, bias])
    expected = [("zeropower_via_newtonschulz5", (3, 3, 2, 4), 3), ("lr_adjust", (3, 3, 2, 4))]
    assert calls == expected, told.format("methods that Muon no longer calls once a step, with all of a kernel")
    np.testing.assert_array_equal(kernel, 1, err_msg=told.format("lr_adjust, whose result is no longer the step"))
    told = "Muon.adam_velocities, ns_steps: benchmarks/throughput.py tells by them what work is Muon's"
    assert [velocity is None for velocity in getattr(optimizer, "adam_velocities", ())] == [True, False], told
    assert optimizer.ns_steps == 3, told


def test_batch_normalization_keeps_its_names_and_the_biased_variance():
    told = "keras.layers.BatchNormalization: model.FusedBatchNormalization overrides call() and fills its variables"
    layer = keras.layers.BatchNormalization(momentum=0.9)
    assert parameters(layer.call) == ["inputs", "training", "mask"], told
    values = np.float32([[0], [1], [2], [5]])
    layer(values, training=True)
    for name in ("gamma", "beta", "moving_mean", "moving_variance", "momentum", "epsilon", "trainable"):
        assert hasattr(layer, name), f"{told}: {name}"
    assert float(layer.moving_variance[0]) == pytest.approx(0.9 + 0.1 * values.var()), told


def test_batch_normalization_reads_its_momentum_when_it_is_called():
    layer, values = keras.layers.BatchNormalization(momentum=0.9), np.float32([[0], [1], [2], [5]])
    layer(values, training=True)
    layer.momentum = 0.0
    layer(values, training=True)
    told = "keras.layers.BatchNormalization.momentum: model.PreciseStatistics sets it to 0 during a forward pass"
    assert float(layer.moving_mean[0]) == pytest.approx(values.mean()), told


def test_a_copy_of_a_network_draws_from_pythons_random_numbers_only():
    told = "keras.models.clone_model: measuring the speed would change the training"

    def numbers(with_copy: bool):
        keras.utils.set_random_seed(0)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3), keras.layers.Dropout(0.5)])
        state = random.getstate()
        if with_copy:
            keras.models.clone_model(model)
        random.setstate(state)
        return keras.random.uniform((3,)), keras.initializers.HeNormal()((4, 4))

    for with_copy, without in zip(numbers(True), numbers(False), strict=True):
        np.testing.assert_array_equal(with_copy, without, err_msg=told)


def test_keras_ignores_an_extra_member_of_its_file(tmp_path):
    """networks.py keeps labels and size as one more member of the .keras zip."""
    model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(3)])
    model.save(tmp_path / "n.keras")
    with zipfile.ZipFile(tmp_path / "n.keras", "a") as archive:
        archive.writestr("unet_helpers.json", "{}")
    for found, expected in zip(
        keras.models.load_model(tmp_path / "n.keras").get_weights(), model.get_weights(), strict=True
    ):
        np.testing.assert_array_equal(found, expected)


def test_the_fused_kernel_gives_the_unbiased_variance():
    told = "tf.compat.v1.nn.fused_batch_norm: model.FusedBatchNormalization trains with it and corrects its variance "
    told += "by (n - 1) / n; if it is gone, use keras.layers.BatchNormalization instead, which is slower"
    values = np.float32([0, 1, 2, 5]).reshape(1, 2, 2, 1)
    fused = getattr(tf.compat.v1.nn, "fused_batch_norm", None)
    assert fused is not None, told
    outputs, mean, variance = fused(values, np.ones(1, "f4"), np.zeros(1, "f4"), epsilon=1e-3, is_training=True)
    assert np.allclose(outputs, (values - values.mean()) / np.sqrt(values.var() + 1e-3), atol=1e-5), told
    assert np.allclose(mean, 2), told
    assert np.allclose(variance, values.var(ddof=1)), told


def test_experimental_names_of_tensorflow():
    """pipeline.py and training.py use them, and TensorFlow does not promise to keep them."""
    assert callable(getattr(tf.data.experimental, "assert_cardinality", None))
    assert callable(getattr(tf.config.experimental, "get_device_details", None))


def test_scale_and_translate_resizes_a_part():
    """prediction.py enlarges the logits with it, strip after strip."""
    values = np.random.default_rng(0).normal(size=(1, 4, 5, 2)).astype("f4")
    expected = tf.image.resize(values, (12, 15), method="bilinear")[:, 3:9, 2:11]
    with tf.device("CPU:0"):
        part = tf.raw_ops.ScaleAndTranslate(
            images=values, size=(6, 9), scale=np.float32([3, 3]), translation=np.float32([-3, -2]),
            kernel_type="triangle", antialias=False,
        )  # fmt: skip
    np.testing.assert_allclose(part, expected, atol=1e-5)


@pytest.fixture
def kaggle_api(tmp_path, monkeypatch):
    """The client's module and an instance of its class, without credentials."""
    from unet_helpers import download

    monkeypatch.setenv("HOME", str(tmp_path))
    for name in download.SECRETS:
        monkeypatch.delenv(name, raising=False)
    api = download._quiet_client()
    return sys.modules["kaggle.api.kaggle_api_extended"], api


def test_kaggles_client_downloads_by_a_method_that_can_be_wrapped(kaggle_api):
    module, api = kaggle_api
    told = "KaggleApi.download_file: download.fetch_zip wraps it to look at the disk before the first byte"
    assert parameters(getattr(api, "download_file", lambda: 0))[:2] == ["response", "outfile"], told
    assert {"path", "unzip", "quiet"} <= set(parameters(api.dataset_download_files)), "download.fetch_zip calls it"
    assert "self.download_file(response, outfile" in inspect.getsource(module.KaggleApi.dataset_download_files), told


def test_kaggles_clients_note_on_a_half_file_has_the_known_name(kaggle_api):
    source = inspect.getsource(kaggle_api[0])
    if "resume_marker" in source:  # older clients have no such file
        assert '".kaggle-partial"' in source, "kaggle's file NAME.zip.kaggle-partial: dataset._delete_zip deletes it"


def test_all_requests_of_kaggles_client_pass_session_send(kaggle_api, tmp_path, monkeypatch):
    told = "requests.Session.send: download._bounded_send gives all requests a timeout there"

    class Seen(Exception):
        pass

    def send(session, request, **options):
        calls.append((request.method, "Range" in request.headers, "timeout" in options))
        raise Seen

    calls = []
    assert parameters(requests.Session.send) == ["self", "request", "kwargs"], told
    monkeypatch.setattr(requests.Session, "send", send)
    with contextlib.suppress(Seen, requests.RequestException):
        requests.request("GET", "http://127.0.0.1:9", headers={"Range": "bytes=1-"})
    with contextlib.suppress(Seen):
        kaggle_api[1].dataset_download_files("someone/something", path=str(tmp_path), unzip=False, quiet=False)
    assert calls[:1] == [("GET", True, True)], told
    assert [method for method, *_ in calls[1:]] == ["POST"], f"{told}, but kaggle's client goes another way"


def test_kaggles_address_is_looked_up_in_a_table(monkeypatch):
    """The tests put the address of their own server there."""
    kaggle_env = importlib.import_module("kagglesdk.kaggle_env")
    monkeypatch.setitem(kaggle_env._env_to_endpoint, kaggle_env.KaggleEnv.PROD, "http://127.0.0.1:9")
    assert kaggle_env.get_endpoint(kaggle_env.KaggleEnv.PROD) == "http://127.0.0.1:9"


def test_ipython_lets_an_error_render_itself(capsys):
    """Else DownloadError would show its whole traceback in a notebook."""
    from IPython.core.interactiveshell import InteractiveShell

    class Short(Exception):
        def _render_traceback_(self):
            return ["only this line"]

    shell = InteractiveShell()
    shell.user_ns["Short"] = Short
    shell.run_cell("raise Short")
    assert capsys.readouterr().out.strip() == "only this line"


def test_a_networks_layers_tell_its_graph():
    """plots/unet.py reads a network's graph from Model.layers, Layer.input and Layer.output."""
    inputs = keras.Input((8, 8, 3))
    first = keras.layers.Conv2D(2, 3, padding="same")(inputs)
    second = keras.layers.ReLU()(first)
    model = keras.Model(inputs, keras.layers.Concatenate()([second, first]))
    keras.Model(inputs, second)(keras.ops.zeros((1, 8, 8, 3)))  # another network of the same layers changes nothing
    kinds = ["InputLayer", "Conv2D", "ReLU", "Concatenate"]
    assert [type(layer).__name__ for layer in model.layers] == kinds, "not in the order of computing"
    source, convolution, relu, merge = model.layers
    assert model.inputs[0] is convolution.input is source.output, "no longer the very same object"
    assert relu.input is convolution.output
    assert isinstance(merge.input, list), "a merging layer's input is no longer a list"
    assert [id(tensor) for tensor in merge.input] == [id(relu.output), id(convolution.output)]
    assert model.outputs[0] is merge.output
    assert merge.compute_output_shape([(1, 4, 4, 2), (1, 4, 4, 3)]) == (1, 4, 4, 5)
    assert {"kernel_size", "strides", "dilation_rate"} <= set(convolution.get_config())
    assert {"pool_size", "strides"} <= set(keras.layers.MaxPooling2D().get_config())


def test_nbconverts_page_can_be_given_the_alt_texts():
    """The template's block around a JPEG is there to be overridden; once it has texts by itself, ours can go."""
    from nbconvert import HTMLExporter
    from nbformat import v4

    import run_notebook

    output = v4.new_output("display_data", {"image/jpeg": "AAAA"}, metadata={"image/jpeg": {"alt": "a cat"}})
    notebook = v4.new_notebook(cells=[v4.new_code_cell("", outputs=[output])])
    page = run_notebook.make_page(notebook)
    assert re.search(r'<img alt="a cat"[^>]*base64,AAAA', page), "nbconvert's template lab: block data_jpg"
    assert "a cat" not in HTMLExporter().from_notebook_node(notebook)[0], "the alt texts of run_notebook.PAGE can go"


def test_nbconvert_runs_cells_by_methods_that_can_be_overridden():
    """test_run_notebook.py runs a real kernel by them."""
    from ipykernel.kernelspec import get_kernel_dict
    from jupyter_client.kernelspec import KernelSpecManager
    from jupyter_client.manager import KernelManager
    from nbconvert.preprocessors import ExecutePreprocessor

    told = "nbconvert/jupyter_client: run_notebook.py overrides {}"
    for owner, name, expected in (
        (ExecutePreprocessor, "output", ["self", "outs", "msg", "display_id", "cell_index"]),
        (ExecutePreprocessor, "create_kernel_manager", ["self"]),
        (KernelSpecManager, "get_kernel_spec", ["self", "kernel_name"]),
    ):
        assert parameters(getattr(owner, name, lambda: 0)) == expected, told.format(name)
    assert "kernel_spec_manager" in KernelManager.class_trait_names(), told.format("a manager's kernel_spec_manager")
    told = "ipykernel.kernelspec.get_kernel_dict: run_notebook.ThisPython takes this Python's kernel from there"
    assert get_kernel_dict()["argv"][0] == sys.executable, told


def test_spawn_asks_the_table_of_modules_for_the_main_one(monkeypatch):
    monkeypatch.setitem(sys.modules, "__main__", types.ModuleType("__main__"))
    told = multiprocessing.spawn.get_preparation_data("worker")
    assert not {"init_main_from_name", "init_main_from_path"} & told.keys(), (
        "multiprocessing: a worker runs the main module though there is a bare one in sys.modules: a script without a "
        "guard that draws the demo set would draw it in each worker, too"
    )


def test_the_processes_of_jax_share_a_table_of_keys():
    """That JAX aborts the others when the first process dies: test_distribution.py, by a real kill."""
    code = """
import jax, socket
with socket.socket() as listener:
    listener.bind(("127.0.0.1", 0))
    address = f"127.0.0.1:{listener.getsockname()[1]}"
jax.distributed.initialize(address, 1, 0)
from jax._src.distributed import global_state as state
assert (state.coordinator_address, state.num_processes, state.process_id) == (address, 1, 0)
for value in ("a", "b"):
    state.client.key_value_set("folder/1", value, allow_overwrite=True)
assert state.client.key_value_dir_get("folder/") == [("folder/1", "b")]
state.client.key_value_set_bytes("bytes", bytes(1 << 24))
assert state.client.blocking_key_value_get_bytes("bytes", 1000) == bytes(1 << 24)
try:
    state.client.blocking_key_value_get_bytes("none", 10)
except RuntimeError:
    print("as expected")
"""
    pytest.importorskip("jax")
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=100)
    told = "jax._src.distributed: the processes of a training could not tell each other anything:\n"
    assert done.stdout == "as expected\n", told + done.stderr


def test_every_test_here_is_in_the_list():
    text = (Path(__file__).parents[1] / "CONTRIBUTING.md").read_text(encoding="utf-8")
    listed = set(re.findall(r"\| `(\w+)` \|$", text, re.MULTILINE))
    here = {name.removeprefix("test_") for name in globals() if name.startswith("test_")}
    assert listed == here - {"every_test_here_is_in_the_list"}
