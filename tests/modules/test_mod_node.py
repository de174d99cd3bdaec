"""node: a server with Express from npm, found by itself, built with and without a lock, updated, kept."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from modkit import ModuleSite, ModuleSites, base_of, round_trip

import registrykit
from instance import Instance
from instancekit import directory

pytestmark = pytest.mark.skipif(not registrykit.reachable(*registrykit.NPM), reason="npm's registry is not reachable")

EXPRESS = """
const express = require("express"), fs = require("fs"), app = express();
const notes = process.env.DATA_DIR + "/notes";
app.get("/", (request, response) => response.json({
  word: "%s", kept: fs.existsSync(notes) ? fs.readFileSync(notes, "utf8") : "",
  native: require("../build/Release/addon.node").answer,
  express: require.resolve("express"), uid: process.getuid(), mode: process.env.NODE_ENV,
}));
app.listen(process.env.PORT);
"""
PACKAGE = {
    "name": "shop",
    "version": "1.0.0",
    "private": True,
    "scripts": {"start": "node src/server.js", "build": "node build.js"},
    "dependencies": {"express": "4.19.2"},
    "devDependencies": {"left-pad": "1.3.0"},
}
BUILD = "require('fs').writeFileSync('built.txt', require('left-pad')('7', 3, '0'));"


#: A native addon: compiled by node-gyp when the packages are installed.
ADDON = {
    "binding.gyp": json.dumps({"targets": [{"target_name": "addon", "sources": ["addon.cc"]}]}),
    "addon.cc": """
#include <node_api.h>
static napi_value Init(napi_env env, napi_value exports) {
  napi_value answer;
  napi_create_int32(env, 42, &answer);
  napi_set_named_property(env, exports, "answer", answer);
  return exports;
}
NAPI_MODULE(NODE_GYP_MODULE_NAME, Init)
""",
}
#: Another server, whose package has newer versions than its lock names.
LOCKED = {
    "package.json": json.dumps({"name": "shop", "version": "1.0.0", "dependencies": {"left-pad": "^1.0.0"}}),
    "package-lock.json": json.dumps(
        {
            "name": "shop",
            "version": "1.0.0",
            "lockfileVersion": 3,
            "packages": {
                "": {"name": "shop", "version": "1.0.0", "dependencies": {"left-pad": "^1.0.0"}},
                "node_modules/left-pad": {"version": "1.2.0"},
            },
        }
    ),
    "src/server.js": """
const version = require("left-pad/package.json").version;
require("http").createServer((_, response) => response.end(`left-pad ${version}`)).listen(process.env.PORT);
""",
}


def _content(word: str) -> dict[str, str]:
    return {"package.json": json.dumps(PACKAGE), "src/server.js": EXPRESS % word, "build.js": BUILD, **ADDON}


@pytest.mark.turn
def test_express_from_delivery_to_restore(alveole: Instance, site: ModuleSites, tmp_path: Path) -> None:
    name = "found-node"
    place = directory(tmp_path / "one", _content("one"))
    with base_of(alveole, name, ["--from", str(place), "--defaults"]):
        done = alveole.cli("site", "create", name, "--from", str(place), "--build-network", "--defaults", seconds=1500)
    assert "node: package.json" in done.err and "src/server.js" in done.err
    it = ModuleSite(alveole, name)
    site.made.append(it)
    it.run("/bin/sh", "-c", "printf remember > /data/files/notes")
    # The script "build" ran with what only it needs, which is gone afterwards.
    assert it.run("cat", "/site/current/built.txt") == "007"
    assert "left-pad" not in it.run("ls", "/site/current/node_modules").split()

    def check() -> None:
        found = json.loads(it.get("/").text)
        assert (found["word"], found["kept"], found["uid"], found["mode"]) == ("one", "remember", 1000, "production")
        assert found["native"] == 42, "and the base that runs it has no compiler"
        assert found["express"].startswith("/site/current/node_modules/express/")

    round_trip(it, check)
    it.cli("update", "--from", str(directory(tmp_path / "two", _content("two"))))
    assert json.loads(it.get("/").text)["word"] == "two"
    # With a lock its very versions are installed, whatever else would fit.
    it.cli("update", "--from", str(directory(tmp_path / "three", LOCKED)))
    assert it.get("/").text == "left-pad 1.2.0"


def test_without_any_content(site: ModuleSites) -> None:
    it = site("node")
    assert it.get("/").title == "It works"
