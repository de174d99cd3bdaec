"""``alveole cert`` and ``acme``."""

from __future__ import annotations

import sys
from typing import Any

import click

from alveole.cli import follow, parse, reading
from alveole.cli.output import emit, fields, mark, note, paint, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean

_SOON_DAYS = 21
_DER = "it has to be PEM: openssl x509 -inform der turns it"


@click.group("cert", cls=Tree)
def group() -> None:
    """Certificates: what visitors of each name are shown, and one's own."""


certificate = click.argument("name", metavar="NAME", shell_complete=complete("/v1/certificates"))


def _place(here: Here, name: str) -> str:
    """Of the site whose name it is, where the caller sees one; else of the platform."""
    plain = name.strip().lower().rstrip(".")
    for each in here.client.get("/v1/certificates"):
        if each["name"] == plain and each["site"]:
            return f"/v1/sites/{segment(each['site'])}/certificates/{segment(plain)}"
    return f"/v1/certificates/{segment(plain)}"


@verb(group, "list", examples=["alveole cert list", "alveole cert list blog", "alveole cert list --json"])
@click.argument("site", metavar="[SITE]", required=False, shell_complete=complete("/v1/sites"))
def list_(here: Here, site: str | None) -> None:
    """List what visitors of each name are shown: by whom, how long still, and what is in the way of the next."""
    found = here.client.get(f"/v1/sites/{segment(site)}/certificates" if site else "/v1/certificates")
    if here.json:
        emit(found)
    elif not found:
        note("There is no name yet.")
    else:
        rows = [
            (clean(each["name"]), clean(each["site"]) or "-", _by(each), _days(each), _told(each)) for each in found
        ]
        table(("NAME", "SITE", "BY", "DAYS", "NEXT"), rows, right="DAYS", flexible=4)


def _by(found: dict[str, Any]) -> str:
    return {"internal": "internal", "own": f"own ({clean(found['by'])})"}.get(found["source"], clean(found["by"]))


def _days(found: dict[str, Any]) -> str:
    # One that lives for a week only ends soon when a quarter of it is left.
    soon = found["days"] < _SOON_DAYS and found["days"] * 4 * 86_400 < found["expires_at"] - found["issued_at"]
    return paint(str(found["days"]), "red" if soon else "")


def _told(found: dict[str, Any]) -> str:
    if found["problem"] or found["hindrance"]:
        return clean(found["problem"] or found["hindrance"])
    return when(found["renew_at"], short=True) if found["renew_at"] else ""


@verb(group, "show", examples=["alveole cert show www.example.org", "alveole cert show www.example.org --chain"])
@certificate
@click.option("--chain", is_flag=True, help="Print its chain (PEM) and nothing else.")
def show(here: Here, name: str, chain: bool) -> None:
    """Show the certificate of a name."""
    found = here.client.get(_place(here, name))
    if here.json:
        emit(found)
    elif chain:
        say(found["chain"].rstrip("\n"))
    else:
        fields(
            (
                ("name", clean(found["name"])),
                ("site", clean(found["site"])),
                ("by", _by(found)),
                ("for", clean(" ".join(found["names"]))),
                ("since", when(found["issued_at"] or None)),
                ("until", f"{when(found['expires_at'] or None)} ({found['days']} days)"),
                ("problem", clean(found["problem"])),
                ("renewal", when(found["renew_at"]) if found["renew_at"] else ""),
                ("next look", when(found["next_at"]) if found["next_at"] else ""),
                ("in the way", clean(found["hindrance"])),
            )
        )


def _issue(here: Here, name: str, renew: bool) -> None:
    place = _place(here, name)
    change = here.client.send("POST", f"{place}/issue", {"renew": renew})

    def done(_ended: dict[str, Any]) -> None:
        found = here.client.get(place)
        say(f"{clean(found['name'])} has a certificate by {clean(found['by'])} for {found['days']} days")

    follow.finish(here, change, done, lambda _ended: here.client.get(place))


