"""Charts of scores, shares, confidence and of a training's curves."""

from collections.abc import Mapping, Sequence

import numpy as np
from matplotlib.ticker import MaxNLocator

from ..evaluation import Scores
from ..labels import LabelMap
from .figures import BLUE, COLORS, EDGE, ORANGE, SKY_BLUE, WIDTH, InlineFigure, in_style, new_figure


@in_style
def show_classes(labels: LabelMap, pixels: np.ndarray) -> InlineFigure:
    """Bars: the share of the pixels (K,) that each class has, in the class's colour."""
    if len(pixels) != labels.n_classes or not np.sum(pixels):
        raise ValueError(f"pixels: found {pixels}, expected {labels.n_classes} counts, one for each class, not all 0")
    order = np.argsort(pixels)
    names = [labels.names[k] for k in order]
    shares = 100 * np.asarray(pixels)[order] / np.sum(pixels)
    texts = [f"{share:.1f} %" if share >= 1 else f"{share:.2g} %" for share in shares]  # 30.8, 0.87, 0.0061
    alt = f"Share of the pixels of each class: {_pairs(names[::-1], texts[::-1])}."
    figure, axes = new_figure(alt, size=(WIDTH, 0.32 * len(order) + 1))
    _draw_bars(axes, range(len(order)), shares, texts, 0.8, labels.palette[order] / 255)
    _name_rows(axes, names)
    axes.set(xlabel="share of the pixels (%)", title="How often each class occurs", xlim=(0, 1.15 * shares.max()))
    return figure


def _pairs(names: Sequence[str], texts: Sequence[str]) -> str:
    return ", ".join(f"{name} {text}" for name, text in zip(names, texts, strict=True))


def _draw_bars(axes, y, values, texts: Sequence[str], height: float, color, label: str = "") -> None:
    """Horizontal bars at y, with a text at the end of each; NaN is drawn as 0."""
    bars = axes.barh(y, np.nan_to_num(values), height, color=color, label=label, **EDGE)
    axes.bar_label(bars, texts, padding=4, size=11)


def _name_rows(axes, names: Sequence[str]) -> None:
    """Names beside the bars, from the bottom up."""
    axes.set_yticks(range(len(names)), names)
    axes.set_ylim(-0.6, len(names) - 0.4)


@in_style
def plot_iou(scores: Scores, baseline: Scores | None = None) -> InlineFigure:
    """Bars: the IoU of each class, sorted, in the class's colour, with the mIoU (and the baseline's) as a line."""
    figure, axes = _iou_bars({"": scores})
    axes.axvline(scores.miou, color=BLUE, label=f"mIoU {scores.miou:.3f}")
    if baseline:
        text = f"mIoU of the baseline {baseline.miou:.3f}"
        axes.axvline(baseline.miou, color=ORANGE, linestyle="--", label=text)
        figure.alt += f" {text}."
    figure.legend(loc="outside upper center")
    return figure


@in_style
def compare_iou(scores: Mapping[str, Scores]) -> InlineFigure:
    """Bars of each class's IoU, one for each of the named scores, sorted by the first; mIoUs in the legend."""
    figure, _ = _iou_bars(scores)
    figure.legend(loc="outside upper center")
    return figure


def _iou_bars(scores: Mapping[str, Scores]):
    """Figure and axes; the bars have the classes' colours if there is one for each class."""
    first = next(iter(scores.values()))
    order = np.argsort(np.nan_to_num(first.iou, nan=-1))
    names = [first.labels.names[k] for k in order]
    height = 0.84 / len(scores)
    size = (WIDTH, (0.22 * len(scores) + 0.1) * len(order) + 1 + 0.25 * len(scores))
    figure, axes = new_figure("IoU of each class.", size=size)
    for i, (name, each) in enumerate(scores.items()):
        color = first.labels.palette[order] / 255 if len(scores) == 1 else COLORS[i % len(COLORS)]
        texts = ["absent" if np.isnan(value) else f"{value:.2f}" for value in each.iou[order]]
        label = f"{name}: mIoU {each.miou:.3f}".removeprefix(": ")
        y = np.arange(len(order)) + 0.42 - (i + 0.5) * height
        _draw_bars(axes, y, each.iou[order], texts, height, color, label if name else "")
        figure.alt += f" {label} ({_pairs(names[::-1], texts[::-1])})."
    _name_rows(axes, names)
    axes.set(xlim=(0, 1.08), xlabel="intersection over union (0..1)", xticks=np.arange(0, 1.1, 0.2))
    return figure, axes


