"""Execute a notebook from a terminal: `python run_notebook.py [NOTEBOOK.ipynb] [NAME=VALUE ...]`, as `make run` does.

Without NOTEBOOK it is the lesson, segmentation_unet.ipynb; docs/exercises.ipynb and docs/mistakes.ipynb run in docs/.
NAME=VALUE replaces a parameter of the notebook's parameters cell or, another name, one of its OPTIONS; VALUE is Python
("EPOCHS=2", "IMAGE_SIZE=(96, 128)") or plain text ("DATASET=camvid"). One argument may hold several:
"IMAGE_SIZE=(96, 128) EPOCHS=2". Prints what the notebook prints while it runs, writes the executed notebook and its
HTML to build/, and repeats the scores at the end. A mistake in what was given ends in one line, a bug in its traceback.
"""

import ast
import copy
import re
import sys
import time
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import jinja2
import nbformat
from ipykernel.kernelspec import get_kernel_dict
from jupyter_client.kernelspec import KernelSpec, KernelSpecManager
from nbclient.exceptions import CellExecutionError
from nbconvert import HTMLExporter
from nbconvert.preprocessors import ExecutePreprocessor

HERE = Path(__file__).resolve().parent
NOTEBOOK = HERE / "segmentation_unet.ipynb"


# nbconvert's page loads scripts from elsewhere, for which a slow network waits, and leaves out the images' alt texts.
PAGE = """
{%- extends 'lab/index.html.j2' -%}
{%- macro with_alt(image, text) -%}{{ image | replace('<img ', '<img alt="' ~ (text | escape_html) ~ '" ', 1) }}
{%- endmacro -%}
{%- block data_jpg -%}{{ with_alt(super(), output | get_metadata('alt', 'image/jpeg') or '') }}{%- endblock -%}
{%- block data_png -%}{{ with_alt(super(), output | get_metadata('alt', 'image/png') or '') }}{%- endblock -%}
{%- block html_head_js -%}{%- endblock -%}
{%- block jupyter_widgets -%}{%- endblock -%}
{%- block html_head_js_mathjax -%}{%- endblock -%}
{%- block html_head_js_mermaidjs -%}{%- endblock -%}
{%- block html_head_css -%}
<style>
.jp-Notebook main, nav { max-width: 60rem; margin: 0 auto; }
nav { font-family: sans-serif; line-height: 1.8; padding: 0.5rem; }
nav a { color: #0b57a4; }
nav .h3 { margin-left: 1.5rem; }
.skip { position: absolute; left: -100rem; }
.skip:focus { position: static; }
.jp-MarkdownOutput, .jp-InputArea-editor, .jp-OutputArea-child { min-width: 0; overflow-x: auto; }
.jp-OutputArea-output { box-sizing: border-box; overflow-x: auto; }
.jp-RenderedHTMLCommon { overflow-wrap: break-word; }
.jp-RenderedHTMLCommon img, .jp-RenderedImage img { max-width: 100%; height: auto; }
@media screen and (max-width: 45rem) {
  body.jp-Notebook { padding: 0.25rem; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
  .jp-OutputArea-output pre { white-space: pre !important; }
}
@media print {
  nav, .skip { display: none; }
  .jp-InputArea, .jp-InputArea-editor, .jp-OutputArea-child, .jp-OutputArea-output { display: block !important; }
  .jp-InputPrompt, .jp-OutputPrompt { display: none !important; }
  .jp-Cell * { overflow: visible !important; }
  pre, .highlight pre { white-space: pre-wrap !important; overflow-wrap: anywhere; font-size: 9px !important; }
  img, .jp-InputArea-editor { break-inside: avoid; }
  img { max-height: 9in; }
  h1, h2, h3, h4 { break-after: avoid; }
}
</style>
{%- endblock -%}
"""
CONTENTS = """<a class="skip" href="#content">Skip to the content</a>
<nav aria-label="Contents"><details><summary>Contents</summary><ul>
{}
</ul></details></nav>
<main id="content" tabindex="-1">"""
HEADING = re.compile(r'<h([1-6]) id="([^"]*)">(.*?)<a class="anchor-link".*?</h\1>', re.DOTALL)  # as nbconvert makes it


