"""Alvéole: many web sites side by side on one Debian server, each in a container of its own.

Two processes make the product: *control* (unprivileged: database, reconciler, API) and *agent*
(root: containers, network, edge). ``docs/architecture.md`` explains how they fit together.
"""

__version__ = "0.1.0"
