//! Places where tests let the worker die. They exist in debug builds alone: a release has none of this.

/// A step of a command's way that was just reached. `PAYBUS_FAILPOINT=STEP` ends the process there at once, as a crash
/// would, and `PAYBUS_FAILPOINT=STEP@N` when it is reached for the Nth time.
#[cfg(debug_assertions)]
pub fn reach(step: &str) {
    use std::sync::OnceLock;
    use std::sync::atomic::{AtomicU32, Ordering};

    static WANTED: OnceLock<Option<(String, u32)>> = OnceLock::new();
    static REACHED: AtomicU32 = AtomicU32::new(0);
    let wanted = WANTED.get_or_init(|| {
        let text = std::env::var("PAYBUS_FAILPOINT").ok()?;
        let (step, count) = text.split_once('@').unwrap_or((&text, "1"));
        Some((step.to_owned(), count.parse().unwrap_or(1)))
    });
    if let Some((wanted, count)) = wanted
        && wanted == step
        && REACHED.fetch_add(1, Ordering::Relaxed) + 1 == *count
    {
        std::process::abort();
    }
}

/// Nothing, in a release.
#[cfg(not(debug_assertions))]
#[inline]
pub fn reach(_step: &str) {}
