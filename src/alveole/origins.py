"""Modules from elsewhere: fetched, compared with their pin, their signature verified, unpacked, looked through.

One rule for each kind, both with OpenSSH signatures by somebody in the allowed-signers file:

=============  ==================================  ===============================================
source         pin                                 signature
=============  ==================================  ===============================================
archive        its SHA-256 digest                  detached, namespace ``alveole-module``
git            the full id of a commit             the commit's own (namespace ``git``)
=============  ==================================  ===============================================

Nothing is kept unless all of it fits. Programs get argument vectors, addresses are resolved once,
must be public and are then connected to as they are (threat 18), redirects are refused.
"""

from __future__ import annotations

import hashlib
import http.client
import ipaddress
import os
import re
import shutil
import socket
import ssl
import subprocess
import tempfile
import time
import tomllib
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from alveole.catalogue.lint import lint
from alveole.catalogue.sources import Catalogue
from alveole.errors import AlveoleError, Problem, Refused, Temporary
from alveole.unpacking import MOST_PACKED, tree_of

COMMIT = r"^[0-9a-f]{40}\Z"
DIGEST = r"^sha256:[0-9a-f]{64}\Z"
NAMESPACE = "alveole-module"
_PATH = r"^(?:/[A-Za-z0-9._+@-]{1,100}){1,20}/?\Z"
_URL_PATH = r"^/[A-Za-z0-9._~/+@%=,:-]{0,500}\Z"
_HOST = r"^[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?(?:\.[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?)+\Z"
_ARMOUR = "-----BEGIN SSH SIGNATURE-----"
_SIGNATURE_MAX = 16 * 1024
_SECONDS = 300.0
_NAT64 = ipaddress.ip_network("64:ff9b::/96")

Say = Callable[[str], None]
Resolve = Callable[[str, int], tuple[str, ...]]


class Fetched(msgspec.Struct, frozen=True):
    """``modules``: a directory with one directory a module. ``signer``: as the allowed-signers file names them."""

    modules: Path
    signer: str


# --- what is asked for ----------------------------------------------------------------------------
def check(source: str, pin: str, signature: str | None, uploaded: bool) -> tuple[Problem, ...]:
    """What is wrong with a request, before anything is fetched."""
    found = []
    git = bool(re.match(COMMIT, pin))
    if not git and not re.match(DIGEST, pin):
        hint = "the full 40 hex digits of a commit, or sha256: and 64 hex digits of an archive"
        found.append(Problem("pin", "is neither a commit nor a digest", hint))
    if uploaded:
        if git:
            found.append(Problem("upload", "is no repository", "pin an archive by its digest"))
        if len(source) > 500 or not source.isprintable():
            found.append(Problem("source", "is longer than 500 characters or not printable"))
    elif not re.match(_PATH, source) or "/../" in f"{source}/":
        found.extend(_check_url(source))
    if signature is not None:
        if git:
            found.append(Problem("signature", "is for archives only", "a commit carries its own signature"))
        elif not signature.startswith(_ARMOUR) or len(signature) > _SIGNATURE_MAX:
            found.append(Problem("signature", "is not an OpenSSH signature", "make one: ssh-keygen -Y sign"))
    elif uploaded and not git:
        found.append(Problem("signature", "is missing", "make one: ssh-keygen -Y sign -n alveole-module"))
    return tuple(found)


def _check_url(source: str) -> tuple[Problem, ...]:
    hint = "write https://example.org/modules.tar.gz, or an absolute path"
    try:
        parts = urlsplit(source)
        port = parts.port
    except ValueError:
        return (Problem("source", "is neither an https address nor an absolute path", hint),)
    if parts.scheme != "https" or port == 0:
        return (Problem("source", "is neither an https address nor an absolute path", hint),)
    if "@" in parts.netloc:
        # Not repeated: it may be a password.
        return (Problem("source", "names a user", "a public address needs none"),)
    host = parts.hostname or ""
    if not re.match(_HOST, host):
        return (Problem("source", f"{host!r} is not a host name", hint),)
    if parts.query or parts.fragment or not re.match(_URL_PATH, parts.path) or "/../" in f"{parts.path}/":
        return (Problem("source", "has a path that cannot be fetched", "plain characters, no ? and no #"),)
    return ()


