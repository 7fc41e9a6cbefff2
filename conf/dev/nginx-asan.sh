#!/usr/bin/env bash
#
# nginx-asan.sh: builds build/asan/nginx, the distribution's own nginx source
# with the module inside, under ASan and UBSan.  Its pools are plain mallocs
# (NGX_DEBUG_PALLOC), so that an overrun within a pool is seen too; the stock
# binary with preloaded sanitizers would hide it.
#
# The source comes from the distribution, through a list of sources kept in
# build/asan/apt: a Debian as installed has no deb-src.  An archive keeps only
# the newest update of a package, so a machine a few days behind takes another
# revision of the same nginx.  Done once per version and list of sources; after
# that only what changed is compiled.

set -eu
cd "$(dirname "$0")/../.."

ROOT=$PWD
OUT=$ROOT/build/asan
APT=$OUT/apt
LOG=$OUT/nginx-build.log
VERSION=$(dpkg-query -W -f '${source:Version}' nginx)
SRC=$OUT/nginx-$VERSION

die()
{
    echo "stoa: $*; see $LOG" >&2
    tail -n 12 "$LOG" >&2
    exit 1
}

# the machine's own list with deb-src in the place of deb
make_sources()
{
    local file

    mkdir -p "$APT/sources" "$APT/lists/partial" "$APT/cache/archives/partial"
    rm -f "$APT"/sources/*
    for file in /etc/apt/sources.list.d/*.sources; do
        [ -e "$file" ] || continue
        sed 's/^Types:.*/Types: deb-src/' "$file" \
            > "$APT/sources/$(basename "$file")"
    done
    cat /etc/apt/sources.list /etc/apt/sources.list.d/*.list 2> /dev/null \
        | sed -n 's/^deb /deb-src /p' > "$APT/sources/own.list"
}

private_apt()
{
    apt-get -qq -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$APT/sources" \
        -o Dir::State::Lists="$APT/lists" -o Dir::Cache="$APT/cache" \
        -o APT::Sandbox::User=root -o Acquire::Languages=none "$@"
}

# the Debian revisions of the installed nginx that there are, newest first
revisions()
{
    apt-cache -o Dir::Etc::SourceList=/dev/null \
        -o Dir::Etc::SourceParts="$APT/sources" \
        -o Dir::State::Lists="$APT/lists" -o Dir::Cache="$APT/cache" \
        showsrc nginx 2> /dev/null | sed -n 's/^Version: //p' \
        | grep -F -e "${VERSION%-*}-" | sort -rV
}

download()
{
    rm -f "$OUT"/src/*
    (cd "$OUT/src" && private_apt source --download-only "nginx=$1") \
        >> "$LOG" 2>&1
}

get_source()
{
    local revision

    [ -e "$SRC/configure" ] && return
    echo "stoa: getting the source of nginx $VERSION"
    make_sources
    private_apt update > "$LOG" 2>&1 || die 'cannot read the source lists'
    rm -rf "$OUT/src" "$SRC"
    mkdir -p "$OUT/src"
    for revision in $VERSION $(revisions); do
        download "$revision" && break
    done
    (cd "$OUT/src" && dpkg-source --no-check -x ./*.dsc tree) >> "$LOG" 2>&1 \
        || die "cannot get the source of nginx $VERSION"
    mv "$OUT/src/tree" "$SRC"
}

# the same flags as the module has in build.mk's asan variant
CC_OPT='-g -O1 -D_GNU_SOURCE -std=gnu11 -fsanitize=address,undefined'
CC_OPT="$CC_OPT -fno-sanitize-recover=undefined -fno-omit-frame-pointer"
CC_OPT="$CC_OPT -DNGX_DEBUG_PALLOC=1 -DSTOA_TEST=1 -MMD -MP"
CC_OPT="$CC_OPT -Wno-error -Wno-maybe-uninitialized"
# nginx's own memcpy(NULL, ..., 0) and unaligned loads are not looked for
CC_OPT="$CC_OPT -fno-sanitize=nonnull-attribute,pointer-overflow,alignment"

configure()
{
    local key stamp=$OUT/static/key

    key=$(cat config conf/dev/nginx-asan.sh "$OUT/sources" | sha256sum)
    if [ -e "$stamp" ] && [ "$key" = "$(cat "$stamp")" ]; then
        return
    fi
    mkdir -p "$OUT/static"
    # the packaged nginx's own paths and modules; a bash array
    # shellcheck source=/dev/null
    . /usr/share/nginx/src/conf_flags
    (cd "$SRC" && ./configure "${NGX_CONF_FLAGS[@]}" \
        --builddir="$OUT/static" --add-module="$ROOT" \
        --with-cc-opt="$CC_OPT" \
        --with-ld-opt='-fsanitize=address,undefined') > "$LOG" 2>&1 \
        || die 'cannot configure nginx with the module'
    echo "-include \$(wildcard $OUT/static/addon/*/*.d)" \
        >> "$OUT/static/Makefile"
    echo "$key" > "$stamp"
}

get_source
configure
before=$(stat -c %Y "$OUT/static/nginx" 2> /dev/null || echo 0)
make -s -j"$(nproc)" -f "$OUT/static/Makefile" -C "$SRC" ADDON_DEPS= binary \
    > "$LOG" 2>&1 || die 'cannot compile nginx with the module'
if [ "$before" != "$(stat -c %Y "$OUT/static/nginx")" ]; then
    echo "  link    build/asan/nginx"
fi
ln -sf static/nginx "$OUT/nginx"
