"""Execute the tutorial from a terminal: `python run_notebook.py [NAME=VALUE ...]`, as `make run` does.

NAME=VALUE replaces a parameter of the notebook's parameters cell; VALUE is Python ("EPOCHS=2", "IMAGE_SIZE=(96, 128)")
or plain text ("DATASET=camvid"). One argument may hold several: "IMAGE_SIZE=(96, 128) EPOCHS=2". Prints what the
notebook prints while it runs, writes the executed notebook and its HTML to build/, and repeats the scores at the end.
"""

import ast
import re
import sys
import time
from collections.abc import Sequence
from pathlib import Path

import jinja2
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "segmentation_unet.ipynb"


# nbconvert's page leaves out the alt texts of the images.
WITH_ALT_TEXT = """
{%- extends 'lab/index.html.j2' -%}
{%- block data_jpg -%}
{%- set text = output | get_metadata('alt', 'image/jpeg') or '' -%}
{{ super() | replace('<img ', '<img alt="' ~ (text | escape_html) ~ '" ', 1) }}
{%- endblock -%}
"""


class ThisPython(KernelSpecManager):
    """One kernel, of the Python that runs this file: the one named python3 may be another environment's."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict())


class EchoingPreprocessor(ExecutePreprocessor):
    """nbconvert's executor, which also shows at once what the cells print: a run takes minutes."""

    def create_kernel_manager(self):
        manager = super().create_kernel_manager()
        manager.kernel_spec_manager = ThisPython()
        return manager

    def output(self, outs, msg, display_id, cell_index):
        if msg["msg_type"] == "stream":
            sys.stdout.write(msg["content"]["text"])
            sys.stdout.flush()
        return super().output(outs, msg, display_id, cell_index)


def tagged(notebook, tag: str):
    """The first cell with this tag."""
    return next(cell for cell in notebook.cells if tag in cell.metadata.get("tags", []))


def set_parameters(notebook, parameters: dict[str, object]) -> None:
    """Add a cell with the parameters after the cell tagged `parameters`, as papermill does.

    Raises ValueError for a name that the cell does not define: a misspelt parameter would change nothing.
    """
    cell = tagged(notebook, "parameters")
    assigned = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)]
    known = [target.id for node in assigned for target in node.targets]
    for name in parameters:
        if name not in known:
            raise ValueError(f"{name}: not a parameter of the notebook, expected one of {', '.join(known)}")
    source = "\n".join(["# Parameters", *(f"{name} = {value!r}" for name, value in parameters.items())])
    injected = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(notebook.cells.index(cell) + 1, injected)


def parse_parameter(text: str) -> tuple[str, object]:
    """"EPOCHS=2" -> ("EPOCHS", 2); what is not a Python literal is text."""
    name, equals, value = text.partition("=")
    if not equals:
        raise ValueError(f"{text!r}: expected NAME=VALUE, for instance EPOCHS=2")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parse_parameters(arguments: Sequence[str]) -> dict[str, object]:
    """["IMAGE_SIZE=(96, 128) EPOCHS=2", ...] -> {"IMAGE_SIZE": (96, 128), "EPOCHS": 2, ...}; empty text is skipped.

    make passes all of its PARAMETERS as one argument. A new one begins after white space that NAME= follows, so that a
    value may hold spaces. Raises ValueError for text that is not NAME=VALUE.
    """
    texts = [text for argument in arguments for text in re.split(r"\s+(?=[A-Za-z_]\w*=)", argument.strip()) if text]
    return dict(map(parse_parameter, texts))


def make_page(notebook) -> str:
    """The notebook as an HTML page whose images have alt texts."""
    template = {"extra_loaders": [jinja2.DictLoader({"alt.html.j2": WITH_ALT_TEXT})], "template_file": "alt.html.j2"}
    resources = {"metadata": {"name": "Teach a U-Net to see a road"}}
    return HTMLExporter(**template).from_notebook_node(notebook, resources)[0]


def run(parameters: dict[str, object], build_dir: Path = HERE / "build") -> tuple[Path, Path, str]:
    """Execute the notebook in the repository's folder; returns the paths of .html and .ipynb, and the scores printed.

    Both files are also written when a cell fails, to show where; then CellExecutionError is raised.
    """
    notebook = nbformat.read(NOTEBOOK, as_version=4)
    if parameters:
        set_parameters(notebook, parameters)
    build_dir.mkdir(parents=True, exist_ok=True)
    html, executed = build_dir / "segmentation_unet.html", build_dir / "segmentation_unet.ipynb"
    try:
        EchoingPreprocessor(timeout=None, kernel_name="python3").preprocess(notebook, {"metadata": {"path": str(HERE)}})
    finally:
        # TensorFlow's C++ start-up messages can't be switched off; they are noise in a committed notebook.
        tagged(notebook, "set-up").outputs = [
            output for output in tagged(notebook, "set-up").outputs if output.get("name") != "stderr"
        ]
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # start and end times: noise in every diff
        nbformat.write(notebook, executed)
        html.write_text(make_page(notebook), encoding="utf-8")
    scores = "".join(o.get("text", "") for o in tagged(notebook, "scores").outputs if o.output_type == "stream")
    return html, executed, scores


if __name__ == "__main__":
    started = time.perf_counter()
    try:
        arguments = parse_parameters(sys.argv[1:])
        html, executed, scores = run(arguments)
    except ValueError as error:
        sys.exit(f"run_notebook.py: {error}")
    print(f"\n{scores}\nExecuted in {time.perf_counter() - started:.0f} s:\n  {html}\n  {executed}")
