"""Charts of scores, shares, confidence and of a training's curves."""

from collections.abc import Mapping, Sequence

import keras
import numpy as np
from matplotlib.lines import Line2D
from matplotlib.ticker import MaxNLocator

from ..evaluation import Scores
from ..labels import LabelMap
from ..notebook import NotebookError
from .figures import BLUE, COLORS, EDGE, ORANGE, SKY_BLUE, WIDTH, InlineFigure, in_style, new_figure, shorten

MOST = 20  # classes in a confusion matrix: more could not be read


@in_style
def show_classes(labels: LabelMap, pixels: np.ndarray) -> InlineFigure:
    """Bars: the share of the pixels (K,) that each class has, in the class's colour: how unlike are the classes?"""
    shares = np.where(pixels, 100 * np.asarray(pixels) / max(1, np.sum(pixels)), np.nan)
    most = np.nanmax(shares, initial=0) or 1
    figure, axes = _class_bars("share of the pixels (%)", labels, {"all pixels": shares}, most, "{:.3g} %")
    axes.set_title("How often each class occurs")
    return figure


def _class_bars(quantity: str, labels: LabelMap, bars: Mapping[str, np.ndarray], largest: float, form="{:.2f}"):
    """Figure and axes with horizontal bars, sorted by the first, in the classes' colours if it is the only one. bars:
    name -> (K,) values; NaN is drawn as 0 and called absent. form: of the value at the end of a bar."""
    order = np.argsort(np.nan_to_num(next(iter(bars.values())), nan=-1))
    names, height = [shorten(labels.names[k]) for k in order], 0.84 / len(bars)
    size = (WIDTH, (0.22 * len(bars) + 0.1) * len(order) + 1 + 0.25 * len(bars))
    figure, axes = new_figure(f"Bars: {quantity} of each class.", size=size)
    for i, (name, values) in enumerate(bars.items()):
        color = labels.palette[order] / 255 if len(bars) == 1 else COLORS[i % len(COLORS)]
        texts = ["absent" if np.isnan(value) else form.format(value) for value in values[order]]
        y = np.arange(len(order)) + 0.42 - (i + 0.5) * height
        drawn = axes.barh(y, np.nan_to_num(values[order]), height, color=color, label=name, **EDGE)
        axes.bar_label(drawn, texts, padding=4)
        pairs = zip(names[::-1], texts[::-1], strict=True)
        figure.alt += f" {name} ({', '.join(map(' '.join, pairs))})."
    axes.set(xlabel=quantity, xlim=(0, 1.12 * largest), ymargin=0.02, yticks=range(len(names)), yticklabels=names)
    return figure, axes


@in_style
def plot_iou(scores: Scores, baseline: Scores | None = None) -> InlineFigure:
    """Bars: the IoU of each class, sorted, in its colour; lines: their mean, and that of the baseline to beat."""
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
    """Bars of each class's IoU, one for each of the named scores, sorted by the first: which gain, which lose?"""
    bars = {f"{name}: mIoU {each.miou:.3f}": each.iou for name, each in scores.items()}
    figure, _ = _class_bars("intersection over union (0..1)", next(iter(scores.values())).labels, bars, 1)
    figure.legend(loc="outside upper center")
    return figure


@in_style
def plot_confusion(scores: Scores) -> InlineFigure:
    """The confusion matrix, each row in percent of the true class's pixels: the diagonal is what was found.
    Of more than MOST classes, those with the most pixels."""
    total = scores.confusion.sum(axis=1, keepdims=True)
    kept = np.sort(np.argsort(-total[:, 0], kind="stable")[:MOST])
    share = np.divide(100 * scores.confusion, total, out=np.full(scores.confusion.shape, np.nan), where=total > 0)
    share, names = share[np.ix_(kept, kept)], [scores.labels.names[k] for k in kept]
    found = ", ".join(f"{name} {value:.0f} %" for name, value in zip(names, np.diag(share), strict=True) if value >= 0)
    inches = np.clip(0.5 * len(names) + 2, 5.5, WIDTH)
    figure, axes = new_figure(f"Confusion matrix. Found of each true class: {found}.", size=(inches, 0.85 * inches))
    axes.imshow(share, cmap="cividis", vmin=0, vmax=100, aspect="auto")
    for true, predicted in np.argwhere(share >= 1):
        color = "white" if share[true, predicted] < 60 else "black"
        axes.text(predicted, true, f"{share[true, predicted]:.0f}", ha="center", va="center", color=color)
    turned = {"rotation": 45 if len(names) < 15 else 90, "ha": "right", "va": "center", "rotation_mode": "anchor"}
    axes.set_xticks(range(len(names)), [shorten(name, 16) for name in names], **turned)
    axes.set_yticks(range(len(names)), map(shorten, names))
    axes.set(xlabel="predicted class", ylabel="true class", title="Where the pixels of each true class went (%)")
    return figure


