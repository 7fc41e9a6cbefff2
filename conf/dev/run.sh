#!/usr/bin/env bash
#
# run.sh PORT STATE PROFILE: what make run does once everything is installed
# and built.  PostgreSQL, Redis, the edge and the worker pool are this
# script's own children, live under STATE and end with it; nothing of the
# machine's own is touched.
#
#   STATE/stoa.conf   settings with random secrets, made once, mode 0600
#   STATE/pg          PostgreSQL's data; its socket is in STATE/run/pg
#   STATE/redis       Redis's append-only file
#   STATE/nginx       the edge's configuration and temporary files
#   STATE/mail        mails, when there is no SMTP_HOST in stoa.conf
#   STATE/log         everything that any of them has to say
#   STATE/run         sockets, pids, and marks of steps that are done
#
# Nothing is written before arguments, folder and port are known to be good.
# STATE/.lock belongs to this script, STATE/run/children names what it has
# started, with start times: whoever outlives a killed script is found there.
#
# A step leaves its mark only when it is complete: a first start that was cut
# short is told from a finished one, and said so instead of guessed about.

set -eu
umask 022

PORT=$1 STATE=$2 PROFILE=$3
ROOT=$(cd "$(dirname "$0")/../.." && pwd)
STOA=$ROOT/build/stoa
MODULE=$ROOT/build/ngx_http_stoa_module.so
ME=$$
PIDS=()         # children, in the order of their start
STOPPING=
ENDING=         # a signal came
PORT_LOCK=      # the file that this script has locked

unset RUN_PORT RUN_STATE RUN_PROFILE    # make's way of handing them over

say()
{
    echo "stoa: $*"
}

die()
{
    echo "stoa: $*" >&2
    exit 1
}

# ---- before anything is started ----