def name_of(source: str) -> str:
    """A name for the source: the last part of its address without its ending."""
    last = source.rstrip("/").rpartition("/")[2].lower()
    last = re.sub(r"\.(?:tar\.gz|tgz|zip|git)\Z", "", last)
    return re.sub(r"[^a-z0-9]+", "-", last).strip("-")[:31]


def shown(source: str) -> str:
    """For people and the journal: one line, without what a terminal obeys."""
    return "".join(char for char in source if char.isprintable())[:300]


# --- fetching -------------------------------------------------------------------------------------
def fetch(
    source: str,
    pin: str,
    signature: str | None,
    upload: Path | None,
    signers: Path,
    work: Path,
    say: Say,
) -> Fetched:
    """Everything up to a directory of modules below ``work``. Raises ``Refused`` and ``Temporary``."""
    if not signers.is_file():
        raise Refused(
            f"nobody is known who may sign modules: there is no {signers}",
            field="signature",
            hint="docs/how-to/modules.md says how to write it",
        )
    unpacked = work / "tree"
    unpacked.mkdir()
    if re.match(COMMIT, pin):
        archive, signer = _from_git(source, pin, signers, work, say)
        tree_of(archive, "tar", unpacked)
    else:
        archive = work / "archive"
        if upload is not None:
            shutil.copyfile(upload, archive)
        else:
            say("fetching the archive")
            _get(source, archive, MOST_PACKED)
            if signature is None:
                _get(f"{source}.sig", work / "archive.sig", _SIGNATURE_MAX)
                signature = (work / "archive.sig").read_text("ascii", "replace")
        came = _digest(archive)
        if came != pin:
            raise Refused(
                f"the archive has another digest: {came}", field="pin", hint="ask its author for the right one"
            )
        say("verifying the signature")
        with archive.open("rb") as file:
            signer = verify(file.fileno(), signature or "", signers, NAMESPACE, work)
        tree_of(archive, "", unpacked)
    modules = work / "modules"
    modules.mkdir(mode=0o755)
    _pick(unpacked, modules)
    return Fetched(modules, signer)


def _get(source: str, target: Path, most: int) -> None:
    if source.startswith("/"):
        try:
            with Path(source).open("rb") as file, target.open("xb") as out:
                if not Path(source).is_file():
                    raise Refused(f"{source} is no file", field="source")
                content = file.read(most + 1)
                if len(content) > most:
                    raise Refused(f"{source} is larger than {most} bytes", field="source")
                out.write(content)
        except OSError as error:
            raise Refused(
                f"{source} cannot be read: {error.strerror}", field="source", hint="control reads it as its own user"
            ) from error
    else:
        download(source, target, most)


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return f"sha256:{hashlib.file_digest(file, 'sha256').hexdigest()}"


# --- over the network -----------------------------------------------------------------------------
def public_addresses(host: str, port: int) -> tuple[str, ...]:
    """Where ``host`` is, when all of it is public: a name that also leads inside is refused as a whole."""
    try:
        infos = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)
    except OSError as error:
        raise Temporary(f"{host} has no address: {error.strerror}", field="source") from error
    found = tuple(dict.fromkeys(str(info[4][0]) for info in infos))
    for text in found:
        if not is_public(text):
            raise Refused(f"{host} is at {text}, which is not a public address", field="source")
    return found


def is_public(text: str) -> bool:
    """Also of an IPv4 address inside an IPv6 one (mapped, NAT64, 6to4, Teredo)."""
    address = ipaddress.ip_address(text.partition("%")[0])
    if isinstance(address, ipaddress.IPv6Address):
        if address.sixtofour is not None or address.teredo is not None:
            return False
        inner = address.ipv4_mapped
        if address in _NAT64:
            inner = ipaddress.IPv4Address(int(address) & 0xFFFF_FFFF)
        if inner is not None:
            address = inner
    return address.is_global and not address.is_multicast


class _Pinned(http.client.HTTPSConnection):
    """Connects to an address that was checked, and still asks the certificate for the name."""

    def __init__(self, host: str, port: int, address: str, context: ssl.SSLContext) -> None:
        super().__init__(host, port, timeout=60.0, context=context)
        self._address, self._tls = address, context

    def connect(self) -> None:
        plain = socket.create_connection((self._address, self.port), 30.0)
        self.sock = self._tls.wrap_socket(plain, server_hostname=self.host)


