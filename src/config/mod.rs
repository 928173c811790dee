//! Configuration: defaults, file and environment, read once at the start and checked as a whole.
