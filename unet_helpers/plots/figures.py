"""The figure that plots, charts and diagrams are drawn in: one look, and a text for who cannot see it."""

import base64
import io
import sys
from collections.abc import Sequence

import numpy as np
from matplotlib import style
from matplotlib.figure import Figure
from matplotlib.patches import Patch

WIDTH = 8  # inches: with DPI, the width of a notebook's column
DPI, QUALITY = 100, 72  # of the JPEGs in a notebook
STYLE = {
    "font.size": 12,  # 8 pixels tall where WIDTH is a phone's 390 pixels
    "axes.titlesize": 12,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "legend.frameon": False,
    "text.parse_math": False,  # a class may be called "$"
}
in_style = style.context(["default", STYLE])  # a decorator for what makes or draws a figure: dark themes change nothing
EDGE = {"edgecolor": "black", "linewidth": 0.5}  # so that pale colours are seen on white

# Okabe and Ito's colours (https://jfly.uni-koeln.de/color/), which everybody tells apart.
COLORS = ("#0072b2", "#e69f00", "#000000", "#cc79a7", "#56b4e9")
MARKERS = "osD^vPX"


class InlineFigure(Figure):
    """A figure that shows itself in a notebook as a JPEG, which is small, and without pyplot.

    alt: what it shows, for who cannot see it; in the output's metadata, where nbconvert's classic template looks.
    """

    alt = ""

    @in_style
    def savefig(self, *args, **options):
        super().savefig(*args, **options)

    def _repr_mimebundle_(self, include=None, exclude=None):
        file = io.BytesIO()
        self.savefig(file, format="jpeg", dpi=DPI, pil_kwargs={"quality": QUALITY, "optimize": True})
        data = {"image/jpeg": base64.b64encode(file.getvalue()).decode(), "text/plain": self.alt}
        return data, {"image/jpeg": {"alt": self.alt}}


@in_style
def new_figure(alt: str, n_rows: int = 1, n_columns: int = 1, size: tuple[float, float] = (WIDTH, 4), **options):
    """An empty figure and its axes, as `Figure.subplots` gives them.

    alt: what the figure shows, with its main numbers. size: width and height in inches; WIDTH fills a notebook.
    options: more for `Figure.subplots`.
    """
    _let_pictures_show_themselves()
    figure = InlineFigure(figsize=size, layout="constrained")
    figure.alt = alt
    return figure, figure.subplots(n_rows, n_columns, **options)


def _let_pictures_show_themselves() -> None:
    """Where pyplot is in use, IPython adds a PNG to each Figure, larger and without alt: not to a InlineFigure."""
    shell = sys.modules["IPython"].get_ipython() if "IPython" in sys.modules else None
    for kind, formatter in shell.display_formatter.formatters.items() if shell else ():
        if kind.startswith("image/"):
            formatter.for_type(InlineFigure, lambda picture: None)


def add_legend(figure: InlineFigure, entries: Sequence[tuple[str, Sequence[int]]]) -> None:
    """A legend below the figure, which grows by its height. entries: (name, (red, green, blue) 0..255) pairs."""
    if not entries:
        return
    longest = max(len(name) for name, _ in entries)
    n_columns = int(np.clip(WIDTH // (0.65 + 0.105 * longest), 1, len(entries)))  # as many as fit, in inches
    figure.set_figheight(figure.get_figheight() + 0.15 + 0.26 * -(-len(entries) // n_columns))
    patches = [Patch(facecolor=np.divide(color, 255), label=name, **EDGE) for name, color in entries]
    options = {"handleheight": 1.2, "columnspacing": 1.2, "handletextpad": 0.5, "labelspacing": 0.4}
    figure.legend(handles=patches, loc="outside lower center", ncols=n_columns, **options)


def draw_bars(
    axes, y: Sequence[float], values: Sequence[float], texts: Sequence[str], height: float, color, label: str = ""
) -> None:
    """Horizontal bars at y, with a text at the end of each; NaN is drawn as 0."""
    values = np.nan_to_num(np.asarray(values, float))
    axes.barh(y, values, height, color=color, label=label, **EDGE)
    for at, value, text in zip(y, values, texts, strict=True):
        axes.annotate(text, (value, at), (4, 0), textcoords="offset points", va="center", size=11)


def name_rows(axes, names: Sequence[str]) -> None:
    """Names beside the bars, from the bottom up."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)