def download(
    url: str,
    target: Path,
    most: int,
    *,
    resolve: Resolve = public_addresses,
    context: ssl.SSLContext | None = None,
) -> None:
    """GET ``url`` into the new file ``target``. Raises ``Refused``, ``Temporary``."""
    parts = urlsplit(url)
    host, port = parts.hostname or "", parts.port or 443
    address = resolve(host, port)[0]
    connection = _Pinned(host, port, address, context or ssl.create_default_context())
    until = time.monotonic() + _SECONDS
    try:
        connection.request("GET", parts.path or "/", headers={"User-Agent": "alveole", "Accept-Encoding": "identity"})
        answer = connection.getresponse()
        if 300 <= answer.status < 400:
            raise Refused(f"{host} leads elsewhere", field="source", hint="give the address where the file itself is")
        if answer.status != 200:
            kind = Temporary if answer.status >= 500 else Refused
            raise kind(f"{host} answered {answer.status} for {parts.path}", field="source")
        size = 0
        with target.open("xb") as file:
            while block := answer.read(65_536):
                size += len(block)
                if size > most:
                    raise Refused(f"what {host} sends is larger than {most} bytes", field="source")
                if time.monotonic() > until:
                    raise Temporary(f"{host} sends too slowly", field="source")
                file.write(block)
    except ssl.SSLCertVerificationError as error:
        raise Refused(f"{host} has no certificate to trust: {error.verify_message}", field="source") from error
    except (OSError, http.client.HTTPException) as error:
        raise Temporary(f"{host} could not be read: {error}", field="source", hint="try again") from error
    finally:
        connection.close()


# --- git --------------------------------------------------------------------------------------------
def _from_git(source: str, commit: str, signers: Path, work: Path, say: Say) -> tuple[Path, str]:
    """The commit's files as a tar, and who signed it."""
    options = []
    if source.startswith("/"):
        address, protocol = source, "file"
    else:
        parts = urlsplit(source)
        host, port = parts.hostname or "", parts.port or 443
        pinned = ",".join(_bracketed(each) for each in public_addresses(host, port))
        options = ["-c", f"http.curloptResolve={host}:{port}:{pinned}", "-c", "http.followRedirects=false"]
        address, protocol = source, "https"
    # The repository may be anybody's; what is in it is only read, and nothing of its own is run.
    (work / "gitconfig").write_text("[safe]\n\tdirectory = *\n[protocol]\n\tversion = 2\n")
    environment = {
        "GIT_CONFIG_GLOBAL": str(work / "gitconfig"),
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "GIT_ALLOW_PROTOCOL": protocol,
        "HOME": str(work),
    }
    repository = str(work / "repository")
    # The cwd is ours: git would take up a configuration of where it stands.
    say("fetching the commit")
    _run(["git", "init", "--quiet", "--bare", "--", repository], work, environment)
    git = ["git", "-C", repository, *options, "-c", "core.hooksPath=/dev/null", "-c", "fetch.fsckObjects=true"]
    _run([*git, "fetch", "--quiet", "--no-tags", "--depth=1", "--", address, commit], work, environment, temporary=True)
    raw = _run([*git, "cat-file", "commit", commit], work, environment)
    payload, signature = take_signature(raw)
    if not signature.startswith(_ARMOUR):
        raise Refused(
            f"commit {commit[:12]} is not signed with an SSH key",
            field="pin",
            hint="git commit -S, with gpg.format=ssh",
        )
    say("verifying the signature")
    with tempfile.TemporaryFile(dir=work) as file:
        file.write(payload)
        file.seek(0)
        signer = verify(file.fileno(), signature, signers, "git", work)
    archive = work / "archive"
    _run([*git, "archive", "--format=tar", f"--output={archive}", commit, "--"], work, environment)
    return archive, signer


def _bracketed(address: str) -> str:
    return f"[{address}]" if ":" in address else address


def take_signature(commit: bytes) -> tuple[bytes, str]:
    """A raw commit as what was signed and the signature (git-cat-file(1), header ``gpgsig``)."""
    head, _, message = commit.partition(b"\n\n")
    kept, signature, inside = [], [], False
    for line in head.split(b"\n"):
        if line.startswith(b"gpgsig "):
            inside = True
            signature.append(line[7:])
        elif inside and line.startswith(b" "):
            signature.append(line[1:])
        else:
            inside = False
            kept.append(line)
    text = b"\n".join(signature).decode("ascii", "replace")
    return b"\n".join(kept) + b"\n\n" + message, f"{text}\n" if text else ""


