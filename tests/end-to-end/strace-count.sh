#!/bin/sh
# 10^5 and 10^6 messages between two spinning processes take the same number of system calls.
#   strace-count.sh STREAM [N_FEW N_MANY]
set -eu
stream=$1 few=${2:-100000} many=${3:-1000000}
command -v strace >/dev/null || { echo 'SKIP: strace is not installed'; exit 77; }
dir=$(mktemp -d)
trap 'rm -rf "$dir"' EXIT
strace -o "$dir/probe" true 2>/dev/null || { echo 'SKIP: strace may not trace here (ptrace refused)'; exit 77; }

count() { # N -> file with "calls name" per line; sleeping in wait() and exiting belong to the test
        strace -f -c -o "$dir/raw" "$stream" "$1" || { echo "FAIL: $stream $1 failed"; exit 1; }
        awk '$1 ~ /^[0-9.]+$/ && $NF != "total" && $NF !~ /^(wait4|restart_syscall)$/ {
                        print $4, $NF }' "$dir/raw" | sort -k2
}
count "$few" >"$dir/few"
count "$many" >"$dir/many"
total() { awk '{n += $1} END {print n}' "$1"; }
a=$(total "$dir/few") b=$(total "$dir/many")
echo "$few messages: $a system calls; $many messages: $b"
# Two processes that open one name at the same moment may try again once or wait for each other's lock: a few calls that
# have nothing to do with messages. One call per ten thousand messages would already be 90.
if [ $((a - b)) -gt 40 ] || [ $((b - a)) -gt 40 ]; then
        diff "$dir/few" "$dir/many" || :
        echo 'FAIL: the numbers differ'
        exit 1
fi
echo PASS
