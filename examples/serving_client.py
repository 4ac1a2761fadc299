"""Asks an exported model as a client does, with random inputs.

    python examples/serving_client.py served/digits
    python examples/serving_client.py served/digits --rest http://host:8501
    python examples/serving_client.py --grpc host:8500 --model digits
    python examples/serving_client.py served/digits --stand-in

A folder is loaded through plain `tf.saved_model`; neither Keras models nor
tf_spline_prune are needed. A server's answers are compared with those of the folder
where both are given. REST needs NumPy alone, gRPC `tensorflow-serving-api`.
"""

import argparse
import json
import os
import pathlib
import sys
import urllib.error
import urllib.request

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np

TIMEOUT = 60  # seconds
TOLERANCE = 1e-4
DTYPES = {
    "DT_BOOL": "bool",
    "DT_DOUBLE": "float64",
    "DT_FLOAT": "float32",
    "DT_INT32": "int32",
    "DT_INT64": "int64",
    "DT_INT8": "int8",
    "DT_STRING": "string",
    "DT_UINT8": "uint8",
}


class Folder:
    """The newest version in a folder, or the one named."""

    def __init__(self, folder, version):
        import tensorflow as tf

        there = folder.iterdir() if folder.is_dir() else ()
        numbers = [int(p.name) for p in there if p.name.isdecimal()]
        if version not in (*numbers, None) or not numbers:
            sys.exit(f"{folder} has no such version; it has {sorted(numbers)}")
        path = folder / str(max(numbers) if version is None else version)
        self.name, self._tf = str(path), tf
        self._loaded = tf.saved_model.load(self.name)
        self.signatures = {
            signature: {
                "inputs": specs_of(function.structured_input_signature[1]),
                "outputs": specs_of(function.structured_outputs),
            }
            for signature, function in self._loaded.signatures.items()
        }

    def ask(self, signature, inputs):
        tensors = {name: self._tf.constant(x) for name, x in inputs.items()}
        found = self._loaded.signatures[signature](**tensors)
        return {name: y.numpy() for name, y in found.items()}


class Rest:
    """A server's REST interface, asked by rows and by columns."""

    def __init__(self, url, model, version):
        self.name = f"{url.rstrip('/')}/v1/models/{model}"
        if version is not None:
            self.name += f"/versions/{version}"
        (state, *_) = fetch(self.name)["model_version_status"]
        print(f"{self.name}: version {state['version']} is {state['state']}")
        found = fetch(f"{self.name}/metadata")["metadata"]["signature_def"]
        self.signatures = {
            signature: {
                end: {
                    name: (
                        [int(d["size"]) for d in info["tensor_shape"].get("dim", [])],
                        DTYPES[info["dtype"]],
                    )
                    for name, info in definition[end].items()
                }
                for end in ("inputs", "outputs")
            }
            for signature, definition in found["signature_def"].items()
            if definition["inputs"]  # TensorFlow adds one for initialisation
        }

    def ask(self, signature, inputs):
        columns = {name: x.tolist() for name, x in inputs.items()}
        lists = zip(*columns.values(), strict=True)
        rows = [dict(zip(columns, row, strict=True)) for row in lists]
        if len(columns) == 1:  # a single input need not be named
            (columns,) = columns.values()
            rows = columns
        by_rows = self._post(signature, "instances", rows)["predictions"]
        by_columns = self._post(signature, "inputs", columns)["outputs"]
        names = list(self.signatures[signature]["outputs"])
        if len(names) == 1:
            by_rows = {names[0]: by_rows}
            by_columns = {names[0]: by_columns}
        else:
            by_rows = {name: [row[name] for row in by_rows] for name in names}
        for name in names:
            check(difference(by_rows[name], by_columns[name]), "rows and columns")
        return {name: np.array(by_columns[name]) for name in names}

    def _post(self, signature, form, values):
        body = {"signature_name": signature, form: values}
        return fetch(f"{self.name}:predict", json.dumps(body).encode())


class Grpc:
    """A server's gRPC interface."""

    def __init__(self, address, model, version):
        import grpc
        import tensorflow as tf
        from tensorflow_serving.apis import (
            get_model_metadata_pb2,
            predict_pb2,
            prediction_service_pb2_grpc,
        )

        self.name, self._tf = f"{address}, model {model}", tf
        channel = grpc.insecure_channel(address)
        self._stub = prediction_service_pb2_grpc.PredictionServiceStub(channel)
        self._request = predict_pb2.PredictRequest()
        self._request.model_spec.name = model
        if version is not None:
            self._request.model_spec.version.value = version
        asked = get_model_metadata_pb2.GetModelMetadataRequest()
        asked.model_spec.CopyFrom(self._request.model_spec)
        asked.metadata_field.append("signature_def")
        answer = self._call("GetModelMetadata", asked)
        found = get_model_metadata_pb2.SignatureDefMap()
        answer.metadata["signature_def"].Unpack(found)
        self.signatures = {
            signature: {
                end: {
                    name: (
                        [d.size for d in info.tensor_shape.dim],
                        tf.as_dtype(info.dtype).name,
                    )
                    for name, info in getattr(definition, end).items()
                }
                for end in ("inputs", "outputs")
            }
            for signature, definition in found.signature_def.items()
            if definition.inputs
        }

    def ask(self, signature, inputs):
        self._request.model_spec.signature_name = signature
        self._request.inputs.clear()
        for name, array in inputs.items():
            tensor = self._tf.make_tensor_proto(array)
            self._request.inputs[name].CopyFrom(tensor)
        response = self._call("Predict", self._request)
        return {n: self._tf.make_ndarray(y) for n, y in response.outputs.items()}

    def _call(self, method, request):
        import grpc

        try:
            return getattr(self._stub, method)(request, TIMEOUT)
        except grpc.RpcError as error:
            sys.exit(f"{self.name}: {error.code().name}: {error.details()}")


