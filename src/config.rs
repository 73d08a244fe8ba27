//! The daemon's configuration: a TOML file, and the command line over it.
//!
//! ```toml
//! state_dir   = "/var/lib/vtpmd"           # the database; private to the daemon's user
//! runtime_dir = "/run/vtpmd"               # the sockets
//! host_key    = "/etc/vtpmd/host.key"      # without it: the systemd credential, or host.key in state_dir
//! socket_group = "kvm"                     # may connect to the vhost-user sockets; without it the daemon's user alone
//! log_level   = "info"                     # error, warn, info, debug, trace
//! log_format  = "text"                     # text, json, journal; without it the journal where the standard error is that, else text
//! saves       = false                      # whether machines may be saved to files and snapshots with their TPMs
//!
//! [limits]
//! instances    = 1024                      # of the whole tree, the root included
//! nv_bytes     = 147456                    # of each instance, as the rest; what is above gets TPM_RC_NV_SPACE
//! nv_indices   = 1024                      # TPM_RC_NV_SPACE
//! persistent_objects = 64                  # TPM_RC_NV_SPACE
//! active_sessions = 64                     # TPM_RC_SESSION_HANDLES
//! commands_per_second = 1000               # on average, TPM_RC_RETRY; without it there is no limit
//! command_burst = 4096                     # as many at once
//! sleep_after  = 30                        # seconds without a client, after which an instance is on disk alone
//!
//! [link]                                   # to the daemons of other hosts; without this table there is none
//! listen       = "192.0.2.7:8670"          # where they connect; without it this host asks, but does not answer
//! connections  = 64                        # at once
//!
//! [metrics]                                # for Prometheus; without this table there is no endpoint
//! listen       = "unix:/run/vtpmd/metrics.sock"   # or "127.0.0.1:9560"
//! group        = "prometheus"              # may connect to the UNIX socket; without it the daemon's user alone
//! ```
//!
//! Everything may be left out. A key that is not known is an error, so that a misspelt one does not go unnoticed.

mod limits;
mod metrics;

use std::fs;
use std::io;
use std::net::SocketAddr;
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};

use nix::unistd::Group;
use serde::Deserialize;

pub use limits::Limits;
pub use metrics::{MetricsAddress, MetricsConfig, NoMetricsAddress};

use crate::host_key::{HostKey, HostKeyError};

/// Read when the command line names no file; need not exist.
pub const DEFAULT_CONFIG: &str = "/etc/vtpmd/vtpmd.toml";
/// Where the state is kept unless something else is said.
pub const DEFAULT_STATE_DIR: &str = "/var/lib/vtpmd";
/// Where the sockets are made unless something else is said.
pub const DEFAULT_RUNTIME_DIR: &str = "/run/vtpmd";

/// Name of the database in the state directory.
const DATABASE_NAME: &str = "vtpmd.sqlite";
/// Name of the host key in the state directory, when no other place is given.
const HOST_KEY_NAME: &str = "host.key";

/// Why there is no configuration.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// The file could not be read.
    #[error("cannot read the configuration {path}")]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
    /// The file is not TOML, has an unknown key or a value that does not fit.
    #[error("{path}:{line}: {message}")]
    Syntax {
        /// The file.
        path: PathBuf,
        /// The line, counted from 1.
        line: usize,
        /// What is wrong there.
        message: String,
    },
    /// A path in the file depends on where the daemon was started.
    #[error("{path}: {key} must be an absolute path")]
    Relative {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A limit admits nothing.
    #[error("{path}: {key} must not be 0")]
    ZeroLimit {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
    },
    /// A limit is above what there is.
    #[error("{path}: {key} must be at most {most}, for which a TPM has room")]
    LargeLimit {
        /// The file.
        path: PathBuf,
        /// The key.
        key: &'static str,
        /// The largest value.
        most: u32,
    },
    /// A burst of nothing.
    #[error("{path}: limits.command_burst means nothing without limits.commands_per_second")]
    BurstAlone {
        /// The file.
        path: PathBuf,
    },
    /// There is no such group.
    #[error("there is no group {0:?} on this host")]
    Group(String),
    /// The state directory could not be made.
    #[error("cannot make the state directory {path}")]
    StateDir {
        /// The directory.
        path: PathBuf,
        /// What the system answered.
        #[source]
        source: io::Error,
    },
}

