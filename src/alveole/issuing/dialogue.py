"""What is said to an ACME authority, through the ``acme`` library, which this module loads.

Orders are addresses there: whoever knows one can go on with it, so nothing is lost when this process ends.
"""

from __future__ import annotations

import contextlib
import logging
import os
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from typing import Any
from urllib.parse import urlsplit

import josepy
import josepy.errors
import msgspec
import requests
from acme import client, errors, messages
from josepy.jwk import JWK, JWKRSA

from alveole import __version__
from alveole.errors import Refused, StepFailed, Temporary
from alveole.issuing.model import Authority
from alveole.issuing.transport import Guarded
from alveole.trust.certs import ROOTS

log = logging.getLogger("alveole.issuing")
#: An authority gives many nonces at once and may take none of them back after a restart of its own.
_NONCE_TRIES = 12
_PATIENCE = 30
_REDIRECTS_MOST = 3
#: An order of ours has two names at the most, and a chain a few certificates.
_NAMES_MOST = 100
_CHAIN_BYTES = 100_000
_POLL_SECONDS = (0.25, 5.0)
# It writes every message down when asked for debugging, and one of them holds the binding of an account.
logging.getLogger("acme.client").setLevel(logging.INFO)


class Gone(Refused):
    """The authority does not know the order any more, or has given it up."""


class Limited(Refused):
    """The authority says that its limits are reached."""


class NotProven(StepFailed):
    """A name was looked at and not believed; ``names``: which."""

    def __init__(self, message: str, names: tuple[str, ...]) -> None:
        super().__init__(message, field="names")
        self.names = names


class Challenge:
    """One way to prove a name. ``value``: what the TXT record holds (DNS-01)."""

    def __init__(self, name: str, body: messages.ChallengeBody, key: JWK) -> None:
        self.name = name
        self.body = body
        self.kind = str(body.chall.typ)
        self.response, self._validation = body.chall.response_and_validation(key)
        self.token = str(body.chall.encode("token"))

    @property
    def thumbprint(self) -> str:
        """The part of the answer over HTTP behind the token."""
        return str(self.response.key_authorization).partition(".")[2]

    @property
    def value(self) -> str:
        return str(self._validation)


class _Network(client.ClientNetwork):
    def post(self, *args: Any, **more: Any) -> requests.Response:
        """More patient than the library where nonces are refused (RFC 8555 §6.5 asks for it)."""
        for turn in range(_NONCE_TRIES):
            try:
                return self._post_once(*args, **more)
            except messages.Error as error:
                if error.code != "badNonce" or turn == _NONCE_TRIES - 1:
                    raise
                self._nonces.clear()
        raise Temporary("the authority takes no nonce")


