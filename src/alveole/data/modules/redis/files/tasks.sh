# What is done to Redis beside running it, as its own user.
set -eu
umask 077
data=/data/redis
dump=/data/redis-dumps/dump.rdb

# By the environment: an argument could be seen.
. /config/redis/auth
export REDISCLI_AUTH

ask() {
    redis-cli -s /run/redis/redis.sock --no-auth-warning "$@"
}

case $1 in
prepare)
    mkdir -p /run/redis
    chmod 0755 /run/redis
    ;;
ready)
    [ "$(ask PING)" = PONG ]
    ;;
backup)
    [ "$(ask SAVE)" = OK ]
    cp "$data/dump.rdb" "$dump.new"
    sync -d "$dump.new"
    mv "$dump.new" "$dump"
    ;;
info)
    ask INFO "$2"
    ;;
slow)
    ask SLOWLOG GET "$2"
    ;;
restore)
    [ -f "$dump" ] || exit 0
    # Before the server starts. With an append-only file Redis reads that and no dump.rdb: so the dump becomes the
    # base of one (https://redis.io/docs/management/persistence/, "multi part AOF"), and is a dump.rdb as well.
    mkdir -p "$data/appendonlydir"
    cp "$dump" "$data/appendonlydir/appendonly.aof.1.base.rdb"
    echo "file appendonly.aof.1.base.rdb seq 1 type b" >"$data/appendonlydir/appendonly.aof.manifest"
    cp "$dump" "$data/dump.rdb"
    ;;
esac
