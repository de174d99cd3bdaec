"""The whole suite in layers: checks of the source, then each directory of tests/.

Each layer is one pytest process with its log and its JUnit file in artefacts/. At the end the
machine must be as it was. Exit status: 0 all passed, 1 something failed, 2 wrong use.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import shutil
import signal
import subprocess
import sys
import tempfile
import time
import xml.etree.ElementTree as ElementTree
from concurrent.futures import ThreadPoolExecutor, as_completed
from dataclasses import dataclass, field
from pathlib import Path

import leftovers
import prepare
from kit import Stop
from prepare import ROOT, VENV

ARTEFACTS = ROOT / "artefacts"
#: Where the tests keep what takes long to make; see tests/instancekit.py.
CACHE = Path(os.environ.get("ALVEOLE_TEST_CACHE", "/var/cache/alveole-test"))
CHECKS = "checks"
#: Files directly in tests/ are this layer.
RULES = "rules"
#: The longest first, so that the lanes end together; what is not named comes after these.
_ORDER = ("guest", "modules", "e2e", "ssh", "content", "fault", "web", "threat", "host", "people", "edge", "control")
#: So many layers run at once. Each has instances, names and ports of its own, and waits for a third of its time: two of
#: them left two cores idle for a quarter of the run.
_LANES = 3
#: Layers long enough to be worth two processes.
_SIDE_BY_SIDE = {"modules": 2}
#: Of the modules a whole run takes one test of every fourth file and of the others every so many-th, the next run the
#: next, and says which; of the other layers' tests marked "turn" (long, and close to others that are not) every so
#: many-th. Layers that are named run whole. All tests of modules take twenty minutes more, the others' ten.
_TURNS = {"modules": 16, "others": 5}
#: With fewer sets of packages than this in the tests' cache, all sites of modules get one base, that of all packages:
#: some five minutes instead of a quarter of an hour. With ALVEOLE_TEST_SHARED_BASE=0 each gets its own all the same.
_WARM = 10
#: No layer may take longer, on a machine however busy; twice that where it is named and runs whole. All of them are to
#: take 30 minutes at the most.
_LAYER_SECONDS = 2700
#: So many failed tests at the most are asked once more, alone: on a machine that others use too, a moment without a
#: processor can fail a good test. More of them are no accident.
_ASKED_AGAIN = 3


_running: set[subprocess.Popen[bytes]] = set()


@dataclass
class Outcome:
    layer: str
    passed: int = 0
    failed: int = 0
    skipped: int = 0
    seconds: float = 0.0
    why: list[str] = field(default_factory=list)
    #: What pytest calls the tests that failed.
    named: list[str] = field(default_factory=list)
    #: Those that failed and passed when they were asked again.
    unsteady: list[str] = field(default_factory=list)


def main() -> int:
    options = _options()
    # What is printed is read by people and by machines as it comes.
    sys.stdout.reconfigure(line_buffering=True)
    signal.signal(signal.SIGTERM, _terminated)
    leftovers.adopt()
    layers = options.layers or [CHECKS, *_layers(options.fast)]
    unknown = [layer for layer in layers if layer != CHECKS and layer not in _layers(fast=False)]
    if unknown:
        print(f"test: no such layer: {', '.join(unknown)}; there are {CHECKS}, {', '.join(_layers(fast=False))}")
        return 2
    print("Preparing")
    prepare.machine()
    prepare.environment()
    if options.setup:
        return 0
    began = time.monotonic()
    ARTEFACTS.mkdir(exist_ok=True)
    before = leftovers.take()
    outcomes: list[Outcome] = []
    if CHECKS in layers:
        outcomes.append(_checks())
        _tell(outcomes[-1])
    with tempfile.TemporaryDirectory(prefix="suite-") as work, ThreadPoolExecutor(_LANES) as lanes:
        # Before the lanes begin: two of them at once read a file that was just being written.
        turn = {what: _turn(what) for what in _TURNS} if not options.layers else {}
        running = [lanes.submit(_pytest, layer, options, Path(work), turn) for layer in layers if layer != CHECKS]
        try:
            for done in as_completed(running):
                outcomes.append(done.result())
                _tell(outcomes[-1])
        except BaseException:
            lanes.shutdown(wait=False, cancel_futures=True)
            _end_all()
            raise
        _ask_again(outcomes, Path(work))
    outcomes.append(_cleanliness(before))
    _tell(outcomes[-1])
    return _summary(outcomes, time.monotonic() - began)


def _options() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="test", description=__doc__, formatter_class=argparse.RawTextHelpFormatter)
    parser.add_argument("layers", nargs="*", help="run these only (default: all)")
    parser.add_argument("--fast", action="store_true", help="leave out the guest and every test marked slow")
    parser.add_argument("-k", dest="expression", default="", help="only tests whose name matches (pytest's -k)")
    parser.add_argument("--setup", action="store_true", help="prepare machine and environment, and end")
    return parser.parse_args()


def _terminated(_number: int, _frame: object) -> None:
    raise KeyboardInterrupt


def _layers(fast: bool) -> list[str]:
    found = {place.parent.name for place in (ROOT / "tests").glob("*/test_*.py")}
    if list((ROOT / "tests").glob("test_*.py")):
        found.add(RULES)
    order = [*(layer for layer in _ORDER if layer in found), *sorted(found - set(_ORDER))]
    return [layer for layer in order if not (fast and layer == "guest")]


def _checks() -> Outcome:
    """Format, lint, types and the direction of imports."""
    began = time.monotonic()
    outcome = Outcome(CHECKS)
    sources = [name for name in ("src", "tests", "scripts", "bench", "examples") if (ROOT / name).is_dir()]
    programs = {
        "ruff-format": ["ruff", "format", "--check", *sources],
        "ruff": ["ruff", "check", *sources],
        "mypy": ["mypy"],
        "mypy-installer": ["mypy", "--strict", "scripts/installer"],
        "import-linter": ["lint-imports"],
    }
    for name, argv in programs.items():
        log = ARTEFACTS / f"{CHECKS}-{name}.log"
        status = _run([str(VENV / "bin" / argv[0]), *argv[1:]], log, {})
        if status == 0:
            outcome.passed += 1
        else:
            outcome.failed += 1
            outcome.why.append(f"{name} (status {status}):\n{_tail(log, 40)}")
    outcome.seconds = time.monotonic() - began
    return outcome


def _pytest(layer: str, options: argparse.Namespace, work: Path, turn: dict[str, int]) -> Outcome:
    began = time.monotonic()
    report = ARTEFACTS / f"{layer}.xml"
    log = ARTEFACTS / f"{layer}.log"
    report.unlink(missing_ok=True)
    places = sorted((ROOT / "tests").glob("test_*.py")) if layer == RULES else [ROOT / "tests" / layer]
    environment = {"HYPOTHESIS_STORAGE_DIRECTORY": str(work / "hypothesis")}
    if layer not in options.layers:
        turns = "modules" if layer == "modules" else "others"
        variable = "ALVEOLE_TEST_MODULES" if layer == "modules" else "ALVEOLE_TEST_PART"
        environment[variable] = f"{turn[turns]}/{_TURNS[turns]}"
    argv = [str(VENV / "bin/python"), "-m", "pytest", *map(str, places), f"--junitxml={report}", "--durations=10"]
    # A hang is ended; the first test that needs a base on an empty machine waits until it is built.
    argv += ["-p", "no:cacheprovider", "--color=no", f"--basetemp={work / layer}", "--timeout=900"]
    if layer == "modules" and "ALVEOLE_TEST_SHARED_BASE" not in os.environ and _is_cold():
        environment["ALVEOLE_TEST_SHARED_BASE"] = "1"
        print(f"{layer}: hardly a base is in the cache, so all sites get one of all packages")
    if layer in _SIDE_BY_SIDE:
        argv += ["-n", str(_SIDE_BY_SIDE[layer]), "--dist", "loadfile"]
    if options.fast:
        argv += ["-m", "not slow"]
    if options.expression:
        argv += ["-k", options.expression]
    status = _run(argv, log, environment, _LAYER_SECONDS * (2 if layer in options.layers else 1))
    outcome = Outcome(layer)
    counted = _count(report, outcome)
    # 5: nothing was collected, which -k and --fast may well bring about.
    if status not in (0, 5) and not outcome.failed:
        outcome.failed += 1
        outcome.why.append(f"pytest ended with status {status}")
    if status == 5 and not (options.expression or options.fast):
        outcome.failed += 1
        outcome.why.append("no test was found")
    if outcome.failed:
        outcome.why.append(_tail(log, 30 if counted else 40))
    if turned := _turned(report):
        all_of_them = f"all of them: scripts/test {layer}"
        print(f"{layer}: of the long ones, in their turn ({all_of_them}): {', '.join(turned)}")
    outcome.seconds = time.monotonic() - began
    return outcome


def _ask_again(outcomes: list[Outcome], work: Path) -> None:
    """Run the few tests that failed once more, one by one. What passes then is told as unsteady, never kept silent."""
    broken = [outcome for outcome in outcomes if outcome.failed]
    if not broken or sum(outcome.failed for outcome in broken) > _ASKED_AGAIN:
        return
    if any(outcome.failed != len(outcome.named) for outcome in broken):
        return
    for outcome in broken:
        for number, test in enumerate(outcome.named):
            log = ARTEFACTS / f"{outcome.layer}-again-{number}.log"
            argv = [str(VENV / "bin/python"), "-m", "pytest", test, "-p", "no:cacheprovider", "--color=no"]
            argv += [f"--basetemp={work / 'again'}", "--timeout=900"]
            if _run(argv, log, {"HYPOTHESIS_STORAGE_DIRECTORY": str(work / "hypothesis")}) == 0:
                outcome.unsteady.append(test)
                outcome.failed -= 1
                outcome.passed += 1
                print(f"{outcome.layer:12} UNSTEADY: {test} failed, and passed when it was asked again")


def _count(report: Path, outcome: Outcome) -> bool:
    """Add up pytest's own JUnit file; says whether there was one."""
    try:
        suites = ElementTree.parse(report).getroot().iter("testsuite")  # noqa: S314  written by pytest a moment ago
    except (FileNotFoundError, ElementTree.ParseError):
        return False
    for suite in suites:
        for kind in ("failure", "error"):
            bad = [case for case in suite.iter("testcase") if case.find(kind) is not None]
            outcome.why += [_told(case) for case in bad]
            outcome.named += [_node(case) for case in bad]
        total, failed = int(suite.get("tests", 0)), int(suite.get("failures", 0)) + int(suite.get("errors", 0))
        skipped = int(suite.get("skipped", 0))
        outcome.failed += failed
        outcome.skipped += skipped
        outcome.passed += max(total - failed - skipped, 0)
    return True


