#!/usr/bin/env bash
#
# install.sh GROUP...: installs the Debian packages of the groups that are
# missing, and says which.  Groups: build run test asan bench fresh.
#
# Nothing of the machine's own is touched: while apt-get works, a policy-rc.d
# forbids it to start or restart services, PostgreSQL makes no main cluster,
# and services that came with packages installed here are not enabled.  With
# nothing missing it asks apt nothing and prints nothing.

set -eu

die()
{
    echo "stoa: $*" >&2
    exit 1
}

[ -r /etc/debian_version ] || die "this is not Debian; see README.md," \
    "\"Dependencies\", for what to install by hand"

as_root()
{
    if [ "$(id -u)" = 0 ]; then
        env "$@"
    else
        command -v sudo > /dev/null || die "missing packages can be" \
            "installed by root or with sudo only, and there is no sudo"
        sudo env "$@"
    fi
}

# the version that this Debian's "postgresql" stands for
pg_major()
{
    local dir newest=

    for dir in /usr/lib/postgresql/*/bin/initdb; do
        [ -x "$dir" ] && newest=$(basename "$(dirname "$(dirname "$dir")")")
    done
    if [ -z "$newest" ]; then
        newest=$(apt-cache depends postgresql 2> /dev/null \
            | sed -n 's/.*Depends: postgresql-\([0-9]*\)$/\1/p' | head -n 1)
    fi
    echo "$newest"
}

packages()
{
    case $1 in
    build)
        echo gcc libc6-dev pkg-config binutils nginx-dev libpq-dev \
            libhiredis-dev libjansson-dev libjwt-dev libssl-dev \
            libsodium-dev libuv1-dev libcurl4-openssl-dev libqrencode-dev \
            libpng-dev libcairo2-dev libpango1.0-dev ;;
    run)
        echo nginx redis-server redis-tools postgresql curl ca-certificates ;;
    test)
        echo nginx redis-server postgresql nodejs npm libcmocka-dev clang \
            libclang-rt-dev clang-format cppcheck shellcheck zbar-tools \
            poppler-utils chromium curl prometheus \
            libtap-parser-sourcehandler-pgtap-perl \
            "postgresql-@PG@-pgtap" "postgresql-@PG@-plpgsql-check" ;;
    asan)
        echo dpkg-dev libpcre2-dev zlib1g-dev valgrind ;;
    bench)
        echo wrk curl postgresql ;;
    fresh)
        echo debootstrap ;;
    *)
        die "install.sh: unknown group \"$1\"" ;;
    esac
}

installed()
{
    [ "$(dpkg-query -W -f '${Status}' "$1" 2> /dev/null)" \
        = 'install ok installed' ]
}

# leaves what is missing in $missing; @PG@ needs apt's lists when PostgreSQL
# is not there yet
find_missing()
{
    local group name list

    missing=
    for group in "$@"; do
        list=$(packages "$group")
        for name in $list; do
            name=${name/@PG@/$(pg_major)}
            case " $missing " in *" $name "*) continue ;; esac
            provided "$name" || installed "$name" || missing="$missing $name"
        done
    done
    missing=${missing# }
}

# other sources of the same thing: another vendor's Node carries its own npm
provided()
{
    case $1 in
    npm) command -v npm > /dev/null ;;
    nodejs) command -v node > /dev/null ;;
    *) return 1 ;;
    esac
}

policy=/usr/sbin/policy-rc.d
pgconf=/etc/postgresql-common/createcluster.d/stoa-install.conf

prepare()
{
    if [ -e "$policy" ]; then
        as_root mv "$policy" "$policy.stoa-saved"
    fi
    as_root sh -c "printf '#!/bin/sh\nexit 101\n' > $policy \
        && chmod 755 $policy && mkdir -p ${pgconf%/*} \
        && echo 'create_main_cluster = false' > $pgconf"
}

restore()
{
    as_root rm -f "$policy" "$pgconf"
    if [ -e "$policy.stoa-saved" ]; then
        as_root mv "$policy.stoa-saved" "$policy"
    fi
}

# a package's service starts at the next boot unless told otherwise
keep_disabled()
{
    local name

    command -v systemctl > /dev/null || return 0
    for name in "$@"; do
        case " $missing " in
        *" $name "*)
            as_root systemctl disable --quiet "$name" > /dev/null 2>&1 \
                || true ;;
        esac
    done
}

main()
{
    find_missing "$@"
    [ -z "$missing" ] && exit 0

    mkdir -p build
    exec 9> build/.install.lock
    flock 9
    find_missing "$@"
    [ -z "$missing" ] && exit 0

    trap restore EXIT
    prepare
    log=build/install.log
    as_root apt-get -qq update > "$log" 2>&1 9>&- || {
        tail -n 5 "$log" >&2
        die "apt-get update failed; see $log"
    }
    find_missing "$@"
    echo "stoa: installing $missing"
    # shellcheck disable=SC2086
    as_root DEBIAN_FRONTEND=noninteractive NEEDRESTART_SUSPEND=1 \
        apt-get -qq -y --no-install-recommends install $missing \
        >> "$log" 2>&1 9>&- < /dev/null || {
        tail -n 15 "$log" >&2
        die "apt-get install failed; see $log"
    }
    keep_disabled nginx redis-server postgresql
}

cd "$(dirname "$0")/../.."
main "$@"
