#!/bin/sh
# 10^5 and 10^6 messages between two spinning processes take the same number of system calls, of any thread: next to none.
#   strace-count.sh STREAM [N_FEW N_MANY]
#
# Counted is what happens while both are at their messages: from the second getppid() to the third of the four. A service
# thread that is late with its part of joining may fall into it, so the number is the least of three runs, and may differ
# by JITTER; one call in a thousand messages would be 900.
set -eu
JITTER=10
stream=$1 few=${2:-100000} many=${3:-1000000}
command -v strace >/dev/null || { echo 'SKIP: strace is not installed'; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
strace -o "$dir/probe" true 2>/dev/null || { echo 'SKIP: strace may not trace here (ptrace refused)'; exit 77; }

for n in "$few" "$many"; do
        for run in 1 2 3; do
                strace -f -o "$dir/$n.$run" "$stream" "$n" || { echo "FAIL: $stream $n failed"; exit 1; }
                awk '/ getppid\(/ {marks++; next}
                     marks == 2 && !/ resumed>| \+\+\+ | --- / {calls++; print >"/dev/stderr"}
                     END {if (marks != 4) {print "FAIL: " marks + 0 " marks, not 4"; exit 1}; print calls + 0}' \
                        "$dir/$n.$run" >"$dir/calls.$n.$run" 2>"$dir/which.$n.$run" || { cat "$dir/calls.$n.$run"; exit 1; }
        done
        least=$(cat "$dir/calls.$n."? | sort -n | head -n 1)
        echo "$n messages: $least system calls"
        [ "$n" = "$few" ] && first=$least
done
if [ $((least - first)) -gt $JITTER ] || [ $((first - least)) -gt $JITTER ]; then
        head -n 20 "$dir/which.$many.1"
        echo 'FAIL: the number depends on the messages'
        exit 1
fi
echo PASS
