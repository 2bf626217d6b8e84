"""The lesson's cells in a real kernel, one at a time: run twice, run again, interrupted."""

import re

import nbformat
import pytest
from jupyter_client import KernelManager

import run_notebook
from unet_helpers.checkpoints import read_log

TINY = {"IMAGE_SIZE": (64, 96), "N_FILTERS": 2, "BATCH_SIZE": 8, "FRAMES_PER_DRIVE": 1}


@pytest.fixture(scope="module")
def notebook():
    return nbformat.read(run_notebook.NOTEBOOK, as_version=4)


class Kernel:
    """A real kernel, one cell at a time; printed: what each cell has printed last, by its id."""

    def __init__(self, notebook, **parameters):
        self.cells = {cell.id: cell.source for cell in notebook.cells if cell.cell_type == "code"}
        self.parameters, self.printed, self.errors = parameters, {}, {}

    def __enter__(self):
        self.manager = KernelManager(kernel_name="python3")
        self.manager.kernel_spec_manager = run_notebook.ThisPython()
        self.manager.start_kernel(cwd=str(run_notebook.HERE))
        self.client = self.manager.blocking_client()
        self.client.start_channels()
        self.client.wait_for_ready(timeout=120)
        return self

    def __exit__(self, *_):
        self.client.stop_channels()
        self.manager.shutdown_kernel(now=True)

    def run(self, cell: str, interrupt_at: str | None = None, source: str | None = None) -> str:
        """Execute a cell, return what it printed; an interrupt is sent as soon as it has printed interrupt_at."""
        sent = self.client.execute(source or self.cells[cell])
        self.printed[cell], self.errors[cell], stderr = "", None, ""
        while True:
            message = self.client.get_iopub_msg(timeout=300)
            if message["parent_header"].get("msg_id") != sent:
                continue
            kind, content = message["msg_type"], message["content"]
            if kind == "stream" and content["name"] == "stdout":
                self.printed[cell] += content["text"]
            elif kind == "stream":
                stderr += content["text"]
            elif kind == "error":
                self.errors[cell] = content["traceback"]
            elif kind == "status" and content["execution_state"] == "idle":
                assert not stderr, (cell, stderr)
                break
            if interrupt_at and interrupt_at in self.printed[cell]:
                self.manager.interrupt_kernel()
                interrupt_at = None
        if cell == "parameters":
            self.run("injected", source="\n".join(f"{name} = {value!r}" for name, value in self.parameters.items()))
        return self.printed[cell]

    def run_all(self, cells) -> None:
        for cell in cells:
            self.run(cell)
            assert not self.errors[cell], (cell, "\n".join(self.errors[cell]))


def scores_of(printed: dict[str, str]) -> dict[str, list[str]]:
    """What cells printed, without the time left, what is printed only once for a run, and what the clock decides."""
    once = re.compile(r"drawing|timing|planned|resuming|trained before|\d+ epochs? of|epoch \d+/|epoch \d+: step")
    lines = {cell: [line for line in text.splitlines() if not once.match(line)] for cell, text in printed.items()}
    lines |= {"speed": []} if "speed" in lines else {}  # it times steps
    return {cell: [re.sub(r", \S+ \w+ left$", "", line) for line in kept] for cell, kept in lines.items()}


def test_every_cell_may_be_run_twice_and_every_section_again(notebook, tmp_path):
    """Each cell twice in a row; then the sections, the last one first, each with the names that the others left."""
    given = {**TINY, "EPOCHS": 2, "DATA_DIR": str(tmp_path / "data"), "RUN_DIR": str(tmp_path / "runs")}
    sections = [[]]
    for cell in notebook.cells:
        if re.search(r"^##? ", cell.source, re.MULTILINE) and cell.cell_type == "markdown":
            sections.append([])
        if cell.cell_type == "code":
            sections[-1].append(cell.id)
    with Kernel(notebook, **given) as kernel:
        for cell in kernel.cells:
            kernel.run_all([cell])
            first = scores_of(kernel.printed)[cell]
            kernel.run_all([cell])
            assert scores_of(kernel.printed)[cell] == first
        before = scores_of(kernel.printed)
        assert re.search(r"^whole recipe +mIoU 0\.\d{3}", kernel.printed["scores"], re.MULTILINE)
        kernel.printed["train"] = ""
        for section in reversed(sections[2:]):  # the first are the set-up and the parameters
            kernel.run_all(section)
        assert scores_of(kernel.printed) == before


