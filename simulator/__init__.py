"""A StorPool cluster in software: the public management API, with block devices that real guests use."""
