#!/usr/bin/env bash
#
# t/run.sh MODE: runs the tests and counts them.
#
#   test        what make test does: every part once, briefly
#   asan        the units and the whole black-box suite under ASan and UBSan
#   fuzz TIME   every fuzzer for TIME (10s, 60s, 1h)
#   soak        races 200 rounds, fuzzers 60 s, faults with SOAK=1
#   valgrind    memory after 1,000 and after 10,000 requests
#   PART...     these parts only, for a developer: t/run.sh units sql
#
# Each part writes its whole output to build/test-log/PART.log, prints one
# line here, and on failure what failed.  A part without tests has failed: a
# suite that lost its files must not look green.  As many parts run at once as
# there are cores; every server listens on private ports and folders.  The
# last line is "N passed, N failed"; the exit code says the same.

set -u
cd "$(dirname "$0")/.." || exit 1

LOG=$PWD/build/test-log
NODE=$PWD/conf/dev/node.sh
CORES=$(nproc)
FUZZ_SECONDS=10
FILE_MS=600000
RUN_DIR=
START=$SECONDS

# what make told its children does not concern the makes started here
unset MAKEFLAGS MFLAGS MAKELEVEL
export ROUNDS=${ROUNDS:-10}

# an nginx that tests start themselves leaves its configuration to the kernel;
# units and workers ask for leaks on their own
export ASAN_OPTIONS=detect_leaks=0

