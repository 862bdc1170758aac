#!/bin/busybox sh
# The first program of a guest whose root is on the disk: the network card gets its address from the kernel's
# command line (addr=10.1.0.10/24 gw=10.1.0.1), then the guest's programs take over.
bb=/bin/busybox
if (: >/dev/ttyS0) 2>/dev/null; then exec >/dev/ttyS0 2>&1; fi
$bb mount -t proc none /proc
$bb mount -t sysfs none /sys
for word in $($bb cat /proc/cmdline); do
    case $word in
        addr=*) addr=${word#addr=} ;;
        gw=*) gw=${word#gw=} ;;
    esac
done
$bb ip link set lo up
if [ -n "$addr" ]; then
    $bb ip link set eth0 up
    $bb ip addr add "$addr" dev eth0
fi
if [ -n "$gw" ]; then $bb ip route add default via "$gw"; fi
exec /bin/guest_service
