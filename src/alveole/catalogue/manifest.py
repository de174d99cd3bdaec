"""The manifest of a module: ``module.toml`` in the module's folder, with strict keys.

A module is a folder ``NAME/`` with ``module.toml``, the templates it names in ``templates/``, files
that are taken as they are in ``files/``, and perhaps ``content/``, what a site serves when nobody
brings content. Everything a person reads is in English and in French.

Expressions (``when``, ``default_from``) and templates are Jinja2 in a sandbox. They see

============  =====================================================================================
``a``         the answers of the module itself: ``a.title``
``answers``   those of every module of the site: ``answers.mariadb.password``
``generic``   the questions asked once for all: ``admin_mail``, ``version`` (``dev``, ``prod``),
              ``optimisation`` (``normal``, ``big``, ``huge``)
``modules``   the names of the site's modules: ``'apache' in modules``
``site``      ``name``, ``domain``, ``domains``, ``url``, ``https_only``, ``content`` (the path of its
              files, ``""`` without any)
``plan``      ``memory_mb``, ``cpus``, ``disk_mb`` (0: no limit)
``socket``    path of the Unix socket that the edge asks
============  =====================================================================================
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.model.names import EnvKey, MountPath, Package, Port, ProcessName, VolumeName
from alveole.model.site import Argv, Kept, UpdateMode, When

MODULE_NAME = r"^[a-z][a-z0-9-]{0,30}\Z"
QUESTION_NAME = r"^[a-z][a-z0-9_]{0,40}\Z"
#: The ids of the accounts of the catalogue's own modules, and of everybody else's.
OWN_IDS, OTHER_IDS = range(2000, 3000), range(3000, 4000)

ModuleName = Annotated[str, msgspec.Meta(pattern=MODULE_NAME)]
Expression = str
"""A Jinja2 expression; empty means always."""


class _Strict(msgspec.Struct, frozen=True, forbid_unknown_fields=True, kw_only=True):
    """Keys are as written here; an unknown one is refused with its name."""


class Text(_Strict, frozen=True, kw_only=True):
    """A text in both languages."""

    en: Annotated[str, msgspec.Meta(min_length=1)]
    fr: Annotated[str, msgspec.Meta(min_length=1)]


class Category(StrEnum):
    WEB = "web"
    LANGUAGE = "language"
    DATABASE = "database"
    CACHE = "cache"
    CONTENT = "content"
    """Wikis, blogs and what else holds pages."""
    DIRECTORY = "directory"
    SEARCH = "search"
    CHAT = "chat"
    STATISTICS = "statistics"
    TOOL = "tool"


class QuestionType(StrEnum):
    STRING = "string"
    INTEGER = "integer"
    PORT = "port"
    BOOLEAN = "boolean"
    CHOICE = "choice"
    CHOICES = "choices"
    """Several of the choices."""
    PASSWORD = "password"  # noqa: S105  a type's name
    """Never shown; made up (24 letters and digits) when nobody gives one."""
    EMAIL = "email"
    DOMAIN = "domain"
    PATH = "path"
    """An absolute path inside the container."""
    SIZE = "size"
    """``64M``, ``1G``: bytes, in templates an integer."""


class Choice(_Strict, frozen=True, kw_only=True):
    value: str
    title: Text


class CleanUp(StrEnum):
    STRIP = "strip"
    LOWER = "lower"
    COLLAPSE = "collapse"
    """Runs of blanks become one blank."""
    NO_SLASH = "no-slash"
    """No slash at the end."""
    SLUG = "slug"
    """Lower-case ASCII letters, digits and hyphens."""


class Question(_Strict, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(pattern=QUESTION_NAME)]
    type: QuestionType
    title: Text
    description: Text | None = None
    default: str | int | bool | list[str] | None = None
    default_from: Expression = ""
    """Computed on the spot, for instance ``site.name|title``. Has the last word over ``default``."""
    clean: tuple[CleanUp, ...] = (CleanUp.STRIP,)
    required: bool = True
    pattern: str = ""
    """The whole answer must match (Python's ``re.fullmatch``)."""
    pattern_says: Text | None = None
    """What the pattern means, for who breaks it."""
    min: int | None = None
    """Of a number its least value, of a text its least length, of a size its least bytes."""
    max: int | None = None
    choices: tuple[Choice, ...] = ()
    when: Expression = ""
    """Asked and kept only when true."""


class OptionalPackage(_Strict, frozen=True, kw_only=True):
    name: Package
    when: Expression


class Packages(_Strict, frozen=True, kw_only=True):
    """Debian packages of the base."""

    mandatory: tuple[Package, ...] = ()
    optional: tuple[OptionalPackage, ...] = ()


class Needs(_Strict, frozen=True, kw_only=True):
    """Other modules. ``"apache | nginx"``: one of them, the first unless another is asked for."""

    mandatory: tuple[str, ...] = ()
    optional: tuple[ModuleName, ...] = ()
    """Comes before this one when it is there too."""


class AccountEntry(_Strict, frozen=True, kw_only=True):
    """A user of the container. The id never changes: files of volumes carry it."""

    name: str
    uid: int
    home: MountPath = "/nonexistent"


class ProcessEntry(_Strict, frozen=True, kw_only=True):
    """Elements of ``argv``, ``ready`` and values of ``env`` are templates; each stays one argument."""

    name: ProcessName
    argv: Argv
    user: str = "site"
    """``root`` (the container's, without capabilities), ``site`` (1000), or one of the accounts."""
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 50
    """Databases 10, caches 20, application servers 40, tasks 60, what answers the web 90, others 95."""
    ready: tuple[str, ...] = ()
    ready_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    stop_signal: str = ""
    stop_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] | None = None
    env: dict[EnvKey, str] = {}
    cwd: str = ""
    when: Expression = ""


