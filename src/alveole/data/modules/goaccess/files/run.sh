#!/bin/sh
# "account": write who may see the page. "once": bring it up to date. "live": keep it moving.
# A number: bring it up to date every so many minutes.
umask 027
own=/data/goaccess
mkdir -p $own/data $own/page
[ -e $own/page/index.html ] || echo '<!doctype html><title>GoAccess</title>' >$own/page/index.html
once() {
    log=/data/weblog/access.log
    exec 9>$own/lock
    flock 9
    size=$(stat -c %s "$log" 2>/dev/null) || size=0
    from=$(cat $own/read 2>/dev/null) || from=0
    # A log that is shorter than what was read of it has begun anew.
    [ "$from" -le "$size" ] || from=0
    # Only what is new is given to GoAccess: by itself it counts a restored file, which has another inode, again.
    # It writes beside the page first: a reader never sees half of one.
    if [ "$from" -lt "$size" ]; then
        if tail -c +$((from + 1)) "$log" | head -c $((size - from)) |
            /usr/bin/goaccess --config-file /config/goaccess/goaccess.conf --output $own/next.html - >$own/last.txt 2>&1; then
            mv $own/next.html $own/page/index.html
            echo "$size" >$own/read
        else
            cat $own/last.txt
        fi
    fi
    exec 9>&-
}
case $1 in
    account)
        user='' password=''
        [ ! -e /config/goaccess/account.sh ] || . /config/goaccess/account.sh
        export user password
        # crypt(3) with SHA-512: the strongest that both web servers read.
        exec /usr/bin/perl -e '
            open(my $random, "<", "/dev/urandom") or die $!;
            read($random, my $bytes, 16) == 16 or die;
            my @letters = ("a" .. "z", "A" .. "Z", 0 .. 9, ".", "/");
            my $salt = join "", map { $letters[$_ % 64] } unpack "C*", $bytes;
            open(my $file, ">", "/data/goaccess/htpasswd.new") or die $!;
            print $file "$ENV{user}:", crypt($ENV{password}, "\$6\$$salt\$"), "\n" if length $ENV{user};
            close($file) or die $!;
            rename("/data/goaccess/htpasswd.new", "/data/goaccess/htpasswd") or die $!;'
        ;;
    once) once ;;
    live)
        : >>/data/weblog/access.log
        exec /usr/bin/goaccess /data/weblog/access.log --config-file /config/goaccess/goaccess.conf \
            --output $own/page/index.html </dev/null
        ;;
    *)
        trap 'kill "$waiting" 2>/dev/null; exit 0' TERM
        while :; do
            once
            sleep $(($1 * 60)) &
            waiting=$!
            wait "$waiting"
        done
        ;;
esac
