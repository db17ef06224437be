"""The `local-storage` plug-in: all disks of a machine as an image, written to another machine's disks."""
