"""The NFS servers of storage hosts: what each is told, and how its answers are understood."""
