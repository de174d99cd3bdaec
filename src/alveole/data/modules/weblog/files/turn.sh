#!/bin/sh
# $1: bytes at which a new part is begun; $2: old parts kept. The web server writes at the end of the file
# and keeps it open, so the file stays and its content moves.
log=/data/weblog/access.log
umask 027
trap 'kill "$waiting" 2>/dev/null; exit 0' TERM
while :; do
    sleep 30 &
    waiting=$!
    wait "$waiting"
    size=$(stat -c %s "$log" 2>/dev/null) || continue
    [ "$size" -ge "$1" ] || continue
    # What counts visits reads to the end first.
    for each in /config/weblog/before.d/*.sh; do
        [ ! -e "$each" ] || /bin/sh "$each"
    done
    part=$2
    while [ "$part" -gt 1 ]; do
        [ ! -e "$log.$((part - 1)).gz" ] || mv -f "$log.$((part - 1)).gz" "$log.$part.gz"
        part=$((part - 1))
    done
    [ "$2" -eq 0 ] || cp "$log" "$log.part"
    : >"$log"
    [ "$2" -eq 0 ] || { gzip -c "$log.part" >"$log.1.gz" && rm -f "$log.part"; }
done
