//! What can go wrong, how often, and how that is written down.

use std::fmt::Write as _;
use std::path::Path;
use std::time::Duration;

use serde::de::{DeserializeOwned, Error as _};
use serde::{Deserialize, Deserializer, Serialize};
use serde_json::Value;

/// An HTTP date ends with the year 9999; this is some decades before.
const LAST_HTTP_DATE: Duration = Duration::from_secs(8000 * 365 * 24 * 3600);

/// One forced or rolled outcome of a request. The module's table says what each does.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
#[expect(missing_docs, reason = "the table in the module's documentation describes each")]
pub enum Fault {
    #[default]
    None,
    ErrorBefore,
    ErrorAfter,
    ReplyLost,
    LateEffect,
    Reset,
    HalfBody,
    Drip,
    NoCode,
    EmptyCode,
    Throttled,
    Unavailable,
    Unauthorized,
    Forbidden,
    Rejected,
    NotFound,
    Redirect,
    Garbage,
    Oversized,
    OddCode,
}

/// When a POST under a fault makes the new code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Effect {
    Now,
    Late,
    Never,
}

impl Fault {
    pub(super) fn effect(self) -> Effect {
        match self {
            Self::None
            | Self::ErrorAfter
            | Self::ReplyLost
            | Self::HalfBody
            | Self::Drip
            | Self::NoCode
            | Self::Oversized
            | Self::OddCode => Effect::Now,
            Self::LateEffect => Effect::Late,
            Self::ErrorBefore
            | Self::Reset
            | Self::EmptyCode
            | Self::Throttled
            | Self::Unavailable
            | Self::Unauthorized
            | Self::Forbidden
            | Self::Rejected
            | Self::NotFound
            | Self::Redirect
            | Self::Garbage => Effect::Never,
        }
    }
}

/// The `Retry-After` header of the faults `throttled` and `unavailable`.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum RetryAfter {
    /// No header.
    #[default]
    None,
    /// So many seconds.
    Seconds(u64),
    /// The HTTP date so many seconds from now.
    Date(u64),
}

impl RetryAfter {
    pub(super) fn header(self) -> Option<String> {
        match self {
            Self::None => None,
            Self::Seconds(seconds) => Some(seconds.to_string()),
            Self::Date(seconds) => {
                let due = crate::time::now().after(Duration::from_secs(seconds)).as_millis();
                let since_epoch = Duration::from_millis(u64::try_from(due).unwrap_or_default());
                let date = std::time::UNIX_EPOCH + since_epoch.min(LAST_HTTP_DATE);
                Some(httpdate::fmt_http_date(date))
            }
        }
    }
}

/// The faults of one kind of request: chances from 0 to 1, which exclude each other and so add up to at
/// most 1, and the figures that go with them.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(default, deny_unknown_fields)]
#[expect(missing_docs, reason = "a chance is named after its fault")]
pub struct Mix {
    /// Time before the effect, on every request that isn't refused at the door.
    pub latency_ms: u64,
    /// Up to so much more, evenly spread.
    pub jitter_ms: u64,
    pub error_before: f64,
    pub error_after: f64,
    pub reply_lost: f64,
    pub late_effect: f64,
    /// Time from the lost reply to the effect.
    pub late_effect_ms: u64,
    pub reset: f64,
    pub half_body: f64,
    pub drip: f64,
    /// Time between two pieces of a dripping body.
    pub drip_ms: u64,
    pub no_code: f64,
    pub empty_code: f64,
    pub throttled: f64,
    pub unavailable: f64,
    /// The header of both `throttled` and `unavailable`.
    pub retry_after: RetryAfter,
    pub unauthorized: f64,
    pub forbidden: f64,
    pub rejected: f64,
    pub not_found: f64,
    pub redirect: f64,
    pub garbage: f64,
    pub oversized: f64,
    pub odd_code: f64,
}

impl Default for Mix {
    fn default() -> Self {
        Self {
            latency_ms: 0,
            jitter_ms: 0,
            error_before: 0.0,
            error_after: 0.0,
            reply_lost: 0.0,
            late_effect: 0.0,
            late_effect_ms: 2000,
            reset: 0.0,
            half_body: 0.0,
            drip: 0.0,
            drip_ms: 50,
            no_code: 0.0,
            empty_code: 0.0,
            throttled: 0.0,
            unavailable: 0.0,
            retry_after: RetryAfter::None,
            unauthorized: 0.0,
            forbidden: 0.0,
            rejected: 0.0,
            not_found: 0.0,
            redirect: 0.0,
            garbage: 0.0,
            oversized: 0.0,
            odd_code: 0.0,
        }
    }
}

