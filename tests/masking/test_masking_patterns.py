"""Which weights go, against references in plain loops; ids as in TFMOT's table."""

import itertools

import numpy as np
import pytest
from hypothesis import given, settings, strategies as st

from tf_spline_prune import criteria
from tf_spline_prune.errors import BudgetError, CriterionError
from tf_spline_prune.masking._choosing import choose
from tf_spline_prune.masking._granularity import Granularity
from tf_spline_prune.masking._scoring import weight_scores
from tf_spline_prune.masking._slots import KernelAxes


@pytest.fixture(autouse=True)
def _clear_sessions():
    """Leave the sessions: no model is made here, and clearing takes its time."""


DENSE, TRANSPOSED = KernelAxes(), KernelAxes(input_axis=-1, output_axis=-2)


def distinct(*shape, seed=0):
    """Scores that differ, and whose sums are exact."""
    count = int(np.prod(shape))
    return np.random.default_rng(seed).permutation(count).reshape(shape) / 8 + 0.125


def few(*shape, seed=0):
    """Scores of four values only: many ties."""
    return np.random.default_rng(seed).integers(0, 4, shape).astype("float32")


def cells_by_hand(scores, spec, layout=DENSE, pooling="mean"):
    """List (score, indices that go together) of a tensor, one weight at a time."""
    if spec == "weight":
        return [(scores[at], [at]) for at in np.ndindex(scores.shape)]
    rank = scores.ndim
    axis_in, axis_out = layout.input_axis % rank, layout.output_axis % rank
    inputs, outputs = scores.shape[axis_in], scores.shape[axis_out]
    others = [
        range(scores.shape[a]) for a in range(rank) if a not in (axis_in, axis_out)
    ]
    cells = []
    for place in itertools.product(*others):

        def index(i, o, place=place):
            rest = iter(place)
            picks = {axis_in: i, axis_out: o}
            return tuple(picks[a] if a in picks else next(rest) for a in range(rank))

        if isinstance(spec, tuple):
            for i in range(0, inputs, spec[0]):
                for o in range(0, outputs, spec[1]):
                    block = [
                        index(a, b)
                        for a in range(i, min(i + spec[0], inputs))
                        for b in range(o, min(o + spec[1], outputs))
                    ]
                    values = [scores[at] for at in block]
                    mean = sum(values) / len(values)
                    cells.append((max(values) if pooling == "max" else mean, block))
        else:
            m, n = map(int, spec.split(":"))
            for i in range(0, inputs, n):
                for o in range(outputs):
                    group = [index(a, o) for a in range(i, min(i + n, inputs))]
                    group.sort(key=lambda at: scores[at])  # stable
                    lost = group[: max(0, m - (n - len(group)))]
                    cells.append((sum(scores[at] for at in lost), lost))
    return cells


def masks_by_hand(tensors, sparsity, spec, caps=None, layout=DENSE, pooling="mean"):
    """Remove cells one by one from all tensors, the lowest first.

    The best cell of each tensor stays where it would be the last, and at most
    `caps[t]` weights of tensor `t` go.
    """
    queue = []
    sizes = set()
    for t, scores in enumerate(tensors):
        cells = cells_by_hand(scores, spec, layout, pooling)
        sizes |= {len(lost) for _, lost in cells}
        if ":" not in spec:
            best = max(range(len(cells)), key=lambda c: (cells[c][0], c))
            del cells[best]
        queue += [(s, t, c, lost) for c, (s, lost) in enumerate(cells)]
    queue.sort(key=lambda entry: entry[:3])
    target = sum(scores.size for scores in tensors) * sparsity
    if len(sizes) == 1 and 0 not in sizes:  # half a cell is rounded as `round` does it
        target = round(target / min(sizes)) * min(sizes)
    keep = [np.ones(scores.shape, bool) for scores in tensors]
    gone, by_tensor = 0, [0] * len(tensors)
    for _, t, _, lost in queue:
        if caps and by_tensor[t] + len(lost) > caps[t]:
            continue
        if abs(gone + len(lost) - target) >= abs(gone - target) and lost:
            break
        for at in lost:
            keep[t][at] = False
        gone += len(lost)
        by_tensor[t] += len(lost)
    return keep


