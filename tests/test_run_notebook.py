"""run_notebook.py on small notebooks in a real kernel: where and with what they run, how they stop, the page made."""

import json
import os
import re
import signal
import subprocess
import sys
import time
from html.parser import HTMLParser
from pathlib import Path

import nbformat
import pytest
from limits import needs_sigint
from nbclient.exceptions import CellExecutionError
from nbformat.v4 import new_code_cell, new_markdown_cell, new_notebook, new_output

import run_notebook

WIDGETS = "application/vnd.jupyter.widget-state+json"  # a page's only script is no script, but data
CELLS = {
    "set-up": "import os, sys",
    "parameters": 'DATASET = "demo"\nIMAGE_SIZE = None  # kept by 32\nOPTIONS = {}',
    "scores": "print(repr((DATASET, IMAGE_SIZE, OPTIONS)))\nprint(os.path.realpath(sys.executable), sys.prefix)",
}


def write(path: Path, *sources: str) -> Path:
    """A notebook of these code cells."""
    path.parent.mkdir(parents=True, exist_ok=True)
    nbformat.write(new_notebook(cells=list(map(new_code_cell, sources))), path)
    return path


@pytest.fixture
def notebook(tmp_path, monkeypatch):
    """A notebook with the tutorial's three tagged cells, in place of the tutorial."""
    cells = [new_code_cell(source, metadata={"tags": [tag]}) for tag, source in CELLS.items()]
    path = tmp_path / "small.ipynb"
    nbformat.write(new_notebook(cells=cells), path)
    monkeypatch.setattr(run_notebook, "NOTEBOOK", path)
    return path


@pytest.fixture
def project(tmp_path, monkeypatch):
    """A project of its own, with docs/, in place of the tutorial's; the kernels import unet_helpers."""
    folder = tmp_path / "project"
    (folder / "docs").mkdir(parents=True)
    monkeypatch.setenv("PYTHONPATH", str(run_notebook.HERE))
    monkeypatch.setattr(run_notebook, "HERE", folder)
    monkeypatch.setattr(run_notebook, "NOTEBOOK", folder / "segmentation_unet.ipynb")
    monkeypatch.chdir(folder)
    return folder


def line_of(*arguments: str) -> str:
    """What main ends with: sys.exit writes it to standard error and makes the exit code 1."""
    with pytest.raises(SystemExit) as stop:
        run_notebook.main(arguments)
    assert isinstance(stop.value.code, str)
    assert len(stop.value.code.splitlines()) == 1
    return stop.value.code.removeprefix("run_notebook.py: ")


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
    shown = ["('demo', (96, 128), {'EPOCHS': 2})", f"{os.path.realpath(sys.executable)} {sys.prefix}"]
    assert scores.splitlines() == shown
    assert scores in capsys.readouterr().out  # shown while it runs
    assert html.is_file()
    cells = nbformat.read(executed, 4).cells
    assert cells[2].source == "# Parameters\nIMAGE_SIZE = (96, 128)\nOPTIONS = {**OPTIONS, **{'EPOCHS': 2}}"
    assert not [cell for cell in cells if "execution" in cell.metadata]


def test_arguments_are_split_at_names():
    for arguments, expected in (
        (["  ", "IMAGE_SIZE=(96,128) EPOCHS=2\n\tSEED=1"], {"IMAGE_SIZE": (96, 128), "EPOCHS": 2, "SEED": 1}),
        (["DATA_DIR=my folder/a=b DATASET=camvid"], {"DATA_DIR": "my folder/a=b", "DATASET": "camvid"}),
        (["DATA_DIR='my folder'", "ARCHIVE=None"], {"DATA_DIR": "my folder", "ARCHIVE": None}),
        (['OPTIONS={"EPOCHS": 2, "RUN_DIR": "a b"} SEED=1'], {"OPTIONS": {"EPOCHS": 2, "RUN_DIR": "a b"}, "SEED": 1}),
    ):
        assert run_notebook.parse_parameters(arguments) == expected


