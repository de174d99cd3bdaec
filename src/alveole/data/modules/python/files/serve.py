"""Serve an application: SERVER APP WORKERS THREADS TIMEOUT.

The application's own gunicorn or uvicorn comes first; Debian's is taken when it brought none.
"""

# Runs in a container, under its Python and with what the application brought.
# mypy: ignore-errors
# ruff: noqa: PTH100, PTH120, S104, S108

import os
import sys

CONTENT = "/site/current"
DEBIAN = "/usr/lib/python3/dist-packages"


def paths() -> None:
    here = os.path.dirname(os.path.abspath(__file__))
    sys.path[:] = [CONTENT, *(path for path in sys.path if path not in (here, CONTENT))]
    if DEBIAN not in sys.path:
        sys.path.append(DEBIAN)


def main(server: str, app: str, workers: str, threads: str, timeout: str) -> None:
    port = os.environ["PORT"]
    if server == "asgi":
        from uvicorn.main import main as run

        options = ["--host", "0.0.0.0", "--port", port, "--workers", workers, "--proxy-headers"]
        options += ["--forwarded-allow-ips", "*", "--no-access-log", "--app-dir", CONTENT]
    else:
        from gunicorn.app.wsgiapp import run

        options = ["--bind", "0.0.0.0:" + port, "--workers", workers, "--threads", threads, "--timeout", timeout]
        options += ["--forwarded-allow-ips", "*", "--worker-tmp-dir", "/dev/shm", "--no-control-socket"]
        import gunicorn

        if gunicorn.version_info < (25,):
            options.remove("--no-control-socket")
    sys.argv = [server, *options, app]
    run()


# Workers of uvicorn import this file again.
paths()
if __name__ == "__main__":
    main(*sys.argv[1:6])