/// How much the daemon says.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogLevel {
    /// What needs an operator.
    Error,
    /// And what may soon.
    Warn,
    /// And what happens to instances.
    #[default]
    Info,
    /// And every connection.
    Debug,
    /// And every command, by its code.
    Trace,
}

impl From<LogLevel> for log::LevelFilter {
    fn from(level: LogLevel) -> Self {
        match level {
            LogLevel::Error => Self::Error,
            LogLevel::Warn => Self::Warn,
            LogLevel::Info => Self::Info,
            LogLevel::Debug => Self::Debug,
            LogLevel::Trace => Self::Trace,
        }
    }
}

/// How the daemon says it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Deserialize, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum LogFormat {
    /// Lines for people, on the standard error.
    Text,
    /// Lines that are JSON objects, on the standard error.
    Json,
    /// Entries of systemd's journal, with its fields.
    Journal,
}

/// The link to the daemons of other hosts.
#[derive(Clone, Debug, PartialEq, Eq, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct LinkConfig {
    /// Where they connect.
    pub listen: Option<SocketAddr>,
    /// The most of them connected at once.
    pub connections: u32,
}

impl Default for LinkConfig {
    fn default() -> Self {
        Self { listen: None, connections: 64 }
    }
}

/// The configuration in force.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Config {
    /// Holds the database and, unless it is elsewhere, the host key.
    pub state_dir: PathBuf,
    /// Holds the sockets.
    pub runtime_dir: PathBuf,
    /// The file of the host key, if one is named.
    pub host_key: Option<PathBuf>,
    /// The group that may connect to the vhost-user sockets, by name or number.
    pub socket_group: Option<String>,
    /// How much is logged.
    pub log_level: LogLevel,
    /// How; `None` is as the standard error is.
    pub log_format: Option<LogFormat>,
    /// Whether machines may be saved to files and snapshots, where nothing is said of their instance; `None` is as the program has it.
    pub saves: Option<bool>,
    /// What is refused.
    pub limits: Limits,
    /// The link to other hosts, if there is one.
    pub link: Option<LinkConfig>,
    /// The endpoint for metrics, if there is one.
    pub metrics: Option<MetricsConfig>,
}

impl Default for Config {
    fn default() -> Self {
        Self {
            state_dir: DEFAULT_STATE_DIR.into(),
            runtime_dir: DEFAULT_RUNTIME_DIR.into(),
            host_key: None,
            socket_group: None,
            log_level: LogLevel::default(),
            log_format: None,
            saves: None,
            limits: Limits::default(),
            link: None,
            metrics: None,
        }
    }
}

/// The configuration's part of the command line.
#[derive(Clone, Debug, Default, clap::Args)]
pub struct ConfigArgs {
    /// Configuration file [default: /etc/vtpmd/vtpmd.toml, if it is there]
    #[arg(long, value_name = "FILE")]
    pub config: Option<PathBuf>,
    /// Directory of the database [default: /var/lib/vtpmd]
    #[arg(long, value_name = "DIR")]
    pub state_dir: Option<PathBuf>,
    /// Directory of the sockets [default: /run/vtpmd]
    #[arg(long, value_name = "DIR")]
    pub runtime_dir: Option<PathBuf>,
    /// File of the host key [default: the systemd credential vtpmd-host-key, or host.key in the state directory]
    #[arg(long, value_name = "FILE")]
    pub host_key: Option<PathBuf>,
    /// Group that may connect to the vhost-user sockets, that of QEMU's processes [default: none, only the daemon's user may]
    #[arg(long, value_name = "GROUP")]
    pub socket_group: Option<String>,
    /// How much to log [default: info]
    #[arg(long, value_name = "LEVEL")]
    pub log_level: Option<LogLevel>,
    /// How to log [default: journal where the standard error is systemd's journal, text otherwise]
    #[arg(long, value_name = "FORMAT")]
    pub log_format: Option<LogFormat>,
}

/// Where the host key comes from.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HostKeySource {
    /// A file.
    File(PathBuf),
    /// The credential that systemd passed to the daemon.
    Credential,
}

impl HostKeySource {
    /// Reads the host key.
    pub fn load(&self) -> Result<HostKey, HostKeyError> {
        match self {
            Self::File(path) => HostKey::load(path),
            Self::Credential => HostKey::from_credentials(),
        }
    }

