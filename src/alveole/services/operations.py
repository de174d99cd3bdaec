"""The verbs about operations (named commands of a site) and about the programs that run in it."""

from __future__ import annotations

import re
import threading
import time
from abc import abstractmethod
from collections.abc import Iterator
from typing import Any, Literal

import msgspec
import sqlalchemy as sa

from alveole.agent import protocol
from alveole.agent.operating import ListPrograms, ProgramState, RestartProcess, SignalProgram
from alveole.catalogue.grammar import USERS
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.journal import Live
from alveole.model.change import Change
from alveole.model.names import PROCESS_NAME
from alveole.model.operation import Filled, Least, Operation, check, fill
from alveole.model.site import Site
from alveole.people.model import Actor, Held
from alveole.people.rights import Right, may
from alveole.ports import Program
from alveole.remote.apiclient import segment
from alveole.remote.distant import Distant
from alveole.requests import operations as want
from alveole.services.apps import AppVerbs
from alveole.services.flows import work_for
from alveole.services.inside import InsideVerbs, exec_there
from alveole.services.running import Running
from alveole.store import Transaction, new_id, tables
from alveole.views import SiteView
from alveole.views.operations import OperationView, ProgramsView, ProgramView, RunView, declared, operation_view

OPERATIONS_MAX = 50
RUNS_KEPT = 50
#: Of one site, and of all, at a time.
_AT_ONCE, _AT_ONCE_OF_ALL = 4, 16
RIGHTS = {
    Least.CHANGE: Right.SITE_OPERATE,
    Least.OWN: Right.SITE_OPERATE_OWN,
    Least.OPERATOR: Right.SITE_OPERATE_OPERATOR,
    Least.ADMINISTRATOR: Right.SITE_OPERATE_ADMINISTRATOR,
}
_CLOSE_SECONDS = 8.0
_SIGNALS: dict[str, Literal[9, 15]] = {"TERM": 15, "KILL": 9}


