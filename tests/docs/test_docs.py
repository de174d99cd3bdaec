"""The documentation says what the code does: every command line in it parses, every command is described."""

from __future__ import annotations

import importlib.util
import re
import shlex
from pathlib import Path
from types import ModuleType

import click
import pytest

from alveole.cli.tree import root as main

ROOT = Path(__file__).resolve().parents[2]
PAGES = [ROOT / "README.md", *sorted((ROOT / "docs").rglob("*.md"))]


def lines() -> list[tuple[str, str]]:
    found = []
    for page in PAGES:
        for block in re.findall(r"```console\n(.*?)```", page.read_text(), re.DOTALL):
            for line in block.splitlines():
                command = line.removeprefix("$ ").removeprefix("sudo ").split(" > ")[0].split("     #")[0]
                if command.startswith("alveole "):
                    found.append((page.relative_to(ROOT).as_posix(), command))
    return found


@pytest.mark.parametrize(("page", "line"), lines())
def test_every_command_line_in_the_docs_parses(page: str, line: str, monkeypatch: pytest.MonkeyPatch) -> None:
    command: click.Command = main
    context: click.Context | None = None
    words = shlex.split(line)[1:]
    name = "alveole"
    while True:
        # Options that read files are checked by name only.
        context = command.make_context(
            name, list(words), parent=context, resilient_parsing=isinstance(command, click.Group)
        )
        if not isinstance(command, click.Group):
            return
        rest = [*context._protected_args, *context.args]
        if not rest and command.invoke_without_command:
            return
        name, found, words = command.resolve_command(context, rest)
        assert found is not None, f"{page}: {line}"
        command = found


def reference() -> ModuleType:
    spec = importlib.util.spec_from_file_location("reference", ROOT / "scripts" / "reference.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.mark.parametrize("page", ["settings", "command", "errors", "api", "module", "module_schema", "scenario_schema"])
def test_the_reference_is_what_the_code_says(page: str) -> None:
    names = {
        "command": "command-line.md",
        "module_schema": "module.schema.json",
        "scenario_schema": "scenario.schema.json",
    }
    text = getattr(reference(), f"{page}_page")().rstrip() + "\n"
    written = (ROOT / "docs" / "reference" / names.get(page, f"{page}.md")).read_text()
    assert written == text, "run scripts/reference.py"


@pytest.mark.parametrize(
    "text", re.findall(r"```yaml\n(.*?)```", (ROOT / "docs/how-to/checks.md").read_text(), re.DOTALL)
)
def test_every_scenario_in_the_docs_is_in_order(text: str) -> None:
    from alveole.scenarios.reading import read

    assert read(text).steps


def test_every_link_between_pages_leads_somewhere() -> None:
    for page in PAGES:
        for target in re.findall(r"\]\(([^)#:]+)(?:#[^)]*)?\)", page.read_text()):
            assert (page.parent / target).exists(), f"{page.relative_to(ROOT)} → {target}"


def test_every_setting_is_explained() -> None:
    for line in reference().settings_page().splitlines():
        if line.startswith("| `"):
            assert line.rstrip("| ").count("|") == 3, f"no meaning: {line}"
