"""What do a few images of your own give, and does training keep to its minutes?

    python benchmarks/small_sets.py --images 3,28 --minutes 1,4 --seeds 0,1,2

Draws discs, squares and triangles (four classes with the background, 384x512 pixels; --images training images, 4 for
validation, 20 for testing) and trains on them as a reader does: `python -m unet_helpers train`, then `evaluate`. --code
names another checkout of this project, to compare two versions. Rewrites --out, a JSON file, after each training, and
prints a table.
"""

import argparse
import json
import re
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

ROOT = Path(__file__).resolve().parent.parent
CLASSES = ("background", "disc", "square", "triangle")
COLORS = np.array([(90, 110, 90), (190, 60, 50), (60, 90, 190), (210, 190, 70)])
SIZE, N_VALIDATION, N_TEST = (384, 512), 4, 20


def draw_pair(rng: np.random.Generator) -> tuple[Image.Image, Image.Image]:
    """An image with three to six shapes, random light and noise, and its mask."""
    height, width = SIZE
    colors = np.clip(COLORS + rng.integers(-25, 26, COLORS.shape), 0, 255)
    image, mask = Image.new("RGB", (width, height), tuple(colors[0])), Image.new("L", (width, height))
    for k in rng.permutation([1, 2, 3, 1, 2, 3])[: rng.integers(3, 7)]:
        r = rng.integers(height // 12, height // 5)
        x, y = rng.integers(r, width - r), rng.integers(r, height - r)
        for canvas, fill in ((image, tuple(colors[k])), (mask, int(k))):
            draw = ImageDraw.Draw(canvas)
            if k == 1:
                draw.ellipse([x - r, y - r, x + r, y + r], fill)
            elif k == 2:
                draw.rectangle([x - r, y - r, x + r, y + r], fill)
            else:
                draw.polygon([(x, y - r), (x - r, y + r), (x + r, y + r)], fill)
    pixels = np.asarray(image) * rng.uniform(0.85, 1.15) + rng.normal(0, 12, (height, width, 3))
    return Image.fromarray(np.uint8(pixels.clip(0, 255))), mask


def draw_set(folder: Path, n_images: int) -> None:
    """Write a data set; its first images are the same however many there are."""
    for number, (split, n) in enumerate((("train", n_images), ("val", N_VALIDATION), ("test", N_TEST))):
        for kind in ("images", "masks"):
            (folder / split / kind).mkdir(parents=True, exist_ok=True)
        for k in range(n):
            for kind, image in zip(("images", "masks"), draw_pair(np.random.default_rng([number, k])), strict=True):
                image.save(folder / split / kind / f"{split}_{k:03}.png")
    (folder / "classes.txt").write_text("\n".join(CLASSES) + "\n")


def train(code: Path, folder: Path, minutes: float, seed: int, out: Path) -> dict:
    """Train and score as the README says; seconds are those of the whole train command."""

    def run(*arguments) -> str:
        command = [sys.executable, "-m", "unet_helpers", *map(str, arguments)]
        return subprocess.run(command, cwd=code, check=True, capture_output=True, text=True).stdout

    runs = out.with_suffix("") / f"{folder.name}_{minutes:g}_{seed}"
    begun = time.perf_counter()
    said = run("train", folder, "--minutes", minutes, "--seed", seed, "--runs", runs, "--train-anew")
    seconds = time.perf_counter() - begun
    run_dir = max(runs.iterdir(), key=lambda path: path.stat().st_mtime)
    found = {name: re.search(rf"{words} +mIoU ([\d.]+)", run("evaluate", run_dir, folder, "--split", split))[1]
             for name, split, words in (("train", "train", "the network"), ("test", "test", "the network"),
                                        ("baseline", "test", r"baseline \(.*\)"))}  # fmt: skip
    curve = [float(row.split(",")[-1]) for row in (run_dir / "log.csv").read_text().splitlines()[1:]]
    return {
        "epochs": len(curve), "seconds": round(seconds), **{name: float(value) for name, value in found.items()},
        "validation": [round(miou, 3) for miou in curve], "said": re.findall(r".*(?:about|is short).*", said),
    }  # fmt: skip


def table(results: list[dict]) -> str:
    lines = ["| version | images | minutes | seed | epochs | seconds | training mIoU | test mIoU | baseline |",
             "|---|---|---|---|---|---|---|---|---|"]  # fmt: skip
    for one in results:
        columns = ("version", "images", "minutes", "seed", "epochs", "seconds", "train", "test", "baseline")
        lines.append("| " + " | ".join(f"{one[name]}" for name in columns) + " |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--images", default="3,28", help="to train on (default: 3,28)")
    parser.add_argument("--minutes", default="1,4", help="of `train --minutes` (default: 1,4)")
    parser.add_argument("--seeds", default="0,1,2", help="default: 0,1,2")
    parser.add_argument("--code", type=Path, default=ROOT, help="a checkout of this project (default: this one)")
    parser.add_argument("--version", default="now", help="what the table calls it (default: now)")
    parser.add_argument("--out", type=Path, default=Path("build/small_sets.json"), help="default: %(default)s")
    options = parser.parse_args()
    options.out.parent.mkdir(parents=True, exist_ok=True)
    out, results = options.out.resolve(), []
    for seed in options.seeds.split(","):
        for n_images in options.images.split(","):
            folder = out.with_suffix("") / f"{n_images}_images"
            draw_set(folder, int(n_images))
            for minutes in options.minutes.split(","):
                found = train(options.code.resolve(), folder, float(minutes), int(seed), out)
                case = {"version": options.version, "images": int(n_images), "minutes": float(minutes)}
                results.append(case | {"seed": int(seed)} | found)
                out.write_text(json.dumps(results, indent=1) + "\n")
                print({name: value for name, value in results[-1].items() if name != "validation"}, flush=True)
    print(table(results))


if __name__ == "__main__":
    main()
