"""Kinds of images and masks that `prepare_folder` takes, each as a function that makes a file of known pixels."""

from collections.abc import Callable
from typing import NamedTuple

import numpy as np
from fuzzing_files import chunk, exif, save, save_image, write_bmp, write_png, write_tiff
from PIL import Image, features

from unet_helpers.labels import VOID

CLASSES = ("sky", "road", "car")
COLORS = np.uint8([[70, 130, 180], [128, 64, 128], [0, 0, 142], [0, 0, 0]])  # of the ids 0, 1, 2 and of void
COLOR_LIST = "".join(f"{name} {r},{g},{b}\n" for name, (r, g, b) in zip([*CLASSES, "void"], COLORS, strict=True))
NAMES, TWO_NAMES = "sky\nroad\ncar\n", "nothing\ncell\n"
SHUFFLED = (2, 0, 3, 1)  # ids (3: void) of the places in a palette: not those of the list
UPRIGHT = {  # EXIF's orientation: how an upright picture is stored
    1: lambda a: a, 2: np.fliplr, 3: lambda a: np.rot90(a, 2), 4: np.flipud, 5: lambda a: np.swapaxes(a, 0, 1),
    6: np.rot90, 7: lambda a: np.rot90(np.swapaxes(a, 0, 1), 2), 8: lambda a: np.rot90(a, 3),
}  # fmt: skip


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


# ---- pictures ----


