"""What `openqrm plugin new` begins with: plug-ins that work, renamed into new ones. They are not installed."""
