#!/bin/sh
# "account": write who may see the pages. A number: bring them up to date every so many minutes.
umask 027
mkdir -p /data/awstats/data /data/awstats/pages
[ -e /data/awstats/pages/index.html ] || echo '<!doctype html><title>AWStats</title>' >/data/awstats/pages/index.html
if [ "$1" = account ]; then
    user='' password=''
    [ ! -e /config/awstats/account.sh ] || . /config/awstats/account.sh
    export user password
    # crypt(3) with SHA-512: the strongest that both web servers read.
    exec /usr/bin/perl -e '
        open(my $random, "<", "/dev/urandom") or die $!;
        read($random, my $bytes, 16) == 16 or die;
        my @letters = ("a" .. "z", "A" .. "Z", 0 .. 9, ".", "/");
        my $salt = join "", map { $letters[$_ % 64] } unpack "C*", $bytes;
        open(my $file, ">", "/data/awstats/htpasswd.new") or die $!;
        print $file "$ENV{user}:", crypt($ENV{password}, "\$6\$$salt\$"), "\n" if length $ENV{user};
        close($file) or die $!;
        rename("/data/awstats/htpasswd.new", "/data/awstats/htpasswd") or die $!;'
fi
trap 'kill "$waiting" 2>/dev/null; exit 0' TERM
while :; do
    /bin/sh /config/awstats/update.sh
    sleep $(($1 * 60)) &
    waiting=$!
    wait "$waiting"
done
