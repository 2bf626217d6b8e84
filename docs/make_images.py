"""Make docs/drive.gif and the image in the notebook's first cell: the network of the drawn scenes on unseen drives.

    python docs/make_images.py

The animation's drive comes from another seed, so that even its streets are new to the network.
"""

import base64
import json
import sys
from pathlib import Path

import numpy as np
from PIL import Image

ROOT = Path(__file__).resolve().parent.parent
sys.path.insert(0, str(ROOT))

import run_notebook
from unet_helpers import plots
from unet_helpers.datasets import load_dataset
from unet_helpers.drawing import render_frame
from unet_helpers.images import decode_image, decode_mask
from unet_helpers.labels import VOID, colorize
from unet_helpers.networks import DRAWN_SCENES, load_network
from unet_helpers.prediction import predict_mask

DRIVE, SEED, N_FRAMES = "F62", 7, 60
SEEN = 0.83  # of the height, above the bonnet, which the network has not learned
SIZE, GAP = (272, 204), 4  # width and height of image and prediction in the animation, and pixels between them
FRAME = "F62-10"  # of the test drives of the embedded set


def make_animation() -> None:
    network, frames = load_network(DRAWN_SCENES), []
    for number in range(N_FRAMES):
        image, _ = render_frame(DRIVE, number, seed=SEED, n_frames=N_FRAMES)
        frame = Image.new("RGB", (2 * SIZE[0] + GAP, round(SEEN * SIZE[1])), "white")
        for left, shown in ((0, image), (SIZE[0] + GAP, colorize(predict_mask(network, image), network.labels))):
            frame.paste(Image.fromarray(shown).resize(SIZE, Image.Resampling.BOX), (left, 0))
        frames.append(frame.quantize(256, dither=Image.Dither.NONE))  # dithering would double the size
    options = {"duration": 100, "loop": 0, "optimize": True}
    frames[0].save(ROOT / "docs" / "drive.gif", save_all=True, append_images=frames[1:], **options)


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
