#!/usr/bin/env bash
#
# make lint: every check that needs no running server, two at a time.  Each
# prints nothing when it holds; what it prints is what is wrong.  With --count
# FILE the numbers are left there for t/run.sh.  Checks that this machine's
# tools cannot do (another clang-format) are called skipped, not passed.

set -u
cd "$(dirname "$0")/../.." || exit 1
ROOT=$PWD
OUT=$(mktemp -d)
trap 'rm -rf "$OUT"' EXIT

COUNT=
[ "${1-}" = --count ] && COUNT=$2

tracked()
{
    local file

    git ls-files -- "$@" | while read -r file; do
        [ -e "$file" ] && echo "$file"
    done
}

pkg_cflags()
{
    pkg-config --cflags libpq hiredis jansson libjwt openssl libsodium libuv \
        libcurl libqrencode libpng cairo pangocairo
}

# ---- checks: 0 holds, 1 does not, 77 cannot be done here ----

check_style()
{
    conf/dev/node.sh t/lint/style.js
}


check_format()
{
    local version

    version=$(clang-format --version 2> /dev/null \
        | sed -n 's/.*version \([0-9]*\).*/\1/p')
    if [ "$version" != 14 ]; then
        echo "clang-format 14 is the one that counts, here is ${version:-none}"
        return 77
    fi
    tracked 'shared/*.[ch]' 'workers/*.[ch]' 'ngx_module/*.[ch]' \
        't/unit/*.[ch]' 't/fuzz/*.[ch]' \
        | xargs -r clang-format --dry-run -Werror 2>&1 \
        | sed -n 's/^\([^ ]*\): error: .*/\1/p' | sort -u -t: -k1,1 \
        > "$OUT/format"
    sed 's/$/ is not formatted (clang-format -i)/' "$OUT/format"
    [ ! -s "$OUT/format" ]
}

# each header alone, so that none leans on what was included before it
check_headers()
{
    local file dir bad=0 ngx=build/test/ngx src=/usr/share/nginx/src/src flags

    flags=$(pkg_cflags)
    for file in $(tracked 'shared/*.h' 'workers/*.h'); do
        # shellcheck disable=SC2086
        gcc -std=gnu11 -D_GNU_SOURCE -DSTOA_TEST=1 -Wall -Wextra \
            -Wno-unused-parameter -Wno-unused-const-variable -Werror $flags \
            -fsyntax-only -x c -include shared/stoa.h "$file" || bad=1
    done
    [ -e "$ngx/ngx_auto_config.h" ] || return $bad
    while read -r dir; do # each nginx has folders of its own
        flags="$flags -isystem $dir"
    done < <(find $src/core $src/event $src/os/unix $src/http -type d)
    for file in $(tracked 'ngx_module/*.h'); do
        # shellcheck disable=SC2086
        gcc -std=gnu11 -DSTOA_TEST=1 -Wall -Wno-unused-parameter -Werror \
            $flags -I $ngx -Ingx_module \
            -include ngx_config.h -include ngx_core.h -include ngx_http.h \
            -fsyntax-only -x c "$file" || bad=1
    done
    return $bad
}

# reload-safe by construction: shared/ has no writable static data (the test
# builds' clock offset aside, hence the release's objects)
check_static_data()
{
    local dir=build/obj/shared

    [ -d $dir ] || { echo "no objects in $dir: make build"; return 1; }
    find $dir -name '*.o' -print0 | xargs -0 size -A | awk '
        / *: *$/ || /:$/ { file = $1 }
        ($1 == ".data" || $1 == ".bss") && $2 > 0 {
            print file " has " $2 " bytes of " $1; bad = 1
        }
        END { exit bad }'
}

check_shell()
{
    # shellcheck disable=SC2046
    shellcheck $(tracked '*.sh') .ci/run
}

check_cppcheck()
{
    cppcheck --quiet --enable=warning,performance,portability --inline-suppr \
        --std=c11 --error-exitcode=1 -j 2 --suppress=missingIncludeSystem \
        --suppress=unknownMacro --suppress=varFuncNullUB \
        --suppress=normalCheckLevelMaxBranches \
        --suppress=nullPointerOutOfMemory \
        --suppress=nullPointerArithmeticOutOfMemory \
        --template='{file}:{line}: {message} ({id})' \
        -DSTOA_TEST=1 -D__x86_64__ shared workers 2>&1
}

check_javascript()
{
    local file bad=0

    for file in $(tracked 't/*.js' 'conf/www/*.js'); do
        conf/dev/node.sh --check "$file" || bad=1
    done
    return $bad
}

# a lock file without addresses, so that any registry serves it
check_lock_file()
{
    ! grep -n '"resolved"' t/package-lock.json
}

check_units()
{
    command -v systemd-analyze > /dev/null || {
        echo 'no systemd-analyze'
        return 77
    }
    local dir=$OUT/units file bad=0

    mkdir -p "$dir"
    for file in conf/systemd/*.service; do
        [ -e "$file" ] || return 0
        # the programs are not installed where the units expect them
        sed -e 's|=/usr/bin/stoa|=/bin/true|' \
            -e 's|=/usr/sbin/nginx|=/bin/true|' "$file" \
            > "$dir/$(basename "$file")"
    done
    systemd-analyze verify --man=no "$dir"/*.service > "$OUT/verify" 2>&1
    grep -v -e 'not find\|not found\|Failed to prepare\|SO_PASSCRED' \
        "$OUT/verify" | grep "$dir" && bad=1
    return $bad
}

check_ci_entry()
{
    grep -qx 'exec make test' .ci/run
}

# ---- the run ----

CHECKS=(style format headers static_data shell cppcheck
    javascript lock_file units ci_entry)

one()
{
    "check_$1" > "$OUT/$1.out" 2>&1
    echo $? > "$OUT/$1.rc"
}

for name in "${CHECKS[@]}"; do
    while [ "$(jobs -rp | wc -l)" -ge "$(nproc)" ]; do
        wait -n
    done
    one "$name" &
done
wait

passed=0 failed=0 skipped=0
for name in "${CHECKS[@]}"; do
    case $(cat "$OUT/$name.rc") in
    0) passed=$((passed + 1)) ;;
    77)
        skipped=$((skipped + 1))
        echo "lint: $name skipped: $(head -n 1 "$OUT/$name.out")" ;;
    *)
        failed=$((failed + 1))
        echo "lint: $name:"
        sed "s|$ROOT/||g; s/^/  /" "$OUT/$name.out" | head -n 60 ;;
    esac
done

echo "lint: $passed passed, $failed failed, $skipped skipped"
[ -z "$COUNT" ] || echo "$passed $failed $skipped" > "$COUNT"
[ "$failed" -eq 0 ]
