"""Background services: one file each, any number of servers."""
