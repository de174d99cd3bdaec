"""Every question of every module: another answer than the default makes another site, or nobody should be asked."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from alveole.catalogue import sources
from alveole.catalogue.answers import SiteContext
from alveole.catalogue.compose import Composition, compose, questions
from alveole.catalogue.manifest import Question, QuestionType
from alveole.model.site import BUILT_IN_PLANS, Application

LIMITS = {plan.name: plan.limits for plan in BUILT_IN_PLANS}
CONTEXT = SiteContext(
    name="some-site",
    domain="some-site.example.org",
    domains=("some-site.example.org",),
    url="https://some-site.example.org",
    content=True,
    limits=LIMITS["large"],
)
CATALOGUE = sources.load()
ASKED = [
    pytest.param(name, question, id=f"{name}.{question.name}")
    for name, module in sorted(CATALOGUE.modules.items())
    for question in module.manifest.questions
]
#: What is no default and fits, where the type alone does not say it.
OTHER: dict[str, Any] = {
    "awstats.skip": "192.0.2.1",
    "java.jar": "lib/other.jar",
    "java.options": "-Dname=value",
    "logrotate.files": "/data/files/other/*.log",
    "logrotate.at": "05:30",
    "mediawiki.admin": "Other",
    "ngircd.server": "irc.example.org",
    "openldap.suffix": "dc=other,dc=org",
    "php.timezone": "Europe/Paris",
    "python.app": "shop.wsgi:application",
    "ruby.rackup": "other.ru",
    "shibboleth.idp": "https://other.example.org/idp",
    "shibboleth.metadata_address": "https://metadata.example.org/other.xml",
    "shibboleth.certificate": "B" * 120,
    "shibboleth.entity": "https://other.example.org/shibboleth",
    "shibboleth.paths": "/private",
    "shibboleth.signed": True,
    "sphinxsearch.file": "other.csv",
    "sphinxsearch.columns": "title other",
    "tmpreaper.folders": "/data/files",
    "tmpreaper.age": "12h",
    "tomcat.options": "-Dname=value",
    "cron.save_at": "04:30",
    **{f"cron.job{number}": "@daily true" for number in range(1, 7)},
}
_ELSEWHERE = {
    "shibboleth.metadata": "address",
    "shibboleth.metadata_address": "https://metadata.example.org/idps.xml",
    "shibboleth.certificate": "A" * 120,
}
#: Answers that an answer asks for.
ALONG = {"shibboleth.metadata": _ELSEWHERE, "shibboleth.signed": {"shibboleth.certificate": "A" * 120}}
#: Modules that have to be there, and answers that have to be given, before a question is asked.
BEFORE: dict[str, tuple[tuple[str, ...], dict[str, Any]]] = {
    **{f"cron.job{last}": ((), {f"cron.job{one}": "@hourly true" for one in range(1, last)}) for last in range(2, 7)},
    **dict.fromkeys(("cron.save", "cron.save_at", "cron.save_keep", "logrotate.others"), (("mariadb",), {})),
    **dict.fromkeys(("sphinxsearch.database", "sphinxsearch.table", "sphinxsearch.key"), (("mariadb",), {})),
    **dict.fromkeys(("sphinxsearch.file", "sphinxsearch.columns"), ((), {"sphinxsearch.files": "csv"})),
    "shibboleth.certificate": ((), {"shibboleth.signed": True, "shibboleth.certificate": "A" * 120}),
    "shibboleth.metadata_address": ((), _ELSEWHERE),
}
#: Questions that have no default.
NEEDED = {"shibboleth": {"shibboleth.idp": "https://idp.example.org/idp"}}


def other(name: str, question: Question, default: Any) -> Any:
    """An answer that is not the default."""
    if f"{name}.{question.name}" in OTHER:
        return OTHER[f"{name}.{question.name}"]
    match question.type:
        case QuestionType.BOOLEAN:
            return not default
        case QuestionType.CHOICE:
            return next(each.value for each in question.choices if each.value != default)
        case QuestionType.CHOICES:
            return [each.value for each in question.choices if each.value not in (default or ())][:1]
        case QuestionType.INTEGER | QuestionType.SIZE | QuestionType.PORT:
            # Some programs are told sizes in mebibytes.
            step = 1 << 20 if question.type is QuestionType.SIZE else 1
            return int(default) + (step if question.max is None or int(default) + step <= question.max else -step)
        case QuestionType.EMAIL:
            return "other@example.org"
        case QuestionType.DOMAIN:
            return "other.example.org"
        case QuestionType.PASSWORD:
            return "Another-Correct-Horse7"
    return "other"


def made(asked: tuple[str, ...], given: dict[str, Any], before: Application | None = None) -> Composition:
    return compose(CATALOGUE, asked, {"": {"admin_mail": "me@example.org", **given}}, CONTEXT, before)


def bare(composition: Composition) -> Composition:
    """Without the answers themselves."""
    return msgspec.structs.replace(composition, application=Application(), secrets=())


@pytest.mark.parametrize(("name", "question"), ASKED)
def test_another_answer_makes_another_site(name: str, question: Question) -> None:
    modules, given = BEFORE.get(f"{name}.{question.name}", ((), {}))
    asked = (name, *modules)
    given = {**NEEDED.get(name, {}), **given}
    before = made(asked, given)
    found = [
        each
        for each in questions(CATALOGUE, asked, {"": {"admin_mail": "me@example.org", **given}}, CONTEXT)
        if (each.module, each.question.name) == (name, question.name)
    ]
    assert found, "it is asked"
    default = before.application.answers[name].get(question.name)
    field = f"{name}.{question.name}"
    # Composed again, so that made-up passwords are the same.
    assert bare(made(asked, {}, before.application)) == bare(before)
    after = made(asked, {**ALONG.get(field, {}), field: other(name, question, default)}, before.application)
    assert bare(after) != bare(before)
