"""The verbs about checks: scenarios of a site, their secrets, running them by hand."""

from __future__ import annotations

import logging
import os
import re
import secrets
import threading
import time
from typing import Any

import msgspec
import sqlalchemy as sa

from alveole import views
from alveole.errors import AlveoleError, InvalidInput, NotFound, Problem, Refused
from alveole.loop.compile import hosts
from alveole.model.site import Site
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.requests import checks as check_requests
from alveole.scenarios.model import (
    NAME,
    CheckDraft,
    CheckRun,
    CheckView,
    Going,
    Report,
    Scenario,
    StepReport,
)
from alveole.scenarios.reading import read, secrets_of
from alveole.services.core import Core
from alveole.services.watching import HAND, Tell, known_of
from alveole.store import new_id, tables

CHECKS_MAX = 20
#: Of those that the machine which drives this one has brought for a switch: one environment asks those of all.
BROUGHT_MAX = 10 * CHECKS_MAX
#: Begins the text of each of them, so that no other is taken away.
BROUGHT = "# Brought by the machine that drives this one.\n"
#: How a scenario is called that is run and not kept.
UNNAMED = "unnamed"
SECRETS_MAX = 50
#: A recording is looked through in memory; one of the command line may be larger.
RECORDING_MAX = 16 * 1024 * 1024
#: Runs that people follow: so many at a time, and so many that have ended are remembered.
_FOLLOWED, _REMEMBERED = 8, 40
log = logging.getLogger("alveole.checks")
_NAME_OF_A_SECRET = r"^[A-Za-z_][A-Za-z0-9_.-]{0,63}\Z"  # noqa: S105  a grammar, no secret
#: Shorter ones cannot be hidden: they would be found in every other word of a page.
_SECRET_LENGTH = (4, 4096)


