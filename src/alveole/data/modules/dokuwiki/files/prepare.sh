#!/bin/sh
# What the program expects to be there; nothing that exists is touched.
set -eu
here=/data/dokuwiki
mkdir -p "$here/conf"
for name in attic cache index locks log media media_attic media_meta meta pages tmp; do
    mkdir -p "$here/data/$name"
done
ln -sfn /config/dokuwiki/protected.php "$here/conf/local.protected.php"
for name in local.php plugins.local.php; do
    [ -e "$here/conf/$name" ] || echo '<?php' >"$here/conf/$name"
done
for name in plugins.php plugins.required.php userstyle.css userprint.css; do
    [ -e "/etc/dokuwiki/$name" ] && ln -sfn "/etc/dokuwiki/$name" "$here/conf/$name"
done
true
