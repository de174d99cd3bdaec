"""PHP: uploads, limits, what the two versions and the extensions do."""

from __future__ import annotations

import json
from pathlib import Path

from modkit import ModuleSite, ModuleSites, base_of, png, restarted, round_trip

from instance import Instance
from instancekit import directory

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


#: An application as Composer's users write it: a front page apart, classes found by name, and a package. That comes
#: from the content itself, so that nobody has to be asked for it.
COMPOSER = {
    "name": "shop/app",
    "require": {"shop/greeter": "*"},
    "repositories": [{"type": "path", "url": "packages/greeter"}, {"packagist.org": False}],
    "autoload": {"psr-4": {"Shop\\": "src/"}},
    "scripts": {"post-autoload-dump": "@php -r \"file_put_contents('discovered', 'by a script');\""},
}
FRONT = """<?php
require __DIR__ . '/../vendor/autoload.php';
echo json_encode([
    'word' => (new Shop\\Page())->word(),
    'version' => Composer\\InstalledVersions::getPrettyVersion('shop/greeter'),
    'uri' => $_SERVER['REQUEST_URI'],
    'discovered' => file_get_contents(__DIR__ . '/../discovered'),
]);
"""
PAGE = "<?php namespace Shop; class Page { function word() { return \\Greeter\\hello('WORD'); } }"


def application(word: str = "one", **more: str) -> dict[str, str]:
    return {
        "composer.json": json.dumps(COMPOSER),
        "public/index.php": FRONT,
        "public/style.css": "p{}",
        "src/Page.php": PAGE.replace("WORD", word),
        "packages/greeter/composer.json": json.dumps(
            {"name": "shop/greeter", "version": "1.0.0", "autoload": {"files": ["hello.php"]}}
        ),
        "packages/greeter/hello.php": '<?php namespace Greeter; function hello($word) { return "hello $word"; }',
        **more,
    }


def test_composer_and_a_folder_apart(alveole: Instance, site: ModuleSites, tmp_path: Path) -> None:
    name = "found-php"
    place = str(directory(tmp_path / "one", application()))
    with base_of(alveole, name, ["--from", place, "--defaults"]):
        done = alveole.cli("site", "create", name, "--from", place, "--defaults", seconds=1500)
    it = ModuleSite(alveole, name)
    site.made.append(it)
    assert "public/ is served, since public/index.php is there" in done.err
    assert it.get("/style.css").text == "p{}"
    # Names that are no file are the front page's, and nothing beside its folder is shown.
    for path in ("/", "/any/pretty?x=1", "/composer.json", "/src"):
        found = it.get(path).json
        assert found == {"word": "hello one", "version": "1.0.0", "uri": path, "discovered": "by a script"}
    assert it.run("sh", "-c", "command -v composer unzip; true") == ""
    # What the lock says is installed, whatever there is that is newer; an update needs no network either.
    lock = it.run("cat", "/site/current/composer.lock")
    newer = {"name": "shop/greeter", "version": "2.0.0", "autoload": {"files": ["hello.php"]}}
    two = application("two", **{"composer.lock": lock, "packages/greeter/composer.json": json.dumps(newer)})
    it.cli("update", "--from", str(directory(tmp_path / "two", two)))
    assert (it.get("/").json["word"], it.get("/").json["version"]) == ("hello two", "1.0.0")
    # A package that cannot be had: what runs goes on, and why is said once, and where the rest is.
    wanting = {"name": "shop/app", "require": {"alveole-tests/no-such-package": "^1.0"}}
    three = str(directory(tmp_path / "three", application("three", **{"composer.json": json.dumps(wanting)})))
    for options, why in (([], "--build-network"), (["--build-network"], "packagist.org")):
        done = it.cli("update", "--from", three, *options, status=2)
        assert "the build failed: /usr/bin/composer install" in done.err and why in done.err
        assert "alveole change show" in done.err.splitlines()[-1]
        lines = [line.strip() for line in done.err.splitlines() if len(line.strip()) > 20]
        assert len(lines) == len(set(lines)), "each line once"
    assert it.get("/").json["word"] == "hello two"
    # What brings its packages along is taken as it is.
    four = application("four", **{"vendor/autoload.php": "<?php echo 'brought along'; exit;"})
    it.cli("update", "--from", str(directory(tmp_path / "four", four)))
    assert it.get("/").text == "brought along"
