//! Finds payment intents by our ids in their metadata. Stripe's search is asked first: what it finds exists, but what
//! it does not find may not be indexed yet. Only a complete list of all payment intents of the period proves absence. A
//! busy account's list may take several look-ups: each continues where the last one stopped.

use form_urlencoded::Serializer;
use serde_json::{Map, Value};
use tracing::debug;
use uuid::Uuid;

use super::api::Session;
use super::cursors::Cursor;
use super::intent::{Asked, Intent, IntentStatus};
use super::reply::{Denial, invalid};
use super::request::{CHARGE, OPERATION, PAYMENT, is_payment_intent};
use crate::gateway::failure::Reach;
use crate::payment::outcome::GatewayError;

const PAYMENT_INTENTS: &str = "payment_intents";

/// What to look for.
pub(super) struct Sought<'a> {
    /// The payment.
    pub asked: Asked<'a>,
    /// The operation; `None` for all of the payment's.
    pub operation: Option<Uuid>,
    /// The list filter for everything created in the period.
    pub made: String,
    /// Whether a single one that is not canceled suffices.
    pub one_is_enough: bool,
    /// The name under which an unfinished list is continued. `None` if every look-up starts over, because the payment
    /// intent may be created in the meantime.
    pub cursor: Option<Uuid>,
}

impl Sought<'_> {
    fn is_of_operation(&self, intent: &Intent) -> bool {
        self.operation.is_none_or(|operation| intent.operation == Some(operation))
    }

    /// Whether a listed object is one to look for.
    fn is_named_by(&self, object: &Map<String, Value>) -> bool {
        names(object, PAYMENT, self.asked.payment_id)
            && self.operation.is_none_or(|operation| names(object, OPERATION, operation))
    }
}

/// Whether an object's metadata contain this id of ours under this name.
fn names(object: &Map<String, Value>, name: &str, id: Uuid) -> bool {
    object.get("metadata").is_some_and(|metadata| metadata[name] == id.to_string().as_str())
}

/// Gets one payment intent, with its charge.
pub(super) async fn intent(session: &Session<'_>, id: &str, asked: Asked<'_>) -> Result<Intent, Denial> {
    let path = format!("{PAYMENT_INTENTS}/{id}");
    let object = session.get(&path, &format!("expand%5B%5D={CHARGE}")).await?;
    Ok(Intent::read(object, Asked { id: Some(id), ..asked })?)
}

/// Finds payment intents. An empty result proves that there are none.
pub(super) async fn find(session: &Session<'_>, sought: &Sought<'_>) -> Result<Vec<Intent>, Denial> {
    let mut intents = search(session, sought.asked, &[]).await?;
    intents.retain(|intent| sought.is_of_operation(intent));
    if sought.one_is_enough && intents.iter().any(|intent| !intent.is_canceled()) {
        return Ok(intents);
    }
    let mut cursor = sought.cursor.and_then(|name| session.cursors().take(name)).unwrap_or_default();
    let read = list(session, sought, &mut cursor).await;
    // If Stripe refuses to continue there, the list must start over.
    if let (Err(denial), Some(name)) = (&read, sought.cursor)
        && denial.failure.reach != Reach::Refused
    {
        session.cursors().keep(name, cursor.clone());
    }
    for id in cursor.found {
        if intents.iter().all(|known| known.id != id) {
            intents.push(intent(session, &id, sought.asked).await?);
        }
    }
    match read {
        // Money that was found is an answer whatever else exists. Otherwise nothing is proved while part of the list is
        // unread.
        Err(denial) if !intents.iter().any(Intent::has_money) => Err(denial),
        _ => Ok(intents),
    }
}

/// The payment's payment intents in Stripe's search, except those `known`. Empty if the search does not answer, which
/// not every account has: it is only a shortcut and never proves absence.
pub(super) async fn search(session: &Session<'_>, asked: Asked<'_>, known: &[Intent]) -> Result<Vec<Intent>, Denial> {
    let mut intents = Vec::new();
    for id in indexed(session, asked.payment_id).await {
        if known.iter().any(|known| known.id == id) {
            continue;
        }
        // The index may lag behind; only the payment intent itself shows its current state.
        match intent(session, &id, asked).await {
            Err(denial) if denial.is_missing() => {}
            found => intents.push(found?),
        }
    }
    Ok(intents)
}

