"""StorPool's services beside the cluster, storpool_qos and VolumeCare: they see its state, decide, and change it.

Pure like the cluster; what they must remember is in its key-value store and in the tags of snapshots.
"""
