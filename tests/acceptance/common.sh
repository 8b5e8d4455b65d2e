# Shared by the acceptance lines: where the build is, and how a ratio in psyne-bench's JSON is judged.
# Each line prints what it ran and what came out, then exits 0 = PASS, 1 = FAIL, 77 = SKIP (last line of output: why).
top=$(cd "$(dirname "$0")/../.." && pwd)
build=${PSYNE_BUILD:-$top/build/check}
failed=0

need_build() {
        [ -f "$build/build.ninja" ] || "$top/tools/packages" check
        [ -f "$build/build.ninja" ] || meson setup "$build" "$top" -Dtests=enabled >/dev/null
        ninja -C "$build" --quiet || exit 1
}

skip() {
        echo "$*"
        exit 77
}

# bench ARGUMENT...: one psyne-bench run into $json, the machine to itself
bench() {
        json=$(mktemp)
        echo "\$ psyne-bench $*"
        flock "${TMPDIR:-/tmp}/psyne-timed.lock" "$build/tools/psyne-bench" "$@" -q --json "$json" || { rm -f "$json"; exit 1; }
        for package in $(sed -n 's/.*"missing": \[\(.*\)\].*/\1/p' "$json" | grep -o 'lib[a-z0-9-]*-dev'); do
                echo "FAIL: a peer is missing, install $package"
                failed=1
        done
}

# field NAME < result line
field() {
        sed -n "s/.*\"$1\": \"\{0,1\}\([^,\"}]*\)\"\{0,1\}[,}].*/\1/p"
}

# rows SIZE IMPL CALLS MODE [BENCH]: the matching result lines
rows() {
        grep "\"size\": $1, \"impl\": \"$2\"" "$json" | grep "\"calls\": \"$3\"" | grep "\"mode\": \"$4\"" | grep "\"bench\": \"${5:-}"
}

# judge WHAT LINE FIELD OPERATOR TARGET [CLASS]: compares one ratio; a run on siblings of one core, or far cores, is no
# verdict where separate ones are asked for; any: where the CPUs do not matter
judge() {
        wanted=${6:-separate}
        value=$(printf '%s\n' "$2" | field "$3")
        class=$(printf '%s\n' "$2" | field class)
        n=$(printf '%s\n' "$2" | field n)
        if [ -z "$value" ] || [ "$value" = null ]; then
                echo "FAIL  $1: no figure ($3)"
                failed=1
                return
        fi
        if [ "$class" != "$wanted" ] && [ "$wanted" != any ]; then
                echo "SKIP  $1: $3 $value, but the CPUs were $class"
                skipped=1
                return
        fi
        if [ "${n:-0}" -lt 20 ]; then
                echo "FAIL  $1: $n slices, 20 are needed"
                failed=1
        elif awk "BEGIN { exit !($value $4 $5) }"; then
                echo "PASS  $1: $3 $value (target $4 $5, n $n)"
                judged=1
        else
                echo "FAIL  $1: $3 $value (target $4 $5, n $n)"
                failed=1
        fi
}
skipped=0
judged=0

verdict() {
        rm -f "${json:-}"
        [ $failed = 0 ] || exit 1
        [ $judged = 1 ] || [ $skipped = 0 ] || skip "the CPUs on offer were never separate cores"
        exit 0
}
