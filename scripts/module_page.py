"""The reference of ``module.toml``: its tables come from the code of the manifest, the rest is here."""

from __future__ import annotations

import ast
import inspect
import itertools
import types
import typing
from collections.abc import Callable
from enum import Enum
from typing import Any

import msgspec

from alveole.catalogue import manifest as shape
from alveole.catalogue.questions import GENERIC
from alveole.catalogue.quoting import quote

INTRODUCTION = """
A module is a folder of its name. `alveole module new NAME` begins one, `alveole module lint DIR` looks through it;
[Write a module](../how-to/write-a-module.md) shows the way from the one to the other.

| in the folder | what |
|---|---|
| `module.toml` | the manifest described here; unknown keys are refused |
| `templates/` | texts with `{{ … }}`, for `[[file]]` with `template` |
| `files/` | texts taken as they are, for `[[file]]` with `file` |
| `content/` | what the site serves when nobody brings content |
| `README.md` | for people |

Nothing else belongs there. Links are refused; a text has at most 1 MiB, the whole folder 64 MiB. Modules of one's own
lie in the directory of the setting `modules.directory` (`/etc/alveole/modules`), belong to root, and cannot be written
by others; otherwise they are set aside, with the reason. The JSON schema of the manifest, for editors, is
[module.schema.json](module.schema.json).
"""

LANGUAGE = """
## Expressions and templates

Expressions (`when`, `only`, `default_from`), templates, elements of `argv` and `ready`, and values of `env` are
[Jinja2](https://jinja.palletsprojects.com/en/stable/templates/) in a sandbox. They see:

| name | what |
|---|---|
| `a` | the answers of the module itself: `a.title`; a question that is not asked is `none` |
| `answers` | those of every module of the site: `answers.mariadb.password` |
| `generic` | the questions asked once for every site: GENERIC |
| `modules` | the names of the site's modules: `'apache' in modules` |
| `site` | `name`, `domain`, `domains`, `url`, `https_only`, `content` (the path of its files, empty without any) |
| `plan` | `memory_mb`, `cpus`, `disk_mb` (0: no limit) |
| `logs` | the log files that the site's modules declare, each with `path` and `user`; not those that are `bounded` |
| `socket` | the Unix socket that the edge asks |

There are `if`, `for` (with `break` and `continue`), `set`, `raw`, comments, the usual operators but `**`, and
`range()`. There are no includes, imports, macros or blocks. Of texts: TEXT. Filters: FILTERS, those of the formats
below, and

| filter | gives |
|---|---|
| `dn` | a value escaped for a distinguished name: `dn:{{ 'cn=' ~ a.title\\|dn ~ ',' ~ a.base }}` |
| `base64`, `md5`, `sha1`, `sha256` | what the name says, of the UTF-8 of a text |
| `ssha(salt)` | `{SSHA}…` of RFC 2307; the same for the same salt, so take `site.name` |

A template ends after 100,000 turns of its loops or 1 MiB of text.

## Quoting

Every value that a template prints is written by the serializer of the file's `format`, **with the quotes that it
needs**: write `title = {{ a.title }}`, never `title = "{{ a.title }}"`. Join first: `{{ 'unix:' ~ socket }}`. A filter
named after another format takes the place of the file's: `{{ a.title|json }}` in a page. A value that the format cannot
hold is refused, with the question.

| format | `it's "x"` | `true` | where a value may stand |
|---|---|---|---|
FORMATS
Numbers, and what `|plain` or `|int` made harmless, may stand anywhere, also between quotes:
`size = {{ a.megabytes }}M`. Anything else that would end up between quotes, in a comment or in the middle of a word
is an error of the module.

What follows `-c` of a shell in an argument vector is quoted for the shell. Every other element is one argument,
whatever is answered.

## What runs, and how

Processes start by `order`, one after the other's `ready`; equal orders together. They stop in reverse. `install` tasks
run once in the life of the data, at their `order` among the processes, `prepare` tasks before everything at each start.

`upgrade` tasks run, at their `order`, when the site starts on another base than its data was last on: a database that
a newer program finds is brought to its form before what serves is started. Which base that was is kept with the data,
and written when the task has succeeded, so one that was cut runs again, and one that fails keeps the new base from
taking over. New data needs none. They run too when a site goes back (`base rollback`): what finds nothing to do must
succeed.

| order | for |
|---|---|
| 10 | databases |
| 20 | caches |
| 40 | application servers |
| 60 | tasks |
| 90 | what answers the web: the site is reached once it does |
| 95 | others |

Nothing has a capability, so ports under 1024 are out of reach. The user `site` (1000) owns the content, which is read
only; `/run` is empty at each start; what must last goes into a `[[volume]]`, whose files carry the number of its
account: ids of your own modules are from OTHER. All that is printed goes to `alveole site logs`. Configuration
files lie at `/config/PATH`, and only the container's root may write there; a process in `restarts` starts anew
when they change.
"""

