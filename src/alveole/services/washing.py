"""Masking personal data where nobody can reach them: in a copy that runs only the database servers.

The data of the one environment come to a copy of the other (its configuration, its passwords; see
:mod:`alveole.services.trials`), of which nothing but the servers of its databases is started: no program of the
application, no name, no route, no way out. There the rules are carried out, and a backup of the copy is taken with
the modules' own tasks. Only that backup ever reaches the environment: what is logically dumped holds no page in which
an old row could still stand. The copy and all that was in it are gone at the end, also after a death in the middle.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import msgspec

from alveole.agent import protocol
from alveole.catalogue.manifest import Format
from alveole.catalogue.quoting import identifier, quote
from alveole.errors import Problem, Refused
from alveole.failpoints import hit
from alveole.journal import Live
from alveole.loop.compile import compile_site
from alveole.model.resource import Action, Kind, Step
from alveole.model.site import HealthCheck, Site, Wanted
from alveole.policy import masks
from alveole.services.trials import Trials

#: One server may work so long on all rules of its tables.
_SECONDS = 3600.0
_STAGES = (Kind.STORAGE, Kind.CONFIG, Kind.WORKLOAD)
Patterns = Sequence[tuple[str, str]]


class Server(NamedTuple):
    """A database server of the catalogue: how it is asked inside a site, as its own administrator."""

    module: str
    uid: int
    """The module's account; its processes and tasks are the server's."""
    format: Format
    program: tuple[str, ...]


MARIADB = Server(
    "mariadb", 2001, Format.SQL, ("/usr/bin/mariadb", "--no-defaults", "--socket=/run/mariadb/mysqld.sock")
)
POSTGRESQL = Server(
    "postgresql",
    2002,
    Format.PGSQL,
    (
        *("/usr/bin/env", "-u", "PGPASSFILE", "/usr/lib/postgresql/15/bin/psql", "-X", "-q", "-w"),
        *("-v", "ON_ERROR_STOP=1", "-h", "/run/postgresql", "-U", "postgres"),
    ),
)
SERVERS = (MARIADB, POSTGRESQL)


def servers_of(site: Site) -> tuple[Server, ...]:
    """The database servers that a site runs."""
    modules = site.application.modules if site.application is not None else {}
    return tuple(each for each in SERVERS if each.module in modules)


def _answer(site: Site, server: Server, question: str) -> str:
    answers = site.application.answers if site.application is not None else {}
    return str(answers.get(server.module, {}).get(question, ""))


def against(rules: Sequence[str], source: Site, target: Site) -> list[Problem]:
    """What speaks against bringing the data of ``source`` into ``target``, and against the rules for that."""
    problems = []
    one, other = (set(site.application.modules if site.application is not None else ()) for site in (source, target))
    differing = sorted(one ^ other) or sorted({each.name for each in source.volumes} ^ {v.name for v in target.volumes})
    if differing:
        told = f"{source.name} and {target.name} are made of other modules or volumes: {', '.join(differing)}"
        problems.append(Problem("source", told, "bring both to the same first"))
    names = {each.name for each in target.volumes}
    problems += [
        Problem(
            "masks",
            f"there is no volume {volume!r} for the rule {volume}/{pattern}",
            f"it has {', '.join(sorted(names)) or 'none'}",
        )
        for volume, pattern in masks.patterns(rules)
        if volume not in names
    ]
    found = servers_of(target)
    if masks.columns(rules) and len(found) != 1:
        many = ", ".join(each.module for each in found) or "none"
        problems.append(Problem("masks", f"rules for columns need one database server, and it has {many}"))
    if needs_washing(rules, source, target) and source.wanted is not Wanted.RUNNING and not problems:
        problems.append(Problem("source", f"{source.name} does not run, so its databases cannot be read", "start it"))
    for server in found if not differing else ():
        before, after = (_answer(site, server, "database") for site in (source, target))
        if server is MARIADB and before != after:
            told = f"MariaDB's database is called {before!r} there and {after!r} here"
            problems.append(Problem("source", told, "alveole site configure: give both one name"))
    return problems


def needs_washing(rules: Sequence[str], source: Site, target: Site) -> bool:
    """Whether rows have to change on the way: by rules, or because a database or its user is called otherwise."""
    named = any(
        _answer(source, server, question) != _answer(target, server, question)
        for server in servers_of(target)
        for question in ("database", "user")
    )
    return bool(masks.columns(rules)) or named


class WashingVerbs(Trials):
    def _washed(
        self, live: Live, rules: Sequence[str], source: Site, target: Site, taken: protocol.BackupMade, id: str
    ) -> protocol.BackupMade:
        """A backup called ``id`` of what became of ``taken``. Raises what a rule, or a server, says."""
        with self._clone(msgspec.structs.replace(target, wanted=Wanted.RUNNING, release=None), target.base) as made:
            copy = _servers_only(made)
            limits = msgspec.structs.replace(self._limits(target.plan), internet=False)
            needed = compile_site(copy, self.settings, {copy.plan: limits})
            # First, and then the volumes that no backup of a running site holds are made beside these.
            self._unpack(live, taken, copy, 1, masks.patterns(rules))
            hit("syncing.copied")
            for kind in _STAGES:
                for item in (each for each in needed if each.id.kind is kind):
                    live.show(f"a copy for masking: {kind}")
                    self._make(Step(item.id, Action.CREATE, item.digest, item.spec, "data are masked in it"))
            for server in servers_of(target):
                self._mask(live, server, rules, source, copy)
            hit("syncing.masked")
            live.show("saving what was masked")
            request = protocol.CreateBackup(id, copy.id, copy.number, copy.slot, 1, None, "{}", target.volumes)
            kept: protocol.BackupMade = self.agent.call(request, say=live.show)
        return kept

    def _unpack(self, live: Live, backup: protocol.BackupMade, site: Site, generation: int, without: Patterns) -> None:
        request = protocol.RestoreBackup(
            backup.snapshot,
            backup.digest,
            site.id,
            site.number,
            generation,
            self._limits(site.plan).disk_bytes,
            tuple(without),
        )
        self.agent.call(request, say=live.show)

    def _mask(self, live: Live, server: Server, rules: Sequence[str], source: Site, copy: Site) -> None:
        database = _answer(copy, server, "database")
        for name, sql in _renaming(server, source, copy):
            self._ask(live, server, copy, name, sql)
        columns = masks.columns(rules)
        if columns:
            live.show(f"masking {len(columns)} columns")
            self._ask(live, server, copy, database, masks.statements(server.format, columns))
            live.say(f"{server.module}: {len(columns)} columns are masked")

    def _ask(self, live: Live, server: Server, copy: Site, database: str, sql: Sequence[str]) -> None:
        if server is MARIADB:
            # One statement a line, so that the line of an error is that of its rule.
            argv = (*server.program, "--batch", f"--database={database}", "--execute=" + ";\n".join(sql))
        else:
            argv = (*server.program, "-d", database, *(word for each in sql for word in ("-c", each)))
        check = HealthCheck(name="masking", argv=argv, uid=server.uid)
        (link,) = self.agent.call(protocol.CheckHealth(copy.id, copy.slot, (check,), _SECONDS))
        if not link.ok:
            said = link.came.partition(": ")[2].strip() or link.came
            live.say(said, level="output")
            problem = Problem(
                "masks", f"{server.module} could not mask the data: {said[-300:]}", "see: alveole app set --mask"
            )
            raise Refused(problems=(problem,))


def _servers_only(site: Site) -> Site:
    """``site`` with nothing but its database servers; it answers no request, so none is waited for."""
    uids = {each.uid for each in servers_of(site)}
    run = msgspec.structs.replace(
        site.run,
        processes=tuple(each for each in site.run.processes if each.uid in uids),
        tasks=tuple(each for each in site.run.tasks if each.uid in uids),
        checks=(),
        logs=(),
        health="",
    )
    volumes = tuple(each for each in site.volumes if each.uid in uids)
    return msgspec.structs.replace(site, run=run, volumes=volumes)


def _renaming(server: Server, source: Site, target: Site) -> list[tuple[str, Sequence[str]]]:
    """Statements, with the database to be in, after which database and user are called as ``target`` says; the
    password of the source's user does not stay."""
    base, own = (_answer(source, server, question) for question in ("database", "user"))
    new_base, new = (_answer(target, server, question) for question in ("database", "user"))

    def name(text: str) -> str:
        return identifier(server.format, text)

    if server is MARIADB:
        gone = f"DROP USER IF EXISTS {quote(server.format, own)}@'localhost'"
        return [(new_base, (gone,))] if own != new else []
    steps: list[tuple[str, Sequence[str]]] = []
    if base != new_base:
        moved = f"ALTER DATABASE {name(base)} RENAME TO {name(new_base)}"
        steps.append(("postgres", (f"DROP DATABASE IF EXISTS {name(new_base)}", moved)))
    if own != new:
        given = f"REASSIGN OWNED BY {name(own)} TO {name(new)}"
        steps.append((new_base, (given, f"DROP OWNED BY {name(own)}", f"DROP ROLE {name(own)}")))
    return steps
