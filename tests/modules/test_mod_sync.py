"""One environment gets the data of another: personal data never reach it, and what fails leaves it as it was."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from typing import Any

import pytest
from modkit import base_of

from instance import Instance
from instancekit import archive

APP = """<?php
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$to = json_decode(file_get_contents(getenv('MARIADB_CONNECTION')), true);
$db = new mysqli($to['host'], $to['user'], $to['password'], $to['database'], 0, $to['socket']);
$db->query('CREATE TABLE IF NOT EXISTS customers (id INT PRIMARY KEY, mail VARCHAR(80) UNIQUE, name VARCHAR(80),
    phone VARCHAR(20), note TEXT, born DATE, tax VARCHAR(64), town VARCHAR(80) NOT NULL)');
$db->query('CREATE TABLE IF NOT EXISTS orders (id INT PRIMARY KEY, mail VARCHAR(80), total INT)');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    foreach (json_decode(file_get_contents('php://input'), true) as $sql) { $db->query($sql); }
    @mkdir(getenv('DATA_DIR') . '/scans');
    $who = str_contains($_SERVER['HTTP_HOST'], '-prod') ? 'ana.' . 'kovac' : 'nobody';
    file_put_contents(getenv('DATA_DIR') . '/scans/passport.pdf', $who);
    file_put_contents(getenv('DATA_DIR') . '/logo.txt', 'logo');
}
$here = new RecursiveDirectoryIterator(getenv('DATA_DIR'), FilesystemIterator::SKIP_DOTS);
$files = new RecursiveIteratorIterator($here);
echo json_encode(['customers' => $db->query('SELECT * FROM customers ORDER BY id')->fetch_all(MYSQLI_ASSOC),
    'joined' => $db->query('SELECT total FROM customers JOIN orders USING (mail) ORDER BY total')->fetch_all(),
    'files' => array_map(fn($each) => $each->getFilename(), iterator_to_array($files, false))]);
