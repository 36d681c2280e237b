"""Reports and overlays in DICOM, read again by highdicom, pydicom and dciodvfy."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path

import highdicom as hd
import numpy as np
import pandas as pd
import pydicom
import pytest
from pydicom.data import get_testdata_file
from pydicom.uid import ComputedRadiographyImageStorage, ExplicitVRLittleEndian, generate_uid

from cardiomegaly import predict
from tests.inference.test_inputs import chest


def write_radiograph(path: Path, pixels: np.ndarray) -> pydicom.Dataset:
    """A radiograph in a study, with all that such a file must have."""
    source = pydicom.dcmread(get_testdata_file("CT_small.dcm"))
    file = pydicom.Dataset()
    for name in ("PatientName", "PatientID", "PatientBirthDate", "PatientSex", "StudyID"):
        setattr(file, name, source.get(name, ""))
    file.StudyDate, file.StudyTime, file.AccessionNumber = "20200101", "120000", ""
    file.ReferringPhysicianName, file.Modality, file.Manufacturer = "", "CR", "test"
    file.SOPClassUID = ComputedRadiographyImageStorage
    file.StudyInstanceUID, file.SeriesInstanceUID = generate_uid(), generate_uid()
    file.SOPInstanceUID, file.SeriesNumber, file.InstanceNumber = generate_uid(), 1, 1
    file.BodyPartExamined, file.ViewPosition, file.PatientOrientation = "CHEST", "PA", ["L", "F"]
    file.Rows, file.Columns = pixels.shape
    file.SamplesPerPixel, file.PhotometricInterpretation = 1, "MONOCHROME2"
    file.BitsAllocated = file.BitsStored = 8
    file.HighBit, file.PixelRepresentation = 7, 0
    file.PixelData = pixels.tobytes()
    file.file_meta = pydicom.dataset.FileMetaDataset()
    file.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    file.save_as(path, enforce_file_format=True)
    return file


def test_a_report_and_an_overlay_of_each(
    onnx_file: Path, phantom_root: Path, tmp_path: Path
) -> None:
    source = write_radiograph(tmp_path / "a.dcm", chest(phantom_root))
    shutil.copy(next((phantom_root / "images").iterdir()), tmp_path / "b.png")
    words = [f"model={onnx_file}", f"input=[{tmp_path / 'a.dcm'},{tmp_path / 'b.png'}]"]
    words += [f"output={tmp_path / 'table.csv'}", f"dicom={tmp_path / 'out'}", "refuse=false"]
    assert predict.main([*words, "workers=0"]) == 0
    row = pd.read_csv(tmp_path / "table.csv").iloc[0]
    names = ["00000_a_overlay.dcm", "00000_a_report.dcm"]
    assert sorted(path.name for path in (tmp_path / "out").iterdir()) == names
    overlay, report = (pydicom.dcmread(tmp_path / "out" / name) for name in names)
    for made in (overlay, report):
        assert made.StudyInstanceUID == source.StudyInstanceUID
        assert made.PatientID == source.PatientID
        assert made.SOPInstanceUID != source.SOPInstanceUID
        assert made.SeriesInstanceUID != source.SeriesInstanceUID
        assert "not for clinical use" in made.SeriesDescription
    assert overlay.pixel_array.shape[2] == 3 and overlay.pixel_array.std() > 10
    read = hd.sr.srread(tmp_path / "out" / names[1])
    (group,) = read.content.get_image_measurement_groups()
    assert group.finding_type.value == "8186001"
    (probability,) = group.get_measurements()
    assert probability.value == pytest.approx(row["probability"], abs=1e-6)
    (presence,) = group.get_qualitative_evaluations()
    assert presence.value.meaning == ("Present" if row["decision"] == "cardiomegaly" else "Absent")
    (image,) = group.source_images
    assert image.referenced_sop_instance_uid == source.SOPInstanceUID
    said = [element.value for element in report.iterall() if element.VR == "UT"]
    assert {f"threshold {row['threshold']:.6g}", f"decision {row['decision']}"} <= set(said)
    assert any(text.startswith("sha256 ") for text in said)


def test_dciodvfy_has_nothing_to_say(onnx_file: Path, phantom_root: Path, tmp_path: Path) -> None:
    checker = shutil.which("dciodvfy")
    if checker is None:
        pytest.skip("dciodvfy (dicom3tools) is not installed")
    write_radiograph(tmp_path / "a.dcm", chest(phantom_root))
    words = [f"model={onnx_file}", f"input={tmp_path / 'a.dcm'}", f"dicom={tmp_path / 'out'}"]
    words += [f"output={tmp_path / 'table.csv'}", "workers=0", "refuse=false"]
    assert predict.main(words) == 0
    for path in (tmp_path / "out").iterdir():
        words = [checker, str(path)]
        done = subprocess.run(words, capture_output=True, text=True)  # noqa: S603
        said = [line for line in done.stderr.splitlines() if line.startswith(("Error", "Warning"))]
        assert said == []
