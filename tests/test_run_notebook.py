"""run_notebook.py on a small notebook in a real kernel: whose Python it is, and what its parameters become."""

import json
import os
import subprocess
import sys

import nbformat
import pytest

import run_notebook

CELLS = {
    "set-up": "import os, sys",
    "parameters": 'DATASET = "demo"\nEPOCHS = None  # how often\nIMAGE_SIZE = None',
    "scores": "print(repr((DATASET, EPOCHS, IMAGE_SIZE)))\nprint(os.path.realpath(sys.executable), sys.prefix)",
}


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with the tutorial's three tagged cells, in place of the tutorial."""
    cells = [nbformat.v4.new_code_cell(source, metadata={"tags": [tag]}) for tag, source in CELLS.items()]
    path = tmp_path / "small.ipynb"
    nbformat.write(nbformat.v4.new_notebook(cells=cells), path)
    monkeypatch.setattr(run_notebook, "NOTEBOOK", path)
    return path


def test_parameters_reach_the_notebook_in_a_kernel_of_this_python(notebook, tmp_path, monkeypatch, capsys):
    """Even if the kernel named python3 is another environment's, here a broken one."""
    kernel = tmp_path / "first" / "kernels" / "python3"
    kernel.mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "broken", "language": "python"}
    (kernel / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv("JUPYTER_PATH", str(tmp_path / "first"))
    parameters = run_notebook.parse_parameters(["IMAGE_SIZE=(96, 128) EPOCHS=2"])
    html, executed, scores = run_notebook.run(parameters, tmp_path / "build")
    assert scores.splitlines() == ["('demo', 2, (96, 128))", f"{os.path.realpath(sys.executable)} {sys.prefix}"]
    assert scores in capsys.readouterr().out  # shown while it runs
    assert html.is_file()
    sources = [cell.source for cell in nbformat.read(executed, 4).cells]
    assert sources[2] == "# Parameters\nIMAGE_SIZE = (96, 128)\nEPOCHS = 2"


def test_arguments_are_split_at_names():
    for arguments, expected in (
        (["  ", "IMAGE_SIZE=(96,128) EPOCHS=2\n\tSEED=1"], {"IMAGE_SIZE": (96, 128), "EPOCHS": 2, "SEED": 1}),
        (["DATA_DIR=my folder/a=b DATASET=camvid"], {"DATA_DIR": "my folder/a=b", "DATASET": "camvid"}),
        (["DATA_DIR='my folder'", "ARCHIVE=None"], {"DATA_DIR": "my folder", "ARCHIVE": None}),
    ):
        assert run_notebook.parse_parameters(arguments) == expected


def test_a_mistake_in_the_terminal_is_one_line():
    command = [sys.executable, run_notebook.__file__, "EPOCHS=2 EPOCH=3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=99, check=False)
    assert result.returncode == 1
    assert result.stderr.startswith("run_notebook.py: EPOCH: ")
    assert len(result.stderr.splitlines()) == 1
