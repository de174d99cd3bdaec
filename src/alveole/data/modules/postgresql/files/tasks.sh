# What is done to the server beside running it. As the user postgres, who is the superuser by peer authentication.
set -eu
unset PGDATABASE PGUSER PGPASSFILE
export PGHOST=/run/postgresql
bin=/usr/lib/postgresql/15/bin
data=/data/postgresql/15
dump=/data/postgresql-dumps/backup.sql
umask 077

sql() {
    "$bin/psql" -X -q -w -v ON_ERROR_STOP=1 -U postgres -d postgres "$@"
}

case $1 in
prepare)
    mkdir -p /run/postgresql
    chmod 0755 /run/postgresql
    [ -f "$data/PG_VERSION" ] && exit 0
    # An initdb that was cut short leaves files without the last one.
    rm -rf "$data" "$data.new"
    "$bin/initdb" -D "$data.new" -U postgres -E UTF8 --locale=C.UTF-8 \
        --auth-local=peer --auth-host=reject --no-instructions --no-sync >/dev/null
    # Its thousand files at once instead of one by one.
    sync -f "$data.new"
    mv "$data.new" "$data"
    ;;
apply)
    sql -f /config/postgresql/apply.sql >/dev/null
    ;;
backup)
    "$bin/pg_dumpall" -w -U postgres -l postgres >"$dump.new"
    sync -d "$dump.new"
    mv "$dump.new" "$dump"
    ;;
restore)
    # initdb made the superuser already.
    [ -f "$dump" ] && sed '0,/^CREATE ROLE postgres;$/{//d}' "$dump" | sql >/dev/null
    sql -f /config/postgresql/apply.sql >/dev/null
    ;;
activity)
    sql -P pager=off -x -c "SELECT pid, usename AS role, datname AS database, state, now() - query_start AS since,
        wait_event_type AS waits_for, pg_blocking_pids(pid) AS blocked_by, left(query, 500) AS query
        FROM pg_stat_activity WHERE backend_type = 'client backend' AND pid <> pg_backend_pid()
        ORDER BY state = 'active' DESC, query_start LIMIT 100"
    ;;
slow)
    sql -v database="$2" -v most="$3" -P pager=off -x <<'SQL'
SELECT round(mean_exec_time::numeric, 1) AS mean_ms, round(max_exec_time::numeric, 1) AS longest_ms, calls,
    round(total_exec_time::numeric / 1000, 1) AS all_seconds, rows, left(query, 1000) AS query
    FROM pg_stat_statements JOIN pg_database ON pg_database.oid = dbid
    WHERE datname = :'database' ORDER BY mean_exec_time DESC LIMIT :most;
SQL
    ;;
sizes)
    sql -d "$2" -P pager=off -c "SELECT relname AS table, pg_size_pretty(pg_total_relation_size(relid)) AS size,
        n_live_tup AS rows, seq_scan AS read_whole, idx_scan AS by_index
        FROM pg_stat_user_tables ORDER BY pg_total_relation_size(relid) DESC LIMIT 50"
    ;;
flush)
    sql -c CHECKPOINT
    ;;
esac
