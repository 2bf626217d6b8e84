"""Make docs/drive.gif and the image in the notebook's first cell: the network of the drawn scenes on unseen drives.

    python docs/make_images.py

The animation's drive comes from another seed, so that even its streets are new to the network. It is made by
`python -m unet_helpers predict NETWORK FOLDER --out DIR`.
"""

import base64
import json
import sys
import tempfile
from pathlib import Path

import numpy as np
from PIL import Image, ImageSequence

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import run_notebook
from unet_helpers import plots
from unet_helpers.__main__ import main
from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import render_frame
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID
from unet_helpers.networks import DRAWN_SCENES, load_network
from unet_helpers.prediction import predict_mask

DRIVE, SEED, N_FRAMES = "F62", 7, 60
SEEN = 0.83  # of the height, above the bonnet
FRAME = "F62-10"  # of the test drives of the embedded set


def make_animation() -> None:
    with tempfile.TemporaryDirectory() as folder:
        frames, out = Path(folder) / "drive", Path(folder) / "out"
        frames.mkdir()
        for number in range(N_FRAMES):
            image, _ = render_frame(DRIVE, number, seed=SEED, n_frames=N_FRAMES)
            Image.fromarray(image).save(frames / f"{number:02}.png")
        if main(["predict", str(DRAWN_SCENES), str(frames), "--out", str(out)]):
            raise SystemExit(1)
        with Image.open(out / "drive_animation.gif") as animation:  # cropped: the network has not learned the bonnet
            size = animation.width, round(SEEN * animation.height)
            shown = [frame.convert("RGB").crop((0, 0, *size)) for frame in ImageSequence.Iterator(animation)]
            options = {"duration": animation.info["duration"], "loop": 0, "optimize": True}
        first, *others = [frame.quantize(256, dither=Image.Dither.NONE) for frame in shown]
        first.save(ROOT / "docs" / "drive.gif", save_all=True, append_images=others, **options)


def make_result() -> None:
    dataset, network = load_dataset("demo", ROOT / "data"), load_network(DRAWN_SCENES)
    pair = next(pair for pair in dataset.test if pair.image.stem == FRAME)
    image, true = decode_image(pair.image), decode_mask(pair.mask, dataset.labels)[..., 0]
    predicted = np.where(true == VOID, np.uint8(VOID), predict_mask(network, image))
    columns = {"image": [image], "ground truth": [true], "prediction": [predicted]}
    content = base64.b64encode(plots.show_columns(columns, dataset.labels).as_png()).decode()
    notebook = json.loads(run_notebook.NOTEBOOK.read_text(encoding="utf-8"))
    notebook["cells"][0]["attachments"] = {"result.png": {"image/png": content}}
    text = json.dumps(notebook, indent=1, ensure_ascii=False) + "\n"
    run_notebook.NOTEBOOK.write_text(text, encoding="utf-8")


if __name__ == "__main__":
    make_animation()
    make_result()