mkdir -p "$LOG"
rm -f "$LOG"/*

die()
{
    echo "t/run.sh: $*" >&2
    exit 1
}

build()
{
    mkdir -p build
    flock -o build/.lock make -s -r --no-print-directory -j"$CORES" \
        -f conf/dev/build.mk "$@"
}

# ---- what parts are made of ----

# result PART PASSED FAILED: the line of a part
result()
{
    echo "$2 $3" > "$LOG/$1.count"
    [ "$2" -gt 0 ] && [ "$3" -eq 0 ]
}

nothing()
{
    echo "there is nothing to run in $2" >> "$LOG/$1.log"
    result "$1" 0 1
}

# count_tap PART FILE EXITCODE: of a flat TAP stream
count_tap()
{
    local passed failed

    passed=$(grep -c '^ok ' "$2")
    failed=$(grep -c '^not ok ' "$2")
    if [ "$failed" -eq 0 ] && { [ "$3" -ne 0 ] || [ "$passed" -eq 0 ]; }; then
        echo "not ok - ended with $3 after $passed tests" >> "$2"
        failed=1
    fi
    result "$1" "$passed" "$failed"
}

# node_part PART CONCURRENCY FILE...: Node's runner, counted by its own totals
node_part()
{
    local part=$1 concurrency=$2 rc=0 passed failed log=$LOG/$1.log

    shift 2
    [ -e "${1-}" ] || {
        nothing "$part" "t/$part"
        return
    }
    "$NODE" --test --test-reporter=tap --test-concurrency="$concurrency" \
        --test-timeout="$FILE_MS" "$@" > "$log" 2>&1 || rc=$?
    passed=$(sed -n 's/^# pass //p' "$log" | tail -n 1)
    failed=$(($(sed -n 's/^# fail //p' "$log" | tail -n 1) \
        + $(sed -n 's/^# cancelled //p' "$log" | tail -n 1)))
    if [ "$rc" -ne 0 ] && [ "$failed" -eq 0 ]; then
        failed=1
    fi
    result "$part" "${passed:-0}" "$failed"
}

files()
{
    find "$@" -name '*.test.js' 2> /dev/null | sort
}

# ---- the parts ----

part_lint()
{
    local count=$LOG/lint.numbers

    t/lint/run.sh --count "$count" > "$LOG/lint.log" 2>&1
    [ -e "$count" ] || echo '0 1 0' > "$count"
    read -r passed failed _ < "$count"
    result lint "$passed" "$failed"
}

# units PART VARIANT: every cmocka program; those that want a PostgreSQL or
# Redis start their own
units()
{
    local part=$1 variant=$2 program rc tap=$LOG/$1.log all=0

    ls build/"$variant"/unit/test_* > /dev/null 2>&1 || {
        nothing "$part" t/unit
        return
    }
    for program in build/"$variant"/unit/test_*; do
        [ -e "t/unit/$(basename "$program").c" ] || continue
        rc=0
        echo "# $program" >> "$tap"
        CMOCKA_MESSAGE_OUTPUT=TAP timeout 300 "$program" \
            > "$tap.one" 2>&1 || rc=$?
        cat "$tap.one" >> "$tap"
        if [ "$rc" -ne 0 ] && ! grep -q '^not ok ' "$tap.one"; then
            echo "not ok - $program ended with $rc" >> "$tap"
        fi
        [ "$rc" -eq 0 ] || all=1
    done
    rm -f "$tap.one"
    count_tap "$part" "$tap" "$all"
}

part_units()
{
    ASAN_OPTIONS=detect_leaks=1 UBSAN_OPTIONS=print_stacktrace=1 \
        units units asan
}

# each file on a database of its own, copied from the migrated template
part_sql()
{
    local file db rc all=0 n=0 pg=$RUN_DIR/pg template tap=$LOG/sql.log

    ls t/sql/*.sql > /dev/null 2>&1 || {
        nothing sql t/sql
        return
    }
    template=$("$NODE" t/harness/cluster.js template "$RUN_DIR" 2>> "$tap") || {
        echo 'not ok - the migrations do not apply' >> "$tap"
        count_tap sql "$tap" 1
        return
    }
    export PGHOST=$pg PGUSER=postgres
    psql -X -q -d postgres -c "create database stoa_sql template $template"
    psql -X -q -d stoa_sql -c 'create extension if not exists pgtap' \
        -c 'create extension if not exists plpgsql_check' \
        >> "$tap" 2>&1
    for file in t/sql/*.sql; do
        case $(basename "$file") in _*) continue ;; esac
        n=$((n + 1)) db=stoa_sql_$n rc=0
        psql -X -q -d postgres -c "create database $db template stoa_sql"
        echo "# $file" >> "$tap"
        timeout 300 pg_prove --verbose --nocolor --norc -d "$db" "$file" \
            > "$tap.one" 2>&1 || rc=$?
        cat "$tap.one" >> "$tap"
        if [ "$rc" -ne 0 ] && ! grep -q '^not ok ' "$tap.one"; then
            echo "not ok - $file ended with $rc" >> "$tap"
        fi
        [ "$rc" -eq 0 ] || all=1
        psql -X -q -d postgres -c "drop database $db"
    done
    rm -f "$tap.one"
    psql -X -q -d postgres -c 'drop database stoa_sql'
    count_tap sql "$tap" "$all"
}

# shellcheck disable=SC2046
part_harness()
{
    node_part harness 2 $(files t/harness t/lint)
}

# shellcheck disable=SC2046
part_api()
{
    node_part api 2 $(files t/api)
}

# one test for all rows, from stoa routes --json
# shellcheck disable=SC2046
part_derived()
{
    node_part derived 2 $(files t/derived)
}

# each file on one and on four nginx workers of its own
# shellcheck disable=SC2046
part_invariants()
{
    node_part invariants 2 $(files t/invariants)
}

# races once more, on four nginx workers
# shellcheck disable=SC2046
part_api4()
{
    local list

    list=$(files t/api t/security | xargs -r grep -l 'barrier(')
    # shellcheck disable=SC2086
    STOA_NGINX_WORKERS=4 node_part api4 2 $list
}

# shellcheck disable=SC2046
part_workers()
{
    node_part workers 2 $(files t/workers)
}

# shellcheck disable=SC2046
part_security()
{
    node_part security 2 $(files t/security)
}

# the same over TLS, after a reload, and over HTTP/2, while others ask
# shellcheck disable=SC2046
part_tls()
{
    STOA_TRANSPORT=tls STOA_RELOADED=1 node_part tls 2 $(files t/security)
}

# shellcheck disable=SC2046
part_h2()
{
    STOA_TRANSPORT=h2 STOA_LOADED=1 node_part h2 2 $(files t/security)
}

# shellcheck disable=SC2046
part_mutants()
{
    node_part mutants 2 $(files t/mutants)
}

# one at a time: these stop servers and fill pools
# shellcheck disable=SC2046
part_faults()
{
    node_part faults 1 $(files t/faults)
}

# shellcheck disable=SC2046
part_web()
{
    node_part web 1 $(files t/web)
}

# the release build, started the way people start it
# shellcheck disable=SC2046
part_smoke()
{
    node_part smoke 1 $(files t/smoke)
}

# shellcheck disable=SC2046
part_asan()
{
    STOA_BUILD=build/asan ROUNDS=2 node_part asan 2 $(files t/api) \
        t/security/lifetime.test.js t/security/scripts.test.js
}

# shellcheck disable=SC2046
part_asanall()
{
    STOA_BUILD=build/asan node_part asanall 2 \
        $(files t/api t/derived t/workers t/security t/faults)
}

part_fuzz()
{
    local file name tap=$LOG/fuzz.log all=0

    ls build/fuzz/fuzz_* > /dev/null 2>&1 || {
        nothing fuzz t/fuzz
        return
    }
    : > "$tap"
    for file in t/fuzz/fuzz_*.c; do
        name=$(basename "$file" .c)
        fuzz_report "$name" &
        [ "$FUZZ_SECONDS" -gt 60 ] || wait $! # alone with a core, if short
    done
    wait
    ! grep -q '^not ok' "$tap" || all=1
    count_tap fuzz "$tap" "$all"
}

fuzz_report()
{
    local name=$1 rc=0 out

    fuzz_one "$name" > "$LOG/$name.log" 2>&1 || rc=$?
    out="# $name: $(grep -o 'Done [0-9]* runs.*' "$LOG/$name.log" || true)"
    if [ "$rc" -eq 0 ]; then
        out+=$'\n'"ok - $name"
    else
        out+=$'\n'"$(tail -n 30 "$LOG/$name.log")"
        out+=$'\n'"not ok - $name ended with $rc"
    fi
    printf '%s\n' "$out" >> "$tap" # one write: others append, too
}

# new inputs go to build/, seeds stay as committed
fuzz_one()
{
    local name=$1 corpus=build/fuzz/corpus/$1 seeds dict

    mkdir -p "$corpus" build/fuzz/findings
    seeds=t/fuzz/corpus/${name#fuzz_}
    dict=t/fuzz/${name#fuzz_}.dict
    # shellcheck disable=SC2046
    "build/fuzz/$name" -max_total_time="$FUZZ_SECONDS" -timeout=30 \
        -rss_limit_mb=2048 -print_final_stats=1 \
        -artifact_prefix="build/fuzz/findings/$name-" \
        $([ -e "$dict" ] && echo "-dict=$dict") \
        "$corpus" $([ -d "$seeds" ] && echo "$seeds")
}

part_valgrind()
{
    "$NODE" --test --test-reporter=tap t/harness/valgrind.js \
        > "$LOG/valgrind.log" 2>&1
    count_tap valgrind "$LOG/valgrind.log" $?
}

# ---- the run ----

show_failures()
{
    local part=$1

    [ -e "$LOG/$part.log" ] || return
    if grep -q '^ *not ok' "$LOG/$part.log"; then
        grep -h -A 14 '^ *not ok' "$LOG/$part.log" \
            | grep -v -e '^ *\.\.\.$' -e 'duration_ms' -e "type: '" \
            | head -n 60 | sed 's/^/    /'
    else
        tail -n 25 "$LOG/$part.log" | sed 's/^/    /'
    fi
    echo "    (all of it: build/test-log/$part.log)"
}

run_part()
{
    local part=$1 from=$SECONDS

    "part_$part" || true
    [ -e "$LOG/$part.count" ] || echo '0 1' > "$LOG/$part.count"
    read -r passed failed < "$LOG/$part.count"
    {
        printf '%-9s %5d passed, %3d failed  (%d s)\n' "$part" "$passed" \
            "$failed" $((SECONDS - from))
        [ "$failed" -eq 0 ] || show_failures "$part"
    } > "$LOG/$part.line"
    cat "$LOG/$part.line"
}

start_cluster()
{
    RUN_DIR=$(mktemp -d "${TMPDIR:-/tmp}/stoa-test-XXXXXX")
    chmod 755 "$RUN_DIR"
    "$NODE" t/harness/cluster.js start "$RUN_DIR" \
        || die "PostgreSQL did not start"
    export STOA_TEST_CLUSTER=$RUN_DIR
}

finish()
{
    trap - EXIT
    if [ -n "$RUN_DIR" ]; then
        "$NODE" t/harness/cluster.js stop "$RUN_DIR" > /dev/null 2>&1
        rm -rf "$RUN_DIR"
    fi
}

# run_parts PART...: as many at once as there are cores
run_parts()
{
    local part

    for part in "$@"; do
        while [ "$(jobs -rp | wc -l)" -ge "$CORES" ]; do
            wait -n
        done
        run_part "$part" &
        PART_PIDS+=($!)
    done
    wait "${PART_PIDS[@]}"
    PART_PIDS=()
}

total()
{
    cat "$LOG"/*.count 2> /dev/null | awk -v broken="$1" '
        { passed += $1; failed += $2 }
        END {
            failed += broken
            printf "%d passed, %d failed\n", passed, failed
            exit failed > 0 || passed == 0
        }'
}

# prepare TARGETS: a build that fails is one failure, and the end
prepare()
{
    local from=$SECONDS

    conf/dev/install.sh "${GROUPS_WANTED[@]}" || { total 1; exit 1; }
    "$NODE" --install || { total 1; exit 1; }
    for target in "$@"; do
        # shellcheck disable=SC2086
        build VARIANT=${target%%:*} ${target#*:} > "$LOG/build.log" 2>&1 || {
            grep -v '^  \(cc\|link\|config\) ' "$LOG/build.log" | head -n 40
            echo "build     of ${target%%:*} failed"
            total 1
            exit 1
        }
    done
    case " $* " in
    *' asan:'*)
        flock -o build/.lock conf/dev/nginx-asan.sh || { total 1; exit 1; } ;;
    esac
    echo "build     done  ($((SECONDS - from)) s)"
}

GROUPS_WANTED=(build run test asan)
PART_PIDS=()
mode=${1-test}
[ $# -gt 0 ] && shift

case $mode in
test)
    prepare release:all test:all 'asan:stoa units' fuzz:fuzzers
    trap finish EXIT
    trap 'exit 1' INT TERM HUP
    start_cluster
    run_parts lint api units sql harness derived invariants security \
        tls h2 workers mutants fuzz api4 asan web
    # alone: what these measure is order under a full machine of their own
    run_parts faults smoke ;;
asan)
    prepare 'asan:stoa units'
    trap finish EXIT
    trap 'exit 1' INT TERM HUP
    start_cluster
    run_parts units asanall ;;
fuzz)
    case ${1-10s} in
    *h) FUZZ_SECONDS=$((${1%h} * 3600)) ;;
    *m) FUZZ_SECONDS=$((${1%m} * 60)) ;;
    *) FUZZ_SECONDS=${1%s} ;;
    esac
    prepare fuzz:fuzzers
    run_parts fuzz
    cat "$LOG/fuzz.log" ;;
soak)
    export ROUNDS=200 SOAK=1
    FUZZ_SECONDS=60
    FILE_MS=3600000
    prepare release:all test:all 'asan:stoa units' fuzz:fuzzers
    trap finish EXIT
    trap 'exit 1' INT TERM HUP
    start_cluster
    run_parts api derived invariants security workers mutants api4 fuzz
    run_parts faults ;;
valgrind)
    prepare test:all
    trap finish EXIT
    trap 'exit 1' INT TERM HUP
    start_cluster
    run_parts valgrind ;;
*)
    for part in "$mode" "$@"; do
        declare -F "part_$part" > /dev/null || die "no part \"$part\""
    done
    prepare release:all test:all 'asan:stoa units' fuzz:fuzzers
    trap finish EXIT
    trap 'exit 1' INT TERM HUP
    start_cluster
    run_parts "$mode" "$@" ;;
esac

echo "total $((SECONDS - START)) s"
total 0
