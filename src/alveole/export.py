"""Configuration for an nginx or an Apache that already stands in front of Alvéole. Pure.

By default the proxy in front hands everything to Alvéole's edge, which knows where each site runs;
then nothing has to be exported again when a site is updated. A site with a ``target`` is asked
directly instead.

The edge believes nothing of what a proxy in front says of the client unless the settings name it in
``edge.trusted_proxies``; until then sites see the proxy's address as the client's, and rules by
network are kept by the proxy in front alone.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from typing import Literal

import msgspec

from alveole.errors import InvalidInput, Problem
from alveole.model.names import ANY_DOMAIN, DOMAIN, PATH_PREFIX, SITE_NAME, check_network, check_pattern
from alveole.model.site import Access
from alveole.proxyconf import Block, Comment, Node, Template, apache, block, directive, nginx

Front = Literal["nginx", "apache"]

_TARGET = r"^https?://(?:[A-Za-z0-9.-]+|\[[0-9A-Fa-f:]+\])(?::[0-9]{1,5})?\Z"
_PLAIN_PATH = r"^(?:/[A-Za-z0-9._@+-]+)+\Z"


class ExportedSite(msgspec.Struct, frozen=True):
    """What the proxy in front has to know of one site."""

    name: str
    domains: tuple[str, ...]
    path: str | None = None
    """Prefix on the main domain, such as ``/my-app``."""
    https_only: bool = False
    access: Access = Access()
    target: str | None = None
    """``http://address:port`` to ask the site directly; ``None``: through the edge."""


class Tls(msgspec.Struct, frozen=True):
    """Certificate and key files of the proxy in front, for all names exported."""

    certificate: str
    key: str


def export(
    kind: Front,
    sites: Sequence[ExportedSite],
    edge: str,
    *,
    domain: str,
    tls: Tls | None = None,
    logs: str = "",
    http_port: int = 80,
    https_port: int = 443,
) -> str:
    """The configuration of ``sites`` for ``kind``.

    ``edge`` is where Alvéole's edge listens (``http://127.0.0.1:8080``) and ``domain`` its main
    domain, which carries the paths. ``logs`` is the directory of the logs, one pair a site; the
    distribution's by default. Without ``tls`` only HTTP is written, and the edge itself sends
    HTTPS-only sites to HTTPS. Raises ``InvalidInput`` with all problems.
    """
    problems = [*_check(kind, sites, edge, domain, tls, logs)]
    if problems:
        raise InvalidInput(problems=problems)
    if kind == "nginx":
        return nginx(_Nginx(edge, domain, tls, logs or "/var/log/nginx", http_port, https_port).nodes(sites))
    return apache(_Apache(edge, domain, tls, logs or "/var/log/apache2", http_port, https_port).nodes(sites))


def _check(
    kind: str, sites: Sequence[ExportedSite], edge: str, domain: str, tls: Tls | None, logs: str
) -> Iterable[Problem]:
    if kind not in ("nginx", "apache"):
        yield Problem("kind", f"{kind!r} is not a proxy known here", "nginx or apache")
    yield from check_pattern(edge, _TARGET, "edge", "an address", "write it like http://127.0.0.1:8080")
    yield from check_pattern(domain, DOMAIN, "domain", "a domain name", "write it in lower case")
    for field, file in (("logs", logs), ("certificate", tls and tls.certificate), ("key", tls and tls.key)):
        if file:
            yield from check_pattern(file, _PLAIN_PATH, field, "a plain absolute path", "write it like /var/log/nginx")
    for site in sites:
        yield from check_pattern(site.name, SITE_NAME, "name", "a site name", "")
        for name in site.domains:
            yield from check_pattern(
                name, ANY_DOMAIN, f"{site.name}: domain", "a domain name", "write it in lower case"
            )
        if site.path is not None:
            yield from check_pattern(site.path, PATH_PREFIX, f"{site.name}: path", "a path prefix", "like /my-app")
        if site.target is not None:
            yield from check_pattern(site.target, _TARGET, f"{site.name}: target", "an address", "")
        for network in (*site.access.allow, *site.access.deny):
            yield from check_network(network, f"{site.name}: access")


