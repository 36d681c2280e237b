"""A drawn cohort of chest radiographs in NIH ChestX-ray14's own layout, for trying everything.

The label rule: a heart is enlarged when its cardiothoracic ratio (heart width through inner
thorax width, as it appears in the image) exceeds 0.50 in a PA view and 0.585 in an AP view, for
AP magnifies the heart by 1.17. A share `label_noise` of the labels is then turned round, half of
them in each class, borderline hearts first of all. Patients keep their anatomy over their
images, while their ratio drifts.

Coordinates: the drawing has its origin in the middle of the thorax and half the inner thorax
width as its unit; x runs to the image's right (the patient's left), y downwards. A film places
that on the image. Every random number comes from a generator seeded by what it is for, so that
neither the number of workers nor the heart's absence changes anything else.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

Array = NDArray[Any]  # float32, (size, size) or one row or column of it

VERSION = 1  # of the drawing: a cohort drawn by another version is another cohort
MAGNIFICATION = 1.17
LIMIT = 0.50  # of the ratio in a PA view; times the magnification in an AP view
NIH_FRAME = 1024  # NIH's boxes are in pixels of its 1024 x 1024 images
ENLARGED_PATIENTS, AP_SHARE, TEST_SHARE, BOXED_SHARE = 0.20, 0.35, 0.25, 0.6
VISITS = (0.45, 0.20, 0.14, 0.10, 0.06, 0.05)  # shares of patients with 1, 2, ... 6 images
HEADERS = {  # NIH's own, odd as they are; the truth is ours
    "Data_Entry_2017.csv": "Image Index,Finding Labels,Follow-up #,Patient ID,Patient Age,"
    "Patient Gender,View Position,OriginalImage[Width,Height],OriginalImagePixelSpacing[x,y]",
    "BBox_List_2017.csv": "Image Index,Finding Label,Bbox [x,y,w,h],,,",
    "phantom.csv": "image,view_position,cardiothoracic_ratio,enlarged,x,y,w,h",
}
DETECTORS = ((2500, 2048, 0.168), (2992, 2991, 0.143), (3056, 2544, 0.139), (2048, 2500, 0.168))
FILES = (*HEADERS, "train_val_list.txt", "test_list.txt")


class Ellipse(NamedTuple):
    """A heart or an opacity: centre, half axes and tilt (radians) in the drawing's coordinates."""

    x: float
    y: float
    a: float
    b: float
    tilt: float


# Findings beside the heart: how often, where in the lung (x, y), half axes, how dense.
OPACITIES = {
    "Atelectasis": (0.10, 0.50, 0.25, 0.30, 0.06, 0.10),
    "Effusion": (0.12, 0.80, 0.75, 0.30, 0.28, 0.22),
    "Mass": (0.05, 0.55, -0.15, 0.17, 0.14, 0.15),
    "Nodule": (0.07, 0.55, -0.35, 0.06, 0.06, 0.14),
}


class Visit(NamedTuple):
    """One image's row: who, when, how taken, and what is so and what is said to be so."""

    image: str
    patient: int
    number: int
    age: int
    sex: str
    view: str
    ratio: float  # as it appears: magnified in an AP view
    enlarged: bool
    label: bool  # enlarged, but for the label noise
    others: list[str]
    tested: bool  # whether the patient stands in NIH's test list


