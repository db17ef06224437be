"""The `nfs-storage` plug-in: directories handed to machines over NFS."""
