//! One attempt: sends what its plan says, and reads the answer. Requests that move money use the operation's key, or
//! one derived from it.

use serde_json::Value;
use uuid::Uuid;

use super::api::{Session, made_between};
use super::find::{Sought, find, intent, take_best};
use super::intent::{Asked, Intent, IntentStatus};
use super::refund::Refund;
use super::reply::{Denial, invalid, mismatch};
use super::request::{CAPTURE_PATH, Plan, ProcessForms, refunded_intent};
use super::{declines, look_up, reply};
use crate::gateway::failure::{Failure, Reach};
use crate::gateway::{Action, Call};
use crate::payment::code::Code;
use crate::payment::outcome::{GatewayError, GatewayResult, Verdict};
use crate::payment::transaction::{Attribution, Transaction};

/// Carries out one attempt.
pub(super) async fn act(
    session: &Session<'_>,
    call: &Call<'_>,
    livemode: Option<bool>,
) -> Result<GatewayResult, Denial> {
    let attempt = Attempt { session, call, livemode };
    match Plan::read(call.body).map_err(refused)? {
        Plan::Refuse { message } => Err(refused(GatewayError::new(Code::Refused, message)).into()),
        Plan::Nothing => {
            let message = "nothing to cancel at Stripe".to_owned();
            Ok(GatewayResult { message, ..GatewayResult::new(Verdict::Approved) })
        }
        Plan::Post { path, form } => attempt.post(&path, &form).await,
        Plan::Process { payment_intent, forms, use_stripe_sdk } => {
            let process = Process { attempt, forms, use_stripe_sdk };
            process.send(payment_intent.as_deref()).await
        }
    }
}

/// A request that is not even sent.
fn refused(error: GatewayError) -> Failure {
    Failure { reach: Reach::Refused, error }
}

struct Attempt<'a> {
    session: &'a Session<'a>,
    call: &'a Call<'a>,
    livemode: Option<bool>,
}

impl Attempt<'_> {
    fn asked<'b>(&self, id: Option<&'b str>) -> Asked<'b> {
        Asked { payment_id: self.call.payment_id, livemode: self.livemode, id }
    }

    /// A capture, release, refund or cancel.
    async fn post(&self, path: &str, form: &str) -> Result<GatewayResult, Denial> {
        let answer = self.session.post(path, form, Some(self.call.key.value())).await;
        let id = path.split('/').nth(1);
        if self.call.action == Action::Refund {
            return self.refunded(answer, form);
        }
        let (intent, denial) = self.intent(answer, id)?;
        let result = match self.call.action {
            Action::Capture => intent.answers_capture(self.call.operation_id, self.call.amount)?,
            Action::Release if path.ends_with(CAPTURE_PATH) => intent.of_last_capture(self.call.amount),
            Action::Release => intent.of_cancel(self.call.amount),
            _ => intent.of_cancel(None),
        };
        match (result, denial) {
            (Some(result), _) => Ok(self.own(result)),
            (None, Some(denial)) => Err(denial),
            (None, None) => Err(invalid("the payment intent is unchanged").into()),
        }
    }

    /// Attributes to this operation what is unattributed in the direct answer to its own request.
    fn own(&self, mut result: GatewayResult) -> GatewayResult {
        let own = Attribution::Answered(self.call.operation_id);
        let unattributed = |it: &&mut Transaction| it.attribution == Attribution::Unattributed;
        result.transactions.iter_mut().filter(unattributed).for_each(|transaction| transaction.attribution = own);
        result
    }

    fn refunded(
        &self,
        answer: Result<serde_json::Map<String, Value>, Denial>,
        form: &str,
    ) -> Result<GatewayResult, Denial> {
        let of = refunded_intent(form).unwrap_or_default();
        match answer {
            Ok(object) => {
                let refund = Refund::read(object, &of)?;
                if refund.operation.is_some_and(|operation| operation != self.call.operation_id) {
                    return Err(mismatch("the refund belongs to another operation").into());
                }
                Ok(self.own(refund.result()))
            }
            Err(denial) if denial.is_decline() => Ok(declines::declined(&denial.error)),
            Err(denial) => Err(denial),
        }
    }

    /// The payment intent in an answer, or the one in an error, which is its state after that error.
    fn intent(
        &self,
        answer: Result<serde_json::Map<String, Value>, Denial>,
        id: Option<&str>,
    ) -> Result<(Intent, Option<Denial>), Denial> {
        match answer {
            Ok(object) => Ok((Intent::read(object, self.asked(id))?, None)),
            Err(mut denial) => match denial.error.payment_intent.take() {
                // With a transient error, the payment intent shows the state before the next attempt.
                Some(Value::Object(object)) if denial.failure.reach == Reach::Refused => {
                    Ok((Intent::read(object, self.asked(id))?, Some(denial)))
                }
                _ => Err(denial),
            },
        }
    }
}

