"""Why a training came to nothing: what the evidence says about data, learning rate and time, in the reader's words."""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import NamedTuple

import keras
import numpy as np

from .evidence import Evidence, gather
from .labels import VOID, LabelMap, Pair

USELESS = {"all black", "stuck", "low mIoU"}  # what a network looks like that knows next to nothing


class Finding(NamedTuple):
    """symptom: what the reader sees. cause: its name. evidence: what was measured. cure: what to do, or ""."""

    symptom: str
    cause: str
    evidence: str
    cure: str


class Diagnosis(NamedTuple):
    """findings: the likely causes, faults of the data first; none if nothing is wrong. looked_at: what was measured."""

    findings: list[Finding]
    looked_at: list[str]

    def __str__(self) -> str:
        found = [f"{f.symptom}: {f.cause}. {f.evidence}" + f"\n  Cure: {f.cure}." * bool(f.cure) for f in self.findings]
        return "\n".join([*(found or ["nothing wrong was found"]), "looked at:", *(f"  {x}" for x in self.looked_at)])


def diagnose(
    batches: Iterable, labels: LabelMap, log: Mapping[str, Sequence[float]] | None = None,
    model: keras.Model | None = None, pairs: Sequence[Pair] = (),
) -> Diagnosis:  # fmt: skip
    """Name the likely cause of "all black", "nan", "stuck" or a low mIoU. Print what is returned.

    batches: (images, masks) or (images, masks, weights), those that `model.fit` was given, for they are what the
        network sees: images (B, H, W, 3), masks (B, H', W', 1) ids. Some dozens are looked at. labels: the K classes.
    log: loss and, where known, mIoU, val_loss and val_mIoU of each epoch: `history.history`, or columns of log.csv.
    model: the trained network, which predicts a few batches and is left as it was.
    pairs: of the batches, for the values and the boundaries in the mask files; batches of `make_batches` tell them.
    Raises ValueError if there is no batch, masks hold no ids, or the network has another number of classes.
    """
    seen = gather(batches, labels, log, model, pairs)
    faults = [*_faults_of_pictures(seen), *_faults_of_masks(seen), *_faults_of_alignment(seen)]
    symptoms = dict(_symptoms(seen))
    findings = [fault._replace(symptom=_shown(fault, symptoms)) for fault in faults]
    explained = set().union(*(_explains(fault) for fault in faults))
    left = {symptom: measured for symptom, measured in symptoms.items() if symptom not in explained}
    if left:
        findings.append(_fault_of_training(seen, *next(iter(left.items()))))
    return Diagnosis(findings, _looked_at(seen, faults))


def _explains(fault: Finding) -> set[str]:
    """The symptoms that a fault of the data explains, so that nothing else is blamed for them."""
    return USELESS | ({"nan"} if fault.cause in ("no numbers", "all void") else set())


def _shown(fault: Finding, symptoms: Mapping[str, str]) -> str:
    explained = (symptom for symptom in symptoms if symptom in _explains(fault))
    return next(explained, fault.symptom) if fault.symptom in USELESS else fault.symptom


def _looked_at(seen: Evidence, faults: list[Finding]) -> list[str]:
    n, losses = seen.labels.n_classes, seen.log.get("loss")
    files = f"{_some(seen.values)} in the files" if seen.values else "not known"
    lines = [
        f"pictures: {seen.n_pictures}, values {seen.low:.3g} to {seen.high:.3g}",
        f"masks: {len(seen.present)} of {n} classes, {seen.ids[VOID] / seen.ids.total():.1%} void, values {files}",
        f"log: {len(losses)} epochs, loss {losses[0]:.3g} to {losses[-1]:.3g}" if seen.log else "log: not given",
        f"answers: {len(seen.answers.ids)} classes" if seen.answers else "answers: no network was given",
        f"edges: of {seen.alignment.n_images} images, compared with the boundaries in their masks",
    ]  # fmt: skip
    if not faults and max(seen.present) < 32:
        black = f"as grey pictures, ids up to {max(seen.present)} look black, and that is fine"
        lines.append(f"{black}: unet_helpers.labels.colorize(mask, labels) shows them")
    return lines


def _some(values: Iterable[int]) -> str:
    values = sorted(values)
    return ", ".join(map(str, values[:16])) + (f" and {len(values) - 16} more" if len(values) > 16 else "")


# ---- faults of the data ----


def _faults_of_pictures(seen: Evidence) -> Iterator[Finding]:
    if not math.isfinite(seen.low + seen.high):
        cure = "look for a division by 0 where you scale the pictures, or give them as they are, 0 to 255"
        yield Finding("nan", "no numbers", "The pictures hold values that are no finite numbers.", cure)
    elif (seen.low < 0 or seen.high <= 1) and (seen.answers is None or seen.answers.rescales):
        evidence = f"The pictures' values are {seen.low:.3g} to {seen.high:.3g}; the network scales 0 to 255 itself"
        cure = "give the pictures as they are, 0 to 255, and train anew"
        scaled, whole = seen.answers.accuracy if seen.answers else (0, 0)
        if whole > scaled + 0.1:  # it knows pictures of 0..255
            evidence += f": {scaled:.0%} of its answers are right, and {whole:.0%} with the pictures scaled back"
            cure = "give the pictures as they are, 0 to 255; they were so in the training, which is fine"
        yield Finding("stuck", "scaled twice", f"{evidence}.", cure)


