"""OpenAPI from the same structs that are decoded and encoded, so that it cannot differ from them."""

from __future__ import annotations

import inspect
from functools import cache
from typing import Any

import msgspec
from fastapi import FastAPI
from fastapi.openapi.utils import get_openapi

from alveole import __version__, views
from alveole import requests as ask
from alveole.api.gate import declared, routes_of
from alveole.api.problems import MEDIA_TYPE, ProblemDocument
from alveole.api.uploads import Uploaded
from alveole.dns import zone
from alveole.incidents import model as incident_model
from alveole.issuing.model import Zone
from alveole.ledger import JournalView
from alveole.logbook.model import Entry, Found, LogUse
from alveole.logs import Line
from alveole.model.change import Change, Event
from alveole.notices import ChannelView, MailServer, MessageView, ToldView
from alveole.people import views as people_views
from alveole.people.ldap import LdapSettings
from alveole.people.oidc import OidcSettings
from alveole.remote import fleet
from alveole.requests import backups as backup_requests
from alveole.requests import checks as check_requests
from alveole.requests import files as file_requests
from alveole.requests import operations as operation_requests
from alveole.requests.channels import AddChannel, SetChannel
from alveole.requests.plans import CreatePlan, SetPlan
from alveole.scenarios.model import CheckDraft, CheckView, Report, Scenario
from alveole.services.analytics import Analytics
from alveole.services.factors import SecondFactorPolicy
from alveole.services.syslog import SetSyslog, SyslogTrial, SyslogView, TrySyslog
from alveole.views import apps as app_views
from alveole.views import backups as backup_views
from alveole.views import certificates as certificate_views
from alveole.views import figures as figure_views
from alveole.views import files as file_views
from alveole.views import modules as module_views
from alveole.views import operations as operation_views
from alveole.views.domains import AddDomain, DomainView

JSON = "application/json"
NDJSON = "application/x-ndjson"
#: Every type that crosses the API in either direction.
TYPES: tuple[Any, ...] = (
    ask.CreateSite,
    ask.UpdateSite,
    ask.SetSite,
    ask.AddKey,
    ask.PublishWork,
    views.KeyView,
    views.WorkView,
    ask.ConfigureSite,
    ask.AskModules,
    ask.DetectModules,
    ask.AddSource,
    ask.RenameSite,
    ask.ImportImage,
    ask.PullImage,
    ask.NameBases,
    ask.UpgradeBases,
    ask.RollbackBases,
    ask.PruneBases,
    ask.CreateBackup,
    ask.RestoreBackup,
    CreatePlan,
    SetPlan,
    ask.CreateToken,
    ask.SignIn,
    ask.UseInvitation,
    ask.AddAccount,
    ask.SetAccount,
    ask.SetPassword,
    ask.AddTeam,
    ask.SetTeam,
    ask.ShareSite,
    ask.GiveSite,
    ask.SetQuota,
    ask.TryLdap,
    ask.GiveCode,
    ask.ConfirmTotp,
    ask.AddPasskey,
    ask.GivePasskey,
    ask.RequireSecondFactor,
    ask.CreateApp,
    ask.SetApp,
    ask.GiveApp,
    ask.AddEnvironment,
    ask.SetEnvironment,
    ask.SendVersion,
    ask.DecideVersion,
    ask.DeliverVersion,
    ask.ApproveVersion,
    ask.DeployVersion,
    ask.RollBack,
    ask.Synchronise,
    app_views.AppView,
    app_views.AppPreview,
    operation_views.OperationView,
    operation_views.RunView,
    operation_views.ProgramsView,
    operation_requests.AddOperation,
    operation_requests.RunOperation,
    operation_requests.SignalProgram,
    app_views.VersionView,
    app_views.DeploymentView,
    app_views.DeployPlan,
    app_views.VersionComparison,
    fleet.ExportSite,
    fleet.ImportSite,
    fleet.TrustSigner,
    fleet.IdentityView,
    fleet.SignerView,
    fleet.ScanNode,
    fleet.AddNode,
    fleet.InstallNode,
    fleet.DrainNode,
    fleet.MoveSite,
    fleet.ScannedView,
    fleet.NodeView,
    app_views.SyncPlan,
    AddDomain,
    DomainView,
    backup_requests.PinBackup,
    backup_requests.SetPolicy,
    backup_requests.SetSitePolicy,
    backup_requests.ProveBackup,
    backup_requests.PutRepository,
    backup_requests.OpenBackup,
    backup_requests.RestoreFile,
    backup_views.RepositoryView,
    backup_views.SshKeyView,
    backup_views.BackupKeyView,
    backup_views.KeepingView,
    backup_views.PastDayView,
    backup_views.PreviewView,
    backup_views.CalendarDay,
    backup_views.CalendarView,
    backup_views.TreeView,
    backup_views.BackupView,
    backup_views.BackupDetail,
    backup_views.PolicyView,
    backup_views.SiteBackupsView,
    file_requests.WriteText,
    file_requests.MakeFolder,
    file_requests.RenameFile,
    file_requests.UnpackFile,
    file_views.FolderView,
    file_views.FileEntry,
    file_views.TextFileView,
    file_views.Unpacked,
    check_requests.CheckText,
    check_requests.RunChecks,
    check_requests.CheckSecret,
    check_requests.RecordCheck,
    AddChannel,
    SetChannel,
    ChannelView,
    MailServer,
    ToldView,
    MessageView,
    incident_model.Figure,
    incident_model.RuleView,
    incident_model.RuleText,
    incident_model.RuleChanges,
    incident_model.TryRule,
    incident_model.Tried,
    incident_model.IncidentView,
    incident_model.IncidentDetail,
    incident_model.IncidentReport,
    incident_model.Said,
    incident_model.SilenceView,
    incident_model.AddSilence,
    incident_model.PromisesView,
    views.CheckState,
    CheckDraft,
    CheckView,
    Report,
    Scenario,
    views.SiteView,
    views.DryRun,
    module_views.ConfigurePlan,
    module_views.AnswersView,
    module_views.ModuleView,
    module_views.ModuleDetail,
    module_views.QuestionsView,
    module_views.DetectedView,
    module_views.SourceView,
    views.PlanView,
    views.BaseView,
    views.UpgradeView,
    views.RollbackView,
    views.TokenView,
    people_views.PersonView,
    people_views.TeamView,
    people_views.SharingView,
    people_views.SessionView,
    people_views.SignedIn,
    people_views.WhoView,
    people_views.InvitationView,
    people_views.QuotaView,
    people_views.TrialView,
    people_views.FactorView,
    people_views.TotpView,
    people_views.FactorAdded,
    SecondFactorPolicy,
    OidcSettings,
    LdapSettings,
    certificate_views.UploadCertificate,
    certificate_views.IssueCertificate,
    certificate_views.SetAcme,
    certificate_views.AddAuthority,
    certificate_views.CertificateView,
    certificate_views.CertificateTaken,
    certificate_views.AcmeView,
    certificate_views.AcmeTried,
    Zone,
    views.WhyView,
    views.DoctorView,
    figure_views.FigureView,
    figure_views.TrafficView,
    figure_views.WallView,
    figure_views.QualityView,
    figure_views.ReportView,
    figure_views.ReportList,
    figure_views.InterfaceList,
    views.StatusView,
    views.Exported,
    zone.DnsSettings,
    zone.DnsView,
    zone.DnsTrial,
    zone.DnsLeft,
    zone.TransferKey,
    zone.TryDns,
    JournalView,
    Change,
    Event,
    Line,
    Entry,
    Found,
    LogUse,
    Analytics,
    SetSyslog,
    TrySyslog,
    SyslogView,
    SyslogTrial,
    Uploaded,
    ProblemDocument,
)
_KNOWN = frozenset(TYPES)
_REFERENCE = "#/components/schemas/{name}"

