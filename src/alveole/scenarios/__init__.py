"""Scenarios: what somebody would do on a site, written down once, and run as the outside would.

| module | holds |
|---|---|
| ``model`` | what a scenario is, and what a run has shown |
| ``reading`` | YAML to a scenario, or all that is wrong with it |
| ``page`` | forms, cookies, values out of answers |
| ``har`` | a scenario out of what a browser has recorded |
| ``doors`` | where requests may go |
| ``running`` | the engine |
"""
