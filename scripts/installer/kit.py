"""What the parts of the installer share: talking, running programs, places, and the record of what was made."""

from __future__ import annotations

import contextlib
import fcntl
import hashlib
import json
import os
import re
import shlex
import subprocess
import sys
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, TextIO

CHECKOUT = Path(__file__).resolve().parent.parent.parent
DEFAULT_CONFIG = Path("/etc/alveole/alveole.toml")
DEFAULT_STATE = "/var/lib/alveole"
#: One record an instance. Machine-wide, because users, packages and units are.
RECORDS = Path("/var/lib/alveole-install")
LINK = Path("/usr/local/bin/alveole")
ENVIRONMENT = {
    "PATH": "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
    "LC_ALL": "C.UTF-8",
    "HOME": os.environ.get("HOME", "/root"),
    "DEBIAN_FRONTEND": "noninteractive",
    "PIP_DISABLE_PIP_VERSION_CHECK": "1",
    "PIP_ROOT_USER_ACTION": "ignore",
}
#: Where this machine's owner says packages come from, and how the outside is reached: passed on, all else is not.
_PASSED_ON = re.compile(r"^(?:PIP_.*|(?:https?|no|all)_proxy|SSL_CERT_(?:FILE|DIR)|TMPDIR)\Z", re.IGNORECASE)
ENVIRONMENT.update({key: value for key, value in os.environ.items() if _PASSED_ON.match(key)})


class Stop(Exception):
    """The installer cannot go on. ``status`` is the exit status: 2 wrong input, 3 refused, 5 try again."""

    def __init__(self, message: str, *, hint: str = "", status: int = 3) -> None:
        super().__init__(message)
        self.hint = hint
        self.status = status


def tell(text: str, stream: TextIO | None = None) -> None:
    """Print, and go on when nobody reads it any more: a line that is cut must not leave half an installation."""
    stream = stream or sys.stdout
    try:
        print(text, file=stream, flush=True)
    except OSError:
        nowhere = os.open(os.devnull, os.O_WRONLY)
        os.dup2(nowhere, stream.fileno())
        os.close(nowhere)


def say(text: str) -> None:
    tell(f"  {text}")


def head(text: str) -> None:
    tell(f"\n• {text}")


def run(
    argv: Sequence[str | Path],
    *,
    check: bool = True,
    env: Mapping[str, str] | None = None,
    timeout: float = 900,
    given: str = "",
) -> subprocess.CompletedProcess[str]:
    """Run a program to its end and keep what it prints; a failure shows its last lines. ``given``: what it reads."""
    words = [str(word) for word in argv]
    try:
        done = subprocess.run(
            words,
            input=given,
            capture_output=True,
            text=True,
            errors="replace",
            env={**ENVIRONMENT, **(env or {})},
            cwd="/",
            timeout=timeout,
            check=False,
        )
    except FileNotFoundError:
        if check:
            raise Stop(f"the program {words[0]} is absent") from None
        return subprocess.CompletedProcess(words, 127, "", f"{words[0]}: not found")
    except subprocess.TimeoutExpired:
        raise Stop(f"{shlex.join(words)} took more than {timeout:.0f} s", status=5) from None
    if check and done.returncode != 0:
        tail = "\n".join(f"    {line}" for line in (done.stdout + done.stderr).splitlines()[-15:])
        raise Stop(f"{shlex.join(words)} ended with status {done.returncode}:\n{tail}", status=5)
    return done


def has_systemd() -> bool:
    """As sd_booted(3) decides it."""
    return Path("/run/systemd/system").is_dir()


def write(path: Path, text: str, mode: int = 0o644) -> bool:
    """Put ``text`` into ``path`` at once or not at all; says whether that changed anything."""
    with contextlib.suppress(FileNotFoundError):
        if path.read_text(encoding="utf-8") == text:
            return False
    path.parent.mkdir(parents=True, exist_ok=True)
    beside = path.with_name(f".{path.name}.new")
    beside.write_text(text, encoding="utf-8")
    beside.chmod(mode)
    beside.replace(path)
    return True


def defaults() -> dict[str, Any]:
    """Every setting's default, read from the packaged file where each stands behind a ``#``."""
    text = (CHECKOUT / "packaging/alveole.toml").read_text(encoding="utf-8")
    return tomllib.loads(re.sub(r"^#(?=[a-z0-9_]+ = )", "", text, flags=re.MULTILINE))