impl Mix {
    /// Each fault with the name of its field and its chance.
    pub(super) fn chances(&self) -> [(Fault, &'static str, f64); 19] {
        [
            (Fault::ErrorBefore, "error_before", self.error_before),
            (Fault::ErrorAfter, "error_after", self.error_after),
            (Fault::ReplyLost, "reply_lost", self.reply_lost),
            (Fault::LateEffect, "late_effect", self.late_effect),
            (Fault::Reset, "reset", self.reset),
            (Fault::HalfBody, "half_body", self.half_body),
            (Fault::Drip, "drip", self.drip),
            (Fault::NoCode, "no_code", self.no_code),
            (Fault::EmptyCode, "empty_code", self.empty_code),
            (Fault::Throttled, "throttled", self.throttled),
            (Fault::Unavailable, "unavailable", self.unavailable),
            (Fault::Unauthorized, "unauthorized", self.unauthorized),
            (Fault::Forbidden, "forbidden", self.forbidden),
            (Fault::Rejected, "rejected", self.rejected),
            (Fault::NotFound, "not_found", self.not_found),
            (Fault::Redirect, "redirect", self.redirect),
            (Fault::Garbage, "garbage", self.garbage),
            (Fault::Oversized, "oversized", self.oversized),
            (Fault::OddCode, "odd_code", self.odd_code),
        ]
    }

    fn check(&self, prefix: &str) -> Result<(), FaultsError> {
        let mut sum = 0.0;
        for (_, name, chance) in self.chances() {
            if !(0.0..=1.0).contains(&chance) {
                return Err(FaultsError::new(format!("{prefix}{name}"), "a chance is a number from 0 to 1"));
            }
            sum += chance;
        }
        // The slack is for chances like 0.1, which a binary number only comes close to.
        if sum > 1.0 + 1e-9 {
            let field = prefix.strip_suffix('.').unwrap_or("faults");
            return Err(FaultsError::new(
                field,
                "the chances exclude each other and must not add up to more than 1",
            ));
        }
        Ok(())
    }
}

/// All the faults: those of POSTs at the top, those of GETs under `read`. Unknown keys are errors.
#[derive(Clone, Debug, Default, PartialEq, Serialize)]
pub struct Faults {
    /// The faults of a generate POST. In TOML and JSON these keys are at the top.
    #[serde(flatten)]
    pub post: Mix,
    /// A trucker is 404 for so long after it was first asked for, as if the platform were ahead of Dashdoc.
    pub absent_ms: u64,
    /// Wins over `Settings::rate_limit` where it is set; 0 for no limit.
    #[serde(skip_serializing_if = "Option::is_none")]
    pub rate_limit: Option<u32>,
    /// The faults of a GET.
    pub read: Mix,
}

impl Faults {
    /// Faults of POSTs only.
    pub fn posts(post: Mix) -> Self {
        Self { post, ..Self::default() }
    }

    /// Faults of GETs only.
    pub fn reads(read: Mix) -> Self {
        Self { read, ..Self::default() }
    }

    /// Checks that every chance is one; reading from TOML or JSON checks by itself.
    pub fn check(&self) -> Result<(), FaultsError> {
        self.post.check("")?;
        self.read.check("read.")
    }

    /// Reads a profile by its name, or else a file: JSON if its name ends so, TOML otherwise.
    pub fn profile_or_file(name: &str) -> Result<Self, FaultsError> {
        match Self::profile(name) {
            Some(faults) => Ok(faults),
            None => Self::from_file(Path::new(name)),
        }
    }

    /// Reads a file: JSON if its name ends so, TOML otherwise.
    pub fn from_file(path: &Path) -> Result<Self, FaultsError> {
        let file = path.display().to_string();
        let text = std::fs::read_to_string(path).map_err(|error| {
            let mut message = error.to_string();
            let names: Vec<_> = Self::PROFILES.iter().map(|(name, _)| *name).collect();
            let _ = write!(message, " (it is no profile either: {})", names.join(", "));
            FaultsError::new(&file, message)
        })?;
        let value = if path.extension().is_some_and(|ending| ending.eq_ignore_ascii_case("json")) {
            serde_json::from_str(&text).map_err(|error| error.to_string())
        } else {
            toml::from_str(&text).map_err(|error| error.message().to_owned())
        };
        Self::from_value(value.map_err(|message| FaultsError::new(&file, message))?)
    }

    /// Reads parsed JSON, and names the field that is wrong.
    pub(super) fn from_value(value: Value) -> Result<Self, FaultsError> {
        let Value::Object(mut fields) = value else {
            return Err(FaultsError::new("faults", "a table of faults is expected"));
        };
        // Taken out by hand, because serde cannot flatten and refuse unknown fields at once.
        let mut take = |name: &'static str| fields.remove(name).map(|value| (name, value));
        let read = take("read").map(field).transpose()?.unwrap_or_default();
        let absent_ms = take("absent_ms").map(field).transpose()?.unwrap_or_default();
        let rate_limit = take("rate_limit").map(field).transpose()?.flatten();
        let post = field(("", Value::Object(fields)))?;
        let faults = Self { post, absent_ms, rate_limit, read };
        faults.check()?;
        Ok(faults)
    }
}

impl<'de> Deserialize<'de> for Faults {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::from_value(Value::deserialize(deserializer)?).map_err(D::Error::custom)
    }
}

/// What is wrong with a description of faults.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
#[error("{field}: {message}")]
pub struct FaultsError {
    /// The key, dotted, or the file.
    pub field: String,
    /// What is wrong with it.
    pub message: String,
}

impl FaultsError {
    pub(super) fn new(field: impl Into<String>, message: impl Into<String>) -> Self {
        Self { field: field.into(), message: message.into() }
    }
}

/// Reads the value of one field, or of all of them under the empty name; an error names the inner field too.
pub(super) fn field<T: DeserializeOwned>((name, value): (&str, Value)) -> Result<T, FaultsError> {
    serde_path_to_error::deserialize(value).map_err(|error| {
        let inner = match error.path().to_string() {
            path if path == "." => String::new(),
            path => path,
        };
        let path = match (name, inner.as_str()) {
            ("", "") => "body".to_owned(),
            (outer, "") => outer.to_owned(),
            ("", inner) => inner.to_owned(),
            (outer, inner) => format!("{outer}.{inner}"),
        };
        FaultsError::new(path, error.into_inner().to_string())
    })
}