@verb(group, "issue", waits=True, examples=["alveole cert issue www.example.org"])
@certificate
def issue(here: Here, name: str) -> None:
    """Get a certificate for a name now, from the authorities in their order.

    It is looked first whether the name leads here, so that no authority's budget is spent in vain. From then on it is
    renewed by itself. Until it is there, the internal authority's is shown.
    """
    _issue(here, name, False)


@verb(group, "renew", waits=True, examples=["alveole cert renew www.example.org"])
@certificate
def renew(here: Here, name: str) -> None:
    """Get the next one now, though it is not due yet. It costs one of the budget."""
    _issue(here, name, True)


@verb(
    group,
    "upload",
    examples=[
        "alveole cert upload blog --chain fullchain.pem --key key.pem",
        "alveole cert upload --chain wildcard.pem --key key.pem",
    ],
)
@click.argument("site", metavar="[SITE]", required=False, shell_complete=complete("/v1/sites"))
@click.option("--chain", required=True, metavar="FILE", help="The certificate, then those that lead to its authority.")
@click.option("--key", required=True, metavar="FILE", help="Its private key, without a passphrase. - reads it.")
def upload(here: Here, site: str | None, chain: str, key: str) -> None:
    """Show an own certificate for the names of a site that it is for; without SITE for all names here.

    All that is wrong with it is said at once. It goes before every other until it ends, and is not renewed by itself:
    you are told 21 days before its end.
    """
    body = {"chain": reading.text(chain, "chain", hint=_DER), "key": reading.text(key, "key", hint=_DER)}
    place = f"/v1/sites/{segment(site)}/certificates" if site else "/v1/certificates"
    found = here.client.send("POST", place, body)
    if here.json:
        emit(found)
        return
    say(f"It is shown for {clean(', '.join(found['names'])) or 'names that are still to come'}.")
    say(f"It ends at {when(found['expires_at'])}.")
    for each in found["notes"]:
        note(clean(each))


@verb(group, "remove", examples=["alveole cert remove www.example.org"])
@certificate
def remove(here: Here, name: str) -> None:
    """Take back an uploaded certificate, or one that was issued. The name shows the internal authority's then.

    Where names get theirs automatically the next is asked for, within what the budget allows.
    """
    here.client.send("DELETE", _place(here, name))
    if here.json:
        emit({"name": name, "removed": True})
    else:
        say(f"The certificate of {clean(name)} is gone.")


@click.group("acme", cls=Tree)
def acme() -> None:
    """Authorities that issue certificates by ACME, in the order in which they are asked."""


@verb(acme, "list", examples=["alveole acme list", "alveole acme list --json"])
def acme_list(here: Here) -> None:
    """List the authorities, what of their budgets is spent, and the zones that challenges may be written to."""
    found = here.client.get("/v1/acme")
    if here.json:
        emit(found)
        return
    if not found["authorities"]:
        note("There is none: all names show certificates of the internal authority. See: alveole acme add --help")
    rows = [
        (clean(each["name"]), clean(each["directory"]), clean(each["account"]) or "-", _spent(each))
        for each in found["authorities"]
    ]
    if rows:
        table(("NAME", "DIRECTORY", "ACCOUNT", "SPENT THIS WEEK"), rows, flexible=1)
        say()
    fields(
        (
            ("names", "all that can have one" if found["automatic"] else "those that somebody asks for"),
            ("look first", "over HTTP" if found["look"] else "no"),
            *(("zone", _zone(each)) for each in found["zones"]),
        )
    )


def _zone(found: dict[str, Any]) -> str:
    port = "" if found["port"] == 53 else f", port {found['port']}"
    why = ", where names are published" if found["published"] else ""
    return f"{clean(found['zone'])} at {clean(found['server'])}{port}{why}"


def _spent(found: dict[str, Any]) -> str:
    said = [
        f"{clean(each['domain'])} {each['issued']} of {each['most'] or 'any'}"
        + (f", {each['failed']} failed" if each["failed"] else "")
        for each in found["spent"]
    ]
    return "; ".join(said) or "nothing"


