"""The committed notebook is one clean run of what it should be, and the notebook runs, whole, in a real kernel."""

import ast
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
from unet_helpers.notebook import NotebookError, hold_back_stderr, read_recipe
from unet_helpers.notebook import start as notebook_start
from unet_helpers.recipe import OPTIONS, RULES

NOTEBOOKS = [run_notebook.NOTEBOOK, *sorted((run_notebook.HERE / "docs").glob("*.ipynb"))]


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


def test_the_committed_notebook_is_a_run_that_trained(code):
    """A second run loads the network of the first; its output would show no training."""
    printed = {cell.id: printed_by([cell]) for cell in code}
    epochs = [int(n) for n in re.findall(r"^epoch (\d+)/", printed["train"], re.MULTILINE)]
    assert epochs == list(range(1, len(epochs) + 1))
    assert len(epochs) >= 8
    assert all(re.search(r"^epoch 4: .* left$", printed[cell], re.MULTILINE) for cell in ("train-first", "no-skips"))
    assert "trained before" not in printed["train"]
    assert "resuming" not in printed["train"]


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_the_committed_notebooks_are_clean_runs_and_name_no_local_path(path):
    notebook = nbformat.read(path, as_version=4)
    code = [cell for cell in notebook.cells if cell.cell_type == "code"]
    assert [cell.execution_count for cell in code] == list(range(1, len(code) + 1))
    outputs = [output for cell in code for output in cell.outputs]
    assert "error" not in {output.output_type for output in outputs}
    assert "stderr" not in {output.get("name") for output in outputs}
    assert "widgets" not in notebook.metadata
    assert path.read_text(encoding="utf-8") == f"{nbformat.writes(notebook)}\n"  # as JupyterLab saves it: no other diff
    assert notebook.metadata.kernelspec.display_name == "Python 3 (ipykernel)"  # JupyterLab writes this one otherwise
    assert path.stat().st_size < 2_500_000
    text = json.dumps([{**cell, "attachments": None} for cell in notebook.cells])
    text = re.sub(r'"image/(png|jpeg)": "[^"]*"', "", text).replace("/content/drive", "")  # Colab's own, for all
    assert not re.findall(r"(?<![\w.])/(?:home|root|tmp|usr|work|Users|content|opt|var)/\S*|[A-Z]:\\\\\w", text)
    assert f"/blob/main/{path.relative_to(run_notebook.HERE).as_posix()})" in notebook.cells[0].source  # Colab's badge


def test_one_sitting_is_enough(notebook, code, prose):
    assert len(notebook.cells) <= 110
    assert sum(len(re.findall(r"[\w'’-]+", re.sub(r"\(http\S+\)", "", text))) for text in prose) <= 5000
    lines = {cell.id: len(cell.source.splitlines()) for cell in code}
    assert max(lines.values()) <= 16
    assert statistics.median(lines.values()) <= 9
    until_data = [cell.source for cell in code[: 1 + [cell.id for cell in code].index("look")]]
    assert len([line for source in until_data for line in source.splitlines() if line]) <= 25
    assert any("image/jpeg" in output.get("data", {}) for output in code[len(until_data) - 1].outputs)
    parts = [text.splitlines()[0].partition(":")[0] for text in prose if text.startswith("# ")]
    assert parts == ["# Teach a U-Net to see a road", "# Part 1", "# Part 2", "# Part 3"]


def test_the_words_are_the_fields_and_each_term_is_explained_once(prose):
    text = re.sub(r"(?s)<details>.*?</details>|`[^`]*`|\(http\S+\)|!\[.*?\]", "", "\n".join(prose))
    assert not re.findall(r"(?i)\b(?:pictures?|mirror\w*|commonest|films?|new views|(?<!ground )truth)\b", text)
    terms = [" ".join(term.lower().split()) for term in re.findall(r"\*\*(.+?)\*\*", text, re.DOTALL)]
    assert len(terms) == len(set(terms)) >= 50
    for term in (
        "ground truth", "void", "bonnet", "nearest neighbour", "accuracy", "encoder", "bottleneck", "skip connection",
        "stride", "logits", "receptive field", "softmax", "cross-entropy", "overfits", "baseline", "feature maps",
        "Muon", "Dice loss", "progressive resizing", "transfer learning", "confusion matrix", "confidence",
    ):  # fmt: skip
        first = re.search(rf"\b{term.lower()}", text.lower().replace("\n", " "))
        assert first.start() == text.lower().index(f"**{term.lower()}") + 2, term


