"""``alveole serve``, ``token``, ``ca``, ``export``, ``completion`` and ``version``."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import cast

import click

from alveole import __version__
from alveole.cli import parse
from alveole.cli.output import emit, note, say, table, when
from alveole.cli.verbs import Here, Tree, complete, verb
from alveole.errors import InvalidInput
from alveole.remote.apiclient import segment
from alveole.text import clean


@verb(
    None,
    "serve",
    json=False,
    examples=["alveole serve", "alveole --config /etc/alveole/second.toml serve", "alveole serve --role agent"],
)
@click.option("--role", type=click.Choice(["agent", "control", "ssh", "porter"]), help="Run one of the processes only.")
def serve(here: Here, role: str | None) -> None:
    """Run Alvéole until it is told to stop (SIGTERM). Needs root; sites outlive it."""
    from alveole import app

    config = Path(here.config).resolve() if here.config else None
    app.serve(here.settings, cast("app.Role | None", role), config)


@verb(None, "version", examples=["alveole version --json"])
def version(here: Here) -> None:
    """The version of this program."""
    if here.json:
        emit({"version": __version__})
    else:
        say(f"alveole {__version__}")


@click.group("ca", cls=Tree)
def ca() -> None:
    """The internal certificate authority that signs every site's HTTPS."""


@verb(
    ca,
    "show",
    examples=[
        "alveole ca show > /usr/local/share/ca-certificates/alveole.crt && update-ca-certificates",
        "curl --cacert <(alveole ca show) https://demo.localhost/",
    ],
)
def ca_show(here: Here) -> None:
    """Print the authority's certificate (PEM), for those who are to trust it."""
    with here.client.open("GET", "/v1/authority") as answer:
        pem = answer.body().decode()
    if here.json:
        emit({"certificate": pem})
    else:
        say(pem.rstrip("\n"))


@verb(None, "export", examples=["alveole export nginx > /etc/nginx/conf.d/alveole.conf", "alveole export apache"])
@click.argument("kind", type=click.Choice(["nginx", "apache"]))
def export(here: Here, kind: str) -> None:
    """Print configuration for a proxy that already stands in front of Alvéole."""
    found = here.client.get(f"/v1/exports/{segment(kind)}")
    if here.json:
        emit(found)
    else:
        say(found["text"].rstrip("\n"))


@click.group("token", cls=Tree)
def token() -> None:
    """Who may use the API over TCP."""


@verb(
    token,
    "create",
    examples=[
        "alveole token create deploy --role administrator",
        "alveole token create dashboard --expires 90d --json",
        "alveole token create ci --scope upload.send,version.send --site shop",
        "alveole token create deploy --role operator --scope site.look,site.release,upload.send --site blog",
    ],
)
@click.argument("name", metavar="NAME")
@click.option(
    "--role",
    metavar="ROLE",
    help="administrator (everything), operator, owner or reader (look only). Default: reader; with --scope the least "
    "that may do it.",
)
@click.option("--expires", metavar="AGE", help="After 12h, 90d, 4w. Default: never.")
@click.option(
    "--scope", metavar="RIGHT", multiple=True, help="Only this, such as site.release. Default: all of its role."
)
@click.option("--site", metavar="NAME", multiple=True, help="Only for this site. Default: all.")
def token_create(
    here: Here, name: str, role: str | None, expires: str | None, scope: tuple[str, ...], site: tuple[str, ...]
) -> None:
    """Make a token. It is printed once: only its hash is kept."""
    problems = parse.Problems()
    body: dict[str, object] = {"name": name, "scope": parse.words(scope), "sites": parse.words(site)}
    if role is not None or not scope:
        body["role"] = role or "reader"
    if expires is not None:
        body["expires_in_seconds"] = parse.age(expires, "expires", problems)
    problems.stop()
    made = here.client.send("POST", "/v1/tokens", body)
    if here.json:
        emit(made)
        return
    note(f"The token {clean(name)} ({clean(made['role'])}); it is shown this once:")
    say(made["secret"])


@verb(token, "list", examples=["alveole token list"])
def token_list(here: Here) -> None:
    """List tokens, without their secrets."""
    found = here.client.get("/v1/tokens")
    if here.json:
        emit(found)
        return
    if not found:
        note("There is no token. Make one: alveole token create NAME")
        return
    rows = [
        (
            clean(item["id"]),
            clean(item["role"]),
            when(item["created_at"], short=True),
            when(item["expires_at"], short=True) if item["expires_at"] else "never",
            clean(item["name"]),
            clean(", ".join(item["scope"]) or "-"),
            clean(", ".join(item["sites"]) or "-"),
        )
        for item in found
    ]
    table(("ID", "ROLE", "CREATED", "EXPIRES", "NAME", "ONLY", "SITES"), rows)


