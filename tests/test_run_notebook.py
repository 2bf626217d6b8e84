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


@pytest.mark.parametrize("where", ["home", "JUPYTER_PATH"])
def test_parameters_reach_the_notebook_in_a_kernel_of_this_python(notebook, tmp_path, monkeypatch, capsys, where):
    """Even if the kernel named python3 is another environment's, here a broken one."""
    data = {"home": tmp_path / "home" / "share", "JUPYTER_PATH": tmp_path / "first"}[where]
    (data / "kernels" / "python3").mkdir(parents=True)
    spec = {"argv": ["/nowhere/python", "-f", "{connection_file}"], "display_name": "broken", "language": "python"}
    (data / "kernels" / "python3" / "kernel.json").write_text(json.dumps(spec))
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.setenv("JUPYTER_PREFER_ENV_PATH", "0")
    monkeypatch.setenv({"home": "JUPYTER_DATA_DIR", "JUPYTER_PATH": "JUPYTER_PATH"}[where], str(data))
    parameters = run_notebook.parse_parameters(["IMAGE_SIZE=(96, 128) EPOCHS=2"])
    html, executed, scores = run_notebook.run(parameters, tmp_path / "build")
    assert scores.splitlines() == ["('demo', 2, (96, 128))", f"{os.path.realpath(sys.executable)} {sys.prefix}"]
    assert scores in capsys.readouterr().out  # shown while it runs
    assert html.is_file()
    sources = [cell.source for cell in nbformat.read(executed, 4).cells]
    assert sources[2] == "# Parameters\nIMAGE_SIZE = (96, 128)\nEPOCHS = 2"


@pytest.mark.parametrize(
    ("arguments", "expected"),
    [
        (["  ", "EPOCHS=2"], {"EPOCHS": 2}),
        (["EPOCHS=2", "IMAGE_SIZE=(96, 128)"], {"EPOCHS": 2, "IMAGE_SIZE": (96, 128)}),
        (["IMAGE_SIZE=(96,128) EPOCHS=2\n\tSEED=1"], {"IMAGE_SIZE": (96, 128), "EPOCHS": 2, "SEED": 1}),
        (["DATA_DIR=my folder/a=b DATASET=camvid"], {"DATA_DIR": "my folder/a=b", "DATASET": "camvid"}),
        (["DATA_DIR='my folder' ARCHIVE=None"], {"DATA_DIR": "my folder", "ARCHIVE": None}),
        (["DATA_DIR= EPOCHS=2"], {"DATA_DIR": "", "EPOCHS": 2}),
    ],
)
def test_arguments(arguments, expected):
    assert run_notebook.parse_parameters(arguments) == expected


def test_a_parameter_without_a_name_is_an_error():
    with pytest.raises(ValueError, match="'camvid': expected NAME=VALUE, for instance EPOCHS=2"):
        run_notebook.parse_parameters(["camvid EPOCHS=2"])


def test_a_mistake_in_the_terminal_is_one_line():
    command = [sys.executable, run_notebook.__file__, "EPOCHS=2 EPOCH=3"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=99, check=False)
    assert result.returncode == 1
    message = "EPOCH: not a parameter of the notebook, expected one of DATASET, DATA_DIR, "
    assert result.stderr.startswith(f"run_notebook.py: {message}")
    assert len(result.stderr.splitlines()) == 1
