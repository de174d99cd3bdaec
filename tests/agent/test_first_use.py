"""What the protocol's types cost at their first use must not be paid by two threads at once."""

from __future__ import annotations

import subprocess
import sys

#: Four threads of a fresh interpreter decode the same answer at the same moment.
_FOUR_AT_ONCE = """
import sys, threading
sys.setswitchinterval(1e-6)
import msgspec
from alveole.agent.protocol import RESULTS, Observe
together = threading.Barrier(4)
def decode():
    together.wait()
    msgspec.convert({"found": [], "unknown": []}, RESULTS[Observe])
threads = [threading.Thread(target=decode) for _ in range(4)]
for thread in threads:
    thread.start()
for thread in threads:
    thread.join()
"""


def test_first_answers_in_several_threads_do_not_crash() -> None:
    """Before the types were worked out at import, two of five such interpreters ended by SIGSEGV."""
    ended = [subprocess.run([sys.executable, "-c", _FOUR_AT_ONCE], check=False).returncode for _ in range(12)]
    assert ended == [0] * 12