_ERRORS = {
    401: "Nobody is signed in: no token or session, or one that is not known.",
    403: "The caller may not do this.",
    404: "No such object.",
    409: "Refused: understood, but not now or not possible.",
    412: "The site has changed since the ETag was given.",
    429: "Too many attempts: wait as long as Retry-After says.",
    413: "More bytes than the settings let through.",
    416: "The file has no such part.",
    422: "The request is wrong; every problem is listed.",
    503: "Temporary: try again.",
    507: "A quota, a pool or a disk is exhausted.",
}


@cache
def reference(kind: Any) -> dict[str, Any]:
    """The schema of ``kind``; ``list[X]`` for an array of X. The same for all who ask: not to be changed."""
    if getattr(kind, "__origin__", None) is list:
        return {"type": "array", "items": reference(kind.__args__[0])}
    if kind not in _KNOWN:
        raise KeyError(kind)
    # What it leads to is worked out when somebody asks for the document: it takes a megabyte.
    return {"$ref": _REFERENCE.format(name=kind.__name__)}


@cache
def _refused(code: int) -> dict[str, Any]:
    """The answer of a refusal, one for all routes."""
    return {"description": _ERRORS[code], "content": {MEDIA_TYPE: {"schema": reference(ProblemDocument)}}}


def described(
    summary: str,
    answer: Any = None,
    *,
    status: int = 200,
    body: Any = None,
    media: str = JSON,
    errors: tuple[int, ...] = (),
    headers: dict[str, str] | None = None,
    answers: str = "",
    instead: Any = None,
) -> dict[str, Any]:
    """Keyword arguments for a route: what it does, takes and answers. ``errors`` beside 401, 403, 429 and 503.
    ``instead``: what it answers with 200 when it is only asked what would happen.

    ``body`` is the struct that the body is decoded into, or ``bytes`` for a raw one.
    """
    good: dict[str, Any] = {"description": answers or "Done."}
    if answer is not None:
        good["content"] = {media: {"schema": reference(answer)}}
    elif media != JSON:
        good["content"] = {media: {"schema": {"type": "string"}}}
    if headers:
        good["headers"] = {name: {"description": text, "schema": {"type": "string"}} for name, text in headers.items()}
    responses: dict[str, Any] = {str(status): good}
    if instead is not None:
        what = {"description": "Nothing is done; what would be.", "content": {media: {"schema": reference(instead)}}}
        responses["200"] = what
    for code in sorted({401, 403, 429, 503, *errors}):
        responses[str(code)] = _refused(code)
    extra: dict[str, Any] = {"responses": responses}
    if body is bytes:
        binary = {"schema": {"type": "string", "format": "binary"}}
        extra["requestBody"] = {"required": True, "content": {"application/octet-stream": binary}}
    elif body is not None:
        extra["requestBody"] = {"required": True, "content": {JSON: {"schema": reference(body)}}}
    return {"summary": summary, "status_code": status, "response_model": None, "openapi_extra": extra}