    /// Reads the host key; makes the file if it is not there, for `vtpmd init`.
    pub fn load_or_create(&self) -> Result<HostKey, HostKeyError> {
        match self {
            Self::File(path) => HostKey::load_or_create(path),
            Self::Credential => HostKey::from_credentials(),
        }
    }
}

#[derive(Default, Deserialize)]
#[serde(deny_unknown_fields, default)]
struct ConfigFile {
    state_dir: Option<PathBuf>,
    runtime_dir: Option<PathBuf>,
    host_key: Option<PathBuf>,
    socket_group: Option<String>,
    log_level: Option<LogLevel>,
    log_format: Option<LogFormat>,
    saves: Option<bool>,
    limits: Limits,
    link: Option<LinkConfig>,
    metrics: Option<MetricsConfig>,
}

impl ConfigArgs {
    /// The configuration: what the command line says, else what the file says, else the default. A file that the
    /// command line names must exist; [`DEFAULT_CONFIG`] need not.
    pub fn load(self) -> Result<Config, ConfigError> {
        let file = match &self.config {
            Some(path) => Config::read(path)?,
            None => match Config::read(Path::new(DEFAULT_CONFIG)) {
                Err(ConfigError::Read { source, .. }) if source.kind() == io::ErrorKind::NotFound => {
                    Config::default()
                }
                other => other?,
            },
        };
        Ok(self.over(file))
    }

    fn over(self, file: Config) -> Config {
        let Self { config: _, state_dir, runtime_dir, host_key, socket_group, log_level, log_format } = self;
        Config {
            state_dir: state_dir.unwrap_or(file.state_dir),
            runtime_dir: runtime_dir.unwrap_or(file.runtime_dir),
            host_key: host_key.or(file.host_key),
            socket_group: socket_group.or(file.socket_group),
            log_level: log_level.unwrap_or(file.log_level),
            log_format: log_format.or(file.log_format),
            saves: file.saves,
            limits: file.limits,
            link: file.link,
            metrics: file.metrics,
        }
    }
}

impl Config {
    /// Reads a file; what it leaves out has its default.
    pub fn read(path: &Path) -> Result<Self, ConfigError> {
        let text =
            fs::read_to_string(path).map_err(|source| ConfigError::Read { path: path.to_owned(), source })?;
        Self::parse(&text, path)
    }

    fn parse(text: &str, path: &Path) -> Result<Self, ConfigError> {
        let file: ConfigFile = toml::from_str(text).map_err(|error| {
            let before = error.span().and_then(|span| text.get(..span.start)).unwrap_or_default();
            let line = before.matches('\n').count().saturating_add(1);
            ConfigError::Syntax {
                path: path.to_owned(),
                line,
                message: error.message().trim_end().to_owned(),
            }
        })?;
        let ConfigFile {
            state_dir,
            runtime_dir,
            host_key,
            socket_group,
            log_level,
            log_format,
            saves,
            limits,
            link,
            metrics,
        } = file;
        for (key, value) in
            [("state_dir", &state_dir), ("runtime_dir", &runtime_dir), ("host_key", &host_key)]
        {
            if value.as_ref().is_some_and(|value| value.is_relative()) {
                return Err(ConfigError::Relative { path: path.to_owned(), key });
            }
        }
        limits.check(path)?;
        if link.as_ref().is_some_and(|link| link.connections == 0) {
            return Err(ConfigError::ZeroLimit { path: path.to_owned(), key: "link.connections" });
        }
        let default = Self::default();
        Ok(Self {
            state_dir: state_dir.unwrap_or(default.state_dir),
            runtime_dir: runtime_dir.unwrap_or(default.runtime_dir),
            host_key,
            socket_group,
            log_level: log_level.unwrap_or_default(),
            log_format,
            saves,
            limits,
            link,
            metrics,
        })
    }

    /// The database.
    pub fn database(&self) -> PathBuf {
        self.state_dir.join(DATABASE_NAME)
    }

    /// Where the host key comes from: the file that is named, else the credential if systemd passed one, else the
    /// file beside the database, which then protects no more than copies of the database alone.
    pub fn host_key_source(&self) -> HostKeySource {
        match &self.host_key {
            Some(path) => HostKeySource::File(path.clone()),
            None if HostKey::credential_is_present() => HostKeySource::Credential,
            None => HostKeySource::File(self.state_dir.join(HOST_KEY_NAME)),
        }
    }

