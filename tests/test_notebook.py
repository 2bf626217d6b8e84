"""The committed notebook is one clean run of what it should be, and the notebook runs, whole, in a real kernel."""

import ast
import copy
import json
import os
import re
import shutil
import statistics
import subprocess
import sys

import nbformat
import pytest
from nbclient.exceptions import CellExecutionError

import run_notebook


def printed_by(cells, source: str = "") -> str:
    """What the cells printed that have source in theirs."""
    found = [cell for cell in cells if source in cell.source]
    return "".join(output.get("text", "") for cell in found for output in cell.get("outputs", []))


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
    assert run_notebook.NOTEBOOK.stat().st_size < 2_500_000


def test_the_committed_notebook_is_a_run_that_trained(code):
    """A second run loads the network of the first; its output would show no training."""
    (cell,) = [cell for cell in code if cell.id == "train"]
    printed = printed_by([cell])
    epochs = [int(n) for n in re.findall(r"^epoch (\d+)/", printed, re.MULTILINE)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 8
    assert len(re.findall(r"^\d+ epochs in \d+ s: loss", printed_by(code, "train_network("), re.MULTILINE)) == 2
    assert "trained before" not in printed
    assert "resuming" not in printed


def test_the_committed_notebook_names_no_local_path(notebook):
    text = json.dumps([{**cell, "attachments": None} for cell in notebook.cells])
    text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text).replace("/content/drive", "")  # Colab's own, for all
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users|content|opt|var)/\S*|[A-Z]:\\\\\w", text)


def test_the_notebooks_size_suits_a_reader(notebook, code, prose):
    assert len(prose) >= 0.4 * len(notebook.cells)
    lines = [len(cell.source.splitlines()) for cell in code]
    assert max(lines) <= 20
    assert statistics.median(lines) <= 9
    parts = [text.splitlines()[0] for text in prose if re.match(r"# (Part \d|Appendix)", text)]
    assert [part.partition(":")[0] for part in parts] == ["# Part 1", "# Part 2", "# Part 3", "# Appendix"]


def test_the_test_images_are_looked_at_once_in_part_3(notebook):
    part_3 = next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith("# Part 3"))
    before = [cell for cell in notebook.cells[:part_3] if cell.cell_type == "code"]
    assert [cell.id for cell in before if "dataset.test" in cell.source or "held_out" in cell.source] == ["check"]
    assert [cell.id for cell in notebook.cells if "evaluate_model(model" in cell.source] == ["scores"]


def test_parameters_stand_in_one_cell_only(code):
    cells = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    assert len(cells) == 1
    names = {target.id for node in ast.parse(cells[0].source).body for target in node.targets}
    assert {"DATASET", "DATA_DIR", "MINUTES", "IMAGE_SIZE", "N_FILTERS", "BATCH_SIZE", "EPOCHS", "SEED"} <= names
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
    assert figures >= 25


def test_every_figure_says_in_words_what_is_on_it(code):
    for cell in code:
        for output in cell.outputs:
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                alt = output.metadata.get(kind, output.metadata).get("alt", "")
                assert len(alt) >= 30, (cell.id, alt)


def test_the_result_picture_has_alt_text(prose):
    assert re.search(r"!\[[^\]]{30,}\]\(attachment:result\.png\)", prose[0])


TINY = {"IMAGE_SIZE": [64, 96], "N_FILTERS": 2, "BATCH_SIZE": 8, "EPOCHS": 2, "FRAMES_PER_DRIVE": 1}


@pytest.fixture
def run_changed(tmp_path, monkeypatch, notebook):
    """Execute the notebook with other sources, {id of a cell: source}, up to a cell; return (HTML, cells, scores)."""

    def run(parameters: dict, sources: dict[str, str], last: str | None = None):
        changed = copy.deepcopy(notebook)
        for cell in changed.cells:
            cell.source = sources.get(cell.id, cell.source)
        if last:
            changed.cells = changed.cells[: 1 + [cell.id for cell in changed.cells].index(last)]
        nbformat.write(changed, tmp_path / "notebook.ipynb")
        monkeypatch.setattr(run_notebook, "NOTEBOOK", tmp_path / "notebook.ipynb")
        html, executed, scores = run_notebook.run(parameters, tmp_path / "build")
        return html.read_text(encoding="utf-8"), nbformat.read(executed, 4).cells, scores

    return run


