"""Routes of certificates, and of the authorities that issue them."""

from __future__ import annotations

from typing import Annotated, Any

from fastapi import APIRouter, Depends, Request
from starlette.concurrency import run_in_threadpool
from starlette.responses import Response

from alveole.api import streams
from alveole.api.answers import change_accepted, json, services
from alveole.api.bodies import Caller, Key, body, document
from alveole.api.gate import does
from alveole.api.routes import LateRoute
from alveole.api.schema import accepted, described
from alveole.issuing.model import Zone
from alveole.people.rights import Right
from alveole.views import certificates as cv

router = APIRouter(prefix="/v1", tags=["certificates"], route_class=LateRoute)


@router.get("/certificates", **described("List what visitors of each name are shown", list[cv.CertificateView]))
@does(Right.SITE_LIST)
async def list_certificates(request: Request, caller: Caller) -> Response:
    """Of the sites that the caller may look at; the platform's own too for whom may look at that."""
    return json(await run_in_threadpool(services(request).list_certificates, caller))


@router.get(
    "/certificates/{certificate}", **described("Show the certificate of any name", cv.CertificateView, errors=(404,))
)
@does(Right.PLATFORM_LOOK)
async def show_certificate(request: Request, caller: Caller, certificate: str) -> Response:
    """With its chain."""
    return json(await run_in_threadpool(services(request).show_certificate, caller, certificate))


@router.post(
    "/certificates",
    **described(
        "Show an own certificate for all names that it is for",
        cv.CertificateTaken,
        body=cv.UploadCertificate,
        errors=(422,),
    ),
)
@does(Right.SETTINGS_CHANGE)
async def upload_certificate(
    request: Request,
    caller: Caller,
    wanted: Annotated[cv.UploadCertificate, Depends(body(cv.UploadCertificate))],
) -> Response:
    """A wildcard holds for names that are still to come too. Nothing is reloaded."""
    return json(await streams.in_waiting(services(request).upload_certificate, caller, wanted))


@router.post(
    "/certificates/{certificate}/issue",
    **accepted("Get a certificate for any name", body=cv.IssueCertificate),
)
@does(Right.SETTINGS_CHANGE)
async def issue_certificate(
    request: Request,
    caller: Caller,
    key: Key,
    certificate: str,
    wanted: Annotated[cv.IssueCertificate, Depends(body(cv.IssueCertificate))],
) -> Response:
    return change_accepted(
        await run_in_threadpool(services(request).issue_certificate, caller, certificate, wanted, None, key=key)
    )


@router.delete(
    "/certificates/{certificate}",
    **described("Show a name what there is besides", status=204, errors=(404, 409)),
)
@does(Right.SETTINGS_CHANGE)
async def remove_certificate(request: Request, caller: Caller, certificate: str) -> Response:
    await streams.in_waiting(services(request).remove_certificate, caller, certificate)
    return Response(status_code=204)


# --- of one site ------------------------------------------------------------------------------------
@router.get(
    "/sites/{site}/certificates",
    **described("List what visitors of a site's names are shown", list[cv.CertificateView], errors=(404,)),
)
@does(Right.SITE_LOOK)
async def list_site_certificates(request: Request, caller: Caller, site: str) -> Response:
    return json(await run_in_threadpool(services(request).list_certificates, caller, site))


@router.get(
    "/sites/{site}/certificates/{domain}",
    **described("Show the certificate of a site's name", cv.CertificateView, errors=(404,)),
)
@does(Right.SITE_LOOK)
async def show_site_certificate(request: Request, caller: Caller, site: str, domain: str) -> Response:
    """With its chain."""
    return json(await run_in_threadpool(services(request).show_certificate, caller, domain, site))


@router.post(
    "/sites/{site}/certificates",
    **described(
        "Show an own certificate for a site's names", cv.CertificateTaken, body=cv.UploadCertificate, errors=(404, 422)
    ),
)
@does(Right.SITE_CHANGE)
async def upload_site_certificate(
    request: Request,
    caller: Caller,
    site: str,
    wanted: Annotated[cv.UploadCertificate, Depends(body(cv.UploadCertificate))],
) -> Response:
    """For those of its names that the certificate is for. All that is wrong with it is said at once."""
    return json(await streams.in_waiting(services(request).upload_certificate, caller, wanted, site))


