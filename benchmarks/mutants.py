"""How much the tests see: mistakes are made in a copy, one by one, and tests must fail.

    python benchmarks/mutants.py [--only NAME ...] [--part K/N] [--jobs N]
                                 [--tests chosen|room] [--output FILE]

A mutant is a mistake that one of us could make: a sign turned, an axis swapped, a bias
forgotten; `mistakes.py` lists them. Each is put into a copy of the checkout, and the
tests that ought to see it run there, in Keras 3. It is *killed* if one fails, and has
*survived* if all pass: then a test is missing. Without it the same tests have to pass,
which is tried first. With `--tests room` all tests of the folder run, in the place of
those that are named. Slow tests are drawn as by `make test`, always the same ones.

TensorFlow is imported once; each run is a fork of that process, which has not used it
yet. Results are written after each run, and what is known of the same code, mutant and
tests is not run again. Exits with 1 if one was not killed.
"""

import argparse
import compileall
import dataclasses
import functools
import hashlib
import importlib
import importlib.util
import json
import os
import pathlib
import py_compile
import shutil
import signal
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Sequence
from typing import Any

os.environ.setdefault("TF_CPP_MIN_LOG_LEVEL", "3")
os.environ.setdefault("OMP_NUM_THREADS", "1")

sys.path.insert(0, str(pathlib.Path(__file__).parent))
from mistakes import MUTANTS, Mutant  # noqa: E402

ROOT = pathlib.Path(__file__).resolve().parents[1]
# What takes long to import, and is the same for all runs.
IMPORTED = ("pytest", "numpy", "scipy.optimize", "tensorflow", "keras", "tf_keras")
DRAW = "mutants"  # of slow tests, in the place of the date
SECONDS = 600  # at most, for the tests of one mutant
_NOT_COPIED = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info")
_MADE = {"build", "dist"}  # at the top


@dataclasses.dataclass(frozen=True)
class Run:
    """What came of some tests.

    Attributes:
        verdict: `"killed"`, `"survived"`, or why neither can be said.
        test: The first test that failed.
        why: What it said.
        seconds: How long it took.
    """

    verdict: str
    test: str = ""
    why: str = ""
    seconds: float = 0.0

    @property
    def passed(self) -> bool:
        """Whether all tests passed."""
        return self.verdict == "survived"


@dataclasses.dataclass(frozen=True)
class Task:
    """Tests to run on a package, with a mistake in it or without one."""

    package: str
    tests: tuple[str, ...]
    cases: str = ""
    mutant: Mutant | None = None

    def key(self, base: pathlib.Path) -> str:
        """Name it by the mistake, the tests, and all code that these run."""
        change = self.mutant and (self.mutant.file, self.mutant.old, self.mutant.new)
        code = [stamp(base / folder) for folder in (self.package, *rooms(self.tests))]
        shared = stamp(base / "tests", "*.py")
        text = repr((change, self.tests, self.cases, code, shared)).encode()
        name = self.mutant.name if self.mutant else "unchanged"
        return f"{name} {hashlib.sha256(text).hexdigest()[:12]}"


@functools.cache
def stamp(folder: pathlib.Path, pattern: str = "**/*.py") -> str:
    """Name the code in a folder as it is."""
    found = hashlib.sha256()
    for path in sorted(folder.glob(pattern)):
        found.update(path.relative_to(folder).as_posix().encode())
        found.update(path.read_bytes())
    return found.hexdigest()


def rooms(tests: Sequence[str]) -> tuple[str, ...]:
    """Name the folders that tests lie in."""
    folders = [test.partition("::")[0].rpartition("/")[0] for test in tests]
    return tuple(dict.fromkeys(folders))


class Watcher:
    """A plugin of pytest that remembers what failed first."""

    def __init__(self) -> None:
        self.failed: Any = None

    def pytest_runtest_logreport(self, report: Any) -> None:
        if report.failed and self.failed is None:
            self.failed = report


def check(root: pathlib.Path, mutants: Sequence[Mutant]) -> None:
    """Refuse mistakes whose text is not in the code, or there more than once."""
    wrong = []
    for mutant in mutants:
        file = root / mutant.file
        count = file.read_text().count(mutant.old) if file.is_file() else 0
        if count != 1 or mutant.old == mutant.new:
            wrong.append(f"  {mutant.name}: {count} times in {mutant.file}")
    if wrong:
        raise SystemExit("\n".join(["The text must be there exactly once:", *wrong]))


