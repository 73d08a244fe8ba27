//! All metrics as text: what was counted, and what is looked up for it.

use std::fmt::{self, Error};
use std::path::PathBuf;
use std::sync::atomic::Ordering;
use std::sync::{Arc, Weak};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{
    DescriptorEncoder, EncodeCounterValue, EncodeGaugeValue, EncodeLabelSet, MetricEncoder, NoLabelSet,
};
use prometheus_client::metrics::MetricType;
use prometheus_client::registry::Registry;

use super::Metrics;
use super::histogram::{Histogram, NANOSECONDS};
use super::process::Process;
use crate::store::Counters;
use crate::tree::Tree;

/// Clients by where they came in.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Connections {
    /// At vhost-user sockets.
    pub vhost_user: u64,
    /// At control channels.
    pub control: u64,
    /// At the raw socket of the root.
    pub raw: u64,
}

/// Where the numbers come from.
pub struct Sources {
    /// What the tree counts.
    pub metrics: Arc<Metrics>,
    /// What the store counts.
    pub counters: Arc<Counters>,
    /// Where the instances are.
    pub tree: Weak<Tree>,
    /// The database; its log has the same name with `-wal` behind it.
    pub database: PathBuf,
    /// Who is connected.
    pub connections: Box<dyn Fn() -> Connections + Send + Sync>,
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

/// The text, over and over.
pub(super) struct Exposition(Registry);

impl Exposition {
    pub(super) fn new(sources: Sources) -> Self {
        let mut registry = Registry::default();
        registry.register_collector(Box::new(sources));
        Self(registry)
    }

    /// As it is now.
    pub(super) fn text(&self) -> Result<String, Error> {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.0)?;
        Ok(text)
    }
}

/// One family after the other.
struct Families<'a>(DescriptorEncoder<'a>);

impl Families<'_> {
    fn family<'s>(
        &'s mut self,
        name: &'s str,
        help: &str,
        kind: MetricType,
    ) -> Result<MetricEncoder<'s>, Error> {
        // The library adds `_total` to the samples of a counter.
        let name = name.strip_suffix("_total").unwrap_or(name);
        self.0.encode_descriptor(name, help, None, kind)
    }

    fn counter(&mut self, name: &str, help: &str, value: impl EncodeCounterValue) -> Result<(), Error> {
        self.family(name, help, MetricType::Counter)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
    }

    fn counters<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.family(name, help, MetricType::Counter)?;
        rows.into_iter().try_for_each(|(labels, value)| {
            family.encode_family(&labels)?.encode_counter::<NoLabelSet, _, f64>(&value, None)
        })
    }

    /// One that the system did not tell is left out.
    fn gauge(&mut self, name: &str, help: &str, value: Option<impl EncodeGaugeValue>) -> Result<(), Error> {
        match value {
            Some(value) => self.family(name, help, MetricType::Gauge)?.encode_gauge(&value),
            None => Ok(()),
        }
    }

    fn gauges<L: EncodeLabelSet>(
        &mut self,
        name: &str,
        help: &str,
        rows: impl IntoIterator<Item = (L, u64)>,
    ) -> Result<(), Error> {
        let mut family = self.family(name, help, MetricType::Gauge)?;
        rows.into_iter().try_for_each(|(labels, value)| family.encode_family(&labels)?.encode_gauge(&value))
    }
}

fn histogram<const N: usize>(
    mut encoder: MetricEncoder<'_>,
    histogram: &Histogram<N>,
    unit: f64,
) -> Result<(), Error> {
    let counted = histogram.counted(unit);
    encoder.encode_histogram::<NoLabelSet>(counted.sum, counted.count, &counted.buckets, None)
}

impl Collector for Sources {
    fn encode(&self, encoder: DescriptorEncoder<'_>) -> Result<(), Error> {
        let mut out = Families(encoder);
        self.program(&mut out)?;
        self.commands(&mut out)?;
        self.instances(&mut out)?;
        self.store(&mut out)?;
        process(&mut out)
    }
}

impl Sources {
    fn program(&self, out: &mut Families<'_>) -> Result<(), Error> {
        let version = [("version", env!("CARGO_PKG_VERSION"))];
        out.family("vtpmd_build", "Which vtpmd this is", MetricType::Info)?.encode_info(&version)
    }