"""
ROWS = [
    """INSERT INTO customers VALUES (1, 'ana.kovac@mail.test', 'Ana Kovac', '+33612345678', 'owes Ana''s money',
        '1980-01-02', 'TAX-ana.kovac', 'Lyon'), (2, 'bo.berg@mail.test', 'Bo Berg', NULL, NULL, NULL, NULL, 'Oslo')""",
    "INSERT INTO orders VALUES (7, 'ana.kovac@mail.test', 42)",
]
RULES = [
    "customers.mail=email",
    "orders.mail=email",
    "customers.name=name",
    "customers.phone=phone",
    "customers.note=text:it's \\ gone",
    "customers.born=null",
    "customers.tax=hash",
]
PERSONAL = (b"ana.kovac", b"Ana Kovac", b"bo.berg", b"+33612345678", b"owes Ana", b"1980-01-02")


class Shop:
    """An application with PROD before PREPROD, so that both can be made alike by hand."""

    def __init__(self, alveole: Instance, name: str, *modules: str, content: dict[str, str]) -> None:
        self.alveole, self.name = alveole, name
        # One server, of which tests ask how it was told; see bases in modkit.
        words = ["--module", ",".join(modules), "--defaults"]
        with base_of(alveole, f"{name}-prod", words):
            body = {"name": name, "environments": ["prod", "preprod"], "accept": "at-once", "modules": modules}
            self.done(self.ask("POST", "", body))
        self.done(self.ask("POST", "/versions", {"version": "1", "upload": alveole.upload(archive(content))}))
        for environment in ("prod", "preprod"):
            self.step(environment, "deliver", version="1")
            self.step(environment, "deploy")

    def ask(self, method: str, path: str, body: Any = None) -> Any:
        return self.alveole.api(method, f"/v1/apps{f'/{self.name}{path}' if path or method != 'POST' else ''}", body)

    def done(self, change: Any, good: bool = True) -> Any:
        return self.alveole.ended(change["id"], good=good)

    def step(self, environment: str, verb: str, **body: Any) -> Any:
        return self.done(self.ask("POST", f"/environments/{environment}/{verb}", body))

    def sync(self, good: bool = True, **more: Any) -> Any:
        body = {"source": "prod", "data": True, "confirm": "preprod", **more}
        return self.done(self.ask("POST", "/environments/preprod/synchronise", body), good)

    def rules(self, *rules: str) -> None:
        self.ask("PATCH", "", {"masks": rules})

    def files(self, environment: str) -> Iterator[bytes]:
        """All that lies on the disk for an environment, wherever."""
        id = self.alveole.site(f"{self.name}-{environment}")["id"]
        for place in (self.alveole.state / "sites" / id, self.alveole.run_dir / "sites" / id):
            for file in place.rglob("*"):
                # The image of its disk is seen through its mount.
                if file.is_file() and not file.is_symlink() and file.name != "disk.img":
                    yield file.read_bytes()

    def end(self) -> None:
        self.done(self.ask("DELETE", f"?confirm={self.name}"))
        for environment in ("prod", "preprod"):
            self.alveole.destroy(f"{self.name}-{environment}")
        for each in self.alveole.api("GET", "/v1/backups"):
            if each["site"].startswith(f"{self.name}-"):
                self.alveole.cli("backup", "delete", each["id"], "--yes")


def holds(where: Iterator[bytes] | list[bytes]) -> set[bytes]:
    found = set()
    for content in where:
        found |= {word for word in PERSONAL if word in content}
    return found


@pytest.fixture(scope="module")
def shop(alveole: Instance) -> Iterator[Shop]:
    made = Shop(alveole, "syncshop", "nginx", "php", "mariadb", content={"index.php": APP})
    yield made
    made.end()


def page(shop: Shop, environment: str, body: Any = None) -> Any:
    headers = {"Content-Type": "application/json"}
    raw = json.dumps(body).encode() if body is not None else None
    name = f"{shop.name}-{environment}"
    answer = shop.alveole.fetch(name, "/", method="POST" if raw else "GET", headers=headers, body=raw, seconds=30)
    assert answer.status == 200, answer.body
    return json.loads(answer.raw)


@pytest.mark.slow
def test_personal_data_never_arrive(shop: Shop) -> None:
    """Masked by every kind of rule, they are in no file, dump or answer of PREPROD; PROD keeps its own."""
    page(shop, "prod", ROWS)
    page(shop, "preprod", ["INSERT INTO customers VALUES (9, 'old@x.test', 'Old', '', '', NULL, '', 'Rome')"])
    shop.rules(*RULES, "files/scans/*=removed", "customers.tuwn=hash")
    failed = shop.sync(good=False)
    assert failed["state"] == "failed" and "tuwn" in failed["problems"][0]["message"], failed["problems"]
    assert [each["town"] for each in page(shop, "preprod")["customers"]] == ["Rome"], "it is left as it was"
    assert not holds(shop.files("preprod"))
    shop.rules(*RULES, "files/scans/*=removed")
    plan = shop.ask("POST", "/environments/preprod/synchronise?dry_run=true", {"source": "prod", "data": True})
    assert not plan["refused"] and plan["saved"] and {each["name"] for each in plan["volumes"]} > {"mariadb"}
    before = {each["id"] for each in shop.alveole.api("GET", "/v1/backups")}
    words = ("app", "sync", "syncshop", "--from", "prod", "--to", "preprod", "--data")
    shown = shop.alveole.cli(*words, "--dry-run").out
    assert "PROD → PREPROD" in shown and "masked: customers.mail=email" in shown and "Nothing was done." in shown
    assert "yes" in shop.alveole.cli(*words, status=2).err, "nothing is lost where nobody can be asked"
    offered = re.search(r"alveole backup restore (b\w+)", shop.alveole.cli(*words, "--yes").out)
    assert offered is not None
    found = page(shop, "preprod")
    assert [each["town"] for each in found["customers"]] == ["Lyon", "Oslo"]
    ana, bo = found["customers"]
    assert ana["mail"].endswith("@example.invalid") and ana["mail"] != bo["mail"] and ana["name"].startswith("Name ")
    assert ana["phone"].startswith("+999") and ana["note"] == "it's \\ gone" and ana["born"] is None
    assert len(ana["tax"]) == 32 and bo["phone"] is None and bo["tax"] is None
    assert found["joined"] == [["42"]], "the same mail is the same mask in another table"
    assert "logo.txt" in found["files"] and "passport.pdf" not in found["files"]
    assert not holds([json.dumps(found).encode()]) and not holds(shop.files("preprod"))
    dump = shop.alveole.cli(
        "site",
        "exec",
        "--user",
        "2001",
        "--no-tty",
        "syncshop-preprod",
        "--",
        "/bin/sh",
        "-c",
        "mariadb-dump --no-defaults --socket=/run/mariadb/mysqld.sock --all-databases",
    ).out.encode()
    assert b"example.invalid" in dump and not holds([dump])
    assert "ana.kovac@mail.test" in json.dumps(page(shop, "prod"))
    saved = {each["id"] for each in shop.alveole.api("GET", "/v1/backups")} - before
    assert saved == {offered[1]}, "of PROD's data no backup is left"
    shop.alveole.cli("backup", "restore", offered[1])
    assert [each["town"] for each in page(shop, "preprod")["customers"]] == ["Rome"], "what it had is offered back"


PAGE = """<?php
$db = new PDO('pgsql:host=' . getenv('PGHOST') . ';dbname=' . getenv('PGDATABASE'), getenv('PGUSER'),
    json_decode(file_get_contents(getenv('POSTGRESQL_CONNECTION')))->password);
