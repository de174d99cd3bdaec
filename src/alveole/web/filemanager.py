"""The file manager of a site, and its working copy: looking, editing, moving, sending, publishing."""

from __future__ import annotations

import posixpath
import re
from urllib.parse import quote

from fastapi import APIRouter
from starlette.background import BackgroundTask
from starlette.responses import Response, StreamingResponse

from alveole import requests as ask
from alveole import views
from alveole.api.gate import does
from alveole.errors import AlveoleError, InvalidInput, NotFound
from alveole.people.rights import Right
from alveole.services.files import RELEASES, clean
from alveole.views import files as file_views
from alveole.web.files import Files
from alveole.web.pages import HEADERS, Asked, Errors, Form, Page, PageRoute, query
from alveole.web.site import show
from alveole.web.words import N_

router = APIRouter(include_in_schema=False, route_class=PageRoute)
_UPLOAD = re.compile(r"[0-9a-f]{32}\Z")
ARCHIVES = (".zip", ".tar", ".tgz", ".tar.gz", ".tar.xz", ".tar.bz2")
#: Editable with a click; whatever else is text opens by its address too.
TEXTS_MAX = 256 * 1024
DONE = {
    "folder": N_("The folder is made."),
    "rename": N_("It is renamed."),
    "delete": N_("It is deleted."),
}


def _address(site: str, page: str, at: str) -> str:
    return f"/site/{quote(site)}/files{page}{query(at=at) if at else ''}"


def _list(
    page: Page, site: str, at: str, errors: Errors | None = None, status: int = 200, typed: dict[str, str] | None = None
) -> Response:
    view = page.services.show_site(page.actor, site)
    try:
        folder = page.services.list_folder(page.actor, site, at)
    except NotFound:
        if not clean(at):
            raise
        # A volume that nothing was ever kept in, or a folder that went meanwhile.
        return page.go(_address(site, "", ""), page.t("There is no {path}.", path=at), "warning")
    except AlveoleError as error:
        if error.http_status in (403, 404) or not clean(at):
            raise
        return page.go(_address(site, "", ""), page.refused(error), "danger")
    return show(
        page,
        "site/files.html",
        view,
        "files",
        status=status,
        folder=folder,
        crumbs=_crumbs(page, view, folder.at),
        roots=_roots(page, view),
        address=lambda name, where: _address(view.name, where, posixpath.join(folder.at, name)),
        parent=_address(view.name, "", posixpath.dirname(folder.at)) if folder.at.strip("/") else "",
        archives=ARCHIVES,
        most=TEXTS_MAX,
        errors=errors or Errors(page.words),
        typed=typed or {},
        work=page.services.show_work(page.actor, site),
    )


def _roots(page: Page, view: views.SiteView) -> list[tuple[str, str]]:
    """Where one can begin: the working copy, what lasts, what was published."""
    found = [(page.t("Working copy"), ""), *((volume.path, volume.path) for volume in view.volumes)]
    return [*found, (page.t("Releases"), RELEASES)] if view.releases else found


def _crumbs(page: Page, view: views.SiteView, at: str) -> list[tuple[str, str]]:
    """Names and addresses from the beginning to ``at``."""
    found = [(page.t("Working copy"), _address(view.name, "", ""))] if not at.startswith("/") else [("/", "")]
    parts = [part for part in at.split("/") if part]
    for place, part in enumerate(parts, 1):
        path = ("/" if at.startswith("/") else "") + "/".join(parts[:place])
        shown = part[:12] if len(part) == 64 and path.startswith(RELEASES) else part
        found.append((shown, _address(view.name, "", path)))
    return found


@router.get("/site/{site}/files")
@does(Right.SITE_FILES)
def browse(page: Asked, site: str, at: str = "") -> Response:
    return _list(page, site, at)


@router.post("/site/{site}/files")
@does(Right.SITE_FILES)
def change(page: Asked, site: str, form: Form) -> Response:
    """``do``: ``folder`` makes one, ``rename``, ``delete`` (all that is ticked, or ``name``), ``unpack``."""
    services, actor, at, act = page.services, page.actor, form("at"), form("do")
    names = form.all("name")
    name = names[0] if names else ""
    said = page.t(DONE[act]) if act in DONE else ""
    try:
        if act == "folder":
            services.make_folder(actor, site, at, form("new_folder").strip())
        elif act == "rename":
            services.rename_file(actor, site, at, name, form("to").strip())
        elif act == "delete":
            services.delete_files(actor, site, at, names)
        elif act == "unpack":
            count = services.unpack_file(actor, site, at, name)
            said = page.words.n(count, "{count} file is unpacked.", "{count} files are unpacked.")
        else:
            raise InvalidInput(f"{act[:20]!r} is nothing that can be done to files", field="do")
    except AlveoleError as error:
        services.allow_site(actor, Right.SITE_FILES, site)
        typed = {"new_folder": form("new_folder"), "to": form("to"), "name": name, "do": act}
        return _list(page, site, at, Errors(page.words, error.problems), error.http_status, typed)
    return page.go(_address(site, "", clean(at)), said)


