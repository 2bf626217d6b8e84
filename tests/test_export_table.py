import importlib.util
import json
import os
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
    """(what the script printed, its record, its table) of a run in a process of its own, from another folder."""
    folder = tmp_path_factory.mktemp("elsewhere")
    command = [sys.executable, str(ROOT / "benchmarks" / "exporting.py"), str(network)]
    command += ["--pictures", "2", "--size", "32x48", "--out", "results"]
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300)
    assert done.returncode == 0, done.stderr[-2000:]
    assert sorted(path.name for path in (folder / "results").iterdir()) == ["exporting.json", "exporting.md"]
    record = json.loads((folder / "results" / "exporting.json").read_text())
    return done.stdout, record, (folder / "results" / "exporting.md").read_text()


def test_each_format_is_measured_or_its_missing_packages_are_named(measured, network):
    printed, record, _ = measured
    missing = {name: [n for n in needed if importlib.util.find_spec(n) is None] for name, needed in NEEDED.items()}
    assert set(record["rows"]) == {"keras", *(name for name, packages in missing.items() if not packages)}
    for name, packages in missing.items():
        assert (name in record["missing"]) == (f"{name} is left out: " in printed) == bool(packages)
        assert not packages or packages[0] in record["missing"][name]
    rows = record["rows"]
    assert rows["keras"]["mb"] == network.stat().st_size / 1e6
    assert rows["keras"]["ratio"] == 1
    n_bytes = 4 * keras.models.load_model(network, compile=False).count_params()
    for name in rows.keys() - {"keras"}:
        assert n_bytes < 1e6 * rows[name]["mb"] < 1e6
        assert rows[name]["ms"] > 0.01
        assert len(rows[name]["differences"]) == 2
        assert max(rows[name]["differences"]) < 1e-4


def test_the_table_is_that_of_the_measurement(measured):
    """Each figure of the table is that of the record, as far as it has digits."""
    printed, record, table = measured
    assert table in printed
    header, _, *lines = ([cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines())
    assert header[3:] == ["ms a picture, 32x48", "of Keras's", "logits differ by, 32x48", "64x96"]
    for name, (program, format, mb, ms, ratio, *differences) in zip(record["rows"], lines, strict=True):
        row = record["rows"][name]
        assert (program, format) == (row["program"], f"`{name}`")
        assert float(mb) == pytest.approx(row["mb"], abs=0.051)
        assert float(ms) == pytest.approx(np.median(row["rounds"]), abs=0.051)
        of_keras = np.divide(row["rounds"], record["rows"]["keras"]["rounds"])
        assert float(ratio) == pytest.approx(np.median(of_keras), abs=0.0051)
        expected = pytest.approx(row.get("differences", []), rel=0.06)
        assert [float(text) for text in differences if text] == expected


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


def test_a_wrong_answer_shows_at_the_size_at_which_it_is_given(network, monkeypatch):
    """A program that answers larger pictures with half a logit too much; the others are not there."""
    opened = exporting.open_saved_model

    def off(path):
        run = opened(path)
        return lambda pictures: run(pictures) + 0.5 * (pictures.shape[1] > 32)

    def absent(path):
        raise ImportError("some package")

    programs = {"tf_saved_model": ("TensorFlow", off), "litert": ("LiteRT", absent)}
    monkeypatch.setattr(exporting, "PROGRAMS", programs)
    monkeypatch.setattr(exporting, "ROUNDS", 1)
    record = exporting.measure(network, [(32, 48), (64, 96)], 1)
    assert record["rows"]["tf_saved_model"]["differences"] == pytest.approx([0, 0.5], abs=1e-4)
    assert record["missing"] == {"litert": "some package"}


def test_programs_take_turns_and_answer_one_picture_after_another(monkeypatch):
    monkeypatch.setattr(exporting, "ROUNDS", 2)
    calls = []
    clock = [0.0]
    monkeypatch.setattr("time.perf_counter", lambda: clock[0])

    def program(name, seconds):
        def run(pictures):
            calls.append((name, int(pictures[0, 0, 0, 0]), len(pictures)))
            clock[0] += seconds
            return pictures

        return run

    pictures = np.arange(3, dtype=np.float32).reshape(3, 1, 1, 1)
    times = exporting.take_turns({"a": program("a", 1), "b": program("b", 2)}, pictures)
    assert times == {"a": pytest.approx([1000, 1000]), "b": pytest.approx([2000, 2000])}
    assert calls == [(name, n, 1) for name in "abab" for n in (0, 0, 1, 2)]  # the first once more, not counted


def test_wrong_arguments_are_named(network, tmp_path, capsys, monkeypatch):
    monkeypatch.chdir(tmp_path)
    for arguments, message in (
        (["none.keras"], "none.keras: there is no such file"),
        (["NETWORK", "--pictures", "0"], "--pictures: found 0, expected 1 to 32"),
        (["NETWORK", "--size", "192"], "--size: found '192', expected HEIGHTxWIDTH in pixels"),
        (["NETWORK", "--size", "33x48"], "--size: image_size: (33, 48) does not fit"),
    ):
        with pytest.raises(SystemExit):
            exporting.main([text.replace("NETWORK", os.fspath(network)) for text in arguments])
        assert message in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []
