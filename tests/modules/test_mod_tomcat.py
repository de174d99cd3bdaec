"""Tomcat: a war, several, a folder; pages that keep files and rows; all of it after a restore."""

from __future__ import annotations

import io
import zipfile
from pathlib import Path

from modkit import PASSWORD, ModuleSites, round_trip
from servicekit import packed

NOTES = """<%@ page contentType="text/plain; charset=UTF-8" import="java.nio.file.*,java.util.*" %><%
request.setCharacterEncoding("UTF-8");
Path file = Path.of(System.getenv("TOMCAT_FILES"), "notes");
String text = request.getParameter("text");
if (text != null) {
    Files.writeString(file, text + "\\n", StandardOpenOption.CREATE, StandardOpenOption.APPEND);
}
out.print(Files.exists(file) ? Files.readString(file) : "");
%>"""
ROWS = """<%@ page contentType="text/plain; charset=UTF-8" import="javax.naming.*,javax.sql.*,java.sql.*" %><%
DataSource source = (DataSource) new InitialContext().lookup("java:comp/env/jdbc/site");
try (Connection link = source.getConnection(); Statement plain = link.createStatement()) {
    plain.execute("CREATE TABLE IF NOT EXISTS note (text text)");
    if (request.getParameter("text") != null) {
        try (PreparedStatement row = link.prepareStatement("INSERT INTO note VALUES (?)")) {
            row.setString(1, request.getParameter("text"));
            row.execute();
        }
    }
    ResultSet found = plain.executeQuery("SELECT text FROM note ORDER BY text");
    while (found.next()) out.println(found.getString(1));
}
%>"""
WHERE = "<%= request.getScheme() %> <%= request.getRemoteAddr() %> <%= request.getServerPort() %>"


def war(files: dict[str, str]) -> bytes:
    out = io.BytesIO()
    with zipfile.ZipFile(out, "w") as made:
        for name, text in files.items():
            made.writestr(name, text)
    return out.getvalue()


def test_a_war_that_keeps_files(site: ModuleSites, tmp_path: Path) -> None:
    content = packed(tmp_path, {"shop.war": war({"index.jsp": NOTES, "where.jsp": WHERE, "WEB-INF/secret": "hidden"})})
    it = site("tomcat", "postgresql", options=("--from", content, "--plan", "medium"))
    it.post("/", {"text": "première note"})

    def check() -> None:
        assert it.get("/").text == "première note\n"
        it.get("/WEB-INF/secret", status=404)
        scheme, address, port = it.get("/where.jsp").text.split()
        assert (scheme, port) == ("https", str(it.alveole.https)) and address == "127.0.0.1"
        it.get("/absent", status=404)

    round_trip(it, check)
    assert it.run("sh", "-c", "echo x > /site/current/x", status=2) == ""
    assert "Apache Tomcat/" not in it.get("/absent", status=404).text


def test_rows_and_an_update_without_a_gap(site: ModuleSites, tmp_path: Path) -> None:
    content = packed(tmp_path, {"ROOT.war": war({"index.jsp": ROWS}), "other.war": war({"index.jsp": "<%= 6*7 %>"})})
    it = site("tomcat", "postgresql", postgresql__password="it's\\\"<&>%x", options=("--from", content))
    it.post("/", {"text": "a row"})
    assert it.get("/").text == "a row\n" and it.get("/other/").text.strip() == "42"
    (tmp_path / "b").mkdir()
    folder = packed(tmp_path / "b", {"index.jsp": "<%= 40 + 2 %>", "rows.jsp": ROWS, "WEB-INF/classes/x": ""})
    it.cli("update", "--from", folder)
    assert it.get("/").text.strip() == "42" and it.get("/rows.jsp").text == "a row\n"
    saved = it.backup()
    it.destroy()
    it.restore(saved)
    assert it.get("/rows.jsp").text == "a row\n"


def test_its_own_page_and_every_optimisation(site: ModuleSites) -> None:
    it = site("tomcat", "postgresql", version="dev")
    assert "Java 17" in it.get("/").text
    it.configure(optimisation="huge", version="prod", threads=50, heap="150M", options="-Dsome.name=value")
    assert "Java 17" in it.get("/").text
    java = it.run("sh", "-c", "tr '\\0' ' ' </proc/$(pidof -s java)/cmdline", status=0)
    assert "-Xmx150m" in java and "-XX:+UseG1GC" in java and "-Dsome.name=value" in java
    assert PASSWORD not in java
