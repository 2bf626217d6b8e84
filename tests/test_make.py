"""The real make, with stubs in place of Python: nothing is installed, and what make asks of Python is written down."""

import os
import shutil
import subprocess
import sys
from pathlib import Path

import pytest

from run_notebook import parse_parameters

pytestmark = [
    pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed"),
    pytest.mark.skipif(sys.platform == "win32", reason="the Makefile and the stubs are for a POSIX shell"),
]

ROOT = Path(__file__).parents[1]
# Tells its version, makes an environment of copies of itself, and writes all it is asked into calls, a line each.
STUB = r"""#!/bin/sh
[ "$1" = -c ] || { printf '%s' "${0##*/}"; printf '\037%s' "$@"; echo; } >>"$CALLS"
case "$1 $2" in
"-c "*) ANSWER ;;
"-m venv")
    [ "$3" != --clear ] || rm -rf "$4"
    for folder; do :; done
    mkdir -p "$folder/bin"; touch "$folder/pyvenv.cfg"
    for name in python jupyter ruff; do cp "$0" "$folder/bin/$name"; done
    exit ${VENV_FAILS:-0} ;;
"-m pip") exit ${PIP_FAILS:-0} ;;
esac
"""


class Project:
    """A copy of what make reads, and Pythons that are stubs."""

    def __init__(self, folder: Path):
        self.folder, self.calls_file = folder / "a project", folder / "calls"
        (self.folder / "tests").mkdir(parents=True)
        (folder / "bin").mkdir()
        for name in ("Makefile", "requirements.txt", "tests/requirements.txt"):
            shutil.copy(ROOT / name, self.folder / name)
        # Of the make that runs these tests nothing may be left, nor of the user's own settings.
        ours = ("MAKE", "PYTHON", "VENV", "PARAMETERS", "OPTIONS", "LAB_OPTIONS", "NOTEBOOK_PARAMETERS")
        self.environment = {name: value for name, value in os.environ.items() if not name.startswith(ours)}
        self.environment |= {"PATH": f"{folder / 'bin'}:{os.environ['PATH']}", "CALLS": str(self.calls_file)}
        self.python("python3", "3.12", "/opt/default")
        self.user(1000)

    def user(self, number: int) -> None:
        """From now on `id -u`, and nothing else of id, tells this number."""
        path = self.folder.parent / "bin" / "id"
        path.write_text(f'#!/bin/sh\n[ "$*" = -u ] && echo {number}\n')
        path.chmod(0o755)

    def python(self, name: str, version: str = "3.12", home: str = "/opt/other", answer: str = "") -> str:
        path = self.folder.parent / "bin" / name
        path.write_text(STUB.replace("ANSWER", answer or f"echo '{version} in {home}'"))
        path.chmod(0o755)
        return str(path)

    def make(self, *arguments: str, **environment: str) -> tuple[list[list[str]], subprocess.CompletedProcess]:
        """The calls of Python, JupyterLab and ruff, each beginning with the program's name, and make's result."""
        self.calls_file.write_text("")
        result = subprocess.run(
            ["make", *arguments], cwd=self.folder, env=self.environment | environment, capture_output=True, text=True,
            timeout=60, check=False,
        )  # fmt: skip
        for path in self.folder.rglob("*"):  # GNU make 3.81 sees whole seconds only; a real installation takes many
            if path.is_file():
                os.utime(path, (path.stat().st_atime, path.stat().st_mtime - 10))
        calls = [line.split("\037") for line in self.calls_file.read_text().splitlines()]
        assert not result.returncode or result.stderr
        return calls, result


@pytest.fixture
def project(tmp_path):
    return Project(tmp_path)


def made(calls) -> list[str]:
    """The options of each environment that was made."""
    return [" ".join(call[3:]) for call in calls if call[1:3] == ["-m", "venv"]]


def installed(calls) -> list[str]:
    """The lists of packages installed."""
    return [call[-1] for call in calls if call[1:3] == ["-m", "pip"]]


@pytest.mark.parametrize("version", ["3.1", "3.14", None])
def test_a_python_that_does_not_fit_is_named_before_anything_is_made(project, version):
    python = project.python("other", version) if version else "python3.99"
    calls, result = project.make("lab", f"PYTHON={python}")
    assert result.returncode
    said = f"make: {python} is Python {version}; TensorFlow has wheels for 3.11 to 3.13: PYTHON=" if version else python
    assert said in result.stderr
    assert calls == []
    assert not (project.folder / ".venv").exists()


def test_a_python_with_tensorflow_is_taken_also_from_the_environment(project):
    for version in ("3.11", "3.13"):
        calls, result = project.make("run", PYTHON=project.python(f"python{version}", version))
        assert result.returncode == 0, result.stderr
        assert [call[0] for call in calls if call[1:3] == ["-m", "venv"]] == [f"python{version}"]


def test_the_environment_is_made_once(project):
    calls, _ = project.make("run")
    assert made(calls) == [".venv"]
    assert installed(calls) == ["requirements.txt"]
    for arguments in (["run"], ["lab"], ["run", "PYTHON=python3"]):
        calls, result = project.make(*arguments)
        assert result.returncode == 0, result.stderr
        assert len(calls) == 1  # the notebook, JupyterLab
    calls, _ = project.make("test")
    assert made(calls) == []
    assert installed(calls) == ["tests/requirements.txt"]
    options = ["-n", "2", "--dist", "loadfile", "--no-loadscope-reorder", "-m", "not slow"]
    run = [call for call in calls if "pip" not in call]
    assert run == [["ruff", "check", "."], ["python", "-m", "pytest", *options]]


