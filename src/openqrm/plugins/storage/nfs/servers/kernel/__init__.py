"""The kernel's NFS server."""
