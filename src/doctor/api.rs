//! The API, for each account: found, reached, and the token is taken. One request, which lists truckers.

use std::sync::Arc;

use url::Url;

use super::finding::{Finding, Findings};
use super::keys::Keys;
use super::net;
use crate::app::client_settings;
use crate::config::Account;
use crate::dashdoc::client::Client;
use crate::dashdoc::probe::{Clock, Probe, Unanswered};
use crate::invite::FingerprintKey;

/// Requests per second and API user, as Dashdoc documents it.
const DOCUMENTED_RATE: f64 = 10.0;
/// A clock that is further off than this makes waits and logs hard to follow.
const SKEW_MAX_MS: i64 = 2_000;

/// The checks behind a connection.
const BEHIND_CONNECTION: [&str; 3] = ["token", "clock", "rate"];

pub(super) async fn check(
    account: &Account,
    turn: impl Future<Output = Result<(), String>>,
    keys: Keys<'_>,
) -> Vec<Finding> {
    let mut findings = Findings::about(format!("api.{}", account.name));
    let base_url = keys.account(&account.name, "base_url");
    if !reached(account, &base_url, &mut findings).await {
        return behind(findings, "the API can't be reached");
    }
    let client = match client(account) {
        Ok(client) => client,
        Err(error) => {
            let mend = format!(
                "correct {}, or install the system's CA certificates",
                keys.account(&account.name, "ca_file")
            );
            findings.failed("connection", format!("{error:#}"), mend);
            return behind(findings, "there is no client");
        }
    };
    if let Err(why) = turn.await {
        findings.skipped("connection", &why);
        return behind(findings, &why);
    }
    match client.probe().await {
        Ok(probe) => {
            let took = probe.took.as_millis();
            findings.ok("connection", format!("answered with {} in {took} ms", probe.status));
            token(account, &probe, keys, &mut findings);
            clock(probe.clock, &mut findings);
            rate(account, &probe, keys, &mut findings);
            findings.found
        }
        Err(Unanswered::Token) => {
            findings.skipped("connection", "no request can be made with this token");
            let mend = format!("use the token as Dashdoc shows it, in {}", keys.token(&account.name));
            findings.failed("token", Unanswered::Token.to_string(), mend);
            findings.found
        }
        Err(error) => {
            let mend = mend_of_connection(&error, account, &base_url, keys);
            findings.failed("connection", error.to_string(), mend);
            behind(findings, "there was no answer")
        }
    }
}

fn behind(mut findings: Findings, why: &str) -> Vec<Finding> {
    for check in BEHIND_CONNECTION {
        findings.skipped(check, why);
    }
    findings.found
}

fn client(account: &Account) -> anyhow::Result<Client> {
    let token = account.token.read()?;
    let token = Arc::new(move || token.reveal().into());
    // A probe makes no fingerprints.
    Ok(Client::new(client_settings(account)?, token, FingerprintKey::new([0; 32]))?)
}

/// Name and TCP, apart from TLS and HTTP, because they are mended by different people.
async fn reached(account: &Account, base_url: &str, findings: &mut Findings) -> bool {
    let url = &account.base_url;
    let (host, port) = (url.host_str().unwrap_or_default(), url.port_or_known_default().unwrap_or_default());
    let addresses = match net::resolve(host, port).await {
        Ok(addresses) => addresses,
        Err(why) => {
            let mend = format!("correct the host in {base_url}, or let this machine ask a DNS server");
            findings.failed("dns", format!("{host}: {why}"), mend);
            findings.skipped("connection", "there is no address");
            return false;
        }
    };
    if net::is_address(host) {
        findings.skipped("dns", format!("{host} is an address"));
    } else {
        let shown: Vec<String> = addresses.iter().take(3).map(|it| it.ip().to_string()).collect();
        findings.ok("dns", format!("{host} is {}", shown.join(", ")));
    }
    match net::connect(&addresses).await {
        Ok(_) => true,
        Err(why) => {
            let mend = format!(
                "let firewalls and network policies pass {host}:{port} (proxies are not used), or correct {base_url}"
            );
            findings.failed("connection", format!("{host}:{port}: {why}"), mend);
            false
        }
    }
}

fn mend_of_connection(error: &Unanswered, account: &Account, base_url: &str, keys: Keys<'_>) -> String {
    match error {
        Unanswered::Connect(why) if why.contains("certificate") => format!(
            "if the certificate is of a private authority, name that one in {}; else correct the host in {base_url}",
            keys.account(&account.name, "ca_file")
        ),
        Unanswered::Connect(_) | Unanswered::Lost(_) => {
            format!("correct scheme (https or http) and port in {base_url}")
        }
        Unanswered::Timeout(_) | Unanswered::Token => format!(
            "ask whether the API is slow at the moment, or raise {}",
            keys.account(&account.name, "timeout")
        ),
    }
}

