#!/bin/sh
# psyne-cat in every mode: what goes in comes out, once, at everybody who should get it.
#   test-cat.sh PSYNE-CAT
set -eu
. "$(dirname "$0")/../support/stopped.sh"
cat=$(realpath "$1")
work=$(mktemp -d)
PSYNE_DIR=$(mktemp -d /dev/shm/psyne-cat-XXXXXX)
export PSYNE_DIR LC_ALL=C
trap 'rm -rf "$work" "$PSYNE_DIR"' EXIT
cd "$work"
fail() {
        echo "FAIL $1"
        exit 1
}
lines() { # WHO: 20,000 lines of various lengths
        awk -v who="$1" 'BEGIN { for (i = 0; i < 20000; i++) printf "%s %d %.*s\n", who, i, i % 70, "0123456789012345678901234567890123456789012345678901234567890123456789" }'
}
lines a >a
lines b >b
sort a b >both

# await PATTERN FILE: until somebody has written that there
await() {
        i=0
        until grep -q "$1" "$2" 2>/dev/null; do
                i=$((i + 1))
                [ $i -lt 1000 ] || fail "no '$1' in $2 after 10 s"
                sleep 0.01
        done
}

timeout -k 1 20 "$cat" -l 'ipc://one?size=64K' >out & r=$!
timeout -k 1 20 "$cat" -L 'ipc://one?size=64K' <a || fail 'spsc: the sender'
wait $r || fail 'spsc: the receiver'
cmp -s a out || fail 'spsc: what came is not what was sent'

# The second sender is there before the first may go: its input is held back until the first line has arrived.
timeout -k 1 20 "$cat" -l 'ipc://two?mode=mpsc&size=64K' >out & r=$!
{ await '^a 0' out; cat b; } | timeout -k 1 20 "$cat" -L 'ipc://two?mode=mpsc&size=64K' & s=$!
{ cat a; await '^b 0' out; } | timeout -k 1 20 "$cat" -L 'ipc://two?mode=mpsc&size=64K' || fail 'mpsc: the first sender'
wait $s || fail 'mpsc: the second sender'
wait $r || fail 'mpsc: the receiver'
sort out | cmp -s - both || fail 'mpsc: what came is not what was sent'
grep '^a' out | cmp -s a - || fail 'mpsc: the first sender is out of order'

readers=
for i in 1 2 3; do
        timeout -k 1 20 "$cat" -l 'ipc://shared?mode=spmc&size=64K' >out$i & readers="$readers $!"
done
i=0
until [ "$(ls "$PSYNE_DIR" | wc -l)" -ge 4 ] || [ $i -ge 500 ]; do i=$((i + 1)); sleep 0.01; done
timeout -k 1 20 "$cat" -L 'ipc://shared?mode=spmc&size=64K' <a || fail 'spmc: the sender'
for r in $readers; do wait "$r" || :; done
cat out1 out2 out3 | sort >out
sort a | cmp -s - out || fail 'spmc: the parts are not the whole'

rm -f out1 out2 # of the test before: they would pass for the first lines having come
timeout -k 1 20 "$cat" -l 'ipc://all?mode=broadcast&size=64K' >out1 & r1=$!
timeout -k 1 20 "$cat" -l -g named 'ipc://all?mode=broadcast&size=64K' >out2 & r2=$!
{ # the first lines are for those who are not there yet
        i=0
        until [ -s out1 ] && [ -s out2 ]; do
                i=$((i + 1)); [ $i -lt 1000 ] || exit 1
                echo early; sleep 0.01
        done
        cat a
} | timeout -k 1 20 "$cat" -L 'ipc://all?mode=broadcast&size=64K' || fail 'broadcast: the sender'
wait $r1 || fail 'broadcast: the first receiver'
wait $r2 || fail 'broadcast: the second receiver'
for i in 1 2; do grep -v early out$i | cmp -s a - || fail "broadcast: receiver $i"; done

# Stopped and continued while it waits, as by Ctrl-Z and fg: it goes on waiting, on either side.
"$cat" -l 'ipc://stopped?size=64K' >out & r=$!
stop_and_continue $r || { kill $r; fail 'a stopped receiver'; }
timeout -k 1 20 "$cat" -L 'ipc://stopped?size=64K' <a || fail 'stopped receiver: the sender'
wait $r || fail 'stopped receiver: the receiver'
cmp -s a out || fail 'stopped receiver: what came is not what was sent'
"$cat" -L 'ipc://stopped?size=64K' <a & s=$!
stop_and_continue $s || { kill $s; fail 'a stopped sender'; }
timeout -k 1 20 "$cat" -l 'ipc://stopped?size=64K' >out || fail 'stopped sender: the receiver'
wait $s || fail 'stopped sender: the sender'
cmp -s a out || fail 'stopped sender: what came is not what was sent'

for wrong in '-f later ipc://x' '-g .x -l ipc://x' '-l ipc://x?mode=every'; do
        # shellcheck disable=SC2086 # words are wanted
        if timeout -k 1 5 "$cat" $wrong >/dev/null 2>err </dev/null; then fail "accepted: $wrong"; fi
        [ -s err ] || fail "no word about: $wrong"
done
left=$(ls "$PSYNE_DIR")
[ -z "$left" ] || fail "left behind: $left"
echo ok