def equal(masks, others):
    assert len(masks) == len(others)
    for mask, other in zip(masks, others, strict=True):
        assert mask.dtype == bool
        np.testing.assert_array_equal(mask, other)


def removed(masks):
    return [int((~mask).sum()) for mask in masks]


def test_m1_half_of_a_hundred_are_the_largest():
    scores = distinct(10, 10)
    (keep,) = choose([scores], 0.5)
    assert set(scores[keep]) == set(sorted(scores.ravel())[50:])


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
def test_m2_float_noise_and_the_threshold(dtype):
    scores = distinct(10).astype(dtype)
    (keep,) = masks = choose([scores], 0.200000018)
    assert removed(masks) == [2]
    assert scores[keep].min() == 0.375 > scores[~keep].max()
    # Halves are as `round` has them, noise or not.
    assert removed(choose([distinct(15)], float(np.float32(0.3)))) == [round(4.5)]
    assert removed(choose([distinct(3)], 0.5)) == [round(1.5)]


def test_m3_one_weight_stays():
    tensors = [distinct(10, 10), distinct(7), distinct(2, 2, 3, 5), np.ones((1, 1))]
    for masks in (
        choose(tensors, 0.9999),
        choose([tensors[0]], 0.9999, scope="global"),
    ):
        for scores, mask in zip(tensors, masks, strict=False):
            assert mask.sum() == 1
            assert mask.ravel()[scores.argmax()]
    big = [distinct(100, 100), distinct(10_000, seed=1) * 1e-9]
    assert removed(choose(big, 0.9999, scope="global", max_sparsity=1)) == [9999, 9999]
    (keep,) = choose([distinct(10, 6)], 0.9999, (4, 4))
    blocks = [(s, at) for s, at in cells_by_hand(distinct(10, 6), (4, 4))]
    assert {at for at in zip(*np.nonzero(keep), strict=True)} == set(max(blocks)[1])


def test_m4_counts_follow_the_steps():
    scores = distinct(10, 10)
    shares = [0, 0.1, 0.1, 0.3, 0.3, 0.5, 0.7, 0.9, 0.99]
    before = np.ones((10, 10), bool)
    for share in shares:
        (keep,) = choose([scores], share)
        assert keep.sum() == 100 - round(100 * share)
        assert not (keep & ~before).any()
        before = keep


BLOCKS = [(4, 1), (1, 4), (4, 4), (3, 2), (16, 16)]
KERNELS = [
    ((8, 8), DENSE),
    ((64, 10), DENSE),
    ((7, 5), DENSE),
    ((1, 9), DENSE),
    ((3, 3, 6, 5), DENSE),
    ((2, 7, 4), DENSE),
    ((3, 2, 5, 6), TRANSPOSED),
    ((5, 6), TRANSPOSED),
    ((6, 2, 5), KernelAxes(0, 2)),
]


@pytest.mark.parametrize("shape, layout", KERNELS)
@pytest.mark.parametrize("block", BLOCKS)
@pytest.mark.parametrize("make", [distinct, few])
def test_m5_blocks(shape, layout, block, make):
    scores = make(*shape)
    for sparsity, pooling in itertools.product(
        (0.1, 0.5, 0.8, 0.9999), ("mean", "max")
    ):
        masks = choose([scores], sparsity, block, pooling=pooling, axes=[layout])
        equal(masks, masks_by_hand([scores], sparsity, block, None, layout, pooling))


def test_m5_ragged_blocks_meet_the_target():
    """TFMOT counts them as full and stays at 0.775."""
    (keep,) = choose([distinct(64, 10)], 0.8, (4, 4))
    assert abs((~keep).mean() - 0.8) <= 4 * 4 / 640 / 2