/// A process: there is one payment intent per payment, created by the first process and continued by all others. A
/// customer who still has the client secret of an earlier attempt can therefore never pay a second one.
struct Process<'a> {
    attempt: Attempt<'a>,
    forms: Option<ProcessForms>,
    use_stripe_sdk: bool,
}

impl Process<'_> {
    async fn send(&self, known: Option<&str>) -> Result<GatewayResult, Denial> {
        match (self.there(known).await.map_err(Denial::of_a_question)?, &self.forms) {
            (Some(intent), forms) => {
                let mut result = self.go_on(intent, forms.as_ref()).await?;
                if result.approves() {
                    result.extra_data.extend(look_up::OF_AN_ATTEMPT.map(|name| (name.to_owned(), Value::Null)));
                }
                Ok(result)
            }
            (None, Some(forms)) => self.create(forms).await,
            (None, None) => Err(nothing_to_go_on_with().into()),
        }
    }

    /// The payment intent to continue. A canceled one can never take money again.
    async fn there(&self, known: Option<&str>) -> Result<Option<Intent>, Denial> {
        let is_alive = |intent: &Intent| !intent.is_canceled();
        if let Some(id) = known
            && let Some(intent) = self.get(id).await.map(Some)?.filter(is_alive)
        {
            return Ok(Some(intent));
        }
        // An earlier key may have left one that was never confirmed.
        if self.attempt.call.key.generation() > 0 {
            return Ok(self.left_behind().await?.filter(is_alive));
        }
        Ok(None)
    }

    async fn get(&self, id: &str) -> Result<Intent, Denial> {
        match intent(self.attempt.session, id, self.attempt.asked(None)).await {
            // Stripe never deletes one: the key belongs to another account, and the state of the payment intent is
            // unknown.
            Err(denial) if denial.is_missing() => Err(mismatch("the payment intent does not exist").into()),
            found => found,
        }
    }

    /// What an earlier key created, or this key if its answer was lost. Nothing new is created while the list is read.
    async fn left_behind(&self) -> Result<Option<Intent>, Denial> {
        let call = self.attempt.call;
        let sought = Sought {
            asked: self.attempt.asked(None),
            operation: Some(call.operation_id),
            made: made_between(call.stored_at, None),
            one_is_enough: false,
            cursor: Some(call.key.value()),
        };
        // Leave time to act on the result.
        let mut found = find(&self.attempt.session.half(), &sought).await?;
        Ok(take_best(&mut found))
    }

    async fn create(&self, forms: &ProcessForms) -> Result<GatewayResult, Denial> {
        let key = self.attempt.call.key.value();
        let answer = self.attempt.session.post("payment_intents", &forms.create, Some(key)).await;
        self.read(answer, None)
    }

    /// Continues a payment intent that can still take money or already has.
    async fn go_on(&self, intent: Intent, forms: Option<&ProcessForms>) -> Result<GatewayResult, Denial> {
        let is_ours = intent.operation == Some(self.attempt.call.operation_id);
        let is_prepared = is_ours && intent.status == IntentStatus::RequiresConfirmation;
        match forms {
            // The customer has paid, or this operation's confirmation has had an effect.
            _ if intent.has_money() || is_ours && !intent.is_untouched() => self.result(&intent, None),
            None => self.result(&intent, None),
            Some(forms) if is_prepared => self.confirm(&intent.id, forms).await,
            Some(forms) => self.mark_and_confirm(&intent.id, forms).await,
        }
    }

    /// Marks the payment intent as this operation's, so that a look-up can tell its confirmation from an earlier one's;
    /// then confirms it.
    async fn mark_and_confirm(&self, id: &str, forms: &ProcessForms) -> Result<GatewayResult, Denial> {
        use IntentStatus::{RequiresConfirmation, RequiresPaymentMethod};
        let path = format!("payment_intents/{id}");
        // Moves no money and may be repeated, so it needs no key.
        let answer = self.attempt.session.post(&path, &forms.mark, None).await.map_err(Denial::before_sending);
        let (intent, denial) = self.attempt.intent(answer, Some(id))?;
        match (intent.status, denial) {
            (IntentStatus::Canceled, _) => self.create(forms).await,
            (RequiresConfirmation | RequiresPaymentMethod, None) => self.confirm(id, forms).await,
            (RequiresConfirmation | RequiresPaymentMethod, Some(denial)) => Err(denial),
            (_, denial) => self.result(&intent, denial),
        }
    }

    async fn confirm(&self, id: &str, forms: &ProcessForms) -> Result<GatewayResult, Denial> {
        let key = Uuid::new_v5(&self.attempt.call.key.value(), b"confirm");
        let path = format!("payment_intents/{id}/confirm");
        let answer = self.attempt.session.post(&path, &forms.confirm, Some(key)).await;
        self.read(answer, Some(id))
    }

    /// Reads the result of a payment attempt.
    fn read(
        &self,
        answer: Result<serde_json::Map<String, Value>, Denial>,
        id: Option<&str>,
    ) -> Result<GatewayResult, Denial> {
        let answer = match answer {
            Err(denial) if denial.is_decline() => return self.declined(denial, id),
            answer => answer,
        };
        let (intent, denial) = self.attempt.intent(answer, id)?;
        self.result(&intent, denial)
    }

    /// A payment attempt was declined; the next process continues the payment intent.
    fn declined(&self, denial: Denial, id: Option<&str>) -> Result<GatewayResult, Denial> {
        let mut result = declines::declined(&denial.error);
        if let Some(Value::Object(object)) = &denial.error.payment_intent {
            let intent = Intent::read(object.clone(), self.attempt.asked(id))?;
            result.transaction_id = Some(intent.id);
            result.currency = Some(intent.currency);
        }
        Ok(result)
    }

    fn result(&self, intent: &Intent, denial: Option<Denial>) -> Result<GatewayResult, Denial> {
        intent.check_held(self.attempt.call.capture)?;
        match (intent.of_process(self.use_stripe_sdk)?, denial) {
            (Some(result), _) => Ok(self.answered(intent, result)),
            (None, Some(denial)) => Err(denial),
            (None, None) if self.forms.is_none() => Err(nothing_to_go_on_with().into()),
            (None, None) => Err(reply::invalid("the payment intent was not confirmed").into()),
        }
    }
}

impl Process<'_> {
    /// Attributes money to this operation if the payment intent names none, because this is the direct answer to its
    /// request.
    fn answered(&self, intent: &Intent, result: GatewayResult) -> GatewayResult {
        if intent.operation.is_none() { self.attempt.own(result) } else { result }
    }
}

fn nothing_to_go_on_with() -> Failure {
    refused(GatewayError::new(
        Code::Refused,
        "process.payment_method: is required, because the payment intent waits for one",
    ))
}