    /// The number of the group that may connect to the vhost-user sockets.
    pub fn socket_gid(&self) -> Result<Option<u32>, ConfigError> {
        self.socket_group.as_deref().map(group_id).transpose()
    }

    /// The number of the group that may connect to the endpoint for metrics.
    pub fn metrics_gid(&self) -> Result<Option<u32>, ConfigError> {
        self.metrics.as_ref().and_then(|metrics| metrics.group.as_deref()).map(group_id).transpose()
    }

    /// Makes the state directory, open to the user of this process only, if it is not there.
    pub fn make_state_dir(&self) -> Result<(), ConfigError> {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o700)
            .create(&self.state_dir)
            .map_err(|source| ConfigError::StateDir { path: self.state_dir.clone(), source })
    }
}

/// The number of a group that is known by name or number.
fn group_id(name: &str) -> Result<u32, ConfigError> {
    if let Ok(number) = name.parse() {
        return Ok(number);
    }
    match Group::from_name(name) {
        Ok(Some(group)) => Ok(group.gid.as_raw()),
        Ok(None) | Err(_) => Err(ConfigError::Group(name.to_owned())),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::Parser;
    use std::os::unix::fs::PermissionsExt;

    #[derive(Parser)]
    struct Program {
        #[command(flatten)]
        config: ConfigArgs,
    }

    fn parse(text: &str) -> Result<Config, ConfigError> {
        Config::parse(text, Path::new("/etc/x.toml"))
    }

    #[test]
    fn empty_file_means_the_defaults() {
        let config = parse("").unwrap();
        assert_eq!(config, Config::default());
        assert_eq!(config.database(), Path::new("/var/lib/vtpmd/vtpmd.sqlite"));
        assert_eq!(config.host_key_source(), HostKeySource::File("/var/lib/vtpmd/host.key".into()));
    }

    #[test]
    fn the_package_s_file_shows_the_defaults_and_every_key() {
        let shown = include_str!("../packaging/vtpmd.toml");
        assert_eq!(parse(shown).unwrap(), Config::default());
        let uncommented = |line: &str| match line.strip_prefix('#') {
            Some(key) if !key.starts_with(' ') => key.to_owned(),
            _ => line.to_owned(),
        };
        let all: Vec<String> = shown.lines().map(uncommented).collect();
        let config = parse(&all.join("\n")).unwrap();
        assert!(config.link.is_some() && config.metrics.is_some());
        let keys = |lines: &mut dyn Iterator<Item = &str>| -> Vec<String> {
            lines.filter_map(|line| Some(line.split_once(" = ")?.0.trim().to_owned())).collect()
        };
        let documented = include_str!("config.rs").lines().filter_map(|line| line.strip_prefix("//! "));
        assert_eq!(
            keys(&mut all.iter().map(String::as_str)),
            keys(&mut documented.filter(|line| line.contains('#')))
        );
        let defaults: Vec<_> =
            all.iter().filter(|line| !line.contains("# example")).map(String::as_str).collect();
        let defaults = defaults.join("\n").replace("[metrics]", "");
        assert_eq!(
            parse(&defaults).unwrap(),
            Config { saves: Some(false), link: Some(LinkConfig::default()), ..Config::default() }
        );
    }

    #[test]
    fn every_key_is_taken_over() {
        let config = parse(
            "state_dir = '/s'\nruntime_dir = '/r'\nhost_key = '/k'\nsocket_group = 'kvm'\nlog_level = 'trace'\nlog_format = 'json'\nsaves = true\n[limits]\ninstances = 3\n\
             [link]\nlisten = '127.0.0.1:8670'\nconnections = 9\n[metrics]\nlisten = 'unix:/m'\ngroup = '7'\n",
        );
        let expected = Config {
            state_dir: "/s".into(),
            runtime_dir: "/r".into(),
            host_key: Some("/k".into()),
            socket_group: Some("kvm".into()),
            log_level: LogLevel::Trace,
            log_format: Some(LogFormat::Json),
            limits: Limits { instances: 3, ..Limits::default() },
            saves: Some(true),
            link: Some(LinkConfig { listen: "127.0.0.1:8670".parse().ok(), connections: 9 }),
            metrics: Some(MetricsConfig {
                listen: MetricsAddress::Unix("/m".into()),
                group: Some("7".into()),
            }),
        };
        assert_eq!(expected.metrics_gid().unwrap(), Some(7));
        assert_eq!(config.unwrap(), expected);
    }

    #[test]
    fn error_names_file_and_line() {
        for (text, line, word) in [
            ("state_dir = '/s'\n\nstate_dirr = '/s'\n", 3, "state_dirr"),
            ("[limits]\ninstances = 'many'\n", 2, "invalid type"),
            ("[limits]\ninstances = -1\n", 2, "invalid value"),
            ("\nlog_level = 'loud'", 2, "loud"),
            ("log_format = 'xml'", 1, "xml"),
            ("state_dir = '/s'\nruntime_dir = \n", 2, ""),
            ("[link]\nlisten = 'everywhere'\n", 2, "socket address"),
            ("[link]\nport = 5\n", 2, "port"),
            ("[metrics]\nlisten = 'everywhere'\n", 2, "neither"),
            ("[metrics]\ngroup = '7'\n", 1, "listen"),
        ] {
            let message = parse(text).unwrap_err().to_string();
            assert!(message.starts_with(&format!("/etc/x.toml:{line}: ")), "{message}");
            assert!(message.contains(word) && !message.contains('\n'), "{message}");
        }
    }

    #[test]
    fn refuses_relative_paths_and_limits_of_zero() {
        assert!(matches!(
            parse("runtime_dir = 'run'"),
            Err(ConfigError::Relative { key: "runtime_dir", .. })
        ));
        assert!(matches!(
            parse("limits.instances = 0"),
            Err(ConfigError::ZeroLimit { key: "limits.instances", .. })
        ));
        assert!(matches!(
            parse("link.connections = 0"),
            Err(ConfigError::ZeroLimit { key: "link.connections", .. })
        ));
    }

    #[test]
    fn command_line_goes_over_the_file() {
        let directory = tempfile::tempdir().unwrap();
        let file = directory.path().join("c.toml");
        fs::write(
            &file,
            "state_dir = '/s'\nhost_key = '/k'\nlog_level = 'warn'\nlimits.instances = 5\nlink = {}\n",
        )
        .unwrap();
        let load = |words: &[&str]| {
            let words = [&["vtpmd", "--config", file.to_str().unwrap()], words].concat();
            Program::try_parse_from(words).unwrap().config.load().unwrap()
        };
        let from_file = load(&[]);
        assert_eq!(from_file.state_dir, Path::new("/s"));
        assert_eq!(from_file.runtime_dir, Path::new(DEFAULT_RUNTIME_DIR));
        let config = load(&[
            "--state-dir=/t",
            "--host-key=/l",
            "--log-level=debug",
            "--log-format=text",
            "--runtime-dir=q",
            "--socket-group=7",
        ]);
        let expected = Config {
            state_dir: "/t".into(),
            runtime_dir: "q".into(),
            host_key: Some("/l".into()),
            socket_group: Some("7".into()),
            log_level: LogLevel::Debug,
            log_format: Some(LogFormat::Text),
            limits: Limits { instances: 5, ..Limits::default() },
            saves: None,
            link: Some(LinkConfig::default()),
            metrics: None,
        };
        assert_eq!(config, expected);
    }

    #[test]
    fn a_group_is_known_by_name_or_number() {
        let gid = |group: Option<&str>| {
            Config { socket_group: group.map(Into::into), ..Config::default() }.socket_gid()
        };
        assert_eq!(gid(None).unwrap(), None);
        assert_eq!(gid(Some("root")).unwrap(), Some(0));
        assert_eq!(gid(Some("4711")).unwrap(), Some(4711));
        assert!(matches!(gid(Some("no-such-group")), Err(ConfigError::Group(_))));
    }

    #[test]
    fn named_file_must_exist() {
        let args = ConfigArgs { config: Some("/nonexistent/c.toml".into()), ..ConfigArgs::default() };
        assert!(matches!(args.load(), Err(ConfigError::Read { .. })));
    }

    #[test]
    fn state_directory_is_made_private() {
        let directory = tempfile::tempdir().unwrap();
        let config = Config { state_dir: directory.path().join("a/b"), ..Config::default() };
        config.make_state_dir().unwrap();
        config.make_state_dir().unwrap();
        assert_eq!(fs::metadata(&config.state_dir).unwrap().permissions().mode() & 0o777, 0o700);
    }
}
