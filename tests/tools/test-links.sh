#!/bin/sh
# psyne-stat links: what two psyne-cat show there, one that is refused, and what a pattern leaves.
#   test-links.sh PSYNE-STAT PSYNE-CAT
set -eu
stat=$(realpath "$1") cat=$(realpath "$2")
work=$(mktemp -d)
pids=
trap 'kill -9 $pids 2>/dev/null || true; rm -rf "$work"' EXIT
cd "$work"
export LC_ALL=C
fail() {
        echo "FAIL $1"
        cat ./*.err out 2>/dev/null
        exit 1
}
# await PATTERN COMMAND...: until its output has that
await() {
        pattern=$1 i=0
        shift
        until "$@" >out 2>/dev/null; grep -q "$pattern" out; do
                i=$((i + 1))
                [ $i -lt 200 ] || fail "no '$pattern' in $*"
                sleep 0.05
        done
}
port=$((20000 + $$ % 10000))
"$cat" -l "tcp://:$port/demo" >/dev/null 2>listen.err &
pids=$!
await "tcp://:$port/demo .* listens " "$stat" -H links "tcp://*:$port/*"
mkfifo pipe
"$cat" "tcp://127.0.0.1:$port/demo" <pipe 2>send.err &
pids="$pids $!"
exec 9>pipe
echo hello >&9
await "psyne-cat *tcp://127.0.0.1:$port/demo *> *tcp://127.0.0.1:$port/demo *127.0.0.1:$port *up " "$stat" -H links "tcp://127.0.0.1:$port/*"
await "psyne-cat *tcp://:$port/demo *< *tcp://:$port/demo *127.0.0.1:[0-9]* *up " "$stat" -H links "tcp://:$port/*"
await '"up": true' "$stat" -j links "tcp://:$port/demo"
"$stat" links "tcp://*:$port/*" 2>/dev/null | grep -q '^ *PID COMMAND' || fail "no heads"
"$stat" -q links "tcp://nowhere:1/*" >out 2>&1 && fail "a pattern that nothing fits" || r=$?
[ "$r" = 3 ] || [ "$r" = 4 ] || fail "exit status $r" # 4: another test's process is stopped just now
[ "$(wc -l <out)" = 1 ] || fail "a row that was not asked for"

"$cat" "tcp://127.0.0.1:$port/other" </dev/null 2>other.err &
pids="$pids $!"
await "tcp://127.0.0.1:$port/other .* ENOENT " "$stat" -H links "*/other" || grep -q "another" other.err || fail "nobody is refused"
exec 9>&-
echo ok
