"""The journal's chain: the agent is told its newest hash, all of it is compared, what is old is removed."""

from __future__ import annotations

import time

from alveole import ledger
from alveole.agent.anchoring import Anchor, KeepAnchor, ListAnchors
from alveole.errors import AlveoleError, Refused, Temporary
from alveole.journal import RECONCILER
from alveole.ledger import JournalView
from alveole.people.model import Actor
from alveole.people.rights import Right
from alveole.services.core import Core
from alveole.store import Transaction

_DAY = 86_400.0
#: After the start, when all that is urgent is over.
_FIRST_PRUNING = 300.0


class LedgerVerbs(Core):
    _anchored: int
    _anchor_problem: str

    def verify_journal(self, caller: Actor) -> JournalView:
        """Compare every row with the chain, and the chain with what the agent was told of it."""
        self._allow(caller, Right.JOURNAL_VERIFY)
        anchors: tuple[Anchor, ...] = ()
        problem = ""
        try:
            anchors = self.agent.call(ListAnchors())
        except AlveoleError as error:
            problem = f"not compared with the agent's anchors: {error}"
        with self.store.read() as connection:
            return ledger.verify(connection, anchors, problem)

    def _keep_journal(self) -> None:
        self.ticker.add("anchor", self.settings.journal.anchor_seconds, self._anchor)
        if self.settings.journal.keep_seconds:
            self.ticker.add("prune", _DAY, self._prune_journal, first=_FIRST_PRUNING)

    def _anchor(self) -> None:
        """Tell the agent the newest hash, unless it knows it."""
        with self.store.read() as connection:
            seq, hash = ledger.head(connection)
        if seq == self._anchored or seq == 0:
            return
        self._anchored = seq
        try:
            self.agent.call(KeepAnchor(seq, hash))
            self._anchor_problem = ""
        except Refused as error:
            self._anchor_problem = str(error)
            raise
        except Temporary:
            # The agent is started again by itself, and told then.
            self._anchored = 0

    def _prune_journal(self) -> None:
        before = time.time() - self.settings.journal.keep_seconds
        with self.store.read() as connection:
            if not ledger.prunable(connection, before):
                return
        live = self.journal.begin("prune-journal", RECONCILER, reason="older than journal.keep_seconds")

        def remove(transaction: Transaction) -> None:
            pruned = ledger.prune(transaction.connection, before, live.id)
            live.say(f"{pruned.changes if pruned is not None else 0} changes were removed")

        self.journal.end(live, also=remove)
