#!/bin/sh
# The writable part: what Debian brings is linked into it, what people add lies beside.
set -eu
here=/data/wordpress/wp-content
from=/usr/share/wordpress/wp-content

mkdir -p "$here/languages" "$here/mu-plugins" "$here/plugins" "$here/themes" "$here/upgrade" "$here/uploads"
for kind in plugins themes languages; do
    # Links to what a newer base no longer has.
    find "$here/$kind" -maxdepth 1 -xtype l -delete
    [ -d "$from/$kind" ] || continue
    find "$from/$kind" -mindepth 1 -maxdepth 1 | while IFS= read -r path; do
        name=${path##*/}
        [ -e "$here/$kind/$name" ] || ln -s "$path" "$here/$kind/$name"
    done
done
ln -sfn /config/wordpress/plugin.php "$here/mu-plugins/alveole.php"
[ -e "$here/index.php" ] || echo '<?php // Nothing to list.' >"$here/index.php"
