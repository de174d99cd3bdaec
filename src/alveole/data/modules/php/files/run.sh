#!/bin/sh
# The one version that the base holds; the version is part of Debian's name for the program.
set -eu
rm -f /run/php-fpm.sock
set -- /usr/sbin/php-fpm[0-9]*
exec "$1" --nodaemonize --force-stderr --fpm-config /config/php/fpm.conf
