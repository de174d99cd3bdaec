"""People: who they are, what they own, and the one decision on what they may do. Control only.

| module | holds |
|---|---|
| ``model`` | the values: Actor, Role, Person, Team, Share, Quota |
| ``rights`` | every action, the table of roles, :func:`~alveole.people.rights.may` |
| ``directory`` | persons, teams, shares and quotas as stored, kept decoded in memory |
| ``passwords`` | argon2 |
| ``names``, ``mapping`` | grammars; from the groups of a directory to roles and teams |
| ``ldap``, ``oidc``, ``passkeys`` | asking a directory, a provider, an authenticator |
| ``views`` | documents |
| ``attempts`` | how often somebody may try to come in |
"""
