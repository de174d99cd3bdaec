"""Asking another machine for what concerns a site that lives there.

Rights are asked for here, then the API of the machine is asked over its line (:mod:`alveole.remote.lines`); the change
here tells what the change there tells, and keeps what the names hang on.
"""

from __future__ import annotations

import contextlib
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import msgspec

from alveole import requests as ask
from alveole import views
from alveole.agent import protocol
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused, Temporary
from alveole.failpoints import hit
from alveole.journal import Live, Work
from alveole.loop.compile import site_domain
from alveole.model.change import Change, ChangeState
from alveole.model.moving import Forward
from alveole.model.site import Base, BaseKind, Run, Site, Wanted
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.ports import Program
from alveole.remote import fleet
from alveole.remote.distant import Distant, DistantProgram
from alveole.remote.fleet import Look, Node
from alveole.services.draft import Draft
from alveole.services.passports import PassportVerbs
from alveole.store import Stored, Transaction, new_id

if TYPE_CHECKING:
    from alveole.remote.apiclient import Client
    from alveole.remote.lines import Line

_PATIENCE = 20.0
#: So long a change waits for a node that went away while it was at work.
_AWAY_SECONDS = 120.0
Told = TypeVar("Told")


class _Named(msgspec.Struct):
    """What was begun, or sent, there; the rest of the answer is for others."""

    id: str


def understood(node: str, told: Any, kind: type[Told]) -> Told:
    """What a machine answered, as a document of ours. Raises ``Temporary`` for one of another version."""
    try:
        return msgspec.convert(told, kind)
    except msgspec.ValidationError as error:
        raise _not_understood(node, error) from error


def read(node: str, body: bytes, kind: type[Told]) -> Told:
    """The same of the bytes of an answer. Raises ``Temporary`` also for what is no JSON."""
    try:
        return msgspec.json.decode(body, type=kind)
    except msgspec.DecodeError as error:
        raise _not_understood(node, error) from error


def _not_understood(node: str, error: Exception) -> Temporary:
    return Temporary(
        f"{node} answers what this version does not know: {error}",
        field="node",
        hint=f"bring both to the same version: alveole node upgrade {node}",
    )


