"""The SSH door: files, programs and git over one port.

| module | runs in | holds |
|---|---|---|
| ``words`` | both | what the door and control say to each other |
| ``front`` | the door, a process and a user of its own | SSH itself (asyncssh): handshake, who somebody says they are |
| ``channel`` | the door | bytes between a client and a program inside a site |
| ``porter`` | control | who somebody is, what they may, what is started for them |

The door holds the host keys and nothing else: no database, no password, no right over a site. A program that it is
let to start runs inside the site as the site's own user; its ends come to the door as open files.
"""
