"""A soft prompt that was learned elsewhere: measured like our own, and not trained."""

from typing import Any

import torch
from torch import Tensor, nn

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.batch import Batch
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Verbalizer
from lightning_prompts.tuners.base import PromptTuner
from lightning_prompts.tuners.vectors import (
    Vectors,
    fitting_rows,
    read_vectors,
)


class ImportedPrompt(PromptTuner):
    """Holds the vectors of a file and learns nothing; `fit` validates them once.

    PEFT puts a prompt before everything, before BOS too where the model's texts begin with one: its
    adapters want a template that begins with `{prompt}`, or with `{prompt}<bos>`.

    Args:
        path: Folder or hub id of an adapter of PEFT, or a file of tensors (.safetensors, .pt).
        lm, template, verbalizer, **kwargs: Of `PromptTuner`.
    """

    slug = "imported"
    learns = False
    differentiates = False
    soft_in_use = True
    prompt: Tensor

    def __init__(
        self, lm: FrozenLM, template: Template, verbalizer: Verbalizer, path: str, **kwargs: Any
    ) -> None:
        super().__init__(lm, template, verbalizer, **kwargs)
        found = read_vectors(path)
        rows = fitting_rows(found, path, lm)
        if found.adapter:
            wanted = adapter_template(found, lm, template.given)
            if wanted != template.given:
                raise PromptError(
                    f"{path}: PEFT puts the prompt before everything that the model reads; set "
                    f"--data.template {wanted!r}."
                )
        # No parameter, which an optimizer's weight decay would change.
        self.register_buffer("prompt", rows)
        self.idle = nn.Parameter(torch.zeros(()))  # as in ManualPrompt

    def soft_prompt(self) -> Tensor:
        """[P, H] The vectors."""
        return self.prompt

    def prompt_embeddings(self) -> Tensor:
        """[P, H] The vectors themselves are in use."""
        return self.prompt

    def training_step(self, batch: Batch, batch_idx: int) -> Tensor:
        """Nothing to learn: a loss of 0, after which the base class stops."""
        return self.idle * 0


def adapter_template(found: Vectors, lm: FrozenLM, template: Any) -> Any:
    """The template by which a model reads an adapter's prompt as PEFT does.

    Args:
        found: The adapter.
        lm: The language model.
        template: Of the task.

    Raises:
        PromptError: If the prompt does not come first in it.
    """
    start = "{prompt}"
    if not isinstance(template, str) or not template.startswith(start):
        raise PromptError(
            f"PEFT puts a prompt before everything, and the template {template!r} does not; give "
            "the one that the adapter was trained with, for example --data.template "
            "'{prompt}{text} It was'."
        )
    bos = lm.decode(lm.prefix_ids) if lm.prefix_ids else ""
    rest = template.removeprefix(start)
    if found.bos_first:
        return start + rest.removeprefix(bos)
    return template if rest.startswith(bos) else start + bos + rest
