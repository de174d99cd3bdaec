"""People from an OpenID provider: the code flow with PKCE, state and nonce, by Authlib and joserfc.

Nothing of the provider's tokens is kept: once the identity token is checked, what is left is a session of ours.
"""

from __future__ import annotations

import ssl
import time
from typing import TYPE_CHECKING, Any
from urllib.parse import urlsplit

import msgspec

from alveole.agent.protocol import Link
from alveole.errors import Denied, Problem, Temporary
from alveole.people import passwords
from alveole.people.mapping import DirectoryPerson, Mapping, tidy_name

if TYPE_CHECKING:
    from authlib.integrations.httpx_client import OAuth2Client

SECONDS = 5.0
#: Signatures that are taken; never ``none``, and none with a secret that the provider would share with others.
_ALGORITHMS = ["RS256", "RS384", "RS512", "PS256", "PS384", "PS512", "ES256", "ES384", "ES512", "EdDSA"]
#: How far the provider's clock may be from ours.
_LEEWAY = 60
_KEYS_SECONDS = 3600.0


class OidcSettings(msgspec.Struct, frozen=True, forbid_unknown_fields=True):
    issuer: str = ""
    """Like ``https://id.example.org/realms/school``; ``/.well-known/openid-configuration`` below it is read."""
    client_id: str = ""
    client_secret: str = ""
    redirect: str = ""
    """Where the provider sends people back: this API's ``/v1/oidc/callback`` by its public name, over https."""
    scopes: tuple[str, ...] = ("openid", "profile", "email")
    name_claim: str = "preferred_username"
    groups_claim: str = "groups"
    certificates: str = ""
    """The authorities to trust, PEM; empty: those that are public."""
    mapping: Mapping = Mapping()

    def check(self) -> tuple[Problem, ...]:
        problems = list(self.mapping.check())
        for field in ("issuer", "redirect"):
            if not _is_safe(getattr(self, field)):
                problems.append(Problem(field, "is not an https address", "only this machine's own may be http"))
        if not self.client_id:
            problems.append(Problem("client_id", "is empty", "the provider gives it"))
        if "openid" not in self.scopes:
            problems.append(Problem("scopes", "does not hold openid"))
        if self.certificates:
            try:
                ssl.create_default_context(cadata=self.certificates)
            except (ssl.SSLError, ValueError, TypeError) as error:
                problems.append(Problem("certificates", f"cannot be read: {error}", "give PEM text"))
        return tuple(problems)


class Begun(msgspec.Struct, frozen=True):
    """A sign-in on its way: what is kept here meanwhile, and where the browser goes."""

    address: str
    state: str
    nonce: str
    verifier: str
    binder: str
    """In a cookie of the browser that began it: nobody else can end it."""
    at: float


