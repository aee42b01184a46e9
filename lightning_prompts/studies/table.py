"""A study's closing table: each setting over its seeds."""

import math
from collections.abc import Mapping, Sequence
from statistics import fmean, stdev
from typing import Any

import optuna
from optuna.trial import TrialState
from rich.box import SIMPLE_HEAD
from rich.table import Table
from rich.text import Text

from lightning_prompts.files.amounts import NONE
from lightning_prompts.runs.record import VARIANT, RunRecord
from lightning_prompts.studies.config import StudyConfig
from lightning_prompts.studies.plan import label
from lightning_prompts.studies.storage import planned
from lightning_prompts.studies.worker import RECORD, SETTINGS

PERPLEXITY = "val/log_perplexity"


def findings(config: StudyConfig, study: optuna.Study) -> Table:
    """The settings with their mean over seeds and the standard deviation where there are several.

    Perplexity is the geometric mean: nats are what is averaged.
    """
    found: dict[str, list[RunRecord]] = {}
    for trial in planned(study):
        record = trial.user_attrs.get(RECORD)
        if trial.state == TrialState.COMPLETE and record:
            named = _named(config, trial.user_attrs)
            found.setdefault(named, []).append(RunRecord.from_json(record))
    columns = _columns(config, [record for records in found.values() for record in records])
    table = Table(title=Text(_title(config, found), "bold"), title_justify="left", box=SIMPLE_HEAD)
    table.pad_edge = table.show_edge = False  # a setting's name is long
    table.add_column("setting", no_wrap=True, overflow="fold")
    for heading in ("runs", *map(_heading, columns)):
        table.add_column(heading, justify="right", no_wrap=True)
    for name, records in found.items():
        cells = [_cell([r.metrics.get(metric) for r in records], metric) for metric in columns]
        table.add_row(Text(name), str(len(records)), *cells)
    return table


def _named(config: StudyConfig, attributes: Mapping[str, Any]) -> str:
    settings = dict(attributes[SETTINGS])
    variant = str(settings.pop(VARIANT, ""))
    return label(variant, settings, config.space_of(variant))


def _columns(config: StudyConfig, records: Sequence[RunRecord]) -> list[str]:
    """The objectives, and what the test says of the same."""
    names: list[str] = []
    for metric in config.settings.objectives:
        test = metric.replace("val/", "test/")
        names.append(metric)
        if metric != PERPLEXITY and any(test in record.metrics for record in records):
            names.append(test)
    return names


def _heading(metric: str) -> str:
    """What stands over a column: `accuracy` of the validation, `test accuracy`."""
    stage, _, name = metric.partition("/")
    name = "perplexity" if metric == PERPLEXITY else name
    return name if stage == "val" else f"{stage} {name}"


def _cell(values: Sequence[float | None], metric: str) -> str:
    known = [value for value in values if value is not None]
    if not known:
        return NONE
    if metric.endswith("log_perplexity"):
        return f"{math.exp(min(fmean(known), 700)):.3g}"
    spread = f" ± {stdev(known):.3f}" if len(known) > 1 else ""
    return f"{fmean(known):.3f}{spread}"


def _title(config: StudyConfig, found: Mapping[str, Sequence[RunRecord]]) -> str:
    records = [record for some in found.values() for record in some]
    about = sorted({f"{record.task}, {record.lm.label}" for record in records})
    return ": ".join([config.name, "; ".join(about)]) + ", mean ± standard deviation over seeds"
