//! A metric as a table with a fixed row per combination of label values.
//!
//! Every row exists from the start, so a series that never counted reads 0 and not "no data", and none can
//! be added later, so no input can blow up the number of series. Looking up a row takes no lock.

use std::borrow::Borrow;
use std::fmt::{self, Debug};
use std::marker::PhantomData;
use std::sync::Arc;

use prometheus_client::encoding::{EncodeMetric, MetricEncoder};
use prometheus_client::metrics::{MetricType, TypedMetric};

use crate::invite::AccountName;

/// The label value of every account that is not configured.
pub(super) const OTHER_ACCOUNT: &str = "other";

/// The configured accounts, sorted.
#[derive(Clone, Debug)]
pub struct Accounts(Arc<[AccountName]>);

impl Accounts {
    pub(super) fn new(names: &[AccountName]) -> Self {
        // An account that is really called "other" must not make the same series twice.
        let mut names: Vec<_> = names.iter().filter(|name| name.as_str() != OTHER_ACCOUNT).cloned().collect();
        names.sort();
        names.dedup();
        Self(names.into())
    }

    /// Those that have rows of their own.
    pub(super) fn configured(&self) -> &[AccountName] {
        &self.0
    }
}

/// One label: its name and its closed set of values.
pub trait Label {
    /// The label's name.
    const NAME: &'static str;

    /// Its values, in the order of [`Label::position`].
    fn words(accounts: &Accounts) -> Vec<String>;

    /// Where this value stands among [`Label::words`].
    fn position(&self, accounts: &Accounts) -> usize;
}

impl Label for AccountName {
    const NAME: &'static str = "account";

    fn words(accounts: &Accounts) -> Vec<String> {
        let configured = accounts.0.iter().map(|name| name.as_str().to_owned());
        configured.chain([OTHER_ACCOUNT.to_owned()]).collect()
    }

    fn position(&self, accounts: &Accounts) -> usize {
        accounts.0.binary_search(self).unwrap_or(accounts.0.len())
    }
}

/// The labels of a table, as a tuple of [`Label`]s.
pub trait LabelSet {
    /// Name and values of each label.
    fn axes(accounts: &Accounts) -> Vec<(&'static str, Vec<String>)>;
}

impl<A: Label> LabelSet for (A,) {
    fn axes(accounts: &Accounts) -> Vec<(&'static str, Vec<String>)> {
        vec![(A::NAME, A::words(accounts))]
    }
}

impl<A: Label, B: Label> LabelSet for (A, B) {
    fn axes(accounts: &Accounts) -> Vec<(&'static str, Vec<String>)> {
        vec![(A::NAME, A::words(accounts)), (B::NAME, B::words(accounts))]
    }
}

impl<A: Label, B: Label, C: Label> LabelSet for (A, B, C) {
    fn axes(accounts: &Accounts) -> Vec<(&'static str, Vec<String>)> {
        vec![(A::NAME, A::words(accounts)), (B::NAME, B::words(accounts)), (C::NAME, C::words(accounts))]
    }
}

/// A metric with labels `L`. Cheap to clone; all clones count into the same rows.
pub struct Table<L, M> {
    accounts: Accounts,
    /// How many values each label has; a row's index is the positions of its values as mixed-radix digits.
    sizes: Arc<[usize]>,
    rows: Rows<M>,
    labels: PhantomData<fn() -> L>,
}

impl<L: LabelSet, M> Table<L, M> {
    /// A table with all its rows.
    pub(super) fn new(accounts: &Accounts, new: impl Fn() -> M) -> Self {
        let axes = L::axes(accounts);
        let mut labels = vec![Vec::new()];
        for (name, words) in &axes {
            let extend = |row: Vec<(&'static str, String)>| {
                words.iter().map(move |word| [row.as_slice(), &[(*name, word.clone())]].concat())
            };
            labels = labels.into_iter().flat_map(extend).collect();
        }
        Self {
            accounts: accounts.clone(),
            sizes: axes.iter().map(|(_, words)| words.len()).collect(),
            rows: Rows(labels.into_iter().map(|row| (row, new())).collect()),
            labels: PhantomData,
        }
    }