@in_style
def plot_confusion(scores: Scores) -> InlineFigure:
    """The confusion matrix, each row in percent of the true class's pixels: the diagonal is what was found."""
    confusion, names = scores.confusion, scores.labels.names
    total = confusion.sum(axis=1, keepdims=True)
    share = np.divide(100 * confusion, total, out=np.full(confusion.shape, np.nan), where=total > 0)
    found = ", ".join(f"{name} {value:.0f} %" for name, value in zip(names, np.diag(share), strict=True) if value >= 0)
    inches = np.clip(0.5 * len(names) + 1.5, 5.5, WIDTH)
    figure, axes = new_figure(f"Confusion matrix. Found of each true class: {found}.", size=(inches, 0.85 * inches))
    image = axes.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for true, predicted in np.argwhere(share >= 1):
        color = "white" if share[true, predicted] < 60 else "black"
        axes.text(predicted, true, f"{share[true, predicted]:.0f}", ha="center", va="center", color=color, size=11)
    axes.set_xticks(range(len(names)), names, rotation=45, ha="right", rotation_mode="anchor")
    axes.set_yticks(range(len(names)), names)
    axes.set(xlabel="predicted class", ylabel="true class", title="Where the pixels of each true class went")
    figure.colorbar(image, label="% of the true class")
    return figure


@in_style
def plot_reliability(confidence: np.ndarray, right: np.ndarray) -> InlineFigure:
    """Reliability diagram: the share of right pixels in confidence bins of 0.1, and how many pixels each bin has.

    confidence: 0..1, any shape. right: bool, the same shape. The mean gap is the expected calibration error of
    Guo et al., On Calibration of Modern Neural Networks (2017).
    """
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    if not ((confidence >= 0) & (confidence < 1.001)).all():  # a softmax in float32 may be 1.0000001
        raise ValueError(f"confidence: found {confidence.min():.3g} to {confidence.max():.3g}, expected 0 to 1")
    bins = np.minimum((confidence.ravel() * 10).astype(int), 9)
    pixels = np.bincount(bins, minlength=10)
    full = np.flatnonzero(pixels)
    mean, true = (np.bincount(bins, values.ravel(), 10)[full] / pixels[full] for values in (confidence, right))
    gap = np.abs(mean - true) @ pixels[full] / len(bins)
    title = f"mean confidence {confidence.mean():.2f}, right {right.mean():.2f}, mean gap {gap:.2f}"
    pairs = ", ".join(f"{a:.2f}: {b:.2f}" for a, b in zip(mean, true, strict=True))
    alt = f"Reliability: {title}. Mean confidence and share right of the bins: {pairs}."
    figure, (upper, lower) = new_figure(alt, 2, 1, (6, 5.5), sharex=True, height_ratios=(3, 1))
    upper.plot([0, 1], [0, 1], "--", color="0.5", label="perfect calibration")
    upper.plot(mean, true, "o-", color=BLUE, label="this network")
    upper.set(ylabel="share right (0..1)", ylim=(0, 1.02), xlim=(0, 1.02), title=title)
    upper.grid(alpha=0.3)
    upper.legend()
    lower.bar(np.arange(10) / 10 + 0.05, 100 * pixels / len(bins), 0.1, color=SKY_BLUE, **EDGE)
    lower.set(ylabel="pixels (%)", xlabel="confidence (0..1)", xticks=np.arange(0, 1.1, 0.2))
    return figure


