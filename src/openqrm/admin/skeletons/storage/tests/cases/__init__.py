"""Of the skeleton: run as it is, and copied with it."""
