"""The committed notebook is one clean run of what it should be, and the notebook runs, whole, in a real kernel."""

import ast
import json
import re
import statistics

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import run_notebook


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(run_notebook.NOTEBOOK, as_version=4)


@pytest.fixture(scope="module")
def code(notebook):
    return [cell for cell in notebook.cells if cell.cell_type == "code"]


@pytest.fixture(scope="module")
def prose(notebook):
    return [cell.source for cell in notebook.cells if cell.cell_type == "markdown"]


def test_the_committed_notebook_is_one_clean_run(notebook, code):
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    assert "widgets" not in notebook.metadata
    assert run_notebook.NOTEBOOK.stat().st_size < 2_000_000


def test_the_committed_notebook_names_no_local_path(notebook):
    text = json.dumps([{**cell, "attachments": None} for cell in notebook.cells])
    text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text)
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users|content|opt|var)/\S*|[A-Z]:\\\\\w", text)


def test_the_notebooks_size_suits_a_reader(notebook, code, prose):
    assert 35 <= len(notebook.cells) <= 50
    assert len(prose) >= 0.4 * len(notebook.cells)
    assert 1000 <= sum(len(text.split()) for text in prose) <= 2000
    lines = [len(cell.source.splitlines()) for cell in code]
    assert max(lines) <= 20
    assert statistics.median(lines) <= 9


def test_parameters_stand_in_one_cell_only(code):
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    names = {target.id for node in ast.parse(cells[0].source).body for target in node.targets}
    assert {"DATASET", "DATA_DIR", "IMAGE_SIZE", "N_FILTERS", "BATCH_SIZE", "EPOCHS", "SEED"} <= names
    for cell in code:
        if cell is not cells[0]:
            assigned = {t.id: n.value for n in ast.walk(ast.parse(cell.source)) if isinstance(n, ast.Assign)
                        for t in n.targets if isinstance(t, ast.Name)}  # fmt: skip
            assert not [name for name in names & assigned.keys() if isinstance(assigned[name], ast.Constant)]


def test_prose_has_no_number_that_a_run_could_change(prose):
    for text in prose:
        without_links = re.sub(r"\(http\S+\)|`[^`]*`", "", text)
        assert not re.findall(r"\d+\.\d+|\d+ ?%|\d+ (?:s|seconds|minutes|images|pictures)\b", without_links), text


def test_every_figure_is_explained_before_it(notebook):
    figures = 0
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        if any({"image/png", "image/jpeg"} & set(output.get("data", {})) for output in cell.get("outputs", [])):
            figures += 1
            assert before.cell_type == "markdown"
    assert figures >= 9


def test_the_result_picture_has_alt_text(prose):
    assert re.search(r"!\[[^\]]{30,}\]\(attachment:result\.png\)", prose[0])


TINY = {"IMAGE_SIZE": [64, 96], "N_FILTERS": 2, "BATCH_SIZE": 8, "EPOCHS": 2, "FRAMES_PER_DRIVE": 1}


def test_the_notebook_runs_whole(tmp_path, capfd):
    parameters = {**TINY, "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "runs")}
    html, executed, scores = run_notebook.run(parameters, tmp_path / "build")
    assert re.search(r"demo, test: 7 pictures at 240x320\nnetwork +mIoU 0\.\d{3}", scores)
    assert "without the bonnet" in scores
    assert "baseline (always " in scores
    page = html.read_text(encoding="utf-8")
    assert page.count("data:image/jpeg;base64") >= 9
    cells = nbformat.read(executed, as_version=4).cells
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    terminal = capfd.readouterr().out
    assert "Epoch 2/2" in terminal
    assert "road scenes" in terminal
    assert list((tmp_path / "runs").glob("*/best.keras"))


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"DATASET": "kitti"}, r"DATASET: 'kitti' is not known, expected one of 'demo'"),
        ({"IMAGE_SIZE": [100, 128]}, r"IMAGE_SIZE: height and width must be divisible by 32, found \[100, 128\]"),
        ({"DATASET": "camvid", "DATA_DIR": "not_there"}, "DATA_DIR: there is no folder 'not_there'"),
    ],
)
def test_a_wrong_parameter_ends_in_one_clear_error(tmp_path, wrong, message):
    parameters = {**TINY, "DATA_DIR": str(tmp_path), "RUN_DIR": str(tmp_path), **wrong}
    with pytest.raises(CellExecutionError) as caught:
        run_notebook.run(parameters, tmp_path / "build")
    assert caught.value.ename == "ValueError"
    assert re.match(message, caught.value.evalue)


def test_parameters_from_the_terminal():
    parsed = dict(map(run_notebook.parse_parameter, ["EPOCHS=2", "IMAGE_SIZE=(96, 128)", "DATASET=camvid"]))
    assert parsed == {"EPOCHS": 2, "IMAGE_SIZE": (96, 128), "DATASET": "camvid"}
    with pytest.raises(ValueError, match="'EPOCHS': expected NAME=VALUE"):
        run_notebook.parse_parameter("EPOCHS")
    with pytest.raises(ValueError, match="EPOCH: not a parameter of the notebook, expected one of DATASET"):
        run_notebook.set_parameters(nbformat.read(run_notebook.NOTEBOOK, as_version=4), {"EPOCH": 2})