class Dialogue:
    """One authority. Use it in a ``with``; not safe from several threads. Raises ``StepFailed`` for a no that stays,
    :class:`Limited`, :class:`NotProven`, :class:`Gone`, and ``Temporary`` where nothing or nothing sensible comes."""

    def __init__(
        self, authority: Authority, inside: Iterable[str], stop: threading.Event, stored: Callable[[Authority], None]
    ) -> None:
        """``stored`` keeps the authority's key before it is used, and its account."""
        self.authority = authority
        self._stop = stop
        self._stored = stored
        self._inside = (urlsplit(authority.directory).hostname or "", *inside)
        self._end = contextlib.ExitStack()
        self._known: tuple[client.ClientV2, JWK] | None = None

    def __enter__(self) -> Dialogue:
        return self

    def __exit__(self, *_: object) -> None:
        self._end.close()

    # --- the account --------------------------------------------------------------------------
    def _opened(self) -> tuple[client.ClientV2, JWK]:
        if self._known is None:
            with _said(self.authority):
                self._known = self._open()
        return self._known

    def _open(self) -> tuple[client.ClientV2, JWK]:
        from cryptography.hazmat.primitives.asymmetric import rsa
        from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

        if not self.authority.account_key:
            made = rsa.generate_private_key(public_exponent=65537, key_size=2048)
            text = made.private_bytes(Encoding.PEM, PrivateFormat.PKCS8, NoEncryption()).decode()
            self._keep(account_key=text)
        key = JWKRSA.load(self.authority.account_key.encode())
        network = _Network(key, user_agent=f"alveole/{__version__}", timeout=_PATIENCE)
        network.verify_ssl = self._trust()  # type: ignore[assignment]  # requests takes the path of a file as well
        # Neither a proxy nor a password of the environment of whoever started us.
        network.session.trust_env = False
        network.session.max_redirects = _REDIRECTS_MOST
        network.session.mount("https://", Guarded(self._inside))
        network.session.adapters.pop("http://", None)
        self._end.callback(network.session.close)
        found = client.ClientV2(client.ClientV2.get_directory(self.authority.directory, network), network)
        self._register(found, key)
        return found, key

    def _trust(self) -> str | bool:
        if not self.authority.certificates:
            return str(ROOTS) if ROOTS.exists() else True
        # In memory, so that nothing is left lying about when this process is killed.
        fd = os.memfd_create("authorities", os.MFD_CLOEXEC)
        self._end.callback(os.close, fd)
        os.write(fd, self.authority.certificates.encode())
        return f"/proc/self/fd/{fd}"

    def _register(self, found: client.ClientV2, key: JWK) -> None:
        if self.authority.account:
            found.net.account = messages.RegistrationResource(body=messages.Registration(), uri=self.authority.account)
            return
        binding = None
        if self.authority.eab_kid:
            binding = messages.ExternalAccountBinding.from_data(
                key.public_key(), self.authority.eab_kid, self.authority.eab_key, found.directory
            )
        elif found.external_account_required():
            raise StepFailed(
                f"{self.authority.name} binds orders to an account of its own", field="eab_kid", hint="give its key"
            )
        wanted = messages.NewRegistration.from_data(
            email=self.authority.email or None, terms_of_service_agreed=True, external_account_binding=binding
        )
        try:
            account = str(found.new_account(wanted).uri)
        except errors.ConflictError as error:
            # Known there by this key: registered right before this process was killed.
            account = str(error.location)
            found.net.account = messages.RegistrationResource(body=messages.Registration(), uri=account)
        self._keep(account=account)

    def _keep(self, **fields: str) -> None:
        self.authority = msgspec.structs.replace(self.authority, **fields)
        self._stored(self.authority)

    def _known_again(self, error: messages.Error) -> None:
        """An authority that was made anew does not know the account: another is had with the same key. Its terms have
        been agreed to. Raises ``error`` when it is about something else."""
        if error.code != "accountDoesNotExist" or self._known is None:
            raise error
        found, key = self._known
        log.warning("%s does not know %s any more", self.authority.name, self.authority.account)
        self.authority = msgspec.structs.replace(self.authority, account="")
        found.net.account = None
        self._register(found, key)

    def try_it(self) -> str:
        """Ask for the directory and the account; gives a sentence about both."""
        found, _key = self._opened()
        before = self.authority.account
        with _said(self.authority):
            account = messages.RegistrationResource(body=messages.Registration(), uri=before)
            try:
                found.query_registration(account)
            except messages.Error as error:
                self._known_again(error)
        meta = getattr(found.directory, "meta", None)
        terms = str(getattr(meta, "terms_of_service", "") or "")
        new = f" (new: it did not know {before} any more)" if self.authority.account != before else ""
        return f"account {self.authority.account}{new}" + (f"; terms: {terms}" if terms else "")

    def terms(self) -> str:
        """Where its terms of service are; empty: it has none."""
        found, _key = self._opened()
        return str(getattr(getattr(found.directory, "meta", None), "terms_of_service", "") or "")

    # --- an order -----------------------------------------------------------------------------
    def order(self, request: str) -> str:
        """Order what the signing request (PEM) names; gives the order's address."""
        found, _key = self._opened()
        with _said(self.authority):
            try:
                return str(found.new_order(request.encode()).uri)
            except messages.Error as error:
                self._known_again(error)
                return str(found.new_order(request.encode()).uri)

    def _fetch(self, url: str) -> messages.Order:
        answer = self._ask(url)
        order: messages.Order = messages.Order.from_json(answer.json())
        return order

    def _ask(self, url: str) -> requests.Response:
        found, _key = self._opened()
        return found.net.post(url, None, new_nonce_url=found.directory["newNonce"])

    def challenges(self, url: str, kind_of: Callable[[str], str]) -> tuple[Challenge, ...]:
        """What is still to be proven of an order. ``kind_of`` says by which way a name is."""
        _found, key = self._opened()
        pending = []
        with _said(self.authority, order=True):
            order = self._fetch(url)
            if order.status == messages.STATUS_INVALID:
                raise Gone(f"{self.authority.name} has given the order up: {_why(order.error)}")
            for address in self._authorizations(order):
                body = messages.Authorization.from_json(self._ask(address).json())
                if body.status == messages.STATUS_VALID:
                    continue
                if body.status != messages.STATUS_PENDING:
                    raise Gone(f"{self.authority.name} has given the order up: a name was not proven")
                name = f"*.{body.identifier.value}" if body.wildcard else str(body.identifier.value)
                wanted = kind_of(name)
                offered = [each for each in body.challenges if each.chall.typ == wanted]
                if not offered:
                    words = ", ".join(str(each.chall.typ) for each in body.challenges)
                    raise StepFailed(f"{self.authority.name} lets {name} be proven by {words}, and not by {wanted}")
                pending.append(Challenge(name, offered[0], key))
        return tuple(pending)

    def prove(self, url: str, pending: Iterable[Challenge]) -> None:
        """Have the authority look at what is in place now, and wait for what it says."""
        found, _key = self._opened()
        with _said(self.authority, order=True):
            for each in pending:
                found.answer_challenge(each.body, each.response)
            self._until(lambda: self._proven(url))

    def _authorizations(self, order: messages.Order) -> tuple[str, ...]:
        found = tuple(map(str, order.authorizations or ()))
        if len(found) > _NAMES_MOST:
            raise StepFailed(f"{self.authority.name} wants {len(found)} proofs for one order")
        return found

    def _proven(self, url: str) -> tuple[bool, requests.Response | None]:
        order = self._fetch(url)
        failed: list[str] = []
        names: list[str] = []
        answer = None
        waiting = False
        for address in self._authorizations(order):
            answer = self._ask(address)
            body = messages.Authorization.from_json(answer.json())
            if body.status in (messages.STATUS_PENDING, messages.STATUS_PROCESSING):
                waiting = True
            elif body.status != messages.STATUS_VALID:
                names.append(str(body.identifier.value))
                said = [_why(each.error) for each in body.challenges if each.error is not None]
                failed.append(f"{body.identifier.value}: {'; '.join(said) or body.status.name}")
        if failed:
            raise NotProven(f"{self.authority.name} was not convinced: {'; '.join(failed)}"[:2000], tuple(names))
        return not waiting, answer

    def finish(self, url: str, request: Callable[[], str]) -> str:
        """Have the certificate signed, or fetch what was; gives the chain (PEM). ``request`` gives what is to be signed
        (PEM), when that is still to be done."""
        from cryptography import x509

        found, _key = self._opened()
        chain = ""

        def look() -> tuple[bool, requests.Response | None]:
            nonlocal chain
            answer = self._ask(url)
            order = messages.Order.from_json(answer.json())
            if order.status == messages.STATUS_INVALID:
                raise Gone(f"{self.authority.name} does not issue it: {_why(order.error)}")
            if order.status == messages.STATUS_READY:
                csr = messages.CertificateRequest(csr=x509.load_pem_x509_csr(request().encode()))
                found.net.post(order.finalize, csr, new_nonce_url=found.directory["newNonce"])
                return False, None
            if order.status == messages.STATUS_VALID and order.certificate is not None:
                chain = self._ask(str(order.certificate)).text
                return True, None
            return False, answer

        with _said(self.authority, order=True):
            self._until(look)
        if len(chain) > _CHAIN_BYTES:
            raise StepFailed(f"{self.authority.name} gives a chain of {len(chain)} bytes")
        return chain

    def renewal(self, chain: str) -> tuple[float | None, float]:
        """When the authority would have a certificate renewed (RFC 9773), and when to ask again."""
        found, _key = self._opened()
        try:
            with _said(self.authority):
                at, again = found.renewal_time(chain.encode())
        except errors.ARIError as error:
            return None, error.retry_after.timestamp()
        except ValueError:
            return None, time.time() + 6 * 3600
        return (at.timestamp() if at is not None else None), again.timestamp()

    def _until(self, look: Callable[[], tuple[bool, requests.Response | None]]) -> None:
        end = time.monotonic() + self.authority.seconds
        pause = _POLL_SECONDS[0]
        while True:
            done, answer = look()
            if done:
                return
            wait = pause
            if answer is not None and (text := answer.headers.get("Retry-After", "")).isdigit():
                wait = max(pause, min(float(text), 30.0))
            if time.monotonic() + wait > end:
                raise Temporary(f"{self.authority.name} is not done within {self.authority.seconds} s")
            if self._stop.wait(wait):
                raise Temporary("control is ending")
            pause = min(pause * 1.5, _POLL_SECONDS[1])