@dataclass(frozen=True)
class Film:
    """One patient's anatomy in one exposure, in the drawing's coordinates and image fractions."""

    view: str
    half: float  # half the inner thorax width, as a share of the image's side
    centre: tuple[float, float]  # of the thorax, from the image's centre, shares of its side
    angle: float  # rotation in radians
    tall: float  # lungs reach from -tall to +tall
    base: float  # height of the costophrenic angles
    rise: float  # of the left dome above them
    wall: float  # thickness of the thoracic wall
    breast: float  # density, 0 = none
    curve: float  # of the spine
    knob: float  # radius of the aortic knob
    rib_phase: float
    heart: Ellipse
    opacities: dict[str, Ellipse]

    def box(self, shape: Ellipse) -> tuple[float, float, float, float]:
        """Return the x, y, width and height that enclose `shape`, in NIH's 1024-pixel frame."""
        cos, sin = np.cos(self.angle), np.sin(self.angle)
        x, y = self.centre[0] + self.half * shape.x, self.centre[1] + self.half * shape.y
        tilt = shape.tilt + self.angle
        wide = self.half * np.hypot(shape.a * np.cos(tilt), shape.b * np.sin(tilt))
        high = self.half * np.hypot(shape.a * np.sin(tilt), shape.b * np.cos(tilt))
        middle = np.array([x * cos - y * sin, x * sin + y * cos])
        reach = np.array([wide, high])
        low, top = np.clip([middle - reach, middle + reach], -0.5, 0.5)
        corner, extent = (low + 0.5) * NIH_FRAME, (top - low) * NIH_FRAME
        return float(corner[0]), float(corner[1]), float(extent[0]), float(extent[1])


def generate_phantom(
    root: Path,
    images: int = 600,
    size: int = 256,
    seed: int = 0,
    label_noise: float = 0.02,
    workers: int | None = None,
    heart: bool = True,
    view_bias: float = 0.1,
) -> None:
    """Draw a cohort of `images` radiographs into `root`, or leave it alone where it stands.

    `root` gets NIH's label file, box list and lists, `images/*.png` (8-bit grey, `size` square),
    `phantom.csv` (the truth: view, ratio, label before the noise, every heart's box) and
    `phantom.json` (the parameters). It is written beside `root` and renamed when complete.

    Args:
        label_noise: share of the labels turned round, in [0, 0.4].
        workers: threads; None = one a core. They do not change a byte.
        heart: False erases the hearts and changes nothing else, labels and boxes included.
        view_bias: how far the view gives the label away, in [0, 1]: at 0 not at all, at 1 enlarged
            hearts are always taken AP and others PA. With `heart=False` a planted shortcut.

    Raises:
        ValueError: a parameter out of range, or `root` holds something else than this cohort.
    """
    parameters: dict[str, Any] = {
        "version": VERSION, "images": images, "size": size, "seed": seed,
        "label_noise": label_noise, "heart": heart, "view_bias": view_bias,
    }  # fmt: skip
    _check(parameters, workers)
    root = Path(root).resolve()
    if _stands(root, parameters):
        return
    root.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=root.parent, prefix=f".{root.name}-") as beside:
        draft = Path(beside) / "cohort"
        _write(draft, parameters, workers)
        try:
            draft.rename(root)
        except OSError:  # what stands there is incomplete, or another process was faster
            if not _stands(root, parameters):
                shutil.rmtree(root)
                draft.rename(root)


def _write(root: Path, parameters: dict[str, Any], workers: int | None) -> None:
    images, seed = parameters["images"], parameters["seed"]
    (root / "images").mkdir(parents=True)
    cohort = _cohort(images, seed, parameters["label_noise"], parameters["view_bias"])
    films = [_film(row, seed, index) for index, row in enumerate(cohort)]

    def draw(index: int) -> None:
        rng = np.random.default_rng([seed, 3, index])
        pixels = _radiograph(films[index], parameters["size"], rng, parameters["heart"])
        coded = cv2.imencode(".png", pixels)[1]
        (root / "images" / cohort[index].image).write_bytes(coded.tobytes())

    with ThreadPoolExecutor(workers or os.cpu_count() or 1) as pool:
        list(pool.map(draw, range(images)))
    _write_tables(root, cohort, films, np.random.default_rng([seed, 4]))
    (root / "phantom.json").write_text(json.dumps(parameters, indent=2) + "\n")


