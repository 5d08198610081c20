//! Which log lines and spans pass. The level is the user's choice; the cap on other crates is not.
//!
//! Libraries log what they send and receive at `debug` and `trace`: AMQP's `StartOk` holds the broker's
//! password, HTTP headers hold tokens, bodies hold codes. So no setting lets anything below `info` through
//! that this crate did not write itself.

use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::filter::{EnvFilter, FilterExt, ParseError, filter_fn};
use tracing_subscriber::layer::{Context, Filter};
use tracing_subscriber::registry::LookupSpan;

/// The root of all our targets.
const OWN: &str = "invite_relay";

/// lapin warns with the whole body of a message that came back, which holds an invite code, and calls an ordinary
/// end of a channel an error. What matters of it, the broker module reports itself.
const NEVER: &str = "lapin";

/// The filter of the log: the user's directives under the cap.
pub(super) fn log<S>(directives: &str) -> Result<impl Filter<S> + Send + Sync + 'static, ParseError>
where
    S: Subscriber + for<'span> LookupSpan<'span>,
{
    let wanted = EnvFilter::builder().parse(directives)?;
    Ok(FilterExt::<S>::and(wanted, Cap))
}

/// The filter of the traces: our own spans, and our own warnings as events on them. It does not follow the
/// log level, so that a quiet log does not mean empty traces.
pub(super) fn traces<S>() -> impl Filter<S> + Send + Sync + 'static
where
    S: Subscriber,
{
    filter_fn(|meta: &Metadata<'_>| {
        let most = if meta.is_span() { LevelFilter::INFO } else { LevelFilter::WARN };
        is_own(meta.target()) && *meta.level() <= most
    })
    .with_max_level_hint(LevelFilter::INFO)
}

/// The most that `target` may say, whatever the user asked for.
fn cap(target: &str) -> LevelFilter {
    if is_own(target) {
        LevelFilter::TRACE
    } else if is_within(target, NEVER) {
        LevelFilter::OFF
    } else {
        LevelFilter::INFO
    }
}

fn is_own(target: &str) -> bool {
    is_within(target, OWN)
}

/// Whether `target` is the module `root` or lies below it.
fn is_within(target: &str, root: &str) -> bool {
    target.strip_prefix(root).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"))
}

struct Cap;

impl<S> Filter<S> for Cap {
    fn enabled(&self, meta: &Metadata<'_>, _: &Context<'_, S>) -> bool {
        *meta.level() <= cap(meta.target())
    }

    fn callsite_enabled(&self, meta: &'static Metadata<'static>) -> Interest {
        if *meta.level() <= cap(meta.target()) { Interest::always() } else { Interest::never() }
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        // Without a hint the user's own would be lost, and every disabled call site would be asked anew.
        Some(LevelFilter::TRACE)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_our_own_modules_may_say_more_than_info() {
        for (target, most) in [
            ("invite_relay", LevelFilter::TRACE),
            ("invite_relay::broker::connection", LevelFilter::TRACE),
            ("invite_relay_impostor", LevelFilter::INFO),
            ("lapin::channel", LevelFilter::OFF),
            ("lapin::returned_messages", LevelFilter::OFF),
            ("amq_protocol", LevelFilter::INFO),
            ("hyper_util::client", LevelFilter::INFO),
            ("a_crate_added_next_year", LevelFilter::INFO),
        ] {
            assert_eq!(cap(target), most, "{target}");
        }
    }
}
