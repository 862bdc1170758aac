#!/bin/busybox sh
bb=/bin/busybox
$bb mount -t proc none /proc
$bb mount -t sysfs none /sys
$bb mount -t devtmpfs none /dev
# All that is printed goes to the serial console, past the kernel's own log.
if (: >/dev/ttyS0) 2>/dev/null; then exec >/dev/ttyS0 2>&1; fi
for module in @MODULES@; do
    $bb insmod /modules/$module || echo "guest: cannot load $module"
done
until [ -b /dev/vda ]; do $bb sleep 0.1; done
for word in $($bb cat /proc/cmdline); do
    case $word in
        slots=*) slots=${word#slots=} ;;
        disk=*) disk=${word#disk=} ;;
    esac
done
if [ "$disk" = root ]; then
    $bb mount -t ext4 /dev/vda /root || echo "guest: cannot mount its root"
    $bb mount -t devtmpfs none /root/dev
    $bb umount /proc /sys
    exec $bb switch_root /root /sbin/init $slots
fi
echo "guest: ready"
/bin/guest_writer write /dev/vda $slots
echo "guest: the writer has ended"
$bb sleep 1000000
