"""Radiographs in DICOM files, as a viewer would show them, read by pydicom.

Of the extra `dicom`: `pip install "cardiomegaly[dicom]"`.

Source: DICOM PS3.3, C.7.6.3 (image pixels), C.11.1 (modality LUT), C.11.2 (VOI LUT).
"""

from __future__ import annotations

import io
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError

if TYPE_CHECKING:
    from pydicom import Dataset

HEADER = 132  # bytes: a preamble of 128, then the prefix
PREFIX = b"DICM"
GREY = ("MONOCHROME1", "MONOCHROME2")
COLOUR = ("RGB", "YBR_FULL", "YBR_FULL_422", "YBR_RCT", "YBR_ICT")
LUMINANCE = (0.299, 0.587, 0.114)  # of red, green and blue
EXTREMES = np.array([-1e12, 1e12])  # below and above every window
INSTALL = 'pip install "cardiomegaly[dicom]"'


class MissingDecoderError(UserError):
    """A package is not installed, so that nothing can be said of the file itself."""


def is_dicom(data: bytes) -> bool:
    """Whether these are the first bytes of a DICOM file."""
    return data[HEADER - len(PREFIX) : HEADER] == PREFIX


def open_dicom(data: bytes, path: str) -> Dataset:
    """Read a DICOM file but for its pixels, and check that these can be decoded.

    Args:
        data: the whole file.
        path: its name, for messages.

    Raises:
        MissingDecoderError: pydicom or the decoder of the file's transfer syntax is not installed.
        UserError: no image, several frames, neither grey nor colours, or damaged.
    """
    try:
        import pydicom
        from pydicom.pixels import get_decoder
    except ImportError as error:
        raise MissingDecoderError(f"{path} is a DICOM file: {INSTALL}") from error
    try:
        file = pydicom.dcmread(io.BytesIO(data))
        syntax = file.file_meta.TransferSyntaxUID
        if "PixelData" not in file or int(file.get("NumberOfFrames") or 1) != 1:
            raise UserError(f"{path} must hold one image, no more and no less")
        if file.PhotometricInterpretation not in GREY + COLOUR:
            raise UserError(f"{path} is neither grey nor RGB but {file.PhotometricInterpretation}")
        if not syntax.is_compressed or get_decoder(syntax).is_available:
            return file
    except UserError:
        raise
    except Exception as error:  # whatever pydicom raises, and it raises a dozen kinds
        raise _damaged(path, error) from error
    raise MissingDecoderError(f"{path} is compressed ({syntax.name}): {INSTALL}")


def displayed_pixels(file: Dataset, path: str) -> NDArray[np.uint8]:
    """Decode the pixels of an opened file to (H, W) `uint8`, grey, black for air.

    The modality LUT or rescale is applied, then the VOI LUT or, without one, the first window;
    where there is neither, 8 bits stay as they are and deeper pixels are spread from the darkest to
    the brightest. MONOCHROME1 is inverted, a colour becomes its luminance.

    Raises:
        UserError: damaged.
    """
    from pydicom.pixels import apply_modality_lut, apply_voi_lut, pixel_array

    try:
        pixels = pixel_array(file)
        if pixels.ndim == 3:  # RGB, whatever it was
            grey = pixels @ LUMINANCE / (2.0**file.BitsStored - 1)
            return np.rint(255 * np.clip(grey, 0, 1)).astype(np.uint8)
        values = apply_modality_lut(pixels, file)
        if file.get("VOILUTSequence"):
            values = np.rint(values).astype(np.int64)
        low, high = _range(file, values)
        grey = np.clip((apply_voi_lut(values, file) - low) / max(high - low, 1e-9), 0, 1)
    except Exception as error:  # as above
        raise _damaged(path, error) from error
    inverted = file.PhotometricInterpretation == "MONOCHROME1"
    return np.rint(255 * (1 - grey if inverted else grey)).astype(np.uint8)


def _range(file: Dataset, values: NDArray[Any]) -> tuple[float, float]:
    """The darkest and the brightest value that a pixel can be displayed with."""
    from pydicom.pixels import apply_modality_lut, apply_windowing

    if file.get("VOILUTSequence"):
        return 0.0, 2.0 ** file.VOILUTSequence[0].LUTDescriptor[2] - 1
    if file.get("WindowWidth") is not None and file.get("WindowCenter") is not None:
        low, high = sorted(apply_windowing(EXTREMES, file))
    elif file.BitsStored == 8 and file.PixelRepresentation == 0:
        low, high = sorted(apply_modality_lut(np.array([0, 255], np.uint8), file))
    else:
        low, high = values.min(), values.max()
    return float(low), float(high)


def _damaged(path: str, error: Exception) -> UserError:
    return UserError(f"{path} is damaged: {' '.join(str(error).split())[:200]}")
