"""What classes score under prompts of one's own choice, and what they score without a text.

Dimensions: K prompts, P prompt tokens, B examples, H hidden size, C classes.
"""

import torch
from torch import Tensor

from lightning_prompts.lm.batch import Batch, collate, on_device
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer


def class_scores(
    lm: FrozenLM, template: Template, verbalizer: Verbalizer, prompts: Tensor, batch: Batch
) -> Tensor:
    """Scores of all classes, with `pmi` less each prompt's own without a text.

    Args:
        lm: The frozen language model.
        template: Of the batch.
        verbalizer: The classes' answers.
        prompts: [K, P, H] vectors, or [K, P] token ids.
        batch: B examples.

    Returns:
        [K, B, C] float32 or wider.
    """
    scores = verbalizer.scores(lm, lm.answers(prompts, batch, verbalizer.tree))
    prior = scores_without_text(lm, template, verbalizer, prompts)
    return scores if prior is None else scores - prior[:, None]


@torch.no_grad()
def scores_without_text(
    lm: FrozenLM, template: Template, verbalizer: Verbalizer, prompts: Tensor
) -> Tensor | None:
    """[K, C] What `pmi` subtracts: the scores where the template's columns are empty; else None."""
    if verbalizer.score != "pmi":
        return None
    batch = on_device(without_text(lm, template, prompts.shape[1]), prompts.device)
    return verbalizer.scores(lm, lm.answers(prompts, batch, verbalizer.tree))[:, 0]


def without_text(lm: FrozenLM, template: Template, prompt_length: int) -> Batch:
    """The template with empty columns as a batch of one row.

    Where that would leave the model nothing to read, BOS stands there.
    """
    row = template.encode(dict.fromkeys(template.columns, ""))
    if not (row.before_ids or row.after_ids or prompt_length):
        row = row._replace(before_ids=[lm.bos_id])
    return collate([row], [-1], [0])
