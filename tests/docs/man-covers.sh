#!/bin/sh
# The manual knows every call, every errno and every key:
#   - what psyne.h, info.h, vector.h and batch.h declare and the library exports stands in the NAME of a page of section 3, and a name
#     that is not its page's own is linked to it by lib/man/meson.build;
#   - no page has a name that is not declared;
#   - every errno in lib/*.c and in psyne.h's list stands in the errno list of psyne(7), and every one that a page of
#     section 3 promises too; every key of an address stands there as well.
#
#   man-covers.sh SOURCE-DIR
set -eu
export LC_ALL=C
cd "$1"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
fail=0
complain() {
        echo "$1" >&2
        fail=1
}

# Calls: the last identifier before the parenthesis of a declaration.
grep -ohE '^[a-z].*psyne_[a-z_]+\(' lib/psyne/psyne.h lib/psyne/info.h lib/psyne/vector.h lib/psyne/batch.h | grep -oE 'psyne_[a-z_]+\($' | tr -d '(' |
        sort -u >"$work/declared"
grep -oE 'psyne_[a-z_0-9]+;' lib/psyne.sym | tr -d ';' | sort -u >"$work/exported"
comm -12 "$work/declared" "$work/exported" >"$work/calls"
[ -s "$work/calls" ] || complain "no call found: the way psyne.h declares calls has changed"
for name in $(comm -23 "$work/declared" "$work/exported"); do
        complain "declared and not exported: $name"
done
for page in lib/man/*.3; do
        sed -n '/^\.SH NAME/,/^\.SH SYN/{/^\.SH/d;s/\\-.*//;p;}' "$page" | tr -s ', ' '\n\n' |
                sed -n "s|^psyne_.*|& $(basename "$page" .3)|p"
done | sort -u >"$work/names"
while read -r name page; do
        grep -qx "$name" "$work/declared" || complain "lib/man/$page.3 has $name, which is not declared"
        grep -q "'$name'" lib/man/meson.build || complain "lib/man/meson.build does not install $name"
        [ "$(awk -v n="$name" '$1 == n' "$work/names" | wc -l)" = 1 ] || complain "$name has several pages"
done <"$work/names"
while read -r name; do
        grep -q "^$name " "$work/names" || complain "no page in section 3 for $name"
done <"$work/calls"

# Errnos: in the tags of psyne(7)'s list, or in the sentence about those that stay inside.
sed -n '/^\.SH ERRORS/,/^\.SH ENVIRONMENT/p' lib/man/psyne.7 | grep -oE '\\-E[A-Z0-9]+' | tr -d '\\' | sort -u >"$work/known"
grep -ohE -e '-E[A-Z0-9]{3,}' lib/*.c lib/base/*.c lib/psyne/psyne.h | sort -u >"$work/used"
grep -ohE '\\-E[A-Z0-9]{3,}' lib/man/*.3 | tr -d '\\' | sort -u >>"$work/used"
[ -s "$work/used" ] || complain "no errno found in lib/"
for e in $(sort -u "$work/used"); do
        grep -qx -e "$e" "$work/known" || complain "psyne(7) does not explain $e"
done

# Keys of addresses.
for key in $(sed -n '/^static const struct key keys/,/^};/p' lib/uri.c | grep -oE '"[a-z]+"' | tr -d '"'); do
        grep -q "^\.BI $key= " lib/man/psyne.7 || complain "psyne(7) does not explain the key $key"
done
exit $fail
