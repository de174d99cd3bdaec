"""PHP: uploads, limits, what the two versions and the extensions do."""

from __future__ import annotations

from modkit import ModuleSites, png, restarted, round_trip

INFO = """<?php
if (isset($_FILES['file'])) {
    move_uploaded_file($_FILES['file']['tmp_name'], '/data/files/' . basename($_FILES['file']['name']));
}
if (isset($_GET['fail'])) { absent(); }
session_start();
$_SESSION['visits'] = ($_SESSION['visits'] ?? 0) + 1;
echo json_encode([
    'extensions' => get_loaded_extensions(),
    'files' => array_values(array_diff(scandir('/data/files'), ['.', '..'])),
    'visits' => $_SESSION['visits'],
    'user' => posix_getuid(),
    'uri' => $_SERVER['REQUEST_URI'],
]);
"""


def test_an_application(site: ModuleSites) -> None:
    it = site("php", stem="php", content={"index.php": INFO, "data.txt": "plain"}, extensions=["gd", "sqlite3"])
    first = it.get("/").json
    assert first["user"] == 1000 and {"gd", "sqlite3", "mbstring", "curl"} <= set(first["extensions"])
    assert it.get("/").json["visits"] == 2
    it.post("/", {}, files={"file": ("bee.png", png())})
    for path in ("/any/pretty?x=1", "/any/pretty"):
        assert it.get(path).json["uri"] == path, "run by the front page, whose source is never shown"
    assert it.get("/data.txt").text == "plain"
    it.get("/data.txt/x.php", status=404)

    def check() -> None:
        assert it.get("/").json["files"] == ["bee.png"]

    round_trip(it, check)


def test_limits_and_errors(site: ModuleSites) -> None:
    it = site("php", stem="php", content={"index.php": INFO}, upload="1M")
    big = b"x" * 3_000_000
    assert it.post("/", {}, files={"file": ("big", big)}, status=None).status in (200, 413)
    assert it.get("/").json["files"] == []
    assert restarted(it, upload="8M") == {"php", "nginx"}
    it.post("/", {}, files={"file": ("big", big)})
    assert it.get("/").json["files"] == ["big"]
    assert "absent" not in it.get("/?fail=1", status=500).text
    assert "undefined function absent" in it.logs()
    assert restarted(it, errors=True) == {"php"}
    assert "undefined function absent" in it.get("/?fail=1", status=None).text
