#!/bin/sh
# psyne-stat as its users meet it: columns, exit statuses, streams, and what it does not do.
#
#       test-stat.sh PSYNE_STAT STAT_CHANNELS
#
# MUTANTS (default 600) damaged files are shown as text and as JSON. PSYNE_SEED repeats a run.
set -u
stat=$1
channels=$2
mutants=${MUTANTS:-600}
seed=${PSYNE_SEED:-$(date +%s)}
base=$(mktemp -d /dev/shm/psyne-test-stat-sh-XXXXXX) || exit 1
dir=$base/dir
failed=0
owner=
. "$(dirname "$0")/../support/stopped.sh"
unset NO_COLOR PSYNE_DIR
mkdir "$dir"

cleanup() {
        [ -n "$owner" ] && kill -9 "$owner" 2>/dev/null
        exec 9>&-
        rm -rf "$base"
}
trap cleanup EXIT

fail() {
        echo "not ok: $*" >&2
        failed=1
}

# status WANTED ARGUMENTS...: runs psyne-stat, output in $base/out and $base/err
status() {
        wanted=$1
        shift
        timeout 60 "$stat" "$@" >"$base/out" 2>"$base/err" </dev/null
        got=$?
        [ $got -eq "$wanted" ] || fail "psyne-stat $*: exit status $got, not $wanted: $(cat "$base/err")"
}

has() {
        grep -q -e "$2" "$base/$1" || fail "no \"$2\" in: $(cat "$base/$1")"
}

lacks() {
        [ -s "$base/$1" ] && fail "unexpected: $(cat "$base/$1")"
}

clean() {
        # printable ASCII, line ends: nothing that a terminal obeys
        if LC_ALL=C tr -d '\012\040-\176' <"$base/$1" | grep -q .; then
                fail "$2: control characters in $1"
        fi
}

json() {
        if [ -n "$parser" ]; then
                $parser "$base/out" || fail "not JSON: $*"
        fi
}

if command -v node >/dev/null; then
        cat >"$base/parse.js" <<'END'
const fs = require("fs"), d = JSON.parse(fs.readFileSync(process.argv[2], "utf8"));
if (d.schema !== "psyne-stat/1" || !d.monotonic_ns || !d.realtime_ns || !Array.isArray(d.channels)) process.exit(1);
END
        parser="node $base/parse.js"
elif command -v python3 >/dev/null; then
        cat >"$base/parse.py" <<'END'
import json, sys
d = json.load(open(sys.argv[1]))
sys.exit(d["schema"] != "psyne-stat/1" or not d["monotonic_ns"] or not d["realtime_ns"] or type(d["channels"]) != list)
END
        parser="python3 $base/parse.py"
else
        echo "skipped: JSON is not parsed, neither node nor python3 is here"
        parser=
fi

# ---- an empty world ----

status 0 -d "$base/none" list
has out '^CHANNEL MODE ST SENT RECV LAG OCC% PEERS PAGE WAKE NODE AGE$'
has err 'does not exist'
[ -e "$base/none" ] && fail "it made a directory"
status 0 -q -d "$base/none"
lacks err
status 0 -H -d "$dir"
lacks out
status 3 -d "$dir" list nobody
has err "matches nobody"
status 3 -q -d "$dir" show nobody
lacks err
PSYNE_DIR=$base/elsewhere status 0 list
[ -e "$base/elsewhere" ] && fail "it made PSYNE_DIR"
status 0 --json -d "$dir"
json an empty list
status 1 -d /dev/null
has err 'is not a directory'

# ---- usage ----

status 0 --help
has out '^  list'
lacks err
status 0 --version
has out '^psyne-stat [0-9]'
for misuse in --bogus -Z --dir --color=perhaps "-d $dir -d $dir" frobnicate; do
        # shellcheck disable=SC2086
        status 2 $misuse
        lacks out
        has err '^psyne-stat: '
done

# ---- a live channel ----

mkfifo "$base/hold"
"$channels" live "$dir" "$base/ready" <"$base/hold" &
owner=$!
exec 9>"$base/hold"
n=0
while [ ! -e "$base/ready" ] && [ $n -lt 200 ]; do
        sleep 0.05
        n=$((n + 1))
done
[ -e "$base/ready" ] || fail "the channel did not come up"
n=0
while [ $n -lt 200 ]; do # until the consumer sleeps
        status 0 -H -d "$dir" list
        grep -q '^live *spsc *[A-Z]*W' "$base/out" && break
        sleep 0.05
        n=$((n + 1))
done
has out '^live *spsc *W[D]* *1\.23k *1\.23k *0 *0 *1>1 *4K '
status 0 -d "$dir" show live
has out 'sent 1234, received 1234'
has out 'asleep for'
has out '^ asked and obtained$'
has out "pid $owner"
status 0 -d "$dir" --json show 'l*'
json show
has out '"messages_sent": 1234,'
status 0 -d "$dir" --json list live
json list
PSYNE_DIR=$dir status 0 list live.psy
has out '^live '

# It runs while its owner is stopped, in bounded time.
kill -STOP "$owner"
until_state "$owner" T || fail "the owner does not stop"
status 0 -d "$dir" show live
has out 'stopped'
status 0 -H -d "$dir"
has out ' 1>1 '
kill -CONT "$owner"

