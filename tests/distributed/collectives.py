"""Run by every rank of test_processes.py: what the methods of a group give, against numpy."""

import platform
import sys

import mlx.core as mx
import numpy as np
from mlx.utils import tree_flatten, tree_unflatten

from mlxstories.distributed import buckets, join
from mlxstories.distributed import group as module
from mlxstories.errors import StoriesError

module.HEAD_START = 0  # nothing stops the others here
group = join()
assert group.size == int(sys.argv[1]) and group.leads == (group.rank == 0)
ranks = range(group.size)


def tree(rank):
    rng = np.random.default_rng(rank)
    return {
        "layers": [{"weight": rng.standard_normal((7, 5), np.float32)}, {"bias": rng.standard_normal(3, np.float32)}],
        "step": np.uint64(2**60 + rank),
        "half": rng.standard_normal((2, 2)).astype(np.float16),
    }  # fmt: skip


def arrays(values):
    return tree_unflatten([(name, mx.array(value)) for name, value in tree_flatten(values)])


def same(found, wanted, **tolerance):
    for (name, value), (_, expected) in zip(tree_flatten(found), tree_flatten(wanted), strict=True):
        assert np.array(value).dtype == expected.dtype, name
        np.testing.assert_allclose(np.array(value), expected, err_msg=name, **tolerance)


# sums, in one bucket a type and in many
wanted = tree_unflatten(
    [
        (name, np.sum([dict(tree_flatten(tree(r)))[name] for r in ranks], axis=0, dtype=value.dtype))
        for name, value in tree_flatten(tree(0))
    ]
)
for buckets.BUCKET in (32 << 20, 64):
    same(group.sum(arrays(tree(group.rank))), wanted, rtol=2e-3)

# of rank 0, bit for bit, negative zero and NaN included
special = {"a": np.array([-0.0, np.nan, np.inf], np.float32)}
same(group.adopt(arrays({**tree(group.rank), **special})), {**tree(0), **special}, rtol=0)
negative_zero = group.adopt({"z": mx.array([-0.0 if group.leads else 1.0])})["z"]
assert np.signbit(np.array(negative_zero)).all()

# a tree that was loaded from a file has another order than one that was made
pair = [("first", mx.array([1.0])), ("second", mx.array([2.0, 3.0]))]
same(
    group.adopt(dict(pair if group.leads else pair[::-1])),
    {n: np.array(v) for n, v in pair if group.leads} or {n: np.array(v) for n, v in pair[::-1]},
    rtol=0,
)

# exact float64 sums where float32 would round
table = np.array([[2.0**53, 0.1], [1 / 3, -1e300]])
assert (group.total(table + group.rank) == np.sum([table + r for r in ranks], axis=0)).all()

# any one's flag reaches all: in the call after, or at once
flags = [group.agree(False), group.agree(group.rank == 1), group.agree(False), group.agree(False)]
assert flags == [False, False, True, False], flags
assert group.agree(group.rank == 1, now=True) and not group.agree(False, now=True)

for content in (b"", b"abc", bytes(range(256)) * 33):
    assert group.first(lambda content=content: content if group.leads else 1 / 0) == content
assert group.together(lambda: group.rank) == group.rank


def refused(action):
    """The error that rank 0 shows; the others end quietly."""
    try:
        action()
    except StoriesError as error:
        return str(error) if group.leads else "shown twice"
    except SystemExit as end:
        return end.code
    return "nothing"


def fail_on(rank):
    if group.rank == rank:
        raise StoriesError(f"räther bad on {rank}")


def expect(found, text):
    assert found == 2 if not group.leads else text in found, found


expect(refused(lambda: group.together(lambda: fail_on(1))), ": räther bad on 1")
expect(refused(lambda: group.first(lambda: fail_on(0))), "räther bad on 0")
group.require_equal({"seed": 1, "phase": {"clip_norm": None, "betas": (0.9, 0.98)}})
ours = {"seed": 1, "phase": {"clip_norm": None if group.leads else 2.0, "betas": (0.9, 0.98)}}
theirs = f"rank 1 of {group.size}, on {platform.node()}, differs from rank 0 in"
expect(refused(lambda: group.require_equal(ours)), f"{theirs} phase.clip_norm (2.0, not none): start")
shorter = {"seed": group.rank} | ({"name": "a" * 99} if group.leads else {})
expect(refused(lambda: group.require_equal(shorter)), f"seed (1, not 0), name (none, not {'a' * 40}…): start")
many = {"same": 0} | dict.fromkeys("abcdefgh", group.rank)
expect(refused(lambda: group.require_equal(many)), "d (1, not 0) and 4 more: start")

# each rank draws its own dropout, rank 0 that of a single process
own = group.total(np.eye(group.size)[group.rank] * group.seed(2**63 - 1))
assert len(set(own)) == group.size and own[0] == float(2**63 - 1) and own.max() < 2**64
print("all as wanted")