class Instance:
    """One Alvéole on this machine: its settings, and every path the installer derives from them."""

    def __init__(self, config: Path, prefix: Path | None = None) -> None:
        self.config = config
        self.settings = defaults()
        if config.exists():
            try:
                found = tomllib.loads(config.read_text(encoding="utf-8"))
            except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
                raise Stop(f"{config} is not TOML: {error}", status=2) from None
            for key, value in found.items():
                if isinstance(value, dict) and isinstance(self.settings.get(key), dict):
                    self.settings[key].update(value)
                else:
                    self.settings[key] = value
        self.state = Path(self._path("state"))
        self.run = Path(self._path("run"))
        self.default = str(self.state) == DEFAULT_STATE
        self.key = str(self.state).strip("/").replace("/", "-")
        self.record = Record(RECORDS / f"{self.key}.json")
        recorded = self.record.get("prefix")
        self.prefix = prefix or (Path(recorded) if recorded else self._default_prefix())
        if prefix and recorded and Path(recorded) != prefix:
            raise Stop(f"this instance is installed under {recorded}", hint="leave --prefix out, or --undo first")

    def _path(self, key: str) -> str:
        value = self.settings["paths"][key]
        if not isinstance(value, str) or not re.match(r"^/[A-Za-z0-9._-]+(?:/[A-Za-z0-9._-]+)*\Z", value):
            raise Stop(f"{self.config}: paths.{key} is not a plain absolute path", status=2)
        if ".." in value.split("/"):
            raise Stop(f"{self.config}: paths.{key} goes upwards", status=2)
        return value

    def _default_prefix(self) -> Path:
        return Path("/opt/alveole") if self.default else self.state / "program"

    def setting(self, section: str, key: str) -> Any:
        return self.settings[section][key]

    @property
    def venv(self) -> Path:
        return self.prefix / "venv"

    @property
    def program(self) -> Path:
        return self.venv / "bin" / "alveole"

    @property
    def pid_file(self) -> Path:
        return self.prefix / "serve.pid"

    @property
    def log_file(self) -> Path:
        return Path("/var/log/alveole/serve.log") if self.default else self.prefix / "serve.log"

    def unit(self, role: str) -> str:
        return f"alveole-{role}.service" if self.default else f"alveole-{self.key}-{role}.service"

    def command(self) -> str:
        """What a person types."""
        if self.record.get("link"):
            return "alveole" if self.config == DEFAULT_CONFIG else f"alveole --config {self.config}"
        return f"{self.program} --config {self.config}"

    def alveole(self, *words: str, check: bool = True, timeout: float = 300) -> subprocess.CompletedProcess[str]:
        return run([self.program, "--config", self.config, *words], check=check, timeout=timeout)


class Record:
    """What was made here, so that ``--undo`` can take out that and nothing else. Written before each act."""

    def __init__(self, path: Path) -> None:
        self.path = path
        try:
            self._data: dict[str, Any] = json.loads(path.read_text(encoding="utf-8"))
        except FileNotFoundError:
            self._data = {}
        except ValueError:
            raise Stop(f"{path} cannot be read", hint="it records what was installed; restore or remove it") from None

    def get(self, key: str, default: Any = None) -> Any:
        return self._data.get(key, default)

    def set(self, **values: Any) -> None:
        self._data.update(values)
        write(self.path, json.dumps(self._data, indent=1, sort_keys=True) + "\n", 0o600)

    def add(self, key: str, *values: str) -> None:
        self.set(**{key: sorted({*self._data.get(key, []), *values})})

    def others(self) -> list[Record]:
        """The records of the other instances on this machine."""
        return [Record(path) for path in sorted(RECORDS.glob("[!.]*.json")) if path != self.path]

    def forget(self) -> None:
        self.path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            RECORDS.rmdir()


@contextlib.contextmanager
def alone() -> Iterator[None]:
    """Hold the installer's lock: a second one started meanwhile is refused."""
    made = not RECORDS.exists()
    RECORDS.mkdir(mode=0o755, parents=True, exist_ok=True)
    descriptor = os.open(RECORDS, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            raise Stop("another quickstart is at work on this machine", hint="wait until it ends", status=5) from None
        yield
    finally:
        os.close(descriptor)
        if made:
            with contextlib.suppress(OSError):
                RECORDS.rmdir()


def digest_of(paths: Sequence[Path]) -> str:
    """One digest over files and directories, by content and name. Compiled Python is left out."""
    total = hashlib.sha256()
    for top in paths:
        files = sorted(file for file in top.rglob("*") if file.is_file()) if top.is_dir() else [top]
        for file in files:
            if "__pycache__" in file.parts or file.suffix == ".pyc":
                continue
            content = hashlib.sha256(file.read_bytes()).hexdigest()
            total.update(f"{file.relative_to(top.parent)}\0{content}\n".encode())
    return total.hexdigest()


def warn(text: str) -> None:
    tell(f"  ! {text}", sys.stderr)
