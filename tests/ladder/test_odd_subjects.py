"""Forms in which users hand over what is sound."""

from __future__ import annotations

import mlx.core as mx
from tiny import batches, subject

from mlxstories.ladder import diagnose


def found(rungs: tuple[str, ...], **fields) -> list[str]:
    return [f"{f.code}: {f.message}" for f in diagnose(subject(**fields), rungs=rungs).findings]


def test_none_in_the_place_of_a_mask_is_no_mask():
    def tuples(seed):
        return ((inputs, targets, None) for inputs, targets, _ in batches(seed))

    def dicts(seed):
        return ({"inputs": b.inputs, "targets": b.targets, "mask": None} for b in batches(seed))

    for train_batches in (tuples, dicts):
        masks = []

        def loss(model, batch, masks=masks):
            inputs, targets, mask = batch.values() if isinstance(batch, dict) else batch
            masks.append(mask)
            logits = model(inputs)
            return mx.mean(
                mx.logsumexp(logits, axis=-1) - mx.take_along_axis(logits, targets[..., None], -1)[..., 0]
            )

        assert found(("data", "init"), train_batches=train_batches, loss=loss) == []
        assert masks and all(mask is None for mask in masks)
