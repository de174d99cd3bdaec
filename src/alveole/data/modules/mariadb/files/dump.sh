#!/bin/sh
# A consistent copy of everything that people made: their databases, then the users that are not ours.
set -eu
umask 077
to=/data/mariadb-dump
socket=/run/mariadb/mysqld.sock

mariadb --no-defaults --socket="$socket" --batch --skip-column-names >"$to/databases.new" \
    --execute="SELECT schema_name FROM information_schema.schemata
    WHERE schema_name NOT IN ('mysql', 'sys', 'information_schema', 'performance_schema')"
set --
while IFS= read -r name; do
    set -- "$@" "$name"
done <"$to/databases.new"
mariadb-dump --no-defaults --socket="$socket" --default-character-set=utf8mb4 --single-transaction --quick \
    --routines --events --triggers --hex-blob --databases "$@" >"$to/all.sql.new"
mariadb-dump --no-defaults --socket="$socket" --system=users --insert-ignore >"$to/users.sql.new"
sync "$to/all.sql.new" "$to/users.sql.new"
mv "$to/users.sql.new" "$to/users.sql"
mv "$to/all.sql.new" "$to/all.sql"
rm -f "$to/databases.new"
