"""The `file-storage` plug-in: raw image files as volumes, for the exports of block devices."""
