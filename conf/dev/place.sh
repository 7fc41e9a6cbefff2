#!/usr/bin/env bash
#
# make install [DESTDIR=] [PREFIX=/usr]: puts what was built, and the files
# that go with it, where the shipped nginx.conf and units look for them.  It
# makes no user and no database, starts nothing, and writes nothing that is
# meant to be edited: the examples of nginx.conf and stoa.conf lie in
# PREFIX/share/stoa/examples.  With another PREFIX the copies name it.

set -euo pipefail
cd "$(dirname "$0")/../.."

DESTDIR=${PLACE_DESTDIR-}
PREFIX=${PLACE_PREFIX:-/usr}
MODULE=ngx_http_stoa_module.so

case $PREFIX in
/*) ;;
*) echo "make install: PREFIX must begin with /, it is \"$PREFIX\"" >&2
    exit 1 ;;
esac

for file in build/stoa "build/$MODULE"; do
    if [ ! -e "$file" ]; then
        echo "make install: there is no $file; run make build first" >&2
        exit 1
    fi
done

# place MODE FROM TO: one file
place()
{
    install -D -m "$1" "$2" "$DESTDIR$3"
}

# place_tree FROM TO: all files of a folder
place_tree()
{
    local file

    find "$1" -type f -printf '%P\n' | sort | while read -r file; do
        place 644 "$1/$file" "$2/$file"
    done
}

# place_text FROM TO: a text that names places below /usr
place_text()
{
    place 644 "$1" "$2"
    [ "$PREFIX" = /usr ] && return
    sed -i -e "s|/usr/bin/stoa|$PREFIX/bin/stoa|g" \
        -e "s|/usr/share/stoa|$PREFIX/share/stoa|g" \
        -e "s|load_module modules/|load_module $PREFIX/lib/nginx/modules/|" \
        "$DESTDIR$2"
}

place 755 build/stoa "$PREFIX/bin/stoa"
place 644 "build/$MODULE" "$PREFIX/lib/nginx/modules/$MODULE"
place_tree conf/www "$PREFIX/share/stoa/www"
place_tree conf/mail "$PREFIX/share/stoa/mail"
place_tree migrations "$PREFIX/share/stoa/migrations"
place_text conf/nginx.conf "$PREFIX/share/stoa/examples/nginx.conf"
place_text conf/stoa.conf "$PREFIX/share/stoa/examples/stoa.conf"

for unit in conf/systemd/*.service; do
    place_text "$unit" "$PREFIX/lib/systemd/system/${unit##*/}"
done

place 644 conf/logrotate /etc/logrotate.d/stoa
