//! Whether commands are answered, as a subscriber sees it.

use std::time::{Duration, Instant};

use crate::load::Load;
use crate::support::wait::within;

/// How long events may stop: an election and a new connection take a second or two, and the machine may be busy.
const SOON: Duration = Duration::from_secs(15);

/// More answers than could still be in flight from before.
const ENOUGH: usize = 100;

/// Waits until answers continue after this moment.
pub async fn go_on(load: &Load, after: &str) {
    let begun = Instant::now();
    within(SOON, "more answers", async || {
        let come = load.world.log.filter(|event| event.is_final() && event.at > begun).len();
        if come >= ENOUGH { Ok(()) } else { Err(format!("{come} came after {after}")) }
    })
    .await;
    println!("{ENOUGH} answers within {:.1} s after {after}", begun.elapsed().as_secs_f32());
}
