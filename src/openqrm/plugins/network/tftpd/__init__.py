"""Boot loaders over TFTP, for firmware that cannot do better."""
