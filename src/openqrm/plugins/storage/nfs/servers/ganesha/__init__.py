"""nfs-ganesha."""