class VolumeEntry(_Strict, frozen=True, kw_only=True):
    name: VolumeName
    path: MountPath
    user: str = "site"
    backup: Kept = Kept.ALWAYS
    when: Expression = ""


class Format(StrEnum):
    """How a value is quoted where a template prints it, unless a filter says otherwise.

    A value that cannot be written in the format is refused when it is rendered.
    """

    INI = "ini"
    """``key = value`` of MariaDB, PHP's ``php.ini`` and pools: in double quotes."""
    SHELL = "shell"
    PHP = "php"
    """A PHP literal, with its quotes."""
    YAML = "yaml"
    JSON = "json"
    XML = "xml"
    """Text or attribute value, without quotes."""
    NGINX = "nginx"
    APACHE = "apache"
    SQL = "sql"
    """A literal of MariaDB, with its quotes."""
    PGSQL = "pgsql"
    """A literal of PostgreSQL, with its quotes."""
    LDIF = "ldif"
    TOML = "toml"
    PROPERTIES = "properties"
    PLAIN = "plain"
    """One word of ``A-Za-z0-9._/:@+,-``; anything else is refused. For formats without a quoting."""


class FileEntry(_Strict, frozen=True, kw_only=True):
    """A configuration file. It lies at ``/config/PATH``; ``template`` or ``file``, one of the two."""

    path: str
    template: str = ""
    """In ``templates/``."""
    file: str = ""
    """In ``files/``, taken as it is."""
    format: Format = Format.PLAIN
    user: str = "root"
    """Its owner; nobody else of the container may write it."""
    mode: Annotated[str, msgspec.Meta(pattern=r"^0[0-7]{3}\Z")] = "0644"
    restarts: tuple[ProcessName, ...] = ()
    when: Expression = ""


class LinkEntry(_Strict, frozen=True, kw_only=True):
    """A symbolic link outside of ``/config``, for a program that reads one fixed path."""

    path: str
    target: str
    when: Expression = ""


class TaskEntry(_Strict, frozen=True, kw_only=True):
    """A program that ends by itself; see :class:`alveole.model.site.When`. Elements of ``argv`` are templates.

    What holds a secret goes into a file of mode 0600 of that user, never into ``argv``.
    """

    name: ProcessName
    when: When
    argv: Argv
    user: str = "site"
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 60
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 120
    env: dict[EnvKey, str] = {}
    only: Expression = ""


