"""The `btrfs-storage` plug-in: subvolumes of a btrfs as volumes, copied in an instant."""
