//! W3C trace context, as far as it is carried through the store and into outgoing events.

use serde::{Deserialize, Serialize};

/// Longest `tracestate` that is carried; W3C asks to propagate at least this much.
const TRACESTATE_MAX: usize = 512;

/// Where the trace of an event began. Both parts are well-formed, or absent.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct TraceContext {
    /// `00-<trace id>-<span id>-<flags>`, always in the form of version 00.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub traceparent: Option<String>,
    /// Vendors' additions; never without a `traceparent`.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub tracestate: Option<String>,
}

impl TraceContext {
    /// Takes what is well-formed and drops the rest: a broken trace is no reason to refuse an event.
    pub fn from_texts(traceparent: Option<&str>, tracestate: Option<&str>) -> Self {
        let Some(traceparent) = traceparent.and_then(normalized_traceparent) else {
            return Self::default();
        };
        let tracestate = tracestate.map(str::trim).filter(|state| is_tracestate(state)).map(str::to_owned);
        Self { traceparent: Some(traceparent), tracestate }
    }

    /// Whether there is no trace.
    pub const fn is_empty(&self) -> bool {
        self.traceparent.is_none()
    }
}

/// The text as version 00. Later versions are read by the fields they share with version 00, as W3C asks.
fn normalized_traceparent(text: &str) -> Option<String> {
    let text = text.trim();
    let (version, rest) = text.split_once('-')?;
    let (trace_id, rest) = rest.split_once('-')?;
    let (span_id, rest) = rest.split_once('-')?;
    let (flags, more) = match rest.split_once('-') {
        Some((flags, _)) => (flags, true),
        None => (rest, false),
    };
    let well_formed = is_hex(version, 2)
        && version != "ff"
        && is_hex(trace_id, 32)
        && trace_id.bytes().any(|b| b != b'0')
        && is_hex(span_id, 16)
        && span_id.bytes().any(|b| b != b'0')
        && is_hex(flags, 2)
        && !(more && version == "00");
    well_formed.then(|| format!("00-{trace_id}-{span_id}-{flags}"))
}

fn is_hex(text: &str, length: usize) -> bool {
    text.len() == length && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

fn is_tracestate(text: &str) -> bool {
    let printable = |b: u8| b == b' ' || b.is_ascii_graphic();
    text.contains('=') && text.len() <= TRACESTATE_MAX && text.bytes().all(printable)
}

#[cfg(test)]
mod tests {
    use super::*;

    const PARENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

    fn parent(text: &str) -> Option<String> {
        TraceContext::from_texts(Some(text), None).traceparent
    }

    #[test]
    fn a_well_formed_traceparent_is_kept() {
        assert_eq!(parent(PARENT).as_deref(), Some(PARENT));
        assert_eq!(parent(&format!(" {PARENT} ")).as_deref(), Some(PARENT));
    }

    #[test]
    fn a_later_version_is_read_by_the_fields_that_version_00_has() {
        assert_eq!(parent(&format!("cc{}-what-the-future", &PARENT[2..])).as_deref(), Some(PARENT));
        assert_eq!(parent(&format!("cc{}", &PARENT[2..])).as_deref(), Some(PARENT));
    }

    #[test]
    fn a_malformed_traceparent_is_dropped_and_takes_the_tracestate_with_it() {
        for bad in [
            "",
            "-",
            "garbage",
            "00-00000000000000000000000000000000-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-0000000000000000-01",
            "00-4BF92F3577B34DA6A3CE929D0E0E4736-00f067aa0ba902b7-01",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-1",
            "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01-more",
            "ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01",
        ] {
            assert_eq!(TraceContext::from_texts(Some(bad), Some("a=1")), TraceContext::default(), "{bad}");
        }
    }

    #[test]
    fn a_tracestate_is_bounded_and_printable() {
        let state = |text: &str| TraceContext::from_texts(Some(PARENT), Some(text)).tracestate;
        assert_eq!(state("congo=t61rcWkgMzE, rojo=1").as_deref(), Some("congo=t61rcWkgMzE, rojo=1"));
        for bad in ["", "novalue", "a=\nb", "é=1", &format!("a={}", "x".repeat(TRACESTATE_MAX))] {
            assert_eq!(state(bad), None, "{bad:?} was taken");
        }
    }
}
