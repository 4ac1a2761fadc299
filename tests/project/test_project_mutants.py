"""`benchmarks/mutants.py`, which measures what the tests see, on a toy of a package."""

import json
import os
import pathlib
import re
import subprocess
import sys

import pytest

ROOT = pathlib.Path(__file__).parents[2]
sys.path.insert(0, str(ROOT / "benchmarks"))
import mutants  # noqa: E402
from mistakes import MUTANTS, Mutant  # noqa: E402

TOY = {
    "toy/__init__.py": """
def mean(values):
    return sum(values) / len(values)


def double(value):
    return 2 * value
""",
    "tests/unit/test_toy.py": """
from toy import double, mean


def test_mean():
    assert mean([1, 3]) == 2


def test_double():
    assert double(0) == 0


def test_two():
    assert double(1) == 2


def test_wrong():
    assert mean([1, 1]) == 2
""",
}
RUN = """
import sys
sys.path.insert(0, sys.argv.pop(1))
import mutants, pathlib
from mistakes import Mutant
mutants.IMPORTED = ("pytest",)
code, mean, double = "toy/__init__.py", "tests/unit/test_toy.py::test_mean", "2 * value"
toys = [
    Mutant("one more", "", code, "len(values)", "(len(values) + 1)", (mean,)),
    Mutant("thrice", "", code, double, "3 * value", (mean[:-4] + "double",)),
    Mutant("no judge", "", code, double, "1 * value", (mean[:-4] + "wrong",)),
]
root = pathlib.Path(sys.argv.pop(1))
sys.exit(mutants.main(sys.argv[1:], root, toys))
"""


def test_what_is_killed_and_what_survives(tmp_path):
    for name, text in TOY.items():
        file = tmp_path / "toys" / name
        file.parent.mkdir(parents=True, exist_ok=True)
        file.write_text(text)
    output = tmp_path / "found.json"

    def run(*arguments):
        command = [sys.executable, "-c", RUN, ROOT / "benchmarks", tmp_path / "toys"]
        done = subprocess.run(
            [*command, "--output", output, *arguments],
            capture_output=True,
            text=True,
            env={**os.environ, "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
        )
        assert "Traceback" not in done.stderr
        return done.returncode, done.stdout

    code, said = run("--jobs", "3")
    assert code == 1 and "1 of 3 killed" in said
    assert re.search(r"\none more +killed .*test_mean\n", said)
    assert re.search(r"\nthrice +survived ", said)
    assert re.search(r"\nno judge +no judge", said)
    (why,) = (
        run["why"]
        for key, run in json.loads(output.read_text()).items()
        if key.startswith("one more")
    )
    assert why.startswith("assert 1.33")
    # What is known is not run again, and nobody's files change.
    code, said = run("--only", "one more")
    assert code == 0 and said.count("one more") == 1 and "1 of 1 killed" in said
    assert all((tmp_path / "toys" / n).read_text() == t for n, t in TOY.items())
    # Other tests of the same folder see what the chosen one does not.
    (tmp_path / "toys/tests/unit/test_toy.py").write_text(
        TOY["tests/unit/test_toy.py"].partition("def test_wrong")[0]
    )
    code, said = run("--part", "2/3", "--tests", "room")
    assert code == 0 and re.search(r"\nthrice +killed .*test_two\n", said)


def test_the_texts_are_there():
    """Each mistake can still be made, and the tests that ought to see it are there."""
    mutants.check(ROOT, MUTANTS)
    assert len({mutant.name for mutant in MUTANTS}) == len(MUTANTS) >= 40
    for test in {test for mutant in MUTANTS for test in mutant.tests}:
        file, _, name = test.partition("[")[0].partition("::")
        assert f"def {name}" in (ROOT / file).read_text()


def test_a_text_that_is_gone_is_refused():
    first = MUTANTS[0]
    gone = Mutant("gone", "", first.file, "no such text", "", first.tests)
    with pytest.raises(SystemExit, match="gone: 0 times in .*_traced_macs.py"):
        mutants.check(ROOT, [first, gone])