def test_the_test_images_are_looked_at_once_in_part_3(notebook):
    part_3 = next(n for n, cell in enumerate(notebook.cells) if cell.source.startswith("# Part 3"))
    before = [cell for cell in notebook.cells[:part_3] if cell.cell_type == "code"]
    assert [cell.id for cell in before if "dataset.test" in cell.source or "held_out" in cell.source] == ["check"]
    assert [cell.id for cell in notebook.cells if "evaluate_model(best_model" in cell.source] == ["scores"]


def test_parameters_stand_in_one_cell_only_and_the_others_in_a_folded_table(code, prose):
    (cell,) = [cell for cell in code if "parameters" in cell.metadata.get("tags", [])]
    names = [target.id for node in ast.parse(cell.source).body for target in node.targets]
    assert names == ["DATASET", "DATA_DIR", "MINUTES", "IMAGE_SIZE", "SEED", "OPTIONS"]
    table = next(text for text in prose if "OPTIONS, for experts" in text)
    assert set(re.findall(r"`([A-Z_]+)`", "".join(re.findall(r"^\| (`.*?) \|", table, re.MULTILINE)))) == set(OPTIONS)
    assert {*names, *OPTIONS} - {"OPTIONS"} == set(RULES)


def test_prose_has_no_number_that_a_run_could_change(prose):
    for text in prose:
        without_links = re.sub(r"\(http\S+\)|`[^`]*`", "", text)
        assert not re.findall(r"\d+\.\d+|\d+ ?%|\d+ (?:s|seconds|minutes|images|pictures)\b", without_links), text


def test_every_figure_is_explained_before_it_and_says_in_words_what_is_on_it(notebook):
    figures = 0
    for before, cell in zip(notebook.cells, notebook.cells[1:], strict=False):
        for output in cell.get("outputs", []):
            for kind in {"image/png", "image/jpeg"} & set(output.get("data", {})):
                figures += 1
                assert before.cell_type == "markdown"
                alt = output.metadata.get(kind, output.metadata).get("alt", "")
                assert len(alt) >= 30, (cell.id, alt)
    assert figures >= 20
    assert re.search(r"!\[[^\]]{30,}\]\(attachment:result\.png\)", notebook.cells[0].source)


def test_what_is_printed_fits_a_phone(code):
    """45 characters of 8 pixels; a line of a log may wrap, a table may not."""
    for cell in code:
        lines = printed_by([cell]).splitlines()
        rows = [line for line in lines if re.search(r"\S {2,}\S", line) and not line.startswith(("epoch", "drawing"))]
        assert not [row for row in rows if len(row) > 45], cell.id


TINY = {"IMAGE_SIZE": (64, 96), "N_FILTERS": 2, "BATCH_SIZE": 8, "FRAMES_PER_DRIVE": 1}


@pytest.fixture
def run_changed(tmp_path, monkeypatch):
    """Execute a notebook with other sources, {id of a cell: source}; return HTML, cells and scores."""

    def run(path, parameters: dict, sources: dict[str, str]):
        changed = nbformat.read(path, as_version=4)
        for cell in changed.cells:
            cell.source = sources.get(cell.id, cell.source)
        nbformat.write(changed, tmp_path / path.name)
        monkeypatch.setenv("PYTHONPATH", str(run_notebook.HERE))
        html, executed, scores = run_notebook.run(parameters, tmp_path / "build", tmp_path / path.name)
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


