"""The grammars: what a person may name, and what they are told otherwise."""

from __future__ import annotations

import pytest

from alveole.model import names


@pytest.mark.parametrize("name", ["a", "blog", "my-site", "2048", "a" * 40])
def test_good_site_names(name: str) -> None:
    assert names.check_site_name(name) == ()


@pytest.mark.parametrize(
    ("name", "says"),
    [
        ("", "is empty"),
        ("a" * 41, "41 characters"),
        ("Blog", "is not a site name"),
        ("-a", "is not a site name"),
        ("a-", "is not a site name"),
        ("a.b", "is not a site name"),
        ("a\n", "is not a site name"),
        ("été", "is not a site name"),
        ("../x", "is not a site name"),
        ("$(id)", "is not a site name"),
        ("admin", "is reserved"),
        ("xn--abc", "is reserved"),
    ],
)
def test_bad_site_names_say_what_is_wrong_and_what_to_do(name: str, says: str) -> None:
    (problem,) = names.check_site_name(name)
    assert says in problem.message
    assert problem.hint


@pytest.mark.parametrize("domain", ["example.org", "www.example.org", "a.b.c.d", "xn--bcher-kva.example"])
def test_good_domains(domain: str) -> None:
    assert names.check_domain(domain) == ()


@pytest.mark.parametrize(
    "domain", ["", "example", "*.example.org", "Example.org", "a..b", "10.1.1.1", "a.b\n", "a b.c", "x" * 254, "-a.b"]
)
def test_bad_domains(domain: str) -> None:
    (problem,) = names.check_domain(domain)
    assert problem.field == "domain"
    assert problem.hint


@pytest.mark.parametrize("path", ["/data", "/var/lib/app", "/srv/a.b"])
def test_good_mount_paths(path: str) -> None:
    assert names.check_mount_path(path) == ()


@pytest.mark.parametrize("path", ["data", "/", "/etc", "/etc/x", "/a/../b", "/usr/local", "/a\n", "/site", "/proc/1"])
def test_bad_mount_paths(path: str) -> None:
    assert names.check_mount_path(path)


@pytest.mark.parametrize(("key", "good"), [("A", True), ("_x1", True), ("1A", False), ("PORT", False), ("A-B", False)])
def test_environment_keys(key: str, good: bool) -> None:
    assert (names.check_env(key, "value") == ()) is good


def test_no_pattern_lets_a_trailing_line_feed_through() -> None:
    """Threat 11: ``$`` matches before a final line feed, ``\\Z`` does not."""
    patterns = [value for key, value in vars(names).items() if isinstance(value, str) and value.startswith("^")]
    assert len(patterns) >= 8
    assert all(pattern.endswith(r"\Z") for pattern in patterns)
