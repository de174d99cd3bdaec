"""What the DNS says: the texts (TXT records) of a name, asked of a resolver.

Only a resolver of the settings, or of the machine, is ever asked. The servers of a zone are whatever its keeper has
written there, so asking them directly would let a stranger send us anywhere (threat 18). What a resolver still
remembers as absent is asked again later.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from alveole.errors import Temporary
from alveole.model.names import split_resolver

#: More than anybody needs; a name may have thousands.
_MOST = 100


def texts(name: str, resolvers: Sequence[str], seconds: float) -> tuple[str, ...]:
    """The TXT records of ``name``, a full name; those that are no ASCII are left out. Empty: there is none.

    ``resolvers`` empty: those of the machine. Raises ``Temporary`` when no answer came within ``seconds``.
    """
    import dns.exception
    import dns.nameserver
    import dns.resolver

    try:
        resolver = dns.resolver.Resolver(configure=not resolvers)
        if resolvers:
            resolver.nameservers = [dns.nameserver.Do53Nameserver(*split_resolver(each)) for each in resolvers]
        answer: Any = resolver.resolve(f"{name}.", "TXT", search=False, lifetime=seconds)
    except (dns.resolver.NXDOMAIN, dns.resolver.NoAnswer):
        return ()
    except dns.exception.Timeout:
        raise Temporary(f"no name server answered within {seconds:g} s", field="domain") from None
    except (dns.exception.DNSException, OSError) as error:
        raise Temporary(f"the name servers do not say: {error}"[:300], field="domain") from None
    found = (b"".join(record.strings) for record in list(answer)[:_MOST])
    return tuple(each.decode("ascii") for each in found if each.isascii())