def left_out(root: pathlib.Path) -> Callable[[str, list[str]], set[str]]:
    """Make a function that says what of a folder is not copied."""

    def ignored(folder: str, names: list[str]) -> set[str]:
        made = _MADE if pathlib.Path(folder) == root else set()
        return _NOT_COPIED(folder, names) | (made & set(names))

    return ignored


def run_tests(copy: pathlib.Path, task: Task) -> Run:
    """Run tests on the package of a copy, in this process."""
    import pytest

    os.chdir(copy)
    os.environ["PYTHONPATH"] = str(copy)  # for processes that tests start
    sys.path.insert(0, str(copy))
    found = importlib.util.find_spec(task.package)
    if found is None or not str(found.origin).startswith(str(copy)):
        return Run(f"another package would be tested: {found}")
    watcher = Watcher()
    cases = f"({task.cases}) and not tf_keras" if task.cases else "not tf_keras"
    options = ["-x", "-q", "-p", "no:cacheprovider", f"--rootdir={copy}", "-k", cases]
    code = pytest.main([*options, *task.tests], plugins=[watcher])
    if code == pytest.ExitCode.OK:
        return Run("survived")
    if code == pytest.ExitCode.TESTS_FAILED and watcher.failed is not None:
        lines = watcher.failed.longreprtext.splitlines()
        said = [line[1:].strip() for line in lines if line.startswith("E ")]
        return Run("killed", watcher.failed.nodeid, (said or [""])[0][:200])
    return Run(f"pytest ended with {code!r}")


class Process:
    """A run in a fork of this process, in a copy of its own.

    Args:
        base: What is copied.
        task: What is run.
    """

    def __init__(self, base: pathlib.Path, task: Task) -> None:
        self.task = task
        self._folder = pathlib.Path(tempfile.mkdtemp(prefix="mutant-"))
        copy = self._folder / "copy"
        shutil.copytree(base, copy)
        if task.mutant is not None:
            file = copy / task.mutant.file
            text = file.read_text().replace(task.mutant.old, task.mutant.new)
            file.write_text(text)
        self._start = time.monotonic()
        self._pid = os.fork()
        if not self._pid:
            self._work(copy)

    def _work(self, copy: pathlib.Path) -> None:
        try:
            os.setsid()  # so that what tests start can be ended with them
            log = os.open(self._folder / "log", os.O_WRONLY | os.O_CREAT)
            os.dup2(log, 1)
            os.dup2(log, 2)
            run = run_tests(copy, self.task)
            (self._folder / "run").write_text(json.dumps(dataclasses.asdict(run)))
        finally:
            os._exit(0)

    def ended(self) -> Run | None:
        """Return the result, once there is one."""
        seconds = time.monotonic() - self._start
        if os.waitpid(self._pid, os.WNOHANG) == (0, 0):
            if seconds < SECONDS:
                return None
            self.kill()
            return Run(f"no answer in {SECONDS} seconds", seconds=seconds)
        try:
            run = Run(**json.loads((self._folder / "run").read_text()))
        except FileNotFoundError:
            run = Run("the process died")
        if run.verdict not in ("killed", "survived"):
            log = (self._folder / "log").read_text(errors="replace")
            run = dataclasses.replace(run, why=" | ".join(log.splitlines()[-3:]))
        shutil.rmtree(self._folder, ignore_errors=True)
        return dataclasses.replace(run, seconds=round(seconds, 1))

    def kill(self) -> None:
        """End the process and those that it has started."""
        os.killpg(self._pid, signal.SIGKILL)
        os.waitpid(self._pid, 0)
        shutil.rmtree(self._folder, ignore_errors=True)


def run_all(
    base: pathlib.Path, tasks: Sequence[Task], jobs: int
) -> Iterator[tuple[Task, Run]]:
    """Run tasks, so many at a time; yield each when it has ended."""
    waiting, running = list(tasks), list[Process]()
    try:
        while waiting or running:
            while waiting and len(running) < jobs:
                running.append(Process(base, waiting.pop(0)))
            time.sleep(0.05)
            for process in list(running):
                if (run := process.ended()) is not None:
                    running.remove(process)
                    yield process.task, run
    finally:
        for process in running:
            process.kill()


