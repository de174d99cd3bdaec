"""PostgreSQL: a page that stores rows and finds them again; users, dumps and plans; nobody else reaches it."""

from __future__ import annotations

from modkit import HOSTILE, ModuleSite, ModuleSites, restarted, round_trip
from servicekit import shut

#: A password that ends strings of SQL, of shells and of files of PostgreSQL, were it not quoted.
PASSWORD = "it's\\a$(id):`b`\"{%;--"
PAGE = r"""<?php
$known = json_decode(file_get_contents(getenv('POSTGRESQL_CONNECTION')));
$db = pg_connect("host='$known->socket' dbname='$known->database' user='$known->user' password='"
    . addcslashes($known->password, "'\\") . "'");
pg_query($db, 'CREATE TABLE IF NOT EXISTS note (number serial, text text)');
if (isset($_POST['text'])) {
    pg_query_params($db, 'INSERT INTO note (text) VALUES ($1)', [$_POST['text']]);
}
header('Content-Type: application/json');
echo json_encode(pg_fetch_all_columns(pg_query($db, 'SELECT text FROM note ORDER BY number')));
"""
PSQL = ("psql", "-X", "-At", "-v", "ON_ERROR_STOP=1")


def sql(site: ModuleSite, statement: str, *, status: int = 0) -> str:
    """As the site's own user, who needs to say nothing: its environment knows."""
    return site.run(*PSQL, "-c", statement, status=status).strip()


def test_a_page_that_stores(site: ModuleSites) -> None:
    it = site("postgresql", "php", content={"index.php": PAGE}, postgresql__password=PASSWORD, database="notes")
    for text in HOSTILE:
        it.post("/", {"text": text})
    sql(it, "CREATE TABLE big AS SELECT generate_series(1, 20000) AS n, repeat('x', 100) AS t")

    def check() -> None:
        assert it.get("/").json == list(HOSTILE)
        assert sql(it, "SELECT count(*), current_user FROM big") == "20000|notes"

    round_trip(it, check)
    # The dump was of a running server: its files were left out, and made anew.
    assert "postgresql-restore" in it.logs() and "postgresql-install" not in it.logs()


def test_what_only_its_owner_may(site: ModuleSites) -> None:
    it = site("postgresql", "php", content={"index.php": PAGE}, postgresql__password=PASSWORD, user="owner")
    other = site("nginx", stem="other")
    assert it.get("/").json == []
    sql(it, "CREATE ROLE another", status=1)
    sql(it, "COPY note TO '/tmp/x'", status=1)
    it.run(*PSQL, "-U", "postgres", "-d", "postgres", "-c", "SELECT 1", status=2)
    it.run("env", "PGPASSFILE=/dev/null", *PSQL, "-w", "-c", "SELECT 1", status=2)
    it.run("cat", "/config/postgresql/apply.sql", status=1)
    shut(it, 5432, other=other)
    # Another password is taken over by a server that goes on.
    assert restarted(it, postgresql__password="Other:pass'word\\") == set()
    assert sql(it, "SELECT current_user") == "owner" and it.get("/").json == []
    it.run("env", "PGPASSFILE=/dev/null", f"PGPASSWORD={PASSWORD}", *PSQL, "-w", "-c", "SELECT 1", status=2)


def test_a_backup_of_a_stopped_site_holds_the_files(site: ModuleSites) -> None:
    it = site("postgresql", "php", content={"index.php": PAGE})
    it.post("/", {"text": "asleep"})
    it.cli("stop")
    saved = it.backup()
    it.destroy()
    it.restore(saved)
    # What was destroyed comes back running.
    it.cli("start", status=None)
    assert it.get("/").json == ["asleep"]
    assert "postgresql-restore" not in it.logs()


def test_every_optimisation_runs(site: ModuleSites) -> None:
    it = site(
        "postgresql", "php", content={"index.php": PAGE}, postgresql__extensions=["hstore", "pg_trgm"], version="dev"
    )
    assert sql(it, "SELECT 'a=>b'::hstore -> 'a', similarity('word', 'words') > 0.5") == "b|t"
    small = int(sql(it, "SHOW max_connections"))
    it.post("/", {"text": "secret in a statement"})
    assert "secret in a statement" in it.logs(), "in development statements are shown"
    it.configure(optimisation="huge", version="prod")
    assert int(sql(it, "SHOW max_connections")) > small
    assert sql(it, "SHOW shared_buffers") == "51MB", "40 % of the plan's 128"
    assert it.get("/").json == ["secret in a statement"]
    slow = it.alveole.cli("op", "run", it.name, "postgresql-slow-queries").out
    assert "SELECT text FROM note" in slow and "mean_ms" in slow and "secret in a statement" not in slow


def test_refusals(site: ModuleSites) -> None:
    it = site("postgresql", "php", content={"index.php": PAGE})
    refused = it.cli("configure", "--set", "database=Bad Name", "--set", "user=postgres", "--json", "--yes", status=2)
    fields = {each["field"] for each in refused.json["problems"]}
    assert fields == {"answers.postgresql.database", "answers.postgresql.user"}
