# Runs the lines of the answers and of the content's crontab: a snooze(1) waits for each. Two instances of the
# site may run for a while when it is updated; a stamp in the volume has each line run once a minute.
set -u
kept=/data/cron
list=$(mktemp)

line() {
    printf '%s\n' "$1" >>"$list"
}
. /config/cron/jobs
if [ -f /site/current/crontab ]; then
    cat /site/current/crontab >>"$list"
fi

each() {
    number=$1 command=$2
    shift 2
    waiting=
    trap '[ -n "$waiting" ] && kill "$waiting" 2>/dev/null; exit 0' TERM INT
    while :; do
        snooze "$@" &
        waiting=$!
        wait "$waiting" || exit 1
        (
            flock -n 9 || exit 0
            minute=$(date +%Y%m%d%H%M)
            [ "$(cat "$kept/$number.last" 2>/dev/null)" = "$minute" ] && exit 0
            echo "$minute" >"$kept/$number.last"
            exec sh -c "$command"
        ) 9>"$kept/$number.lock" &
        waiting=$!
        wait "$waiting" || echo "cron: line $number ended with $?: $command" >&2
        # Never twice in the second that was waited for.
        sleep 1
    done
}

all=
trap 'kill $all 2>/dev/null; exit 0' TERM INT
cd /site/current 2>/dev/null || cd /
sleep infinity &
all=$!
while IFS= read -r found; do
    case $found in
    run\ *)
        IFS= read -r command
        # Without this the shell would take -M* for the name of a file.
        set -f
        set -- ${found#run }
        number=$1
        shift
        each "$number" "$command" "$@" &
        all="$all $!"
        ;;
    *)
        echo "cron: ${found#wrong }" >&2
        ;;
    esac
done <<LINES
$(awk -f /config/cron/lines.awk "$list")
LINES
rm -f "$list"
wait
