"""Whether gradients pass through a model, tried when it is loaded.

Kernels that round activations have no derivative; some then give 0 without an error, and a prompt
would stay as it began.
"""

import logging

import torch

from lightning_prompts.lm.backbone import Backbone
from lightning_prompts.lm.passes.check import few_blocks

log = logging.getLogger(__name__)

PROMPT, TEXT = 2, 3  # tokens


@torch.enable_grad()
def gradients_pass(lm: Backbone) -> bool:
    """Whether a gradient reaches a prompt's vectors in front of a text: finite, and not all zeros.

    Args:
        lm: Just made; of its blocks only the first few are run.
    """
    ids = torch.arange(PROMPT + TEXT, device=lm.embedding_table.device) % lm.vocab_size
    rows = lm.embed(ids[None]).detach()
    prompt = rows[:, :PROMPT].clone().requires_grad_()
    try:
        with few_blocks(lm):
            hidden = lm.states(torch.cat([prompt, rows[:, PROMPT:]], dim=1))[:, -1]
            # Through the text's last token: by attention alone does it see the prompt.
            loss = lm.logits(hidden, ids).logsumexp(-1).sum()
            (gradient,) = torch.autograd.grad(loss, prompt)
    except Exception:  # whatever a model raises that was not made for this
        log.debug("the backward pass fails", exc_info=True)
        return False
    return bool(gradient.isfinite().all() and gradient.any())
