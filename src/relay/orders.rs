//! What people ask for, carried out: dead invites back to work, new codes.

use std::collections::BTreeMap;
use std::sync::Arc;

use tracing::info;
use uuid::Uuid;

use super::account::Account;
use crate::invite::{AccountName, TruckerKey};
use crate::store::{self, Error, Operator, Redrive, Reissued, Selection};

/// Invites in one transaction: bounds how long it holds up the commits behind it.
const PORTION: u64 = 500;
/// Redriven invites take this part of an account's pace, so that new events find a way between.
const SHARE: f64 = 0.5;
/// For accounts that are not configured (any more).
const RATE_UNKNOWN: f64 = 5.0;

/// Takes orders while the service runs. Cheap to clone. It holds no sink: the admin port may outlive them.
#[derive(Clone)]
pub struct Orders {
    store: store::Shared,
    accounts: Arc<BTreeMap<AccountName, Arc<Account>>>,
}

impl Orders {
    pub(super) fn new(store: store::Shared, accounts: BTreeMap<AccountName, Arc<Account>>) -> Self {
        Self { store, accounts: Arc::new(accounts) }
    }

    /// The store, to look into.
    pub fn store(&self) -> &store::Shared {
        &self.store
    }

    /// Puts dead invites back to work; returns how many.
    pub async fn redrive(&self, which: &Selection, by: &Operator) -> Result<u64, Error> {
        let rate_of = |name: &AccountName| self.accounts.get(name).map(|account| account.limiter.rate());
        let redriven = redrive(&self.store, rate_of, which, by).await;
        self.accounts.values().for_each(|account| account.wake.notify_one());
        redriven
    }

    /// Begins the next generation of a published invite.
    pub async fn reissue(&self, key: TruckerKey, by: Operator) -> Result<Reissued, Error> {
        let reissued = self.store.reissue(key, by).await?;
        if let Reissued::Begun(invite) = &reissued {
            info!(invite.id = %invite.key, generation = invite.generation.get(), "a new code was asked for");
            if let Some(account) = self.accounts.get(&invite.key.account) {
                account.wake.notify_one();
            }
        }
        Ok(reissued)
    }
}

/// Puts dead invites of `store` back to work, spread out by half of each account's pace; returns how many.
///
/// As many as are dead now: what dies again meanwhile is not taken a second time.
pub async fn redrive(
    store: &store::Shared,
    rate_of: impl Fn(&AccountName) -> Option<f64>,
    which: &Selection,
    by: &Operator,
) -> Result<u64, Error> {
    let mut wanted = BTreeMap::<AccountName, u64>::new();
    for cause in store.causes(which.clone()).await? {
        *wanted.entry(cause.account).or_default() += cause.count;
    }
    let mut redriven = 0;
    for (account, count) in wanted {
        let spacing = 1.0 / (rate_of(&account).unwrap_or(RATE_UNKNOWN) * SHARE);
        let mut order = Redrive {
            id: Uuid::now_v7(),
            by: by.clone(),
            which: Selection { account: Some(account), ..which.clone() },
            spacing: std::time::Duration::try_from_secs_f64(spacing).unwrap_or_default(),
            after: None,
            limit: 0,
        };
        let mut left = count;
        while left > 0 {
            let portion = left.min(PORTION);
            order.limit = usize::try_from(portion).unwrap_or(usize::MAX);
            let done = store.redrive(order.clone()).await?;
            redriven += done.count as u64;
            left -= portion;
            order.after = done.last_due;
            if done.count < order.limit {
                break;
            }
        }
        info!(target = %order.which, count = redriven, "dead invites work again");
    }
    Ok(redriven)
}