check_arguments()
{
    local LC_ALL=C

    case $PORT in
    '' | *[!0-9]*) die "PORT=$PORT is not a number" ;;
    0* | ??????*) die "PORT=$PORT is not between 1 and 65535" ;;
    esac
    [ "$PORT" -le 65535 ] || die "PORT=$PORT is not between 1 and 65535"
    if [ "$PORT" -lt 1024 ] && [ "$(id -u)" != 0 ]; then
        die "only root may listen on port $PORT; try PORT=8080"
    fi
    case $PROFILE in
    development) TEMPLATE=$ROOT/conf/dev/nginx.conf.in ;;
    production) TEMPLATE=$ROOT/conf/dev/nginx-production.conf.in ;;
    *) die "PROFILE=$PROFILE is neither development nor production" ;;
    esac
    case $STATE in
    /*) ;;
    '') die "STATE is empty" ;;
    *) STATE=$PWD/$STATE ;;
    esac
    case $STATE in
    *[!A-Za-z0-9_./+@$'\x80'-$'\xff'-]*)
        die "STATE=$STATE has characters that nginx or PostgreSQL would" \
            "misread; choose a plain path" ;;
    esac
    # a socket's path has at most 107 bytes
    if [ ${#STATE} -gt 80 ]; then
        die "STATE=$STATE is too long for a socket's path (80 characters)"
    fi
}

port_is_free()
{
    ! (exec 3<> "/dev/tcp/127.0.0.1/$PORT") 2> /dev/null
}

# The port is this script's for its life: what two that start at the same
# moment both found free, one of them gets.  The edge's own bind() is the last
# judge, see edge_listens().
take_port()
{
    local file=$ROOT/build/.port-$PORT

    exec 7>> "$file"
    flock -n 7 || port_is_taken
    PORT_LOCK=$file
    port_is_free || port_is_taken
}

port_is_taken()
{
    local next=$((PORT + 1))

    [ "$next" -le 65535 ] || next=8080
    die "port $PORT of 127.0.0.1 is taken; try make run PORT=$next"
}

# What stands in the way, seen without writing anything.
check_folder()
{
    [ -e "$STATE" ] || return 0
    [ -d "$STATE" ] || die "$STATE is not a folder; give one with STATE=dir"
    [ -O "$STATE" ] || die "the folder $STATE belongs to somebody else;" \
        "give another with STATE=dir"
    [ -w "$STATE" ] || die "cannot write to the folder $STATE;" \
        "give another with STATE=dir"
    if [ -n "$(find "$STATE" -mindepth 1 -maxdepth 1 ! -name .lock \
        -print -quit)" ] && [ ! -e "$STATE/.stoa" ]; then
        die "the folder $STATE has files that are not Stoa's;" \
            "give another with STATE=dir"
    fi
    if [ -e "$STATE/.lock" ]; then
        exec 8>> "$STATE/.lock"
        flock -n 8 || in_use
        check_survivors
    fi
}

in_use()
{
    die "another make run uses $STATE; stop it or give another folder with" \
        "STATE=dir"
}

# When a process began, in ticks; nothing for one that is over.
began()
{
    local stat

    read -r stat 2> /dev/null < "/proc/$1/stat" || return 0
    # shellcheck disable=SC2086
    set -- ${stat##*) }
    [ "$1" = Z ] || echo "${20}"
}

boot()
{
    cat /proc/sys/kernel/random/boot_id
}

# Who was started by a script that was killed and goes on without it: a
# second PostgreSQL or Redis on the same files would destroy them.
check_survivors()
{
    local id name pid since who='' pids=''

    [ -e "$STATE/run/children" ] || return 0
    while read -r id name pid since; do
        if [ "$id" = "$(boot)" ] && [ "$(began "$pid")" = "$since" ]; then
            who="$who${who:+, }$pid ($name)" pids="$pids $pid"
        fi
    done < "$STATE/run/children"
    [ -z "$pids" ] || die "$STATE is still used by pid $who of a make run" \
        "that was killed; stop it with: kill$pids"
}

make_folders()
{
    local dir

    mkdir -p "$STATE" 2> /dev/null \
        || die "cannot make the folder $STATE; give another with STATE=dir"
    exec 8>> "$STATE/.lock"
    flock -n 8 || in_use
    echo 'made by make run' > "$STATE/.stoa"
    chmod 755 "$STATE"
    for dir in redis nginx mail log run; do
        mkdir -p "$STATE/$dir"
    done
    : > "$STATE/run/children"
}

# PostgreSQL refuses to run as root; its superuser is whoever runs it
if [ "$(id -u)" = 0 ]; then
    AS_PG=(setpriv --reuid=postgres --regid=postgres --init-groups --)
    SUPER=postgres
else
    AS_PG=(env)
    SUPER=$(id -un)
fi

check_reach()
{
    "${AS_PG[@]}" test -x "$STATE" || die "the postgres user cannot reach" \
        "$STATE; give another folder with STATE=dir"
}

find_postgresql()
{
    local dir

    PGBIN=
    for dir in /usr/lib/postgresql/*/bin; do
        [ -x "$dir/initdb" ] || continue
        if [ -e "$STATE/pg/PG_VERSION" ]; then
            [ "${dir#/usr/lib/postgresql/}" \
                = "$(cat "$STATE/pg/PG_VERSION")/bin" ] && PGBIN=$dir
        else
            PGBIN=$dir
        fi
    done
    if [ -z "$PGBIN" ] && [ -e "$STATE/pg/PG_VERSION" ]; then
        die "$STATE holds data of PostgreSQL $(cat "$STATE/pg/PG_VERSION")," \
            "which is not installed; give another folder with STATE=dir"
    fi
    [ -n "$PGBIN" ] || die "PostgreSQL is not installed"
}

check_half_made()
{
    if [ -e "$STATE/run/made" ]; then
        for name in stoa.conf pg/PG_VERSION; do
            [ -e "$STATE/$name" ] || die "$STATE is damaged: $name is gone;" \
                "remove the folder or give another with STATE=dir"
        done
        return
    fi
    if [ -e "$STATE/run/making" ]; then
        die "$STATE is half-made, an earlier first start was cut short;" \
            "remove it (rm -r $STATE) or give another with STATE=dir"
    fi
}

# ---- settings ----

secret()
{
    od -An -N "$1" -tx1 /dev/urandom | tr -d ' \n'
}

