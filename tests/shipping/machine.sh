# Becomes systemd, as the first process of a Debian machine that is this one with other files on top: `machine.sh FOLDER`.
# Nothing of it reaches this machine: what it writes lies in FOLDER, and /proc/sys and /sys cannot be written.
set -e
top=$1 root=$1/root
mounts=$(grep ' /sys/fs/cgroup' /proc/mounts)
mkdir "$top/upper" "$top/work" "$root"
mount -t overlay overlay -o "lowerdir=/,upperdir=$top/upper,workdir=$top/work" "$root"
cd "$root"
mount -t proc proc proc
mount --bind proc/sys proc/sys && mount -o remount,ro,bind proc/sys
mount -t sysfs -o ro sysfs sys
mount -t tmpfs -o mode=755 tmpfs run
mount -t tmpfs tmpfs tmp
mount -t tmpfs -o mode=755 tmpfs dev
for device in null:3 zero:5 full:7 random:8 urandom:9; do mknod -m 666 "dev/${device%:*}" c 1 "${device#*:}"; done
mkdir dev/shm dev/pts
mount -t devpts -o newinstance,ptmxmode=666 devpts dev/pts
ln -s pts/ptmx dev/ptmx
mount -t tmpfs tmpfs sys/fs/cgroup
while read -r _ place kind options _; do
    case $kind in
    cgroup2) [ "$place" = /sys/fs/cgroup ] && set -- cgroup2 "" || set -- cgroup2 unified "" ;;
    cgroup) case $options in
        *name=systemd*) set -- cgroup systemd none,name=systemd ;;
        *) set -- cgroup "${place##*/}" "${place##*/}" ;;
        esac ;;
    *) continue ;;
    esac
    mkdir -p "sys/fs/cgroup/$2"
    mount -t "$1" ${3:+-o "$3"} none "sys/fs/cgroup/$2"
done <<<"$mounts"
# It starts nothing but its journal and what is asked of it.
find lib/systemd/system etc/systemd/system -name '*.wants' -prune -exec rm -rf {} +
mkdir -p etc/systemd/system/sysinit.target.wants
for unit in journald.service journald.socket journald-dev-log.socket; do
    ln -s "/lib/systemd/system/systemd-$unit" etc/systemd/system/sysinit.target.wants
done
ln -s /lib/systemd/system/basic.target etc/systemd/system/default.target
rm -f etc/fstab etc/machine-id
printf '%s\n' 0123456789abcdef0123456789abcdef >etc/machine-id
mkdir -p old
pivot_root . old
umount -l old
# Credentials are mounted by a process of systemd's in a namespace of its own, and reach services by propagation.
mount --make-rshared /
exec env -i container=engram-test PATH=/usr/sbin:/usr/bin:/sbin:/bin /lib/systemd/systemd --log-target=journal
