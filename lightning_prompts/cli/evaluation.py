"""What one evaluation of one prompt found, for the table and the sentences below it."""

from collections.abc import Mapping
from typing import NamedTuple

from lightning_prompts.files.stages import Stage
from lightning_prompts.runs.record import RunRecord


class Evaluation(NamedTuple):
    """One evaluation of one prompt.

    Args:
        prompt: Its record, as of prompt.json.
        metrics: By logged name without the stage.
        baselines: Metrics of what every prompt has to beat, by name.
        stage: `val` or `test`.
        rows: Rows that were scored.
        compared_rows: Those on which it was compared with what it turns into, if not all of them.
        of_rows: Rows that there are; of these the longest are scored where not all are.
        cut: Those of the scored rows whose text was cut to fit.
        iterate: Whether there is a continuous iterate beside tokens in use (PEZ).
        columns: Heading to metric of the table, where the task has no accuracy.
        legend: What these headings mean.
        judged: Whether a test of such a task asks another classifier.
        saved: Whether the run's prompt.json is of this prompt.
        left_out: Bad rows of the data that were left out, of all parts where one file was cut.
    """

    prompt: RunRecord
    metrics: Mapping[str, float | None]
    baselines: Mapping[str, Mapping[str, float]]
    stage: Stage
    rows: int | None = None
    compared_rows: int | None = None
    of_rows: int | None = None
    cut: int = 0
    iterate: bool = False
    columns: Mapping[str, str] = {}
    legend: str = ""
    judged: bool = True
    saved: bool = True
    left_out: int = 0

    @property
    def vectors(self) -> bool:
        """Whether vectors rather than tokens are in use."""
        return self.prompt.soft_in_use