fn token(account: &Account, probe: &Probe, keys: Keys<'_>, findings: &mut Findings) {
    let base_url = keys.account(&account.name, "base_url");
    let token = keys.token(&account.name);
    let status = probe.status;
    match status {
        200 => match probe.n_truckers {
            Some(n) => findings.ok("token", format!("accepted; it sees {n} truckers")),
            None => findings.failed(
                "token",
                "answered with 200, but not with a list of truckers: this is not the API",
                format!("correct {base_url}; Dashdoc's is https://api.dashdoc.eu/api/v4"),
            ),
        },
        401 => findings.failed(
            "token",
            "refused with 401: the API does not know this token, or not in this form",
            format!(
                "put a valid token into {token}; the service takes it up without a restart where it is a file. It is \
                 sent as \"{}: {}\"",
                account.auth_header,
                format!("{} …", account.auth_scheme).trim_start()
            ),
        ),
        403 => findings.failed(
            "token",
            "refused with 403: the token is not allowed to see truckers",
            format!("give its API user the right to manage truckers, or put another token into {token}"),
        ),
        300..=399 => {
            let to = probe.redirect.as_ref();
            let evidence = match to {
                Some(to) => format!("redirected with {status} to {to}; redirects are never followed"),
                None => format!("redirected with {status}; redirects are never followed"),
            };
            let mend = match to.and_then(base_of) {
                Some(base) => format!("if you trust that address, set {base_url} to {base}"),
                None => format!("correct {base_url}; Dashdoc's is https://api.dashdoc.eu/api/v4"),
            };
            findings.failed("token", evidence, mend);
        }
        404 => findings.failed(
            "token",
            format!("{} has no list of truckers (404)", account.base_url),
            format!("correct the path of {base_url}; Dashdoc's is https://api.dashdoc.eu/api/v4"),
        ),
        429 => findings.warning(
            "token",
            "not judged: the API throttles this API user now (429)",
            "run it again in a minute; other integrations with this token use up the same 10 requests per second",
        ),
        500..=599 => findings.failed(
            "token",
            format!("not judged: the API fails with {status}"),
            "nothing to mend here: invites wait in the store meanwhile; if it lasts, ask Dashdoc",
        ),
        _ => findings.failed(
            "token",
            format!("answered with {status}, which the list of truckers never does"),
            format!("correct {base_url}; Dashdoc's is https://api.dashdoc.eu/api/v4"),
        ),
    }
}

/// The base URL that a redirect of the list hints at.
fn base_of(redirect: &Url) -> Option<String> {
    let (base, rest) = redirect.as_str().split_once("/manager-truckers")?;
    matches!(rest, "" | "/").then(|| base.to_owned())
}

fn clock(clock: Option<Clock>, findings: &mut Findings) {
    let Some(Clock { ahead_ms, uncertain_ms }) = clock else {
        return findings.skipped("clock", "the answer has no Date");
    };
    let skew = ahead_ms.abs();
    let seconds = format!("{}.{} s", skew / 1000, skew % 1000 / 100);
    let side = if ahead_ms < 0 { "behind" } else { "ahead of" };
    if skew - uncertain_ms > SKEW_MAX_MS {
        findings.warning(
            "clock",
            format!("this machine's clock is {seconds} {side} the API's"),
            "synchronise the clock (timedatectl set-ntp true, or the host's clock): webhook signatures end after 5 min",
        );
    } else {
        findings.ok("clock", "agrees with the API's, as far as its Date tells");
    }
}

fn rate(account: &Account, probe: &Probe, keys: Keys<'_>, findings: &mut Findings) {
    let told: Vec<String> = probe.limits.iter().map(|(name, value)| format!("{name}: {value}")).collect();
    let told = if told.is_empty() { "no rate-limit header".to_owned() } else { told.join(", ") };
    let rate = account.rate_per_second;
    let evidence = format!("up to {rate} requests per second are configured; {told}");
    if rate > DOCUMENTED_RATE {
        let mend = format!("set {} to 10 or less", keys.account(&account.name, "rate_per_second"));
        findings.warning("rate", format!("{evidence}; Dashdoc allows 10 per API user"), mend);
    } else {
        findings.ok("rate", evidence);
    }
}
