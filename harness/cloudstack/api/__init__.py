"""CloudStack's signed HTTP API (spec/cloudstack-api.md)."""
