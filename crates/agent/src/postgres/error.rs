//! What can go wrong with a server: who failed, what was tried, what to do next.

use std::io;
use std::path::PathBuf;
use std::process::ExitStatus;
use std::time::Duration;

use tokio_postgres::error::SqlState;

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error(
        "the program {program} is not in {searched}: install PostgreSQL's server package, or name its directory in \
         postgresql.bin_dir"
    )]
    ProgramMissing { program: String, searched: String },
    #[error("cannot start {program}")]
    Spawn { program: String, source: io::Error },
    /// `output` is the end of what it wrote to stderr.
    #[error("{program} failed ({status}): {output}")]
    ProgramFailed { program: String, status: ExitStatus, output: String },
    #[error("{operation} did not end within {limit:?}")]
    Deadline { operation: String, limit: Duration },
    #[error("{operation} was killed: it had neither said nor moved anything for {limit:?}")]
    Standstill { operation: String, limit: Duration },
    #[error("cannot {operation} {}", path.display())]
    File { operation: &'static str, path: PathBuf, source: io::Error },
    #[error("cannot connect to PostgreSQL at {address}")]
    Connect { address: String, source: tokio_postgres::Error },
    #[error("cannot connect to PostgreSQL at {address} with the TLS of postgresql.authentication")]
    Tls { address: String, source: Box<super::tls::ConnectError> },
    #[error("{operation} failed")]
    Query { operation: String, source: tokio_postgres::Error },
    /// An answer of PostgreSQL or of one of its programs that could not be understood.
    #[error("{source_of_answer} answered what is not understood: {detail}")]
    Answer { source_of_answer: String, detail: String },
    /// `operation`: the key that names the command.
    #[error("{operation}")]
    UserCommand { operation: String, source: crate::user_command::UserCommandError },
    /// `beside`: the old data is there.
    #[error("the copy needs {} MB and there are {} MB left{}", needed >> 20, left >> 20, room_advice(*beside))]
    NoRoom { needed: u64, left: u64, beside: bool },
    /// The operation is refused before anything has changed.
    #[error("{0}")]
    Refused(String),
}

fn room_advice(beside: bool) -> &'static str {
    if beside {
        ", for the old data stays until the copy is complete: free some space; or let it go first, by \
         postgresql.remove_data_directory_on_diverged_timelines (or, after a failed rewind, _on_rewind_failure), or by `pgherd reinit --force`"
    } else {
        ": free some space"
    }
}

impl Error {
    /// For `map_err` on a file operation: `Error::file("write", &path)`.
    pub(super) fn file(operation: &'static str, path: impl Into<PathBuf>) -> impl FnOnce(io::Error) -> Error {
        let path = path.into();
        move |source| Error::File { operation, path, source }
    }

    pub(super) fn answer(source_of_answer: &str, detail: impl Into<String>) -> Error {
        Error::Answer { source_of_answer: source_of_answer.to_owned(), detail: detail.into() }
    }

    /// The server itself refused (as opposed to: it could not be reached, or did not answer in time).
    pub fn sql_state(&self) -> Option<&SqlState> {
        match self {
            Error::Connect { source, .. } | Error::Query { source, .. } => source.code(),
            _ => None,
        }
    }

    /// The server is there and refuses this client for good: a wrong password, no rule in `pg_hba.conf`, no such role or database. Not: it
    /// is starting, or has no place left.
    pub fn is_refusal(&self) -> bool {
        let Error::Connect { source, .. } = self else { return false };
        match source.code() {
            Some(code) => [
                SqlState::INVALID_PASSWORD,
                SqlState::INVALID_AUTHORIZATION_SPECIFICATION,
                SqlState::INVALID_CATALOG_NAME,
                SqlState::INSUFFICIENT_PRIVILEGE,
            ]
            .contains(code),
            // The library gave up by itself while it logged in: no password, or a method that it does not know. It keeps its kinds
            // private; these are the texts of two of them.
            None => matches!(source.to_string().as_str(), "authentication error" | "invalid configuration"),
        }
    }

    /// There is too little space on a disk.
    pub fn is_no_room(&self) -> bool {
        match self {
            Error::NoRoom { .. } => true,
            Error::ProgramFailed { output, .. } => output.contains("No space left on device"),
            Error::File { source, .. } => source.kind() == io::ErrorKind::StorageFull,
            _ => false,
        }
    }

    /// The whole chain of causes on one line, for logs.
    pub fn full(&self) -> String {
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
