#!/bin/sh
# $1: minutes between two updates. What is searched stays in place until the new index is there.
# While there is none at all, looks again soon.
umask 077
trap 'kill "$waiting" 2>/dev/null; exit 0' TERM
while :; do
    pause=$(($1 * 60))
    [ -e /data/sphinxsearch/site.sph ] || pause=5
    sleep "$pause" &
    waiting=$!
    wait "$waiting"
    /usr/bin/indexer --config /config/sphinxsearch/sphinx.conf --rotate --quiet site
done
