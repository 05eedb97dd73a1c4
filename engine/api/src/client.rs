//! The end of the control socket that asks.

use crate::codec::{self, FrameError};
use crate::{Outcome, Reply, Request};
use std::io::{Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

/// How long rvsd may be silent before it is given up. Control never waits for the data path, so
/// seconds mean that it is stopped or gone.
const PATIENCE: Duration = Duration::from_secs(30);

/// Requests in one frame; a long batch is cut so that rvsd reads the next part while it works.
const BATCH_MAX: usize = 16_384;

/// Why rvsd could not be asked.
#[derive(Debug, thiserror::Error)]
pub enum ClientError {
    /// Nobody listens, or this user may not speak with who does.
    #[error("cannot reach rvsd at {}: {}", path.display(), source)]
    Unreachable {
        /// Which socket.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The two ends do not understand each other, or rvsd went away.
    #[error("rvsd: {0}")]
    Frame(#[from] FrameError),
}

/// A connection to rvsd, greeted.
#[derive(Debug)]
pub struct Client<S> {
    stream: S,
}

impl Client<UnixStream> {
    /// Connects and exchanges greetings.
    ///
    /// # Errors
    ///
    /// [`ClientError`].
    pub fn connect(path: &Path) -> Result<Self, ClientError> {
        let open = || {
            let stream = UnixStream::connect(path)?;
            stream.set_read_timeout(Some(PATIENCE))?;
            stream.set_write_timeout(Some(PATIENCE))?;
            Ok(stream)
        };
        let stream =
            open().map_err(|source| ClientError::Unreachable { path: path.to_owned(), source })?;
        Self::greet(stream)
    }
}

impl<S: Read + Write> Client<S> {
    /// Exchanges greetings on a stream that leads to rvsd.
    ///
    /// # Errors
    ///
    /// [`ClientError::Frame`].
    pub fn greet(mut stream: S) -> Result<Self, ClientError> {
        codec::greet(&mut stream)?;
        Ok(Self { stream })
    }

    /// Asks one thing.
    ///
    /// # Errors
    ///
    /// [`ClientError::Frame`]; what rvsd refuses is an outcome.
    pub fn call(&mut self, request: &Request) -> Result<Outcome, ClientError> {
        let outcome = self.batch(core::slice::from_ref(request))?.pop();
        Ok(outcome.unwrap_or(Ok(Reply::Done)))
    }

    /// Asks many things, which are done in this order, whether those before were refused or not.
    /// The outcomes have the same order and number.
    ///
    /// # Errors
    ///
    /// [`ClientError::Frame`]; how much was done before is then unknown.
    pub fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        let mut outcomes = Vec::with_capacity(requests.len());
        for part in requests.chunks(BATCH_MAX) {
            codec::ask(&mut self.stream, part)?;
            outcomes.append(&mut codec::read_answers(&mut self.stream, part.len())?);
        }
        Ok(outcomes)
    }
}
