"""Stand-in for the CloudStack management server: signed API, async jobs, orchestration, records."""
