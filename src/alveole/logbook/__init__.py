"""Log lines of every kind: where they lie, how they are kept, found and told apart.

| module | holds |
|---|---|
| ``model`` | what a line, a question and an answer are |
| ``lines`` | PURE. The forms of lines: when, how grave, what a person reads |
| ``packed`` | compressed files that are read from any place in them |
| ``segments`` | files of lines, read forward and backward between two moments |
| ``places`` | which files hold what of a site and of the platform |
| ``search`` | the newest lines that fit, within limits |
| ``follow`` | the lines that come from now on |
| ``writer`` | directories of Alvéole's own lines, in the form of s6-log |
| ``syslog`` | PURE. RFC 5424 messages and RFC 6587 frames |
| ``settings``, ``tls`` | how lines are kept, sent and taken in; what TLS needs for that |
| ``porter`` | the process that sends lines to a syslog server and takes them in |
| ``shorten`` | access lines without personal data, as goaccess reads them |

Imported by the agent and by control, and by neither from the other: only values and files.
"""
