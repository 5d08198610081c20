//! The embedded store: a directory that takes files, on a disk that is local and has room, and a file that opens.

use std::cmp::Ordering;
use std::fs::{self, OpenOptions};
use std::io::ErrorKind;
use std::os::unix::fs::OpenOptionsExt as _;
use std::path::{Path, PathBuf};

use rustix::fs::{Access, access, statvfs};

use super::finding::{Finding, Findings};
use super::keys::Keys;
use crate::app::{Place, place};
use crate::config::Config;
use crate::store::sqlite::{Inspection, SCHEMA, inspect};

/// Below this a commit may fail any minute: the write-ahead log alone can take some MiB.
const FREE_MIN: u64 = 64 * 1024 * 1024;
/// Below this there is no room for the backlog of a long outage.
const FREE_COMFORT: u64 = 1024 * 1024 * 1024;

/// Where locks, or the order of writes, are not what SQLite needs (<https://sqlite.org/useovernet.html>).
const NETWORK: [&str; 14] = [
    "nfs",
    "nfs4",
    "cifs",
    "smb3",
    "smbfs",
    "9p",
    "ceph",
    "glusterfs",
    "lustre",
    "afs",
    "gpfs",
    "beegfs",
    "ocfs2",
    "fuse.sshfs",
];
/// What is gone with the machine's power.
const MEMORY: [&str; 2] = ["tmpfs", "ramfs"];

pub(super) async fn check(config: &Config, keys: Keys<'_>) -> Vec<Finding> {
    let mut findings = Findings::about("store");
    let url = keys.secret("store.url");
    let path = match place(config) {
        Ok(Place::Sqlite(path)) => path,
        Ok(Place::Postgres(source)) => return super::postgres::check(&source, &url, findings).await.found,
        Err(error) => {
            findings.failed("url", format!("{error:#}"), format!("correct {url}"));
            return findings.found;
        }
    };
    // File systems can hang; that must not stop the other checks.
    let looking = tokio::task::spawn_blocking(move || look(&path, &url, findings));
    looking.await.expect("the check of the store does not panic")
}

fn look(path: &Path, url: &str, mut findings: Findings) -> Vec<Finding> {
    let directory = path.parent().filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    // What is not there yet is made in the nearest directory that is.
    let existing = directory.ancestors().find(|it| it.exists());
    let existing = existing.filter(|it| !it.as_os_str().is_empty()).unwrap_or(Path::new("."));
    writable(directory, existing, url, &mut findings);
    space(existing, url, &mut findings);
    file_system(existing, url, &mut findings);
    file(path, url, &mut findings);
    findings.ok("sqlite", format!("SQLite {}, built in", rusqlite::version()));
    findings.found
}

fn writable(directory: &Path, existing: &Path, url: &str, findings: &mut Findings) {
    let shown = directory.display();
    let tried = if existing == directory { try_writing(directory) } else { allows_writing(existing) };
    match tried {
        Ok(()) if existing == directory => findings.ok("directory", format!("{shown} is writable")),
        Ok(()) => findings.ok("directory", format!("{shown} is not there yet; the service makes it")),
        Err(error) => {
            let user = rustix::process::geteuid().as_raw();
            let mend = match error.kind() {
                ErrorKind::NotADirectory => {
                    format!("move the file {} away, or change {url}", existing.display())
                }
                ErrorKind::ReadOnlyFilesystem => format!("mount a writable volume there, or change {url}"),
                ErrorKind::StorageFull => "make room on the disk".to_owned(),
                _ => format!(
                    "let user {user} write there: install -d -m 700 -o {user} {shown} (in Kubernetes: \
                     securityContext.fsGroup), or change {url}"
                ),
            };
            let evidence = if existing == directory {
                format!("user {user} can't write to {shown}: {error}")
            } else {
                format!("user {user} can't make {shown} in {}: {error}", existing.display())
            };
            findings.failed("directory", evidence, mend);
        }
    }
}

/// A file of its own is the only proof: permissions say nothing about quotas and read-only mounts.
fn try_writing(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    let probe = directory.join(format!(".invite-relay-doctor-{}", std::process::id()));
    OpenOptions::new().write(true).create_new(true).mode(0o600).open(&probe)?;
    fs::remove_file(&probe)
}

