"""Nearest tokens of a prompt: one search over the kept index against PEZ's published search."""

from collections.abc import Iterator

import torch
import torch.nn.functional as F
from torch import Tensor

from benchmarks.installed import not_installed
from benchmarks.lines import Line, NotTheSameError, alternate
from benchmarks.setting import Setting, nearby, words
from lightning_prompts.lm.nearest import nearest_tokens

LENGTHS = (10, 100)
CALLS = 5
PEER = "PEZ's released way"


def projection(setting: Setting) -> Iterator[Line]:
    """[P, H] to the raw rows of the nearest tokens, by cosine, all tokens allowed; float32."""
    why_not = setting.missing or not_installed(["sentence_transformers"])
    lm = None if why_not else setting.lm(dtype="float32")
    for length in LENGTHS:
        where = "" if setting.device == "cpu" else ", GPU"
        line = Line(f"PEZ projection, P={length}, fp32{where}", PEER)
        if why_not or lm is None:
            yield line.not_run(why_not or "")
            continue
        table = lm.embedding_table
        rows = lm.embed(words(lm, length).to(setting.device))
        prompt = rows + nearby(rows)
        ways = {
            "theirs": lambda prompt=prompt, table=table: published(prompt, table),
            "ours": lambda prompt=prompt, lm=lm: lm.embed(nearest_tokens(prompt, lm.index).ids),
        }
        if not torch.equal(ways["theirs"](), ways["ours"]()):
            raise NotTheSameError(f"{line.work}: the two ways find different tokens.")
        measured = alternate(ways, setting.repetitions, calls=CALLS)
        yield line.result(measured["theirs"], measured["ours"], "tokens equal")


def published(prompt: Tensor, table: Tensor) -> Tensor:
    """As Wen et al. released it: prompt and table normalised, searched, ids read from Python."""
    from sentence_transformers.util import dot_score, semantic_search

    with torch.no_grad():
        hits = semantic_search(
            F.normalize(prompt, dim=1),
            F.normalize(table, dim=1),
            query_chunk_size=len(prompt),
            top_k=1,
            score_function=dot_score,
        )
        ids = torch.tensor([hit[0]["corpus_id"] for hit in hits], device=prompt.device)
        return F.embedding(ids, table)
