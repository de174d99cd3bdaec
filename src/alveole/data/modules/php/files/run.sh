#!/bin/sh
# The one version that the base holds; the version is part of Debian's name for the program.
set -eu
test=${1:-}
set -- /usr/sbin/php-fpm[0-9]*
[ "$test" != --test ] || exec "$1" --test --force-stderr --fpm-config /config/php/fpm.conf
[ ! -e /run/php-fpm.sock ] || rm -f /run/php-fpm.sock
exec "$1" --nodaemonize --force-stderr --fpm-config /config/php/fpm.conf
