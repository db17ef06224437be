"""The `dir-storage` plug-in: directories as volumes, for the exports of trees."""
