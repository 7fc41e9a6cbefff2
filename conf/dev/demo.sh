#!/usr/bin/env bash
#
# demo.sh URL: loads the demo data of make run into a fresh application, the
# way people would: accounts by stoa user add, everything else through the
# API, so that tickets carry real codes and mails real tickets.  STOA_CONF
# names the settings.  Called once, before the first "ready"; never where
# ENVIRONMENT is production.
#
# What it makes: the four accounts that make run prints, some people with
# orders, and three events: a free one, a paid one, a sold-out one.

set -eu

URL=$1
API=$URL/api/v1
STOA=$(cd "$(dirname "$0")/../.." && pwd)/build/stoa

die()
{
    echo "demo: $*" >&2
    exit 1
}

# the first member of that name; enough for answers that this script knows
pick()
{
    grep -o "\"$1\" *: *\"[^\"]*\"" | head -n 1 | cut -d '"' -f 4
}

# call METHOD PATH TOKEN [BODY]: the answer, or the end
call()
{
    local answer status

    answer=$(curl -sS -m 30 -w '\n%{http_code}' -X "$1" "$API$2" \
        ${3:+-H "Authorization: Bearer $3"} \
        ${4:+-H 'Content-Type: application/json' -d "$4"})
    status=${answer##*$'\n'}
    case $status in
    2??) echo "${answer%$'\n'*}" ;;
    *) die "$1 $2 says $status: ${answer%$'\n'*}" ;;
    esac
}

# account NAME ROLE FIRST LAST
account()
{
    echo "$1-demo-password" | "$STOA" user add "$1@stoa.example" \
        --role "$2" --password-stdin --first "$3" --last "$4" > /dev/null \
        || die "cannot add $1@stoa.example"
}

sign_in()
{
    call POST /auth/login '' "{\"email\": \"$1@stoa.example\",
        \"password\": \"$1-demo-password\"}" | pick accessToken
}

# day N: noon UTC in N days
day()
{
    date -u -d "$1 days" +%Y-%m-%dT12:00:00Z
}

# event TITLE DAYS LOCATION CAPACITY DESCRIPTION: its id
event()
{
    call POST /events "$ORGANIZER" "{\"title\": \"$1\",
        \"startsAt\": \"$(day "$2")\", \"endsAt\": \"$(date -u \
        -d "$2 days" +%Y-%m-%dT16:00:00Z)\", \"timezone\": \"Europe/Athens\",
        \"location\": \"$3\", \"capacity\": $4, \"currency\": \"EUR\",
        \"description\": \"$5\"}" | pick id
}

# type EVENT NAME CENTS QUOTA: its id
type()
{
    call POST "/events/$1/ticket-types" "$ORGANIZER" "{\"name\": \"$2\",
        \"priceCents\": $3, \"quota\": $4, \"maxPerOrder\": 10}" | pick id
}

publish()
{
    call POST "/events/$1/publish" "$ORGANIZER" > /dev/null
}

# order TOKEN TYPE QUANTITY: its id
order()
{
    call POST /orders "$1" "{\"items\": [{\"ticketTypeId\": \"$2\",
        \"quantity\": $3}]}" | pick id
}

pay()
{
    curl -sS -m 30 -o /dev/null -d action=pay "$URL/pay/$1" \
        || die "cannot pay order $1"
}

account admin admin Ada Archon
account organizer organizer Orestes Organizer
account attendee member Attia Attendee
account scanner scanner Skyla Scanner
for name in bion cleo dion elpis; do
    account $name member "${name^}" Guest
done

ORGANIZER=$(sign_in organizer)
ATTENDEE=$(sign_in attendee)

courtyard=$(event 'Courtyard Concert' 14 'Stoa of Attalos, Athens' 200 \
    'An hour of strings under the colonnade. Free; please take a ticket.')
symposium=$(event 'Symposium on Small Machines' 30 'Painted Stoa, Athens' 120 \
    'Two talks, one panel, and supper.')
lamplight=$(event 'Lamplight Walk' 7 'Dipylon Gate, Athens' 8 \
    'Eight people, one guide, and the old road after dark.')

seat=$(type "$courtyard" 'Seat' 0 180)
standard=$(type "$symposium" 'Standard' 4900 100)
early=$(type "$symposium" 'Early bird' 3500 20)
walk=$(type "$lamplight" 'Place' 0 8)
publish "$courtyard"
publish "$symposium"
publish "$lamplight"

# who stands at the doors
for id in "$courtyard" "$symposium" "$lamplight"; do
    call POST "/events/$id/staff" "$ORGANIZER" \
        '{"email": "scanner@stoa.example", "relation": "scan"}' > /dev/null
done

order "$ATTENDEE" "$walk" 2 > /dev/null
for name in bion cleo dion elpis; do
    token=$(sign_in $name)
    order "$token" "$seat" 2 > /dev/null
    pay "$(order "$token" "$early" 1)"
    case $name in
    bion | cleo | dion) order "$token" "$walk" 2 > /dev/null ;;
    elpis) order "$token" "$standard" 1 > /dev/null ;; # left unpaid
    esac
done
pay "$(order "$ATTENDEE" "$standard" 1)"
