"""The `nbd-storage` plug-in: block devices handed to machines by NBD over TLS, one nbdkit for each volume."""
