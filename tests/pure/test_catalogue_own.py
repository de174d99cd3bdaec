"""The modules that come with Alvéole: each is as lint wants it, and together they fit into one catalogue."""

from __future__ import annotations

import itertools
import re
import subprocess
from collections import defaultdict
from pathlib import Path

import msgspec
import pytest

from alveole.catalogue.compose import SiteContext, compose
from alveole.catalogue.lint import lint
from alveole.catalogue.manifest import Format, LogEntry, Question
from alveole.catalogue.sources import OWN_FOLDER, Catalogue, load
from alveole.host import apt
from alveole.model.site import BUILT_IN_PLANS

FOLDERS = sorted(each for each in OWN_FOLDER.iterdir() if (each / "module.toml").is_file())
CONTEXT = SiteContext(
    name="my-site", domain="my-site.example.org", url="https://my-site.example.org", limits=BUILT_IN_PLANS[1].limits
)
#: Files of volumes carry these numbers: they never change.
ACCOUNTS = {
    **{"mariadb": 2001, "postgres": 2002, "redis": 2003, "memcached": 2004, "openldap": 2005},
    **{"search": 2007, "ircd": 2008, "shibboleth": 2009},
}


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda each: each.name)
def test_a_module_is_as_lint_wants_it(folder: Path) -> None:
    """Threats 11 and 12: also with hostile answers, in development and production, with each of its choices."""
    assert [str(each.problem()) for each in lint(folder) if not each.warning] == []


def test_none_is_set_aside() -> None:
    catalogue = load(admin=Path("/nonexistent"))
    assert catalogue.aside == {}
    assert set(catalogue.modules) == {each.name for each in FOLDERS}


def test_their_names_differ() -> None:
    """Whatever modules somebody puts together, nothing clashes that could have been named differently."""
    modules = load(admin=Path("/nonexistent")).modules.values()
    for kind in ("processes", "tasks", "checks"):
        owners: defaultdict[str, list[str]] = defaultdict(list)
        for module in modules:
            for entry in getattr(module.manifest, kind):
                owners[entry.name].append(module.name)
        assert {name: found for name, found in owners.items() if len(set(found)) > 1} == {}, kind
    volumes: defaultdict[str, set[object]] = defaultdict(set)
    for module in modules:
        for volume in module.manifest.volumes:
            volumes[volume.name].add((volume.path, volume.user, volume.backup))
    assert {name: found for name, found in volumes.items() if len(found) > 1} == {}
    uids: defaultdict[int, set[str]] = defaultdict(set)
    for module in modules:
        for account in module.manifest.accounts:
            uids[account.uid].add(account.name)
    assert {uid: names for uid, names in uids.items() if len(names) > 1} == {}


def test_the_ids_of_accounts_stay() -> None:
    modules = load(admin=Path("/nonexistent")).modules.values()
    found = {each.name: each.uid for module in modules for each in module.manifest.accounts}
    assert {name: found.get(name) for name in ACCOUNTS} == ACCOUNTS


#: What nobody can work out.
NEEDED = {"shibboleth": {"shibboleth": {"idp": "https://idp.example.org/idp"}}}
_SCRIPT = re.compile(r'(?m)^(?:format = "shell"|path = ".*\.sh")')
WITH_SCRIPTS = [each for each in FOLDERS if _SCRIPT.search((each / "module.toml").read_text())]


@pytest.mark.parametrize("folder", WITH_SCRIPTS, ids=lambda each: each.name)
def test_scripts_are_sound_once_rendered(folder: Path, tmp_path: Path) -> None:
    """Threat 11: what a shell reads has its syntax whatever was answered."""
    catalogue = load(admin=Path("/nonexistent"))
    module = catalogue.modules[folder.name]
    paths = {each.path for each in module.manifest.files if each.format is Format.SHELL or each.path.endswith(".sh")}
    assert paths
    for version, optimisation in itertools.product(("dev", "prod"), ("normal", "big", "huge")):
        given = {"": {"version": version, "optimisation": optimisation}, **NEEDED.get(module.name, {})}
        made = compose(catalogue, [module.name], given, CONTEXT)
        for each in made.files:
            if each.path in paths:
                script = tmp_path / "script"
                script.write_text(each.text)
                done = subprocess.run(["/bin/sh", "-n", str(script)], capture_output=True, text=True, check=False)
                assert done.returncode == 0, f"{each.path}: {done.stderr}"


def test_the_logs_that_modules_name_are_rotated() -> None:
    """Each under its owner; not those that a module turns by itself, and none when somebody says no."""
    catalogue = load()
    asked = ["logrotate", "mariadb", "weblog", "nginx"]

    def rotated(catalogue: Catalogue = catalogue, **answers: object) -> dict[str, list[str]]:
        made = compose(catalogue, asked, {"": answers}, CONTEXT)
        return {
            each.path: re.findall(r"^(/\S+|\"/[^\"]+\") \{$", each.text, re.MULTILINE)
            for each in made.files
            if each.path.startswith("logrotate/") and each.path.endswith(".conf")
        }

    assert catalogue.modules["weblog"].manifest.logs[0].bounded
    mine = ['"/data/files/*.log"', '"/data/files/log/*.log"', '"/data/files/logs/*.log"']
    assert rotated() == {"logrotate/mariadb.conf": ['"/data/mariadb/slow.log"'], "logrotate/site.conf": mine}
    assert rotated(others=False) == {"logrotate/site.conf": mine}
    weblog = catalogue.modules["weblog"]
    unbounded = msgspec.structs.replace(weblog.manifest, logs=(LogEntry(path="/data/weblog/access.log"),))
    modules = {**catalogue.modules, "weblog": msgspec.structs.replace(weblog, manifest=unbounded)}
    assert rotated(Catalogue(modules.values()))["logrotate/site.conf"] == [*mine, '"/data/weblog/access.log"']


@pytest.mark.parametrize("name", ["python", "ruby", "node"])
def test_headers_are_there_for_building_only(name: str) -> None:
    """What a package is linked with is in both bases, its headers where it is compiled; and only when asked for."""

    def made(*libraries: str) -> tuple[set[str], set[str]]:
        composition = compose(load(), [name], {name: {"libraries": libraries}}, CONTEXT)
        assert composition.application.building is not None
        return set(composition.packages), set(composition.application.building.packages)

    run, build = made()
    assert not {each for each in build if each.startswith("lib") and each.endswith("-dev")} - {"libnode-dev"}
    with_run, with_build = made("postgresql", "ldap")
    assert with_run - run == {"libpq5", "libldap-2.5-0", "libsasl2-2"}
    assert with_build - build == {*(with_run - run), "libpq-dev", "libldap-dev", "libsasl2-dev"}
    everything = made(*(each.value for each in _question(name, "libraries").choices))
    assert everything[0] < everything[1] and apt.unknown(everything[1]) == []


def _question(module: str, name: str) -> Question:
    return next(each for each in load().modules[module].manifest.questions if each.name == name)