def _faults_of_masks(seen: Evidence) -> Iterator[Finding]:
    values, where = (seen.values, "mask files") if seen.values else (seen.ids, "batches")
    n, names, held = seen.labels.n_classes, seen.labels.names, f"The {where} hold {_some(values)}"
    known = {*range(n), VOID, *(seen.labels.void_values if seen.values else ())}
    unknown = [value for value in values if value not in known]
    if not seen.present:
        evidence = f"{held}: no pixel is of one of the {n} classes, so nothing is learned."
        yield Finding("stuck", "all void", evidence, f"give masks whose classes have the ids 0 to {n - 1}")
    elif set(values) == {0, VOID} and seen.present == [0]:
        evidence = f"{held}: 255 means void, so {names[0]!r} is the only class, and always right."
        yield Finding("all black", "0/255", evidence, "divide the masks by 255: 0 for the background, 1 for the thing")
    elif 0 not in seen.present and n in values and (n in unknown or len(seen.present) == n - 1):
        evidence = f"{held}, but the {n} classes have the ids 0 to {n - 1}: all are shifted, and the last is void."
        yield Finding("wrong classes", "off by one", evidence, "subtract 1 from the ids in the masks")
    elif unknown:
        share = sum(values[value] for value in unknown) / values.total()
        evidence = f"{held}; {_some(unknown)} ({share:.1%} of the pixels) are no ids of {n} classes, and become void."
        cure = "name all classes; make masks smaller by nearest neighbour only, and never as a JPEG"
        yield Finding("wrong classes", "unknown ids", evidence, cure)
    elif len(seen.present) == 1:
        evidence = f"{held}: {names[seen.present[0]]!r} is the only class, and always right."
        yield Finding("all black", "one class", evidence, "label the others; if they were lost, save ids as 8-bit PNG")


def _faults_of_alignment(seen: Evidence) -> Iterator[Finding]:
    alignment = seen.alignment
    measured = f"In {alignment.n_images} pairs the edges of the images were compared with the boundaries in the masks"
    if alignment.shift:
        down, right = alignment.shift
        ways = [f"{abs(down)} pixels {'down' if down > 0 else 'up'}"] * bool(down)
        ways += [f"{abs(right)} pixels {'right' if right > 0 else 'left'}"] * bool(right)
        evidence = f"{measured}: the masks lie {' and '.join(ways)} of where they fit, at the network's image size."
        yield Finding("low mIoU", "shifted masks", evidence, "export the masks anew, each with the crop of its image")
    elif alignment.n_others:
        evidence = f"{measured}: {alignment.n_others} images fit the mask of another image, and not their own."
        cure = "look at the pairs (plots.show_pairs), and give each mask the name of its image"
        yield Finding("low mIoU", "masks of other images", evidence, cure)


# ---- symptoms, and what they mean where no fault of the data explains them ----


def _symptoms(seen: Evidence) -> Iterator[tuple[str, str]]:
    """What is wrong, the worst first: (symptom, what was measured). Of two for one symptom, the second tells more."""
    answers, loss = seen.answers, seen.log.get("loss")
    if answers and not answers.finite:
        yield "nan", "Weights of the network are no finite numbers"
    for name in ("val_loss", "loss"):
        bad = np.flatnonzero(~np.isfinite(seen.log.get(name, ())))
        if bad.size:
            yield "nan", f"The {name} is {seen.log[name][bad[0]]} in epoch {bad[0] + 1} of {len(loss)}"
    if answers:
        k, pixels = answers.ids.most_common(1)[0]
        share, truth = pixels / answers.ids.total(), answers.true[k] / max(1, answers.true.total())
        if 1 - share <= 0.1 * (1 - truth):
            yield "all black", f"{seen.labels.names[k]!r} is {share:.1%} of the answers and {truth:.1%} of the truth"
    if answers and answers.lags:
        yield "low mIoU", f"The network's mIoU on training batches is {answers.miou[0]:.2f}"
    if seen.log and _knows_little(seen, "mIoU"):
        symptom = "stuck" if _is_flat(loss) or loss[-1] > _guess(seen) else "low mIoU"
        yield symptom, f"The loss is {loss[0]:.3g} in the first epoch and {loss[-1]:.3g} in the last of {len(loss)}"
    elif {"mIoU", "val_mIoU"} <= seen.log.keys() and (_overfits(seen) or _knows_little(seen, "val_mIoU")):
        scores = f"{seen.log['mIoU'][-1]:.2f} in training and {seen.log['val_mIoU'][-1]:.2f} in validation"
        yield "low mIoU", f"In the last epoch the mIoU is {scores}"


