//! paybus from end to end: the real binary between a real broker, a real database and a gateway that misbehaves as
//! planned. Run by `scripts/with-services cargo test --test it`.

mod support;

mod bus;
mod bus_consume;
mod bus_trouble;
mod flows;
mod messages;
mod money;
mod rules;
mod turns;