@verb(
    acme,
    "add",
    examples=[
        "alveole acme add letsencrypt --directory https://acme-v02.api.letsencrypt.org/directory"
        " --email ana@example.org --agree",
        "alveole acme add school --directory https://ca.school.lan/acme/directory --private --trust ca.pem --agree",
        "alveole acme add paid --directory https://acme.example.com/dir --eab-kid k1 --eab-key-stdin --agree < secret",
    ],
)
@click.argument("name", metavar="NAME")
@click.option("--directory", required=True, metavar="URL", help="Address of its ACME directory.")
@click.option("--email", default="", metavar="ADDRESS", help="Where it writes when something is wrong.")
@click.option("--eab-kid", default="", metavar="ID", help="The account there that orders are bound to.")
@click.option("--eab-key-stdin", is_flag=True, help="Read the key of that account (base64url) from standard input.")
@click.option(
    "--trust", metavar="FILE", help="The authorities to trust when it is asked (PEM). Default: the machine's."
)
@click.option("--private", is_flag=True, help="It is one's own, and issues for names that nobody outside knows.")
@click.option("--port", type=int, default=80, metavar="PORT", help="Where a private one comes to look. Default: 80.")
@click.option("--challenge", type=click.Choice(["http-01", "dns-01"]), help="Only this way of proving a name.")
@click.option("--per-week", type=int, metavar="NUMBER", help="Certificates a week for one registered domain (50).")
@click.option("--same-per-week", type=int, metavar="NUMBER", help="The same for exactly the same names (5).")
@click.option("--failures", type=int, metavar="NUMBER", help="Failed validations an hour of one name (5).")
@click.option("--first", is_flag=True, help="Ask it before the others.")
@click.option("--agree", is_flag=True, help="Its terms of service are agreed to.")
def acme_add(here: Here, name: str, directory: str, **given: Any) -> None:
    """Add an authority. It is asked for an account at once, and kept when that is had.

    From then on every name that can have a certificate gets one, unless: alveole acme set --by-hand
    """
    problems = parse.Problems()
    settings: dict[str, Any] = {"name": name, "directory": directory, "email": given["email"]}
    settings |= {"eab_kid": given["eab_kid"], "private": given["private"], "port": given["port"]}
    settings["challenge"] = given["challenge"] or ""
    if given["eab_key_stdin"]:
        settings["eab_key"] = sys.stdin.readline().strip()
    if given["trust"] is not None:
        settings["certificates"] = reading.text(given["trust"], "trust", hint=_DER)
    budget = {"domain_week": given["per_week"], "same_week": given["same_per_week"], "failures_hour": given["failures"]}
    settings["budget"] = {key: value for key, value in budget.items() if value is not None}
    problems.stop()
    body = {"settings": settings, "first": given["first"], "agree": given["agree"]}
    found = here.client.send("POST", "/v1/acme/authorities", body)
    if here.json:
        emit(found)
        return
    account = next(each["account"] for each in found["authorities"] if each["name"] == name)
    say(f"{clean(name)} knows this platform as {clean(account)}")


authority = click.argument("name", metavar="NAME")


@verb(acme, "remove", examples=["alveole acme remove letsencrypt"])
@authority
def acme_remove(here: Here, name: str) -> None:
    """Ask an authority for nothing any more. What it has issued serves until it ends."""
    here.client.send("DELETE", f"/v1/acme/authorities/{segment(name)}")
    if here.json:
        emit({"name": name, "removed": True})
    else:
        say(f"{clean(name)} is asked for nothing any more.")


@verb(
    acme,
    "try",
    examples=["alveole acme try letsencrypt"],
    statuses="0 it answers, 3 it does not, and the others of every command",
)
@authority
def acme_try(here: Here, name: str) -> int:
    """Ask an authority for its directory and our account there. Nothing is ordered."""
    found = here.client.send("POST", f"/v1/acme/authorities/{segment(name)}/try")
    if here.json:
        emit(found)
    else:
        say(f"{mark(found['ok'])} {clean(found['said'])}")
    return 0 if found["ok"] else 3


