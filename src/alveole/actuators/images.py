"""Import of a local OCI image as a base, by the digest of its manifest.

The archive is read and unpacked by a confined child (``host.layers``); what it says of itself is
checked here field by field before it is kept.
"""

from __future__ import annotations

import contextlib
import logging
import os
import platform
import re
import secrets
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec

from alveole.actuators.bases import Bases, check_digest
from alveole.actuators.releases import room
from alveole.agent.protocol import Image, PullImage
from alveole.backends.base import Say, quiet
from alveole.config import Settings
from alveole.errors import AlveoleError, InvalidInput, Refused
from alveole.host import bases, paths
from alveole.host.bases import BaseRecord, mapped_tree, read_record
from alveole.host.run import ProgramFailed, run
from alveole.host.sandbox import Sandbox, as_root
from alveole.model.names import ENV_FORBIDDEN, ENV_KEY, MOUNT_PATH
from alveole.model.site import Base, BaseKind

log = logging.getLogger("alveole.agent")

#: The machine's word for itself and the image specification's (GOARCH).
_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "riscv64": "riscv64", "ppc64le": "ppc64le"}


class _Config(msgspec.Struct):
    """The part of an image's configuration that is used (image-spec 1.0, config.md)."""

    entrypoint: tuple[str, ...] | None = msgspec.field(default=None, name="Entrypoint")
    command: tuple[str, ...] | None = msgspec.field(default=None, name="Cmd")
    env: tuple[str, ...] | None = msgspec.field(default=None, name="Env")
    ports: dict[str, Any] | None = msgspec.field(default=None, name="ExposedPorts")
    volumes: dict[str, Any] | None = msgspec.field(default=None, name="Volumes")
    directory: str | None = msgspec.field(default=None, name="WorkingDir")


class Images:
    """Turns OCI archives into bases."""

    def __init__(self, settings: Settings, sandbox: Sandbox, bases: Bases) -> None:
        self._settings = settings
        self._sandbox = sandbox
        self._bases = bases

    def import_image(self, fd: int, say: Say = quiet) -> Image:
        """Check and unpack the OCI archive ``fd`` (a plain tar of an OCI layout); gives it as a base.

        Every blob is compared with its digest, of several platforms this machine's is taken, and an
        image that is a base already is not unpacked again. Raises ``InvalidInput`` with the layer
        and the member at fault, ``NoRoom``; nothing is kept then.
        """
        content = self._settings.content
        with self._bases.staging("image") as staging:
            left, files = room(self._settings, staging)
            args = {
                "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
                "bytes": content.bytes,
                "files": min(content.files, files),
                "room_bytes": left,
                "ratio": content.ratio,
                "known": sorted(self._known()),
            }
            with mapped_tree(self._settings, staging / "root") as tree:
                found = self._sandbox.run(
                    "image", tree, as_root(self._settings, bases.NUMBER), args, fds=(fd,), say=say
                )
            manifest = check_digest(found["manifest"])
            if (image := self._known().get(manifest)) is not None:
                return image
            say("checking the image's root", 0.95)
            record = _record(manifest, found)
            used = self._bases.finish(staging / "root")
            record = msgspec.structs.replace(record, bytes=used["bytes"], files=used["files"])
            record = self._bases.adopt(staging, record)
        if record.image is None:
            raise ValueError("an image's record has no image")
        return record.image

    # From a registry

    def pull(self, request: PullImage, say: Say = quiet) -> Image:
        """Fetch an image from a registry of the settings, as a user who may nothing else; then as an import.

        Raises ``Refused`` for another registry and with what the registry said, and what
        :meth:`import_image` raises.
        """
        plain = f"http://{request.registry}" in self._settings.images.registries
        if not plain and request.registry not in self._settings.images.registries:
            raise Refused(f"images are not fetched from {request.registry}", field="registry")
        uid = paths.site_uid(self._settings, bases.NUMBER)
        mark = "@" if request.tag.startswith("sha256:") else ":"
        name = f"docker://{request.registry}/{request.repository}{mark}{request.tag}"
        with self._place(uid) as place:
            say("fetching the image", 0.0)
            left, _ = room(self._settings, place)
            argv = [
                *("/usr/bin/setpriv", f"--reuid={uid}", f"--regid={uid}", "--clear-groups", "--no-new-privs"),
                *("--bounding-set=-all", "--inh-caps=-all", "--pdeathsig=KILL", "--"),
                *("/usr/bin/prlimit", f"--fsize={min(left, self._settings.content.bytes)}", "--core=0", "--"),
                *("/usr/bin/skopeo", "--insecure-policy", f"--tmpdir={place}", "copy", "--quiet"),
                *(["--src-tls-verify=false"] if plain else []),
                *("--src-no-creds", "--", name, f"oci-archive:{place}/image.tar"),
            ]
            try:
                run(argv, env={"HOME": str(place)}, timeout=self._settings.images.seconds)
            except ProgramFailed as error:
                log.warning("%s was not fetched: %s", name, error)
                shown = name.removeprefix("docker://")
                raise Refused(f"{shown} was not fetched: {_said(error, shown)}", field="image") from None
            fd = os.open(place / "image.tar", os.O_RDONLY | os.O_NOFOLLOW | os.O_CLOEXEC)
            try:
                return self.import_image(fd, say)
            finally:
                os.close(fd)

    @contextlib.contextmanager
    def _place(self, uid: int) -> Iterator[Path]:
        top = paths.pulls(self._settings)
        top.mkdir(mode=0o711, exist_ok=True)
        place = top / secrets.token_hex(8)
        place.mkdir(mode=0o700)
        os.chown(place, uid, uid)
        try:
            yield place
        finally:
            shutil.rmtree(place, ignore_errors=True)

    def recover(self) -> None:
        """Take away what a death of the agent left of a fetch."""
        shutil.rmtree(paths.pulls(self._settings), ignore_errors=True)

    def _known(self) -> dict[str, Image]:
        known = {}
        for path in paths.bases(self._settings).glob("oci-*"):
            try:
                image = read_record(self._settings, path.name).image
            except (AlveoleError, msgspec.DecodeError):
                continue
            sound = (path / "root" / "etc").is_dir() and not (path / "damaged").exists()
            if image is not None and image.base.image is not None and sound:
                known[image.base.image] = image
        return known


