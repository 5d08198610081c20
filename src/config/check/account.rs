//! Rules of `[dashdoc]` and `[dashdoc.accounts.NAME]`.

use super::readable;
use super::report::{Found, Report};
use super::syntax;
use crate::config::layer::dotted;
use crate::config::secret::Secret;
use crate::config::section::dashdoc::{AccountSection, Dashdoc};
use crate::config::section::service::Event;
use crate::invite::AccountName;

pub(super) fn dashdoc(dashdoc: &Dashdoc, event: &Event, report: &mut Report<'_, '_>) {
    base_url("dashdoc.base_url", &dashdoc.base_url, report);
    header_name("dashdoc.auth_header", &dashdoc.auth_header, report);
    auth_scheme("dashdoc.auth_scheme", &dashdoc.auth_scheme, report);
    report.positive("dashdoc.timeout", dashdoc.timeout);
    readable("dashdoc.ca_file", dashdoc.ca_file.as_deref(), report);
    let token = report.secret("dashdoc.token", dashdoc.token.as_ref(), dashdoc.token_file.as_ref());
    token_there("dashdoc", &token, report);

    for (name, account) in &dashdoc.accounts {
        let section = dotted(&["dashdoc".to_owned(), "accounts".to_owned(), name.clone()]);
        let key = |key: &str| format!("{section}.{key}");
        match name.parse::<AccountName>() {
            Err(error) => report.missing(&section, "has a name that is none", &error.to_string()),
            Ok(parsed) if parsed == AccountName::default_account() => {
                report.missing(
                    &section,
                    "stands beside [dashdoc], which is this account",
                    "write its keys into [dashdoc]",
                );
            }
            Ok(_) => {}
        }
        if let Some(url) = &account.base_url {
            base_url(&key("base_url"), url, report);
        }
        if let Some(header) = &account.auth_header {
            header_name(&key("auth_header"), header, report);
        }
        if let Some(scheme) = &account.auth_scheme {
            auth_scheme(&key("auth_scheme"), scheme, report);
        }
        if let Some(timeout) = account.timeout {
            report.positive(&key("timeout"), timeout.0);
        }
        readable(&key("ca_file"), account.ca_file.as_deref(), report);
        let token = report.secret(&key("token"), account.token.as_ref(), account.token_file.as_ref());
        token_there(&section, &token, report);
    }
    let has_way_in = |account: &AccountSection| account.webhook_path.is_some() || account.queue.is_some();
    let unreached: Vec<_> =
        dashdoc.accounts.iter().filter(|(_, account)| !has_way_in(account)).map(|(name, _)| name).collect();
    if event.account.is_none() && !unreached.is_empty() {
        let names = unreached.iter().map(|name| name.as_str()).collect::<Vec<_>>().join(", ");
        let mend = "set event.account to the JSON pointer of the account's name in events, or give each a queue or \
                    webhook_path of its own";
        report.warn("dashdoc.accounts", &format!("no event can be for {names}, all go to \"default\""), mend);
    }
}

fn token_there(section: &str, token: &Found<Secret>, report: &mut Report<'_, '_>) {
    match token {
        Found::Nothing => {
            let mend = format!(
                "set {section}.token_file to a file that holds the API token (or {section}.token to the token itself)"
            );
            report.missing(&format!("{section}.token"), "is not set", &mend);
        }
        Found::Value { key, value } if !syntax::is_header_value(value.reveal()) => {
            report.wrong(
                key,
                "holds characters that no header can carry",
                "use the token as Dashdoc shows it",
            );
        }
        Found::Value { .. } | Found::Bad => {}
    }
}

fn base_url(key: &str, text: &str, report: &mut Report<'_, '_>) {
    let mend = "write for example https://api.dashdoc.eu/api/v4";
    let Ok(url) = url::Url::parse(text) else {
        return report.wrong(key, "not a URL", mend);
    };
    if !matches!(url.scheme(), "http" | "https") {
        report.wrong(key, "neither http nor https", mend);
    } else if !url.username().is_empty() || url.password().is_some() {
        report.wrong(key, "has a user or password in it", "remove it; the token goes into token_file");
    } else if url.query().is_some() || url.fragment().is_some() {
        report.wrong(key, "has a query or fragment", "remove it");
    } else if syntax::leaves_the_machine_in_clear(&url) {
        report.warn(key, "token and codes travel unencrypted to another machine", "use https");
    }
}

/// The value is not repeated: a token may have been written along with the name.
pub(super) fn header_name(key: &str, name: &str, report: &mut Report<'_, '_>) {
    if axum::http::HeaderName::try_from(name).is_err() {
        report.wrong_unseen(key, "not a header name", "write for example Authorization or X-Api-Key");
    }
}

fn auth_scheme(key: &str, scheme: &str, report: &mut Report<'_, '_>) {
    if !scheme.is_empty() && axum::http::HeaderName::try_from(scheme).is_err() {
        report.wrong_unseen(
            key,
            "not an authentication scheme",
            "write Token, Bearer, or \"\" for the bare token",
        );
    }
}
