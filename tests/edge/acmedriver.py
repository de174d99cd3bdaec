"""Control and what the agent does about certificates, in a process that a test kills: ``acmedriver.py SETTINGS NAME``.

The first time it asks for a certificate; from then on it goes on with what was going on.
"""

from __future__ import annotations

import json
import sys

import msgspec
from acmekit import ROOT, EdgeAgent

from alveole.actuators.certificates import CertificatesActuator
from alveole.config import Settings
from alveole.services import Services
from alveole.views import certificates as cv


def main() -> None:
    settings = msgspec.json.decode(sys.argv[1], type=Settings)
    name = sys.argv[2]
    services = Services.open(settings, EdgeAgent(CertificatesActuator(settings)))
    try:
        going = [live.id for live in services.journal.all_live() if live.change.verb == "issue-certificate"]
        if not going:
            going = [services.issue_certificate(ROOT, name, cv.IssueCertificate()).id]
        ended = services.wait(ROOT, going[0], 120)
        print(json.dumps({"change": str(ended.state), "problems": [str(each) for each in ended.problems]}))
    finally:
        services.close()


main()
