#!/bin/sh
# A private PostgreSQL server for the tests: TLS, passwords only, loopback only.
#
#   postgres.sh start DIR   makes and starts it in DIR, prints `export` lines for the tests
#   postgres.sh stop DIR    stops it and removes DIR
#
# POSTGRES_BIN is the directory of the server's programs, if not that of the newest installed.
set -eu

usage() {
    echo "usage: $0 start|stop DIR" >&2
    exit 2
}

[ $# -eq 2 ] || usage
action=$1
dir=$2
case $dir in
    /*) ;;
    *) dir=$(pwd)/$dir ;;
esac

fail() {
    echo "$0: $*" >&2
    exit 1
}

find_binaries() {
    if [ -n "${POSTGRES_BIN-}" ]; then
        echo "$POSTGRES_BIN"
        return
    fi
    for candidate in $(ls -d /usr/lib/postgresql/*/bin 2>/dev/null | sort -Vr); do
        if [ -x "$candidate/initdb" ] && [ -x "$candidate/pg_ctl" ]; then
            echo "$candidate"
            return
        fi
    done
}

# The server refuses to run as root.
unprivileged() {
    if [ "$(id -u)" -eq 0 ]; then
        runuser -u postgres -- "$@"
    else
        "$@"
    fi
}

running() {
    [ -d "$dir/data" ] && unprivileged "$binaries/pg_ctl" -D "$dir/data" status >/dev/null 2>&1
}

free_port() {
    python3 - <<'PYTHON' 2>/dev/null || awk 'BEGIN { srand(); print 20000 + int(rand() * 20000) }'
import socket
with socket.socket() as probe:
    probe.bind(("127.0.0.1", 0))
    print(probe.getsockname()[1])
PYTHON
}

certificates() {
    (
        cd "$dir"
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=tenantry test CA" \
            -addext "basicConstraints=critical,CA:TRUE" -addext "keyUsage=critical,keyCertSign" \
            -keyout ca.key -out ca.pem
        openssl req -newkey rsa:2048 -nodes -subj "/CN=localhost" -keyout server.key -out server.csr
        printf '%s\n' "subjectAltName=DNS:localhost,IP:127.0.0.1" "basicConstraints=CA:FALSE" \
            "extendedKeyUsage=serverAuth" >server.ext
        openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile server.ext -out server.pem
        # Logs in as the role that its name says, and one of an authority that nobody knows.
        openssl req -newkey rsa:2048 -nodes -subj "/CN=certified" -keyout client.key -out client.csr
        printf '%s\n' "basicConstraints=CA:FALSE" "extendedKeyUsage=clientAuth" >client.ext
        openssl x509 -req -in client.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
            -extfile client.ext -out client.pem
        openssl req -x509 -newkey rsa:2048 -nodes -days 30 -subj "/CN=certified" \
            -keyout stranger.key -out stranger.pem
    ) >"$dir/openssl.log" 2>&1 || fail "openssl failed, see $dir/openssl.log"
    chmod 600 "$dir/server.key" "$dir/ca.key"
    chmod 644 "$dir/client.key" "$dir/stranger.key"
}

create() {
    mkdir -p "$dir"
    certificates
    od -An -N16 -tx1 /dev/urandom | tr -d ' \n' >"$dir/password"
    if [ "$(id -u)" -eq 0 ]; then
        chown -R postgres "$dir"
    fi
    unprivileged "$binaries/initdb" -D "$dir/data" -U postgres -E UTF8 --locale=C --no-sync \
        --auth=scram-sha-256 --pwfile="$dir/password" >"$dir/initdb.log" 2>&1 ||
        fail "initdb failed, see $dir/initdb.log"
    cat >>"$dir/data/postgresql.conf" <<CONF
# The second is not in the certificate.
listen_addresses = '127.0.0.1,127.0.0.2'
unix_socket_directories = ''
ssl = on
ssl_cert_file = '$dir/server.pem'
ssl_key_file = '$dir/server.key'
ssl_ca_file = '$dir/ca.pem'
max_connections = 50
shared_buffers = 16MB
fsync = off
synchronous_commit = off
full_page_writes = off
CONF
    cat >"$dir/data/pg_hba.conf" <<HBA
hostssl all certified 127.0.0.0/8 cert
hostssl all all 127.0.0.0/8 scram-sha-256
host    all all 127.0.0.0/8 scram-sha-256
HBA
}

start() {
    if [ -z "$(find_binaries)" ] && [ "$(id -u)" -eq 0 ]; then
        { apt-get update && DEBIAN_FRONTEND=noninteractive apt-get install -y postgresql; } \
            >/dev/null 2>&1 || fail "cannot install the package postgresql"
    fi
    binaries=$(find_binaries)
    [ -n "$binaries" ] || fail "no PostgreSQL server found below /usr/lib/postgresql"
    if ! running; then
        [ -f "$dir/data/PG_VERSION" ] || create
        attempt=0
        until
            free_port >"$dir/port"
            unprivileged "$binaries/pg_ctl" -D "$dir/data" -l "$dir/data/server.log" -w \
                -o "-p $(cat "$dir/port")" start >/dev/null 2>&1
        do
            attempt=$((attempt + 1))
            [ "$attempt" -lt 5 ] || fail "the server does not start, see $dir/data/server.log"
        done
    fi
    echo "export TENANTRY_TEST_PG_PORT=$(cat "$dir/port")"
    echo "export TENANTRY_TEST_PG_SUPERUSER=postgres"
    echo "export TENANTRY_TEST_PG_PASSWORD=$(cat "$dir/password")"
    echo "export TENANTRY_TEST_PG_CA='$dir/ca.pem'"
}

stop() {
    binaries=$(find_binaries)
    if [ -n "$binaries" ] && running; then
        unprivileged "$binaries/pg_ctl" -D "$dir/data" -m immediate -w stop >/dev/null 2>&1 || true
    fi
    # Only what `start` made is removed, whatever DIR names.
    if [ -f "$dir/data/PG_VERSION" ]; then
        rm -rf "$dir"
    fi
}

case $action in
    start) start ;;
    stop) stop ;;
    *) usage ;;
esac
