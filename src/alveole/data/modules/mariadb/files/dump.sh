#!/bin/sh
# A consistent copy of everything that people made: their databases, then the users that are not ours.
set -eu
umask 077
to=/data/mariadb-dump
client="--no-defaults --socket=/run/mariadb/mysqld.sock"

mariadb $client --batch --skip-column-names --execute="SELECT schema_name FROM information_schema.schemata
    WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')" >"$to/databases.new"
set --
while IFS= read -r name; do
    set -- "$@" "$name"
done <"$to/databases.new"
mariadb-dump $client --single-transaction --quick --routines --events --triggers --hex-blob --default-character-set=utf8mb4 \
    --databases "$@" >"$to/all.sql.new"
mariadb-dump $client --system=users --insert-ignore >"$to/users.sql.new"
sync "$to/all.sql.new" "$to/users.sql.new"
mv "$to/users.sql.new" "$to/users.sql"
mv "$to/all.sql.new" "$to/all.sql"
rm -f "$to/databases.new"
