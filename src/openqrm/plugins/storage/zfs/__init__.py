"""The `zfs-storage` plug-in: ZFS datasets as trees, and zvols as block devices."""
