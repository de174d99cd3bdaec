"""java: an executable jar that answers HTTP, as one of Spring Boot does; compiled here from a few lines."""

from __future__ import annotations

import shutil
from pathlib import Path

import pytest
from modkit import ModuleSite, ModuleSites, base_of, round_trip

from instance import Instance
from instancekit import run

SOURCE = """
package shop;
import com.sun.net.httpserver.HttpServer;
import java.net.InetSocketAddress;
import java.nio.file.*;

public class Main {
    public static void main(String[] words) throws Exception {
        HttpServer server = HttpServer.create(new InetSocketAddress(Integer.parseInt(System.getenv("SERVER_PORT"))), 0);
        Path notes = Path.of(System.getenv("DATA_DIR"), "notes");
        server.createContext("/", exchange -> {
            String kept = Files.exists(notes) ? Files.readString(notes) : "";
            long heap = Runtime.getRuntime().maxMemory() >> 20;
            byte[] body = ("WORD|" + kept + "|" + String.join(",", words) + "|" + heap).getBytes();
            exchange.sendResponseHeaders(200, body.length);
            exchange.getResponseBody().write(body);
            exchange.close();
        });
        server.start();
    }
}
"""


def _jar(place: Path, word: str) -> Path:
    """A directory with an executable jar; the compiler's output is for the Java of the base."""
    (place / "shop").mkdir(parents=True)
    (place / "shop/Main.java").write_text(SOURCE.replace("WORD", word))
    run("javac", "--release", "17", "-d", place / "classes", place / "shop/Main.java")
    content = place / "content"
    content.mkdir()
    run(
        "jar", "--create", "--file", content / "shop-1.0.jar", "--main-class", "shop.Main", "-C", place / "classes", "."
    )
    return content


@pytest.mark.skipif(shutil.which("javac") is None, reason="no Java compiler here")
def test_a_jar_from_delivery_to_restore(alveole: Instance, site: ModuleSites, tmp_path: Path) -> None:
    name = "found-java"
    content = str(_jar(tmp_path / "one", "one"))
    with base_of(alveole, name, ["--from", content, "--defaults"]):
        done = alveole.cli("site", "create", name, "--from", content, "--defaults", seconds=1500)
    assert "java: shop-1.0.jar" in done.err
    it = ModuleSite(alveole, name)
    site.made.append(it)
    it.run("/bin/sh", "-c", "printf remember > /data/files/notes")

    def check() -> None:
        assert it.get("/").text.startswith("one|remember||")

    round_trip(it, check)
    it.configure(arguments="--a=1 --b", heap="64M", options="-Dx=1 -Dy=2")
    word, _kept, words, heap = it.get("/").text.split("|")
    assert (word, words) == ("one", "--a=1,--b") and 40 <= int(heap) <= 64
    it.cli("update", "--from", str(_jar(tmp_path / "two", "two")))
    assert it.get("/").text.startswith("two|remember|")
