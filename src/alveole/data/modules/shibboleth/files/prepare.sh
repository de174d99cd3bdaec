#!/bin/sh
# The keys by which identity providers know this site; made once, kept for ever. $1: the site's name.
set -eu
umask 077
mkdir -p /run/shibboleth
chmod 755 /run/shibboleth
for use in signing encryption; do
    [ -s "/data/shibboleth/$use-cert.pem" ] && continue
    /usr/bin/openssl req -new -x509 -newkey rsa:3072 -sha256 -nodes -days 3650 -batch \
        -subj "/CN=$1" -addext "subjectAltName=DNS:$1" \
        -keyout "/data/shibboleth/$use-key.pem" -out "/data/shibboleth/$use-cert.new" 2>/dev/null
    mv "/data/shibboleth/$use-cert.new" "/data/shibboleth/$use-cert.pem"
done
