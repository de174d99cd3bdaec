"""From a request to a page: who asks, in which language, refusals as pages, messages that outlive a redirect.

A page's function is plain and synchronous (the framework runs it in a thread): it takes a :class:`Page`, calls verbs of
the services and gives :meth:`Page.show` or :meth:`Page.go`. What the services refuse becomes an error page, or, where
the page has a form, the form again with what was typed.
"""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Callable, Coroutine, Iterable, Mapping
from functools import cache, cached_property
from http.cookies import CookieError, SimpleCookie
from typing import Annotated, Any
from urllib.parse import quote, urlencode

import jinja2
import msgspec
from fastapi import Depends, Request
from starlette.exceptions import HTTPException
from starlette.responses import RedirectResponse, Response

from alveole import __version__
from alveole.api import admit, problems
from alveole.api.routes import LateRoute
from alveole.catalogue.manifest import Category
from alveole.errors import AlveoleError, Problem
from alveole.model.change import ChangeState
from alveole.people.model import Actor, Role
from alveole.people.passwords import csrf_of
from alveole.people.rights import Right, may
from alveole.services import Services
from alveole.text import span
from alveole.views import State
from alveole.web import words
from alveole.web.assets import assets, path_of
from alveole.web.ways import way_of
from alveole.web.words import N_, Words

#: Nothing inline, nothing from elsewhere. Bootstrap's own symbols in its style are ``data:`` images.
POLICY = (
    "default-src 'none'; script-src 'self'; style-src 'self'; img-src 'self' data:; connect-src 'self'; "
    "form-action 'self'; base-uri 'none'; frame-ancestors 'none'"
)
HEADERS = {
    "Content-Security-Policy": POLICY,
    # With "no-referrer" a browser says "Origin: null" when a form is posted (Fetch §3.1), which must be refused.
    "Referrer-Policy": "same-origin",
    "Cross-Origin-Opener-Policy": "same-origin",
    "Permissions-Policy": "camera=(), geolocation=(), microphone=()",
}
SAID = "__Host-alveole-said"
LANGUAGE = "__Host-alveole-language"
THEME = "__Host-alveole-theme"
THEMES = ("auto", "light", "dark")
_YEAR = 365 * 86_400
_SAID_MAX = 2000

STATES = {
    State.RUNNING: N_("running"),
    State.STOPPED: N_("stopped"),
    State.STARTING: N_("starting"),
    State.STOPPING: N_("stopping"),
    State.UPDATING: N_("updating"),
    State.FAILED: N_("failed"),
    State.UNKNOWN: N_("unknown"),
    State.ASLEEP: N_("asleep"),
    State.UNREACHABLE: N_("unreachable"),
}
ROLES = {
    Role.ADMIN: N_("administrator"),
    Role.OPERATOR: N_("operator"),
    Role.OWNER: N_("owner"),
    Role.READER: N_("reader"),
}
CATEGORIES = {
    Category.CONTENT: N_("Sites and wikis"),
    Category.WEB: N_("Web servers"),
    Category.LANGUAGE: N_("Languages"),
    Category.DATABASE: N_("Databases"),
    Category.TOOL: N_("Tools"),
    Category.STATISTICS: N_("Statistics"),
    Category.CHAT: N_("Chat"),
    Category.SEARCH: N_("Search"),
    Category.CACHE: N_("Caches"),
    Category.DIRECTORY: N_("Directories"),
}
CHANGE_STATES = {
    ChangeState.WAITING: N_("waiting"),
    ChangeState.RUNNING: N_("going on"),
    ChangeState.DONE: N_("done"),
    ChangeState.FAILED: N_("failed"),
}
TITLES = {
    400: N_("This request is wrong"),
    401: N_("Sign in first"),
    403: N_("Not allowed"),
    404: N_("Not found"),
    409: N_("Not possible now"),
    413: N_("Too large"),
    422: N_("Something is missing or wrong"),
    429: N_("Too many tries"),
    503: N_("Try again in a moment"),
    507: N_("No room"),
}
_FAULT = N_("A fault of Alvéole")


@cache
def environment() -> jinja2.Environment:
    made = jinja2.Environment(
        loader=jinja2.PackageLoader("alveole.web"),
        autoescape=True,
        undefined=jinja2.StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
        auto_reload=False,
    )
    made.globals |= {
        "asset": path_of,
        "version": __version__,
        "languages": words.LANGUAGES,
        "themes": THEMES,
        "R": Right,
        "url": lambda *parts: "/" + "/".join(quote(str(part), safe="@") for part in parts),
        "query": query,
        "lasting": span,
        "kind_words": words.KINDS,
        "browser_of": browser_of,
        "way_of": way_of,
        "role_words": ROLES,
        "state_words": STATES,
        "change_words": CHANGE_STATES,
        "category_words": CATEGORIES,
        "symbol": _symbol,
    }
    return made


@cache
def _symbols() -> bytes:
    return assets()["icons.svg"].content


