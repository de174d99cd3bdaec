"""Certificates from authorities elsewhere, by ACME (RFC 8555).

| module | holds |
|---|---|
| ``model`` | authorities and their settings; which names are wanted, what a budget allows, when to renew: PURE |
| ``rows`` | what is stored of each certificate, and what was spent; with verbs, the only users of these tables |
| ``pointing`` | whether a name leads to this machine, before an authority is asked |
| ``dialogue`` | what is said to an authority; loads the ``acme`` library |
"""
