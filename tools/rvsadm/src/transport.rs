//! The way to rvsd.

use rvs_api::{Client, ClientError, DEFAULT_SOCKET, Outcome, Request};
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

/// Names another socket than [`DEFAULT_SOCKET`]. An option would have to be foreign to ipvsadm.
const SOCKET_VARIABLE: &str = "RVS_SOCKET";

/// Carries requests to whoever holds the table.
pub trait Transport {
    /// Asks for all of `requests`, in this order, whether those before were refused or not; the
    /// outcomes have the same order and number.
    ///
    /// # Errors
    ///
    /// [`ClientError`]: nobody answers.
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError>;
}

/// rvsd's control socket, connected when it is first needed: help and syntax need no rvsd.
#[derive(Debug)]
pub struct SocketTransport {
    path: PathBuf,
    client: Option<Client<UnixStream>>,
}

impl SocketTransport {
    /// The socket at `path`.
    #[must_use]
    pub fn new(path: PathBuf) -> Self {
        Self { path, client: None }
    }

    /// The socket that `RVS_SOCKET` names, else [`DEFAULT_SOCKET`].
    #[must_use]
    pub fn from_environment() -> Self {
        let path = std::env::var_os(SOCKET_VARIABLE).unwrap_or_else(|| DEFAULT_SOCKET.into());
        Self::new(path.into())
    }
}

impl Transport for SocketTransport {
    fn batch(&mut self, requests: &[Request]) -> Result<Vec<Outcome>, ClientError> {
        let client = match self.client.take() {
            Some(client) => client,
            None => Client::connect(&self.path)?,
        };
        self.client.insert(client).batch(requests)
    }
}
