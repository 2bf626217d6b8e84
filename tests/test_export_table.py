import importlib.util
import itertools
import json
import re
import subprocess
import sys
from pathlib import Path

import keras
import numpy as np
import pytest

from benchmarks import exporting
from unet_helpers.model import unet_model, with_keras_layers_only
from unet_helpers.networks import save_network

ROOT = Path(__file__).parents[1]
NEEDED = {"tf_saved_model": [], "litert": [], "onnx": ["onnx", "tf2onnx", "onnxruntime"]}


@pytest.fixture(scope="module")
def network(tmp_path_factory):
    """A tiny network whose normalization has seen something."""
    keras.utils.set_random_seed(0)
    model = unet_model((None, None, 3), 2, 3, depth=1, half_resolution=True)
    for _ in range(20):
        model(np.random.default_rng(0).uniform(0, 255, (2, 16, 16, 3)).astype(np.float32), training=True)
    path = tmp_path_factory.mktemp("network") / "best.keras"
    save_network(path, with_keras_layers_only(model))
    return path


@pytest.fixture(scope="module")
def measured(network, tmp_path_factory):
    """(what the script printed, its record) of a run in its own process, from another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, str(ROOT / "benchmarks" / "exporting.py"), str(network)]
    command += ["--images", "2", "--size", "32x48", "--out", "results"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    record = json.loads((folder / "results" / "exporting.json").read_text())
    assert (folder / "results" / "exporting.md").read_text() == exporting.table(record)
    return done.stdout, record


def test_each_format_is_measured_or_its_missing_packages_are_named(measured, network):
    printed, record = measured
    assert exporting.table(record) in printed
    for name, needed in NEEDED.items():
        missing = [package for package in needed if importlib.util.find_spec(package) is None]
        assert (name in record["missing"]) == (name not in record["rows"]) == bool(missing)
        assert not missing or missing[0] in record["missing"][name]
    rows = record["rows"]
    keras_row = rows.pop("keras")
    assert (keras_row["mb"], keras_row["ratio"]) == (network.stat().st_size / 1e6, 1)
    n_bytes = 4 * keras.models.load_model(network, compile=False).count_params()
    for row in rows.values():
        assert n_bytes < 1e6 * row["mb"] < 1e6
        assert row["ms"] > 0.01
        assert len(row["differences"]) == 2
        assert max(row["differences"]) < 1e-4


def test_the_readme_shows_the_committed_measurement():
    record = json.loads((ROOT / "benchmarks" / "exporting.json").read_text(encoding="utf-8"))
    text = (ROOT / "benchmarks" / "README.md").read_text(encoding="utf-8")
    section = re.search(r"\n## The network in other programs\n(.*?)(?=\n## |\Z)", text, re.DOTALL)[1]
    assert exporting.table(record) in section
    assert record["missing"] == {}
    assert set(record["rows"]) == {"keras", *NEEDED}
    assert all(max(row["differences"]) < 1e-4 for name, row in record["rows"].items() if name != "keras")
    for name, version in record["versions"].items():
        assert re.search(rf"{name} {re.escape(version)}\b", section, re.IGNORECASE), name


def test_a_wrong_prediction_shows_at_the_size_where_it_occurs(network, monkeypatch):
    """A program whose logits are half too large for larger images; the others are not installed."""
    opened = exporting.open_saved_model

    def off(path):
        run = opened(path)
        return lambda images: run(images) + 0.5 * (images.shape[1] > 32)

    def absent(path):
        raise ImportError("some package")

    programs = {"tf_saved_model": ("TensorFlow", off), "litert": ("LiteRT", absent)}
    monkeypatch.setattr(exporting, "PROGRAMS", programs)
    monkeypatch.setattr(exporting, "ROUNDS", 1)
    record = exporting.measure(network, [(32, 48), (64, 96)], 1)
    assert record["rows"]["tf_saved_model"]["differences"] == pytest.approx([0, 0.5], abs=1e-4)
    assert record["missing"] == {"litert": "some package"}


def test_programs_take_turns_and_predict_one_image_after_another(monkeypatch):
    monkeypatch.setattr(exporting, "ROUNDS", 2)
    calls, clock = [], itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: next(clock))
    runs = {name: lambda x, name=name: calls.append((name, int(x[0, 0]), len(x))) or x for name in "ab"}
    times = exporting.take_turns(runs, np.arange(4, dtype=np.float32).reshape(4, 1))
    assert times == {name: [250, 250] for name in "ab"}  # a tick of the clock for four images
    assert calls == [(name, n, 1) for name in "abab" for n in (0, 0, 1, 2, 3)]  # the first once more, to warm up
