//! Where a secret comes from: the configuration itself, or a file.

use std::fs::File;
use std::io::{self, Read};
use std::path::Path;

use super::secret::{Secret, SecretUrl};
use super::secret_path::SecretPath;

/// Longest file taken for a secret. A token is some hundred bytes; the limit is there for a wrong path.
const FILE_MAX: u64 = 64 * 1024;

/// One secret, given inline or as the path of a file that holds it.
#[derive(Clone, Debug)]
pub enum SecretSource {
    /// The secret itself.
    Inline(Secret),
    /// A file whose content, without the line break at its end, is the secret.
    File(SecretPath),
}

/// Several secrets that are all valid, which is how they are rotated.
#[derive(Clone, Debug)]
pub enum SecretListSource {
    /// The secrets themselves.
    Inline(Vec<Secret>),
    /// A file with one secret per line; blank lines and lines that begin with `#` are skipped.
    File(SecretPath),
}

/// Why a file gives no secret. The path is not part of the text: whoever reports it names the key and its value.
#[derive(Debug, thiserror::Error)]
pub enum SecretError {
    /// Missing, not allowed, or a directory.
    #[error("the file cannot be read: {0}")]
    Unreadable(#[source] io::Error),
    /// Nothing but white space or comments.
    #[error("the file is empty")]
    Empty,
    /// Not UTF-8, or with control characters inside, such as a second line.
    #[error("the file holds more than one line of text")]
    NotOneLine,
    /// Larger than any secret.
    #[error("the file is larger than 64 KiB")]
    TooLarge,
}

impl SecretSource {
    /// The source of a pair of keys `x` and `x_file`, if either is set.
    pub(super) fn of_pair(inline: Option<&Secret>, file: Option<&SecretPath>) -> Option<Self> {
        let file = file.map(|path| Self::File(path.clone()));
        file.or_else(|| inline.map(|secret| Self::Inline(secret.clone())))
    }

    /// The secret as it is now.
    pub fn read(&self) -> Result<Secret, SecretError> {
        match self {
            Self::Inline(secret) => Ok(secret.clone()),
            Self::File(path) => one_line(&read_file(path)?),
        }
    }

    /// The secret as it is now, taken as a URL.
    pub fn read_url(&self) -> Result<SecretUrl, SecretError> {
        self.read().map(SecretUrl::from)
    }

    /// The file, if there is one to follow.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

impl SecretListSource {
    /// The source of a pair of keys `xs` and `xs_file`, if either is set.
    pub(super) fn of_pair(inline: &[Secret], file: Option<&SecretPath>) -> Option<Self> {
        let file = file.map(|path| Self::File(path.clone()));
        file.or_else(|| (!inline.is_empty()).then(|| Self::Inline(inline.to_vec())))
    }

    /// The secrets as they are now; at least one.
    pub fn read(&self) -> Result<Vec<Secret>, SecretError> {
        match self {
            Self::Inline(secrets) => Ok(secrets.clone()),
            Self::File(path) => {
                let text = read_file(path)?;
                let lines = text.lines().map(str::trim).filter(|line| !line.is_empty());
                let secrets: Vec<_> = lines.filter(|line| !line.starts_with('#')).map(Secret::new).collect();
                if secrets.is_empty() { Err(SecretError::Empty) } else { Ok(secrets) }
            }
        }
    }

    /// The file, if there is one to follow.
    pub fn file(&self) -> Option<&Path> {
        match self {
            Self::Inline(_) => None,
            Self::File(path) => Some(path),
        }
    }
}

fn read_file(path: &Path) -> Result<String, SecretError> {
    let mut text = String::new();
    let read = File::open(path).and_then(|file| file.take(FILE_MAX + 1).read_to_string(&mut text));
    match read {
        Ok(size) if size as u64 > FILE_MAX => Err(SecretError::TooLarge),
        Ok(_) => Ok(text),
        Err(error) if error.kind() == io::ErrorKind::InvalidData => Err(SecretError::NotOneLine),
        Err(error) => Err(SecretError::Unreadable(error)),
    }
}

/// Only line breaks at the end are cut: a password may end in a blank.
fn one_line(text: &str) -> Result<Secret, SecretError> {
    let secret = text.trim_end_matches(['\n', '\r']);
    if secret.trim().is_empty() {
        return Err(SecretError::Empty);
    }
    if secret.chars().any(char::is_control) {
        return Err(SecretError::NotOneLine);
    }
    Ok(Secret::new(secret))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn file_with(content: &[u8]) -> (tempfile::TempDir, SecretPath) {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("secret");
        std::fs::write(&path, content).unwrap();
        (dir, SecretPath::new(path))
    }

    #[test]
    fn a_secret_file_loses_the_line_break_at_its_end_and_nothing_else() {
        let (_dir, path) = file_with(b" token \r\n");
        assert_eq!(SecretSource::File(path).read().unwrap().reveal(), " token ");
    }

    #[test]
    fn a_file_that_holds_no_secret_is_an_error_that_does_not_show_its_content() {
        let huge = vec![b'a'; 70_000];
        for content in [b"".as_slice(), b" \n", b"canary\nsecond", b"canary\xff", &huge] {
            let (_dir, path) = file_with(content);
            let error = SecretSource::File(path).read().unwrap_err();
            assert!(!format!("{error} {error:?}").contains("canary"));
        }
        assert!(SecretSource::File(SecretPath::new("/nowhere/at/all")).read().is_err());
    }

    #[test]
    fn a_list_file_holds_one_secret_per_line_with_comments() {
        let (_dir, path) = file_with(b"# old, until June\n\none\r\n  two\n");
        let secrets = SecretListSource::File(path).read().unwrap();
        assert_eq!(secrets.iter().map(Secret::reveal).collect::<Vec<_>>(), ["one", "two"]);
        let (_dir, path) = file_with(b"# nothing yet\n");
        assert!(matches!(SecretListSource::File(path).read(), Err(SecretError::Empty)));
    }
}
