"""Bringing Alvéole itself, or another version of it, to a machine: the installer of a checkout, run there by SSH."""

from __future__ import annotations

import re
import time
from collections.abc import Sequence
from pathlib import PurePosixPath
from typing import TYPE_CHECKING

from alveole.errors import AlveoleError, Denied, InvalidInput, Problem, Refused, Temporary
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.moving import Installing
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.remote import fleet, passport
from alveole.remote.fleet import Node
from alveole.services.moving import MovingVerbs
from alveole.services.nodes import check_clock
from alveole.store import Transaction

if TYPE_CHECKING:
    from alveole.remote.lines import Line

#: Debian's packages and the libraries are fetched there; a slow line takes a while.
_SECONDS = 3600.0
#: How long an installation that an earlier line began, and that goes on without it, is waited for.
_BEFORE_SECONDS = 1800
_BUSY = 75


class InstallVerbs(MovingVerbs):
    def install_node(self, caller: Actor, request: fleet.InstallNode, *, key: str | None = None) -> Change:
        """Install or upgrade there. Again at any time: what is in order is left alone."""
        self._allow(caller, Right.NODE_CHANGE)
        shown = ""

        def before() -> None:
            nonlocal shown
            problems = [*self._check_upload_there(request.upload)]
            for field, pattern in (
                ("host", fleet.HOST),
                ("user", fleet.USER),
                ("fingerprint", fleet.FINGERPRINT),
                ("config", fleet.CONFIG_FILE),
                ("place", fleet.CONFIG_FILE),
            ):
                if not re.match(pattern, getattr(request, field)):
                    problems.append(Problem(field, f"{getattr(request, field)[:80]!r} cannot be used"))
            if problems:
                raise InvalidInput(problems=problems)
            shown = self._confirmed_key(request.host, request.port, request.fingerprint)

        def build(transaction: Transaction) -> Live:
            wanted = Installing(request.host, request.port, request.user, shown, request.config, request.place)
            reason = f"{request.user}@{request.host}:{request.port}"
            work = Work(stored=True, upload=request.upload, installing=wanted)
            return self.journal.begin("install-node", caller, reason=reason, work=work, transaction=transaction)

        return self._accept(caller, self._digest("install-node", request.digest()), key, build, before)

    def _flow_install_node(self, live: Live) -> None:
        from alveole.remote.lines import Failed, Line

        wanted, upload = live.work.installing, live.work.upload
        if wanted is None or upload is None:
            raise Refused("nothing says where it is to be installed")
        node = Node(
            "new",
            wanted.host,
            wanted.port,
            wanted.user,
            wanted.host_key,
            wanted.config,
            "",
            "",
            passport.EMPTY_KEY,
            "",
            time.time(),
        )
        line, place = Line(self.settings, node), wanted.place
        live.say(f"looking at {wanted.host}")
        self._check_machine(line)
        live.say(f"bringing Alvéole to {wanted.host}, below {place}")
        # Whoever began one before, and was cut off, holds this until it has ended: nothing is taken from under it.
        above = str(PurePosixPath(place).parent)
        alone = ("flock", "--timeout", str(_BEFORE_SECONDS), "--conflict-exit-code", str(_BUSY), above)
        patience = _BEFORE_SECONDS + 60.0
        line.run(("mkdir", "-p", "-m", "0755", "--", above), root=True)
        line.run((*alone, "rm", "-rf", "--", f"{place}.new"), root=True, seconds=patience)
        line.run(("mkdir", "--", f"{place}.new"), root=True)
        content = self._upload_path(upload).read_bytes()
        unpack = ("tar", "-xzf", "-", "--no-same-owner", "-C", f"{place}.new")
        line.run(unpack, stdin=content, seconds=600.0, root=True)
        line.run((*alone, "rm", "-rf", "--", place), root=True, seconds=patience)
        line.run(("mv", "--", f"{place}.new", place), root=True)
        live.say("installing; the first time this takes some minutes")
        argv = [*alone, f"{place}/scripts/quickstart", "--yes", "--node"]
        if wanted.config != fleet.SETTINGS:
            argv += ["--config", wanted.config]

        def heard(text: str) -> None:
            if text.strip():
                live.say(text.strip()[:500])

        try:
            line.follow(argv, heard, seconds=_SECONDS)
        except Failed as error:
            raise _of_installer(error.status, error.said) from error
        self._drop_upload(upload)
        self.journal.end(live, ())

    @staticmethod
    def _check_machine(line: Line) -> None:
        """What would only come out half-way. Raises ``Refused``, and what a line raises."""
        facts = dict(text.split("=", 1) for text in line.run(("cat", "/etc/os-release")).splitlines() if "=" in text)
        kind, version = facts.get("ID", "").strip('"'), facts.get("VERSION_ID", "").strip('"').partition(".")[0]
        # Testing and unstable have no version.
        if kind != "debian" or (version.isdecimal() and int(version) < 12):
            name = facts.get("PRETTY_NAME", kind).strip('"')
            raise Refused(f"Alvéole is made for Debian 12 and newer; {line.node.host} runs {name}", field="host")
        check_clock(line)
        if line.node.user != fleet.ROOT:
            try:
                line.run(("true",), root=True)
            except Denied as error:
                # Who installs programs for root is root: no shorter line would give less.
                wanted = f"{line.node.user} ALL=(root) NOPASSWD: ALL"
                hint = f"to install, as root there: visudo -f /etc/sudoers.d/alveole, with the line: {wanted}"
                raise Denied(error.problems[0].message, field="user", hint=hint) from error


def _of_installer(status: int, said: Sequence[str]) -> AlveoleError:
    """What ``scripts/quickstart`` ended with, as an error of ours: its statuses are the same."""
    if status == _BUSY:
        return Temporary("an installation goes on there", field="host", hint="wait until it ends, then try again")
    start = next((n for n in reversed(range(len(said))) if said[n].startswith("quickstart: ")), None)
    words = [line.strip() for line in (said[start:] if start is not None else said[-3:]) if line.strip()]
    hints = [line.removeprefix("→").strip() for line in words if line.startswith("→")]
    text = " ".join(line for line in words if not line.startswith("→")).removeprefix("quickstart: ")[:1000]
    kind = {2: InvalidInput, 3: Refused}.get(status, Temporary)
    return kind(f"scripts/quickstart there: {text or 'it says nothing'}", field="host", hint="; ".join(hints))