def with_solutions(notebook) -> dict[str, str]:
    """{id: source} of the exercises' cells with their solutions filled in."""
    sources = {cell.id: cell.source for cell in notebook.cells}
    filled = {}
    for cell in notebook.cells:
        if cell.id.startswith("exercise-") and cell.cell_type == "code":
            solution = sources[cell.id.replace("exercise-", "solution-")]
            given, call, checked = cell.source.rpartition("\ncheck(")
            code = re.search(r"```python\n(.*?)```", solution, re.DOTALL)[1]
            filled[cell.id] = f"{given}\n{code}{call}{checked}"
    return filled


def test_stopped_resumed_whole_with_all_solutions_and_loaded(notebook, run_changed, tmp_path, capfd):
    """Stop in the second epoch; then the whole notebook resumes and each solution is right; then the run is loaded."""
    parameters = {**TINY, "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "runs")}
    train = next(cell.source for cell in notebook.cells if cell.id == "train")
    stop = "def stop(epoch, logs):\n    if epoch == 1:\n        raise KeyboardInterrupt\n\n\n"
    stop += train.replace(
        "callbacks=callbacks", "callbacks=[*callbacks, keras.callbacks.LambdaCallback(on_epoch_begin=stop)]"
    )
    with pytest.raises(CellExecutionError, match="KeyboardInterrupt"):
        run_changed(parameters, {"train": stop}, "train")
    stopped = printed_by(nbformat.read(tmp_path / "build" / "segmentation_unet.ipynb", 4).cells)
    assert "stopped: 1 epochs are saved; this cell goes on, the next ones score the best of them" in stopped
    terminal = capfd.readouterr().out
    assert terminal.index("drawing 32 road scenes, once") < terminal.index("drawing 32 road scenes: ")
    assert re.search(r"epoch 1/2 32x32: loss .*, [\d.]+ min left\n", terminal)

    solutions = with_solutions(notebook)
    assert len(solutions) == 11
    page, cells, scores = run_changed(parameters, solutions)
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    printed = printed_by(cells)
    assert re.search(r"after epoch 1\nepoch 2/2 64x96: loss .*, 0\.0 min left", printed)
    assert "epoch 1/2" not in printed
    assert re.search(r"demo, test: 7 pictures, each at its own size\nwhole recipe +mIoU 0\.\d{3}", scores)
    assert re.search(r"whole recipe, one answer +mIoU 0\.\d{3}", scores)
    assert "baseline (always " in scores
    said = {cell.id.removeprefix("exercise-"): printed_by([cell]) for cell in cells if cell.id in solutions}
    # Two filters and one epoch need not be better, and the demo is nobody's own: test_exercises.py looks at these two.
    assert not {name: text for name, text in said.items() if "right." not in text and name not in ("better", "own")}
    images = re.findall(r"<img[^>]*data:image/jpeg;base64[^>]*>", page)
    assert len(images) >= 25
    assert not [image[:200] for image in images if not re.search(r"alt=.{30,}", image)]
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "demo_64x96_2_filters_2_epochs_seed_0"
    assert {"best.keras", "best.json", "log.csv", "plan.json", "settings.json"} <= {p.name for p in folder.iterdir()}

    _, cells, again = run_changed(parameters, {}, "scores")
    assert "trained before, 2 epochs: its network is loaded" in printed_by(cells)
    assert re.search("whole recipe .*", again)[0] == re.search("whole recipe .*", scores)[0]


def start(source: str, folder, **environment) -> subprocess.CompletedProcess:
    """Run the first cell as a kernel in this folder would, without this repository on its path."""
    command = [sys.executable, "-c", f"{source}\nimport unet_helpers; print(unet_helpers.__file__)"]
    environment = os.environ | {"PYTHONPATH": ""} | environment
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, check=False, env=environment)


