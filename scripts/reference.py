"""Write docs/reference/ from the code: settings, command line, API, errors.

``scripts/reference.py`` writes; ``scripts/reference.py --check`` fails when a page is out of step.
"""

from __future__ import annotations

import ast
import inspect
import sys
from pathlib import Path
from typing import Any

import click
import msgspec

from alveole import config, errors

ROOT = Path(__file__).resolve().parent.parent
PAGES = ROOT / "docs" / "reference"
NOTE = "<!-- Written by scripts/reference.py from the code; change the code, then run it. -->\n\n"


def attribute_docs(owner: type) -> dict[str, str]:
    """The string that follows each annotated attribute, which Python itself throws away."""
    tree = ast.parse(inspect.getsource(owner)).body[0]
    if not isinstance(tree, ast.ClassDef):
        raise TypeError(owner)
    found = {}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if (
            isinstance(node, ast.AnnAssign)
            and isinstance(node.target, ast.Name)
            and isinstance(after, ast.Expr)
            and isinstance(after.value, ast.Constant)
        ):
            found[node.target.id] = " ".join(str(after.value.value).split())
    return found


def settings_page() -> str:
    lines = [
        "# Settings\n",
        NOTE,
        "One TOML file: `/etc/alveole/alveole.toml`, or the one named by `--config` or `ALVEOLE_CONFIG`. Every\n",
        "setting has a default; an unknown key is refused. Another instance on the same machine needs other\n",
        "values for everything that can clash: `paths`, `network`, `edge` and `api` ports, `cgroup.parent`.\n\n",
    ]

    def row(section: str, name: str, default: object, text: str) -> str:
        shown = msgspec.json.encode(default).decode()
        return f"| `{section}{name}` | `{shown}` | {text} |\n"

    header = "| key | default | meaning |\n|---|---|---|\n"
    plain = [header]
    tables = []
    defaults = config.Settings()
    for field in msgspec.structs.fields(config.Settings):
        value = getattr(defaults, field.name)
        if not isinstance(value, msgspec.Struct):
            plain.append(row("", field.name, value, "The main domain: a site answers at `NAME.DOMAIN`."))
            continue
        docs = attribute_docs(type(value))
        about = (type(value).__doc__ or "").strip()
        rows = [
            row(f"{field.name}.", name, getattr(value, name), docs.get(name, "")) for name in value.__struct_fields__
        ]
        tables.append(f"\n## [{field.name}]\n\n{about + chr(10) * 2 if about else ''}{header}{''.join(rows)}")
    return "".join([*lines, *plain, *tables])


def command_page() -> str:
    from alveole.cli.tree import root as main

    parts = ["# Command line\n", NOTE]

    def walk(command: click.Command, context: click.Context, depth: int) -> None:
        text = command.get_help(context).rstrip()
        parts.append(f"{'#' * min(depth + 1, 4)} {context.command_path}\n\n```text\n{text}\n```\n\n")
        if isinstance(command, click.Group):
            for name in command.list_commands(context):
                child = command.get_command(context, name)
                if child is not None and not child.hidden:
                    walk(child, click.Context(child, info_name=name, parent=context, terminal_width=100), depth + 1)

    walk(main, click.Context(main, info_name="alveole", **{**main.context_settings, "terminal_width": 100}), 1)
    return "".join(parts)


def errors_page() -> str:
    tree = inspect.getdoc(errors) or ""
    rows = "".join(f"| `{kind.code}` | {kind.exit_status} | {kind.http_status} |\n" for kind in errors.BY_CODE.values())
    return f"# Errors\n{NOTE}{tree}\n\n| code | exit status | HTTP status |\n|---|---|---|\n{rows}"


def api_page() -> str:
    from alveole.api import build

    # The document comes from the routes alone; no service is called for it.
    app: Any = build(None, config.Settings())
    document: dict[str, Any] = app.openapi()
    rows = "".join(
        f"| `{method.upper()} {path}` | {operation.get('summary', '')} |\n"
        for path, operations in sorted(document["paths"].items())
        for method, operation in operations.items()
    )
    return (
        f"# HTTP API\n{NOTE}The whole description is served at `/v1/openapi.json`. Errors are RFC 9457 problem\n"
        f"documents with all that is wrong in `problems`.\n\n| request | what it does |\n|---|---|\n{rows}"
    )


def module_page() -> str:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from module_page import page

    return f"# module.toml\n{NOTE.rstrip()}\n{page(attribute_docs)}"


def module_schema_page() -> str:
    sys.path.insert(0, str(Path(__file__).resolve().parent))
    from module_page import schema

    return schema()


def scenario_schema_page() -> str:
    from alveole.scenarios.reading import schema

    return msgspec.json.format(msgspec.json.encode(schema(), order="sorted"), indent=2).decode()


def main_() -> int:
    pages = {
        "settings.md": settings_page,
        "command-line.md": command_page,
        "errors.md": errors_page,
        "api.md": api_page,
        "module.md": module_page,
        "module.schema.json": module_schema_page,
        "scenario.schema.json": scenario_schema_page,
    }
    check = "--check" in sys.argv[1:]
    stale = []
    PAGES.mkdir(parents=True, exist_ok=True)
    for name, make in pages.items():
        text = make().rstrip() + "\n"
        page = PAGES / name
        if page.exists() and page.read_text() == text:
            continue
        stale.append(name)
        if not check:
            page.write_text(text)
    print("; ".join(f"docs/reference/{name} {'is out of step' if check else 'written'}" for name in stale) or "in step")
    return 1 if check and stale else 0


if __name__ == "__main__":
    sys.exit(main_())
