"""`lightning-prompts demo`: written, soft, PEZ and searched prompts for one small model."""

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from rich.text import Text

from lightning_prompts.callbacks.base import callback_of
from lightning_prompts.callbacks.baselines import CALIBRATED
from lightning_prompts.callbacks.early_end import limit_reached
from lightning_prompts.cli import table
from lightning_prompts.cli.advice import progress
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.evaluation import Evaluation
from lightning_prompts.cli.outcome import best_evaluation, folder
from lightning_prompts.files.amounts import above, count, share
from lightning_prompts.files.console import console, notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import short_path
from lightning_prompts.runs.best_prompt import BestPrompt
from lightning_prompts.studies.shared import SharedBaselines, SharedLM, stopped

WRITTEN_TEXT = " In one word, it was"
# A step of the search scores all its candidates.
STEPS = {"manual": 1, "soft": 40, "pez": 40, "guided_search": 8}
VALIDATIONS = 2  # of each run; one of the search costs more than two of its steps
# With the prompt last a step costs what its tokens cost: half of the default takes half the time.
SHORT = "--model.prompt_length=5"
OPTIONS = {
    "manual": (f"--model.text={WRITTEN_TEXT}",),
    # Three times the default, for so few steps: 0.68 after 40 of them, and 0.63 by the default, on
    # the 240 rows of validation and test together (one seed).
    "soft": (SHORT, "--model.optimizer.init_args.lr=0.03"),
    "pez": (SHORT,),
    "guided_search": (
        *("--model.init=FromText", f"--model.init.text={WRITTEN_TEXT}"),
        "--model.prompt_length=null",
        # Room for the text as the single characters of another model's tokenizer.
        "--model.max_length=20",
        # Half of both defaults, so that there is time for four times as many steps.
        *("--model.candidates=32", "--data.batch_size=16"),
    ),
}
# Prompt last: what the model makes of a text is then the same whatever the prompt, and is kept.
BASE = (
    *("--config", "configs/task/demo.yaml", "--lm.name", "smollm2"),
    *("--data.template", "{text}{prompt}"),
)
# How the lesson calls what each tuner finds.
CALLED = {
    "manual": "the written text",
    "soft": "the vectors",
    "pez": "PEZ's tokens",
    "guided_search": "the searched text",
}
REPORT = "demo-report"


class Fitted(NamedTuple):
    """What one run of the demo leaves."""

    evaluation: Evaluation
    title: str
    """What was scored."""
    rows: list[table.Row]
    notes: list[Text]
    run: Path


def demo(extra: Sequence[str]) -> None:
    """Fit the tuners on the package's own reviews and show what they show, as soon as it is there.

    Args:
        extra: Options for all runs, e.g. `--lm.name gpt2` or `--trainer.max_steps 150`.

    Raises:
        PromptError: If a run cannot be made, or validates nothing.
        SystemExit: 130 or 143 where a signal stopped it.
    """
    fitted: dict[str, Fitted] = {}
    lm, baselines = SharedLM(), SharedBaselines()  # texts too are read once, for all runs
    for tuner in STEPS:
        try:
            fitted[tuner] = new = _fit(tuner, extra, lm, baselines)
        except SystemExit:  # a signal came, and its exit status is kept
            notice(stopped(CALLED[tuner], [run.run for run in fitted.values()], len(STEPS)))
            raise
        first = len(fitted) == 1
        now = [*(table.baseline_rows(new.evaluation.baselines) if first else ()), *new.rows]
        console.print(table.part(now, new.title if first else None))
    title = fitted["manual"].title
    console.print()
    for run in fitted.values():
        for note in run.notes:
            console.print(note, soft_wrap=True)
    console.print()
    for sentence in lesson({tuner: run.evaluation for tuner, run in fitted.items()}):
        console.print(Text(sentence, style="bold"))
    from lightning_prompts.report.writing import write_report  # loads matplotlib

    runs = [run.run for run in fitted.values()]
    page = write_report(
        [str(run) for run in runs], runs[0].parents[1] / REPORT, f"Demo: prompts for {title}"
    )
    console.print(Text(f"Open in a browser: {short_path(page)}"), soft_wrap=True)


def _fit(tuner: str, extra: Sequence[str], lm: SharedLM, baselines: SharedBaselines) -> Fitted:
    steps = STEPS[tuner]
    limits = (
        f"--trainer.max_steps={steps}",
        f"--trainer.val_check_interval={-(-steps // VALIDATIONS)}",
    )
    config = ("--config", f"configs/tuner/{tuner}.yaml")
    args = ["fit", *config, *BASE, *OPTIONS.get(tuner, ()), *limits, *extra]
    cli = PromptCLI(args, run=False, show=False, make_lm=lm)
    baselines.start(cli)
    evaluation = best_evaluation(cli.trainer, cli.model, cli.datamodule)
    if evaluation is None:
        raise PromptError("The demo validated nothing; leave validation and checkpoints on.")
    run = folder(cli.trainer)
    notes = [table.prompt_text(evaluation.prompt, type(cli.model).__name__)]
    if cli.model.learns:
        best = callback_of(cli.trainer, BestPrompt)
        outcome = progress(best.history, best.mode, limit_reached(cli.trainer))
        steps_made = count(cli.trainer.global_step, "step")
        notes.append(Text(f"  {steps_made}. {outcome} Files: {short_path(run)}"))
    title = table.title(evaluation, cli.datamodule.slug, cli.model.lm.label)
    name = None if cli.model.learns else "written prompt"
    return Fitted(evaluation, title, table.prompt_rows(evaluation, name, brief=True), notes, run)


def lesson(found: Mapping[str, Evaluation]) -> list[str]:
    """What the numbers show, in a few sentences.

    Args:
        found: Evaluation of each tuner's prompt.

    Returns:
        Which prompts are above the calibrated empty one, which are not and what to do, and whether
        the nearest tokens of the vectors act like these, where that was measured; of what was not
        calibrated only what was reached.
    """
    soft = found["soft"]
    rows, empty = soft.rows, soft.baselines.get(CALIBRATED, {}).get("accuracy")
    accuracy = {tuner: evaluation.metrics["accuracy"] or 0.0 for tuner, evaluation in found.items()}

    def named(tuners: Iterable[str]) -> str:
        return ", ".join(f"{CALLED[tuner]} ({share(accuracy[tuner])})" for tuner in tuners)

    if empty is None:
        return [f"Reached: {named(found)}; there is no calibrated empty prompt to compare with."]
    better = [tuner for tuner in found if above(accuracy[tuner], empty, rows)]
    others = [tuner for tuner in found if tuner not in better]
    bar = f"the calibrated empty prompt ({share(empty)})"
    said = [f"Above {bar}: {named(better) or 'none of them'}."]
    if others:
        of_rows = f" on {count(rows, 'row')}" if rows else ""
        fix = "" if others == ["manual"] else "; train for longer with --trainer.max_steps"
        said.append(f"Not above it by more than chance{of_rows}: {named(others)}{fix}.")
    if (tokens := soft.metrics.get("hard_accuracy")) is not None:
        nearest = f"the vectors' nearest tokens ({share(tokens)})"
        if "soft" not in better:
            said.append(f"Whether {nearest} act like them shows once the vectors are above it.")
        elif above(accuracy["soft"], tokens, rows):
            read = "what was learned cannot be read off them"
            said.append(f"But {nearest} do not act like them: {read}.")
        else:
            said.append(f"And {nearest} act like them: here the tokens stand for the vectors.")
    return said
