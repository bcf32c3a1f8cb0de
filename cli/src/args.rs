//! The commands and their options.

use std::path::PathBuf;

use clap::{Args, Parser, Subcommand, ValueEnum};
use leeward_common::{
    api::v1::{SimulationEvent, When},
    audit,
    bgp::Prefix,
    config::Span,
    id::{AgentId, OverrideId, RegionId, ResourceId, ServiceId, SourceId},
    report::ProbeKind,
};

use crate::pki::{self, Host};

/// Ask the aggregator where services should be and why; run scenarios offline; set up an installation.
#[derive(Debug, Parser)]
#[command(
    name = "leeward",
    version,
    disable_help_subcommand = true,
    max_term_width = 120,
    after_help = "\
Examples:
  leeward status                               what matters most now
  leeward failover rank virginia               where virginia would go, and why
  leeward link virginia oregon                 one link, both directions
  leeward simulate scenarios/four-regions.toml the same decisions in virtual time

`leeward help exit-codes` explains the exit codes."
)]
pub struct Cli {
    /// Options of every command.
    #[command(flatten)]
    pub global: Global,
    /// The command.
    #[command(subcommand)]
    pub command: Command,
}

/// Options of every command.
#[derive(Args, Debug)]
pub struct Global {
    /// The aggregator's API.
    #[arg(
        long,
        global = true,
        env = "LEEWARD_SERVER",
        value_name = "URL",
        default_value = "http://127.0.0.1:8611"
    )]
    pub server: String,
    /// File that holds the bearer token; LEEWARD_TOKEN holds the token itself.
    #[arg(long, global = true, env = "LEEWARD_TOKEN_FILE", value_name = "FILE")]
    pub token_file: Option<PathBuf>,
    /// Certificate authority of the aggregator's API, if it uses TLS.
    #[arg(long, global = true, env = "LEEWARD_CA", value_name = "FILE")]
    pub ca: Option<PathBuf>,
    /// How long to wait for an answer.
    #[arg(long, global = true, value_name = "SPAN", default_value = "10s", value_parser = span)]
    pub timeout: Span,
    /// How to write the answer.
    #[arg(short, long, global = true, value_enum, default_value_t = Format::Table)]
    pub output: Format,
    /// When to colour.
    #[arg(long, global = true, value_enum, default_value_t = Colour::Auto)]
    pub color: Colour,
    /// Use no character outside ASCII.
    #[arg(long, global = true)]
    pub ascii: bool,
    /// Exit with 3 when the news is bad.
    #[arg(long, global = true)]
    pub check: bool,
}

/// How to write an answer.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Format {
    /// For people.
    Table,
    /// For people with wide windows.
    Wide,
    /// As the API answers, indented.
    Json,
    /// One JSON object per line.
    Jsonl,
    /// Comma-separated values with a header.
    Csv,
    /// Names only, one per line.
    Name,
}

/// When to colour.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Colour {
    /// On a terminal, unless NO_COLOR is set.
    Auto,
    /// Always.
    Always,
    /// Never.
    Never,
}

