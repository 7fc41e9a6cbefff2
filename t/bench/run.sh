#!/bin/sh
# Runs the bench on the release build.  ROWS picks rows by name, e.g.
# "check,admit"; empty: all but the slow ones (size, rss).
set -eu
cd "$(dirname "$0")/../.."
exec env STOA_BUILD=build conf/dev/node.sh t/bench/bench.js "${1:-}"
