//! A daemon's keys: defaults, under a TOML file, under GENIE_* variables, under flags. A key is written
//! once: its name in the file, its flag and its variable.

use std::path::{Path, PathBuf};

use serde::de::DeserializeOwned;

/// Why a file of keys is refused.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum FileError {
    /// It can't be read.
    #[error("{file}: {reason}")]
    Unreadable {
        /// Its path.
        file: String,
        /// What the system said.
        reason: String,
    },
    /// Something in it is wrong.
    #[error("{file}:{line}: {reason}")]
    Invalid {
        /// Its path.
        file: String,
        /// Counted from 1.
        line: usize,
        /// What, and what is allowed.
        reason: String,
    },
}

/// Defines `Settings`: for each key its flag, its type and its default.
#[macro_export]
macro_rules! settings {
    ($($(#[$meta:meta])* $key:ident: $type:ty = $default:expr,)*) => {
        /// What may be set. A key is absent where nobody set it.
        #[derive(Clone, Debug, Default, PartialEq, serde::Deserialize, clap::Args)]
        #[serde(deny_unknown_fields)]
        pub struct Settings {
            $($(#[$meta])* pub $key: Option<$type>,)*
        }

        impl Settings {
            /// Every key.
            pub const KEYS: &'static [&'static str] = &[$(stringify!($key)),*];

            /// What holds where nobody set anything.
            #[must_use]
            pub fn defaults() -> Self {
                Self { $($key: $default,)* }
            }

            /// The keys whose values differ.
            #[must_use]
            pub fn changed(&self, other: &Self) -> Vec<&'static str> {
                let all = [$((stringify!($key), self.$key != other.$key)),*];
                all.into_iter().filter_map(|(key, differs)| differs.then_some(key)).collect()
            }

            /// These, and `lower` where these are silent.
            #[must_use]
            pub fn over(self, lower: Self) -> Self {
                Self { $($key: self.$key.or(lower.$key),)* }
            }

            /// Parses a file's text; `file` is for messages.
            ///
            /// # Errors
            /// An unknown key or a bad value, with its line and what is allowed.
            pub fn parse(
                text: &str,
                file: &std::path::Path,
            ) -> Result<Self, $crate::settings::FileError> {
                $crate::settings::parse(text, file, Self::KEYS)
            }

            /// Reads a file, if there is one, under `self`.
            ///
            /// # Errors
            /// It can't be read; an unknown key or a bad value, with its line and what is allowed.
            pub fn over_file(
                self,
                file: Option<&std::path::Path>,
            ) -> Result<Self, $crate::settings::FileError> {
                let lower = file.map(|file| $crate::settings::read(file, Self::KEYS)).transpose()?;
                Ok(self.over(lower.unwrap_or_default()))
            }
        }
    };
}

/// Reads a file with these keys.
///
/// # Errors
/// It can't be read; an unknown key or a bad value, with its line and what is allowed.
pub fn read<S: DeserializeOwned>(file: &Path, keys: &[&str]) -> Result<S, FileError> {
    let text = std::fs::read_to_string(file).map_err(|error| FileError::Unreadable {
        file: file.display().to_string(),
        reason: error.to_string(),
    })?;
    parse(&text, file, keys)
}

/// Parses a file's text; `file` is for messages.
///
/// # Errors
/// An unknown key or a bad value, with its line and what is allowed.
pub fn parse<S: DeserializeOwned>(text: &str, file: &Path, keys: &[&str]) -> Result<S, FileError> {
    toml::from_str(text).map_err(|error: toml::de::Error| FileError::Invalid {
        file: file.display().to_string(),
        line: error.span().map_or(1, |span| {
            1 + text.as_bytes()[..span.start.min(text.len())]
                .iter()
                .filter(|&&byte| byte == b'\n')
                .count()
        }),
        reason: named(&error, text, keys),
    })
}

/// The message of `error`, with its key where the value was the trouble.
fn named(error: &toml::de::Error, text: &str, keys: &[&str]) -> String {
    let message = error.message().trim().to_owned();
    let Some(span) = error.span() else {
        return message;
    };
    let start = text[..span.start.min(text.len())]
        .rfind('\n')
        .map_or(0, |at| at + 1);
    let line = text[start..].lines().next().unwrap_or_default();
    match line.split_once('=') {
        Some((key, _)) if keys.contains(&key.trim()) => format!("{}: {message}", key.trim()),
        _ => message,
    }
}

/// Files of TLS.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct TlsFiles {
    /// The daemon's certificate chain.
    pub certificate: PathBuf,
    /// Its key.
    pub key: PathBuf,
    /// Who signs those that it talks to.
    pub client_ca: PathBuf,
}

/// TLS needs all of its files.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "tls_certificate, tls_key and tls_client_ca go together: {missing} is not set \
     (`genie-dataplane certs init DIR` makes all three)"
)]
pub struct HalfTls {
    /// The first that is missing.
    pub missing: &'static str,
}

impl TlsFiles {
    /// All three, or none.
    ///
    /// # Errors
    /// Some of them.
    pub fn of(
        certificate: Option<PathBuf>,
        key: Option<PathBuf>,
        client_ca: Option<PathBuf>,
    ) -> Result<Option<Self>, HalfTls> {
        let missing = match (certificate, key, client_ca) {
            (None, None, None) => return Ok(None),
            (Some(certificate), Some(key), Some(client_ca)) => {
                return Ok(Some(Self {
                    certificate,
                    key,
                    client_ca,
                }));
            }
            (None, ..) => "tls_certificate",
            (_, None, _) => "tls_key",
            (_, _, None) => "tls_client_ca",
        };
        Err(HalfTls { missing })
    }
}