def _is_flat(loss: np.ndarray) -> bool:
    return len(loss) > 1 and loss[-1] >= 0.95 * loss[0]


def _guess(seen: Evidence) -> float:
    """The loss of answering at random: cross-entropy, and at most 1 for Dice."""
    return math.log(seen.labels.n_classes) + 1


def _knows_little(seen: Evidence, name: str) -> bool:
    """Whether the last epoch was hardly better than the baseline; name: "mIoU" or "val_mIoU"."""
    loss = seen.log["loss"]
    if name in seen.log:
        baseline = seen.shares.max(initial=0) / max(1, len(seen.shares))
        return seen.log[name][-1] <= baseline + (0.5 if loss[-1] > _guess(seen) else 0.1) * (1 - baseline)
    return _is_flat(loss) and loss[-1] > 0.8 * _entropy(seen) or loss[-1] > 10 * _guess(seen)


def _entropy(seen: Evidence) -> float:
    """The cross-entropy of predicting the classes' shares everywhere."""
    return float(-np.sum(seen.shares * np.log(seen.shares)))


def _overfits(seen: Evidence) -> bool:
    """Whether validation lost what training won. Statistics that lag look alike in the log, so a network is needed."""
    loss, miou = (seen.log.get(name, np.array([])) for name in ("val_loss", "val_mIoU"))
    if not (loss.size and miou.size and "mIoU" in seen.log and seen.answers) or seen.answers.lags:
        return False
    risen = loss[-1] > 1.5 * loss.min() and loss.argmin() < 0.75 * len(loss)
    # Those of an earlier epoch may lag where the validation mIoU fell as well.
    return bool(risen and miou[-1] > 0.7 * miou.max() and seen.log["mIoU"][-1] > miou[-1] + 0.2)


def _fault_of_training(seen: Evidence, symptom: str, measured: str) -> Finding:
    lower = "divide the learning rate by ten, again and again, until the loss falls"
    highest = {name: max(seen.log.get(name, []), default=0) / _guess(seen) for name in ("loss", "val_loss")}
    too_high = Finding(symptom, "rate far too high", f"{measured}. ", f"{lower}, and train anew")
    if symptom == "nan":
        return too_high._replace(evidence=f"{measured}, though pictures and masks are numbers.")
    # With statistics that lag, or overfitting, the validation loss rises, too: some ten times, and alone.
    learned = "mIoU" in seen.log and not _knows_little(seen, "mIoU")
    if highest["loss"] > 10 or highest["val_loss"] > (1000 if learned else 10):
        rose = max(highest.values()) * _guess(seen)
        evidence = f"The loss rose to {rose:.3g}; answering at random costs {_guess(seen) - 1:.2f}."
        return too_high._replace(evidence=evidence)
    if seen.answers and seen.answers.lags:
        evidence = f"{measured}, and {seen.answers.miou[1]:.2f} with means and variances estimated anew from them."
        cure = "train once more with this version, which estimates them before each validation; all else may stay"
        return Finding(symptom, "statistics that lag", f"{evidence} Those of batch normalization lag.", cure)
    if _overfits(seen):
        low, last = min(seen.log["val_loss"]), seen.log["val_loss"][-1]
        evidence = f"{measured}; the validation loss fell to {low:.3g} and rose to {last:.3g}."
        return Finding(symptom, "overfitting", evidence, "train with more images, with augmentation, or fewer epochs")
    if seen.answers and seen.answers.spread < 1e-3:
        return too_high._replace(evidence=f"{measured}. All pixels get the same logits.")
    return _fault_of_time(seen, symptom, measured)


def _fault_of_time(seen: Evidence, symptom: str, measured: str) -> Finding:
    loss = seen.log.get("loss")
    if loss is None or len(loss) > 1 and not _knows_little(seen, "mIoU"):
        return Finding(symptom, "not found", f"{measured}. Neither images nor masks nor log tell why.", "")
    if len(loss) == 1:
        return Finding(symptom, "too short", f"{measured}: there was one epoch only.", "train longer")
    last = max(1, len(loss) // 4)  # epochs: a quarter of them
    falls = loss[-1] < 0.99**last * loss[-1 - last]
    if seen.shares.max(initial=0) > 0.8 and loss[-1] < min(0.9 * loss[0], 1.2 * _entropy(seen) if falls else math.inf):
        cure = "train longer, with Dice (losses.cross_entropy_and_dice) or losses.class_weights"
        return Finding(symptom, "class imbalance", f"{measured}: the others hardly count in the loss.", cure)
    if falls:
        return Finding(symptom, "too short", f"{measured}; the loss was still falling.", "train longer")
    return Finding(symptom, "not found", f"{measured}. Neither images nor masks nor log tell why.", "")
