"""The `sample` plug-in: a hook."""
