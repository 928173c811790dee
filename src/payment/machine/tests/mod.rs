//! The machine, tested by examples and by properties. Every commit of every test is checked against what must always hold
//! ([`store`]).

mod attempts;
mod bench;
mod book;
mod commands;
mod exhaustive;
mod look_ups;
mod model;
mod money;
mod notify;
mod proof;
mod properties;
mod ready;
mod steer;
mod store;
mod sync;
mod takeovers;
mod turns;
mod undo;
mod world;