class _Front:
    def __init__(self, edge: str, domain: str, tls: Tls | None, logs: str, http_port: int, https_port: int) -> None:
        self.edge = edge
        self.domain = domain
        self.tls = tls
        self.logs = logs
        self.http_port = http_port
        self.https_port = https_port

    def head(self) -> Comment:
        return Comment(
            "Written by 'alveole export'; write it again when a site is added, renamed or removed.\n"
            f"Everything goes to Alvéole's edge at {self.edge} unless a site is asked directly.\n"
            "Name this proxy's address in edge.trusted_proxies of Alvéole's settings, so that sites\n"
            "see the clients' addresses and scheme instead of this proxy's."
        )

    def port_suffix(self) -> str:
        return "" if self.https_port == 443 else f":{self.https_port}"

    def by_names(self, sites: Sequence[ExportedSite]) -> Iterator[tuple[tuple[str, ...], list[ExportedSite]]]:
        """Each site with the names that are its own; then the main domain with all that lie below its paths."""
        for site in sites:
            names = tuple(name for name in site.domains if name != self.domain)
            if names:
                yield names, [site]
        on_main = [site for site in sites if site.path is not None or self.domain in site.domains]
        if on_main:
            yield (self.domain,), on_main


class _Nginx(_Front):
    def nodes(self, sites: Sequence[ExportedSite]) -> list[Node]:
        nodes: list[Node] = [
            self.head(),
            block(
                "map",
                Template("$http_upgrade"),
                Template("$alveole_connection"),
                body=[directive("default", ""), directive("websocket", "upgrade")],
            ),
        ]
        for names, of in self.by_names(sites):
            nodes.extend(self._servers(names, of))
        return nodes

    def _servers(self, names: tuple[str, ...], sites: list[ExportedSite]) -> list[Block]:
        by_path = names == (self.domain,)
        locations = [node for site in sites for node in self._locations(site, by_path)]
        only = [site for site in sites if site.https_only]
        plain: list[Node] = [
            directive("listen", str(self.http_port)),
            directive("listen", f"[::]:{self.http_port}"),
            directive("server_name", *names),
        ]
        if self.tls is None:
            return [block("server", body=[*plain, *locations])]
        to_https = directive("return", "308", Template(f"https://$host{self.port_suffix()}$request_uri"))
        if len(only) == len(sites):
            open_part: list[Node] = [block("location", "/", body=[to_https])]
        else:
            open_part = [
                node
                for site in sites
                for node in (
                    [block("location", where, body=[to_https]) for where in self._asked(site, by_path)]
                    if site.https_only
                    else self._locations(site, by_path)
                )
            ]
        secure: list[Node] = [
            directive("listen", str(self.https_port), "ssl", "http2"),
            directive("listen", f"[::]:{self.https_port}", "ssl", "http2"),
            directive("server_name", *names),
            directive("ssl_certificate", self.tls.certificate),
            directive("ssl_certificate_key", self.tls.key),
            directive("ssl_protocols", "TLSv1.2", "TLSv1.3"),
        ]
        return [block("server", body=[*plain, *open_part]), block("server", body=[*secure, *locations])]

    def _places(self, site: ExportedSite, by_path: bool) -> list[str]:
        places = []
        if not by_path or self.domain in site.domains:
            places.append("/")
        if by_path and site.path is not None:
            places.append(f"{site.path}/")
        return places

    def _asked(self, site: ExportedSite, by_path: bool) -> list[str]:
        return [place.rstrip("/") or "/" for place in self._places(site, by_path)]

    def _locations(self, site: ExportedSite, by_path: bool) -> list[Node]:
        return [
            node
            for where in self._places(site, by_path)
            for node in (
                *([self._slash(site.path)] if where != "/" and site.path else []),
                block("location", *(("^~",) if where != "/" else ()), where, body=self._body(site, where)),
            )
        ]

    def _slash(self, path: str) -> Block:
        return block("location", "=", path, body=[directive("return", "308", Template(f"{path}/$is_args$args"))])

    def _body(self, site: ExportedSite, where: str) -> list[Node]:
        prefix = where.rstrip("/")
        stripped = site.target is not None and prefix != ""
        body: list[Node] = [
            directive("access_log", f"{self.logs}/{site.name}.access.log", "combined"),
            directive("error_log", f"{self.logs}/{site.name}.error.log"),
            *(directive("deny", network) for network in site.access.deny),
            *(directive("allow", network) for network in site.access.allow),
            *([directive("deny", "all")] if site.access.allow else []),
            # A final slash replaces the prefix; without one the path goes on as it is.
            directive("proxy_pass", f"{site.target or self.edge}{'/' if stripped else ''}"),
            directive("proxy_http_version", "1.1"),
            directive("proxy_set_header", "Host", Template("$http_host")),
            directive("proxy_set_header", "Connection", Template("$alveole_connection")),
            directive("proxy_set_header", "Upgrade", Template("$http_upgrade")),
            directive("proxy_set_header", "X-Real-IP", Template("$remote_addr")),
            directive("proxy_set_header", "X-Forwarded-For", Template("$remote_addr")),
            directive("proxy_set_header", "X-Forwarded-Proto", Template("$scheme")),
            directive("proxy_set_header", "X-Forwarded-Host", Template("$http_host")),
            directive("proxy_set_header", "X-Forwarded-Prefix", prefix if stripped else ""),
            directive("proxy_set_header", "Forwarded", ""),
            directive("proxy_set_header", "Proxy", ""),
            directive("proxy_ignore_headers", "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate"),
            directive("client_max_body_size", "0"),
        ]
        if stripped:
            body.append(directive("proxy_redirect", "/", f"{prefix}/"))
            body.append(directive("proxy_cookie_path", "/", f"{prefix}/"))
        else:
            body.append(directive("proxy_redirect", "off"))
        return body


