"""What is remembered of a first copy of a site, where it was made and where it was unpacked, until the second one."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

from alveole import wholefile
from alveole.config import Settings
from alveole.errors import Refused
from alveole.host import paths


class Carried:
    """Two files of root's in the directory of a site; each copy takes the place of the one before."""

    def __init__(self, settings: Settings, site: str) -> None:
        self._listing = paths.site(settings, site) / "carried.list"
        self._stamp = paths.site(settings, site) / "carried.stamp"

    def keep(self, digest: str, listing: int) -> None:
        """The listing of the first copy that is the archive ``digest``."""
        with open(listing, "rb", closefd=False) as file:
            file.seek(0)
            wholefile.write(self._listing, digest.encode() + b"\0" + file.read())

    @contextlib.contextmanager
    def opened(self, digest: str) -> Iterator[int]:
        """The listing of that first copy. Raises ``Refused`` when another was made meanwhile, or none."""
        with contextlib.ExitStack() as stack:
            try:
                file = stack.enter_context(self._listing.open("rb"))
            except FileNotFoundError:
                raise _unknown() from None
            if file.read(len(digest) + 1) != digest.encode() + b"\0":
                raise _unknown()
            yield file.fileno()

    def note(self, digest: str, generation: int) -> None:
        """That archive was unpacked as this generation of the data."""
        wholefile.write(self._stamp, f"{digest} {generation}".encode())

    def check(self, digest: str, generation: int) -> None:
        """Raise ``Refused`` unless it was, and nothing else since."""
        with contextlib.suppress(FileNotFoundError):
            if self._stamp.read_bytes() == f"{digest} {generation}".encode():
                return
        raise _unknown()


def _unknown() -> Refused:
    return Refused("the first copy of the site is not there any more", field="upload", hint="begin anew")
