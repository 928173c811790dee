//! The dummy gateway.
