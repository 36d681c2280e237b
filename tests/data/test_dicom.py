"""DICOM files: pixels as a viewer shows them, every transfer syntax, and what is refused."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest

from cardiomegaly import UserError
from cardiomegaly.data.dicom import MissingDecoderError
from cardiomegaly.data.images import decode_images, read_image
from tests.dicom_files import written

pydicom = pytest.importorskip("pydicom")
from pydicom import Dataset, uid  # noqa: E402
from pydicom.data import get_testdata_file  # noqa: E402
from pydicom.encaps import encapsulate  # noqa: E402

ENCODED = (uid.RLELossless, uid.JPEG2000Lossless)


def values(bits: int, shape: tuple[int, int] = (80, 70)) -> Any:
    """Stored pixels from 0 to the largest."""
    ramp = np.linspace(0, 2**bits - 1, shape[0] * shape[1]).round()
    return ramp.reshape(shape).astype(np.uint8 if bits == 8 else np.uint16)


def test_eight_bits_without_a_window_stay_as_they_are(tmp_path: Path) -> None:
    pixels = values(8) // 2 + 20
    path = written(tmp_path / "any.name", pixels, 8)
    np.testing.assert_array_equal(read_image(path), pixels)
    inverted = written(
        tmp_path / "b", pixels, 8, "MONOCHROME1", RescaleSlope=2, RescaleIntercept=-9
    )
    np.testing.assert_array_equal(read_image(inverted), 255 - pixels)


def test_deeper_pixels_without_a_window_are_spread(tmp_path: Path) -> None:
    stored = values(12) // 2 + 100
    spread = (stored - 100.0) / (stored.max() - 100.0)
    path = written(tmp_path / "a.dcm", stored, 12)
    np.testing.assert_array_equal(read_image(path), np.rint(spread * 255))


@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
def test_window_after_rescale_by_the_formula_of_the_standard(
    tmp_path: Path, photometric: str
) -> None:
    stored, slope, intercept, centre, width = values(12), 2.0, -1000.0, 3000.0, 4000.0
    path = written(
        tmp_path / "a.dcm", stored, 12, photometric, RescaleSlope=slope,
        RescaleIntercept=intercept, WindowCenter=[centre, 5], WindowWidth=[width, 9],
    )  # fmt: skip
    x = stored * slope + intercept
    grey = np.clip((x - (centre - 0.5)) / (width - 1) + 0.5, 0, 1)  # PS3.3 C.11.2.1.2.1
    grey = 1 - grey if photometric == "MONOCHROME1" else grey
    np.testing.assert_allclose(read_image(path), 255 * grey, atol=0.5001)


def test_a_lookup_table_comes_before_the_window(tmp_path: Path) -> None:
    path = written(
        tmp_path / "a.dcm", values(12), 12, WindowCenter=9, WindowWidth=9, RescaleSlope=1,
        RescaleIntercept=0,
    )  # fmt: skip
    file = pydicom.dcmread(path)
    table = Dataset()
    table.add_new("LUTDescriptor", "US", [4096, 0, 12])
    table.add_new("LUTData", "US", [4095 - index for index in range(4096)])
    file.VOILUTSequence = [table]
    file.save_as(path)
    np.testing.assert_array_equal(read_image(path), np.rint((4095 - values(12)) / 4095 * 255))


@pytest.mark.parametrize("syntax", ENCODED, ids=lambda syntax: syntax.keyword)
@pytest.mark.parametrize("bits", [8, 12])
def test_lossless_compression_changes_nothing(tmp_path: Path, syntax: uid.UID, bits: int) -> None:
    path = written(tmp_path / "a.dcm", values(bits), bits)
    plain = read_image(path)
    file = pydicom.dcmread(path)
    file.compress(syntax, generate_instance_uid=False)
    file.save_as(path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    np.testing.assert_array_equal(read_image(path), plain)


def test_baseline_jpeg(tmp_path: Path) -> None:
    path = written(tmp_path / "a.dcm", values(8), 8)
    file = pydicom.dcmread(path)
    file.file_meta.TransferSyntaxUID = uid.JPEGBaseline8Bit
    file.PixelData = encapsulate([cv2.imencode(".jpg", values(8))[1].tobytes()])
    file["PixelData"].VR = "OB"
    file.save_as(path)
    np.testing.assert_allclose(read_image(path).astype(int), values(8).astype(int), atol=6)


def test_lossless_jpeg_of_the_first_predictor() -> None:
    """VinDr-CXR's transfer syntax among others; the file is pydicom's."""
    path = get_testdata_file("SC_rgb_jpeg_gdcm.dcm")
    file = pydicom.dcmread(path)
    assert file.file_meta.TransferSyntaxUID == uid.JPEGLosslessSV1
    plain = pydicom.dcmread(get_testdata_file("SC_rgb_rle.dcm")).pixel_array
    np.testing.assert_allclose(read_image(path), plain @ (0.299, 0.587, 0.114), atol=0.5001)


@pytest.mark.parametrize("bits", [8, 16])
def test_colours_become_luminance(tmp_path: Path, bits: int) -> None:
    ramp = values(bits)
    colours = np.stack([ramp, ramp.T.reshape(80, 70), ramp[::-1]], axis=2)
    path = written(tmp_path / "a.dcm", np.ascontiguousarray(colours), bits, "RGB")
    expected = colours @ (0.299, 0.587, 0.114) * 255 / (2**bits - 1)
    np.testing.assert_allclose(read_image(path), expected, atol=0.5001)


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda file: file.__delattr__("PixelData"), "must hold one image"),
        (lambda file: setattr(file, "NumberOfFrames", 2), "must hold one image"),
        (lambda file: setattr(file, "PhotometricInterpretation", "HSV"), "neither grey nor RGB"),
        (lambda file: setattr(file, "PixelData", b"12"), "is damaged"),
        (lambda file: setattr(file, "Rows", 3), "is 70 x 3 pixels"),
        (lambda file: setattr(file, "Rows", 65_000) or setattr(file, "Columns", 65_000), "80,000,"),
        (lambda file: setattr(file.file_meta, "TransferSyntaxUID", uid.UID("1.2.3")), "is damaged"),
    ],
)
def test_what_is_no_radiograph_is_refused_in_one_line(
    tmp_path: Path, change: Any, message: str
) -> None:
    path = written(tmp_path / "bad.dcm", values(12), 12)
    file = pydicom.dcmread(path)
    change(file)
    file.save_as(path)
    with pytest.raises(UserError, match=rf"bad\.dcm .*{message}") as mistake:
        read_image(path)
    assert "\n" not in str(mistake.value)


def test_a_truncated_file(tmp_path: Path) -> None:
    path = written(tmp_path / "bad.dcm", values(12), 12)
    for length in (140, 200, path.stat().st_size - 100):
        path.write_bytes(path.read_bytes()[:length])
        with pytest.raises(UserError, match=r"bad\.dcm"):
            read_image(path)


def test_a_missing_package_is_said_and_not_held_against_the_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = written(tmp_path / "a.dcm", values(12), 12)
    monkeypatch.setitem(sys.modules, "pydicom", None)
    with pytest.raises(MissingDecoderError, match=r"a\.dcm is a DICOM file: pip install"):
        list(decode_images([str(path)], 16, "stretch"))


def test_a_missing_decoder_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    decoder = pydicom.pixels.get_decoder(uid.JPEGLosslessSV1)
    monkeypatch.setattr(decoder, "_available", {})
    with pytest.raises(MissingDecoderError, match=r"is compressed \(JPEG Lossless.* pip install"):
        read_image(get_testdata_file("SC_rgb_jpeg_gdcm.dcm"))
