#!/bin/sh
# The manual pages format without a warning, by whichever of man and mandoc is here; 77 (skip) when neither is.
#
#   man-lint.sh SOURCE-DIR
set -eu
cd "$1"
command -v mandoc >/dev/null || command -v groff >/dev/null || { echo "neither mandoc nor groff is installed"; exit 77; }
fail=0
for page in lib/man/*.[37] tools/man/*.1; do
        said=
        if command -v mandoc >/dev/null; then
                said=$(mandoc -Tlint -W warning "$page" 2>&1 | grep -v "missing date" || :)
        fi
        if command -v groff >/dev/null; then
                said=$said$(groff -man -Tutf8 -ww -z "$page" 2>&1 || :)
        fi
        [ -z "$said" ] || { echo "$page: $said" >&2; fail=1; }
done
exit $fail
