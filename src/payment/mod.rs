//! The pure core: all decisions, without I/O, clock or async.

pub mod action;
pub mod card;
pub mod code;
pub mod command;
pub mod contract;
pub mod event;
pub mod fact;
pub mod field;
pub mod json;
pub mod machine;
pub mod model;
pub mod money;
pub mod movement;
pub mod observation;
pub mod operation;
pub mod outcome;
mod parse;
pub mod status;
pub mod trace;
pub mod transaction;
pub mod view;
pub mod webhook;
