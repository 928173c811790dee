//! What people and metrics ask of the database. Nothing here writes.
//!
//! - `find`: searches payments.
//! - `history`: stored events, for display.
//! - `report`: figures for metrics, and pages for people.
//! - `unserved`: payments that no configured variant serves.
//! - `books`: finds impossible states in the books.

pub mod books;
pub mod find;
pub mod history;
pub mod report;
pub mod unserved;
