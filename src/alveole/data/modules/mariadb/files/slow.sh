# The end of the log of slow queries, which is made with the first of them.
set -eu
log=/data/mariadb/slow.log
if [ -s "$log" ]; then
    exec tail -n "$1" "$log"
fi
echo "No query has been slow so far."
