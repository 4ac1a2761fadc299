"""The decisions of all detectors on scripted sequences, by brute force."""

import types

import numpy as np
import pytest
import training

import tf_spline_prune as tsp
from tf_spline_prune.errors import ModelError


def drive(bird, script, model=None):
    """Lead a callback through epochs without training.

    `script(epoch)` is called where the training of an epoch would be.
    """
    model = model or types.SimpleNamespace(built=False)
    model.stop_training = False
    bird.set_model(model)
    bird.on_train_begin()
    logged = []
    for epoch in range(10_000):
        bird.on_epoch_begin(epoch)
        if script(epoch) is StopIteration:
            break
        logs = {}
        bird.on_epoch_end(epoch, logs)
        logged.append(logs[bird.log_name])
        if model.stop_training:
            break
    bird.on_train_end()
    return logged


class Scripted(tsp.SplineEarlyBird):
    """A spline early bird whose snapshots are points on a line of 100 bits."""

    def __init__(self, positions, **kwargs):
        super().__init__(np.zeros((1, 1)), **kwargs)
        self.positions = positions

    def _check_model(self):
        pass

    def _snapshot(self):
        return np.array([self.positions[self.now]], np.uint8)

    def _distance(self, first, second):
        return abs(int(first[0]) - int(second[0])) / 100

    def run(self):
        def script(epoch):
            self.now = epoch
            return StopIteration if epoch == len(self.positions) else None

        return drive(self, script)


def max_below(positions, lookback, threshold):
    for epoch in range(lookback, len(positions)):
        earlier = positions[epoch - lookback : epoch]
        if max(abs(positions[epoch] - p) / 100 for p in earlier) < threshold:
            return epoch
    return None


def plateau(positions, lookback, tolerance):
    steps = [abs(b - a) / 100 for a, b in zip(positions, positions[1:], strict=False)]
    for epoch in range(lookback, len(positions)):
        last = steps[epoch - lookback : epoch]
        if max(last) - min(last) <= tolerance * max(last):
            return epoch
    return None


def walk(seed, length=25):
    """A random walk with steps that shrink, and then stay alike."""
    rng = np.random.default_rng(seed)
    sizes = np.maximum(40 * 0.8 ** np.arange(length), rng.integers(2, 9))
    steps = rng.choice([-1, 1], length) * sizes * rng.uniform(0.7, 1.1, length)
    return np.clip(np.round(50 + np.cumsum(steps) % 100), 0, 200).astype(int).tolist()


@pytest.mark.parametrize("lookback", [1, 3, 5])
def test_max_below(lookback):
    found = []
    for seed in range(25):
        positions = walk(seed)
        bird = Scripted(positions, lookback=lookback, stop=True)
        logged = bird.run()
        expected = max_below(positions, lookback, 0.16)
        assert bird.ticket_epoch == expected
        found.append(expected)
        # It stopped right there; the log is the maximum of the window.
        count = len(positions) if expected is None else expected + 1
        assert len(logged) == count
        assert np.isnan(logged[:lookback]).all()
        for epoch in range(lookback, count):
            window = positions[epoch - lookback : epoch]
            assert logged[epoch] == max(abs(positions[epoch] - p) / 100 for p in window)
    assert len(set(found)) > 3


@pytest.mark.parametrize("lookback", [2, 3, 5])
@pytest.mark.parametrize("mode", ["max_below", "plateau"])
def test_replay(mode, lookback):
    """Other settings are tried on a past training, and decide as they would have."""
    found = set()
    for seed in range(12):
        positions = walk(seed)
        points = np.array(positions, float)
        past = abs(points[:, None] - points) / 100
        for bound in (0.05, 0.1, 0.3):
            settings = {"mode": mode, "threshold": bound, "tolerance": bound}
            bird = Scripted(positions, lookback=lookback, **settings)
            bird.run()
            other = tsp.SplineEarlyBird(np.zeros((1, 1)), lookback=lookback, **settings)
            assert other.replay(past) == bird.ticket_epoch
            assert other.ticket_epoch is None and not other.records
            found.add(bird.ticket_epoch)
    assert len(found) > 3


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        (np.zeros(4), "square"),
        (np.zeros((3, 4)), "square"),
        (np.full((3, 3), 1.5), "in \\[0, 1\\]"),
        (np.full((3, 3), np.nan), "in \\[0, 1\\]"),
    ],
    ids=["vector", "oblong", "too far", "nan"],
)
def test_replay_refuses_what_is_no_distance(wrong, message):
    with pytest.raises(ValueError, match=message):
        tsp.SplineEarlyBird(np.zeros((1, 1))).replay(wrong)


