//! What can go wrong while a guest is driven.

use std::io;
use std::time::Duration;

/// See [`enum@Error`].
pub type Result<T> = std::result::Result<T, Error>;

/// An error of the harness, or something that a test found to be different from what it should be.
#[derive(Debug, thiserror::Error)]
pub enum Error {
    /// The machine that runs the tests lacks something.
    #[error("setup: {0}")]
    Setup(String),
    /// A file, socket or process of the host.
    #[error("{what}")]
    Io {
        /// What was attempted.
        what: String,
        /// Why it failed.
        #[source]
        source: io::Error,
    },
    /// Something did not happen in time.
    #[error("{what} within {after:?}")]
    Timeout {
        /// What did not happen.
        what: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// A process ended that should not have.
    #[error("{name} ended: {detail}")]
    Ended {
        /// Which one.
        name: String,
        /// Its status and the end of its log.
        detail: String,
    },
    /// A command ended with another status than zero, on the host or in the guest.
    #[error("`{command}` ended with {status}: {output}")]
    Status {
        /// The command line.
        command: String,
        /// Its status.
        status: i32,
        /// What it printed.
        output: String,
    },
    /// QEMU refused a monitor command.
    #[error("QMP {command}: {description}")]
    Qmp {
        /// The command.
        command: String,
        /// QEMU's words.
        description: String,
    },
    /// A value is not of the expected form.
    #[error("{what}: {text}")]
    Format {
        /// What was to be read.
        what: String,
        /// What was there.
        text: String,
    },
    /// A test found something to be different from what it should be.
    #[error("{0}")]
    Differs(String),
}

impl Error {
    /// For `map_err` of an I/O operation.
    pub fn io(what: impl Into<String>) -> impl FnOnce(io::Error) -> Self {
        let what = what.into();
        move |source| Self::Io { what, source }
    }

    /// This error and its causes on one line.
    #[must_use]
    pub fn chain(&self) -> String {
        let mut text = self.to_string();
        let mut cause = std::error::Error::source(self);
        while let Some(error) = cause {
            text.push_str(": ");
            text.push_str(&error.to_string());
            cause = error.source();
        }
        text
    }
}

/// Compares what was found with what should be.
///
/// # Errors
/// [`Error::Differs`] if they differ.
pub fn same<T: PartialEq + std::fmt::Debug>(what: &str, found: &T, expected: &T) -> Result<()> {
    if found == expected {
        return Ok(());
    }
    Err(Error::Differs(format!("{what}: found {found:?}, expected {expected:?}")))
}

/// Fails unless the condition holds.
///
/// # Errors
/// [`Error::Differs`] with the words.
pub fn ensure(condition: bool, otherwise: impl Into<String>) -> Result<()> {
    if condition { Ok(()) } else { Err(Error::Differs(otherwise.into())) }
}
