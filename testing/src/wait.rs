//! Waiting for a condition: looked at again and again, and never for ever.

use std::fmt::Display;
use std::time::{Duration, Instant};

/// How long anything is waited for where nothing is lost. Below the period of every safety net of paybus, the soonest of
/// which is the relay's after 10 s, so that no test passes because one of them did the work.
pub const TIMEOUT: Duration = Duration::from_secs(8);

/// The same where something is lost on purpose, and a net must catch it.
pub const TIMEOUT_WITH_NETS: Duration = Duration::from_secs(60);

/// How long events may go on to arrive before the one that is waited for.
pub const ARRIVAL: Duration = Duration::from_secs(300);

/// How long whatever a test needs may take to be there: databases, workers, and the test's own way to the broker. It says
/// nothing of paybus, and the machine may be busy.
pub const START: Duration = Duration::from_secs(60);

/// How often a condition is looked at.
const LOOK: Duration = Duration::from_millis(15);

/// Waits until a condition is met, and returns what it found. The last thing that was missing is in the message of the
/// failure.
pub async fn eventually<T, E: Display>(what: &str, condition: impl AsyncFnMut() -> Result<T, E>) -> T {
    within(TIMEOUT, what, condition).await
}

/// The same for a condition that may take longer, or must be met sooner.
pub async fn within<T, E: Display>(
    timeout: Duration,
    what: &str,
    mut condition: impl AsyncFnMut() -> Result<T, E>,
) -> T {
    let begun = Instant::now();
    loop {
        match condition().await {
            Ok(found) => return found,
            Err(missing) if begun.elapsed() > timeout => {
                panic!("waited {} s for {what}: {missing}", timeout.as_secs_f32())
            }
            Err(_) => tokio::time::sleep(LOOK).await,
        }
    }
}
