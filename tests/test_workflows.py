"""The workflows of GitHub: two linters, offline, and what they name is there; Colab's list of versions against ours."""

import re
import shlex
import subprocess
import sys
import sysconfig
import tomllib
from pathlib import Path

import nbformat
import pytest
import yaml
from colab_versions import CONSTRAINTS, differences, read_versions
from conftest import MARKS

import run_notebook
from unet_helpers.recipe import OPTIONS, RULES, check_parameters

ROOT = Path(__file__).parents[1]
FOLDER = ROOT / ".github" / "workflows"
WORKFLOWS = {path.name: yaml.safe_load(path.read_text(encoding="utf-8")) for path in sorted(FOLDER.glob("*.yml"))}
JOBS = {f"{name}: {key}": job for name, workflow in WORKFLOWS.items() for key, job in workflow["jobs"].items()}
PYTHONS = re.search(r"^PYTHONS := (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))
LINTERS = {
    "zizmor": ["--offline", "--no-config", "--persona=regular"],
    "check-jsonschema": ["--builtin-schema", "vendor.github-workflows"],
}


def lint(linter: str, *paths: Path) -> subprocess.CompletedProcess:
    program = Path(sysconfig.get_path("scripts")) / linter  # of the Python that runs the tests, as pip installs it
    command = [program, *LINTERS[linter], *paths]
    return subprocess.run(command, capture_output=True, encoding="utf-8", check=False)


def words_of(job: dict) -> list[list[str]]:
    """The words of each command of a job; $NAME stands for what the workflow says."""
    variables = next(workflow for workflow in WORKFLOWS.values() if job in workflow["jobs"].values())["env"]
    runs = [step["run"] for step in job["steps"] if "run" in step]
    return [
        [re.sub(r"\$(\w+)", lambda name: variables[name[1]], word) for word in shlex.split(line)]
        for run in runs for line in run.splitlines()
    ]  # fmt: skip


@pytest.mark.parametrize("linter", LINTERS)
def test_a_linter_finds_nothing(linter):
    result = lint(linter, *FOLDER.glob("*.yml"))
    assert result.returncode == 0, result.stdout + result.stderr


@pytest.mark.parametrize(
    ("linter", "right", "wrong", "finding"),
    [
        ("zizmor", r"@[0-9a-f]{40} # v[\d.]+", "@v4", "unpinned-uses"),
        ("zizmor", "persist-credentials: false", "fetch-depth: 1", "artipacked"),
        ("check-jsonschema", "runs-on", "run-on", "'run-on'"),
    ],
)
def test_a_linter_finds_what_is_wrong(tmp_path, linter, right, wrong, finding):
    """Else no finding would mean nothing."""
    folder = tmp_path / ".github" / "workflows"
    folder.mkdir(parents=True)
    text = (FOLDER / "ci.yml").read_text(encoding="utf-8")
    (folder / "ci.yml").write_text(re.sub(right, wrong, text), encoding="utf-8")
    result = lint(linter, folder / "ci.yml")
    assert result.returncode
    assert finding in result.stdout + result.stderr


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_files_that_commands_name_are_there(job):
    """Or an earlier command of the job makes them: an environment, a page of a notebook, a download."""
    made = set()
    for words in words_of(job):
        for option, word in zip(["", *words], words, strict=False):
            if option == "--output":
                made.add(word)
            elif word.endswith(".ipynb") and "nbconvert" in words:
                made.add(word.removesuffix(".ipynb") + ".md")
            elif words[0] == "make":
                made.add(".venv/bin/python")
            is_path = re.fullmatch(r"[\w./-]+\.(py|ipynb|txt|md)|\.?[\w-]+(/[\w.-]+)+", word)
            assert not is_path or word in made or (ROOT / word).is_file(), word


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_the_targets_marks_and_extras_that_commands_name_are_known(job):
    targets = re.search(r"^\.PHONY: (.*)$", (ROOT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE)[1].split()
    marks = {line.split(":")[0] for line in PROJECT["tool"]["pytest"]["ini_options"]["markers"]}
    for words in words_of(job):
        if words[0] == "make":
            assert {*words[1:]} <= {*targets}
        if words[-2] == "-m":  # pytest's; python's own is never the last but one
            assert {*re.findall(r"\w+", words[-1])} - {"not", "or", "and"} <= marks
        for extras in re.findall(r"^\.\[(.*)\]$", "\n".join(words), re.MULTILINE):
            assert {*extras.split(",")} <= {*PROJECT["project"]["optional-dependencies"]}


@pytest.mark.parametrize("job", JOBS.values(), ids=JOBS)
def test_a_job_ends_and_has_a_python_that_make_would_take(job):
    assert 0 < job["timeout-minutes"] <= 120
    (settings,) = [step["with"] for step in job["steps"] if "setup-python" in step.get("uses", "")]
    matrix = job.get("strategy", {}).get("matrix", {"python": []})
    assert settings["python-version"] in [*PYTHONS, "${{ matrix.python }}"]
    assert matrix["python"] in ([], [PYTHONS[0], PYTHONS[-1]])  # the oldest and the newest
    for pattern in settings.get("cache-dependency-path", "pyproject.toml").splitlines():
        assert list(ROOT.glob(pattern)), pattern


def test_the_helpers_are_tested_on_each_system():
    assert JOBS["ci.yml: helpers"]["strategy"]["matrix"]["os"] == ["ubuntu-latest", "macos-latest", "windows-latest"]
    assert JOBS["ci.yml: helpers"]["runs-on"] == "${{ matrix.os }}"


def test_the_shortened_notebook_has_parameters_that_it_takes():
    parameters = run_notebook.parse_parameters([WORKFLOWS["ci.yml"]["env"]["SHORT"]])
    run_notebook.set_parameters(nbformat.read(run_notebook.NOTEBOOK, as_version=4), parameters)
    examples = {name: example for name, (_, _, example) in RULES.items()} | OPTIONS
    assert parameters.keys() <= examples.keys()
    check_parameters(examples | {"DATASET": "demo"} | parameters)


def test_each_marked_file_is_there_and_has_one_mark():
    names = [name for marked in MARKS.values() for name in marked]
    assert len(names) == len({*names})
    for name in names:
        assert Path(__file__).with_name(f"test_{name}.py").is_file()


def test_the_links_of_each_document_are_checked():
    (checked,) = [words for words in words_of(JOBS["weekly.yml: links"]) if words[0] == "lychee"]
    notebooks = {path.with_suffix(".md") for path in (*ROOT.glob("*.ipynb"), *ROOT.glob("docs/*.ipynb"))}
    documents = {ROOT / "README.md", ROOT / "CONTRIBUTING.md", *ROOT.glob("[!.]*/README.md")}
    assert {ROOT / word for word in checked if word.endswith(".md")} == notebooks | documents


PUBLISHED = """\
# Do not modify this file directly; it is generated by extract_colabx_testing_tarballs.sh via
#  $ python3 -m pip freeze
Keras==3.14.0
google-colab @ file:///colabtools/dist/google_colab-1.0.0.tar.gz#sha256=0123abc
jaxlib @ https://example.org/jaxlib-0.7.2-cp313.whl
NumPy==2.1.3
opencv_python==4.13.0.92
Pillow==11.3.0
torch==2.11.0+cpu
"""


def test_versions_that_colab_has_changed_are_named():
    ours = "# of a day\nkeras==3.13.2\nnumpy==2.1.3\n\npillow==11.3.0\nopencv-python==4.13.0.92\n"
    assert differences(ours, PUBLISHED) == ["keras: colab-constraints.txt has 3.13.2, Colab 3.14.0"]
    assert differences("kaggle==2.0.2\njaxlib==0.7.2", PUBLISHED) == [
        "kaggle: colab-constraints.txt has 2.0.2, Colab none",
        "jaxlib: colab-constraints.txt has 0.7.2, Colab https://example.org/jaxlib-0.7.2-cp313.whl",
    ]


def test_each_line_of_the_constraints_is_compared(tmp_path):
    """By the weekly workflow's command; its exit code is the job's."""
    text = CONSTRAINTS.read_text(encoding="utf-8")
    lines = [line for line in text.splitlines() if not line.startswith("#")]
    assert [f"{name}=={version}" for name, version in read_versions(text).items()] == lines
    for published, code, said in (
        (text, 0, ["colab-constraints.txt has Colab's versions"]),
        ("", 1, [f"{line.replace('==', ': colab-constraints.txt has ')}, Colab none" for line in lines]),
    ):
        (tmp_path / "colab.txt").write_text(published, encoding="utf-8")
        command = [sys.executable, CONSTRAINTS.with_name("colab_versions.py"), tmp_path / "colab.txt"]
        result = subprocess.run(command, capture_output=True, encoding="utf-8", check=False)
        assert (result.returncode, result.stdout.splitlines()) == (code, said), result.stderr