class ScenarioVerbs(Core):
    _going: dict[str, Going]
    _going_lock: threading.Lock

    def list_checks(self, caller: Actor, site: str) -> tuple[views.CheckState, ...]:
        return self.checks.upcoming(self._stored(caller, Right.SITE_LOOK, site).site.id)

    def show_check(self, caller: Actor, site: str, name: str) -> CheckView:
        """With its text and its last runs. Its text names secrets and does not hold them."""
        found = self._stored(caller, Right.SITE_CHECKS, site).site
        row = self._row(found, name)
        runs = tables.check_runs
        with self.store.read() as connection:
            query = sa.select(runs).where(runs.c.scenario_id == row.id).order_by(runs.c.seq.desc())
            kept = connection.execute(query).all()
        scenario = msgspec.json.decode(row.document, type=Scenario)
        state = next(each for each in self.checks.upcoming(found.id) if each.name == name)
        return CheckView(
            name=name,
            site=found.name,
            text=row.text,
            created_at=row.created_at,
            created_by=row.created_by,
            state=state,
            missing_secrets=tuple(sorted(secrets_of(scenario) - self.checks.secrets(found.id).keys())),
            runs=tuple(
                CheckRun(
                    at=each.at,
                    use=each.use,
                    ok=each.ok,
                    seconds=each.seconds,
                    problem=each.problem,
                    report=msgspec.json.decode(each.report, type=Report) if each.report else None,
                )
                for each in kept
            ),
        )

    def lint_check(self, caller: Actor, request: check_requests.CheckText) -> Scenario:
        """What was understood. Raises ``InvalidInput`` with every problem and its place."""
        self._allow(caller, Right.CATALOGUE_LOOK)
        return read(request.text)

    def put_check(self, caller: Actor, site: str, name: str, request: check_requests.CheckText) -> CheckView:
        """Add a scenario, or put another in its place."""
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        problems: tuple[Problem, ...] = ()
        if not re.match(NAME, name):
            problems = (Problem("check", f"{name[:80]!r} is not a name", "use a-z, 0-9 and '-'"),)
        try:
            scenario = read(request.text)
        except InvalidInput as error:
            raise InvalidInput(problems=(*problems, *error.problems)) from None
        if problems:
            raise InvalidInput(problems=problems)
        if not request.watch:
            scenario = msgspec.structs.replace(scenario, every="")
        table = tables.scenarios
        values = {
            "text": request.text,
            "document": msgspec.json.encode(scenario).decode(),
            "every": scenario.every_seconds,
            "created_at": time.time(),
            "created_by": caller.name,
        }
        with self.store.write() as transaction:
            there = {each.name: each.id for each in self.checks.of_site(found.id)}
            if name in there and request.fresh:
                raise Refused(f"there is a check {name!r} already", field="check", hint="choose another name")
            query = sa.select(table.c.name, table.c.text).where(table.c.site_id == found.id)
            brought = request.text.startswith(BROUGHT)
            texts = {row.name: row.text for row in transaction.connection.execute(query)}
            most = BROUGHT_MAX if brought else CHECKS_MAX
            alike = sum(text.startswith(BROUGHT) == brought for each, text in texts.items() if each != name)
            if alike >= most:
                raise Refused(f"a site has at most {most} scenarios", field="check", hint="remove one first")
            id = there.get(name) or new_id("k")
            transaction.connection.execute(sa.delete(table).where(table.c.id == id))
            transaction.connection.execute(sa.insert(table).values(id=id, site_id=found.id, name=name, **values))
            known = known_of(id, found.id, name, scenario)
            transaction.effects.append(lambda: self.checks.remember(known))
        self._note(caller, "add-check", name, found)
        return self.show_check(caller, site, name)

    def drop_check(self, caller: Actor, site: str, name: str) -> None:
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        row = self._row(found, name)
        with self.store.write() as transaction:
            for table, column in ((tables.scenarios, "id"), (tables.check_runs, "scenario_id")):
                transaction.connection.execute(sa.delete(table).where(table.c[column] == row.id))
            transaction.effects.append(lambda: self.checks.forget(row.id))
        self._note(caller, "remove-check", name, found)

    def run_checks(self, caller: Actor, site: str, request: check_requests.RunChecks) -> tuple[Report, ...]:
        """Run scenarios now and wait: those named, or all. With ``text`` that one, which is not kept."""
        found, names, scenario = self._to_run(caller, site, request)
        return self._run_them(found, names, scenario, request.slot, None)

    def _to_run(
        self, caller: Actor, site: str, request: check_requests.RunChecks
    ) -> tuple[Site, tuple[str, ...], Scenario | None]:
        found = self._stored(caller, Right.SITE_CHECKS, site).site
        self._be_awake(found, caller)
        if request.text is not None:
            return found, (UNNAMED,), read(request.text)
        there = {each.name for each in self.checks.of_site(found.id)}
        if unknown := [name for name in request.names if name not in there]:
            hint = f"see: alveole check list {found.name}"
            raise NotFound(problems=[Problem("names", f"there is no check {name!r}", hint) for name in unknown])
        return found, request.names or tuple(sorted(there)), None

    def _run_them(
        self, site: Site, names: tuple[str, ...], scenario: Scenario | None, slot: int | None, tell: Tell | None
    ) -> tuple[Report, ...]:
        if scenario is None:
            return self.checks.run(site, use=HAND, slot=slot, names=names, tell=tell).reports
        known = known_of("", site.id, UNNAMED, scenario)
        return self.checks.run_these(site, [(known, scenario)], HAND, slot, tell=tell)

    def begin_checks(self, caller: Actor, site: str, request: check_requests.RunChecks) -> Going:
        """As :meth:`run_checks`, without waiting: :meth:`show_going` tells how far it has come."""
        found, names, scenario = self._to_run(caller, site, request)
        going = Going(
            id=secrets.token_hex(8), site=found.name, at=time.time(), steps=dict.fromkeys(sorted(set(names)), ())
        )
        with self._going_lock:
            if sum(not each.ended for each in self._going.values()) >= _FOLLOWED:
                raise Refused("many checks are being run at this moment", field="names", hint="try again in a moment")
            for old in [id for id, each in self._going.items() if each.ended][:-_REMEMBERED]:
                del self._going[old]
            self._going[going.id] = going

        def change(**fields: Any) -> None:
            with self._going_lock:
                self._going[going.id] = msgspec.structs.replace(self._going[going.id], **fields)

        def tell(name: str, step: StepReport) -> None:
            steps = self._going[going.id].steps
            change(steps={**steps, name: (*steps.get(name, ()), step)})

        def work() -> None:
            problem = "a fault of ours: see the log"
            reports: tuple[Report, ...] = ()
            try:
                reports = self._run_them(found, names, scenario, request.slot, tell)
                problem = ""
            except AlveoleError as error:
                problem = str(error)
            except Exception:
                log.exception("running the checks of %s failed by a fault of ours", found.id)
            finally:
                change(reports=reports, ended=True, problem=problem)

        threading.Thread(target=work, name="checks-by-hand", daemon=True).start()
        return going

    def show_going(self, caller: Actor, site: str, id: str) -> Going:
        """A run of :meth:`begin_checks`; it is remembered for a while, until control ends."""
        found = self._stored(caller, Right.SITE_CHECKS, site).site
        going = self._going.get(id)
        if going is None or going.site != found.name:
            raise NotFound("this run is not known any more", field="run", hint="run it again")
        return going

    def draft_check(self, caller: Actor, site: str, upload: str) -> CheckDraft:
        """A scenario of a HAR file that was uploaded. Raises ``InvalidInput`` for what is none."""
        from alveole.scenarios import har

        found = self._stored(caller, Right.SITE_CHECKS, site).site
        try:
            with self._open_upload(upload) as fd:
                if os.fstat(fd).st_size > RECORDING_MAX:
                    hint = "record less, or use: alveole check record"
                    raise InvalidInput(f"is larger than {RECORDING_MAX >> 20} MiB", field="har", hint=hint)
                with open(fd, "rb", closefd=False) as file:
                    text, needed = har.scenario(file.read(), frozenset(hosts(found, self.settings)))
        finally:
            self._drop_upload(upload)
        return CheckDraft(text=text, secrets=needed)

    # --- secrets ------------------------------------------------------------------------------
    def list_check_secrets(self, caller: Actor, site: str) -> tuple[str, ...]:
        """Their names; their values are shown to nobody."""
        return tuple(sorted(self.checks.secrets(self._stored(caller, Right.SITE_CHECKS, site).site.id)))

    def put_check_secret(self, caller: Actor, site: str, name: str, request: check_requests.CheckSecret) -> None:
        """Keep a value that scenarios of the site use as ``${secret:name}``."""
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        problems = []
        if not re.match(_NAME_OF_A_SECRET, name):
            problems.append(Problem("name", f"{name[:80]!r} is not a name of a secret", "use letters, digits, _ . -"))
        least, most = _SECRET_LENGTH
        if not least <= len(request.value) <= most or not request.value.isprintable():
            problems.append(Problem("value", f"must have {least} to {most} printable characters"))
        there = self.checks.secrets(found.id)
        if name not in there and len(there) >= SECRETS_MAX:
            problems.append(Problem("name", f"a site has at most {SECRETS_MAX} secrets"))
        if problems:
            raise InvalidInput(problems=problems)
        table = tables.check_secrets
        with self.store.write() as transaction:
            self._delete_secret(transaction.connection, found, name)
            transaction.connection.execute(
                sa.insert(table).values(site_id=found.id, name=name, value=request.value, created_at=time.time())
            )
        self._note(caller, "set-check-secret", name, found)

    def drop_check_secret(self, caller: Actor, site: str, name: str) -> None:
        found = self._stored(caller, Right.SITE_CHANGE, site).site
        if name not in self.checks.secrets(found.id):
            raise NotFound(f"there is no secret {name!r}", field="name")
        with self.store.write() as transaction:
            self._delete_secret(transaction.connection, found, name)
        self._note(caller, "remove-check-secret", name, found)

    @staticmethod
    def _delete_secret(connection: sa.Connection, site: Site, name: str) -> None:
        table = tables.check_secrets
        connection.execute(sa.delete(table).where(table.c.site_id == site.id, table.c.name == name))

    def _row(self, site: Site, name: str) -> Any:
        table = tables.scenarios
        columns = (table.c.id, table.c.text, table.c.document, table.c.created_at, table.c.created_by)
        with self.store.read() as connection:
            query = sa.select(*columns).where(table.c.site_id == site.id, table.c.name == name)
            row = connection.execute(query).one_or_none()
        if row is None:
            raise NotFound(f"site {site.name} has no check {name!r}", field="check", hint="see: alveole check list")
        return row