def test_m5_the_block_of_the_deployment_layout():
    """Zeros of (4, 1) are four consecutive inputs of one output."""
    (keep,) = choose([distinct(16, 6)], 0.8, (4, 1))
    fours = keep.T.reshape(6, 4, 4)  # [out, in], as LiteRT has it
    assert set(fours.sum(axis=-1).ravel()) == {0, 4}


@pytest.mark.parametrize("granularity", [(4, 1), "2:4"])
def test_m5_m6_vectors_are_refused(granularity):
    with pytest.raises(ValueError, match=r"rank 2 or more. Received: .* \(7,\)"):
        choose([distinct(7)], 0.5, granularity)


PATTERNS = ["2:4", "1:2", "1:3", "3:4", "5:8"]


@pytest.mark.parametrize("shape, layout", KERNELS)
@pytest.mark.parametrize("pattern", PATTERNS)
@pytest.mark.parametrize("make", [distinct, few])
def test_m6_patterns(shape, layout, pattern, make):
    scores = make(*shape)
    m, n = map(int, pattern.split(":"))
    for sparsity in (0.1, m / n / 2, m / n, 0.9):
        masks = choose([scores], sparsity, pattern, axes=[layout])
        equal(masks, masks_by_hand([scores], sparsity, pattern, None, layout))
        if sparsity >= m / n:
            every = cells_by_hand(scores, pattern, layout)
            assert removed(masks) == [sum(len(lost) for _, lost in every)]


def test_m6_the_share_of_the_groups_follows_the_schedule():
    scores = distinct(16, 10)
    losses = sorted(loss for loss, _ in cells_by_hand(scores, "2:4"))
    for share in (0.1, 0.25, 0.4, 0.5):
        (keep,) = choose([scores], share, "2:4")
        zeros = (~keep).reshape(4, 4, 10).sum(axis=1)
        assert set(zeros.ravel()) <= {0, 2}
        assert (zeros == 2).sum() == 40 * share / 0.5
        assert scores[~keep].sum() == sum(losses[: (zeros == 2).sum()])


def test_m6_one_input_loses_nothing():
    assert removed(choose([distinct(3, 3, 1, 8)], 0.5, "2:4")) == [0]
    masks = choose([distinct(1, 8), distinct(8, 4)], 0.5, "2:4", scope="global")
    assert removed(masks) == [0, 16]


def test_m8_ties():
    for spec in ("weight", (2, 2), "2:4"):
        first = choose([np.ones((8, 8))], 0.25, spec)
        assert removed(first) == [16]
        equal(first, choose([np.ones((8, 8))], 0.25, spec))
        equal(first, masks_by_hand([np.ones((8, 8))], 0.25, spec))
    (keep,) = choose([np.zeros(10)], 0.3)
    assert keep.tolist() == [False] * 3 + [True] * 7
    masks = choose([np.ones(4), np.ones(6)], 0.5, scope="global")
    assert [mask.tolist() for mask in masks] == [
        [False] * 3 + [True],  # its last one stays
        [False] * 2 + [True] * 4,
    ]


@pytest.mark.parametrize("make", [distinct, few])
@pytest.mark.parametrize("spec", ["weight", (4, 1), (2, 3), "2:4"])
def test_m8_many_cells(make, spec):
    """So many that the last one to go is found by narrowing down."""
    scores = make(103, 97)
    masked = scores * choose([scores], 0.8, spec)[0]  # mostly equal: zeros
    for tensor, sparsity in itertools.product((scores, masked), (0.05, 0.4, 0.85)):
        masks = choose([tensor], sparsity, spec)
        equal(masks, masks_by_hand([tensor], sparsity, spec))
    both = [scores, make(40, 30, seed=1)]
    masks = choose(both, 0.4, spec, "global", max_sparsity=1)
    equal(masks, masks_by_hand(both, 0.4, spec))


TENSORS = [(9, 7), (12,), (3, 3, 4, 5), (30, 2)]


