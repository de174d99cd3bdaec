"""Bringing Alvéole itself, or another version of it, to a machine: the installer of a checkout, run there by SSH."""

from __future__ import annotations

import re
import time

from alveole import fleet, passport
from alveole.errors import InvalidInput, Problem, Refused
from alveole.fleet import Node
from alveole.journal import Live, Work
from alveole.model.change import Change
from alveole.model.moving import Installing
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.moving import MovingVerbs
from alveole.store import Transaction

#: Debian's packages and the libraries are fetched there; a slow line takes a while.
_SECONDS = 3600.0


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
                ("user", "^root\\Z"),
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
        from alveole.lines import Line

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
        live.say(f"bringing Alvéole to {wanted.host}, below {place}")
        line.run(("rm", "-rf", "--", f"{place}.new"))
        line.run(("mkdir", "-p", "--", f"{place}.new"))
        content = self._upload_path(upload).read_bytes()
        line.run(("tar", "-xzf", "-", "--no-same-owner", "-C", f"{place}.new"), stdin=content, seconds=600.0)
        line.run(("rm", "-rf", "--", place))
        line.run(("mv", "--", f"{place}.new", place))
        live.show("installing; the first time this takes some minutes")
        argv = [f"{place}/scripts/quickstart", "--yes", "--no-demo"]
        if wanted.config != fleet.AddNode.__struct_defaults__[-1]:
            argv += ["--config", wanted.config]
        for text in line.run(argv, seconds=_SECONDS).splitlines()[-20:]:
            live.say(text[:500])
        self._drop_upload(upload)
        self.journal.end(live, ())
