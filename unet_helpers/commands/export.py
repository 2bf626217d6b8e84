"""export: a trained network for other programs, or in a small file."""

from pathlib import Path

from ..networks import export_network, save_half
from . import find_network


def export(network: Path, format: str, out: Path) -> int:
    """Write the network to out by `export_network`, or by `save_half` where format is "keras_half"; returns 0.

    Raises ValueError for a package that is missing, too.
    """
    try:
        if format == "keras_half":
            save_half(find_network(network), out)
        else:
            export_network(find_network(network), out, format)
    except ImportError as error:
        raise ValueError(str(error)) from error
    print(f"{out}: written as {format}")
    return 0
