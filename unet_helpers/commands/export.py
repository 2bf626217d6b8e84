"""export: a trained network for other programs, or in a small file, and the lines that use it there."""

from pathlib import Path

from ..networks import export_network
from . import find_network

# The lines that open each format and make `run` of it, and those that use it, which are the same for all.
PARTS = dict(part.split("\n", 1) for part in Path(__file__).with_name("use.txt").read_text("utf-8").split("--- ")[1:])


def export(network: Path, format: str, out: Path) -> int:
    """`export_network`, and print the lines that use it; returns 0. Raises ValueError for a missing package, too."""
    try:
        export_network(find_network(network), out, format)
    except ImportError as error:
        raise ValueError(str(error)) from error
    print(f"{out}: written as {format}")
    if format in PARTS:
        print("\nTo use it without this package, as `predict` does but for test-time augmentation:\n")
        print(PARTS["use"].format(open=PARTS[format].format(path=out.as_posix())), end="")
    return 0
