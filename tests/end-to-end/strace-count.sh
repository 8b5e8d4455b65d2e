#!/bin/sh
# 10^5 and 10^6 messages between two spinning processes take the same number of system calls, of every kind.
#   strace-count.sh STREAM [N_FEW N_MANY]
#
# The two join each other at the same time, and who connects first or has to wait for a lock decides over a few calls.
# So each number is the least of three runs, and may differ by JITTER; one call in a thousand messages would be 900.
set -eu
JITTER=10
stream=$1 few=${2:-100000} many=${3:-1000000}
command -v strace >/dev/null || { echo 'SKIP: strace is not installed'; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
strace -o "$dir/probe" true 2>/dev/null || { echo 'SKIP: strace may not trace here (ptrace refused)'; exit 77; }

for n in "$few" "$many"; do
        for run in 1 2 3; do
                strace -f -c -o "$dir/$n.$run" "$stream" "$n" || { echo "FAIL: $stream $n failed"; exit 1; }
        done
        # Waiting for the children and being woken from that belong to the test. Columns: % seconds usecs calls [errors] name.
        awk '$1 ~ /^[0-9.]+$/ && $NF !~ /^(total|wait4|restart_syscall)$/ {
                        if (!($NF in least) || $4 < least[$NF]) least[$NF] = $4
                        runs[$NF]++ }
             END {for (name in least) print name, (runs[name] < 3 ? 0 : least[name])}' "$dir/$n".? | sort >"$dir/$n"
done
awk -v jitter=$JITTER -v few="$few" -v many="$many" '
        FNR == NR {first[$1] = $2; total_first += $2; next}
        {second[$1] = $2; total_second += $2}
        END {
                for (name in first) seen[name]
                for (name in second) seen[name]
                for (name in seen) {
                        differ = second[name] - first[name]
                        if (differ > jitter || -differ > jitter) {
                                printf "%s: %d calls and %d\n", name, first[name], second[name]
                                bad = 1
                        }
                }
                printf "%d messages: %d system calls; %d messages: %d\n", few, total_first, many, total_second
                print bad ? "FAIL: the number depends on the messages" : "PASS"
                exit bad
        }' "$dir/$few" "$dir/$many"
