"""Picture files as bytes, also such as Pillow can't write, and the kinds that `check_pair` is shown by the fuzzing."""

import io
import struct
import zlib

import numpy as np
from PIL import Image, features

from unet_helpers.images import ORIENTATION

PNG_START = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
GOOD = {  # what has always been taken and is decoded well must not be refused
    "PNG RGB", "PNG RGBA", "PNG L", "PNG palette", "PNG interlaced", "PNG optimized", "JPEG",
    "JPEG progressive", "JPEG grey", "JPEG in restart blocks", "BMP 24-bit", "EXIF upright", "mask PNG L",
    "mask PNG RGB", "mask PNG RGBA", "mask PNG interlaced",
}  # fmt: skip


def chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def write_png(samples, depth=8, color_type=2, interlaced=False, before=()) -> bytes:
    """(H, W, C) samples below 2**depth -> PNG; before: chunks in front of the pixels."""
    height, width, _ = samples.shape
    rows = b""
    for row, column, down, right in ADAM7 if interlaced else ((0, 0, 1, 1),):
        part = samples[row::down, column::right]
        if part.size:
            bits = np.unpackbits(part.astype(">u2").view(np.uint8).reshape(*part.shape, 2), axis=-1)[..., 16 - depth :]
            rows += b"".join(b"\0" + np.packbits(line).tobytes() for line in bits.reshape(len(part), -1))
    header = struct.pack(">IIBBBBB", width, height, depth, color_type, 0, 0, interlaced)
    pixels = chunk(b"IDAT", zlib.compress(rows))
    return PNG_START + chunk(b"IHDR", header) + b"".join(before) + pixels + chunk(b"IEND", b"")


def write_bmp(indices, bits, compression=0) -> bytes:
    """(H, W) indices 0..15 -> BMP of 1, 4, 8 or 16 bits, plain or (compression=1, 8 bits) in runs."""
    height, width = indices.shape
    if compression:
        rows = b"".join(b"".join(bytes((1, v)) for v in line) + b"\0\0" for line in indices[::-1]) + b"\0\1"
    else:
        dtype = ">u2" if bits == 16 else np.uint8
        rows = b""
        for line in indices[::-1]:
            if bits == 16:
                row = (line.astype("<u2") * 2113).tobytes()
            else:
                row = np.packbits(np.unpackbits(line.astype(dtype)[:, None], axis=1)[:, 8 - bits :]).tobytes()
            rows += row + bytes(-len(row) % 4)
    colors = [bytes((v * 37 % 256, v * 91 % 256, v * 17 % 256, 0)) for v in range(1 << bits)]
    palette = b"" if bits == 16 else b"".join(colors)
    start = 54 + len(palette)
    header = struct.pack("<IiiHHIIiiII", 40, width, height, 1, bits, compression, len(rows), 2835, 2835, 0, 0)
    return b"BM" + struct.pack("<IHHI", start + len(rows), 0, 0, start) + header + palette + rows


def write_tiff(samples, orientation=1) -> bytes:
    """(H, W, C) uint8 or uint16 -> TIFF of one strip, plain; any number of channels."""
    height, width, n_channels = samples.shape
    bits, data = 8 * samples.itemsize, samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    extra = max(0, n_channels - 3) if n_channels != 2 else 1
    entries = [  # number, type (3: of 2 bytes, 4: of 4 bytes), values
        (256, 4, [width]), (257, 4, [height]), (258, 3, [bits] * n_channels), (259, 3, [1]),
        (262, 3, [2 if n_channels > 2 else 1]), (273, 4, [0]), (274, 3, [orientation]), (277, 3, [n_channels]),
        (278, 4, [height]), (279, 4, [len(data)]),
    ] + [(338, 3, [0] * extra)] * bool(extra)  # fmt: skip
    place = 8 + 2 + 12 * len(entries) + 4
    table, behind = struct.pack("<H", len(entries)), b""
    lists = {number: struct.pack(f"<{len(v)}{' HI'[kind - 2]}", *v) for number, kind, v in entries}
    start = place + sum(len(packed) for packed in lists.values() if len(packed) > 4)
    lists[273] = struct.pack("<I", start)
    for number, kind, values in entries:
        packed = lists[number]
        if len(packed) > 4:
            packed, behind = struct.pack("<I", place + len(behind)), behind + packed
        table += struct.pack("<HHI", number, kind, len(values)) + packed.ljust(4, b"\0")
    return b"II*\0" + struct.pack("<I", 8) + table + bytes(4) + behind + data


def save(array, kind="PNG", mode=None, **options) -> bytes:
    image = Image.fromarray(array)
    return save_image(image.convert(mode) if mode else image, kind, **options)


