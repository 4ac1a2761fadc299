"""A stand-in for TensorFlow Serving, for trying a client without a server.

    python examples/serving_stand_in.py served/digits

This is NOT TensorFlow Serving. It answers on this machine only (127.0.0.1), one
request after the other, for one model, from the newest version in the folder: the
status, the metadata and `:predict` of the REST interface, and Predict and
GetModelMetadata of the gRPC one. It neither batches nor warms up nor reloads.

What it takes is bounded: 16 requests are read at a time while others wait, none is
larger than 64 MiB, and a client that stops sending is given up after ten seconds.
"""

import base64
import concurrent.futures
import http.server
import json
import os
import pathlib
import re
import sys
import threading

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")

import numpy as np
import tensorflow as tf
from google.protobuf import json_format
from tensorflow.core.protobuf import saved_model_pb2

SAYS = "A stand-in answers here; it is not TensorFlow Serving."
PATH = re.compile(r"/v1/models/([^/:]+)(?:/versions/([0-9]+))?(/metadata|:predict)?")
AT_ONCE = 16
WAITING = 256  # connections that the system holds until one of these is free
LARGEST = 64 * 2**20
PATIENCE = 10.0  # seconds


class Model:
    """The newest version in a folder of versions."""

    def __init__(self, folder):
        entries = [p.name for p in folder.iterdir()]
        names = [name for name in entries if re.fullmatch("[0-9]{1,19}", name)]
        if not names:
            raise SystemExit(f"There is no version in {folder}: no folder `1`, say.")
        path = folder / max(names, key=int)
        self.name, self.version = folder.resolve().name, int(path.name)
        self.loaded = tf.saved_model.load(str(path))
        written = saved_model_pb2.SavedModel.FromString(
            (path / "saved_model.pb").read_bytes()
        )
        self.definitions = written.meta_graphs[0].signature_def
        self.lock = threading.Lock()

    def run(self, signature, inputs):
        """Answer arrays by name with arrays by name."""
        function = self.loaded.signatures[signature]
        specs = function.structured_input_signature[1]
        if set(inputs) != set(specs):
            raise ValueError(f"inputs must be {sorted(specs)}, are {sorted(inputs)}")
        tensors = {n: tf.constant(x, specs[n].dtype) for n, x in inputs.items()}
        with self.lock:
            return {n: y.numpy() for n, y in function(**tensors).items()}

    def predict(self, body):
        """Answer the JSON of a `:predict` request, by rows or by columns."""
        request = json.loads(body)
        signature = request.get("signature_name", "serving_default")
        if signature not in self.loaded.signatures:
            raise ValueError(f"no signature {signature!r}")
        names = list(self.loaded.signatures[signature].structured_input_signature[1])
        if ("instances" in request) == ("inputs" in request):
            raise ValueError("either `instances` or `inputs` is needed")
        by_rows = "instances" in request
        given = request["instances" if by_rows else "inputs"]
        first = given[0] if by_rows and given else given
        if not isinstance(first, dict):
            columns = {names[0]: given}
        elif by_rows:
            columns = {name: [row[name] for row in given] for name in first}
        else:
            columns = given
        found = {n: plain(y) for n, y in self.run(signature, columns).items()}
        if len(found) == 1:
            (only,) = found.values()
            return {"predictions" if by_rows else "outputs": only}
        if not by_rows:
            return {"outputs": found}
        rows = zip(*found.values(), strict=True)
        return {"predictions": [dict(zip(found, row, strict=True)) for row in rows]}


def plain(array):
    """Turn an array into what JSON can hold."""
    if array.dtype != object:
        return array.tolist()
    return np.vectorize(text, otypes=[object])(array).tolist()


def text(value):
    try:
        return value.decode()
    except UnicodeDecodeError:
        return {"b64": base64.b64encode(value).decode()}