@pytest.fixture
def first_cell(code, tmp_path):
    """The notebook's first cell, fetching from a repository on this machine, and an empty folder to start in."""
    origin = tmp_path / "origin"
    (origin / "unet_helpers").mkdir(parents=True)
    (origin / "unet_helpers" / "__init__.py").touch()
    for command in (["init", "-b", "main"], ["add", "."], ["commit", "-m", "all"]):
        identity = ["-c", "user.name=me", "-c", "user.email=me@example.com"]
        subprocess.run(["git", *identity, *command], cwd=origin, check=True, capture_output=True)
    address = re.search(r'REPOSITORY = "([^"]+)"', code[0].source)[1]
    (tmp_path / "start").mkdir()
    return code[0].source.replace(address, str(origin)), tmp_path / "start"


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_the_notebook_alone_fetches_the_rest_and_again_does_no_harm(first_cell):
    source, folder = first_cell
    (folder / "segmentation_unet").mkdir()  # empty, as an interrupted start may leave it
    for _ in range(2):
        run = start(source, folder)
        assert run.stdout.splitlines()[-1] == str(folder / "segmentation_unet" / "unet_helpers" / "__init__.py")
    assert "papermill: --cwd names the folder" in run.stdout


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_package_that_is_installed_has_no_measurements_and_the_rest_is_fetched(first_cell, tmp_path):
    """`pip install .`, and the notebook in another folder: the lesson reads what lies beside the package."""
    source, folder = first_cell
    shutil.copytree(run_notebook.HERE / "unet_helpers", tmp_path / "installed" / "unet_helpers")
    clone = str(folder / "segmentation_unet" / "unet_helpers" / "__init__.py")
    assert start(source, folder, PYTHONPATH=str(tmp_path / "installed")).stdout.splitlines()[-1] == clone
    whole = run_notebook.HERE / "unet_helpers" / "__init__.py"
    assert start(source, folder, PYTHONPATH=str(run_notebook.HERE)).stdout == f"{whole}\n"


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_start_that_fails_says_why_in_one_sentence(first_cell):
    source, folder = first_cell
    run = start(source, folder, PATH="")
    assert "RuntimeError: git is not installed: install it, or" in run.stderr
    run = start(source.replace("origin", "nowhere"), folder)
    assert "RuntimeError: nothing was fetched: is there a network? (in a Kaggle notebook: switch Inter" in run.stderr
    (folder / "segmentation_unet").mkdir(exist_ok=True)
    (folder / "segmentation_unet" / "mine.txt").write_text("keep")
    run = start(source, folder)
    assert "RuntimeError: the folder 'segmentation_unet' holds something else: rename it" in run.stderr
    assert (folder / "segmentation_unet" / "mine.txt").read_text() == "keep"


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"IMAGE_SIZE": [100, 128]}, r"IMAGE_SIZE: .* divisible by 32, .*found \[100, 128\]"),
        ({"DATASET": "camvid", "DATA_DIR": "not_there"}, "DATA_DIR: there is no folder 'not_there'"),
    ],
)
def test_a_wrong_parameter_ends_in_one_clear_error(tmp_path, wrong, message):
    parameters = {**TINY, "DATA_DIR": str(tmp_path), "RUN_DIR": str(tmp_path), **wrong}
    with pytest.raises(CellExecutionError) as caught:
        run_notebook.run(parameters, tmp_path / "build")
    assert caught.value.ename == "ValueError"
    assert re.match(message, caught.value.evalue)
    assert not list(tmp_path.glob("demo*")), "something was drawn before the parameters were checked"


def test_parameters_from_the_terminal():
    parsed = dict(map(run_notebook.parse_parameter, ["EPOCHS=2", "IMAGE_SIZE=(96, 128)", "DATASET=camvid"]))
    assert parsed == {"EPOCHS": 2, "IMAGE_SIZE": (96, 128), "DATASET": "camvid"}
    with pytest.raises(ValueError, match="'EPOCHS': expected NAME=VALUE"):
        run_notebook.parse_parameter("EPOCHS")
    with pytest.raises(ValueError, match="EPOCH: not a parameter of the notebook, expected one of DATASET"):
        run_notebook.set_parameters(nbformat.read(run_notebook.NOTEBOOK, as_version=4), {"EPOCH": 2})
