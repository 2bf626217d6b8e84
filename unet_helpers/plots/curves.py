"""Curves over a training. They differ in marker or line, too, not only in colour."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from .figures import COLORS, MARKERS, WIDTH, InlineFigure, in_style, new_figure


@in_style
def plot_curves(
    log: Mapping[str, Sequence[float]], changes: Sequence[tuple[float, str]] = (), loss_name: str = "loss"
) -> InlineFigure:
    """Loss and mIoU of training and validation against the epoch.

    log: loss, val_loss, mIoU and val_mIoU of each epoch: the columns of CSVLogger's file, or a Keras history.
    changes: (epoch, text): the first epoch, counted from 1, with something else, such as pictures of another size.
    """
    if missing := {"loss", "val_loss", "mIoU", "val_mIoU"} - set(log):
        raise ValueError(f"log: found {', '.join(log)}, expected {', '.join(sorted(missing))}, too")
    figure, panels = new_figure(f"Curves over {len(log['loss'])} epochs.", 1, 2, (WIDTH, 3.6))
    for panel, name, unit in zip(panels, ("loss", "mIoU"), (loss_name, "mIoU (0..1)"), strict=True):
        for key, style, color in ((name, "o-", COLORS[0]), (f"val_{name}", "s--", COLORS[1])):
            text = "validation" if key.startswith("val_") else "training"
            panel.plot(_epochs(log), log[key], style, color=color, label=text, markersize=4)
            figure.alt += f" {text} {name} from {log[key][0]:.3f} to {log[key][-1]:.3f}."
        y, va = (0.98, "top") if name == "loss" else (0.02, "bottom")  # where the curve is not
        for epoch, text in changes:
            panel.axvline(epoch - 0.5, color="0.4", linestyle=":")
            panel.text(epoch - 0.4, y, text, transform=panel.get_xaxis_transform(), rotation=90, va=va, zorder=1)
        _finish_curves(panel, "epoch", unit, name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _epochs(log: Mapping[str, Sequence[float]]) -> np.ndarray:
    """Numbers of the epochs from 1; a Keras history does not name them, CSVLogger counts them from 0."""
    return np.asarray(log["epoch"]) + 1 if "epoch" in log else np.arange(len(next(iter(log.values())))) + 1


def _finish_curves(axes, x: str, y: str, title: str = "") -> None:
    axes.set(xlabel=x, ylabel=y, title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=x == "epoch", min_n_ticks=1))
    axes.grid(alpha=0.3)


@in_style
def compare_curves(
    histories: Mapping[str, Mapping[str, Sequence[float]]], metric: str = "val_mIoU", x: str = "epoch"
) -> InlineFigure:
    """One curve of the metric for each training, with its last value in the legend.

    histories: name -> a Keras history or the columns of CSVLogger's file. x: "epoch", or the key to draw over.
    """
    figure, axes = new_figure(f"{metric} over {x}.", size=(WIDTH, 4))
    for i, (name, history) in enumerate(histories.items()):
        if missing := {metric, x} - {"epoch"} - set(history):
            raise ValueError(f"histories[{name!r}]: found {', '.join(history)}, expected {', '.join(missing)}, too")
        text = f"{name}: {history[metric][-1]:.3f} at the end"
        across = _epochs(history) if x == "epoch" else history[x]
        color, marker = COLORS[i % len(COLORS)], MARKERS[i % len(MARKERS)]
        axes.plot(across, history[metric], color=color, marker=marker, markersize=5, label=text)
        figure.alt += f" {text}."
    _finish_curves(axes, x, metric.replace("val_", "validation "))
    axes.legend()
    return figure