$db->setAttribute(PDO::ATTR_ERRMODE, PDO::ERRMODE_EXCEPTION);
$db->exec('CREATE TABLE IF NOT EXISTS people (id int PRIMARY KEY, mail text, phone varchar(14), tax varchar(64))');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    foreach (json_decode(file_get_contents('php://input'), true) as $sql) { $db->exec($sql); }
}
$rows = $db->query('SELECT *, current_database() AS base FROM people ORDER BY id');
echo json_encode($rows->fetchAll(PDO::FETCH_ASSOC));
"""


@pytest.mark.slow
@pytest.mark.turn
def test_postgresql_keeps_its_own_names_and_password(alveole: Instance) -> None:
    """The database and its owner are called by the site: those of PROD become those of PREPROD, masked."""
    made = Shop(alveole, "syncpg", "nginx", "php", "postgresql", content={"index.php": PAGE})
    try:
        ana = "INSERT INTO people VALUES (1, 'ana.kovac@mail.test', '+33612345678', 'TAX-ana.kovac')"
        page(made, "prod", [ana, "INSERT INTO people (id) VALUES (2)"])
        made.rules("people.mail=email", "public.people.phone=phone", "people.tax=hash")
        made.sync()
        ana, bo = page(made, "preprod")
        assert ana["base"] == "syncpg_preprod" and ana["mail"].endswith("@example.invalid") and bo["mail"] is None
        assert ana["phone"].startswith("+999") and len(ana["tax"]) == 32 and bo["phone"] is None
        roles = "SELECT string_agg(rolname, ' ' ORDER BY rolname) FROM pg_roles WHERE rolname LIKE 'syncpg%'"
        words = ("/usr/bin/env", "-u", "PGPASSFILE", "psql", "-X", "-A", "-t", "-U", "postgres", "-d", "postgres", "-c")
        found = made.alveole.cli("site", "exec", "--user", "2002", "--no-tty", "syncpg-preprod", "--", *words, roles)
        assert found.out.strip() == "syncpg_preprod", "PROD's role, and its password, did not come along"
        assert not holds(made.files("preprod"))
        assert page(made, "prod")[0]["mail"] == "ana.kovac@mail.test"
        made.sync()
        assert page(made, "preprod")[0]["mail"] != ana["mail"], "each time with another salt"
    finally:
        made.end()
