"""A site that is broken and repaired, on a machine of its own: one incident with `why` in it, told exactly twice."""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

sys.path[:0] = [str(Path(__file__).resolve().parent.parent / name) for name in ("api", "scenarios")]

from e2ekit import Sites  # noqa: E402  beside the two above
from receiverkit import MailServer  # noqa: E402  found by the line above

from instance import Instance  # noqa: E402  likewise
from instancekit import archive, until  # noqa: E402  likewise

CHECK = "after: 1\nsteps:\n  - {request: GET /, expect: {text: Welcome}}\n"
PASSWORD = "a mail server's own"


def test_one_incident_from_broken_to_repaired(alveole: Instance, sites: Sites) -> None:
    mails = MailServer(PASSWORD)
    try:
        settings = {"host": "localhost", "port": mails.port, "sender": "alveole@school.example", "user": "alveole"}
        alveole.api("PUT", "/v1/mail", {**settings, "password": PASSWORD, "certificates": mails.authority})
        alveole.api("POST", "/v1/accounts", {"name": "ines", "role": "owner", "email": "ines@school.example"})
        alveole.api("POST", "/v1/channels", {"name": "mails", "kind": "mail", "whom": "ines", "events": ["incident"]})
        name = sites.create(archive({"index.html": b"Welcome"}), owner="ines")
        alveole.api("PUT", f"/v1/sites/{name}/checks/front", {"text": CHECK})
        assert run(alveole, name)
        alveole.update(name, archive({"index.html": b"nothing of the kind"}))
        assert not run(alveole, name)
        until(lambda: listed(alveole, name, "open"), 60)
        (incident,) = listed(alveole, name, "open")
        shown = json.loads(alveole.cli("incident", "show", incident["id"], "--json").out)
        links = {each["name"]: each["ok"] for each in shown["evidence"]["links"]}
        assert links["scenario front"] is False and len(links) > 5, "why was asked from the name to the application"
        assert shown["evidence"]["broken"] == "scenario front" and shown["severity"] == "critical"
        assert shown["evidence"]["before"][0]["verb"] == "update", "what broke it is the last change"
        promises = json.loads(alveole.cli("site", "promises", name, "--json").out)["promises"]
        content = next(each for each in promises if each["promise"] == "content")
        assert content["state"] == "broken" and content["broken_by"]["verb"] == "update"
        until(lambda: mails.mails, 60)
        alveole.update(name, archive({"index.html": b"Welcome again"}))
        assert run(alveole, name)
        until(lambda: not listed(alveole, name, "open"), 60)
        until(lambda: len(mails.mails) >= 2, 60)
        (closed,) = listed(alveole, name, "closed")
        assert closed["id"] == incident["id"] and closed["closed_by"] == ""
        subjects = [str(mail["Subject"]) for mail in mails.mails]
        assert len(subjects) == 2 and "Over:" in subjects[1], subjects
        body = mails.mails[0].get_payload(decode=True)
        assert isinstance(body, bytes) and b"BROKEN  scenario front" in body and b"update by root" in body
        report = alveole.api("GET", f"/v1/incidents/{incident['id']}/report")
        assert report["to_repair"] > 0 and report["lasted"] >= report["to_repair"]
        assert {each["kind"] for each in shown["notes"]} == {"opened", "told"}
    finally:
        for channel in alveole.api("GET", "/v1/channels"):
            alveole.api("DELETE", f"/v1/channels/{channel['id']}")
        sites.end()
        sites.made.clear()
        alveole.api("DELETE", "/v1/accounts/ines")
        alveole.api("DELETE", "/v1/mail")
        mails.close()


def run(alveole: Instance, site: str) -> bool:
    """Run its check by hand; whether it passes."""
    (report,) = alveole.api("POST", f"/v1/sites/{site}/checks/run", {})
    return bool(report["ok"])


def listed(alveole: Instance, site: str, state: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = alveole.api("GET", f"/v1/incidents?state={state}&site={site}")
    return found
