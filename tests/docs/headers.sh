#!/bin/sh
# Every installed header can be included alone, by C11 and by C++11 programs that mind their warnings.
#
#   headers.sh SOURCE-DIR
set -eu
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
try() {
        command -v "$1" >/dev/null || { echo "$1 is missing: not tried"; return 0; }
        "$@" -Wall -Wextra -Wpedantic -Wconversion -Werror -fsyntax-only -I"$src/lib" "$work/alone"
}
src=$1
for header in "$src"/lib/psyne/*.h; do
        name=$(basename "$header")
        [ "$name" != inline.h ] || continue # a part of psyne.h
        printf '#include <psyne/%s>\nint main(void) { return 0; }\n' "$name" >"$work/alone"
        try cc -std=c11 -Wshadow -x c
        try c++ -std=c++11 -x c++ # -Wshadow minds a struct and a call of one name, as stat is
done
