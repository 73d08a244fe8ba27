//! Where metrics are collected: the table `[metrics]`.

use std::fmt;
use std::net::SocketAddr;
use std::path::PathBuf;

use serde::Deserialize;

/// In front of the path of a socket.
const UNIX: &str = "unix:";

/// The endpoint for metrics.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MetricsConfig {
    /// Where it listens.
    pub listen: MetricsAddress,
    /// The group that may connect to a UNIX socket, by name or number; without it the daemon's user alone.
    #[serde(default)]
    pub group: Option<String>,
}

/// A UNIX socket or an address.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(try_from = "String")]
pub enum MetricsAddress {
    /// Written `unix:` and an absolute path.
    Unix(PathBuf),
    /// An address and a port.
    Tcp(SocketAddr),
}

/// Neither.
#[derive(Debug, thiserror::Error)]
#[error("{0:?} is neither unix: with an absolute path nor an IP address with a port, such as 127.0.0.1:9560")]
pub struct NoMetricsAddress(String);

impl TryFrom<String> for MetricsAddress {
    type Error = NoMetricsAddress;

    fn try_from(text: String) -> Result<Self, NoMetricsAddress> {
        match text.strip_prefix(UNIX).map(PathBuf::from) {
            Some(path) if path.is_absolute() => Ok(Self::Unix(path)),
            Some(_) => Err(NoMetricsAddress(text)),
            None => text.parse().map(Self::Tcp).map_err(|_| NoMetricsAddress(text)),
        }
    }
}

impl fmt::Display for MetricsAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Unix(path) => write!(f, "{UNIX}{}", path.display()),
            Self::Tcp(address) => address.fmt(f),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_is_a_path_or_a_number_and_shows_as_it_is_written() {
        for text in ["unix:/run/vtpmd/metrics.sock", "127.0.0.1:9560", "[::1]:0"] {
            assert_eq!(MetricsAddress::try_from(text.to_owned()).unwrap().to_string(), text);
        }
        for text in ["", "unix:", "unix:run/x", "/run/x", "9560", "localhost:9560", "127.0.0.1"] {
            assert!(MetricsAddress::try_from(text.to_owned()).is_err(), "{text}");
        }
    }
}