# --- signatures -------------------------------------------------------------------------------------
def verify(content: int, signature: str, signers: Path, namespace: str, work: Path) -> str:
    """Who of ``signers`` signed what the descriptor ``content`` reads; raises ``Refused`` when nobody did."""
    if not signature.startswith(_ARMOUR):
        raise Refused(
            "the signature is not an OpenSSH signature", field="signature", hint="make one: ssh-keygen -Y sign"
        )
    file = work / f"signature-{os.urandom(4).hex()}"
    file.write_text(signature)
    refused = Refused(
        f"it is not signed by anybody in {signers}", field="signature", hint="docs/how-to/modules.md says who may sign"
    )
    try:
        found = _run(["ssh-keygen", "-Y", "find-principals", "-s", str(file), "-f", str(signers)], work, {})
    except AlveoleError:
        raise refused from None
    for principal in found.decode("utf-8", "replace").splitlines():
        os.lseek(content, 0, os.SEEK_SET)
        argv = ["ssh-keygen", "-Y", "verify", "-f", str(signers), "-I", principal, "-n", namespace, "-s", str(file)]
        try:
            _run(argv, work, {}, stdin=content)
        except AlveoleError:
            continue
        return principal[:100]
    raise refused


def _run(
    argv: Sequence[str],
    work: Path,
    environment: Mapping[str, str],
    *,
    stdin: int = subprocess.DEVNULL,
    temporary: bool = False,
) -> bytes:
    """Run a program with next to no environment and with ceilings on what it writes; its output."""
    limited = ["/usr/bin/prlimit", f"--fsize={MOST_PACKED * 2}", "--core=0", "--", *argv]
    try:
        done = subprocess.run(
            limited,
            stdin=stdin,
            capture_output=True,
            timeout=_SECONDS,
            cwd=work,
            env={"PATH": "/usr/bin:/bin", "LC_ALL": "C", **environment},
            check=False,
        )
    except FileNotFoundError as error:
        raise Refused(f"{error.filename} is not installed", hint="apt install git openssh-client util-linux") from error
    except subprocess.TimeoutExpired as error:
        raise Temporary(f"{argv[0]} took longer than {_SECONDS:.0f} s", field="source") from error
    if done.returncode != 0:
        lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
        said = shown(lines[-1]) if lines else f"status {done.returncode}"
        raise (Temporary if temporary else Refused)(f"{argv[0]} failed: {said}", field="source")
    return done.stdout


# --- what is in it ------------------------------------------------------------------------------------
def _pick(tree: Path, modules: Path) -> None:
    """Move the modules of ``tree`` into ``modules``: the top itself, its directories, or those of its only one."""
    for _level in range(2):
        if (tree / "module.toml").is_file():
            tree.rename(modules / _named(tree / "module.toml"))
            return
        found = [each for each in sorted(tree.iterdir()) if each.is_dir() and (each / "module.toml").is_file()]
        if found:
            for each in found:
                each.rename(modules / each.name)
            return
        inner = [each for each in tree.iterdir() if each.is_dir()]
        if len(inner) != 1:
            break
        tree = inner[0]
    raise Refused("it holds no module", field="source", hint="a module is a folder with a module.toml")


def _named(manifest: Path) -> str:
    try:
        name = tomllib.loads(manifest.read_text("utf-8")).get("name", "")
    except (tomllib.TOMLDecodeError, UnicodeDecodeError) as error:
        raise Refused(f"module.toml cannot be read: {error}", field="source") from error
    if not isinstance(name, str) or not re.match(r"^[a-z][a-z0-9-]{0,30}\Z", name):
        raise Refused("module.toml has no name that could be a module's", field="source")
    return name


def lint_all(modules: Path, catalogue: Catalogue) -> tuple[Problem, ...]:
    """What is wrong with any of these modules; ``catalogue`` holds those that they may need."""
    return tuple(
        finding.problem(each.name)
        for each in sorted(modules.iterdir())
        if each.is_dir()
        for finding in lint(each, catalogue)
        if not finding.warning
    )