/// The commands.
#[derive(Debug, Subcommand)]
pub enum Command {
    /// What matters most now, in one sentence and its facts.
    Status,
    /// What is at fault: agents, hosts, regions, links; since when, and who sees it.
    Faults,
    /// What routers tell of the prefixes that regions are reached by.
    Bgp {
        /// What of it.
        #[command(subcommand)]
        command: BgpCommand,
    },
    /// The network as a whole.
    Graph {
        /// What of it.
        #[command(subcommand)]
        command: GraphCommand,
    },
    /// One link, both directions, with its recent windows; or what it did over a span of time.
    Link {
        /// Whose agents measure.
        from: RegionId,
        /// Whom they measure.
        to: RegionId,
        /// What it did over the last 6h, 2d, …: loss and round-trip times point by point, exactly.
        #[arg(long, value_name = "SPAN", value_parser = span)]
        history: Option<Span>,
        /// How long a point is, like 1s, 1m or 1h; a length that gives about 30 points if left out.
        #[arg(long, value_name = "SPAN", value_parser = span, requires = "history")]
        step: Option<Span>,
        /// Until when: RFC 3339, or a span before now like -1d.
        #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, requires = "history")]
        until: Option<When>,
    },
    /// Make a copy of the aggregator's store, as it is now.
    Backup(BackupOptions),
    /// The route of a link, traced now by an agent: hops, loss, round-trip times, the largest packet.
    Trace(TraceOptions),
    /// How much a link carries, measured now by an agent: three quantities, each with its method, bounds and cost.
    Bandwidth(BandwidthOptions),
    /// The regions.
    Region {
        /// What of them.
        #[command(subcommand)]
        command: RegionCommand,
    },
    /// The agents.
    Agent {
        /// What of them.
        #[command(subcommand)]
        command: AgentCommand,
    },
    /// What changes, as it changes: decisions, refusals, regions, doubts.
    Watch(WatchOptions),
    /// A decision with the whole evidence that it was taken on.
    Explain {
        /// The decision's number, as `leeward failover history` lists it.
        decision: u64,
    },
    /// Where a region fails over to, and why.
    Failover {
        /// What of it.
        #[command(subcommand)]
        command: FailoverCommand,
    },
    /// Services: what runs somewhere, and where it should.
    #[command(visible_alias = "services")]
    Service {
        /// What to do.
        #[command(subcommand)]
        command: ServiceCommand,
    },
    /// What regions offer, what is set aside, and what is left.
    Capacity {
        /// What to do; `ls` if left out.
        #[command(subcommand)]
        command: Option<CapacityCommand>,
    },
    /// Let nothing be placed in a region, and let what is there leave it.
    Drain {
        /// The region.
        region: RegionId,
        /// It is drained for a fault that regions of its risk groups may share: avoid these too.
        #[arg(long)]
        suspect: bool,
        /// Why and until when.
        #[command(flatten)]
        terms: Terms,
    },
    /// Keep a service, or what stands in for a primary region, in a region whatever happens.
    Pin {
        /// The region.
        region: RegionId,
        /// Whose selection.
        #[command(flatten)]
        owner: OwnerOptions,
        /// Why and until when.
        #[command(flatten)]
        terms: Terms,
    },
    /// Keep a service, or what stands in for a primary region, out of a region.
    Forbid {
        /// The region.
        region: RegionId,
        /// Whose selection.
        #[command(flatten)]
        owner: OwnerOptions,
        /// Why and until when.
        #[command(flatten)]
        terms: Terms,
    },
    /// Let nothing move: one service, what stands in for one primary region, or anything.
    Freeze {
        /// Only this service.
        #[arg(long)]
        service: Option<ServiceId>,
        /// Only what stands in for this region.
        #[arg(long, value_name = "REGION", conflicts_with = "service")]
        primary: Option<RegionId>,
        /// Why and until when.
        #[command(flatten)]
        terms: Terms,
    },
    /// What operators override.
    #[command(visible_alias = "overrides")]
    Override {
        /// What to do; `ls` if left out.
        #[command(subcommand)]
        command: Option<OverrideCommand>,
    },
    /// What would go where if these regions failed now: ask before the event.
    Placement {
        /// The regions that fail.
        #[arg(long, required = true, num_args = 1.., value_delimiter = ',', value_name = "REGION")]
        failed: Vec<RegionId>,
    },
    /// Whether services could run where they may, today.
    Readiness {
        /// Only this service.
        service: Option<ServiceId>,
        /// Only in this region.
        region: Option<RegionId>,
        /// What changed lately instead, newest first, at most so many.
        #[arg(long, value_name = "COUNT", num_args = 0..=1, default_missing_value = "50")]
        history: Option<u32>,
        /// What agents of other regions find when they ask the services for an answer.
        #[arg(long, conflicts_with = "history")]
        checks: bool,
    },
    /// Who did what and why.
    Audit {
        /// What to do; `ls` if left out.
        #[command(subcommand)]
        command: Option<AuditCommand>,
    },
    /// Measurements that others inject.
    Signal {
        /// What to do.
        #[command(subcommand)]
        command: SignalCommand,
    },
    /// The policy in force, and a shadow that only records what it would do.
    #[command(visible_alias = "policies")]
    Policy {
        /// What to do; `show` if left out.
        #[command(subcommand)]
        command: Option<PolicyCommand>,
    },
    /// What was decided, decided again from the journal; or what another policy would have decided.
    Replay(ReplayOptions),
    /// Run a scenario in virtual time, without any server; or with --live on the aggregator's state, in isolation.
    Simulate(SimulateOptions),
    /// Configuration files.
    Config {
        /// What to do.
        #[command(subcommand)]
        command: ConfigCommand,
    },
    /// Certificates of an installation.
    Pki {
        /// What to do.
        #[command(subcommand)]
        command: PkiCommand,
    },
    /// Tokens of the API.
    Token {
        /// What to do.
        #[command(subcommand)]
        command: TokenCommand,
    },
    /// Write completions for a shell to stdout.
    Completions {
        /// Which shell.
        #[arg(value_enum)]
        shell: clap_complete::Shell,
    },
    /// Write the manual page to stdout, or one page per command to a directory.
    Man {
        /// Where to write the pages.
        #[arg(long, value_name = "DIR")]
        directory: Option<PathBuf>,
    },
    /// Help on a command or a topic: exit-codes, environment.
    Help {
        /// The command or topic.
        topic: Vec<String>,
    },
}