def test_the_threshold_itself_is_not_below():
    positions = [0, 90, 20, 36, 52, 60, 61, 62, 63]
    bird = Scripted(positions, lookback=1, threshold=0.16, stop=False)
    bird.run()
    assert bird.ticket_epoch == 5


def test_only_the_first_hit_counts():
    bird = Scripted([0] * 8 + [90, 0, 90] + [0] * 8, lookback=3, stop=False)
    bird.run()
    assert bird.ticket_epoch == 3


@pytest.mark.parametrize("lookback", [2, 3, 5])
def test_plateau(lookback):
    found = []
    for seed in range(25):
        positions = walk(seed)
        bird = Scripted(
            positions, lookback=lookback, mode="plateau", tolerance=0.4, stop=False
        )
        logged = bird.run()
        assert bird.ticket_epoch == plateau(positions, lookback, 0.4)
        found.append(bird.ticket_epoch)
        assert np.isnan(logged[0])
        steps = np.abs(np.diff(positions)) / 100
        np.testing.assert_array_equal(logged[1:], steps)
    assert len(set(found)) > 3


def test_plateau_of_a_moving_partition():
    """Steps of one size, far above any threshold: settled speed, not place."""
    positions = [0, 80, 30, 70, 40, 80, 40, 80]  # steps 80 50 40 30 40 40 40
    bird = Scripted(positions, mode="plateau", lookback=3, stop=False)
    bird.run()
    assert bird.ticket_epoch == 7
    bird = Scripted(positions, mode="max_below", lookback=3, stop=False)
    bird.run()
    assert bird.ticket_epoch is None


def test_a_frozen_model_is_settled():
    for mode in ("max_below", "plateau"):
        bird = Scripted([7] * 9, mode=mode, lookback=3, stop=True)
        bird.run()
        assert bird.ticket_epoch == 3


class ReleasedEarlyBird:
    """The class `EarlyBird` of the released code, word for word in NumPy."""

    def __init__(self, percent, epoch_keep=5):
        self.percent = percent
        self.epoch_keep = epoch_keep
        self.masks = []
        self.dists = [1 for i in range(1, self.epoch_keep)]

    def pruning(self, gammas):
        bn = np.abs(np.concatenate(gammas))
        y = np.sort(bn)
        thre = y[int(len(bn) * self.percent)]
        return (bn > thre).astype("float64")

    def put(self, mask):
        if len(self.masks) < self.epoch_keep:
            self.masks.append(mask)
        else:
            self.masks.pop(0)
            self.masks.append(mask)

    def cal_dist(self):
        if len(self.masks) == self.epoch_keep:
            for i in range(len(self.masks) - 1):
                mask_i = self.masks[-1] - self.masks[i]
                self.dists[i] = np.sum(np.abs(mask_i)) / mask_i.size
            return True
        return False

    def early_bird_emerge(self, gammas):
        self.put(self.pruning(gammas))
        if self.cal_dist():
            return all(dist <= 0.1 for dist in self.dists)
        return False


class ConsecutiveReading(ReleasedEarlyBird):
    """The text of the paper: each mask against the one before it."""

    def cal_dist(self):
        if len(self.masks) < self.epoch_keep:
            return False
        pairs = zip(self.masks, self.masks[1:], strict=False)
        self.dists = [np.mean(a != b) for a, b in pairs]
        return True


def norm_net(K):
    L = K.layers
    x = inputs = K.Input((6,))
    for i, units in enumerate((20, 17, 4)):
        x = L.Dense(units)(x)
        x = L.BatchNormalization(name=f"norm{i}")(x)
        x = L.ReLU()(x)
    # A BatchNormalization without a scale has nothing to rank.
    return K.Model(inputs, L.BatchNormalization(scale=False, name="free")(x))


def gammas_of(seed, epochs=20):
    """Scales that wander less and less; at first all alike, as at the start."""
    rng = np.random.default_rng(seed)
    value = np.full(41, 0.5)
    rows = [value]
    for epoch in range(epochs):
        value = value + rng.normal(0, 0.5 * 0.75**epoch, 41)
        rows.append(value)
    return [np.split(row.astype("float32"), [20, 37]) for row in rows]