class CheckEntry(_Strict, frozen=True, kw_only=True):
    """Does it work? ``argv`` is run inside; ``path`` is asked over HTTP through the edge."""

    name: ProcessName
    argv: tuple[str, ...] = ()
    user: str = "site"
    path: str = ""
    status: int = 200
    contains: str = ""
    when: Expression = ""


class LogEntry(_Strict, frozen=True, kw_only=True):
    """A file that a program writes by itself. Better: let it print, ``site logs`` shows that."""

    path: str


class Web(_Strict, frozen=True, kw_only=True):
    """This module answers the site's requests, on a port or (``port`` absent) on ``socket``."""

    port: Port | None = None
    health: str = "/"


class Build(_Strict, frozen=True, kw_only=True):
    """How the dependencies of a content are brought in, in a limited container, its release being writable.

    ``detect``: files at the top of the content, any of which makes the module a candidate (``*.jar``
    is a pattern). ``argv`` run one after the other in ``/site/current`` when their ``file`` is there.
    """

    detect: tuple[str, ...] = ()
    rank: int = 50
    """Among several candidates the lowest is taken."""
    steps: tuple[BuildStep, ...] = ()
    packages: tuple[Package, ...] = ()
    """Only while building (compilers)."""


class BuildStep(_Strict, frozen=True, kw_only=True):
    file: str = ""
    """Runs only when this file is at the top of the content (``*.gemspec`` is a pattern); empty: always."""
    unless: str = ""
    """Does not run when this one is there."""
    argv: Argv
    network: bool = False
    """Wants the package registry; without leave (``--build-network``) it runs with what is in the cache."""


class Manifest(_Strict, frozen=True, kw_only=True):
    name: ModuleName
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(?:\.[0-9]+){0,2}\Z")]
    """Of the module, not of the program."""
    title: Text
    description: Text
    icon: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,40}\Z")]
    """A name of Bootstrap Icons."""
    category: Category
    aliases: tuple[ModuleName, ...] = ()
    provides: tuple[ModuleName, ...] = ()
    """Other names by which a need is met: ``database``, ``webserver``…"""
    conflicts: tuple[ModuleName, ...] = ()
    least_plan: str = "small"
    update: UpdateMode = UpdateMode.BLUE_GREEN
    packages: Packages = Packages()
    needs: Needs = Needs()
    web: Web | None = None
    questions: tuple[Question, ...] = msgspec.field(name="question", default=())
    accounts: tuple[AccountEntry, ...] = msgspec.field(name="account", default=())
    processes: tuple[ProcessEntry, ...] = msgspec.field(name="process", default=())
    volumes: tuple[VolumeEntry, ...] = msgspec.field(name="volume", default=())
    files: tuple[FileEntry, ...] = msgspec.field(name="file", default=())
    links: tuple[LinkEntry, ...] = msgspec.field(name="link", default=())
    tasks: tuple[TaskEntry, ...] = msgspec.field(name="task", default=())
    checks: tuple[CheckEntry, ...] = msgspec.field(name="check", default=())
    logs: tuple[LogEntry, ...] = msgspec.field(name="log", default=())
    env: dict[EnvKey, str] = {}
    """For every process of the site; values are templates."""
    build: Build | None = None


class Module(msgspec.Struct, frozen=True):
    """A manifest with the texts of its folder."""

    manifest: Manifest
    digest: str
    """Of the whole folder: ``sha256:…``."""
    origin: str
    """``alveole``, ``/etc/alveole/modules``, or the name of an added source."""
    templates: dict[str, str] = {}
    files: dict[str, str] = {}
    content: str = ""
    """The folder of its own content on this machine, empty without any."""

    @property
    def name(self) -> str:
        return self.manifest.name


def schema() -> dict[str, Any]:
    """The JSON schema (2020-12) of ``module.toml``."""
    return msgspec.json.schema(Manifest)