@cache
def _symbol(name: str) -> str:
    """The address of a symbol; a module of elsewhere may name one that is not there."""
    known = f'<symbol id="{name}"'.encode() in _symbols()
    return f"{path_of('icons.svg')}#{name if known else 'box'}"


def browser_of(agent: str) -> str:
    """``Firefox, Linux`` of what a browser says of itself (``User-Agent``); what is not known stays as it is."""
    programs = (
        ("Edg", "Edge"),
        ("OPR/", "Opera"),
        ("Firefox/", "Firefox"),
        ("Chrome/", "Chrome"),
        ("Safari/", "Safari"),
    )
    systems = ("Android", "iPhone", "iPad", "Windows", "Mac OS", "Linux")
    program = next((name for mark, name in programs if mark in agent), "")
    system = next((name for name in systems if name in agent), "")
    return ", ".join(filter(None, (program, system))) if program else agent[:80]


def query(**values: Any) -> str:
    """``?a=b``, without what is empty or ``None``."""
    kept = {key: value for key, value in values.items() if value not in (None, "", 0, False)}
    return f"?{urlencode(kept, doseq=True)}" if kept else "?"


def local_path(text: str) -> str:
    """``text`` when it is a path of ours, else ``/``: a link must not lead to another host after signing in."""
    fine = text.startswith("/") and not text.startswith(("//", "/\\")) and text.isprintable() and "\\" not in text
    return text if fine and len(text) < 2000 else "/"


class Page:
    """One request for a page. ``actor`` is ``None`` where nobody is signed in."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.services: Services = request.app.state.services
        self._actor: Actor | None = getattr(request.state, "actor", None)
        self._cookies = _cookies(request)
        self.words = words_of(request, self._chosen())
        self.theme = theme if (theme := self._cookies.get(THEME, "")) in THEMES else "auto"
        self.partial = request.headers.get("hx-request") == "true"

    def _chosen(self) -> str:
        """The language that is kept in the account."""
        person = self.services.people.persons.get(self._actor.person) if self._actor is not None else None
        return person.language if person is not None else ""

    @property
    def actor(self) -> Actor:
        if self._actor is None:
            raise problems.Unauthenticated("nobody is signed in")
        return self._actor

    @property
    def somebody(self) -> Actor | None:
        """Who is signed in, on a page that is open."""
        return self._actor

    def t(self, sentence: str, **values: Any) -> str:
        return self.words.t(sentence, **values)

    def may(self, right: Right, site: str | None = None) -> bool:
        """For hiding what would be refused; the verb decides all the same. ``site``: an id."""
        if self._actor is None:
            return False
        return may(self._actor, right, None if site is None else self.services.people.held_by_id(site))

    @cached_property
    def incidents(self) -> int:
        """How many are open of those that the caller may look at, for the menu."""
        return self.services.count_incidents(self._actor) if self._actor is not None else 0

    # --- answers ----------------------------------------------------------------------------------
    def show(
        self, template: str, *, status: int = 200, headers: Mapping[str, str] | None = None, **more: Any
    ) -> Response:
        said = None if self.partial else self._said()
        text = environment().get_template(template).render(**self._context(), said=said, **more)
        answer = Response(text, status, {**HEADERS, **(headers or {})}, "text/html; charset=utf-8")
        if said is not None:
            _set(answer, SAID, "", 0)
        return answer

    def _context(self) -> dict[str, Any]:
        found = {
            "page": self,
            "t": self.words.t,
            "n": self.words.n,
            "w": self.words,
            "may": self.may,
            "actor": self._actor,
            "csrf": self.csrf,
            "path": self.request.url.path,
            "panel_may_create": self._may_create(),
        }
        return found

    def _may_create(self) -> bool:
        return self._actor is not None and not self._actor.entering and self._actor.role is not Role.READER

    @property
    def csrf(self) -> str:
        secret = admit.session_of(self.request.headers)
        return csrf_of(secret) if secret and self._actor is not None else ""

    def go(self, path: str, said: str = "", kind: str = "success") -> Response:
        """Redirect to ``path`` (303: with GET), with a message that the next page shows."""
        if self.partial:
            answer = Response(status_code=204, headers={**HEADERS, "HX-Redirect": path})
        else:
            answer = RedirectResponse(path, 303, HEADERS)
        if said:
            packed = base64.urlsafe_b64encode(json.dumps([kind, said[:_SAID_MAX]]).encode()).decode()
            _set(answer, SAID, packed, 60)
        return answer

    def back(self, otherwise: str, said: str = "", kind: str = "success") -> Response:
        """To the page named in the form's ``next``, or else."""
        wanted = self.request.query_params.get("next", "")
        return self.go(local_path(wanted) if wanted else otherwise, said, kind)

    def refused(self, error: AlveoleError) -> str:
        """All that is wrong, as one text."""
        return "; ".join(self.words.problem(each) for each in error.problems)

    def _said(self) -> tuple[str, str] | None:
        packed = self._cookies.get(SAID, "")
        with contextlib.suppress(ValueError, TypeError):
            kind, text = json.loads(base64.urlsafe_b64decode(packed.encode()))
            if kind in ("success", "info", "warning", "danger") and isinstance(text, str):
                return kind, text
        return None