def specs_of(tensors):
    return {n: (spec.shape.as_list(), spec.dtype.name) for n, spec in tensors.items()}


def fetch(url, body=None):
    """GET, or POST a body; a refusal ends the program with what the server said."""
    request = urllib.request.Request(url, body, {"Content-Type": "application/json"})
    try:
        with urllib.request.urlopen(request, timeout=TIMEOUT) as response:
            return json.load(response)
    except urllib.error.HTTPError as error:
        sys.exit(f"{url}: {error.code}: {json.load(error)['error']}")
    except urllib.error.URLError as error:
        sys.exit(f"{url}: {error.reason}")


def random_inputs(specs, batch=4):
    rng, drawn = np.random.default_rng(0), {}
    for name, (shape, dtype) in specs.items():
        open_sizes = [batch, *[32] * len(shape)]
        sizes = [
            o if s in (None, -1) else s for s, o in zip(shape, open_sizes, strict=False)
        ]
        if dtype == "string":
            drawn[name] = rng.choice(["ab ba", "b a"], sizes).astype(object)
        elif dtype.startswith("float"):
            drawn[name] = rng.standard_normal(sizes).astype(dtype)
        else:
            top = 256 if dtype == "uint8" else 2
            drawn[name] = rng.integers(0, top, sizes).astype(dtype)
    return drawn


def difference(found, expected):
    """Return max|a - b| / max|b|; of words 0 or infinity."""
    a, b = np.asarray(found), np.asarray(expected)
    if a.dtype.kind in "OSU":
        words = [
            [str(w, "utf8") if isinstance(w, bytes) else w for w in x.flat]
            for x in (a, b)
        ]
        return 0.0 if words[0] == words[1] else np.inf
    return float(np.abs(a - b).max() / max(np.abs(b).max(), 1e-30))


def check(error, what):
    if not error < TOLERANCE:
        sys.exit(f"{what} differ: relative difference {error:.1e}")


def show(source, signature, found):
    print(f"{source.name}: {signature}")
    for end, specs in source.signatures[signature].items():
        for name, (shape, dtype) in specs.items():
            print(f"  {end[:-1]} {name}: {dtype} {shape}")
    for name, array in found.items():
        print(f"  {name}[0] = {array[0]}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.split("\n")[0])
    parser.add_argument("folder", nargs="?", type=pathlib.Path)
    parser.add_argument("--rest", metavar="http://HOST:8501")
    parser.add_argument("--grpc", metavar="HOST:8500")
    parser.add_argument("--model", help="its name; the folder's, if left out")
    parser.add_argument("--version", type=int)
    parser.add_argument("--stand-in", action="store_true", help="start one, ask it")
    asked = parser.parse_args()
    if not (asked.folder or asked.rest or asked.grpc):
        parser.error("name a folder, --rest or --grpc")
    if not asked.folder and (asked.stand_in or not asked.model):
        parser.error("without a folder, --model is needed and --stand-in cannot be")
    model = asked.model or asked.folder.resolve().name
    if asked.stand_in:
        import serving_stand_in

        print(serving_stand_in.SAYS)
        stand_in = serving_stand_in.Model(asked.folder)
        asked.rest = serving_stand_in.serve_rest(stand_in)
        server, asked.grpc = serving_stand_in.serve_grpc(stand_in)
    sources = [
        kind(place, *rest)
        for kind, place, *rest in (
            (Folder, asked.folder, asked.version),
            (Rest, asked.rest, model, asked.version),
            (Grpc, asked.grpc, model, asked.version),
        )
        if place
    ]
    for signature, ends in sources[0].signatures.items():
        inputs = random_inputs(ends["inputs"])
        expected = sources[0].ask(signature, inputs)
        show(sources[0], signature, expected)
        for source in sources[1:]:
            found = source.ask(signature, inputs)
            worst = max(difference(found[name], expected[name]) for name in expected)
            check(worst, f"{source.name} and {sources[0].name}")
            print(f"{source.name}: relative difference {worst:.1e}")
    if "tf_spline_prune" in sys.modules:
        sys.exit("The client needed tf_spline_prune.")


if __name__ == "__main__":
    main()