@pytest.mark.parametrize("make", [distinct, few])
@pytest.mark.parametrize("sparsity", [0, 0.1, 0.5, 0.8, 0.95])
@pytest.mark.parametrize("scales", [(1, 1, 1, 1), (1e-3, 1, 10, 1), (0, 0, 1, 1)])
def test_m9_global_ranking(make, sparsity, scales):
    tensors = [
        (make(*shape, seed=t) * scale).astype("float64" if t % 2 else "float32")
        for t, (shape, scale) in enumerate(zip(TENSORS, scales, strict=True))
    ]
    count = sum(scores.size for scores in tensors)
    masks = choose(tensors, sparsity, scope="global", max_sparsity=1)
    assert sum(removed(masks)) == round(count * sparsity)
    equal(masks, masks_by_hand(tensors, sparsity, "weight"))
    caps = [round(scores.size * 0.96) for scores in tensors]
    masks = choose(tensors, sparsity, scope="global", max_sparsity=0.96)
    assert sum(removed(masks)) == round(count * sparsity)
    equal(masks, masks_by_hand(tensors, sparsity, "weight", caps))


@pytest.mark.parametrize("make", [distinct, few])
@pytest.mark.parametrize("spec", [(4, 1), (3, 2), "2:4"])
def test_m9_global_ranking_of_cells(make, spec):
    tensors = [make(9, 7), make(3, 3, 4, 5), make(8, 8) * 2]
    for sparsity in (0.05, 0.3, 0.5, 0.8):
        masks = choose(tensors, sparsity, spec, "global")
        equal(masks, masks_by_hand(tensors, sparsity, spec))


def test_m9_no_tensor_runs_dry_by_default():
    tensors = [distinct(20, 50) * 1e-6, distinct(100, 100, seed=1)]
    masks = choose(tensors, 0.5, scope="global")
    assert removed(masks) == [990, 4510]
    assert removed(choose(tensors, 0.5, scope="global", max_sparsity=1)) == [999, 4501]
    assert removed(choose(tensors, 0.99, scope="global", max_sparsity=0.99)) == [
        990,
        9900,
    ]
    assert removed(choose(tensors, 0.996, scope="global"))[0] == 998


def test_m9_a_share_a_tensor():
    tensors = [distinct(*shape) for shape in TENSORS]
    shares = [0.9, 0.0, 0.25, np.float32(0.5)]
    for scope in ("layer", "global"):
        masks = choose(tensors, shares, scope=scope)
        assert removed(masks) == [round(63 * 0.9), 0, 45, 30]
    alone = [choose([s], r)[0] for s, r in zip(tensors, shares, strict=True)]
    equal(masks, alone)
    equal(choose(tensors, np.array(shares)), alone)


def test_targets_out_of_reach():
    with pytest.raises(BudgetError, match="at most 18 can, and 20 were asked for"):
        choose([distinct(10), distinct(10)], 0.9999, scope="global")
    with pytest.raises(BudgetError, match="not be above `max_sparsity`"):
        choose([distinct(10)], 0.9, max_sparsity=0.5)
    assert removed(choose([distinct(10)], 0.5, max_sparsity=0.5)) == [5]


@pytest.mark.parametrize("spec", ["weight", (4, 1), (4, 4), "2:4"])
@pytest.mark.parametrize("scope", ["layer", "global"])
def test_zero_keeps_everything_and_nothing_is_no_error(spec, scope):
    assert choose([], 0.5, spec, scope) == []
    assert removed(choose([few(6, 5), np.zeros((4, 4))], 0, spec, scope)) == [0, 0]
    masks = choose([few(0, 5), few(4, 0), few(8, 8)], 0.5, spec, scope)
    assert [mask.shape for mask in masks] == [(0, 5), (4, 0), (8, 8)]
    assert removed(masks) == [0, 0, 32]


def test_scores_are_left_as_they_are():
    scores = distinct(7, 5)
    before = scores.copy()
    for spec in ("weight", (4, 1), "2:4"):
        for mask in choose([scores], 0.5, spec, "global", axes=[TRANSPOSED]):
            assert mask.flags.c_contiguous
    np.testing.assert_array_equal(scores, before)


