#!/bin/sh
# Makes the repositories that are not there yet, and writes who may push.
set -eu
umask 027
export GIT_CONFIG_GLOBAL=/config/cgit/gitconfig GIT_CONFIG_NOSYSTEM=1 HOME=/data/git
. /config/cgit/account.sh
printf 'root-title=%s\n' "$(printf %s "$title" | tr -d '\000-\037')" >/run/cgit-title
for name in $repositories; do
    [ -e "/data/git/$name.git/HEAD" ] || /usr/bin/git init --quiet --bare "/data/git/$name.git"
done
export user password
# crypt(3) with SHA-512: the strongest that nginx reads.
/usr/bin/perl -e '
    open(my $random, "<", "/dev/urandom") or die $!;
    read($random, my $bytes, 16) == 16 or die;
    my @letters = ("a" .. "z", "A" .. "Z", 0 .. 9, ".", "/");
    my $salt = join "", map { $letters[$_ % 64] } unpack "C*", $bytes;
    open(my $file, ">", "/data/git/htpasswd.new") or die $!;
    print $file "$ENV{user}:", crypt($ENV{password}, "\$6\$$salt\$"), "\n";
    close($file) or die $!;
    rename("/data/git/htpasswd.new", "/data/git/htpasswd") or die $!;'
