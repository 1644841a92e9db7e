//! A Fettle of its own for each test: real controller, real agents, real keys, in a directory that goes away.