@pytest.mark.parametrize("sparsity", [0.3, 0.5, 0.7])
@pytest.mark.parametrize("reference", ["newest", "consecutive"])
def test_mask_early_bird_is_the_released_one(K, reference, sparsity):
    model = norm_net(K)
    Reference = ReleasedEarlyBird if reference == "newest" else ConsecutiveReading
    found = set()
    for seed in range(5):
        rows = gammas_of(seed)
        released, expected, distances = Reference(sparsity), None, {}
        for epoch, gammas in enumerate(rows):  # at the start of each epoch
            if released.early_bird_emerge(gammas) and expected is None:
                expected = epoch
            if len(released.masks) == 5:
                distances[epoch] = max(released.dists)

        def assign(gammas):
            for i, gamma in enumerate(gammas):
                layer = model.get_layer(f"norm{i}")
                layer.set_weights([gamma, *layer.get_weights()[1:]])

        assign(rows[0])

        def train(epoch, rows=rows):
            if epoch + 1 == len(rows):
                return StopIteration
            assign(rows[epoch + 1])
            return None

        bird = tsp.MaskEarlyBird(sparsity, reference=reference, stop=False)
        logged = drive(bird, train, model)
        assert expected is not None
        assert expected > 4
        # The same state, before the released code's next epoch.
        assert bird.ticket_epoch == expected - 1
        found.add(expected)
        assert np.isnan(logged[:3]).all()
        for epoch, distance in distances.items():
            assert logged[epoch - 1] == pytest.approx(distance)
    assert len(found) > 1


def test_equal_scales_are_all_removed(K):
    model = norm_net(K)
    for i in range(3):
        layer = model.get_layer(f"norm{i}")
        gamma, *rest = layer.get_weights()
        layer.set_weights([np.full_like(gamma, 0.5), *rest])
    bird = tsp.MaskEarlyBird(0.5)
    bird.set_model(model)
    mask = bird.mask()
    assert mask.shape == (41,)
    assert mask.dtype == bool
    assert not mask.any()


def test_mask_early_bird_needs_scales(K):
    bird = tsp.MaskEarlyBird(0.5)
    bird.set_model(training.network(K))
    with pytest.raises(ModelError, match="has none"):
        bird.on_train_begin()


class Planned(tsp.ArchitectureEarlyBird):
    """An architecture early bird with given plans."""

    def __init__(self, plans, **kwargs):
        super().__init__(**kwargs)
        self.plans = plans

    def survivors(self):
        return self.plans[self.now]

    def run(self):
        def script(epoch):
            self.now = epoch
            return StopIteration if epoch == len(self.plans) else None

        return drive(self, script)


def similarity(one, other):
    shares = [abs(one[k] - other[k]) / (one[k] + other[k]) for k in one]
    return 1 - sum(shares) / len(shares)


@pytest.mark.parametrize("lookback", [1, 5])
def test_architecture_early_bird(lookback):
    found = set()
    for seed in range(8):
        rng = np.random.default_rng(seed)
        plans = [
            {
                name: int(np.clip(20 + rng.normal(0, 20 * 0.75**epoch), 1, 60))
                for name in ("a", "b/c", "d")
            }
            for epoch in range(20)
        ]
        means = [
            np.mean([similarity(plans[e], p) for p in plans[e - lookback : e]])
            for e in range(lookback, 20)
        ]
        hits = [e for e, m in enumerate(means, start=lookback) if m > 0.95]
        bird = Planned(plans, lookback=lookback, stop=False)
        logged = bird.run()
        assert bird.ticket_epoch == hits[0]
        found.add(hits[0])
        assert np.isnan(logged[:lookback]).all()
        np.testing.assert_allclose(logged[lookback:], means)
    assert len(found) > 2


def test_survivors_follow_the_weights(K):
    """Units without weights go first: what stays is known beforehand."""
    model = training.network(K)
    for name, dead in (("one", 9), ("two", 1)):
        layer = model.get_layer(name)
        kernel, bias = (np.abs(w) + 1 for w in layer.get_weights())
        kernel[:, :dead], bias[:dead] = 0, 0
        layer.set_weights([kernel, bias])
    bird = tsp.ArchitectureEarlyBird(sparsity=0.5, criterion="magnitude")
    bird.set_model(model)
    kept = bird.survivors()
    assert (kept["one"], kept["two"]) == (3, 7)