class ForwardVerbs(PassportVerbs):
    _lines: dict[str, Line]
    _lines_lock: threading.Lock
    _node_looks: dict[str, Look]
    _node_problems: dict[str, str]
    #: Since when each of them is away, by this process's monotonic clock: a control that was off knows of no absence.
    _node_away: dict[str, float]
    _nodes_known: dict[str, Node] | None

    # --- nodes --------------------------------------------------------------------------------
    def _nodes(self) -> dict[str, Node]:
        if self._nodes_known is None:
            found = self._setting("nodes", fleet.Nodes)
            self._nodes_known = dict(found.all) if found is not None else {}
        return self._nodes_known

    def _put_nodes(self, nodes: dict[str, Node]) -> None:
        self._put_setting("nodes", fleet.Nodes(nodes))
        self._nodes_known = None

    def _node(self, name: str) -> Node:
        node = self._nodes().get(name)
        if node is None:
            raise NotFound(f"there is no node {name!r}", field="node", hint="see: alveole node list")
        return node

    def _line(self, name: str) -> Line:
        from alveole.remote.lines import Line

        node = self._node(name)
        with self._lines_lock:
            line = self._lines.get(name)
            if line is None or line.node != node:
                line = self._lines[name] = Line(self.settings, node)
            return line

    def _api_of(self, name: str) -> Client:
        return self._line(name).client()

    @abstractmethod
    def _placed(self, wanted: str, memory_bytes: int, *, without: str | None = None) -> str:
        """Supplied by the class that joins the parts: the machine for a site; empty: this one."""

    # --- asking a node ------------------------------------------------------------------------
    def _there(
        self,
        caller: Actor,
        right: Right,
        verb: str,
        site: str,
        method: str,
        path: str,
        body: Any,
        key: str | None,
        version: int | None = None,
    ) -> Change | None:
        """The same verb where the site lives; ``None`` for one of this machine. ``path`` follows the site's own."""
        found = self.store.site(site)
        if found is None or not found.site.node:
            return None
        text = msgspec.json.encode(body).decode() if body is not None else ""

        def build(transaction: Transaction) -> Live:
            old = self._free_to_change(caller, right, site, version, elsewhere=True)
            forward = Forward(old.node, method, f"/v1/sites/{old.name}{path}", text)
            work = Work(stored=True, forward=forward, upload=getattr(body, "upload", None))
            return self.journal.begin(
                verb,
                caller,
                site=old,
                reason=f"on {old.node}",
                work=work,
                result={"site": old.id},
                transaction=transaction,
            )

        return self._accept(caller, self._digest(verb, site, method, path, text, str(version)), key, build)

    def _asked_there(self, caller: Actor, right: Right, site: str, path: str, kind: type[Told]) -> Told | None:
        """A document about a site from where it lives; ``None`` for one of this machine."""
        found = self._stored(caller, right, site, elsewhere=True).site
        if not found.node:
            return None
        return understood(found.node, self._api_of(found.node).get(f"/v1/sites/{found.name}{path}"), kind)

    def _answered_there(
        self, caller: Actor, right: Right, site: str, path: str, body: Any, kind: type[Told]
    ) -> Told | None:
        """What a machine answers to a question with a body; ``None`` for a site of this one."""
        found = self._stored(caller, right, site, elsewhere=True).site
        if not found.node:
            return None
        return understood(found.node, self._send_to_node(found, "POST", path, body), kind)

    def _send_to_node(self, site: Site, method: str, path: str, body: Any = None) -> Any:
        return self._api_of(site.node).send(method, f"/v1/sites/{site.name}{path}", body)

    def start(self, request: protocol.Visit | protocol.Exec | Distant) -> Program:
        """Start a program inside of a site, where that lives. Raises what is said there."""
        if isinstance(request, Distant):
            return DistantProgram(self._line(request.node).connect(), request)
        return self.agent.exec(request)

    def _shown_there(self, stored: Stored, view: views.SiteView, show_env: bool) -> views.SiteView:
        """As it is there now; as last seen where that is all there is: a page must open while the machine is away."""
        site = stored.site
        if site.node in self._node_problems or stored.pending:
            return view
        query = {"show_env": "true"} if show_env else None
        with contextlib.suppress(AlveoleError):
            told = understood(site.node, self._api_of(site.node).get(f"/v1/sites/{site.name}", query), views.SiteView)
            return msgspec.structs.replace(
                view,
                env=told.env,
                releases=told.releases,
                application=told.application,
                process_states=told.process_states,
                memory_bytes=told.memory_bytes,
                cpu_seconds=told.cpu_seconds,
                cpu_load=told.cpu_load,
                disk_bytes=told.disk_bytes,
                pids=told.pids,
                requests_today=told.requests_today,
                sent_bytes_today=told.sent_bytes_today,
                log_bytes=told.log_bytes,
                seen_at=time.time(),
            )
        return view

    def _why_there(self, site: Site) -> tuple[protocol.Link, views.WhyView | None]:
        """Whether the machine that a site lives on tells its chain, and what it tells."""
        asked, began = f"ask the Alvéole on {site.node}", time.monotonic()
        came, cure, told = "it answers", "", None
        try:
            told = understood(site.node, self._api_of(site.node).get(f"/v1/sites/{site.name}/why"), views.WhyView)
        except NotFound:
            came = f"{site.node} knows no site of this name"
            cure = (
                f"alveole backup list {site.name}; what was saved can be restored: alveole backup restore ID --as NAME"
            )
        except AlveoleError as error:
            came, cure = error.problems[0].message, error.problems[0].hint or f"alveole node check {site.node}"
        took = round((time.monotonic() - began) * 1000, 2)
        return protocol.Link("server", told is not None, asked, came, cure, took), told

    def logs_there(self, caller: Actor, site: str, query: dict[str, Any]) -> Iterator[bytes] | None:
        """What a site on another machine prints, as that tells it; ``None`` for one of this machine."""
        found = self._stored(caller, Right.SITE_LOGS, site, elsewhere=True).site
        if not found.node:
            return None
        # No limit: between two lines of a site that is followed any time may pass.
        answer = self._api_of(found.node).open(
            "GET", f"/v1/sites/{found.name}/logs", query=query, patience=None if query.get("follow") else _PATIENCE
        )

        def blocks() -> Iterator[bytes]:
            with answer:
                yield from answer.blocks()

        return blocks()

    def _create_there(self, caller: Actor, request: ask.CreateSite, key: str | None) -> Change:
        """Reserve the names here and make the site on the node ``request.node``."""
        owner = self._owner_for(caller, request.owner)
        limits = self.store.plans.get(request.plan or "small")
        node = self._placed(request.node or "", limits.limits.memory_bytes if limits is not None else 0)
        if not node:
            return self.create_site(caller, msgspec.structs.replace(request, node=None), key=key)

        def build(transaction: Transaction) -> Live:
            draft = Draft(self.settings, self.store.owner_of)
            draft.name(request.name, self.store.site(request.name) is not None)
            domains = draft.domains(request.domains, request.name)
            draft.claim(caller, domains, None)
            if request.path is not None:
                draft.wrong("path", "leads to sites of this machine only", "give the site a domain")
            for field in ("published", "shared"):
                if getattr(request, field):
                    draft.wrong(field, "is lent by the machine that the site lives on", f"ask {node} for it")
            plan = request.plan or "small"
            draft.plan(plan, self.store.plans)
            draft.finish()
            id = new_id("s")
            site = Site(
                id=id,
                number=transaction.lease(id, self.addressing.capacity()),
                name=request.name,
                wanted=Wanted.STOPPED if request.stopped else Wanted.RUNNING,
                plan=plan,
                base=Base(BaseKind.HOST, f"host-{'0' * 16}"),
                run=Run(),
                domains=domains,
                https_only=request.https_only,
                node=node,
                owner=owner,
                created_at=time.time(),
            )
            self._check_quota(owner, site)
            transaction.insert_site(site, self._names(site), "create")
            own = site_domain(site.name, self.settings)
            more = (*domains, own) if own != f"{site.name}.{self._node(node).domain}" else domains
            asked = msgspec.structs.replace(request, node=None, owner=None, domains=tuple(more), plan=request.plan)
            forward = Forward(node, "POST", "/v1/sites", msgspec.json.encode(asked).decode())
            work = Work(stored=True, forward=forward, upload=request.upload)
            return self.journal.begin(
                "create",
                caller,
                site=site,
                reason=f"on {node}",
                work=work,
                result={"site": id},
                transaction=transaction,
            )

        return self._accept(caller, request.digest(), key, build, self._need_room)

    def _flow_forward(self, live: Live) -> None:
        """Ask the node once, tell what it tells, and keep here what the names hang on."""
        site = self._site_of(live)
        creating = self.store.sites[site.id].pending == "create"
        problems: tuple[Problem, ...] = ()
        code = ""
        told: dict[str, str | int | float | None] = {}
        try:
            told = self._result_there(self._ask_there(live))
        except AlveoleError as error:
            problems, code = error.problems, error.code
        if self.loop.stopping and problems:
            return
        forward = live.work.forward
        seen = self._site_there(forward.node, site.name) if forward is not None else None
        # Not of one that is away: it may have made the site, and goes on with it.
        if creating and problems and seen is None and forward is not None and self._is_none_there(forward.node, site):
            self._take_back_create(live, site, problems, code)
            return
        site = self._mirrored(site, seen)
        with self.store.write() as transaction:
            transaction.save_site(site, self._names(site))
        settled = self.loop.settle(site, live, version=site.version)
        self._drop_upload(live.work.upload)
        told = {"code": code} if code else {**told, "version": site.version}
        self.journal.end(live, (*problems, *settled.problems), told)

    @staticmethod
    def _result_there(ended: Change) -> dict[str, str | int | float | None]:
        """What a change there tells at its end, but for what is of that machine alone."""
        return {key: value for key, value in ended.result.items() if key not in ("site", "node", "version")}

    def _mirrored(self, site: Site, seen: views.SiteView | None) -> Site:
        if seen is None:
            return site
        return msgspec.structs.replace(
            site,
            wanted=seen.wanted,
            https_only=seen.https_only,
            plan=seen.plan if seen.plan in self.store.plans else site.plan,
            version=site.version + 1,
        )

    def _site_there(self, node: str, name: str) -> views.SiteView | None:
        """What a node says of a site now; ``None`` when it has none of this name, or does not answer."""
        with contextlib.suppress(AlveoleError):
            found = understood(node, self._api_of(node).get(f"/v1/sites/{name}"), views.SiteView)
            look = self._node_looks.get(node)
            if look is not None:
                self._node_looks[node] = msgspec.structs.replace(look, sites={**look.sites, name: found})
            return found
        return None

    def _is_none_there(self, node: str, site: Site) -> bool:
        try:
            self._api_of(node).get(f"/v1/sites/{site.name}")
        except NotFound:
            return True
        except AlveoleError:
            return False
        return False

    def _ask_there(self, live: Live) -> Change:
        forward = live.work.forward
        if forward is None:
            raise Refused("nothing is to be asked of another machine")
        client = self._api_of(forward.node)
        if live.work.upload is not None:
            live.show(f"sending the content to {forward.node}")
            sent = self._send_there(forward.node, self._upload_path(live.work.upload))
            filled = {**msgspec.json.decode(forward.body), "upload": sent}
            forward = msgspec.structs.replace(forward, body=msgspec.json.encode(filled).decode())
            # Before it is asked for: the same request must be sent again, with the same upload.
            with self.store.write() as transaction:
                work = msgspec.structs.replace(live.work, forward=forward, upload=None)
                self._drop_upload(live.work.upload)
                self.journal.save(live, transaction, work)
        hit("services.forward")
        body = msgspec.json.decode(forward.body) if forward.body else None
        path, _, query = forward.path.partition("?")
        asked = {key: value for key, _, value in (pair.partition("=") for pair in query.split("&"))} if query else None
        change = client.send(forward.method, path, body, query=asked, key=live.id)
        ended = self._follow_there(live, forward.node, change)
        hit("services.forwarded")
        return ended

    def _change_there(self, live: Live, node: str, method: str, path: str, body: dict[str, Any]) -> Change:
        """One of several requests of one change: each has a key of its own, the same after a kill."""
        key = f"{live.id}-{next(iter(body))}"
        change = self._api_of(node).send(method, path, body, key=key)
        return self._follow_there(live, node, change)

    def _send_there(self, node: str, path: Path) -> str:
        def blocks() -> Iterator[bytes]:
            with path.open("rb") as file:
                while data := file.read(1 << 20):
                    yield data

        return understood(node, self._api_of(node).upload(blocks(), path.stat().st_size), _Named).id

    def _follow_there(self, live: Live, node: str, begun: Any) -> Change:
        """Tell what a change there tells, to its end. ``begun``: what was answered when it was asked for.

        Raises what it failed with; ``Temporary`` when the machine stays away, or answers what is not understood."""
        id = understood(node, begun, _Named).id
        told = 0
        away: float | None = None
        while not self.loop.stopping:
            try:
                with self._api_of(node).open("GET", f"/v1/changes/{id}", query={"wait": 10}, patience=40.0) as answer:
                    said = answer.body()
            except (NotFound, InvalidInput):
                raise
            except AlveoleError as error:
                away = away or time.monotonic()
                if time.monotonic() - away > _AWAY_SECONDS:
                    raise Temporary(
                        f"{node} went away: {error}", field="node", hint=f"what was begun there is its change {id}"
                    ) from None
                live.show(f"waits for {node}")
                self.loop.pause(1.0)
                continue
            away = None
            found = read(node, said, Change)
            for event in found.events[told:]:
                live.say(event.text, level=event.level, resource=event.resource, seconds=event.seconds)
            told = len(found.events)
            if found.state is ChangeState.FAILED:
                raise Refused(problems=found.problems or (Problem("", "it failed there"),))
            if found.state is ChangeState.DONE:
                return found
        raise Temporary("control is being stopped")
