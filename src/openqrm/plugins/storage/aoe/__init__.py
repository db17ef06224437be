"""The `aoe-storage` plug-in: block devices handed to machines by ATA over Ethernet, one vblade for each volume."""
