"""Who is no person at the edge: programs that read pages for others, and those that look whether a site answers.

They neither wake a site that sleeps nor keep one awake. What a client says of itself is believed, because nothing
is gained by the lie.
"""

from __future__ import annotations

import re

#: Parts of a ``User-Agent``, in small letters, beside every word that ends in ``bot``.
ROBOTS = (
    "alveole",
    "archiver",
    "blackbox",
    "check_http",
    "crawl",
    "datadog",
    "dataprovider",
    "elb-healthchecker",
    "facebookexternalhit",
    "feedfetcher",
    "gatus",
    "googlehc",
    "google-read-aloud",
    "google-site-verification",
    "haproxy",
    "icinga",
    "ia_archiver",
    "kube-probe",
    "lighthouse",
    "mediapartners-google",
    "monit/",
    "monitoring",
    "nagios",
    "newrelic",
    "node_exporter",
    "pingdom",
    "prometheus",
    "scrapy",
    "site24x7",
    "slurp",
    "spider",
    "statuscake",
    "uptime",
    "zabbix",
)
#: A line of the edge's log of such a client. "Cubot" is a make of telephones.
_LINE = re.compile(
    rb'"agent":"[^"]*(?:(?<!cu)bot(?![a-z])|' + b"|".join(re.escape(word).encode() for word in ROBOTS) + rb")",
    re.IGNORECASE,
)


def is_robots(line: bytes) -> bool:
    """Whether a line of the edge's log, as it writes it, is of one of these."""
    return _LINE.search(line) is not None
