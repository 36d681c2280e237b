"""A cohort in NIH's layout rewritten in the exact form of other publishers' tables."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pandas as pd

from cardiomegaly.config import read_data
from cardiomegaly.data.tables import read_labels

CHEXPERT = (
    "No Finding", "Enlarged Cardiomediastinum", "Cardiomegaly", "Lung Opacity", "Lung Lesion",
    "Edema", "Consolidation", "Pneumonia", "Atelectasis", "Pneumothorax", "Pleural Effusion",
    "Pleural Other", "Fracture", "Support Devices",
)  # fmt: skip
LABEL_FILE = "Data_Entry_2017*.csv"
SEX = {"M": "Male", "F": "Female"}


def rewritten(root: Path, target: Path, name: str, images: set[str] | None = None) -> Path:
    """Write images (None: all) and labels of a folder in NIH's layout to another as set `name`."""
    (label_file,) = root.glob(LABEL_FILE)
    table = read_labels(label_file, read_data("nih"))
    paths = {path.name: path for path in root.rglob("*.png")}
    there = table["image"].isin(paths if images is None else images)
    table = table[there].reset_index(drop=True)
    target.mkdir(parents=True)
    WRITERS[name](table, target)(paths)
    return target


def _copier(
    table: pd.DataFrame, target: Path, places: pd.Series
) -> Callable[[dict[str, Path]], None]:
    def copy(paths: dict[str, Path]) -> None:
        for image, place in zip(table["image"], places, strict=True):
            (target / place).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy(paths[image], target / place)

    return copy


def _codes(table: pd.DataFrame) -> pd.DataFrame:
    """CheXpert's columns: 1.0 for what is there, 0.0 for every other negative, else blank."""
    codes = pd.DataFrame("", table.index, list(CHEXPERT))
    codes["Cardiomegaly"] = np.where(
        table["target"] == 1, "1.0", np.where(table.index % 2, "0.0", "")
    )
    codes["Pleural Effusion"] = np.where(table["findings"].str.contains("Effusion"), "1.0", "")
    codes["No Finding"] = np.where(table["findings"] == "No Finding", "1.0", "")
    return codes


