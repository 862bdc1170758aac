#!/bin/busybox sh
# PID 1 of the router: three network cards, named after the links that they end, and a port for commands.
#
# One line of shell in, what it prints out, and then a line `done N` with its exit code.
export PATH=/bin
busybox mount -t proc none /proc
busybox mount -t sysfs none /sys
busybox mount -t devtmpfs none /dev
# All that is printed goes to the serial console, past the kernel's own log.
exec >/dev/ttyS0 2>&1
for module in @MODULES@; do
    busybox insmod /modules/$module || echo "router: cannot load $module"
done
# Busybox has an `ip` and a `tc` of its own, which can do less and which its shell prefers.
real='ip() { /bin/ip "$@"; }; tc() { /bin/tc "$@"; };'
ip link set eth0 name wa
ip link set eth1 name wb
ip link set eth2 name wc
ip link set lo up
busybox stty -F /dev/ttyS1 raw -echo
exec 3<>/dev/ttyS1
echo "done 0" >&3
while read -r line <&3; do
    busybox sh -c "$real $line" </dev/null >&3 2>&1
    echo "done $?" >&3
done
echo "router: the port has ended"
busybox sleep 1000000
