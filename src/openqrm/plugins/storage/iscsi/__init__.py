"""The `iscsi-storage` plug-in: block volumes, handed to machines over iSCSI."""