def _chexpert(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    study = table["follow_up"].astype(int) + 1
    places = (
        "train/patient" + table["patient_id"].astype(str).str.zfill(5) + "/study"
        + study.astype(str) + "/view1_frontal.png"
    )  # fmt: skip
    theirs = pd.DataFrame(
        {
            "Path": "CheXpert-v1.0-small/" + places, "Sex": table["sex"].map(SEX),
            "Age": table["age"].astype(int), "Frontal/Lateral": "Frontal",
            "AP/PA": table["view_position"],
        }
    )  # fmt: skip
    theirs = pd.concat([theirs, _codes(table)], axis=1)
    lateral = theirs.iloc[:2].replace({"_frontal": "_lateral"}, regex=True)
    lateral = lateral.assign(**{"Frontal/Lateral": "Lateral", "AP/PA": ""})
    unsure = theirs.iloc[:1].assign(Path=theirs["Path"][0].replace("view1", "view9"))
    unsure["Cardiomegaly"] = "-1.0"
    pd.concat([theirs, lateral, unsure]).to_csv(target / "train.csv", index=False)
    return _copier(table, target, places)


def _mimic(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    subject, study = 10_000_000 + table["patient_id"], 50_000_000 + table.index
    dicom_id = "dc" + table["image"].str.removesuffix(".png")
    ids = pd.DataFrame({"subject_id": subject, "study_id": study})
    codes = _codes(table)
    _gzip(
        pd.concat([ids, codes[sorted(codes)]], axis=1), target / "mimic-cxr-2.0.0-chexpert.csv.gz"
    )
    metadata = ids.assign(
        ViewPosition=table["view_position"], Rows=1024, Columns=1024,
        StudyDate=21800101 + 100 * table["follow_up"].astype(int),
    )  # fmt: skip
    metadata.insert(0, "dicom_id", dicom_id)
    lateral = metadata.iloc[:3].assign(dicom_id="lateral", ViewPosition="LATERAL")
    lateral["dicom_id"] += lateral.index.astype(str)
    _gzip(pd.concat([metadata, lateral]), target / "mimic-cxr-2.0.0-metadata.csv.gz")
    ill = table.groupby("patient_id")["target"].transform("max")
    turn = table["patient_id"].groupby(ill).rank("dense") % 3  # parts with both classes
    part = turn.map({0: "train", 1: "validate", 2: "test"})
    split = pd.DataFrame({"dicom_id": dicom_id, **ids, "split": part})
    _gzip(split, target / "mimic-cxr-2.0.0-split.csv.gz")
    places = (
        "files/p10/p" + subject.astype(str) + "/s" + pd.Series(study.astype(str)) + "/" + dicom_id
        + ".png"
    )  # fmt: skip
    return _copier(table, target, places)


def _padchest(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    """16-bit PNGs of which 12 bits are used."""
    names = table["findings"].str.lower().str.replace("no finding", "normal").str.split("|")
    study = 2015 + table["follow_up"].astype(int)
    theirs = pd.DataFrame(
        {
            "ImageID": table["image"], "ImageDir": 0, "StudyDate_DICOM": study.astype(str) + "0704",
            "PatientID": "8398604886942923316379882" + table["patient_id"].astype(str).str.zfill(7),
            "PatientBirth": study - table["age"].fillna(50), "PatientSex_DICOM": table["sex"],
            "Projection": table["view_position"].where(table.index % 3 > 0, "AP_horizontal"),
            "MethodLabel": np.where(table.index % 2, "Physician", "RNN_model"),
            "Labels": names.map(str),
        }
    )  # fmt: skip
    theirs.loc[table["view_position"] == "PA", "Projection"] = "PA"
    lateral = theirs.iloc[:2].assign(Projection="L")
    lateral["ImageID"] = "L" + lateral["ImageID"]
    name = "PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv"
    pd.concat([theirs, lateral]).to_csv(target / name)

    def deepen(paths: dict[str, Path]) -> None:
        for image in table["image"]:
            pixels = cv2.imread(str(paths[image]), cv2.IMREAD_GRAYSCALE).astype(np.uint16)
            cv2.imwrite(str(target / image), pixels * 16 + pixels // 16)

    return deepen


def _vindr(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    """DICOM files, three readers; one of them sees no enlarged heart where the others do."""
    image = table["image"].str.removesuffix(".png").map(lambda name: f"{hash_of(name):032x}")
    rows = []
    for name, target_, width in zip(image, table["target"], range(len(table)), strict=True):
        for reader in ("R8", "R9", "R10"):
            if target_ and reader != "R10":
                rows.append((name, "Cardiomegaly", 3, reader, 10.0, 20.0, 30.0 + width % 5, 40.0))
                rows.append((name, "Aortic enlargement", 0, reader, 10.0, 20.0, 30.0, 40.0))
            else:
                rows.append((name, "No finding", 14, reader, "", "", "", ""))
    columns = ["image_id", "class_name", "class_id", "rad_id", "x_min", "y_min", "x_max", "y_max"]
    pd.DataFrame(rows, columns=columns).to_csv(target / "train.csv", index=False)

    def convert(paths: dict[str, Path]) -> None:
        from tests.dicom_files import written

        (target / "train").mkdir()
        for old, new in zip(table["image"], image, strict=True):
            pixels = cv2.imread(str(paths[old]), cv2.IMREAD_GRAYSCALE)
            written(target / "train" / f"{new}.dicom", 255 - pixels, 8, "MONOCHROME1")

    return convert


def hash_of(name: str) -> int:
    return int(name.replace("_", "")) * 0x9E3779B97F4A7C15


def _brax(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    patient = "id_" + table["patient_id"].astype(str).str.zfill(7)
    name = "image-" + table["image"].str.removesuffix(".png") + ".png"
    places = "images/" + patient + "/Study_1/Series_1/" + name
    age = table["age"].astype("Int64").astype(str).where(table["age"] < 85, "85 or more")
    theirs = pd.DataFrame(
        {
            "DicomPath": "", "PngPath": places, "PatientID": patient, "PatientSex": table["sex"],
            "PatientAge": age,
        }
    )  # fmt: skip
    theirs = pd.concat([theirs, _codes(table)], axis=1)
    theirs["ViewPosition"] = table["view_position"]
    theirs.to_csv(target / "master_spreadsheet_update.csv", index=False)
    return _copier(table, target, places)


def _table(table: pd.DataFrame, target: Path) -> Callable[[dict[str, Path]], None]:
    """Of its own: who, what, and nothing else."""
    theirs = pd.DataFrame(
        {"file": table["image"], "heart": table["target"].map({1: "big", 0: "normal"})}
    )
    theirs.assign(person=table["patient_id"]).to_csv(target / "mine.csv", index=False)
    return _copier(table, target, table["image"])


def _gzip(table: pd.DataFrame, path: Path) -> None:
    path.write_bytes(gzip.compress(table.to_csv(index=False).encode()))


WRITERS = {
    "chexpert": _chexpert, "mimic": _mimic, "padchest": _padchest, "vindr": _vindr, "brax": _brax,
    "table": _table,
}  # fmt: skip
WORDS = {  # beside data=NAME data.root=FOLDER
    "vindr": ["data.patient=image"],
    "table": [
        "data.columns.image=file", "data.columns.target=heart", "data.positive=big",
        "data.columns.patient_id=person",
    ],
}  # fmt: skip