def never(source: str) -> str:
    """A training's cell that is interrupted before its first epoch."""
    callback = "keras.callbacks.LambdaCallback(on_epoch_begin=never)"
    source = source.replace("callbacks=callbacks", f"callbacks=[*callbacks, {callback}]")
    source = source.replace("callbacks=[keras", f"callbacks=[{callback}, keras")
    return f"def never(epoch, logs):\n    raise KeyboardInterrupt\n\n\n{source}"


def test_interrupt_score_go_on_score(notebook, tmp_path):
    """A real interrupt in each training, in Jupyter's way: one line, scores of what there is, and on."""
    options = {name: TINY[name] for name in ("N_FILTERS", "BATCH_SIZE", "FRAMES_PER_DRIVE")}
    given = {"IMAGE_SIZE": (64, 96), "DATA_DIR": str(tmp_path / "data"), "MINUTES": 2}
    options |= {"EPOCHS": 40, "RUN_DIR": str(tmp_path / "runs")}
    ids = [cell.id for cell in notebook.cells if cell.cell_type == "code"]

    def between(first, last):
        return ids[ids.index(first) : ids.index(last) + 1]

    with Kernel(notebook, **given, OPTIONS=options) as kernel:
        kernel.run_all(between("bootstrap", "draw"))
        kernel.run("look", interrupt_at="drawing 32 road scenes, once")
        assert kernel.errors["look"] == ["interrupted: nothing is kept; run the cell again"]
        kernel.run_all(between("look", "watched"))
        kernel.run("train-first", source=never(kernel.cells["train-first"]))
        assert kernel.errors["train-first"] == ["interrupted: no epoch has ended; run the cell again"]
        kernel.run("curves-first")
        (line,) = kernel.errors["curves-first"]
        assert "no epoch has ended; run" in line
        for training in ("train-first", "no-skips"):
            kernel.run(training, interrupt_at="epoch 2:")
            assert len(kernel.errors[training]) == 1
            line = r"interrupted: \d+ epochs? trained; score this network, or run the cell again.*"
            assert re.fullmatch(line, kernel.errors[training][0])
            kernel.run_all(between("curves-first", "maps") if training == "train-first" else ["no-skips-masks"])
            kernel.run_all([training])
            kernel.run_all(between("curves-first", "scores-first"))
        kernel.run_all(between("no-skips-masks", "recipe-network"))
        kernel.run("train", source=never(kernel.cells["train"]))
        (line,) = kernel.errors["train"]
        assert line == "interrupted: no epoch has ended, so nothing is saved yet; run the cell again"
        kernel.run("scores")
        assert len(kernel.errors["scores"]) == 1
        assert "no epoch has ended, so no network is saved; run the training's cell again" in kernel.errors["scores"][0]
        kernel.run("curves")
        (line,) = kernel.errors["curves"]
        assert "no epoch has ended; run" in line
        kernel.run("train", interrupt_at="epoch 2/40")
        (line,) = kernel.errors["train"]
        last = int(re.fullmatch(r"interrupted: (\d+) epochs saved in .*; run the cell again to resume", line)[1])
        kernel.run_all(between("curves", "scores"))
        kernel.run_all(["train"])
        assert f"resuming after epoch {last}\nepoch {last + 1}/40" in kernel.printed["train"]
        kernel.run_all(between("curves", "claims"))
        assert len(read_log(next((tmp_path / "runs").iterdir()))["epoch"]) == 40
