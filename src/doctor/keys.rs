//! Names the setting to change, and where it is set, so that a mend needs no search.

use crate::config::{Origin, Origins};
use crate::invite::AccountName;

/// The origins of a configuration, as mends need them.
#[derive(Clone, Copy)]
pub(super) struct Keys<'a>(pub(super) &'a Origins);

impl Keys<'_> {
    /// `dashdoc.timeout (relay.toml line 3)`; without the place where the default is in force.
    pub(super) fn place(self, key: &str) -> String {
        match self.0.get(key) {
            None | Some(Origin::Default) => key.to_owned(),
            Some(origin) => format!("{key} ({origin})"),
        }
    }

    /// The same for a secret, in the form in which it is set: `x_file` if that has a value, else `x`.
    pub(super) fn secret(self, key: &str) -> String {
        let file = format!("{key}_file");
        if self.0.get(&file).is_some() { self.place(&file) } else { self.place(key) }
    }

    /// The same for a setting of an account, which may be inherited from `[dashdoc]`.
    pub(super) fn account(self, account: &AccountName, key: &str) -> String {
        let own = format!("{}.{key}", section(account));
        if self.0.get(&own).is_some() { self.place(&own) } else { self.place(&format!("dashdoc.{key}")) }
    }

    /// The same for the token of an account, which is never inherited.
    pub(super) fn token(self, account: &AccountName) -> String {
        self.secret(&format!("{}.token", section(account)))
    }
}

fn section(account: &AccountName) -> String {
    if *account == AccountName::default_account() {
        "dashdoc".to_owned()
    } else {
        format!("dashdoc.accounts.{account}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::{Sources, load};

    #[test]
    fn a_setting_is_named_with_its_place_and_an_inherited_one_where_it_is_inherited_from() {
        let sets = [
            "source.rabbitmq.enabled=true",
            "sink.rabbitmq.enabled=true",
            "dashdoc.base_url=https://api.example/v4",
        ];
        let env = [
            ("INVITE_RELAY__SOURCE__RABBITMQ__URL", "amqp://mq"),
            ("INVITE_RELAY__DASHDOC__TOKEN", "a"),
            ("INVITE_RELAY__DASHDOC__ACCOUNTS__ACME__TOKEN", "b"),
        ];
        let loaded = load(Sources {
            file: None,
            env: env.map(|(name, value)| (name.to_owned(), value.to_owned())),
            sets: sets.map(str::to_owned).to_vec(),
        });
        let loaded = loaded.unwrap();
        let keys = Keys(&loaded.origins);
        let acme: AccountName = "acme".parse().unwrap();
        assert_eq!(keys.place("dashdoc.timeout"), "dashdoc.timeout");
        assert_eq!(keys.account(&acme, "base_url"), "dashdoc.base_url (flag --set)");
        let expected =
            "dashdoc.accounts.acme.token (environment INVITE_RELAY__DASHDOC__ACCOUNTS__ACME__TOKEN)";
        assert_eq!(keys.token(&acme), expected);
    }
}
