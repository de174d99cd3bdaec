"""Every module of the package: lint finds nothing, and it composes with its defaults however it is asked."""

from __future__ import annotations

import itertools
from pathlib import Path

import pytest

from alveole.catalogue import sources
from alveole.catalogue.answers import SiteContext
from alveole.catalogue.compose import compose
from alveole.catalogue.sources import OWN_FOLDER
from alveole.model.site import BUILT_IN_PLANS

FOLDERS = sorted(path for path in Path(OWN_FOLDER).iterdir() if (path / "module.toml").is_file())
#: Questions that have no default.
NEEDED = {"shibboleth": {"shibboleth.idp": "https://idp.example.org/idp"}}
LIMITS = {plan.name: plan.limits for plan in BUILT_IN_PLANS}


def test_none_is_set_aside() -> None:
    catalogue = sources.load()
    assert catalogue.aside == {}
    assert {path.name for path in FOLDERS} <= set(catalogue.modules)


@pytest.mark.parametrize("folder", FOLDERS, ids=lambda path: path.name)
def test_lint_finds_nothing(folder: Path) -> None:
    from alveole.catalogue.lint import lint

    assert [str(problem) for problem in lint(folder)] == []


@pytest.mark.parametrize("name", [path.name for path in FOLDERS])
def test_it_composes(name: str) -> None:
    catalogue = sources.load()
    versions = itertools.product(("dev", "prod"), ("normal", "big", "huge"), (False, True))
    for version, optimisation, content in versions:
        context = SiteContext(
            name="some-site",
            domain="some-site.example.org",
            domains=("some-site.example.org",),
            url="https://some-site.example.org",
            https_only=False,
            content=content,
            limits=LIMITS["large"],
        )
        generic = {"version": version, "optimisation": optimisation, "admin_mail": "me@example.org"}
        generic.update(NEEDED.get(name, {}))
        made = compose(catalogue, [name], {"": generic}, context)
        assert made.run.processes and made.application.asked == (name,)
        again = compose(catalogue, [name], {}, context, before=made.application)
        assert {each.path: each.text for each in again.files} == {each.path: each.text for each in made.files}, (
            "what was made up once stays"
        )
