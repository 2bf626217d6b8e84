"""The streets of the data set `demo`: what stands where in each drive, its weather and its light."""

from functools import lru_cache

import numpy as np

from .raycast import CELL, CLASSES, HIGH, NONE, REACH, SHAPES, SIDEWALK, SOLID, SURFACES, VEGETATION, corners_of, trace

DRIVES = ("02_00", "02_01", "02_02", "03_00", "03_01", *(f"{i:02d}_00" for i in range(4, 11)),
          *(f"F{i}" for i in (*range(1, 11), *range(61, 71))))  # the real data set's names
# One letter a drive. Weather: Noon, Overcast, Dusk, Rain, Fog; street: Suburb, Town, Avenue.
WEATHER_OF_DRIVE = dict(zip(DRIVES, "NORDFNONDFNRNDONFORRDNODFNOROFON", strict=True))
STREET_OF_DRIVE = dict(zip(DRIVES, "STASTASTASTASSTSTASATSSSATAATSSA", strict=True))
WEATHER = {  # sun, light of the sky, zenith, horizon (RGB); sun's height (tan), clouds, sight (m)
    "N": ((2.6, 2.4, 2.1), (.55, .65, .85), (.10, .25, .65), (.55, .70, .90), 1.1, .35, 700),
    "O": ((.15, .15, .15), (1, 1.03, 1.08), (.50, .54, .60), (.80, .82, .85), 1.5, .9, 300),
    "D": ((1.6, .85, .45), (.33, .34, .44), (.14, .18, .34), (.95, .58, .32), .35, .5, 260),
    "R": ((0, 0, 0), (.62, .68, .74), (.30, .33, .37), (.52, .55, .58), 1.5, 1, 140),
    "F": ((.1, .1, .1), (.85, .87, .9), (.66, .68, .70), (.70, .72, .73), 1.5, .1, 48)}
TINTS = {name: np.square(colours) for name, colours in {  # one is drawn for each thing
    "car": [(.05, .05, .06), (.9, .9, .9), (.6, .62, .65), (.35, .36, .38), (.6, .08, .08),
            (.1, .2, .5), (.1, .3, .2), (.75, .6, .15), (.5, .4, .3)],
    "house": [(.8, .76, .68), (.6, .35, .28), (.7, .62, .5), (.55, .56, .58), (.86, .86, .84),
              (.5, .4, .34), (.62, .68, .7), (.75, .55, .4)],
    "tile": [(.4, .28, .24), (.3, .3, .32), (.5, .3, .22), (.35, .3, .27)],
    "leaf": [(.27, .35, .16), (.33, .38, .18), (.24, .31, .17), (.4, .38, .18)],
    "bark": [(.32, .27, .22), (.25, .23, .21), (.47, .4, .32)],
    "skin": [(.94, .75, .63), (.84, .63, .5), (.58, .41, .31)],
    "hair": [(.12, .1, .1), (.3, .2, .14), (.62, .5, .3), (.6, .6, .6)],
    "coat": [(.92, .78, .25), (.85, .2, .16), (.3, .55, .88), (.92, .9, .88), (.32, .6, .35),
             (.95, .55, .2), (.75, .77, .8), (.85, .45, .7), (.6, .4, .75)],
    "trousers": [(.28, .38, .62), (.12, .12, .15), (.33, .33, .36), (.48, .42, .33), (.3, .22, .17)],
    "metal": [(.2, .2, .2), (.35, .36, .36), (.55, .56, .55)], "dark": [(.1, .1, .1)],
    "bars": [(.15, .16, .15), (.4, .3, .2), (.75, .75, .72)], "white": [(.85, .85, .85)],
    "any": [(.2, .3, .2), (.2, .25, .4), (.5, .2, .15), (.4, .4, .4), (.6, .5, .3)]}.items()}
# Each thing's solids. x points away from the road, z along it; a box narrows towards its top by the shares `taper` in x
# and z. COPIES: the signs of x, y and z in each place where the solid stands.
COPIES = {"one": [(1, 1, 1)],
          "pair": [(1, 1, 1), (-1, 1, 1)],
          "step": [(1, 1, 1), (-1, 1, -1)],  # one leg is in front, the other behind
          "four": [(1, 1, 1), (-1, 1, 1), (1, 1, -1), (-1, 1, -1)]}