def rest_handler(model):
    """Make the class that answers REST requests."""

    class Handler(http.server.BaseHTTPRequestHandler):
        timeout = PATIENCE

        def do_GET(self):
            kind = self.addressed("GET")
            if kind == "":
                status = {"error_code": "OK", "error_message": ""}
                state = {"version": str(model.version), "state": "AVAILABLE"}
                self.send(200, {"model_version_status": [{**state, "status": status}]})
            elif kind == "/metadata":
                signatures = {
                    name: json_format.MessageToDict(
                        definition,
                        preserving_proto_field_name=True,
                        always_print_fields_with_no_presence=True,
                    )
                    for name, definition in model.definitions.items()
                }
                spec = {"name": model.name, "version": str(model.version)}
                metadata = {"signature_def": {"signature_def": signatures}}
                self.send(200, {"model_spec": spec, "metadata": metadata})

        def do_POST(self):
            body = self.body()
            if body is None or self.addressed("POST") != ":predict":
                return
            try:
                code, answer = 200, model.predict(body)
            except Exception as error:  # whatever a request may hold
                code, answer = 400, {"error": f"{type(error).__name__}: {error}"}
            self.send(code, answer)

        def body(self):
            """Read what was sent; answer what is not sent as it was announced."""
            announced = self.headers.get("Content-Length")
            if announced is None:
                self.send(411, {"error": "Content-Length is missing"})
            elif not re.fullmatch("[0-9]+", announced):
                self.send(400, {"error": f"Content-Length is no size: {announced!r}"})
            elif len(announced.lstrip("0")) > 9 or int(announced) > LARGEST:
                self.send(413, {"error": f"more than {LARGEST} bytes"})
            else:
                try:
                    body = self.rfile.read(int(announced))
                except TimeoutError:
                    self.send(408, {"error": f"nothing came for {PATIENCE:g} s"})
                    return None
                if len(body) == int(announced):
                    return body
                self.send(400, {"error": f"{len(body)} of {announced} bytes came"})
            return None

        def addressed(self, method):
            """Return what is asked of the model; answer a wrong address."""
            found = PATH.fullmatch(self.path)
            kind = (found[3] or "") if found else None
            if kind not in {"GET": ("", "/metadata"), "POST": (":predict",)}[method]:
                self.send(400, {"error": f"Malformed request: {method} {self.path}"})
                return None
            number = (found[2] or str(model.version)).lstrip("0") or "0"
            if (found[1], number) != (model.name, str(model.version)):
                wanted = f"Specific({found[1]}, {found[2]})"
                wanted = wanted if found[2] else f"Latest({found[1]})"
                self.send(404, {"error": f"Servable not found for request: {wanted}"})
                return None
            return kind

        def send(self, code, content):
            body = json.dumps(content).encode()
            self.send_response(code)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(body)))
            self.send_header("Connection", "close")
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, *_):
            """Keep quiet."""

    return Handler


class Server(http.server.HTTPServer):
    """Answers a bounded number of connections at once; the others wait."""

    request_queue_size = WAITING

    def __init__(self, address, handler):
        super().__init__(address, handler)
        self.pool = concurrent.futures.ThreadPoolExecutor(AT_ONCE)
        self.free = threading.Semaphore(AT_ONCE)

    def process_request(self, request, client_address):
        self.free.acquire()
        self.pool.submit(self.answer, request, client_address)

    def answer(self, request, client_address):
        try:
            self.finish_request(request, client_address)
        except OSError:
            pass  # the client has gone
        finally:
            self.shutdown_request(request)
            self.free.release()


def serve_rest(model):
    """Serve on a free port until the process ends; give the address."""
    server = Server(("127.0.0.1", 0), rest_handler(model))
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return f"http://127.0.0.1:{server.server_port}"


def serve_grpc(model):
    """Serve on a free port until the process ends; give the server and address."""
    import grpc
    from tensorflow_serving.apis import (
        get_model_metadata_pb2,
        predict_pb2,
        prediction_service_pb2_grpc,
    )

    class Service(prediction_service_pb2_grpc.PredictionServiceServicer):
        def Predict(self, request, context):  # noqa: N802
            self.check(request, context)
            inputs = {n: tf.make_ndarray(x) for n, x in request.inputs.items()}
            signature = request.model_spec.signature_name or "serving_default"
            try:
                found = model.run(signature, inputs)
            except Exception as error:  # whatever a request may hold
                context.abort(grpc.StatusCode.INVALID_ARGUMENT, str(error))
            response = predict_pb2.PredictResponse(model_spec=request.model_spec)
            response.model_spec.version.value = model.version
            for name, array in found.items():
                response.outputs[name].CopyFrom(tf.make_tensor_proto(array))
            return response

        def GetModelMetadata(self, request, context):  # noqa: N802
            self.check(request, context)
            response = get_model_metadata_pb2.GetModelMetadataResponse()
            signatures = get_model_metadata_pb2.SignatureDefMap()
            for name, definition in model.definitions.items():
                signatures.signature_def[name].CopyFrom(definition)
            response.metadata["signature_def"].Pack(signatures)
            return response

        def check(self, request, context):
            spec = request.model_spec
            number = spec.version.value if spec.HasField("version") else model.version
            if (spec.name, number) != (model.name, model.version):
                context.abort(grpc.StatusCode.NOT_FOUND, "Servable not found")

    server = grpc.server(concurrent.futures.ThreadPoolExecutor(1))
    prediction_service_pb2_grpc.add_PredictionServiceServicer_to_server(
        Service(), server
    )
    port = server.add_insecure_port("127.0.0.1:0")
    server.start()
    return server, f"127.0.0.1:{port}"


def main():
    model = Model(pathlib.Path(sys.argv[1]))
    print(SAYS)
    print(f"REST: {serve_rest(model)}/v1/models/{model.name}")
    server, address = serve_grpc(model)
    print(f"gRPC: {address}", flush=True)
    server.wait_for_termination()


if __name__ == "__main__":
    main()
