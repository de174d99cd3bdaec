#!/bin/sh
# The Node.js of this machine's architecture, which came from npm beside The Lounge.
set -eu
for node in /site/current/node_modules/node-linux-*/bin/node; do
    case ${1-} in
        '') exec "$node" /config/thelounge/start.js start ;;
        *) exec "$node" /config/thelounge/copies.js "$1" ;;
    esac
done
