"""Damaged and odd pictures and masks, by the thousand: `check_pair` has to name each file that training would not read
as it is.

    python -m tests.fuzzing 10000 --seed 0

For each file either the check raises ValueError with its name, or training's decoders give the pixels that Pillow
gives. What is between is counted, listed, and makes the exit code 1. `--only 123` makes pair 123 again and keeps its
files.
"""

import argparse
import collections
import io
import itertools
import os
import struct
import sys
import tempfile
import warnings
import zlib
from pathlib import Path

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
from PIL import Image, ImageOps, features

from unet_helpers import checking
from unet_helpers.decoding import decode_image, decode_mask
from unet_helpers.labels import VOID, LabelMap, Pair

LABELS = LabelMap(("sky", "road", "car"), ((0, 0, 255), (128, 64, 128), (255, 0, 0)), void_values=(3, VOID))
PNG_START = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))
GOOD = {  # what has always been taken and is decoded well must not be refused
    "PNG RGB", "PNG RGBA", "PNG L", "PNG palette", "PNG interlaced", "PNG 16-bit RGB", "PNG optimized", "JPEG",
    "JPEG progressive", "JPEG grey", "JPEG in restart blocks", "BMP 24-bit", "EXIF upright",
}  # fmt: skip


# Files that Pillow can't write.


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


def save(array, kind="PNG", mode=None, **options) -> bytes:
    image = Image.fromarray(array)
    file = io.BytesIO()
    (image.convert(mode) if mode else image).save(file, kind, **options)
    return file.getvalue()


def exif(rng, orientations) -> bytes:
    data = Image.Exif()
    data[checking.ORIENTATION] = int(rng.choice(orientations))
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


# Damages: (rng, bytes) -> bytes.


def _place(rng, data, most=40) -> tuple[int, int]:
    start = int(rng.integers(len(data)))
    return start, min(start + int(rng.integers(1, most)), len(data))


def truncated(rng, data):
    return data[: int(rng.integers(len(data) + 1))]


def last_bytes_missing(rng, data):
    return data[: -int(rng.integers(1, 25))]


def bytes_flipped(rng, data):
    data = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= int(rng.integers(1, 256))
    return bytes(data)


def header_flipped(rng, data):
    data = bytearray(data)
    data[rng.integers(0, min(60, len(data)))] ^= 1 << rng.integers(8)
    return bytes(data)


def zeroed(rng, data):
    start, end = _place(rng, data, len(data))
    return data[:start] + bytes(end - start) + data[end:]


def cut_out(rng, data):
    start, end = _place(rng, data)
    return data[:start] + data[end:]


def doubled(rng, data):
    start, end = _place(rng, data)
    return data[:end] + data[start:]


def noise_inserted(rng, data):
    start, _ = _place(rng, data)
    return data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:]


def more_behind(rng, data):
    return data + rng.bytes(int(rng.integers(1, 40)))


