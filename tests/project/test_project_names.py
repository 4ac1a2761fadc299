"""Lazy public names: cheap to import, the same object at every access."""

import os
import subprocess
import sys

import pytest

ORDERS = ("forward", "backward")


def run(code):
    subprocess.run(
        [sys.executable, "-W", "error::ImportWarning", "-c", code],
        check=True,
        env={**os.environ, "TF_CPP_MIN_LOG_LEVEL": "3"},
    )


def test_names_are_the_same_at_every_access():
    """In either order, each in a process that has not used the package."""
    run(
        "import os, types\n"
        "import keras, tensorflow\n"
        f"for order in {ORDERS!r}:\n"
        "    if child := os.fork():\n"
        "        assert not os.waitpid(child, 0)[1], order\n"
        "        continue\n"
        "    import tf_spline_prune as tsp\n"
        "    names = sorted(tsp.__all__, reverse=order == 'backward')\n"
        "    first = {n: getattr(tsp, n) for n in names}\n"
        "    second = {n: getattr(tsp, n) for n in names}\n"
        "    assert all(first[n] is second[n] for n in names)\n"
        "    functions = ['plan', 'prune', 'verify', 'merge', 'cost', 'report']\n"
        "    modules = [n for n in functions\n"
        "        if isinstance(first[n], types.ModuleType)]\n"
        "    assert not modules, modules\n"
        "    assert set(names) <= set(dir(tsp))\n"
        "    break\n"
    )


def test_importing_the_package_imports_no_framework():
    run(
        "import sys, tf_spline_prune as tsp\n"
        "heavy = {'tensorflow', 'keras', 'tf_keras', 'numpy', 'matplotlib'}\n"
        "assert not heavy & set(sys.modules), heavy & set(sys.modules)\n"
        "try:\n"
        "    tsp.no_such_name\n"
        "except AttributeError as error:\n"
        "    assert 'no_such_name' in str(error)\n"
        "else:\n"
        "    raise SystemExit('no error')\n"
    )


@pytest.mark.slow
def test_threads_may_use_names_first_at_the_same_time():
    run(
        """
import threading
import tf_spline_prune as tsp
names = ["plan", "wrap_with_masks", "MaskEarlyBird", "ExportReport", "slice2d"]
names += ["cost", "lossless", "PartitionCoder"]
found = []
threads = [
    threading.Thread(target=lambda n=n: found.append(getattr(tsp, n))) for n in names
]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
assert len(found) == len(names), found
"""
    )
