# save.sh HH:MM KEEP DIRECTORY SCRIPT [ARGUMENT]: at that time of every day run SCRIPT, which leaves *.sql in
# DIRECTORY, and keep a packed copy of them in DIRECTORY/nightly. `now` instead of a time: once, at once.
set -u
at=$1 keep=$2 directory=$3
shift 3
umask 077
waiting=
trap '[ -n "$waiting" ] && kill "$waiting" 2>/dev/null; exit 0' TERM INT

save() {
    mkdir -p "$directory/nightly" || return 1
    sh "$@" || return 1
    cd "$directory" || return 1
    name=nightly/$(date +%Y-%m-%d-%H%M).tar.gz
    tar -czf "$name.new" -- *.sql && mv "$name.new" "$name" || return 1
    echo "saved the databases as $directory/$name"
    ls -1 nightly/*.tar.gz | head -n "-$keep" | xargs -r rm --
}

while :; do
    if [ "$at" != now ]; then
        snooze -H "${at%:*}" -M "${at#*:}" &
        waiting=$!
        wait "$waiting" || exit 1
    fi
    (save "$@") || echo "the databases of $directory could not be saved" >&2
    [ "$at" = now ] && exit 0
    sleep 1
done
