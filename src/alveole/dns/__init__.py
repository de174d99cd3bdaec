"""The DNS: names as records of a zone, changed at a server and asked of one."""
