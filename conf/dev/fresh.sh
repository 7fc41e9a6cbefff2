#!/usr/bin/env bash
#
# fresh.sh SUITE: what a newcomer lives through.  An empty Debian (bookworm or
# trixie) is made by debootstrap in a folder, the checkout's last commit is
# cloned into it, and the two commands of README.md are run there as printed:
# make run until it says ready, then the tour, then make test.
#
#   FRESH_DIR=dir    where (default /var/tmp/stoa-fresh-SUITE)
#   FRESH_PORT=port  the port of make run (the network is the machine's own)
#   FRESH_KEEP=1     leave the folder for a look
#   FRESH_ONLY=run   the first command and the tour only
#
# What the machine needs to reach its mirror and its npm registry (sources,
# certificates, registry) is taken over; nothing else is.

set -eu
cd "$(dirname "$0")/../.."

SUITE=${1-bookworm}
DIR=${FRESH_DIR:-/var/tmp/stoa-fresh-$SUITE}
PORT=${FRESH_PORT:-8088}
ROOT=$PWD
LOG=$ROOT/build/fresh-$SUITE.log
MAKE_PID=

die()
{
    echo "stoa: $*" >&2
    exit 1
}

case $SUITE in
bookworm | trixie) ;;
*) die "SUITE=$SUITE is neither bookworm nor trixie" ;;
esac

if [ "$(id -u)" != 0 ]; then
    command -v sudo > /dev/null || die 'make fresh needs root or sudo'
    exec sudo --preserve-env=FRESH_DIR,FRESH_PORT,FRESH_KEEP,FRESH_ONLY \
        "$0" "$@"
fi

# ---- the machine's own way out ----

