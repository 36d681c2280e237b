"""What the page says of a file."""

from __future__ import annotations

from pathlib import Path

import pytest

from cardiomegaly.inference.web import about_file
from tests.dicom_files import written
from tests.inference.test_inputs import chest, write_world


def test_a_file_is_described_without_its_patient(phantom_root: Path, tmp_path: Path) -> None:
    pixels = chest(phantom_root)
    write_world(tmp_path, pixels)
    size = f"{pixels.shape[1]} x {pixels.shape[0]} pixels"
    assert about_file(str(tmp_path / "a8.png")) == f"{size}, 8 bits, PNG, view unknown"
    assert about_file(str(tmp_path / "b16.png")) == f"{size}, 16 bits, PNG, view unknown"
    assert about_file(str(tmp_path / "cmyk.jpg")) == f"{size}, 8 bits, JPEG, view unknown"
    pytest.importorskip("pydicom", reason="the extra dicom is not installed")
    tags = {"PatientName": "Doe^Jane", "PatientID": "4711", "Manufacturer": "Acme"}
    path = written(tmp_path / "a.dcm", pixels, 8, "MONOCHROME1", ViewPosition="PA", **tags)
    assert about_file(str(path)) == f"{size}, 8 bits, MONOCHROME1, DICOM, view PA"
