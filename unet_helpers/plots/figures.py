"""The figure that everything is drawn in: one look, and an alt text for readers who can't see it."""

import base64
import io
import sys
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from ..labels import LabelMap

WIDTH = 8  # inches: with DPI, the width of a notebook's column
DPI, QUALITY = 100, 72  # of the JPEGs in a notebook
FONT = 12.5  # points: 8 pixels tall where WIDTH is 370 pixels, on a phone's page of 390
STYLE = {
    "font.size": FONT, "axes.titlesize": FONT, "figure.titlesize": FONT, "axes.spines.top": False,
    "axes.spines.right": False, "legend.frameon": False, "text.parse_math": False,  # a class may be called "$"
}  # fmt: skip
in_style = style.context(["default", STYLE])  # decorates what makes or draws a figure: dark themes change nothing
EDGE = {"edgecolor": "black", "linewidth": 0.5}  # makes pale colours visible on white

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), readable with colour-blindness.
BLUE, ORANGE, PINK, SKY_BLUE, YELLOW, RED = "#0072b2", "#e69f00", "#cc79a7", "#56b4e9", "#f0e442", "#d55e00"
COLORS = (BLUE, ORANGE, "black", PINK, SKY_BLUE)  # of bars


class InlineFigure(Figure):
    """A figure that shows itself in a notebook as a JPEG, which is small, and without pyplot."""

    alt = ""  # its alt text, in the output's metadata, where nbconvert's classic template looks for it

    @in_style
    def savefig(self, *args, **options):
        super().savefig(*args, **options)

    def as_png(self) -> bytes:
        """The figure as the content of a PNG file."""
        file = io.BytesIO()
        self.savefig(file, format="png", dpi=DPI)
        return file.getvalue()

    def _repr_mimebundle_(self, include=None, exclude=None):
        file = io.BytesIO()
        self.savefig(file, format="jpeg", dpi=DPI, pil_kwargs={"quality": QUALITY, "optimize": True})
        data = {"image/jpeg": base64.b64encode(file.getvalue()).decode(), "text/plain": self.alt}
        return data, {"image/jpeg": {"alt": self.alt}}


@in_style
def new_figure(alt: str, n_rows: int = 1, n_columns: int = 1, size: tuple[float, float] = (WIDTH, 4), **options):
    """An empty figure and its axes, as from `Figure.subplots`, which gets the options. alt: what the figure shows,
    with its main numbers. size: width and height in inches; WIDTH fills a notebook."""
    # With pyplot in use, IPython would add a PNG, larger and without alt.
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    for kind, formatter in shell.display_formatter.formatters.items() if shell else ():
        if kind.startswith("image/"):
            formatter.for_type(InlineFigure, lambda figure: None)
    figure = InlineFigure(figsize=size, layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(n_rows, n_columns, **options)


def shorten(name: str, most: int = 30) -> str:
    """A name that fits into a figure: a user's may be longer than the figure is wide."""
    return name if len(name) <= most else f"{name[: most - 1]}…"


def add_legend(figure: InlineFigure, entries: Sequence[tuple[str, Sequence[int]]]) -> None:
    """A legend below the figure, which grows by its height. entries: (name, (red, green, blue) 0..255) pairs."""
    if not entries:
        return
    longest = max(len(shorten(name, 60)) for name, _ in entries)
    n_columns = int(np.clip(WIDTH // (0.65 + 0.11 * longest), 1, len(entries)))  # as many as fit, in inches
    figure.set_figheight(figure.get_figheight() + 0.2 + 0.28 * -(-len(entries) // n_columns))
    patches = [Patch(facecolor=np.divide(color, 255), label=shorten(name, 60), **EDGE) for name, color in entries]
    options = {"handleheight": 1.2, "columnspacing": 1.2, "handletextpad": 0.5, "labelspacing": 0.4}
    figure.legend(handles=patches, loc="outside lower center", ncols=n_columns, **options)


@in_style
def draw_legend(labels: LabelMap) -> InlineFigure:
    """Nothing but a legend: each class with its id and its colour."""
    figure = InlineFigure(figsize=(WIDTH, 0.1), layout="constrained")
    figure.alt = f"Legend of {', '.join(labels.names)}."
    named_colors = zip(labels.names, labels.colors, strict=True)
    add_legend(figure, [(f"{k}: {name}", color) for k, (name, color) in enumerate(named_colors)])
    return figure