def _node(case: ElementTree.Element) -> str:
    """What pytest calls a test, for its command line."""
    parts = str(case.get("classname")).split(".")
    classes = [part for part in parts if part[:1].isupper()]
    return "::".join([f"{'/'.join(parts[: len(parts) - len(classes)])}.py", *classes, str(case.get("name"))])


def _is_cold() -> bool:
    return len(list((CACHE / "bases").glob("debian-*"))) < _WARM


def _turn(what: str) -> int:
    """Which part this run takes, 1 and up; kept beside the tests' other things, so that the next differs."""
    kept = CACHE / f"{what}.turn"
    # A machine that keeps nothing takes another one each hour; so does one whose file was cut while it was written.
    last = int(time.time() // 3600)
    with contextlib.suppress(OSError, ValueError):
        last = int(kept.read_text())
    with contextlib.suppress(OSError):
        kept.parent.mkdir(parents=True, exist_ok=True)
        kept.write_text(f"{last + 1}\n")
    return last % _TURNS[what] + 1


def _turned(report: Path) -> list[str]:
    """The tests that ran because it was their turn."""
    with contextlib.suppress(FileNotFoundError, ElementTree.ParseError):
        cases = ElementTree.parse(report).getroot().iter("testcase")  # noqa: S314  written by pytest a moment ago
        return [
            f"{str(case.get('classname')).rpartition('.')[2]}::{case.get('name')}"
            for case in cases
            if any(each.get("name") == "turn" for each in case.iter("property"))
        ]
    return []


def _told(case: ElementTree.Element) -> str:
    """A failed test and its reason, short: the whole story is in the layer's log."""
    found = case.find("failure") if case.find("failure") is not None else case.find("error")
    reason = (found.get("message", "") if found is not None else "").split("\n", 1)[0]
    return f"  FAILED {case.get('classname')}::{case.get('name')}: {reason[:300]}"


def _run(argv: list[str], log: Path, environment: dict[str, str], seconds: float = _LAYER_SECONDS) -> int:
    """Run in a session of its own with the output in ``log``; ended as a whole when it takes too long."""
    with log.open("wb") as output:
        process = subprocess.Popen(
            argv,
            cwd=ROOT,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            env={**os.environ, "PATH": f"{VENV / 'bin'}:{os.environ['PATH']}", "PYTHONDONTWRITEBYTECODE": "1"}
            | environment,
            start_new_session=True,
        )
        _running.add(process)
        try:
            return process.wait(seconds)
        except subprocess.TimeoutExpired:
            output.write(f"\nended after {seconds} s\n".encode())
            return 124
        finally:
            _end(process)
            _running.discard(process)


def _end(process: subprocess.Popen[bytes]) -> None:
    # SIGINT first: pytest then takes its fixtures down.
    for number, seconds in ((signal.SIGINT, 30), (signal.SIGKILL, 5)):
        if process.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, number)
        with contextlib.suppress(subprocess.TimeoutExpired):
            process.wait(seconds)


