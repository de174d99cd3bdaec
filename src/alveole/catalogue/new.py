"""A new module: a copy of the skeleton under a name of its own, small and working."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

from alveole.catalogue.manifest import MODULE_NAME
from alveole.catalogue.sources import Catalogue, load
from alveole.errors import AlveoleError, InvalidInput, Refused

SKELETON = Path(__file__).resolve().parent.parent / "data" / "module-skeleton"
#: A check's name is the module's and five characters more, and has at most 32.
_LONGEST = 26


def new(name: str, where: Path, catalogue: Catalogue | None = None) -> Path:
    """Make the folder ``where/name`` of a module that passes lint, and give its path.

    Raises ``InvalidInput`` for a name that is none, ``Refused`` when it is taken or the folder exists.
    """
    if not re.match(MODULE_NAME, name) or len(name) > _LONGEST or name.endswith("-"):
        raise InvalidInput(
            f"{name!r} is not the name of a module",
            field="name",
            hint=f"at most {_LONGEST} lower-case letters, digits and hyphens, a letter first, such as 'my-forum'",
        )
    if (catalogue or load()).get(name) is not None:
        raise Refused(f"there is a module {name!r} already", field="name", hint="choose another name")
    folder = where / name
    title = name.replace("-", " ").capitalize()
    try:
        shutil.copytree(SKELETON, folder)
        for path in sorted(each for each in folder.rglob("*") if each.is_file()):
            text = path.read_text(encoding="utf-8")
            path.write_text(text.replace("@NAME@", name).replace("@TITLE@", title), encoding="utf-8")
    except FileExistsError:
        raise Refused(f"{folder} exists already", field="name", hint="choose another name or place") from None
    except OSError as error:
        raise AlveoleError(f"cannot write {folder}: {error.strerror}", field="to") from error
    return folder