/// The ids that the search finds.
async fn indexed(session: &Session<'_>, payment_id: Uuid) -> Vec<String> {
    let query = format!("metadata['{PAYMENT}']:'{payment_id}'");
    let query = Serializer::new(String::new()).append_pair("query", &query).finish();
    // Whatever happens, leave time for the list.
    let page = session.half().page(&format!("{PAYMENT_INTENTS}/search"), &format!("&{query}"), None).await;
    let objects = page.map(|page| page.objects).unwrap_or_else(|denial| {
        debug!(error = denial.failure.message(), "Stripe's search failed; listing instead");
        Vec::new()
    });
    let ours = objects.iter().filter(|object| names(object, PAYMENT, payment_id));
    ours.filter_map(|object| id_of(object).ok().map(str::to_owned)).collect()
}

/// Continues the list, to its end or until enough is found.
async fn list(session: &Session<'_>, sought: &Sought<'_>, cursor: &mut Cursor) -> Result<(), Denial> {
    loop {
        let page = session.page(PAYMENT_INTENTS, &sought.made, cursor.after.as_deref()).await?;
        let mut is_enough = false;
        for object in page.objects.iter().filter(|object| sought.is_named_by(object)) {
            cursor.found.push(id_of(object)?.to_owned());
            let is_canceled = object.get("status").is_some_and(|status| status == "canceled");
            is_enough |= sought.one_is_enough && !is_canceled;
        }
        match page.after {
            Some(after) if !is_enough => cursor.after = Some(after),
            _ => return Ok(()),
        }
    }
}

fn id_of(object: &Map<String, Value>) -> Result<&str, GatewayError> {
    let id = object.get("id").and_then(Value::as_str).filter(|id| is_payment_intent(id));
    id.ok_or_else(|| invalid("must be a list of payment intents with ids"))
}

/// Removes and returns the one that progressed furthest.
pub(super) fn take_best(intents: &mut Vec<Intent>) -> Option<Intent> {
    let index = intents.iter().enumerate().max_by_key(|(_, intent)| progress(intent)).map(|(index, _)| index)?;
    Some(intents.remove(index))
}

/// How far a payment intent has progressed.
fn progress(intent: &Intent) -> u8 {
    match intent.status {
        IntentStatus::Canceled => 0,
        IntentStatus::RequiresPaymentMethod => 1,
        IntentStatus::RequiresConfirmation => 2,
        IntentStatus::RequiresAction => 3,
        IntentStatus::Processing => 4,
        IntentStatus::RequiresCapture => 5,
        IntentStatus::Succeeded => 6,
    }
}

#[cfg(test)]
mod tests {
    use std::sync::{Arc, Mutex};
    use std::time::Duration;

    use axum::extract::{Path, RawQuery, State};
    use axum::http::StatusCode;
    use axum::routing::get;
    use axum::{Json, Router};
    use serde_json::json;

    use super::*;
    use crate::gateway::stripe::StripeGateway;
    use crate::gateway::stripe::api::tests::gateway;
    use crate::payment::code::Code;

    const OURS: Uuid = Uuid::from_u128(9);
    const PROCESS: Uuid = Uuid::from_u128(7);

    /// An account at Stripe.
    #[derive(Default)]
    struct Account {
        /// Newest first.
        intents: Vec<Value>,
        /// What its search returns; `None` if the account has no search.
        indexed: Option<Vec<Value>>,
        /// The page after this object fails, once.
        fails_after: Mutex<Option<String>>,
        /// Whether that failure is a refusal.
        refuses: bool,
        /// The requests made.
        asked: Mutex<Vec<&'static str>>,
    }

    impl Account {
        fn with(before: usize, ours: Vec<Value>, after: usize) -> Account {
            let stranger = |number| json!({"id": format!("pi_s{number}"), "object": "payment_intent", "metadata": {}});
            let newer = (0..after).map(stranger);
            let intents = newer.chain(ours).chain((after..after + before).map(stranger)).collect();
            Account { intents, indexed: Some(Vec::new()), ..Account::default() }
        }

        fn asked(&self) -> Vec<(&'static str, usize)> {
            let asked = std::mem::take(&mut *self.asked.lock().unwrap());
            let count = |what| asked.iter().filter(|asked| **asked == what).count();
            ["search", "list", "retrieve"].into_iter().map(|what| (what, count(what))).collect()
        }
    }

