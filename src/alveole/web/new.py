"""A new site: pick from the catalogue, answer the questions, see what it would do, then follow it. Or from files, or
from an image."""

from __future__ import annotations

import re
import secrets
import shlex

from fastapi import APIRouter
from starlette.responses import Response

from alveole import requests as ask
from alveole import views
from alveole.api.gate import does
from alveole.catalogue.manifest import Category
from alveole.errors import AlveoleError, InvalidInput, Problem
from alveole.model.site import Answer
from alveole.people.rights import Right
from alveole.views import modules as module_views
from alveole.web import questions
from alveole.web.files import Files
from alveole.web.lent import published_of, shared_of
from alveole.web.pages import Asked, Errors, Fields, Page, PageRoute
from alveole.web.site import plan_options

router = APIRouter(include_in_schema=False, route_class=PageRoute)
WAYS = ("module", "files", "image")
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
_VOLUME = re.compile(r"([a-z][a-z0-9-]*)\s*[:=\s]\s*(/\S*)\Z")


@router.get("/new")
@does(Right.CATALOGUE_LOOK)
def catalogue(page: Asked, q: str = "") -> Response:
    modules = page.services.list_modules(page.actor)
    wanted = q.lower().split()

    def fits(module: module_views.ModuleView) -> bool:
        texts = (module.name, *module.aliases, page.words.text(module.title), page.words.text(module.description))
        return all(word in " ".join(texts).lower() for word in wanted)

    groups = [
        (category, [each for each in modules if each.category == category and fits(each)]) for category in Category
    ]
    order = (Category.CONTENT, Category.WEB, Category.LANGUAGE)
    groups.sort(key=lambda group: order.index(group[0]) if group[0] in order else len(order))
    return page.show("new/catalogue.html", groups=[group for group in groups if group[1]], q=q)


@router.get("/new/check-name")
@does(Right.SITE_LIST)
def check_name(page: Asked, name: str = "") -> Response:
    """Whether a name can be had, as one types."""
    name = name.strip()
    wrong = page.services.is_free(page.actor, name) if name else ()
    address = f"{name}.{page.services.settings.domain}"
    return page.show("part/name.html", name=name, wrong=wrong, address=address)


@router.get("/new/{way}")
@does(Right.CATALOGUE_LOOK)
def form_of(page: Asked, way: str, m: str = "", base: str = "") -> Response:
    return _form(page, way, Fields([*(("m", name) for name in m.split(",") if name), ("base", base)]))


@router.post("/new/{way}")
@does(Right.SITE_CREATE)
def create(page: Asked, way: str, form: Files) -> Response:
    """``do``: ``ask`` renders the questions again, ``preview`` says what would happen, ``create`` begins it."""
    act = form("do", "ask")
    if page.partial and act == "ask":
        return _form(page, way, form, part="part/questions.html")
    errors = Errors(page.words)
    preview: views.DryRun | None = None
    status = 200
    try:
        wanted = request_of(way, form)
        if act == "create":
            change = page.services.create_site(page.actor, wanted, key=f"page-{form('key')}"[:100])
            return page.go(f"/change/{change.id}")
        if act == "preview":
            preview = page.services.preview_create(page.actor, wanted)
    except AlveoleError as error:
        errors, status = Errors(page.words, error.problems), error.http_status
        if status == 403:
            raise
    return _form(page, way, form, errors=errors, preview=preview, status=status)


def _languages(page: Page, details: list[module_views.ModuleDetail]) -> dict[str, Answer]:
    """The language of the one who asks, where a program speaks it: as answered, and to be changed."""
    return {
        f"{module.name}.{question.name}": choice.value
        for module in details
        for question in module.questions
        if question.name == "language"
        for choice in question.choices[::-1]
        if choice.value.partition("_")[0] == page.words.code and choice.value != question.default
    }


