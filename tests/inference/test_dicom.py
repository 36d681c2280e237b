"""DICOM files in use: those that come with pydicom, and radiographs in every transfer syntax."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pandas as pd
import pytest

import cardiomegaly
from cardiomegaly import predict
from cardiomegaly.inference.inputs import list_files
from tests.dicom_files import written
from tests.inference.test_inputs import chest

pydicom = pytest.importorskip("pydicom")
from pydicom import uid  # noqa: E402

SYNTAXES = [
    uid.ExplicitVRLittleEndian,
    uid.RLELossless,
    uid.JPEG2000Lossless,
    uid.JPEGLSLossless,
]


@pytest.mark.filterwarnings("ignore")  # pydicom says what it finds strange in its own strange files
def test_every_file_of_pydicom_is_a_row(onnx_file: Path, tmp_path: Path) -> None:
    """None of them is a radiograph of the chest; most hold several frames, or no image at all."""
    folder = Path(pydicom.__file__).parent / "data"
    table = tmp_path / "table.csv"
    words = [f"model={onnx_file}", f"input={folder}", f"output={table}", "workers=0"]
    assert predict.main(words) == 0
    rows = pd.read_csv(table)
    assert len(rows) > 100 and rows["image"].tolist() == list(list_files([str(folder)]))
    assert (rows["probability"].notna() ^ rows["refused"]).all()
    assert rows["reason"][rows["refused"]].notna().all()
    files = {str(path) for path in (folder / "test_files").glob("*.dcm")}
    assert files <= set(rows["image"])


@pytest.mark.parametrize("syntax", SYNTAXES, ids=lambda syntax: syntax.name)
@pytest.mark.parametrize("photometric", ["MONOCHROME1", "MONOCHROME2"])
@pytest.mark.parametrize("bits", [8, 12, 16])
def test_a_radiograph_has_its_probability_in_every_syntax(
    onnx_file: Path,
    phantom_root: Path,
    tmp_path: Path,
    syntax: uid.UID,
    photometric: str,
    bits: int,
) -> None:
    if syntax.is_compressed and not pydicom.pixels.get_encoder(syntax).is_available:
        pytest.skip(f"no encoder of {syntax.name} is installed")
    pixels, largest = chest(phantom_root), 2**bits - 1
    shown = 255 - pixels if photometric == "MONOCHROME1" else pixels
    stored = np.rint(shown / 255 * largest).astype(np.uint8 if bits == 8 else np.uint16)
    window = {"WindowCenter": 2 ** (bits - 1), "WindowWidth": 2**bits}
    path = written(tmp_path / "a.dcm", stored, bits, photometric, **window)
    if syntax.is_compressed:
        file = pydicom.dcmread(path)
        file.compress(syntax, generate_instance_uid=False)
        file.save_as(path)
    assert pydicom.dcmread(path).file_meta.TransferSyntaxUID == syntax
    found, expected = cardiomegaly.load(onnx_file).predict([path, pixels])["probability_raw"]
    assert found == pytest.approx(expected, abs=1e-9)
