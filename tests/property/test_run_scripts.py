"""The one place where a shell reads what somebody gave: whatever the words, the program gets them as they are."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from alveole.backends.native import supervise
from alveole.model.resource import WorkloadSpec
from alveole.model.site import BaseKind, Limits, Process, Task, When

#: Any character that may stand in an argument (execve(2)): all but NUL; lone surrogates are no text.
WORDS = st.text(st.characters(exclude_characters="\0", exclude_categories=("Cs",)), max_size=40) | st.sampled_from(
    ["$(id)", "`id`", "'", '"', "\\", "\n", "a\nexec id", "~", "*", "-n", "${HOME}", "!!", "'\"'\"'", "#"]
)
SHOW = (
    "import json,os,sys;"
    "print(json.dumps([sys.argv[1:], {k: os.environ.get(k) for k in ('A','B_2','HOME')}, os.getcwd()]))"
)


def spec(process: Process, task: Task) -> WorkloadSpec:
    return WorkloadSpec(
        site="saaaaaaaaaaaa",
        number=1,
        slot=0,
        hostname="x",
        base="debian-0123456789abcdef",
        base_kind=BaseKind.DEBIAN,
        static=False,
        writable=True,
        processes=(process, Process("other", ("x",))),
        port=None,
        env={},
        volumes=(),
        data_generation=1,
        limits=Limits(100, 1 << 26, 10),
        health="/",
        ready_seconds=1,
        stop_seconds=1,
        incarnation=0,
        tasks=(task,),
    )


def ran(script: str) -> list[object]:
    with tempfile.NamedTemporaryFile("w", suffix=".sh", encoding="utf-8") as file:
        file.write(script)
        file.flush()
        done = subprocess.run(["/bin/sh", file.name], capture_output=True, check=False, cwd="/")
    assert done.returncode == 0, (script, done)
    found: list[object] = json.loads(done.stdout)
    return found


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.too_slow])
@given(st.lists(WORDS, max_size=5), WORDS, WORDS)
def test_words_arrive_as_they_are(words: list[str], one: str, two: str) -> None:
    argv = (sys.executable, "-I", "-X", "utf8", "-c", SHOW, *words)
    process = Process("web", argv, env={"A": one, "B_2": two, "HOME": "/x"}, cwd="/usr")
    task = Task("flush", When.STOP, argv, env={"A": two, "B_2": one, "HOME": one})
    found = {service.name: service.files for service in supervise.services(spec(process, task))}
    assert ran(found["web"]["run"]) == [words, {"A": one, "B_2": two, "HOME": "/x"}, "/usr"]
    script = found[supervise.OWN]["tasks/flush/run"]
    assert ran(script) == [words, {"A": two, "B_2": one, "HOME": one}, "/"]


def test_the_script_is_constant() -> None:
    text = supervise.script()
    assert text == (Path(supervise.__file__).parents[2] / "data/init/init").read_text()
    assert "eval" not in text.split()
