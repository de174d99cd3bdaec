#!/bin/sh
# The data directory, made when there is none. What mariadb-install-db(1) does, without its help texts and
# its look at the network; the directory gets its name when it is whole.
set -eu
umask 007
data=/data/mariadb
sql=/usr/share/mysql

mkdir -p /run/mariadb
chmod 755 /run/mariadb
# Where Debian's programs look for the socket by themselves.
[ -e /run/mysqld ] || ln -s mariadb /run/mysqld

if [ -d "$data/data/mysql" ]; then
    exit 0
fi
rm -rf "$data/new"
mkdir "$data/new"
{
    echo "CREATE DATABASE mysql;"
    echo "USE mysql;"
    echo "SET @auth_root_socket = 'mariadb';"
    cat "$sql/mysql_system_tables.sql" "$sql/mysql_performance_tables.sql" \
        "$sql/mysql_system_tables_data.sql" "$sql/maria_add_gis_sp_bootstrap.sql"
    # Nobody but the account of the server itself, known by its id, is its administrator.
    echo "DELETE FROM global_priv WHERE User = 'root' OR User = '';"
} | mariadbd --defaults-file=/config/mariadb/my.cnf --bootstrap --datadir="$data/new" --log-warnings=0 \
    --enforce-storage-engine= --skip-innodb-doublewrite --innodb-flush-method=nosync \
    --innodb-flush-log-at-trx-commit=0 --max-allowed-packet=8M --net-buffer-length=16K >"$data/bootstrap.log" 2>&1 || {
    cat "$data/bootstrap.log" >&2
    exit 1
}
rm -f "$data/bootstrap.log"
# So that mariadb-upgrade(1) knows which version the tables are of.
mariadbd --version | sed -n 's/.*Ver \([0-9.]*-MariaDB\).*/\1/p' | tr -d '\n' >"$data/new/mysql_upgrade_info"
sync -f "$data/new"
mv "$data/new" "$data/data"
