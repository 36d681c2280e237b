"""The card of a model, in Hugging Face's form, from the figures of its own run."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from cardiomegaly import UserError
from cardiomegaly.data.boxes import HEART
from cardiomegaly.evaluation.assessment import FIXED, assess
from cardiomegaly.evaluation.settings import Settings
from cardiomegaly.model.refusal import Refusal
from cardiomegaly.reports.evaluation_inputs import inputs_of_runs
from cardiomegaly.reports.markdown import METRICS
from cardiomegaly.reports.pages import TEMPLATES
from cardiomegaly.reports.run_description import learned_by, weights_of
from cardiomegaly.training.files import write_text
from cardiomegaly.training.record import Run


def write_card(run: Run, refusal: Refusal | None, path: Path) -> None:
    """Write the card of a finished run.

    Args:
        run: as its folder has it.
        refusal: what refuses unfit images, None without.
        path: of the Markdown file.
    """
    values: dict[str, Any] = {"run": run, "refusal": refusal, "weights": weights_of(run)}
    values |= {"finding": run.meta.get("finding", HEART), "HEART": HEART}
    values |= {"figures": None, "undefined": "", "learned": learned_by(run)}
    try:
        inputs = inputs_of_runs({run.name: run}, None)
        assessment = assess(inputs.cohort, inputs.models, Settings())
    except UserError as mistake:  # a test part without one of the classes
        values["undefined"] = str(mistake)
    else:
        rows, groups = assessment.thresholds, assessment.subgroups.table
        rows = rows[(rows["rule"] == FIXED) & rows["metric"].isin(METRICS)]
        values["figures"] = rows.assign(metric=rows["metric"].map(METRICS))
        if len(groups):
            groups = groups.assign(name=groups["dimension"] + ": " + groups["group"])
        values["groups"] = groups
    write_text(path, TEMPLATES.get_template("model_card.md").render(values))
