"""The tutorial's steps from a terminal: `python -m unet_helpers check | train | diagnose | ...`.
This module sets the exit code and prints errors; `commands` has a module for each command, and their arguments.
Exit code: 0 success, 1 something failed, 2 wrong usage, 130 stopped by Ctrl-C."""

import contextlib
import errno
import os
import sys
from collections.abc import Sequence
from importlib import import_module

from .commands import OPTIONS, WrongOption, say_error
from .commands.arguments import make_parser
from .devices import check_backend
from .download import DownloadError
from .labels import printable
from .naming import options_named
from .notebook import hold_back_stderr
from .processes import leave


class Printable:
    """A stream for a terminal: escapes what `labels.printable` does, and what its encoding lacks, as cp1252 may."""

    def __init__(self, stream):
        self.stream = stream

    def write(self, text: str) -> int:
        encoding = self.stream.encoding or "utf-8"
        return self.stream.write(printable(text).encode(encoding, "backslashreplace").decode(encoding))

    def __getattr__(self, name: str):
        return getattr(self.stream, name)


def main(arguments: Sequence[str] | None = None) -> int:
    """Run the command that the arguments (those of the process if None) name, and return the exit code."""
    with contextlib.redirect_stdout(Printable(sys.stdout)), contextlib.redirect_stderr(Printable(sys.stderr)):
        options = vars(make_parser().parse_args(arguments))
        code = 1
        try:
            code = _run(options)
            return code
        finally:
            leave(code)


def _run(options: dict) -> int:
    command = options.pop("command")
    os.environ.setdefault("TF_ENABLE_ONEDNN_OPTS", "1")  # as in the notebook
    os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
    try:
        if options.get("split_by") and options["dataset"] != "folder":
            raise WrongOption(f"--split-by: {options['dataset']} has splits of its own; leave it out")
        with hold_back_stderr():
            check_backend()
            tensorflow = import_module("tensorflow")  # here, not when the first image is decoded
            tensorflow.get_logger().setLevel("ERROR")  # as in the notebook
            run = getattr(import_module(f".commands.{command}", __package__), command)
        with options_named(OPTIONS):
            failures = run(**options)
        sys.stdout.flush()
        return 1 if failures else 0
    except KeyboardInterrupt as interrupt:
        say_error(str(interrupt) or "stopped")
        return 130
    except WrongOption as error:
        say_error(f"{error}\npython -m unet_helpers {command} --help lists all options")
        return 2
    except (OSError, ValueError, RuntimeError, ImportError, DownloadError) as error:
        path, number = getattr(error, "filename", None), getattr(error, "errno", None)  # of an OSError
        if number == errno.EPIPE or (sys.platform == "win32" and number == errno.EINVAL and not path):
            # what read our lines has ended, as `head` does; Python would complain when it flushes
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
            return 1
        say_error(f"{path}: {error.strerror}; give another path" if path else str(error))
        return 1


if __name__ == "__main__":
    sys.exit(main())