fn allows_writing(directory: &Path) -> std::io::Result<()> {
    if !directory.is_dir() {
        return Err(ErrorKind::NotADirectory.into());
    }
    Ok(access(directory, Access::WRITE_OK | Access::EXEC_OK)?)
}

fn space(directory: &Path, url: &str, findings: &mut Findings) {
    let free = match statvfs(directory) {
        Ok(stat) => stat.f_bavail.saturating_mul(stat.f_frsize),
        Err(error) => return findings.skipped("space", format!("the file system doesn't tell: {error}")),
    };
    judge_space(free, directory, url, findings);
}

fn judge_space(free: u64, directory: &Path, url: &str, findings: &mut Findings) {
    let evidence = format!("{} free", size(free));
    let mend = format!("make room on the disk of {}, or change {url}", directory.display());
    if free < FREE_MIN {
        findings.failed("space", format!("{evidence}; a commit may fail any minute"), mend);
    } else if free < FREE_COMFORT {
        findings.warning("space", format!("{evidence}; a long outage needs room for its backlog"), mend);
    } else {
        findings.ok("space", evidence);
    }
}

fn file_system(directory: &Path, url: &str, findings: &mut Findings) {
    let mounts = fs::read_to_string("/proc/self/mounts");
    let (Ok(mounts), Ok(directory)) = (mounts, directory.canonicalize()) else {
        return findings.skipped("file_system", "this system doesn't tell what is mounted where");
    };
    let Some((mount_point, kind)) = mount_of(&mounts, &directory) else {
        return findings.skipped("file_system", "this system doesn't tell what is mounted where");
    };
    judge_mount(kind, &mount_point, &directory, url, findings);
}

fn judge_mount(kind: &str, mount_point: &Path, directory: &Path, url: &str, findings: &mut Findings) {
    let evidence = format!("{kind}, mounted at {}", mount_point.display());
    let disk = format!("put the store on a local disk or a block volume: change {url}");
    if NETWORK.contains(&kind) {
        let why = "a network file system, on which SQLite can lose commits";
        findings.warning("file_system", format!("{evidence}: {why}"), disk);
    } else if MEMORY.contains(&kind) {
        findings.warning("file_system", format!("{evidence}: memory, and empty after a restart"), disk);
    } else if kind == "overlay" {
        let mend = format!("mount a volume at {}", directory.display());
        let why = "the container's own layer, which is gone with the container";
        findings.warning("file_system", format!("{evidence}: {why}"), mend);
    } else {
        findings.ok("file_system", evidence);
    }
}

/// Mount point and type of the file system that holds `path`. Of several mounts on one point the last is on top.
fn mount_of<'a>(mounts: &'a str, path: &Path) -> Option<(PathBuf, &'a str)> {
    let entries = mounts.lines().filter_map(|line| {
        let mut fields = line.split(' ');
        let (_device, point, kind) = (fields.next()?, fields.next()?, fields.next()?);
        Some((PathBuf::from(unescape(point)), kind))
    });
    entries.filter(|(point, _)| path.starts_with(point)).max_by_key(|(point, _)| point.components().count())
}

/// Blanks, tabs, line breaks and backslashes are written as three octal digits.
fn unescape(field: &str) -> String {
    [("\\040", " "), ("\\011", "\t"), ("\\012", "\n"), ("\\134", "\\")]
        .iter()
        .fold(field.to_owned(), |text, (code, plain)| text.replace(code, plain))
}

fn file(path: &Path, url: &str, findings: &mut Findings) {
    let shown = path.display();
    let Inspection { in_use, schema } = match inspect(path) {
        Ok(None) => return findings.ok("file", format!("{shown} is not there yet; the service makes it")),
        Ok(Some(inspection)) => inspection,
        Err(error) => {
            let mend = format!(
                "let this user read and write {shown}; if it is no store of this service, change {url}; if it is \
                 damaged, restore a backup"
            );
            return findings.failed("file", error.to_string(), mend);
        }
    };
    // What is in the write-ahead log has not reached the database file yet.
    let bytes = bytes(path) + bytes(Path::new(&format!("{shown}-wal")));
    let used = if in_use { "in use by a running service" } else { "not in use" };
    let evidence = format!("{shown}: {}, {used}, schema {schema}", size(bytes));
    match schema.cmp(&SCHEMA) {
        Ordering::Greater => findings.failed(
            "file",
            format!("{evidence}, which a newer version wrote; this one knows {SCHEMA}"),
            "run that version, or restore a backup from before",
        ),
        Ordering::Less => {
            findings.ok("file", format!("{evidence}; brought to schema {SCHEMA} at the next start"));
        }
        Ordering::Equal => findings.ok("file", evidence),
    }
}