def make_pictures(rng, picture) -> dict[str, Callable[[], tuple[str, bytes, np.ndarray | None]]]:
    """Name -> function that gives the suffix, a file, and its pixels, (H, W, 3) uint8; None if it is a lossy kind.

    All of them are taken; most are written anew.
    """
    grey = np.repeat(picture[..., :1], 3, -1)
    colors, index = np.unique((picture // 64 * 64).reshape(-1, 3), axis=0, return_inverse=True)
    index, coarse = index.reshape(picture.shape[:2]), picture // 64 * 64
    few = picture[..., 0] // 64  # four colours
    black_white = np.where(picture[..., 0] > 120, 255, 0).astype(np.uint8)
    turned = np.flipud(picture)
    bits = int(rng.integers(9, 17))
    deep = (picture.astype(np.uint16) << (bits - 8)) | rng.integers(0, 1 << (bits - 8), picture.shape, dtype=np.uint16)
    deep[0, 0] = (1 << bits) - 1
    seen, seen_grey = (deep >> (bits - 8)).astype(np.uint8), np.repeat((deep[..., :1] >> (bits - 8)), 3, -1)
    opaque = np.full_like(deep[..., :1], 0xFFFF)
    bright = (picture.astype(np.uint16) << 8) | rng.integers(0, 256, picture.shape, dtype=np.uint16)
    height, width = picture.shape[:2]
    orientation = int(rng.integers(1, 9))
    stored, turning = np.ascontiguousarray(UPRIGHT[orientation](picture)), exif(rng, [orientation])
    compression = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    quality = {"quality": int(rng.integers(20, 101))}
    four, bits_few = np.uint8([[0, 0, 0], [90, 9, 200], [1, 250, 3], [255, 255, 255]]), int(rng.choice([2, 4]))

    def tiff(array, mode=None, expected=picture, **options):
        return ".tif", save(array, "TIFF", mode, compression=compression, **options), expected

    kinds = {
        "PNG": lambda: (".png", save(picture), picture),
        "PNG 1-bit": lambda: (".png", save(black_white, mode="1"), np.repeat(black_white[..., None], 3, -1)),
        "PNG palette": lambda: (".png", in_palette(index, colors), coarse),
        "PNG palette of few bits": lambda: (".png", in_palette(few, four, bits=bits_few), four[few]),
        "PNG palette, transparent": lambda: (".png", in_palette(index, colors, transparency=0), coarse),
        "PNG animated": lambda: (
            ".png", save(picture, save_all=True, append_images=[Image.fromarray(turned)]), picture
        ),
        "PNG grey of 2 bits": lambda: (".png", write_png(few[..., None], 2, 0), np.repeat(few[..., None] * 85, 3, -1)),
        "PNG interlaced": lambda: (".png", write_png(picture, interlaced=True), picture),
        "PNG with gamma": lambda: (".png", write_png(picture, before=[chunk(b"gAMA", bytes([0, 0, 90, 9]))]), picture),
        "PNG 16-bit grey": lambda: (".png", write_png(deep[..., :1], 16, 0), seen_grey),
        "PNG 16-bit RGB": lambda: (".png", write_png(deep, 16, 2, bool(rng.integers(2))), seen),
        "PNG 16-bit RGBA": lambda: (".png", write_png(np.concatenate([deep, opaque], -1), 16, 6), seen),
        "PNG 16-bit LA": lambda: (".png", write_png(np.concatenate([deep[..., :1], opaque], -1), 16, 4), seen_grey),
        "JPEG": lambda: (".jpg", save(picture, "JPEG", **quality), None),
        "JPEG progressive": lambda: (".jpg", save(picture, "JPEG", progressive=True, **quality), None),
        "JPEG in restart blocks": lambda: (".jpg", save(picture, "JPEG", restart_marker_blocks=2, **quality), None),
        "JPEG multi-picture": lambda: (
            ".jpg", save(picture, "MPO", save_all=True, append_images=[Image.fromarray(turned)]), None
        ),
        "JPEG, EXIF damaged": lambda: (".jpg", save(picture, "JPEG", exif=b"Exif\0\0" + rng.bytes(40)), None),
        "JPEG CMYK": lambda: (".jpg", save(picture, "JPEG", "CMYK", **quality), None),
        "JPEG turned": lambda: (".jpg", save(stored, "JPEG", exif=turning, **quality), None),
        "PNG turned": lambda: (".png", save(stored, exif=turning), picture),
        "TIFF": lambda: tiff(picture),
        "TIFF grey": lambda: tiff(picture[..., 0], None, grey),
        "TIFF RGBA": lambda: tiff(np.concatenate([picture, grey[..., :1]], -1)),
        "TIFF CMYK": lambda: tiff(picture, "CMYK"),
        "TIFF 1-bit": lambda: tiff(black_white, "1", np.repeat(black_white[..., None], 3, -1)),
        "TIFF fax": lambda: (
            ".tif", save(black_white, "TIFF", "1", compression="group4"), np.repeat(black_white[..., None], 3, -1)
        ),
        "TIFF palette": lambda: (".tif", in_palette(index, colors, "TIFF", compression=compression), coarse),
        "TIFF JPEG": lambda: (".tif", save(picture, "TIFF", compression="jpeg"), None),
        "TIFF big": lambda: tiff(picture, big_tiff=True),
        "TIFF pages": lambda: tiff(picture, save_all=True, append_images=[Image.fromarray(turned)]),
        "TIFF turned": lambda: (".tif", write_tiff(stored, orientation), picture),
        "TIFF 16-bit grey": lambda: tiff(deep[..., 0], None, seen_grey),
        "TIFF 16-bit grey, other end first": lambda: (
            ".tif",
            save_image(Image.frombytes("I;16B", (width, height), deep[..., 0].astype(">u2").tobytes()), "TIFF"),
            seen_grey,
        ),
        "TIFF 16-bit RGB": lambda: (".tif", write_tiff(bright), picture),
        "GIF": lambda: (".gif", in_palette(index, colors, "GIF"), coarse),
        "GIF animated": lambda: (
            ".gif",
            in_palette(index, colors, "GIF", save_all=True, append_images=[Image.fromarray(turned)], duration=90),
            coarse,
        ),
        "BMP": lambda: (".bmp", save(picture, "BMP"), picture),
        "BMP palette": lambda: (".bmp", in_palette(index, colors, "BMP"), coarse),
        "BMP 1-bit": lambda: (".bmp", save(black_white, "BMP", "1"), np.repeat(black_white[..., None], 3, -1)),
        "BMP 4-bit": lambda: (".bmp", write_bmp(few, 4), None),
        "BMP in runs": lambda: (".bmp", write_bmp(few, 8, 1), None),
        "PPM": lambda: (".ppm", save(picture, "PPM"), picture),
        "PGM 16-bit": lambda: (
            ".pgm", b"P5 %d %d 65535\n" % (width, height) + deep[..., 0].astype(">u2").tobytes(), seen_grey
        ),
        "TGA": lambda: (".tga", save(picture, "TGA", compression=str(rng.choice(["tga_rle", "raw"]))), picture),
    }  # fmt: skip
    if "webp" in features.get_supported():
        kinds |= {
            "WEBP": lambda: (".webp", save(picture, "WEBP", **quality), None),
            "WEBP lossless": lambda: (".webp", save(picture, "WEBP", lossless=True), picture),
            "WEBP turned": lambda: (".webp", save(stored, "WEBP", lossless=True, exif=turning), picture),
            "WEBP animated": lambda: (
                ".webp",
                save(picture, "WEBP", lossless=True, save_all=True, append_images=[Image.fromarray(turned)]),
                picture,
            ),
        }
    return kinds


# ---- masks ----


def in_red(ids) -> np.ndarray:
    return np.stack([ids, 0 * ids, 0 * ids], -1)


def as_values(void: int, change: Callable) -> Callable:
    """Ids, with another value for void, and then changed to a file."""
    return lambda ids: change(np.where(ids == VOID, void, ids))


def make_masks(rng) -> dict[str, MaskKind]:
    """All kinds that are taken."""
    compression = str(rng.choice(["raw", "tiff_lzw", "tiff_adobe_deflate", "packbits"]))
    with_void, two = f"{NAMES}void\n", TWO_NAMES
    place = np.full(256, SHUFFLED.index(3))
    place[:3] = [SHUFFLED.index(k) for k in range(3)]
    many = np.vstack([COLORS[::-1], np.arange(3 * 252).reshape(-1, 3) % 251]).astype(np.uint8)  # no greys: 0 is an id
    shuffled = COLORS[list(SHUFFLED)]
    greys = np.repeat(np.uint8([(0, 1, 2, VOID)[k] for k in SHUFFLED])[:, None], 3, 1)

    def colored(ids):
        return COLORS[np.minimum(ids, 3)]

    return {
        "PNG": MaskKind(".png", lambda ids: save(ids)),
        "PNG interlaced": MaskKind(".png", lambda ids: write_png(ids[..., None], color_type=0, interlaced=True)),
        "PNG red": MaskKind(".png", lambda ids: save(in_red(ids))),
        "PNG red with alpha": MaskKind(".png", lambda ids: save(np.dstack([in_red(ids), 255 - 0 * ids]))),
        "PNG grey RGB": MaskKind(".png", lambda ids: save(ids, mode="RGB")),
        "PNG grey with alpha": MaskKind(".png", lambda ids: save(ids, mode="LA")),
        "PNG of 2 bits": MaskKind(
            ".png", as_values(3, lambda v: write_png(v[..., None], 2, 0)), with_void, void=3
        ),
        "PNG of 4 bits": MaskKind(
            ".png", as_values(3, lambda v: write_png(v[..., None], 4, 0)), with_void, void=3
        ),
        "PNG palette": MaskKind(".png", lambda ids: in_palette(ids, many)),
        "PNG palette of 4 bits": MaskKind(
            ".png", as_values(3, lambda v: in_palette(v, many[:9], bits=4)), with_void, void=3
        ),
        "PNG palette of 2 bits": MaskKind(
            ".png", as_values(3, lambda v: in_palette(v, many[:4], bits=2)), with_void, void=3
        ),
        "PNG palette of 1 bit": MaskKind(".png", lambda ids: in_palette(ids, many[:2], bits=1), two),
        "PNG 1-bit": MaskKind(".png", lambda ids: save(ids * np.uint8(255), mode="1"), two),
        "PNG 0 and 255": MaskKind(".png", lambda ids: save(ids * np.uint8(255)), two),
        "PNG 0 and 255, RGB": MaskKind(".png", lambda ids: save(ids * np.uint8(255), mode="RGB"), two),
        "PNG 16-bit": MaskKind(
            ".png", lambda ids: save(np.where(ids == VOID, np.uint16(0xFFFF), ids)), void=0xFFFF
        ),
        "PNG 16-bit red": MaskKind(".png", lambda ids: write_png(in_red(ids).astype(np.uint16) * 257, 16, 2)),
        "PNG colours": MaskKind(".png", lambda ids: save(colored(ids)), COLOR_LIST, "color"),
        "PNG colours with alpha": MaskKind(".png", lambda ids: save(colored(ids), mode="RGBA"), COLOR_LIST, "color"),
        "PNG colours in a palette": MaskKind(
            ".png", lambda ids: in_palette(place[ids], shuffled, bits=int(rng.choice([2, 8]))), COLOR_LIST, "color"
        ),
        "GIF": MaskKind(".gif", lambda ids: save(ids, "GIF")),
        "GIF greys in another order": MaskKind(".gif", lambda ids: in_palette(place[ids], greys, "GIF")),
        "PNG greys in another order": MaskKind(".png", lambda ids: in_palette(place[ids], greys)),
        "GIF palette": MaskKind(".gif", lambda ids: in_palette(ids, many, "GIF", optimize=False)),
        "GIF 0 and 255": MaskKind(".gif", lambda ids: save(ids * np.uint8(255), "GIF"), two),
        "GIF colours": MaskKind(".gif", lambda ids: in_palette(place[ids], shuffled, "GIF"), COLOR_LIST, "color"),
        "BMP": MaskKind(".bmp", lambda ids: save(ids, "BMP")),
        "BMP red": MaskKind(".bmp", lambda ids: save(in_red(ids), "BMP")),
        "BMP 1-bit": MaskKind(".bmp", lambda ids: save(ids * np.uint8(255), "BMP", "1"), two),
        "BMP palette": MaskKind(".bmp", lambda ids: in_palette(ids, many, "BMP")),
        "BMP colours": MaskKind(".bmp", lambda ids: save(colored(ids), "BMP"), COLOR_LIST, "color"),
        "TIFF": MaskKind(".tif", lambda ids: save(ids, "TIFF", compression=compression)),
        "TIFF red": MaskKind(".tif", lambda ids: save(in_red(ids), "TIFF", compression=compression)),
        "TIFF 1-bit": MaskKind(
            ".tif", lambda ids: save(ids * np.uint8(255), "TIFF", "1", compression="group4"), two, "pair"
        ),
        "TIFF palette": MaskKind(".tif", lambda ids: in_palette(ids, many, "TIFF", compression=compression)),
        "TIFF 16-bit": MaskKind(".tif", lambda ids: save(ids.astype(np.uint16), "TIFF", compression=compression)),
        "TIFF colours": MaskKind(
            ".tif", lambda ids: save(colored(ids), "TIFF", compression=compression), COLOR_LIST, "color"
        ),
    }  # fmt: skip