@router.post(
    "/sites/{site}/certificates/{domain}/issue",
    **accepted("Get a certificate for a site's name", body=cv.IssueCertificate),
)
@does(Right.SITE_CHANGE)
async def issue_site_certificate(
    request: Request,
    caller: Caller,
    key: Key,
    site: str,
    domain: str,
    wanted: Annotated[cv.IssueCertificate, Depends(body(cv.IssueCertificate))],
) -> Response:
    """From the authorities that are set up, in their order; it is renewed by itself from then on."""
    return change_accepted(
        await run_in_threadpool(services(request).issue_certificate, caller, domain, wanted, site, key=key)
    )


@router.delete(
    "/sites/{site}/certificates/{domain}",
    **described("Show a site's name what there is besides", status=204, errors=(404, 409)),
)
@does(Right.SITE_CHANGE)
async def remove_site_certificate(request: Request, caller: Caller, site: str, domain: str) -> Response:
    await streams.in_waiting(services(request).remove_certificate, caller, domain, site)
    return Response(status_code=204)


# --- authorities ------------------------------------------------------------------------------------
@router.get("/acme", **described("Show the authorities, what is spent of their budgets, and zones", cv.AcmeView))
@does(Right.SETTINGS_CHANGE)
async def show_acme(request: Request, caller: Caller) -> Response:
    """Secrets in it are `***`."""
    return json(await run_in_threadpool(services(request).show_acme, caller))


@router.patch("/acme", **described("Change how certificates are got", cv.AcmeView, body=cv.SetAcme, errors=(422,)))
@does(Right.SETTINGS_CHANGE)
async def set_acme(
    request: Request, caller: Caller, wanted: Annotated[cv.SetAcme, Depends(body(cv.SetAcme))]
) -> Response:
    return json(await run_in_threadpool(services(request).set_acme, caller, wanted))


@router.post(
    "/acme/authorities",
    **described("Add an authority", cv.AcmeView, body=cv.AddAuthority, errors=(409, 422, 503)),
)
@does(Right.SETTINGS_CHANGE)
async def add_authority(
    request: Request, caller: Caller, wanted: Annotated[cv.AddAuthority, Depends(body(cv.AddAuthority))]
) -> Response:
    """It is asked for its directory and an account first, and kept when both are had."""
    return json(await streams.in_waiting(services(request).add_authority, caller, wanted))


@router.delete(
    "/acme/authorities/{authority}",
    **described("Ask an authority for nothing any more", status=204, errors=(404,)),
)
@does(Right.SETTINGS_CHANGE)
async def remove_authority(request: Request, caller: Caller, authority: str) -> Response:
    """What it has issued serves until it ends."""
    await run_in_threadpool(services(request).remove_authority, caller, authority)
    return Response(status_code=204)


@router.post(
    "/acme/authorities/{authority}/try",
    **described("Ask an authority for its directory and our account", cv.AcmeTried, errors=(404,)),
)
@does(Right.SETTINGS_CHANGE)
async def try_authority(request: Request, caller: Caller, authority: str) -> Response:
    """Nothing is ordered."""
    return json(await streams.in_waiting(services(request).try_authority, caller, authority))


@router.post(
    "/acme/zones",
    **described("Let challenges be written to a zone", cv.AcmeView, body=Zone, errors=(409, 422, 503)),
)
@does(Right.SETTINGS_CHANGE)
async def put_zone(request: Request, caller: Caller, wanted: Annotated[dict[str, Any], Depends(document)]) -> Response:
    """By signed updates (RFC 2136). `***` as the secret keeps the one that is there."""
    return json(await streams.in_waiting(services(request).put_zone, caller, wanted))


@router.delete("/acme/zones/{zone}", **described("Write to a zone no more", status=204, errors=(404,)))
@does(Right.SETTINGS_CHANGE)
async def remove_zone(request: Request, caller: Caller, zone: str) -> Response:
    await run_in_threadpool(services(request).remove_zone, caller, zone)
    return Response(status_code=204)