def _chunks(data) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(PNG_START)
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks.append((kind, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def _join(chunks) -> bytes:
    return PNG_START + b"".join(chunk(*part) for part in chunks)


def chunk_dropped(rng, data):
    chunks = _chunks(data)
    del chunks[rng.integers(len(chunks))]
    return _join(chunks)


def chunk_doubled(rng, data):
    chunks = _chunks(data)
    chunks.insert(rng.integers(len(chunks) + 1), chunks[rng.integers(len(chunks))])
    return _join(chunks)


def chunk_split(rng, data):
    chunks = _chunks(data)
    which = rng.integers(len(chunks))
    kind, content = chunks[which]
    half = rng.integers(len(content) + 1)
    chunks[which : which + 1] = [(kind, content[:half]), (kind, content[half:])]
    return _join(chunks)


def chunk_changed(rng, data):
    chunks = _chunks(data)
    which = int(rng.integers(len(chunks)))
    chunks[which] = (chunks[which][0], bytes_flipped(rng, chunks[which][1] or b"\0"))
    return _join(chunks)


def chunk_foreign(rng, data):
    chunks = _chunks(data)
    kind = bytes(rng.choice([b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"acTL", b"fdAT", b"tEXt", b"ABCD", b"abCd", b"sBIT"]))
    chunks.insert(rng.integers(len(chunks) + 1), (kind, rng.bytes(int(rng.integers(0, 30)))))
    return _join(chunks)


def header_changed(rng, data):
    """The header says another size, depth or colour type, with a right CRC."""
    chunks = _chunks(data)
    fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
    sides = [1, 24, 40, 9000, 5_000_000, 1 << 30]
    which = rng.integers(4)
    fields[which] = int(rng.choice((sides, sides, [1, 2, 3, 4, 8, 16], [0, 1, 2, 3, 4, 6])[which]))
    return _join([(b"IHDR", struct.pack(">IIBBBBB", *fields)), *chunks[1:]])


def pixels_flipped(rng, data):
    """With a right CRC, the pixels' stream holds other bytes, fewer or more, or its end or checksum is off."""
    chunks = _chunks(data)
    which = [kind for kind, _ in chunks].index(b"IDAT")
    stream = chunks[which][1]
    damages = (
        lambda: zlib.compress(bytes_flipped(rng, zlib.decompress(stream))),
        lambda: zlib.compress(zlib.decompress(stream)[: -int(rng.integers(1, 40))]),
        lambda: zlib.compress(zlib.decompress(stream) + rng.bytes(9)),
        lambda: stream[: -int(rng.integers(1, 9))],
        lambda: stream[:-4] + rng.bytes(4),
    )
    chunks[which] = (b"IDAT", damages[rng.integers(len(damages))]())
    return _join(chunks)


DAMAGES = (
    truncated, last_bytes_missing, bytes_flipped, header_flipped, zeroed, cut_out, doubled, noise_inserted, more_behind,
)  # fmt: skip
PNG_DAMAGES = (
    chunk_dropped, chunk_doubled, chunk_split, chunk_changed, chunk_foreign, header_changed, pixels_flipped,
)  # fmt: skip


def make_pair(folder: Path, seed: int, number: int) -> tuple[Pair, Path, str, bool]:
    """Write pair `number` of a seed: the pair, the file of the two that is odd, what it is, and whether it is good."""
    rng = np.random.default_rng([seed, number])
    size = (24, 32) if rng.random() < 0.8 else tuple(rng.integers(1, 41, 2))
    ids = rng.choice(np.uint8([0, 1, 2, 3, VOID]), (*size, 1))
    if rng.random() < 0.5:
        ids[:] = np.sort(ids, axis=0)
    picture = np.uint8([[90, 130, 220], [90, 90, 90], [200, 40, 40], [0, 0, 0]])[np.minimum(ids[..., 0], 3)]
    picture += rng.integers(0, 50, picture.shape).astype(np.uint8)
    kinds = make_kinds(rng, picture, ids)
    name = str(rng.choice(list(kinds)))
    data, kind = kinds[name](), name
    good = name in GOOD or name in ("mask PNG L", "mask PNG RGB", "mask PNG RGBA", "mask PNG interlaced")
    if rng.random() < 0.75:
        is_png = data.startswith(PNG_START)
        damage = DAMAGES[rng.integers(len(DAMAGES))]
        if is_png and rng.random() < 0.6:
            damage = PNG_DAMAGES[rng.integers(len(PNG_DAMAGES))]
        starts = {b"\x89PNG": "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF": "GIF"}
        of = next((kind for start, kind in starts.items() if data.startswith(start)), "other")
        of = f"mask {of}" if name.startswith("mask") else of
        data, kind, good = damage(rng, data), f"{of}, {damage.__name__.replace('_', ' ')}", False
    suffix = str(rng.choice([".png", ".jpg", ".bmp", ".JPEG"]))  # often the wrong one
    pair = Pair(folder / f"p{number}{suffix}", folder / f"m{number}.png")
    odd = pair.mask if name.startswith("mask") else pair.image
    pair.image.write_bytes(save(picture))
    pair.mask.write_bytes(save(ids[..., 0]))
    odd.write_bytes(data)
    return pair, odd, kind, good


def judge(pair: Pair, odd: Path, check) -> tuple[str, str]:
    """("refused", the message), ("equal", how near) or ("between", why), found out in another way than the check's."""
    try:
        counts = check(pair, LABELS)
    except ValueError as error:
        message = str(error)
        return ("refused" if type(error) is ValueError and str(odd) in message else "between"), message
    except BaseException as error:
        return "between", f"the check raises {error!r}"
    try:
        image = decode_image(str(pair.image)).numpy().astype(int)
        mask = decode_mask(str(pair.mask), LABELS).numpy()[..., 0]
    except Exception as error:
        return "between", f"training raises {error!r}"
    with Image.open(pair.image) as opened, Image.open(pair.mask) as opened_mask:
        opened.load()
        if opened.mode.startswith(("I", "F")):
            return "between", "16 bits"
        try:
            upright = ImageOps.exif_transpose(opened)
        except Exception:  # damaged EXIF data
            upright = opened
        seen = np.asarray(upright.convert("RGB")).astype(int)
        is_jpeg = opened.format in ("JPEG", "MPO")
        values = np.asarray(opened_mask)
    ids = LABELS.value_to_id[values if values.ndim == 2 else values[..., 0]]
    if image.shape != seen.shape or image.shape[:2] != mask.shape:
        return "between", f"training reads {image.shape} and {mask.shape}, Pillow {seen.shape}"
    if not np.array_equal(mask, ids):
        return "between", f"{(mask != ids).mean():.1%} of the mask's pixels are others"
    if counts.tolist() != [int((mask == k).sum()) for k in range(LABELS.n_classes)]:
        return "between", f"the check counts {counts}"
    apart = abs(image - seen)
    starts = itertools.product(range(0, len(apart), 8), range(0, len(apart[0]), 8))
    blocks = [apart[y : y + 8, x : x + 8].sum() / (8 * 8 * 3) for y, x in starts]
    mean, block = (checking.JPEG_MEAN, checking.JPEG_BLOCK) if is_jpeg else (0, 0)
    if apart.mean() > mean or max(blocks) > block:
        return "between", f"the picture's pixels are {apart.mean():.2f} apart, a block's {max(blocks):.2f}"
    return "equal", f"{apart.mean():.2f} {max(blocks):.2f}" if is_jpeg else ""


def fuzz(folder: Path, numbers, seed: int, check=checking.check_pair) -> tuple[dict, list[str]]:
    """How often each kind was judged how, and a line for each pair that is a fault."""
    table, faults = collections.defaultdict(collections.Counter), []
    for number in numbers:
        pair, odd, kind, good = make_pair(folder, seed, number)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            verdict, why = judge(pair, odd, check)
        table[kind][verdict] += 1
        if verdict == "between" or (good and verdict == "refused"):
            faults.append(f"pair {number}: {kind}: {verdict}: {why}")
        for path in pair:
            path.unlink()  # the files of a pair that ends Python stay
    return table, faults


def main(arguments=None) -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("number", type=int, nargs="?", default=1000, help="how many pairs")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--only", type=int, metavar="NUMBER", help="make this pair alone, keep its files and say why")
    options = parser.parse_args(arguments)
    if options.only is not None:
        pair, odd, kind, _ = make_pair(Path(tempfile.mkdtemp(prefix="fuzzing_")), options.seed, options.only)
        print(odd, kind, *judge(pair, odd, checking.check_pair), sep="\n")
        return 0
    with tempfile.TemporaryDirectory(prefix="fuzzing_") as folder:
        table, faults = fuzz(Path(folder), range(options.number), options.seed)
    verdicts = ("refused", "equal", "between")
    rows = [(kind, count.total(), *(count[verdict] for verdict in verdicts)) for kind, count in sorted(table.items())]
    rows.append(("together", *(sum(row[k] for row in rows) for k in range(1, 5))))
    for row in [("kind", "tried", *verdicts), *rows]:
        print(f"{row[0]:32}" + "".join(f"{cell:>9}" for cell in row[1:]))
    print(*faults, sep="\n")
    return 1 if faults else 0


if __name__ == "__main__":
    sys.exit(main())
