"""`max_below` against the published algorithm, re-implemented naively."""

import numpy as np
import pytest
import training

import tf_spline_prune as tsp

EPOCHS = 9


class PublishedDetector(training._Plain):
    """What the released code does: floats of every BatchNormalization, kept."""

    def __init__(self, Model, canvas, lookback=3, threshold=0.16):
        super().__init__()
        self.Model = Model
        self.canvas, self.lookback, self.threshold = canvas, lookback, threshold
        self.stored, self.distances, self.found = [], {}, None

    def outputs(self):
        model = self.model
        norms = [layer for layer in model.layers if "norm" in layer.name]
        assert len(norms) == 3
        network = self.Model(model.input, [norm.output for norm in norms])
        return [
            np.concatenate(parts)
            for parts in zip(
                *(
                    [np.asarray(t) for t in network(self.canvas[i : i + 2000])]
                    for i in range(0, len(self.canvas), 2000)
                ),
                strict=True,
            )
        ]

    def on_epoch_end(self, epoch, logs=None):
        newest = self.outputs()
        self.distances[epoch] = [
            float(
                np.mean(
                    [
                        np.abs(
                            (a > 0).astype("float64") - (b > 0).astype("float64")
                        ).mean()
                        for a, b in zip(newest, old, strict=True)
                    ]
                )
            )
            for old in reversed(self.stored)
        ]
        if epoch >= self.lookback:
            worst = max(self.distances[epoch])
            if worst < self.threshold and self.found is None:
                self.found = epoch
            self.stored.pop(0)
        self.stored.append(newest)


def convnet(K):
    L = K.layers
    x = inputs = K.Input((8, 8, 1))
    for i, (filters, strides) in enumerate([(6, 1), (8, 2), (8, 1)]):
        x = L.Conv2D(filters, 3, strides, padding="same", use_bias=False)(x)
        x = L.BatchNormalization(momentum=0.9, name=f"norm{i}")(x)
        x = L.ReLU()(x)
    return K.Model(inputs, L.Dense(4)(L.Flatten()(x)))


def images():
    rng = np.random.default_rng(5)
    x = rng.normal(0, 1, (200, 8, 8, 1)).astype("float32")
    quadrants = [x[:, :4, :4], x[:, :4, 4:], x[:, 4:, :4], x[:, 4:, 4:]]
    y = np.argmax([np.abs(q).sum(axis=(1, 2, 3)) for q in quadrants], axis=0)
    return x, y.astype("int32")


def test_the_published_detector_takes_the_same_decision(K):
    x, y = images()
    model = convnet(K)
    model.compile(
        K.optimizers.SGD(0.05, momentum=0.9),
        K.losses.SparseCategoricalCrossentropy(from_logits=True),
    )
    canvas = tsp.probes.plane(x[0], x[1], 100)
    assert canvas.shape == (10_000, 8, 8, 1)
    published = PublishedDetector(K.Model, canvas)
    bird = tsp.SplineEarlyBird(
        canvas,
        threshold=0.16,
        lookback=3,
        stop=False,
        max_units_per_layer=None,
        batch_size=1000,
    )
    history = model.fit(
        x,
        y,
        batch_size=32,
        epochs=EPOCHS,
        shuffle=False,
        verbose=0,
        callbacks=[bird, published],
    ).history

    assert published.found is not None
    assert published.found > 3  # else any detector would agree
    assert bird.ticket_epoch == published.found
    assert sorted(bird.records) == list(range(1, EPOCHS))
    for epoch in range(1, EPOCHS):
        assert bird.records[epoch] == pytest.approx(
            published.distances[epoch], abs=1e-3
        )
    logged = history["spline_distance"]
    assert len(logged) == EPOCHS
    assert np.isnan(logged[:3]).all()
    for epoch in range(3, EPOCHS):
        assert logged[epoch] == pytest.approx(max(published.distances[epoch]), abs=1e-3)
    # No epoch is so close to the bound that rounding could decide.
    for epoch in range(3, published.found + 1):
        assert abs(max(published.distances[epoch]) - 0.16) > 1e-3