def _form(
    page: Page,
    way: str,
    form: Fields,
    *,
    part: str = "",
    errors: Errors | None = None,
    preview: views.DryRun | None = None,
    status: int = 200,
) -> Response:
    if way not in WAYS:
        from alveole.errors import NotFound

        raise NotFound(f"there is nothing at {page.request.url.path}")
    services, actor = page.services, page.actor
    found = errors or Errors(page.words)
    modules = form.all("m")
    groups: tuple[questions.Group, ...] = ()
    least = ""
    details: list[module_views.ModuleDetail] = []
    if way == "module":
        if not modules:
            return page.go("/new")
        typed = questions.answers(form)
        details = [services.show_module(actor, name) for name in modules]
        if page.request.method == "GET":
            typed = _languages(page, details)
        asked = services.ask_modules(
            actor, ask.AskModules(modules=modules, answers=typed, name=form("name").strip(), plan=form("plan") or None)
        )
        shown = found
        if not found and typed and form("do") == "ask":
            mine = tuple(each for each in asked.problems if each.field.removeprefix("answers.") in typed)
            shown = Errors(page.words, mine)
        groups = questions.groups(modules, asked.questions, shown, typed)
        least = asked.plan
    registries = services.registries(actor) if way == "image" else ()
    images = [each for each in services.list_bases(actor) if each.kind == "oci"] if way == "image" else []
    return page.show(
        part or f"new/{way}.html",
        status=status,
        way=way,
        modules=modules,
        details=details,
        groups=groups,
        conditional=any(question.when for each in details for question in each.questions),
        errors=found,
        preview=preview,
        form=form,
        key=form("key") or secrets.token_hex(16),
        titles={each.name: page.words.text(each.title) for each in details},
        plan_options=[("", page.t("as it needs")), *plan_options(page)],
        least=least,
        images=images,
        registries=registries,
        lent_typed={"published": form("published"), "shared": form("shared")},
        lend_errors=found,
        lent_ports=services.settings.sites.ports,
        lent_roots=services.settings.sites.shared,
        registry_options=[(each, each) for each in registries],
        image_options=[(each.key, f"{each.label} {each.image or ''}".strip()) for each in images],
        domain=services.settings.domain,
        node_options=machines(page),
        owner_options=[
            ("", page.t("mine")),
            *((f"team:{each.name}", each.title or each.name) for each in services.list_teams(actor)),
        ],
    )


def machines(page: Page) -> list[tuple[str, str]]:
    """Where it can live, for those who know the machines; nothing where there is only this one."""
    if not page.services.has_nodes() or not page.may(Right.PLATFORM_LOOK):
        return []
    nodes = [each.name for each in page.services.list_nodes(page.actor) if each.where and not each.draining]
    return [
        ("", page.t("this machine")),
        *((each, each) for each in nodes),
        ("any", page.t("where there is most memory left")),
    ]


def request_of(way: str, form: Fields) -> ask.CreateSite:
    """The request that the form stands for; raises ``InvalidInput`` for what is not even of its type."""
    problems: list[Problem] = []
    upload = form("upload") if _UPLOAD.match(form("upload")) else None
    env: dict[str, str] = {}
    for line in form("env").splitlines():
        if line.strip():
            key, equals, value = line.partition("=")
            if not equals:
                problems.append(Problem("env", f"{line.strip()[:40]!r} is not NAME=value"))
            env[key.strip()] = value
    volumes = []
    for line in form("volumes").splitlines():
        if line.strip():
            if found := _VOLUME.match(line.strip()):
                volumes.append(ask.VolumeBody(name=found[1], path=found[2]))
            else:
                problems.append(Problem("volumes", f"{line.strip()[:40]!r} is not 'name /path'"))
    published, shared = published_of(form, problems), shared_of(form, problems)
    port: int | None = None
    if text := form("port").strip():
        if text.isascii() and text.isdigit() and len(text) < 6:
            port = int(text)
        else:
            problems.append(Problem("port", f"{text[:20]!r} is not a port"))
    command: tuple[str, ...] = ()
    try:
        command = tuple(shlex.split(form("command")))
    except ValueError:
        problems.append(Problem("command", "has a quote that is not closed"))
    if way == "files" and upload is None:
        problems.append(Problem("upload", "choose a file first"))
    if problems:
        raise InvalidInput(problems=problems)
    fetched = way == "image" and not form("base")
    image = None
    if fetched:
        repository, tag = form("repository").strip(), form("tag").strip() or "latest"
        image = ask.PullImage(registry=form("registry"), repository=repository, tag=tag)
    return ask.CreateSite(
        name=form("name").strip(),
        owner=form("owner") or None,
        node=form("node") or None,
        base=form("base") if way == "image" and not fetched else "host",
        image=image,
        upload=upload,
        command=command if way == "image" else (),
        port=port if way == "image" else None,
        plan=form("plan") or None,
        domains=form.lines("domains"),
        env=env,
        volumes=tuple(volumes) if way == "image" else (),
        published=published if way == "image" else (),
        shared=shared if way == "image" else (),
        persistent=way != "image" or form("persistent") != "no",
        path=form("path").strip() or None,
        https_only=form("https_only") == "yes",
        stopped=form("stopped") == "yes",
        modules=form.all("m") if way == "module" else (),
        answers=questions.answers(form) if way == "module" else {},
    )
