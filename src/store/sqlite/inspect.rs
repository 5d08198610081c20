//! A look at a store file from outside, for `doctor`: whose it is and of which version. Changes nothing.

use std::fs::File;
use std::path::Path;

use rustix::fs::{FlockOperation, flock};

use super::file::{MIGRATIONS, lock_path};
use super::reader::Reader;
use super::unavailable;
use crate::store::Error;

/// The schema that this version writes.
pub const SCHEMA: usize = MIGRATIONS.len();

/// What a store file looks like.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Inspection {
    /// A process has it open for writing.
    pub in_use: bool,
    /// Migrations that were applied to it.
    pub schema: usize,
}

/// Looks at the store at `path`; `None` if there is no file.
pub fn inspect(path: &Path) -> Result<Option<Inspection>, Error> {
    let fail = |error: &dyn std::fmt::Display| {
        Error::Open(format!("can't read the store {}: {error}", path.display()))
    };
    match path.try_exists() {
        Ok(true) => {}
        Ok(false) => return Ok(None),
        // Something on the way is no directory, so there is nothing.
        Err(error) if error.kind() == std::io::ErrorKind::NotADirectory => return Ok(None),
        Err(error) => return Err(fail(&error)),
    }
    let in_use = is_locked(path).map_err(|error| fail(&error))?;
    let schema = Reader::open(path)?.run(|db| {
        db.pragma_query_value(None, "user_version", |row| row.get(0)).map_err(|error| unavailable(&error))
    });
    let schema = schema.map_err(|error| match error {
        Error::Unavailable(why) => fail(&why),
        other => other,
    })?;
    Ok(Some(Inspection { in_use, schema }))
}

/// A lock can only be asked for by taking it. It is shared and let go at once; a service that starts in these
/// microseconds is refused, and started again by whoever watches it.
fn is_locked(path: &Path) -> std::io::Result<bool> {
    let lock = match File::open(lock_path(path)) {
        Ok(lock) => lock,
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => return Ok(false),
        Err(error) => return Err(error),
    };
    match flock(&lock, FlockOperation::NonBlockingLockShared) {
        Ok(()) => Ok(false),
        Err(rustix::io::Errno::WOULDBLOCK) => Ok(true),
        Err(error) => Err(error.into()),
    }
}
