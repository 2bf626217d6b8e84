"""The streets of the data set `demo`: what stands where in each drive, its weather and its light."""

from functools import lru_cache
from pathlib import Path

import numpy as np

from .raycast import CELL, CLASSES, HIGH, NONE, REACH, SHAPES, SIDEWALK, SOLID, SURFACES, VEGETATION, corners_of, trace

DRIVES = ("02_00", "02_01", "02_02", "03_00", "03_01", *(f"{i:02d}_00" for i in range(4, 11)),
          *(f"F{i}" for i in (*range(1, 11), *range(61, 71))))  # the real data set's names
# One letter a drive. Weather: Noon, Overcast, Dusk, Rain, Fog; street: Suburb, Town, Avenue.
WEATHER_OF_DRIVE = dict(zip(DRIVES, "NORDFNONDFNRNDONFORRDNODFNOROFON", strict=True))
STREET_OF_DRIVE = dict(zip(DRIVES, "STASTASTASTASSTSTASATSSSATAATSSA", strict=True))
# The signs of x, y and z in each place where a solid of models.txt stands.
COPIES = {"one": [(1, 1, 1)],
          "pair": [(1, 1, 1), (-1, 1, 1)],
          "step": [(1, 1, 1), (-1, 1, -1)],  # one leg is in front, the other behind
          "four": [(1, 1, 1), (-1, 1, 1), (1, 1, -1), (-1, 1, -1)]}
PEOPLE = ["walker", "walker", "walker", "stander", "skirt"]


def _read_table(file: str) -> list[list[str]]:
    """The lines of a table beside this module, without comments, as words."""
    lines = Path(__file__).with_name(file).read_text("utf-8").splitlines()
    return [line.split() for line in lines if line and not line.startswith("#")]


def _read_models() -> dict[str, list[tuple]]:
    """models.txt by name: [((class, surface, shape), tint, offset, half sizes, taper, signs), ...]"""
    models: dict[str, list[tuple]] = {}
    for names, label, surface, shape, tint, *numbers, copies in _read_table("models.txt"):
        kind = (CLASSES.index(label), SURFACES.index(surface), SHAPES.index(shape))
        offset, half, taper = np.split(np.array(numbers, float), (3, 6))
        for name in names.split("+"):  # what several people have is listed once
            models.setdefault(name, []).append((kind, tint, offset, half, taper, COPIES[copies]))
    return models


PARTS = _read_models()
WEATHER = {letter: np.float32(numbers) for letter, *numbers in _read_table("weather.txt")}
TINTS = {name: np.square(np.array(numbers, float)).reshape(-1, 3) for name, *numbers in _read_table("tints.txt")}


