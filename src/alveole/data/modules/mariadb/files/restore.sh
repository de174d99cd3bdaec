#!/bin/sh
# Users first: what they defined (views, routines) names them.
set -eu
from=/data/mariadb-dump

if [ ! -e "$from/all.sql" ]; then
    echo "the backup holds no dump of the database" >&2
    exit 1
fi
sql() {
    mariadb --no-defaults --socket=/run/mariadb/mysqld.sock --default-character-set=utf8mb4 "$@"
}
sql --force mysql <"$from/users.sql"
sql <"$from/all.sql"
# Ours are as today's answers say: a dump that comes from another site brings the password that it has there.
sql </config/mariadb/init.sql
