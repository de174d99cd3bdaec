"""What ``alveole dns setup`` made of BIND on this machine, taken out where no Alvéole may run any more.

The same as :mod:`alveole.actuators.nameserver` undoes, and the zone with it, which that one keeps for the next time.
"""

from __future__ import annotations

import contextlib
import re
from collections.abc import Iterator
from pathlib import Path

from kit import Instance, has_systemd, run, say, write

_UNIT = "named.service"
_OF = re.compile(r'// Written by "alveole dns setup" of the instance in (\S+), ')
_ZONE = re.compile(r'(?m)^zone "([^"]+)" \{$')


class _Places:
    def __init__(self, instance: Instance) -> None:
        self.directory = Path(instance.setting("nameserver", "directory"))
        self.zones = Path(instance.setting("nameserver", "zones"))
        self.own = self.directory / "alveole.conf"
        self.local = self.directory / "named.conf.local"
        self.started = self.directory / "alveole.started"


def undo(instance: Instance) -> None:
    places = _Places(instance)
    text = _ours(instance, places)
    if text is not None:
        zones = _ZONE.findall(text)
        say(f"taking {', '.join(zones)} out of BIND")
        for zone in zones:
            # Nothing of it is left to be written when its file goes.
            _rndc(instance, places, "sync", "-clean", zone)
        line = f'include "{places.own}";'
        with contextlib.suppress(OSError):
            lines = places.local.read_text(encoding="utf-8").splitlines()
            if line in lines:
                left = "".join(f"{each}\n" for each in lines if each != line)
                write(places.local, left, places.local.stat().st_mode & 0o777)
        places.own.unlink(missing_ok=True)
        _let_go(instance, places)
        # These are this instance's for certain, whoever else has some there.
        for zone in zones:
            for file in places.zones.glob(f"alveole.{zone}.zone*"):
                file.unlink(missing_ok=True)
    for file in zone_files(instance):
        file.unlink(missing_ok=True)


def _ours(instance: Instance, places: _Places) -> str | None:
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = places.own.read_text(encoding="utf-8")
        found = _OF.match(text)
        # Older versions did not say whose it is.
        mine = found[1] == str(instance.state) if found else not instance.record.others()
        return text if mine else None
    return None


def _let_go(instance: Instance, places: _Places) -> None:
    """The server without the zone; it is stopped where it was started for that."""
    try:
        how = places.started.read_text(encoding="utf-8").strip()
    except OSError:
        _rndc(instance, places, "reconfig")
        return
    if has_systemd():
        run(["systemctl", *(["disable", "--now"] if how == "enabled" else ["stop"]), _UNIT], check=False)
    else:
        _rndc(instance, places, "stop")
    places.started.unlink(missing_ok=True)


def _rndc(instance: Instance, places: _Places, *words: str) -> None:
    port = str(instance.setting("nameserver", "control_port"))
    run(["rndc", "-k", places.directory / "rndc.key", "-s", "127.0.0.1", "-p", port, *words], check=False)


def zone_files(instance: Instance) -> list[Path]:
    """Zones that BIND got from here, and their journals; none while another instance may have one there."""
    if instance.record.others():
        return []
    return sorted(_Places(instance).zones.glob("alveole.*.zone*"))


def left(instance: Instance) -> Iterator[str]:
    places = _Places(instance)
    if _ours(instance, places) is not None:
        yield f"file {places.own}"
    yield from (f"file {place}" for place in zone_files(instance))