def judged(
    root: pathlib.Path, tasks: Sequence[Task], jobs: int, output: pathlib.Path
) -> list[Run]:
    """Return what becomes of each task; what is not known yet is run."""
    stored = json.loads(output.read_text()) if output.exists() else {}
    known = {key: Run(**run) for key, run in stored.items()}
    with tempfile.TemporaryDirectory(prefix="mutants-") as folder:
        base = pathlib.Path(folder) / "base"
        shutil.copytree(root, base, ignore=left_out(root))
        # By the hash of the source: a mutant may be as long and as old as it.
        mode = py_compile.PycInvalidationMode.CHECKED_HASH
        compileall.compile_dir(base / tasks[0].package, quiet=2, invalidation_mode=mode)
        for name in IMPORTED:
            importlib.import_module(name)

        def find_out(some: Sequence[Task]) -> None:
            """Run what is not known, and write it down."""
            new = [task for task in dict.fromkeys(some) if task.key(base) not in known]
            for task, run in run_all(base, new, jobs):
                known[task.key(base)] = run
                # Tests that fail by themselves, or hang, may do better next time.
                if run.passed or (task.mutant and run.verdict == "killed"):
                    stored[task.key(base)] = vars(run)
                    output.write_text(json.dumps(stored, indent=1))
                said = "" if run.passed else f"  {run.test} {run.why}"
                name = task.mutant.name if task.mutant else "unchanged"
                print(f"{name}: {run.verdict}, {run.seconds} s{said}", flush=True)

        for start in range(0, len(tasks), jobs):
            some = tasks[start : start + jobs]
            plain = {task: dataclasses.replace(task, mutant=None) for task in some}
            find_out([*plain.values()])
            passing = {t for t, one in plain.items() if known[one.key(base)].passed}
            find_out([task for task in some if task in passing])
        none = Run("no judge")
        return [known.get(task.key(base), none) for task in tasks]


def main(
    arguments: Sequence[str] | None = None,
    root: pathlib.Path = ROOT,
    mutants: Sequence[Mutant] = MUTANTS,
) -> int:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--only", nargs="+", metavar="NAME", help="these mutants")
    parser.add_argument("--part", default="1/1", metavar="K/N", help="a part of them")
    parser.add_argument("--jobs", type=int, default=1, help="runs at a time")
    parser.add_argument("--tests", choices=("chosen", "room"), default="chosen")
    parser.add_argument("--output", type=pathlib.Path, default="build/mutants.json")
    options = parser.parse_args(arguments)
    check(root, mutants)
    names = [mutant.name for mutant in mutants]
    if unknown := sorted(set(options.only or ()) - set(names)):
        parser.error(f"no such mutants: {unknown}")
    part, parts = map(int, options.part.split("/"))
    chosen = [m for m in mutants if options.only is None or m.name in options.only]
    tasks = [
        Task(m.package, m.tests, m.cases, m)
        if options.tests == "chosen"
        else Task(m.package, rooms(m.tests), "", m)
        for m in chosen[part - 1 :: parts]
    ]
    if not tasks:
        parser.error(f"there is nothing in part {options.part}")
    os.environ["SLOW_TESTS_OF"] = DRAW
    # Ended from outside, it still ends what it has started.
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(1))
    options.output.parent.mkdir(parents=True, exist_ok=True)
    runs = judged(root, tasks, options.jobs, options.output)
    print(f"\n{'mutant':<34} {'verdict':<9} {'seconds':>7}  file, and who saw it")
    for task, run in zip(tasks, runs, strict=True):
        name, file = task.mutant.name, task.mutant.file
        seen = run.test.rpartition("/")[2]
        print(f"{name:<34} {run.verdict:<9} {run.seconds:>7}  {file}  {seen}")
    killed = sum(run.verdict == "killed" for run in runs)
    print(f"\n{killed} of {len(runs)} killed")
    return int(killed < len(runs))


if __name__ == "__main__":
    sys.exit(main())