@verb(token, "delete", examples=["alveole token delete deploy"])
@click.argument("name", metavar="ID|NAME", shell_complete=complete("/v1/tokens"))
def token_delete(here: Here, name: str) -> None:
    """Delete a token; whoever has it is shut out at once."""
    here.client.send("DELETE", f"/v1/tokens/{segment(name)}")
    if here.json:
        emit({"token": name, "deleted": True})
    else:
        say(f"The token {clean(name)} is gone.")


@verb(
    None,
    "completion",
    json=False,
    examples=[
        "alveole completion bash > /usr/share/bash-completion/completions/alveole",
        "alveole completion zsh > /usr/share/zsh/vendor-completions/_alveole",
        "alveole completion fish > /usr/share/fish/vendor_completions.d/alveole.fish",
    ],
)
@click.argument("shell", type=click.Choice(["bash", "zsh", "fish"]))
def completion(here: Here, shell: str) -> None:
    """Print the completion script of a shell; site names are completed too."""
    from click.shell_completion import get_completion_class

    from alveole.cli.tree import root

    found = get_completion_class(shell)
    if found is None:
        raise click.UsageError(f"no completion for {shell}")
    sys.stdout.write(found(root, {}, "alveole", "_ALVEOLE_COMPLETE").source())


@verb(
    None,
    "restore-platform",
    examples=[
        "alveole restore-platform /mnt/disk/alveole --key-file alveole.key",
        "alveole restore-platform backup@host.example.org/srv/alveole --kind sftp --identity id_ed25519 \\",
        "    --host-key 'ssh-ed25519 AAAAC3Nza…' --key-file alveole.key",
    ],
)
@click.argument("repository", metavar="REPOSITORY")
@click.option(
    "--key-file", type=click.Path(exists=True, dir_okay=False, allow_dash=True), help="What 'backup key export' gave."
)
@click.option("--kind", type=click.Choice(["local", "sftp", "s3"]), default="local", help="How it is reached; local.")
@click.option(
    "--identity",
    type=click.Path(exists=True, dir_okay=False),
    help="SFTP: the private key to sign in with.",
)
@click.option("--host-key", metavar="KEY", default="", help="SFTP: the key of the host, TYPE BASE64.")
@click.option("--user", metavar="ID", default="", help="S3: the id of the access key.")
@click.option("--secret-file", type=click.Path(exists=True, dir_okay=False), help="S3: a file of the access key.")
def restore_platform(
    here: Here,
    repository: str,
    key_file: str | None,
    kind: str,
    identity: str | None,
    host_key: str,
    user: str,
    secret_file: str | None,
) -> int:
    """Make a lost machine again from a repository of its backups.

    Into an empty state directory, while Alvéole does not run: people, settings, keys, each site with the content, the
    volumes and the working copy of its newest backup, kept releases, versions of applications, and images. Cut short,
    it goes on where it was when it is asked again.
    """
    from alveole.app import restore_platform as restored
    from alveole.cli.follow import Show

    if key_file:
        key = sys.stdin.read() if key_file == "-" else Path(key_file).read_text()
    elif sys.stdin.isatty():
        key = click.prompt("Key of the backups", hide_input=True, err=True)
    else:
        raise InvalidInput("is needed where nobody can be asked", field="key_file", hint="--key-file FILE")
    asked = {"kind": kind, "place": repository, "host_key": " ".join(host_key.split()[:2]), "user": user}
    asked["secret"] = Path(secret_file).read_text().strip() if secret_file else ""
    with Show("restoring") as show:
        found = restored(here.settings, asked, key.strip(), show.now, identity or "")
    if here.json:
        emit(found)
        return 3 if found["without"] or found["again"] else 0
    say(f"{len(found['sites'])} sites are back: {', '.join(map(clean, found['sites'])) or 'none'}")
    for what in ("images", "versions"):
        if found[what]:
            say(f"{len(found[what])} {what} are back: {', '.join(map(clean, found[what]))}")
    for name, why in sorted(found["without"].items()):
        note(f"NOT back: {clean(name)}: {clean(why)}")
    for text in found["said"]:
        note(clean(text))
    if found["settings"]:
        note(f"The settings of the lost machine are in {clean(found['settings'])}: compare them with yours.")
    if found["again"]:
        note("Not all came that is there. Nothing of it is lost: ask for it again, it goes on where it was.")
        note(f"To start without what is missing, remove {clean(str(here.settings.state / 'restoring.json'))}.")
        return 3
    say("Start it: alveole serve")
    return 3 if found["without"] else 0
