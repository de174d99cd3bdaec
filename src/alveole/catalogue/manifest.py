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
``logs``      the log files of all its modules but those that are ``bounded``: ``path`` and ``user`` of each
``socket``    path of the Unix socket that the edge asks
============  =====================================================================================
"""

from __future__ import annotations

from enum import StrEnum
from typing import Annotated, Any

import msgspec

from alveole.model.names import EnvKey, MountPath, Package, Port, ProcessName, VolumeName
from alveole.model.operation import OUTPUT_MAX, Argument, ArgumentType, Least, Operation
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
    """In English."""
    fr: Annotated[str, msgspec.Meta(min_length=1)]
    """In French."""


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
    """One line of text."""
    INTEGER = "integer"
    """A whole number."""
    PORT = "port"
    """1 to 65535, or what ``min`` and ``max`` leave of it."""
    BOOLEAN = "boolean"
    """``yes`` or ``no``; true or false in templates."""
    CHOICE = "choice"
    """One of the choices."""
    CHOICES = "choices"
    """Several of the choices."""
    PASSWORD = "password"  # noqa: S105  a type's name
    """Never shown; made up (24 letters and digits) when nobody gives one."""
    EMAIL = "email"
    """A mail address."""
    DOMAIN = "domain"
    """A full domain name, in lower case."""
    PATH = "path"
    """An absolute path inside the container."""
    SIZE = "size"
    """``64M``, ``1G``: bytes, in templates an integer."""


class Choice(_Strict, frozen=True, kw_only=True):
    value: str
    """What templates see."""
    title: Text
    """What a person reads."""


class CleanUp(StrEnum):
    STRIP = "strip"
    """No blanks at the ends."""
    LOWER = "lower"
    """Lower case."""
    COLLAPSE = "collapse"
    """Runs of blanks become one blank."""
    NO_SLASH = "no-slash"
    """No slash at the end."""
    SLUG = "slug"
    """Lower-case ASCII letters, digits and hyphens."""


class Question(_Strict, frozen=True, kw_only=True):
    name: Annotated[str, msgspec.Meta(pattern=QUESTION_NAME)]
    """Lower-case letters, digits and underscores: ``a.NAME`` in templates."""
    type: QuestionType
    """What is taken as an answer."""
    title: Text
    """What a person is asked, in a few words."""
    description: Text | None = None
    """More about it, where the title is not enough."""
    default: str | int | bool | list[str] | None = None
    """The answer when nobody gives one."""
    default_from: Expression = ""
    """Computed on the spot, for instance ``site.name|title``. Has the last word over ``default``."""
    clean: tuple[CleanUp, ...] = (CleanUp.STRIP,)
    """Done to an answer before it is checked, in this order; a password is never touched."""
    required: bool = True
    """``false``: it may stay without an answer."""
    pattern: str = ""
    """The whole answer must match (Python's ``re.fullmatch``)."""
    pattern_says: Text | None = None
    """What the pattern means, for who breaks it."""
    min: int | None = None
    """Of a number its least value, of a text its least length, of a size its least bytes."""
    max: int | None = None
    """The largest, likewise."""
    choices: tuple[Choice, ...] = ()
    """What there is to choose from."""
    when: Expression = ""
    """Asked and kept only when true."""


class OptionalPackage(_Strict, frozen=True, kw_only=True):
    name: Package
    """A Debian package."""
    when: Expression
    """Installed when true."""


class Packages(_Strict, frozen=True, kw_only=True):
    """Debian packages of the base."""

    mandatory: tuple[Package, ...] = ()
    """Always installed."""
    optional: tuple[OptionalPackage, ...] = ()
    """Installed when their condition holds."""


class Needs(_Strict, frozen=True, kw_only=True):
    """Other modules. ``"apache | nginx"``: one of them, the first unless another is asked for."""

    mandatory: tuple[str, ...] = ()
    """Modules, or names that modules provide; they come along and start first."""
    optional: tuple[ModuleName, ...] = ()
    """Comes before this one when it is there too."""


class AccountEntry(_Strict, frozen=True, kw_only=True):
    """A user of the container. The id never changes: files of volumes carry it."""

    name: str
    """Not ``root`` and not ``site``."""
    uid: int
    """Fixed for good. Of your own modules: 3000 to 3999."""
    home: MountPath = "/nonexistent"
    """Its home directory in ``/etc/passwd``."""


class ProcessEntry(_Strict, frozen=True, kw_only=True):
    """Elements of ``argv``, ``ready`` and values of ``env`` are templates; each stays one argument."""

    name: ProcessName
    """Unique among all modules of a site: begin it with the module's."""
    argv: Argv
    """The program and its arguments. No shell reads it; it stays in the foreground."""
    user: str = "site"
    """``root`` (the container's, without capabilities), ``site`` (1000), or one of the accounts."""
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 50
    """Databases 10, caches 20, application servers 40, tasks 60, what answers the web 90, others 95."""
    ready: tuple[str, ...] = ()
    """A program that succeeds when the process is ready; what follows waits for it. Empty: as soon as it runs."""
    ready_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] = 60
    """How long that may take."""
    stop_signal: str = ""
    """Such as ``SIGQUIT``. Empty: what the program is known to end cleanly on, else ``SIGTERM``."""
    stop_seconds: Annotated[int, msgspec.Meta(ge=1, le=600)] | None = None
    """Grace between that signal and the kill; 10 when absent."""
    env: dict[EnvKey, str] = {}
    """Variables of this process; values are templates."""
    cwd: str = ""
    """Directory it starts in."""
    when: Expression = ""
    """Runs when true."""