@verb(
    acme,
    "set",
    examples=[
        "alveole acme set --by-hand",
        "alveole acme set --order school,letsencrypt",
        "alveole acme set --no-look",
    ],
)
@click.option("--automatic/--by-hand", default=None, help="All names that can have one, or those somebody asks for.")
@click.option("--look/--no-look", default=None, help="Whether a name is asked for over HTTP before an authority is.")
@click.option("--order", metavar="NAMES", help="All authorities, in the order in which they are to be asked.")
def acme_set(here: Here, automatic: bool | None, look: bool | None, order: str | None) -> None:
    """Change how certificates are got."""
    body: dict[str, Any] = {}
    if automatic is not None:
        body["automatic"] = automatic
    if look is not None:
        body["look"] = look
    if order is not None:
        body["order"] = [each.strip() for each in order.split(",") if each.strip()]
    found = here.client.send("PATCH", "/v1/acme", body)
    if here.json:
        emit(found)
    else:
        say("It is stored.")


@verb(
    acme,
    "budget",
    examples=["alveole acme budget letsencrypt --per-week 300", "alveole acme budget school --per-week 0 --failures 0"],
)
@authority
@click.option("--per-week", type=int, metavar="NUMBER", help="Certificates a week for one registered domain.")
@click.option("--same-per-week", type=int, metavar="NUMBER", help="The same for exactly the same names.")
@click.option("--failures", type=int, metavar="NUMBER", help="Failed validations an hour of one name.")
def acme_budget(here: Here, name: str, per_week: int | None, same_per_week: int | None, failures: int | None) -> None:
    """Change what is counted of an authority before it is asked. 0: no limit. What is not given stays as it is."""
    budget = {"domain_week": per_week, "same_week": same_per_week, "failures_hour": failures}
    given = {key: value for key, value in budget.items() if value is not None}
    if not given:
        raise InvalidInput("nothing to change", hint="give at least one option")
    found = here.client.send("PATCH", "/v1/acme", {"budgets": {name: given}})
    if here.json:
        emit(found)
    else:
        say("It is stored.")


@click.group("zone", cls=Tree)
def zone() -> None:
    """Zones that challenges may be written to: what wildcards need."""


acme.add_command(zone)


@verb(
    zone,
    "add",
    examples=["alveole acme zone add example.org --server 192.0.2.53 --key alveole --secret-stdin < secret"],
)
@click.argument("name", metavar="ZONE")
@click.option("--server", required=True, metavar="ADDRESS", help="Its primary name server.")
@click.option("--port", type=int, default=53, metavar="PORT", help="Its port. Default: 53.")
@click.option("--key", default="", metavar="NAME", help="The TSIG key that may change the zone there.")
@click.option("--algorithm", default="hmac-sha256", metavar="NAME", help="Of the key. Default: hmac-sha256.")
@click.option("--secret-stdin", is_flag=True, help="Read the key's secret (Base64) from standard input.")
@click.option("--wait", default="5s", metavar="TIME", help="How long its secondaries may take. Default: 5s.")
def zone_add(here: Here, name: str, secret_stdin: bool, wait: str, **given: Any) -> None:
    """Let challenges be written to a zone by signed updates (RFC 2136). Its server is asked at once."""
    problems = parse.Problems()
    body: dict[str, Any] = {"zone": name, **given, "wait_seconds": parse.age(wait, "wait", problems)}
    if secret_stdin:
        body["secret"] = sys.stdin.readline().strip()
    problems.stop()
    found = here.client.send("POST", "/v1/acme/zones", body)
    if here.json:
        emit(found)
    else:
        say(f"Names below {clean(name)} can be proven by DNS now.")


@verb(zone, "remove", examples=["alveole acme zone remove example.org"])
@click.argument("name", metavar="ZONE")
def zone_remove(here: Here, name: str) -> None:
    """Write no challenges to a zone any more."""
    here.client.send("DELETE", f"/v1/acme/zones/{segment(name)}")
    if here.json:
        emit({"zone": name, "removed": True})
    else:
        say(f"Nothing is written to {clean(name)} any more.")
