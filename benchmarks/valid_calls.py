"""One valid call of every public function, method and constructor, on small models.

`wrong_calls.py` replaces one argument at a time. What is public and not here must be
in `NOT_CALLED`, with the reason.
"""

import functools
import inspect
import os
import pathlib
import types

import numpy as np

import tf_spline_prune as tsp

# Classes that the package makes and the user reads, or that rules are written with.
RECORDS = {
    *("Cost", "ExportReport", "PartitionCodes", "Report", "ResidualBlock"),
    "ResidualStream",
    *("SanityReport", "Sensitivity", "Slice", "criteria.Connections"),
    *("criteria.UnitPairs", "criteria.UserFunction", "datasets.DatasetInfo"),
    *("graph.Barrier", "graph.Call", "graph.Group", "graph.Meeting", "graph.Member"),
    *("graph.Recorder", "graph.TensorAxes", "graph.UnitPath", "graph.WeightFact"),
    *("initialization.EdgePoint", "initialization.SignalPropagation"),
    *("PruningPlan", "datasets.OpticalDigits", "datasets.XQuadrants"),
    *("criteria.Criterion", "criteria.PairCriterion", "criteria.ConnectionCriterion"),
    *("callbacks.EarlyBird", "schedules.Schedule"),
}
# Of these the methods are for rules and criteria, which get what they are called with.
INSIDE = {"ChannelGraph", "criteria.Connections", "criteria.UnitPairs"}
# What Keras or the planner calls, and not a user.
HOOKS = {
    *("on_epoch_begin", "on_epoch_end", "on_train_begin", "on_train_end"),
    *("on_train_batch_end", "prepare", "scores", "reason_against", "get_config"),
    *("from_config", "check_data", "saliencies", "worth", "of_batch", "average"),
    *("pairs", "build", "call", "compute_mask", "compute_output_shape"),
    *("compute_output_spec", "load_own_variables", "follow", "to_dict", "from_dict"),
    *("of", "like", "graph_of", "exchanged"),
}
# Hooks by their full name.
NOT_CALLED = {
    "MaskedLayer.__call__": "Keras checks what a layer is called with",
    "initialization.EdgeOfChaos.__call__": "Keras calls an initializer",
    "litert.Servable.__call__": "TensorFlow calls it while it traces",
    "schedules.*.__call__": "takes tensors, as TFMOT's schedules do",
    "graph.channel_axis": "takes what a rule is given",
    "graph.norm_axis": "takes what a rule is given",
    "graph.positions": "takes what a rule is given",
    "callbacks.EarlyBird.when_found": "called as that of a detector",
    "schedules.Schedule.at": "called as those of its subclasses",
    "schedules.Schedule.fires_within": "called as those of its subclasses",
    "probes.arrays_of": "takes what `check_probe` has taken",
    "probes.check_probe": "takes what a trace gave",
}


