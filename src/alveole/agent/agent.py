"""The agent's verbs: which actuator keeps which kind, and what each request calls."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterable
from typing import Any

from alveole.agent import protocol
from alveole.agent.checks import check_step, known_scopes
from alveole.backends.base import Actuator, Say
from alveole.errors import AlveoleError, InvalidInput, Refused
from alveole.model.resource import Kind, Observation, Observed, Outcome, Step

log = logging.getLogger("alveole.agent")

Verb = Callable[[Any, list[int], Say], Any]


class Agent:
    """Dispatches requests; knows no kind of resource itself.

    ``actuators`` share the kinds among them, each kind exactly once. ``verbs`` maps every other
    request type to what carries it out.
    """

    def __init__(self, actuators: Iterable[Actuator], verbs: dict[type, Verb]) -> None:
        self._by_kind: dict[Kind, Actuator] = {}
        self._actuators = tuple(actuators)
        for actuator in self._actuators:
            for kind in actuator.kinds:
                if kind in self._by_kind:
                    raise ValueError(f"two actuators keep {kind}")
                self._by_kind[kind] = actuator
        if missing := set(Kind) - self._by_kind.keys():
            raise ValueError(f"nobody keeps {sorted(missing)}")
        self._verbs: dict[type, Verb] = {protocol.Observe: self._observe, protocol.Apply: self._apply, **verbs}

    def handle(self, request: protocol.Request, files: list[int], say: Say) -> Any:
        """Carry out one request; raises ``AlveoleError``."""
        verb = self._verbs.get(type(request))
        if verb is None:
            raise InvalidInput(f"the agent cannot {type(request).__name__}", field="request")
        return verb(request, files, say)

    def _observe(self, request: protocol.Observe, _files: list[int], _say: Say) -> Observation:
        found: list[Observed] = []
        unknown: list[tuple[Kind, str]] = []
        scopes = known_scopes(request.scopes)
        for actuator in self._actuators:
            try:
                seen = actuator.observe(scopes)
            except (OSError, AlveoleError) as error:
                log.warning("could not look at %s: %s", ", ".join(sorted(actuator.kinds)), error)
                unknown.extend((kind, str(error)) for kind in actuator.kinds)
                continue
            found.extend(seen.found)
            unknown.extend(seen.unknown)
        return Observation(tuple(found), tuple(unknown))

    def _apply(self, request: protocol.Apply, _files: list[int], say: Say) -> Outcome:
        step = request.step
        began = time.monotonic()
        try:
            check_step(step)
            outcome = self._by_kind[step.id.kind].apply(step, say)
        except AlveoleError as error:
            temporary = not isinstance(error, InvalidInput | Refused)
            outcome = Outcome(False, str(error), temporary, tail=tuple(getattr(error, "tail", ())))
        except OSError as error:
            log.warning("%s %s failed: %s", step.action, step.id, error)
            outcome = Outcome(False, f"{error.strerror or error}")
        seconds = time.monotonic() - began
        log.info("%s %s: %s (%.3f s)", step.action, step.id, "done" if outcome.done else outcome.message, seconds)
        return Outcome(outcome.done, outcome.message, outcome.temporary, seconds, outcome.tail)


def check_spec(step: Step, kind: type) -> Any:
    """The step's specification as ``kind``; raises ``InvalidInput`` for any other."""
    if not isinstance(step.spec, kind):
        raise InvalidInput(f"{step.action} {step.id} needs a specification", field="step.spec")
    return step.spec
