#!/bin/sh
# The one version that the base holds; the version is part of Debian's name for the program.
set -eu
rm -f /run/php-fpm.sock
for program in /usr/sbin/php-fpm[0-9]*; do
    exec "$program" --nodaemonize --force-stderr --fpm-config /config/php/fpm.conf
done
