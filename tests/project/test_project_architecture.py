"""The house rules of the package, held by reading its source."""

import ast
import pathlib

import tf_spline_prune as tsp
from tf_spline_prune._public_names import homes_of

PACKAGE = pathlib.Path(tsp.__file__).parent
MODULES = sorted(PACKAGE.rglob("*.py")) + sorted(PACKAGE.rglob("*.pyi"))

# Floor by room; a room imports from its own floor downward.
FLOORS = {
    "_amounts": 0,
    "_checks": 0,
    "_matrices": 0,
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


def upward(path):
    """Yield the imports of a file that its room may not have."""
    room = room_of(path)
    for name in imports(path) if room != "__init__" else ():
        root, _, rest = name.partition(".")
        other = rest.partition(".")[0]
        if root.startswith("tensorflow"):
            right = room in TENSORFLOW
        elif root == "tf_keras":
            right = room == "compat"
        elif root == "tf_spline_prune":
            below = FLOORS[other] < FLOORS[room]
            right = other == room or below or (room, other) in BESIDE
        else:
            right = True
        if not right:
            yield f"{path.relative_to(PACKAGE)} imports {name}"


def test_imports_run_downward():
    assert not [name for path in MODULES for name in upward(path)]


def offences(path):
    """Yield what a file has that no file of the package should have."""
    text = path.read_text()
    where = path.relative_to(PACKAGE)
    if (lines := text.count("\n")) > 600:
        yield f"{where}: {lines} lines: perhaps two rooms"
    outside = room_of(path) != "compat"
    if outside:
        private = ("keras.src", "tf_keras.src")
        yield from (
            f"{where} imports {n}" for n in imports(path) if n.startswith(private)
        )
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, ast.Assert):
            yield f"{where}:{node.lineno}: assert"
        elif isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if node.func.id == "print":
                yield f"{where}:{node.lineno}: print"
        elif isinstance(node, ast.Attribute) and outside:
            dotted = ast.unparse(node)
            if dotted.startswith(("tf.keras", "keras.src")):
                yield f"{where}:{node.lineno}: {dotted}"


def test_house_rules_of_the_files():
    assert not [offence for path in MODULES for offence in offences(path)]


def test_offences_are_seen(tmp_path, monkeypatch):
    """The rules find what breaks them."""
    monkeypatch.setitem(globals(), "PACKAGE", tmp_path)
    path = tmp_path / "graph" / "_file.py"
    path.parent.mkdir()
    path.write_text(
        "from tf_spline_prune.pruning import plan\nimport tf_keras.src, tensorflow\n"
        "assert print(tf.keras.Model)\n" + "\n" * 600
    )
    assert [offence.partition("imports ")[2] for offence in upward(path)] == [
        "tf_spline_prune.pruning",
        "tf_keras.src",
        "tensorflow",
    ]
    found = "\n".join(offences(path))
    for word in ("603 lines", "tf_keras.src", "assert", "print", "tf.keras.Model"):
        assert word in found


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


def early_imports(path):
    """Yield what a file imports while it is being imported itself, by module."""
    for node in ast.parse(path.read_text()).body:
        if isinstance(node, ast.ImportFrom) and node.module.startswith(PACKAGE.name):
            stub = PACKAGE.parent.joinpath(*node.module.split("."), "__init__.pyi")
            homes = homes_of(str(stub)) if stub.exists() else {}
            for alias in node.names:
                within = PACKAGE.parent.joinpath(*node.module.split("."), alias.name)
                if within.with_suffix(".py").exists() or within.is_dir():
                    yield f"{node.module}.{alias.name}"
                else:
                    yield homes.get(alias.name, (node.module,))[0]


def test_modules_do_not_import_each_other_in_circles():
    """So that whichever comes first, it can be imported."""
    left = {}
    for path in sorted(PACKAGE.rglob("*.py")):
        parts = path.relative_to(PACKAGE.parent).with_suffix("").parts
        name = ".".join(part for part in parts if part != "__init__")
        left[name] = set(early_imports(path)) - {name}
    while free := {name for name, wanted in left.items() if not wanted & left.keys()}:
        left = {name: wanted for name, wanted in left.items() if name not in free}
    assert not left