WHERE = {
    shape.Format.INI: "all that follows `key =`",
    shape.Format.SHELL: "a word or a part of one, outside of quotes and here-documents",
    shape.Format.PHP: "an expression inside of `<?php`",
    shape.Format.YAML: "where a value begins",
    shape.Format.JSON: "where a value begins; JavaScript too",
    shape.Format.XML: "text, or between the quotes of an attribute; HTML too",
    shape.Format.NGINX: "one whole word",
    shape.Format.APACHE: "one whole word",
    shape.Format.SQL: "a literal of MariaDB",
    shape.Format.PGSQL: "a literal of PostgreSQL",
    shape.Format.LDIF: "right behind `attribute:`, without a blank",
    shape.Format.TOML: "where a value begins",
    shape.Format.PROPERTIES: "anywhere",
    shape.Format.PLAIN: "anywhere; any other character is refused",
}

TABLES: tuple[tuple[str, type[msgspec.Struct]], ...] = (
    ("The top of the file", shape.Manifest),
    ("[title], [description] and other texts", shape.Text),
    ("[packages]", shape.Packages),
    ("packages.optional", shape.OptionalPackage),
    ("[needs]", shape.Needs),
    ("[web]", shape.Web),
    ("[[question]]", shape.Question),
    ("question.choices", shape.Choice),
    ("[[account]]", shape.AccountEntry),
    ("[[process]]", shape.ProcessEntry),
    ("[[task]]", shape.TaskEntry),
    ("[[volume]]", shape.VolumeEntry),
    ("[[file]]", shape.FileEntry),
    ("[[link]]", shape.LinkEntry),
    ("[[check]]", shape.CheckEntry),
    ("[[operation]]", shape.OperationEntry),
    ("operation.argument", shape.ArgumentEntry),
    ("[[log]]", shape.LogEntry),
    ("[build]", shape.Build),
    ("build.steps", shape.BuildStep),
)
ENUMS = (
    shape.QuestionType,
    shape.CleanUp,
    shape.UpdateMode,
    shape.When,
    shape.Kept,
    shape.ArgumentType,
    shape.Least,
)


def kind(annotation: Any) -> str:
    """A type as a reader of TOML says it."""
    origin = typing.get_origin(annotation)
    if origin is typing.Annotated:
        return kind(typing.get_args(annotation)[0])
    if origin in (typing.Union, types.UnionType):
        parts = dict.fromkeys(kind(each) for each in typing.get_args(annotation) if each is not type(None))
        return ", ".join(parts)
    if origin in (tuple, list):
        return f"list of {kind(typing.get_args(annotation)[0])}"
    if origin is dict:
        return "table of text"
    if annotation is shape.Format:
        return "[format](#quoting)"
    if annotation is shape.Category:
        return ", ".join(f"`{each}`" for each in shape.Category)
    if isinstance(annotation, type) and issubclass(annotation, Enum):
        return f"[{annotation.__name__}](#{annotation.__name__.lower()})"
    if annotation is shape.Text:
        return "text in both languages"
    if isinstance(annotation, type) and issubclass(annotation, msgspec.Struct):
        return "table"
    return {str: "text", int: "number", bool: "true or false"}.get(annotation, str(annotation))