class VolumeEntry(_Strict, frozen=True, kw_only=True):
    name: VolumeName
    """Unique among all modules of a site."""
    path: MountPath
    """``/data/NAME`` or below ``/var/lib``; not below ``/etc``, ``/usr``, ``/run``…"""
    user: str = "site"
    """Who owns it."""
    backup: Kept = Kept.ALWAYS
    """What a backup does with it."""
    when: Expression = ""
    """There when true."""


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
    """Below ``/config``, relative: ``mariadb/my.cnf``."""
    template: str = ""
    """In ``templates/``."""
    file: str = ""
    """In ``files/``, taken as it is."""
    format: Format = Format.PLAIN
    """How values are quoted in the template; see Quoting."""
    user: str = "root"
    """Its owner; nobody else of the container may write it."""
    mode: Annotated[str, msgspec.Meta(pattern=r"^0[0-7]{3}\Z")] = "0644"
    """Rights; never writable by others."""
    restarts: tuple[ProcessName, ...] = ()
    """Processes that read it when they start."""
    when: Expression = ""
    """There when true."""


class LinkEntry(_Strict, frozen=True, kw_only=True):
    """A symbolic link outside of ``/config``, for a program that reads one fixed path."""

    path: str
    """Where the program looks: ``/etc/ldap/ldap.conf``."""
    target: str
    """What it finds: ``/config/openldap/ldap.conf``."""
    when: Expression = ""
    """There when true."""


class TaskEntry(_Strict, frozen=True, kw_only=True):
    """A program that ends by itself; see :class:`alveole.model.site.When`. Elements of ``argv`` are templates.

    What holds a secret goes into a file of mode 0600 of that user, never into ``argv``.
    """

    name: ProcessName
    """Unique among all modules of a site."""
    when: When
    """The point of the site's life."""
    argv: Argv
    """The program and its arguments."""
    user: str = "site"
    """As whom it runs."""
    order: Annotated[int, msgspec.Meta(ge=0, le=99)] = 60
    """Among the other tasks and the processes."""
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 120
    """How long it may take; then it has failed."""
    env: dict[EnvKey, str] = {}
    """Variables of this task; values are templates."""
    only: Expression = ""
    """Runs when true."""


class CheckEntry(_Strict, frozen=True, kw_only=True):
    """Does it work? ``argv`` is run inside; ``path`` is asked over HTTP through the edge."""

    name: ProcessName
    """Unique among all modules of a site."""
    argv: tuple[str, ...] = ()
    """A program that succeeds when all is well."""
    user: str = "site"
    """As whom it runs."""
    path: str = ""
    """Asked for at the site's public name."""
    status: int = 200
    """The HTTP status expected."""
    contains: str = ""
    """Text that the answer holds; a template."""
    when: Expression = ""
    """Made when true."""


