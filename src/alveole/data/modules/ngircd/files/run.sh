#!/bin/bash
# $1: what the server says to who comes in, one line, as it is.
set -eu
umask 077
mkdir -p /run/ngircd
printf '%s\n' "$1" >/run/ngircd/motd
exec /usr/sbin/ngircd --nodaemon --config /config/ngircd/ngircd.conf
