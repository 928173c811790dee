//! Failpoints, at which tests crash or stop the worker. They exist in debug builds only.

use uuid::Uuid;

/// Marks a step of a payment's command as reached. With `PAYBUS_FAILPOINT=STEP` the process aborts there at once, as in
/// a crash; with `PAYBUS_FAILPOINT=STEP@N` it does so the Nth time; with `STEP:PAYMENT` only that payment counts. With
/// `PAYBUS_FAILPOINT_ACTION=stop` the process stops there instead, until it receives SIGCONT.
#[cfg(debug_assertions)]
pub fn reach(step: &str, payment: Uuid) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<Wanted>> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| std::env::var("PAYBUS_FAILPOINT").ok().map(|text| Wanted::read(&text)));
    if let Some(wanted) = wanted
        && wanted.step == step
        && wanted.payment.is_none_or(|wanted| wanted == payment)
        && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == wanted.count
    {
        act();
    }
}

/// Stops the parent process and exits once it has stopped. Sending the signal is not enough: until a thread handles it,
/// the calling thread would continue past its lease check and into the gateway call.
#[cfg(debug_assertions)]
const STOP: &str = "kill -s STOP $PPID; for i in $(seq 500); do grep -q '^State:.T' /proc/$PPID/status && exit 0; sleep 0.01; done; exit 1";

/// Aborts the process, or stops it.
#[cfg(debug_assertions)]
fn act() {
    let stops = std::env::var("PAYBUS_FAILPOINT_ACTION").is_ok_and(|action| action == "stop");
    let stop = || std::process::Command::new("sh").args(["-c", STOP]).status();
    if !stops || !stop().is_ok_and(|status| status.success()) {
        std::process::abort();
    }
}

/// Does nothing in a release build.
#[cfg(not(debug_assertions))]
#[inline]
pub fn reach(_step: &str, _payment: Uuid) {}

#[cfg(debug_assertions)]
struct Wanted {
    step: String,
    payment: Option<Uuid>,
    count: u32,
}

#[cfg(debug_assertions)]
impl Wanted {
    fn read(text: &str) -> Wanted {
        let (point, count) = text.split_once('@').unwrap_or((text, "1"));
        let (step, payment) = point.split_once(':').unwrap_or((point, ""));
        Wanted { step: step.to_owned(), payment: payment.parse().ok(), count: count.parse().unwrap_or(1) }
    }
}
