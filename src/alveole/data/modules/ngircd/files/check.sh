#!/bin/bash
# Comes in like anybody and waits for the server's welcome (numeric 001 of RFC 2812).
exec 3<>/dev/tcp/127.0.0.1/6667 || exit 1
printf 'NICK check%s\r\nUSER check 0 * :check\r\n' "$RANDOM" >&3
while read -r -t 5 line <&3; do
    case $line in
        PING*) printf 'PONG %s\r\n' "${line#PING }" >&3 ;;
        *' 001 '*) printf 'QUIT\r\n' >&3; exit 0 ;;
    esac
done
exit 1