def save_image(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(rng, orientations) -> bytes:
    data = Image.Exif()
    data[ORIENTATION] = int(rng.choice(orientations))
    return data.tobytes()


def make_kinds(rng, picture, ids) -> dict:
    """Name -> function without arguments that gives a file; for pictures, and ("mask ...") for masks."""
    grey, pale, upside_down = picture[..., :1], picture // 16, Image.fromarray(picture[::-1])
    red = np.concatenate([ids, 0 * ids, 0 * ids], axis=-1)
    deep = picture.astype(np.uint16) * 257 + rng.integers(-128, 128)
    quality = {"quality": int(rng.integers(5, 101)), "subsampling": int(rng.integers(3))}
    colors, alphas = chunk(b"PLTE", rng.bytes(48)), chunk(b"tRNS", rng.bytes(9))
    gamma = chunk(b"gAMA", struct.pack(">I", rng.integers(1, 1 << 20)))
    kinds = {
        "PNG RGB": lambda: save(picture),
        "PNG RGBA": lambda: save(np.concatenate([picture, grey], -1)),
        "PNG L": lambda: save(grey[..., 0]),
        "PNG LA": lambda: write_png(picture[..., :2], color_type=4),
        "PNG palette": lambda: save(picture, mode="P"),
        "PNG palette of 4 bits": lambda: write_png(pale[..., :1], 4, 3, before=[colors]),
        "PNG palette, transparent": lambda: write_png(pale[..., :1], 8, 3, before=[colors, alphas]),
        "PNG transparent colour": lambda: write_png(picture, before=[chunk(b"tRNS", bytes(6))]),
        "PNG 1-bit": lambda: save(picture, mode="1"),
        "PNG grey of 2 or 4 bits": lambda: write_png(grey // 64, int(rng.choice([2, 4])), 0),
        "PNG 16-bit grey": lambda: write_png(deep[..., :1] >> rng.integers(0, 9), 16, 0),
        "PNG 16-bit RGB": lambda: write_png(deep, 16, 2),
        "PNG 16-bit LA": lambda: write_png(deep[..., :2], 16, 4),
        "PNG interlaced": lambda: write_png(picture, interlaced=True),
        "PNG with gamma": lambda: write_png(picture, before=[gamma]),
        "PNG optimized": lambda: save(picture, optimize=True),
        "PNG animated": lambda: save(
            picture, save_all=True, append_images=[upside_down], default_image=bool(rng.integers(2))
        ),
        "JPEG": lambda: save(picture, "JPEG", **quality),
        "JPEG progressive": lambda: save(picture, "JPEG", progressive=True, **quality),
        "JPEG grey": lambda: save(picture, "JPEG", "L", **quality),
        "JPEG in restart blocks": lambda: save(picture, "JPEG", restart_marker_blocks=2, **quality),
        "JPEG CMYK": lambda: save(picture, "JPEG", "CMYK", **quality),
        "JPEG multi-picture": lambda: save(picture, "MPO", save_all=True, append_images=[upside_down]),
        "EXIF turned": lambda: save(picture, str(rng.choice(["JPEG", "PNG"])), exif=exif(rng, range(2, 9))),
        "EXIF upright": lambda: save(picture, str(rng.choice(["JPEG", "PNG"])), exif=exif(rng, [0, 1, 9])),
        "EXIF garbage": lambda: save(picture, "JPEG", exif=b"Exif\0\0" + rng.bytes(40)),
        "BMP 24-bit": lambda: save(picture, "BMP"),
        "BMP 32-bit": lambda: save(picture, "BMP", "RGBA"),
        "BMP grey": lambda: save(picture, "BMP", "L"),
        "BMP palette": lambda: save(picture, "BMP", "P"),
        "BMP 1-bit": lambda: save(picture, "BMP", "1"),
        "BMP 4-bit": lambda: write_bmp(pale[..., 0], 4),
        "BMP 16-bit": lambda: write_bmp(pale[..., 0], 16),
        "BMP in runs": lambda: write_bmp(pale[..., 0], 8, 1),
        "GIF": lambda: save(picture, "GIF", str(rng.choice(["L", "P"]))),
        "GIF animated": lambda: save(picture, "GIF", "P", save_all=True, append_images=[upside_down]),
        "TIFF": lambda: save(picture, "TIFF", compression=str(rng.choice(["raw", "tiff_lzw", "jpeg"]))),
        "TIFF float": lambda: save(picture, "TIFF", "F"),
        "PPM": lambda: save(picture, "PPM", str(rng.choice(["1", "L", "RGB"]))),
        "ICO": lambda: save(picture, "ICO"),
        "TGA": lambda: save(picture, "TGA"),
        "PCX": lambda: save(picture, "PCX"),
        "mask PNG L": lambda: save(ids[..., 0]),
        "mask PNG RGB": lambda: save(red),
        "mask PNG RGBA": lambda: save(np.concatenate([red, red[..., :1]], -1)),
        "mask PNG interlaced": lambda: write_png(ids, color_type=0, interlaced=True),
        "mask PNG LA": lambda: write_png(red[..., :2], color_type=4),
        "mask PNG palette": lambda: write_png(ids % 16, color_type=3, before=[colors]),
        "mask PNG of 2 bits": lambda: write_png(ids % 4, 2, 0),
        "mask PNG 16-bit": lambda: write_png(ids, 16, 0),
        "mask PNG 16-bit RGB": lambda: write_png(red.astype(np.uint16) << 8, 16),
        "mask BMP 24-bit": lambda: save(red, "BMP"),
        "mask BMP grey": lambda: save(ids[..., 0], "BMP"),
        "mask GIF": lambda: save(ids[..., 0], "GIF"),
        "mask JPEG": lambda: save(ids[..., 0], "JPEG", quality=100),
        "mask TIFF": lambda: save(ids[..., 0], "TIFF"),
        "mask PPM": lambda: save(ids[..., 0], "PPM"),
    }
    for kind, feature in (("WEBP", "webp"), ("AVIF", "avif"), ("JPEG2000", "jpg_2000")):
        if feature in features.get_supported():
            options = {"lossless": bool(rng.integers(2))} if kind == "WEBP" else {}
            kinds[kind] = lambda kind=kind, options=options: save(picture, kind, **options)
            kinds[f"mask {kind}"] = lambda kind=kind, options=options: save(red, kind, **options)
    return kinds
