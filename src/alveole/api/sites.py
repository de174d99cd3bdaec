"""Routes of sites: what they are, what they do, their content, their output."""

from __future__ import annotations

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response, StreamingResponse

from alveole import requests as ask
from alveole import views
from alveole.api import streams
from alveole.api.answers import change_accepted, json, services, site_answer
from alveole.api.bodies import Caller, Key, Version, body
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import NDJSON, accepted, described
from alveole.errors import InvalidInput, Problem
from alveole.logs import LAST_MAX, Line, moment
from alveole.people.rights import Right
from alveole.views import modules as module_views

router = APIRouter(prefix="/v1/sites", tags=["sites"], route_class=LateRoute)
ETAG = {"ETag": "The site's version; send it in If-Match to change only what was seen."}


@router.get("", **described("List all sites, by name", list[views.SiteView]))
@does(Right.SITE_LIST)
async def list_sites(request: Request, caller: Caller) -> Response:
    return json(await run_in_threadpool(services(request).list_sites, caller))


@router.post(
    "",
    **accepted("Create a site", body=ask.CreateSite, errors=(507,), instead=views.DryRun),
)
@does(Right.SITE_CREATE)
async def create_site(
    request: Request,
    caller: Caller,
    key: Key,
    wanted: Annotated[ask.CreateSite, Depends(body(ask.CreateSite))],
    dry_run: Annotated[bool, Query(description="Check everything and say what would happen (200, DryRun).")] = False,
    content: Annotated[bool, Query(description="With dry_run: an upload or an image is still to be sent.")] = False,
) -> Response:
    """With ``dry_run`` nothing is stored and the answer is 200 with the steps that would be taken."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_create, caller, wanted, content=content))
    return change_accepted(await run_in_threadpool(services(request).create_site, caller, wanted, key=key))


@router.get("/{site}", **described("Show a site", views.SiteView, errors=(404,), headers=ETAG))
@does(Right.SITE_LOOK)
async def show_site(
    request: Request,
    caller: Caller,
    site: str,
    show_env: Annotated[bool, Query(description="Give the values of the environment too.")] = False,
) -> Response:
    return site_answer(await run_in_threadpool(services(request).show_site, caller, site, show_env=show_env))


@router.patch("/{site}", **accepted("Change the configuration of a site", body=ask.SetSite, errors=(412, 507)))
@does(Right.SITE_CHANGE)
async def set_site(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    wanted: Annotated[ask.SetSite, Depends(body(ask.SetSite))],
) -> Response:
    """What is absent stays as it is; ``null`` clears where that has a meaning."""
    return change_accepted(
        await run_in_threadpool(services(request).set_site, caller, site, wanted, key=key, version=version)
    )


@router.delete("/{site}", **accepted("Destroy a stopped site, with everything that is its own", errors=(412,)))
@does(Right.SITE_DESTROY)
async def destroy_site(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    confirm: Annotated[str, Query(description="The site's name once more.")] = "",
    unsaved: Annotated[bool, Query(description="Without the backup that is made of it otherwise.")] = False,
) -> Response:
    wanted = ask.DestroySite(confirm=confirm, unsaved=unsaved)
    return change_accepted(
        await run_in_threadpool(services(request).destroy_site, caller, site, wanted, key=key, version=version)
    )


@router.post("/{site}/start", **accepted("Start a site", errors=(412,)))
@does(Right.SITE_RUN)
async def start_site(request: Request, caller: Caller, key: Key, version: Version, site: str) -> Response:
    return change_accepted(
        await run_in_threadpool(services(request).start_site, caller, site, key=key, version=version)
    )


@router.post("/{site}/stop", **accepted("Stop a site", errors=(412,)))
@does(Right.SITE_RUN)
async def stop_site(request: Request, caller: Caller, key: Key, version: Version, site: str) -> Response:
    return change_accepted(await run_in_threadpool(services(request).stop_site, caller, site, key=key, version=version))


@router.post("/{site}/restart", **accepted("Start a running site anew", errors=(412,)))
@does(Right.SITE_RUN)
async def restart_site(request: Request, caller: Caller, key: Key, version: Version, site: str) -> Response:
    return change_accepted(
        await run_in_threadpool(services(request).restart_site, caller, site, key=key, version=version)
    )


@router.post("/{site}/sleep", **accepted("Put a running site to sleep until somebody asks for it", errors=(412,)))
@does(Right.SITE_RUN)
async def sleep_site(request: Request, caller: Caller, key: Key, version: Version, site: str) -> Response:
    return change_accepted(
        await run_in_threadpool(services(request).sleep_site, caller, site, key=key, version=version)
    )


@router.post("/{site}/rename", **accepted("Give a site another name", body=ask.RenameSite, errors=(412,)))
@does(Right.SITE_RENAME)
async def rename_site(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    wanted: Annotated[ask.RenameSite, Depends(body(ask.RenameSite))],
) -> Response:
    return change_accepted(
        await run_in_threadpool(services(request).rename_site, caller, site, wanted, key=key, version=version)
    )


@router.post(
    "/{site}/questions",
    **described(
        "Show what a site of modules is asked, with other answers",
        module_views.QuestionsView,
        body=ask.ConfigureSite,
        errors=(404, 409, 422),
    ),
)
@does(Right.SITE_CHANGE)
async def site_questions(
    request: Request, caller: Caller, site: str, wanted: Annotated[ask.ConfigureSite, Depends(body(ask.ConfigureSite))]
) -> Response:
    """Only `answers` of the body are looked at, and nothing is stored. No password is shown."""
    return json(await run_in_threadpool(services(request).site_questions, caller, site, wanted.answers))


@router.post(
    "/{site}/configure",
    **accepted(
        "Compose a site of modules again", body=ask.ConfigureSite, errors=(412, 507), instead=module_views.ConfigurePlan
    ),
)
@does(Right.SITE_CHANGE)
async def configure_site(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    wanted: Annotated[ask.ConfigureSite, Depends(body(ask.ConfigureSite))],
    dry_run: Annotated[bool, Query(description="Only say what would change (200, ConfigurePlan).")] = False,
) -> Response:
    """Only processes whose files changed start anew, where nothing else of the site does. Files that were changed
    by hand and would change are named in the refusal, unless `keep` or `take_back` names them."""
    if dry_run:
        return json(await run_in_threadpool(services(request).preview_configure, caller, site, wanted))
    return change_accepted(
        await run_in_threadpool(services(request).configure_site, caller, site, wanted, key=key, version=version)
    )


@router.get(
    "/{site}/answers", **described("Show the answers of a site of modules", module_views.AnswersView, errors=(404, 422))
)
@does(Right.SITE_LOOK)
async def site_answers(
    request: Request,
    caller: Caller,
    site: str,
    show_secrets: Annotated[bool, Query(description="Give passwords too.")] = False,
) -> Response:
    return json(await run_in_threadpool(services(request).site_answers, caller, site, show_secrets=show_secrets))


@router.post(
    "/{site}/releases",
    **accepted("Make new content, or a kept release, live", body=ask.UpdateSite, errors=(412, 507)),
)
@does(Right.SITE_RELEASE)
async def update_site(
    request: Request,
    caller: Caller,
    key: Key,
    version: Version,
    site: str,
    wanted: Annotated[ask.UpdateSite, Depends(body(ask.UpdateSite))],
) -> Response:
    """``upload`` for new content, ``release`` (a digest) for one of the last that are kept."""
    return change_accepted(
        await run_in_threadpool(services(request).update_site, caller, site, wanted, key=key, version=version)
    )


@router.get(
    "/{site}/why",
    **described(
        "Walk the chain from the site's name to its application, really trying each link", views.WhyView, errors=(404,)
    ),
)
@does(Right.SITE_LOOK)
async def why(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).why, caller, site))


@router.get(
    "/{site}/logs",
    **described(
        "Read or follow what a site prints",
        Line,
        media=NDJSON,
        errors=(404, 422),
        answers="One JSON document a line, oldest first. Control characters of the site are taken out.",
    ),
)
@does(Right.SITE_LOGS)
async def logs(
    request: Request,
    caller: Caller,
    site: str,
    follow: Annotated[bool, Query(description="Go on with new lines as they come.")] = False,
    since: Annotated[str | None, Query(description="ISO 8601, an epoch, or an age like 10m, 2h, 3d.")] = None,
    until: Annotated[str | None, Query(description="Likewise; not together with follow.")] = None,
    n: Annotated[int | None, Query(description=f"Only the last so many lines, 0 to {LAST_MAX}.")] = None,
) -> Response:
    asked = {"follow": follow or None, "since": since, "until": until, "n": n}
    there = await run_in_threadpool(services(request).logs_there, caller, site, asked)
    if there is not None:
        return StreamingResponse(there, headers=streams.UNBUFFERED, media_type=NDJSON)
    where = await run_in_threadpool(services(request).site_logs, caller, site)
    problems: list[Problem] = []
    bounds: dict[str, float | None] = {}
    for name, text in (("since", since), ("until", until)):
        try:
            bounds[name] = moment(text, name) if text else None
        except InvalidInput as error:
            problems.extend(error.problems)
    if n is not None and not 0 <= n <= LAST_MAX:
        problems.append(Problem("n", f"{n} is outside 0..{LAST_MAX}"))
    if follow and until:
        problems.append(Problem("until", "has no meaning together with follow", "leave one of them out"))
    if problems:
        raise InvalidInput(problems=problems)
    lines = streams.log_lines(where.directory, where.archive, bounds["since"], bounds["until"], n, follow)
    return StreamingResponse(lines, headers=streams.UNBUFFERED, media_type=NDJSON)
