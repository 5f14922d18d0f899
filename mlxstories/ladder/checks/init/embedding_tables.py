"""Whether every id has a row in every table that it is looked up in."""

from __future__ import annotations

from mlxstories.ladder.bench import Bench
from mlxstories.ladder.bench.model.untrained import table_reads
from mlxstories.ladder.limits import Gauges
from mlxstories.ladder.registry import check
from mlxstories.ladder.verdict import Verdict, error, failed, passed


@check("embedding tables", rung="init", causes=("token-out-of-range",), quick=True)
def embedding_tables(bench: Bench, limits: Gauges) -> Verdict:
    """## What it does
    Runs a row of full length and a row of the highest id through the model, and has every `nn.Embedding` compare
    the ids (or positions) with its number of rows; there must be a logit for every id as well.

    ## Why it is bad
    MLX reads past the end of a table without a word: the model trains on whatever lies there.

    ## Example
        self.embed = nn.Embedding(1000, 64)     # the tokenizer has 1024 ids

    ## Fix
    Build the model for as many ids and positions as the data has.
    """
    reads, size = table_reads(bench), bench.subject.vocab_size
    outside = list(reads.outside)
    if reads.width < size:
        outside.append((size - 1, reads.width))
    detail = f"logits for {reads.width} ids"
    if not outside:
        return passed(detail)
    token, rows = outside[0]
    highest = max(t for t, _ in outside)
    return failed(
        detail,
        error(
            "token-out-of-range",
            f"id {token} is looked up in a table of {rows} rows; MLX reads past its end without a word",
            fix=f"build the model for at least {highest + 1} ids or positions (vocab_size is {size}, rows are "
            f"{reads.length} tokens)"
            if highest >= 0
            else "look up no negative id or position: clip it at 0, and mask what it stands for",
            where="model",
            id=token,
            rows=rows,
        ),
    )
