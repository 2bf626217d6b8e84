"""The notebook on other data, in a real kernel: lyft, from a server on 127.0.0.1, and a reader's own folder."""

import os
import re

import nbformat
import numpy as np
import pytest
from kaggle_server import KaggleServer, make_zip
from nbclient.exceptions import CellExecutionError

import run_notebook
from unet_helpers.drawing import draw_scenes

TINY = {"DATASET": "lyft", "IMAGE_SIZE": [64, 96], "N_FILTERS": 2, "BATCH_SIZE": 8, "EPOCHS": 1}


@pytest.fixture(scope="module")
def drives(tmp_path_factory) -> bytes:
    """One small drawn frame of each drive, zipped as on Kaggle: each twice, once in lower-case folders."""
    folder = tmp_path_factory.mktemp("lyft") / "drawn"
    draw_scenes(folder, size=(60, 80), n_frames=1, processes=1, progress=str)
    files = {path.relative_to(folder).as_posix(): path.read_bytes() for path in sorted(folder.rglob("*.png"))}
    return make_zip(files | {name.replace("dataA", "dataa"): content for name, content in files.items()})


@pytest.fixture
def server(tmp_path, monkeypatch, drives):
    """Kaggle for the notebook's kernel, a process of its own: sitecustomize.py is run when its Python starts."""
    (tmp_path / "site").mkdir()
    with KaggleServer(drives) as server:
        (tmp_path / "site" / "sitecustomize.py").write_text(
            "import kagglesdk.kaggle_env as kaggle_env\n"
            f"kaggle_env._env_to_endpoint[kaggle_env.KaggleEnv.PROD] = {server.url!r}\n"
        )
        for name in [name for name in os.environ if name.startswith("KAGGLE_") or name.lower().endswith("_proxy")]:
            monkeypatch.delenv(name)
        monkeypatch.setenv("PYTHONPATH", str(tmp_path / "site"))
        monkeypatch.setenv("HOME", str(tmp_path))
        monkeypatch.setenv("NO_PROXY", "127.0.0.1,localhost")
        yield server


@pytest.fixture
def parameters(tmp_path):
    (tmp_path / "data").mkdir()
    return {**TINY, "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "runs")}


def test_the_notebook_downloads_lyft_and_learns_from_it(server, parameters, tmp_path, capfd, monkeypatch):
    notebook = nbformat.read(run_notebook.NOTEBOOK, as_version=4)  # up to the scores: the rest is as with other data
    notebook.cells = notebook.cells[: 1 + [cell.id for cell in notebook.cells].index("scores")]
    nbformat.write(notebook, tmp_path / "notebook.ipynb")
    monkeypatch.setattr(run_notebook, "NOTEBOOK", tmp_path / "notebook.ipynb")
    _, executed, scores = run_notebook.run(parameters, tmp_path / "build")
    assert re.search(r"lyft, test: 7 images\nwhole recipe +mIoU 0\.\d{3}", scores)
    assert [method for method, _, _ in server.requests] == ["POST", "GET"]
    assert sorted(path.name for path in (tmp_path / "data").iterdir()) == ["lyft", "lyft.prepared"]
    assert [path.name for path in (tmp_path / "data" / "lyft").iterdir() if path.is_dir()] == ["dataA"]
    shown = capfd.readouterr().out
    assert re.search(r"lyft-udacity-challenge: \d\.\d MB to download; .* are free", shown)
    assert "64 files, " in shown
    outputs = [output for cell in nbformat.read(executed, 4).cells for output in cell.get("outputs", [])]
    assert any("B/s]" in output.get("text", "") for output in outputs)  # the progress bar


def test_a_refused_download_is_a_short_message_in_the_notebook(server, parameters, tmp_path):
    server.status = 403
    with pytest.raises(CellExecutionError, match="Kaggle does not let you have kumaresan"):
        run_notebook.run(parameters, tmp_path / "build")
    cells = nbformat.read(tmp_path / "build" / "segmentation_unet.ipynb", 4).cells
    errors = [o for cell in cells for o in cell.get("outputs", []) if o.output_type == "error"]
    assert [error.ename for error in errors] == ["DownloadError"]
    assert len(errors[0].traceback) == 3
    assert "accept the terms" in errors[0].traceback[1]
    assert list((tmp_path / "data").iterdir()) == []


@pytest.mark.slow
def test_one_image_to_validate_and_one_to_test_are_enough(tmp_path, write_pair, capfd):
    """The reader's own seven images, upright: five to learn from. The best and the worst are the same one.

    Every second mask is empty, the first, too, and two classes have no pixel.
    """
    for n in range(7):
        values = None if n % 2 else np.zeros((96, 60), np.uint8)
        write_pair(stem=f"p{n}", size=(96, 60), seed=n, folder=tmp_path / "mine", values=values)
    (tmp_path / "mine" / "classes.txt").write_text("sky\nroad\ncar\nship\nplane\n")
    parameters = {**TINY, "DATASET": "folder", "DATA_DIR": str(tmp_path / "mine"), "RUN_DIR": str(tmp_path / "runs")}
    _, _, scores = run_notebook.run(parameters, tmp_path / "build")
    assert "folder, test: 1 image\n" in scores
    shown, errors = capfd.readouterr()
    assert "nan" not in shown
    assert "Warning" not in errors
    assert re.search(r"note: images fill 4\d% of 64x96, .*; IMAGE_SIZE = \(128, 64\) would", shown)
