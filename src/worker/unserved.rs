//! Reports stored payments that no configured variant serves: in the log, in `/readyz` and as a metric. The worker
//! stays ready, as the payments of all other variants go on.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;

use tracing::warn;

use super::variant::Variant;
use crate::error_chain::chain;
use crate::http::health::Health;
use crate::store::query::unserved::{Origin, Served, UnservedOperations, UnservedPayments};
use crate::store::{Store, StoreError};
use crate::wiring::served;

/// Looks for such payments, and logs each origin once.
pub(super) struct UnservedWatch {
    served: Vec<Served>,
    /// The payments found in the last sample.
    payments: Vec<UnservedPayments>,
    logged: BTreeSet<(Origin, Kind)>,
}

/// What was found of an origin.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
enum Kind {
    Operations,
    Payments,
}

impl UnservedWatch {
    pub fn new(variants: &HashMap<String, Arc<Variant>>) -> UnservedWatch {
        let of_variant =
            |variant: &Arc<Variant>| served(&variant.name, &variant.rules.gateway, variant.gateway.as_ref());
        UnservedWatch {
            served: variants.values().map(of_variant).collect(),
            payments: Vec::new(),
            logged: BTreeSet::new(),
        }
    }

    /// Returns the number of unserved open operations by variant. With `sample`, also looks for payments without open
    /// operations.
    ///
    /// # Errors
    /// The operations cannot be read from the database.
    pub async fn look(
        &mut self,
        store: &Store,
        health: &Health,
        sample: bool,
    ) -> Result<BTreeMap<String, i64>, StoreError> {
        let operations = store.unserved_operations(&self.served).await?;
        if sample {
            match store.unserved_payments(&self.served).await {
                Ok(payments) => self.payments = payments,
                Err(error) => warn!(error = chain(&error), "cannot read a sample of the payments; retrying later"),
            }
        }
        self.report(&operations, health);
        let mut count: BTreeMap<String, i64> = BTreeMap::new();
        for unserved in &operations {
            *count.entry(unserved.origin.variant.clone()).or_default() += unserved.count;
        }
        Ok(count)
    }

    fn report(&mut self, operations: &[UnservedOperations], health: &Health) {
        let of_operations = operations.iter().map(|found| (&found.origin, Kind::Operations, found.words()));
        let of_payments = self.payments.iter().map(|found| (&found.origin, Kind::Payments, found.words()));
        let mut logged = BTreeSet::new();
        let mut notes = Vec::new();
        for (origin, kind, words) in of_operations.chain(of_payments) {
            let key = (origin.clone(), kind);
            if !self.logged.contains(&key) {
                warn!(variant = origin.variant, found = words, "no configured variant serves stored payments");
            }
            logged.insert(key);
            notes.push(words);
        }
        self.logged = logged;
        health.set_notes("unserved payments", notes);
    }
}