@contextlib.contextmanager
def _said(authority: Authority, *, order: bool = False) -> Iterator[None]:
    """What the library raises, as errors of ours."""
    who = authority.name
    try:
        yield
    except messages.Error as error:
        text = f"{who}: {_why(error)}"[:2000]
        if error.code == "rateLimited":
            raise Limited(text) from None
        if error.code in ("serverInternal", "badNonce"):
            raise Temporary(text) from None
        if order and error.code in ("malformed", "accountDoesNotExist", None):
            raise Gone(text) from None
        raise StepFailed(text) from None
    except requests.exceptions.SSLError as error:
        reason = getattr(getattr(error.args[0], "reason", None), "args", [error])[0]
        verified = reason if isinstance(reason, ssl.SSLCertVerificationError) else None
        text = verified.verify_message if verified is not None else str(reason)
        raise Temporary(
            f"{who} is not trusted: {text}"[:500], hint="name the authorities that it is trusted by: --trust FILE"
        ) from None
    except requests.exceptions.RequestException as error:
        raise Temporary(
            f"{who} cannot be asked: {_reason(error)}"[:300], hint=f"is it at {authority.directory}?"
        ) from None
    except errors.Error as error:
        if isinstance(error, errors.ARIError):
            raise
        response = error.args[0] if error.args else None
        status = getattr(response, "status_code", 0)
        if order and status == 404:
            raise Gone(f"{who} does not know the order any more") from None
        if status:
            text, hint = (
                f"{who} answers with status {status}",
                f"is {authority.directory} the address of its directory?",
            )
            raise Temporary(text, hint=hint) from None
        raise Temporary(f"{who} answers what is no answer: {error}"[:300]) from None
    except (josepy.errors.Error, LookupError, ValueError, AttributeError, TypeError, RecursionError) as error:
        # The library takes what comes for what it should be: a list where a directory was to be is a missing attribute.
        log.debug("%s", who, exc_info=True)
        raise Temporary(f"{who} answers what is no answer: {type(error).__name__}: {error}"[:300]) from None


def _reason(error: BaseException) -> str:
    """What the system said, of what libraries have wrapped it into; else the outermost's own words."""
    inner: Any = error
    for _turn in range(8):
        if isinstance(inner, OSError) and inner.strerror and inner.errno is not None:
            return inner.strerror
        following = getattr(inner, "reason", None) or inner.__cause__
        if not isinstance(following, BaseException):
            following = next((each for each in inner.args if isinstance(each, BaseException)), None)
        if following is None:
            break
        inner = following
    return f"{type(error).__name__}: {error}"


def _why(error: Any) -> str:
    if error is None:
        return "it does not say why"
    detail = str(getattr(error, "detail", "") or getattr(error, "title", "") or error)
    below = [str(each.detail) for each in getattr(error, "subproblems", None) or () if each.detail]
    return "".join(letter for letter in "; ".join([detail, *below]) if letter.isprintable())
