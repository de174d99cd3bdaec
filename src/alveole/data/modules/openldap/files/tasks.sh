# What is done to the directory, as its own user, who may do everything through the Unix socket.
set -eu
umask 077
config=/run/openldap/slapd.d
data=/data/openldap/db
dump=/data/openldap-dumps/backup.ldif

case $1 in
prepare)
    mkdir -p /run/openldap "$data"
    chmod 0755 /run/openldap
    ;;
run)
    # The answers are the configuration; what was changed in cn=config does not outlive the process.
    rm -rf "$config"
    mkdir "$config"
    slapadd -n 0 -F "$config" -l /config/openldap/config.ldif
    exec slapd -F "$config" -d "$2" -h "ldap://127.0.0.1:3389 ldapi://%2Frun%2Fopenldap%2Fldapi"
    ;;
install | restore)
    # Before the server runs.
    from=/config/openldap/first.ldif
    [ "$1" = restore ] && [ -f "$dump" ] && from=$dump
    loading=/run/openldap/loading.d
    rm -rf "$loading" "$data"
    mkdir "$loading" "$data"
    slapadd -n 0 -F "$loading" -l /config/openldap/config.ldif
    slapadd -q -w -n 1 -F "$loading" -l "$from"
    rm -rf "$loading"
    ;;
backup)
    slapcat -n 1 -F "$config" -l "$dump.new"
    sync -d "$dump.new"
    mv "$dump.new" "$dump"
    ;;
esac
