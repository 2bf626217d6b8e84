"""Image files as bytes, also such as Pillow can't write, and what damages them."""

import io
import struct
import zlib

import numpy as np
from PIL import Image

from unet_helpers.images import ORIENTATION

PNG_START = b"\x89PNG\r\n\x1a\n"
ADAM7 = ((0, 0, 8, 8), (0, 4, 8, 8), (4, 0, 8, 4), (0, 2, 4, 4), (2, 0, 4, 2), (0, 1, 2, 2), (1, 0, 2, 1))


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


def write_tiff(samples, orientation=1) -> bytes:
    """(H, W, 3) uint8 or uint16 -> TIFF of one strip, plain."""
    height, width, _ = samples.shape
    data = samples.astype(samples.dtype.newbyteorder("<")).tobytes()
    behind = 8 + 2 + 10 * 12 + 4  # the table of ten entries
    entries = [  # number, type (3: of 2 bytes, 4: of 4 bytes), how many values, the value or its place
        (256, 4, 1, width), (257, 4, 1, height), (258, 3, 3, behind), (259, 3, 1, 1), (262, 3, 1, 2),
        (273, 4, 1, behind + 6), (274, 3, 1, orientation), (277, 3, 1, 3), (278, 4, 1, height), (279, 4, 1, len(data)),
    ]  # fmt: skip
    table = b"".join(struct.pack("<HHII", *entry) for entry in entries)
    bits = struct.pack("<3H", *[8 * samples.itemsize] * 3)
    return b"II*\0" + struct.pack("<IH", 8, len(entries)) + table + bytes(4) + bits + data


def save(array, kind="PNG", mode=None, **options) -> bytes:
    image = Image.fromarray(array)
    return save_image(image.convert(mode) if mode else image, kind, **options)


def save_image(image, kind="PNG", **options) -> bytes:
    file = io.BytesIO()
    image.save(file, kind, **options)
    return file.getvalue()


def exif(orientation) -> bytes:
    data = Image.Exif()
    data[ORIENTATION] = orientation
    return data.tobytes()


# ---- damages: each (rng, bytes) -> bytes ----


def truncated(rng, data):
    """Anywhere, or just before the end."""
    return data[: int(rng.integers(len(data) + 1))] if rng.random() < 0.5 else data[: -int(rng.integers(1, 25))]


def bit_flipped(rng, data):
    """Anywhere, or in the header."""
    data = bytearray(data)
    data[rng.integers(len(data) if rng.random() < 0.5 else min(60, len(data)))] ^= 1 << rng.integers(8)
    return bytes(data)


def bytes_flipped(rng, data):
    data = bytearray(data)
    for place in rng.integers(0, len(data), rng.integers(1, 9)):
        data[place] ^= int(rng.integers(1, 256))
    return bytes(data)


def zeroed(rng, data):
    start, length = rng.integers(len(data), size=2)
    return data[:start] + bytes(len(data[start : start + length])) + data[start + length :]


def cut_out(rng, data):
    start = rng.integers(len(data))
    return data[:start] + data[start + rng.integers(1, 40) :]


def noise_inserted(rng, data):
    """Anywhere, or behind the end."""
    start = int(rng.integers(len(data))) if rng.random() < 0.5 else len(data)
    return data[:start] + rng.bytes(int(rng.integers(1, 40))) + data[start:]


def split_chunks(data) -> list[tuple[bytes, bytes]]:
    chunks, place = [], len(PNG_START)
    while place < len(data):
        length, kind = struct.unpack(">I4s", data[place : place + 8])
        chunks.append((kind, data[place + 8 : place + 8 + length]))
        place += 12 + length
    return chunks


def join_chunks(chunks) -> bytes:
    return PNG_START + b"".join(chunk(*part) for part in chunks)


