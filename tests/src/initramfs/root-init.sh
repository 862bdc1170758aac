#!/bin/busybox sh
# The first program of a guest whose root is on the disk under test.
bb=/bin/busybox
exec >/dev/ttyS0 2>&1
$bb mount -t proc none /proc
echo "guest: ready"
/bin/guest_writer write /data/w "${1:-$slots}"
echo "guest: the writer has ended"
$bb sleep 1000000