def _check(parameters: dict[str, Any], workers: int | None) -> None:
    allowed = {
        "images": (1, 99_999_999), "size": (32, 4096), "seed": (0, 2**63),
        "label_noise": (0.0, 0.4), "view_bias": (0.0, 1.0), "workers": (1, 1024),
    }  # fmt: skip
    given = {**parameters, "workers": 1 if workers is None else workers}
    for name, (low, high) in allowed.items():
        value = given[name]
        if not low <= value <= high:
            raise ValueError(f"phantom: {name} must lie in [{low}, {high}], got {value}")


def _stands(root: Path, parameters: dict[str, Any]) -> bool:
    """Say whether `root` holds this cohort completely; refuse where it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / "phantom.json").read_text()))
    except (OSError, TypeError, ValueError):
        raise ValueError(
            f"{root} is not empty and holds no phantom cohort (no readable phantom.json): "
            "choose another folder or empty it"
        ) from None
    other = [name for name in parameters if found.get(name) != parameters[name]]
    if other:
        was = ", ".join(f"{name}={found.get(name)}" for name in other)
        asked = ", ".join(f"{name}={parameters[name]}" for name in other)
        raise ValueError(
            f"{root} holds a phantom cohort with {was}, but {asked} is asked for: "
            "choose another folder or delete this one"
        )
    drawn = sum(1 for _ in (root / "images").glob("*.png"))
    return drawn == parameters["images"] and all((root / name).is_file() for name in FILES)


def _cohort(images: int, seed: int, label_noise: float, view_bias: float) -> list[Visit]:
    """Invent the patients and their visits: one an image, in the order of NIH's file names."""
    rng = np.random.default_rng([seed, 0])
    visits = rng.choice(np.arange(1, 7), size=images, p=VISITS)
    visits = visits[: int(np.searchsorted(visits.cumsum(), images)) + 1]
    visits[-1] -= visits.sum() - images
    patients = len(visits)
    # Every n-th patient in the order of visits is ill: every cohort has its share of positives.
    order = rng.permutation(patients)
    order = order[np.argsort(visits[order], kind="stable")]
    ill = np.zeros(patients, dtype=bool)
    steps = np.floor(np.arange(patients + 1) * ENLARGED_PATIENTS + rng.uniform(0.5, 1.0))
    ill[order] = np.diff(steps) > 0
    ratio = rng.normal(np.where(ill, 0.57, 0.42), 0.028)
    trend = np.where(rng.random(patients) < 0.15, 0.045, 0.0)  # some hearts grow between visits
    sex = np.where(rng.random(patients) < 0.56, "M", "F").tolist()
    age = np.clip(rng.normal(np.where(ill, 50, 46), 16), 5, 90).astype(int).tolist()
    tested = (rng.permutation(patients) < max(1, round(TEST_SHARE * patients))).tolist()

    who = np.repeat(np.arange(patients), visits)
    first = (visits.cumsum() - visits)[who]
    nth = np.arange(images) - first
    walk = rng.normal(0, 0.012, images).cumsum()
    ratio = (ratio[who] + trend[who] * nth + walk - walk[first]).clip(0.33, 0.63).round(5)
    enlarged = ratio > LIMIT
    ap = rng.random(images) < AP_SHARE * (1 - view_bias) + view_bias * enlarged
    label = _mislabel(ratio, label_noise, rng)
    present = rng.random((images, len(OPACITIES))) < [chance for chance, *_ in OPACITIES.values()]
    return [
        Visit(
            image=f"{one + 1:08d}_{visit:03d}.png",
            patient=one + 1,
            number=visit,
            age=age[one] + visit // 2,
            sex=sex[one],
            view="AP" if ap[i] else "PA",
            ratio=float(ratio[i]) * (MAGNIFICATION if ap[i] else 1.0),
            enlarged=bool(enlarged[i]),
            label=bool(label[i]),
            others=[name for name, there in zip(OPACITIES, present[i], strict=True) if there],
            tested=tested[one],
        )
        for i, (one, visit) in enumerate(zip(who.tolist(), nth.tolist(), strict=True))
    ]


