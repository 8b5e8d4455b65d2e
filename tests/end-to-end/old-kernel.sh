#!/bin/sh
# An honest old kernel: Debian's own for this release, booted in QEMU with nothing but these tests in memory. Its io_uring
# has no futex operations, so everything that waits has to do so in another way.
#
#   old-kernel.sh BUILD-DIR [CYCLES]    default 5,000 cycles of tests/end-to-end/wake-cycles
#
# Exit 77 without QEMU, busybox, cpio or a kernel to be had from Debian.
set -eu
build=$(cd "$1" && pwd)
cycles=${2:-5000}
skip() {
        echo "SKIP: $*"
        exit 77
}
for tool in qemu-system-x86_64 busybox cpio; do
        command -v $tool >/dev/null || skip "$tool is not installed (qemu-system-x86 busybox-static cpio)"
done
[ "$(uname -m)" = x86_64 ] || skip "written for x86_64"
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM HUP

package=$(apt-cache depends linux-image-amd64 2>/dev/null | awk '/Depends: linux-image/ { print $2 }')
[ -n "$package" ] || skip "no linux-image-amd64 in apt's lists"
(cd "$work" && apt-get download "$package" >/dev/null 2>&1 && dpkg -x ./*.deb kernel) || skip "$package cannot be downloaded"
kernel=$(echo "$work"/kernel/boot/vmlinuz-*)

# The tests, where their run paths expect them, and the libraries they need.
root=$work/root
mkdir -p "$root/bin" "$root/proc" "$root/sys" "$root/dev" "$root/tmp" "$root/etc"
echo root:x:0:0::/:/bin/sh >"$root/etc/passwd" # a file that is no directory: conformance, addresses
cp "$(command -v busybox)" "$root/bin/busybox"
ldd "$(command -v busybox)" >/dev/null 2>&1 && skip "busybox is not static (busybox-static)"
tests="$build/tests/conformance/test-conformance $build/tests/end-to-end/wake-cycles $build/tests/end-to-end/burst \
        $build/tests/end-to-end/loops $build/tests/end-to-end/deny $build/tests/end-to-end/kill $build/lib/example-epoll"
for file in $tests $(for t in $tests; do ldd "$t"; done | grep -o '/[^ ]*' | sort -u); do
        mkdir -p "$root/$(dirname "$file")"
        cp -L "$file" "$root/$file"
done

cat >"$root/init" <<END
#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sysfs /sys
mount -t devtmpfs dev /dev
mkdir -p /dev/shm
mount -t tmpfs shm /dev/shm
mount -t tmpfs tmp /tmp
ip link set lo up 2>/dev/null
echo 16 >/proc/sys/vm/nr_hugepages
echo "kernel \$(uname -r)"
run() {
        echo "\\\$ \$*"
        "\$@" >/tmp/out 2>&1
        r=\$?
        grep -v -e '^[a-z-]*: PSYNE_SEED' -e ':skip' /tmp/out | tail -n \${lines:-12}
        echo "=> \$r"
}
cd $build
run tests/end-to-end/deny none
run tests/end-to-end/burst
run tests/end-to-end/wake-cycles $cycles
run tests/end-to-end/loops lib/example-epoll 50000 2
run tests/end-to-end/kill random 50
lines=40 run env PSYNE_MOMENTS=250 tests/conformance/test-conformance -j4 --verbose=0
echo done
poweroff -f
END
chmod +x "$root/init"
(cd "$root" && find . | cpio -o -H newc --quiet | gzip -1) >"$work/initramfs"

# Emulated, two CPUs as two threads: where this itself is a virtual machine, nested virtualisation often does not boot.
echo "$package"
timeout "${limit:-1500}" qemu-system-x86_64 -accel tcg,thread=multi -cpu max -smp 2 -m 2048 -nographic -no-reboot -net none \
        -kernel "$kernel" -initrd "$work/initramfs" -append 'console=ttyS0 quiet panic=-1' </dev/null >"$work/log" 2>&1 || true
tr -d '\r' <"$work/log" | sed -n '/kernel [0-9]/,$p'
grep -q '^done' "$work/log" || { tail -20 "$work/log"; echo "FAIL: it did not get to the end"; exit 1; }
if tr -d '\r' <"$work/log" | grep '^=> ' | grep -qv '^=> 0$'; then
        echo "FAIL: not all passed"
        exit 1
fi
