"""States between blocks against a loop over the blocks, written out in float64."""

import copy
import math

import pytest
import torch
from torch import Tensor

from lightning_prompts.files.errors import PromptError
from lightning_prompts.lm.frozen import FrozenLM
from lightning_prompts.lm.passes.blocks import continued, find_blocks, num_blocks, states_at

WRITTEN = 6


class ByHand:
    """GPT-2 in float64: attention, blocks and greedy writing of one row, step by step."""

    def __init__(self, lm: FrozenLM) -> None:
        self.model = copy.deepcopy(lm.model).double()
        self.body, self.table = self.model.transformer, self.model.transformer.wte.weight

    def states(self, embeds: Tensor, put: int = -1, start: int = 0, patch: Tensor | None = None):
        """[L + 1] of [T, H]: what is read, and what each block makes; a patch at layer `put`."""
        found = [embeds.clone()]
        if put == 0:
            found[0][start : start + len(patch)] = patch
        hidden = found[0] + self.body.wpe.weight[: len(embeds)]
        for layer, block in enumerate(self.body.h, 1):
            hidden = hidden + self._attention(block, hidden)
            hidden = hidden + block.mlp(block.ln_2(hidden[None]))[0]
            if put == layer:
                hidden = hidden.clone()
                hidden[start : start + len(patch)] = patch
            found.append(hidden)
        return found

    def _attention(self, block, hidden: Tensor) -> Tensor:
        heads, width = block.attn.num_heads, hidden.shape[-1] // block.attn.num_heads
        rows = block.ln_1(hidden) @ block.attn.c_attn.weight + block.attn.c_attn.bias
        made = []
        for head in range(heads):
            q, k, v = (part[:, head * width : (head + 1) * width] for part in rows.chunk(3, -1))
            out = []
            for t in range(len(q)):
                scores = (k[: t + 1] @ q[t]) / math.sqrt(width)
                out.append(scores.softmax(0) @ v[: t + 1])
            made.append(torch.stack(out))
        return torch.cat(made, -1) @ block.attn.c_proj.weight + block.attn.c_proj.bias

    @torch.no_grad()
    def written(self, embeds: Tensor, put: int, start: int, patch: Tensor) -> list[int]:
        found = []
        for _ in range(WRITTEN):
            last = self.states(embeds, put, start, patch)[-1][-1]
            found.append(int((self.body.ln_f(last) @ self.table.T).argmax()))
            embeds = torch.cat([embeds, self.table[found[-1]][None]])
        return found


@pytest.fixture(scope="module")
def by_hand(lm: FrozenLM) -> ByHand:
    return ByHand(lm)


def rows_of(lm: FrozenLM, texts: list[str]) -> Tensor:
    return lm.embed(torch.tensor([[lm.bos_id, *lm.encode(text)] for text in texts]))


def test_states_of_every_layer(lm: FrozenLM, by_hand: ByHand):
    embeds = rows_of(lm, ["a dull film", "I loved it."])
    found = states_at(lm, embeds, [2, 0, 1])
    assert found.shape == (3, *embeds.shape)
    for row, rows in enumerate(embeds.double()):
        states = by_hand.states(rows)
        for place, layer in enumerate([2, 0, 1]):
            assert torch.allclose(found[place, row].double(), states[layer], atol=1e-4)
    assert torch.equal(found[1], embeds)


@pytest.mark.parametrize("keeps", [True, False])
def test_what_is_written_behind_a_patch(lm_folder, by_hand: ByHand, keeps: bool):
    lm = FrozenLM(str(lm_folder))
    assert lm.ways.continued
    lm.ways = lm.ways._replace(continued=keeps)
    generator = torch.Generator().manual_seed(1)
    vectors = torch.randn(2, 3, 16, generator=generator)
    states = states_at(lm, vectors, [0, 1, 2])
    frame = rows_of(lm, ["ab xxx is"])[0]
    written = set()
    for taken in range(3):
        for put in range(2):
            found = continued(lm, frame.expand(2, -1, -1), states[taken], 4, put, WRITTEN)
            for row, vector in enumerate(vectors.double()):
                patch = by_hand.states(vector)[taken]
                expected = by_hand.written(frame.double(), put, 4, patch)
                assert found[row].tolist() == expected
                written.add(tuple(expected))
    assert len(written) > 3, "the patch changes nothing"
    assert len(lm.model.transformer.h[0]._forward_hooks) == 0


def test_a_texts_own_rows_at_layer_0_are_the_text(lm: FrozenLM):
    frame, text = rows_of(lm, ["ab xxxx is"]), "film"
    patch = rows_of(lm, [text])[:, 1:]
    found = continued(lm, frame, patch, 4, 0, WRITTEN)[0].tolist()
    ids = torch.tensor([[lm.bos_id, *lm.encode(f"ab {text} is")]])
    plain = lm.model.generate(
        ids, attention_mask=torch.ones_like(ids), do_sample=False, max_new_tokens=WRITTEN
    )
    expected = plain[0, ids.shape[1] :].tolist()
    assert found[: len(expected)] == expected  # which may end earlier
    others = (rows_of(lm, [other])[:, 1:] for other in ("I!?$", "good", "zAq9"))
    assert any(found != continued(lm, frame, o, 4, 0, WRITTEN)[0].tolist() for o in others)


def test_what_cannot_be_read(lm_folder):
    lm = FrozenLM(str(lm_folder))
    assert num_blocks(lm) == 2
    long = lm.embed(torch.zeros(1, 252, dtype=torch.long))
    with pytest.raises(PromptError, match=r"have 258 tokens, and .* has 256 positions"):
        continued(lm, long, long[:, :1], 3, 1, WRITTEN)
    lm.model.config.n_layer = 7
    assert find_blocks(lm) is None
    with pytest.raises(PromptError, match=r"The blocks of .* are not found"):
        num_blocks(lm)
