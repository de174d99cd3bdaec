"""The edge's nginx configuration, from the settings alone. Pure: text in, text out.

No site is named here. A request's host becomes the name of a link (``data/edge/alveole_edge.lua``),
a handshake's server name becomes the name of a certificate file, and the link's ``site=`` token
becomes the directory of the logs.
"""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from importlib.resources import files
from pathlib import Path

from alveole.actuators.edge_logs import ERROR, STREAM, WAITING_BYTES
from alveole.actuators.robots import ROBOTS
from alveole.config import Settings
from alveole.host import paths
from alveole.proxyconf import Block, Comment, LuaBlock, Node, Template, block, directive, lua_string, nginx

#: Debian's libnginx-mod-http-ndk and libnginx-mod-http-lua.
MODULES = ("/usr/lib/nginx/modules/ndk_http_module.so", "/usr/lib/nginx/modules/ngx_http_lua_module.so")
#: nginx looks for an idle connection by walking its pool; several small pools keep the walk short
#: when a thousand sites are active. Each instance always falls into the same one.
POOLS = 64
#: Told apart by their length and then by the first letter: nginx finds an upstream by comparing names one after the
#: other, their lengths first.
POOL_NAMES = tuple(f"{'abcdefgh'[number % 8]}-alveole{'-' * (number // 8)}" for number in range(POOLS))
#: Idle connections of all pools of one worker: more than the sites that are active at a time.
IDLE_CONNECTIONS = 4096
#: Applications close idle connections after 5 s (Node.js, uvicorn); the edge must be first, or a
#: request is sent into a connection that is just being closed.
IDLE_SECONDS = 4
LUA = "alveole_edge.lua"
TLS_LUA = "alveole_tls.lua"
#: What it loads besides.
LUA_PARTS = ("alveole_networks.lua", "alveole_past.lua", "alveole_under.lua")
PAGES = {403: "403.html", 404: "404.html", 502: "502.html", 503: "503.html"}
#: Instead of what an instance on another machine would have said, when the way there is cut.
AWAY = "away.html"
#: Instead of what a site that sleeps would have said, to whom does not wake it, or when it could not be woken.
ASLEEP = "asleep.html"

# Mozilla's "intermediate" of guideline 5.7, https://ssl-config.mozilla.org, without its DHE suites:
# they need an RSA key and parameters of their own, and every client since 2014 knows the others.
CIPHERS = (
    "ECDHE-ECDSA-AES128-GCM-SHA256:ECDHE-RSA-AES128-GCM-SHA256:ECDHE-ECDSA-AES256-GCM-SHA384:"
    "ECDHE-RSA-AES256-GCM-SHA384:ECDHE-ECDSA-CHACHA20-POLY1305:ECDHE-RSA-CHACHA20-POLY1305"
)

CURVES = "X25519:prime256v1:secp384r1"

# Labels of RFC 1123, lower case, and nothing else: the name becomes a part of a path. \z and not $,
# which also matches before a final line feed.
SERVER_NAME = r"~^(?=.{1,253}\z)[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?(\.[a-z0-9]([a-z0-9-]{0,61}[a-z0-9])?)*\z"

# Written by the edge itself or gone: a client must not tell a site who it is, what the site is
# called, or (X-Original-URL, X-Accel-Mapping, X-Sendfile-Type) what file to serve.
CLEARED = (
    "Forwarded",
    "X-Forwarded-Server",
    "X-Forwarded-Scheme",
    "X-Forwarded-Ssl",
    "X-Url-Scheme",
    "Front-End-Https",
    "X-Client-IP",
    "X-Cluster-Client-IP",
    "True-Client-IP",
    "CF-Connecting-IP",
    "X-Original-URL",
    "X-Rewrite-URL",
    "X-Script-Name",
    "X-Accel-Mapping",
    "X-Sendfile-Type",
    "X-Accel-Redirect",
    # https://httpoxy.org: CGI programs take it for their outgoing proxy.
    "Proxy",
)