@pytest.mark.parametrize(
    "change, message",
    [
        ({"sparsity": 1.0}, "less than 1. Received: sparsity=1.0"),
        ({"sparsity": -0.1}, "Received: sparsity=-0.1"),
        ({"sparsity": float("nan")}, "Received: sparsity=nan"),
        ({"sparsity": True}, "Received: sparsity=True"),
        ({"sparsity": None}, "Received: sparsity=None"),
        ({"sparsity": "half"}, "Received: sparsity="),
        ({"sparsity": [0.5, 0.5]}, "`sparsity` must have one item per tensor, 1"),
        ({"sparsity": [1.5]}, "Received: sparsity=1.5"),
        ({"scope": "isomorphic"}, "`scope` must be one of .* Received: 'isomorphic'"),
        ({"pooling": "AVG"}, "`pooling` must be one of .* Received: 'AVG'"),
        ({"axes": []}, "`axes` must have one item per tensor"),
        ({"max_sparsity": 1.5}, "Received: max_sparsity=1.5"),
        ({"max_sparsity": float("nan")}, "Received: max_sparsity=nan"),
        (
            {"scores": [np.array([1, np.nan])]},
            r"NaN or infinite .* tensor 0, .* \(2,\)",
        ),
        (
            {"granularity": (2, 2), "axes": [KernelAxes(-1, 1)]},
            "must be two axes of the tensor. Received: KernelAxes",
        ),
        ({"granularity": "2:4", "axes": [KernelAxes(2, 1)]}, "must be two axes"),
    ],
)
def test_wrong_arguments(change, message):
    arguments = {"scores": [distinct(6, 4)], "sparsity": 0.5} | change
    with pytest.raises(ValueError, match=message):
        choose(**arguments)


@pytest.mark.parametrize(
    "spec",
    ["4:4", "5:4", "0:4", "2:0", "weights", "2:4:8", "", (4,), (4, 0), (4, -1)]
    + [(True, 4), (2.0, 2), ("4", 1), (4, 1, 1), 4, None, 0.5],
)
def test_wrong_granularities(spec):
    with pytest.raises(ValueError, match="Received: granularity="):
        Granularity.of(spec)


def test_granularities_are_read_and_written():
    for spec in ("weight", (4, 1), "2:4"):
        read = Granularity.of(spec)
        assert read.spec == spec
        assert read == Granularity.of(read.spec) == Granularity.of(read)
    assert Granularity.of([4, 1]) == Granularity.of((4, np.int64(1)))
    assert Granularity.of((1, 1)) == Granularity.of("weight")
    with pytest.raises(ValueError, match="plan of structured pruning"):
        Granularity.of("unit")


SCORES = st.lists(
    st.lists(st.sampled_from([0.0, 0.25, 0.5, 1.0, 3.0]), min_size=1, max_size=30),
    min_size=1,
    max_size=4,
)
SHARES = st.floats(0, 0.9999)


@settings(max_examples=200, deadline=None)
@given(SCORES, SHARES)
def test_exact_counts_and_no_kept_score_below_a_removed_one(lists, share):
    tensors = [np.array(values) for values in lists]
    masks = choose(tensors, share)
    for scores, keep in zip(tensors, masks, strict=True):
        wanted = min(round(round(scores.size * share, 4)), scores.size - 1)
        assert (~keep).sum() == wanted
        assert scores[keep].min() >= scores[~keep].max(initial=0)
    equal(masks, [masks_by_hand([scores], share, "weight")[0] for scores in tensors])

    count = sum(scores.size for scores in tensors)
    wanted = round(round(count * share, 4))
    if wanted > count - len(tensors):
        if len(tensors) > 1:
            with pytest.raises(BudgetError):
                choose(tensors, share, scope="global", max_sparsity=1)
        return
    masks = choose(tensors, share, scope="global", max_sparsity=1)
    assert sum(removed(masks)) == wanted
    worst = max(s[~k].max(initial=0) for s, k in zip(tensors, masks, strict=True))
    for scores, keep in zip(tensors, masks, strict=True):
        assert keep.any()
        best = len(scores) - 1 - scores[::-1].argmax()  # stays whatever it is
        others = np.delete(scores, best)[np.delete(keep, best)]
        assert others.min(initial=np.inf) >= worst