make_settings()
{
    [ -e "$STATE/stoa.conf" ] && return
    (
        umask 077
        cat > "$STATE/stoa.conf.new" << END
# Made by make run with random secrets; yours to edit, it is never rewritten.
# Every setting: build/stoa check --help, conf/stoa.conf.
ENVIRONMENT=development

DB_HOST=$STATE/run/pg
DB_PORT=5432
DB_NAME=stoa
DB_USER=stoa_edge
DB_PASSWORD=$(secret 16)
DB_WORKER_USER=stoa_worker
DB_WORKER_PASSWORD=$(secret 16)
DB_OWNER_USER=stoa_owner
DB_OWNER_PASSWORD=$(secret 16)
DB_SSLMODE=disable

REDIS_HOST=$STATE/run/redis.sock

JWT_SECRET=$(secret 32)
TICKET_SEED=$(secret 32)
MAIL_DIR=$STATE/mail

# Any number of unpaid orders for one buyer: a load tool has few accounts.
HOLD_MAX_ORDERS=0
END
    )
    mv "$STATE/stoa.conf.new" "$STATE/stoa.conf"
}

setting()
{
    sed -n "s/^$1=//p" "$STATE/stoa.conf" | tail -n 1
}

# The environment wins over the file, and it may speak of the machine's own
# PostgreSQL or Redis: here the file alone counts, but for the address.
clean_environment()
{
    local key

    for key in $(sed -n 's/^STOA_CONF([a-z0-9_]*, "\([A-Z0-9_]*\)", *\(.*\)$/\1 \2/p' \
        "$ROOT/shared/stoa_conf.def" | grep -o '[A-Z][A-Z0-9_]\{3,\}') \
        PGPASSWORD PGPASSFILE PGSERVICE PGOPTIONS; do
        unset "$key" "${key}_FILE"
    done
    export STOA_CONF=$STATE/stoa.conf
    [ -n "$(setting PUBLIC_URL)" ] || export PUBLIC_URL="$URL"
    [ -n "$(setting EDGE_URL)" ] || export EDGE_URL="$URL"
}

# ---- children ----

# start NAME COMMAND...: in a process group of its own, so that a Ctrl-C of
# the terminal reaches this script only, which then stops them in order
start()
{
    local name=$1 pid

    shift
    set -m
    (
        # in $(...) it would be the pid of that
        pid=$BASHPID
        echo "$(boot) $name $pid $(began "$pid")" >> "$STATE/run/children"
        exec "$@" < /dev/null >> "$STATE/log/$name.log" 2>&1 7>&- 8>&-
    ) &
    PIDS+=("$name:$!")
    set +m
}

child()
{
    local entry

    for entry in "${PIDS[@]}"; do
        [ "${entry%%:*}" = "$1" ] && echo "${entry##*:}"
    done
}

running()
{
    kill -0 "$1" 2> /dev/null
}

# wait_for SECONDS NAME COMMAND...: until it succeeds or the child is gone
wait_for()
{
    local i n=$(($1 * 20)) name=$2

    shift 2
    for ((i = 0; i < n; i++)); do
        "$@" > /dev/null 2>&1 && return 0
        running "$(child "$name")" || return 1
        sleep 0.05
    done
    return 1
}

failed()
{
    echo "stoa: $1 failed; the end of $STATE/log/$2.log:" >&2
    tail -n 8 "$STATE/log/$2.log" >&2
    exit 1
}

stop_child()
{
    local name=$1 pid=$2 signal=$3 seconds=$4 i

    running "$pid" || return 0
    kill "-$signal" "$pid" 2> /dev/null || return 0
    for ((i = 0; i < seconds * 20; i++)); do
        running "$pid" || return 0
        sleep 0.05
    done
    kill -KILL -- "-$pid" 2> /dev/null || true
}

# the edge first, so that nothing new comes in; then who works, then stores
stop_all()
{
    local i entry name pid

    trap '' INT TERM HUP
    [ "$$" = "$ME" ] || return 0
    [ -n "$STOPPING" ] && return
    STOPPING=1
    for ((i = ${#PIDS[@]} - 1; i >= 0; i--)); do
        entry=${PIDS[$i]}
        name=${entry%%:*} pid=${entry##*:}
        case $name in
        edge) stop_child "$name" "$pid" QUIT 12 ;;
        workers) stop_child "$name" "$pid" TERM 30 ;;
        postgres) stop_child "$name" "$pid" INT 20 ;;
        *) stop_child "$name" "$pid" TERM 10 ;;
        esac
    done
    [ -z "$PORT_LOCK" ] || rm -f "$PORT_LOCK"
}