LOG_FIELDS = {
    "time": "$time_iso8601",
    "client": "$remote_addr",
    "scheme": "$scheme",
    "method": "$request_method",
    "host": "$http_host",
    "uri": "$request_uri",
    "protocol": "$server_protocol",
    "status": "$status",
    "bytes": "$body_bytes_sent",
    "seconds": "$request_time",
    "site_seconds": "$upstream_response_time",
    "referer": "$http_referer",
    "agent": "$http_user_agent",
}


@dataclass(frozen=True)
class Machine:
    """What of the machine the configuration depends on besides the settings."""

    open_files: int
    """The hard limit on open files; without CAP_SYS_RESOURCE nobody gets more."""
    ipv6: bool = True
    edge_group: str = ""
    """Group of the edge's user; empty: the one of the same name."""


@dataclass(frozen=True)
class Rendered:
    """``text`` of nginx.conf and the ``files`` beside it, by path relative to the edge's directory."""

    text: str
    files: dict[str, str]
    digest: str
    """Over the text and the files: what runs is compared with what should run by it."""


def state_dir(settings: Settings) -> Path:
    """Bodies that do not fit in memory wait here, on disk: the run directory is memory."""
    return settings.state / "edge"


def status_socket(settings: Settings) -> Path:
    return paths.edge(settings) / "status.sock"


def render(settings: Settings, machine: Machine) -> Rendered:
    texts = {
        **{f"lua/{name}": _data(name) for name in (LUA, TLS_LUA, *LUA_PARTS)},
        **{f"pages/.alveole/{name}": _data(name) for name in (*PAGES.values(), AWAY, ASLEEP)},
    }
    body = nginx(_configuration(settings, machine, "@digest@"))
    covered = hashlib.sha256(body.encode())
    for name in sorted(texts):
        covered.update(f"\0{name}\0{texts[name]}".encode())
    digest = covered.hexdigest()[:32]
    return Rendered(body.replace("@digest@", digest), texts, digest)


def _data(name: str) -> str:
    return (files("alveole") / "data" / "edge" / name).read_text(encoding="utf-8")


def _configuration(settings: Settings, machine: Machine, digest: str) -> list[Node]:
    run = paths.edge(settings)
    logs = settings.logs / "edge"
    group = (machine.edge_group,) if machine.edge_group else ()
    connections = _connections(machine)
    return [
        *(directive("load_module", module) for module in MODULES),
        directive("user", settings.users.edge, *group),
        directive("worker_processes", str(settings.edge.workers or "auto")),
        # A WebSocket may live for hours; a replaced worker does not wait for it for ever.
        directive("worker_shutdown_timeout", "5m"),
        directive("worker_rlimit_nofile", str(machine.open_files)),
        directive("pid", str(run / "nginx.pid")),
        directive("error_log", str(logs / "error.log"), "error"),
        directive("pcre_jit", "on"),
        block("events", body=[directive("worker_connections", str(connections))]),
        block("http", body=_http(settings, machine, digest)),
    ]


def _connections(machine: Machine) -> int:
    """Connections a worker may hold: two a proxied request, each 430 bytes from the start."""
    # A share of the files is left for logs, certificates and pages.
    return max(512, min(8192, machine.open_files - 1536))


