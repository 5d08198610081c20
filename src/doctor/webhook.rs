//! Webhooks: what guards the endpoint of the source, and whether the endpoint of the sink is there.

use std::collections::BTreeSet;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

use super::finding::{Finding, Findings};
use super::keys::Keys;
use super::net;
use crate::config::{Config, Secret, WebhookSink, WebhookSource};
use crate::signature::Token;

/// Of 24 random bytes, hardly ever are fewer than 20 different.
const DISTINCT_BYTES_MIN: usize = 12;
/// Of 16 random hex digits, hardly ever are fewer than 8 different.
const DISTINCT_CHARACTERS_MIN: usize = 6;
/// Secrets that stand in public documents: the one of the specification's reference tests, and its most copied one.
const PUBLIC: [&str; 2] =
    ["whsec_C2FVsBQIhrscChlQIMV+b5sSYspob7oD", "whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw"];
const NEW_SECRET: &str = "echo \"whsec_$(openssl rand -base64 32)\"";

pub(super) fn source(section: &WebhookSource, keys: Keys<'_>) -> Vec<Finding> {
    let mut findings = Findings::about("source.webhook");
    if !section.enabled {
        return Vec::new();
    }
    let secrets = section.secrets_source().map(|source| source.read());
    let tokens = section.tokens_source().map(|source| source.read());
    if secrets.is_none() && tokens.is_none() {
        findings.warning(
            "verifier",
            "anyone who reaches the port can make the service generate codes",
            format!("set source.webhook.secrets_file to a file with a secret: {NEW_SECRET}"),
        );
    }
    match secrets {
        Some(Ok(secrets)) => signing(&secrets, &keys.secret("source.webhook.secrets"), &mut findings),
        Some(Err(error)) => {
            unreadable("secrets", &error, &keys.secret("source.webhook.secrets"), &mut findings);
        }
        None => {}
    }
    match tokens {
        Some(Ok(found)) => token_list(&found, &keys.secret("source.webhook.tokens"), &mut findings),
        Some(Err(error)) => {
            unreadable("tokens", &error, &keys.secret("source.webhook.tokens"), &mut findings);
        }
        None => {}
    }
    findings.found
}

/// What guards the paths of single accounts.
pub(super) fn accounts(config: &Config, keys: Keys<'_>) -> Vec<Finding> {
    let mut found = Vec::new();
    for account in config.accounts().into_values().filter(|_| config.source.webhook.enabled) {
        let Some(own) = account.webhook else { continue };
        let mut findings = Findings::about(format!("source.webhook.{}", account.name));
        let key = keys.secret(&format!("dashdoc.accounts.{}.webhook_secrets", account.name));
        match own.secrets.read() {
            Ok(secrets) => signing(&secrets, &key, &mut findings),
            Err(error) => unreadable("secrets", &error, &key, &mut findings),
        }
        found.extend(findings.found);
    }
    found
}

pub(super) async fn sink(section: &WebhookSink, keys: Keys<'_>) -> Vec<Finding> {
    let mut findings = Findings::about("sink.webhook");
    if !section.enabled {
        return Vec::new();
    }
    match section.secret_source().map(|source| source.read()) {
        Some(Ok(secret)) => signing(&[secret], &keys.secret("sink.webhook.secret"), &mut findings),
        Some(Err(error)) => unreadable("secrets", &error, &keys.secret("sink.webhook.secret"), &mut findings),
        None => {}
    }
    let url = section.url.as_ref().and_then(|url| url.parse().ok());
    let Some(url) = url else {
        findings.failed("connection", "there is no address", "set sink.webhook.url");
        return findings.found;
    };
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    match net::reach(host, port).await {
        Ok(_) => findings.ok("connection", format!("{host}:{port} takes connections; nothing was posted")),
        Err(net::Unreached::Name(why) | net::Unreached::Connect(why)) => findings.failed(
            "connection",
            format!("{host}:{port} can't be reached: {why}; events wait in the store"),
            format!("start the receiver, let firewalls pass, or correct {}", keys.place("sink.webhook.url")),
        ),
    }
    findings.found
}

