#!/bin/sh
# The examples of lib/examples/toolbox print what they should.
#
#   toolbox-examples.sh TENSOR
set -eu
printf '%s\n' '2 dimensions, float32, at a multiple of 64: yes' 'row 0: 6' 'row 1: 22' 'row 2: 38' | {
        got=$(mktemp)
        trap 'rm -f "$got"' EXIT
        timeout 20 "$1" >"$got"
        diff - "$got"
}