    fn ours(id: &str, status: &str, operation: Uuid) -> Value {
        let received = if status == "succeeded" { 2_050 } else { 0 };
        json!({"id": id, "object": "payment_intent", "status": status, "amount": 2_050, "amount_received": received,
            "currency": "eur", "metadata": {PAYMENT: OURS, OPERATION: operation}})
    }

    async fn page(State(account): State<Arc<Account>>, RawQuery(query): RawQuery) -> (StatusCode, Json<Value>) {
        account.asked.lock().unwrap().push("list");
        let after = query.as_deref().and_then(|query| Some(query.split_once("starting_after=")?.1.to_owned()));
        let mut fails_after = account.fails_after.lock().unwrap();
        if after.is_some() && *fails_after == after {
            *fails_after = None;
            let status = if account.refuses { StatusCode::BAD_REQUEST } else { StatusCode::INTERNAL_SERVER_ERROR };
            return (status, Json(json!({"error": {"type": "invalid_request_error"}})));
        }
        let index = after.map_or(0, |after| account.intents.iter().position(|it| it["id"] == *after).unwrap() + 1);
        let rest = &account.intents[index..];
        let data = &rest[..rest.len().min(100)];
        (StatusCode::OK, Json(json!({"object": "list", "data": data, "has_more": rest.len() > 100})))
    }

    async fn searched(State(account): State<Arc<Account>>) -> (StatusCode, Json<Value>) {
        account.asked.lock().unwrap().push("search");
        match &account.indexed {
            Some(data) => (StatusCode::OK, Json(json!({"object": "search_result", "data": data, "has_more": false}))),
            None => (StatusCode::NOT_FOUND, Json(json!({"error": "no such route"}))),
        }
    }

    async fn retrieved(State(account): State<Arc<Account>>, Path(id): Path<String>) -> (StatusCode, Json<Value>) {
        account.asked.lock().unwrap().push("retrieve");
        let found = account.intents.iter().find(|intent| intent["id"] == *id);
        let missing = json!({"error": {"type": "invalid_request_error", "code": "resource_missing"}});
        found.map_or((StatusCode::NOT_FOUND, Json(missing)), |found| (StatusCode::OK, Json(found.clone())))
    }

    async fn at_stripe(account: &Arc<Account>) -> StripeGateway {
        let app = Router::new()
            .route("/v1/payment_intents", get(page))
            .route("/v1/payment_intents/search", get(searched))
            .route("/v1/payment_intents/{id}", get(retrieved))
            .with_state(Arc::clone(account));
        gateway(app).await
    }

