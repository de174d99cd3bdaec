#!/bin/sh
# $1: minutes between two updates. What is searched stays in place until the new index is there.
# While there is none at all it looks again sooner, less and less often.
umask 077
trap 'kill "$waiting" 2>/dev/null; exit 0' TERM
soon=5
while :; do
    pause=$(($1 * 60))
    if [ ! -e /data/sphinxsearch/site.sph ] && [ "$soon" -lt "$pause" ]; then
        pause=$soon
        soon=$((soon * 2))
    fi
    sleep "$pause" &
    waiting=$!
    wait "$waiting"
    /usr/bin/indexer --config /config/sphinxsearch/sphinx.conf --rotate --quiet site
done