CHANGED = {"Location": "Where to follow the change."}


def accepted(summary: str, *, body: Any = None, errors: tuple[int, ...] = (), instead: Any = None) -> dict[str, Any]:
    """A route that takes time: 202, the change, and in ``Location`` where to follow it."""
    return described(
        summary,
        Change,
        status=202,
        body=body,
        errors=(404, 409, 422, *errors),
        headers=CHANGED,
        answers="Stored; it is being carried out. Follow it at the address in Location.",
        instead=instead,
    )


def install(app: FastAPI) -> None:
    """Make ``app.openapi()`` give the whole document."""

    def openapi() -> dict[str, Any]:
        if app.openapi_schema is None:
            document = get_openapi(
                title="Alvéole",
                version=__version__,
                summary="Many web sites side by side, each in a container of its own.",
                description=(
                    "On the Unix socket the caller is known by its uid (root only); on TCP send "
                    "`Authorization: Bearer TOKEN`. What takes time answers 202 with a change and its address "
                    "in `Location`: `GET` it with `?wait=30` to long-poll, or read its `/events`. Every refusal "
                    "is a problem document (RFC 9457) that lists all problems at once."
                ),
                routes=app.routes,
                tags=[
                    {"name": "sites", "description": "What a person owns and visits."},
                    {"name": "apps", "description": "Applications: versions brought through ordered environments."},
                    {"name": "modules", "description": "The catalogue: what sites are composed of, and its questions."},
                    {"name": "changes", "description": "The journal: who did what, each step, how it ended."},
                    {"name": "certificates", "description": "What visitors are shown, and who issues it."},
                    {"name": "checks", "description": "Scenarios: gate, verification and monitoring of a site."},
                    {"name": "operations", "description": "Named commands of a site, and the programs in it."},
                    {"name": "logs", "description": "Log lines, their room, and who visits a site."},
                    {"name": "notifications", "description": "Being told by mail, webhook or feed."},
                    {"name": "incidents", "description": "What is broken, rules, silences, and what is promised."},
                    {"name": "backups", "description": "Saved sites, and giving them back."},
                    {"name": "plans", "description": "Named sets of limits."},
                    {"name": "bases", "description": "Shared root file systems and imported images."},
                    {"name": "uploads", "description": "Archives on their way in."},
                    {"name": "tokens", "description": "Programs that come in over TCP."},
                    {"name": "accounts", "description": "People, teams, shares and quotas."},
                    {"name": "dns", "description": "The zone that the names of sites are published in."},
                    {"name": "outside", "description": "Where people come from besides: LDAP, OIDC."},
                    {"name": "entrance", "description": "Signing in and out, and who one is."},
                    {"name": "ssh", "description": "Keys of people, and the working copies that SFTP and rsync fill."},
                    {"name": "files", "description": "Single files of a site's working copy and volumes."},
                    {"name": "fleet", "description": "Other machines, and sites that go from one to another."},
                    {"name": "figures", "description": "What sites and the machine used and served."},
                    {"name": "platform", "description": "The machine and Alvéole itself."},
                ],
            )
            schemas = document.setdefault("components", {}).setdefault("schemas", {})
            for unused in ("HTTPValidationError", "ValidationError"):
                schemas.pop(unused, None)
            _, components = msgspec.json.schema_components(TYPES, ref_template=_REFERENCE)
            schemas.update({name: _tidy(schema) for name, schema in components.items()})
            document["components"]["securitySchemes"] = {"token": {"type": "http", "scheme": "bearer"}}
            document["security"] = [{"token": []}]
            for path in document["paths"].values():
                for operation in path.values():
                    _own_errors(operation["responses"])
            for route in routes_of(app):
                for method in getattr(route, "methods", None) or ():
                    operation = document["paths"].get(getattr(route, "path", ""), {}).get(method.lower())
                    if operation is not None:
                        operation["x-right"] = str(declared(route))
            app.openapi_schema = document
        return app.openapi_schema

    app.openapi = openapi  # type: ignore[method-assign]  # as FastAPI says to extend it


def _own_errors(responses: dict[str, Any]) -> None:
    """FastAPI describes a 422 of its own; ours is a problem document."""
    given = responses.get("422", {}).get("content", {})
    if JSON in given:
        responses["422"] = _refused(422)


def _tidy(schema: dict[str, Any]) -> dict[str, Any]:
    if text := schema.get("description"):
        schema = {**schema, "description": inspect.cleandoc(text)}
    return schema