@router.post("/site/{site}/files/upload")
@does(Right.SITE_FILES)
def upload(page: Asked, site: str, form: Files) -> Response:
    """Into a folder: the file that came with the form, or what the page's script has packed of several."""
    at = form("at")
    try:
        if not _UPLOAD.match(form("upload")):
            raise InvalidInput("choose a file first", field="upload")
        count = page.services.put_files(page.actor, site, at, form("upload"), form("filename"))
    except AlveoleError as error:
        page.services.allow_site(page.actor, Right.SITE_FILES, site)
        return _list(page, site, at, Errors(page.words, error.problems), error.http_status)
    said = page.words.n(count, "{count} file is here.", "{count} files are here.")
    return page.go(_address(site, "", clean(at)), said)


@router.get("/site/{site}/files/download")
@does(Right.SITE_FILES)
def download(page: Asked, site: str, at: str = "") -> Response:
    found = page.services.download(page.actor, site, at)
    headers = {
        **HEADERS,
        # Whatever a site's files hold: nothing of it runs under this name.
        "Content-Security-Policy": "default-src 'none'; sandbox; frame-ancestors 'none'",
        "Content-Disposition": f"attachment; filename*=UTF-8''{quote(found.name, safe='')}",
    }
    if found.size is not None:
        headers["Content-Length"] = str(found.size)
    done = BackgroundTask(found.close)
    return StreamingResponse(found.pieces, headers=headers, media_type="application/octet-stream", background=done)


# --- the editor ---------------------------------------------------------------------------------------
@router.get("/site/{site}/files/edit")
@does(Right.SITE_FILES)
def editor(page: Asked, site: str, at: str = "", new: str = "") -> Response:
    """With ``new`` an empty one in the folder ``at``."""
    page.services.allow_site(page.actor, Right.SITE_FILES, site)
    if new:
        return _editor(page, site, file_views.TextFileView(at=clean(at), text="", etag="", bytes=0))
    if not clean(at):
        return page.go(_address(site, "", ""))
    try:
        return _editor(page, site, page.services.read_text(page.actor, site, at))
    except AlveoleError as error:
        return page.go(_address(site, "", posixpath.dirname(clean(at))), page.refused(error), "danger")


def _editor(
    page: Page,
    site: str,
    file: file_views.TextFileView,
    errors: Errors | None = None,
    status: int = 200,
    *,
    name: str = "",
    theirs: file_views.TextFileView | None = None,
) -> Response:
    page.services.allow_site(page.actor, Right.SITE_FILES, site)
    view = page.services.show_site(page.actor, site)
    folder = file.at if not file.etag else posixpath.dirname(file.at)
    return show(
        page,
        "site/edit.html",
        view,
        "files",
        status=status,
        file=file,
        crumbs=_crumbs(page, view, folder),
        back=_address(view.name, "", folder),
        errors=errors or Errors(page.words),
        name=name,
        theirs=theirs,
    )


@router.post("/site/{site}/files/edit")
@does(Right.SITE_FILES)
def save(page: Asked, site: str, form: Form) -> Response:
    """``etag``: of the text that was opened. Somebody else's change meanwhile is shown, and nothing is lost."""
    at, etag, name = form("at"), form("etag"), form("name").strip()
    # A form's lines end in CRLF (HTML, 4.10.22.4); a file keeps the ends that it had.
    text = form("text").replace("\r\n", "\n")
    typed = file_views.TextFileView(at=at, text=text, etag=etag, bytes=len(text))
    try:
        path = at if etag else posixpath.join(clean(at), name)
        if not etag and (not name or "/" in name):
            raise InvalidInput("is no name for a file", field="name")
        done = page.services.write_text(
            page.actor, site, path, text.replace("\n", "\r\n") if form("ends") == "crlf" else text, etag
        )
    except AlveoleError as error:
        page.services.allow_site(page.actor, Right.SITE_FILES, site)
        errors, theirs = Errors(page.words, error.problems), None
        if error.http_status == 412:
            theirs = page.services.read_text(page.actor, site, at)
            # What is stored now, so that sending it again is a decision.
            typed = file_views.TextFileView(at=at, text=text, etag=theirs.etag, bytes=len(text))
        return _editor(page, site, typed, errors, error.http_status, name=name, theirs=theirs)
    return page.go(_address(site, "/edit", done.at), page.t("It is stored in the working copy."))


# --- the working copy -----------------------------------------------------------------------------------
@router.post("/site/{site}/work/publish")
@does(Right.SITE_RELEASE)
def publish(page: Asked, site: str, form: Form) -> Response:
    try:
        wanted = ask.PublishWork(note=form("note").strip()[:200], live=form("wait") != "yes")
        found = page.services.publish_work(page.actor, site, wanted)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back(f"/site/{quote(site)}/content", page.refused(error), "danger")
    return page.go(f"/change/{found.id}")


@router.post("/site/{site}/work/drop")
@does(Right.SITE_FILES)
def drop(page: Asked, site: str) -> Response:
    try:
        page.services.drop_work(page.actor, site)
    except AlveoleError as error:
        if error.http_status in (403, 404):
            raise
        return page.back(f"/site/{quote(site)}/content", page.refused(error), "danger")
    return page.go(f"/site/{quote(site)}/content", page.t("The working copy is as what is live again."))
