# PID 1 of a site: builds the only files that the site can see, then reaps and waits for the end of its input.
#
# Arguments: the mount point for the new root, the site's own directory, its name, the directory that must not
# be seen, and what is shared with the host, read-only.
root=$1 own=$2 name=$3 covered=$4
shift 4
echo "$name" >/proc/sys/kernel/hostname
mount -t tmpfs -o mode=755 site "$root"
cd "$root"
for path; do
    if [ -L "$path" ]; then
        ln -s "$(readlink "$path")" ".$path"
    elif [ -d "$path" ]; then
        mkdir -p ".$path"
        mount --bind -o ro "$path" ".$path"
    fi
done
# The site's files may lie below something that is shared.
if [ -d ".$covered" ]; then mount -t tmpfs covered ".$covered"; fi
mkdir -p proc sys run tmp var/tmp root dev/net dev/shm dev/pts site old
for node in null zero full random urandom kvm fuse net/tun vhost-net; do
    [ -c "/dev/$node" ] || continue
    : >"dev/$node"
    mount --bind "/dev/$node" "dev/$node"
done
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
ln -s /proc/self/fd dev/fd
mount -t tmpfs shm dev/shm
mount -t proc proc proc
mount -t sysfs sys sys
mount --bind "$own" site
# Any host can be a router; it does not ask which way a packet should have come, and answers nobody in IPv6.
for of in all default; do
    echo 0 >/proc/sys/net/ipv4/conf/$of/rp_filter
    if [ -d /proc/sys/net/ipv6 ]; then echo 1 >/proc/sys/net/ipv6/conf/$of/disable_ipv6; fi
done
echo 1 >/proc/sys/net/ipv4/ip_forward
pivot_root . old
cd /
umount -l /old
rmdir /old
echo ready
# With the signal ignored the kernel reaps the orphans itself. (The shell would not pass that on.)
exec env --ignore-signal=CHLD cat
