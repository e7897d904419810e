"""One module a command. A handler gets the `Tools` and the command; it answers or raises `harness.spi.errors.Error`."""
