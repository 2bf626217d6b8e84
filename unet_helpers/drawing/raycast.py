"""A small ray caster in NumPy.

`trace` finds the nearest solid along each ray; `ground_at`, `surface_at` and `sky_at` give class and colour there;
`light_up` adds light, shadows and mist, `wet_road` rain. World axes, metres: x to the right, y up, z along the street.
Colours are linear light, 0..1. M: the pixels that a function gets, k: the indices of those that a step is about."""

import numpy as np

CLASSES = ["none", "building", "fence", "other", "pedestrian", "pole", "line", "road", "sidewalk",
           "vegetation", "vehicle", "wall", "sign"]  # in the order of their ids
NONE, BUILDING, LINE, ROAD, SIDEWALK, VEGETATION, VEHICLE = map(CLASSES.index, (
    "none", "building", "line", "road", "sidewalk", "vegetation", "vehicle"))
SURFACES = ["plain", "facade", "roof", "brick", "paint", "glass", "tyre", "leaves", "twigs", "bars", "plate"]
PLAIN, FACADE, ROOF, BRICK, PAINT, GLASS, TYRE, LEAVES, TWIGS, BARS, PLATE = range(11)
SHAPES = ["box", "cylinder", "ellipsoid"]
BOX, CYLINDER, ELLIPSOID = range(3)
# phase: 0..1, random, makes each solid's pattern unique; phase * 7 % 1, * 13 and so on are further such numbers, nearly
# independent; geometry: x, y, z of the middle, half sizes, cos and sin of the turn, the taper in x and z
SOLID = np.dtype([("label", "u1"), ("look", "u1"), ("shape", "u1"), ("phase", "f4"), ("colour", "f4", 3),
                  ("geometry", "f4", 10)])
SKY, GROUND = -1, -2  # in place of a solid's index where none is seen
CELL, REACH, HIGH = .3, 27., 60.  # shadow maps, metres: a cell; how far they reach from the road's middle; their height


def _make_noise(size: int = 512) -> np.ndarray:
    """A cloudy pattern that repeats without a seam: (size, size) float32, evenly spread 0..1."""
    spectrum = np.fft.rfft2(np.random.default_rng(7).normal(size=(size, size)))
    frequency = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size))
    pattern = np.fft.irfft2(spectrum / np.maximum(frequency, 1 / size) ** 1.15)
    return (pattern.ravel().argsort().argsort() / size**2).astype("f4").reshape(size, size)


NOISE, WHITE_NOISE = _make_noise(), np.random.default_rng(8).random((512, 512), "f4")


def noise(u, v, cell: float = 1., table: np.ndarray = NOISE) -> np.ndarray:
    """The pattern of a table, NOISE or WHITE_NOISE, at (u, v) metres if a cell is `cell` metres wide."""
    return table[np.floor(v / cell).astype("i4") & 511, np.floor(u / cell).astype("i4") & 511]


def corners_of(solids: np.ndarray) -> np.ndarray:
    """The corners of the solids' boxes in the world: (3, 8, N)."""
    x, y, z, hx, hy, hz, cos, sin = solids["geometry"].T[:8]
    a, b, c = (np.indices((2, 2, 2)).reshape(3, 8, 1) * 2 - 1) * np.stack([hx, hy, hz])[:, None]
    return np.stack([x + a * cos + c * sin, y + b, z - a * sin + c * cos])


