#!/bin/sh
# The C blocks of README.md are the example programs, byte for byte, and those programs do what the page says.
#
#   readme-examples.sh SOURCE-DIR [SENDER RECEIVER PIPELINE]
#
# A block belongs to the file that the comment in front of it names; a C block without one, or an example that no
# block shows, fails. With the two built programs, the receiver has to print 0 to 9, whichever of them starts first, and
# also when that one was stopped and continued while it waited; the pipeline the squares of the even ones of them.
set -eu
src=$1
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

awk -v to="$work" '
        /^<!-- lib\/examples\/.* -->$/ { name = $2; sub(/.*\//, "", name); next }
        /^```c$/ { if (name == "") { print "README.md:" NR ": a C block that names no example" > "/dev/stderr"; bad = 1 }
                   file = to "/" name; inside = name != ""; name = ""; if (inside) printf "" > file; next }
        /^```/ { inside = 0; next }
        inside { print > file }
        END { exit bad }
' "$src/README.md"

for example in "$src"/lib/examples/*.c; do
        name=$(basename "$example")
        [ -e "$work/$name" ] || { echo "README.md shows no lib/examples/$name" >&2; exit 1; }
        diff -u "$example" "$work/$name"
        lines=$(grep -c . "$example")
        [ "$lines" -le "$([ "$name" = pipeline.c ] && echo 36 || echo 24)" ] || { echo "lib/examples/$name has $lines lines: too many for twenty" >&2; exit 1; }
done
for example in "$src"/lib/examples/loops/*.c; do
        lines=$(grep -c . "$example")
        [ "$lines" -lt 60 ] || { echo "$example has $lines lines: too many for an example" >&2; exit 1; }
done
[ $# -ge 4 ] || exit 0
timeout 20 "$4" >"$work/got"
printf '%s\n' 0 4 16 36 64 | diff - "$work/got"

PSYNE_DIR=$(mktemp -d /dev/shm/psyne-docs.XXXXXX)
export PSYNE_DIR
trap 'rm -rf "$work" "$PSYNE_DIR"' EXIT
seq 0 9 >"$work/want"

timeout 20 "$2" & sender=$!
timeout 20 "$3" >"$work/got"
wait $sender
diff "$work/want" "$work/got"

timeout 20 "$3" >"$work/got" & receiver=$!
timeout 20 "$2"
wait $receiver
diff "$work/want" "$work/got"
. "$(dirname "$0")/../support/stopped.sh"
for first in 2 3; do
        if [ $first = 2 ]; then
                "$2" & waiting=$!
        else
                "$3" >"$work/got" & waiting=$!
        fi
        stop_and_continue $waiting || { kill $waiting; exit 1; }
        if [ $first = 2 ]; then timeout 20 "$3" >"$work/got"; else timeout 20 "$2"; fi
        wait $waiting
        diff "$work/want" "$work/got"
done
left=$(ls "$PSYNE_DIR")
[ -z "$left" ] || { echo "left behind in the directory: $left" >&2; exit 1; }