def test_another_python_makes_the_environment_anew(project):
    project.make("test")
    (project.folder / ".venv" / "left_over").touch()
    calls, _ = project.make("test", f"PYTHON={project.python('other', '3.13')}")
    assert made(calls) == ["--clear .venv"]
    assert installed(calls) == ["requirements.txt", "tests/requirements.txt"]
    assert not (project.folder / ".venv" / "left_over").exists()
    link = project.folder.parent / "bin" / "linked"
    link.symlink_to("other")  # another name of the same Python
    assert made(project.make("run", f"PYTHON={link}")[0]) == []
    (project.folder / ".venv" / "bin" / "python").unlink()  # the Python is gone
    assert made(project.make("run", f"PYTHON={link}")[0]) == ["--clear .venv"]
    project.python("python3", "3.14")  # the default is too new by now: a Python needs to be chosen only once
    calls, result = project.make("run")
    assert (result.returncode, len(calls)) == (0, 1)


def test_an_interrupted_installation_is_done_again(project):
    calls, result = project.make("test", VENV_FAILS="1")
    assert (result.returncode, installed(calls)) == (2, [])
    calls, result = project.make("test", PIP_FAILS="1")
    assert (result.returncode, made(calls)) == (2, [".venv"])
    calls, result = project.make("test")
    assert (result.returncode, made(calls)) == (0, [])
    assert installed(calls) == ["requirements.txt", "tests/requirements.txt"]


def test_changed_requirements_are_installed(project):
    project.make("run")
    later = (project.folder / ".venv" / "installed").stat().st_mtime + 5
    os.utime(project.folder / "requirements.txt", (later, later))
    calls, _ = project.make("run")
    assert (made(calls), installed(calls)) == ([], ["requirements.txt"])


def test_an_environment_made_by_hand_is_used_and_a_folder_that_is_none_is_never_cleared(project):
    subprocess.run(["python3", "-m", "venv", ".venv"], cwd=project.folder, env=project.environment, check=True)
    assert made(project.make("run", "PYTHON=python3")[0]) == [".venv"]  # not cleared: its packages stay
    (project.folder / "mine").mkdir()
    (project.folder / "mine" / "work").write_text("of a week")
    assert made(project.make("run", "VENV=mine")[0]) == ["mine"]
    assert (project.folder / "mine" / "work").read_text() == "of a week"


def test_a_real_python_tells_its_version_and_its_folder(project):
    """The same from an environment as from the Python that made it."""
    version = f"{sys.version_info[0]}.{sys.version_info[1]}"
    python = project.python("real", answer=f"exec '{sys.executable}' \"$@\"")
    _, result = project.make("run", f"PYTHON={python}", f"PYTHONS={version}")
    assert result.returncode == 0, result.stderr
    assert (project.folder / ".venv" / "made-by").read_text() == f"{version} in {sys.base_prefix}\n"


def test_parameters_arrive_as_typed(project):
    odd = "it's/$HOME;`x`\\*|&<#>"
    for typed, parameters in (
        ("", {}), ("  IMAGE_SIZE=(96, 128)  EPOCHS=2 ", {"IMAGE_SIZE": (96, 128), "EPOCHS": 2}),
        (f"DATA_DIR={odd} SEED=1", {"DATA_DIR": odd, "SEED": 1}),
    ):  # fmt: skip
        for arguments, environment in (([f"PARAMETERS={typed}"], {}), ([], {"PARAMETERS": typed})):
            calls, result = project.make("run", *arguments, **environment)
            assert result.returncode == 0, result.stderr
            program, script, *passed = calls[-1]
            assert (program, script) == ("python", "run_notebook.py")
            assert parse_parameters(passed) == parameters


def test_options_of_the_notebook_and_of_jupyterlab_are_not_confused(project):
    """The notebook has a parameter named OPTIONS, which a shell may have as a variable, too."""
    calls, _ = project.make("run", 'PARAMETERS=OPTIONS={"EPOCHS": 2} N_FILTERS=8', "LAB_OPTIONS=--port 9999")
    assert calls[-1][:2] == ["python", "run_notebook.py"]
    assert parse_parameters(calls[-1][2:]) == {"OPTIONS": {"EPOCHS": 2}, "N_FILTERS": 8}
    parameters = 'OPTIONS={"EPOCHS": 2}'
    options = "LAB_OPTIONS=--port 9999 --no-browser --ServerApp.root_dir='my folder'"
    calls, _ = project.make("lab", options, PARAMETERS=parameters, OPTIONS="--what")
    lab = ["jupyter", "lab", "segmentation_unet.ipynb"]
    assert calls[-1] == [*lab, "--port", "9999", "--no-browser", "--ServerApp.root_dir=my folder"]
    assert project.make("lab")[0] == [lab]


def test_jupyterlab_starts_for_root_too(project):
    lab = ["jupyter", "lab", "segmentation_unet.ipynb"]
    for number, options in ((0, ["--allow-root"]), (1000, []), (10, [])):
        project.user(number)
        calls, result = project.make("lab", "LAB_OPTIONS=--port 9999")
        assert calls[-1] == [*lab, *options, "--port", "9999"]
        assert result.stderr == ""
