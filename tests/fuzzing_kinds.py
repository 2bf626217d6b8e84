"""Kinds of images and masks that `prepare_folder` takes, each as a function that makes a file of known pixels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from fuzzing_files import exif, save, save_image, write_png, write_tiff
from PIL import Image, features

from unet_helpers.labels import VOID

COLORS = np.uint8([[70, 130, 180], [128, 64, 128], [0, 0, 142], [0, 0, 0]])  # of the ids 0, 1, 2 and of void
COLOR_LIST = "sky 70,130,180\nroad 128,64,128\ncar 0,0,142\nvoid 0,0,0\n"
NAMES, TWO_NAMES = "sky\nroad\ncar\n", "nothing\ncell\n"
SHUFFLED = (2, 0, 3, 1)  # ids (3: void) of the places in a palette: not those of the list
TURNS = {1: 0, 3: 2, 6: 1, 8: 3}  # EXIF's orientation: quarter turns from an upright image to a stored one


class MaskKind(NamedTuple):
    """With two classes, 255 is the second, if no mask holds more than 0 and 255."""

    suffix: str
    write: Callable[[np.ndarray], bytes]  # (H, W) ids -> file
    classes: str = NAMES  # content of classes.txt
    by: str = "value"  # what stands for a class: "value" (of red, or the index of a palette) or "color"
    void: int = VOID  # its value

    @property
    def ids(self) -> tuple[int, ...]:
        """Those that its masks hold."""
        return (0, 1) if self.classes == TWO_NAMES else (0, 1, 2, VOID)


def in_palette(index, colors, kind="PNG", **options) -> bytes:
    """(H, W) places in a palette of (N, 3) colours -> file."""
    image = Image.fromarray(index.astype(np.uint8))
    image.putpalette(np.asarray(colors, np.uint8).ravel().tolist())
    return save_image(image, kind, **options)


def in_rgb(grey) -> np.ndarray:
    return np.repeat(grey[..., None], 3, -1)


def make_images(rng, image) -> dict[str, Callable[[], tuple[str, bytes, np.ndarray | None]]]:
    """Name -> function that gives the suffix, a file, and its pixels, (H, W, 3) uint8; None if it is a lossy kind.

    All of them are taken; most are written anew.
    """
    coarse, few = image // 64 * 64, image[..., 0] // 64
    colors, index = np.unique(coarse.reshape(-1, 3), axis=0, return_inverse=True)
    index = index.reshape(image.shape[:2])
    black_white = np.where(image[..., 0] > 120, 255, 0).astype(np.uint8)
    bits = int(rng.integers(9, 17))
    deep = image[..., 0].astype(np.uint16) << (bits - 8)
    deep |= rng.integers(0, 1 << (bits - 8), deep.shape, dtype=np.uint16)
    deep[0, 0] = (1 << bits) - 1
    seen = in_rgb((deep >> (bits - 8)).astype(np.uint8))
    bright = (image.astype(np.uint16) << 8) | rng.integers(0, 256, image.shape, dtype=np.uint16)
    orientation = int(rng.choice(list(TURNS)))
    stored, turning = np.ascontiguousarray(np.rot90(image, TURNS[orientation])), exif(orientation)
    packed = {"compression": str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))}
    quality = {"quality": int(rng.integers(20, 101))}
    more = {"save_all": True, "append_images": [Image.fromarray(np.flipud(image))]}
    kinds = {
        "PNG": lambda: (".png", save(image), image),
        "PNG palette": lambda: (".png", in_palette(index, colors), coarse),
        "PNG palette, transparent": lambda: (".png", in_palette(index, colors, transparency=0), coarse),
        "PNG palette of 2 bits": lambda: (".png", in_palette(few, COLORS, bits=2), COLORS[few]),
        "PNG animated": lambda: (".png", save(image, **more), image),
        "PNG grey of 2 bits": lambda: (".png", write_png(few[..., None], 2, 0), in_rgb(few * 85)),
        "PNG interlaced": lambda: (".png", write_png(image, interlaced=True), image),
        "PNG turned": lambda: (".png", save(stored, exif=turning), image),
        "PNG 16-bit grey": lambda: (".png", write_png(deep[..., None], 16, 0), seen),
        "PNG 16-bit RGB": lambda: (".png", write_png(bright, 16, 2, bool(rng.integers(2))), image),
        "PNG 16-bit RGBA": lambda: (".png", write_png(np.dstack([bright, 0 * index + 0xFFFF]), 16, 6), image),
        "JPEG": lambda: (".jpg", save(image, "JPEG", progressive=bool(rng.integers(2)), **quality), None),
        "JPEG of several images": lambda: (".jpg", save(image, "MPO", **more), None),
        "JPEG, EXIF damaged": lambda: (".jpg", save(image, "JPEG", exif=b"Exif\0\0" + rng.bytes(40)), None),
        "JPEG CMYK": lambda: (".jpg", save(image, "JPEG", "CMYK", **quality), None),
        "JPEG turned": lambda: (".jpg", save(stored, "JPEG", exif=turning, **quality), None),
        "TIFF": lambda: (".tif", save(image, "TIFF", **packed), image),
        "TIFF RGBA": lambda: (".tif", save(np.dstack([image, image[..., 0]]), "TIFF", **packed), image),
        "TIFF CMYK": lambda: (".tif", save(image, "TIFF", "CMYK", **packed), image),
        "TIFF fax": lambda: (".tif", save(black_white, "TIFF", "1", compression="group4"), in_rgb(black_white)),
        "TIFF palette": lambda: (".tif", in_palette(index, colors, "TIFF", **packed), coarse),
        "TIFF pages": lambda: (".tif", save(image, "TIFF", **packed, **more), image),
        "TIFF turned": lambda: (".tif", write_tiff(stored, orientation), image),
        "TIFF 16-bit grey": lambda: (".tif", save(deep, "TIFF", **packed), seen),
        "TIFF 16-bit RGB": lambda: (".tif", write_tiff(bright), image),
        "GIF animated": lambda: (".gif", in_palette(index, colors, "GIF", duration=90, **more), coarse),
        "BMP": lambda: (".bmp", save(image, "BMP"), image),
        "PPM": lambda: (".ppm", save(image, "PPM"), image),
    }
    if "webp" in features.get_supported():
        kinds |= {
            "WEBP": lambda: (".webp", save(image, "WEBP", **quality), None),
            "WEBP turned": lambda: (".webp", save(stored, "WEBP", lossless=True, exif=turning), image),
        }
    return kinds


def in_red(ids) -> np.ndarray:
    return np.stack([ids, 0 * ids, 0 * ids], -1)


def make_masks(rng) -> dict[str, MaskKind]:
    """All kinds that are taken."""
    packed = {"compression": str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))}
    place = np.full(256, SHUFFLED.index(3))
    place[:3] = [SHUFFLED.index(k) for k in range(3)]
    many = np.vstack([COLORS[::-1], np.arange(3 * 252).reshape(-1, 3) % 251]).astype(np.uint8)  # no greys: 0 is an id
    shuffled = COLORS[list(SHUFFLED)]
    greys = in_rgb(np.uint8([(0, 1, 2, VOID)[k] for k in SHUFFLED]))
    void_3 = {"classes": f"{NAMES}void\n", "void": 3}
    two, colored = {"classes": TWO_NAMES}, {"classes": COLOR_LIST, "by": "color"}

    def as_colors(ids):
        return COLORS[np.minimum(ids, 3)]

    def as_3(ids):
        return np.minimum(ids, 3)[..., None]

    def as_255(ids):
        return ids * np.uint8(255)

    return {
        "PNG": MaskKind(".png", lambda ids: save(ids)),
        "PNG interlaced": MaskKind(".png", lambda ids: write_png(ids[..., None], color_type=0, interlaced=True)),
        "PNG red": MaskKind(".png", lambda ids: save(in_red(ids))),
        "PNG of 4 bits": MaskKind(".png", lambda ids: write_png(as_3(ids), 4, 0), **void_3),
        "PNG palette": MaskKind(".png", lambda ids: in_palette(ids, many)),
        "PNG palette of 2 bits": MaskKind(".png", lambda ids: in_palette(as_3(ids)[..., 0], COLORS, bits=2), **void_3),
        "PNG greys in another order": MaskKind(".png", lambda ids: in_palette(place[ids], greys)),
        "PNG 1-bit": MaskKind(".png", lambda ids: save(as_255(ids), mode="1"), **two),
        "PNG 0 and 255": MaskKind(".png", lambda ids: save(as_255(ids), mode="RGB"), **two),
        "PNG 16-bit": MaskKind(".png", lambda ids: save(np.where(ids == VOID, np.uint16(0xFFFF), ids)), void=0xFFFF),
        "PNG colours": MaskKind(".png", lambda ids: save(as_colors(ids)), **colored),
        "PNG colours in a palette": MaskKind(".png", lambda ids: in_palette(place[ids], shuffled, bits=2), **colored),
        "GIF": MaskKind(".gif", lambda ids: save(ids, "GIF")),
        "GIF greys in another order": MaskKind(".gif", lambda ids: in_palette(place[ids], greys, "GIF")),
        "GIF palette": MaskKind(".gif", lambda ids: in_palette(ids, many, "GIF", optimize=False)),
        "BMP": MaskKind(".bmp", lambda ids: save(ids, "BMP")),
        "BMP 1-bit": MaskKind(".bmp", lambda ids: save(as_255(ids), "BMP", "1"), **two),
        "TIFF": MaskKind(".tif", lambda ids: save(ids, "TIFF", **packed)),
        "TIFF 1-bit": MaskKind(".tif", lambda ids: save(as_255(ids), "TIFF", "1", compression="group4"), **two),
        "TIFF palette": MaskKind(".tif", lambda ids: in_palette(ids, many, "TIFF", **packed)),
        "TIFF 16-bit": MaskKind(".tif", lambda ids: save(ids.astype(np.uint16), "TIFF", **packed)),
        "TIFF colours": MaskKind(".tif", lambda ids: save(as_colors(ids), "TIFF", **packed), **colored),
    }