mirror()
{
    local uri

    uri=$(cat /etc/apt/sources.list.d/*.sources 2> /dev/null \
        | sed -n 's/^URIs: *\([^ ]*\).*/\1/p' | grep -v security | head -n 1)
    [ -n "$uri" ] || uri=$(sed -n 's/^deb \(\[.*\] \)\?\([^ ]*\) .*/\2/p' \
        /etc/apt/sources.list 2> /dev/null | grep -v security | head -n 1)
    echo "${uri:-http://deb.debian.org/debian}"
}

security_mirror()
{
    cat /etc/apt/sources.list.d/*.sources /etc/apt/sources.list \
        2> /dev/null | grep -o 'https\?://[^ ]*security[^ ]*' | head -n 1
}

npm_registry()
{
    npm config get registry 2> /dev/null | tail -n 1
}

# ---- the folder ----

mount_all()
{
    mount -t proc proc "$DIR/proc"
    mount --rbind /sys "$DIR/sys"
    mount --make-rslave "$DIR/sys"
    mount --rbind /dev "$DIR/dev"
    mount --make-rslave "$DIR/dev"
}

unmount_all()
{
    local part

    for part in dev sys proc; do
        mountpoint -q "$DIR/$part" && umount -R -l "$DIR/$part"
    done
    return 0
}

# processes whose root is the folder: what was left running in it
inside()
{
    local proc

    for proc in /proc/[0-9]*; do
        if [ "$(readlink "$proc/root" 2> /dev/null)" = "$DIR" ]; then
            echo "${proc#/proc/}"
        fi
    done
}

clean_up()
{
    local pid

    trap '' INT TERM
    [ -z "$MAKE_PID" ] || kill "$MAKE_PID" 2> /dev/null || true
    for pid in $(inside); do
        kill -KILL "$pid" 2> /dev/null || true
    done
    unmount_all
    if [ -z "${FRESH_KEEP-}" ]; then
        rm -rf --one-file-system "$DIR"
    fi
}

make_debian()
{
    local security file

    echo "stoa: making an empty Debian $SUITE in $DIR"
    unmount_all
    rm -rf --one-file-system "$DIR"
    mkdir -p "$DIR"
    debootstrap --variant=minbase --include=git,make "$SUITE" "$DIR" \
        "$(mirror)" > "$LOG" 2>&1 || {
        tail -n 5 "$LOG" >&2
        die "debootstrap failed; see $LOG"
    }
    {
        echo "deb $(mirror) $SUITE main"
        echo "deb $(mirror) $SUITE-updates main"
        security=$(security_mirror)
        [ -z "$security" ] || echo "deb $security $SUITE-security main"
    } > "$DIR/etc/apt/sources.list"
    grep -ls Acquire /etc/apt/apt.conf.d/* | while read -r file; do
        cp "$file" "$DIR/etc/apt/apt.conf.d/"
    done
    cp /etc/resolv.conf /etc/hosts "$DIR/etc/"
    mkdir -p "$DIR/usr/local/share/ca-certificates"
    cp /usr/local/share/ca-certificates/*.crt \
        "$DIR/usr/local/share/ca-certificates/" 2> /dev/null || true
    printf '#!/bin/sh\nexit 101\n' > "$DIR/usr/sbin/policy-rc.d"
    chmod 755 "$DIR/usr/sbin/policy-rc.d"
    mount_all
    git clone -q --no-hardlinks --depth 1 "file://$ROOT" "$DIR/root/stoa"
}

# run COMMAND: as root in a clean environment, in the clone
inside_run()
{
    chroot "$DIR" /usr/bin/env -i HOME=/root LANG=C.UTF-8 TERM=dumb \
        PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin \
        PORT="$PORT" npm_config_registry="$(npm_registry)" \
        NODE_EXTRA_CA_CERTS=/etc/ssl/certs/ca-certificates.crt \
        bash -c "cd /root/stoa && $1"
}

# block NAME: the lines of the code block after <!-- NAME --> in README.md
block()
{
    awk -v name="<!-- $1 -->" '
        $0 == name { seen = 1; next }
        seen && /^```/ { if (open) exit; open = 1; next }
        open' "$DIR/root/stoa/README.md"
}

wait_ready()
{
    local i

    for ((i = 0; i < 1800; i++)); do
        grep -q '^ready http' "$LOG.run" && return 0
        kill -0 "$MAKE_PID" 2> /dev/null || return 1
        sleep 1
    done
    return 1
}

first_command()
{
    local command=$1 left pid

    echo "stoa: $command"
    : > "$LOG.run"
    inside_run "exec $command" >> "$LOG.run" 2>&1 &
    MAKE_PID=$!
    wait_ready || {
        tail -n 25 "$LOG.run" >&2
        die "\"$command\" did not become ready on $SUITE; see $LOG.run"
    }
    grep '^ready' "$LOG.run"
    echo 'stoa: the tour'
    block tour | sed "s|127.0.0.1:8080|127.0.0.1:$PORT|g" \
        > "$DIR/root/tour.sh"
    inside_run 'bash -eu -o pipefail /root/tour.sh' > "$LOG.tour" 2>&1 || {
        tail -n 25 "$LOG.tour" >&2
        die "the tour failed on $SUITE; see $LOG.tour"
    }
    pid=$(inside | while read -r p; do
        grep -qa 'conf/dev/run.sh' "/proc/$p/cmdline" && echo "$p" && break
    done)
    kill -TERM "${pid:-$MAKE_PID}"
    wait "$MAKE_PID" || true
    MAKE_PID=
    sleep 1
    left=$(inside)
    if [ -n "$left" ]; then
        # shellcheck disable=SC2086
        ps -o pid,args -p ${left//$'\n'/,} >&2
        die "\"$command\" left these running"
    fi
}

second_command()
{
    echo "stoa: $1"
    inside_run "$1" 2>&1 < /dev/null | tee "$LOG.test"
    [ "${PIPESTATUS[0]}" = 0 ] || die "\"$1\" failed on $SUITE"
    tail -n 1 "$LOG.test" | grep -qx '[0-9]* passed, 0 failed' \
        || die "\"$1\" did not end with its count on $SUITE"
}

main()
{
    local commands

    mkdir -p build
    conf/dev/install.sh fresh
    trap clean_up EXIT
    trap 'exit 1' INT TERM HUP
    make_debian
    mapfile -t commands < <(block commands)
    [ "${#commands[@]}" = 2 ] || die 'README.md has not two commands'
    first_command "${commands[0]%%#*}"
    [ "${FRESH_ONLY-}" = run ] || second_command "${commands[1]%%#*}"
    echo "stoa: $SUITE is fine"
}

main