/// What `leeward bandwidth` measures.
#[derive(Args, Debug)]
pub struct BandwidthOptions {
    /// Whose agent measures.
    pub from: RegionId,
    /// Whom it measures.
    pub to: RegionId,
    /// By a heavy test: 2 seconds and 125 MB at most, if the files of both agents allow it.
    #[arg(long)]
    pub heavy: bool,
    /// How long to wait for it; an agent's budget may make it wait.
    #[arg(long, value_name = "SPAN", default_value = "60s", value_parser = span)]
    pub wait: Span,
}

/// `leeward trace …`
#[derive(Debug, Args)]
pub struct TraceOptions {
    /// Whose agent traces.
    pub from: RegionId,
    /// To which region.
    pub to: RegionId,
    /// By which probes: icmp, tcp_syn or stamp; of those that measure the link the first if left out.
    #[arg(long, value_parser = probe_kind)]
    pub kind: Option<ProbeKind>,
    /// Which agent; any that is connected if left out.
    #[arg(long)]
    pub agent: Option<AgentId>,
    /// Do not look for the largest packet that comes through.
    #[arg(long)]
    pub no_mtu: bool,
    /// The route as it was traced last, without a new trace.
    #[arg(long, conflicts_with_all = ["kind", "agent", "no_mtu"])]
    pub last: bool,
    /// What changed between the last two traces, without a new one.
    #[arg(long, conflicts_with_all = ["kind", "agent", "no_mtu", "last"])]
    pub changes: bool,
}

fn probe_kind(text: &str) -> Result<ProbeKind, String> {
    let kinds = ProbeKind::ALL;
    let known = kinds.into_iter().find(|kind| kind.as_str() == text);
    known.ok_or_else(|| format!("use one of {}", kinds.map(ProbeKind::as_str).join(", ")))
}

