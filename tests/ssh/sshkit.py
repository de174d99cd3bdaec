"""The real clients of OpenSSH, rsync, git and lftp, as people of a test use them."""

from __future__ import annotations

import os
import subprocess
from pathlib import Path
from typing import Any

from instance import Instance
from instancekit import run, until

PASSWORD = "correct horse battery"
_OPTIONS = (
    "-oStrictHostKeyChecking=yes",
    "-oLogLevel=ERROR",
    "-oIdentitiesOnly=yes",
    "-oIdentityAgent=none",
    "-oConnectTimeout=20",
    "-oNumberOfPasswordPrompts=1",
    "-F/dev/null",
)


class Client:
    def __init__(self, alveole: Instance, place: Path) -> None:
        self.alveole = alveole
        self.place = place
        until(lambda: (alveole.state / "ssh" / "ssh_host_rsa_key.pub").exists(), 30, alveole.tail)
        until(self._listens, 30, alveole.tail)
        known = []
        for file in (alveole.state / "ssh").glob("*.pub"):
            known.append(f"[127.0.0.1]:{alveole.ssh_port} {file.read_text()}")
        (place / "known").write_text("".join(known))

    def _listens(self) -> bool:
        import socket

        try:
            socket.create_connection(("127.0.0.1", self.alveole.ssh_port), 1.0).close()
            return True
        except OSError:
            return False

    def person(self, name: str, role: str) -> None:
        self.alveole.api("POST", "/v1/accounts", {"name": name, "role": role, "password": PASSWORD})
        run("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-C", f"{name}@laptop", "-f", self.place / name)
        key = (self.place / f"{name}.pub").read_text()
        self.alveole.api("POST", f"/v1/keys?account={name}", {"key": key})

    def options(self, person: str | None) -> list[str]:
        """``person``: whose key is offered; ``None``: passwords only."""
        found = [*_OPTIONS, f"-oUserKnownHostsFile={self.place / 'known'}"]
        if person is None:
            return [*found, "-oPubkeyAuthentication=no"]
        return [*found, "-oPasswordAuthentication=no", "-oKbdInteractiveAuthentication=no", f"-i{self.place / person}"]

    def ssh(self, login: str, *words: str, key: str | None = "ana", **more: Any) -> subprocess.CompletedProcess[str]:
        argv = ["ssh", *self.options(key), "-p", str(self.alveole.ssh_port), f"{login}@127.0.0.1", *words]
        return run_text(argv, **more)

    def by_password(
        self, login: str, password: str, *words: str, method: str = "keyboard-interactive,password"
    ) -> subprocess.CompletedProcess[str]:
        argv = ["sshpass", "-e", "ssh", *self.options(None), f"-oPreferredAuthentications={method}"]
        argv += ["-p", str(self.alveole.ssh_port), f"{login}@127.0.0.1", *words]
        return run_text(argv, env={**os.environ, "SSHPASS": password})

    def sftp(self, login: str, script: str, *, key: str = "ana", **more: Any) -> subprocess.CompletedProcess[str]:
        argv = ["sftp", *self.options(key), "-P", str(self.alveole.ssh_port), "-b", "-", f"{login}@127.0.0.1"]
        return run_text(argv, input=script, **more)

    def shell(self, key: str = "ana") -> str:
        """As ``GIT_SSH_COMMAND`` and ``rsync -e`` take it."""
        return " ".join(["ssh", *self.options(key), "-p", str(self.alveole.ssh_port)])

    def git(self, where: Path, *words: str, key: str = "ana", check: bool = True) -> subprocess.CompletedProcess[str]:
        env = {
            **os.environ,
            "GIT_SSH_COMMAND": self.shell(key),
            "GIT_CONFIG_GLOBAL": "/dev/null",
            "GIT_CONFIG_NOSYSTEM": "1",
            "GIT_AUTHOR_NAME": "Ana",
            "GIT_AUTHOR_EMAIL": "ana@example.org",
            "GIT_COMMITTER_NAME": "Ana",
            "GIT_COMMITTER_EMAIL": "ana@example.org",
        }
        done = run_text(["git", "-C", str(where), *words], env=env)
        assert not check or done.returncode == 0, f"{done}\n{self.alveole.tail()}"
        return done

    def journal(self, site: str, verb: str = "ssh") -> list[Any]:
        return [each for each in self.alveole.journal(site=site) if each["verb"] == verb]

    def told(self, site: str, count: int = 1, verb: str = "ssh") -> list[Any]:
        """The ended sessions of a site, newest first, once there are so many."""
        until(
            lambda: len([1 for each in self.journal(site, verb) if each["state"] != "running"]) >= count,
            60,
            lambda: f"{self.journal(site, verb)}\n{self.alveole.tail()}",
        )
        return self.journal(site, verb)


def run_text(argv: list[str], *, input: str | None = None, timeout: float = 60.0, **more: Any) -> Any:
    given: dict[str, Any] = {"input": input} if input is not None else {"stdin": subprocess.DEVNULL}
    return subprocess.run(argv, capture_output=True, text=True, check=False, timeout=timeout, **given, **more)
