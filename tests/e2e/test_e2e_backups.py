"""Backups of sites that run: into the same site, as a new one, after a destroy; and damaged ones."""

from __future__ import annotations

from pathlib import Path

from apps import ON_PORT, ask
from e2ekit import Sites

from instance import Instance
from instancekit import page, until
from loadkit import Load

VOLUME = [{"name": "data", "path": "/data"}]


def write(alveole: Instance, name: str, text: str) -> None:
    alveole.inside(name, f"open('/data/file','w').write({text!r})")


def read(alveole: Instance, name: str) -> str:
    return alveole.inside(name, "print(open('/data/file').read())").strip()


def test_into_the_same_site(alveole: Instance, sites: Sites) -> None:
    name = sites.create(ask("old"), volumes=VOLUME, env={"A": "saved"}, **ON_PORT)
    write(alveole, name, "old")
    with Load(alveole, name, threads=2) as load:
        saved = alveole.cli("backup", "create", name, "--json").json
        alveole.update(name, ask("new"))
        alveole.cli("site", "set", name, "--env", "A=changed")
        write(alveole, name, "new")
        listed = alveole.cli("backup", "list", name, "--json").json
        assert [each["id"] for each in listed] == [saved["id"]] and listed[0]["exists"] is True
        alveole.cli("backup", "restore", saved["id"])
    load.check()
    assert '"old"' in alveole.fetch(name).body and '"A": "saved"' in alveole.fetch(name).body
    assert read(alveole, name) == "old"
    alveole.cli("backup", "delete", saved["id"], "--yes")
    alveole.cli("backup", "restore", saved["id"], status=4)


def test_as_a_new_site_and_after_a_destroy(alveole: Instance, sites: Sites) -> None:
    domain = "kept.example.org"
    name = sites.create(ask("mine"), volumes=VOLUME, domains=[domain], plan="medium", **ON_PORT)
    write(alveole, name, "mine")
    saved = alveole.cli("backup", "create", name, "--json").json["id"]
    twin = sites.name("twin")
    made = alveole.cli("backup", "restore", saved, "--as", twin, "--json").json
    assert made["name"] == twin and made["plan"] == "medium" and made["domains"] == []
    assert read(alveole, twin) == "mine" and '"mine"' in alveole.fetch(twin).body
    write(alveole, twin, "other")
    assert read(alveole, name) == "mine", "two sites, two volumes"
    alveole.destroy(name)
    assert alveole.cli("backup", "list", "--json").json[0]["exists"] is False
    again = alveole.cli("backup", "restore", saved, "--json").json
    assert again["name"] == name and again["domains"] == [domain]
    assert read(alveole, name) == "mine" and alveole.fetch(domain).status == 200
    alveole.cli("backup", "restore", saved, "--as", twin, status=3)
    alveole.cli("backup", "restore", saved, "--as", "Bad Name", status=2)
    alveole.cli("backup", "delete", saved, "--yes")


def test_a_static_site(alveole: Instance, sites: Sites) -> None:
    name = sites.create(page("first"))
    saved = alveole.cli("backup", "create", name, "--json").json["id"]
    alveole.update(name, page("second"))
    alveole.cli("backup", "restore", saved)
    assert "first" in alveole.fetch(name).body
    alveole.verb(name, "stop")
    alveole.cli("backup", "restore", saved)
    assert alveole.fetch(name).status == 503, "a stopped site stays stopped"
    alveole.cli("backup", "delete", saved, "--yes")


def test_a_damaged_backup_is_refused_and_named(alveole: Instance, sites: Sites) -> None:
    """Fault 14: nothing of it is used; the live site is not touched."""
    name = sites.create(ask("live"), volumes=VOLUME, **ON_PORT)
    write(alveole, name, "live " + "x" * 5000)
    before = set((alveole.state / "backups").rglob("data/*/*"))
    saved = alveole.cli("backup", "create", name, "--json").json["id"]
    packs = [file for file in set((alveole.state / "backups").rglob("data/*/*")) - before if file.is_file()]
    assert packs
    shown = alveole.site(name)
    for pack in packs:
        flip(pack)
    with Load(alveole, name, threads=1) as load:
        for more in ((), ("--as", sites.name("twin"))):
            done = alveole.cli("backup", "restore", saved, *more, "--json", status=None)
            assert done.status in (3, 5), done
            assert saved in done.out + done.err or "backup" in (done.out + done.err).lower()
    load.check(5)
    after = alveole.site(name)
    assert (after["release"], after["version"], after["state"]) == (shown["release"], shown["version"], "running")
    assert read(alveole, name).startswith("live")
    assert [each["name"] for each in alveole.api("GET", "/v1/sites")].count(sites.made[-1]) == 0
    alveole.cli("backup", "delete", saved, "--yes", status=None)
    for pack in packs:
        pack.unlink(missing_ok=True)
    until(lambda: alveole.site(name)["change"] is None, 30)


def flip(file: Path) -> None:
    file.chmod(0o600)
    content = bytearray(file.read_bytes())
    content[len(content) // 3] ^= 0xFF
    file.write_bytes(content)