PEOPLE = ["walker", "walker", "walker", "stander", "skirt"]
# A person at 25 m is 12 pixels tall: limbs stand further apart and hands and heads are larger than real, to be visible.
MODELS = """ class   surface shape     tint     x    y    z     half sizes      taper  copies
car     vehicle    paint  box       car     0    .62  0     .87  .32  2.15  .12 .08  one
car     vehicle    glass  box       car     0    1.2 -.35   .8   .3   1.35  .22 .42  one
car     vehicle    tyre   ellipsoid dark   .82   .33  1.33  .13  .33  .33   0   0    four
suv     vehicle    paint  box       car     0    .75  0     .92  .4   2.2   .08 .05  one
suv     vehicle    glass  box       car     0    1.45 -.5   .86  .32  1.65  .18 .2   one
suv     vehicle    tyre   ellipsoid dark   .86   .37  1.36  .14  .38  .38   0   0    four
van     vehicle    paint  box       car     0    .75  0     .95  .45  2.4   .06 .05  one
van     vehicle    glass  box       car     0    1.65 -.3   .9   .5   2.05  .12 .16  one
van     vehicle    tyre   ellipsoid dark   .88   .35  1.5   .14  .36  .36   0   0    four
truck   vehicle    plain  box       house   0    2.1 -.8    1.2  1.4  3     0   0    one
truck   vehicle    glass  box       car     0    1.5  3.1   1.1  1.1  .85   .08 .1   one
truck   vehicle    paint  box       car     0    .62  0     1.1  .25  3.8   0   0    one
truck   vehicle    tyre   ellipsoid dark   1.05  .45  2.4   .15  .45  .45   0   0    four
bus     vehicle    glass  box       car     0    1.95 0     1.25 1.05 5     .04 .02  one
bus     vehicle    paint  box       car     0    .65  0     1.25 .35  5     0   0    one
bus     vehicle    tyre   ellipsoid dark   1.15  .45  3.1   .15  .45  .45   0   0    four
walker                pedestrian plain box       dark     .17  .05 -.28  .06  .05 .13   0   0   step
walker                pedestrian plain box       trousers .16  .24 -.21  .06  .17 .075  0   0   step
walker                pedestrian plain box       trousers .14  .53 -.12  .075 .15 .085  0   0   step
walker                pedestrian plain box       trousers .1   .8  -.04  .09  .15 .1    0   0   step
walker                pedestrian plain box       coat     .24 1.28  .03  .055 .16 .065  0   0   step
walker                pedestrian plain box       coat     .33 1.03  .12  .05  .13 .06   0   0   step
walker                pedestrian plain ellipsoid skin     .36  .86  .18  .07  .09 .07   0   0   step
stander               pedestrian plain box       dark     .17  .05 -.04  .06  .05 .13   0   0   pair
stander               pedestrian plain box       trousers .16  .31  0    .06  .24 .075  0   0   pair
stander               pedestrian plain box       trousers .11  .74  0    .085 .2  .095  0   0   pair
skirt                 pedestrian plain box       dark     .15  .05 -.04  .055 .05 .12   0   0   pair
skirt                 pedestrian plain box       skin     .15  .32  0    .06  .24 .065  0   0   pair
skirt                 pedestrian plain box       trousers 0    .74  0    .25  .22 .2    .4  .35 one
stander+skirt         pedestrian plain box       coat     .24 1.28  0    .055 .16 .065  0   0   pair
stander+skirt         pedestrian plain box       skin     .33 1.03 -.03  .05  .13 .06   0   0   pair
stander+skirt         pedestrian plain ellipsoid skin     .36  .86 -.06  .07  .09 .07   0   0   pair
walker+stander+skirt  pedestrian plain cylinder  coat     0   1.16  0    .175 .28 .12   0   0   one
walker+stander+skirt  pedestrian plain box       coat     0   1.42  0    .23  .05 .09   .3  .2  one
walker+stander+skirt  pedestrian plain ellipsoid skin     0   1.6   0    .13  .17 .13   0   0   one
walker+stander+skirt  pedestrian plain ellipsoid hair     0   1.73  .03  .13  .08 .13   0   0   one
lamp    pole       plain  cylinder  metal   0    3.2  0     .065 3.2  .065  0   0    one
lamp    pole       plain  box       metal -1.0   6.3  0     1.0  .04  .04   0   0    one
lamp    pole       plain  box       metal -2.1   6.3  0     .3   .07  .13   0   0    one
mast    pole       plain  cylinder  bark    0    4.2  0     .09  4.2  .09   0   0    one
mast    pole       plain  box       bark    0    7.8  0     .9   .06  .06   0   0    one
signal  pole       plain  cylinder  metal   0    2.8  0     .07  2.8  .07   0   0    one
signal  pole       plain  box       metal -2.2   5.5  0     2.2  .05  .05   0   0    one
signal  sign       plate  box       dark  -4     5.2 -.1    .18  .48  .14   0   0    one
signal  sign       plate  box       dark   -.2   2.6 -.2    .16  .42  .14   0   0    one
sign    pole       plain  cylinder  metal   0    1.3  0     .035 1.3  .035  0   0    one
sign    sign       plate  box       white   0    2.35 -.06  .37  .37  .02   0   0    one
bin     other      plain  cylinder  any     0    .5   0     .3   .5   .3    0   0    one
bench   other      plain  box       any     0    .45  0     .25  .04  .9    0   0    one
bench   other      plain  box       any    .22   .72  0     .04  .22  .9    0   0    one
bench   other      plain  box       dark    0    .22  .75   .22  .22  .04   0   0    four
box     other      plain  box       any     0    .65  0     .3   .65  .45   0   0    one
stop    other      glass  box       metal  .7    1.3  0     .04  1.1  1.9   0   0    one
stop    other      plain  box       metal   0    2.45 0     .95  .07  2.1   0   0    one
stop    other      brick  box       any     0    1.2  1.9   .7   1.2  .05   0   0    one
kiosk   other      facade box       any     0    1.2  0     .9   1.2  1.2   0   0    one
kiosk   other      plain  box       any     0    2.5  0     1.1  .12  1.4   .2  .2   one
house+gable+flats     building   facade box   house   0    .5   0     1    .5   1   0   0    one
house   building   roof   box       tile    0    1.2  0     1.1  .2   1.05  1   0    one
house   building   brick  box       house   .2   1.4  .4    .07  .12  .05   0   0    one
villa   building   facade box       house   0    .5   0     1    .5   .9    0   0    one
villa   building   roof   box       tile    0    1.18 0     1.12 .19  1     .95 .6   one
villa   building   facade box       house -1     .27  .5    .4   .27  .38   0   0    one
gable   building   roof   box       tile    0    1.22 0     1.05 .23  1.1   0   1    one
flats   building   plain  box       tile    0    1    0     1.05 .015 1.02  0   0    one
fence   fence      bars   box       bars    0    .75  0     .03  .75  1     0   0    one
wall    wall       brick  box       house   0    .55  0     .13  .55  1     0   0    one
hedge   vegetation leaves box       leaf   .4    .6   0     .45  .6   1     .25 .02  one
tree    vegetation plain  cylinder  bark    0    2.2  0     .16  2.2  .16   0   0    one
tree    vegetation leaves ellipsoid leaf    0    4.9  0     1.7  1.5  1.7   0   0    one
tree    vegetation leaves ellipsoid leaf   .9    4.3  .6    1.2  1.1  1.3   0   0    one
tree    vegetation leaves ellipsoid leaf  -.8    4.5 -.8    1.3  1.2  1.2   0   0    one
tree    vegetation leaves ellipsoid leaf  -.3    5.9  .5    1.1  1.1  1.1   0   0    one
bare    vegetation plain  cylinder  bark    0    2.4  0     .17  2.4  .17   0   0    one
bare    vegetation plain  cylinder  bark    .4   5.2  .3    .07  1.9  .07   0   0    one
bare    vegetation twigs  ellipsoid bark    0    5.6  0     2.2  2.6  2.2   0   0    one
bare    vegetation twigs  ellipsoid bark   1.0   4.6  .8    1.5  1.6  1.6   0   0    one
bare    vegetation twigs  ellipsoid bark   -.9   4.8 -.9    1.6  1.7  1.5   0   0    one
birch   vegetation plain  cylinder  metal   0    2    0     .09  2    .09   0   0    one
birch   vegetation leaves ellipsoid leaf    0    4.6  0     1.1  2.2  1.1   0   0    one
birch   vegetation leaves ellipsoid leaf   .4    3.7  .2    1    1.3  1     0   0    one
fir     vegetation plain  cylinder  bark    0    .6   0     .15  .6   .15   0   0    one
fir     vegetation leaves box       leaf    0    2.6  0     1.5  1.9  1.5   .8  .8   one
fir     vegetation leaves box       leaf    0    4.8  0     .95  1.7  .95   .95 .95  one
bush    vegetation leaves ellipsoid leaf    0    .6   0     .8   .75  1     0   0    one
bush    vegetation leaves ellipsoid leaf   .3    .5   1     .7   .6   .7    0   0    one"""


