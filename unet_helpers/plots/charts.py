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
    shares = 100 * np.asarray(pixels) / np.sum(pixels)
    figure, axes = _class_bars("share of the pixels (%)", labels, {"all pixels": shares}, shares.max(), "{:.3g} %")
    axes.set_title("How often each class occurs")
    return figure


def _class_bars(quantity: str, labels: LabelMap, bars: Mapping[str, np.ndarray], largest: float, form="{:.2f}"):
    """Figure and axes with horizontal bars, sorted by the first; they have the classes' colours if it is the only one.

    bars: name -> (K,) values; NaN is drawn as 0 and called absent. form: of the value at the end of a bar.
    """
    order = np.argsort(np.nan_to_num(next(iter(bars.values())), nan=-1))
    names, height = [labels.names[k] for k in order], 0.84 / len(bars)
    size = (WIDTH, (0.22 * len(bars) + 0.1) * len(order) + 1 + 0.25 * len(bars))
    figure, axes = new_figure(f"Bars: {quantity} of each class.", size=size)
    for i, (name, values) in enumerate(bars.items()):
        color = labels.palette[order] / 255 if len(bars) == 1 else COLORS[i % len(COLORS)]
        texts = ["absent" if np.isnan(value) else form.format(value) for value in values[order]]
        y = np.arange(len(order)) + 0.42 - (i + 0.5) * height
        drawn = axes.barh(y, np.nan_to_num(values[order]), height, color=color, label=name, **EDGE)
        axes.bar_label(drawn, texts, padding=4, size=11)
        pairs = zip(names[::-1], texts[::-1], strict=True)
        figure.alt += f" {name} ({', '.join(map(' '.join, pairs))})."
    axes.set(xlabel=quantity, xlim=(0, 1.12 * largest), ymargin=0.02, yticks=range(len(names)), yticklabels=names)
    return figure, axes


@in_style
def plot_iou(scores: Scores, baseline: Scores | None = None) -> InlineFigure:
    """Bars: the IoU of each class, sorted, in the class's colour, with the mIoU (and the baseline's) as a line."""
    text = f"mIoU {scores.miou:.3f}"
    figure, axes = _class_bars("intersection over union (0..1)", scores.labels, {text: scores.iou}, 1)
    lines = [axes.axvline(scores.miou, color=BLUE, label=text)]
    if baseline:
        text = f"mIoU of the baseline {baseline.miou:.3f}"
        lines.append(axes.axvline(baseline.miou, color=ORANGE, linestyle="--", label=text))
        figure.alt += f" {text}."
    figure.legend(handles=lines, loc="outside upper center")
    return figure


@in_style
def compare_iou(scores: Mapping[str, Scores]) -> InlineFigure:
    """Bars of each class's IoU, one for each of the named scores, sorted by the first; mIoUs in the legend."""
    bars = {f"{name}: mIoU {each.miou:.3f}": each.iou for name, each in scores.items()}
    figure, _ = _class_bars("intersection over union (0..1)", next(iter(scores.values())).labels, bars, 1)
    figure.legend(loc="outside upper center")
    return figure


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
    left.set(yticks=rows, yticklabels=names, ymargin=0.02)
    right.bar_label(right.barh(rows, np.nan_to_num(seconds), 0.6, color=SKY_BLUE, **EDGE), waits, padding=4, size=11)
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
    figure, panels = new_figure("Curves over the epochs.", 1, 2, (WIDTH, 3.6))
    for panel, name, unit in zip(panels, ("loss", "mIoU"), (loss_name, "mIoU (0..1)"), strict=True):
        curves = {"training": log[name], "validation": log[f"val_{name}"]}
        _draw_curves(panel, curves, unit)
        ends = (f"{text} {name} from {values[0]:.3f} to {values[-1]:.3f}" for text, values in curves.items())
        figure.alt += f" {', '.join(ends)}."
        y, va = (0.98, "top") if name == "loss" else (0.02, "bottom")  # where the curve is not
        for epoch, text in changes:
            panel.axvline(epoch - 0.5, color="0.4", linestyle=":")
            panel.text(epoch - 0.4, y, text, transform=panel.get_xaxis_transform(), rotation=90, va=va, zorder=1)
        panel.set_title(name)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside lower center", ncols=2)
    return figure


@in_style
def compare_curves(histories: Mapping[str, Mapping[str, Sequence[float]]]) -> InlineFigure:
    """The validation mIoU of each training over the epochs, measured at the network's size, unlike `evaluation.Scores`.

    histories: name -> a Keras history or the columns of CSVLogger's file.
    """
    curves = {name: log["val_mIoU"] for name, log in histories.items()}
    ends = ", ".join(f"{name}: {values[-1]:.3f} at the end" for name, values in curves.items())
    figure, axes = new_figure(f"Validation mIoU over the epochs. {ends}.", size=(WIDTH, 4))
    _draw_curves(axes, curves, "validation mIoU, at the network's size")
    axes.legend()
    return figure


def _draw_curves(axes, curves: Mapping[str, Sequence[float]], y: str) -> None:
    for i, (name, values) in enumerate(curves.items()):
        look = {"marker": "osD^vPX"[i % 7], "linestyle": ("-", "--")[i % 2]}  # they differ in more than colour
        axes.plot(range(1, len(values) + 1), values, color=COLORS[i % len(COLORS)], markersize=4, label=name, **look)
    axes.set(xlabel="epoch", ylabel=y, ylim=(0, None))
    axes.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
    axes.grid(alpha=0.3)
