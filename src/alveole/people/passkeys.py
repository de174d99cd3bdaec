"""Passkeys (WebAuthn Level 2) by py_webauthn: what a browser is asked, and what its answer proves."""

from __future__ import annotations

from typing import Any
from urllib.parse import urlsplit

import msgspec

from alveole.errors import InvalidInput, Refused


class Place(msgspec.Struct, frozen=True):
    """The origin that the page has, as the browser says; the gate has compared it with the host of the request."""

    origin: str

    @property
    def host(self) -> str:
        return urlsplit(self.origin).hostname or ""


class Created(msgspec.Struct, frozen=True):
    handle: str
    public_key: str
    counter: int


def _encode(raw: bytes) -> str:
    from webauthn.helpers import bytes_to_base64url

    return bytes_to_base64url(raw)


def _decode(text: str) -> bytes:
    from webauthn.helpers import base64url_to_bytes

    return base64url_to_bytes(text)


def _checked(site: Place) -> Place:
    parts = urlsplit(site.origin)
    if parts.scheme != "https" and parts.hostname != "localhost":
        raise Refused("passkeys need https", field="Origin", hint="open the page by its own name over https")
    return site


def creation(site: Place, person: str, name: str, title: str, known: list[str]) -> tuple[dict[str, Any], bytes]:
    """Options for a new passkey of ``person``, and the challenge to keep. ``known`` may not be taken again."""
    from webauthn import generate_registration_options, options_to_json
    from webauthn.helpers.structs import (
        AuthenticatorSelectionCriteria,
        PublicKeyCredentialDescriptor,
        ResidentKeyRequirement,
        UserVerificationRequirement,
    )

    options = generate_registration_options(
        rp_id=_checked(site).host,
        rp_name="Alvéole",
        user_id=person.encode(),
        user_name=name,
        user_display_name=title,
        exclude_credentials=[PublicKeyCredentialDescriptor(id=_decode(handle)) for handle in known],
        authenticator_selection=AuthenticatorSelectionCriteria(
            resident_key=ResidentKeyRequirement.DISCOURAGED, user_verification=UserVerificationRequirement.PREFERRED
        ),
    )
    return msgspec.json.decode(options_to_json(options)), options.challenge


def created(site: Place, challenge: bytes, credential: dict[str, Any]) -> Created:
    """What a browser made. Raises ``InvalidInput`` when it does not answer the challenge, for this origin."""
    from webauthn import verify_registration_response
    from webauthn.helpers.exceptions import WebAuthnException

    try:
        found = verify_registration_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=_checked(site).host,
            expected_origin=site.origin,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise InvalidInput("is not a passkey made for this page", field="credential") from error
    return Created(_encode(found.credential_id), _encode(found.credential_public_key), found.sign_count)


def request(site: Place, known: list[str]) -> tuple[dict[str, Any], bytes]:
    """Options for giving one of the ``known``, and the challenge to keep."""
    from webauthn import generate_authentication_options, options_to_json
    from webauthn.helpers.structs import PublicKeyCredentialDescriptor, UserVerificationRequirement

    options = generate_authentication_options(
        rp_id=_checked(site).host,
        allow_credentials=[PublicKeyCredentialDescriptor(id=_decode(handle)) for handle in known],
        user_verification=UserVerificationRequirement.PREFERRED,
    )
    return msgspec.json.decode(options_to_json(options)), options.challenge


def handle_of(credential: dict[str, Any]) -> str:
    found = credential.get("id")
    return found if isinstance(found, str) else ""


def proven(site: Place, challenge: bytes, credential: dict[str, Any], public_key: str, counter: int) -> int:
    """The new counter, when it is signed by that key for this origin. Raises ``InvalidInput``.

    A counter that does not rise is a copied authenticator (WebAuthn §6.1.1) and is refused.
    """
    from webauthn import verify_authentication_response
    from webauthn.helpers.exceptions import WebAuthnException

    try:
        found = verify_authentication_response(
            credential=credential,
            expected_challenge=challenge,
            expected_rp_id=_checked(site).host,
            expected_origin=site.origin,
            credential_public_key=_decode(public_key),
            credential_current_sign_count=counter,
        )
    except (WebAuthnException, ValueError, KeyError, TypeError) as error:
        raise InvalidInput("is not this passkey's answer", field="credential") from error
    return found.new_sign_count
