"""`lightning-prompts demo`: written, soft and PEZ prompts for one small model, in one table."""

from collections.abc import Sequence
from pathlib import Path

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
from lightning_prompts.files.console import console
from lightning_prompts.files.errors import PromptError
from lightning_prompts.files.text import short_path
from lightning_prompts.runs.checkpoint import BestPrompt
from lightning_prompts.studies.shared import SharedBaselines

# Steps that fit into five minutes on two cores, three validations each. Tokens take longer to find
# than vectors.
STEPS = {"manual": 1, "soft": 60, "pez": 75}
REPORT = "demo-report"
BASE = ("--config", "configs/task/demo.yaml", "--lm.name", "smollm2")


def demo(extra: Sequence[str]) -> None:
    """Fit the three tuners on the package's own reviews and show what they show.

    Args:
        extra: Options for all three runs, e.g. `--lm.name gpt2` or `--trainer.max_steps 300`.
    """
    found: dict[str, Evaluation] = {}
    notes: list[Text] = []
    runs: list[Path] = []
    title, baselines = "", SharedBaselines()
    for tuner, steps in STEPS.items():
        limits = (f"--trainer.max_steps={steps}", f"--trainer.val_check_interval={-(-steps // 3)}")
        config = f"configs/tuner/{tuner}.yaml"
        cli = PromptCLI(["fit", "--config", config, *BASE, *limits, *extra], False, False)
        baselines.start(cli)  # the same for all three
        evaluation = best_evaluation(cli.trainer, cli.model, cli.datamodule)
        if evaluation is None:
            raise PromptError("The demo validated nothing; leave validation and checkpoints on.")
        found[tuner] = evaluation
        runs.append(folder(cli.trainer))
        title = table.title(evaluation, cli.datamodule.slug, cli.model.lm.label)
        notes.append(table.prompt_text(evaluation.prompt, type(cli.model).__name__))
        if cli.model.learns:
            best = callback_of(cli.trainer, BestPrompt)
            outcome = progress(best.history, best.mode, limit_reached(cli.trainer))
            steps_made = count(cli.trainer.global_step, "step")
            where = short_path(runs[-1])
            notes.append(Text(f"  {steps_made}. {outcome} Files: {where}"))
    rows = table.baseline_rows(found["manual"].baselines)
    for tuner, evaluation in found.items():
        name = "written prompt" if tuner == "manual" else None
        rows += table.prompt_rows(evaluation, name, brief=True)
    console.print()
    console.print(table.table(rows, title))
    for note in notes:
        console.print(note, soft_wrap=True)
    console.print()
    console.print(Text(lesson(found), style="bold"))
    from lightning_prompts.report.writing import write_report  # loads matplotlib

    page = write_report(
        [str(run) for run in runs], runs[0].parents[1] / REPORT, f"Demo: prompts for {title}"
    )
    console.print(Text(f"Open in a browser: {short_path(page)}"), soft_wrap=True)


def lesson(found: dict[str, Evaluation]) -> str:
    """One sentence on what the numbers show.

    Args:
        found: Evaluations of the tuners manual, soft and pez.
    """
    written, soft, pez = (found[name].metrics for name in ("manual", "soft", "pez"))
    vectors, tokens = soft["accuracy"], soft.get("hard_accuracy")
    assert vectors is not None
    empty = found["manual"].baselines.get(CALIBRATED, {}).get("accuracy")
    rows = found["soft"].rows
    others = (
        f"a written text reaches {share(written['accuracy'])}, PEZ's tokens "
        f"{share(pez['accuracy'])}"
    )
    calibrated = "" if empty is None else f", no prompt, calibrated, {share(empty)}"
    if empty is not None and not above(vectors, empty, rows):
        return (
            f"The learned vectors ({share(vectors)}) do not beat the calibrated empty prompt "
            f"({share(empty)}) yet by more than chance: train for longer with "
            f"--trainer.max_steps; {others}."
        )
    if tokens is None:
        return f"The learned vectors reach {share(vectors)}; {others}{calibrated}."
    if above(vectors, tokens, rows):
        return (
            f"The learned vectors reach {share(vectors)} but their nearest tokens only "
            f"{share(tokens)}: what was learned cannot be read off them; {others}{calibrated}."
        )
    return (
        f"The learned vectors reach {share(vectors)} and their nearest tokens {share(tokens)}: "
        f"here the tokens stand for the vectors; {others}{calibrated}."
    )
