#!/bin/sh
# Every relative link in the Markdown pages leads to something.
#
#   links.sh SOURCE-DIR
set -eu
cd "$1"
bad=0
for page in *.md lib/*.md shm/*.md uring/*.md benchmarks/*.md tests/*.md; do
        [ -e "$page" ] || continue
        for link in $(grep -o '](\([^)# ]*\)' "$page" | cut -c3- | sort -u); do
                case $link in *://* | '') continue ;; esac
                [ -e "$(dirname "$page")/$link" ] || { echo "$page: $link does not exist" >&2; bad=1; }
        done
done
exit $bad
