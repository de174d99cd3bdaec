"""The settings file: defaults, refusals that name the key, and several instances side by side."""

from __future__ import annotations

from pathlib import Path

import pytest

from alveole.config import Settings, load, parse
from alveole.errors import InvalidInput, NotFound


def test_nothing_said_means_the_defaults(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.delenv("ALVEOLE_CONFIG", raising=False)
    monkeypatch.setattr("alveole.config.DEFAULT_FILE", tmp_path / "absent.toml")
    assert load() == Settings()


def test_a_named_file_must_exist(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match="no settings file"):
        load(tmp_path / "absent.toml")


def test_a_file_is_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    file = tmp_path / "a.toml"
    file.write_text('domain = "example.org"\n[edge]\nhttp_port = 8080\n')
    monkeypatch.setenv("ALVEOLE_CONFIG", str(file))
    settings = load()
    assert (settings.domain, settings.edge.http_port, settings.edge.https_port) == ("example.org", 8080, 443)


def test_all_problems_come_at_once_and_name_their_keys() -> None:
    with pytest.raises(InvalidInput) as caught:
        parse({"edge": {"http_port": 0}, "api": {"prot": 1}, "colour": "red", "network": {"bridge": "X"}})
    fields = sorted(problem.field for problem in caught.value.problems)
    assert fields == ["settings: api", "settings: colour", "settings: edge", "settings: network"]


@pytest.mark.parametrize(
    ("raw", "key"),
    [
        ({"domain": "not a domain"}, "domain"),
        ({"paths": {"run": "/" + "r" * 80}}, "paths.run"),
        ({"paths": {"state": "/var/../etc"}}, "paths.state"),
        ({"network": {"ipv4": "10.1.0.0/16", "gateway_ipv4": "10.2.0.1"}}, "network.gateway_ipv4"),
        ({"network": {"ipv4": "10.1.1.0/28", "first_ipv4": "10.1.1.1"}}, "network.ipv4"),
        ({"network": {"ipv6": "fd00::/48"}}, "network.ipv6"),
        ({"network": {"ipv4": "nonsense"}}, "network"),
        ({"network": {"first_ipv4": "10.1.200.1"}}, "network.first_ipv4"),
        ({"edge": {"http_port": 443}}, "edge.https_port"),
    ],
)
def test_values_that_cannot_work_are_refused(raw: dict[str, object], key: str) -> None:
    with pytest.raises(InvalidInput) as caught:
        parse(raw)
    assert any(problem.field.endswith(key) for problem in caught.value.problems)


def test_not_toml(tmp_path: Path) -> None:
    file = tmp_path / "a.toml"
    file.write_text("= =")
    with pytest.raises(InvalidInput, match="is not TOML"):
        load(file)
