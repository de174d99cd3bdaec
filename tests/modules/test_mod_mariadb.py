"""MariaDB under an application of one's own: apache, php and mysql, as Pkgi's example; what is kept, what restarts."""

from __future__ import annotations

import json
import time

from modkit import ModuleSites, png, restarted, round_trip

APP = """<?php
$to = json_decode(file_get_contents(getenv('MARIADB_CONNECTION')), true);
mysqli_report(MYSQLI_REPORT_ERROR | MYSQLI_REPORT_STRICT);
$db = new mysqli($to['host'], $to['user'], $to['password'], $to['database'], 0, $to['socket']);
$db->query('CREATE TABLE IF NOT EXISTS notes (id INT AUTO_INCREMENT PRIMARY KEY, text VARCHAR(200))');
if ($_SERVER['REQUEST_METHOD'] === 'POST') {
    if (isset($_FILES['file'])) {
        move_uploaded_file($_FILES['file']['tmp_name'], getenv('DATA_DIR') . '/sent');
    }
    $new = $db->prepare('INSERT INTO notes (text) VALUES (?)');
    $new->execute([$_POST['text']]);
}
header('Content-Type: application/json');
echo json_encode([
    'notes' => array_column($db->query('SELECT text FROM notes ORDER BY id')->fetch_all(MYSQLI_ASSOC), 'text'),
    'sent' => is_file(getenv('DATA_DIR') . '/sent') ? filesize(getenv('DATA_DIR') . '/sent') : 0,
    'address' => $_SERVER['REMOTE_ADDR'], 'https' => $_SERVER['HTTPS'] ?? '', 'host' => $_SERVER['HTTP_HOST'],
    'errors' => ini_get('display_errors'), 'pool' => ini_get('opcache.memory_consumption'),
]);
"""
CONTENT = {"index.php": APP, ".htaccess": "RewriteEngine On\nRewriteRule ^pretty/(.*)$ index.php [L]\n"}


def test_apache_php_mysql(site: ModuleSites) -> None:
    it = site("apache", "php", "mysql", stem="app", content=CONTENT)
    text = 'L\'abeille "Maja" \\ 🐝 <?php'
    it.post("/", {"text": text}, files={"file": ("bee.png", png())})
    it.post("/pretty/note", {"text": "second"})

    def check() -> None:
        page = it.get("/").json
        assert page["notes"] == [text, "second"] and page["sent"] == len(png())
        assert page["address"] in ("127.0.0.1", "::1") and page["https"] == "on"
        assert page["host"] == f"{it.name}.localhost:{it.alveole.https}"

    round_trip(it, check)
    assert it.get("/no/such/file").json["notes"] == [text, "second"], "what is no file is the front page's"
    assert it.get("/.htaccess", status=None).status == 403
    assert it.get("/", headers={"X-Real-IP": "8.8.8.8", "X-Forwarded-For": "8.8.8.8"}).json["address"] == "127.0.0.1"


def test_one_answer_restarts_one_process(site: ModuleSites) -> None:
    it = site("nginx", "php", "mariadb", stem="app", content={"index.php": APP})
    it.post("/", {"text": "kept"})
    assert restarted(it, connections=40) == {"mariadb"}
    assert it.get("/").json["notes"] == ["kept"]
    assert restarted(it, mariadb__password="another'\"\\ one") == {"mariadb"}
    assert it.get("/").json["notes"] == ["kept"], "the new password holds on both sides"
    assert restarted(it, processes=3) == {"php"}
    assert restarted(it, listing=True) == {"nginx"}
    page = it.get("/").json
    assert page["errors"] in ("0", "") and page["pool"] == "64"
    it.configure(version="dev", optimisation="big")
    page = it.get("/").json
    assert page["notes"] == ["kept"] and page["errors"] == "1" and page["pool"] == "128"
    pool = it.run("/usr/bin/mariadb", "--batch", "--skip-column-names", "--execute=SELECT @@innodb_buffer_pool_size")
    assert int(pool) == 128 * 1024 * 1024
    it.post("/absent.php", status=None)


def test_what_people_made_in_the_database_comes_back(site: ModuleSites) -> None:
    it = site("mariadb", stem="db")
    words = "CREATE TABLE t (n INT); INSERT INTO t VALUES (7); CREATE VIEW v AS SELECT n * 6 AS m FROM t;"
    it.run("/usr/bin/mariadb", "site", f"--execute={words}")
    it.run("/usr/bin/mariadb", "--no-defaults", "--execute=CREATE DATABASE other; CREATE USER eve@localhost", user=2001)

    def check() -> None:
        found = it.run("/usr/bin/mariadb", "--batch", "--skip-column-names", "site", "--execute=SELECT m FROM v")
        assert found.strip() == "42"
        admin = "SELECT User FROM mysql.user; SHOW DATABASES"
        found = it.run("/usr/bin/mariadb", "--batch", "--skip-column-names", f"--execute={admin}", user=2001)
        assert {"eve", "other", "site"} <= set(found.split()) and "root" not in found.split()

    round_trip(it, check)
    # A cold backup holds the files themselves.
    it.cli("stop")
    saved = it.backup()
    it.alveole.destroy(it.name)
    it.restore(saved)
    it.cli("start", status=None)
    check()


def test_killed_in_the_middle_it_comes_back(site: ModuleSites) -> None:
    it = site("nginx", "php", "mariadb", stem="app", content={"index.php": APP})
    it.post("/", {"text": "before"})
    it.run("/bin/sh", "-c", "kill -9 $(cat /run/mariadb/mysqld.pid)", user=2001)
    for _ in range(100):
        page = it.get("/", status=None)
        if page.status == 200 and page.raw.startswith(b"{"):
            break
        time.sleep(0.2)
    assert json.loads(it.get("/").raw)["notes"] == ["before"]