    fn process(cursor: Option<u128>) -> Sought<'static> {
        Sought {
            asked: Asked { payment_id: OURS, livemode: None, id: None },
            operation: Some(PROCESS),
            made: String::new(),
            one_is_enough: true,
            cursor: cursor.map(Uuid::from_u128),
        }
    }

    async fn found(stripe: &StripeGateway, sought: &Sought<'_>) -> Result<Vec<String>, Code> {
        let found = find(&stripe.api.session(Duration::from_secs(10), None), sought).await;
        let ids = |intents: Vec<Intent>| intents.into_iter().map(|intent| intent.id).collect();
        found.map(ids).map_err(|denial| denial.failure.error.code)
    }

    #[tokio::test]
    async fn in_a_busy_account_what_is_there_takes_two_requests() {
        let paid = ours("pi_1", "succeeded", PROCESS);
        let mut account = Account::with(2_000, vec![paid.clone()], 3_000);
        account.indexed = Some(vec![paid]);
        let account = Arc::new(account);
        let stripe = at_stripe(&account).await;
        assert_eq!(found(&stripe, &process(None)).await, Ok(vec!["pi_1".to_owned()]));
        assert_eq!(account.asked(), [("search", 1), ("list", 0), ("retrieve", 1)]);
    }

    #[tokio::test]
    async fn what_is_not_indexed_yet_is_found_in_the_list_which_ends_there() {
        for indexed in [Some(Vec::new()), None] {
            let mut account = Account::with(4_900, vec![ours("pi_1", "succeeded", PROCESS)], 50);
            account.indexed = indexed;
            let account = Arc::new(account);
            let stripe = at_stripe(&account).await;
            assert_eq!(found(&stripe, &process(None)).await, Ok(vec!["pi_1".to_owned()]));
            assert_eq!(account.asked(), [("search", 1), ("list", 1), ("retrieve", 1)]);
        }
    }

    /// The index may show an earlier owner of a payment intent, or one that no longer exists.
    #[tokio::test]
    async fn what_search_says_is_only_where_to_look() {
        let other = ours("pi_1", "requires_payment_method", Uuid::from_u128(1));
        let mut account = Account::with(0, vec![other], 150);
        account.indexed = Some(vec![ours("pi_1", "succeeded", PROCESS), ours("pi_gone", "succeeded", PROCESS)]);
        let account = Arc::new(account);
        let stripe = at_stripe(&account).await;
        assert_eq!(found(&stripe, &process(None)).await, Ok(Vec::new()));
        assert_eq!(account.asked(), [("search", 1), ("list", 2), ("retrieve", 2)]);
    }

    #[tokio::test]
    async fn a_canceled_one_does_not_stand_for_what_came_after_it() {
        let canceled = ours("pi_1", "canceled", PROCESS);
        let mut account = Account::with(10, vec![ours("pi_2", "succeeded", PROCESS), canceled.clone()], 150);
        account.indexed = Some(vec![canceled]);
        let stripe = at_stripe(&Arc::new(account)).await;
        assert_eq!(found(&stripe, &process(None)).await, Ok(vec!["pi_1".to_owned(), "pi_2".to_owned()]));
    }

    /// An account with more payment intents than one look-up can read: what it did not read may still be there.
    #[tokio::test]
    async fn a_list_that_is_cut_short_proves_nothing_and_the_next_look_up_goes_on() {
        let account = Account::with(5_000, Vec::new(), 0);
        let fail = |account: &Account| *account.fails_after.lock().unwrap() = Some("pi_s2999".to_owned());
        let account = Arc::new(account);
        let stripe = at_stripe(&account).await;
        for (cursor, lists) in [(Some(1), 20), (None, 50)] {
            fail(&account);
            assert_eq!(found(&stripe, &process(cursor)).await, Err(Code::GatewayError));
            assert_eq!(account.asked(), [("search", 1), ("list", 31), ("retrieve", 0)]);
            assert_eq!(found(&stripe, &process(cursor)).await, Ok(Vec::new()));
            assert_eq!(account.asked()[1], ("list", lists), "{cursor:?}");
        }
        // A finished list is read again from the start.
        assert_eq!(found(&stripe, &process(Some(1))).await, Ok(Vec::new()));
        assert_eq!(account.asked()[1], ("list", 50));
    }

    #[tokio::test]
    async fn a_list_that_stripe_refuses_to_go_on_with_begins_anew() {
        let account = Account { refuses: true, ..Account::with(500, Vec::new(), 0) };
        *account.fails_after.lock().unwrap() = Some("pi_s299".to_owned());
        let account = Arc::new(account);
        let stripe = at_stripe(&account).await;
        assert_eq!(found(&stripe, &process(Some(1))).await, Err(Code::Refused));
        account.asked();
        assert_eq!(found(&stripe, &process(Some(1))).await, Ok(Vec::new()));
        assert_eq!(account.asked()[1], ("list", 5));
    }

    #[tokio::test]
    async fn of_a_list_that_is_cut_short_only_money_is_an_answer() {
        for (status, expected) in
            [("succeeded", Ok(vec!["pi_1".to_owned()])), ("requires_confirmation", Err(Code::GatewayError))]
        {
            let account = Arc::new(Account::with(500, vec![ours("pi_1", status, PROCESS)], 10));
            let stripe = at_stripe(&account).await;
            let all = Sought { one_is_enough: false, ..process(Some(1)) };
            *account.fails_after.lock().unwrap() = Some("pi_s198".to_owned());
            assert_eq!(found(&stripe, &all).await, expected);
            // What was found earlier is kept.
            assert_eq!(found(&stripe, &all).await, Ok(vec!["pi_1".to_owned()]));
        }
    }

    #[test]
    fn the_one_that_has_come_furthest_is_the_payments() {
        let read = |id: &str, status: &str| {
            let object = ours(id, status, PROCESS).as_object().unwrap().clone();
            Intent::read(object, Asked { payment_id: OURS, livemode: None, id: None }).unwrap()
        };
        let mut some = vec![read("pi_1", "canceled"), read("pi_2", "succeeded"), read("pi_3", "requires_action")];
        assert_eq!(take_best(&mut some).unwrap().id, "pi_2");
        assert_eq!(some.len(), 2);
        assert!(take_best(&mut Vec::new()).is_none());
    }
}