def words_of(request: Request, chosen: str = "") -> Words:
    return words.negotiate(chosen or _cookies(request).get(LANGUAGE, ""), request.headers.get("accept-language", ""))


def _cookies(request: Request) -> dict[str, str]:
    found: dict[str, str] = {}
    for line in request.headers.getlist("cookie"):
        with contextlib.suppress(CookieError):
            found |= {name: morsel.value for name, morsel in SimpleCookie(line).items()}
    return found


def _set(answer: Response, name: str, value: str, seconds: int) -> None:
    line = f"{name}={value}; Path=/; Secure; HttpOnly; SameSite=Lax; Max-Age={seconds}"
    answer.headers.append("set-cookie", line)


def remember(answer: Response, name: str, value: str) -> Response:
    """Keep a choice in the browser for a year."""
    _set(answer, name, value, _YEAR)
    return answer


# --- forms ----------------------------------------------------------------------------------------
class Fields:
    """What a form brought: every value as text, in order."""

    def __init__(self, pairs: list[tuple[str, str]]) -> None:
        self.pairs = pairs

    def __call__(self, name: str, otherwise: str = "") -> str:
        return next((value for key, value in self.pairs if key == name), otherwise)

    def all(self, name: str) -> tuple[str, ...]:
        return tuple(value for key, value in self.pairs if key == name and value)

    def lines(self, name: str) -> tuple[str, ...]:
        """The words of a text of several lines."""
        return tuple(self(name).replace(",", " ").split())

    def starting(self, prefix: str) -> dict[str, list[str]]:
        found: dict[str, list[str]] = {}
        for key, value in self.pairs:
            if key.startswith(prefix):
                found.setdefault(key.removeprefix(prefix), []).append(value)
        return found


async def fields(request: Request) -> Fields:
    """The fields of an urlencoded form; raises ``InvalidInput`` (413) for one beyond 4 MiB."""
    from urllib.parse import parse_qsl

    from alveole.api.bodies import content
    from alveole.errors import InvalidInput

    text = (await content(request)).decode("utf-8", "replace")
    try:
        return Fields(parse_qsl(text, keep_blank_values=True, max_num_fields=5000))
    except ValueError as error:
        raise InvalidInput("has too many fields", field="form") from error


def on_page(problems: Iterable[Problem]) -> tuple[Problem, ...]:
    """The problems without the hints that name a command: beside them there are buttons for it."""
    return tuple(msgspec.structs.replace(each, hint="") if "alveole " in each.hint else each for each in problems)


class Errors:
    """The problems of a form by field, for the templates."""

    def __init__(self, words: Words, problems: tuple[Problem, ...] = ()) -> None:
        self._words = words
        self.problems = problems
        self._told: set[int] = set()

    def __bool__(self) -> bool:
        return bool(self.problems)

    def of(self, *names: str) -> str:
        """What is wrong with a field, in words; fields below it (``domains[0]``) count."""
        found = []
        for place, each in enumerate(self.problems):
            plain = each.field.partition("[")[0]
            if plain in names:
                self._told.add(place)
                found.append(self._words.problem(each))
        return " ".join(found)

    def rest(self) -> list[str]:
        """What no field has shown. Ask for it after the fields were rendered."""
        left = [each for place, each in enumerate(self.problems) if place not in self._told]
        return [
            f"{each.field}: {self._words.problem(each)}" if each.field else self._words.problem(each) for each in left
        ]

    def everything(self) -> list[str]:
        return [self._words.problem(each) for each in self.problems]


# --- refusals ---------------------------------------------------------------------------------------
def error_page(request: Request, error: AlveoleError) -> Response:
    """A refusal for people. A part of a page that was asked for gets only the message."""
    page = Page(request)
    status = error.http_status
    title = page.t(TITLES.get(status, _FAULT))
    template = "part/alert.html" if page.partial else "error.html"
    texts = [page.words.problem(each) for each in error.problems]
    headers = {name: value for name, value in problems.headers(error).items() if name == "Retry-After"}
    return page.show(template, status=status, headers=headers, title=title, texts=texts, code=status)


class PageRoute(LateRoute):
    """Refusals become pages; who still owes the second factor is led there."""

    def get_route_handler(self) -> Callable[[Request], Coroutine[Any, Any, Response]]:
        handler = super().get_route_handler()
        right = getattr(self.endpoint, "right", None)

        async def handle(request: Request) -> Response:
            actor: Actor | None = request.state.actor
            if actor is not None and actor.entering and right not in (Right.OPEN, Right.SELF_ENTER):
                return Page(request).go("/second-factor")
            try:
                return await handler(request)
            except AlveoleError as error:
                return error_page(request, error)
            except HTTPException as error:
                return error_page(request, problems.from_http(error.status_code, str(error.detail)))

        return handle


Asked = Annotated[Page, Depends(Page)]
Form = Annotated[Fields, Depends(fields)]
