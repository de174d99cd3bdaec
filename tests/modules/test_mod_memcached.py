"""Memcached: pages of two requests share values; on a port or a socket; nobody else reaches it."""

from __future__ import annotations

from modkit import ModuleSites, round_trip
from servicekit import shut

PAGE = r"""<?php
$place = getenv('MEMCACHED');
$cache = new Memcached();
if ($place[0] === '/') {
    $cache->addServer($place, 0);
} else {
    [$host, $port] = explode(':', $place);
    $cache->addServer($host, (int) $port);
}
if (isset($_POST['size'])) {
    echo json_encode($cache->set('large', random_bytes((int) $_POST['size'])));
    exit;
}
$cache->add('hits', 0);
// The question whether the site is ready counts for nothing.
if (isset($_GET['hit'])) {
    $cache->increment('hits');
}
echo json_encode(['hits' => (int) $cache->get('hits'), 'limit' => current($cache->getStats())['limit_maxbytes']]);
"""


def test_a_cache(site: ModuleSites) -> None:
    it = site("redis", "memcached", "php", content={"index.php": PAGE}, memcached__memory="16M", item="512K")
    other = site("nginx", stem="other")
    assert [it.get("/?hit").json["hits"] for _ in range(3)] == [1, 2, 3]
    assert it.get("/").json["limit"] == 16 * 1024 * 1024
    assert it.post("/", {"size": 400_000}).json is True
    assert it.post("/", {"size": 600_000}).json is False
    shut(it, 11211, other=other)

    def check() -> None:
        assert it.get("/").json["limit"] == 16 * 1024 * 1024

    round_trip(it, check)
    assert it.get("/").json["hits"] == 0, "a cache forgets"
    # Its arguments changed, and where it listens is in everybody's environment.
    it.configure(listen="socket", optimisation="big", version="dev")
    assert [it.get("/?hit").json["hits"] for _ in range(2)] == [1, 2]
    assert it.run("bash", "-c", "exec 3<>/dev/tcp/127.0.0.1/11211", status=1) == ""
