"""DICOM files of any pixels."""

from __future__ import annotations

from pathlib import Path
from typing import Any


def written(
    path: Path, pixels: Any, bits: int, photometric: str = "MONOCHROME2", **tags: Any
) -> Path:
    """Write a DICOM file with further attributes."""
    from pydicom import Dataset, uid
    from pydicom.dataset import FileMetaDataset
    from pydicom.pixels import set_pixel_data

    file = Dataset()
    file.file_meta = FileMetaDataset()
    file.file_meta.TransferSyntaxUID = uid.ExplicitVRLittleEndian
    file.SOPClassUID = uid.DigitalXRayImageStorageForPresentation
    file.SOPInstanceUID = uid.generate_uid()
    set_pixel_data(file, pixels, photometric, bits)
    for name, value in tags.items():
        setattr(file, name, value)
    file.save_as(path, enforce_file_format=True)
    return path