def chunk_moved(rng, data):
    """A chunk is missing, there twice, or in two parts."""
    chunks = split_chunks(data)
    which, place = rng.integers(len(chunks)), rng.integers(len(chunks) + 1)
    kind, content = chunks[which]
    half = rng.integers(len(content) + 1)
    damages = (
        chunks[:which] + chunks[which + 1 :],
        chunks[:place] + [chunks[which]] + chunks[place:],
        chunks[:which] + [(kind, content[:half]), (kind, content[half:])] + chunks[which + 1 :],
    )
    return join_chunks(damages[rng.integers(len(damages))])


def chunk_changed(rng, data):
    chunks = split_chunks(data)
    which = int(rng.integers(len(chunks)))
    chunks[which] = (chunks[which][0], bytes_flipped(rng, chunks[which][1] or b"\0"))
    return join_chunks(chunks)


def chunk_foreign(rng, data):
    chunks = split_chunks(data)
    kind = bytes(rng.choice([b"tRNS", b"PLTE", b"eXIf", b"iCCP", b"acTL", b"fdAT", b"tEXt", b"ABCD", b"abCd", b"sBIT"]))
    chunks.insert(rng.integers(len(chunks) + 1), (kind, rng.bytes(int(rng.integers(0, 30)))))
    return join_chunks(chunks)


def header_changed(rng, data):
    """The header says another size, depth or colour type, with a right CRC."""
    chunks = split_chunks(data)
    fields = list(struct.unpack(">IIBBBBB", chunks[0][1]))
    sides = [1, 24, 40, 9000, 5_000_000, 1 << 30]
    which = rng.integers(4)
    fields[which] = int(rng.choice((sides, sides, [1, 2, 3, 4, 8, 16], [0, 1, 2, 3, 4, 6])[which]))
    return join_chunks([(b"IHDR", struct.pack(">IIBBBBB", *fields)), *chunks[1:]])


def pixels_flipped(rng, data):
    """With a right CRC, the pixels' stream holds other bytes, fewer or more, or its end or checksum is off."""
    chunks = split_chunks(data)
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
    return join_chunks(chunks)


def entry_changed(rng, data):
    """An entry of a TIFF's first directory has another number, type, count or value."""
    start = struct.unpack("<I", data[4:8])[0]
    (n_entries,) = struct.unpack("<H", data[start : start + 2])
    place = start + 2 + 12 * int(rng.integers(n_entries))
    where, kind, values = ((0, "H", TAGS), (2, "H", range(14)), (4, "I", range(6)), (8, "I", SIDES))[rng.integers(4)]
    new = struct.pack(f"<{kind}", int(rng.choice(values)))
    return data[: place + where] + new + data[place + where + len(new) :]


STARTS = {PNG_START: "PNG", b"\xff\xd8\xff": "JPEG", b"BM": "BMP", b"GIF": "GIF", b"II*\0": "TIFF", b"RIFF": "WEBP"}
TAGS = (256, 257, 258, 259, 262, 274, 277, 278, 284, 317, 320, 338, 339, 34675)
SIDES = [*range(9), 16, 24, 32, 40, 255, 256, 5000, 32773, 34712, 5_000_000, 1 << 31]
DAMAGES = (truncated, bit_flipped, bytes_flipped, zeroed, cut_out, noise_inserted)
PNG_DAMAGES = (chunk_moved, chunk_changed, chunk_foreign, header_changed, pixels_flipped)


def damage(rng, data: bytes) -> tuple[bytes, str, bool]:
    """(a damaged file, what it was and what happened to it: "PNG, cut out", whether its checksums must tell)."""
    happened = DAMAGES[rng.integers(len(DAMAGES))]
    for start, special in ((PNG_START, PNG_DAMAGES), (b"II*\0", (entry_changed,))):
        if data.startswith(start) and rng.random() < 0.6:
            happened = special[rng.integers(len(special))]
    kind = next((kind for start, kind in STARTS.items() if data.startswith(start)), "other")
    return happened(rng, data), f"{kind}, {happened.__name__.replace('_', ' ')}", kind == "PNG" and happened in DAMAGES