def _http(settings: Settings, machine: Machine, digest: str) -> list[Node]:
    run = paths.edge(settings)
    edge = settings.edge
    logs = settings.logs / "edge"
    options = {
        "routes": lua_string(str(paths.routes(settings))),
        "domain": lua_string(settings.domain),
        "https_port": str(edge.https_port),
        "pools": _lua_list(POOL_NAMES),
        "wake": lua_string(f"unix:{settings.wake_socket}"),
        "wake_most": str(round(settings.sleep.wait_seconds * 1000)),
        "held": str(settings.sleep.waiting),
        "held_site": str(settings.sleep.waiting_site),
        "robots": _lua_list(ROBOTS),
        "panel": lua_string(_panel(settings)),
    }
    listed = ", ".join(f"{key} = {value}" for key, value in options.items())
    temporary = [
        directive(f"{kind}_temp_path", str(state_dir(settings) / "tmp" / kind), "1", "2")
        for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    ]
    return [
        Comment("What is not a site's business"),
        directive("server_tokens", "off"),
        directive("default_type", "application/octet-stream"),
        block("types", body=[directive("text/html", "html")]),
        *temporary,
        directive("sendfile", "on"),
        directive("root", str(run / "pages")),
        # Only pages and the existence of root (looked at for every line of a log) are cached here.
        directive("open_file_cache", "max=64", "inactive=60s"),
        directive("uninitialized_variable_warn", "off"),
        directive("variables_hash_bucket_size", "128"),
        directive("server_names_hash_bucket_size", "128"),
        directive("proxy_headers_hash_max_size", "1024"),
        directive("proxy_headers_hash_bucket_size", "128"),
        Comment("Limits and times"),
        *_limits(settings, machine),
        Comment("Logs: one stream of all requests, handed out by the agent"),
        directive("log_format", "stream", "escape=json", Template(_log_format())),
        directive("access_log", str(logs / STREAM), "stream", "buffer=64k", "flush=200ms"),
        Comment("TLS: the certificate of the name asked for, by its file, else that of all names beside it; else none"),
        block("map", Template("$ssl_server_name"), Template("$alv_certificate"), body=_names()),
        directive("ssl_protocols", "TLSv1.2", "TLSv1.3"),
        directive("ssl_ciphers", CIPHERS),
        directive("ssl_ecdh_curve", CURVES),
        directive("ssl_prefer_server_ciphers", "off"),
        directive("ssl_session_timeout", "1d"),
        directive("ssl_session_cache", "shared:alveole:4m"),
        directive("ssl_session_tickets", "off"),
        Comment("Only WebSocket may be upgraded to: another protocol would be a tunnel past the proxy"),
        block("map", Template("$http_upgrade"), Template("$alv_upgrade"), body=_map("", {"websocket": "websocket"})),
        block("map", Template("$alv_upgrade"), Template("$alv_connection"), body=_map("", {"websocket": "upgrade"})),
        *_front(settings),
        *_strict(settings),
        Comment("Instances, each with an address of its own: a reused connection never reaches another site"),
        directive("lua_package_path", f"{run / 'lua'}/?.lua;;"),
        directive("lua_code_cache", "on"),
        LuaBlock(
            ("init_by_lua_block",),
            f'alveole_edge = require "{LUA.removesuffix(".lua")}"\nalveole_edge.setup({{ {listed} }})\n'
            f'alveole_tls = require "{TLS_LUA.removesuffix(".lua")}"\n'
            f"alveole_tls.setup({{ certificates = {lua_string(str(paths.edge_certificates(settings)))}, "
            f"domain = {lua_string(settings.domain)} }})",
        ),
        LuaBlock(
            ("init_worker_by_lua_block",),
            f"alveole_edge.bound({{ {', '.join(lua_string(str(logs / name)) for name in (STREAM, ERROR))} }}, "
            f"{WAITING_BYTES})",
        ),
        *(_upstream(name) for name in POOL_NAMES),
        _status(settings, digest),
        block("server", body=_server(settings, machine)),
    ]


def _panel(settings: Settings) -> str:
    """Where visitors of a past day sign in; the path says of which."""
    port = "" if settings.edge.https_port == 443 else f":{settings.edge.https_port}"
    return f"https://{settings.panel_domain}{port}/past/" if settings.panel_domain else ""


def _lua_list(texts: Sequence[str]) -> str:
    return "{ " + ", ".join(map(lua_string, texts)) + " }"