def _candidates(rows, columns, shape: tuple[int, int]):
    """All (solid, pixel) in the rectangles around the projected corners (8, N): two (M,) ints."""
    (top, end), (left, right) = (
        [np.clip(edge, 0, n).astype("i4") for edge in (at.min(0), at.max(0) + 1)]
        for at, n in ((rows, shape[0]), (columns, shape[1])))
    wide, count = right - left, (right - left) * (end - top)
    solid = np.repeat(np.arange(len(count)), count)
    k = np.arange(len(solid)) - np.repeat(np.cumsum(count) - count, count)
    return solid, (top[solid] + k // wide[solid]) * shape[1] + left[solid] + k % wide[solid]


def to_local(geometry, origin, ray):
    """Origins and rays in the solids' own axes, where a solid fills -1..1: two tuples x, y, z."""
    x, y, z, hx, hy, hz, cos, sin = geometry[:8]
    ox, oy, oz = origin[0] - x, origin[1] - y, origin[2] - z
    return (((ox * cos - oz * sin) / hx, oy / hy, (ox * sin + oz * cos) / hz),
            ((ray[0] * cos - ray[2] * sin) / hx, ray[1] / hy, (ray[0] * sin + ray[2] * cos) / hz))


def _cut(geometry, shape, o, d):
    """The t where rays o + t d enter and leave their solids, (M,) each; a miss: enter > leave."""
    flat = shape == BOX
    enter, leave = np.full(len(shape), -1e9, "f4"), np.full(len(shape), 1e9, "f4")
    for axis, taper in ((0, geometry[8] / 2), (1, 0), (2, geometry[9] / 2)):  # pairs of planes
        for sign in (-1, 1):
            steep = sign * d[axis] + taper * d[1]
            t = (1 - taper - sign * o[axis] - taper * o[1]) / np.where(steep == 0, 1e-9, steep)
            use = flat | (axis == 1)
            np.maximum(enter, t, out=enter, where=use & (steep < 0))
            np.minimum(leave, t, out=leave, where=use & (steep >= 0))
    k = np.flatnonzero(~flat)  # round ones: a t^2 + 2 b t + c = 0; a cylinder's y has no weight
    (ox, oy, oz), (dx, dy, dz) = ([np.broadcast_to(a, flat.shape)[k] for a in v] for v in (o, d))
    weight = shape[k] == ELLIPSOID
    a = dx * dx + dz * dz + weight * dy * dy + 1e-9
    b, c = ox * dx + oz * dz + weight * oy * dy, ox * ox + oz * oz + weight * oy * oy - 1
    root = np.sqrt(np.maximum(b * b - a * c, 0))
    enter[k] = np.where(root > 0, np.maximum(enter[k], (-b - root) / a), 1e9)
    leave[k] = np.minimum(leave[k], (-b + root) / a)
    return enter, leave


def _is_hole(look, phase, size, p, thick, pixel):
    """True where one sees through: between leaves, between bars, beside a sign's plate. (M,)"""
    u, v, w = p * size  # metres from the solid's middle
    ragged = .5 * noise(u + w + 40 * phase, v + w / 2, .09) + .5 * noise(u + 7 * w, v, .1, WHITE_NOISE)
    thick = thick / size.min(0)
    leaves = ragged > np.where(look == TWIGS, .3 + .12 * thick, .25 + .4 * thick)
    spacing, gap = np.where(phase < .5, .17, .12), np.select([phase < .3, phase < .5], [.12, .45], .65)
    between = (w / spacing % 1 > 1 - gap) & (spacing > 1.5 * pixel)  # far bars melt into one
    rail, post = np.abs(np.abs(v) - size[1] * .8) < .05, np.abs(w) % 2.2 < .1
    bars = between & ~rail & ~post
    x, y = np.abs(p[0]), p[1]
    circle, triangle, square = np.hypot(x, y), x + (y + 1) / 2, np.maximum(x, abs(y))
    octagon = np.maximum(square, (x + abs(y)) / 1.4)
    reach = np.select([phase < .35, phase < .55, phase < .7], [circle, triangle, octagon], x)
    plate = (reach > 1) & (size[2] < .1)
    return np.select([look <= TWIGS, look == BARS], [leaves, bars], plate)


def trace(solids, corners, shape, origin, rays, spread: float):
    """The nearest solid along each ray: depth (P,) in units of the ray, 1e9 = none; index (P,), SKY = none.
    corners: rows and columns of the solids' corners, (8, N) each; shape: rows and columns of the image, P = rows *
    columns; origin, rays: (3, P) or (3, 1); spread: the width of a pixel at depth 1."""
    n_pixels = shape[0] * shape[1]
    solid, pixel = _candidates(*corners, shape)
    geometry = np.ascontiguousarray(solids["geometry"].T)[:, solid]
    origin, rays = (v if v.shape[1] == 1 else v[:, pixel] for v in (origin, rays))
    o, d = to_local(geometry, origin, rays)
    enter, leave = _cut(geometry, solids["shape"][solid], o, d)
    hit = np.flatnonzero((enter < leave) & (enter > .1))
    k = hit[solids["look"][solid[hit]] >= LEAVES]
    p = np.stack([o[a][k] + enter[k] * (d[a] if np.ndim(d[a]) == 0 else d[a][k]) for a in range(3)])
    holes = _is_hole(solids["look"][solid[k]], solids["phase"][solid[k]], geometry[3:6, k], p,
                     leave[k] - enter[k], enter[k] * spread)
    enter[k[holes]] = 1e9
    depth, index = np.full(n_pixels, 1e9, "f4"), np.full(n_pixels, SKY)
    np.minimum.at(depth, pixel[hit], enter[hit])
    hit = hit[(enter[hit] == depth[pixel[hit]]) & (enter[hit] < 1e9)]
    index[pixel[hit]] = solid[hit]
    return depth, index


def normal_at(p, shape, geometry):
    """Outward normals in the world (3, M) and the axis of the face (M,) at local points p."""
    hx, hy, hz, cos, sin, kx, kz = geometry[3:]
    x, y, z = p
    reach = np.stack([abs(x) + kx * (y + 1) / 2, abs(y), abs(z) + kz * (y + 1) / 2])
    face, box = reach.argmax(0), shape == BOX
    nx, nz = (np.where(box, np.sign(a) * (face == axis), a) / h for a, axis, h in ((x, 0, hx), (z, 2, hz)))
    slope = np.select([face == 1, face == 0], [np.sign(y), kx / 2], kz / 2)
    cap = np.where(abs(y) > .995, 99 * y, 0)
    ny = np.where(box, slope, np.where(shape == ELLIPSOID, y, cap)) / hy
    n = np.stack([nx * cos + nz * sin, ny, nz * cos - nx * sin])
    return n / np.sqrt((n * n).sum(0) + 1e-12), face


def ground_at(street, x, z, depth, pixel):
    """Class (M,) and colour (3, M) of the ground at (x, z); pixel: a pixel's width there, m."""
    across, along = x - street.bend(z), street.crossing(z)
    kerb, side_kerb = abs(across) - street.kerb, abs(along) - street.mouth  # metres to the two streets' kerbs
    if street.side:
        side_kerb = np.maximum(side_kerb, -street.side * across)
    # both streets in one, their corners rounded with a radius of 3 m
    beside = np.maximum(3, np.minimum(kerb, side_kerb)) - np.hypot(
        np.maximum(3 - kerb, 0), np.maximum(3 - side_kerb, 0))
    zone = np.searchsorted([0, .2, .2 + street.verge, street.edge - street.kerb], beside)
    has_garage = noise(across * 0 + (across > 0), z, 8, WHITE_NOISE) < .3
    to_garage = has_garage & (z % 8 < 3) & (beside < 12) & (side_kerb > 3)
    zone = np.where(to_garage & ((zone == 2) | (zone == 4)), 3, zone)
    label = np.array([ROAD, SIDEWALK, VEGETATION, SIDEWALK, street.yard], "u1")[zone]
    yard = {VEGETATION: street.grass, SIDEWALK: street.paving * .8, NONE: np.array([.22, .17, .11])}[street.yard]
    colour = np.array([street.asphalt, street.paving * 1.15, street.grass, street.paving, yard], "f4").T[:, zone]
    near, fine, grain = 1 / (1 + depth / 12), noise(x, z, .02), noise(x, z, .04, WHITE_NOISE)
    colour *= .65 + .45 * noise(x, z, .21) + (fine - .5) * .6 * near
    k = np.flatnonzero(label == VEGETATION)
    colour[:, k] *= 1 + 1.2 * (grain[k] - .5) * near[k]
    colour[0, k] *= .7 + .9 * noise(z[k], x[k], .37)  # dry patches
    k = np.flatnonzero(label == SIDEWALK)
    length = np.where(kerb[k] > side_kerb[k], across[k], z[k])
    joint = (beside[k] % 1.4 < .05) | (length % 1.4 < .05)
    colour[:, k] *= (1 - .4 * joint * near[k]) * (.9 + .2 * noise(across[k], z[k], 1.4, WHITE_NOISE))
    k = np.flatnonzero(label == ROAD)
    across, z, fine = across[k], z[k], fine[k]
    dark, pale = noise(across, z, 3.1, WHITE_NOISE) < .09, noise(across + 9, z, 4.7, WHITE_NOISE) < .06
    patch = np.select([dark, pale], [.7, 1.25], 1)
    crack = (abs(noise(across, z, .035) - .5) < .012) & (noise(across, z, .3) > .5)
    tyres = 1 - .08 * np.cos(4 * np.pi * across / street.lane)
    gutter = np.where(kerb[k] > -.35, .8, 1)
    lid = np.hypot(across % 9 - 2, z % 31 - 3) < .33
    colour[:, k] *= patch * tyres * np.where(crack, .6, 1) * gutter
    colour[:, k] *= np.where(lid, .5, 1)
    line, yellow = _lines(street, across, z, side_kerb[k], pixel[k])
    label[k] = np.where(line, LINE, ROAD)
    paint = np.where(yellow, np.array([[.6], [.42], [.06]]), .6) * (.6 + .4 * (fine > .25))
    colour[:, k] = np.where(line, paint, colour[:, k])
    return label, colour


def _lines(street, across, z, side_kerb, pixel):
    """True (M,) where the road is painted and where in yellow; side_kerb: metres to the side street."""
    half_width, from_middle, dash = np.maximum(.06, .2 * pixel), abs(across), z % 9 < 3.5
    if street.double_line:
        centre = abs(from_middle - .14) < half_width
    else:
        centre = (from_middle < half_width) & (dash | street.solid_line)
    line = centre | (abs(from_middle - street.lane) < half_width) & dash & (street.lanes > 1)
    if street.edge_line:
        line |= abs(from_middle - street.lane * street.lanes) < half_width
    line &= side_kerb > 4.6
    on_road = from_middle < street.kerb - .3
    if street.zebra:
        line |= (side_kerb > .8) & (side_kerb < 3.2) & (across % 1.2 < .5) & on_road
    approaching = across * street.crossing(z) < 0  # where one stops before the side street
    line |= (side_kerb > 3.9) & (side_kerb < 4.3) & approaching & on_road
    return line, centre & (side_kerb > 4.6) & (street.double_line or street.yellow_line)


def _facade(street, colour, along, high, phase, floor_height):
    """Walls with windows, doors, shops: colour (3, M), gloss (M,) and own light (M,)."""
    window_spacing, half_window = 1.9 + 1.8 * (phase * 7 % 1), .17 + .14 * (phase * 17 % 1)
    bay, storey = along / window_spacing + phase, high / floor_height
    luck = noise(bay, storey + phase * 500, 1., WHITE_NOISE)  # each window's own
    ground_floor, x, y = storey < 1, abs(bay % 1 - .5), storey % 1
    shop, door = ground_floor & (street.kind == "T"), ground_floor & (luck < .2)
    half = np.where(shop, .45, half_window)
    low, top = np.where(door, 0, np.where(shop, .12, .32)), np.where(door | shop, .72, .82)
    frame = (x < half + .03) & (y > low - .03) & (y < top + .03)
    pane = (x < half) & (y > low) & (y < top) & (x > .02)
    board = shop & (y > .76) & (y < .95)
    inside = np.where(door & ~shop, .05 + luck, .02 + .15 * (luck * 9 % 1) ** 3)
    board_colour = np.stack([luck, luck * 7 % 1, luck * 13 % 1]) * .45
    frame_colour = np.where(phase < .6, .5, .1)
    colour = np.select([board, pane, frame], [board_colour, inside, frame_colour], colour)
    lit = pane & (luck > .6) & (street.weather == "D")
    colour = np.where(lit, np.array([[.5], [.36], [.2]]), colour)
    return colour, np.where(pane & ~door, .55, 0), lit * 1.5


def surface_at(street, solids, p, normal, face, pixel):
    """Colour (3, M), gloss (M,) and own light (M,) at the points p (3, M) in the solids' axes. solids: (M,) SOLID,
    the one seen in each pixel; normal, face: of `normal_at`; pixel: a pixel's width there, m."""
    look, phase, geometry = solids["look"], solids["phase"], solids["geometry"].T
    u, v, w = p * geometry[3:6]
    upright, side, back = abs(normal[1]) < .6, face == 0, face == 2
    along, high = np.where(side, w, u), np.where(upright, v + geometry[1], w)
    colour = solids["colour"].T * (.75 + .5 * noise(along + 90 * phase, high, .08))
    gloss, glow = np.zeros((2, len(look)), "f4")
    k = np.flatnonzero((look == LEAVES) | (look == TWIGS))
    leaf = .5 * noise(along + w + 50 * phase, high + w, .06) + .5 * noise(u + w, v - w, .12, WHITE_NOISE)
    colour[:, k] *= (.2 + 1.7 * leaf * (.8 + .3 * p[1]))[k]
    k = np.flatnonzero((look == BRICK) | (look == FACADE) & (phase > .5) | (look == ROOF))
    course = np.where(look[k] == ROOF, .3, .16)
    row, seen = np.floor(high[k] / course), np.clip(course / pixel[k] / 4 - .3, 0, 1)
    stone = along[k] / course / 2 + row / 2
    colour[:, k] *= 1 - .35 * seen * ((high[k] / course % 1 < .2) | (stone % 1 < .08))
    colour[:, k] *= 1 + .4 * seen * (noise(stone, row, 1., WHITE_NOISE) - .5)
    k = np.flatnonzero((look == FACADE) & upright)
    floor_height = np.minimum(2.7 + .6 * (phase[k] * 13 % 1), geometry[4, k] * 2)
    colour[:, k], gloss[k], glow[k] = _facade(street, colour[:, k], along[k], high[k], phase[k], floor_height)
    k = np.flatnonzero(look == PAINT)  # a car's body: arches, lamps, number plate
    x, y, end = abs(p[0][k]), p[1][k], back[k]
    arch = np.hypot(abs(w[k]) - .62 * geometry[5, k], v[k] + geometry[1, k] - .33) < .42
    dark, lamp = (y < -.75) | side[k] & arch, end & (x > .62) & (y > .1) & (y < .62)
    rear, plate = lamp & (p[2][k] < 0), end & (x < .3) & (abs(y + .35) < .17)
    colour[:, k] = np.select([rear, lamp | plate], [np.array([[.45], [.02], [.02]]), .65],
                             colour[:, k] * np.where(dark, .08, 1))
    glow[k] = lamp * (street.weather in "DRF") * 3
    gloss[k] = np.where(dark | lamp, 0, .18)
    k = np.flatnonzero((look == GLASS) & (abs(normal[1]) < .93))
    post = np.where(side[k], abs(p[2][k] * 2 % 1 - .5) > .45, abs(p[0][k]) > .86)
    post |= (p[1][k] > .75) | (p[1][k] < -.9)
    colour[:, k], gloss[k] = np.where(post, colour[:, k], .015), np.where(post, .15, .5)
    colour[:, (look == TYRE) & (np.hypot(p[1], p[2]) < .6)] = .25
    k = np.flatnonzero((look == PLATE) & (geometry[5] < .1) & (p[2] < 0))  # a sign's front
    ring, ink = np.hypot(*p[:2, k]) > .7, (abs(p[1][k]) < .4) & (p[0][k] * 3 % 1 < .5)
    is_white, is_red = phase[k] * 31 % 1 < .55, phase[k] * 17 % 1 < .5
    red, blue = [[.5], [.03], [.04]], [[.03], [.1], [.4]]
    plate = np.select([is_white, is_red], [.7, red], blue)
    colour[:, k] = np.select([ink, is_white & ring], [np.where(is_white, .04, .7), red], plate)
    k = np.flatnonzero((look == PLATE) & (geometry[5] > .1) & back)  # traffic lights: one is on
    lit = int(street.step * 99) % 3  # green, yellow or red, from below
    glow[k] = 2 * (np.hypot(p[0][k] * .4, p[1][k] * 1.5 + 1 - lit) < .3)
    lamp = np.array([[.05, .5, .5], [.4, .3, .03], [.2, .02, .02]])[:, [lit]]
    colour[:, k] = np.where(glow[k] > 0, lamp, colour[:, k])
    return colour, gloss, glow


def sky_at(street, rays, drift: float):
    """Class (M,) and colour (3, M) beyond the street: sky, clouds, far trees and far houses. rays: (3, M);
    drift: how far the clouds have moved, in their own height above the ground."""
    flat = np.hypot(rays[0], rays[2])
    rise, angle = rays[1] / flat, np.arctan2(rays[0], rays[2])
    high = np.clip(rise * 1.6, 0, 1) ** .6
    colour = street.horizon[:, None] * (1 - high) + street.zenith[:, None] * high
    far = 1 / np.maximum(rise, .02)  # clouds lie in a plane overhead
    u, v = rays[0] / flat * far + drift, rays[2] / flat * far
    cloud = .65 * noise(u, v, .03) + .35 * noise(v, u, .008)
    cover = np.clip((cloud - 1 + street.clouds) * 3, 0, 1) * np.clip(rise * 8, 0, 1)
    white = (street.horizon.mean() * .3 + street.horizon * .7)[:, None] * (1.25 - .6 * cloud)
    colour = colour + cover * (white - colour)
    near = street.to_sun @ rays / np.sqrt((rays**2).sum(0) * (street.to_sun**2).sum())
    colour += street.sun[:, None] * (.35 * np.maximum(near, 0) ** 30 + 2 * (near > .9995))
    trees = .02 + street.woods * noise(angle, street.step * 9, .003)
    block = noise(angle, street.step * 9, .045, WHITE_NOISE)
    roofs = np.where(block < .4, .03 + .25 * block, 0)
    label = np.select([rise < trees, rise < roofs], [VEGETATION, BUILDING], NONE)
    lit = np.where(label == VEGETATION, street.grass[:, None] * .7, .25)
    lit, mist = lit * (street.ambient + .3 * street.sun)[:, None], np.exp(-160 / street.sight)
    colour = np.where(label == NONE, colour, lit * mist + street.horizon[:, None] * (1 - mist))
    return np.where(street.sight < 70, NONE, label), colour


def light_up(street, colour, normal, gloss, glow, world, depth):
    """The colours (3, M) in sun, sky light and shadow, with reflections and mist. world: points (3, M); depth: m."""
    x, y, z = world + .3 * normal  # a little outside, or surfaces would shade themselves
    up, toward = street.to_sun, street.to_sun / np.sqrt((street.to_sun**2).sum())
    shadow = street.shade(street.shadow, x - y * up[0], y, z - y * up[2], .12)
    sun = np.maximum(toward @ normal, 0) * (1 - shadow)
    sky = (.62 + .38 * normal[1]) * (1 - .55 * street.shade(street.cover, x, y, z, .5))
    sky *= np.clip(.6 + world[1] + normal[1], .3, 1)  # dark at the foot of walls
    light = street.sun[:, None] * sun + street.ambient[:, None] * sky
    reflection = street.horizon[:, None] * (.5 + .8 * noise(x + y, y * 2 + z, .15))
    colour = colour * (light * (1 - gloss) + glow) + gloss * (.5 + .5 * normal[1]) * reflection
    mist = np.exp(-depth / street.sight)
    return colour * mist + street.horizon[:, None] * (1 - mist)


def wet_road(image, on_ground, world, level):
    """Rain: the ground of an image (3, H, W) gets darker and reflects what is above the horizon, row `level`."""
    row, column = np.nonzero(on_ground)
    x, _, z = world[:, on_ground.ravel()]
    blur = (noise(x, z, .1) - .5) * .08 * len(on_ground)
    above = np.clip(2 * level - row + blur, 0, len(on_ground) - 1).astype("i4")
    water = .12 + .25 * np.clip(noise(x, z, .05) * 3 - 1.5, 0, 1)
    image[:, row, column] *= .6 * (1 - water)
    image[:, row, column] += water * image[:, above, column]
