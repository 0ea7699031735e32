"""Cells that wander, grow, condense, divide and die, drawn as in a microscope.

They push each other aside, leave the field and enter it. They are drawn in fluorescence, or in phase contrast (dark and
granular in a bright rim, and bright when they round up). After the ideas of Svoboda and Ulman, IEEE Trans Med Imaging
36, 310 (2017).
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from typing import Literal

import numpy as np

_LEAST_PIXELS = 9
_HARMONICS = np.arange(2, 5)


@dataclass(frozen=True)
class Cell:
    """A cell in one frame.

    Parameters
    ----------
    track, parent
        Its number in the lineage, and its mother's or 0.
    begin
        Its first frame.
    y, x, dy, dx
        Position and velocity, in pixels and pixels per frame.
    mature
        Radius at which it divides, in pixels.
    age, cycle
        Frames since birth, and from birth to division; both fall between frames.
    brightness
        Brightness of its stain.
    stretch, angle
        Length over width, and the direction of its length.
    bends
        Amplitudes of the harmonics of its outline.
    dies
        Age at which it dies; infinite for most.
    condensing, relaxing
        Frames of condensation before a division, and of relaxation after it.
    """

    track: int
    parent: int
    begin: int
    y: float
    x: float
    dy: float
    dx: float
    mature: float
    age: float
    cycle: float
    brightness: float
    stretch: float
    angle: float
    bends: tuple[float, ...]
    dies: float
    condensing: float
    relaxing: float

    @property
    def condensation(self) -> float:
        """From 0 between divisions to 1 right before and after one."""
        until = (self.cycle - self.age) / self.condensing
        since = self.age / self.relaxing if self.parent else 1.0
        return float(np.clip(1.0 - min(until, since), 0.0, 1.0))

    @property
    def radius(self) -> float:
        """Radius of a disk of its area, in pixels."""
        grown = math.sqrt(0.5 + 0.5 * min(self.age / self.cycle, 1.0))
        dying = 0.6 if self.age >= self.dies - 1 else 1.0
        return self.mature * grown * (1.0 - 0.25 * self.condensation) * dying


@dataclass(frozen=True)
class World:
    """Parameters of all cells of a movie.

    Parameters
    ----------
    radius
        Radius at which cells divide, in pixels.
    variety
        Spread of that radius and of brightness, as a share.
    cycle
        Frames from birth to division.
    condensing, relaxing
        Frames before and after a division in which it is visible.
    step, persistence, drift
        Motion a frame, in pixels; how much of it goes on; what all cells share.
    cover
        Share of the field that is covered in the first frame.
    death
        Probability of death per frame.
    flash
        Factor of the brightness of a condensed cell.
    parting, wobble, plate
        How far daughters lie from their mother and how far their middle does, in her radii; their length over width.
    contrast, markers
        Modality of the image, and markers of the truth.
    """

    radius: float
    variety: float
    cycle: float
    condensing: float
    relaxing: float
    step: float
    persistence: float
    drift: tuple[float, float]
    cover: float
    death: float
    flash: float
    parting: float
    wobble: float
    plate: float
    contrast: Literal["fluorescence", "phase"]
    markers: Literal["outlines", "eroded", "disks"]


def draw_movie(
    rng: np.random.Generator, shape: tuple[int, int], frames: int, world: World | None = None
) -> Iterator[tuple[np.ndarray, np.ndarray, list[Cell]]]:
    """Yield each frame of a movie.

    Parameters
    ----------
    rng
        The only source of chance.
    shape
        ``(Y, X)``.
    frames
        How many.
    world
        What the cells have in common; drawn by chance when left out.

    Yields
    ------
    image : numpy.ndarray
        float32 (Y, X) in 0 … 1.
    labels : numpy.ndarray
        int32 (Y, X), every pixel the number of its cell's track.
    cells : list of Cell
        Those that are seen.
    """
    world = world or draw_world(rng)
    still = _noise(rng, shape, 12.0)
    grain = rng.uniform(0.01, 0.04)
    cells = _settle(rng, shape, world)
    tracks = len(cells)
    for frame in range(frames):
        if frame:
            cells, tracks = _advance(rng, cells, tracks, frame, shape, world)
        labels, signal = _draw(rng, cells, shape, world)
        seen = set(np.unique(labels[labels > 0]).tolist())
        # A cell that is hidden once does not come back under its number.
        cells = [cell for cell in cells if cell.track in seen]
        light = 1.0 + 0.1 * still
        image = light * signal + rng.normal(0.0, grain, shape)
        yield np.clip(image, 0.0, 1.0).astype(np.float32), labels, cells


def draw_world(rng: np.random.Generator) -> World:
    """Draw what the cells of a movie have in common."""
    radius = float(np.exp(rng.uniform(math.log(4.5), math.log(13.0))))
    phase = rng.random() < 0.4
    return World(
        radius=radius,
        variety=rng.uniform(0.05, 0.3),
        cycle=rng.uniform(15.0, 60.0),
        condensing=rng.uniform(0.5, 3.0),
        relaxing=float(np.exp(rng.uniform(math.log(0.3), math.log(4.0)))),
        step=radius * float(np.exp(rng.uniform(math.log(0.05), math.log(0.45)))),
        persistence=rng.uniform(0.0, 0.6),
        drift=(rng.normal(0.0, 0.05) * radius, rng.normal(0.0, 0.05) * radius),
        cover=rng.uniform(0.05, 0.45),
        death=rng.choice([0.0, 0.002, 0.006]),
        flash=rng.uniform(1.1, 3.2),
        parting=rng.uniform(0.75, 1.7),
        wobble=rng.uniform(0.05, 0.5),
        plate=rng.uniform(1.0, 1.9),
        contrast="phase" if phase else "fluorescence",
        markers=str(rng.choice(["outlines", "eroded", "disks"])),  # type: ignore[arg-type]
    )


def _settle(rng: np.random.Generator, shape: tuple[int, int], world: World) -> list[Cell]:
    """Place the first cells, few of which overlap."""
    wanted = max(3, round(world.cover * shape[0] * shape[1] / (math.pi * (0.85 * world.radius) ** 2)))
    cells: list[Cell] = []
    for _ in range(6 * wanted):
        if len(cells) == wanted:
            break
        y, x = rng.uniform(0, shape[0]), rng.uniform(0, shape[1])
        if all((y - c.y) ** 2 + (x - c.x) ** 2 > (1.6 * world.radius) ** 2 for c in cells):
            cells.append(_new(rng, world, len(cells) + 1, 0, y, x, rng.uniform(0.0, 0.9)))
    return cells


def _new(rng: np.random.Generator, world: World, track: int, frame: int, y: float, x: float, ripe: float) -> Cell:
    cycle = max(4.0, world.cycle * rng.lognormal(0.0, 0.2))
    return Cell(
        track=track,
        parent=0,
        begin=frame,
        y=y,
        x=x,
        dy=rng.normal(0.0, world.step),
        dx=rng.normal(0.0, world.step),
        mature=world.radius * rng.lognormal(0.0, world.variety / 2),
        age=ripe * cycle,
        cycle=cycle,
        brightness=rng.lognormal(0.0, world.variety),
        stretch=1.0 + rng.gamma(2.0, 0.15),
        angle=rng.uniform(0.0, math.pi),
        bends=tuple(rng.normal(0.0, 0.06, len(_HARMONICS))),
        dies=ripe * cycle + rng.exponential(1.0 / world.death) if world.death else math.inf,
        condensing=world.condensing,
        relaxing=world.relaxing,
    )


def _advance(
    rng: np.random.Generator, cells: list[Cell], tracks: int, frame: int, shape: tuple[int, int], world: World
) -> tuple[list[Cell], int]:
    """Let a frame pass: cells die, divide, move, and come in."""
    alive: list[Cell] = []
    for cell in cells:
        if cell.age + 1 > cell.dies:
            continue
        if cell.age + 1 > cell.cycle:
            alive += _divide(rng, cell, world, tracks, frame)
            tracks += 2
        else:
            alive.append(_move(rng, replace(cell, age=cell.age + 1), world))
    alive = _push_apart(alive)
    edge = 2 * (shape[0] + shape[1]) * max(world.step, 0.02 * world.radius)
    for _ in range(rng.poisson(0.25 * world.cover * edge / (math.pi * world.radius**2))):
        along, side = rng.random(), rng.integers(4)
        y = (along * shape[0], along * shape[0], 0.0, float(shape[0]))[side]
        x = (0.0, float(shape[1]), along * shape[1], along * shape[1])[side]
        if all((y - c.y) ** 2 + (x - c.x) ** 2 > (1.7 * world.radius) ** 2 for c in alive):
            tracks += 1
            alive.append(_new(rng, world, tracks, frame, y, x, rng.uniform(0.0, 0.8)))
    return alive, tracks


def _move(rng: np.random.Generator, cell: Cell, world: World) -> Cell:
    kept, fresh = world.persistence, math.sqrt(1.0 - world.persistence**2) * world.step
    still = 1.0 - 0.6 * cell.condensation
    dy, dx = kept * cell.dy + rng.normal(0.0, fresh), kept * cell.dx + rng.normal(0.0, fresh)
    bends = tuple(0.9 * bend + rng.normal(0.0, 0.025) for bend in cell.bends)
    return replace(
        cell,
        y=cell.y + still * dy + world.drift[0],
        x=cell.x + still * dx + world.drift[1],
        dy=dy,
        dx=dx,
        stretch=max(1.0, cell.stretch + rng.normal(0.0, 0.05)),
        angle=cell.angle + rng.normal(0.0, 0.15),
        bends=bends,
    )


def _divide(rng: np.random.Generator, mother: Cell, world: World, tracks: int, frame: int) -> list[Cell]:
    """Return two daughters on both sides of the mother, each longest along the plane of division."""
    axis = mother.angle + math.pi / 2 + rng.normal(0.0, 0.3)
    half = world.parting * mother.radius * rng.uniform(0.8, 1.25)
    share = rng.normal(0.5, 0.03)
    y, x = (
        mother.y + rng.normal(0.0, world.wobble * mother.radius),
        mother.x + rng.normal(0.0, world.wobble * mother.radius),
    )
    daughters = []
    for number, (sign, part) in enumerate(((-1.0, share), (1.0, 1.0 - share)), start=1):
        cycle = max(4.0, world.cycle * rng.lognormal(0.0, 0.2))
        daughters.append(
            replace(
                mother,
                track=tracks + number,
                parent=mother.track,
                begin=frame,
                y=y + sign * half * math.sin(axis) + rng.normal(0.0, 0.3 * world.step),
                x=x + sign * half * math.cos(axis) + rng.normal(0.0, 0.3 * world.step),
                dy=sign * 0.3 * half * math.sin(axis),
                dx=sign * 0.3 * half * math.cos(axis),
                mature=mother.mature * math.sqrt(2 * part) * rng.normal(1.0, 0.05),
                age=mother.age + 1 - mother.cycle,
                cycle=cycle,
                brightness=mother.brightness * rng.normal(1.0, 0.08),
                stretch=max(1.0, rng.normal(world.plate, 0.2)),
                angle=axis + math.pi / 2 + rng.normal(0.0, 0.3),
                dies=rng.exponential(1.0 / world.death) if world.death else math.inf,
            )
        )
    return daughters


def _push_apart(cells: list[Cell]) -> list[Cell]:
    """Move overlapping cells away from each other by half of their overlap."""
    if len(cells) < 2:
        return cells
    from scipy.spatial import cKDTree

    place = np.array([(cell.y, cell.x) for cell in cells])
    radius = np.array([cell.radius for cell in cells])
    pairs = cKDTree(place).query_pairs(2.0 * float(radius.max()), output_type="ndarray")
    first, second = pairs[:, 0], pairs[:, 1]
    apart = place[second] - place[first]
    distance = np.maximum(np.linalg.norm(apart, axis=1), 1e-6)
    overlap = np.maximum(radius[first] + radius[second] - distance, 0.0)
    push = 0.25 * (overlap / distance)[:, None] * apart
    np.subtract.at(place, first, push)
    np.add.at(place, second, push)
    return [replace(cell, y=float(y), x=float(x)) for cell, (y, x) in zip(cells, place, strict=True)]


def _draw(
    rng: np.random.Generator, cells: list[Cell], shape: tuple[int, int], world: World
) -> tuple[np.ndarray, np.ndarray]:
    """Draw labels and the microscope image of the cells, without noise."""
    from scipy.ndimage import gaussian_filter

    labels = np.zeros(shape, np.int32)
    signal = np.zeros(shape, np.float32)
    rim = np.zeros(shape, np.float32)
    texture = _noise(rng, shape, 1.2)
    for cell in cells:
        flash = 1.0 + (world.flash - 1.0) * cell.condensation + (0.6 if cell.age >= cell.dies - 1 else 0.0)
        reach = 1.9 * cell.radius + 3
        rows = slice(max(0, math.floor(cell.y - reach)), min(shape[0], math.ceil(cell.y + reach) + 1))
        columns = slice(max(0, math.floor(cell.x - reach)), min(shape[1], math.ceil(cell.x + reach) + 1))
        if rows.start >= rows.stop or columns.start >= columns.stop:
            continue
        depth = _depth(cell, rows, columns)
        region = (rows, columns)
        inside = (depth <= 1.0) & (labels[region] == 0)
        if np.count_nonzero(inside) < _LEAST_PIXELS:
            continue
        labels[region][inside] = cell.track
        smooth = 1.0 - (0.35 + 0.4 * cell.condensation) * np.clip(depth, 0.0, 1.0) ** 3
        bright = cell.brightness * flash * smooth * (1.0 + 0.15 * (1.0 - cell.condensation) * texture[region])
        if world.contrast == "phase":
            bright = -0.25 + 0.12 * texture[region] + cell.condensation * (0.2 + 0.5 * (world.flash - 1.0)) * smooth
            rim[region] = np.maximum(rim[region], np.exp(-(((depth - 1.1) / 0.15) ** 2)) * (0.15 + 0.2 * (flash - 1.0)))
        signal[region][inside] = bright[inside]
    if world.contrast == "phase":
        return labels, 0.45 + 0.45 * np.asarray(gaussian_filter(signal + rim, 0.7), np.float32)
    seen = np.asarray(gaussian_filter(signal, 0.9) + 0.08 * gaussian_filter(signal, 6.0), np.float32)
    return labels, 0.06 + 0.3 * seen


def _depth(cell: Cell, rows: slice, columns: slice) -> np.ndarray:
    """Return the relative radius of pixels: 0 in the centre of a cell, 1 on its outline."""
    dy = np.arange(rows.start, rows.stop, dtype=np.float32)[:, None] - cell.y
    dx = np.arange(columns.start, columns.stop, dtype=np.float32)[None, :] - cell.x
    # A cell rounds up before it divides, then lies as a plate across the axis of division.
    stretch = math.sqrt(cell.stretch * (1.0 + 0.5 * cell.condensation))
    along = (dx * math.cos(cell.angle) + dy * math.sin(cell.angle)) / stretch
    across = (dy * math.cos(cell.angle) - dx * math.sin(cell.angle)) * stretch
    theta = np.arctan2(across, along)
    outline = np.ones_like(theta)
    for order, bend in zip(_HARMONICS, cell.bends, strict=True):
        outline += bend * (1.0 - 0.7 * cell.condensation) * np.cos(order * theta)
    return np.asarray(np.hypot(along, across) / (cell.radius * outline))


def _noise(rng: np.random.Generator, shape: tuple[int, int], width: float) -> np.ndarray:
    """Gaussian noise of unit variance, smooth over `width` pixels."""
    from scipy.ndimage import gaussian_filter

    field = gaussian_filter(rng.standard_normal(shape, dtype=np.float32), width, mode="wrap", truncate=3.0)
    return np.asarray(field / max(float(field.std()), 1e-6), np.float32)