class Street:
    """What stays the same during a drive: the road, what stands beside it, weather, shadows."""

    def __init__(self, drive: str, seed: int, n_frames: int):
        self.rng = rng = np.random.default_rng([seed, DRIVES.index(drive)])
        self.kind, self.weather = STREET_OF_DRIVE[drive], WEATHER_OF_DRIVE[drive]
        *light, rest = np.split(WEATHER[self.weather], (3, 6, 9, 12))
        self.sun, self.ambient, self.zenith, self.horizon = (
            colour * rng.uniform(.85, 1.15) * rng.uniform(.95, 1.05, 3).astype("f4") for colour in light)
        self.zenith, self.horizon = np.float32([self.zenith, self.horizon]) * rng.uniform(.9, 1.8)
        slope, self.clouds, self.sight = rest * rng.uniform(.75, 1.3, 3)
        # metres from frame to frame; the camera's height, m; the horizon, in image heights from the top
        self.step, self.eye, self.level = rng.uniform((5, 1.3, .42), (8, 1.8, .48))
        self.focal = .5 / np.tan(np.radians(rng.uniform(60, 95)) / 2)  # in image widths
        self.lane, self.lanes = rng.uniform(2.7, 3.3), rng.choice([1, 1, 1, 2])
        self.parking = 2.2 * (rng.random() < {"S": .4, "T": .5, "A": .2}[self.kind])
        self.kerb = self.lane * self.lanes + self.parking + .2  # from the middle of the road
        self.verge = {"S": rng.choice([0, 1.2]), "T": 0, "A": rng.uniform(0, 2)}[self.kind]
        self.edge = self.kerb + .2 + self.verge + rng.uniform(3.6, 6)  # where gardens begin
        self.bends = rng.uniform(3, 12) * (rng.random() < .6), rng.uniform(38, 60)
        # side streets: metres from one to the next; the first one's z; half their width, m
        self.block, self.corner, self.mouth = rng.uniform((70, 20, 3), (110, 70, 4.5))
        self.side = rng.choice([-1, 0, 1])  # on which side the side streets are; 0 = both
        double, yellow, zebra, rim = rng.random(4)
        self.double_line, self.solid_line = double < .4, double > .85
        self.yellow_line, self.zebra, self.edge_line = yellow < .4, zebra < .4, rim < .35
        self.trees = ["bare", "bare", "tree"] if rng.random() < .35 else ["tree", "tree", "birch"]
        self.woods = rng.choice([.07, .07, .2])
        self.asphalt = rng.uniform(.07, .2) * rng.uniform(.93, 1.07, 3)
        self.paving = rng.uniform(.18, .42) * np.array([1.05, 1, .93]) ** rng.uniform(-1, 1.5)
        self.grass = np.array([.10, .15, .04]) * rng.uniform(.6, 1.4) * rng.uniform(.8, 1.2, 3)
        self.yard = {"S": VEGETATION, "T": SIDEWALK, "A": rng.choice([VEGETATION, VEGETATION, NONE])}[self.kind]
        azimuth, self.length = rng.uniform(0, 2 * np.pi), n_frames * self.step + 100
        self.to_sun = np.float32([np.sin(azimuth) / slope, 1, np.cos(azimuth) / slope])
        self.rows: list[tuple] = []
        self.fill()
        self.solids = self.take()
        self.shadow = self.heights(self.to_sun)
        self.cover = self.heights(np.float32([0, 1, 0]))

    def bend(self, z):
        """The road's middle at z: its x. Everything beside the road follows it."""
        return self.bends[0] * np.sin(z / self.bends[1])

    def heading(self, z):
        """The road's direction at z, radians from straight on, positive to the right."""
        return np.arctan(self.bends[0] / self.bends[1] * np.cos(z / self.bends[1]))

    def crossing(self, z):
        """Metres along the street from the nearest side street's middle."""
        return (z - self.corner + self.block / 2) % self.block - self.block / 2

    def place(self, model: str, side: int, away: float, z: float, size=(1, 1, 1), turn=0.):
        """Add the solids of one thing. side: -1 left, 1 right of the road; away: metres from its middle; size: factors
        of x, y, z; turn: radians from the street's direction."""
        rng, yaw = self.rng, self.heading(z) + (np.pi if side < 0 else 0) + turn
        sin, cos, size = np.sin(yaw), np.cos(yaw), size * rng.uniform(.9, 1.12, 3)
        tints = {tint: rng.choice(TINTS[tint]) * rng.uniform(.7, 1.25) * rng.uniform(.9, 1.1, 3)
                 for tint in dict.fromkeys(part[1] for part in PARTS[model])}
        for kind, tint, offset, half, taper, copies in PARTS[model]:
            for signs in copies:
                x, y, depth = offset * size * signs
                at = side * away + self.bend(z) + x * cos + depth * sin, y, z - x * sin + depth * cos
                self.rows.append((*kind, rng.random(), tuple(tints[tint]), (*at, *half * size, cos, sin, *taper)))

    def place_person(self, models: list[str], side: int, away: float, z: float, turn: float):
        """Add a person, every sixth a child; the other arguments are those of `place`."""
        size = np.full(3, .68 if self.rng.random() < 1 / 6 else 1)
        self.place(self.rng.choice(models), side, away, z, size, turn)

    def take(self) -> np.ndarray:
        """The solids that were placed since the last call: (N,) SOLID."""
        rows, self.rows = self.rows, []
        return np.array(rows, SOLID)

    def fill(self):
        """Place what stands still: plots with their front borders, kerb-side things, parked cars."""
        rng, kind = self.rng, self.kind
        post = rng.choice(["lamp", "lamp", "mast"])
        for side in (-1, 1):
            z = -8.
            while z < self.length:
                width = rng.uniform(11, 20)
                if self.is_open(side, z + width / 2, width / 2 + 2.5):
                    self.fill_plot(side, z + width / 2, width)
                z += width
            for z in np.arange(rng.uniform(0, 9), self.length, rng.uniform(6, 9)):
                odds, kerb = rng.random(), self.kerb + rng.uniform(.5, .9)
                if self.is_open(side, z, 3) and odds < .28:
                    self.place(rng.choice(["box", "bin", "bench", "stop", "kiosk"]), side, self.edge - .9, z)
                elif self.is_open(side, z, 2) and odds < .42:
                    self.place("sign", side, kerb, z, rng.uniform(.75, 1.2, 3) * (1, 1.1, 1))
                elif self.is_open(side, z, 3) and odds < (.75 if kind == "A" else .55):
                    self.place(rng.choice(self.trees), side, kerb, z)
                if rng.random() < .14:
                    turn = rng.choice([0, np.pi]) + rng.normal(0, .6)
                    self.place_person(PEOPLE, side, self.edge - rng.uniform(.4, 2), z + 2, turn)
                if self.parking and self.is_open(side, z, 6) and rng.random() < .3:
                    self.place(rng.choice(["car", "car", "suv", "van"]), side, self.kerb - 1.1, z)
            for z in np.arange(rng.uniform(0, 20), self.length, rng.uniform(27, 38)):
                if self.is_open(side, z, 1):
                    self.place(post, side, self.kerb + .6, z)
        for z in np.arange(self.corner, self.length, self.block):
            if rng.random() < .6:
                self.place("signal", 1, self.kerb + .5, z + self.mouth + 1)

    def is_open(self, side: int, z: float, room: float) -> bool:
        """Whether no side street comes within `room` metres of z on this side."""
        return abs(self.crossing(z)) > self.mouth + room or self.side == -side

    def fill_plot(self, side: int, z: float, width: float):
        """A house, flats or trees, and towards the street a fence, wall, hedge or nothing."""
        rng, long = self.rng, width / 2 - .5
        town = self.kind == "T"
        odds = [.2, .1, .1, .6] if town else [.34, .38, .18, .1]
        border = rng.choice(["fence", "wall", "hedge", "bush"], p=odds)
        tall = rng.uniform(.8, 1.4)
        if border != "bush":
            self.place(border, side, self.edge + .3, z, (1, tall, long))
        built = rng.random() < {"S": .85, "T": .88, "A": .35}[self.kind]
        if built:
            deep, high = rng.uniform(4, 6), rng.uniform(3.2, 6.5)
            flats = town and rng.random() < .5
            model = "flats" if flats else rng.choice(["house", "villa", "gable"])
            front = 1.2 if town else rng.uniform(5, 9)
            self.place(model, side, self.edge + front + deep, z,
                       (deep, rng.uniform(7, 14) if flats else high, long - (0 if town else 1.5)))
        for _ in range(0 if town and built else rng.integers(1, 4)):
            model, back = rng.choice([*self.trees, "fir", "bush"]), rng.uniform(1.5, 4)
            self.place(model, side, self.edge + back, z + rng.uniform(-long, long),
                       np.full(3, rng.uniform(.7, 1.4) * rng.choice([1, 1, 1.4])))

    def traffic(self, frame: int, rng: np.random.Generator) -> np.ndarray:
        """What moves: cars ahead and oncoming, a person who crosses the road. (N,) SOLID."""
        self.rng, z, models = rng, frame * self.step, ["car", "suv", "van", "truck", "bus"]
        chance = (.6, .2, .1, .05, .05)
        if rng.random() < .3:
            away = (self.lanes - .5) * self.lane
            self.place(rng.choice(models, p=chance), 1, away, z + rng.uniform(10, 45))
        for k in range(rng.integers(0, 3)):
            away = (rng.integers(self.lanes) + .5) * self.lane
            self.place(rng.choice(models, p=chance), -1, away, z + rng.uniform(9, 30) + 40 * k)
        if rng.random() < .15:
            away, ahead = rng.uniform(-1, 1) * self.kerb, rng.uniform(8, 22)
            self.place_person(["walker"], 1, away, z + ahead, turn=1.6)
        return self.take()

    def heights(self, up: np.ndarray) -> np.ndarray:
        """Shadow map: how high the solids reach on the ray `up`, (3,) with y = 1, from each cell of the ground.
        (Cells along the street, across it) float32, metres."""
        shape = (int((self.length + 20) / CELL), int(2 * REACH / CELL))
        z, x = (np.indices(shape, "f4").reshape(2, -1) + .5) * np.float32(CELL)
        ground = np.stack([x - REACH + self.bend(z - 20), 0 * z, z - 20]).astype("f4")
        x, y, z = corners_of(self.solids)
        x, z = x - y * up[0], z - y * up[2]  # the corners' shadows
        beside = np.stack([x - self.bend(z) + slack for slack in (-1, 1)]).reshape(16, -1)
        depth, _ = trace(self.solids, ((z + 20) / CELL, (beside + REACH) / CELL), shape,
                          ground + HIGH * up[:, None], -up[:, None], CELL / HIGH)
        return np.maximum(HIGH - depth, 0).reshape(shape)

    def shade(self, heights: np.ndarray, x, y, z, soft: float) -> np.ndarray:
        """How much is in the shade of something higher: the share of 4 places `soft` m around."""
        share, last = np.zeros(len(x), "f4"), np.array(heights.shape) - 1
        for dx, dz in ((1, 0), (0, 1), (-1, 0), (0, -1)):
            row = (z + dz * soft + 20) / CELL
            column = (x + dx * soft - self.bend(z) + REACH) / CELL
            row, column = np.clip(row, 0, last[0]), np.clip(column, 0, last[1])
            share += heights[row.astype("i4"), column.astype("i4")] > y + .3
        return share / 4


get_street = lru_cache(maxsize=2)(Street)  # the frames of a drive are drawn one after the other