    /// What the registry encodes.
    pub(super) fn rows(&self) -> Rows<M> {
        self.rows.clone()
    }

    fn row(&self, positions: &[usize]) -> &M {
        let index =
            positions.iter().zip(&*self.sizes).fold(0, |index, (position, size)| index * size + position);
        &self.rows.0[index].1
    }
}

impl<A: Label, M> Table<(A,), M> {
    /// The metric of one combination of labels.
    pub fn of(&self, a: impl Borrow<A>) -> &M {
        self.row(&[a.borrow().position(&self.accounts)])
    }
}

impl<A: Label, B: Label, M> Table<(A, B), M> {
    /// The metric of one combination of labels.
    pub fn of(&self, a: impl Borrow<A>, b: impl Borrow<B>) -> &M {
        self.row(&[a.borrow().position(&self.accounts), b.borrow().position(&self.accounts)])
    }
}

impl<A: Label, B: Label, C: Label, M> Table<(A, B, C), M> {
    /// The metric of one combination of labels.
    pub fn of(&self, a: impl Borrow<A>, b: impl Borrow<B>, c: impl Borrow<C>) -> &M {
        let accounts = &self.accounts;
        self.row(&[
            a.borrow().position(accounts),
            b.borrow().position(accounts),
            c.borrow().position(accounts),
        ])
    }
}

impl<L, M> Clone for Table<L, M> {
    fn clone(&self) -> Self {
        Self {
            accounts: self.accounts.clone(),
            sizes: self.sizes.clone(),
            rows: self.rows.clone(),
            labels: PhantomData,
        }
    }
}

impl<L, M> Debug for Table<L, M> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Table({} rows)", self.rows.0.len())
    }
}

/// The rows as the registry sees them: labels and metric, in a fixed order.
#[derive(Debug)]
pub(super) struct Rows<M>(Arc<[Row<M>]>);

type Row<M> = (Vec<(&'static str, String)>, M);

impl<M> Clone for Rows<M> {
    fn clone(&self) -> Self {
        Self(self.0.clone())
    }
}

impl<M: EncodeMetric + TypedMetric> EncodeMetric for Rows<M> {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> fmt::Result {
        self.0.iter().try_for_each(|(labels, metric)| metric.encode(encoder.encode_family(labels)?))
    }

    fn metric_type(&self) -> MetricType {
        M::TYPE
    }
}

#[cfg(test)]
mod tests {
    use super::super::labels::{EventOutcome, Source};
    use super::*;
    use prometheus_client::metrics::counter::Counter;

    fn accounts(names: &[&str]) -> Accounts {
        Accounts::new(&names.iter().map(|name| name.parse().unwrap()).collect::<Vec<_>>())
    }

    #[test]
    fn every_combination_has_a_row_of_its_own() {
        let accounts = accounts(&["b", "a", "a"]);
        let table = Table::<(AccountName, Source, EventOutcome), Counter>::new(&accounts, Counter::default);
        let mut n_rows = 0;
        for account in ["a", "b", "z"].map(|name| name.parse::<AccountName>().unwrap()) {
            for source in Source::ALL {
                for outcome in EventOutcome::ALL {
                    let row = table.of(&account, *source, *outcome);
                    assert_eq!(row.inc(), 0, "two combinations share a row");
                    n_rows += 1;
                }
            }
        }
        assert_eq!(table.rows.0.len(), n_rows);
    }

    #[test]
    fn accounts_that_are_not_configured_count_as_other() {
        let table = Table::<(AccountName,), Counter>::new(&accounts(&["a", "other"]), Counter::default);
        for name in ["nobody", "other", "else"] {
            table.of(name.parse::<AccountName>().unwrap()).inc();
        }
        let rows: Vec<_> = table.rows.0.iter().map(|(labels, n)| (labels[0].1.as_str(), n.get())).collect();
        assert_eq!(rows, [("a", 0), ("other", 3)]);
    }
}
