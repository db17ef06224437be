"""The `nfs-storage` plug-in: directories as volumes, handed to machines over NFS."""