/// `leeward bgp …`
#[derive(Debug, Subcommand)]
pub enum BgpCommand {
    /// Watched prefixes: who sees them, and what happened to them.
    Prefixes,
    /// Feeds: whether they can be believed, and what they said.
    Peers,
    /// By which prefixes regions are reached: those that agents watch.
    Reach {
        /// What to change about it; absent to show it.
        #[command(subcommand)]
        command: Option<ReachCommand>,
    },
    /// What happened to prefixes and feeds, newest first.
    Events {
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
}

/// `leeward bgp reach …`
#[derive(Debug, Subcommand)]
pub enum ReachCommand {
    /// A region is reached by these prefixes, whatever the configuration says.
    Set {
        /// The region.
        region: RegionId,
        /// A prefix, like 198.51.100.0/24; may be repeated.
        #[arg(long = "prefix", value_name = "PREFIX", required = true)]
        prefixes: Vec<Prefix>,
        /// A system that may announce them and their parts; may be repeated.
        #[arg(long = "origin", value_name = "AS")]
        origins: Vec<u32>,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Back to what the configuration says, or to what agents learn.
    Unset {
        /// The region.
        region: RegionId,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// `leeward graph …`
#[derive(Debug, Subcommand)]
pub enum GraphCommand {
    /// Every link as a matrix: row to column.
    Matrix {
        /// What each cell shows.
        #[arg(long, value_enum, default_value_t = By::Latency)]
        by: By,
    },
    /// The best ways between regions; without a region, where a relay would be better.
    Routes {
        /// Only from this region.
        from: Option<RegionId>,
        /// Only to this region.
        to: Option<RegionId>,
    },
}

/// What a cell of the matrix shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum By {
    /// Median round-trip time, milliseconds.
    Latency,
    /// 99th percentile of the round-trip time, milliseconds.
    P99,
    /// 99th percentile minus minimum, milliseconds.
    Jitter,
    /// Packet loss, percent.
    Loss,
    /// Network weight, 0 to 1, higher is better.
    Weight,
}

/// `leeward region …`
#[derive(Debug, Subcommand)]
pub enum RegionCommand {
    /// All regions.
    Ls,
    /// One region.
    Show {
        /// Which.
        region: RegionId,
    },
}

/// `leeward agent …`
#[derive(Debug, Subcommand)]
pub enum AgentCommand {
    /// All agents.
    Ls,
    /// One agent.
    Show {
        /// Which.
        agent: AgentId,
    },
}

/// `leeward failover …`
#[derive(Debug, Subcommand)]
pub enum FailoverCommand {
    /// The candidates, best first; without a region one line for each.
    Rank {
        /// The region to fail over from.
        primary: Option<RegionId>,
        /// Judge these candidates now instead of the configured ones, without remembering it.
        #[arg(
            long,
            value_name = "REGION,…",
            value_delimiter = ',',
            requires = "primary"
        )]
        candidates: Vec<RegionId>,
        /// Multiplier of a candidate's baseline weight; only with --candidates.
        #[arg(long, value_name = "REGION=FACTOR", value_parser = factor, requires = "candidates")]
        weight: Vec<(RegionId, f64)>,
    },
    /// What makes up each candidate's score.
    Explain {
        /// The region to fail over from.
        #[arg(required_unless_present = "service", conflicts_with = "service")]
        primary: Option<RegionId>,
        /// The service, where it is one's that is asked for.
        #[arg(long)]
        service: Option<ServiceId>,
    },
    /// What was not done, newest first: moves that wait, and doubts that were ruled out.
    Hesitations {
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// What was decided, newest first.
    History {
        /// Only for this region.
        primary: Option<RegionId>,
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
}

/// `leeward service …`
#[derive(Debug, Subcommand)]
pub enum ServiceCommand {
    /// Every service on one line.
    #[command(alias = "list")]
    Ls,
    /// One service as it is defined.
    Show {
        /// Which.
        service: ServiceId,
    },
    /// Define the services of a file, or replace them.
    Put {
        /// A file of definitions with one or more [[service]].
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Remove a service.
    Delete {
        /// Which.
        service: ServiceId,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Where a service should run now, and why.
    Failover {
        /// Which.
        service: ServiceId,
    },
}

/// `leeward capacity …`
#[derive(Debug, Subcommand)]
pub enum CapacityCommand {
    /// What each region offers, and what is taken of it.
    #[command(alias = "list")]
    Ls,
    /// A region offers capacity.
    Offer(AmountOptions),
    /// Set capacity aside.
    Reserve {
        /// For this service; for somebody outside if left out.
        #[arg(long)]
        service: Option<ServiceId>,
        /// What and where.
        #[command(flatten)]
        amounts: AmountOptions,
    },
    /// Withdraw an offer or give up a reservation.
    Release {
        /// Which.
        id: String,
        /// It is an offer, not a reservation.
        #[arg(long)]
        offer: bool,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// Capacity of a region.
#[derive(Args, Debug)]
pub struct AmountOptions {
    /// Under which id.
    pub id: String,
    /// Where.
    #[arg(long)]
    pub region: RegionId,
    /// How much; may be repeated.
    #[arg(long = "amount", value_name = "RESOURCE=NUMBER", value_parser = amount, required = true)]
    pub amounts: Vec<(ResourceId, f64)>,
    /// For how long; a reservation needs this or --until.
    #[arg(long = "for", value_name = "SPAN", value_parser = span, conflicts_with = "until")]
    pub lasting: Option<Span>,
    /// Until when.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<leeward_common::time::Timestamp>,
    /// Why, for the audit log.
    #[arg(long, default_value = "")]
    pub why: String,
    /// How.
    #[command(flatten)]
    pub how: How,
}

/// Whose selection.
#[derive(Args, Debug)]
#[group(required = true, multiple = false)]
pub struct OwnerOptions {
    /// A service's.
    #[arg(long)]
    pub service: Option<ServiceId>,
    /// What stands in for this region.
    #[arg(long, value_name = "REGION")]
    pub primary: Option<RegionId>,
}

/// Why and until when somebody overrides.
#[derive(Args, Debug)]
pub struct Terms {
    /// Why: whoever is paged next reads it.
    #[arg(long)]
    pub why: String,
    /// For how long …
    #[arg(long = "for", value_name = "SPAN", value_parser = span, conflicts_with = "until", required_unless_present = "until")]
    pub lasting: Option<Span>,
    /// … or until when.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub until: Option<leeward_common::time::Timestamp>,
    /// Under this id, which is renewed if it is there; one of the aggregator's choosing if left out.
    #[arg(long)]
    pub id: Option<OverrideId>,
    /// Only show what would be sent.
    #[arg(long)]
    pub dry_run: bool,
}

/// How a change is made.
#[derive(Args, Debug)]
pub struct How {
    /// Only if nobody changed it since this version.
    #[arg(long, value_name = "VERSION")]
    pub if_version: Option<u64>,
    /// Only show what would be sent.
    #[arg(long)]
    pub dry_run: bool,
}

/// `leeward override …`
#[derive(Debug, Subcommand)]
pub enum OverrideCommand {
    /// The overrides in force.
    #[command(alias = "list")]
    Ls,
    /// One override.
    Show {
        /// Which.
        id: OverrideId,
    },
    /// Lift an override before it expires.
    Lift {
        /// Which.
        id: OverrideId,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// `leeward policy …`
#[derive(Debug, Subcommand)]
pub enum PolicyCommand {
    /// How the shadow stands and where it differs; or one policy whole, with every default spelt out.
    Show {
        /// Which.
        #[arg(value_enum)]
        which: Option<Which>,
    },
    /// The shadow: a policy that is followed beside the one in force and decides nothing.
    Shadow {
        /// What to do.
        #[command(subcommand)]
        command: ShadowCommand,
    },
    /// What both policies were worth over the same time, and where they differed.
    Scoreboard,
}

/// One of two policies.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum Which {
    /// The one in force.
    Current,
    /// The shadow.
    Shadow,
}

/// `leeward policy shadow …`
#[derive(Debug, Subcommand)]
pub enum ShadowCommand {
    /// Set the shadow, or replace it.
    Set {
        /// The policy sections of an aggregator.toml, or a whole one.
        #[arg(value_name = "FILE")]
        file: PathBuf,
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
    /// Remove it.
    Clear {
        /// Why, for the audit log.
        #[arg(long, default_value = "")]
        why: String,
        /// How.
        #[command(flatten)]
        how: How,
    },
}

/// `leeward audit …`
#[derive(Debug, Subcommand)]
pub enum AuditCommand {
    /// What was done lately, newest first.
    #[command(alias = "list")]
    Ls {
        /// At most so many.
        #[arg(short = 'n', long, default_value_t = 20)]
        limit: u32,
    },
    /// Check that nothing was changed, removed or reordered.
    Verify {
        /// An export instead of the aggregator's log.
        #[arg(long, value_name = "FILE")]
        file: Option<PathBuf>,
        /// The hash with which the log must end, as it was noted elsewhere.
        #[arg(long, value_name = "HASH", value_parser = hash)]
        head: Option<[u8; 32]>,
    },
    /// Write the whole log to stdout, one JSON object per line, oldest first.
    Export,
}

/// `leeward watch`
#[derive(Args, Debug)]
pub struct WatchOptions {
    /// Only what is about this primary region.
    #[arg(long, value_name = "REGION", conflicts_with = "service")]
    pub primary: Option<RegionId>,
    /// Only what is about this service.
    #[arg(long)]
    pub service: Option<ServiceId>,
    /// Go on after this event, as `-o json` shows its id.
    #[arg(long, value_name = "ID")]
    pub since: Option<String>,
    /// End after so many events.
    #[arg(short = 'n', long, value_name = "COUNT")]
    pub limit: Option<u64>,
}

/// `leeward signal …`
#[derive(Debug, Subcommand)]
pub enum SignalCommand {
    /// Inject a measurement about a region or a link.
    Push(Box<PushOptions>),
    /// The signals in force.
    Ls,
}

/// `leeward signal push`
#[derive(Args, Debug)]
pub struct PushOptions {
    /// Who says so: a source of the aggregator's configuration.
    #[arg(long)]
    pub source: SourceId,
    /// About this region …
    #[arg(long, conflicts_with_all = ["from", "to"], required_unless_present_all = ["from", "to"])]
    pub region: Option<RegionId>,
    /// … or about the link that begins here …
    #[arg(long, requires = "to")]
    pub from: Option<RegionId>,
    /// … and ends here.
    #[arg(long, requires = "from")]
    pub to: Option<RegionId>,
    /// About this service as it is in the region.
    #[arg(long, requires = "region")]
    pub service: Option<ServiceId>,
    /// Which measure.
    #[arg(long, value_enum)]
    pub metric: MetricName,
    /// In the metric's unit.
    #[arg(long, allow_negative_numbers = true)]
    pub value: f64,
    /// When it was observed; now if left out.
    #[arg(long, value_name = "TIME", value_parser = time)]
    pub observed_at: Option<leeward_common::time::Timestamp>,
    /// For how long it counts.
    #[arg(long, value_name = "SPAN", value_parser = span)]
    pub ttl: Span,
    /// Makes a repetition harmless.
    #[arg(long, value_name = "KEY")]
    pub idempotency_key: Option<String>,
    /// Only show what would be sent.
    #[arg(long)]
    pub dry_run: bool,
}

/// What a signal measures.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum MetricName {
    /// 0 to 1; 1 is neutral, lower is worse.
    #[value(name = "health")]
    Health,
    /// Microseconds; links only.
    #[value(name = "latency_us")]
    LatencyUs,
    /// 0 to 1; links only.
    #[value(name = "loss_ratio")]
    LossRatio,
    /// Bits per second; links only.
    #[value(name = "bandwidth_bps")]
    BandwidthBps,
    /// Microseconds; of a region, or of a service in one.
    #[value(name = "replication_lag_us")]
    ReplicationLagUs,
}

/// `leeward replay`
#[derive(Args, Debug)]
pub struct ReplayOptions {
    /// From when on: 2026-11-20T03:12:11Z, or -2h before now.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    pub from: When,
    /// Until when; now if left out.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true)]
    pub to: Option<When>,
    /// What this policy would have done instead: the policy sections of an aggregator.toml, or a whole one.
    #[arg(long, value_name = "FILE")]
    pub policy: Option<PathBuf>,
}

/// `leeward simulate`
#[derive(Args, Debug)]
pub struct SimulateOptions {
    /// The scenario; with --live its timeline only.
    #[arg(value_name = "FILE", required_unless_present = "live")]
    pub scenario: Option<PathBuf>,
    /// Go on from the aggregator's live state, in isolation.
    #[arg(long)]
    pub live: bool,
    /// What happens, like "10s region_down=virginia" or "link=a->b loss=8%"; may be repeated.
    #[arg(long, value_name = "EVENT", value_parser = crate::live::event, requires = "live")]
    pub event: Vec<SimulationEvent>,
    /// For how long, in virtual time.
    #[arg(long = "for", value_name = "SPAN", value_parser = span, requires = "live")]
    pub duration: Option<Span>,
    /// From the state of then: 2026-11-20T03:12:11Z, or -2h before now.
    #[arg(long, value_name = "TIME", value_parser = When::parse, allow_hyphen_values = true, requires = "live")]
    pub at: Option<When>,
    /// Another seed than the scenario's.
    #[arg(long)]
    pub seed: Option<u64>,
}

/// `leeward config …`
#[derive(Debug, Subcommand)]
pub enum ConfigCommand {
    /// Say whether files are valid, and if not where and what to do.
    Check {
        /// agent.toml, aggregator.toml, a scenario or a file of definitions.
        #[arg(required = true, value_name = "FILE")]
        files: Vec<PathBuf>,
        /// What the files are; told by their contents if left out.
        #[arg(long, value_enum)]
        kind: Option<ConfigKind>,
    },
}

/// What a configuration file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub enum ConfigKind {
    /// An agent's.
    Agent,
    /// An aggregator's.
    Aggregator,
    /// A scenario.
    Scenario,
    /// A file of services, offers, reservations and overrides.
    Definitions,
}

/// `leeward pki …`
#[derive(Debug, Subcommand)]
pub enum PkiCommand {
    /// Make a certificate authority: DIR/ca.pem and DIR/ca.key.
    Init {
        /// Where.
        #[arg(value_name = "DIR")]
        directory: PathBuf,
        /// For how many days it is valid.
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u32).range(1..=36_500))]
        days: u32,
    },
    /// Make a certificate.
    Issue {
        /// For whom.
        #[command(subcommand)]
        command: IssueCommand,
    },
}

/// `leeward pki issue …`
#[derive(Debug, Subcommand)]
pub enum IssueCommand {
    /// For an agent: DIR/agent-ID.pem and .key.
    Agent {
        /// The region that it stands in.
        #[arg(long, value_parser = pki::region)]
        region: RegionId,
        /// Its id, unique among all agents.
        #[arg(long, value_name = "AGENT")]
        id: AgentId,
        /// Where, and for how long.
        #[command(flatten)]
        files: IssueFiles,
    },
    /// For an aggregator: DIR/aggregator-NAME.pem and .key.
    Aggregator {
        /// Its name.
        #[arg(long, value_parser = pki::aggregator_name)]
        name: AgentId,
        /// A DNS name or address under which it is reached; may be repeated.
        #[arg(long = "host", required = true, value_name = "HOST")]
        hosts: Vec<Host>,
        /// Where, and for how long.
        #[command(flatten)]
        files: IssueFiles,
    },
}

/// Where a certificate is written, and for how long it is valid.
#[derive(Args, Debug)]
pub struct IssueFiles {
    /// The directory that `leeward pki init` made.
    #[arg(long = "dir", value_name = "DIR")]
    pub directory: PathBuf,
    /// For how many days it is valid.
    #[arg(long, default_value_t = 365, value_parser = clap::value_parser!(u32).range(1..=36_500))]
    pub days: u32,
}

/// `leeward backup …`
#[derive(Args, Debug)]
#[command(args_conflicts_with_subcommands = true)]
pub struct BackupOptions {
    /// What to do instead.
    #[command(subcommand)]
    pub command: Option<BackupCommand>,
    /// Why, for the audit log.
    #[arg(long, default_value = "")]
    pub why: String,
    /// How many are kept, this one among them; the oldest beyond are removed.
    #[arg(long, value_name = "COUNT", default_value_t = 7)]
    pub keep: u32,
    /// Show what would be sent, and send nothing.
    #[arg(long)]
    pub dry_run: bool,
}

/// `leeward backup ls`
#[derive(Debug, Subcommand)]
pub enum BackupCommand {
    /// Which are there.
    Ls,
}

/// `leeward token …`
#[derive(Debug, Subcommand)]
pub enum TokenCommand {
    /// Make a token: the token for its holder, its SHA-256 for aggregator.toml.
    New,
}

fn span(text: &str) -> Result<Span, String> {
    humantime::parse_duration(text)
        .map(Span)
        .map_err(|_| "write a number with its unit, like 250ms, 10s or 1h".to_owned())
}

fn amount(text: &str) -> Result<(ResourceId, f64), String> {
    let (resource, amount) = text
        .split_once('=')
        .ok_or("write RESOURCE=NUMBER, like vcpu=64")?;
    let resource = ResourceId::parse(resource).map_err(|error| error.to_string())?;
    match amount.parse::<f64>() {
        Ok(amount) if amount.is_finite() && amount >= 0.0 => Ok((resource, amount)),
        _ => Err(format!(
            "{amount:?} is not an amount; use a number of 0 or more"
        )),
    }
}

fn hash(text: &str) -> Result<[u8; 32], String> {
    audit::parse_hex(text).ok_or_else(|| "a hash has 64 hexadecimal digits".to_owned())
}

fn time(text: &str) -> Result<leeward_common::time::Timestamp, String> {
    leeward_common::time::Timestamp::parse_rfc3339(text)
        .map_err(|error| format!("{error}; write a time like 2026-11-20T03:12:11Z"))
}

fn factor(text: &str) -> Result<(RegionId, f64), String> {
    let (region, factor) = text
        .split_once('=')
        .ok_or("write REGION=FACTOR, like oregon=1.5")?;
    let region = RegionId::parse(region).map_err(|error| error.to_string())?;
    match factor.parse::<f64>() {
        Ok(factor) if factor.is_finite() && factor > 0.0 => Ok((region, factor)),
        _ => Err(format!("{factor:?} is not a factor; use a number above 0")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line_is_well_formed() {
        Cli::command().debug_assert();
    }

    #[test]
    fn a_factor_is_above_zero() {
        assert!(factor("oregon=1.5").is_ok());
        for text in [
            "oregon",
            "oregon=0",
            "oregon=-1",
            "oregon=NaN",
            "oregon=inf",
            "OR=1",
        ] {
            assert!(factor(text).is_err(), "{text}");
        }
    }
}
