//! Named sets of faults.

use super::faults::{Faults, Mix, RetryAfter};

impl Faults {
    /// Every profile with a line about it, in the order they are shown.
    pub const PROFILES: &[(&str, &str)] = &[
        ("none", "nothing goes wrong"),
        ("flaky", "an ordinary bad day: errors, lost replies, 429 without Retry-After, 50 ms of latency"),
        ("throttled", "only the documented limit of 10 requests per second, enforced"),
        ("late", "one POST in five takes effect 2 s after its connection was lost"),
        ("outage", "every request is answered 503"),
        ("hostile", "a bit of everything that can be survived"),
    ];

    /// The profile of that name.
    pub fn profile(name: &str) -> Option<Self> {
        match name {
            "none" => Some(Self::default()),
            "flaky" => Some(Self::posts(flaky())),
            "throttled" => Some(Self { rate_limit: Some(10), ..Self::default() }),
            "late" => Some(Self::posts(Mix { late_effect: 0.2, late_effect_ms: 2000, ..Mix::default() })),
            "outage" => {
                let down = Mix { unavailable: 1.0, ..Mix::default() };
                Some(Self { post: down.clone(), read: down, ..Self::default() })
            }
            "hostile" => Some(Self { post: hostile_post(), read: hostile_read(), ..Self::default() }),
            _ => None,
        }
    }
}

fn flaky() -> Mix {
    Mix {
        latency_ms: 50,
        error_before: 0.10,
        error_after: 0.05,
        reply_lost: 0.05,
        throttled: 0.05,
        ..Mix::default()
    }
}

/// Leaves out what a person must mend: `unauthorized`, `forbidden`, `redirect` and `rejected`.
fn hostile_post() -> Mix {
    Mix {
        latency_ms: 10,
        jitter_ms: 40,
        error_before: 0.04,
        error_after: 0.04,
        reply_lost: 0.04,
        late_effect: 0.02,
        late_effect_ms: 1000,
        reset: 0.04,
        half_body: 0.03,
        drip: 0.02,
        drip_ms: 5,
        no_code: 0.02,
        empty_code: 0.02,
        throttled: 0.02,
        unavailable: 0.02,
        retry_after: RetryAfter::Seconds(1),
        not_found: 0.02,
        garbage: 0.02,
        oversized: 0.01,
        odd_code: 0.01,
        ..Mix::default()
    }
}

fn hostile_read() -> Mix {
    Mix {
        latency_ms: 10,
        jitter_ms: 40,
        error_before: 0.04,
        reply_lost: 0.04,
        reset: 0.04,
        half_body: 0.03,
        drip: 0.02,
        drip_ms: 5,
        throttled: 0.02,
        unavailable: 0.02,
        retry_after: RetryAfter::Date(1),
        garbage: 0.02,
        oversized: 0.01,
        ..Mix::default()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_listed_profile_exists_and_can_be_rolled() {
        for (name, _) in Faults::PROFILES {
            let faults = Faults::profile(name).unwrap_or_else(|| panic!("{name} is missing"));
            assert_eq!(faults.check(), Ok(()), "{name}");
        }
        assert_eq!(Faults::profile("nonsense"), None);
    }

    #[test]
    fn a_profile_survives_being_written_and_read_as_json_and_as_toml() {
        for (name, _) in Faults::PROFILES {
            let faults = Faults::profile(name).unwrap();
            let json = serde_json::to_string(&faults).unwrap();
            assert_eq!(serde_json::from_str::<Faults>(&json).unwrap(), faults, "{name} as JSON");
            let toml = toml::to_string(&faults).unwrap();
            assert_eq!(toml::from_str::<Faults>(&toml).unwrap(), faults, "{name} as TOML");
        }
    }
}