class Mistake(ValueError):
    """One sentence for the reader: a name, value or notebook that can't be."""


class ThisPython(KernelSpecManager):
    """One kernel, of the Python that runs this file: the one named python3 may be another environment's."""

    def get_kernel_spec(self, kernel_name):
        return KernelSpec(**get_kernel_dict(["--log-level=CRITICAL"]))  # ipykernel warns of its own port


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
    """The first cell with this tag, None without one."""
    return next((cell for cell in notebook.cells if tag in cell.metadata.get("tags", [])), None)


def set_parameters(notebook, parameters: dict[str, object]) -> None:
    """Add a cell with the parameters after the cell tagged `parameters`, as papermill does; the others are OPTIONS.

    Raises Mistake for a name that neither the cell nor OPTIONS can have.
    """
    cell = tagged(notebook, "parameters")
    assigned = [node for node in ast.parse(cell.source).body if isinstance(node, ast.Assign)] if cell else []
    known = [target.id for node in assigned for target in node.targets]
    options = {name: value for name, value in parameters.items() if name not in known}
    for name in options:
        if "OPTIONS" not in known or not name.isupper():
            expected = f"expected one of {', '.join(known)}" if known else "which has none"
            expected += ", or an option such as EPOCHS" if "OPTIONS" in known else ""
            raise Mistake(f"{name}: not a parameter of the notebook, {expected}")
    if not isinstance(parameters.get("OPTIONS", {}), dict):
        raise Mistake(f"OPTIONS: expected a dict such as {{'EPOCHS': 2}}, found {parameters['OPTIONS']!r}")
    lines = [f"{name} = {value!r}" for name, value in parameters.items() if name in known]
    lines += [f"OPTIONS = {{**OPTIONS, **{options!r}}}"] if options else []
    source = "\n".join(["# Parameters", *lines])
    injected = nbformat.v4.new_code_cell(source, metadata={"tags": ["injected-parameters"]})
    notebook.cells.insert(notebook.cells.index(cell) + 1, injected)


def parse_parameter(text: str) -> tuple[str, object]:
    """"EPOCHS=2" -> ("EPOCHS", 2); what is not a Python literal is text."""
    name, equals, value = text.partition("=")
    if not equals or not name.isidentifier():
        raise Mistake(f"{text!r}: expected NAME=VALUE, for instance EPOCHS=2")
    try:
        return name, ast.literal_eval(value)
    except (ValueError, SyntaxError):
        return name, value


def parse_parameters(arguments: Sequence[str]) -> dict[str, object]:
    """["IMAGE_SIZE=(96, 128) EPOCHS=2", ...] -> {"IMAGE_SIZE": (96, 128), "EPOCHS": 2, ...}; empty text is skipped.

    make passes all of its PARAMETERS as one argument. A new one begins after white space that NAME= follows, so that a
    value may hold spaces. Raises Mistake for text that is not NAME=VALUE.
    """
    texts = [text for argument in arguments for text in re.split(r"\s+(?=[A-Za-z_]\w*=)", argument.strip()) if text]
    return dict(map(parse_parameter, texts))


def make_page(notebook) -> str:
    """The notebook as an HTML page that loads nothing: alt texts, contents, one H1; it fits a phone and paper."""
    notebook = copy.deepcopy(notebook)
    for cell in notebook.cells:
        if cell.cell_type == "markdown":  # a badge, which another host draws: its text will do
            cell.source = re.sub(r"!\[([^]]*)\]\(https?://[^)]*\)", r"\1", cell.source)
    loader = jinja2.DictLoader({"page.html.j2": PAGE})
    exporter = HTMLExporter(extra_loaders=[loader], template_file="page.html.j2")
    page = exporter.from_notebook_node(notebook, {"metadata": {"name": "notebook"}})[0]
    entries, seen = [], Counter()

    def entered(heading: re.Match) -> str:
        """The heading with an id of its own; from the second H1 on each is a level lower: the first is the title."""
        tag, anchor, text = heading.groups()
        seen.update([f"h{tag}", anchor])
        level = int(tag) + (seen["h1"] > 1)
        anchor += f"-{seen[anchor]}" if seen[anchor] > 1 else ""
        if level in (2, 3):
            entries.append(f'<li class="h{level}"><a href="#{anchor}">{re.sub("<.*?>", "", text)}</a>')
        return f'<h{level} id="{anchor}">{text}</h{level}>'

    page = HEADING.sub(entered, page).replace('href="docs/', 'href="../docs/')  # the page is in build/
    page = page.replace("<main>", CONTENTS.format("\n".join(entries)), 1)
    title = re.sub("<.*?>", "", (re.search(r"<h1 .*?</h1>", page) or ["notebook"])[0])
    return re.sub("<title>.*?</title>", lambda _: f"<title>{title}</title>", page, count=1)