fn unreadable(check: &str, error: &dyn std::fmt::Display, key: &str, findings: &mut Findings) {
    findings.failed(check, error.to_string(), format!("let this user read the file, or correct {key}"));
}

fn signing(secrets: &[Secret], key: &str, findings: &mut Findings) {
    let n = secrets.len();
    let public = secrets.iter().filter(|secret| PUBLIC.contains(&secret.reveal().trim())).count();
    let weak = secrets.iter().filter(|secret| is_weak_key(secret.reveal().trim())).count();
    let mend = format!("make a new one and put it into {key}: {NEW_SECRET}");
    if public > 0 {
        let evidence =
            format!("{public} of {n} signing secrets stand in public documents; anyone can sign with them");
        findings.failed("secrets", evidence, mend);
    } else if weak > 0 {
        let evidence = format!("{weak} of {n} signing secrets look made up, not random");
        findings.warning("secrets", evidence, mend);
    } else {
        findings.ok("secrets", format!("{n} signing secrets, long and random enough"));
    }
}

/// A phrase in base64, or a pattern. True randomness is readable text less than once in 10^10 times.
fn is_weak_key(secret: &str) -> bool {
    let Ok(key) = STANDARD.decode(secret.trim_start_matches("whsec_")) else { return true };
    let readable = key.iter().all(|byte| byte.is_ascii_graphic() || *byte == b' ');
    let distinct: BTreeSet<u8> = key.iter().copied().collect();
    readable || distinct.len() < DISTINCT_BYTES_MIN
}

fn token_list(tokens: &[Secret], key: &str, findings: &mut Findings) {
    let n = tokens.len();
    let mend = format!("put a random one into {key}: openssl rand -hex 32");
    let refused: Vec<_> = tokens.iter().filter_map(|token| Token::try_new(token.reveal()).err()).collect();
    let weak = tokens.iter().filter(|token| {
        let distinct: BTreeSet<char> = token.reveal().trim().chars().collect();
        distinct.len() < DISTINCT_CHARACTERS_MIN
    });
    let weak = weak.count();
    if let Some(why) = refused.first() {
        let evidence = format!("{} of {n} tokens are never accepted: {why}", refused.len());
        findings.failed("tokens", evidence, mend);
    } else if weak > 0 {
        findings.warning("tokens", format!("{weak} of {n} tokens look made up, not random"), mend);
    } else {
        findings.ok(
            "tokens",
            format!("{n} tokens, long enough; a token guards neither body nor time, a signature does"),
        );
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn verdict(check: impl FnOnce(&mut Findings)) -> &'static str {
        let mut findings = Findings::about("x");
        check(&mut findings);
        let shown = format!("{:?}", findings.found);
        assert!(!shown.contains("canary") && !shown.contains("C2FVs"), "{shown}");
        findings.found[0].verdict.as_str()
    }

    #[test]
    fn a_signing_secret_that_is_public_or_made_up_is_told_from_a_random_one() {
        let made_up = format!("whsec_{}", STANDARD.encode("canary is my favourite bird"));
        let pattern = format!("whsec_{}", STANDARD.encode([7; 32]));
        let random = crate::signature::Secret::generate().reveal();
        for (secret, expected) in
            [(PUBLIC[0], "failed"), (&made_up, "warning"), (&pattern, "warning"), (&random, "ok")]
        {
            assert_eq!(verdict(|findings| signing(&[Secret::new(secret)], "k", findings)), expected);
        }
    }

    #[test]
    fn a_token_that_is_never_accepted_is_a_failure() {
        for (token, expected) in [
            ("canary", "failed"),
            ("canary canary canary", "failed"),
            ("aaaaaaaaaaaaaaaaaaaa", "warning"),
            ("0f3a9c5be1d27846", "ok"),
        ] {
            assert_eq!(
                verdict(|findings| token_list(&[Secret::new(token)], "k", findings)),
                expected,
                "{token}"
            );
        }
    }
}