@settings(max_examples=100, deadline=None)
@given(
    st.tuples(st.integers(1, 3), st.integers(1, 9), st.integers(1, 7)),
    st.sampled_from([*BLOCKS, *PATTERNS]),
    st.integers(0, 1000),
    # Nothing that is within float noise of halfway between two sums of cells.
    st.integers(0, 96).map(lambda k: k / 97),
)
def test_cells_of_any_shape(shape, spec, seed, share):
    scores = few(*shape, seed=seed)
    equal(choose([scores], share, spec), masks_by_hand([scores], share, spec))


WEIGHTS = [
    np.random.default_rng(0).normal(size=(6, 5)).astype("float32"),
    np.array([0.0, -1.0, 1.0, 2.0]),
    np.zeros((2, 2)),
]


def test_magnitude_scores():
    for criterion in ("magnitude", criteria.Magnitude(p=1)):
        for scores, weights in zip(
            weight_scores(WEIGHTS, criterion), WEIGHTS, strict=True
        ):
            np.testing.assert_array_equal(scores, abs(weights))


def test_lamp_scores():
    for criterion in ("lamp", criteria.LAMP()):
        for scores, weights in zip(
            weight_scores(WEIGHTS, criterion), WEIGHTS, strict=True
        ):
            for at in np.ndindex(weights.shape):
                square = float(weights[at]) ** 2
                larger = [
                    float(w) ** 2 for w in weights.flat if abs(w) >= abs(weights[at])
                ]
                expected = square / sum(larger) if square else 0
                assert scores[at] == pytest.approx(expected, rel=1e-9)


def test_random_scores_hang_on_name_and_seed_only():
    (one,) = weight_scores([WEIGHTS[0]], "random", seed=1, names=["a"])
    (same,) = weight_scores([WEIGHTS[0] * 9], criteria.Random(), seed=1, names=["a"])
    np.testing.assert_array_equal(one, same)
    for other in ({"seed": 2, "names": ["a"]}, {"seed": 1, "names": ["b"]}):
        assert (weight_scores([WEIGHTS[0]], "random", **other)[0] != one).all()
    first, second = weight_scores([WEIGHTS[0]] * 2, "random")
    assert (first != second).all() and first.min() >= 0


def test_functions_as_criteria():
    seen = []

    def square(name, weights):
        seen.append(name)
        return weights**2

    scores = weight_scores(WEIGHTS, square, names=["a", "b", "c"])
    assert seen == ["a", "b", "c"]
    np.testing.assert_array_equal(scores[0], WEIGHTS[0] ** 2)
    with pytest.raises(
        CriterionError, match=r"\(6, 5\). Received: shape \(5,\) for '0'"
    ):
        weight_scores(WEIGHTS, lambda name, weights: weights.sum(axis=0))
    with pytest.raises(CriterionError, match="NaN or infinite scores for '1'"):
        weight_scores(WEIGHTS, lambda name, w: w + np.inf if name == "1" else w)
    with pytest.raises(ValueError, match="`names` must have one item per tensor"):
        weight_scores(WEIGHTS, square, names=["a"])


class OwnMagnitude(criteria.Magnitude):
    pass


@pytest.mark.parametrize(
    "criterion",
    ["spline", "batchnorm_scale", "auto", criteria.Spline(), criteria.Taylor()]
    + [OwnMagnitude(), criteria.UserFunction(lambda graph, group: None)],
    ids=["spline", "scale", "auto", "Spline", "Taylor", "own", "function"],
)
def test_criteria_of_units_are_refused(criterion):
    with pytest.raises(ValueError, match='scores units.*granularity="unit"'):
        weight_scores(WEIGHTS, criterion)


@pytest.mark.parametrize("criterion", ["magnitud", None, 3, criteria.Magnitude])
def test_unknown_criteria_are_refused(criterion):
    with pytest.raises(ValueError, match="Expected one of .*Received: criterion="):
        weight_scores(WEIGHTS, criterion)