@in_style
def plot_reliability(confidence: np.ndarray, right: np.ndarray) -> InlineFigure:
    """Reliability diagram: the share of right pixels in confidence bins of 0.1, and how many pixels each bin has.
    confidence: 0..1, any shape. right: bool, the same shape. The mean gap is the expected calibration error of
    Guo et al., On Calibration of Modern Neural Networks (2017)."""
    confidence, right = np.asarray(confidence, float), np.asarray(right, bool)
    if not ((confidence >= 0) & (confidence < 1.001)).all():  # a softmax in float32 may be 1.0000001
        raise ValueError(f"confidence: found {confidence.min():.3g} to {confidence.max():.3g}, expected 0 to 1")
    if not confidence.size:
        raise ValueError("confidence: found none, expected some pixels that are not void")
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
def plot_changes(steps: Sequence[Mapping], left_out: Sequence[Mapping] = ()) -> InlineFigure:
    """What each change to the training adds, from top to bottom; below, what the last step loses without each.
    steps, left_out: {"name": text, "miou": [one number, 0..1, per seed]}, the seeds in the same order everywhere.
    Beside the seeds: their mean, and its gain over the line above, or over the last step. Where the seeds disagree on
    whether it is a gain, the text is grey: more seeds could turn it."""
    parts = [("what each change adds", steps, [steps[0], *steps[:-1]])]
    if left_out:
        parts.append(("what the whole recipe gains or loses without each", left_out, [steps[-1]] * len(left_out)))
    lines = [len(rows) for _, rows, _ in parts]
    size, options = (WIDTH, 0.36 * sum(lines) + 0.6 * len(parts) + 0.9), {"height_ratios": lines, "squeeze": False}
    figure, axes = new_figure("mIoU, mean of the seeds.", len(parts), 1, size, sharex=True, **options)
    for panel, (title, rows, before) in zip(axes[:, 0], parts, strict=True):
        figure.alt += f" {title.capitalize()}:"
        for y, (row, other) in enumerate(zip(rows, before, strict=True)):
            seeds, mean = row["miou"], np.mean(row["miou"])
            sure = len({np.sign(one - its) for one, its in zip(seeds, other["miou"], strict=False)}) == 1
            text = f"{mean:.3f}" + f" ({mean - np.mean(other['miou']):+.3f})" * (row is not other)
            panel.plot(seeds, [y] * len(seeds), "o", color="0.5", markersize=5)
            panel.plot(mean, y, "D", color=BLUE, fillstyle="full" if sure else "none", markersize=8)
            style = {"textcoords": "offset points", "va": "center", "color": "black" if sure else "0.4"}
            panel.annotate(text, (max(seeds), y), (10, 0), **style)
            figure.alt += f" {row['name']} {text}{', the seeds disagree' * (not sure)};"
        names = [shorten(row["name"]) for row in rows]
        panel.set(title=title, yticks=range(len(rows)), yticklabels=names, ylim=(len(rows) - 0.4, -0.6))
        panel.grid(axis="x", alpha=0.3)
    low, high = panel.get_xlim()
    panel.set(xlabel="mIoU (0..1)", xlim=(low, high + 0.5 * (high - low)))  # room for the texts
    looks = ("a seed", "o", "0.5", "full"), ("mean", "D", BLUE, "full"), ("grey: the seeds disagree", "D", BLUE, "none")
    handles = [Line2D([], [], ls="", marker=m, color=c, fillstyle=f, label=text) for text, m, c, f in looks]
    figure.legend(handles=handles, loc="outside lower center", ncols=3)
    return figure


@in_style
def plot_curves(
    log: Mapping[str, Sequence[float]] | keras.callbacks.History, changes: Sequence[tuple[float, str]] = (),
    loss_name: str = "loss",
) -> InlineFigure:  # fmt: skip
    """Loss and mIoU of training and validation over the epochs: where they part, the network memorises.
    log: loss, val_loss, mIoU and val_mIoU of each epoch: the columns of CSVLogger's file, or Keras's `History`.
    changes: (epoch, text): the first epoch, counted from 1, with something else, such as images of another size.
    Raises NotebookError if no epoch has ended."""
    log = getattr(log, "history", log)
    if not log or not any(map(len, log.values())):
        raise NotebookError("no epoch has ended; run the training's cell again until its first epoch has ended")
    figure, panels = new_figure("Curves over the epochs:", 2, 1, (WIDTH, 6.5), sharex=True)
    for panel, name, unit in zip(panels, ("loss", "mIoU"), (loss_name, "mIoU (0..1)"), strict=True):
        for text, values, look, color in (
            ("training", log[name], "o-", BLUE), ("validation", log[f"val_{name}"], "s--", ORANGE),
        ):  # fmt: skip
            panel.plot(range(1, len(values) + 1), values, look, color=color, markersize=4, label=text)
            figure.alt += f" {text} {name} from {values[0]:.3f} to {values[-1]:.3f};"
        panel.set(ylabel=unit, ylim=(0, None), xlim=(0.5, len(values) + 0.5))
        panel.xaxis.set_major_locator(MaxNLocator(6, integer=True, min_n_ticks=1))
        panel.grid(alpha=0.3)
        y, va = (0.98, "top") if name == "loss" else (0.02, "bottom")  # where the curve is not
        for epoch, text in [change for change in changes if change[0] <= len(log[name])]:  # an interrupted one has less
            panel.axvline(epoch - 0.5, color="0.4", linestyle=":")
            panel.text(epoch - 0.4, y, text, transform=panel.get_xaxis_transform(), rotation=90, va=va, zorder=1)
    panels[1].set_xlabel("epoch")
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside upper center", ncols=2)
    return figure