class Bench:
    """Small models and what is made of them, each made when it is first asked for."""

    def __init__(self, flavour: str = "keras", folder: str = "") -> None:
        self.flavour = flavour
        self.keras = __import__(flavour)
        self.folder = pathlib.Path(folder)  # where the calls write
        self.rng = np.random.default_rng(0)
        self.keras.utils.set_random_seed(0)

    def build(self, kind: str = "") -> object:
        """Make a built model: 4 inputs, two hidden layers, 3 outputs."""
        k, last = self.keras, {"logits": None}.get(kind, "softmax")
        k.utils.set_random_seed(0)
        size = 2 if kind in ("generator", "linear") else 4
        layers = [k.Input((size,))]
        for name, units in (("d1", 6), ("d2", 5)):
            layers.append(k.layers.Dense(units, name=name))
            if kind == "norm":
                layers.append(k.layers.BatchNormalization(name=name + "_bn"))
            slope = 0.3 if kind == "generator" else 0.0
            layers.append(k.layers.ReLU(negative_slope=slope, name=name + "_relu"))
        if kind == "generator":
            layers.append(k.layers.Dense(3, name="out"))
        else:
            layers.append(k.layers.Dense(3, activation=last, name="out"))
        model = k.Sequential(layers, name="net")
        if kind != "logits":
            model.compile("sgd", "sparse_categorical_crossentropy", metrics=["acc"])
        return model

    @functools.cached_property
    def model(self):
        return self.build()

    @functools.cached_property
    def norm(self):
        return self.build("norm")

    @functools.cached_property
    def logits(self):
        return self.build("logits")

    @functools.cached_property
    def generator(self):
        return self.build("generator")

    @functools.cached_property
    def masked(self):
        return tsp.prune_once(tsp.wrap_with_masks(self.model), 0.5)

    @functools.cached_property
    def orthogonal(self):
        k = self.keras
        net = k.Sequential(
            [k.Input((8,)), *(k.layers.Dense(8, "tanh", name=f"t{i}") for i in "ab")]
        )
        return tsp.prune_once(tsp.wrap_with_masks(net), 0.5)

    @functools.cached_property
    def residual(self):
        k = self.keras
        x = entry = k.Input((4,))
        for name in ("r1", "r2"):
            x = k.layers.Dense(4, activation="relu", name=name)(x)
        return k.Model(entry, k.layers.Dense(3)(k.layers.Add()([entry, x])))

    @functools.cached_property
    def blocks(self):
        k = self.keras
        x = entry = k.Input((4,))
        for name in ("b1", "b2"):
            y = k.layers.Dense(5, activation="relu", name=name)(x)
            x = k.layers.Add()([x, k.layers.Dense(4)(y)])
        return k.Model(entry, k.layers.Dense(3)(x))

    @functools.cached_property
    def stream(self):
        k = self.keras
        x = entry = k.Input((4,))
        x = k.layers.Dense(6, name="s1")(x)
        y = k.layers.Dense(5, activation="relu")(k.layers.LayerNormalization()(x))
        x = k.layers.Add()([x, k.layers.Dense(6)(y)])
        return k.Model(entry, k.layers.Dense(3)(k.layers.LayerNormalization()(x)))

    @functools.cached_property
    def x(self):
        return self.rng.normal(size=(8, 4)).astype("float32")

    @functools.cached_property
    def y(self):
        return np.arange(8) % 3

    @functools.cached_property
    def z(self):
        return self.rng.normal(size=(6, 2)).astype("float32")

    @functools.cached_property
    def plan(self):
        return tsp.plan(self.model, "magnitude", sparsity=0.3)

    @functools.cached_property
    def small(self):
        return self.plan.apply(self.model)

    @functools.cached_property
    def second(self):
        return tsp.plan(self.small, "magnitude", sparsity=0.2)

    @functools.cached_property
    def coder(self):
        return tsp.PartitionCoder(self.model)

    @functools.cached_property
    def codes(self):
        return self.coder(self.x)

    @functools.cached_property
    def slice(self):
        return tsp.slice2d(self.model, self.x[:3])

    @functools.cached_property
    def surface(self):
        return tsp.generative.Surface(self.generator)

    @functools.cached_property
    def sampler(self):
        return tsp.generative.Sampler(self.generator, self.z)

    @functools.cached_property
    def lite(self):
        return tsp.litert.convert(self.model)

    @functools.cached_property
    def lite_file(self):
        path = self.folder / "model.tflite"
        path.write_bytes(self.lite)
        return path

    @functools.cached_property
    def runner(self):
        return tsp.litert.Runner(self.lite)

    @functools.cached_property
    def servable(self):
        return tsp.litert.Servable(self.model)

    @functools.cached_property
    def weights_file(self):
        path = self.folder / "w.weights.h5"
        self.model.save_weights(str(path))
        return path

    @functools.cached_property
    def plan_file(self):
        path = self.folder / "plan.json"
        self.plan.save(path)
        return path

    @functools.cached_property
    def bird(self):
        return tsp.SplineEarlyBird(self.x)

    @functools.cached_property
    def field(self):
        return tsp.initialization.MeanField("tanh")

    @functools.cached_property
    def recorder(self):
        recorder = tsp.SliceRecorder(self.x[:3])
        model = self.build()
        model.fit(self.x, self.y, epochs=2, callbacks=[recorder], verbose=0)
        return recorder

    @functools.cached_property
    def sensitivity(self):
        return tsp.sensitivity(
            self.model, self.x, lambda m: 0.5, "magnitude", shares=(0.3,)
        )

    @functools.cached_property
    def diagnosis(self):
        return tsp.initialization.signal_propagation(self.model, self.x, self.y)

    @functools.cached_property
    def served(self):
        folder = self.folder / "served"
        tsp.export_saved_model(self.model, folder, 1)
        return folder

    def path(self, name: str) -> pathlib.Path:
        """Return a path that is not there yet."""
        return self.folder / f"{os.urandom(4).hex()}{name}"

    def calls(self) -> dict[str, object]:
        """List the valid calls: by name a function that gives `(callable, kwargs)`.

        The items of a `*args` parameter stand under its name with a star.
        """
        b, t, budget = self, tsp, {"sparsity": 0.3}

        def evaluate(model):
            return 0.5

        def train(model):
            return None

        found = {
            "apply_masks": lambda: (t.apply_masks, {"model": b.masked}),
            "check_criterion": lambda: (
                t.check_criterion,
                {"criterion": "magnitude", "model": b.model, "data": None}
                | {"permute": False, "seed": 0},
            ),
            "check_rule": lambda: (
                t.check_rule,
                {"layer": b.keras.layers.ReLU(), "*input_shapes": (4,)}
                | {"num_trials": 1, "seed": 0},
            ),
            "compose": lambda: (t.compose, {"first": b.plan, "second": b.second}),
            "cost": lambda: (t.cost, {"model": b.model, "weight_dtype": None}),
            "distill": lambda: (
                t.distill,
                {"teacher": b.logits, "student": b.build("logits")}
                | {"data": (b.x, b.y), "optimizer": "sgd", "metrics": None}
                | {"temperature": 2.0, "student_loss_weight": 0.5, "losses": None}
                | {
                    "loss": b.keras.losses.SparseCategoricalCrossentropy(
                        from_logits=True
                    )
                },
            ),
            "export_litert": lambda: (
                t.export_litert,
                {"model": b.model, "file": b.path(".tflite"), "quantize": None}
                | {"representative_data": None, "sparse": False, "plan": b.plan}
                | {"integer_io": False, "batch_size": None, "tolerance": None}
                | {"labels": ["a", "b", "c"]},
            ),
            "export_onnx": lambda: (
                t.export_onnx,
                {"model": b.model, "file": b.path(".onnx"), "opset": 18, "plan": None},
            ),
            "export_saved_model": lambda: (
                t.export_saved_model,
                {"model": b.model, "folder": b.path(""), "version": 1}
                | {"preprocess": None, "input_spec": None, "labels": ["a", "b", "c"]}
                | {"warmup": 1, "plan": None},
            ),
            "write_serving_config": lambda: (
                t.write_serving_config,
                {"folder": b.path(""), "models": {"net": b.served}}
                | {"versions": {"net": [1]}, "max_batch_size": 4, "overwrite": False}
                | {"batch_timeout_micros": 10, "max_enqueued_batches": 5}
                | {"num_batch_threads": 2},
            ),
            "jacobian_rank": lambda: (
                t.jacobian_rank,
                {"model": b.model, "x": b.x, "tolerance": 1e-5, "batch_size": 4},
            ),
            "least_squares": lambda: (
                t.least_squares,
                {"model": b.model, "small": b.small, "plan": b.plan, "data": b.x}
                | {"ridge": 1e-3, "batch_size": 4, "max_inputs": 8, "max_rows": 64}
                | {"max_bytes": 2**24, "relu_steps": 1, "seed": 0},
            ),
            "load_weights": lambda: (
                t.load_weights,
                {"model": b.masked, "filepath": b.weights_file},
            ),
            "local_affine": lambda: (
                t.local_affine,
                {"model": b.model, "x": b.x, "batch_size": 4},
            ),
            "local_complexity": lambda: (
                t.local_complexity,
                {"model": b.model, "x": b.x[:2], "radius": 0.1, "directions": 2}
                | {"layers": ["d1_relu"], "seed": 0, "batch_size": 8},
            ),
            "lossless": lambda: (
                t.lossless,
                {"model": b.model, "data": b.x, "box": None, "tolerance": None}
                | {"seed": 0},
            ),
            "max_regions": lambda: (t.max_regions, {"knots": [3, 4], "dimension": 2}),
            "merge": lambda: (t.merge, {"model": b.model, "plan": b.plan}),
            "partition_distance": lambda: (
                t.partition_distance,
                {"codes": b.codes, "other": b.codes, "per_layer": False},
            ),
            "unit_distances": lambda: (
                t.unit_distances,
                {"codes": b.codes, "other": b.codes},
            ),
            "plan": lambda: (
                t.plan,
                {"model": b.model, "criterion": "magnitude", "sparsity": 0.3}
                | {"scope": "global", "layers": ["d1"], "data": None, "round_to": 1}
                | {"min_units": 1, "max_sparsity": 0.9, "approximate": False}
                | {"seed": 0},
            ),
            "plan (macs)": lambda: (t.plan, {"model": b.model, "target_macs": 0.7}),
            "plan (params)": lambda: (t.plan, {"model": b.model, "target_params": 0.7}),
            "plan (bytes)": lambda: (
                t.plan,
                {"model": b.model, "target_bytes": 0.7, "weight_dtype": "int8"},
            ),
            "plan (latency)": lambda: (
                t.plan,
                {"model": b.model, "target_latency": 0.9}
                | {"latency": lambda m: float(m.count_params())},
            ),
            "prune": lambda: (
                t.prune,
                {"model": b.model, "criterion": "magnitude", **budget}
                | {"scope": "global", "layers": ["d1"], "data": None, "round_to": 1}
                | {"min_units": 1, "max_sparsity": 0.9, "approximate": False}
                | {"seed": 0, "recover": "auto", "weights": "inherit", "verify": True},
            ),
            "prune (macs)": lambda: (t.prune, {"model": b.model, "target_macs": 0.7}),
            "prune_in_rounds": lambda: (
                t.prune_in_rounds,
                {"model": b.model, "criterion": "magnitude", "rounds": 2, **budget}
                | {"schedule": "linear", "train": train, "recover": "auto"}
                | {"data": None, "verify": True},
            ),
            "prune_once": lambda: (
                t.prune_once,
                {"model": b.masked, "sparsity": 0.5, "criterion": "magnitude"}
                | {"granularity": "weight", "scope": "layer", "layers": ["d1"]}
                | {"pooling": "mean", "data": b.x, "recover": "least_squares"}
                | {"ridge": 1e-2, "batch_size": 4, "max_rows": 64}
                | {"max_bytes": 2**24, "seed": 0},
            ),
            "update_masks": lambda: (
                t.update_masks,
                {"model": b.masked, "sparsity": 0.5, "criterion": "magnitude"}
                | {"granularity": "weight", "scope": "layer", "layers": ["d1"]}
                | {"pooling": "mean", "data": None, "seed": 0},
            ),
            "recalibrate_batchnorm": lambda: (
                t.recalibrate_batchnorm,
                {"model": b.norm, "data": b.x, "batch_size": 4, "max_bytes": 2**20},
            ),
            "drop_blocks": lambda: (
                t.drop_blocks,
                {"model": b.blocks, "blocks": 1, "data": b.x, "importance": "loss"}
                | {"recover": "auto", "contiguous": False, "seed": 0, "verify": True},
            ),
            "residual_blocks": lambda: (
                t.residual_blocks,
                {"model": b.blocks, "data": b.x, "importance": "loss", "seed": 0},
            ),
            "prune_hidden": lambda: (
                t.prune_hidden,
                {"model": b.stream, "size": 4, "data": b.x, "method": "auto"}
                | {"recover": "auto", "round_to": 2, "seed": 0, "verify": True},
            ),
            "residual_streams": lambda: (t.residual_streams, {"model": b.stream}),
            "refit_data_free": lambda: (
                t.refit_data_free,
                {"model": b.norm, "small": t.plan(b.norm, sparsity=0.5).apply(b.norm)}
                | {"plan": t.plan(b.norm, sparsity=0.5), "num_inputs": 8, "seed": 0},
            ),
            "remove_units": lambda: (
                t.remove_units,
                {"model": b.model, "units": {"d1": [0, 2]}, "approximate": False},
            ),
            "remove_units (of a layer)": lambda: (
                lambda model, indices: t.remove_units(model, {"d1": indices}),
                {"model": b.model, "indices": [0, 2]},
            ),
            "report": lambda: (
                t.report,
                {"model": b.model, "pruned": b.small, "plan": b.plan, "data": None}
                | {"evaluate": evaluate, "bird": None, "num_threads": 1},
            ),
            "sanity_checks": lambda: (
                t.sanity_checks,
                {"model": b.model, "plan": b.plan, "evaluate": evaluate}
                | {"train": None, "num_seeds": 1, "seed": 0},
            ),
            "sensitivity": lambda: (
                t.sensitivity,
                {"model": b.model, "data": b.x, "evaluate": evaluate}
                | {"criterion": "magnitude", "shares": [0.3], "layers": ["d1"]}
                | {"approximate": False, "seed": 0},
            ),
            "shrink": lambda: (t.shrink, {"model": b.masked}),
            "strip_masks": lambda: (t.strip_masks, {"model": b.masked}),
            "weight_sparsity": lambda: (t.weight_sparsity, {"model": b.masked}),
            "wrap_with_masks": lambda: (
                t.wrap_with_masks,
                {"model": b.model, "layers": ["d1"]},
            ),
            "slice2d": lambda: (
                t.slice2d,
                {"model": b.model, "anchors": b.x[:3], "extent": (0.0, 1.0)}
                | {"layers": ["d1_relu"], "classes": (0, 1), "max_regions": 1000}
                | {"partial": False},
            ),
            "verify": lambda: (
                t.verify,
                {"model": b.model, "small": b.small, "plan": b.plan}
                | {"num_inputs": 2, "seed": 0},
            ),
            "training_flops": lambda: (
                t.training_flops,
                {"forward_flops": 1e6, "num_images": 10, "epochs": 2.0, "factor": 3},
            ),
            "prune_at_init": lambda: (
                t.prune_at_init,
                {"model": b.model, "criterion": "snip", "sparsity": 0.3}
                | {"data": (b.x, b.y), "loss": None, "rounds": 1, "seed": 0}
                | {"schedule": "exponential", "granularity": "weight"}
                | {"layers": ["d1"], "empty_layers": "raise"},
            ),
            # Callbacks
            "ArchitectureEarlyBird": lambda: (
                t.ArchitectureEarlyBird,
                {"sparsity": 0.5, "criterion": "magnitude", "threshold": 0.9}
                | {"lookback": 2, "stop": True, "filepath": None, "seed": 0}
                | {"keep_history": False, "backup_dir": None, "verbose": 0},
            ),
            "LocalComplexityLogger": lambda: (
                t.LocalComplexityLogger,
                {"points": {"train": b.x}, "radius": 0.1, "directions": 2}
                | {"layers": None, "every": 1, "seed": 0},
            ),
            "MaskEarlyBird": lambda: (
                t.MaskEarlyBird,
                {"sparsity": 0.5, "threshold": 0.1, "num_masks": 3, "stop": True}
                | {"reference": "newest", "filepath": None, "keep_history": False}
                | {"backup_dir": None, "verbose": 0},
            ),
            "MaskPruning": lambda: (
                t.MaskPruning,
                {"schedule": t.schedules.OneShot(0.5, 1), "criterion": "magnitude"}
                | {"granularity": "weight", "scope": "layer", "layers": None}
                | {"pooling": "mean", "data": None, "seed": 0, "below_target": "warn"},
            ),
            "PruningSummaries": lambda: (
                t.PruningSummaries,
                {"log_dir": b.path(""), "update_freq": "epoch", "images": True},
            ),
            "SignalPropagationLogger": lambda: (
                t.SignalPropagationLogger,
                {"x": b.x, "y": b.y, "loss": None, "jacobian_inputs": 2, "every": 1},
            ),
            "SliceRecorder": lambda: (
                t.SliceRecorder,
                {"anchors": b.x[:3], "extent": (0.0, 1.0), "epochs": 1, "steps": ()}
                | {"layers": None, "classes": None, "max_regions": 100},
            ),
            "SplineEarlyBird": lambda: (
                t.SplineEarlyBird,
                {"probe": b.x, "threshold": 0.1, "lookback": 2, "mode": "max_below"}
                | {"stop": True, "filepath": None, "keep_history": False}
                | {"tolerance": 0.1, "layers": None, "max_units_per_layer": 16}
                | {"max_bytes": 2**20, "seed": 0, "batch_size": 4}
                | {"backup_dir": None, "verbose": 0},
            ),
            "SplineEarlyBird.replay": lambda: (
                b.bird.replay,
                {"distances": np.zeros((4, 4))},
            ),
            "EarlyBird.when_found": lambda: (
                t.SplineEarlyBird(b.x).when_found,
                {"listener": lambda step: None},
            ),
            # Layers, codes, slices, plans
            "MaskedLayer": lambda: (
                t.MaskedLayer,
                {"layer": b.keras.layers.Dense(3), "weights": ["kernel"]}
                | {"name": "masked"},
            ),
            "PartitionCoder": lambda: (
                t.PartitionCoder,
                {"model": b.model, "layers": ["d1_relu"], "max_units_per_layer": 16}
                | {"seed": 0, "batch_size": 4, "max_bytes": 2**20},
            ),
            "PartitionCoder.__call__": lambda: (b.coder, {"x": b.x}),
            "PartitionCodes.unpack": lambda: (b.codes.unpack, {"layer": "d1_relu"}),
            "Slice.coordinates": lambda: (b.slice.coordinates, {"inputs": b.x[:3]}),
            "PruningPlan.apply": lambda: (
                b.plan.apply,
                {"model": b.model, "weights": "inherit"},
            ),
            "PruningPlan.load": lambda: (t.PruningPlan.load, {"path": b.plan_file}),
            "PruningPlan.save": lambda: (b.plan.save, {"path": b.path(".json")}),
            "PruningPlan.summary": lambda: (
                b.plan.summary,
                {"print_fn": lambda text: None},
            ),
            "Report.to_html": lambda: (
                t.report(b.model, b.small, plan=b.plan).to_html,
                {"path": b.path(".html")},
            ),
            "ChannelGraph": lambda: (
                t.ChannelGraph,
                {"model": b.model, "approximate": False},
            ),
            "ChannelGraph.explain": lambda: (
                t.ChannelGraph(b.model).explain,
                {"layer": "d1"},
            ),
            "ChannelGraph.removal": lambda: (
                t.ChannelGraph(b.model).removal,
                {"units": {"d1": [0]}},
            ),
            # Criteria
            "criteria.get": lambda: (
                t.criteria.get,
                {"criterion": "magnitude", "has_data": False},
            ),
            "criteria.Activation": lambda: (
                t.criteria.Activation,
                {"statistic": "mean", "batch_size": 4, "reduction": "mean"}
                | {"normalizer": "mean"},
            ),
            "criteria.GraSP": lambda: (
                t.criteria.GraSP,
                {"loss": None, "batch_size": 4, "reduction": "sum"}
                | {"normalizer": "none", "temperature": 200.0},
            ),
            "criteria.Magnitude": lambda: (
                t.criteria.Magnitude,
                {"p": 2, "reduction": "mean", "normalizer": "mean"},
            ),
            "criteria.Random": lambda: (t.criteria.Random, {}),
            "criteria.Reconstruction": lambda: (
                t.criteria.Reconstruction,
                {"ridge": 1e-3, "batch_size": 4, "max_inputs": 8},
            ),
            "criteria.Spline": lambda: (
                t.criteria.Spline,
                {"mode": "unit", "rho": 1.0, "num_points": 16, "reduction": "mean"}
                | {"normalizer": "mean"},
            ),
            # Data sets
            "datasets.describe": lambda: (
                t.datasets.describe,
                {"name": "x_quadrants", "data_dir": b.folder / "data"},
            ),
            "datasets.load": lambda: (
                t.datasets.load,
                {"name": "x_quadrants", "split": "train", "batch_size": 8}
                | {"shuffle": False, "seed": 0, "data_dir": b.folder / "data"}
                | {"image_size": None},
            ),
            # Generative networks
            "generative.Sampler": lambda: (
                t.generative.Sampler,
                {"model": b.generator, "pool": b.z, "top": 1, "batch_size": 4},
            ),
            "generative.Sampler.draw": lambda: (
                b.sampler.draw,
                {"n": 2, "rho": 1.0, "replace": True, "seed": 0},
            ),
            "generative.Sampler.probabilities": lambda: (
                b.sampler.probabilities,
                {"rho": 1.0},
            ),
            "generative.Surface": lambda: (
                t.generative.Surface,
                {"model": b.generator, "extent": (-1.0, 1.0), "max_regions": 1000},
            ),
            "generative.Surface.log_density": lambda: (
                b.surface.log_density,
                {"x": b.generator.predict(b.z[:2] / 9, verbose=0)}
                | {"prior": "normal", "tolerance": 1e-4},
            ),
            "generative.Surface.preimages": lambda: (
                b.surface.preimages,
                {"x": b.generator.predict(b.z[:2] / 9, verbose=0), "tolerance": 1e-4},
            ),
            "generative.disentanglement": lambda: (
                t.generative.disentanglement,
                {"model": b.generator, "z": b.z, "batch_size": 4},
            ),
            "generative.dropout_ranks": lambda: (
                t.generative.dropout_ranks,
                {"model": b.generator, "z": b.z, "rate": 0.3, "drop": "units"}
                | {"masks": 2, "seed": 0},
            ),
            "generative.entropy": lambda: (
                t.generative.entropy,
                {"model": b.generator, "prior": "normal", "samples": 4, "seed": 0}
                | {"batch_size": 4},
            ),
            "generative.full_rank_probability": lambda: (
                t.generative.full_rank_probability,
                {"latents": 2, "widths": [4, 5], "rate": 0.2},
            ),
            "generative.log_density": lambda: (
                t.generative.log_density,
                {"model": b.generator, "z": b.z, "prior": "normal", "batch_size": 4},
            ),
            "generative.log_volumes": lambda: (
                t.generative.log_volumes,
                {"model": b.generator, "z": b.z, "top": 1, "batch_size": 4},
            ),
            "generative.neighbour_angles": lambda: (
                t.generative.neighbour_angles,
                {"model": b.generator, "z": b.z, "batch_size": 4},
            ),
            # Rules
            "graph.per_unit": lambda: (
                t.graph.per_unit,
                {"*weights": "scale", "sizes": ("dim",)},
            ),
            "register_rule": lambda: (
                t.register_rule,
                {"*layers": type("Own", (b.keras.layers.Layer,), {})}
                | {"homogeneous": False},
            ),
            # Before training
            "initialization.DataAware": lambda: (
                t.initialization.DataAware,
                {"data": b.x, "seed": 0},
            ),
            "initialization.DataAware.apply_to": lambda: (
                t.initialization.DataAware(b.x).apply_to,
                {"model": b.build("logits")},
            ),
            "initialization.EdgeOfChaos": lambda: (
                t.initialization.EdgeOfChaos,
                {"activation": "tanh", "bias_std": 0.1, "distribution": "normal"}
                | {"seed": 0, "weight_std": None, "role": "kernel"},
            ),
            "initialization.EdgeOfChaos.apply_to": lambda: (
                t.initialization.EdgeOfChaos("relu").apply_to,
                {"model": b.build("logits")},
            ),
            "initialization.MeanField": lambda: (
                t.initialization.MeanField,
                {"activation": "tanh", "derivative": None},
            ),
            "initialization.MeanField.chi": lambda: (
                b.field.chi,
                {"q": 1.0, "weight_std": 1.0},
            ),
            "initialization.MeanField.edge_of_chaos": lambda: (
                b.field.edge_of_chaos,
                {"bias_std": 0.1},
            ),
            "initialization.MeanField.fixed_point": lambda: (
                b.field.fixed_point,
                {"weight_std": 1.0, "bias_std": 0.1, "q": 1.0},
            ),
            "initialization.MeanField.next_variance": lambda: (
                b.field.next_variance,
                {"q": 1.0, "weight_std": 1.0, "bias_std": 0.1},
            ),
            "initialization.approximate_isometry": lambda: (
                t.initialization.approximate_isometry,
                {"masked": b.masked, "weight_std": 1.0, "steps": 2}
                | {"learning_rate": 0.1, "tolerance": 0.1},
            ),
            "initialization.connection_scores": lambda: (
                t.initialization.connection_scores,
                {"model": b.model, "criterion": "snip", "data": (b.x, b.y)}
                | {"loss": None, "layers": ["d1"]},
            ),
            "initialization.controls": lambda: (
                t.initialization.controls,
                {"masked": b.masked, "model": b.model, "seed": 0},
            ),
            "initialization.critical_sparsity": lambda: (
                t.initialization.critical_sparsity,
                {"scores": {"d1": np.arange(6.0)}},
            ),
            "initialization.edge_of_chaos": lambda: (
                t.initialization.edge_of_chaos,
                {"activation": "tanh", "bias_std": 0.1, "derivative": None},
            ),
            "initialization.exact_orthogonal": lambda: (
                t.initialization.exact_orthogonal,
                {"masked": b.orthogonal, "weight_std": 1.0, "seed": 0},
            ),
            "initialization.magnitude_critical_sparsity": lambda: (
                t.initialization.magnitude_critical_sparsity,
                {"shapes": [(4, 6), (6, 3)]},
            ),
            "initialization.rescale": lambda: (
                t.initialization.rescale,
                {"masked": b.masked, "target": "edge_of_chaos", "granularity": None}
                | {"activation": "relu", "bias_std": 0.0, "weight_std": None}
                | {"dense": None, "data": None, "on_explosion": "raise"},
            ),
            "initialization.signal_propagation": lambda: (
                t.initialization.signal_propagation,
                {"model": b.model, "x": b.x, "y": b.y, "loss": None}
                | {"jacobian_inputs": 2},
            ),
            "initialization.stable_residual": lambda: (
                t.initialization.stable_residual,
                {"model": b.residual, "decrease": False},
            ),
            "initialization.transfer_masks": lambda: (
                t.initialization.transfer_masks,
                {"masked": b.masked, "model": b.model},
            ),
            # LiteRT
            "litert.Runner": lambda: (
                t.litert.Runner,
                {"model": b.lite, "num_threads": 1},
            ),
            "litert.Runner.measure_latency": lambda: (
                b.runner.measure_latency,
                {"runs": 2, "warmup": 1},
            ),
            "litert.Runner.predict": lambda: (b.runner.predict, {"inputs": b.x[:1]}),
            "litert.Runner.run": lambda: (b.runner.run, {"inputs": b.x[:1]}),
            "litert.Servable": lambda: (t.litert.Servable, {"model": b.model}),
            "litert.Servable.concrete_function": lambda: (
                b.servable.concrete_function,
                {"batch_size": 1},
            ),
            "litert.Servable.predict": lambda: (
                b.servable.predict,
                {"inputs": {next(iter(b.servable.inputs)): b.x}},
            ),
            "litert.Servable.answers": lambda: (
                b.servable.answers,
                {"inputs": {next(iter(b.servable.inputs)): b.x}, "count": 1},
            ),
            "litert.Servable.random_inputs": lambda: (
                b.servable.random_inputs,
                {"batch": 2, "seed": 0},
            ),
            "litert.attach": lambda: (
                t.litert.attach,
                {"path": b.lite_file, "texts": {"a.txt": "b"}},
            ),
            "litert.convert": lambda: (
                t.litert.convert,
                {"model": b.model, "quantize": None, "representative_data": None}
                | {"sparse": False, "integer_io": False, "batch_size": None},
            ),
            "litert.interleaved_latencies": lambda: (
                t.litert.interleaved_latencies,
                {"*runners": b.runner},
            ),
            "litert.read_attachments": lambda: (
                t.litert.read_attachments,
                {"path": b.lite_file},
            ),
            # Probes
            "probes.plane": lambda: (
                t.probes.plane,
                {"a": b.x[0], "b": b.x[1], "n": 3},
            ),
            "probes.minibatch": lambda: (
                t.probes.minibatch,
                {"dataset": [b.x], "n": 3},
            ),
            "probes.mix": lambda: (t.probes.mix, {"x": b.x, "n": 3, "seed": 0}),
            "probes.noise": lambda: (
                t.probes.noise,
                {"shape": (4,), "n": 3, "seed": 0},
            ),
            # Schedules
            "schedules.Cyclic": lambda: (
                t.schedules.Cyclic,
                {"final_sparsity": 0.5, "begin_step": 0, "end_step": 9, "cycles": 2},
            ),
            "schedules.EarlyBirdSparsity": lambda: (
                t.schedules.EarlyBirdSparsity,
                {"bird": None, "target_sparsity": 0.5, "ramp_steps": 3, "power": 3}
                | {"frequency": 1, "initial_sparsity": 0.0},
            ),
            "schedules.EarlyBirdSparsity.start": lambda: (
                t.schedules.EarlyBirdSparsity(None, 0.5).start,
                {"step": 3},
            ),
            "schedules.Exponential": lambda: (
                t.schedules.Exponential,
                {"final_sparsity": 0.5, "begin_step": 0, "end_step": 9}
                | {"initial_sparsity": 0.0, "frequency": 1},
            ),
            "schedules.OneShot": lambda: (
                t.schedules.OneShot,
                {"target_sparsity": 0.5, "step": 1},
            ),
            "schedules.Timed": lambda: (
                t.schedules.Timed,
                {"schedule": t.schedules.OneShot(0.5, 1), "unit": "epochs"}
                | {"steps_per_epoch": 5, "epochs": 2},
            ),
            "schedules.Timed.resolve": lambda: (
                t.schedules.Timed(t.schedules.OneShot(0.5, 1), "epochs").resolve,
                {"steps_per_epoch": 5, "epochs": 2},
            ),
            "schedules.evaluate": lambda: (
                t.schedules.evaluate,
                {"schedule": t.schedules.OneShot(0.5, 1), "step": 1},
            ),
            "schedules.final_sparsity": lambda: (
                t.schedules.final_sparsity,
                {"schedule": t.schedules.OneShot(0.5, 1)},
            ),
            "schedules.fires_within": lambda: (
                t.schedules.fires_within,
                {"schedule": t.schedules.OneShot(0.5, 1), "first": 0, "last": 3},
            ),
        }
        for name in ("BatchNormScale", "FPGM", "LAMP", "SynFlow"):
            found[f"criteria.{name}"] = lambda name=name: (
                getattr(t.criteria, name),
                {"reduction": "mean", "normalizer": "none"},
            )
        for name in ("FORCE", "Fisher", "SNIP", "Taylor"):
            found[f"criteria.{name}"] = lambda name=name: (
                getattr(t.criteria, name),
                {"loss": None, "batch_size": 1, "reduction": "sum"}
                | {"normalizer": "none"},
            )
        for name in ("Cyclic", "Exponential", "OneShot", "EarlyBirdSparsity", "Timed"):
            found[f"schedules.{name}.at"] = lambda name=name: (
                b._schedule(name).at,
                {"step": 1},
            )
            found[f"schedules.{name}.fires_within"] = lambda name=name: (
                b._schedule(name).fires_within,
                {"first": 0, "last": 3},
            )
        return found | self._figures()

    def _schedule(self, name: str) -> object:
        of = tsp.schedules
        return {
            "Cyclic": lambda: of.Cyclic(0.5, 0, 9, 2),
            "Exponential": lambda: of.Exponential(0.5, 0, 9),
            "OneShot": lambda: of.OneShot(0.5, 1),
            "EarlyBirdSparsity": lambda: of.EarlyBirdSparsity(None, 0.5),
            "Timed": lambda: of.Timed(of.OneShot(0.5, 1), "epochs", 5, 2),
        }[name]()

    def _figures(self) -> dict[str, object]:
        b, v = self, tsp.visualize
        file = {"path": None, "axes": None}
        return {
            "visualize.animate_slices": lambda: (
                v.animate_slices,
                {"recorder": b.recorder, "path": b.path(".gif")}
                | {"frames_per_second": 2, "dots_per_inch": 20},
            ),
            "visualize.plot_distance_curve": lambda: (
                v.plot_distance_curve,
                {"records": {1: [0.5], 2: [0.3, 0.4]}, "threshold": 0.1, **file}
                | {"ticket_epoch": 1, "label": "distance"},
            ),
            "visualize.plot_distance_matrix": lambda: (
                v.plot_distance_matrix,
                {"matrix": np.zeros((3, 3)), "ticket_epoch": 1, **file}
                | {"label": "distance", "learning_rates": [0.1, 0.1, 0.1]},
            ),
            "visualize.plot_local_complexity": lambda: (
                v.plot_local_complexity,
                {"curves": {"train": [1.0, 2.0]}, "ticket_epoch": 1, **file}
                | {"label": "complexity"},
            ),
            "visualize.plot_plan": lambda: (v.plot_plan, {"plan": b.plan, **file}),
            "visualize.plot_redundancy": lambda: (
                v.plot_redundancy,
                {"model": b.model, "layer": "d1", "plan": None, **file}
                | {"sparsity": 0.3, "criterion": "spline", "data": None},
            ),
            "visualize.plot_sensitivity": lambda: (
                v.plot_sensitivity,
                {"result": b.sensitivity, "label": "accuracy", **file},
            ),
            "visualize.plot_signal_propagation": lambda: (
                v.plot_signal_propagation,
                {"diagnosis": b.diagnosis, **file},
            ),
            "visualize.plot_slice": lambda: (
                v.plot_slice,
                {"s": b.slice, "fill": "area", "points": b.x[:2, :2], **file}
                | {"labels": [0, 1], "images": False},
            ),
            "visualize.plot_slices": lambda: (
                v.plot_slices,
                {
                    "slices": {"a": b.slice},
                    "fill": "area",
                    "points": b.x[:2, :2],
                    **file,
                }
                | {"labels": [0, 1], "images": False},
            ),
            "visualize.plot_training_slices": lambda: (
                v.plot_training_slices,
                {"recorder": b.recorder, "most": 2, **file},
            ),
        }


