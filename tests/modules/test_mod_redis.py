"""Redis: values of a page outlive a restart and a restore; a password; what is a cache forgets."""

from __future__ import annotations

from modkit import HOSTILE, ModuleSites, restarted, round_trip
from servicekit import shut

PASSWORD = "a\"b\\c#$(id)'d"
PAGE = r"""<?php
$known = json_decode(file_get_contents(getenv('REDIS_CONNECTION')));
$redis = new Redis();
$redis->connect($known->socket);
$redis->auth($known->password);
if (isset($_POST['text'])) {
    $redis->rPush('notes', $_POST['text']);
}
header('Content-Type: application/json');
echo json_encode($redis->lRange('notes', 0, -1));
"""
CLI = ("redis-cli", "-s", "/run/redis/redis.sock")


def test_a_page_that_stores(site: ModuleSites) -> None:
    it = site("redis", "memcached", "php", content={"index.php": PAGE}, redis__password=PASSWORD)
    other = site("nginx", stem="other")
    for text in HOSTILE:
        it.post("/", {"text": text})

    def check() -> None:
        assert it.get("/").json == list(HOSTILE)

    round_trip(it, check)
    shut(it, 6379, other=other)
    assert "NOAUTH" in it.run(*CLI, "GET", "notes")
    it.run("cat", "/config/redis/redis.conf", status=1)
    # The page reads the new password from its file.
    assert restarted(it, redis__password="Another-Password9") == {"redis"}
    check()


def test_snapshots_and_a_cache(site: ModuleSites) -> None:
    it = site("redis", "memcached", "php", content={"index.php": PAGE}, persistence="snapshot", redis__memory="4M")
    it.post("/", {"text": "kept"})
    round_trip(it, lambda: _same(it.get("/").json, ["kept"]))
    it.configure(persistence="none")
    it.post("/", {"text": "forgotten"})
    it.restart()
    assert "forgotten" not in it.get("/").json
    known = it.run("sh", "-c", "php -r 'echo json_decode(file_get_contents(getenv(\"REDIS_CONNECTION\")))->password;'")
    shown = it.run("env", f"REDISCLI_AUTH={known}", *CLI, "CONFIG", "GET", "maxmemory*")
    assert "4194304" in shown and "allkeys-lru" in shown


def _same(found: object, wanted: object) -> None:
    assert found == wanted


def test_every_optimisation_runs(site: ModuleSites) -> None:
    it = site("redis", "memcached", "php", content={"index.php": PAGE}, optimisation="huge", version="dev")
    it.post("/", {"text": "here"})
    it.configure(optimisation="big", version="prod")
    assert it.get("/").json == ["here"]
