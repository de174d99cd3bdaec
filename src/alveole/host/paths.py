"""Every path of the layout on disk, as functions of the settings, ids and numbers alone.

Nothing that came from outside becomes a part of a path before it went through a grammar of
``model.names``. ``S`` below is the state directory, ``R`` the run directory.
"""

from __future__ import annotations

from pathlib import Path

from alveole.config import Settings
from alveole.model.site import SITE_UID

#: A volume beside a site's own: in it the instance remembers which of its tasks have run.
STATE_VOLUME = "alveole-state"


def site_uid(settings: Settings, number: int) -> int:
    """The host uid (and gid) of the site's own user: owner of its content and its volumes."""
    return settings.uid_start(number) + SITE_UID


def pulls(settings: Settings) -> Path:
    """Images on their way from a registry: a directory of its own for each, of the user who fetches it."""
    return settings.state / "pulls"


def hex_of(digest: str) -> str:
    """``sha256:ab…`` as the name of a file: ``ab…``."""
    return digest.removeprefix("sha256:")


# S/control
def control(settings: Settings) -> Path:
    return settings.state / "control"


def uploads(settings: Settings) -> Path:
    return control(settings) / "uploads"


# S/sites/<id>
def sites(settings: Settings) -> Path:
    return settings.state / "sites"


def site(settings: Settings, site_id: str) -> Path:
    return sites(settings) / site_id


def content(settings: Settings, site_id: str) -> Path:
    """Bind-mounted read-only at ``/site`` in the container."""
    return site(settings, site_id) / "content"


def releases(settings: Settings, site_id: str) -> Path:
    return content(settings, site_id) / "releases"


def release(settings: Settings, site_id: str, digest: str) -> Path:
    return releases(settings, site_id) / hex_of(digest)


def current(settings: Settings, site_id: str) -> Path:
    """The link to the live release of a static site, replaced by one rename."""
    return content(settings, site_id) / "current"


def staging(settings: Settings, site_id: str) -> Path:
    """Where imports, restores and deletions of this site happen before or after they count.

    0700 root and outside of ``content``: a container never sees what is half done.
    """
    return site(settings, site_id) / "staging"


def disk_image(settings: Settings, site_id: str) -> Path:
    """The writable part of a site with a disk limit: a sparse ext4 file."""
    return site(settings, site_id) / "disk.img"


def disk_mount(settings: Settings, site_id: str) -> Path:
    """Where :func:`disk_image` is mounted while the site runs or is worked on."""
    return settings.run / "sites" / site_id / "disk"


def data_dir(settings: Settings, site_id: str, limited: bool) -> Path:
    """The writable part; ``limited``: the site has a disk limit, so it lies in a file system of its own."""
    return disk_mount(settings, site_id) if limited else site(settings, site_id) / "data"


def root_dir(data: Path, slot: int) -> Path:
    """Overlay of the instance of ``slot``: holds ``upper`` and ``work``."""
    return data / f"root.{slot}"


def volumes(data: Path, generation: int) -> Path:
    return data / "volumes" / str(generation)


def volume(data: Path, generation: int, name: str) -> Path:
    return volumes(data, generation) / name


def config(settings: Settings, site_id: str) -> Path:
    """Holds ``files`` and the agent's own notes about them."""
    return site(settings, site_id) / "config"


def config_files(settings: Settings, site_id: str) -> Path:
    """The rendered configuration files, bind-mounted at ``/config`` in the container."""
    return config(settings, site_id) / "files"


# S/bases/<key>
def bases(settings: Settings) -> Path:
    return settings.state / "bases"


def base(settings: Settings, key: str) -> Path:
    return bases(settings) / key


def base_root(settings: Settings, key: str) -> Path:
    return base(settings, key) / "root"


def base_record(settings: Settings, key: str) -> Path:
    return base(settings, key) / "base.json"


