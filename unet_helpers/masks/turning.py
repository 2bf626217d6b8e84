"""Whether a mask is to be turned along with its picture, which EXIF data turn upright: its size tells."""

from .reading import Picture
from .report import Faults

SIZES = "a mask and its picture need the same height x width; make the mask again in the picture's size"


def show_sizes(size: tuple[int, int], picture: Picture) -> str:
    return "{}x{}, its picture {}x{}".format(*size, *picture.upright)


def find_turns(items, pictures, masks, errors: Faults, warnings: Faults) -> list[int]:
    """For each pair, the orientation by which its mask is to be turned along with its picture; 1: it is upright.

    Labelling tools show pictures upright, and write masks in that size; what decodes pictures without their EXIF data
    makes masks of the stored size. Where both have the same size (square, upside down or mirrored) the mask is taken
    as upright, unless all masks of turned pictures whose size tells were made of stored pixels.
    """
    turns, told, untold = [], [], []
    for place, (item, picture, mask) in enumerate(zip(items, pictures, masks, strict=True)):
        turns.append(1)
        if not picture or not mask:
            continue
        if mask.size not in (picture.stored, picture.upright):
            errors.add(SIZES, item.mask_path, show_sizes(mask.size, picture))
        elif picture.stored != picture.upright:
            turns[place] = picture.orientation if mask.size == picture.stored else 1
            told.append(turns[place])
        elif picture.orientation > 1:
            untold.append(place)
    as_stored = bool(told) and all(turn > 1 for turn in told)
    for place in untold:
        if as_stored:
            turns[place] = pictures[place].orientation
        how = "as stored, like the other masks of turned pictures" if as_stored else "as upright"
        sentence = "its EXIF data turn it, and its size does not tell whether its mask is turned, too"
        warnings.add(f"{sentence}; the mask is taken {how}: look at this pair", items[place].image)
    return turns
