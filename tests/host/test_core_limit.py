"""Started by sudo, which takes core files away, the agent gives its sites the limit that they need."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

_CAP_SYS_RESOURCE = 24  # capabilities(7)
_AS_SUDO_DOES = """
import logging, resource
from alveole.host import runtime
logging.basicConfig()
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
runtime.allow_core_limit()
print(resource.getrlimit(resource.RLIMIT_CORE))
"""


def test_what_sudo_took_away_is_raised_or_missed() -> None:
    done = subprocess.run([sys.executable, "-c", _AS_SUDO_DOES], capture_output=True, text=True, check=True)
    status = dict(line.split(":\t", 1) for line in Path("/proc/self/status").read_text().splitlines() if ":\t" in line)
    if int(status["CapEff"], 16) >> _CAP_SYS_RESOURCE & 1:
        assert done.stdout == "(1, 1)\n" and done.stderr == ""
    else:
        assert done.stdout == "(0, 0)\n" and "no site starts" in done.stderr