class OperationVerbs(InsideVerbs, AppVerbs):
    _operations_running: dict[str, Running]
    _operations_running_lock: threading.Lock

    # --- what there is ------------------------------------------------------------------------
    def list_operations(self, caller: Actor, site: str) -> tuple[OperationView, ...]:
        """Those of its modules, of its application and its own, by name."""
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        held = self.people.held(found)
        views = (
            operation_view(of, each, may(caller, RIGHTS[each.least], held))
            for of, each in self._operations(caller, found)
        )
        return tuple(sorted(views, key=lambda each: each.name))

    def _operations(self, caller: Actor, site: Site) -> Iterator[tuple[str, Operation]]:
        """What is nearest to the site has the last word where names are the same.

        What people declare is kept here, also for a site that lives on another machine; its modules are known there.
        """
        of = self.apps.of_site(site.id)
        found = {each.name: (f"module:{each.module}", each) for each in site.run.operations}
        if there := self._asked_there(caller, Right.SITE_OPERATE, site.id, "/operations", list[OperationView]):
            theirs = f"node:{site.node}"
            found = {
                each.name: (each.of if each.of.startswith("module:") else theirs, declared(each)) for each in there
            }
        if of is not None:
            found |= {each.name: (f"app:{of[0].name}", each) for each in self._declared(of[0].id)}
        found |= {each.name: ("site", each) for each in self._declared(site.id)}
        yield from found.values()

    def _declared(self, whom: str) -> tuple[Operation, ...]:
        table = tables.operations
        with self.store.read() as connection:
            rows = connection.execute(sa.select(table.c.document).where(table.c.whom == whom).order_by(table.c.name))
            return tuple(msgspec.json.decode(row.document, type=Operation) for row in rows)

    def add_operation(
        self, caller: Actor, name: str, request: want.AddOperation, *, site: str = "", app: str = ""
    ) -> OperationView:
        """Declare one of a site or of an application, or put another in its place."""
        whom, held, of = self._whose(caller, site, app)
        operation = _operation(name, request)
        self._allow(caller, RIGHTS[operation.least], held)
        table = tables.operations
        with self.store.write() as transaction:
            there = {each.name: each for each in self._declared(whom)}
            if name in there:
                # Nobody puts another program behind a button that they may not press.
                self._allow(caller, RIGHTS[there[name].least], held)
            elif len(there) >= OPERATIONS_MAX:
                raise Refused(f"there are {OPERATIONS_MAX} operations already", field="name", hint="remove one first")
            row = {"name": name, "document": msgspec.json.encode(operation).decode(), "created_by": caller.name}
            self._delete_operation(transaction, whom, name)
            row |= {"id": new_id("o"), "whom": whom}
            transaction.connection.execute(sa.insert(table).values(**row, created_at=time.time()))
        self._note_operation(caller, "add-operation", whom, name)
        return operation_view(of, operation, True)

    def drop_operation(self, caller: Actor, name: str, *, site: str = "", app: str = "") -> None:
        whom, held, of = self._whose(caller, site, app)
        there = {each.name: each for each in self._declared(whom)}
        if name not in there:
            hint = "those of modules come and go with them"
            raise NotFound(f"{of} has no operation {name!r} of its own", field="operation", hint=hint)
        self._allow(caller, RIGHTS[there[name].least], held)
        with self.store.write() as transaction:
            self._delete_operation(transaction, whom, name)
        self._note_operation(caller, "remove-operation", whom, name)

    def _whose(self, caller: Actor, site: str, app: str) -> tuple[str, Held, str]:
        """Id, who may, and how it is called, of the site or the application that declares."""
        if app:
            found = self._app(caller, Right.APP_CHANGE, app)
            # A right about a site is asked of the owner's nearness, as for a site of the application.
            return found.id, self.people.held_app(found), f"app:{found.name}"
        stored = self._stored(caller, Right.SITE_CHANGE, site, elsewhere=True).site
        return stored.id, self.people.held(stored), "site"

    @staticmethod
    def _delete_operation(transaction: Transaction, whom: str, name: str) -> None:
        table = tables.operations
        transaction.connection.execute(sa.delete(table).where(table.c.whom == whom, table.c.name == name))

    def _note_operation(self, caller: Actor, verb: str, whom: str, name: str) -> None:
        stored = self.store.sites.get(whom)
        about = stored.site if stored is not None else self.apps.app(whom)
        self.journal.end(self.journal.begin(verb, caller, site=about, reason=name))

    # --- running ------------------------------------------------------------------------------
    def run_operation(self, caller: Actor, site: str, name: str, request: want.RunOperation) -> RunView:
        """Begin it inside of the site that runs; :meth:`show_run` tells how far it has come.

        Raises ``InvalidInput`` with every argument that is wrong, ``Denied``, ``Refused`` when nothing runs there.
        """
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        operation = self._operation(caller, found, name)
        filled = fill(operation, request.arguments)
        program = self._program_of(found, operation, filled)
        secrets = (*filled.secrets, *self._secrets_of(caller, found))
        self._need_room()
        shown = " ".join((name, *(f"{key}={value}" for key, value in filled.shown.items())))
        with self._operations_running_lock:
            of_site = sum(each.site == found.id for each in self._operations_running.values())
            if of_site >= _AT_ONCE or len(self._operations_running) >= _AT_ONCE_OF_ALL:
                raise Refused("many operations are running at this moment", field="site", hint="wait for one to end")
            with self.store.write() as transaction:
                # Stored at once: one that a death of control cuts is told of all the same.
                live = self.journal.begin("operation", caller, site=found, reason=shown[:500], transaction=transaction)
                row = self._begin_run(transaction, live, found, operation, filled)
            running = Running(found.id, program, filled.stdin, secrets, operation.seconds, operation.output_bytes)
            self._operations_running[live.id] = running
        thread = threading.Thread(target=self._carry, args=(live, running), name="operation", daemon=True)
        thread.start()
        return self._run_view(found, row)

    def _program_of(self, site: Site, operation: Operation, filled: Filled) -> protocol.Exec | Distant:
        """What is started, where the site lives. Raises ``Refused`` when nothing runs there."""
        if site.node:
            return exec_there(site, filled.argv, uid=operation.uid)
        return protocol.Exec(site=site.id, slot=self._ready_slot(site), argv=filled.argv, uid=operation.uid)

    def _secrets_of(self, caller: Actor, site: Site) -> frozenset[str]:
        """The secret texts among its answers, which nothing that it prints may show."""
        if not site.node:
            return self._secrets(site.application)
        hidden, open_ = (
            self._asked_there(caller, Right.SITE_OPERATE, site.id, path, SiteView) for path in ("", "?show_env=true")
        )
        if hidden is None or open_ is None or hidden.application is None or open_.application is None:
            return frozenset()
        return frozenset(
            answer
            for module, answers in open_.application.answers.items()
            for question, answer in answers.items()
            if isinstance(answer, str) and hidden.application.answers.get(module, {}).get(question) != answer
        )

    @abstractmethod
    def start(self, request: protocol.Visit | protocol.Exec | Distant) -> Program:
        """Supplied by the class that joins the parts: start it where the site lives."""

    def _operation(self, caller: Actor, site: Site, name: str) -> Operation:
        operation = next((each for _, each in self._operations(caller, site) if each.name == name), None)
        if operation is None:
            hint = f"see: alveole op list {site.name}"
            raise NotFound(f"site {site.name} has no operation {name[:80]!r}", field="operation", hint=hint)
        self._allow(caller, RIGHTS[operation.least], self.people.held(site))
        return operation

    def _begin_run(
        self, transaction: Transaction, live: Live, site: Site, operation: Operation, filled: Filled
    ) -> dict[str, Any]:
        table = tables.operation_runs
        row: dict[str, Any] = {"id": live.id, "site_id": site.id, "name": operation.name, "least": operation.least}
        row |= {"arguments": msgspec.json.encode(filled.shown).decode(), "by": live.change.actor}
        row |= {"started_at": live.change.started_at, "ended_at": None, "exit_status": None}
        row |= {"problem": "", "cut": False, "output": ""}
        transaction.connection.execute(sa.insert(table).values(**row))
        own = table.c.site_id == site.id
        old = sa.select(table.c.id).where(own).order_by(table.c.started_at.desc()).limit(-1).offset(RUNS_KEPT)
        transaction.connection.execute(sa.delete(table).where(table.c.id.in_(old), table.c.ended_at.is_not(None)))
        return row

    def _carry(self, live: Live, running: Running) -> None:
        """Run it to its end and store what came; never raises."""
        status = running.run(self.start)
        problem = running.problem
        values = {"ended_at": time.time(), "exit_status": status, "problem": problem, "cut": running.cut}
        values["output"] = running.text()

        def also(transaction: Transaction) -> None:
            table = tables.operation_runs
            transaction.connection.execute(sa.update(table).where(table.c.id == live.id).values(**values))

        if not problem and status:
            problem = f"it ended with status {status}"
        problems = (Problem("operation", problem),) if problem else ()
        try:
            self.journal.end(live, problems, {"exit_status": status}, also=also)
        except AlveoleError as error:
            # A full disk: its end is told, its output is lost.
            self.journal.end(live, (*problems, *error.problems), {"exit_status": status})
        finally:
            with self._operations_running_lock:
                self._operations_running.pop(live.id, None)

    def cancel_run(self, caller: Actor, site: str, run: str) -> RunView:
        """End it now. Of one that has ended nothing is changed."""
        found = self.show_run(caller, site, run)
        self._operation_right(caller, site, run)
        running = self._operations_running.get(run)
        if running is not None:
            running.cancel(f"ended by {caller.name}")
        return found

    def _operation_right(self, caller: Actor, site: str, run: str) -> Any:
        """The stored run, when the caller may see what it printed: who may run it may."""
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        table = tables.operation_runs
        with self.store.read() as connection:
            query = sa.select(table).where(table.c.id == run, table.c.site_id == found.id)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"site {found.name} has no run {run[:40]!r}", field="run", hint="see: alveole op log")
        self._allow(caller, RIGHTS[Least(row.least)], self.people.held(found))
        return row

    def show_run(self, caller: Actor, site: str, run: str) -> RunView:
        """With what it has printed so far."""
        row = self._operation_right(caller, site, run)
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        running = self._operations_running.get(run)
        view = self._run_view(found, row._asdict())
        if running is not None and view.ended_at is None:
            return msgspec.structs.replace(view, output=running.text(), cut=running.cut)
        return view

    def list_runs(self, caller: Actor, site: str) -> tuple[RunView, ...]:
        """The last of those that the caller might have run, newest first, without their output."""
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        held = self.people.held(found)
        near = [str(least) for least, right in RIGHTS.items() if may(caller, right, held)]
        table = tables.operation_runs
        columns = [each for each in table.c if each.name != "output"]
        query = sa.select(*columns).where(table.c.site_id == found.id, table.c.least.in_(near))
        with self.store.read() as connection:
            rows = connection.execute(query.order_by(table.c.started_at.desc()).limit(RUNS_KEPT)).all()
        return tuple(self._run_view(found, {**row._asdict(), "output": ""}) for row in rows)

    def _run_view(self, site: Site, row: dict[str, Any]) -> RunView:
        cut_short = row["ended_at"] is None and row["id"] not in self._operations_running
        return RunView(
            id=row["id"],
            site=site.name,
            name=row["name"],
            arguments=msgspec.json.decode(row["arguments"], type=dict[str, str]),
            by=row["by"],
            started_at=row["started_at"],
            # Control ended meanwhile, and the program with it.
            ended_at=row["started_at"] if cut_short and self._is_over(row["id"]) else row["ended_at"],
            exit_status=row["exit_status"],
            problem="control ended meanwhile" if cut_short and self._is_over(row["id"]) else row["problem"],
            cut=row["cut"],
            output=row["output"],
        )

    def _is_over(self, change: str) -> bool:
        return self.journal.live(change) is None

    def close_operations(self) -> None:
        """End all of them and wait a moment until it is stored: control is being stopped."""
        for running in list(self._operations_running.values()):
            running.cancel("control was stopped")
        until = time.monotonic() + _CLOSE_SECONDS
        while self._operations_running and time.monotonic() < until:
            time.sleep(0.05)

    # --- programs -----------------------------------------------------------------------------
    def list_programs(self, caller: Actor, site: str) -> ProgramsView:
        """What runs in the site at this moment, by id."""
        if (there := self._asked_there(caller, Right.SITE_OPERATE, site, "/programs", ProgramsView)) is not None:
            return there
        found = self._stored(caller, Right.SITE_OPERATE, site).site
        slot = self._ready_slot(found)
        users = {uid: name for name, uid in USERS.items()} | {each.uid: each.name for each in found.run.accounts}
        states: tuple[ProgramState, ...] = self.agent.call(ListPrograms(found.id, slot))
        shown = (ProgramView(**msgspec.structs.asdict(each), user=users.get(each.uid, "")) for each in states)
        return ProgramsView(site=found.name, slot=slot, programs=tuple(shown))

    def signal_program(self, caller: Actor, site: str, pid: int, request: want.SignalProgram) -> None:
        """Ask one program to end, or end it. Its first process is the site itself: restart that."""
        found = self._stored(caller, Right.SITE_OPERATE, site, elsewhere=True).site
        problems = []
        if request.signal not in _SIGNALS:
            problems.append(Problem("signal", f"{request.signal[:20]!r} is not TERM or KILL"))
        if not 2 <= pid <= 4_194_304:
            problems.append(Problem("pid", f"{pid} is no program that can be ended", "restart the site"))
        if not 0 <= request.started < 1 << 62:
            problems.append(Problem("started", "is no moment"))
        if problems:
            raise InvalidInput(problems=problems)
        slot = found.slot if found.node else self._ready_slot(found)
        live = self.journal.begin("signal", caller, site=found, reason=f"{request.signal} {pid}")
        ended: tuple[Problem, ...] = ()
        try:
            if found.node:
                self._send_to_node(found, "POST", f"/programs/{pid}/signal", request)
                return
            self.agent.call(SignalProgram(found.id, slot, pid, request.started, _SIGNALS[request.signal]))
        except AlveoleError as error:
            ended = error.problems
            raise
        finally:
            self.journal.end(live, ended)

    def restart_process(self, caller: Actor, site: str, process: str, *, key: str | None = None) -> Change:
        """Start one process of the site anew; of a site with one only, the site."""
        path = f"/processes/{segment(process)}/restart"
        if there := self._there(caller, Right.SITE_OPERATE, "restart-process", site, "POST", path, None, key):
            return there

        def build(transaction: Transaction) -> Live:
            found = self._free_to_change(caller, Right.SITE_OPERATE, site, None)
            names = [each.name for each in found.run.processes]
            if process not in names:
                hint = f"it has {', '.join(names) or 'none of its own'}"
                raise NotFound(f"site {found.name} has no process {process[:80]!r}", field="process", hint=hint)
            self._ready_slot(found)
            work = msgspec.structs.replace(work_for(), note=process)
            return self.journal.begin(
                "restart-process", caller, site=found, reason=process, work=work, transaction=transaction
            )

        return self._accept(caller, self._digest("restart-process", site, process), key, build)

    def _flow_restart_process(self, live: Live) -> None:
        site = self._site_of(live)
        live.show(f"starting {live.work.note} anew")
        self.agent.call(RestartProcess(site.id, self._ready_slot(site), live.work.note), say=live.show)
        live.say(f"{live.work.note} was started anew")
        self.journal.end(live)


def _operation(name: str, request: want.AddOperation) -> Operation:
    """The declaration as it is stored. Raises ``InvalidInput`` with all that is wrong."""
    problems = []
    if not re.match(PROCESS_NAME, name):
        problems.append(Problem("name", f"{name[:80]!r} is not a name", "use a-z, 0-9, - and _"))
    for field, value, low, high in (
        ("seconds", request.seconds, 1, 3600),
        ("output_bytes", request.output_bytes, 1024, 1024 * 1024),
    ):
        if not low <= value <= high:
            problems.append(Problem(field, f"{value} is outside {low}..{high}"))
    made = Operation(
        name=name,
        argv=request.argv,
        title=request.title,
        description=request.description,
        arguments=request.arguments,
        least=request.least,
        seconds=request.seconds,
        output_bytes=request.output_bytes,
        confirm=request.confirm,
    )
    problems += check(made)
    if problems:
        raise InvalidInput(problems=problems)
    return made