class _Apache(_Front):
    def nodes(self, sites: Sequence[ExportedSite]) -> list[Node]:
        modules = ("proxy", "proxy_http", "headers", "setenvif", "alias", "authz_host", *(("ssl",) if self.tls else ()))
        nodes: list[Node] = [self.head(), Comment(f"Modules: a2enmod {' '.join(modules)}")]
        for names, of in self.by_names(sites):
            nodes.extend(self._hosts(names, of))
        return nodes

    def _hosts(self, names: tuple[str, ...], sites: list[ExportedSite]) -> list[Block]:
        by_path = names == (self.domain,)
        # The log of errors belongs to a virtual host as a whole.
        owner = sites[0].name if len(sites) == 1 else self.domain
        shared: list[Node] = [
            directive("ServerName", names[0]),
            *([directive("ServerAlias", *names[1:])] if len(names) > 1 else []),
            directive("ErrorLog", f"{self.logs}/{owner}.error.log"),
            directive("ProxyRequests", "Off"),
            directive("ProxyPreserveHost", "On"),
            directive("AllowEncodedSlashes", "NoDecode"),
        ]
        # The longest prefix first: Apache takes the first that fits.
        places = sorted(
            ((where, site) for site in sites for where in self._places(site, by_path)),
            key=lambda place: -len(place[0]),
        )
        # Sections are merged in their order and the last one's rules count: the longest prefix last.
        sections = [self._section(where, site) for where, site in reversed(places)]
        served = [*(node for where, site in places for node in self._pass(where, site)), *sections]
        logged = [node for where, site in places for node in self._log(where, site, [one for one, _ in places])]
        hosts = []
        for port, secure in ((self.http_port, False), *(((self.https_port, True),) if self.tls else ())):
            if secure or self.tls is None:
                inner = served
            else:
                inner = [
                    node
                    for where, site in places
                    for node in (self._to_https(where, names[0]) if site.https_only else self._pass(where, site))
                ]
                inner.extend(sections)
            body: list[Node] = [*shared, *self._headers(secure), *logged, *inner]
            if secure and self.tls:
                body.extend(
                    (
                        directive("SSLEngine", "on"),
                        directive("SSLProtocol", "-all", "+TLSv1.2", "+TLSv1.3"),
                        directive("SSLCertificateFile", self.tls.certificate),
                        directive("SSLCertificateKeyFile", self.tls.key),
                    )
                )
            hosts.append(block("VirtualHost", f"*:{port}", body=body))
        return hosts

    def _places(self, site: ExportedSite, by_path: bool) -> list[str]:
        places = []
        if not by_path or self.domain in site.domains:
            places.append("/")
        if by_path and site.path is not None:
            places.append(f"{site.path}/")
        return places

    def _headers(self, secure: bool) -> list[Node]:
        return [
            # mod_proxy_http adds the client to X-Forwarded-For by itself; what the client sent goes first.
            directive("RequestHeader", "unset", "X-Forwarded-For", "early"),
            directive("RequestHeader", "unset", "X-Forwarded-Host", "early"),
            directive("RequestHeader", "unset", "X-Forwarded-Server", "early"),
            directive("RequestHeader", "unset", "Forwarded", "early"),
            directive("RequestHeader", "unset", "Proxy", "early"),
            directive("RequestHeader", "set", "X-Forwarded-Proto", "https" if secure else "http"),
            directive("RequestHeader", "set", "X-Real-IP", Template("expr=%{REMOTE_ADDR}")),
        ]

    def _pass(self, where: str, site: ExportedSite) -> list[Node]:
        prefix = where.rstrip("/")
        stripped = site.target is not None and prefix != ""
        to = f"{site.target or self.edge}/" if stripped or where == "/" else f"{self.edge}{where}"
        nodes: list[Node] = []
        if prefix:
            nodes.append(directive("RedirectMatch", "308", f"^{_regex(prefix)}$", f"{prefix}/"))
        # Without nocanon "%2F" would arrive as "%252F".
        nodes.append(directive("ProxyPass", where, to, "nocanon", "upgrade=websocket"))
        if stripped:
            nodes.append(directive("ProxyPassReverse", where, to))
            nodes.append(directive("ProxyPassReverseCookiePath", "/", where))
        return nodes

    def _section(self, where: str, site: ExportedSite) -> Block:
        body: list[Node] = [self._rules(site.access)]
        if site.target is not None and where != "/":
            body.append(directive("RequestHeader", "set", "X-Forwarded-Prefix", where.rstrip("/")))
        return block("Location", where, body=body)

    def _rules(self, access: Access) -> Node:
        if not access.allow and not access.deny:
            return directive("Require", "all", "granted")
        denied = [directive("Require", "not", "ip", *access.deny)] if access.deny else []
        allowed = directive("Require", "ip", *access.allow) if access.allow else directive("Require", "all", "granted")
        return block("RequireAll", body=[*denied, allowed])

    def _log(self, where: str, site: ExportedSite, every: list[str]) -> list[Node]:
        log = directive("CustomLog", f"{self.logs}/{site.name}.access.log", "combined")
        if every == ["/"]:
            return [log]
        mark = f"alveole_{site.name}_{'path' if where != '/' else 'name'}".replace("-", "_")
        nodes: list[Node] = [directive("SetEnvIf", "Request_URI", f"^{_regex(where.rstrip('/'))}(/|$)", mark)]
        # What a longer prefix takes is not this one's.
        for other in every:
            if other != where and other.startswith(where):
                nodes.append(directive("SetEnvIf", "Request_URI", f"^{_regex(other.rstrip('/'))}(/|$)", f"!{mark}"))
        return [*nodes, directive("CustomLog", f"{self.logs}/{site.name}.access.log", "combined", f"env={mark}")]

    def _to_https(self, where: str, name: str) -> list[Node]:
        target = f"https://{name}{self.port_suffix()}{where.rstrip('/')}"
        return [directive("Redirect", "308", where.rstrip("/") or "/", target if where != "/" else f"{target}/")]


def _regex(path: str) -> str:
    # PATH_PREFIX has no other character that means something in an expression.
    return path.replace(".", "\\.")
