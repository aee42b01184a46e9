"""Batches of a tuner: how rows become one, and what loaders of one's own may give."""

from collections.abc import Mapping, Sequence
from typing import Any

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch, collate
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.views import PromptViews


class ReadsBatches(PromptViews):
    """Turns rows into batches, and refuses those of another kind before anything reads them."""

    template: Template
    verbalizer: Verbalizer

    def collate(self, rows: Sequence[Mapping[str, Any]]) -> Batch:
        """Rows as a batch, for a `DataLoader` of one's own: `collate_fn=tuner.collate`.

        Args:
            rows: B mappings with the template's columns as text; `label`, one of the verbalizer's,
                where it is known; and `row`, the row's number for messages and test.json, else its
                place in the batch.

        Raises:
            PromptError: If a column or a label is missing, or a row is too long for the model.
        """
        room = self.lm.max_positions - self.prompt_length - self.verbalizer.depth
        examples = [self.template.encode(row, room) for row in rows]
        labels = [self.verbalizer.index(r["label"]) if "label" in r else -1 for r in rows]
        return collate(examples, labels, [int(row.get("row", i)) for i, row in enumerate(rows)])

    def on_train_batch_start(self, batch: Any, batch_idx: int) -> None:
        """Refuse what is no batch."""
        require_batch(batch)

    def on_validation_batch_start(
        self, batch: Any, batch_idx: int, dataloader_idx: int = 0
    ) -> None:
        """Refuse what is no batch."""
        require_batch(batch)

    on_test_batch_start = on_predict_batch_start = on_validation_batch_start


def require_batch(batch: Any) -> None:
    """Refuse what a loader gives without `collate`.

    Raises:
        PromptError: If it is no batch of token pieces.
    """
    if not isinstance(batch, Mapping) or "before_ids" not in batch:
        raise PromptError(
            f"A loader gave a batch of the type {type(batch).__name__}, which has no token pieces; "
            "make it with DataLoader(rows, collate_fn=tuner.collate), or give a task."
        )