# ---- PostgreSQL ----

# the postgres user may not be allowed into the checkout
super()
{
    (cd / && "${AS_PG[@]}" "$PGBIN/psql" -X -q -A -t -v ON_ERROR_STOP=1 \
        -h "$STATE/run/pg" -U "$SUPER" "$@")
}

make_cluster()
{
    [ -e "$STATE/pg/PG_VERSION" ] && return
    say "making a private PostgreSQL in $STATE/pg"
    : > "$STATE/run/making"
    mkdir -m 700 "$STATE/pg"
    mkdir -p "$STATE/run/pg"
    [ "$(id -u)" != 0 ] || chown postgres: "$STATE/pg" "$STATE/run/pg"
    (cd / && "${AS_PG[@]}" "$PGBIN/initdb" -D "$STATE/pg" -U "$SUPER" \
        -E UTF8 --locale=C.UTF-8 --auth=reject) \
        > "$STATE/log/initdb.log" 2>&1 || failed initdb initdb
    "${AS_PG[@]}" tee "$STATE/pg/pg_hba.conf" > /dev/null << END
local all $SUPER peer
local all all scram-sha-256
END
    "${AS_PG[@]}" tee -a "$STATE/pg/postgresql.conf" > /dev/null << END

# of make run
listen_addresses = ''
unix_socket_directories = '$STATE/run/pg'
max_connections = 100
log_min_messages = warning
END
}

start_postgres()
{
    # a copied or moved STATE carries another folder in its settings
    grep -q "^unix_socket_directories = '$STATE/run/pg'$" \
        <("${AS_PG[@]}" cat "$STATE/pg/postgresql.conf") \
        || die "$STATE was made in another place; move it back or give" \
            "another folder with STATE=dir"
    cd /
    start postgres "${AS_PG[@]}" "$PGBIN/postgres" -D "$STATE/pg"
    cd "$ROOT"
    wait_for 60 postgres super -d postgres -c 'select 1' \
        || failed PostgreSQL postgres
}

# passwords come through standard input: arguments are seen by everybody
make_roles()
{
    [ -e "$STATE/run/made" ] && return
    super -d postgres << END || die "cannot make the roles"
create role stoa_owner login createrole password '$(setting DB_OWNER_PASSWORD)';
create role stoa_edge login password '$(setting DB_PASSWORD)';
create role stoa_worker login password '$(setting DB_WORKER_PASSWORD)';
create database stoa owner stoa_owner;
END
}

# ---- the other parts ----

start_redis()
{
    start redis redis-server --port 0 --unixsocket "$STATE/run/redis.sock" \
        --unixsocketperm 700 --dir "$STATE/redis" --appendonly yes \
        --appendfsync everysec --save '' --daemonize no
    wait_for 20 redis redis-cli -s "$STATE/run/redis.sock" ping \
        || failed Redis redis
}

make_edge_conf()
{
    local conf=$STATE/nginx/nginx.conf

    {
        [ "$(id -u)" != 0 ] || echo 'user root;'
        sed -e "s|@STATE@|$STATE|g" -e "s|@PORT@|$PORT|g" \
            -e "s|@WWW@|$ROOT/conf/www|g" -e "s|@MODULE@|$MODULE|g" \
            -e 's|@WORKERS@|1|g' "$TEMPLATE"
    } > "$conf"
}

# Whether it is our own edge that has the port: another that answers there
# would be given our demo data.
edge_listens()
{
    local pid hex where state inode

    pid=$(child edge)
    hex=$(printf '%04X' "$PORT")
    while read -r _ where _ state _ _ _ _ _ inode _; do
        case $where,$state in
        0100007F:"$hex",0A | 7F000001:"$hex",0A) ;;
        *) continue ;;
        esac
        [ -z "$(find "/proc/$pid/fd" -lname "socket:\[$inode\]" \
            2> /dev/null)" ] || return 0
    done < /proc/net/tcp
    return 1
}

