"""benchmarks/gpu.py on a CPU: as on a machine that has no TensorFlow."""

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from benchmarks import gpu

ROOT = Path(__file__).parents[1]
WITHOUT_TENSORFLOW = """
import sys


class Missing:
    def find_spec(name, path=None, target=None):
        if name.partition(".")[0] == "tensorflow":
            raise ModuleNotFoundError(f"No module named {name!r}", name=name)


sys.meta_path.insert(0, Missing)
"""


@pytest.fixture
def no_tensorflow(tmp_path, monkeypatch):
    """For the processes that a test starts; they compute by JAX."""
    pytest.importorskip("jax")
    (tmp_path / "site").mkdir()
    (tmp_path / "site" / "sitecustomize.py").write_text(WITHOUT_TENSORFLOW)
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(tmp_path / "site"), str(ROOT)]))
    monkeypatch.setenv("KERAS_BACKEND", "jax")


def test_the_network_needs_no_tensorflow_on_jax(no_tensorflow):
    modules = (f"unet_helpers.{name}" for name in ("model", "losses", "optimizers", "training", "speed", "images"))
    for imported, code in ((", ".join(modules), 0), ("tensorflow", 1)):
        child = subprocess.run([sys.executable, "-c", f"import {imported}"], capture_output=True, text=True)
        assert child.returncode == code, child.stderr


@pytest.mark.slow
def test_each_measurement_is_a_row_and_what_no_time_is_left_for_is_listed(no_tensorflow, tmp_path, monkeypatch, capsys):
    first, paper = gpu.networks(tiny=True)
    monkeypatch.setattr(gpu, "networks", lambda tiny: [{**first, "batches": (2,)}, {**paper, "size": (0, 0)}])
    record = gpu.main(["--tiny", "--out", str(tmp_path / "out"), "--minutes", "10"])
    (row,) = record["networks"]
    assert row.keys() == {"network", "precision", "batch", "images", "step", "compiling", "gflops", "mib"}
    assert row["images"] * row["step"] == pytest.approx(2)
    assert row["compiling"] > row["step"]
    assert row["precision"] == "mixed_bfloat16"
    assert min(record["limit"]["bfloat16"], record["limit"]["float32"]) > 0.1
    assert [left.partition(": ")[0] for left in record["left_out"]] == ["0x0, 1 filters, the paper's, float32, batch 1"]
    assert json.loads((tmp_path / "out" / "gpu.json").read_text()) == record
    shown = (tmp_path / "out" / "gpu.md").read_text()
    assert shown in capsys.readouterr().out
    assert f"| {row['images']:,.4g} |" in shown
    assert not (tmp_path / "out" / "batch.npz").exists()


def test_the_notebooks_sizes_and_the_papers_network_are_measured():
    networks = gpu.networks(tiny=False)
    seen = {(*each["size"], each["filters"], each["half"], each["precision"]) for each in networks if not each["paper"]}
    precisions = "float32", "mixed_bfloat16"
    assert seen == {
        (height, height * 4 // 3, n_filters, half, precision)
        for height in (96, 192, 384) for n_filters in (16, 32) for half in (False, True) for precision in precisions
    }  # fmt: skip
    papers = [each for each in networks if each["paper"]]
    assert [(each["size"], each["filters"], each["batches"]) for each in papers] == [((572, 572), 64, (1, 2, 4, 8))] * 2
