#!/bin/sh
# psyne-bench modes, for a moment: every row of the matrix is there and was measured, and nobody lost a message or got
# one twice, other libraries' queues included where their adapters are built.
#   test-modes.sh PSYNE-BENCH
set -eu
bench=$1
export LC_ALL=C
[ "$(nproc)" -ge 2 ] || { echo 'one CPU only'; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail() {
        echo "FAIL $1"
        cat "$work/text"
        exit 1
}

# run ARGUMENT...: into $work/json, one line per row. Again where the CPUs changed places during every round of a table.
run() {
        for try in 1 2 3 4 5 6; do
                timeout -k 1 100 "$bench" modes --rounds 1 -t 1 --ring 64K -q --json "$work/json" "$@" >"$work/text" 2>&1 ||
                        fail "exit $?: modes $*"
                grep 'no figures' "$work/text" || break
                [ "$try" -lt 6 ] || { echo 'the CPUs change places in every round'; exit 77; }
        done
        rows=$(grep '"bench": "modes"' "$work/json") || fail "no rows: modes $*"
        if printf '%s\n' "$rows" | grep -v '"damaged": 0,'; then fail 'lost, damaged or repeated'; fi
        if printf '%s\n' "$rows" | grep '"median": null'; then fail 'a row without a figure'; fi
}

# expect CHANNEL SHAPE CALLS PREFETCH [TABLE]: one row of psyne
expect() {
        n=$(printf '%s\n' "$rows" | grep '"impl": "psyne"' | grep "\"calls\": \"$3\"" |
                grep -c "\"table\": \"${5:-$2}\", \"channel\": \"$1\", \"shape\": \"$2\", \"prefetch\": $4,") || :
        [ "$n" = 1 ] || fail "$n rows instead of one: $1 $2 $3, prefetch $4"
}
shared() { # CHANNEL SHAPE [TABLE]
        expect "$1" "$2" single 1 "${3:-$2}"
        expect "$1" "$2" single 16 "${3:-$2}"
        expect "$1" "$2" bulk 0 "${3:-$2}"
}
plain() {
        expect "$1" "$2" single 0 "${3:-$2}"
        expect "$1" "$2" bulk 0 "${3:-$2}"
}

run -p none
plain spsc 1x1
for shape in 1x1 2x1; do plain mpsc $shape; done
for shape in 1x1 1x2; do shared spmc $shape; done
for shape in 1x1 2x1 1x2 2x2 4x4; do shared mpmc $shape; plain broadcast $shape; done
shared mpmc 2x2 4x4
plain broadcast 2x2 4x4
[ "$(printf '%s\n' "$rows" | wc -l)" = 42 ] || fail "$(printf '%s\n' "$rows" | wc -l) rows"

# Between processes, messages of another size, and the peers that are here.
run --processes --shape 2x2 --shape 3x1 -s 200 -p none
shared mpmc 2x2
plain mpsc 3x1
run --shape 2x1 --shape 2x2
plain mpsc 2x1
shared mpmc 2x2
for wrong in '--shape 0x1' '--shape 1x17' '--shape 2' '--shape 1x1x1'; do
        # shellcheck disable=SC2086 # words are wanted
        if "$bench" modes $wrong >"$work/text" 2>&1; then fail "accepted: $wrong"; fi
done
echo ok
