"""Every key of a module is explained, and the published schema takes what the code takes."""

from __future__ import annotations

import json
import re
from pathlib import Path

import msgspec

from alveole.catalogue.manifest import Format, Manifest, schema
from alveole.catalogue.render import KEPT_FILTERS

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs/reference/module.md").read_text()


def test_every_key_is_explained() -> None:
    assert re.findall(r"^\| `.*\|  \|$", PAGE, re.MULTILINE) == []
    for field in msgspec.structs.fields(Manifest):
        assert f"| `{field.encode_name}` |" in PAGE


def test_every_format_and_filter_is_named() -> None:
    for name in (*Format, *KEPT_FILTERS, "dn", "base64", "ssha", "md5", "sha1", "sha256", "join", "replace"):
        assert f"`{name}" in PAGE, name


def test_the_schema_is_the_published_one() -> None:
    made = json.loads(msgspec.json.encode(schema()))
    assert json.loads((ROOT / "docs/reference/module.schema.json").read_text()) == made


def test_the_schema_is_as_strict_as_the_code() -> None:
    """Unknown keys are refused everywhere; patterns are those of ECMA-262, which editors read."""
    made = schema()
    tables = [each for each in made["$defs"].values() if each.get("type") == "object"]
    assert len(tables) > 15
    assert [each["title"] for each in tables if each.get("additionalProperties") is not False] == []
    assert "\\Z" not in json.dumps(made)
