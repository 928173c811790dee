//! Every case, by the name it has in `docs/gateways.md`.

use std::future::Future;
use std::pin::Pin;

use super::fake::Ended;
use super::kit::Kit;
use super::{adapter, answers, declines, failures, money, proofs};

/// When a case runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum When {
    /// Before the worker that all others share is started.
    First,
    /// Beside all others of its kind: what it plans is for its own payments.
    Together,
    /// With the fake to itself.
    Alone,
}

type Run = for<'a> fn(&'a Kit) -> Pin<Box<dyn Future<Output = Ended> + 'a>>;

/// One case.
pub struct Case {
    pub name: &'static str,
    pub when: When,
    pub run: Run,
}

const fn together(name: &'static str, run: Run) -> Case {
    Case { name, when: When::Together, run }
}

const fn alone(name: &'static str, run: Run) -> Case {
    Case { name, when: When::Alone, run }
}

/// All of them, in the order of the table.
pub const CASES: &[Case] = &[
    together("books that are counted", |kit| Box::pin(money::books(kit))),
    together("a charge at once", |kit| Box::pin(money::charge(kit))),
    together("an authorization, captured", |kit| Box::pin(money::capture(kit))),
    together("an authorization, captured in part", |kit| Box::pin(money::capture_in_part(kit))),
    together("several captures", |kit| Box::pin(money::several_captures(kit))),
    together("an authorization, released", |kit| Box::pin(money::release(kit))),
    together("a refund", |kit| Box::pin(money::refund(kit))),
    together("refunds in parts", |kit| Box::pin(money::refund_in_parts(kit))),
    together("a refund that is pending", |kit| Box::pin(money::pending_refund(kit))),
    together("a cancel before money moved", |kit| Box::pin(money::cancel(kit))),
    together("currencies without and with three decimals", |kit| Box::pin(money::currencies(kit))),
    together("a customer who must act, and pays", |kit| Box::pin(money::customer_pays(kit))),
    together("a customer who must act, and does not", |kit| Box::pin(money::customer_leaves(kit))),
    together("a customer who approves, and never comes back", |kit| Box::pin(money::customer_approves(kit))),
    together("a cancel while the customer must act", |kit| Box::pin(money::cancel_of_input(kit))),
    together("a result that comes later", |kit| Box::pin(money::pending(kit))),
    together("a review for fraud", |kit| Box::pin(money::review(kit))),
    together("a hard decline, and another try", |kit| Box::pin(declines::hard(kit))),
    together("a soft decline", |kit| Box::pin(declines::soft(kit))),
    together("a decline that needs the customer", |kit| Box::pin(declines::customer(kit))),
    together("a decline's words, made harmless", |kit| Box::pin(declines::words(kit))),
    together("a charge whose answer is lost", |kit| Box::pin(failures::lost_charge(kit))),
    together("a charge whose answer is lost, undone", |kit| Box::pin(failures::undone_charge(kit))),
    together("a capture whose answer is lost", |kit| Box::pin(failures::lost_capture(kit))),
    together("a release whose answer is lost", |kit| Box::pin(failures::lost_release(kit))),
    together("a refund whose answer is lost", |kit| Box::pin(failures::lost_refund(kit))),
    together("a charge that is not answered in time", |kit| Box::pin(failures::late_charge(kit))),
    together("a server error after the charge", |kit| Box::pin(failures::error_after(kit))),
    together("a server error before the charge", |kit| Box::pin(failures::error_before(kit))),
    together("a server error that stays with its key", |kit| Box::pin(failures::stored_error(kit))),
    together("a charge that never arrived", |kit| Box::pin(failures::never_arrived(kit))),
    together("a key that was forgotten", |kit| Box::pin(failures::forgotten_key(kit))),
    together("a key that is being worked on", |kit| Box::pin(failures::busy(kit))),
    together("too many requests", |kit| Box::pin(failures::too_many(kit))),
    together("a command that comes three times", |kit| Box::pin(failures::duplicates(kit))),
    Case { name: "a worker that dies with the answer", when: When::First, run: |kit| Box::pin(failures::death(kit)) },
    alone("a gateway that is away for a while", |kit| Box::pin(failures::away(kit))),
    together("another amount than was asked", |kit| Box::pin(answers::other_amount(kit))),
    together("another currency than was asked", |kit| Box::pin(answers::other_currency(kit))),
    together("a result with odd ornaments", |kit| Box::pin(answers::ornate(kit))),
    together("a refund by hand, learnt by a sync", |kit| Box::pin(answers::sync(kit))),
    together("a part that was captured, and a sync", |kit| Box::pin(answers::sync_of_part(kit))),
    together("a notification", |kit| Box::pin(answers::notification(kit))),
    together("a result that comes by a notification", |kit| Box::pin(proofs::result(kit))),
    together("a charge whose answer is lost, and its notification", |kit| Box::pin(proofs::lost_answer(kit))),
    together("a refund by hand, and its notification", |kit| Box::pin(proofs::by_hand(kit))),
    together("adapter: one request is the same bytes", |kit| Box::pin(adapter::same_bytes(kit))),
    together("adapter: one key acts once", |kit| Box::pin(adapter::same_key(kit))),
    together("adapter: one key, two contents", |kit| Box::pin(adapter::other_content(kit))),
    together("adapter: a look-up by our own reference", |kit| Box::pin(adapter::found(kit))),
    together("adapter: a look-up of what never was", |kit| Box::pin(adapter::not_found(kit))),
    together("adapter: a look-up that fails", |kit| Box::pin(adapter::look_up_fails(kit))),
    together("adapter: answers that nobody can read", |kit| Box::pin(adapter::unreadable(kit))),
    together("adapter: it follows no redirect", |kit| Box::pin(adapter::elsewhere(kit))),
    together("adapter: wrong credentials", |kit| Box::pin(adapter::unauthorized(kit))),
    together("adapter: it keeps to its time", |kit| Box::pin(adapter::in_time(kit))),
    together("adapter: it tells no secret", |kit| Box::pin(adapter::secrets(kit))),
    alone("adapter: nobody listens", |kit| Box::pin(adapter::nobody_listens(kit))),
];