@pytest.mark.parametrize("path", NOTEBOOKS, ids=lambda path: path.stem)
def test_each_notebook_runs_whole_with_all_solutions_and_again(path, run_changed, tmp_path, capfd):
    """By run_notebook.py, in a folder of its own; a second time the lesson's training is loaded."""
    parameters = {**TINY, "EPOCHS": 2, "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "runs")}
    solutions = with_solutions(nbformat.read(path, as_version=4))
    page, cells, scores = run_changed(path, parameters, solutions)
    counts = [cell.execution_count for cell in cells if cell.cell_type == "code"]
    assert counts == list(range(1, len(counts) + 1))
    terminal = capfd.readouterr().out
    assert terminal.index("drawing 32 road scenes, once") < terminal.index("drawing 32 road scenes: ")
    said = {cell.id.removeprefix("exercise-"): printed_by([cell]) for cell in cells if cell.id in solutions}
    assert len(said) == {"segmentation_unet": 3, "exercises": 8, "mistakes": 0}[path.stem]
    # Two filters and one epoch need not be better, and the demo is nobody's own: test_exercises.py looks at these two.
    assert not {name: text for name, text in said.items() if "right." not in text and name not in ("better", "own")}
    images = re.findall(r"<img[^>]*data:image/jpeg;base64[^>]*>", page)
    assert not [image[:200] for image in images if not re.search(r"alt=.{30,}", image)]
    if path != run_notebook.NOTEBOOK:
        assert not (tmp_path / "runs").exists()
        return
    assert re.search(r"epoch 2/2 64x96: loss .*, 0\.0 min left", terminal)
    assert len(images) >= 20
    assert re.search(r"demo, test: 7 images\nwhole recipe +mIoU 0\.\d{3}", scores)
    assert re.search(r"without TTA +mIoU 0\.\d{3}.*\npart 1 +mIoU 0\.\d{3}.*\nbaseline +mIoU 0\.\d{3}", scores)
    (folder,) = (tmp_path / "runs").iterdir()
    assert folder.name == "demo_64x96_2_filters_2_epochs_seed_0"
    assert {"best.keras", "best.json", "log.csv", "plan.json", "settings.json"} <= {p.name for p in folder.iterdir()}
    _, cells, again = run_changed(path, parameters, {cell: "" for cell in solutions})
    assert "trained before, 2 epochs: its network is loaded" in printed_by(cells)
    assert again == scores


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
    (origin / "benchmarks").mkdir()
    (origin / "benchmarks" / "lesson_demo.json").touch()
    (origin / "unet_helpers" / "__init__.py").touch()
    (origin / "unet_helpers" / "notebook.py").write_text("read_recipe = start = lambda: None")
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
    run = start(source, folder / "segmentation_unet" / "unet_helpers")  # as from docs/
    assert run.stdout.splitlines()[-1] == str(folder / "segmentation_unet" / "unet_helpers" / "__init__.py")


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_package_that_is_installed_has_no_measurements_and_the_rest_is_fetched(first_cell, tmp_path):
    """`pip install .`, and the notebook in another folder: the lesson reads what lies beside the package."""
    source, folder = first_cell
    shutil.copytree(run_notebook.HERE / "unet_helpers", tmp_path / "installed" / "unet_helpers")
    clone = str(folder / "segmentation_unet" / "unet_helpers" / "__init__.py")
    assert start(source, folder, PYTHONPATH=str(tmp_path / "installed")).stdout.splitlines()[-1] == clone
    whole = run_notebook.HERE / "unet_helpers" / "__init__.py"
    run = start(source, folder, PYTHONPATH=str(run_notebook.HERE))
    assert run.stdout.splitlines()[-1] == str(whole)
    assert "TensorFlow " in run.stdout
    assert run.stderr == ""  # a normal start has no red line


@pytest.mark.skipif(not shutil.which("git"), reason="needs git")
def test_a_start_that_fails_says_why_in_one_sentence(first_cell):
    source, folder = first_cell
    sentence = "RuntimeError: nothing was fetched: install git, connect to a network, or rename what segmentation_unet"
    for changed, environment in ((source, {"PATH": ""}), (source.replace("origin", "nowhere"), {})):
        assert sentence in start(changed, folder, **environment).stderr
    kept = folder / "segmentation_unet"
    kept.write_text("keep")  # a file of this name
    run = start(source, folder)
    assert sentence in run.stderr
    assert "Add Input" in run.stderr
    assert kept.read_text() == "keep"


def test_a_kernel_without_tensorflow_says_which_and_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "tensorflow", None)  # as if it were not installed
    with pytest.raises(NotebookError) as caught:
        notebook_start()
    (line,) = caught.value._render_traceback_()
    assert line.startswith(f"this kernel, the Python of {sys.prefix}, lacks what the notebook needs (")
    assert "tensorflow" in line
    assert line.endswith(f"{sys.executable} -m pip install -r {run_notebook.HERE / 'requirements.txt'}")


def test_what_imports_write_to_stderr_is_shown_only_if_they_fail(capfd):
    with hold_back_stderr():
        os.write(2, b"chatter")
    assert capfd.readouterr().err == ""
    with pytest.raises(ImportError), hold_back_stderr():  # noqa: PT012
        os.write(2, b"the reason\n")
        raise ImportError
    assert capfd.readouterr().err == "the reason\n"


def test_options_come_from_their_dict_or_as_plain_variables(tmp_path, capsys):
    given = {"DATASET": "demo", "DATA_DIR": str(tmp_path), "MINUTES": 4, "IMAGE_SIZE": None, "SEED": 0}
    recipe = read_recipe({**given, "OPTIONS": {"EPOCHS": 3, "RUN_DIR": str(tmp_path)}, "N_FILTERS": 5, "n": 0})
    assert (recipe.epochs, recipe.n_filters, recipe.run_dir, recipe.frames_per_drive) == (3, 5, tmp_path, 20)
    assert "5 filters" in capsys.readouterr().out
    for options, message in (({"EPOCH": 3}, "OPTIONS: found 'EPOCH', expected a dict"), (3, "OPTIONS: found 3, expec")):
        with pytest.raises(ValueError, match=message):
            read_recipe({**given, "OPTIONS": options})


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
