"""export: a trained network for other programs, or in a small file, and the lines that use it there."""

from pathlib import Path

from ..networks import export_network
from . import find_network

# How a program opens each format: `about` is what `networks.describe_network` tells, `run` makes logits of a batch.
OPEN = {
    "onnx": """\
import onnxruntime
session = onnxruntime.InferenceSession("{path}")
about = json.loads(session.get_modelmeta().custom_metadata_map["unet_helpers"])
run = lambda batch: session.run(None, {{session.get_inputs()[0].name: batch}})[0]
""",
    "litert": """\
from ai_edge_litert.interpreter import Interpreter
about = json.load(open("{path}.json"))
session = Interpreter("{path}").get_signature_runner()
run = lambda batch: next(iter(session(**{{next(iter(session.get_input_details())): batch}}).values()))
""",
    "tf_saved_model": """\
import tensorflow as tf
about = json.load(open("{path}.json"))
session = tf.saved_model.load("{path}")
run = lambda batch: session.serve(batch).numpy()
""",
}
USE = """\
import json
import numpy as np
from PIL import Image, ImageOps
{open}
image = ImageOps.exif_transpose(Image.open("image.jpg")).convert("RGB")
size, own = np.array(about["image_size"]), np.array(image.size[::-1])
inner = np.where(size / own < 1.05 * min(size / own), size, 2 * np.round(own * min(size / own) / 2)).astype(int)
(top, left), (height, width) = (size - inner) // 4 * 2, inner  # the letterbox
small = [part.convert("F").resize((width, height), Image.Resampling.BILINEAR) for part in image.split()]
batch = np.full((1, *size, 3), about["padding"], np.float32)
batch[0, top:top + height, left:left + width] = np.stack(small, axis=-1).round()
logits = run(batch)[0].transpose(2, 0, 1)
box = np.array([left, top, left + width, top + height]) * logits.shape[1] / size[0]
mask = np.argmax([Image.fromarray(part).resize(image.size, Image.Resampling.BILINEAR, box) for part in logits], axis=0)
Image.fromarray(mask.astype(np.uint8)).save("mask.png")  # the ids of about["classes"]
"""


def export(network: Path, format: str, out: Path) -> int:
    """`export_network`, and print the lines that use it; returns 0. Raises ValueError for a missing package, too."""
    try:
        export_network(find_network(network), out, format)
    except ImportError as error:
        raise ValueError(str(error)) from error
    print(f"{out}: written as {format}")
    if format in OPEN:
        print("\nTo use it without this package, as `predict` does but for test-time augmentation:\n")
        print(USE.format(open=OPEN[format].format(path=out)), end="")
    return 0
