"""goaccess(1) over the lines of one site: a program that reads what strangers have written, in limits of its own."""

from __future__ import annotations

import subprocess
import threading
from collections.abc import Sequence
from pathlib import Path

from alveole.agent.logwords import AnalyseLogs
from alveole.config import Settings
from alveole.errors import Temporary
from alveole.host import paths
from alveole.host.run import ENVIRONMENT

GOACCESS = "/usr/bin/goaccess"
#: What it prints may have so many bytes; a message of the agent holds eight megabytes.
_MOST = 3 * 1024 * 1024
_MEMORY = 512 * 1024 * 1024
#: The form that :mod:`alveole.logbook.shorten` writes.
LOG_FORMAT = r"%h\t%d\t%t\t%m\t%U\t%H\t%s\t%b\t%T\t%R\t%u"
_ARGUMENTS = (
    "--no-global-config",
    f"--log-format={LOG_FORMAT}",
    "--date-format=%Y-%m-%d",
    "--time-format=%H:%M:%S",
    "--output=json",
    "--no-progress",
    "--no-parsing-spinner",
    "--max-items=60",
    "--ignore-panel=KEYPHRASES",
    "--ignore-panel=REFERRERS",
    "--ignore-panel=GEO_LOCATION",
    "--ignore-panel=VIRTUAL_HOSTS",
    "--ignore-panel=REMOTE_USER",
    "--ignore-panel=CACHE_STATUS",
    "--ignore-panel=ASN",
    "--ignore-panel=MIME_TYPE",
    "--ignore-panel=TLS_TYPE",
    "-",
)


def command(uid: int, seconds: float) -> tuple[str, ...]:
    """goaccess as ``uid``, with no network, no capability, no new privilege, and ceilings."""
    return (
        *("/usr/bin/unshare", "--net", "--ipc", "--uts", "--"),
        *("/usr/bin/prlimit", f"--as={_MEMORY}", f"--cpu={int(seconds) + 1}", "--nofile=32", "--core=0"),
        *(f"--fsize={_MOST}", "--nproc=64", "--"),
        *("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
        *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
        *("/usr/bin/nice", "-n", "15", GOACCESS, *_ARGUMENTS),
    )


class Analyses:
    """One at a time: a page that is opened twice does not take two cores."""

    def __init__(self, settings: Settings) -> None:
        self._settings = settings
        self._lock = threading.Lock()

    def analyse(self, request: AnalyseLogs, files: Sequence[int]) -> str:
        """See :class:`AnalyseLogs`; the one file is the pipe."""
        if not Path(GOACCESS).exists():
            raise Temporary("goaccess is not installed", hint="apt-get install goaccess")
        if not self._lock.acquire(timeout=request.seconds):
            raise Temporary("another analysis goes on", hint="try again in a moment")
        try:
            return self._run(command(paths.site_uid(self._settings, request.number), request.seconds), request, files)
        finally:
            self._lock.release()

    @staticmethod
    def _run(argv: tuple[str, ...], request: AnalyseLogs, files: Sequence[int]) -> str:
        process = subprocess.Popen(
            argv,
            stdin=files[0],
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env={**ENVIRONMENT, "HOME": "/nonexistent", "TERM": "dumb"},
            cwd="/",
            start_new_session=True,
        )
        printed = process.stdout
        # It prints when it has read all, so the clock has to be another thread's.
        clock = threading.Timer(request.seconds, process.kill)
        clock.start()
        try:
            text = printed.read(_MOST + 1) if printed is not None else b""
        finally:
            clock.cancel()
            process.kill()
            status = process.wait()
            if printed is not None:
                printed.close()
        if len(text) > _MOST or (status and not text):
            raise Temporary("the analysis did not end in time or in its limits", hint="choose a shorter time")
        return text.decode("utf-8", "replace")
