"""What is wrong, who is told of it, and what is promised to each site.

| module | holds |
|---|---|
| ``model`` | PURE: figures and readings, rules, incidents, silences, and the documents about them |
| ``rules`` | PURE: the grammar of a rule, and the rules that are there from the beginning |
| ``silences`` | PURE: whether it is silent now |
| ``readings`` | what is measured, from sources that are registered |
| ``signals`` | PURE: from rules and readings to what is bad, and for how long |
| ``promises`` | the promise ledger: since when, how much of 30 days, which change broke it |
| ``tables``, ``book`` | the rows, and the only code that reads and writes them |
| ``watch`` | the round: open, group, tell, escalate, close |
| ``news`` | PURE: how an incident is said |
"""
