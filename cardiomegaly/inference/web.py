"""The page to try a model on: Gradio, of the extra `serve`.

It needs nothing from outside: no fonts, no analytics. What is uploaded is deleted within a minute.
"""

from __future__ import annotations

import io
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image

from cardiomegaly import UserError
from cardiomegaly.data.dicom import is_dicom, open_dicom
from cardiomegaly.inference.detector import Detector, Model
from cardiomegaly.inference.explanation import Explanation
from cardiomegaly.inference.inputs import SUFFIXES
from cardiomegaly.inference.metadata import NOT_CLINICAL

UPLOAD_MB = 32
KEPT_SECONDS = 60
VIEW = 512  # pixels of the pictures on the page
MOST_FILES = 16
STYLE = """
#notice { position: fixed; bottom: 0; left: 0; right: 0; z-index: 9; padding: 4px;
          text-align: center; background: var(--background-fill-secondary) }
.caption-label { white-space: normal !important; max-width: 100% !important }
@media (max-width: 600px) { .grid-container { grid-template-columns: 1fr !important } }
"""  # the notice stays in sight; on a phone maps stand below each other

Picture = NDArray[np.uint8]


def build(detector: Detector, examples: list[Path]) -> Any:
    """The page of a detector, as Gradio's blocks; `/predict` is its API.

    Args:
        detector: of one model or several.
        examples: images to click.

    Raises:
        UserError: Gradio is not installed.
    """
    try:
        import gradio as gr
    except ImportError as error:
        raise UserError(
            "app: Gradio is not installed; say pip install 'cardiomegaly[serve]'"
        ) from error

    def predict(
        files: list[str], threshold: float, opacity: float
    ) -> tuple[list[tuple[Picture, str]], str]:
        """Pictures with captions, and what is said of each file, in Markdown."""
        if not files:
            raise gr.Error("choose a PNG, JPEG or DICOM file", print_exception=False)
        if len(files) > MOST_FILES:
            raise gr.Error(f"at most {MOST_FILES} files at once", print_exception=False)
        pictures: list[tuple[Picture, str]] = []
        said = []
        for file in files:
            try:
                explanation = detector.explain(file)
            except UserError as mistake:
                reason = str(mistake).replace(file, Path(file).name)
                said.append(f"**{Path(file).name}**: refused, {reason.removeprefix('input: ')}")
                continue
            said.append(f"{in_words(explanation, detector, threshold)}  \n{about_file(file)}")
            pictures += overlays(explanation, opacity)
        return pictures, "\n\n".join(said)

    with gr.Blocks(
        title="cardiomegaly", analytics_enabled=False, delete_cache=(KEPT_SECONDS, KEPT_SECONDS)
    ) as page:
        gr.Markdown(f"## Does this chest X-ray show {detector.finding}?")
        gr.Markdown(f"**{NOT_CLINICAL.capitalize()}.**", elem_id="notice")
        with gr.Row():
            with gr.Column(scale=1, min_width=280):
                files = gr.File(
                    label="Images", file_count="multiple", file_types=list(SUFFIXES), height=160
                )
                threshold = gr.Slider(
                    0, 1, round(detector.threshold, 3), step=0.001, label="Threshold",
                    elem_id="threshold",
                )  # fmt: skip
                opacity = gr.Slider(0, 1, 0.45, step=0.05, label="Opacity of the maps")
                if examples:
                    gr.Examples([[[str(path)]] for path in examples], files, label="Phantoms")
            with gr.Column(scale=2, min_width=280):
                text = gr.Markdown(elem_id="result")
                gallery = gr.Gallery(
                    label="Maps", columns=3, object_fit="contain", format="png", height="auto"
                )
        for model in detector.models:
            with gr.Accordion(f"Model card: {model.metadata.name}", open=False):
                gr.Markdown(card(model))
        given = [files, threshold, opacity]
        files.change(predict, given, [gallery, text], api_name="predict", show_progress="minimal")
        for slider in (threshold, opacity):
            slider.change(
                predict, given, [gallery, text], api_visibility="private",
                trigger_mode="always_last",
            )  # fmt: skip
    return page


def theme() -> Any:
    """Gradio's plainest, in the browser's own fonts: others would be fetched."""
    import gradio as gr

    return gr.themes.Base(font=["system-ui", "sans-serif"], font_mono=["monospace"])


def card(model: Model) -> str:
    """A model's card without its head of key words; what it says of itself where it has none."""
    about = model.metadata
    text = model.card.partition("---\n")[2].partition("---\n")[2] or (
        f"Trained on {about.training}; licence {about.licence}. {NOT_CLINICAL.capitalize()}."
    )
    return f"{text}\n\n{about.image_size} pixels, sha256 `{about.sha256}`."


def about_file(path: str) -> str:
    """Size, depth and view of an image that can be read, in words: nothing of the patient."""
    data = Path(path).read_bytes()
    if is_dicom(data):
        file = open_dicom(data, path)
        view = file.get("ViewPosition") or "unknown"
        return (
            f"{file.Columns} x {file.Rows} pixels, {file.BitsStored} bits, "
            f"{file.PhotometricInterpretation}, DICOM, view {view}"
        )
    with Image.open(io.BytesIO(data), formats=("PNG", "JPEG")) as image:
        depth = "16 bits" if image.mode.startswith("I") else "8 bits"
        return f"{image.width} x {image.height} pixels, {depth}, {image.format}, view unknown"


def in_words(explanation: Explanation, detector: Detector, threshold: float) -> str:
    """What is said of an image: refusal with its reason, or probability, decision and size."""
    row, name = explanation.row, Path(explanation.row.image).name
    if row.probability is None:
        return f"**{name}**: refused, {row.reason}"
    decision = detector.decide(row.probability, threshold)
    remark = f" {row.reason}." if row.reason else ""
    return (
        f"**{name}**: {decision} (probability {row.probability:.3f}, threshold {threshold:.3f}). "
        f"Of 100 images that it gives this probability, about {row.probability * 100:.0f} are "
        f"labelled with {detector.finding}, where they are like those it was calibrated on.{remark}"
    )


def overlays(explanation: Explanation, opacity: float) -> list[tuple[Picture, str]]:
    """The image, and each map over it, with captions."""
    grey = cv2.resize(explanation.pixels, (VIEW, VIEW), interpolation=cv2.INTER_LINEAR)
    image = np.asarray(cv2.cvtColor(grey, cv2.COLOR_GRAY2RGB), np.uint8)
    name = Path(explanation.row.image).name
    pictures = [(image, name)]
    for title, saliency in explanation.maps.items():
        low, high = float(saliency.min()), float(saliency.max())
        if title == "contribution":  # signed: nothing added is in the middle
            high = max(abs(low), abs(high))
            low = -high
        scaled = (255 * (saliency - low) / max(high - low, 1e-9)).astype(np.uint8)
        large = cv2.resize(scaled, (VIEW, VIEW), interpolation=cv2.INTER_LINEAR)
        colours = cv2.cvtColor(cv2.applyColorMap(large, cv2.COLORMAP_VIRIDIS), cv2.COLOR_BGR2RGB)
        mixed = cv2.addWeighted(colours, opacity, image, 1 - opacity, 0)
        pictures.append((np.asarray(mixed, np.uint8), f"{title}, {low:.2g} to {high:.2g}: {name}"))
    return pictures
