//! paybus from end to end: the real binary between a real broker, a real database and a gateway that misbehaves as
//! planned. Run by `scripts/with-services cargo test --test it`.

mod support;

mod bus;
mod bus_consume;
mod bus_trouble;
mod cards;
mod crashes;
mod drain;
mod flows;
mod input;
mod limits;
mod messages;
mod money;
mod replicas;
mod retries;
mod rules;
mod turns;