class ArgumentEntry(_Strict, frozen=True, kw_only=True):
    """A value that an operation asks for; ``${NAME}`` in its ``argv``."""

    name: Annotated[str, msgspec.Meta(pattern=QUESTION_NAME)]
    """Lower-case letters, digits and underscores."""
    type: ArgumentType
    """What is taken."""
    title: Text
    """What a person is asked, in a few words."""
    default: str | int | bool | None = None
    """Its value when nobody gives one."""
    required: bool = True
    """``false``: it may stay without a value; the elements of ``argv`` that name it are left out then."""
    pattern: str = ""
    """Of a string: all of it must match (RE2)."""
    min: int | None = None
    """Of an integer."""
    max: int | None = None
    """Of an integer."""
    choices: tuple[str, ...] = ()
    """Of a choice."""
    flag: str = ""
    """Of a boolean: what stands in ``argv`` when it is yes."""
    below: str = "/"
    """Of a path: where it lies."""


class OperationEntry(_Strict, frozen=True, kw_only=True):
    """A named command that people run by a button or by ``alveole op run``: a program, never a shell line.

    Elements of ``argv`` are templates, rendered when the site is composed; ``${NAME}`` is the value of an argument, put
    in when somebody runs it. An element with a value holds no blanks. Secrets come on standard input, one a line.
    """

    name: ProcessName
    """Unique among all modules of a site: begin it with the module's."""
    title: Text
    """What it does, in a few words."""
    description: Text | None = None
    """More about it, where the title is not enough."""
    argv: Argv
    """The program and its arguments."""
    user: str = "site"
    """As whom it runs."""
    least: Least = Least.CHANGE
    """Who may run it: ``change``, ``own``, ``operator`` or ``administrator``."""
    arguments: tuple[ArgumentEntry, ...] = msgspec.field(name="argument", default=())
    """What it asks for."""
    seconds: Annotated[int, msgspec.Meta(ge=1, le=3600)] = 60
    """How long it may take; then it is killed."""
    output_bytes: Annotated[int, msgspec.Meta(ge=1024, le=OUTPUT_MAX)] = 262_144
    """What it may print; then it is killed."""
    confirm: bool = False
    """``true``: what it changes cannot be taken back, so people are asked first."""
    when: Expression = ""
    """There when true."""

    def made(self, argv: tuple[str, ...], uid: int, module: str) -> Operation:
        """As it is stored with a site."""
        arguments = tuple(
            Argument(
                name=each.name,
                type=each.type,
                title=each.title.en,
                title_fr=each.title.fr,
                default=_word(each.default),
                required=each.required,
                pattern=each.pattern,
                min=each.min,
                max=each.max,
                choices=each.choices,
                flag=each.flag,
                below=each.below,
            )
            for each in self.arguments
        )
        return Operation(
            name=self.name,
            argv=argv,
            uid=uid,
            title=self.title.en,
            title_fr=self.title.fr,
            description=self.description.en if self.description else "",
            description_fr=self.description.fr if self.description else "",
            arguments=arguments,
            least=self.least,
            seconds=self.seconds,
            output_bytes=self.output_bytes,
            confirm=self.confirm,
            module=module,
        )


def _word(value: str | int | bool | None) -> str:
    return "" if value is None else ("yes" if value else "no") if isinstance(value, bool) else str(value)


class LogEntry(_Strict, frozen=True, kw_only=True):
    """A file that a program writes by itself. Better: let it print, ``site logs`` shows that."""

    path: str
    """Absolute, inside the container."""
    user: str = "site"
    """Whose file it is."""
    bounded: bool = False
    """``true``: the module keeps it within bounds by itself, and no other rotates it."""


class Web(_Strict, frozen=True, kw_only=True):
    """This module answers the site's requests, on a port or (``port`` absent) on ``socket``."""

    port: Port | None = None
    """The port the program listens on. Absent: it listens on the socket."""
    health: str = "/"
    """Asked before the site is reached: any answer under 500 is ready."""