fn bytes(file: &Path) -> u64 {
    fs::metadata(file).map(|about| about.len()).unwrap_or_default()
}

/// `64.0 MiB`.
fn size(bytes: u64) -> String {
    const UNITS: [&str; 4] = ["KiB", "MiB", "GiB", "TiB"];
    // In tenths, because that is all that is shown.
    let mut tenths = bytes.saturating_mul(10) / 1024;
    let mut unit = 0;
    while tenths >= 10 * 1024 && unit + 1 < UNITS.len() {
        tenths /= 1024;
        unit += 1;
    }
    format!("{}.{} {}", tenths / 10, tenths % 10, UNITS[unit])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_innermost_mount_holds_a_path_and_the_last_of_several_is_on_top() {
        let mounts = "/dev/vda / ext4 rw 0 0\ntmpfs /data tmpfs rw 0 0\nserver:/x /data nfs4 rw 0 0\n\
                      /dev/vdb /data/my\\040disk xfs rw 0 0\n";
        for (path, kind) in
            [("/", "ext4"), ("/database", "ext4"), ("/data/a", "nfs4"), ("/data/my disk/b", "xfs")]
        {
            assert_eq!(mount_of(mounts, path.as_ref()).unwrap().1, kind, "{path}");
        }
    }

    fn verdict(judge: impl FnOnce(&mut Findings)) -> &'static str {
        let mut findings = Findings::about("store");
        judge(&mut findings);
        findings.found[0].verdict.as_str()
    }

    #[test]
    fn a_disk_that_is_nearly_full_is_told_before_it_is_full() {
        for (free, expected) in
            [(0, "failed"), (FREE_MIN - 1, "failed"), (FREE_MIN, "warning"), (FREE_COMFORT, "ok")]
        {
            assert_eq!(
                verdict(|it| judge_space(free, Path::new("/data"), "store.url", it)),
                expected,
                "{free}"
            );
        }
    }

    #[test]
    fn what_is_no_disk_of_this_machine_is_warned_of() {
        for (kind, expected) in [
            ("ext4", "ok"),
            ("xfs", "ok"),
            ("nfs4", "warning"),
            ("cifs", "warning"),
            ("tmpfs", "warning"),
            ("overlay", "warning"),
        ] {
            let path = Path::new("/data");
            assert_eq!(verdict(|it| judge_mount(kind, path, path, "store.url", it)), expected, "{kind}");
        }
    }

    #[test]
    fn a_size_is_shown_in_the_unit_that_fits() {
        for (bytes, shown) in [(0, "0.0 KiB"), (1536, "1.5 KiB"), (1 << 26, "64.0 MiB"), (3 << 40, "3.0 TiB")]
        {
            assert_eq!(size(bytes), shown);
        }
    }

    #[test]
    fn a_directory_that_is_a_file_is_told_from_one_without_permission() {
        let dir = tempfile::tempdir().unwrap();
        let file = dir.path().join("file");
        fs::write(&file, "").unwrap();
        let found = look(&file.join("relay.db"), "store.url", Findings::about("store"));
        assert_eq!(found[0].verdict.as_str(), "failed");
        assert!(found[0].verdict.mend().unwrap().starts_with("move the file"), "{:?}", found[0]);
    }

    #[test]
    fn a_store_that_is_not_there_yet_is_no_fault_and_is_not_made() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a/b/relay.db");
        let found = look(&path, "store.url", Findings::about("store"));
        assert!(found.iter().all(|finding| finding.verdict.as_str() != "failed"), "{found:?}");
        assert_eq!(fs::read_dir(dir.path()).unwrap().count(), 0);
    }

    #[test]
    fn a_file_that_is_no_store_fails_and_stays_as_it_is() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("relay.db");
        fs::write(&path, "a letter to my aunt, which is long enough to be looked at as a database header")
            .unwrap();
        let before = fs::read(&path).unwrap();
        let found = look(&path, "store.url", Findings::about("store"));
        let file = found.iter().find(|finding| finding.check == "store.file").unwrap();
        assert_eq!(file.verdict.as_str(), "failed");
        assert_eq!(fs::read(&path).unwrap(), before);
    }
}
