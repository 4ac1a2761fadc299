"""What is in the wheel and in the sdist, told from the files that decide it."""

import configparser
import pathlib
import re

from newcomer import ROOT

import tf_spline_prune as tsp

PACKAGE = ROOT / "tf_spline_prune"


def files_of(folder):
    """List the files that are no by-products, relative to the top."""
    return [
        path.relative_to(ROOT)
        for path in folder.rglob("*")
        if path.is_file() and "__pycache__" not in path.parts
    ]


def test_the_wheel_holds_every_file_of_the_package():
    config = configparser.ConfigParser()
    config.read(ROOT / "setup.cfg")
    data = {
        pathlib.Path(*name.split("."), pattern)
        for name, patterns in config["options.package_data"].items()
        for pattern in patterns.split()
    }
    modules = [path for path in files_of(PACKAGE) if path.suffix == ".py"]
    assert len(modules) > 200
    for path in modules:  # `find:` overlooks a folder without it
        assert (ROOT / path.parent / "__init__.py").exists(), path
    others = set(files_of(PACKAGE)) - set(modules)
    assert any("data" in path.parts for path in others)
    for path in others:
        assert any(path.match(str(pattern)) for pattern in data), path


def test_the_sdist_holds_what_the_makefile_needs():
    lines = (ROOT / "MANIFEST.in").read_text().splitlines()
    grafted = {line.split()[1] for line in lines if line.startswith("graft ")}
    patterns = " ".join(line for line in lines if line.startswith("include ")).split()
    assert grafted >= {"tests", "docs", "examples", "benchmarks"}
    assert all((ROOT / folder).is_dir() for folder in grafted)
    for name in ("Makefile", "constraints.txt", "CHANGELOG.md", "CITATION.cff"):
        assert any(pathlib.Path(name).match(p) for p in patterns), name


def test_the_release_is_the_same_everywhere():
    citation = (ROOT / "CITATION.cff").read_text()
    assert f"\nversion: {tsp.__version__}\n" in citation
    changelog = (ROOT / "CHANGELOG.md").read_text()
    released = re.findall(r"^## \[(\d\S*)\] - \d{4}-\d\d-\d\d$", changelog, re.M)
    assert released[0] == tsp.__version__
