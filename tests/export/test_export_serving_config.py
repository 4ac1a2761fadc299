"""The files that TensorFlow Serving is started with."""

import pytest
from google.protobuf import text_format
from tensorflow_serving.config import model_server_config_pb2

import tf_spline_prune as tsp

TRICKY = 'a "b" \\ \n\t\' ü 図'


def parsed(path):
    config = model_server_config_pb2.ModelServerConfig()
    return text_format.Parse(path.read_text("utf-8"), config).model_config_list.config


def test_the_server_reads_the_models(tmp_path):
    models = {
        "fashion": "/models/fashion",
        TRICKY: f"/models/{TRICKY}",
        "cloud": "gs://bucket/net",
    }
    one, _ = tsp.write_serving_config(
        tmp_path / "new", models, versions={"fashion": [3, 1]}
    )
    assert one == tmp_path / "new" / "models.config"
    found = parsed(one)
    assert {model.name: model.base_path for model in found} == models
    assert {model.model_platform for model in found} == {"tensorflow"}
    pinned = [list(m.model_version_policy.specific.versions) for m in found]
    assert pinned == [[3, 1], [], []]
    assert not found[1].HasField("model_version_policy")


def test_the_batching_parameters(tmp_path):
    """Written by hand from `session_bundle_config.proto`, which is not packaged."""
    _, two = tsp.write_serving_config(tmp_path, {"a": "/a"})
    assert two == tmp_path / "batching.config"
    expected = "max_batch_size { value: 32 }\nbatch_timeout_micros { value: 1000 }\n"
    assert two.read_text() == expected
    tsp.write_serving_config(
        tmp_path,
        {"a": "/a"},
        max_batch_size=8,
        batch_timeout_micros=0,
        max_enqueued_batches=100,
        num_batch_threads=4,
        overwrite=True,
    )
    assert two.read_text().split("\n") == [
        "max_batch_size { value: 8 }",
        "batch_timeout_micros { value: 0 }",
        "max_enqueued_batches { value: 100 }",
        "num_batch_threads { value: 4 }",
        "",
    ]


@pytest.mark.parametrize("name", ["models.config", "batching.config"])
def test_nothing_is_written_over(name, tmp_path):
    (tmp_path / name).write_text("mine")
    with pytest.raises(FileExistsError, match=name):
        tsp.write_serving_config(tmp_path, {"a": "/a"})
    assert [p.name for p in tmp_path.iterdir()] == [name]
    assert (tmp_path / name).read_text() == "mine"
    tsp.write_serving_config(tmp_path, {"a": "/a"}, overwrite=True)
    assert "mine" not in (tmp_path / name).read_text()
    assert len(list(tmp_path.iterdir())) == 2


@pytest.mark.parametrize(
    ("models", "options", "said"),
    [
        ({}, {}, "It is empty"),
        ({"": "/a"}, {}, "name"),
        ({"a/b": "/a"}, {}, "a/b"),
        ({"a:predict": "/a"}, {}, "a:predict"),
        ({"a": "models/a"}, {}, "absolute"),
        ({"a": "/a"}, {"versions": {"b": [1]}}, "b"),
        ({"a": "/a"}, {"versions": {"a": []}}, "version numbers"),
        ({"a": "/a"}, {"versions": {"a": [-1]}}, "version numbers"),
        ({"a": "/a"}, {"max_batch_size": 0}, "max_batch_size"),
        ({"a": "/a"}, {"max_batch_size": 8.0}, "max_batch_size"),
        ({"a": "/a"}, {"batch_timeout_micros": -1}, "at least 0"),
        ({"a": "/a"}, {"num_batch_threads": True}, "num_batch_threads"),
        ({"a": "/a"}, {"max_enqueued_batches": 0}, "max_enqueued_batches"),
    ],
    ids=str,
)
def test_bad_input_is_refused_before_anything_is_written(
    models, options, said, tmp_path
):
    with pytest.raises(ValueError, match=said):
        tsp.write_serving_config(tmp_path / "new", models, **options)
    assert not (tmp_path / "new").exists()
