"""Which modules a site has, in which order, and what is said when that cannot be."""

from __future__ import annotations

from typing import Any

import pytest

from alveole.catalogue.manifest import Category, Manifest, Module, Needs, ProcessEntry, Text, Web
from alveole.catalogue.solve import solve
from alveole.catalogue.sources import Catalogue
from alveole.errors import InvalidInput

SAID = Text(en="x", fr="x")


def module(name: str, *needs: str, web: bool = False, optional: tuple[str, ...] = (), **more: Any) -> Module:
    manifest = Manifest(
        name=name,
        version="1",
        title=SAID,
        description=SAID,
        icon="box",
        category=Category.TOOL,
        needs=Needs(mandatory=needs, optional=optional),
        web=Web() if web else None,
        processes=(ProcessEntry(name=name, argv=("x",)),),
        **more,
    )
    return Module(manifest, f"sha256:{'0' * 64}", "tests")


WEB = (module("apache", web=True, provides=("webserver",)), module("nginx", web=True, provides=("webserver",)))
DATABASES = (
    module("mariadb", aliases=("mysql",), provides=("database",)),
    module("postgresql", provides=("database",)),
)


def names(*asked: str, more: tuple[Module, ...] = ()) -> tuple[str, ...]:
    return solve(Catalogue([*WEB, *DATABASES, *more]), asked).names


def wrong(*asked: str, more: tuple[Module, ...] = ()) -> list[str]:
    with pytest.raises(InvalidInput) as caught:
        names(*asked, more=more)
    return [str(each) for each in caught.value.problems]


def test_what_is_needed_comes_along_and_first() -> None:
    more = (module("php", "apache | nginx"), module("blog", "php", "mariadb"))
    solution = solve(Catalogue([*WEB, *DATABASES, *more]), ["blog"])
    assert solution.names == ("apache", "php", "mariadb", "blog")
    assert solution.front.name == "apache"
    assert solution.why == {"php": "needed by 'blog'", "mariadb": "needed by 'blog'", "apache": "needed by 'php'"}
    assert solution.asked == ("blog",)


@pytest.mark.parametrize(
    ("asked", "front"), [(["php"], "apache"), (["php", "nginx"], "nginx"), (["nginx", "php"], "nginx")]
)
def test_of_several_ways_the_one_asked_for_wins(asked: list[str], front: str) -> None:
    assert front in names(*asked, more=(module("php", "apache | nginx"),))
    assert len(names(*asked, more=(module("php", "apache | nginx"),))) == 2


def test_what_another_module_brings_serves_all() -> None:
    """A need without a choice is met first, so that the choice of another can fall on it."""
    more = (module("php", "apache | nginx"), module("proxy", "nginx"))
    assert names("php", "proxy", more=more) == ("nginx", "php", "proxy")


def test_a_choice_avoids_a_conflict() -> None:
    more = (module("php", "apache | nginx"), module("tuned", conflicts=("apache",)))
    assert names("php", "tuned", more=more) == ("nginx", "php", "tuned")


def test_a_need_is_met_by_what_provides_it() -> None:
    more = (module("wiki", "database", "webserver"),)
    assert names("wiki", more=more) == ("mariadb", "apache", "wiki")
    assert names("wiki", "postgresql", "nginx", more=more) == ("postgresql", "nginx", "wiki")


def test_an_alias_is_the_module() -> None:
    assert names("mysql", "mariadb", "nginx") == ("mariadb", "nginx")
    more = (module("wiki", "mysql"),)
    assert names("wiki", "nginx", more=more) == ("mariadb", "wiki", "nginx")


def test_a_site_always_answers() -> None:
    solution = solve(Catalogue([*WEB, *DATABASES]), ["mysql"])
    assert solution.names == ("mariadb", "nginx")
    assert solution.why == {"nginx": "a site always answers at its name"}
    with pytest.raises(InvalidInput, match="none of 'mariadb' answers requests"):
        solve(Catalogue(DATABASES), ["mariadb"])


def test_only_one_module_answers() -> None:
    assert wrong("apache", "nginx") == [
        "modules: 'apache' and 'nginx' would all answer the site's requests (keep one of them, or make a site of each)"
    ]
    client = module("client", "nginx", web=True)
    solution = solve(Catalogue([*WEB, client]), ["client"])
    assert (solution.names, solution.front.name) == (("nginx", "client"), "client")


def test_an_optional_need_only_orders() -> None:
    more = (module("shop", optional=("cache",)), module("redis", provides=("cache",)))
    assert names("shop", "nginx", more=more) == ("shop", "nginx")
    assert names("shop", "redis", "nginx", more=more) == ("redis", "shop", "nginx")
    mutual = (module("one", optional=("two",)), module("two", optional=("one",)))
    assert set(names("one", "two", "nginx", more=mutual)) == {"one", "two", "nginx"}
    against = (module("one", "two"), module("two", optional=("one",)))
    assert names("one", "nginx", more=against) == ("two", "one", "nginx")


def test_a_circle_is_named() -> None:
    circle = (module("one", "two"), module("two", "three"), module("three", "one"))
    assert wrong("one", "nginx", more=circle) == [
        "modules: modules need each other in a circle: one -> two -> three -> one (break it)"
    ]


def test_conflicts_name_both() -> None:
    more = (module("one", conflicts=("webserver",)),)
    assert wrong("one", "nginx", more=more) == [
        "modules: 'one' and 'nginx' cannot be in one site (make a site of each)"
    ]


def test_what_is_unknown_is_told_with_what_is_near() -> None:
    assert wrong("wordpres", "ngnix", more=(module("wordpress"),)) == [
        "modules: there is no module 'wordpres' (did you mean 'wordpress'?)",
        "modules: there is no module 'ngnix' (did you mean 'nginx'?)",
    ]
    assert wrong("database") == [
        "modules: 'database' is what several modules provide (choose 'mariadb' or 'postgresql')"
    ]
    assert "no module is named" in wrong()[0]
    assert wrong("one", "nginx", more=(module("one", "nowhere | gone"),)) == [
        "modules: 'one' needs 'nowhere | gone', which no module of the catalogue is or provides"
    ]


def test_the_order_does_not_hang_on_the_order_of_the_catalogue() -> None:
    more = [*WEB, *DATABASES, module("php", "webserver"), module("blog", "php", "database")]
    assert solve(Catalogue(more), ["blog"]).names == solve(Catalogue(more[::-1]), ["blog"]).names
