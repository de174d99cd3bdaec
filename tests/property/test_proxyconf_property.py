"""Threat 11: whatever a value holds, it is read back as it was, or it is refused."""

from __future__ import annotations

import sys
from ipaddress import ip_network
from pathlib import Path

from hypothesis import assume, given
from hypothesis import strategies as st

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
from alveole.actuators.routes import AT_REST, RouteText, link_name, parse_text, route_name, write_text
from alveole.errors import InvalidInput
from alveole.proxyconf import (
    Block,
    Comment,
    Directive,
    Node,
    apache,
    block,
    directive,
    nginx,
    parse_nginx,
)
from apachewords import parse_apache_line

words = st.lists(st.text(max_size=12) | st.sampled_from(list("\"'\\;{}#$ \n\t")), min_size=1, max_size=4)
nodes: st.SearchStrategy[Node] = st.recursive(
    words.map(lambda found: directive(*found)),
    lambda inner: st.builds(lambda head, body: block(*head, body=body), words, st.lists(inner, max_size=3)),
    max_leaves=6,
)


@given(st.lists(nodes, max_size=4))
def test_nginx_reads_what_was_written(made: list[Node]) -> None:
    """Threat 11: no value ends a string, a directive or a block."""
    try:
        text = nginx(made)
    except InvalidInput:
        return
    assert parse_nginx(text) == made


@given(st.lists(words, max_size=4), st.text())
def test_apache_reads_what_was_written(made: list[list[str]], remark: str) -> None:
    """Threat 11: the same for Apache, whose directives end with their line."""
    try:
        text = apache([Comment(remark), *(directive(*found) for found in made)])
    except InvalidInput:
        return
    lines = [line for line in text.split("\n")[:-1] if not line.lstrip().startswith("#")]
    assert [parse_apache_line(line) for line in lines] == [tuple(found) for found in made]
    assert not any(line.endswith("\\") for line in text.split("\n"))


@given(st.text())
def test_a_comment_stays_one(remark: str) -> None:
    assert parse_nginx(nginx([Comment(remark), directive("a")])) == [Directive(("a",))]
    for line in apache([Comment(remark)]).split("\n")[:-1]:
        assert line.startswith("#")


@given(st.lists(words, min_size=1, max_size=3))
def test_a_block_is_closed_by_itself_alone(made: list[list[str]]) -> None:
    inner = [directive(*found) for found in made]
    try:
        text = nginx([block("http", body=inner), directive("last")])
    except InvalidInput:
        return
    assert parse_nginx(text) == [Block(("http",), tuple(inner)), Directive(("last",))]


labels = st.from_regex(r"[a-z0-9](?:[a-z0-9-]{0,8}[a-z0-9])?", fullmatch=True)
domains = st.lists(labels, min_size=1, max_size=4).map(".".join)
segments = st.from_regex(r"[A-Za-z0-9](?:[A-Za-z0-9._~-]{0,8}[A-Za-z0-9])?", fullmatch=True)
prefixes = st.lists(segments, min_size=1, max_size=4).map(lambda found: "/" + "/".join(found))
names = domains | prefixes.map(lambda prefix: f"@{prefix}")
networks = st.lists(
    st.ip_addresses(v=4).map(lambda a: str(ip_network(f"{a}/32"))) | st.ip_addresses(v=6).map(lambda a: f"{a}/128"),
    max_size=3,
).map(tuple)
targets = (
    st.sampled_from(sorted(map(str, AT_REST)))
    | st.builds("unix:/run/alveole/sockets/saaaaaaaaaaaa.{}/web.sock".format, st.sampled_from("01"))
    | st.builds("tcp:{}:{}".format, st.ip_addresses(v=4), st.integers(1, 65535))
)
routes = st.builds(
    RouteText,
    target=targets,
    site=st.from_regex(r"s[a-z2-7]{12}", fullmatch=True),
    stamp=st.from_regex(r"[0-9a-f]{32}", fullmatch=True),
    https=st.booleans(),
    allow=networks,
    deny=networks,
)


@given(routes, names)
def test_a_route_is_read_as_it_was_written(route: RouteText, name: str) -> None:
    """Threat 11: the text of a link says what the route said."""
    text = write_text(route, name)
    assert parse_text(text, name) == (route, True)
    assert "\n" not in text and len(text) < 4096


@given(routes, names, names)
def test_a_route_belongs_to_its_name(route: RouteText, name: str, other: str) -> None:
    assume(name != other)
    read = parse_text(write_text(route, name), other)
    assert read is not None and not read[1]


@given(routes, names, st.text(min_size=1), st.sampled_from(["target", "site", "stamp", "allow", "deny"]))
def test_no_value_adds_a_token(route: RouteText, name: str, value: str, field: str) -> None:
    """Threat 11: what does not fit the grammar is refused, never written."""
    import msgspec

    hostile = msgspec.structs.replace(route, **{field: (value,) if field in ("allow", "deny") else value})
    try:
        text = write_text(hostile, name)
    except InvalidInput:
        return
    assert parse_text(text, name) == (hostile, True)


@given(st.text())
def test_any_text_is_a_route_or_none(text: str) -> None:
    parse_text(text, "a.test")


@given(names)
def test_names_of_links_and_back(name: str) -> None:
    assert route_name(link_name(name)) == name
    assert "/" not in link_name(name)
