"""What a label table and its images hold, before anything is trained: tables of counts.

Images are compared by a perceptual hash (Zauner, Implementation and Benchmarking of Perceptual
Image Hash Functions, 2010): signs of the 16 x 16 lowest frequencies against their median. On 1,349
NIH images no two patients come nearer than 54 of 256 bits, while an image saved anew as JPEG, or
brighter, stays within 24 of itself; with the usual 64 bits both stand at 4 to 8.
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise

import numpy as np
import pandas as pd
from numpy.typing import NDArray
from scipy.fft import dctn
from tqdm import tqdm

from cardiomegaly import UserError
from cardiomegaly.data.images import Pixels, fit_image, read_images
from cardiomegaly.data.sampler import TrainingBatches

THUMBNAIL, FREQUENCIES = 64, 16  # pixels; frequencies of either direction
NEAR = 30  # of 256 bits: copies stay below, other patients above
FAR = 3.5  # robust standard deviations from the median
CHUNK = 512  # images compared with all others at once
AGES = [0, 20, 40, 60, 80, np.inf]
IMAGES = [1, 2, 3, 5, 10, np.inf]  # of a patient
FOLLOW_UPS = [0, 1, 2, 5, 10, np.inf]
MEASURES = ("width", "height", "brightness", "contrast")


def prevalence(rows: pd.DataFrame) -> pd.DataFrame:
    """Images, patients and positives by sex, age, view, follow-up and year, as far as known.

    Args:
        rows: columns image, target, and of patient_id, sex, age, view_position, follow_up, year
            those that are known.

    Returns:
        Columns group, value, images, patients, positive, prevalence; the first row is of all.
    """
    groups = {"all": pd.Series("all", rows.index)}
    for name, column in (("sex", "sex"), ("view", "view_position"), ("year", "year")):
        if column in rows:
            groups[name] = rows[column]
    for name, column, edges in (("age", "age", AGES), ("follow-up", "follow_up", FOLLOW_UPS)):
        if column in rows:
            groups[name] = _bands(rows[column], edges)
    patient = rows["patient_id"] if "patient_id" in rows else pd.Series(pd.NA, rows.index)
    tables = []
    for name, values in groups.items():
        known = values.astype(object).where(values.notna(), "unknown")
        table = (
            rows.assign(value=known, patient=patient)
            .groupby("value", sort=False)
            .agg(
                images=("target", "size"), patients=("patient", "nunique"),
                positive=("target", "sum"),
            )
        )  # fmt: skip
        order = [*dict.fromkeys(values.cat.categories)] if name in ("age", "follow-up") else None
        shown = order or sorted(set(known) - {"unknown"}, key=str)
        table = table.reindex([value for value in [*shown, "unknown"] if value in table.index])
        tables.append(table.reset_index().assign(group=name))
    whole = pd.concat(tables, ignore_index=True)
    whole["prevalence"] = whole["positive"] / whole["images"]
    if "patient_id" not in rows:
        whole = whole.drop(columns="patients")
    return whole[["group", *whole.columns.drop("group")]]


def co_occurrence(rows: pd.DataFrame) -> pd.DataFrame:
    """How often other findings stand beside the one that is detected.

    Args:
        rows: columns target and findings (names joined by `|`).

    Returns:
        A row a finding, the most frequent first: finding, images, among_positive and among_negative
        (shares of the images with and without the finding that is detected), ratio of the two.
    """
    names = rows.assign(finding=rows["findings"].str.split("|")).explode("finding")
    names = names[names["finding"].fillna("") != ""]
    counts = names.groupby("finding")["target"].agg(images="size", positive="sum")
    n_positive = int(rows["target"].sum())
    among_positive = counts["positive"] / max(n_positive, 1)
    among_negative = (counts["images"] - counts["positive"]) / max(len(rows) - n_positive, 1)
    ratio = (among_positive / among_negative).where(among_negative > 0)
    table = counts[["images"]].assign(
        among_positive=among_positive, among_negative=among_negative, ratio=ratio
    )
    return table.sort_values("images", ascending=False, kind="stable").reset_index()


def images_a_patient(rows: pd.DataFrame) -> pd.DataFrame:
    """Patients by how many images they have: images, patients, share of all images, mixed.

    `mixed` counts patients with images of both labels.
    """
    each = rows.groupby("patient_id")["target"].agg(["size", "sum"])
    band = _bands(each["size"], IMAGES)
    each["mixed"] = (each["sum"] > 0) & (each["sum"] < each["size"])
    table = each.groupby(band, observed=True).agg(
        patients=("size", "size"), share=("size", "sum"), mixed=("mixed", "sum")
    )
    table["share"] = table["share"] / len(rows)
    return table.rename_axis("images").reset_index()


def missing_values(listed: pd.DataFrame) -> pd.DataFrame:
    """Rows of the table whose value is missing or impossible, by column."""
    missing = listed.isna().sum() + (listed == "").sum()
    table = pd.DataFrame({"column": missing.index, "missing": missing.to_numpy()})
    return table.assign(share=table["missing"] / len(listed))


def balance(parts: dict[str, pd.DataFrame], seed: int) -> pd.DataFrame:
    """Images and positives of the whole, the cohort and its parts, and of an oversampled epoch.

    Args:
        parts: tables with a target by name, `train` among them.
        seed: of the epoch.
    """
    target = parts["train"]["target"].to_numpy()
    drawn = np.concatenate([key.indices for key in TrainingBatches(target, 64, True, seed)])
    targets = {name: table["target"].to_numpy() for name, table in parts.items()}
    targets["an epoch of train, oversampled"] = target[drawn]
    rows = [(name, len(values), int(values.sum())) for name, values in targets.items()]
    table = pd.DataFrame(rows, columns=["what", "images", "positive"])
    return table.assign(prevalence=table["positive"] / table["images"])


def measure_images(paths: Sequence[str], progress: bool) -> tuple[pd.DataFrame, Pixels]:
    """Size, brightness and contrast of image files, and a thumbnail of each.

    Returns:
        A row a file: width, height (pixels), brightness, contrast (mean and standard deviation of
        the grey values, 0 to 255), wrong (why it cannot be read, or blank); and the thumbnails (N,
        64, 64), zeros where it cannot be read.
    """
    thumbnails = np.zeros((len(paths), THUMBNAIL, THUMBNAIL), np.uint8)
    images = read_images(paths, lambda image: (image.shape, fit_image(image, THUMBNAIL, "stretch")))
    rows: list[tuple[float, float, float, float, str]] = []
    for image in tqdm(images, "measuring images", len(paths), disable=not progress):
        if isinstance(image, UserError | OSError):
            rows.append((np.nan, np.nan, np.nan, np.nan, str(image)))
            continue
        (height, width), thumbnail = image
        thumbnails[len(rows)] = thumbnail
        rows.append((width, height, float(thumbnail.mean()), float(thumbnail.std()), ""))
    return pd.DataFrame(rows, columns=[*MEASURES, "wrong"]), thumbnails


def outliers(measured: pd.DataFrame) -> pd.DataFrame:
    """Images whose size, brightness or contrast lies far from the others'.

    Far is 3.5 robust standard deviations (1.4826 times the median absolute deviation) from the
    median (Iglewicz and Hoaglin, How to Detect and Handle Outliers, 1993); a measure that is the
    same for half of the images has no outliers.

    Returns:
        Columns place (row of `measured`), measure, value, deviations; the farthest first.
    """
    tables = []
    for measure in MEASURES:
        values = measured[measure].astype(float)
        distance = values - values.median()
        spread = 1.4826 * distance.abs().median()
        if spread > 0:
            table = pd.DataFrame(
                {
                    "place": np.arange(len(values)), "measure": measure, "value": values,
                    "deviations": distance / spread,
                }
            )  # fmt: skip
            tables.append(table[table["deviations"].abs() > FAR])
    if not tables:
        return pd.DataFrame(columns=["place", "measure", "value", "deviations"])
    whole = pd.concat(tables, ignore_index=True)
    return whole.sort_values("deviations", key=abs, ascending=False, ignore_index=True)


def perceptual_hash(thumbnails: Pixels) -> NDArray[np.uint64]:
    """256 bits of each of (N, 64, 64) images as (N, 4) numbers."""
    low = np.concatenate(
        [
            dctn(part.astype(np.float32), axes=(1, 2))[:, :FREQUENCIES, :FREQUENCIES]
            for part in np.array_split(thumbnails, max(1, len(thumbnails) // CHUNK))
        ]
    ).reshape(len(thumbnails), -1)
    bits = low > np.median(low[:, 1:], axis=1, keepdims=True)
    bits[:, 0] = False  # the brightness
    return np.packbits(bits, axis=1).view(np.uint64)


def near_duplicates(thumbnails: Pixels, group: NDArray[np.int64]) -> pd.DataFrame:
    """Pairs of images of different groups (patients) that look alike.

    A patient with two identifiers, or one image of two patients, is a leak that a split by patient
    does not see.

    Args:
        thumbnails: (N, 64, 64).
        group: (N,) number of each image's patient; -1 leaves the image out.

    Returns:
        Columns first, second (positions) and bits in which they differ, the nearest first.
    """
    used = np.flatnonzero(group >= 0)
    hashes, group = perceptual_hash(thumbnails[used]), group[used]
    pairs = []
    for start in range(0, len(hashes), CHUNK):
        rows = hashes[start : start + CHUNK]
        rest = hashes[start:]
        bits = sum(np.bitwise_count(rows[:, None, k] ^ rest[None, :, k]) for k in range(4))
        near = np.argwhere(np.asarray(bits) <= NEAR)
        near = near[near[:, 0] < near[:, 1]]
        first, second = near[:, 0] + start, near[:, 1] + start
        other = group[first] != group[second]
        table = {"first": used[first[other]], "second": used[second[other]]}
        table["bits"] = np.asarray(bits)[near[:, 0], near[:, 1]][other]
        pairs.append(pd.DataFrame(table))
    if not pairs:
        return pd.DataFrame(columns=["first", "second", "bits"])
    return pd.concat(pairs).sort_values("bits", kind="stable", ignore_index=True)


def _bands(values: pd.Series, edges: list[float]) -> pd.Series:
    """Ranges of whole numbers, written as `20 to 39` or `80 or more`."""
    names = []
    for low, high in pairwise(edges):
        text = f"{low:g} or more" if np.isinf(high) else f"{low:g} to {high - 1:g}"
        names.append(f"{low:g}" if high - low == 1 else text)
    return pd.cut(values, edges, right=False, labels=names)
