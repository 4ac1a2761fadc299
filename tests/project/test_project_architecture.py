"""The house rules of the package, held by reading its source."""

import ast
import pathlib

import pytest

import tf_spline_prune as tsp

PACKAGE = pathlib.Path(tsp.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.pyi"))

# Floor by room; a room imports from its own floor downward.
FLOORS = {
    "_amounts": 0,
    "_checks": 0,
    "errors": 0,
    "_files": 0,
    "_public_names": 0,
    "compat": 1,
    "datasets": 1,
    "litert": 1,
    "partition": 2,
    "graph": 2,
    "criteria": 3,
    "pruning": 4,
    "masking": 4,
    "schedules": 4,
    "initialization": 4,
    "callbacks": 5,
    "export": 5,
    "visualize": 5,
    "reporting": 5,
    "": 5,  # the public names, which are imported at their first use
    "cli": 6,
    "__main__": 7,
}
# Within a floor, who may import whom beside itself.
BESIDE = {("litert", "compat"), ("masking", "pruning"), ("_checks", "errors")}
BESIDE |= {("initialization", "masking"), ("initialization", "pruning")}
BESIDE |= {("reporting", "visualize"), ("visualize", "callbacks")}
# Who may import TensorFlow, TFDS or TFMOT at all.
TENSORFLOW = {"compat", "schedules", "export", "litert", "datasets", "masking"}


def room_of(path):
    parts = path.relative_to(PACKAGE).parts
    return parts[0].partition(".")[0]


def imports(path):
    """Yield the dotted names that a file imports, at any depth."""
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            if node.module == "tf_spline_prune":
                yield from (f"{node.module}.{alias.name}" for alias in node.names)
            else:
                yield node.module


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_imports_run_downward(path):
    room = room_of(path)
    if room == "__init__":
        return
    for name in imports(path):
        root, _, rest = name.partition(".")
        if root in (
            "tensorflow",
            "tensorflow_datasets",
            "tensorflow_model_optimization",
        ):
            assert room in TENSORFLOW, f"{room} imports {name}"
        if root == "tf_keras":
            assert room == "compat", f"{room} imports {name}"
        if root != "tf_spline_prune":
            continue
        other = rest.partition(".")[0]
        below = FLOORS[other] < FLOORS[room]
        assert other == room or below or (room, other) in BESIDE, f"{room} -> {other}"


@pytest.mark.parametrize("path", MODULES, ids=lambda p: str(p.relative_to(PACKAGE)))
def test_house_rules_of_a_file(path):
    text = path.read_text()
    tree = ast.parse(text)
    lines = text.count("\n")
    assert lines <= 600, f"{lines} lines: perhaps two rooms"
    for node in ast.walk(tree):
        assert not isinstance(node, ast.Assert), f"line {node.lineno}: assert"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id != "print", f"line {node.lineno}: print"
        if isinstance(node, ast.Attribute) and room_of(path) != "compat":
            where = f"line {node.lineno}"
            dotted = ast.unparse(node)
            assert not dotted.startswith("tf.keras"), f"{where}: {dotted}"
            assert not dotted.startswith("keras.src"), f"{where}: {dotted}"
    if room_of(path) != "compat":
        private = [
            n for n in imports(path) if n.startswith(("keras.src", "tf_keras.src"))
        ]
        assert not private


def test_every_public_name_has_a_docstring_with_an_example():
    lacking = []
    for name in tsp.__all__:
        thing = getattr(tsp, name)
        doc = thing.__doc__ or ""
        if isinstance(thing, type(tsp)):
            continue
        if "Example:" not in doc and name != "Cost":
            lacking.append(name)
    assert not lacking


def test_the_version_is_that_of_the_metadata():
    from importlib import metadata

    assert tsp.__version__ == metadata.version("tf-spline-prune")
    config = (PACKAGE.parent / "setup.cfg").read_text()
    assert f"version = {tsp.__version__}" in config
