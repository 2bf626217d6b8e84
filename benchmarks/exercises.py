"""Solve the exercises as their solutions do, and write the numbers that the solutions state.

    python benchmarks/exercises.py

Executes the cells of docs/exercises.ipynb, with its own parameters, until its network has scores; then each exercise,
the lesson's too, with its solution for an answer. Prints what the checks say and writes benchmarks/exercises.json. The
trainings are given a time, not a number of steps, so run nothing else on the machine meanwhile.
"""

import json
import os
import platform
import re
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))  # a script's path begins with its own folder
os.environ.setdefault("MPLBACKEND", "agg")

import nbformat
from IPython.core.interactiveshell import InteractiveShell

import run_notebook

NOTEBOOKS = run_notebook.NOTEBOOK, ROOT / "docs" / "exercises.ipynb"
FILE = ROOT / "benchmarks" / "exercises.json"
RESULTS = {  # the values in each solution's "Result: ...", in order, from the notebook's variables
    "iou": {"iou": "{my_iou:.3f}"},
    "parameters": {"parameters": "{my_parameters}"},
    "resize": {"new_id": "{my_new_id}"},
    "bottleneck": {"size": "{my_size}", "bottleneck": "{my_bottleneck}"},
    "baseline": {"accuracy": "{my_accuracy:.1f}", "baseline_miou": "{my_baseline_miou:.1f}"},
    "depth": {"field": "{my_field}", "deeper_field": "{my_deeper_field}"},
    "frames": {"frames_miou": "{my_frames_miou:.3f}", "drives_miou": "{my_drives_miou:.3f}"},
    "weights": {
        "weights_class": "{my_class}", "weights_miou": "{my_weighted_scores.miou:.3f}",
        "network_miou": "{network_scores.miou:.3f}",
    },
    "better": {"better_miou": "{my_better_miou:.3f}", "network_miou": "{network_scores.miou:.3f}"},
}  # fmt: skip


def read_cells() -> dict[str, str]:
    """The source of each cell of the lesson and of docs/exercises.ipynb, by the cell's id."""
    return {cell.id: cell.source for path in NOTEBOOKS for cell in nbformat.read(path, as_version=4).cells}


def with_answer(cells: dict[str, str], name: str, answer: str | None = None) -> str:
    """The exercise's code with an answer (None: its solution's) between the placeholders and the check."""
    if answer is None:
        (answer,) = re.findall(r"```python\n(.*?)```", cells[f"solution-{name}"], re.DOTALL)
    above, call = cells[f"exercise-{name}"].split("\ncheck(")
    return f"{above}\n{answer}\ncheck({call}"


def solve_all(cells: dict[str, str], namespace: dict) -> dict:
    """Solve all exercises in a namespace in which the notebook's first cells have run. Returns what FILE holds."""
    check, right = namespace["check"], {}
    namespace["check"] = lambda name, *answers, **context: right.update({name: check(name, *answers, **context)})
    for name in (name.removeprefix("solution-") for name in cells if name.startswith("solution-")):
        exec(with_answer(cells, name), namespace)
    namespace["check"] = check
    results = {
        name: {key: text.format_map(namespace) for key, text in stated.items()} for name, stated in RESULTS.items()
    }
    return {"right": right, "results": results}


if __name__ == "__main__":
    os.chdir(ROOT / "docs")
    shell = InteractiveShell.instance()
    for cell in nbformat.read(NOTEBOOKS[1], as_version=4).cells:
        if cell.cell_type == "code" and "network_scores" not in shell.user_ns:
            shell.run_cell(cell.source).raise_error()
    machine = f"{platform.machine()}, {os.cpu_count()} cores, Python {platform.python_version()}"
    record = {"machine": machine, **solve_all(read_cells(), shell.user_ns)}
    FILE.write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    print(FILE.read_text(encoding="utf-8"))