edge_says_ready()
{
    edge_listens && curl -fs -m 2 -o /dev/null "$URL/health/ready"
}

start_edge()
{
    local nginx=/usr/sbin/nginx log=$STATE/log/nginx-error.log

    make_edge_conf
    "$nginx" -t -q -p "$STATE/nginx" -c "$STATE/nginx/nginx.conf" -e "$log" \
        > "$STATE/log/edge.log" 2>&1 || {
        cat "$STATE/log/edge.log" >&2
        die "the edge refuses its configuration $STATE/nginx/nginx.conf"
    }
    start edge "$nginx" -p "$STATE/nginx" -c "$STATE/nginx/nginx.conf" \
        -e "$log" -g 'daemon off;'
    wait_for 20 edge edge_says_ready || {
        edge_listens || port_is_free || port_is_taken
        tail -n 5 "$log" >&2
        failed 'the edge' edge
    }
}

migrate()
{
    "$STOA" migrate --dir "$ROOT/migrations" > "$STATE/log/migrate.log" 2>&1 \
        || failed 'the migration' migrate
}

load_demo()
{
    [ -e "$STATE/run/made" ] && return
    if [ "$(setting ENVIRONMENT)" != production ]; then
        say 'loading demo data'
        "$ROOT/conf/dev/demo.sh" "$URL" > "$STATE/log/demo.log" 2>&1 \
            || failed 'the demo data' demo
    fi
    mv "$STATE/run/making" "$STATE/run/made"
}

greet()
{
    local mails="mails: $URL/mail/" environment

    environment=$(setting ENVIRONMENT)
    : "${environment:=development}"
    [ "$PROFILE" = development ] || mails="mails: $STATE/mail/"
    [ -z "$(setting SMTP_HOST)" ] || mails="mails: by $(setting SMTP_HOST)"
    echo "ready $URL"
    echo
    if [ "$environment" != production ]; then
        cat << END
  admin@stoa.example       admin-demo-password
  organizer@stoa.example   organizer-demo-password
  attendee@stoa.example    attendee-demo-password
  scanner@stoa.example     scanner-demo-password

END
        [ "$PROFILE" = development ] || cat << END
PROFILE=production has a server's limits and pages, but $STATE/stoa.conf says
ENVIRONMENT=$environment: demo accounts and the test payments are still there.

END
    fi
    cat << END
Try:
  curl -s $URL/api/v1/events
END
    [ "$environment" = production ] || cat << END
  curl -s $URL/api/v1/auth/login -H 'Content-Type: application/json' -d '{"email":"attendee@stoa.example","password":"attendee-demo-password"}'
END
    cat << END
  xdg-open $URL/events/

Pages: $URL/events/  $mails  API: $URL/docs/
Settings and logs: $STATE   Ctrl-C stops everything.
END
}

# A signal to the foreground group comes twice, for make passes it on: an
# "exit" of the second one would cut the first one's stop_all short.
end_by_signal()
{
    [ -z "$ENDING" ] || return 0
    ENDING=1
    trap '' INT TERM HUP
    exit 0
}

# Waits for a signal or for the first child that ends.
watch()
{
    local entry

    while :; do
        wait -n || true
        for entry in "${PIDS[@]}"; do
            running "${entry##*:}" && continue
            echo "stoa: ${entry%%:*} ended by itself; see" \
                "$STATE/log/${entry%%:*}.log" >&2
            exit 1
        done
    done
}

main()
{
    URL=http://127.0.0.1:$PORT
    check_arguments
    check_folder
    trap stop_all EXIT
    take_port
    make_folders
    check_reach
    find_postgresql
    check_half_made

    trap end_by_signal INT TERM HUP

    make_settings
    clean_environment
    make_cluster
    start_postgres
    make_roles
    start_redis
    migrate
    start workers "$STOA" work
    start_edge
    load_demo
    running "$(child workers)" || failed 'the worker pool' workers
    greet
    watch
}

main