def _table(title: str, struct: type[msgspec.Struct], docs: Callable[[type], dict[str, str]]) -> str:
    about = "" if struct is shape.Manifest else " ".join((struct.__doc__ or "").split()).replace("``", "`")
    said = docs(struct)
    rows = []
    for field in msgspec.structs.fields(struct):
        default = "needed" if field.required else _default(field.default)
        meaning = said.get(field.name, "").replace("``", "`").replace("|", "\\|")
        meaning = meaning.replace(":class:`alveole.model.site.When`", "[When](#when)")
        rows.append(f"| `{field.encode_name}` | {kind(field.type)} | {default} | {meaning} |\n")
    about = about.replace(":class:`alveole.model.site.When`", "[When](#when)")
    head = f"\n## {title}\n\n{about + chr(10) * 2 if about else ''}| key | what | default | |\n|---|---|---|---|\n"
    return head + "".join(rows)


def _values(enum: type[Enum]) -> str:
    """The values of an enumeration with the strings that follow them in the code."""
    tree = ast.parse(inspect.getsource(enum)).body[0]
    said: dict[str, str] = {}
    if isinstance(tree, ast.ClassDef):
        for node, after in itertools.pairwise(tree.body):
            target = node.targets[0] if isinstance(node, ast.Assign) else None
            if isinstance(target, ast.Name) and isinstance(after, ast.Expr) and isinstance(after.value, ast.Constant):
                said[target.id] = " ".join(str(after.value.value).split()).replace("``", "`")
    rows = "".join(f"| `{each.value}` | {said.get(each.name, '')} |\n" for each in enum)
    return f"\n## {enum.__name__}\n\n| value | |\n|---|---|\n{rows}"


def _default(value: object) -> str:
    if value in (None, "", (), {}, msgspec.NODEFAULT) or isinstance(value, msgspec.Struct):
        return ""
    return f"`{msgspec.json.encode(value).decode()}`"


def page(docs: Callable[[type], dict[str, str]]) -> str:
    """The text of ``docs/reference/module.md``; ``docs`` gives the descriptions of a class's attributes."""
    from alveole.catalogue import render

    formats = "".join(
        f"| `{each}` | {_code(_quoted(each))} | `{quote(each, True).strip()}` | {WHERE[each]} |\n"
        for each in shape.Format
    )
    filters = ", ".join(f"`{name}`" for name in sorted({*render.KEPT_FILTERS, "join", "replace"}))
    language = LANGUAGE
    for word, text in (
        ("GENERIC", ", ".join(f"`{each.name}`" for each in GENERIC)),
        ("TEXT", ", ".join(f"`{name}()`" for name in sorted(render.TEXT_METHODS))),
        ("FILTERS", filters),
        ("FORMATS\n", formats + "\n"),
        ("OTHER", f"{shape.OTHER_IDS.start} to {shape.OTHER_IDS.stop - 1}"),
    ):
        language = language.replace(word, text)
    tables = "".join(_table(title, struct, docs) for title, struct in TABLES)
    return INTRODUCTION + tables + language + "".join(map(_values, ENUMS))


def _quoted(format: shape.Format) -> str:
    return quote(format, "its-x" if format is shape.Format.PLAIN else 'it\'s "x"')


def _code(text: str) -> str:
    return f"`` {text.strip()} ``".replace("|", "\\|")


def schema() -> str:
    """The text of ``docs/reference/module.schema.json``."""
    return msgspec.json.format(msgspec.json.encode(shape.schema()), indent=2).decode()
