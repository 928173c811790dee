//! Dead letters: what they are made of, and how people look through them.
//!
//! - `letter`: the dead letter itself, and why it is one.
//! - `browser`: lists, replays and drops them.
//! - `mentions`: finds those that concern a person.
//! - `scrub`: removes card numbers before a message is set aside.

pub mod browser;
pub mod letter;
pub mod mentions;
pub mod scrub;
