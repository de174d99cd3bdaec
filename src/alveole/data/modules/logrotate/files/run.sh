# run.sh HH:MM CONFIGURATION STATE: rotate at that time of every day; `now` instead of a time: once, at once.
set -u
at=$1 config=$2 state=$3
waiting=
trap '[ -n "$waiting" ] && kill "$waiting" 2>/dev/null; exit 0' TERM INT
while :; do
    if [ "$at" != now ]; then
        snooze -H "${at%:*}" -M "${at#*:}" &
        waiting=$!
        wait "$waiting" || exit 1
    fi
    # Its lock on the state lets one of two instances of the site do it.
    /usr/sbin/logrotate --state "$state" "$config" || echo "logrotate ended with $?" >&2
    [ "$at" = now ] && exit 0
    sleep 1
done
