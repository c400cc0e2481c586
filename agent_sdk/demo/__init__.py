"""The demo: agents audit a source tree, one is killed, and the log proves that nothing is lost."""
