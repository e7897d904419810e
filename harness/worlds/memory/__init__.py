"""The memory world: real driver, agent, stand-in and simulator over model hosts, in one thread and virtual time."""