def _mislabel(ratio: Array, share: float, rng: np.random.Generator) -> NDArray[np.bool_]:
    """Turn round `share` of the labels, half in each class, mostly where a reader may doubt.

    A heart 4% beside the limit is e times less likely to be mistaken than one that lies on it.
    """
    enlarged = ratio > LIMIT
    label, wrong = enlarged.copy(), round(share * len(ratio))
    doubt = np.exp(-np.abs(ratio / LIMIT - 1) / 0.04)
    for group, count in ((True, wrong // 2), (False, wrong - wrong // 2)):
        members = np.flatnonzero(enlarged == group)
        chance = doubt[members] / doubt[members].sum() if len(members) else None
        mistaken = rng.choice(members, min(count, len(members)), replace=False, p=chance)
        label[mistaken] = not group
    return label


def _film(row: Visit, seed: int, index: int) -> Film:
    """Give a patient's body, the same in all images, to one exposure, which differs in each."""
    body = np.random.default_rng([seed, 1, row.patient])
    shot = np.random.default_rng([seed, 2, index])
    ap, female = row.view == "AP", row.sex == "F"
    half = body.normal(0.375, 0.02) * (0.95 if female else 1.0) * shot.normal(1.0, 0.03)
    # In bed the breath is shallower: the lungs of an AP view are lower.
    tall = body.normal(1.0, 0.05) * (shot.normal(0.88, 0.05) if ap else shot.normal(1.0, 0.03))
    rise, base = shot.uniform(0.30, 0.40), 0.95 * tall
    tilt, plump, share = body.normal((0.5, 0.68, 0.34), (0.07, 0.03, 0.02)).tolist()
    a = row.ratio / math.hypot(math.cos(tilt), plump * math.sin(tilt))  # the width is 2 ratio
    b = plump * a
    bottom = base - rise + 0.22
    y = bottom - math.hypot(a * math.sin(tilt), b * math.cos(tilt))
    return Film(
        view=row.view,
        half=half,
        centre=(shot.normal(0, 0.02), shot.normal(0, 0.02)),
        angle=shot.normal(0, 0.035),
        tall=tall,
        base=base,
        rise=rise,
        wall=body.uniform(0.10, 0.32),
        breast=body.uniform(0.02, 0.08) if female else 0.0,
        curve=body.normal(0, 0.02),
        knob=body.uniform(0.09, 0.13),
        rib_phase=body.uniform(0, 1),
        heart=Ellipse(2 * row.ratio * (0.5 - share), y, a, b, tilt),
        opacities={name: _opacity(name, tall, shot) for name in row.others},
    )


def _opacity(name: str, tall: float, rng: np.random.Generator) -> Ellipse:
    _, x, y, a, b, _ = OPACITIES[name]
    across, down, scale = rng.normal((x, y, 1.0), (0.05, 0.05, 0.12)).tolist()
    return Ellipse(float(rng.choice((-1, 1))) * across, down * tall, scale * a, scale * b, 0.0)


# ------------------------------------------------------------------------------- the drawing


def _within(distance: Array, softness: float) -> Array:
    """Map a signed distance (positive inside) to a mask in [0, 1] with a soft border."""
    return np.clip(distance / softness + 0.5, 0, 1)


def _inside(shape: Ellipse, x: Array, y: Array, softness: float) -> Array:
    cos, sin = math.cos(shape.tilt), math.sin(shape.tilt)
    x, y = x - shape.x, y - shape.y
    along, across = cos * x + sin * y, cos * y - sin * x
    radius = np.sqrt((along / shape.a) ** 2 + (across / shape.b) ** 2)
    return _within((1 - radius) * min(shape.a, shape.b), softness)


def _profile(y: Array, at: tuple[float, ...], width: tuple[float, ...]) -> Array:
    """Interpolate a width by height, without corners."""
    window = np.hanning(2 * max(2, len(y) // 24) + 1)
    line = np.pad(np.interp(y[:, 0], at, width), len(window) // 2, mode="edge")
    return np.convolve(line, window / window.sum(), "valid")[:, None].astype(np.float32)


def _radiograph(film: Film, size: int, rng: np.random.Generator, heart: bool) -> NDArray[np.uint8]:
    """Draw one image, (size, size) uint8: densities along the ray add up, the film answers."""
    axis = (np.arange(size, dtype=np.float32) + 0.5) / size - 0.5
    x, y = axis[None, :] - film.centre[0], axis[:, None] - film.centre[1]
    x, y = x / film.half, y / film.half
    off, tall, trunk = np.abs(x), film.tall, 1.0 + film.wall
    outer = _profile(
        y / tall, (-1, -0.92, -0.8, -0.56, -0.16, 0.4), (0.45, 0.62, 0.73, 0.85, 0.95, 1)
    )
    medial = _profile(
        y / tall, (-1, -0.88, -0.68, -0.4, 0.2, 1), (0.36, 0.25, 0.19, 0.17, 0.15, 0.13)
    )
    widths = (0.36, 0.5, trunk + 0.25, trunk + 0.3, trunk, trunk + 0.1)
    skin = _profile(y, (-tall - 0.5, -tall - 0.25, -tall + 0.05, -tall + 0.5, 0.5, 2), widths)
    dome = np.clip(1 - ((off - 0.42) / 0.58) ** 2, -1, 1) * (film.rise + 0.07 * _within(-x, 0.01))
    dome = film.base - dome  # the right one stands higher, above the liver
    below = _within(y - dome, 0.06) * _within(outer + 0.03 - off, 0.06)
    abdomen = np.maximum(below, _within(y - film.base, 0.5))
    lungs = _within(np.minimum(outer - off, off - medial), 0.05)
    lungs = lungs * _within(np.minimum(dome - y, y + tall), 0.05)
    filled = 0.85 * _great_vessels(film, x, y)
    if heart:
        filled = np.maximum(filled, _inside(film.heart, x, y, 0.06))

    body = _within(skin - off, 0.08)
    thick = np.sqrt(np.clip(1 - (off / (skin + 0.05)) ** 2, 0, 1))
    density = body * (0.30 + 0.30 * thick + 0.13 * abdomen) + 0.08 * filled
    air = lungs * (1 - 0.93 * filled)
    density += air * (_lung_texture(film, x, y, size, rng) - 0.36)
    density += _bones(film, x, y, outer, abdomen)
    gas = Ellipse(0.48, film.base - film.rise + 0.2, 0.24, 0.14, 0.0)
    density -= 0.14 * abdomen * _inside(gas, x, y, 0.1)
    for name, shape in film.opacities.items():
        density += OPACITIES[name][-1] * air * _inside(shape, x, y, 0.1)
    for side in (-0.52, 0.52) if film.breast else ():
        breast = _inside(Ellipse(side, 0.35 * tall, 0.42, 0.42, 0.0), x, y, 0.2)
        density += film.breast * (1 - 0.8 * abdomen) * breast
    return _expose(density, film, rng)


def _great_vessels(film: Film, x: Array, y: Array) -> Array:
    """Draw the mediastinum above the heart: caval vein, aortic knob and pulmonary trunk."""
    height = -0.42 * film.tall
    stalk = _within(0.2 - np.abs(x - 0.04), 0.08) * _within(y + 0.75 * film.tall, 0.4)
    knob = _inside(Ellipse(0.15, height, film.knob, film.knob, 0.0), x, y, 0.05)
    conus = Ellipse(0.17, height + 0.3, 0.9 * film.knob, 2 * film.knob, -0.3)
    stalk = stalk * _within(0.35 - y, 0.3)
    return np.maximum(np.maximum(knob, _inside(conus, x, y, 0.06)), stalk)


def _bones(film: Film, x: Array, y: Array, outer: Array, abdomen: Array) -> Array:
    """Draw ribs (behind: steep bands; in front: faint ones), spine, clavicles, shoulder blades."""
    tall, ap, off = film.tall, film.view == "AP", np.abs(x)
    behind = _stripes(8.6 / (2 * tall), y + tall, 0.42 * off**2 - 0.28 * off, film.rib_phase)
    before = _stripes(7.5 / (2 * tall), y + tall, 0.55 * off - 0.75, 0.7 * film.rib_phase)
    bands = 0.08 * behind + 0.05 * before * _within(off - 0.35, 0.2)
    cage = _within(outer + 0.05 - off, 0.05) * _within(y + tall + 0.05, 0.1)
    ribs = bands * cage * _within(off - 0.1, 0.1) * (1 - 0.7 * abdomen)
    spine = _within(0.12 - np.abs(x - film.curve * np.sin(2 * y)), 0.05)
    spine = spine * (0.11 + 0.02 * np.cos(31 * y))
    windpipe = _within(0.065 - np.abs(x + 0.01), 0.05) * _within(-0.42 * tall - y, 0.1)
    # In bed the patient leans back and the shoulders stay: clavicles high, blades over the lungs.
    collar = -tall + (-0.05 if ap else 0.1) + 0.22 * (1 - off) ** 2 - 0.12 * off
    clavicles = _within(0.05 - np.abs(y - collar), 0.04)
    clavicles = clavicles * _within(np.minimum(off - 0.1, 1.25 - off), 0.1)
    below = y + 0.35 * tall
    blades = _within(0.16 - np.abs(off - (0.78 if ap else 1.12) - 0.25 * below), 0.05)
    blades = blades * _within(0.45 - np.abs(below), 0.2)
    return ribs + spine - 0.08 * windpipe + 0.09 * clavicles + 0.06 * blades


def _stripes(frequency: float, y: Array, x: Array, phase: float) -> Array:
    """Return narrow bright stripes along y = -x: a wave of a sum, made of waves of one axis."""
    down, across = 2 * np.pi * (frequency * y + phase), 2 * np.pi * frequency * x
    wave = np.cos(down) * np.cos(across) - np.sin(down) * np.sin(across)
    return np.maximum(wave, 0) ** 2


def _lung_texture(film: Film, x: Array, y: Array, size: int, rng: np.random.Generator) -> Array:
    """Draw what lungs show: hilum, vessels that branch out from it, and a cloudy ground."""
    hilum = np.exp(-((np.abs(x) - 0.3) ** 2) / 0.05 - (y + 0.1) ** 2 / 0.12)
    cloud: Array = np.zeros((size, size), dtype=np.float32)
    for cells, strength in ((10, 0.5), (40, 0.45)):
        grid = rng.standard_normal((cells, cells), dtype=np.float32)
        cloud += strength * cv2.resize(grid, (size, size), interpolation=cv2.INTER_CUBIC)
    vessels: Array = np.zeros((size, size), dtype=np.float32)
    along = np.linspace(0, 1, 7)
    for side in np.repeat((-1, 1), 14):
        direction, length, bend = rng.uniform((-1.3, 0.4, -0.4), (1.3, 0.85, 0.4))
        way = np.stack([np.cos(direction + bend * along), np.sin(direction + bend * along)], 1)
        points = (0.2, -0.1) + length * along[:, None] * way
        points = (points * (side, 1) * film.half + film.centre + 0.5) * size * 8
        for share, strength in ((7, 0.35), (5, 0.6), (3, 1.0)):  # they thin out
            piece, thick = points[:share].round().astype(np.int32), max(1, size // 32 // share)
            cv2.polylines(vessels, [piece], False, strength, thick, cv2.LINE_AA, 3)
    vessels = cv2.GaussianBlur(vessels, (0, 0), size / 256)
    return 0.07 * hilum + 0.035 * cloud * (0.7 + hilum) + 0.11 * vessels


def _expose(density: Array, film: Film, rng: np.random.Generator) -> NDArray[np.uint8]:
    """Turn, expose, blur and grain a drawing; an AP film is flatter and may show leads."""
    size, ap = len(density), film.view == "AP"
    gain, bias = rng.uniform(1.1, 1.5) * (0.76 if ap else 1.0), rng.normal(0.06 if ap else 0, 0.05)
    slope = rng.normal(0, 0.1, 2)  # the beam is not equally strong everywhere
    axis = np.linspace(-0.5, 0.5, size)
    beam = 1 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
    image: Array = ((0.5 + bias + gain * (density - 0.46)) * beam).astype(np.float32)
    cos, sin, middle = math.cos(film.angle), math.sin(film.angle), (size - 1) / 2
    turn = [[cos, -sin, middle * (1 - cos + sin)], [sin, cos, middle * (1 - sin - cos)]]
    image = cv2.warpAffine(image, np.array(turn), (size, size), borderMode=cv2.BORDER_REPLICATE)
    for _ in range(rng.integers(0, 4) if ap else 0):
        a, b, c = rng.uniform((0.1, 0.1, 0.3, 0.3, 0.2, 0.9), (0.9, 0.4, 0.7, 0.6, 0.8, 1)).reshape(
            3, 2
        )
        way = np.linspace(0, 1, 20)[:, None]
        points = ((1 - way) ** 2 * a + 2 * way * (1 - way) * b + way**2 * c) * size * 8
        lead = points.round().astype(np.int32)
        cv2.polylines(image, [lead], False, 0.95, max(1, size // 256), cv2.LINE_AA, 3)
    image = cv2.GaussianBlur(image, (0, 0), size / 256 * rng.uniform(0.4, 1.0))
    grain = rng.standard_normal((size, size), dtype=np.float32)
    image = image + np.float32(rng.uniform(0.006, 0.02)) * grain
    for _ in range(4):  # the edges of the field, one after the other
        image = np.rot90(image)
        image[: int(size * max(0.0, rng.uniform(-0.15, 0.05)))] = 0.03
    pixels = (255 * np.clip(image, 0, 1)).astype(np.uint8, order="C")
    x, y = (size * rng.uniform((0.03, 0.05), (0.1, 0.12))).astype(int).tolist()
    mark, font = "AP" if ap else "R", cv2.FONT_HERSHEY_SIMPLEX
    cv2.putText(pixels, mark, (x, y), font, size / 700, 240, 1, cv2.LINE_AA)
    return pixels


# --------------------------------------------------------------------------------- the tables


def _write_tables(
    root: Path, cohort: list[Visit], films: list[Film], rng: np.random.Generator
) -> None:
    """Write NIH's four files and the truth."""
    boxed = rng.random(cohort[-1].patient + 1) < BOXED_SHARE
    tables: dict[str, list[str]] = {name: [header] for name, header in HEADERS.items()}
    tables |= {"train_val_list.txt": [], "test_list.txt": []}
    for row, film in zip(cohort, films, strict=True):
        width, height, spacing = DETECTORS[rng.integers(len(DETECTORS))]
        findings = sorted(row.others + ["Cardiomegaly"] * row.label) or ["No Finding"]
        tables["Data_Entry_2017.csv"].append(
            f"{row.image},{'|'.join(findings)},{row.number},{row.patient},{row.age},{row.sex},"
            f"{row.view},{width},{height},{spacing},{spacing}"
        )
        tables["test_list.txt" if row.tested else "train_val_list.txt"].append(row.image)
        truth = f"{row.image},{row.view},{row.ratio:.5f},{row.enlarged:d}"
        tables["phantom.csv"].append(f"{truth},{_numbers(film.box(film.heart))}")
        shapes = {"Cardiomegaly": film.heart} if row.label and row.enlarged else {}
        for name, shape in {**shapes, **film.opacities}.items() if boxed[row.patient] else ():
            line = f"{row.image},{name},{_numbers(film.box(shape))}"
            tables["BBox_List_2017.csv"].append(line)
    for name, lines in tables.items():
        (root / name).write_text("\n".join([*lines, ""]))


def _numbers(values: tuple[float, ...]) -> str:
    return ",".join(f"{value:.3f}" for value in values)