def _said(error: ProgramFailed, name: str) -> str:
    """What skopeo says, without its own words around it."""
    last = error.tail[-1] if error.tail else ""
    found = re.search(r'msg="((?:[^"\\]|\\.)*)"', last)
    text = found[1].replace('\\"', '"') if found else last or "skopeo printed nothing"
    return text.rpartition("docker://")[2].removeprefix(f"{name}: ")[:500]


def _record(manifest: str, found: dict[str, Any]) -> BaseRecord:
    try:
        config = msgspec.convert(found["config"], _Config)
    except msgspec.ValidationError as error:
        raise InvalidInput(f"has a configuration that is not the specification's: {error}", field="image") from None
    argv = (*(config.entrypoint or ()), *(config.command or ()))
    if any("\0" in part for part in argv) or len(argv) > 256:
        raise InvalidInput("has a command that cannot be run", field="image")
    env = dict(entry.partition("=")[::2] for entry in config.env or () if "=" in entry)
    ports = {int(match[1]) for port in config.ports or () if (match := re.match(r"^(\d{1,5})(?:/tcp)?\Z", port))}
    directory = config.directory or "/"
    base = Base(BaseKind.OCI, f"oci-{manifest.removeprefix('sha256:')[:16]}", image=manifest)
    image = Image(
        base=base,
        argv=argv,
        env={k: v for k, v in env.items() if re.match(ENV_KEY, k) and k not in ENV_FORBIDDEN and "\0" not in v},
        ports=tuple(sorted(port for port in ports if 0 < port < 65_536)),
        volumes=tuple(sorted(path for path in config.volumes or () if re.match(MOUNT_PATH, path))),
        user=str(found["user"]),
    )
    cwd = directory if directory.startswith("/") and "\0" not in directory and len(directory) < 4096 else "/"
    return BaseRecord(base, time.time(), 0, 0, image, cwd)
