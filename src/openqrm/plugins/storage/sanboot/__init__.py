"""The `sanboot-storage` plug-in: whole disks on a SAN, attached by the boot loader."""