def _read_models() -> dict[str, list[tuple]]:
    """MODELS by name: [((class, surface, shape), tint, offset, half sizes, taper, signs), ...]"""
    models: dict[str, list[tuple]] = {}
    for line in MODELS.splitlines()[1:]:
        names, label, surface, shape, tint, *numbers, copies = line.split()
        kind = (CLASSES.index(label), SURFACES.index(surface), SHAPES.index(shape))
        offset, half, taper = np.split(np.array(numbers, float), (3, 6))
        for name in names.split("+"):  # what several people have is listed once
            models.setdefault(name, []).append((kind, tint, offset, half, taper, COPIES[copies]))
    return models


PARTS = _read_models()


class Street:
    """What stays the same during a drive: the road, what stands beside it, weather, shadows."""

    def __init__(self, drive: str, seed: int, n_frames: int):
        self.rng = rng = np.random.default_rng([seed, DRIVES.index(drive)])
        self.kind, self.weather = STREET_OF_DRIVE[drive], WEATHER_OF_DRIVE[drive]
        light = [np.float32(value) for value in WEATHER[self.weather]]
        self.sun, self.ambient, self.zenith, self.horizon = (
            colour * rng.uniform(.85, 1.15) * rng.uniform(.95, 1.05, 3).astype("f4") for colour in light[:4])
        self.zenith, self.horizon = np.float32([self.zenith, self.horizon]) * rng.uniform(.9, 1.8)
        slope, self.clouds, self.sight = np.array(light[4:]) * rng.uniform(.75, 1.3, 3)
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
