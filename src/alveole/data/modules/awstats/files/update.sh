#!/bin/sh
# Counts what is new in the log, and makes the pages of each month whose figures changed.
umask 027
data=/data/awstats/data pages=/data/awstats/pages
[ -s /data/weblog/access.log ] || exit 0
exec 9>/data/awstats/lock
flock 9
/usr/bin/perl /usr/lib/cgi-bin/awstats.pl -config=site -configdir=/config/awstats -update >/data/awstats/last.txt 2>&1 ||
    cat /data/awstats/last.txt
for figures in "$data"/awstats??????.site.txt; do
    [ -e "$figures" ] || continue
    name=${figures##*/awstats} name=${name%.site.txt}
    month=${name%????} year=${name#??}
    to=$pages/$year-$month
    # dash has -nt (dash(1), "test").
    # shellcheck disable=SC3013
    [ ! -e "$to/awstats.site.html" ] || [ "$figures" -nt "$to/awstats.site.html" ] || continue
    mkdir -p "$to"
    /usr/bin/perl /usr/share/awstats/tools/awstats_buildstaticpages.pl -config=site -configdir=/config/awstats \
        -awstatsprog=/usr/lib/cgi-bin/awstats.pl -dir="$to" -month="$month" -year="$year" >/data/awstats/last.txt 2>&1 ||
        cat /data/awstats/last.txt
done
{
    echo '<!doctype html><meta charset="utf-8"><meta name="viewport" content="width=device-width"><title>AWStats</title>'
    echo '<style>body{font:1.1rem/1.6 system-ui,sans-serif;max-width:40rem;margin:10vh auto;padding:0 1.5rem}</style><h1>AWStats</h1><ul>'
    # The names are made above, and the newest month comes first.
    # shellcheck disable=SC2045
    for month in $(ls -r "$pages"); do
        [ ! -e "$pages/$month/awstats.site.html" ] || echo "<li><a href=\"$month/awstats.site.html\">$month</a>"
    done
    echo '</ul>'
} >"$pages/index.new" && mv "$pages/index.new" "$pages/index.html"
