"""A drawn cohort of chest radiographs in NIH ChestX-ray14's own layout, for trying everything.

The label rule: a heart is enlarged when its cardiothoracic ratio (heart width through inner
thorax width, as it appears in the image) exceeds 0.50 in a PA view and 0.585 in an AP view, for
AP magnifies the heart by 1.17. A share `label_noise` of the labels is then turned round, half of
them in each class, borderline hearts first of all. Patients keep their anatomy over their
images, while their ratio drifts.

`radiograph` draws. Every random number comes from a generator seeded by what it is for, so that
neither the number of workers nor the heart's absence changes anything else.
"""

from __future__ import annotations

import json
import math
import os
import shutil
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, NamedTuple

import cv2
import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError
from cardiomegaly.data.phantom.radiograph import OPACITIES, Array, Ellipse, Film, radiograph

VERSION = 1  # of the drawing: a cohort drawn by another version is another cohort
MAGNIFICATION = 1.17
LIMIT = 0.50  # of the ratio in a PA view; times the magnification in an AP view
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
        UserError: a parameter out of range, or `root` holds something else than this cohort.
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
        pixels = radiograph(films[index], parameters["size"], rng, parameters["heart"])
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
            raise UserError(f"phantom: {name} must lie in [{low}, {high}], got {value}")


def _stands(root: Path, parameters: dict[str, Any]) -> bool:
    """Say whether `root` holds this cohort completely; refuse where it holds something else."""
    if not root.exists() or (root.is_dir() and not any(root.iterdir())):
        return False
    try:
        found = dict(json.loads((root / "phantom.json").read_text()))
    except (OSError, TypeError, ValueError):
        raise UserError(
            f"{root} is not empty and holds no phantom cohort (no readable phantom.json): "
            "choose another folder or empty it"
        ) from None
    other = [name for name in parameters if found.get(name) != parameters[name]]
    if other:
        was = ", ".join(f"{name}={found.get(name)}" for name in other)
        asked = ", ".join(f"{name}={parameters[name]}" for name in other)
        raise UserError(
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
