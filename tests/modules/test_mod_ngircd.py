"""ngIRCd by itself: two people inside the site meet in its channel; one answer changes it."""

from __future__ import annotations

from modkit import PASSWORD, ModuleSite, ModuleSites, restarted, round_trip

#: Two connections of bash: the container has no other program that speaks to a port.
TALK = r"""
exec 3<>/dev/tcp/127.0.0.1/6667 4<>/dev/tcp/127.0.0.1/6667
printf 'NICK anna\r\nUSER anna 0 * :Anna\r\nJOIN #%s\r\n' "$1" >&3
printf 'NICK bert\r\nUSER bert 0 * :Bert\r\nJOIN #%s\r\n' "$1" >&4
wait_for() {
    while read -r -t 10 line <&"$1"; do
        echo "$line"
        case $line in PING*) printf 'PONG %s\r\n' "${line#PING }" >&"$1" ;; $2) return 0 ;; esac
    done
    echo "no $2"; exit 1
}
wait_for 3 '*End of NAMES*'
wait_for 4 '*End of NAMES*'
printf 'PRIVMSG #%s :la soupe est prête\r\n' "$1" >&3
wait_for 4 '*PRIVMSG*la soupe est pr*'
printf 'OPER admin %s\r\n' "$2" >&3
wait_for 3 '* 381 *'
"""


def talk(it: ModuleSite, channel: str) -> str:
    return it.run("/bin/bash", "-c", TALK, "talk", channel, PASSWORD, user=1000)


def test_two_people_meet(site: ModuleSites) -> None:
    it = site("ngircd", stem="irc", operator_password=PASSWORD, channels="kitchen", welcome='Bienvenue à l\'été "$x"')
    said = talk(it, "kitchen")
    assert 'Bienvenue à l\'été "$x"' in said and ":anna!" in said
    assert "127.0.0.1" not in said, "nobody's address is shown"
    assert restarted(it, channels="kitchen garden") == {"ngircd"}
    assert "la soupe" in talk(it, "garden")

    def check() -> None:
        talk(it, "kitchen")

    round_trip(it, check)
