//! The closed sets of label values. Nothing that comes from outside is ever a label.

use super::table::{Accounts, Label};
use crate::broker::BrokerEvent;
use crate::dashdoc::answer::Operation;
use crate::invite::{Announcement, FailureClass, GateReason, Origin, Sink, StateName};

/// Declares a label as an enum: its name in the metrics, and a word for each value.
macro_rules! label {
    ($(#[$doc:meta])* $name:ident: $label:literal { $($(#[$variant_doc:meta])* $variant:ident = $word:literal,)+ }) => {
        $(#[$doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $name { $($(#[$variant_doc])* $variant,)+ }

        impl $name {
            /// Every value.
            pub const ALL: &'static [Self] = &[$(Self::$variant,)+];

            /// The word in the metrics.
            pub const fn as_str(self) -> &'static str {
                match self { $(Self::$variant => $word,)+ }
            }
        }

        impl Label for $name {
            const NAME: &'static str = $label;

            fn words(_: &Accounts) -> Vec<String> {
                Self::ALL.iter().map(|value| value.as_str().to_owned()).collect()
            }

            fn position(&self, _: &Accounts) -> usize {
                *self as usize
            }
        }
    };
}

/// The same for an enum of the domain, which has its `ALL` and `as_str` already.
macro_rules! domain_label {
    ($name:ident: $label:literal) => {
        impl Label for $name {
            const NAME: &'static str = $label;

            fn words(_: &Accounts) -> Vec<String> {
                Self::ALL.iter().map(|value| value.as_str().to_owned()).collect()
            }

            fn position(&self, _: &Accounts) -> usize {
                Self::ALL.iter().position(|value| value == self).expect("ALL holds every value")
            }
        }
    };
}

domain_label!(Origin: "origin");
domain_label!(FailureClass: "class");
domain_label!(StateName: "state");
domain_label!(GateReason: "reason");
domain_label!(Sink: "sink");
domain_label!(Announcement: "event");
domain_label!(Operation: "operation");
domain_label!(BrokerEvent: "kind");

label!(
    /// Where an event came from.
    Source: "source" {
        /// The queue.
        Rabbitmq = "rabbitmq",
        /// The HTTP endpoint.
        Webhook = "webhook",
    }
);

label!(
    /// What became of an incoming event.
    EventOutcome: "outcome" {
        /// A new invite.
        Accepted = "accepted",
        /// The same event had come before.
        Duplicate = "duplicate",
        /// Another event for a trucker whose invite exists.
        Joined = "joined",
        /// Not usable: unparsable, no key, wrong type.
        Poison = "poison",
        /// Not taken for now: no signature, or the store is down.
        Refused = "refused",
    }
);

label!(
    /// How a request to the API ended.
    ApiOutcome: "outcome" {
        /// A usable code.
        Code = "code",
        /// 200 without a usable code.
        Doubtful = "doubtful",
        /// 404.
        NotFound = "not_found",
        /// Any other 4xx.
        Rejected = "rejected",
        /// 401 or 403.
        Credentials = "credentials",
        /// 3xx.
        Misconfigured = "misconfigured",
        /// 429, or 503 with `Retry-After`.
        Throttled = "throttled",
        /// Sent, and nobody knows.
        Unknown = "unknown",
        /// Nothing was sent.
        Transient = "transient",
        /// Read, and the trucker has no code.
        NoCode = "no_code",
        /// Any other success.
        Ok = "ok",
    }
);

label!(
    /// Why the outcome of a call is not known.
    UnknownCause: "cause" {
        /// No answer in time.
        Timeout = "timeout",
        /// The connection broke after the request was written.
        Reset = "reset",
        /// A 5xx, or 408.
        Http5xx = "http_5xx",
        /// The process ended while calling.
        Crash = "crash",
        /// 200 without a usable code.
        Doubtful = "doubtful",
    }
);

label!(
    /// How an unknown outcome became known.
    UnknownResolution: "how" {
        /// A code was found at the API.
        Code = "code",
        /// No code was there; the call is repeated.
        NoCode = "no_code",
        /// The second read-back found another code than the published one.
        Changed = "changed",
        /// The second read-back found the published code.
        Confirmed = "confirmed",
        /// The second read-back found no code any more: the published one was used, as it should be.
        Used = "used",
        /// Reading back was given up without an answer.
        GivenUp = "given_up",
    }
);

label!(
    /// A state in which an invite still waits for something.
    WaitingState: "state" {
        /// See [`StateName::Received`].
        Received = "received",
        /// See [`StateName::Calling`].
        Calling = "calling",
        /// See [`StateName::Waiting`].
        Waiting = "waiting",
        /// See [`StateName::Parked`].
        Parked = "parked",
        /// See [`StateName::Unknown`].
        Unknown = "unknown",
        /// See [`StateName::Ready`].
        Ready = "ready",
    }
);

impl WaitingState {
    /// The name of the state.
    pub const fn name(self) -> StateName {
        match self {
            Self::Received => StateName::Received,
            Self::Calling => StateName::Calling,
            Self::Waiting => StateName::Waiting,
            Self::Parked => StateName::Parked,
            Self::Unknown => StateName::Unknown,
            Self::Ready => StateName::Ready,
        }
    }
}

label!(
    /// How the attempts at a code ended.
    Ended: "outcome" {
        /// With a code.
        Ready = "ready",
        /// On the work list.
        Dead = "dead",
    }
);

label!(
    /// A part that the doctor looks at.
    Part: "part" {
        /// Keys and values.
        Configuration = "configuration",
        /// The store.
        Store = "store",
        /// The queue, or the webhook's guard.
        Source = "source",
        /// Where announcements go.
        Sink = "sink",
        /// The API of any account.
        Api = "api",
        /// The port for operators.
        Admin = "admin",
        /// The collector of traces.
        Telemetry = "telemetry",
    }
);

impl Part {
    /// The part that a check belongs to: its name's first word.
    pub fn of(check: &str) -> Option<Self> {
        let first = check.split('.').next().unwrap_or_default();
        Self::ALL.iter().copied().find(|part| part.as_str() == first)
    }
}

label!(
    /// How one of the doctor's checks ended.
    CheckVerdict: "verdict" {
        /// As it should be.
        Ok = "ok",
        /// Worth a look.
        Warning = "warning",
        /// To be mended.
        Failed = "failed",
        /// Not looked at.
        Skipped = "skipped",
    }
);

label!(
    /// Why a span was not delivered.
    SpanLoss: "reason" {
        /// Too many waited for the collector.
        QueueFull = "queue_full",
        /// The collector did not take them.
        NotDelivered = "not_delivered",
    }
);

label!(
    /// Why an event could not be published.
    PublishFailure: "reason" {
        /// No queue is bound.
        Unroutable = "unroutable",
        /// The broker said no.
        Nacked = "nacked",
        /// No confirm in time.
        Unconfirmed = "unconfirmed",
        /// No connection.
        Disconnected = "disconnected",
        /// The receiver refused it for good.
        Refused = "refused",
        /// No answer in time.
        Timeout = "timeout",
        /// Anything else.
        Other = "other",
    }
);

label!(
    /// What a connection to the broker is for.
    Purpose: "purpose" {
        /// Taking events in.
        Consume = "consume",
        /// Sending events out.
        Publish = "publish",
    }
);

label!(
    /// A route of the public port.
    Route: "route" {
        /// The webhook endpoint.
        Webhook = "webhook",
        /// Every other path.
        Other = "other",
    }
);

label!(
    /// An answer of the public port.
    HttpStatus: "status" {
        /// Accepted, or a duplicate.
        Accepted = "202",
        /// Not readable.
        BadRequest = "400",
        /// No valid signature or token.
        Unauthorized = "401",
        /// Too large.
        TooLarge = "413",
        /// Not a media type we take.
        UnsupportedMedia = "415",
        /// Readable, but not usable.
        Unprocessable = "422",
        /// Too much at once.
        TooMany = "429",
        /// The store is down, or the process drains.
        Unavailable = "503",
        /// Any other.
        Other = "other",
    }
);

impl HttpStatus {
    /// The label of a status code.
    pub fn of(status: u16) -> Self {
        match status {
            202 => Self::Accepted,
            400 => Self::BadRequest,
            401 => Self::Unauthorized,
            413 => Self::TooLarge,
            415 => Self::UnsupportedMedia,
            422 => Self::Unprocessable,
            429 => Self::TooMany,
            503 => Self::Unavailable,
            _ => Self::Other,
        }
    }
}