def test_names_that_are_no_parameters_are_options(notebook):
    for arguments, expected in (
        ("", ("demo", None, {})),
        ("DATASET=camvid N_FILTERS=8 EPOCHS=2", ("camvid", None, {"N_FILTERS": 8, "EPOCHS": 2})),
        ('EPOCHS=3 OPTIONS={"EPOCHS": 2, "SEED": 1}', ("demo", None, {"EPOCHS": 3, "SEED": 1})),
    ):
        cells = nbformat.read(notebook, 4)
        run_notebook.set_parameters(cells, run_notebook.parse_parameters([arguments]))
        variables = {}
        exec("\n".join(cell.source for cell in cells.cells[1:3]), variables)
        assert (variables["DATASET"], variables["IMAGE_SIZE"], variables["OPTIONS"]) == expected


def test_each_notebook_runs_in_its_folder(project, monkeypatch, capsys):
    """Whatever the folder in which the command is given."""
    here = "import os\nprint('in', os.path.realpath('.'))"
    for name in ("segmentation_unet", "docs/exercises", "docs/mistakes"):
        write(project / f"{name}.ipynb", here)
    for arguments, cwd, folder in (
        ([], "docs", project), (["../segmentation_unet.ipynb"], "docs", project),
        (["docs/exercises.ipynb"], ".", project / "docs"), (["mistakes.ipynb"], "docs", project / "docs"),
    ):  # fmt: skip
        monkeypatch.chdir(project / cwd)
        run_notebook.main(arguments)
        assert f"in {os.path.realpath(folder)}\n" in capsys.readouterr().out
    made = {f"{name}.{kind}" for name in ("segmentation_unet", "exercises", "mistakes") for kind in ("ipynb", "html")}
    assert {path.name for path in (project / "build").iterdir()} == made


def test_a_mistake_in_the_arguments_is_one_line(project, notebook):
    write(project / "bare.ipynb", "1")
    (project / "broken.ipynb").write_text("# not JSON\nat all")
    for arguments, said in (
        (["EPOCHS"], "'EPOCHS': expected NAME=VALUE"),
        (["EPOCHS =2"], "'EPOCHS =2': expected NAME=VALUE"),
        (["IMAGE_SIZE=(96, 128) epochs=2"], "epochs: not a parameter of the notebook, expected one of DATASET, "),
        (["OPTIONS=3", "EPOCHS=2"], "OPTIONS: expected a dict"),
        (["bare.ipynb", "EPOCHS=2"], "EPOCHS: not a parameter of the notebook, which has none"),
        (["docs/nowhere.ipynb"], f"{project}/docs/nowhere.ipynb: there is no such notebook"),
        (["broken.ipynb"], f"{project}/broken.ipynb: this is no notebook"),
    ):
        assert line_of(*arguments).startswith(said)
    assert not (project / "build").exists()


def test_a_mistake_in_the_terminal_is_one_line():
    command = [sys.executable, run_notebook.__file__, "EPOCHS"]
    result = subprocess.run(command, capture_output=True, text=True, timeout=99, check=False)
    assert result.returncode == 1
    assert result.stderr == "run_notebook.py: 'EPOCHS': expected NAME=VALUE, for instance EPOCHS=2\n"


@pytest.mark.parametrize(
    ("source", "said"),
    [
        ("raise ValueError('IMAGE_SIZE: expected two,\\n  found 3')", "IMAGE_SIZE: expected two, found 3"),
        ("raise RuntimeError('git is not installed: install it')", "git is not installed: install it"),
        ("from unet_helpers.labels import LabelMap\nLabelMap((), ())", "names: found ()"),
        ("from unet_helpers.notebook import NotebookError\nraise NotebookError('choose another')", "choose another"),
        ("from unet_helpers.download import DownloadError\nraise DownloadError('no network', 'wait')", "no network"),
    ],
)
def test_a_sentence_of_ours_is_one_line(project, source, said):
    assert line_of(str(write(project / "ours.ipynb", "print('before')", source))).startswith(said)
    executed = nbformat.read(project / "build" / "ours.ipynb", 4)
    assert [cell.outputs[0].output_type for cell in executed.cells] == ["stream", "error"]


