"""The monitor: outcomes into ClickHouse, exactly once in effect; drift and rules into alerts."""