# ---- streams ----

status 0 --color=always -d "$dir"
has out "$(printf '\033')"
status 0 --color=auto -d "$dir"
clean out "a file is not a terminal"
NO_COLOR=1 status 0 --color=never -d "$dir"
clean out "no colour"
if [ -e /dev/full ]; then
        timeout 60 "$stat" -d "$dir" >/dev/full 2>"$base/err"
        [ $? -eq 1 ] || fail "a full device went unnoticed"
        has err 'standard output'
fi
# The reader is gone before it writes; its parent had SIGPIPE ignored, which is inherited.
(trap '' PIPE; sleep 0.5; "$stat" -d "$dir" show 2>"$base/err" 9>&-; echo $? >"$base/status") | true
n=0
while [ ! -s "$base/status" ] && [ $n -lt 200 ]; do
        sleep 0.05
        n=$((n + 1))
done
lacks err
[ "$(cat "$base/status")" = 141 ] || fail "a closed pipe: exit status $(cat "$base/status"), not that of SIGPIPE"

# A locale with a decimal comma changes nothing.
LC_ALL=de_DE.UTF-8 status 0 -H -d "$dir"
has out ' 1\.23k '

# ---- what it asks the kernel for ----

if ! command -v strace >/dev/null; then
        echo "skipped: system calls are not looked at, strace is not here"
elif ! strace -o /dev/null true 2>/dev/null; then
        echo "skipped: system calls are not looked at, strace may not trace here"
else
        before=$(stat -c '%y %z %s' "$dir/live.psy" "$dir")
        ASAN_OPTIONS=detect_leaks=0 strace -y -o "$base/trace" "$stat" -d "$dir" show >/dev/null || fail "under strace"
        [ "$before" = "$(stat -c '%y %z %s' "$dir/live.psy" "$dir")" ] || fail "it changed the file or the directory"
        grep -F "/live.psy>" "$base/trace" >"$base/calls"
        grep -q '^pread64(' "$base/calls" || fail "no pread of the control file"
        if grep -v -E '^(pread64|fstat|newfstatat|statx|close)\(|^fcntl\([^,]*, F_OFD_GETLK,|^openat\(.*O_RDONLY' \
                "$base/calls"; then
                fail "the control file is touched by other calls than open, fstat, pread, F_OFD_GETLK and close"
        fi
        awk -F', ' '/^pread64/ { n = $NF; sub(/\).*/, "", n); if (n % 64) bad = 1 } END { exit bad }' "$base/calls" ||
                fail "a pread that does not start at a line"
        changes='mkdir|mkdirat|unlink|unlinkat|rename|renameat2?|kill|tgkill|ptrace|linkat|ftruncate'
        if grep -E "^($changes)\(" "$base/trace"; then
                fail "it changes something"
        fi
        if grep -E '^openat\(.*O_(WRONLY|RDWR|CREAT|TMPFILE)' "$base/trace"; then
                fail "it opens something for writing"
        fi
fi

# ---- hostile files ----

mkdir "$base/evil" "$base/mutants"
"$channels" evil "$dir/live.psy" "$base/evil" || fail "no evil files"
head -c 5000 "$dir/live.psy" >"$base/evil/short.psy"
status 4 -d "$base/evil"
has out '^short *- *E '
has err '^psyne-stat: short: '
clean out list
clean err list
status 4 -d "$base/evil" show
clean out show
clean err show
status 4 -d "$base/evil" --json show
clean out json
json evil
status 0 -q -d "$base/evil" list evil

echo "PSYNE_SEED=$seed"
"$channels" mutate "$dir/live.psy" "$base/mutants" "$seed" "$mutants" || fail "no mutants"
for command in "list" "show" "--json show"; do
        # shellcheck disable=SC2086
        timeout 120 "$stat" -d "$base/mutants" $command >"$base/out" 2>"$base/err"
        got=$?
        [ $got -eq 0 ] || [ $got -eq 4 ] ||
                fail "mutants of PSYNE_SEED=$seed, $command: exit status $got: $(tail "$base/err")"
        clean out "mutants of PSYNE_SEED=$seed, $command"
        clean err "mutants of PSYNE_SEED=$seed, $command"
done
json mutants of PSYNE_SEED="$seed"

# ---- the dead ----

exec 9>&-
kill -9 "$owner"
wait "$owner" 2>/dev/null
n=0
while [ $n -lt 200 ]; do # its child goes with it
        status 0 -H -d "$dir"
        grep -q '^live *spsc *X ' "$base/out" && break
        sleep 0.05
        n=$((n + 1))
done
owner=
has out '^live *spsc *X *1\.23k *1\.23k *0 *0 *0!>0! '
mv "$dir/live.psy" "$dir/live.dead"
status 0 -H -d "$dir"
has out '^live\.dead *spsc *X '
status 3 -d "$dir" show live
status 0 -d "$dir" show live.dead
has out 'post-mortem'
has out 'nobody is in it any more'

[ $failed -eq 0 ] && echo "ok"
exit $failed
