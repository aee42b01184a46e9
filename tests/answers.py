"""Scores of answers by plain passes of a model: the reference of all that answers with them."""

from collections.abc import Callable

import torch
from torch import Tensor

from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.template import Template
from lightning_prompts.lm.verbalizer import Words


def one_by_one(
    lm: FrozenLM, template: Template, words: Words, prompts: Tensor, texts: list[str]
) -> dict[str, Tensor]:
    """[K, B, C] of each score by plain passes of the model: one for each answer of each row.

    The last of the texts is empty, and with `pmi` a constant.
    """

    def tokens(prompt: Tensor, text: str, answer: str) -> Tensor:
        row = template.encode(dict.fromkeys(template.columns, text))
        ids = lm.encode(answer)
        pieces = [row.before_ids, row.after_ids + ids]
        before, after = (lm.embed(torch.tensor(p, dtype=torch.long)) for p in pieces)
        whole = torch.cat([before, prompt, after])[None]
        log_p = lm.model(inputs_embeds=whole).logits[0].log_softmax(-1)[-len(ids) - 1 : -1]
        return log_p[torch.arange(len(ids)), ids]

    classes = [[answers] if isinstance(answers, str) else answers for answers in words.values()]
    found = [[[[tokens(p, t, a) for a in c] for c in classes] for t in texts] for p in prompts]

    def scores(of_answer: Callable[[Tensor], Tensor]) -> Tensor:
        flat = [
            torch.stack([of_answer(nats) for nats in of_class]).logsumexp(0)
            for of_prompt in found
            for of_text in of_prompt
            for of_class in of_text
        ]
        return torch.stack(flat).view(len(prompts), len(texts), len(classes))

    total = scores(torch.sum)
    pmi = total - total[:, -1:].detach()
    return {"sum": total, "mean": scores(torch.mean), "pmi": pmi}
