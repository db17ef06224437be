"""The `sample-storage` plug-in: directories as volumes."""
