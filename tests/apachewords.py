"""How Apache takes a line of its configuration apart: the other side of what ``proxyconf.apache_word`` writes."""

from __future__ import annotations


def parse_apache_line(line: str) -> tuple[str, ...]:
    """The words of one line, as ``ap_getword_conf`` reads them."""
    words: list[str] = []
    at, end = 0, len(line)
    while True:
        while at < end and line[at] in " \t":
            at += 1
        if at >= end:
            return tuple(words)
        quote = line[at] if line[at] in "\"'" else ""
        at += len(quote)
        out: list[str] = []
        while at < end:
            char = line[at]
            if quote and char == "\\" and at + 1 < end and line[at + 1] in ("\\", quote):
                out.append(line[at + 1])
                at += 2
            elif (quote and char == quote) or (not quote and char in " \t"):
                at += 1
                break
            else:
                out.append(char)
                at += 1
        words.append("".join(out))