    fn commands(&self, out: &mut Families<'_>) -> Result<(), Error> {
        let Metrics { commands, rate_limited, replayed, migrations } = &*self.metrics;
        let by_result = commands.rows().flat_map(|row| {
            let labels = move |result| [("command", row.command), ("result", result)];
            row.results.into_iter().map(move |(result, count)| (labels(result), count))
        });
        out.counters("vtpmd_commands_total", "Commands answered, by command and response code", by_result)?;
        let mut took = out.family(
            "vtpmd_command_duration_seconds",
            "From when a command was there until its response was, waiting included",
            MetricType::Histogram,
        )?;
        for row in commands.rows() {
            histogram(took.encode_family(&[("command", row.command)])?, row.took, NANOSECONDS)?;
        }
        out.counter(
            "vtpmd_commands_rate_limited_total",
            "Commands answered TPM_RC_RETRY since their machine sent more than it may",
            rate_limited.get(),
        )?;
        out.counter(
            "vtpmd_commands_replayed_total",
            "Commands in flight answered from their record after an interruption",
            replayed.get(),
        )?;
        out.counters(
            "vtpmd_migrations_total",
            "What came of migrations, by the end that this host was",
            migrations.rows().map(|(side, outcome, n)| ([("side", side), ("outcome", outcome)], n)),
        )
    }

    fn instances(&self, out: &mut Families<'_>) -> Result<(), Error> {
        let census = self.tree.upgrade().map(|tree| tree.census()).unwrap_or_default();
        // Those of which the rows do not hold together are not in the tree.
        let damaged = self.counters.damaged.load(Ordering::Relaxed).saturating_add(census.damaged);
        let states = census.states.iter().map(|(state, count)| (state.as_str(), *count));
        let states = states.chain([("damaged", damaged), ("unread", census.unread)]);
        out.gauges(
            "vtpmd_instances",
            "Instances by state, the root not counted",
            states.map(|(state, count)| ([("state", state)], count)),
        )?;
        out.gauge("vtpmd_instances_awake", "Instances whose TPM is in memory", Some(census.awake))?;
        let Connections { vhost_user, control, raw } = (self.connections)();
        let doors = [("vhost-user", vhost_user), ("control", control), ("raw", raw)];
        out.gauges(
            "vtpmd_connections",
            "Clients connected, by the kind of socket",
            doors.map(|(door, count)| ([("door", door)], count)),
        )
    }

    fn store(&self, out: &mut Families<'_>) -> Result<(), Error> {
        let counted = &*self.counters;
        out.counter("vtpmd_commits_total", "Changes of instances made durable", counted.commits.get())?;
        let transactions = [("medium", counted.synchronised.get()), ("process", counted.left.get())];
        out.counters(
            "vtpmd_transactions_total",
            "Transactions of the database, by what they outlive",
            transactions.map(|(durability, count)| ([("durability", durability)], count)),
        )?;
        let shared = out.family(
            "vtpmd_transaction_commits",
            "How many changes shared a transaction",
            MetricType::Histogram,
        )?;
        histogram(shared, &counted.shared, 1.0)?;
        let took = out.family(
            "vtpmd_sync_duration_seconds",
            "How long a transaction took to be on the medium",
            MetricType::Histogram,
        )?;
        histogram(took, &counted.sync_took, NANOSECONDS)?;
        let failures = [
            ("disk-full", counted.disk_full.get()),
            ("unknown-outcome", counted.unknown.get()),
            ("failed", counted.failed.get()),
        ];
        out.counters(
            "vtpmd_commit_failures_total",
            "Changes that could not be made durable",
            failures.map(|(reason, count)| ([("reason", reason)], count)),
        )?;
        out.counter(
            "vtpmd_early_syncs_total",
            "Times the log of the database was synchronised while nobody waited for it",
            counted.early_syncs.get(),
        )?;
        let size = |path: &PathBuf| std::fs::metadata(path).ok().map(|found| found.len());
        let mut log = self.database.clone().into_os_string();
        log.push("-wal");
        out.gauge("vtpmd_database_bytes", "Size of the database", size(&self.database))?;
        out.gauge("vtpmd_database_log_bytes", "Size of the log of the database", size(&log.into()))
    }
}

fn process(out: &mut Families<'_>) -> Result<(), Error> {
    let now = Process::now();
    if let Some(cpu) = now.cpu_seconds {
        out.counter("process_cpu_seconds_total", "Processor time of user and system", cpu)?;
    }
    out.gauge(
        "process_start_time_seconds",
        "When the process started, since 1970 UTC",
        now.start_time_seconds,
    )?;
    out.gauge("process_virtual_memory_bytes", "Address space in use", now.virtual_bytes)?;
    out.gauge("process_resident_memory_bytes", "Memory in use", now.resident_bytes)?;
    out.gauge("process_threads", "Threads", now.threads)?;
    out.gauge("process_open_fds", "Open file descriptors", now.open_descriptors)?;
    out.gauge("process_max_fds", "The most file descriptors that may be open", now.max_descriptors)
}
