"""CloudStack's own primary storage beside the plugin's: volumes as files of an NFS pool."""
