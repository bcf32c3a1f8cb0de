//! What routers cost: UPDATEs per core, a burst of a million withdrawals beside a prober, memory with watched prefixes and with a
//! full table, how soon a score follows an UPDATE, and how often the link that failed is named.
//!
//! Everything runs on loopback. The peer is one of our own making that says exactly what is to be measured. `--data DIR` replays the
//! recordings in a folder too.

use std::path::PathBuf;

use clap::Parser;
use leeward_benches::{
    bgp::{ingest, installed, live, names},
    figure::Figures,
};

#[derive(Parser)]
struct Options {
    /// A folder with recordings (MRT).
    #[arg(long)]
    data: Option<PathBuf>,
    /// Only one part: ingest, names, burst, memory or latency.
    #[arg(long)]
    only: Option<String>,
    /// One JSON object per line instead of a table.
    #[arg(long)]
    json: bool,
}

fn main() -> anyhow::Result<()> {
    let options = Options::parse();
    let mut figures = Figures::new("bgp");
    let is_wanted = |part: &str| options.only.as_deref().is_none_or(|only| only == part);
    if is_wanted("ingest") {
        ingest::measure(&mut figures, options.data.as_deref())?;
    }
    if is_wanted("names") {
        names::measure(&mut figures);
    }
    if is_wanted("burst") {
        live::burst(&mut figures)?;
    }
    if is_wanted("memory") {
        installed::memory(&mut figures)?;
    }
    if is_wanted("latency") {
        installed::latency(&mut figures)?;
    }
    figures.print();
    Ok(())
}
