//! Idempotency keys: the first request that was executed under one is all that it ever brings.

use std::collections::HashMap;

use super::books::{Answer, error};

#[derive(Debug)]
struct Entry {
    path: String,
    body: String,
    /// Nothing while it is being worked on.
    answer: Option<Answer>,
}

#[derive(Debug, Default)]
pub struct Keys(HashMap<String, Entry>);

/// What a request under a key may do.
pub enum Reserved {
    /// It is the first: it is worked on, and its answer is kept.
    First,
    /// It was executed before.
    Replay(Answer),
    /// It is not executed.
    Denied(Answer),
}

impl Keys {
    /// Takes a key into work, or brings what is kept under it.
    pub fn reserve(&mut self, key: &str, path: &str, body: &str) -> Reserved {
        let Some(entry) = self.0.get(key) else {
            let entry = Entry { path: path.to_owned(), body: body.to_owned(), answer: None };
            self.0.insert(key.to_owned(), entry);
            return Reserved::First;
        };
        if entry.path != path || entry.body != body {
            let message =
                "Keys for idempotent requests can only be used with the same parameters they were first used with.";
            return Reserved::Denied(error(400, "idempotency_error", "", message));
        }
        match &entry.answer {
            Some(answer) => Reserved::Replay(answer.clone()),
            None => {
                let message = "There is currently another in-progress request using this Idempotent Key.";
                Reserved::Denied(error(409, "idempotency_error", "idempotency_key_in_use", message))
            }
        }
    }

    /// Keeps an answer.
    pub fn keep(&mut self, key: &str, answer: &Answer) {
        if let Some(entry) = self.0.get_mut(key) {
            entry.answer = Some(answer.clone());
        }
    }

    /// Drops a key that was not executed.
    pub fn release(&mut self, key: &str) {
        self.0.remove(key);
    }

    /// Drops the keys that are in work.
    pub fn forget_unfinished(&mut self) {
        self.0.retain(|_, entry| entry.answer.is_some());
    }

    /// The window is over.
    pub fn expire(&mut self) {
        self.0.clear();
    }
}
