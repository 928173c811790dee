//! Trace context: W3C Trace Context, <https://www.w3.org/TR/trace-context/>.

/// Version, trace id, parent id and flags: hexadecimal, separated by dashes.
const LENGTHS: [usize; 4] = [2, 32, 16, 2];
/// Total length. A longer value belongs to a later version; the rest of it is not interpreted.
const LENGTH: usize = 55;

/// A position in a trace. It requires a well-formed `traceparent`: by the specification a malformed one is ignored
/// together with its `tracestate`, and a new trace starts.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct TraceContext {
    parent: String,
    state: Option<String>,
}

impl TraceContext {
    /// Parses the two headers. For a later version the known part of `traceparent` is used, as the specification
    /// requires; a `tracestate` that no header can hold is dropped.
    pub fn read(parent: &str, state: Option<&str>) -> Option<TraceContext> {
        let (known, rest) = parent.split_at_checked(LENGTH)?;
        let parts: Vec<&str> = known.split('-').collect();
        let is_hex = |part: &str| part.bytes().all(|byte| matches!(byte, b'0'..=b'9' | b'a'..=b'f'));
        let is_zero = |part: &str| part.bytes().all(|byte| byte == b'0');
        let [version, trace, span, flags] = <[&str; 4]>::try_from(parts).ok()?;
        let fits = [version, trace, span, flags]
            .iter()
            .zip(LENGTHS)
            .all(|(part, length)| part.len() == length && is_hex(part));
        let is_known = if version == "00" { rest.is_empty() } else { rest.is_empty() || rest.starts_with('-') };
        if !fits || !is_known || version == "ff" || is_zero(trace) || is_zero(span) {
            return None;
        }
        let fits_a_header = |state: &&str| !state.is_empty() && state.bytes().all(|byte| (b' '..=b'~').contains(&byte));
        Some(TraceContext {
            parent: format!("00-{trace}-{span}-{flags}"),
            state: state.filter(fits_a_header).map(str::to_owned),
        })
    }

    /// `traceparent`, 55 characters.
    pub fn parent(&self) -> &str {
        &self.parent
    }

    /// `tracestate`.
    pub fn state(&self) -> Option<&str> {
        self.state.as_deref()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const GOOD: &str = "00-0af7651916cd43dd8448eb211c80319c-b7ad6b7169203331-01";

    fn parent(text: &str) -> Option<String> {
        TraceContext::read(text, None).map(|context| context.parent)
    }

    #[test]
    fn a_well_formed_context_is_kept() {
        let context = TraceContext::read(GOOD, Some("shop=1,other=2")).unwrap();
        assert_eq!((context.parent(), context.state()), (GOOD, Some("shop=1,other=2")));
        assert_eq!(parent(&format!("cc{}-what-the-future-brings", &GOOD[2..])).as_deref(), Some(GOOD));
        assert_eq!(parent(&format!("cc{}", &GOOD[2..])).as_deref(), Some(GOOD));
    }

    #[test]
    fn a_malformed_one_is_none() {
        for malformed in [
            "",
            "00-1",
            "line\nbreak",
            &GOOD.to_uppercase(),
            &format!("{GOOD}-more"),
            &format!("{GOOD} "),
            &format!("cc{}more", &GOOD[2..]),
            &format!("ff{}", &GOOD[2..]),
            &GOOD.replace("b7ad6b7169203331", "0000000000000000"),
            &GOOD.replace("0af7651916cd43dd8448eb211c80319c", "00000000000000000000000000000000"),
            &GOOD.replace('-', "_"),
            &GOOD.replace("-01", "-0g"),
            // As long as a valid one, but with a multi-byte character where it would be cut.
            &format!("{}ä", &GOOD[..54]),
        ] {
            assert_eq!(parent(malformed), None, "{malformed}");
        }
    }

    #[test]
    fn a_state_that_no_header_can_hold_is_left_out() {
        for state in ["", "line\nbreak", "ä=1", "shop=\u{7f}"] {
            assert_eq!(TraceContext::read(GOOD, Some(state)).unwrap().state(), None, "{state:?}");
        }
    }
}
