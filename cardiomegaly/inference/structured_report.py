"""A prediction as DICOM, in the study that the image belongs to, by highdicom.

For a radiograph: a Comprehensive structured report (TID 1500) with finding, probability and
decision, and a secondary capture of the explanation. Research only, not for clinical use, which
both say. Of the extra `dicom`.

Source: DICOM PS3.16, TID 1500 and TID 1501.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
from numpy.typing import NDArray

from cardiomegaly import UserError, __version__
from cardiomegaly.data.dicom import HEADER, INSTALL, is_dicom
from cardiomegaly.inference.detector import Detector
from cardiomegaly.inference.explanation import Explanation, Row
from cardiomegaly.inference.metadata import HEART, NOT_CLINICAL

if TYPE_CHECKING:
    from pydicom import Dataset

PROGRAM = "cardiomegaly"
CARDIOMEGALY = ("8186001", "SCT", "Cardiomegaly")
PROBABILITY = ("2931005", "SCT", "Probability")
PRESENCE = ("705057003", "SCT", "Presence")
PRESENT, ABSENT = ("52101004", "SCT", "Present"), ("2667000", "SCT", "Absent")
CHEST_XRAY = ("399208008", "SCT", "Plain chest X-ray")
NO_UNITS = ("1", "UCUM", "no units")
SERIES = 9001  # number of the report's; the capture's is the next


class DicomWriter:
    """Writes both objects for each DICOM file that was predicted, others are left.

    Args:
        detector: that predicts.
        folder: `NUMBER_NAME_report.dcm` and `NUMBER_NAME_overlay.dcm` go there.

    Raises:
        UserError: highdicom is not installed, or the detector finds something else.
    """

    def __init__(self, detector: Detector, folder: Path) -> None:
        try:
            import highdicom  # noqa: F401  (said at once, not after the first batch)
        except ImportError as error:
            raise UserError(f"dicom: highdicom is not installed; {INSTALL}") from error
        if detector.finding != HEART:
            raise UserError(
                f"dicom: reports are of {HEART} alone, the model finds {detector.finding}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        self.detector, self.folder, self.written = detector, folder, 0

    def write(self, row: Row) -> None:
        """Write what was predicted of a file; nothing of one that was refused."""
        if row.refused or not _is_dicom_file(row.image):
            return
        import pydicom

        source = pydicom.dcmread(row.image)
        stem = self.folder / f"{self.written:05}_{Path(row.image).stem}"
        try:
            report = self.report(source, row)
            overlay = self.overlay(source, self.detector.explain(row.image))
        except (AttributeError, ValueError, TypeError) as error:
            raise UserError(
                f"dicom: {row.image} lacks what a study's objects need ({error}); leave it out, or "
                "say dicom=null"
            ) from error
        report.save_as(stem.with_name(f"{stem.name}_report.dcm"))
        overlay.save_as(stem.with_name(f"{stem.name}_overlay.dcm"))
        self.written += 1

    def report(self, source: Dataset, row: Row) -> Dataset:
        """The structured report of a row; the probability is the calibrated one."""
        import highdicom as hd
        from pydicom.sr.codedict import codes
        from pydicom.sr.coding import Code

        about = self.detector.models[0].metadata
        device = hd.sr.DeviceObserverIdentifyingAttributes(
            uid=hd.UID(), name=PROGRAM, manufacturer_name=PROGRAM, model_name=about.name[:64]
        )
        observer = hd.sr.ObserverContext(codes.DCM.Device, device)
        algorithm = hd.sr.AlgorithmIdentification(
            name=about.name,
            version=f"{PROGRAM} {about.version}",
            parameters=[
                f"sha256 {about.sha256}", f"threshold {row.threshold:.6g}",
                f"decision {row.decision}", NOT_CLINICAL,
            ],
        )  # fmt: skip
        assert row.probability is not None  # noqa: S101  (for the type checker)
        probability = hd.sr.Measurement(
            Code(*PROBABILITY), round(row.probability, 9), Code(*NO_UNITS)
        )
        present = Code(*(PRESENT if row.decision == HEART else ABSENT))
        group = hd.sr.MeasurementsAndQualitativeEvaluations(
            tracking_identifier=hd.sr.TrackingIdentifier(uid=hd.UID(), identifier=PROGRAM),
            finding_type=Code(*CARDIOMEGALY),
            algorithm_id=algorithm,
            measurements=[probability],
            qualitative_evaluations=[hd.sr.QualitativeEvaluation(Code(*PRESENCE), present)],
            source_images=[hd.sr.SourceImageForMeasurementGroup.from_source_image(source)],
        )
        content = hd.sr.MeasurementReport(
            observation_context=hd.sr.ObservationContext(observer_device_context=observer),
            procedure_reported=Code(*CHEST_XRAY),
            imaging_measurements=[group],
        )
        return hd.sr.ComprehensiveSR(
            evidence=[source], content=content, series_instance_uid=hd.UID(),
            series_number=SERIES, sop_instance_uid=hd.UID(), instance_number=1,
            manufacturer=PROGRAM, series_description=f"{PROGRAM}: {NOT_CLINICAL}",
        )  # fmt: skip

    def overlay(self, source: Dataset, explanation: Explanation) -> Dataset:
        """The secondary capture of an explanation."""
        import highdicom as hd

        orientation = source.get("PatientOrientation") or ("L", "F")
        capture = hd.sc.SCImage.from_ref_dataset(
            source, _rendered(explanation), "RGB", 8, "PATIENT", series_instance_uid=hd.UID(),
            series_number=SERIES + 1, sop_instance_uid=hd.UID(), instance_number=1,
            manufacturer=PROGRAM, patient_orientation=orientation,
            series_description=f"{PROGRAM}: {NOT_CLINICAL}", manufacturer_model_name=PROGRAM,
            software_versions=__version__,
        )  # fmt: skip
        capture.BodyPartExamined = "CHEST"
        return capture


def _rendered(explanation: Explanation) -> NDArray[np.uint8]:
    """The figure as (H, W, 3)."""
    from matplotlib.backends.backend_agg import FigureCanvasAgg

    canvas = FigureCanvasAgg(explanation.figure())
    canvas.draw()
    return np.ascontiguousarray(np.asarray(canvas.buffer_rgba())[..., :3])


def _is_dicom_file(path: str) -> bool:
    with Path(path).open("rb") as file:
        return is_dicom(file.read(HEADER))
