//! The http gateway.