def public() -> set[str]:
    """List every public function, constructor and method that a user calls."""
    names: set[str] = set()
    for name in tsp.__all__:
        thing = getattr(tsp, name)
        if not isinstance(thing, types.ModuleType):
            names |= _of(name, thing)
        elif name != "errors":
            listed = getattr(thing, "__all__", None) or [
                key
                for key, value in vars(thing).items()
                if not key.startswith("_")
                and getattr(value, "__module__", None) == thing.__name__
            ]
            for inner in listed:
                value = getattr(thing, inner)
                if not any(value is getattr(tsp, other, None) for other in _TOP):
                    names |= _of(f"{name}.{inner}", value)
    return names


_TOP = [n for n in tsp.__all__ if not isinstance(getattr(tsp, n), types.ModuleType)]


def _of(name: str, thing: object) -> set[str]:
    ours = str(getattr(thing, "__module__", "")).startswith("tf_spline_prune")
    if not ours or not callable(thing) or hasattr(thing, "__args__"):
        return set()
    if not inspect.isclass(thing):
        return set() if name in NOT_CALLED else {name}
    found = set() if name in RECORDS else {name}
    if name in INSIDE or name.startswith("graph."):
        return found
    for key in dir(thing):
        owner = next((c for c in thing.__mro__ if key in vars(c)), None)
        if owner is None or not owner.__module__.startswith("tf_spline_prune"):
            continue
        raw = inspect.getattr_static(thing, key)
        plain = inspect.isfunction(raw) or isinstance(raw, (staticmethod, classmethod))
        if not plain or (key.startswith("_") and key != "__call__") or key in HOOKS:
            continue
        where = name if owner is thing else owner.__name__
        takes = [p for p in inspect.signature(getattr(thing, key)).parameters]
        if takes not in ([], ["self"]):
            full = f"{where}.{key}"
            star = f"{full.partition('.')[0]}.*.{key}"
            if full not in NOT_CALLED and star not in NOT_CALLED:
                found.add(full)
    return found
