# run.sh hourly|now AGE change|use FOLDERS PATTERNS: clean every hour, or once.
set -uf
every=$1 age=$2 by=$3 folders=$4 patterns=$5
waiting=
trap '[ -n "$waiting" ] && kill "$waiting" 2>/dev/null; exit 0' TERM INT

# Sockets and pipes of running programs are never stale. Debian's README says what tmpreaper may do in a place
# where others write: here every file it may remove is the site's own.
set --
for pattern in $patterns; do
    set -- "$@" --protect "$pattern"
done
[ "$by" = change ] && set -- --mtime "$@"
while :; do
    for folder in $folders; do
        [ -d "$folder" ] && /usr/sbin/tmpreaper "$@" "$age" "$folder"
    done
    [ "$every" = now ] && exit 0
    # Not on the hour, when everything else starts.
    snooze -H '*' -M 37 &
    waiting=$!
    wait "$waiting" || exit 1
    sleep 1
done
