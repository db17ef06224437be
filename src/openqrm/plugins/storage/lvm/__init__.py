"""The `lvm-storage` plug-in: logical volumes, as block devices or as mounted trees."""
