"""A broker, a ClickHouse and a supervisor in child processes: the stack that needs no server."""
