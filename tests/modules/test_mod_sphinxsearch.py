"""Sphinx: PHP pages search a table of the site's database, a CSV file, and the site's own pages."""

from __future__ import annotations

import json
from typing import Any
from urllib.parse import quote

import pytest
from modkit import PASSWORD, ModuleSite, ModuleSites, restarted, round_trip

from instancekit import until

SEARCH = """<?php
mysqli_report(MYSQLI_REPORT_OFF);
header('Content-Type: application/json');
$sphinx = @new mysqli(getenv('SPHINX_HOST'), '', '', '', (int) getenv('SPHINX_PORT'));
$word = $sphinx->real_escape_string($_GET['q']);
$found = $sphinx->query("SELECT * FROM site WHERE MATCH('$word') ORDER BY id ASC");
echo json_encode($found ? $found->fetch_all(MYSQLI_ASSOC) : ['error' => $sphinx->error]);
"""
STORE = """<?php
$at = json_decode(file_get_contents(getenv('MARIADB_CONNECTION')), true);
$base = new mysqli(null, $at['user'], $at['password'], $at['database'], 0, $at['socket']);
$base->query('CREATE TABLE IF NOT EXISTS recipes (number INT PRIMARY KEY AUTO_INCREMENT, title TEXT, body TEXT)');
$ask = $base->prepare('INSERT INTO recipes (title, body) VALUES (?, ?)');
$ask->execute([$_POST['title'], $_POST['body']]);
echo $ask->insert_id;
"""


def found(it: ModuleSite, word: str) -> Any:
    page = it.get(f"/search.php?q={quote(word)}", status=None)
    try:
        return json.loads(page.text)
    except ValueError:
        return page


def titles(it: ModuleSite, word: str) -> list[str]:
    rows = found(it, word)
    return [row["title"] for row in rows] if isinstance(rows, list) else [str(rows)]


@pytest.mark.turn
def test_a_table(site: ModuleSites) -> None:
    it = site(
        "nginx",
        "php",
        "mariadb",
        "sphinxsearch",
        stem="find",
        content={"search.php": SEARCH, "store.php": STORE, "index.html": "<title>Recipes</title>"},
        options=("--plan", "medium"),
        mariadb__password=PASSWORD,
        table="recipes",
        key="number",
        language="fr",
        every=1,
    )
    assert titles(it, "soupe") != ["Soupe à l'oignon"], "there is no table yet"
    it.post("/store.php", {"title": "Soupe à l'oignon", "body": "Les oignons cuisent doucement."})
    it.post("/store.php", {"title": "Crêpes", "body": "La pâte repose deux heures."})
    until(lambda: titles(it, "soupe") == ["Soupe à l'oignon"], 60, it.logs)

    def there() -> None:
        until(lambda: titles(it, "oignon") == ["Soupe à l'oignon"], 60, it.logs)
        assert titles(it, "crepe heure") == ["Crêpes"], "without accents, in the singular"
        assert not {"Crêpes", "Soupe à l'oignon"} & set(titles(it, "x'; DELETE FROM site WHERE id > 0; --"))

    round_trip(it, there)
    it.post("/store.php", {"title": "Tarte", "body": "Des pommes."})
    until(lambda: titles(it, "pomme") == ["Tarte"], 90, it.logs)


def test_pages_and_a_file(site: ModuleSites) -> None:
    files = {
        "search.php": SEARCH,
        "index.html": "<title>Cr&ecirc;pes &amp; co</title><script>hidden()</script><p>La p\u00e2te <b>repose</b>.",
        "docs/soup.md": "# Soupe\n\nLes oignons.",
        "search.csv": '1,"Alpha, un","premier texte"\n2,Beta,"second\ntexte"\n',
    }
    it = site("nginx", "php", "sphinxsearch", stem="find", content=files, options=("--plan", "medium"))
    assert [row["path"] for row in found(it, "oignons")] == ["/docs/soup.md"]
    assert [row["path"] for row in found(it, "pate repose")] == ["/index.html"]
    assert found(it, "hidden") == []
    assert restarted(it, files="csv") == {"sphinxsearch", "sphinxsearch-update"}
    assert titles(it, "second") == ["Beta"] and titles(it, "alpha") == ["Alpha, un"]