class Build(_Strict, frozen=True, kw_only=True):
    """How the dependencies of a content are brought in, in a limited container, its release being writable.

    ``detect``: files at the top of the content, any of which makes the module a candidate (``*.jar``
    is a pattern). ``argv`` run one after the other in ``/site/current`` when their ``file`` is there.
    """

    detect: tuple[str, ...] = ()
    """Names or patterns of files."""
    rank: int = 50
    """Among several candidates the lowest is taken."""
    steps: tuple[BuildStep, ...] = ()
    """What is run, in order."""
    packages: tuple[Package, ...] = ()
    """Only while building (compilers), beside those of the module itself; other modules' are not there."""
    optional: tuple[OptionalPackage, ...] = ()
    """Such packages (headers of a library) that are there when their condition holds."""
    runtime: dict[Package, Annotated[int, msgspec.Meta(ge=1, le=4)]] = {}
    """Packages that what is built hangs on, and how many numbers of their version: ``{ python3 = 2 }`` for 3.11.
    A base in which these differ gets content that was built again."""


class BuildStep(_Strict, frozen=True, kw_only=True):
    file: str = ""
    """Runs only when this file is at the top of the content (``*.gemspec`` is a pattern); empty: always."""
    unless: str = ""
    """Does not run when this one is there."""
    argv: Argv
    """A program and its arguments, run in ``/site/current``."""
    network: bool = False
    """Wants the package registry; without leave (``--build-network``) it runs with what is in the cache."""


class Manifest(_Strict, frozen=True, kw_only=True):
    name: ModuleName
    """The folder's name: lower-case letters, digits and hyphens."""
    version: Annotated[str, msgspec.Meta(pattern=r"^[0-9]+(?:\.[0-9]+){0,2}\Z")]
    """Of the module, not of the program."""
    title: Text
    """Its name for people."""
    description: Text
    """One or two sentences, with the versions of the programs."""
    icon: Annotated[str, msgspec.Meta(pattern=r"^[a-z0-9-]{1,40}\Z")]
    """A name of Bootstrap Icons."""
    category: Category
    """Where it stands in lists."""
    aliases: tuple[ModuleName, ...] = ()
    """Other names it is found under."""
    provides: tuple[ModuleName, ...] = ()
    """Other names by which a need is met: ``database``, ``webserver``…"""
    conflicts: tuple[ModuleName, ...] = ()
    """Modules, or names that modules provide, that cannot be in the same site."""
    least_plan: str = "small"
    """The smallest plan it works in: small, medium or large."""
    update: UpdateMode = UpdateMode.BLUE_GREEN
    """How new content and new bases take over."""
    packages: Packages = Packages()
    """Debian packages."""
    needs: Needs = Needs()
    """Other modules."""
    web: Web | None = None
    """There when this module answers the site's requests."""
    questions: tuple[Question, ...] = msgspec.field(name="question", default=())
    """What it asks."""
    accounts: tuple[AccountEntry, ...] = msgspec.field(name="account", default=())
    """Users of the container."""
    processes: tuple[ProcessEntry, ...] = msgspec.field(name="process", default=())
    """Programs that keep running."""
    volumes: tuple[VolumeEntry, ...] = msgspec.field(name="volume", default=())
    """Directories that outlive updates and restarts."""
    files: tuple[FileEntry, ...] = msgspec.field(name="file", default=())
    """Configuration files."""
    links: tuple[LinkEntry, ...] = msgspec.field(name="link", default=())
    """Links to them."""
    tasks: tuple[TaskEntry, ...] = msgspec.field(name="task", default=())
    """Programs that end by themselves."""
    checks: tuple[CheckEntry, ...] = msgspec.field(name="check", default=())
    """Questions whose answers say that the site works."""
    operations: tuple[OperationEntry, ...] = msgspec.field(name="operation", default=())
    """Named commands that people run."""
    logs: tuple[LogEntry, ...] = msgspec.field(name="log", default=())
    """Files that programs write instead of printing."""
    env: dict[EnvKey, str] = {}
    """For every process of the site; values are templates."""
    build: Build | None = None
    """There when it runs contents with dependencies."""


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
    made = _ecma(msgspec.json.schema(Manifest))
    return {"$schema": "https://json-schema.org/draft/2020-12/schema", "title": "module.toml of Alvéole", **made}


def _ecma(part: Any) -> Any:
    """``part`` with its patterns as ECMA-262 writes them: its end of the text is ``$``, Python's is ``\\Z``."""
    if isinstance(part, dict):
        return {
            key: value[:-2] + "$" if key == "pattern" and str(value).endswith("\\Z") else _ecma(value)
            for key, value in part.items()
        }
    return [_ecma(each) for each in part] if isinstance(part, list) else part
