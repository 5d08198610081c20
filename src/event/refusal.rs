//! Why a message is not taken: for the sender's answer, the dead-letter header, the log and the metrics.

use std::borrow::Cow;
use std::fmt;

/// The kind of a refusal, which is also the webhook's answer.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalKind {
    /// 400: the bytes are no JSON, or no CloudEvent 1.0 although they claim to be one.
    Malformed,
    /// 415: a content type that is not read here.
    UnsupportedMedia,
    /// 422: read and understood, but it asks for nothing that can be done.
    Unprocessable,
}

impl RefusalKind {
    /// The HTTP status of the answer.
    pub const fn status(self) -> u16 {
        match self {
            Self::Malformed => 400,
            Self::UnsupportedMedia => 415,
            Self::Unprocessable => 422,
        }
    }
}

/// The reason as a word out of a closed set: a metric label and the reason header of a dead letter.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum RefusalReason {
    /// The body, or the decoded `data_base64`, is no JSON.
    InvalidJson,
    /// An attribute is missing or wrong, or there is `data` twice.
    InvalidCloudEvent,
    /// The content type is neither JSON nor CloudEvents in JSON.
    UnsupportedMediaType,
    /// Several CloudEvents in one message.
    Batch,
    /// An event of a type that is not listed.
    WrongType,
    /// None of the pointers finds a primary key.
    MissingPk,
    /// The primary key is not one.
    InvalidPk,
    /// The account's name is not one.
    InvalidAccount,
    /// The event names another account than the one that its way in belongs to.
    ForeignAccount,
    /// The event's own id or source can't be kept: too long, or with control characters in it.
    InvalidIdentity,
    /// The fields to carry along are too large.
    TooLarge,
}

impl RefusalReason {
    /// Every reason, for metrics that exist from the start.
    pub const ALL: [Self; 11] = [
        Self::InvalidJson,
        Self::InvalidCloudEvent,
        Self::UnsupportedMediaType,
        Self::Batch,
        Self::WrongType,
        Self::MissingPk,
        Self::InvalidPk,
        Self::InvalidAccount,
        Self::ForeignAccount,
        Self::InvalidIdentity,
        Self::TooLarge,
    ];

    /// The word used in metrics and headers.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::InvalidJson => "invalid_json",
            Self::InvalidCloudEvent => "invalid_cloudevent",
            Self::UnsupportedMediaType => "unsupported_media_type",
            Self::Batch => "batch",
            Self::WrongType => "wrong_type",
            Self::MissingPk => "missing_pk",
            Self::InvalidPk => "invalid_pk",
            Self::InvalidAccount => "invalid_account",
            Self::ForeignAccount => "foreign_account",
            Self::InvalidIdentity => "invalid_identity",
            Self::TooLarge => "too_large",
        }
    }

    /// The kind that the reason belongs to.
    pub const fn kind(self) -> RefusalKind {
        match self {
            Self::InvalidJson | Self::InvalidCloudEvent => RefusalKind::Malformed,
            Self::UnsupportedMediaType | Self::Batch => RefusalKind::UnsupportedMedia,
            Self::WrongType
            | Self::MissingPk
            | Self::InvalidPk
            | Self::InvalidAccount
            | Self::ForeignAccount
            | Self::InvalidIdentity
            | Self::TooLarge => RefusalKind::Unprocessable,
        }
    }
}

/// A message that is not taken. Holds no value out of the message: a value may be somebody's name.
///
/// Reads like `/data/trucker/pk: must be a whole number from 1 to 9223372036854775807, found text; send …`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Refusal {
    /// The reason as a word.
    pub reason: RefusalReason,
    /// Where: a JSON pointer from the configuration, an attribute, a header, or `body`.
    pub field: String,
    /// What is wrong there.
    pub problem: Cow<'static, str>,
    /// What the sender, or the operator, can do about it.
    pub mend: Cow<'static, str>,
}

impl Refusal {
    pub(super) fn new(
        reason: RefusalReason,
        field: impl Into<String>,
        problem: impl Into<Cow<'static, str>>,
        mend: impl Into<Cow<'static, str>>,
    ) -> Self {
        Self { reason, field: field.into(), problem: problem.into(), mend: mend.into() }
    }

    /// A body of more than `limit` bytes, which is not even looked at.
    pub fn body_too_large(limit: usize) -> Self {
        let problem = format!("is larger than {limit} bytes");
        Self::new(RefusalReason::TooLarge, "body", problem, "send the event without attachments")
    }

    /// The kind of the refusal, which is also the webhook's answer.
    pub const fn kind(&self) -> RefusalKind {
        self.reason.kind()
    }

    /// The reason as a word out of a closed set.
    pub const fn reason_code(&self) -> &'static str {
        self.reason.as_str()
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}; {}", self.field, self.problem, self.mend)
    }
}

impl std::error::Error for Refusal {}