def _end_all() -> None:
    for process in list(_running):
        _end(process)


def _cleanliness(before: leftovers.Picture) -> Outcome:
    began = time.monotonic()
    left = leftovers.compare(before)
    outcome = Outcome("leftovers", failed=1 if left else 0, passed=0 if left else 1, why=left)
    outcome.seconds = time.monotonic() - began
    return outcome


def _tell(outcome: Outcome) -> None:
    if outcome.why:
        print(f"\n---- {outcome.layer} ----")
        print("\n".join(outcome.why))
        print("-" * (10 + len(outcome.layer)))
    word = "FAILED" if outcome.failed else "ok"
    counts = f"{outcome.passed} passed, {outcome.failed} failed, {outcome.skipped} skipped"
    print(f"{outcome.layer:12} {word:6} {outcome.seconds:7.1f} s  {counts}")


def _summary(outcomes: list[Outcome], seconds: float) -> int:
    lines = [f"{'layer':12} {'passed':>7} {'failed':>7} {'skipped':>7} {'seconds':>9}"]
    lines += [f"{o.layer:12} {o.passed:7} {o.failed:7} {o.skipped:7} {o.seconds:9.1f}" for o in outcomes]
    passed, failed, skipped = (sum(getattr(o, name) for o in outcomes) for name in ("passed", "failed", "skipped"))
    lines += [f"{'all':12} {passed:7} {failed:7} {skipped:7} {seconds:9.1f}"]
    text = "\n".join(lines)
    (ARTEFACTS / "summary.txt").write_text(f"{text}\n", encoding="utf-8")
    print(f"\n{text}\n")
    for outcome in outcomes:
        if outcome.unsteady:
            print(f"{outcome.layer}: unsteady, see artefacts/{outcome.layer}.log:", *outcome.unsteady, sep="\n  ")
        if outcome.failed:
            print(f"{outcome.layer}:", *(each for each in outcome.why if each.startswith("  FAILED")), sep="\n")
    print(f"{passed} passed, {failed} failed" + (f", {skipped} skipped" if skipped else ""))
    return 1 if failed else 0


def _tail(log: Path, lines: int) -> str:
    with contextlib.suppress(FileNotFoundError):
        text = log.read_text(encoding="utf-8", errors="replace").splitlines()
        return "\n".join(f"  {line}" for line in text[-lines:])
    return ""


if __name__ == "__main__":
    if shutil.which("apt-get") is None:
        print("test: needs Debian 12 or newer", file=sys.stderr)
        raise SystemExit(2)
    try:
        raise SystemExit(main())
    except Stop as stop:
        print(f"test: {stop}", file=sys.stderr)
        raise SystemExit(stop.status) from None
    except KeyboardInterrupt:
        print("\ninterrupted")
        raise SystemExit(130) from None