@pytest.mark.parametrize(
    ("source", "name"),
    [
        ("1 / 0", "ZeroDivisionError"),
        ("from unet_helpers.labels import LabelMap\nLabelMap(1)", "TypeError"),
        ("import ast\nast.literal_eval('f(x)')", "ValueError"),  # a `raise`, but not one of ours
        ("raise ValueError(f'{nothing}')", "NameError"),  # ours, but no sentence
        ("x = (", "SyntaxError"),
    ],
)
def test_a_bug_keeps_its_traceback(project, source, name):
    with pytest.raises(CellExecutionError, match="Traceback|SyntaxError") as bug:
        run_notebook.main([str(write(project / "bug.ipynb", source))])
    assert bug.value.ename == name


@needs_sigint
def test_ctrl_c_is_one_line_stops_the_kernel_and_keeps_what_was_executed(project):
    waiting = "import time\nopen('started', 'w').close()\ntime.sleep(99)"
    write(project / "segmentation_unet.ipynb", "import os\nprint(os.getpid())", waiting, "print('never')")
    code = """
import signal
signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell ignores it for what runs in the background
import pathlib, run_notebook
run_notebook.HERE = pathlib.Path.cwd()
run_notebook.NOTEBOOK = run_notebook.HERE / "segmentation_unet.ipynb"
run_notebook.main([])
"""
    command = [sys.executable, "-c", code]
    child = subprocess.Popen(command, cwd=project, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    limit = time.monotonic() + 60
    while not (project / "started").exists():
        assert child.poll() is None
        assert time.monotonic() < limit
        time.sleep(0.05)
    child.send_signal(signal.SIGINT)
    _, said = child.communicate(timeout=60)
    assert child.returncode == 130
    assert said == "run_notebook.py: interrupted; build/segmentation_unet.ipynb has what was executed\n"
    cells = nbformat.read(project / "build" / "segmentation_unet.ipynb", 4).cells
    assert [cell.execution_count for cell in cells] == [1, 2, None]
    assert (project / "build" / "segmentation_unet.html").is_file()
    with pytest.raises(ProcessLookupError):
        os.kill(int(cells[0].outputs[0].text), 0)


def test_help_says_how(project, capsys):
    for option in ("-h", "--help"):
        run_notebook.main([option])
        assert "python run_notebook.py [NOTEBOOK.ipynb] [NAME=VALUE ...]" in capsys.readouterr().out
    assert not (project / "build").exists()


class Page(HTMLParser):
    """A page's elements, and the text of some."""

    def __init__(self, html: str):
        super().__init__()
        self.elements, self.texts, self.open = [], {}, []
        self.feed(html)

    def handle_starttag(self, tag, attrs):
        self.elements.append((tag, dict(attrs)))
        self.open.append(tag)

    def handle_endtag(self, tag):
        while self.open and self.open.pop() != tag:
            pass

    def handle_data(self, data):
        for tag in {"title", "style", "h1", "h2", "h3", "nav", "main", "script"} & {*self.open}:
            self.texts.setdefault(tag, []).append(data)

    def all(self, *tags: str) -> list[dict]:
        return [attributes for tag, attributes in self.elements if tag in tags]


def small_page() -> str:
    """Of a notebook with all that nbconvert makes a page of: two H1, the same heading twice, a badge, images."""
    image = {alt: new_output("display_data", {f"image/{kind}": "AAAA"}, metadata={f"image/{kind}": {"alt": alt}})
             for kind, alt in (("jpeg", 'a <"cat">'), ("png", "a dog"))}  # fmt: skip
    badge = "[![Open it](https://elsewhere.example/badge.svg)](https://elsewhere.example/notebook)"
    details = "<details><summary>Solution</summary>\n\n```python\n# a comment\nx = 1\n```\n\n</details>"
    return run_notebook.make_page(new_notebook(cells=[
        new_markdown_cell(f"# A *small* lesson & more\n\n{badge}\n\n## Set-up"),
        new_code_cell("# a comment", outputs=list(image.values())),
        new_markdown_cell("# Part 1\n\n## 1. What is `it`?\n\n### Deep\n\nWhy?"),
        new_markdown_cell(f"# Part 2\n\n## 1. What is `it`?\n\n{details}"),
    ], metadata={"widgets": {WIDGETS: {"state": {}}}}))  # fmt: skip


@pytest.fixture(scope="module", params=["small", "segmentation_unet.ipynb"])
def page(request):
    if request.param == "small":
        return Page(small_page())
    return Page(run_notebook.make_page(nbformat.read(run_notebook.HERE / request.param, 4)))


def test_a_page_is_one_document_with_working_contents(page):
    assert page.all("html") == [{"lang": "en"}]
    assert len(page.all("h1")) == 1
    assert page.texts["title"] == ["".join(page.texts["h1"])]
    targets = [attributes["id"] for attributes in page.all("h1", "h2", "h3", "h4", "h5", "h6", "main") if attributes]
    assert len({*targets}) == len(targets)
    links = [attributes["href"] for attributes in page.all("a") if attributes.get("href", "").startswith("#")]
    assert links[0] == "#content"  # before the contents
    assert {link[1:] for link in links} <= {*targets}
    listed = [text for text in page.texts["nav"] if text.strip()]
    assert len(listed) == 1 + len(page.all("h2", "h3"))
    assert len(links) >= 1 + len(page.all("h2", "h3"))


def test_a_page_loads_nothing_and_its_images_have_texts(page):
    sources = [attributes["src"] for tag, attributes in page.elements if "src" in attributes]
    assert sources
    assert not [source[:60] for source in sources if not source.startswith("data:")]
    assert page.all("link") == []
    assert {attributes.get("type") for attributes in page.all("script")} <= {WIDGETS}
    styles = "".join(page.texts["style"])
    assert "@import" not in styles
    assert not re.findall(r"url\(\W*(?:http|//)", styles)
    texts = [attributes.get("alt") for attributes in page.all("img")]
    assert all(texts)
    assert "No description has been provided for this image" not in texts  # nbconvert's own


def test_headings_texts_and_code_of_a_page():
    html = small_page()
    assert "<title>A small lesson &amp; more</title>" in html
    levels = [(int(level), anchor) for level, anchor in re.findall(r'<h(\d) id="(.*?)"', html)]
    assert levels == [
        (1, "A-small-lesson-&amp;-more"), (2, "Set-up"), (2, "Part-1"), (3, "1.-What-is-it?"), (4, "Deep"),
        (2, "Part-2"), (3, "1.-What-is-it?-2"),
    ]  # fmt: skip
    assert '<a href="https://elsewhere.example/notebook">Open it</a>' in html
    parsed = Page(html)
    assert [image["alt"] for image in parsed.all("img")] == ['a <"cat">', "a dog"]
    text = "".join(parsed.texts["main"])
    assert text.count("# a comment") == 2
    assert "## a comment" not in text  # headings are headings of Markdown only
    assert text.index("Solution") < text.index("x = 1")
    assert re.search(r"<details>.*x.*</details>", html, re.DOTALL)


def test_a_page_fits_a_phone_and_paper():
    """What a browser makes of it was looked at; here only that the rules are there."""
    style = Page(small_page()).texts["style"][-1]
    assert "max-width: 60rem" in style
    phone, paper = style.split("@media")[1:]
    assert "screen and (max-width: 45rem)" in phone
    assert ".jp-InputPrompt, .jp-OutputPrompt { display: none" in phone
    assert "nav, .skip { display: none; }" in paper
    assert "white-space: pre-wrap !important" in paper
    assert "img, .jp-InputArea-editor { break-inside: avoid; }" in paper
