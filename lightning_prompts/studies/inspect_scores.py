"""What one prompt does on a task's rows: its tokens, the ways to read it, its like."""

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from functools import partial
from typing import NamedTuple

import torch
from torch import Tensor

from lightning_prompts.callbacks.base import EvaluationCallback, callback_of
from lightning_prompts.callbacks.faithfulness import pieces
from lightning_prompts.callbacks.scrutability import ScorerLM, Scrutability
from lightning_prompts.callbacks.scrutability_panel import shown_texts
from lightning_prompts.cli.app import PromptCLI
from lightning_prompts.cli.table import cut_to_fit
from lightning_prompts.files.amounts import count
from lightning_prompts.files.console import notice
from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.nearest import distance, nearest_few
from lightning_prompts.metrics.in_words import (
    Readout,
    Source,
    in_words,
    random_like,
    task_words,
)
from lightning_prompts.metrics.panel.answered import AnsweredRows
from lightning_prompts.metrics.panel.measures import over_rows, scrutability_panel
from lightning_prompts.metrics.panel.token_effects import token_effects
from lightning_prompts.metrics.scrutability import log_perplexity, round_trip
from lightning_prompts.report.alike import RUN, differences
from lightning_prompts.report.inspect import Inspection, Near
from lightning_prompts.runs.answers_of import pasted
from lightning_prompts.studies.check_costs import CALIBRATED_ON
from lightning_prompts.studies.inspect_alike import (
    NO_OTHERS,
    Comparisons,
    acting_alike,
    compared,
    refuse_long,
)
from lightning_prompts.studies.inspect_ways import Scored, most_different, ways
from lightning_prompts.tasks.loading import EncodedRows, batches_of
from lightning_prompts.tasks.rows import SPLIT_SEED, stratified_order
from lightning_prompts.tuners.record import PromptRecord
from lightning_prompts.tuners.rows import task_facts

NEIGHBOURS = 5  # tokens shown of each vector
VECTORS, TOKENS, NEAREST, TEXT = "vectors", "tokens", "nearest tokens", "pasted text"
VALIDATION = "validation"
EFFECTS = "token_effects"  # of the panel: always measured, as the table is of it


class Subject(NamedTuple):
    """The prompt that is looked at.

    Attributes:
        record: What is known of it.
        vectors: [P, H] That are in use; None where its tokens are.
        learned_here: Whether the task's validation rows chose it.
    """

    record: PromptRecord
    vectors: Tensor | None
    learned_here: bool = False