@in_style
def plot_changes(steps: Sequence[Mapping]) -> InlineFigure:
    """What each change to the training was worth, in the given order from top to bottom.

    steps: {"name": text, "miou": [one number, 0..1, per seed], "seconds": until the first step's final score, or None}.
    A diamond is the mean of the seeds, a dot a seed; beside them the mean and its gain over the line before.
    """
    names, seeds = [step["name"] for step in steps], [step["miou"] for step in steps]
    means, seconds = [np.mean(miou) for miou in seeds], np.array([step["seconds"] for step in steps], float)
    gains = [""] + [f" ({gain:+.3f})" for gain in np.diff(means)]
    texts = [f"{mean:.3f}{gain}" for mean, gain in zip(means, gains, strict=True)]
    waits = ["not reached" if np.isnan(time) else f"{time:.0f} s" for time in seconds]
    alt = "; ".join(f"{name} {text}, {wait}" for name, text, wait in zip(names, texts, waits, strict=True))
    size = (WIDTH, 0.45 * len(steps) + 1.2)
    figure, (left, right) = new_figure(f"mIoU after each change: {alt}.", 1, 2, size, sharey=True, width_ratios=(2, 1))
    rows = np.arange(len(steps))[::-1]
    for y, miou, text in zip(rows, seeds, texts, strict=True):
        left.plot(miou, [y] * len(miou), "o", color="0.5", markersize=4)
        left.annotate(text, (max(miou), y), (10, 0), textcoords="offset points", va="center")
    left.plot(means, rows, "D", color=BLUE, markersize=8, alpha=0.8)
    low, high = left.get_xlim()
    left.set(xlabel="mIoU (0..1)", xlim=(low, high + 0.8 * (high - low)))  # room for the texts
    left.grid(axis="x", alpha=0.3)
    _name_rows(left, names[::-1])
    _draw_bars(right, rows, seconds, waits, 0.6, SKY_BLUE)
    right.set(xlabel="seconds", title="until as good as the first", xlim=(0, 1.5 * np.nanmax(seconds)))
    return figure


@in_style
def plot_curves(
    log: Mapping[str, Sequence[float]], changes: Sequence[tuple[float, str]] = (), loss_name: str = "loss"
) -> InlineFigure:
    """Loss and mIoU of training and validation against the epoch.

    log: loss, val_loss, mIoU and val_mIoU of each epoch: the columns of CSVLogger's file, or a Keras history.
    changes: (epoch, text): the first epoch, counted from 1, with something else, such as images of another size.
    """
    figure, panels = new_figure(f"Curves over {len(log['loss'])} epochs.", 1, 2, (WIDTH, 3.6))
    for panel, name, unit in zip(panels, ("loss", "mIoU"), (loss_name, "mIoU (0..1)"), strict=True):
        for text, key, style, color in (("training", name, "o-", BLUE), ("validation", f"val_{name}", "s--", ORANGE)):
            panel.plot(range(1, len(log[key]) + 1), log[key], style, color=color, label=text, markersize=4)
            figure.alt += f" {text} {name} from {log[key][0]:.3f} to {log[key][-1]:.3f}."
        y, va = (0.98, "top") if name == "loss" else (0.02, "bottom")  # where the curve is not
        for epoch, text in changes:
            panel.axvline(epoch - 0.5, color="0.4", linestyle=":")
            panel.text(epoch - 0.4, y, text, transform=panel.get_xaxis_transform(), rotation=90, va=va, zorder=1)
        _finish_curves(panel, unit, name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


def _finish_curves(axes, y: str, title: str = "") -> None:
    axes.set(xlabel="epoch", ylabel=y, title=title, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)


@in_style
def compare_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> InlineFigure:
    """The validation mIoU of each training over the epochs, with its last value in the legend.

    histories: name -> a Keras history or the columns of CSVLogger's file.
    """
    figure, axes = new_figure("Validation mIoU over epoch.", size=(WIDTH, 4))
    for i, (name, history) in enumerate(histories.items()):
        miou = history["val_mIoU"]
        text = f"{name}: {miou[-1]:.3f} at the end"
        color, marker = COLORS[i % len(COLORS)], "osD^vPX"[i % 7]  # they differ in more than colour
        axes.plot(range(1, len(miou) + 1), miou, color=color, marker=marker, markersize=5, label=text)
        figure.alt += f" {text}."
    _finish_curves(axes, "validation mIoU")
    axes.legend()
    return figure