def run(parameters: dict[str, object], build_dir: Path | None = None, path: Path | None = None) -> tuple:
    """Execute a notebook in its folder; returns the Paths of .html and .ipynb, and the scores printed.

    Without path the lesson. Both files are also written when a cell fails or Ctrl-C stops it, to show where; then
    CellExecutionError or KeyboardInterrupt is raised. Raises Mistake.
    """
    path, build_dir = path or NOTEBOOK, build_dir or HERE / "build"
    try:
        notebook = nbformat.read(path, as_version=4)
    except nbformat.reader.NotJSONError:
        raise Mistake(f"{path}: this is no notebook") from None
    if parameters:
        set_parameters(notebook, parameters)
    build_dir.mkdir(parents=True, exist_ok=True)
    html, executed = (build_dir / f"{path.stem}{suffix}" for suffix in (".html", ".ipynb"))
    where = {"metadata": {"path": str(HERE if path == NOTEBOOK else path.parent)}}
    try:
        EchoingPreprocessor(timeout=None, kernel_name="python3").preprocess(notebook, where)
    finally:
        for cell in notebook.cells:
            cell.metadata.pop("execution", None)  # start and end times: noise in every diff
        nbformat.write(notebook, executed)
        html.write_text(make_page(notebook), encoding="utf-8")
    cell = tagged(notebook, "scores")
    scores = "".join(o.get("text", "") for o in cell.outputs if o.output_type == "stream") if cell else ""
    return html, executed, scores


def is_mistake(error: CellExecutionError) -> bool:
    """Whether a `raise` in the notebook or in unet_helpers made it, with a sentence for the reader; others are bugs."""
    text = re.sub(r"\x1b\[[\d;]*m", "", error.traceback)
    *_, last = re.split(r"^(?=File .*:\d+|Cell In|Input In)", text, flags=re.MULTILINE)  # as IPython shows a frame
    ours = re.match(r"Cell|Input|File .*\bunet_helpers\b", last)
    said = re.search(rf"^-+> \d+ +raise (\w+\.)*{error.ename}\b", last, re.MULTILINE)
    return bool(ours and said) or error.ename in ("NotebookError", "DownloadError")  # they show no traceback


def main(arguments: Sequence[str]) -> None:
    """Run as the module says; a mistake of the reader's ends in one line and exit code 1, Ctrl-C in one and 130."""
    if {"-h", "--help"} & {*arguments}:
        print(__doc__)
        return
    started, path = time.perf_counter(), NOTEBOOK
    if arguments and arguments[0].endswith(".ipynb") and "=" not in arguments[0]:
        path, arguments = Path(arguments[0]).resolve(), arguments[1:]
    try:
        if not path.is_file():
            raise Mistake(f"{path}: there is no such notebook")
        html, executed, scores = run(parse_parameters(arguments), path=path)
    except (KeyboardInterrupt, Mistake, CellExecutionError) as error:
        if {type(error).__name__, getattr(error, "ename", "")} & {"KeyboardInterrupt", "Interrupted"}:
            print(f"run_notebook.py: interrupted; build/{path.stem}.ipynb has what was executed", file=sys.stderr)
            sys.exit(130)
        if isinstance(error, CellExecutionError) and not is_mistake(error):
            raise
        sys.exit(f"run_notebook.py: {' '.join(getattr(error, 'evalue', str(error)).split())}")
    print(f"\n{scores}\nExecuted in {time.perf_counter() - started:.0f} s:\n  {html}\n  {executed}")


if __name__ == "__main__":
    sys.stdout.reconfigure(errors="backslashreplace")  # Windows' code pages lack most letters
    main(sys.argv[1:])