def base_manifest(settings: Settings, key: str) -> Path:
    """Digests of its files, as they were when it was made."""
    return base(settings, key) / "manifest"


def base_damage(settings: Settings, key: str) -> Path:
    """There once a file of the base was found to be another than it was made; says which."""
    return base(settings, key) / "damaged"


def base_verified(settings: Settings, key: str) -> Path:
    """Empty; its time says when the base was last compared with its manifest and found sound."""
    return base(settings, key) / "verified"


def apt_cache(settings: Settings) -> Path:
    """S/cache/apt: package lists and package files that the building of bases shares."""
    return settings.state / "cache" / "apt"


# Builds
def build_image(settings: Settings, site_id: str) -> Path:
    """What builds of the site write, and their cache of packages: a sparse ext4 file."""
    return site(settings, site_id) / "build.img"


def builds(settings: Settings) -> Path:
    """R/build: one directory a build that is going on."""
    return settings.run / "build"


# The working copy
def work_image(settings: Settings, site_id: str) -> Path:
    """A site's working copy and its git repository: a sparse ext4 file."""
    return site(settings, site_id) / "work.img"


def work_record(settings: Settings, site_id: str) -> Path:
    """Which release the working copy stands on, out of the site's reach."""
    return site(settings, site_id) / "work.json"


def visits(settings: Settings) -> Path:
    """R/visit: one directory a site whose working copy is in use."""
    return settings.run / "visit"


# S/logs
def site_log(settings: Settings, site_id: str) -> Path:
    return settings.logs / site_id


def edge_log(settings: Settings, site_id: str) -> Path:
    return settings.logs / "edge" / site_id


# S/ca, S/certs, S/backups, S/secrets
def authority(settings: Settings) -> Path:
    return settings.state / "ca"


def certificates(settings: Settings) -> Path:
    return settings.state / "certs"


def certificate(settings: Settings, domain: str) -> Path:
    """Key and chain of ``domain`` in one PEM file."""
    return certificates(settings) / f"{domain}.pem"


def secrets(settings: Settings) -> Path:
    return settings.state / "secrets"


def backup_repository(settings: Settings) -> str:
    """What ``restic --repo`` is given: the settings' repository or a directory of ours."""
    return settings.backups.repository or str(settings.state / "backups")


def holder(settings: Settings) -> Path:
    """Who this machine is to repositories. In no backup: what is made again of one is another machine."""
    return settings.state / "holder"


def backup_password(settings: Settings) -> Path:
    return secrets(settings) / "restic"


# R
def instance(settings: Settings, site_id: str, slot: int) -> Path:
    """Holds ``bundle/``, ``state.json`` and ``root``."""
    return settings.run / "sites" / f"{site_id}.{slot}"


def shared(settings: Settings, site_id: str, slot: int, place: int) -> Path:
    """Where the ``place``-th shared directory of an instance is mounted until its container has it."""
    return instance(settings, site_id, slot) / f"shared{place}"


def sockets(settings: Settings, site_id: str, slot: int) -> Path:
    """A small tmpfs, seen in the container as ``/run/alveole``."""
    return settings.run / "sockets" / f"{site_id}.{slot}"


def web_socket(settings: Settings, site_id: str, slot: int) -> Path:
    return sockets(settings, site_id, slot) / "web.sock"


def edge(settings: Settings) -> Path:
    return settings.run / "edge"


def front_socket(settings: Settings) -> Path:
    """Where the edge believes what it is told of the client: only root comes into the directory, as sshd of the
    machine that drives this one does."""
    return edge(settings) / "front" / "http.sock"


def lines(settings: Settings) -> Path:
    """Where control's lines to other machines end, a directory each; the edge may pass through and nobody else."""
    return settings.run / "lines"


def routes(settings: Settings) -> Path:
    """The routing table: one symbolic link a name."""
    return edge(settings) / "routes"


def edge_certificates(settings: Settings) -> Path:
    return edge(settings) / "certs"
