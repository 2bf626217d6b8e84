"""export: a trained network for other programs, or in a small file."""

from pathlib import Path

from ..networks import export_network
from . import find_network


def export(network: Path, format: str, out: Path) -> int:
    """`export_network`; returns 0. Raises ValueError for a package that is missing, too."""
    try:
        export_network(find_network(network), out, format)
    except ImportError as error:
        raise ValueError(str(error)) from error
    print(f"{out}: written as {format}")
    return 0
