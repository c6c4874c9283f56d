"""Draw ten kinds of moving picture, each in time with its sound, before a backdrop of its own.

A shape is a function of x and y (1 is half the height of the thing), the time in seconds and the loudness from 0 to 1;
it returns where the thing is. `film` gives it a size, a place, a colour and a scene.
"""

from collections.abc import Callable, Iterator

import numpy as np

WIDTH, HEIGHT = 160, 120  # pixels

Array = np.ndarray
Shape = Callable[[Array, Array, float, float], Array]

# ---------------------------------------------------------------------------------------------------------------------
# The ten pictures: x, y (1 is half the height of the frame), seconds, loudness 0 to 1 -> where the thing is
# ---------------------------------------------------------------------------------------------------------------------


def vibrating_line(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Let a line between two posts swing as far as it is loud."""
    line = abs(y - 0.45 * loudness * np.cos(45 * time) * np.cos(1.57 * x)) < 0.07
    return (line & (abs(x) < 1)) | ((abs(abs(x) - 1) < 0.06) & (abs(y) < 0.3))


def swinging_disk(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Swing a disk, and let a ring run outwards from each stroke."""
    swing = x - 0.25 * np.sin(3 * time)
    radius = np.hypot(swing, y)
    return (radius < 0.35) | ((abs(radius - 1.05 + 0.6 * loudness) < 0.06) & (loudness > 0.1))


def flapping_wings(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Fly an angle on a loop; its wings beat with the song."""
    x, y = x - 0.4 * np.sin(1.7 * time), y - 0.3 * np.sin(2.3 * time)
    return (abs(y + (0.2 + 0.7 * loudness) * (abs(x) - 0.3)) < 0.1) & (abs(x) < 0.7)


def rubbing_stripes(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Shift the stripes of an oval body while it sings."""
    return ((x / 0.9) ** 2 + (y / 0.45) ** 2 < 1) & (np.sin(16 * x + 5 * loudness) > -0.2)


def spreading_rings(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Spread ripples on water, as wide as it is loud."""
    radius = np.hypot(x, 1.6 * y)
    return (np.sin(14 * radius - 9 * time) > 0.4) & (radius < 0.4 + 0.7 * loudness)


def turning_wheel(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Turn a wheel with spokes."""
    radius, spokes = np.hypot(x, y), abs(np.sin(2.5 * (np.arctan2(y, x) - 4 * time))) < 0.25
    return (abs(radius - 0.75) < 0.1) | (spokes & (radius < 0.75))


def falling_block(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Let a block fall on a plank at each knock."""
    block = (abs(x) < 0.3) & (abs(y + 0.6 - 0.75 * loudness) < 0.3)
    return block | ((abs(y - 0.6) < 0.08) & (abs(x) < 1))


def turning_beam(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Turn two beams about a lamp."""
    radius = np.hypot(x, y)
    return (radius < 0.25) | ((abs(np.cos(np.arctan2(y, x) - 3 * time)) > 0.9) & (radius < 1))


def speaking_face(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Open a mouth in a round face."""
    mouth = (x / 0.4) ** 2 + ((y - 0.25) / (0.05 + 0.35 * loudness)) ** 2 < 1
    eyes = np.hypot(abs(x) - 0.3, y + 0.3) < 0.09
    return (abs(np.hypot(x, y) - 0.85) < 0.07) | mouth | eyes


def swelling_throat(x: Array, y: Array, time: float, loudness: float) -> Array:
    """Swell a throat under two eyes."""
    return (np.hypot(abs(x) - 0.4, y + 0.45) < 0.22) | (np.hypot(x, 1.3 * (y - 0.2)) < 0.3 + 0.5 * loudness)


def background(generator: np.random.Generator) -> Array:
    """Paint a backdrop of soft colours with some hard-edged things in front: [HEIGHT, WIDTH, 3], 0 to 255."""
    coarse = generator.uniform(60, 195, 3) + generator.uniform(-45, 45, (4, 5, 3))
    down, along = np.linspace(0, 3, HEIGHT), np.linspace(0, 4, WIDTH)
    rows = np.maximum(0, 1 - abs(down[:, None] - np.arange(4)))  # linear interpolation as two matrices
    columns = np.maximum(0, 1 - abs(along[:, None] - np.arange(5)))
    picture = np.einsum("hr,rsc,ws->hwc", rows, coarse, columns)
    y, x = np.mgrid[:HEIGHT, :WIDTH]
    for _ in range(generator.integers(3, 8)):
        across, up = abs(x - generator.uniform(0, WIDTH)), abs(y - generator.uniform(0, HEIGHT))
        width, height = generator.uniform(3, 22, 2)
        thing = np.maximum(across / width, up / height) < 1 if generator.uniform() < 0.5 else across + up < width
        picture[thing] += generator.uniform(-60, 60, 3)
    return np.clip(picture, 0, 255)


def loudness(dry: Array, frames: int) -> Array:
    """Return the level of a dry sound in every frame of video, from 0 (silent) to 1."""
    edges = np.linspace(0, len(dry), frames + 1).astype(int)[:-1]
    level = np.sqrt(np.add.reduceat(dry**2, edges))
    return np.sqrt(np.minimum(1, level / max(1e-9, np.quantile(level, 0.95))))


def film(shape: Shape, generator: np.random.Generator, level: Array, rate: int) -> Iterator[Array]:
    """Yield the frames of a picture that moves with the sound, before its own background: u1 [HEIGHT, WIDTH, 3]."""
    scene = background(generator).astype(np.uint8)
    colour = (generator.uniform(0, 70, 3) + (170 if scene.mean() < 128 else 0)).astype(np.uint8)
    size, turn = generator.uniform(0.45, 0.8), generator.normal(0, 0.15)
    y, x = np.mgrid[:HEIGHT, :WIDTH].astype(np.float32)
    x = (x - WIDTH * generator.uniform(0.38, 0.62)) / (size * HEIGHT / 2)
    y = (y - HEIGHT * generator.uniform(0.42, 0.58)) / (size * HEIGHT / 2)
    x, y = np.cos(turn) * x + np.sin(turn) * y, np.cos(turn) * y - np.sin(turn) * x
    begin, sway = generator.uniform(0, 10), generator.integers(0, 3)
    for number, loud in enumerate(level):
        picture = np.roll(scene, round(sway * np.sin(0.3 * number)), axis=1)
        picture[shape(x, y, begin + number / rate, loud)] = colour
        yield picture
