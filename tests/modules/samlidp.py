"""A small identity provider (SAML 2.0, by pysaml2 of Debian) that a test runs in a site of its own.

Runs inside that site: the standard library and ``saml2`` only. Its keys and the metadata of the service provider come
with its content; its own metadata, signed, is at ``/metadata``. Anybody whose password is ``soup`` is let in.
"""

from __future__ import annotations

import html
import http.server
import os
import urllib.parse
from typing import Any

HERE = os.environ.get("SAMLIDP_HERE", "/site/current")
URL = os.environ.get("SAMLIDP_URL", "")
PERSON = {
    "uid": ["anna"],
    "mail": ["anna@example.org"],
    "displayName": ["Anna d'Été"],
}


def configuration() -> dict[str, Any]:
    from saml2 import BINDING_HTTP_REDIRECT
    from saml2.saml import NAME_FORMAT_URI, NAMEID_FORMAT_TRANSIENT

    known = f"{HERE}/sp.xml"
    return {
        "entityid": f"{URL}/idp",
        "xmlsec_binary": "/usr/bin/xmlsec1",
        "key_file": f"{HERE}/key.pem",
        "cert_file": f"{HERE}/cert.pem",
        "service": {
            "idp": {
                "endpoints": {"single_sign_on_service": [(f"{URL}/sso", BINDING_HTTP_REDIRECT)]},
                "name_id_format": [NAMEID_FORMAT_TRANSIENT],
                "sign_response": True,
                "sign_assertion": True,
                "policy": {"default": {"lifetime": {"minutes": 5}, "name_form": NAME_FORMAT_URI}},
            }
        },
        "metadata": {"local": [known]} if os.path.exists(known) else {},  # noqa: PTH110  no pathlib needed
    }


def server() -> Any:
    from saml2.config import IdPConfig
    from saml2.server import Server

    return Server(config=IdPConfig().load(configuration()))


def metadata() -> str:
    from saml2.config import IdPConfig
    from saml2.metadata import entity_descriptor, sign_entity_descriptor
    from saml2.sigver import security_context

    config = IdPConfig().load(configuration())
    described = entity_descriptor(config)
    _, text = sign_entity_descriptor(described, None, security_context(config))
    return str(text)


def answer(request: str, relay: str) -> str:
    """The page that carries the signed answer back to the service provider."""
    from saml2 import BINDING_HTTP_POST, BINDING_HTTP_REDIRECT

    idp = server()
    asked = idp.parse_authn_request(request, BINDING_HTTP_REDIRECT).message
    how = idp.response_args(asked)
    made = idp.create_authn_response(
        identity=PERSON,
        userid="anna",
        authn={"class_ref": "urn:oasis:names:tc:SAML:2.0:ac:classes:Password", "authn_auth": URL},
        sign_response=True,
        sign_assertion=True,
        **how,
    )
    sent = idp.apply_binding(BINDING_HTTP_POST, str(made), how["destination"], relay, response=True)
    return str(sent["data"])


class Handler(http.server.BaseHTTPRequestHandler):
    def _say(self, text: str, kind: str = "text/html; charset=utf-8", status: int = 200) -> None:
        raw = text.encode()
        self.send_response(status)
        self.send_header("Content-Type", kind)
        self.send_header("Content-Length", str(len(raw)))
        self.end_headers()
        self.wfile.write(raw)

    def do_GET(self) -> None:
        path, _, query = self.path.partition("?")
        fields = dict(urllib.parse.parse_qsl(query))
        if path == "/metadata":
            self._say(metadata(), "application/samlmetadata+xml")
        elif path == "/sso":
            hidden = "".join(
                f'<input type="hidden" name="{name}" value="{html.escape(fields.get(name, ""))}">'
                for name in ("SAMLRequest", "RelayState")
            )
            self._say(f'<form method="post" action="/sso">{hidden}<input name="password" type="password"></form>')
        else:
            self._say("identity provider")

    def do_POST(self) -> None:
        raw = self.rfile.read(int(self.headers["Content-Length"])).decode()
        fields = dict(urllib.parse.parse_qsl(raw))
        if fields.get("password") != "soup":
            self._say("wrong password", status=403)
            return
        self._say(answer(fields["SAMLRequest"], fields.get("RelayState", "")))


if __name__ == "__main__":
    http.server.ThreadingHTTPServer(("", 8000), Handler).serve_forever()