def _limits(settings: Settings, machine: Machine) -> list[Node]:
    return [
        # One site's WebSockets, which may stay for an hour, leave three quarters of a worker to the others.
        directive("limit_conn_zone", Template("$alv_site"), "zone=alveole_site:4m"),
        directive("limit_conn", "alveole_site", str(_connections(machine) // 8)),
        directive("limit_conn_status", "429"),
        # A client that dribbles its headers or stalls in its body holds nothing for long (slowloris);
        # the times run between two reads, so slow lines are no problem.
        directive("client_header_timeout", "10s"),
        directive("client_body_timeout", "30s"),
        directive("send_timeout", "30s"),
        directive("keepalive_timeout", "65s"),
        directive("keepalive_requests", "10000"),
        directive("reset_timedout_connection", "on"),
        directive("client_header_buffer_size", "2k"),
        directive("large_client_header_buffers", "4", "16k"),
        directive("client_body_buffer_size", "32k"),
        directive("client_max_body_size", str(settings.edge.body_bytes)),
        directive("http2_max_concurrent_streams", "128"),
        # The instance is on this machine: what does not accept within 5 s is not going to.
        directive("proxy_connect_timeout", "5s"),
        directive("proxy_send_timeout", "60s"),
        # Silence, not the length of the answer; what the large clouds' balancers grant too.
        directive("proxy_read_timeout", "60s"),
        directive("proxy_buffer_size", "8k"),
        directive("proxy_buffers", "8", "8k"),
        # A slow reader does not hold a worker of a small application, and fills no disk either.
        directive("proxy_max_temp_file_size", "32m"),
    ]


def _log_format() -> str:
    return (
        "$status $alv_site $request_time $request_length $bytes_sent $remote_addr {"
        + ",".join(f'"{name}":"{value}"' for name, value in LOG_FIELDS.items())
        + "}"
    )


def _map(default: str, values: dict[str, str]) -> list[Node]:
    return [directive("default", default), *(directive(key, value) for key, value in values.items())]


def _names() -> list[Node]:
    # "-" alone is no name, so there is never a file for it: the handshake ends in an alert.
    return [directive("default", "-"), directive(SERVER_NAME, Template("$ssl_server_name"))]


def _front(settings: Settings) -> list[Node]:
    """Who the client is, and by which scheme it came: as seen here, or as told by a trusted proxy."""
    trusted = [directive(network, "1") for network in settings.edge.trusted_proxies]
    return [
        # The front socket, which only root reaches: an Alvéole that drives this one. To geo a socket is
        # 255.255.255.255, which no client has.
        directive("set_real_ip_from", "unix:"),
        *(directive("set_real_ip_from", network) for network in settings.edge.trusted_proxies),
        directive("real_ip_header", "X-Forwarded-For"),
        directive("real_ip_recursive", "on"),
        block(
            "geo",
            Template("$realip_remote_addr"),
            Template("$alv_trusted"),
            body=[directive("default", "0"), directive("255.255.255.255", "1"), *trusted],
        ),
        block(
            "map",
            Template("$alv_trusted:$http_x_forwarded_proto:$https"),
            Template("$alv_proto"),
            # What most requests are is named whole: an expression costs more than all the rest of this.
            body=_map(
                "http",
                {
                    **{"0::": "http", "0::on": "https", "1::": "http", "1::on": "https"},
                    **{"1:https:": "https", "1:https:on": "https", "~^0:.*:on\\z": "https"},
                },
            ),
        ),
    ]


def _strict(settings: Settings) -> list[Node]:
    """HSTS (RFC 6797) where the settings ask for it: over HTTPS only, and never beside a site's own."""
    if not settings.edge.hsts_seconds:
        return []
    told = {"~^https:\\z": f"max-age={settings.edge.hsts_seconds}"}
    return [
        block(
            "map",
            Template("$alv_proto:$upstream_http_strict_transport_security"),
            Template("$alv_strict"),
            body=_map("", told),
        )
    ]


def _upstream(name: str) -> Block:
    return block(
        "upstream",
        name,
        body=[
            # Required by the syntax and never used: the balancer names the peer.
            directive("server", "0.0.0.1"),
            LuaBlock(("balancer_by_lua_block",), "alveole_edge.balance()"),
            directive("keepalive", str(IDLE_CONNECTIONS // POOLS)),
            directive("keepalive_timeout", f"{IDLE_SECONDS}s"),
            directive("keepalive_requests", "10000"),
        ],
    )


def _status(settings: Settings, digest: str) -> Block:
    return block(
        "server",
        body=[
            directive("listen", f"unix:{status_socket(settings)}"),
            directive("access_log", "off"),
            block("location", "=", "/digest", body=[directive("return", "200", digest)]),
            block("location", "=", "/", body=[directive("stub_status")]),
            block("location", "/", body=[directive("return", "404")]),
        ],
    )


def _listens(settings: Settings, machine: Machine) -> list[Node]:
    edge = settings.edge
    found: list[Node] = []
    for port, extra in ((edge.http_port, ()), (edge.https_port, ("ssl", "http2"))):
        found.append(directive("listen", f"{edge.ipv4}:{port}", "default_server", "backlog=4096", *extra))
        if machine.ipv6:
            # A bracket is never plain in a word; nginx reads it the same in quotes.
            found.append(
                directive("listen", f"[{edge.ipv6}]:{port}", "default_server", "ipv6only=on", "backlog=4096", *extra)
            )
    found.append(directive("listen", f"unix:{paths.front_socket(settings)}", "default_server", "backlog=4096"))
    return found


def _server(settings: Settings, machine: Machine) -> list[Node]:
    run = paths.edge(settings)
    certificate = Template(f"{paths.edge_certificates(settings)}/$alv_certificate.pem")
    return [
        *_listens(settings, machine),
        directive("server_name", "_"),
        # nginx wants some to be named; which is shown, the script says.
        directive("ssl_certificate", certificate),
        directive("ssl_certificate_key", certificate),
        LuaBlock(("ssl_certificate_by_lua_block",), "alveole_tls.show()"),
        *(directive("error_page", str(code), f"/.alveole/{code}.html") for code in (403, 404, 503)),
        # 500 is what nginx makes of a balancer that finds no instance.
        directive("error_page", "500", "502", "504", "=502", "/.alveole/502.html"),
        *(
            [directive("add_header", "Strict-Transport-Security", Template("$alv_strict"), "always")]
            if settings.edge.hsts_seconds
            else []
        ),
        # The port listened on may not be the one the client used.
        directive("absolute_redirect", "off"),
        directive("proxy_http_version", "1.1"),
        *_forwarded(),
        # Obeyed by default: a site could name a file of the edge (measured). Buffering is the one
        # a site may choose, for its own answer: without it there are no event streams.
        directive(
            "proxy_ignore_headers", "X-Accel-Redirect", "X-Accel-Expires", "X-Accel-Limit-Rate", "X-Accel-Charset"
        ),
        # Only what never reached the instance, or may be repeated: nginx never repeats POST or PATCH
        # once it was sent.
        directive("proxy_next_upstream", "error"),
        directive("proxy_next_upstream_timeout", "10s"),
        block(
            "location",
            "/",
            body=[
                directive("set", Template("$alv_site"), ""),
                directive("set", Template("$alv_prefix"), ""),
                directive("set", Template("$alv_rest"), ""),
                directive("set", Template("$alv_location"), ""),
                directive("set", Template("$alv_pool"), ""),
                directive("set", Template("$alv_node"), ""),
                LuaBlock(("set_by_lua_block", Template("$alv_to")), "return alveole_edge.route()"),
                *(_answer(code) for code in (400, 403, 404, 502, 503)),
                _answer(308, Template("$alv_location")),
                block(
                    "if",
                    Template("($alv_to"),
                    "=",
                    "=asleep)",
                    body=[directive("rewrite", "^", "/.alveole/asleep", "last")],
                ),
                block(
                    "if",
                    Template("($alv_to"),
                    "=",
                    "=past)",
                    body=[directive("rewrite", "^", "/.alveole/past", "last")],
                ),
                block("if", Template("($alv_prefix)"), body=[directive("rewrite", "^", "/.alveole/prefix", "last")]),
                block("if", Template("($alv_node)"), body=[directive("rewrite", "^", "/.alveole/node", "last")]),
                directive("proxy_pass", Template("http://$alv_pool")),
            ],
        ),
        block(
            "location",
            "=",
            "/.alveole/node",
            body=[
                directive("internal"),
                # What the other machine answers is passed on; only a way that is cut is told of here.
                directive("error_page", "500", "502", "504", "=503", f"/.alveole/{AWAY}"),
                directive("proxy_pass", Template("http://$alv_pool$request_uri")),
                directive("proxy_redirect", "off"),
            ],
        ),
        block(
            "location",
            "=",
            "/.alveole/asleep",
            body=[
                directive("internal"),
                directive("set", Template("$alv_retry"), "10"),
                directive("error_page", "503", f"/.alveole/{ASLEEP}"),
                directive("error_page", "500", "502", "504", "=502", "/.alveole/502.html"),
                directive("lua_socket_log_errors", "off"),
                LuaBlock(("access_by_lua_block",), "alveole_edge.wake()"),
                directive("proxy_pass", Template("http://$alv_pool$request_uri")),
                directive("proxy_redirect", "off"),
            ],
        ),
        block(
            "location",
            "=",
            "/.alveole/past",
            body=[
                directive("internal"),
                directive("lua_socket_log_errors", "off"),
                LuaBlock(("access_by_lua_block",), "alveole_edge.past()"),
                directive("proxy_pass", Template("http://$alv_pool$request_uri")),
                directive("proxy_redirect", "off"),
            ],
        ),
        block(
            "location",
            "=",
            f"/.alveole/{ASLEEP}",
            body=[
                directive("internal"),
                directive("charset", "utf-8"),
                directive("add_header", "Cache-Control", "no-store", "always"),
                directive("add_header", "Retry-After", Template("$alv_retry"), "always"),
            ],
        ),
        block(
            "location",
            "=",
            "/.alveole/prefix",
            body=[
                directive("internal"),
                LuaBlock(("header_filter_by_lua_block",), "alveole_edge.move_headers()"),
                directive("proxy_pass", Template("http://$alv_pool$alv_rest")),
                directive("proxy_redirect", "off"),
            ],
        ),
        *(
            block(
                "location",
                "=",
                f"/.alveole/{name}",
                body=[
                    directive("internal"),
                    directive("charset", "utf-8"),
                    directive("add_header", "Cache-Control", "no-store", "always"),
                    *([directive("add_header", "Retry-After", "60", "always")] if code == 503 else []),
                ],
            )
            for code, name in (*PAGES.items(), (503, AWAY))
        ),
        # An authority's challenge (RFC 8555 section 8.3) is answered over plain HTTP, for every name and before
        # the site is asked.
        block(
            "location",
            "^~",
            "/.well-known/acme-challenge/",
            body=[
                directive("root", str(run / "acme")),
                directive("default_type", "text/plain"),
                directive("disable_symlinks", "on", f"from={run / 'acme'}"),
                directive("open_file_cache", "off"),
            ],
        ),
    ]


def _answer(code: int, *what: str) -> Block:
    # The words of a condition are apart for nginx, parentheses included.
    return block("if", Template("($alv_to"), "=", f"={code})", body=[directive("return", str(code), *what)])


def _forwarded() -> list[Node]:
    headers: dict[str, str] = {
        "Host": Template("$http_host"),
        "Connection": Template("$alv_connection"),
        "Upgrade": Template("$alv_upgrade"),
        "X-Real-IP": Template("$remote_addr"),
        "X-Forwarded-For": Template("$remote_addr"),
        "X-Forwarded-Proto": Template("$alv_proto"),
        "X-Forwarded-Host": Template("$http_host"),
        "X-Forwarded-Port": Template("$server_port"),
        "X-Forwarded-Prefix": Template("$alv_prefix"),
        **dict.fromkeys(CLEARED, ""),
    }
    return [directive("proxy_set_header", name, value) for name, value in headers.items()]