class Inspecting:
    """A prompt with the rows that it is looked at on.

    Args:
        cli: A `fit` of the task, built, with any tuner that classifies.
        subject: The prompt, of the cli's model.
        num_rows: Most rows of the split, with the classes in their shares.
        compare: Prompts to compare with it.
        split: Of whose rows.

    Raises:
        PromptError: If the task has no labels, training texts or such rows, or a prompt to compare
            is not one of the model.
    """

    def __init__(
        self,
        cli: PromptCLI,
        subject: Subject,
        num_rows: int,
        compare: Comparisons = NO_OTHERS,
        split: str = VALIDATION,
    ) -> None:
        self.trainer, self.task, self.tuner = cli.trainer, cli.datamodule, cli.model
        self.lm, task = cli.datamodule.lm, cli.datamodule
        if not self.tuner.classifies:
            raise PromptError(f"{task.slug} has no labels to answer; inspect looks at answers.")
        if not task.has("train"):
            raise PromptError(
                "Recalibrating reads training texts (not their labels), and there are none; name a "
                "file: --data.train FILE."
            )
        if not task.has(split):
            raise PromptError(
                f"--split {split}: the data have no {split} rows; name a file with --data.{split} "
                "FILE."
            )
        self.tuner.to(self.trainer.strategy.root_device)
        self.trainer.precision_plugin.convert_module(self.lm)
        self.record, self.limits = subject.record, list[str]()
        table = self.lm.embedding_table
        self.vectors = None if subject.vectors is None else subject.vectors.to(table)
        refuse_long(task, len(self.record.ids), "The prompt")
        self.compared = list(compared(task, compare, self.limits.append))
        longest = max(len(self.record.ids), *(len(each.prompt) for each in self.compared), 0)
        task.report.max_tokens = task.token_limit(longest)
        self.rows = self._rows(num_rows, split)
        self.in_use = self.rows.log_shares(
            self.record.ids if self.vectors is None else self.vectors
        )
        self.rows.answers = self.in_use[0].argmax(-1)
        if self.record.template != task.template.given:
            self.limits.append(
                f"The prompt was learned in the template {self.record.template_text!r}, and is "
                f"looked at in {task.template.given!r}."
            )
        if subject.learned_here and split == VALIDATION:
            self.limits.append(
                "The rows are validation rows, which had a part in choosing the prompt: on new "
                "rows it may do a little worse."
            )

    @torch.no_grad()
    def found(self, measures: Sequence[str], in_words: bool = False) -> Inspection:
        """Everything.

        Args:
            measures: Names of the panel's.
            in_words: Whether the prompt is read out in the model's own words.

        Raises:
            PromptError: If that is asked for, and the model's blocks are not found.
        """
        lm, ids = self.lm, self.record.ids
        read_out = self._in_words() if in_words else []
        passes = count(len(ids), "token")
        notice(f"Leaving out each of {passes} on {count(len(self.rows.answers), 'row')}")
        effects = token_effects(self.rows)
        tokens = torch.tensor(ids, device=lm.embedding_table.device)
        nats = lm.token_nll(tokens[None])[0]
        far = None
        if self.vectors is not None:
            far = distance(self.vectors.float(), lm.embed(tokens).float(), "cosine").tolist()
        record = replace(
            self.record,
            tokens=lm.token_strings(ids),
            token_nats=nats.tolist(),
            token_distances=far,
        )
        values = {
            "perplexity": float(log_perplexity(nats).exp()),
            "round_trip": round_trip(ids, lm.tokenize([record.text])[0]),
            **self._panel([name for name in measures if name != EFFECTS]),
            **over_rows(effects),
        }
        scored = self._ways()
        alike = acting_alike(self.rows, self.in_use, self.compared, scored.get(NEAREST))
        counts = Counter(self.rows.labels.tolist())
        labels = self.task.verbalizer.labels
        texts = min(CALIBRATED_ON, len(self.task.rows("train")))
        return Inspection(
            record=record,
            title=self.title,
            near=self._near(),
            effects=effects,
            ways=ways(self.rows, scored),
            rows=most_different(self.rows, scored),
            panel=values,
            alike=[each.prompt for each in alike],
            differences=differences(alike),
            frequencies={label: counts[i] / effects.rows for i, label in enumerate(labels)},
            calibrated_on=count(texts, "training text"),
            in_words=read_out,
            limits=self.limits,
        )

    # ---- what is read

    def _rows(self, most: int, split: str) -> AnsweredRows:
        """The rows, before they are answered."""
        task, batched = self.task, self.trainer.strategy.batch_to_device
        whole = task.rows(split)
        chosen = whole.take(stratified_order(whole.labels, SPLIT_SEED)[:most])
        encoded = EncodedRows(task.encoded_examples(chosen), chosen.labels, chosen.numbers)
        batches = list(batches_of(encoded, task.val_batch_size))
        unlabelled = list(task.calibration_batches())
        of = f" of {count(len(whole), 'row')}" if len(chosen) < len(whole) else ""
        rows = f"{len(chosen):,}{of}" if of else count(len(chosen), "row")
        cut = sum(example.cut for example in encoded.examples)
        noted = f" ({cut_to_fit(cut)})" if cut else ""
        self.title = f"{task.slug}, {split}, {rows}{noted}, {self.lm.label}"
        return AnsweredRows(
            *(self.lm, task.template, task.verbalizer, self.record.ids),
            batches=[batched(batch) for batch in batches],
            texts=shown_texts(task, chosen, batches),
            answers=torch.empty(0),
            unlabelled=[batched(batch) for batch in unlabelled],
            unlabelled_texts=shown_texts(task, task.rows("train"), unlabelled),
            precision=partial(EvaluationCallback.precision, self.trainer),
        )

    # ---- what is found

    def _near(self) -> list[list[Near]]:
        if self.vectors is None:
            return []
        excluded = self.tuner.special_ids if self.tuner.exclude_special else None
        found = nearest_few(self.vectors, self.lm.index, NEIGHBOURS, "cosine", excluded)
        return [
            [Near(self.lm.decode([i]), i, far) for i, far in zip(ids, distances, strict=True)]
            for ids, distances in zip(found.ids.tolist(), found.distances.tolist(), strict=True)
        ]

    def _panel(self, measures: Sequence[str]) -> dict[str, float]:
        """Values of the text, as a test would log them."""
        task, scorer = self.task, callback_of(self.trainer, Scrutability).scorer
        facts = task_facts(task, task.verbalizer)
        facts.rows = self.rows
        if scorer is None:
            return scrutability_panel(
                self.lm, self.record.ids, measures, facts, say=self.limits.append
            )
        reader = ScorerLM(scorer).to(self.lm.embedding_table.device)
        self.limits.append(
            f"The panel, but for perplexity and round trip, is read by {reader.label}."
        )
        return scrutability_panel(reader, self.record.text, measures, facts, say=self.limits.append)

    def _ways(self) -> dict[str, Scored]:
        """What each way to read the prompt scores, the one in use first."""
        found, name = {TOKENS: self.in_use}, TOKENS
        if self.vectors is not None:
            name = NEAREST
            found = {VECTORS: self.in_use, NEAREST: self.rows.log_shares(self.record.ids)}
        if all(map(self._pasted_alike, [*self.rows.batches, *self.rows.unlabelled])):
            return found | {TEXT: found[name]}
        return found | {TEXT: self.rows.scored(pasted(self.trainer, self.tuner, self.record.text))}

    def _pasted_alike(self, batch: Batch) -> bool:
        """Whether the prompt's text, pasted into rows, is its tokens."""
        whole = self.task.template.paste(self.record.text, batch["texts"])
        return whole == pieces(batch, self.record.ids)

    def _in_words(self) -> list[Readout]:
        """The prompt read out, its nearest tokens, random vectors, and other runs' prompts."""
        lm = self.lm

        def rows(prompt: Sequence[int] | Tensor) -> Tensor:
            if isinstance(prompt, Tensor):
                return prompt
            return lm.embed(torch.tensor(prompt, device=lm.embedding_table.device))

        tokens = rows(self.record.ids)
        vectors = tokens if self.vectors is None else self.vectors
        sources = [Source("prompt", "the prompt", vectors)]
        if self.vectors is not None:
            sources.append(Source("nearest tokens", NEAREST, tokens))
        runs = (each for each in self.compared if each.kind == RUN)
        sources += [Source("run", each.name, rows(each.prompt)) for each in runs]
        sources += random_like(vectors)
        notice(f"Reading out {count(len(sources), 'prompt')} in the model's own words")
        words = task_words(
            [answer for some in self.task.verbalizer.answers for answer in some],
            self.task.verbalizer.labels,
            self.task.kind,
        )
        with EvaluationCallback.precision(self.trainer):
            return in_words(lm, sources, words)
