"""Plug-ins at work: what is installed, what of it is enabled, its hooks, drivers, services and monitor ticks."""