class Provider:
    """One provider with what was read of it. Safe from several threads: at worst something is read twice."""

    def __init__(self, settings: OidcSettings) -> None:
        self.settings = settings
        self._facts: tuple[float, dict[str, Any]] = (0.0, {})
        self._keys: tuple[float, dict[str, Any]] = (0.0, {})

    def _client(self, **more: Any) -> OAuth2Client:
        from authlib.integrations.httpx_client import OAuth2Client

        context = ssl.create_default_context(cadata=self.settings.certificates or None)
        return OAuth2Client(
            client_id=self.settings.client_id,
            client_secret=self.settings.client_secret or None,
            token_endpoint_auth_method="client_secret_basic" if self.settings.client_secret else "none",
            scope=" ".join(self.settings.scopes),
            redirect_uri=self.settings.redirect,
            code_challenge_method="S256",
            verify=context,
            timeout=SECONDS,
            follow_redirects=False,
            **more,
        )

    def _get(self, address: str) -> dict[str, Any]:
        import httpx

        if not _is_safe(address):
            raise Temporary(f"the provider names {address[:200]!r}, which is not an https address")
        try:
            with self._client() as client:
                answer = client.request("GET", address, withhold_token=True)
                answer.raise_for_status()
                found = answer.json()
        except (httpx.HTTPError, ValueError) as error:
            raise Temporary(f"the provider does not answer: {error}", hint="try again later") from error
        if not isinstance(found, dict):
            raise Temporary("the provider answers something else")
        return found

    def facts(self) -> dict[str, Any]:
        """The provider's own description, at most an hour old. Raises ``Temporary``."""
        at, facts = self._facts
        if not facts or time.monotonic() - at > _KEYS_SECONDS:
            facts = self._get(self.settings.issuer.rstrip("/") + "/.well-known/openid-configuration")
            if facts.get("issuer") != self.settings.issuer:
                raise Temporary(f"the provider calls itself {str(facts.get('issuer'))[:200]}", hint="check issuer")
            self._facts = (time.monotonic(), facts)
        return facts

    def _key_set(self, *, fresh: bool = False) -> dict[str, Any]:
        at, keys = self._keys
        if fresh or not keys or time.monotonic() - at > _KEYS_SECONDS:
            keys = self._get(str(self.facts().get("jwks_uri")))
            self._keys = (time.monotonic(), keys)
        return keys

    def trial(self) -> tuple[Link, ...]:
        """What a sign-in asks of the provider before anybody comes, one after the other. Never raises."""
        settings = self.settings
        asked = settings.issuer.rstrip("/") + "/.well-known/openid-configuration"
        try:
            facts = self.facts()
        except Temporary as error:
            return (Link("provider", False, f"read {asked}", str(error), "check the issuer and the authorities"),)
        found = [Link("provider", True, f"read {asked}", f"it is {settings.issuer}")]
        ends = ("authorization_endpoint", "token_endpoint", "jwks_uri")
        absent = [name for name in ends if not _is_safe(str(facts.get(name, "")))]
        came = f"no safe address for {', '.join(absent)}" if absent else "all addresses are there, over https"
        found.append(Link("addresses", not absent, f"look for {', '.join(ends)}", came, "ask who runs the provider"))
        if not absent:
            try:
                keys = len(self._key_set().get("keys", ()))
                found.append(Link("keys", keys > 0, "read its keys", f"{keys} keys", "ask who runs the provider"))
            except Temporary as error:
                found.append(Link("keys", False, "read its keys", str(error), "ask who runs the provider"))
        scopes = facts.get("scopes_supported")
        if isinstance(scopes, list):
            unknown = [each for each in settings.scopes if each not in scopes]
            came = f"it does not know {', '.join(unknown)}" if unknown else "it knows them all"
            found.append(Link("scopes", not unknown, f"ask for {' '.join(settings.scopes)}", came, "leave them out"))
        methods = facts.get("code_challenge_methods_supported")
        if isinstance(methods, list):
            good = "S256" in methods
            came = "it takes S256" if good else "it does not take S256"
            found.append(Link("PKCE", good, "look for S256", came, "let who runs the provider switch it on"))
        return tuple(found)

    def begin(self) -> Begun:
        """Raises ``Temporary`` when the provider cannot be asked."""
        where = str(self.facts().get("authorization_endpoint"))
        nonce, verifier, binder = (passwords.secret("") for _ in range(3))
        with self._client() as client:
            address, state = client.create_authorization_url(where, nonce=nonce, code_verifier=verifier)
        return Begun(str(address), str(state), nonce, verifier, binder, time.monotonic())

    def end(self, begun: Begun, code: str) -> DirectoryPerson:
        """Who came back. Raises ``Denied`` for a code or a token that is not good, ``Temporary``."""
        import httpx
        from authlib.common.errors import AuthlibBaseError

        try:
            with self._client() as client:
                where = str(self.facts().get("token_endpoint"))
                token = client.fetch_token(where, code=code, code_verifier=begun.verifier)
                claims = self._claims(str(token.get("id_token") or ""), begun.nonce)
                userinfo = self.facts().get("userinfo_endpoint")
                if userinfo and not {self.settings.name_claim, self.settings.groups_claim} <= claims.keys():
                    more = client.get(str(userinfo)).raise_for_status().json()
                    # OpenID Connect Core §5.3.2: of another subject it must not be used.
                    if more.get("sub") == claims["sub"]:
                        claims = {**more, **claims}
        except AuthlibBaseError as error:
            raise Denied(f"the provider says no: {error.error}", field="code") from error
        except (httpx.HTTPError, ValueError) as error:
            raise Temporary(f"the provider does not answer: {error}", hint="try again") from error
        return self._found(claims)

    def _claims(self, token: str, nonce: str) -> dict[str, Any]:
        from joserfc import jwt
        from joserfc.errors import JoseError
        from joserfc.jwk import KeySet

        error: Exception | None = None
        # A second time with fresh keys: providers change theirs.
        for fresh in (False, True):
            try:
                keys = KeySet.import_key_set(self._key_set(fresh=fresh))  # type: ignore[arg-type]  # any JSON
                found = jwt.decode(token, keys, algorithms=_ALGORITHMS)
                registry = jwt.JWTClaimsRegistry(
                    leeway=_LEEWAY,
                    iss={"essential": True, "value": self.settings.issuer},
                    aud={"essential": True, "value": self.settings.client_id},
                    exp={"essential": True},
                    iat={"essential": True},
                    sub={"essential": True},
                    nonce={"essential": True, "value": nonce},
                )
                registry.validate(found.claims)
                return dict(found.claims)
            except (JoseError, ValueError, KeyError) as problem:
                error = problem
        raise Denied("the provider's token is not good", field="code") from error

    def _found(self, claims: dict[str, Any]) -> DirectoryPerson:
        settings = self.settings
        groups = claims.get(settings.groups_claim, [])
        named = [groups] if isinstance(groups, str) else groups if isinstance(groups, list) else []
        name = tidy_name(str(claims.get(settings.name_claim) or ""))
        if not name:
            raise Denied(f"the provider gives no usable {settings.name_claim}", hint="ask an administrator")
        return DirectoryPerson(
            name=name,
            external=f"{settings.issuer} {claims['sub']}",
            title=_text(claims.get("name")),
            email=_text(claims.get("email")),
            groups=tuple(each for each in named if isinstance(each, str)),
        )


def _text(value: object) -> str:
    return value if isinstance(value, str) and value.isprintable() else ""


def _is_safe(address: str) -> bool:
    """Encrypted, or on this machine alone."""
    try:
        parts = urlsplit(address)
    except ValueError:
        return False
    if parts.username or parts.fragment or not parts.hostname:
        return False
    return parts.scheme == "https" or (parts.scheme == "http" and parts.hostname in ("127.0.0.1", "::1", "localhost"))
