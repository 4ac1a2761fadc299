"""The stand-in server: requests that announce what they are not, and many at once."""

import concurrent.futures
import json
import pathlib
import socket

import numpy as np
import pytest

EXAMPLES = pathlib.Path(__file__).parents[2] / "examples"
BODY = json.dumps({"instances": [[1.0, 2.0], [3.0, 5.0]]}).encode()


@pytest.fixture(scope="module")
def port(tmp_path_factory):
    """Serve y = x @ [[1, 2], [3, 4]] as version 3 of `net`."""
    import keras

    import tf_spline_prune as tsp

    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(EXAMPLES))
        import serving_stand_in

        patch.setattr(serving_stand_in, "PATIENCE", 0.5)
        model = keras.Sequential([keras.Input((2,)), keras.layers.Dense(2)])
        model.set_weights([np.array([[1.0, 2.0], [3.0, 4.0]]), np.zeros(2)])
        folder = tmp_path_factory.mktemp("served") / "net"
        tsp.export_saved_model(model, folder, version=3)
        (folder / ("9" * 200)).mkdir()  # no version that a server would know
        url = serving_stand_in.serve_rest(serving_stand_in.Model(folder))
    address, _, number = url.removeprefix("http://").partition(":")
    assert address == "127.0.0.1"
    return int(number)


def talk(port, text, close=False):
    """Send bytes as they are; give the code and the JSON of the answer."""
    with socket.create_connection(("127.0.0.1", port), timeout=60) as there:
        there.sendall(text)
        if close:
            there.shutdown(socket.SHUT_WR)
        answer = b""
        while part := there.recv(65536):
            answer += part
    head, _, body = answer.partition(b"\r\n\r\n")
    return int(head.split()[1]), json.loads(body)


def post(length, body=BODY, place="/v1/models/net:predict"):
    announced = b"" if length is None else b"Content-Length: %s\r\n" % length
    return b"POST %s HTTP/1.1\r\n%s\r\n%s" % (place.encode(), announced, body)


def right(answer):
    np.testing.assert_allclose(answer[1]["predictions"], [[7, 10], [18, 26]], rtol=1e-6)
    return answer[0] == 200


@pytest.mark.parametrize(
    ("length", "code", "said"),
    [
        (None, 411, "missing"),
        (b"-1", 400, "no size"),
        (b"many", 400, "no size"),
        (b"1e3", 400, "no size"),
        (b"\xb2", 400, "no size"),
        (b"99999999999", 413, "more than"),
        (b"9" * 5000, 413, "more than"),
        (b"%d" % (len(BODY) + 10), 408, "nothing came"),
        (b"3", 400, "JSON"),
        (b"0", 400, "JSON"),
    ],
)
def test_a_content_length_that_is_wrong(port, length, code, said):
    found, answer = talk(port, post(length))
    assert found == code and said in answer["error"]
    assert right(talk(port, post(b"%d" % len(BODY))))


def test_a_client_that_hangs_up(port):
    code, answer = talk(port, post(b"%d" % (len(BODY) + 10)), close=True)
    assert code == 400 and f"{len(BODY)} of" in answer["error"]


def test_clients_that_say_nothing_do_not_hold_it(port):
    silent = [socket.create_connection(("127.0.0.1", port)) for _ in range(40)]
    try:
        assert right(talk(port, post(b"%d" % len(BODY))))
    finally:
        for connection in silent:
            connection.close()


@pytest.mark.parametrize(
    ("number", "code"),
    [("3", 200), ("0003", 200), ("4", 404), ("9" * 200, 404), ("9" * 5000, 404)],
)
def test_long_version_numbers(port, number, code):
    place = f"/v1/models/net/versions/{number}:predict"
    assert talk(port, post(b"%d" % len(BODY), BODY, place))[0] == code


def test_digits_of_other_scripts_are_no_version(port):
    place = "/v1/models/net/versions/٣:predict"
    assert talk(port, post(b"%d" % len(BODY), BODY, place))[0] == 400


def test_two_hundred_at_once(port):
    def ask(number):
        body = json.dumps({"instances": [[float(number), 1.0]]}).encode()
        return talk(port, post(b"%d" % len(body), body))

    with concurrent.futures.ThreadPoolExecutor(200) as pool:
        answers = list(pool.map(ask, range(200)))
    assert {code for code, _ in answers} == {200}
    found = [answer["predictions"][0] for _, answer in answers]
    expected = [[n + 3.0, 2.0 * n + 4.0] for n in range(200)]
    np.testing.assert_allclose(found, expected, rtol=1e-6)


def test_a_folder_without_versions_is_named(tmp_path, monkeypatch):
    monkeypatch.syspath_prepend(str(EXAMPLES))
    import serving_stand_in

    with pytest.raises(SystemExit, match="no version"):
        serving_stand_in.Model(tmp_path)
